//! Trains a multilayer perceptron on handwritten digits, all on the GPU: its own kernels go forward and backward, the
//! crate's optimizer steps the weights in the same command encoder, and sixteen bytes come back an epoch. With
//! `--grads f16` gradients are in f16, of a loss that is scaled on the device; then each step reports whether it was
//! applied, too.
//!
//! `cargo run --release --example train_digits -- --optimizer novograd --plot curves.svg`
//!
//! With `--save DIR` the training is saved after each epoch; killed at any moment and started again with `--resume`, it
//! ends with the same bits.

mod data;
mod network;
mod plot;

use clap::{Parser, ValueEnum, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use network::{Network, Score};
use std::{error::Error, fs, path::Path, path::PathBuf, process::ExitCode, time::Instant};
use wgpu_optim::{Checkpoint, Config, DType, Gpu, LossScale, Optimizer, wgpu};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Trains a multilayer perceptron (128 hidden ReLUs) on handwritten digits, on the GPU.
#[derive(Parser)]
struct Options {
    /// An optimizer's name, with a learning rate for these digits that falls in a straight line to zero, or FILE.json
    /// with an optimizer's configuration, taken as it stands. The names of recipes.json stand for what is there
    #[arg(long, value_name = "NAME|FILE.json", default_value_t = usual())]
    optimizer: String,
    /// How often every training image is seen
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
    /// Images a step
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(1..))]
    batch: u32,
    /// The format of the gradients; weights and the optimizer's state are f32
    #[arg(long, value_enum, default_value_t = Grads::F32)]
    grads: Grads,
    /// Multiply the loss by a scale that starts here, a power of two, and halves when a gradient overflows, which skips
    /// the step. With f16, 65536 unless given
    #[arg(long, value_name = "INIT")]
    loss_scale: Option<f64>,
    /// Of the first weights and the order of the images; which images test does not depend on it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Part of the name of the adapter to use
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Draw loss and accuracy over the epochs
    #[arg(long, value_name = "OUT.svg")]
    plot: Option<PathBuf>,
    /// Save all that the training is in this folder, after each epoch
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Go on from what is saved there, if anything is
    #[arg(long, requires = "save")]
    resume: bool,
    /// Train on MNIST instead: a folder with its four IDX files, unpacked
    #[arg(long, value_name = "DIR")]
    mnist: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Grads {
    F32,
    F16,
}

impl Grads {
    fn format(self) -> DType {
        match self {
            Grads::F32 => DType::F32,
            Grads::F16 => DType::F16,
        }
    }
}

/// What a bare name stands for: configurations whose rates were found by trying a few on several splits of the digits.
/// The first one is the default.
const RECIPES: &str = include_str!("recipes.json");

/// Batches in one submit: enough that submitting costs little, few enough for the bar to move.
const BATCHES_A_SUBMIT: usize = 64;

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let (config, falling) = optimizer(&options.optimizer)?;
    let config = scaled(config, options.grads, options.loss_scale);
    // Some rules take their rate at creation alone, so that no schedule can scale it.
    let falling = falling && config.rule().options().contains(&"lr");
    let data = match &options.mnist {
        Some(dir) => data::mnist(dir)?,
        None => data::digits()?,
    };
    if let Some(path) = &options.plot {
        // A path that cannot be written is an error now, and not after the training.
        fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| format!("--plot {}: {error}", path.display()))?;
    }
    let gpu = match &options.adapter {
        Some(name) => Gpu::request_named_blocking(name)?,
        None => Gpu::request_blocking()?,
    };
    let mut network = Network::new(&gpu, &data, options.batch as usize, options.seed, options.grads.format())?;
    let (name, lr) = (config.name().to_owned(), config.lr());
    let file = options.save.as_ref().map(|folder| folder.join("checkpoint.safetensors"));
    if let Some(folder) = &options.save {
        fs::create_dir_all(folder).map_err(|error| format!("--save {}: {error}", folder.display()))?;
    }
    let saved = file.as_deref().filter(|_| options.resume).map(load).transpose()?.flatten();
    let mut optimizer = match &saved {
        None => Optimizer::new(&gpu, &network.tensors, config)?,
        Some(checkpoint) if checkpoint.optimizer() != name => {
            return Err(format!("--resume: {} is saved, not {name}", checkpoint.optimizer()).into());
        }
        Some(checkpoint) => Optimizer::load(&gpu, &network.tensors, checkpoint)?,
    };
    let done = match &saved {
        None => 0,
        Some(checkpoint) => {
            optimizer.load_params(checkpoint, &network.params)?;
            network.resume(checkpoint.attempts())?
        }
    };
    let is_scaled = optimizer.loss_scale_buffer().map(|scale| network.scale_loss(scale)).is_ok();

    let adapter = gpu.adapter_info();
    let (train, test) = (data.train, data.labels.len() - data.train);
    println!("adapter    {}, {}", adapter.name, adapter.backend);
    println!("images     {train} to train on, {test} to test on, {} pixels each", data.inputs);
    println!("optimizer  {name}, learning rate {lr:?}{}", if falling { " falling to 0" } else { "" });

    let mut scores: Vec<Score> = Vec::new();
    let mut skipped = 0;
    let bar = ProgressBar::new(u64::from(options.epochs) * network.batches.len() as u64)
        .with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} steps, {eta} to go")?);
    bar.set_position(u64::from(done) * network.batches.len() as u64);
    for epoch in done + 1..=options.epochs {
        if falling {
            optimizer.set_lr(lr * (1.0 - f64::from(epoch - 1) / f64::from(options.epochs)))?;
        }
        train_epoch(&gpu, &mut network, &mut optimizer, &bar)?;
        let score = network.score()?;
        optimizer.settle_blocking()?;
        skipped += optimizer.reports()?.iter().filter(|report| !report.applied).count();
        if !score.train_loss.is_finite() {
            return Err(format!("the loss is {} in epoch {epoch}: try a lower learning rate", score.train_loss).into());
        }
        bar.suspend(|| {
            println!(
                "epoch {epoch:>3}  loss {:.5}  test loss {:.5}  test accuracy {:.1} %",
                score.train_loss,
                score.test_loss,
                100.0 * score.test_accuracy
            );
        });
        scores.push(score);
        if let Some(file) = &file {
            save(&mut optimizer, file, &network)?;
        }
    }
    bar.finish_and_clear();

    if let Some(path) = &options.plot {
        plot::draw(path, &format!("{name}, learning rate {lr:?}, batches of {}", options.batch), &scores)?;
    }
    if is_scaled {
        let scale = optimizer.loss_scale_blocking()?.scale;
        println!("loss scale {scale}, {skipped} of {} steps skipped", bar.length().unwrap_or(0));
    }
    let Some(last) = scores.last() else {
        println!("all {done} epochs were done before");
        return Ok(());
    };
    let step_ms = 1e3 * step_seconds(&gpu, &network, &mut optimizer)?;
    println!("optimizer step {step_ms:.3} ms (wall clock: 100 steps encoded, submitted and waited for, median of 9)");
    println!("test accuracy {:.1} %", 100.0 * last.test_accuracy);
    Ok(())
}

/// What is saved in this file, or else in the one before it; nothing where there is none.
fn load(file: &Path) -> Result<Option<Checkpoint>> {
    if !file.exists() && !Checkpoint::previous(file).exists() {
        return Ok(None);
    }
    let bar = of_bytes("checked")?;
    let (checkpoint, refused) = Checkpoint::load_latest(file, |done, all| show(&bar, done, all))?;
    bar.finish_and_clear();
    if let Some(refused) = refused {
        println!("resumed    from the checkpoint before: {refused}");
    }
    Ok(Some(checkpoint))
}

fn save(optimizer: &mut Optimizer, file: &Path, network: &Network) -> Result<()> {
    let bar = of_bytes("saved")?;
    optimizer.save_to_blocking(file, &network.params, |done, all| show(&bar, done, all))?;
    bar.finish_and_clear();
    Ok(())
}

/// A progress bar of bytes.
fn of_bytes(what: &str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {{bytes}}/{{total_bytes}} {what}"))?;
    Ok(ProgressBar::new(0).with_style(style))
}

fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

fn recipes() -> Vec<serde_json::Value> {
    serde_json::from_str(RECIPES).expect("recipes.json is a list of configurations")
}

/// The optimizer of the first recipe.
fn usual() -> String {
    recipes()[0]["optimizer"].as_str().expect("a name").into()
}

/// The configuration that `--optimizer` means, and whether its learning rate is to fall.
fn optimizer(choice: &str) -> Result<(Config, bool)> {
    if choice.ends_with(".json") {
        let text = fs::read_to_string(choice).map_err(|error| format!("--optimizer {choice}: {error}"))?;
        let config = Config::from_json(&text).map_err(|error| format!("--optimizer {choice}: {error}"))?;
        return Ok((config, false));
    }
    if let Some(recipe) = recipes().into_iter().find(|recipe| recipe["optimizer"] == choice) {
        return Ok((Config::from_value(recipe)?, true));
    }
    // A rule without a recipe has its own defaults.
    let config = Config::from_value(serde_json::json!({ "optimizer": choice }));
    Ok((config.map_err(|error| format!("--optimizer {choice}: {error}"))?, true))
}

/// Adds a loss scale to a configuration: as `--loss-scale` says, else as the configuration does; where neither does,
/// only with gradients in f16.
fn scaled(config: Config, grads: Grads, init: Option<f64>) -> Config {
    let given = config.wrappers().loss_scale().copied();
    match (init, given, grads) {
        (Some(init), ..) => config.wrap(LossScale { init, ..given.unwrap_or_default() }),
        (None, None, Grads::F16) => config.wrap(LossScale::default()),
        _ => config,
    }
}

/// Takes a step for each batch. While one submit runs, the next is encoded.
fn train_epoch(gpu: &Gpu, network: &mut Network, optimizer: &mut Optimizer, bar: &ProgressBar) -> Result<()> {
    network.shuffle();
    let mut running = None;
    for batches in network.batches.chunks(BATCHES_A_SUBMIT) {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for batch in batches {
            if optimizer.needs_look_ahead() {
                optimizer.encode_look_ahead(&mut encoder, &network.params)?;
            }
            network.encode_gradients(&mut encoder, batch);
            optimizer.encode(&mut encoder, &network.params, &network.grads)?;
        }
        let submitted = gpu.queue().submit([encoder.finish()]);
        if let Some(submission_index) = running.replace(submitted) {
            gpu.device().poll(wgpu::PollType::Wait { submission_index: Some(submission_index), timeout: None })?;
        }
        bar.inc(batches.len() as u64);
    }
    Ok(())
}

/// Measures the median wall time of one optimizer step on the last batch's gradients. This moves the weights, so it
/// comes last.
fn step_seconds(gpu: &Gpu, network: &Network, optimizer: &mut Optimizer) -> Result<f64> {
    const STEPS: u32 = 100;
    let mut seconds = [0.0; 9];
    for time in &mut seconds {
        let start = Instant::now();
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..STEPS {
            if optimizer.needs_look_ahead() {
                optimizer.encode_look_ahead(&mut encoder, &network.params)?;
            }
            optimizer.encode(&mut encoder, &network.params, &network.grads)?;
        }
        gpu.queue().submit([encoder.finish()]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        *time = start.elapsed().as_secs_f64() / f64::from(STEPS);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_a_configuration() {
        for recipe in recipes() {
            Config::from_value(recipe.clone()).unwrap_or_else(|error| panic!("{recipe}: {error}"));
        }
    }

    #[test]
    fn the_loss_is_scaled_as_the_options_say_then_the_configuration() {
        let plain = || Config::from_json(r#"{"optimizer": "sgd"}"#).unwrap();
        let own = || Config::from_json(r#"{"optimizer": "sgd", "loss_scale": {"init": 8, "interval": 5}}"#).unwrap();
        let default = LossScale::default();
        for (config, grads, init, expected) in [
            (plain(), Grads::F32, None, None),
            (plain(), Grads::F32, Some(4.0), Some(LossScale { init: 4.0, ..default })),
            (plain(), Grads::F16, None, Some(default)),
            (own(), Grads::F16, None, Some(LossScale { init: 8.0, interval: 5, ..default })),
            (own(), Grads::F32, Some(4.0), Some(LossScale { init: 4.0, interval: 5, ..default })),
        ] {
            assert_eq!(scaled(config, grads, init).wrappers().loss_scale(), expected.as_ref());
        }
    }
}
