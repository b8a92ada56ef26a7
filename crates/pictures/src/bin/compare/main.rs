//! Optimizers side by side at logistic regression of handwritten digits, and how much each minds its learning rate.
//!
//! For each optimizer, a model for every learning rate of a grid is trained on the GPU, all of them in one dispatch a
//! step. The rate that brings the loss down soonest gives its curves and its row of the table. Without `--optimizers`
//! every optimizer that there is takes part, eight in colour and the others in light grey below.
//!
//! The authors of NovoGrad (Ginsburg et al. 2019) and of RAdam (Liu et al. 2020) say that theirs are less particular
//! about the rate. Logistic regression is too good-natured to tell: the second picture trains the network of the demo
//! with those in colour, and the program says what it shows.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin compare -- --out target/pictures`

#[path = "../../../../../examples/train_digits/data.rs"]
#[allow(dead_code)] // the reader of MNIST
mod data;
#[path = "../../../../../examples/train_digits/network.rs"]
#[allow(dead_code)] // the shuffling, the loss scale, and all of the score but the accuracy
mod network;
mod regression;
mod robustness;

use clap::Parser;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use regression::{BATCH, EVERY, Models, Score};
use robustness::{Bench, EPOCHS};
use std::process::ExitCode;
use wgpu_optim::Gpu;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, legend, pen, text};
use wgpu_optim_pictures::{draw, optimizers};

/// Compares optimizers at logistic regression of handwritten digits.
#[derive(Parser)]
struct Options {
    /// Names, parted by commas: any of the registry, momentum, nesterov, or all. They are in colour, in both pictures;
    /// where none is named eight are, and the others in grey, in the first picture
    #[arg(long, value_delimiter = ',')]
    optimizers: Vec<String>,
    /// Batches of 128 images that each model of the regression sees
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    iterations: u32,
    #[command(flatten)]
    out: Out,
}

const USUAL: [&str; 8] = ["sgd", "momentum", "radam", "rmsprop", "adam", "novograd", "lion", "schedule_free"];
/// Their pens. The landscapes show the same optimizers in the same colours, and another in place of radam.
const PENS: [usize; 8] = [0, 1, 8, 3, 4, 5, 6, 7];
/// Columns of the legends.
const COLUMNS: usize = 5;

/// Accuracy that a rate may cost and still count as good, in points.
const GOOD: f32 = 5.0;

/// What an optimizer came to.
struct Outcome {
    name: String,
    pen: ShapeStyle,
    /// Logistic regression at the rate that brings the loss down soonest: scores, every [`EVERY`] iterations.
    run: Vec<Score>,
    lr: f64,
    iteration_ms: f64,
    /// The network's final test accuracies at each rate, in percent; of those in colour.
    accuracies: Vec<f32>,
}

impl Outcome {
    /// The first and the last of the rates around the most accurate one that cost less than [`GOOD`].
    fn window(&self) -> (usize, usize) {
        let accuracies = &self.accuracies;
        let top = (0..accuracies.len()).max_by(|&a, &b| accuracies[a].total_cmp(&accuracies[b])).unwrap_or(0);
        let bad = |&rate: &usize| accuracies[rate] < accuracies[top] - GOOD;
        let first = (0..top).rev().find(bad).map_or(0, |rate| rate + 1);
        (first, (top..accuracies.len()).find(bad).unwrap_or(accuracies.len()) - 1)
    }
}

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let chosen = optimizers::pick(&options.optimizers, &USUAL)?;
    let mut contestants = Vec::new();
    if options.optimizers.is_empty() {
        contestants = optimizers::pick(&["all".to_owned()], &[])?;
        contestants.retain(|other| !USUAL.contains(&other.name.as_str()));
    }
    let others = contestants.len(); // they come first: what is drawn later lies on top
    contestants.extend(chosen);

    let (gpu, data) = (Gpu::request_blocking()?, data::digits()?);
    let (grid, rates) = (optimizers::rates(-3, 2, 2), optimizers::rates(-4, 1, 2));
    let iterations = (options.iterations as usize).next_multiple_of(EVERY);
    let (models, bench) = (Models::new(&gpu, &data, grid.len())?, Bench::new(&gpu, &data)?);
    let outcome = |(i, contestant): (usize, &optimizers::Contestant)| {
        let config = &contestant.config;
        let (pen, accuracies) = match i.checked_sub(others) {
            None => (RGBColor(190, 190, 190).stroke_width(2), Vec::new()),
            Some(i) if options.optimizers.is_empty() => (pen(PENS[i]), bench.accuracies(config, &rates)?),
            Some(i) => (pen(i), bench.accuracies(config, &rates)?),
        };
        let runs = regression::train(&models, config, &grid, iterations)?;
        let slowness = |run: &[Score]| run.iter().map(|score| score.loss.ln()).sum::<f32>();
        let best = grid.iter().zip(runs).min_by(|(_, a), (_, b)| slowness(a).total_cmp(&slowness(b)));
        let (&lr, run) = best.ok_or("no learning rates")?;
        Ok(Outcome { name: contestant.name.clone(), pen, run, lr, iteration_ms: 0.0, accuracies })
    };
    let mut outcomes = contestants.iter().enumerate().map(outcome).collect::<Result<Vec<_>>>()?;
    let configs: Vec<_> = contestants.into_iter().map(|contestant| contestant.config).collect();
    for (outcome, ms) in outcomes.iter_mut().zip(regression::iteration_ms(&gpu, &data, &configs)?) {
        outcome.iteration_ms = ms;
    }

    let adapter = gpu.adapter_info();
    println!("on {}, {}\n", adapter.name, adapter.backend);
    println!("logistic regression of the digits, {iterations} batches of {BATCH}:\n\n{}", convergence(&outcomes));
    let chosen = &outcomes[others..];
    println!("a network with 128 hidden units, {EPOCHS} epochs, by learning rate:\n\n{}", robustness(chosen, &rates));
    println!("{}", verdict(chosen, &rates));
    let mut key: Vec<_> = chosen.iter().map(|outcome| (outcome.name.clone(), outcome.pen)).collect();
    let height = |key: &[_]| 44 * key.len().div_ceil(COLUMNS) as u32;
    let bars = height(&key);
    options.out.save("learning_rates", (1600, bars + 720.max(120 + 72 * chosen.len() as u32)), |page| {
        let (top, page) = page.split_vertically(bars + 20);
        legend(&top.margin(20, 0, 80, 0), &key, COLUMNS)?;
        let (left, right) = page.split_horizontally(860);
        accuracies(&left, chosen, &rates)?;
        windows(&right, chosen, &rates)
    })?;
    if let Some(other) = outcomes[..others].first() {
        key.push(("the others".into(), other.pen));
    }
    let above = height(&key);
    options.out.save("convergence", (1600, 700 + above), |page| {
        let (top, page) = page.split_vertically(above + 20);
        legend(&top.margin(20, 0, 80, 0), &key, COLUMNS)?;
        let (left, right) = page.split_horizontally(800);
        let iteration = |_: &Outcome, i: usize| (i * EVERY) as f64;
        curves(&left, &outcomes, "iteration", iteration)?;
        let build = if cfg!(debug_assertions) { ", debug build" } else { "" };
        let title = format!("milliseconds on {}{build}", adapter.name.split(" (").next().unwrap_or_default());
        curves(&right, &outcomes, &title, |outcome, i| (i * EVERY) as f64 * outcome.iteration_ms)
    })
}

/// A table in markdown, which reads well in a terminal: the lowest loss first.
fn convergence(outcomes: &[Outcome]) -> String {
    let head = "| optimizer        | best rate | final loss | test accuracy | iteration ms |\n\
                |------------------|-----------|------------|---------------|--------------|\n";
    let row = |Outcome { name, run, lr, iteration_ms, .. }: &Outcome| {
        let Some(Score { loss, accuracy }) = run.last() else { return String::new() };
        let accuracy = 100.0 * accuracy;
        format!("| {name:<16} | {lr:>9.1e} | {loss:>10.4} | {accuracy:>11.1} % | {iteration_ms:>12.3} |\n")
    };
    let loss = |outcome: &Outcome| outcome.run.last().map_or(f32::NAN, |score| score.loss);
    let mut sorted: Vec<_> = outcomes.iter().collect();
    sorted.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    head.to_owned() + &sorted.into_iter().map(row).collect::<String>()
}

/// A table of the second picture, in markdown.
fn robustness(outcomes: &[Outcome], rates: &[f64]) -> String {
    let head = "| optimizer        | best accuracy | good rates         | decades |\n\
                |------------------|---------------|--------------------|---------|\n";
    let row = |outcome: &Outcome| {
        let top = outcome.accuracies.iter().copied().fold(0.0, f32::max);
        let (first, last) = outcome.window();
        let good = format!("{:.1e} to {:.1e}", rates[first], rates[last]);
        format!("| {:<16} | {top:>11.1} % | {good:<18} | {:>7} |\n", outcome.name, decades(outcome, rates))
    };
    head.to_owned() + &outcomes.iter().map(row).collect::<String>()
}

/// How many decades of rates are good; at least so many, where they reach the grid's end.
fn decades(outcome: &Outcome, rates: &[f64]) -> String {
    let (first, last) = outcome.window();
    let open = if first == 0 || last == rates.len() - 1 { ">= " } else { "" };
    format!("{open}{:.1}", width(outcome, rates))
}

fn width(outcome: &Outcome, rates: &[f64]) -> f64 {
    let (first, last) = outcome.window();
    (rates[last] / rates[first]).log10()
}

/// What the second picture shows of the claims of NovoGrad's and RAdam's authors.
fn verdict(outcomes: &[Outcome], rates: &[f64]) -> String {
    let mut text = format!(
        "A rate is good where the test accuracy is at most {GOOD} points below the optimizer's best, of one run each.\n"
    );
    let find = |name: &str| outcomes.iter().find(|outcome| outcome.name == name);
    for (claims, than) in [("novograd", "momentum"), ("novograd", "adam"), ("radam", "adam")] {
        let (Some(one), Some(other)) = (find(claims), find(than)) else { continue };
        // Rates are half a decade apart: a step of the grid is no difference yet.
        let answer = match width(one, rates) - width(other, rates) {
            more if more > 0.6 => "Yes, here",
            less if less < -0.6 => "The other way round, here",
            _ => "No sign of it here",
        };
        let (a, b) = (decades(one, rates), decades(other, rates));
        text += &format!("Is {claims} less particular than {than}? {answer}: {a} decades of good rates to {b}.\n");
    }
    text
}

/// The loss of logistic regression; `x` gives the place of its `i`-th score.
fn curves(area: &Area, outcomes: &[Outcome], label: &str, x: impl Fn(&Outcome, usize) -> f64) -> Result<()> {
    let runs = || outcomes.iter().map(|outcome| (outcome, &outcome.run));
    let losses = || runs().flat_map(|(_, run)| run).map(|score| score.loss).filter(|loss| loss.is_finite());
    let (low, high) = (losses().fold(f32::INFINITY, f32::min), losses().fold(0.0, f32::max));
    let end = runs().map(|(outcome, run)| x(outcome, run.len() - 1)).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .x_label_area_size(80)
        .y_label_area_size(110)
        .build_cartesian_2d(0.0..end, (low * 0.9..high * 1.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(label)
        .y_desc("training loss (cross-entropy)")
        .axis_desc_style(text(26))
        .label_style(text(24))
        .x_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (outcome, run) in runs() {
        let points = run.iter().enumerate().map(|(i, score)| (x(outcome, i), score.loss));
        chart.draw_series(LineSeries::new(points.filter(|(_, loss)| loss.is_finite()), outcome.pen))?;
    }
    Ok(())
}

/// The accuracy at which the second picture begins, in percent.
const LEAST: f32 = 50.0;

/// The rates, with room beside them.
fn across(rates: &[f64]) -> std::ops::Range<f64> {
    rates[0] / 1.5..rates[rates.len() - 1] * 1.5
}

/// The final accuracy at each learning rate.
fn accuracies(area: &Area, outcomes: &[Outcome], rates: &[f64]) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .x_label_area_size(80)
        .y_label_area_size(100)
        .build_cartesian_2d(across(rates).log_scale(), LEAST..100.0)?;
    chart
        .configure_mesh()
        .x_desc("learning rate")
        .y_desc("final test accuracy (%)")
        .axis_desc_style(text(26))
        .label_style(text(24))
        .x_label_formatter(&power)
        .y_labels(6)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for outcome in outcomes {
        let shown = |rate: usize| outcome.accuracies.get(rate).is_some_and(|&accuracy| accuracy >= LEAST);
        let points = || rates.iter().zip(&outcome.accuracies).map(|(&lr, &accuracy)| (lr, accuracy)).enumerate();
        // Of the points outside the picture, a curve goes only to those next to a point inside.
        let line = points().filter(|&(rate, _)| shown(rate) || shown(rate + 1) || shown(rate.wrapping_sub(1)));
        chart.draw_series(LineSeries::new(line.map(|(_, point)| point), outcome.pen))?;
        let dots = points().filter(|&(rate, _)| shown(rate));
        chart.draw_series(dots.map(|(_, point)| Circle::new(point, 6, outcome.pen.filled())))?;
    }
    Ok(())
}

/// The rates that are good, one bar an optimizer.
fn windows(area: &Area, outcomes: &[Outcome], rates: &[f64]) -> Result<()> {
    let rows = outcomes.len() as f32;
    let mut chart = ChartBuilder::on(area)
        .margin(20)
        .x_label_area_size(80)
        .y_label_area_size(200)
        .build_cartesian_2d(across(rates).log_scale(), -0.2..rows)?;
    chart
        .configure_mesh()
        .x_desc(format!("rates within {GOOD} points of the best"))
        .axis_desc_style(text(26))
        .label_style(text(24))
        .x_label_formatter(&power)
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (i, outcome) in outcomes.iter().enumerate() {
        let (first, last) = outcome.window();
        let y = rows - i as f32 - 0.5;
        chart.draw_series([Rectangle::new(
            [(rates[first] / 1.1, y - 0.2), (rates[last] * 1.1, y + 0.2)],
            outcome.pen.filled(),
        )])?;
        let name = EmptyElement::at((across(rates).start, y));
        chart.draw_series([name + Text::new(outcome.name.clone(), (-16, 0), anchored(24, HPos::Right))])?;
        let width = format!("{} decades", decades(outcome, rates).replace(">= ", "≥ "));
        let middle = EmptyElement::at(((rates[first] * rates[last]).sqrt(), y - 0.2));
        chart.draw_series([middle + Text::new(width, (0, 14), anchored(20, HPos::Center))])?;
    }
    Ok(())
}

fn power(rate: &f64) -> String {
    let digits = ["⁰", "¹", "²", "³", "⁴", "⁵"];
    let power = rate.log10().round() as i32;
    format!("10{}{}", if power < 0 { "⁻" } else { "" }, digits[power.unsigned_abs() as usize % digits.len()])
}
