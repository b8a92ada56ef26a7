//! How many steps each optimizer takes to a fixed loss, and what a training comes to with parameters and state in
//! fewer bits: the network of the demo, on the CPU reference, whose bits are those of the GPU.
//!
//! `cargo xtask steps-to-loss` trains all, writes the records `benches/record/steps-to-loss.csv` and
//! `benches/record/formats-training.csv`, and their tables into `docs/steps-to-loss.md`.

#[path = "../train_digits/data.rs"]
#[allow(dead_code)] // the reader of MNIST
mod data;
mod network;
mod record;
#[path = "../train_digits/start.rs"]
mod start;
mod study;
mod tables;
mod train;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use network::Network;
use std::{error::Error, fs, num::NonZero, path::Path, process::ExitCode, thread};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Trains the demo's network with each optimizer until a loss is reached, and with each way to store its numbers.
#[derive(Parser)]
struct Options {
    /// How many trainings run at once
    #[arg(long, default_value_t = cores())]
    threads: NonZero<usize>,
    /// Only the ways to store numbers
    #[arg(long)]
    formats: bool,
    /// Only the tables, from the records that are there
    #[arg(long, conflicts_with = "formats")]
    tables: bool,
}

/// What is written: the records, and the document with the tables.
const FILES: [&str; 3] =
    ["benches/record/steps-to-loss.csv", "benches/record/formats-training.csv", "docs/steps-to-loss.md"];

fn cores() -> NonZero<usize> {
    thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [steps, formats, document] = FILES.map(|name| root.join(name));
    let threads = options.threads.get();
    if !options.tables {
        let network = Network::new(&data::digits()?);
        let bar = ProgressBar::new(0)
            .with_style(ProgressStyle::with_template("{wide_bar} {pos} of {len} trainings, {eta} to go")?);
        let tell = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        if !options.formats {
            let runs = study::steps_to_loss(&network, threads, tell)?;
            fs::write(&steps, record::write("cargo xtask steps-to-loss", &runs))?;
        }
        let stored = study::stored(&network, threads, tell)?;
        fs::write(&formats, record::write("cargo xtask steps-to-loss --formats", &stored))?;
        bar.finish_and_clear();
    }
    let runs = record::read(&fs::read_to_string(&steps)?)?;
    let stored = record::read(&fs::read_to_string(&formats)?)?;
    let text = tables::put(&fs::read_to_string(&document)?, &tables::all(&runs, &stored)?)?;
    fs::write(&document, text)?;
    FILES.iter().for_each(|name| println!("wrote {name}"));
    Ok(())
}
