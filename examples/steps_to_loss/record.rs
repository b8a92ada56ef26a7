//! The record of trainings: a file of rows, one a training, and what rows of one kind come to.

use super::Result;
use std::ops::RangeInclusive;

/// The seed of the trainings that a rate is chosen by.
pub const TUNED_ON: u64 = 0;
/// The seeds of the trainings at that rate.
pub const SEEDS: RangeInclusive<u64> = 1..=8;

/// A training at a fixed rate. Its line: name, rate, seed, steps or nothing, loss, unrest.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub name: String,
    pub lr: f64,
    pub seed: u64,
    /// The step after which a test first found the loss to be reached.
    pub steps: Option<u32>,
    /// The mean of the last tests' losses.
    pub loss: f32,
    /// The root mean square of the differences between each of these losses and the next.
    pub unrest: f32,
}

/// A training with parameters and state stored in some way. Its line: name, seed, both losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub name: String,
    pub seed: u64,
    /// The mean loss of the training images at the end.
    pub train: f32,
    /// The mean loss of the test images at the end.
    pub test: f32,
}

/// A row of a file.
pub trait Row: Sized {
    const COLUMNS: &'static str;

    fn line(&self) -> String;

    fn read(fields: &[&str]) -> Result<Self>;
}

impl Row for Run {
    const COLUMNS: &'static str = "rule,lr,seed,steps,loss,unrest";

    fn line(&self) -> String {
        let Run { name, lr, seed, steps, loss, unrest } = self;
        let steps = steps.map(|steps| steps.to_string()).unwrap_or_default();
        format!("{name},{lr},{seed},{steps},{loss},{unrest}")
    }

    fn read(fields: &[&str]) -> Result<Self> {
        let &[name, lr, seed, steps, loss, unrest] = fields else { return Err("expected six fields".into()) };
        let steps = if steps.is_empty() { None } else { Some(steps.parse()?) };
        let (lr, seed, loss, unrest) = (lr.parse()?, seed.parse()?, loss.parse()?, unrest.parse()?);
        Ok(Run { name: name.into(), lr, seed, steps, loss, unrest })
    }
}

impl Row for Stored {
    const COLUMNS: &'static str = "storage,seed,train_loss,test_loss";

    fn line(&self) -> String {
        let Stored { name, seed, train, test } = self;
        format!("{name},{seed},{train},{test}")
    }

    fn read(fields: &[&str]) -> Result<Self> {
        let &[name, seed, train, test] = fields else { return Err("expected four fields".into()) };
        Ok(Stored { name: name.into(), seed: seed.parse()?, train: train.parse()?, test: test.parse()? })
    }
}

/// The text of a file: the command, the columns, the rows.
pub fn write<R: Row>(command: &str, rows: &[R]) -> String {
    let lines: String = rows.iter().map(|row| row.line() + "\n").collect();
    format!("# {command}\n{}\n{lines}", R::COLUMNS)
}

/// The rows of such a text.
pub fn read<R: Row>(text: &str) -> Result<Vec<R>> {
    let lines = text.lines().enumerate().skip(2);
    let row = |(i, line): (usize, &str)| {
        R::read(&line.split(',').collect::<Vec<_>>()).map_err(|error| format!("line {}: {error}", i + 1).into())
    };
    lines.map(row).collect()
}

/// The rate whose training reached the loss soonest, of those on one seed.
pub fn best(runs: &[Run], name: &str) -> Result<f64> {
    let of = |run: &&Run| run.name == name && run.seed == TUNED_ON;
    let reached = runs.iter().filter(of).filter_map(|run| Some((run.steps?, run.lr)));
    let least = reached.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    least.map(|(_, lr)| lr).ok_or_else(|| format!("{name} reaches the loss at no rate of the grid").into())
}

/// The steps of the measured trainings of a rule at a rate; those that do not reach the loss are left out.
pub fn taken(runs: &[Run], name: &str, lr: f64) -> Vec<f64> {
    let of = |run: &&Run| run.name == name && run.lr == lr && SEEDS.contains(&run.seed);
    runs.iter().filter(of).filter_map(|run| run.steps.map(f64::from)).collect()
}

/// How many numbers there are, their mean, and their standard deviation as a sample's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub count: f64,
    pub mean: f64,
    pub sd: f64,
}

impl Sample {
    pub fn of(values: &[f64]) -> Sample {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        Sample { count, mean, sd: (squares / (count - 1.0)).sqrt() }
    }
}
