//! Curves as an SVG, written by hand, since a library for charts changes features of Burn's
//! dependencies, which are then all built again.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A named curve: x and y.
pub type Curve = (&'static str, Vec<(f64, f64)>);

// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [&str; 4] = ["#0072B2", "#D55E00", "#009E73", "#000000"];

/// Where the picture goes: the path behind `--plot`, if there is one.
pub fn plot_path() -> Option<PathBuf> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--plot");
    arguments.nth(1).map(PathBuf::from)
}

/// Draws curves side by side, a panel for each list behind the names of its axes.
pub fn draw(path: &PathBuf, title: &str, panels: &[(&str, &str, &[Curve])]) -> Result<()> {
    let (width, height) = (480 * panels.len(), 400);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"14\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"28\" font-size=\"18\" text-anchor=\"middle\">{title}</text>\n",
        width / 2
    );
    for (i, (x_name, y_name, curves)) in panels.iter().enumerate() {
        writeln!(svg, "<g transform=\"translate({} 0)\">", 480 * i)?;
        panel(&mut svg, x_name, y_name, curves)?;
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    std::fs::write(path, svg)?;
    println!("drawn to {}", path.display());
    Ok(())
}

/// One chart: five marks on either axis, and the curves' names above it.
fn panel(svg: &mut String, x_name: &str, y_name: &str, curves: &[Curve]) -> Result<()> {
    let (left, right, top, bottom) = (74.0, 460.0, 90.0, 340.0);
    let points = || curves.iter().flat_map(|(_, points)| points);
    let bounds = |values: &dyn Fn(&(f64, f64)) -> f64| {
        let (low, high) = points()
            .map(values)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        (low, (high - low).max(1e-6))
    };
    let (x_low, x_span) = bounds(&|point| point.0);
    let (y_low, y_span) = bounds(&|point| point.1);
    let x = |value: f64| left + (right - left) * (value - x_low) / x_span;
    let y = |value: f64| bottom - (bottom - top) * (value - y_low) / y_span;
    for mark in 0..5 {
        let share = f64::from(mark) / 4.0;
        let (x_value, y_value) = (x_low + share * x_span, y_low + share * y_span);
        let (across, up) = (x(x_value), y(y_value));
        writeln!(svg, "<path d=\"M{left} {up:.1}H{right}\" stroke=\"#ddd\"/>")?;
        let digits = if y_span < 5.0 { 2 } else { 0 };
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{y_value:.digits$}</text>",
            left - 8.0,
            up + 5.0
        )?;
        let digits = if x_span < 16.0 { 1 } else { 0 };
        let at = bottom + 22.0;
        writeln!(svg, "<text x=\"{across:.1}\" y=\"{at}\" text-anchor=\"middle\">{x_value:.digits$}</text>")?;
    }
    for (i, (name, points)) in curves.iter().enumerate() {
        // The first curve is wide, so that one which lies on it can be seen to do so.
        let (colour, pen) = (COLOURS[i % COLOURS.len()], if i == 0 { 5 } else { 2 });
        let line: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let line = line.join(" ");
        writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{pen}\"/>")?;
        let (at, up) = (left + 150.0 * i as f64, top - 26.0);
        writeln!(svg, "<path d=\"M{at} {up}h20\" stroke=\"{colour}\" stroke-width=\"{pen}\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"{}\">{name}</text>", at + 26.0, up + 5.0)?;
    }
    let middle = 0.5 * (top + bottom);
    writeln!(svg, "<text x=\"267\" y=\"388\" text-anchor=\"middle\">{x_name}</text>")?;
    writeln!(svg, "<text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">{y_name}</text>")?;
    Ok(())
}
