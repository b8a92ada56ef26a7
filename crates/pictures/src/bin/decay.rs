//! RMSProp against decay of the learning rate, on one weight.
//!
//! The task is the last one, "RMS Prop vs Learning rate decay", of the course notes on optimizers that the presets
//! named `course_notes` come from: choose a learning rate, a rate of decay and where the weight starts; see on its
//! landscape how soon each strategy brings it to a minimum; then change the numbers, and see whether the updates are
//! what the equations say. So this program draws the weight's way under each strategy, and compares every step of the
//! GPU with the equation, computed by hand in f64: it fails where they differ.
//!
//! The loss is `w^4/8 - w^2 + w/4 + 2.5`, with its minimum near -2.06 and a higher one near 1.93. With the defaults,
//! plain descent leaps over the hill at once; a constant rate then swings about the minimum for long, and one that
//! decays settles. RMSProp takes the steep start in its stride, but its mean square forgets: once that is small, the
//! constant rate is too much for it and it is thrown out of the minimum again, unless its rate decays, too. Then try
//! `--decay 1`, which stops the exponential one at its first step, or `--lr 0.1`, at which nothing needs to decay.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin decay -- --lr 0.45 --decay 0.1 --start 3`

use clap::{Parser, value_parser};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use serde_json::{Value, json};
use std::process::ExitCode;
use wgpu_optim::{Arena, Config, Gpu, Optimizer, Slice, TensorSpec, wgpu};
use wgpu_optim_pictures::draw;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, legend, pen, text};
use wgpu_optim_pictures::kernel::Kernel;

/// Draws the way of one weight under RMSProp and under decaying learning rates, and checks each step by its equation.
#[derive(Parser)]
struct Options {
    /// The learning rate, before any decay
    #[arg(long, default_value_t = 0.45)]
    lr: f64,
    /// The rate of decay a step, from 0 to 1
    #[arg(long, default_value_t = 0.1)]
    decay: f64,
    /// Where the weight starts
    #[arg(long, default_value_t = 3.0, allow_negative_numbers = true)]
    start: f32,
    /// How many steps it takes
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(2..=1000))]
    steps: u32,
    #[command(flatten)]
    out: Out,
}

const SLOPE: &str = "
    @group(0) @binding(0) var<storage> weights: array<vec4f>; // the first of each four numbers
    @group(0) @binding(1) var<storage, read_write> slopes: array<vec4f>;

    @compute @workgroup_size(64)
    fn slope(@builtin(global_invocation_id) id: vec3u) {
        if id.x < arrayLength(&weights) {
            let w = weights[id.x].x;
            slopes[id.x] = vec4f(0.5 * w * w * w - 2.0 * w + 0.25, 0.0, 0.0, 0.0);
        }
    }
";

fn loss(w: f64) -> f64 {
    w.powi(4) / 8.0 - w * w + w / 4.0 + 2.5
}

fn slope(w: f64) -> f64 {
    w.powi(3) / 2.0 - 2.0 * w + 0.25
}

/// How a learning rate is found: by a schedule, by the slopes so far, or by both.
struct Strategy {
    name: &'static str,
    /// The optimizer, without its rate.
    config: Value,
    /// The same as an equation: the factor on the rate in step `t`, counted from 1.
    factor: fn(decay: f64, t: i32) -> f64,
    /// Whether the slope is divided by the root of its mean square.
    divided: bool,
}

fn strategies(decay: f64) -> [Strategy; 6] {
    let rmsprop = json!({"optimizer": "rmsprop", "alpha": ALPHA, "eps": EPS});
    let sgd = |schedule: Value| json!({"optimizer": "sgd", "schedule": schedule});
    let inverse = json!({"inverse_time": {"decay": decay}});
    let mut both = rmsprop.clone();
    both["schedule"] = inverse.clone();
    let plain = |name, config, factor| Strategy { name, config, factor, divided: false };
    let divided = |name, config, factor| Strategy { name, config, factor, divided: true };
    [
        plain("constant", sgd(json!({"constant": {}})), |_, _| 1.0),
        plain("inverse time", sgd(inverse), |decay, t| 1.0 / (1.0 + decay * f64::from(t - 1))),
        plain("exponential", sgd(json!({"exponential": {"gamma": 1.0 - decay}})), |decay, t| (1.0 - decay).powi(t - 1)),
        plain("steps", sgd(json!({"step": {"every": 10, "gamma": 0.5}})), |_, t| 0.5f64.powi((t - 1) / 10)),
        divided("RMSProp", rmsprop, |_, _| 1.0),
        divided("RMSProp, inverse time", both, |decay, t| 1.0 / (1.0 + decay * f64::from(t - 1))),
    ]
}

const ALPHA: f64 = 0.9;
const EPS: f64 = 1e-8;

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let strategies = strategies(options.decay);
    let gpu = Gpu::request_blocking()?;
    let ways = descend(&gpu, &strategies, &options)?;

    let minima = [minimum(-2.0), minimum(2.0)];
    println!("learning rate {}, decay {}, from {}\n", options.lr, options.decay, options.start);
    println!(
        "| strategy              | weight after {:>4} | within 0.01 of a minimum after | off the equation |",
        options.steps
    );
    println!("|-----------------------|-------------------|--------------------------------|------------------|");
    for (strategy, way) in strategies.iter().zip(&ways) {
        let off = check(strategy, way, &options)?;
        let near = |w: &f64| minima.iter().any(|minimum| (w - minimum).abs() < 0.01);
        // The step from which on it stays there.
        let settled = way.len() - way.iter().rev().take_while(|w| near(w)).count();
        let settled = if settled < way.len() { settled.to_string() } else { "never".into() };
        println!("| {:<21} | {:>17.4} | {settled:>30} | {off:>16.1e} |", strategy.name, way[way.len() - 1]);
    }
    println!();
    picture(&options, &strategies, &ways, minima)
}

/// The nearest place without a slope, by Newton's method.
fn minimum(start: f64) -> f64 {
    (0..20).fold(start, |w, _| w - slope(w) / (1.5 * w * w - 2.0))
}

/// The weight before the first step and after each, for each strategy.
fn descend(gpu: &Gpu, strategies: &[Strategy], options: &Options) -> Result<Vec<Vec<f64>>> {
    let len = strategies.len();
    let rows = [TensorSpec::f32("rows", [len, 4])];
    let (weights, slopes) = (Arena::new(gpu, &rows)?, Arena::new(gpu, &rows)?);
    let trace = Arena::new(gpu, &[TensorSpec::f32("trace", [options.steps as usize + 1, len, 4])])?;
    weights.write("rows", [options.start, 0.0, 0.0, 0.0].repeat(len).as_slice())?;
    let (weight, slope, traced) = (weights.slice("rows")?, slopes.slice("rows")?, trace.slice("trace")?);
    let gradient = Kernel::new(gpu, SLOPE, "slope", &[&[(0, weight), (1, slope)]]);
    let mut optimizers = Vec::new();
    for strategy in strategies {
        let mut config = strategy.config.clone();
        config["lr"] = options.lr.into();
        optimizers.push(Optimizer::new(gpu, &[TensorSpec::f32("w", [1])], Config::from_value(config)?)?);
    }
    for step in 0..=u64::from(options.steps) {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let offset = traced.offset + step * weight.size;
        encoder.copy_buffer_to_buffer(weight.buffer, weight.offset, traced.buffer, offset, weight.size);
        gradient.dispatch(&mut encoder, 0, [1, 1]);
        for (i, optimizer) in (0..).zip(&mut optimizers) {
            let param = Slice::new(weight.buffer, weight.offset + 16 * i, 4);
            let grad = Slice::new(slope.buffer, slope.offset + 16 * i, 4);
            optimizer.encode(&mut encoder, &[param], &[grad])?;
        }
        gpu.queue().submit([encoder.finish()]);
    }
    let trace = trace.read_blocking("trace")?;
    Ok((0..len).map(|i| trace.iter().skip(4 * i).step_by(4 * len).map(|&w| f64::from(w)).collect()).collect())
}

/// The farthest that a step of the GPU is from the equation's, from the same weight, as a share of 1 or of the weight
/// where that is larger.
fn check(strategy: &Strategy, way: &[f64], options: &Options) -> Result<f64> {
    // A few roundings in f32. Measured: at most 2.4e-7.
    const BOUND: f64 = 2e-6;
    let (mut v, mut farthest) = (0.0, 0.0f64);
    for (t, step) in (1..).zip(way.windows(2)) {
        let g = slope(step[0]);
        v = ALPHA * v + (1.0 - ALPHA) * g * g;
        let rate = options.lr * (strategy.factor)(options.decay, t);
        let expected = step[0] - rate * if strategy.divided { g / (v.sqrt() + EPS) } else { g };
        if expected.abs() > f64::from(f32::MAX) {
            return Err(format!("{} diverges, beyond f32 in step {t}: choose a lower --lr", strategy.name).into());
        }
        let off = (step[1] - expected).abs() / expected.abs().max((rate * g).abs()).max(1.0);
        if off.is_nan() || off > BOUND {
            let (name, found) = (strategy.name, step[1]);
            return Err(format!("{name}, step {t}: {found}, the equation has {expected} from {}", step[0]).into());
        }
        farthest = farthest.max(off);
    }
    Ok(farthest)
}

fn picture(options: &Options, strategies: &[Strategy], ways: &[Vec<f64>], minima: [f64; 2]) -> Result<()> {
    let key: Vec<_> = strategies.iter().enumerate().map(|(i, strategy)| (strategy.name.into(), pen(i))).collect();
    options.out.save("decay", (1600, 1500), |page| {
        let (top, bottom) = page.margin(10, 10, 10, 10).split_vertically(860);
        for (i, panel) in top.split_evenly((2, 3)).iter().enumerate() {
            track(panel, i, strategies[i].name, &ways[i])?;
        }
        let (middle, bottom) = bottom.split_vertically(100);
        legend(&middle.margin(10, 0, 70, 0), &key, 3)?;
        heights(&bottom, ways, minima)
    })
}

/// The loss, and the places of the weight on it.
fn track(area: &Area, i: usize, name: &str, way: &[f64]) -> Result<()> {
    let width = area.dim_in_pixel().0 as i32;
    area.draw(&Text::new(name.to_owned(), (width / 2 + 20, 26), anchored(28, HPos::Center)))?;
    let (left, right) = ((way[0] - 0.3).min(-3.4), (way[0] + 0.3).max(3.4));
    let top = loss(way[0]).max(4.0) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(52)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(left..right, 0.0..top)?;
    let axis = |x: &f64| format!("{x:.0}");
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().label_style(text(20)).y_labels(4).x_label_formatter(&axis).y_label_formatter(&axis).draw()?;
    let curve = (0..=200).map(|i| left + (right - left) * f64::from(i) / 200.0).map(|w| (w, loss(w)));
    let curve = curve.filter(|&(_, height)| height <= top);
    chart.draw_series(LineSeries::new(curve, BLACK.mix(0.35).stroke_width(3)))?;
    let shown = || way.iter().filter(|w| (left..right).contains(w)).map(|&w| (w, loss(w)));
    chart.draw_series(LineSeries::new(shown(), pen(i).stroke_width(2)))?;
    chart.draw_series(shown().map(|place| Circle::new(place, 6, pen(i).filled())))?;
    chart.draw_series([EmptyElement::at((way[0], loss(way[0])))
        + Circle::new((0, 0), 9, WHITE.filled())
        + Circle::new((0, 0), 9, BLACK.stroke_width(4))])?;
    Ok(())
}

/// How far the loss lies above that of the minimum on the weight's side, over the steps.
fn heights(area: &Area, ways: &[Vec<f64>], minima: [f64; 2]) -> Result<()> {
    let steps = ways[0].len() - 1;
    let above = |w: f64| (loss(w) - loss(minima[usize::from(w > 0.13)])).clamp(1e-7, 1e3);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(70)
        .y_label_area_size(130)
        .build_cartesian_2d(0..steps, (1e-7..1e2).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss above its minimum")
        .axis_desc_style(text(26))
        .label_style(text(24))
        .y_labels(5)
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (i, way) in ways.iter().enumerate() {
        chart.draw_series(LineSeries::new(way.iter().enumerate().map(|(step, &w)| (step, above(w))), pen(i)))?;
    }
    Ok(())
}
