//! Draws what docs/steps-to-loss.md tells, from the records of its trainings: how many steps rules take, and what
//! losses come to in fewer bits.
//!
//! `cargo run --release --manifest-path crates/pictures/Cargo.toml --bin steps -- --out target/pictures`

use clap::Parser;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::process::ExitCode;
use wgpu_optim_pictures::draw;
use wgpu_optim_pictures::draw::{Area, Out, Result, anchored, pen, text};

#[path = "../../../../examples/steps_to_loss/record.rs"]
#[allow(dead_code)] // what writes records
mod record;

use record::{Run, SEEDS, Sample, Stored, best, taken};
use std::ops::Range;

/// Draws steps to a loss, by rule and by rate, and losses in fewer bits.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    out: Out,
}

/// A number for each seed: steps of a rule at the rate that was chosen for it, or a loss with a way to store.
struct Measured {
    name: String,
    numbers: Vec<f64>,
    sample: Sample,
}

impl Measured {
    fn new(name: &str, numbers: Vec<f64>) -> Measured {
        Measured { name: name.into(), sample: Sample::of(&numbers), numbers }
    }
}

fn main() -> ExitCode {
    draw::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let runs: Vec<Run> = record::read(include_str!("../../../../benches/record/steps-to-loss.csv"))?;
    let mut names: Vec<&str> = runs.iter().map(|run| &run.name[..]).collect();
    names.sort_unstable();
    names.dedup();
    let measured = |name: &&str| Ok(Measured::new(name, taken(&runs, name, best(&runs, name)?)));
    let mut rules = names.iter().map(measured).collect::<Result<Vec<_>>>()?;
    let missing = |rule: &Measured| SEEDS.count() - rule.numbers.len();
    rules.sort_by(|a, b| missing(a).cmp(&missing(b)).then(a.sample.mean.total_cmp(&b.sample.mean)));
    options.out.save("steps", (1600, 900), |page| {
        let (left, right) = page.margin(10, 10, 10, 10).split_horizontally(860);
        let most = rules.iter().flat_map(|rule| &rule.numbers).copied().fold(0.0, f64::max);
        lanes(&left, "steps to the loss, of eight seeds", 360, 0.0..1.05 * most, &rules)?;
        by_rate(&right, &runs, &rules)
    })?;

    let digits: Vec<Stored> = record::read(include_str!("../../../../benches/record/formats-digits.csv"))?;
    let text: Vec<Stored> = record::read(include_str!("../../../../benches/record/formats-text.csv"))?;
    options.out.save("fewer_bits", (1600, 1280), |page| {
        let (above, below) = page.margin(10, 10, 10, 10).split_vertically(630);
        for (area, what, stored, [of_train, of_test]) in
            [(above, "digits", digits, [-30.0..110.0, -12.0..12.0]), (below, "text", text, [-1.2..2.4, -1.2..2.4])]
        {
            let (left, right) = area.split_horizontally(960);
            let title = |loss: &str| format!("{what}: {loss} loss, % above f32's");
            lanes(&left, &title("training"), 420, of_train, &beside_f32(&stored, |of| of.train))?;
            lanes(&right, &title("test"), 20, of_test, &beside_f32(&stored, |of| of.test))?;
        }
        Ok(())
    })
}

/// How far a loss is from that of the first way to store, seed by seed, in percent; of the other ways.
fn beside_f32(stored: &[Stored], loss: fn(&Stored) -> f32) -> Vec<Measured> {
    let mut names: Vec<&str> = stored.iter().map(|stored| &stored.name[..]).collect();
    names.dedup();
    let losses = |name: &str| -> Vec<f64> {
        stored.iter().filter(|stored| stored.name == name).map(|stored| loss(stored).into()).collect()
    };
    let base = losses(names[0]);
    let ratios = |name: &str| losses(name).iter().zip(&base).map(|(own, base)| 100.0 * (own / base - 1.0)).collect();
    names[1..].iter().map(|name| Measured::new(name, ratios(name))).collect()
}

/// A lane for each row: every seed as a dot, their mean, and a standard deviation to either side. A row that seeds are
/// missing from has no mean, and its name says how many it has. Names stand where there is room to the left.
fn lanes(area: &Area, title: &str, room: u32, across: Range<f64>, rows: &[Measured]) -> Result<()> {
    let middle = (room + area.dim_in_pixel().0) as i32 / 2;
    area.draw(&Text::new(title, (middle, 26), anchored(28, HPos::Center)))?;
    let (start, seeds) = (across.start, rows.iter().map(|row| row.numbers.len()).max().unwrap_or(0));
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(52)
        .x_label_area_size(40)
        .y_label_area_size(room)
        .build_cartesian_2d(across, -0.3..rows.len() as f64 - 0.1)?;
    chart
        .configure_mesh()
        .y_labels(0)
        .label_style(text(24))
        .x_label_formatter(&|x| format!("{}", (10.0 * x).round() / 10.0))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (i, row) in rows.iter().enumerate() {
        let (y, Sample { mean, sd, .. }) = ((rows.len() - 1 - i) as f64 + 0.3, row.sample);
        let count = row.numbers.len();
        if room > 100 {
            let name = if count < seeds { format!("{} ({count} of {seeds})", row.name) } else { row.name.clone() };
            let at = EmptyElement::at((start, y));
            chart.draw_series([at + Text::new(name, (-16, 0), anchored(24, HPos::Right))])?;
        }
        let dots = row.numbers.iter().map(|&number| Circle::new((number, y), 6, pen(0).color.mix(0.35).filled()));
        chart.draw_series(dots)?;
        if count < seeds {
            continue;
        }
        chart.draw_series([PathElement::new([(mean - sd, y), (mean + sd, y)], pen(3))])?;
        chart.draw_series([PathElement::new([(mean, y - 0.3), (mean, y + 0.3)], pen(3))])?;
    }
    Ok(())
}

/// The mean of eight seeds at each rate where all reach the loss, of the rules that were trained at every rate.
fn by_rate(area: &Area, runs: &[Run], rules: &[Measured]) -> Result<()> {
    area.draw(&Text::new("mean steps by learning rate", (390, 26), anchored(28, HPos::Center)))?;
    let mut rates: Vec<f64> = runs.iter().map(|run| run.lr).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(52)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d((rates[0]..rates[rates.len() - 1]).log_scale(), (40.0..900.0).log_scale())?;
    chart
        .configure_mesh()
        .label_style(text(24))
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let at_all = |rule: &&Measured| rates.iter().filter(|&&lr| !taken(runs, &rule.name, lr).is_empty()).count() > 1;
    for (i, rule) in rules.iter().filter(at_all).enumerate() {
        let mean = |&lr: &f64| {
            let steps = taken(runs, &rule.name, lr);
            (steps.len() == SEEDS.count()).then(|| (lr, Sample::of(&steps).mean))
        };
        let points: Vec<_> = rates.iter().filter_map(mean).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), pen(i)))?
            .label(&rule.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 40, y)], pen(i)));
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 5, pen(i).filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .legend_area_size(50)
        .label_font(text(22))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
