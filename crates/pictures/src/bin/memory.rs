//! Draws what trainings with AdamW take in memory: of three models, for each way to store parameters, gradients and
//! state. The example `memory` prints the same numbers.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin memory -- --out target/pictures`

use clap::Parser;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::process::ExitCode;
use wgpu_optim_pictures::draw;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, pen};

#[path = "../../../../examples/memory/models.rs"]
mod models;

use models::{Model, Takes, models, takes, ways};

/// Draws what trainings take in memory.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    out: Out,
}

/// What takes memory, in the order of a bar.
const PARTS: [&str; 5] = ["parameters", "gradients", "state", "master or remainder", "partial sums"];

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let of_model = |model: &Model| ways().iter().map(|way| Ok((way.name, takes(&model.tensors, way)?))).collect();
    let models = models();
    let all = models.iter().map(of_model).collect::<wgpu_optim::Result<Vec<Vec<_>>>>()?;
    options.out.save("memory", (1600, 1400), |page| {
        let (head, body) = page.margin(20, 0, 20, 20).split_vertically(100);
        let parts: Vec<_> = PARTS.iter().enumerate().map(|(i, part)| (part.to_string(), pen(i))).collect();
        draw::legend(&head, &parts, 3)?;
        let areas = body.split_evenly((models.len(), 1));
        areas.iter().zip(models.iter().zip(&all)).try_for_each(|(area, (model, all))| draw(area, model, all))
    })
}

/// Where bars start, and how long the longest one is.
const BARS: (i32, f64) = (360, 780.0);
/// From bar to bar.
const STEP: i32 = 42;

/// A bar for each way, and in words what it takes and what a step moves.
fn draw(area: &Area, model: &Model, all: &[(&str, Takes)]) -> Result<()> {
    let (left, length) = BARS;
    let title = format!("{}, {:.0} M parameters", model.name, model.len() as f64 / 1e6);
    area.draw(&Text::new(title, (left, 30), anchored(28, HPos::Left)))?;
    area.draw(&Text::new("memory", (1350, 30), anchored(24, HPos::Right)))?;
    area.draw(&Text::new("a step moves", (1550, 30), anchored(24, HPos::Right)))?;
    let most = all.iter().map(|(_, takes)| takes.stored()).max().unwrap_or(0) as f64;
    for (i, (name, takes)) in (0..).zip(all) {
        let y = 72 + STEP * i;
        area.draw(&Text::new(*name, (left - 14, y), anchored(24, HPos::Right)))?;
        let Takes { params, grads, state, kept, scratch, moved } = *takes;
        let mut end = 0;
        for (part, bytes) in [params, grads, state, kept, scratch].into_iter().enumerate() {
            let at = |bytes: u64| left + (bytes as f64 / most * length).round() as i32;
            area.draw(&Rectangle::new([(at(end), y - 15), (at(end + bytes), y + 15)], pen(part).color.filled()))?;
            end += bytes;
        }
        for (x, bytes) in [(1350, takes.stored()), (1550, moved)] {
            area.draw(&Text::new(gigabytes(bytes), (x, y), anchored(24, HPos::Right)))?;
        }
    }
    Ok(())
}

/// Three digits of a number of bytes.
fn gigabytes(bytes: u64) -> String {
    let gigabytes = bytes as f64 / 1e9;
    let digits = (0..2).find(|&digits| gigabytes >= 10f64.powi(2 - digits)).unwrap_or(2) as usize;
    format!("{gigabytes:.digits$} GB")
}
