//! What the examples share: curves as a picture, numbers of a device.

use std::error::Error;
use std::path::PathBuf;

use plotters::prelude::*;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A named curve: x and y.
pub type Curve = (&'static str, Vec<(f64, f64)>);

// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 4] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(0, 0, 0)];

/// Where the picture goes: the path behind `--plot`, if there is one.
pub fn plot_path() -> Option<PathBuf> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--plot");
    arguments.nth(1).map(PathBuf::from)
}

/// Draws curves side by side, a panel for each list, with the names of their axes.
pub fn draw(path: &PathBuf, title: &str, panels: &[(&str, &str, &[Curve])]) -> Result<()> {
    let page = SVGBackend::new(path, (480 * panels.len() as u32, 400)).into_drawing_area();
    page.fill(&WHITE)?;
    let page = page.titled(title, ("sans-serif", 20))?;
    for ((x_name, y_name, curves), area) in panels.iter().zip(page.split_evenly((1, panels.len()))) {
        let points = || curves.iter().flat_map(|(_, points)| points);
        let last = points().map(|point| point.0).fold(0.0, f64::max);
        let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        let room = 0.05 * (high - low).max(1e-6);
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..last, low - room..high + room)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(*x_name)
            .y_desc(*y_name)
            .label_style(("sans-serif", 14))
            .draw()?;
        for (i, (name, points)) in curves.iter().enumerate() {
            // The first curve is wide, so that one which lies on it can be seen to do so.
            let style = COLOURS[i % COLOURS.len()].stroke_width(if i == 0 { 5 } else { 2 });
            let series = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            series.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 14))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    page.present()?;
    println!("drawn to {}", path.display());
    Ok(())
}
