//! Takes the steps of a recorded run from where a checkpoint stands, and saves a checkpoint. The Python programs beside
//! it make such checkpoints of other libraries' optimizers, and other libraries' optimizers of such checkpoints;
//! `check.py` runs half of each golden run here and half there.
//!
//! `cargo run --release --example interchange -- RECORDING.safetensors --config RUN.json --until 12 --save HALF`
//!
//! * `RECORDING.safetensors`: `param.<tensor>` and `grad.<tensor>`, as `examples/replay` takes them.
//! * `--config RUN.json` starts with the recording's parameters, `--load CHECKPOINT` goes on with the checkpoint's.
//! * `--load-codes` and `--save-codes` read and write the state in 8 bits as bitsandbytes has it (`codes.rs`).

mod codes;
#[path = "../replay/recording.rs"]
#[expect(dead_code, reason = "the example replay compares, too")]
mod recording;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use wgpu_optim::{Arena, Checkpoint, Config, Gpu, Optimizer, TensorSpec};

use recording::{Recording, Result, refuse};

/// Takes steps of a recorded run, from a checkpoint to a checkpoint
#[derive(Parser)]
struct Options {
    /// Initial parameters and the gradients of every step
    #[arg(value_name = "RECORDING.safetensors")]
    recording: PathBuf,
    /// The optimizer's configuration, to start a run
    #[arg(long, value_name = "RUN.json", required_unless_present = "load", conflicts_with = "load")]
    config: Option<PathBuf>,
    /// A checkpoint, to go on from
    #[arg(long, value_name = "CHECKPOINT")]
    load: Option<PathBuf>,
    /// State of 8 bits, in place of the checkpoint's
    #[arg(long, value_name = "CODES.safetensors", requires = "load")]
    load_codes: Option<PathBuf>,
    /// The last step to take, counted from 1; all of the recording's if not given
    #[arg(long, value_name = "STEP")]
    until: Option<u64>,
    /// Where to save the training
    #[arg(long, value_name = "CHECKPOINT")]
    save: PathBuf,
    /// Where to save the state in 8 bits
    #[arg(long, value_name = "CODES.safetensors")]
    save_codes: Option<PathBuf>,
    /// An adapter whose name contains NAME
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
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
    let recording = Recording::read(&options.recording)?;
    let tensors: Vec<_> =
        recording.tensors.iter().map(|tensor| TensorSpec::f32(&tensor.name, tensor.shape.as_slice())).collect();
    let gpu = match &options.adapter {
        Some(name) => Gpu::request_named_blocking(name)?,
        None => Gpu::request_blocking()?,
    };
    let [params, grads] = [Arena::new(&gpu, &tensors)?, Arena::new(&gpu, &tensors)?];
    let (mut optimizer, done) = match (&options.config, &options.load) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let optimizer = Optimizer::new(&gpu, &tensors, Config::from_json(&text)?)?;
            recording.tensors.iter().try_for_each(|tensor| params.write(&tensor.name, &tensor.param))?;
            (optimizer, 0)
        }
        (None, Some(path)) => {
            let checkpoint = Checkpoint::load_from(path)?;
            let optimizer = Optimizer::load(&gpu, &tensors, &checkpoint)?;
            optimizer.load_params(&checkpoint, &params)?;
            (optimizer, checkpoint.attempts())
        }
        (None, None) => refuse!("neither --config nor --load is given"),
    };
    if let Some(path) = &options.load_codes {
        codes::load(&mut optimizer, path)?;
    }
    let last = options.until.unwrap_or(recording.steps as u64);
    if done > last || last > recording.steps as u64 {
        refuse!("steps {} to {last} are asked for; the recording has {}", done + 1, recording.steps);
    }
    for step in done..last {
        for tensor in &recording.tensors {
            grads.write(&tensor.name, tensor.grad(step as usize))?;
        }
        optimizer.step(&params, &grads)?;
    }
    optimizer.save_to_blocking(&options.save, &params, |_, _| ())?;
    if let Some(path) = &options.save_codes {
        codes::save(&optimizer, path)?;
    }
    println!("steps {} to {last}", done + 1);
    Ok(())
}
