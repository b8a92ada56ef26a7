//! Draws a fit of three peaks to a measured curve, and the loss of L-BFGS and Adam by evaluations.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin fit -- --out target/pictures`

use clap::Parser;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::process::ExitCode;
use wgpu_optim::{Adam, Gpu, Lbfgs, LineSearch};
use wgpu_optim_pictures::draw;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, pen, text};

#[path = "../../../../examples/fit/curve.rs"]
mod curve;

use curve::{Fit, Spectrum, height, samples};

/// Draws the fit.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    out: Out,
}

/// Evaluations that Adam may make.
const STEPS: usize = 5000;

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let spectrum = Spectrum::new(&Gpu::request_blocking()?);
    let rule = Lbfgs {
        line_search: LineSearch::StrongWolfe,
        history_size: 10,
        max_iter: 200,
        tolerance_grad: 1e-6,
        ..Lbfgs::default()
    };
    let mut fits = vec![("L-BFGS".to_string(), spectrum.search(rule, STEPS)?.0)];
    for lr in [0.001, 0.01, 0.1] {
        fits.push((format!("Adam, lr {lr}"), spectrum.descend(Adam { lr, ..Adam::default() }, STEPS)?));
    }
    options.out.save("fit", (1600, 640), |page| {
        let (left, right) = page.margin(10, 10, 10, 10).split_horizontally(760);
        draw_curve(&left, &fits[0].1)?;
        draw_losses(&right, &fits)
    })
}

/// What was measured, and the model that was fitted.
fn draw_curve(area: &Area, fit: &Fit) -> Result<()> {
    area.draw(&Text::new("three peaks on a slope", (400, 26), anchored(28, HPos::Center)))?;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(52)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0f32..1f32, 0f32..1.5f32)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).label_style(text(24)).x_labels(6).y_labels(6).draw()?;
    let points = samples().into_iter().map(|[x, y]| Circle::new((x, y), 4, RGBColor(150, 150, 150).filled()));
    chart.draw_series(points)?;
    let at = (0..=400).map(|i| i as f32 / 400.0);
    chart.draw_series(LineSeries::new(at.map(|x| (x, height(&fit.model, x))), pen(0)))?;
    Ok(())
}

/// The least loss so far by evaluations, both in decades.
fn draw_losses(area: &Area, fits: &[(String, Fit)]) -> Result<()> {
    area.draw(&Text::new("least loss by evaluations", (400, 26), anchored(28, HPos::Center)))?;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(52)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d((1f32..STEPS as f32).log_scale(), (1e-4f32..1e-1f32).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(text(24))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .draw()?;
    for (i, (name, fit)) in fits.iter().enumerate() {
        let best = fit.losses.iter().scan(f32::INFINITY, |best, &loss| {
            *best = best.min(loss);
            Some(*best)
        });
        let points = best.enumerate().map(|(i, loss)| ((i + 1) as f32, loss));
        chart
            .draw_series(LineSeries::new(points, pen(i)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 40, y)], pen(i)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(50)
        .label_font(text(24))
        .background_style(WHITE)
        .draw()?;
    Ok(())
}
