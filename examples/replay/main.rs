//! Replays a recorded run step by step, and compares it with what another library made of the same gradients.
//!
//! `cargo run --release --example replay -- RUN.json RECORDING.safetensors OUT.safetensors [options]`
//!
//! * `RUN.json`: the optimizer's configuration, optionally with `"lr_per_step": [..]`, which replaces `lr` step by
//!   step.
//! * `RECORDING.safetensors`: `param.<tensor>` (F32), the initial parameters, and `grad.<tensor>` (F32,
//!   `[steps, ...shape]`).
//! * `OUT.safetensors`: `param.<tensor>` (`[steps, ...shape]`), the parameters after every step, and the state after
//!   the last one: `state.<tensor>.<slot>` and `state.<tensor>.t` (I64).
//! * `--expect`: `steps` (I64, counted from 1), `param.<tensor>` (F64, `[len(steps), ...shape]`), and perhaps
//!   `f32.<tensor>`, what the other library makes of them in f32.
//!
//! Exit codes: 0, 1 where the parameters are outside the tolerance, 2 where an input is refused.

mod recording;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use wgpu_optim::{DType, Gpu, ParamRounding, StateFormat, Storage};

use recording::{Comparison, Expected, Number, Recording, Replayed, Result, Tolerance, refuse};
use run::Run;

/// Replays a recorded run step by step
#[derive(Parser)]
struct Options {
    /// The optimizer's configuration
    #[arg(value_name = "RUN.json")]
    run: PathBuf,
    /// Initial parameters and the gradients of every step
    #[arg(value_name = "RECORDING.safetensors")]
    recording: PathBuf,
    /// The parameters after every step, and the last state
    #[arg(value_name = "OUT.safetensors")]
    out: PathBuf,
    #[arg(long, value_enum, default_value_t = On::Gpu)]
    on: On,
    /// The CPU reference in f64
    #[arg(long)]
    f64: bool,
    /// An adapter whose name contains NAME
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// How parameters are stored, and how new ones are rounded, on the CPU too
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = PARAM_FORMATS)]
    param_format: String,
    /// How gradients are stored: the recorded ones are rounded, on the CPU too
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = formats())]
    grad_format: String,
    /// How the state of tensors with at least the run's min_elements is stored, on the CPU too
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(Storage::ALL.map(Storage::name)))]
    state_format: Option<String>,
    /// Compare with another library's results; exit 1 outside the tolerance
    #[arg(long, value_name = "EXPECTED.safetensors")]
    expect: Option<PathBuf>,
}

/// How parameters are stored; behind that, how new ones are rounded.
const PARAM_FORMATS: [&str; 6] = ["f32", "f16", "bf16", "bf16_stochastic", "bf16_master", "bf16_remainder"];

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(DType::ALL.map(DType::name))
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum On {
    Gpu,
    /// The CPU reference
    Cpu,
}

fn main() -> ExitCode {
    match replay(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the replay, and returns whether it passes. Every file is read before the first step.
fn replay(options: &Options) -> Result<bool> {
    match options.on {
        On::Gpu if options.f64 => refuse!("--f64 needs --on cpu: the GPU computes in f32"),
        On::Cpu if options.adapter.is_some() => refuse!("--adapter needs --on gpu: the CPU has none"),
        _ => {}
    }
    let mut recording = Recording::read(&options.recording)?;
    let find = |name: &str| DType::find(name).expect("one of those offered");
    let (param, rounding) = match options.param_format.split_once('_') {
        Some((param, "stochastic")) => (param, ParamRounding::Stochastic),
        Some((param, "master")) => (param, ParamRounding::Master),
        Some((param, _)) => (param, ParamRounding::Remainder),
        None => (&options.param_format[..], ParamRounding::Nearest),
    };
    recording.store_in(find(param), find(&options.grad_format));
    let mut run = Run::read(&options.run, &recording)?;
    if rounding != ParamRounding::Nearest {
        run.config = run.config.wrap(rounding);
    }
    if let Some(storage) = options.state_format.as_deref().and_then(Storage::find) {
        run.config = run.config.wrap(StateFormat::All(storage));
    }
    let expected = options.expect.as_ref().map(|path| Expected::read(path, &recording)).transpose()?;
    let inputs = Inputs { recording, run, expected };
    let Inputs { recording, run, .. } = &inputs;
    match options.on {
        On::Gpu => {
            let gpu = match &options.adapter {
                Some(name) => Gpu::request_named_blocking(name)?,
                None => Gpu::request_blocking()?,
            };
            inputs.finish(&run.on_gpu(&gpu, recording)?, &gpu.adapter_info().name, &options.out)
        }
        On::Cpu if options.f64 => inputs.finish(&run.on_cpu::<f64>(recording)?, "the CPU in f64", &options.out),
        On::Cpu => inputs.finish(&run.on_cpu::<f32>(recording)?, "the CPU in f32", &options.out),
    }
}

struct Inputs {
    recording: Recording,
    run: Run,
    expected: Option<Expected>,
}

impl Inputs {
    fn finish<F: Number>(&self, replayed: &Replayed<F>, device: &str, out: &Path) -> Result<bool> {
        let Self { recording, run, expected } = self;
        let source = format!("wgpu-optim {} on {device}", env!("CARGO_PKG_VERSION"));
        println!("{}, {} steps, by {source}", run.config.name(), recording.steps);
        replayed.write(out, recording, source)?;
        Ok(expected
            .as_ref()
            .is_none_or(|expected| print_table(&expected.compare(recording, replayed, Tolerance::F32, &run.config))))
    }
}

/// Prints a line for each tensor, with its worst step, and returns whether all pass.
fn print_table(comparisons: &[Comparison]) -> bool {
    let width = comparisons.iter().map(|row| row.tensor.chars().count()).fold("tensor".len(), usize::max);
    println!("{:width$}  elements  worst step     error     bound  outside", "tensor");
    for steps in comparisons.chunk_by(|a, b| a.tensor == b.tensor) {
        let badness = |row: &Comparison| (!row.passes(), row.share());
        let worst = |a: &&Comparison, b: &&Comparison| badness(a).partial_cmp(&badness(b)).expect("no share is NaN");
        let row = steps.iter().max_by(worst).expect("a chunk has a first");
        let Comparison { tensor, elements, step, error, bound, outside, .. } = row;
        let verdict = if row.passes() { "" } else { "  FAIL" };
        println!("{tensor:width$}  {elements:>8}  {step:>10}  {error:>8.2e}  {bound:>8.2e}  {outside:>7}{verdict}");
    }
    let passes = comparisons.iter().all(Comparison::passes);
    println!("{}", if passes { "within the tolerance" } else { "outside the tolerance" });
    passes
}
