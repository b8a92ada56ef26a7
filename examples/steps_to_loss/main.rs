//! How many steps each optimizer takes to a fixed loss, and what a training comes to with parameters and state in
//! fewer bits: the network of the demo, and for the latter a transformer, too, on the CPU reference, whose bits are those
//! of the GPU.
//!
//! `cargo xtask steps-to-loss` trains all, writes the records `steps-to-loss.csv`, `formats-digits.csv` and
//! `formats-text.csv` in `benches/record`, and their tables into `docs/steps-to-loss.md`.

#[path = "../train_digits/data.rs"]
#[allow(dead_code)] // the reader of MNIST
mod data;
mod digits;
mod network;
mod record;
#[path = "../train_digits/start.rs"]
mod start;
mod study;
mod tables;
mod tape;
mod text;
mod train;

use clap::Parser;
use digits::Digits;
use indicatif::{ProgressBar, ProgressStyle};
use network::Network;
use std::{error::Error, fs, num::NonZero, path::Path, process::ExitCode, thread};
use text::Text;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Trains the demo's network with each optimizer until a loss is reached, and this and a transformer with each way to
/// store their numbers.
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
const FILES: [&str; 4] = [
    "benches/record/steps-to-loss.csv",
    "benches/record/formats-digits.csv",
    "benches/record/formats-text.csv",
    "docs/steps-to-loss.md",
];

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
    let [steps, of_digits, of_text, document] = FILES.map(|name| root.join(name));
    let threads = options.threads.get();
    if !options.tables {
        let digits = Digits::new(&data::digits()?);
        let bar = ProgressBar::new(0)
            .with_style(ProgressStyle::with_template("{wide_bar} {pos} of {len} trainings, {eta} to go")?);
        let tell = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        if !options.formats {
            let runs = study::steps_to_loss(&digits, threads, tell)?;
            fs::write(&steps, record::write("cargo xtask steps-to-loss", &runs))?;
        }
        for (network, file) in [(&digits as &dyn Network, &of_digits), (&Text::new(), &of_text)] {
            let stored = study::stored(network, threads, tell)?;
            fs::write(file, record::write("cargo xtask steps-to-loss --formats", &stored))?;
        }
        bar.finish_and_clear();
    }
    let runs = record::read(&fs::read_to_string(&steps)?)?;
    let [of_digits, of_text] = [of_digits, of_text].map(|file| record::read(&fs::read_to_string(file)?));
    let tables = tables::all(&runs, &of_digits?, &of_text?)?;
    let text = tables::put(&fs::read_to_string(&document)?, &tables)?;
    fs::write(&document, text)?;
    FILES.iter().for_each(|name| println!("wrote {name}"));
    Ok(())
}
