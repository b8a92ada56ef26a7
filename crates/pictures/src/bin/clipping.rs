//! Exploding gradients on a cliff, and clips that tame them.
//!
//! The task is "Exercise: Clipping" of the course notes on optimizers that the presets named `course_notes` come from:
//! clip exploding gradients, `g = u*sign(g)` where the norm exceeds a threshold `u`, and try learning rates and
//! thresholds. The notes give no function and no numbers; their picture of a cliff is that of Goodfellow et al. 2016
//! (section 8.2.4), after Pascanu et al. 2013 (section 2.3): the loss of a recurrent network of one unit. From
//! `x = 0.5` it does `x = w*sigmoid(x) + b` 50 times, and `sigmoid(x)` is to be 0.7 then. The gradient is a sum of
//! products of up to 50 factors `w*sigmoid'(x)`.
//!
//! `w` and `b` start on the gentle side of the cliff and go down to its foot, where the gradient explodes. Without a
//! clip one such step throws them so far that no gradient is left. With one they stay. A clip by the norm keeps the
//! direction and finds the way along the foot. Those by value and by sign turn the step, and with a low threshold they
//! leap to and fro over the edge. Then try `--thresholds 50`, which is too much, or `--lr 5`, which needs no clip: it
//! leaps past the foot, to where the slope is gentle.
//!
//! The program compares what the device computes with the formulas, computed by hand in f64: each loss and gradient,
//! and each step from the gradient that it had. It fails where one is off.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin clipping -- --lr 0.5 --thresholds 0.1,0.5,2`

use clap::{Parser, value_parser};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::ops::Range;
use std::process::ExitCode;
use wgpu_optim::{Arena, Clip, Config, Gpu, Optimizer, Sgd, Slice, TensorSpec, wgpu};
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, legend, pen, text};
use wgpu_optim_pictures::kernel::Kernel;
use wgpu_optim_pictures::{contour, draw};

/// Draws the way of two parameters at a cliff without a clip and with several, and checks each step by hand.
#[derive(Parser)]
struct Options {
    /// The learning rate
    #[arg(long, default_value_t = 0.5)]
    lr: f64,
    /// Thresholds of the clips, up to five
    #[arg(long, value_delimiter = ',', num_args = 1..=5, default_values_t = [0.1, 0.5, 2.0])]
    thresholds: Vec<f64>,
    /// Where w starts
    #[arg(long, default_value_t = 5.5, allow_negative_numbers = true)]
    w: f32,
    /// Where b starts
    #[arg(long, default_value_t = -2.0, allow_negative_numbers = true)]
    b: f32,
    /// How many steps they take
    #[arg(long, default_value_t = 400, value_parser = value_parser!(u32).range(2..=2000))]
    steps: u32,
    #[command(flatten)]
    out: Out,
}

const SLOPE: &str = "
    @group(0) @binding(0) var<storage> places: array<vec4f>; // w, b
    @group(0) @binding(1) var<storage, read_write> slopes: array<vec4f>; // by w, by b, the loss

    fn sigmoid(x: f32) -> f32 {
        return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0)));
    }

    @compute @workgroup_size(64)
    fn slope(@builtin(global_invocation_id) id: vec3u) {
        if id.x >= arrayLength(&places) {
            return;
        }
        let place = places[id.x];
        var x = 0.5;
        var dx = vec2f(); // by w and b
        for (var i = 0u; i < 50u; i++) {
            let s = sigmoid(x);
            dx = vec2f(s, 1.0) + place.x * s * (1.0 - s) * dx;
            x = place.x * s + place.y;
        }
        let s = sigmoid(x);
        let off = s - 0.7;
        slopes[id.x] = vec4f(2.0 * off * s * (1.0 - s) * dx, off * off, 0.0);
    }
";

/// Computes by hand, in f64, the loss, its gradient, and how far the last `x` moves with the parameters.
fn slope([w, b]: [f64; 2]) -> (f64, [f64; 2], f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (mut x, mut dx) = (0.5, [0.0; 2]);
    for _ in 0..50 {
        let s = sigmoid(x);
        let factor = w * s * (1.0 - s);
        dx = [s + factor * dx[0], 1.0 + factor * dx[1]];
        x = w * s + b;
    }
    let s = sigmoid(x);
    let off = s - 0.7;
    (off * off, dx.map(|dx| 2.0 * off * s * (1.0 - s) * dx), norm(dx))
}

fn norm([a, b]: [f64; 2]) -> f64 {
    a.hypot(b)
}

/// A clip of a kind by its threshold.
type NonFinite = fn(f64) -> Clip;

const KINDS: [(&str, NonFinite); 3] = [("value", Clip::Value), ("global_norm", Clip::GlobalNorm), ("sign", Clip::Sign)];

/// What a clip makes of a gradient.
fn clipped(clip: Option<Clip>, g: [f64; 2]) -> [f64; 2] {
    match clip {
        Some(Clip::Value(c)) => g.map(|g| g.clamp(-c, c)),
        Some(Clip::GlobalNorm(c)) => {
            let factor = (c / (norm(g) + 1e-6)).min(1.0);
            g.map(|g| g * factor)
        }
        Some(Clip::Sign(c)) if norm(g) > c => g.map(|g| if g == 0.0 { 0.0 } else { c * g.signum() }),
        _ => g,
    }
}

/// A way of the two parameters: before the first step and after each, with what the device found there.
struct Way {
    clip: Option<Clip>,
    places: Vec<[f64; 2]>,
    slopes: Vec<[f64; 2]>,
    losses: Vec<f64>,
}

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let gpu = Gpu::request_blocking()?;
    let of_kind = |kind: NonFinite| options.thresholds.iter().map(move |&threshold| Some(kind(threshold)));
    let clips: Vec<_> = [None].into_iter().chain(KINDS.iter().flat_map(|&(_, kind)| of_kind(kind))).collect();
    let ways = descend(&gpu, &clips, &options)?;

    println!("learning rate {}, from w = {}, b = {}\n", options.lr, options.w, options.b);
    let head = format!("loss after {:>4}", options.steps);
    println!(
        "| clip            | largest norm | clipped | lowest loss | {head} | ends at w, b     | off the formulas |"
    );
    let rule = [17, 14, 9, 13, 17, 18, 18].map(|width| "-".repeat(width)).join("|");
    println!("|{rule}|");
    for way in &ways {
        let (slope_off, step_off) = check(way, options.lr)?;
        let steps = &way.slopes[..way.slopes.len() - 1];
        let name = way.clip.map_or("none".into(), |clip| format!("{} {}", clip.kind(), clip.limit()));
        let largest = steps.iter().map(|&g| norm(g)).fold(0.0, f64::max);
        let count = steps.iter().filter(|&&g| way.clip.is_some() && clipped(way.clip, g) != g).count();
        let lowest = way.losses.iter().copied().fold(f64::INFINITY, f64::min);
        let (last, [w, b]) = (way.losses[way.losses.len() - 1], way.places[way.places.len() - 1]);
        let short = |x: f64| if x.abs() < 1e4 { format!("{x:.3}") } else { format!("{x:.1e}") };
        let end = format!("{}, {}", short(w), short(b));
        let off = format!("{slope_off:.0e}, {step_off:.0e}");
        println!(
            "| {name:<15} | {largest:>12.3e} | {count:>7} | {lowest:>11.1e} | {last:>15.5} | {end:<16} | {off:<16} |"
        );
    }
    println!();
    picture(&options, &ways)
}

/// Runs one way for each clip.
fn descend(gpu: &Gpu, clips: &[Option<Clip>], options: &Options) -> Result<Vec<Way>> {
    let len = clips.len();
    let rows = [TensorSpec::f32("rows", [len, 4])];
    let (places, slopes) = (Arena::new(gpu, &rows)?, Arena::new(gpu, &rows)?);
    let traces = [TensorSpec::f32("places", [options.steps as usize + 1, len, 4])];
    let (trace, slope_trace) = (Arena::new(gpu, &traces)?, Arena::new(gpu, &traces)?);
    places.write("rows", [options.w, options.b, 0.0, 0.0].repeat(len).as_slice())?;
    let (place, slope) = (places.slice("rows")?, slopes.slice("rows")?);
    let gradient = Kernel::new(gpu, SLOPE, "slope", &[&[(0, place), (1, slope)]]);
    // Two tensors: the global norm is that of both.
    let tensors = ["w", "b"].map(|name| TensorSpec::f32(name, [1]));
    let mut optimizers = Vec::new();
    for &clip in clips {
        let config = Config::from(Sgd { lr: options.lr, ..Sgd::default() });
        let config = clip.into_iter().fold(config, Config::wrap);
        optimizers.push(Optimizer::new(gpu, &tensors, config)?);
    }
    for step in 0..=u64::from(options.steps) {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        gradient.dispatch(&mut encoder, 0, [1, 1]);
        for (from, to) in [(place, trace.slice("places")?), (slope, slope_trace.slice("places")?)] {
            let offset = to.offset + step * from.size;
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, offset, from.size);
        }
        for (i, optimizer) in (0..).zip(&mut optimizers) {
            let [params, grads] =
                [place, slope].map(|row| [0, 4].map(|at| Slice::new(row.buffer, row.offset + 16 * i + at, 4)));
            optimizer.encode(&mut encoder, &params, &grads)?;
        }
        gpu.queue().submit([encoder.finish()]);
    }
    let [places, slopes] = [trace.read_blocking("places")?, slope_trace.read_blocking("places")?];
    let column = |values: &[f32], i: usize, k: usize| -> Vec<f64> {
        values.iter().skip(4 * i + k).step_by(4 * len).map(|&x| x.into()).collect()
    };
    let pairs =
        |values: &[f32], i| column(values, i, 0).into_iter().zip(column(values, i, 1)).map(|(a, b)| [a, b]).collect();
    let way =
        |(i, &clip)| Way { clip, places: pairs(&places, i), slopes: pairs(&slopes, i), losses: column(&slopes, i, 2) };
    Ok(clips.iter().enumerate().map(way).collect())
}

/// How far the device is from the formulas: losses and gradients in units of what roundings may come to, and steps as
/// a share of 1 or of the numbers that are added, where these are larger.
fn check(way: &Way, lr: f64) -> Result<(f64, f64)> {
    // A rounding moves the last x by `moves` times as much, and the gradient by the square. Measured: at most 2e-6.
    const SLOPE_BOUND: f64 = 1e-5;
    // A few roundings in f32. Measured: at most 6e-8.
    const STEP_BOUND: f64 = 1e-6;
    let name = way.clip.map_or("no clip".into(), |clip| format!("{} {}", clip.kind(), clip.limit()));
    let (mut slope_off, mut step_off) = (0.0f64, 0.0f64);
    for (t, place) in way.places.iter().enumerate() {
        let found = way.slopes[t];
        if place.iter().chain(&found).any(|x| !x.is_finite()) {
            return Err(format!("{name} diverges, beyond f32 in step {}: choose a lower --lr", t + 1).into());
        }
        let (loss, g, moves) = slope(*place);
        let off = norm([g[0] - found[0], g[1] - found[1]]) / (1.0 + moves).powi(2);
        let off = off.max((loss - way.losses[t]).abs() / (1.0 + moves));
        if off > SLOPE_BOUND {
            return Err(format!("{name}, step {}: gradient {found:?} at {place:?}, by hand {g:?}", t + 1).into());
        }
        slope_off = slope_off.max(off);
        let Some(next) = way.places.get(t + 1) else { break };
        let u = clipped(way.clip, found);
        for i in 0..2 {
            let expected = place[i] - lr * u[i];
            let off = (next[i] - expected).abs() / expected.abs().max((lr * u[i]).abs()).max(1.0);
            if off > STEP_BOUND {
                let (from, g) = (place[i], found[i]);
                return Err(format!(
                    "{name}, step {}: {}, by hand {expected} from {from}, gradient {g}",
                    t + 1,
                    next[i]
                )
                .into());
            }
            step_off = step_off.max(off);
        }
    }
    Ok((slope_off, step_off))
}

/// What is shown of w and b.
const SHOWN: [Range<f64>; 2] = [3.6..6.4, -3.2..-0.8];

fn picture(options: &Options, ways: &[Way]) -> Result<()> {
    let thresholds = options.thresholds.iter().map(|threshold| format!("clipped at {threshold}"));
    let names = ["not clipped".into()].into_iter().chain(thresholds);
    let key: Vec<_> = names.enumerate().map(|(i, name)| (name, stroke(i))).collect();
    options.out.save("clipping", (1600, 1900), |page| {
        let (top, rows) = page.margin(10, 10, 10, 10).split_vertically(44 * key.len().div_ceil(4) as i32 + 20);
        legend(&top.margin(10, 0, 70, 0), &key, 4)?;
        let clips = ways[1..].chunks(options.thresholds.len());
        for ((row, &(kind, _)), clips) in rows.split_evenly((3, 1)).iter().zip(&KINDS).zip(clips) {
            let ways: Vec<&Way> = ways[..1].iter().chain(clips).collect();
            let (left, right) = row.split_horizontally(700);
            paths(&left, kind, &ways)?;
            losses(&right, &ways)?;
        }
        Ok(())
    })
}

/// Black without a clip.
fn stroke(i: usize) -> ShapeStyle {
    pen([3, 0, 1, 2, 4, 5][i]).stroke_width(if i == 0 { 5 } else { 3 })
}

/// Ways over the lines of equal loss.
fn paths(area: &Area, kind: &str, ways: &[&Way]) -> Result<()> {
    const CELLS: usize = 140;
    let [w, b] = SHOWN;
    let at = |range: &Range<f64>, share: f64| range.start + (range.end - range.start) * share;
    let cell = |i: usize| i as f64 / CELLS as f64;
    let grid = (0..=CELLS).flat_map(|j| (0..=CELLS).map(move |i| (i, j)));
    let heights: Vec<_> = grid.map(|(i, j)| slope([at(&w, cell(i)), at(&b, cell(j))]).0 as f32).collect();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_top(56)
        .x_label_area_size(60)
        .y_label_area_size(90)
        .build_cartesian_2d(w.clone(), b.clone())?;
    let middle = chart.plotting_area().get_x_axis_pixel_range();
    let middle = (middle.start + middle.end) / 2 - area.get_base_pixel().0;
    area.draw(&Text::new(format!("clip by {kind}"), (middle, 30), anchored(28, HPos::Center)))?;
    for (k, level) in [1.0, 0.4, 0.35, 0.3, 0.2, 0.08, 0.07, 0.05, 0.03, 0.01].into_iter().enumerate() {
        for line in contour::outlines(&heights, CELLS + 1, level) {
            let line: Vec<_> =
                line.into_iter().map(|(i, j)| (at(&w, i / CELLS as f64), at(&b, j / CELLS as f64))).collect();
            chart.draw_series([Polygon::new(line.clone(), shade(k).filled())])?;
            chart.draw_series([PathElement::new(line, shade(k + 2).stroke_width(1))])?;
        }
    }
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("w")
        .y_desc("b")
        .axis_desc_style(text(24))
        .x_labels(6)
        .y_labels(6)
        .label_style(text(20))
        .draw()?;
    for (i, way) in ways.iter().enumerate() {
        for line in inside(&way.places) {
            chart.draw_series(LineSeries::new(line, stroke(i)))?;
        }
        let last = way.places[way.places.len() - 1];
        if w.contains(&last[0]) && b.contains(&last[1]) {
            let dot = EmptyElement::at((last[0], last[1])) + Circle::new((0, 0), 10, WHITE.filled());
            chart.draw_series([dot + Circle::new((0, 0), 8, stroke(i).filled())])?;
        }
    }
    let free = &ways[0].places;
    if let (Some(&(x, y)), [u, v]) = (inside(free).last().and_then(|line| line.last()), free[free.len() - 1])
        && !(w.contains(&u) && b.contains(&v))
    {
        let to = EmptyElement::at((x, y));
        chart.draw_series([to + Text::new(format!("to {u:.0}, {v:.0}"), (-24, 18), anchored(22, HPos::Right))])?;
    }
    let start = free[0];
    let ring = EmptyElement::at((start[0], start[1])) + Circle::new((0, 0), 9, WHITE.filled());
    chart.draw_series([ring + Circle::new((0, 0), 9, BLACK.stroke_width(4))])?;
    Ok(())
}

/// The stretches of a way that lie within the picture.
fn inside(places: &[[f64; 2]]) -> Vec<Vec<(f64, f64)>> {
    let mut lines: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut last = None;
    for step in places.windows(2) {
        // The shares of the step between which it is inside (Liang and Barsky 1984).
        let (mut enter, mut leave) = (0.0f64, 1.0f64);
        for (i, range) in SHOWN.iter().enumerate() {
            let way = step[1][i] - step[0][i];
            let (a, b) = (range.start - step[0][i], range.end - step[0][i]);
            if way == 0.0 {
                leave = if a <= 0.0 && b >= 0.0 { leave } else { -1.0 };
            } else {
                enter = enter.max((a / way).min(b / way));
                leave = leave.min((a / way).max(b / way));
            }
        }
        if enter > leave {
            continue;
        }
        let at = |share: f64| {
            let [a, b] = [0, 1].map(|i| step[0][i] + share * (step[1][i] - step[0][i]));
            (a, b)
        };
        let (from, to) = (at(enter), at(leave));
        match lines.last_mut() {
            Some(line) if last == Some(from) => line.push(to),
            _ => lines.push(vec![from, to]),
        }
        last = Some(to);
    }
    lines
}

/// Deeper the lower it lies.
fn shade(k: usize) -> RGBColor {
    let deep = (k as f64 / 14.0).min(1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * deep) as u8;
    RGBColor(mix(251.0, 95.0), mix(251.0, 130.0), mix(248.0, 160.0))
}

fn losses(area: &Area, ways: &[&Way]) -> Result<()> {
    const SHOWN: Range<f64> = 1e-5..1.0;
    const MEAN: usize = 10;
    let steps = ways[0].losses.len() - 1;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_top(56)
        .x_label_area_size(60)
        .y_label_area_size(110)
        .build_cartesian_2d(0..steps, SHOWN.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc(format!("loss, mean of {MEAN} steps"))
        .axis_desc_style(text(24))
        .label_style(text(20))
        .y_labels(6)
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (i, way) in ways.iter().enumerate() {
        // Leaps over the edge and back would hide each other.
        let mean = |step: usize| {
            let last = &way.losses[(step + 1).saturating_sub(MEAN)..=step];
            last.iter().sum::<f64>() / last.len() as f64
        };
        let points = (0..=steps).map(|step| (step, mean(step).clamp(SHOWN.start, SHOWN.end)));
        chart.draw_series(LineSeries::new(points, stroke(i)))?;
    }
    Ok(())
}
