//! Draws every schedule: the factor on the learning rate over a hundred steps.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin schedules -- --out target/pictures`

use clap::Parser;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use serde_json::{Value, json};
use std::process::ExitCode;
use wgpu_optim::{Schedule, Scheduler};
use wgpu_optim_pictures::draw;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, pen, text};

/// Draws every schedule.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    out: Out,
}

const STEPS: u64 = 100;

/// A panel: its name, and the schedules that it shows, each with a word where there are several.
type Panel = (&'static str, Vec<(&'static str, Schedule)>);

fn panels() -> Result<Vec<Panel>> {
    let read = |json: Value| serde_json::from_value::<Schedule>(json);
    let one = |name: &'static str, options: Value| {
        Ok::<_, serde_json::Error>((name, vec![("", read(json!({ name: options }))?)]))
    };
    let shapes = |name: &'static str, variants: [(&'static str, Value); 3]| {
        let schedules = variants.into_iter().map(|(word, options)| Ok((word, read(json!({ name: options }))?)));
        Ok::<_, serde_json::Error>((name, schedules.collect::<std::result::Result<_, serde_json::Error>>()?))
    };
    let wsd = |shape: &str| json!({"warmup": 10, "total": 100, "decay": 50, "shape": shape});
    let polynomial = |power: f64| json!({"total": 100, "power": power});
    Ok(vec![
        one("constant", json!({}))?,
        one("step", json!({"every": 20, "gamma": 0.6}))?,
        one("multi_step", json!({"at": [30, 60, 80], "gamma": 0.4}))?,
        one("exponential", json!({"gamma": 0.97}))?,
        one("linear", json!({"total": 100}))?,
        one("linear_floor", json!({"total": 70, "floor": 0.2}))?,
        shapes("polynomial", [("1/2", polynomial(0.5)), ("1", polynomial(1.0)), ("3", polynomial(3.0))])?,
        one("cosine", json!({"total": 100}))?,
        one("cosine_restarts", json!({"first": 15, "mult": 2}))?,
        one("inverse_time", json!({"decay": 0.08}))?,
        one("inverse_sqrt", json!({"warmup": 15}))?,
        one("warmup", json!({"steps": 15, "then": {"cosine": {"total": 85}}}))?,
        one(
            "sequence",
            json!([
                {"steps": 40, "schedule": {"constant": {}}},
                {"steps": 30, "schedule": {"exponential": {"gamma": 0.95}}},
                {"steps": 30, "schedule": {"linear": {"total": 30}}},
            ]),
        )?,
        one("one_cycle", json!({"total": 100}))?,
        one("cyclic", json!({"low": 0.2, "up": 12, "down": 20}))?,
        shapes("warmup_stable_decay", [("linear", wsd("linear")), ("cosine", wsd("cosine")), ("sqrt", wsd("sqrt"))])?,
        one("plateau", json!({"factor": 0.5, "patience": 14}))?,
        ("custom", vec![("", Schedule::custom(|t| 0.5 + 0.5 * (t as f64 / 8.0).sin() * (-(t as f64) / 60.0).exp()))]),
    ])
}

/// A loss for the plateau: it gets no better for a while, twice.
fn loss(t: u64) -> f64 {
    let (start, level) = if t > 45 { (45, 0.4) } else { (0, 1.0) };
    level * (0.5 + 0.5 * (-((t - start) as f64) / 6.0).exp().max(0.1))
}

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let panels = panels()?;
    options.out.save("schedules", (1600, 1840), |page| {
        let cells = page.margin(10, 10, 10, 10).split_evenly((6, 3));
        cells.iter().zip(&panels).try_for_each(|(cell, panel)| draw(cell, panel))
    })
}

fn draw(area: &Area, (name, schedules): &Panel) -> Result<()> {
    let width = area.dim_in_pixel().0 as i32;
    area.draw(&Text::new(*name, (width / 2 + 20, 26), anchored(28, HPos::Center)))?;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(52)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(0f64..STEPS as f64, -0.02..1.06)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(3)
        .label_style(text(20))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (i, (word, schedule)) in schedules.iter().enumerate() {
        let mut scheduler = Scheduler::new(schedule.clone(), name)?;
        let mut points = Vec::new();
        for t in 1..=STEPS {
            points.push((t as f64, scheduler.factor(t)?));
            if scheduler.has_plateau() {
                scheduler.feed(loss(t))?;
            }
        }
        if scheduler.has_plateau() {
            let losses = (1..=STEPS).map(|t| (t as f64, loss(t)));
            chart.draw_series(LineSeries::new(losses, BLACK.mix(0.4).stroke_width(2)))?;
            let label = EmptyElement::at((66.0, loss(66)));
            chart.draw_series([label + Text::new("the metric", (0, -18), anchored(20, HPos::Left))])?;
        }
        chart.draw_series(LineSeries::new(points, pen(i)))?;
        // In the upper right corner, which the panels of several schedules leave free.
        let label = EmptyElement::at((0.76 * STEPS as f64, 0.98 - 0.15 * i as f64));
        let stroke = pen(i);
        let colour = anchored(20, HPos::Left).color(&stroke.color);
        chart.draw_series([label + Text::new(*word, (0, 0), colour)])?;
    }
    Ok(())
}
