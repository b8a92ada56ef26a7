//! The paths of optimizers down five landscapes, as pictures and as an animation. Gradients and steps are computed on
//! the GPU; each path is a tensor of two elements.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin landscapes -- --out target/pictures`

mod animation;
mod ground;

use clap::{Parser, value_parser};
use ground::{LANDSCAPES, Landscape, Path};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use resvg::tiny_skia::Pixmap;
use std::process::ExitCode;
use wgpu_optim::Gpu;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, legend, pen, text};
use wgpu_optim_pictures::optimizers::Contestant;
use wgpu_optim_pictures::{contour, draw, optimizers};

/// Draws the paths of optimizers down five landscapes, each at the learning rate that comes down soonest.
#[derive(Parser)]
struct Options {
    /// Names, parted by commas: any of the registry, momentum, nesterov, or all
    #[arg(long, value_delimiter = ',')]
    optimizers: Vec<String>,
    /// Steps of each path
    #[arg(long, default_value_t = 300, value_parser = value_parser!(u32).range(1..=10_000))]
    steps: u32,
    #[command(flatten)]
    out: Out,
}

const USUAL: [&str; 8] = ["sgd", "momentum", "adagrad", "rmsprop", "adam", "novograd", "lion", "schedule_free"];
/// Those that move: where the optimizers differ most to the eye.
const MOVING: [usize; 2] = [0, 2];
const FRAMES: usize = 100;

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let contestants = optimizers::pick(&options.optimizers, &USUAL)?;
    let gpu = Gpu::request_blocking()?;
    let rates = optimizers::rates(-4, 1, 4);
    let paths = contestants
        .iter()
        .map(|contestant| ground::descend(&gpu, &contestant.config, &rates, options.steps as usize))
        .collect::<Result<Vec<_>>>()?;
    report(&contestants, &paths, options.steps);

    let names: Vec<_> = contestants.iter().enumerate().map(|(i, one)| (one.name.clone(), pen(i))).collect();
    let grounds = (0..LANDSCAPES.len()).map(|i| Ground::new(&gpu, i)).collect::<Result<Vec<_>>>()?;
    let whole = |area: &Area, i: usize| {
        grounds[i].draw(area)?;
        grounds[i].draw_paths(area, &paths, options.steps as usize)
    };
    options.out.save("landscapes", (1600, 2010), |page| {
        for (i, cell) in page.margin(10, 10, 10, 10).split_evenly((3, 2)).iter().enumerate() {
            match i {
                ..5 => whole(cell, i)?,
                _ => key(cell, &names, options.steps)?,
            }
        }
        Ok(())
    })?;
    let frames = frames(&grounds, &names, &paths, options.steps as usize)?;
    options.out.write("landscapes.gif", &animation::gif(&frames, 5)?)
}

/// The learning rate of each path, and how low it came.
fn report(contestants: &[Contestant], paths: &[Vec<Path>], steps: u32) {
    println!("learning rate, and height after {steps} steps (the lowest is 0)\n");
    print!("{:<16}", "");
    LANDSCAPES.iter().for_each(|landscape| print!("{:>26}", landscape.name));
    println!();
    for (contestant, paths) in contestants.iter().zip(paths) {
        print!("{:<16}", contestant.name);
        for path in paths {
            print!("{:>14.1e}{:>12.1e}", path.lr, path.heights[path.heights.len() - 1]);
        }
        println!();
    }
    println!();
}

/// A landscape's outlines, from high to low.
struct Ground {
    landscape: &'static Landscape,
    bands: Vec<Vec<Vec<(f32, f32)>>>,
}

impl Ground {
    fn new(gpu: &Gpu, number: usize) -> Result<Ground> {
        const CELLS: usize = 100;
        let landscape = &LANDSCAPES[number];
        let heights = ground::grid(gpu, number, CELLS)?;
        let highest = heights.iter().copied().fold(0.0, f32::max);
        let (Landscape { x, y, .. }, cell) = (landscape, 1.0 / CELLS as f64);
        let place = |(i, j): (f64, f64)| {
            let at = |range: &std::ops::Range<f32>, share: f64| range.start + (range.end - range.start) * share as f32;
            (at(x, i * cell), at(y, j * cell))
        };
        // Two levels a decade, as far down as the grid can follow narrow valleys.
        let levels = (0..8).map(|k| highest * 10f32.powf(-0.5 * k as f32));
        let outlines = |level| contour::outlines(&heights, CELLS + 1, level);
        let bands =
            levels.map(|level| outlines(level).into_iter().map(|line| line.into_iter().map(place).collect()).collect());
        Ok(Ground { landscape, bands: bands.collect() })
    }

    fn chart<'a>(&self, area: &Area<'a>) -> Result<Chart<'a>> {
        let Landscape { x, y, .. } = self.landscape;
        Ok(ChartBuilder::on(area)
            .margin(12)
            .margin_top(56)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(x.clone(), y.clone())?)
    }

    /// The ground alone.
    fn draw(&self, area: &Area) -> Result<()> {
        let mut chart = self.chart(area)?;
        let title = anchored(28, HPos::Center);
        let middle = chart.plotting_area().get_x_axis_pixel_range();
        let origin = area.get_base_pixel();
        let middle = (middle.start + middle.end) / 2 - origin.0;
        area.draw(&Text::new(self.landscape.name, (middle, 30), title))?;
        for (k, band) in self.bands.iter().enumerate() {
            for line in band {
                chart.draw_series([Polygon::new(line.clone(), shade(k).filled())])?;
                chart.draw_series([PathElement::new(line.clone(), shade(k + 3).stroke_width(1))])?;
            }
        }
        chart.configure_mesh().disable_mesh().x_labels(6).y_labels(6).label_style(text(20)).draw()?;
        Ok(())
    }

    /// The paths up to a step, and the start and the lowest places over them.
    fn draw_paths(&self, area: &Area, paths: &[Vec<Path>], step: usize) -> Result<()> {
        let mut chart = self.chart(area)?;
        let number = LANDSCAPES.iter().position(|landscape| landscape.name == self.landscape.name).unwrap_or(0);
        let Landscape { x, y, start, minima, .. } = self.landscape;
        let inside = |&&[a, b]: &&[f32; 2]| x.contains(&a) && y.contains(&b);
        let ways = || paths.iter().enumerate().map(|(i, paths)| (i, &paths[number].places[..=step]));
        for (i, way) in ways() {
            let mut line: Vec<_> = way.iter().take_while(inside).map(|&[x, y]| (x, y)).collect();
            line.dedup_by_key(|place| chart.backend_coord(place));
            chart.draw_series(LineSeries::new(line, pen(i)))?;
        }
        chart.draw_series(ways().filter_map(|(i, way)| {
            let last = way.last().filter(inside)?;
            let dot = EmptyElement::at((last[0], last[1]));
            Some(dot + Circle::new((0, 0), 11, WHITE.filled()) + Circle::new((0, 0), 9, pen(i).filled()))
        }))?;
        let ring = EmptyElement::at((start[0], start[1])) + Circle::new((0, 0), 9, WHITE.filled());
        chart.draw_series([ring + Circle::new((0, 0), 9, BLACK.stroke_width(4))])?;
        chart.draw_series(minima.iter().map(|&[x, y]| {
            let cross = EmptyElement::at((x, y)) + Cross::new((0, 0), 13, WHITE.stroke_width(9));
            cross + Cross::new((0, 0), 12, BLACK.stroke_width(4))
        }))?;
        Ok(())
    }
}

type Chart<'a> = ChartContext<
    'a,
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::types::RangedCoordf32, plotters::coord::types::RangedCoordf32>,
>;

/// The colour of a band, deeper the lower it lies.
fn shade(k: usize) -> RGBColor {
    let deep = (k as f64 / 14.0).min(1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * deep) as u8;
    RGBColor(mix(251.0, 95.0), mix(251.0, 130.0), mix(248.0, 160.0))
}

/// What the strokes and marks mean.
fn key(area: &Area, names: &[(String, ShapeStyle)], steps: u32) -> Result<()> {
    let area = area.margin(56, 0, 80, 20);
    area.draw(&Text::new(format!("{steps} steps, each optimizer at the learning rate"), (0, 0), text(26)))?;
    area.draw(&Text::new("that comes down soonest without leaping", (0, 34), text(26)))?;
    let (_, area) = area.split_vertically(100);
    legend(&area, names, 2)?;
    let y = 44 * names.len().div_ceil(2) as i32 + 50;
    area.draw(&Circle::new((24, y), 9, BLACK.stroke_width(4)))?;
    area.draw(&Text::new("start", (62, y), anchored(26, HPos::Left)))?;
    area.draw(&Cross::new((24, y + 44), 10, BLACK.stroke_width(4)))?;
    area.draw(&Text::new("minimum", (62, y + 44), anchored(26, HPos::Left)))?;
    area.draw(&Text::new("Lines of equal height: two a decade.", (0, y + 90), text(26)))?;
    Ok(())
}

/// The panels of the animation, below what its key takes.
fn panels<'a>(page: &Area<'a>) -> Vec<Area<'a>> {
    page.margin(page.dim_in_pixel().1 - 720, 0, 10, 10).split_evenly((1, MOVING.len()))
}

/// The frames of the animation: the ground once, and the paths over it, more and more steps of them.
fn frames(
    grounds: &[Ground],
    names: &[(String, ShapeStyle)],
    paths: &[Vec<Path>],
    steps: usize,
) -> Result<Vec<Pixmap>> {
    let size = (1600, 730 + 44 * names.len().div_ceil(4) as u32);
    let still = draw::svg(size, |page| {
        page.fill(&WHITE)?;
        legend(&page.margin(10, 0, 70, 0), names, 4)?;
        MOVING.iter().zip(panels(page)).try_for_each(|(&i, panel)| grounds[i].draw(&panel))
    })?;
    let mut ground = Pixmap::new(size.0 / 2, size.1 / 2).ok_or("a page without pixels")?;
    draw::paint(&still, &mut ground)?;
    (0..=FRAMES)
        .map(|frame| {
            // Slower at first, when most happens.
            let step = (steps as f64 * (frame as f64 / FRAMES as f64).powi(2)).round() as usize;
            let svg = draw::svg(size, |page| {
                let moving = MOVING.iter().zip(panels(page));
                moving.into_iter().try_for_each(|(&i, panel)| grounds[i].draw_paths(&panel, paths, step))
            })?;
            let mut pixels = ground.clone();
            draw::paint(&svg, &mut pixels)?;
            Ok(pixels)
        })
        .collect()
}
