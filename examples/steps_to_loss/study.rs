//! Which trainings there are, and all of them in a few threads.

use super::Result;
use super::network::Network;
use super::record::{self, Run, SEEDS, Stored, TUNED_ON};
use super::train;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use wgpu_optim::{Config, DType};

/// The seeds of the trainings with each way to store.
pub const STORED_SEEDS: RangeInclusive<u64> = 1..=5;

/// The rates of the grid, each twice the one before: four decades.
pub fn rates() -> Vec<f64> {
    (0..15).map(|i| 1e-4 * f64::from(1 << i)).collect()
}

/// An optimizer that takes part: an object of rules.json.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    config: Value,
    /// Whether the eight seeds take every rate of the grid, and not the chosen one alone.
    #[serde(default)]
    pub every_rate: bool,
}

impl Entry {
    /// The optimizer at a rate, which its second rule takes as well.
    pub fn at(&self, lr: f64) -> Result<Config> {
        let mut config = self.config.clone();
        if let Some(others) = config.get_mut("others") {
            others["lr"] = lr.into();
        }
        config["lr"] = lr.into();
        Ok(Config::from_value(config)?)
    }
}

/// The optimizers that take part.
pub fn entries() -> Result<Vec<Entry>> {
    Ok(serde_json::from_str(include_str!("rules.json"))?)
}

/// One training of an entry.
pub fn run(network: &dyn Network, entry: &Entry, lr: f64, seed: u64) -> Result<Run> {
    train::steps_to_loss(network, &entry.name, &entry.at(lr)?, lr, seed)
}

/// All trainings of all optimizers. `tell` learns how many of how many are done.
pub fn steps_to_loss(network: &dyn Network, threads: usize, tell: impl Fn(usize, usize) + Sync) -> Result<Vec<Run>> {
    let (entries, rates) = (entries()?, rates());
    let all = |seeds: RangeInclusive<u64>, rates_of: &dyn Fn(&Entry) -> Result<Vec<f64>>| {
        let mut jobs = Vec::new();
        for entry in &entries {
            let rates = rates_of(entry)?;
            jobs.extend(rates.iter().flat_map(|&lr| seeds.clone().map(move |seed| (entry, lr, seed))));
        }
        at_once(threads, &jobs, &tell, |&(entry, lr, seed)| run(network, entry, lr, seed))
    };
    let mut runs = all(TUNED_ON..=TUNED_ON, &|_| Ok(rates.clone()))?;
    let chosen =
        |entry: &Entry| if entry.every_rate { Ok(rates.clone()) } else { Ok(vec![record::best(&runs, &entry.name)?]) };
    let measured = all(SEEDS, &chosen)?;
    runs.extend(measured);
    Ok(runs)
}

/// A way to store parameters and state: an object of formats.json.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub name: String,
    /// The format of the parameters.
    params: String,
    /// The format that the forward pass reads.
    forward: String,
    /// Options beside AdamW's.
    options: Map<String, Value>,
}

impl Storage {
    /// AdamW at a rate that falls in a straight line to 0.
    pub fn config(&self) -> Result<Config> {
        let falling = json!({"linear": {"total": train::STEPS}});
        let mut config = self.options.clone();
        config.extend(
            [("optimizer", json!("adamw")), ("lr", json!(0.006)), ("schedule", falling)]
                .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(Config::from_value(config.into())?)
    }

    /// The formats of the parameters and of what the forward pass reads.
    pub fn formats(&self) -> Result<[DType; 2]> {
        let format = |name: &str| match name {
            "f32" => Ok(DType::F32),
            "bf16" => Ok(DType::Bf16),
            _ => Err(format!("`{name}` is none of f32, bf16")),
        };
        Ok([format(&self.params)?, format(&self.forward)?])
    }
}

/// The ways to store that are compared.
pub fn storages() -> Result<Vec<Storage>> {
    Ok(serde_json::from_str(include_str!("formats.json"))?)
}

/// One training with a way to store.
pub fn store(network: &dyn Network, storage: &Storage, seed: u64) -> Result<Stored> {
    train::stored(network, &storage.name, &storage.config()?, seed, storage.formats()?)
}

/// All trainings with all ways to store.
pub fn stored(network: &dyn Network, threads: usize, tell: impl Fn(usize, usize) + Sync) -> Result<Vec<Stored>> {
    let storages = storages()?;
    let jobs: Vec<_> = storages.iter().flat_map(|storage| STORED_SEEDS.map(move |seed| (storage, seed))).collect();
    at_once(threads, &jobs, &tell, |&(storage, seed)| store(network, storage, seed))
}

/// Does all jobs, so many at once. The results come in the order of the jobs.
fn at_once<J: Sync, R: Send>(
    threads: usize,
    jobs: &[J],
    tell: &(impl Fn(usize, usize) + Sync),
    work: impl Fn(&J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some((i, job)) = {
            let i = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(i).map(|job| (i, job))
        } {
            let result = work(job).map_err(|error| error.to_string());
            let mut done = done.lock().expect("no worker panics");
            done.push((i, result));
            tell(done.len(), jobs.len());
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|&(i, _)| i);
    done.into_iter().map(|(_, result)| result.map_err(Into::into)).collect()
}
