//! Curves of a training run as an SVG, written by hand: a library for charts would take longer to build than the demo
//! runs.

use super::{Result, network::Score};
use std::fmt::Write;
use std::path::Path;

// Two of Okabe and Ito's colours, which colour-blind readers can tell apart, also in grey.
const TRAIN: &str = "#0072B2";
const TEST: &str = "#D55E00";

/// The page, in pixels, and the part of a panel that the curves are drawn in. A panel is half a page high.
const WIDTH: f32 = 900.0;
const PANEL: f32 = 470.0;
const TITLE: f32 = 60.0;
const LEFT: f32 = 110.0;
const RIGHT: f32 = WIDTH - 30.0;
const TOP: f32 = 20.0;
const BOTTOM: f32 = PANEL - 90.0;

type Curve = fn(&Score) -> f32;

/// Writes loss and accuracy over the epochs to `path`.
pub fn draw(path: &Path, title: &str, scores: &[Score]) -> Result<()> {
    std::fs::write(path, svg(title, scores)?).map_err(|error| format!("--plot {}: {error}", path.display()).into())
}

fn svg(title: &str, scores: &[Score]) -> Result<String> {
    let height = TITLE + 2.0 * PANEL;
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"40\" font-size=\"26\" text-anchor=\"middle\">{title}</text>\n",
        WIDTH / 2.0
    );
    let loss: [Curve; 2] = [|score| score.train_loss, |score| score.test_loss];
    let accuracy: [Curve; 2] = [|score| 100.0 * score.train_accuracy, |score| 100.0 * score.test_accuracy];
    for (i, (label, curves, top)) in
        [("loss (cross-entropy)", loss, None), ("accuracy (%)", accuracy, Some(100.0))].into_iter().enumerate()
    {
        writeln!(svg, "<g transform=\"translate(0 {})\">", TITLE + i as f32 * PANEL)?;
        panel(&mut svg, label, scores, curves, top)?;
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// One chart. Where `top` is given, the axis ends there, and it begins below the lowest value; else it begins at 0.
fn panel(svg: &mut String, label: &str, scores: &[Score], curves: [Curve; 2], top: Option<f32>) -> Result<()> {
    let values = || scores.iter().flat_map(|score| curves.map(|curve| curve(score)));
    let low = values().fold(f32::INFINITY, f32::min);
    let high = values().fold(f32::NEG_INFINITY, f32::max);
    // Leaves room around the curves. The least span keeps a flat curve drawable.
    let y = match top {
        Some(top) => [low - 0.05 * (top - low).max(1.0), top + 0.03 * (top - low).max(1.0)],
        None => [0.0, 1.05 * high.max(1e-3)],
    };
    let x = [1.0, scores.len().max(2) as f32];
    let across = |epoch: f32| LEFT + (epoch - x[0]) / (x[1] - x[0]) * (RIGHT - LEFT);
    let up = |value: f32| BOTTOM - (value - y[0]) / (y[1] - y[0]) * (BOTTOM - TOP);
    for (epoch, digits) in ticks(x, 1.0) {
        let at = across(epoch);
        writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#D9D9D9\"/>\
             <text x=\"{at:.1}\" y=\"{}\" font-size=\"18\" text-anchor=\"middle\">{epoch:.digits$}</text>",
            BOTTOM + 25.0
        )?;
    }
    for (value, digits) in ticks(y, 0.0) {
        let at = up(value);
        writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#D9D9D9\"/>\
             <text x=\"{}\" y=\"{:.1}\" font-size=\"18\" text-anchor=\"end\">{value:.digits$}</text>",
            LEFT - 10.0,
            at + 6.0
        )?;
    }
    let middle = (TOP + BOTTOM) / 2.0;
    writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{}\" y=\"{}\" font-size=\"22\" text-anchor=\"middle\">epoch</text>\n\
         <text transform=\"translate(35 {middle}) rotate(-90)\" font-size=\"22\" text-anchor=\"middle\">{label}</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 60.0
    )?;
    // The key stands where the fewest curves end: below accuracies that rise, above losses that fall.
    let key = if top.is_some() { BOTTOM - 75.0 } else { TOP + 15.0 };
    for (i, (curve, colour, name)) in
        [(curves[0], TRAIN, "training"), (curves[1], TEST, "test")].into_iter().enumerate()
    {
        let points = scores.iter().enumerate().map(|(i, score)| (across(i as f32 + 1.0), up(curve(score))));
        let line: Vec<_> = points.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            line.join(" ")
        )?;
        for (x, y) in points {
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>")?;
        }
        let (x, y) = (RIGHT - 150.0, key + 15.0 + 30.0 * i as f32);
        writeln!(
            svg,
            "<path d=\"M{x} {y}h30\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\" font-size=\"20\">{name}</text>",
            x + 40.0,
            y + 7.0
        )?;
    }
    Ok(())
}

/// Returns five to ten round numbers for an axis, at least `least` apart, and how many digits they have behind the
/// point.
fn ticks([low, high]: [f32; 2], least: f32) -> Vec<(f32, usize)> {
    let rough = (high - low) / 10.0;
    let power = 10f32.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|step| *step >= 0.999 * rough).unwrap_or(rough);
    let step = step.max(least);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| (i as f32 * step, digits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(ticks([1.0, 30.0], 1.0), [5.0, 10.0, 15.0, 20.0, 25.0, 30.0].map(|at| (at, 0)));
        assert_eq!(ticks([1.0, 2.0], 1.0), [(1.0, 0), (2.0, 0)]);
        let fine = ticks([0.0, 0.5], 0.0);
        assert_eq!((fine.len(), fine[1].1), (11, 2));
        assert!(ticks([81.3, 100.5], 0.0).iter().all(|&(at, digits)| (81.3..100.5).contains(&at) && digits == 0));
    }

    #[test]
    fn every_score_is_a_point_of_each_curve() {
        let score = |i: f32| Score {
            train_loss: 1.0 / i,
            test_loss: 1.5 / i,
            train_accuracy: 1.0 - 0.5 / i,
            test_accuracy: 1.0 - 0.6 / i,
        };
        for epochs in [1usize, 2, 300] {
            let scores: Vec<_> = (1..=epochs).map(|i| score(i as f32)).collect();
            let svg = svg("a < b & c", &scores).unwrap();
            assert!(svg.contains(">a &lt; b &amp; c</text>") && svg.ends_with("</svg>\n"));
            assert_eq!(svg.matches("<circle").count(), 4 * epochs);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
