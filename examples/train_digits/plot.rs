//! Curves of a training run as an SVG.

use crate::{Result, network::Score};
use plotters::prelude::*;
use std::path::Path;

// Two of Okabe and Ito's colours, told apart by colour-blind readers and in grey.
const TRAIN: RGBColor = RGBColor(0, 114, 178);
const TEST: RGBColor = RGBColor(213, 94, 0);

type Curve = fn(&Score) -> f32;

/// Writes loss and accuracy over the epochs to `path`.
pub fn draw(path: &Path, title: &str, scores: &[Score]) -> Result<()> {
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, (900, 1000)).into_drawing_area();
        page.fill(&WHITE)?;
        let page = page.margin(15, 0, 0, 0).titled(title, ("sans-serif", 26))?;
        let panels = page.split_evenly((2, 1));
        let loss: [Curve; 2] = [|score| score.train_loss, |score| score.test_loss];
        let accuracy: [Curve; 2] = [|score| 100.0 * score.train_accuracy, |score| 100.0 * score.test_accuracy];
        panel(&panels[0], "loss (cross-entropy)", scores, loss, None)?;
        panel(&panels[1], "accuracy (%)", scores, accuracy, Some(100.0))?;
        page.present()?;
    }
    std::fs::write(path, svg).map_err(|error| format!("--plot {}: {error}", path.display()).into())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// One chart; the axis ends at `top`, and else at 0 below.
fn panel(area: &Area, label: &str, scores: &[Score], curves: [Curve; 2], top: Option<f32>) -> Result<()> {
    let values = || scores.iter().flat_map(|score| curves.map(|curve| curve(score)));
    let low = values().fold(f32::INFINITY, f32::min);
    let high = values().fold(f32::NEG_INFINITY, f32::max);
    // Room around the curves; the least span keeps a flat curve drawable.
    let y = match top {
        Some(top) => low - 0.05 * (top - low).max(1.0)..top + 0.03 * (top - low).max(1.0),
        None => 0.0..1.05 * high.max(1e-3),
    };
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .x_label_area_size(60)
        .y_label_area_size(85)
        .build_cartesian_2d(1..scores.len().max(2), y)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(label)
        .axis_desc_style(("sans-serif", 22))
        .label_style(("sans-serif", 18))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .draw()?;
    for (curve, colour, name) in [(curves[0], TRAIN, "training"), (curves[1], TEST, "test")] {
        let points = (1..).zip(scores).map(|(epoch, score)| (epoch, curve(score)));
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(3)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 25, y)], colour.stroke_width(3)));
        chart.draw_series(points.map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    let corner = if top.is_some() { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight };
    chart
        .configure_series_labels()
        .position(corner)
        .margin(15)
        .legend_area_size(35)
        .label_font(("sans-serif", 20))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
