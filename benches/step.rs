//! Times a step of every rule on lists of tensors, beside a kernel that only moves the same bytes.
//!
//! `cargo xtask bench -- --help` says how.

#[path = "step/clock.rs"]
mod clock;
#[path = "step/report.rs"]
mod report;
#[path = "step/shapes.rs"]
mod shapes;
#[path = "step/torch.rs"]
mod torch;
#[path = "step/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_optim::{Arena, Config, DType, Error, Gpu, Optimizer, TensorSpec, Wrappers, rules, wgpu};

use clock::{Clock, Patience, median};
use report::{Report, Row};
use shapes::List;
use torch::Torch;
use traffic::{Load, OTHERS, Traffic, product_flops};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Times a step of every optimizer on lists of tensors, beside a kernel that only moves the same bytes.
#[derive(Parser)]
#[command(name = "cargo xtask bench --")]
struct Options {
    /// Write the rows and what is known of the machine to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer rounds, and behind the first list one rule alone of those that move the same bytes: about two minutes on
    /// two cores with software Vulkan
    #[arg(long)]
    quick: bool,
    /// Only these, comma-separated: a rule with all its cases, or one case as the table names it
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    rule: Vec<String>,
    /// Only these lists of tensors, comma-separated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    shapes: Vec<String>,
    /// The adapter whose name contains this
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Time PyTorch's optimizer beside each row that it has, with this Python, on CUDA where there is some
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
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
    let mut torch = options.torch.as_deref().map(Torch::start).transpose()?;
    let subjects = subjects()?;
    let unknown = |row: &&String| subjects.iter().all(|subject| subject.label != **row);
    if let Some(row) = torch.iter().flat_map(|torch| &torch.rows).find(unknown) {
        return Err(format!("--torch: pytorch.py has {row:?}, which is no row of the bench").into());
    }
    let subjects = chosen(subjects, &options.rule, "rule", |s| vec![s.rule.into(), s.label.clone()])?;
    let lists = chosen(shapes::LISTS.into(), &options.shapes, "list of tensors", |l| vec![l.name.into()])?;
    let file = options.json.as_ref().map(|path| File::create(path).map_err(|e| format!("{}: {e}", path.display())));
    let file = file.transpose()?; // before the long part
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };

    let gpu = match &options.adapter {
        Some(name) => Gpu::request_named_blocking(name)?,
        None => Gpu::request_blocking()?,
    };
    let mut clock = Clock::new(&gpu);
    let probe = Load::of((rules::ALL[0].default)().as_ref(), &Wrappers::default(), 1 << 22);
    let probe = Traffic::new(&gpu, probe, &mut clock, effort.choice)?;
    clock.check(&mut |encoder| {
        probe.encode(encoder);
        Ok(())
    })?;
    drop(probe);

    let mut report = Report::new(&gpu, clock.name(), torch.as_ref().map(|torch| torch.name.clone()));
    println!("{}", report.head());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")?;
    let bar = ProgressBar::new((lists.len() * subjects.len()) as u64).with_style(style);
    let (mut left_out, mut unfit) = (0, 0);
    for (i, &List { name, shapes }) in lists.iter().enumerate() {
        let tensors: Vec<TensorSpec> = shapes().into_iter().map(|(name, shape)| TensorSpec::f32(name, shape)).collect();
        let is_left_out = |subject: &Subject| options.quick && i > 0 && !subject.first_of_its_load;
        let (fit, others): (Vec<_>, Vec<_>) = subjects.iter().partition(|subject| subject.fits(&tensors));
        let (known, timed): (Vec<&Subject>, Vec<_>) = fit.into_iter().partition(|subject| is_left_out(subject));
        (unfit, left_out) = (unfit + others.len(), left_out + known.len());
        bar.inc((others.len() + known.len()) as u64);
        for timed in timed.chunk_by(|a, b| a.format == b.format) {
            let tensors: Vec<_> = tensors.iter().map(|tensor| in_format(tensor.clone(), timed[0].format)).collect();
            let mut desk = Desk::new(&gpu, &mut clock, &tensors, effort)?;
            for subject in timed {
                bar.set_message(format!("{name} {}", subject.label));
                let mut row = match desk.row(name, subject) {
                    Err(error) if is_of_the_device(&*error) => {
                        bar.suspend(|| println!("left out: {} on {name}: {error}", subject.label));
                        bar.inc(1);
                        continue;
                    }
                    row => row?,
                };
                if let Some(torch) = &mut torch {
                    row.torch_ns_median = torch.step_ns(&subject.label, &tensors, effort.row.time)?;
                }
                bar.suspend(|| println!("{}", row.line()));
                report.rows.push(row);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    if unfit > 0 {
        println!("left out: {unfit} rows of rules on tensors that they do not take, or whose state would be too large");
    }
    if left_out > 0 {
        println!(
            "left out by --quick: {left_out} rows, after the first list, of rules that move what one before them moves"
        );
    }
    if let Some(file) = file {
        serde_json::to_writer_pretty(file, &report)?;
    }
    Ok(())
}

/// Keeps what has one of the wanted names; all where no name is wanted.
fn chosen<T>(all: Vec<T>, wanted: &[String], kind: &str, names: impl Fn(&T) -> Vec<String>) -> Result<Vec<T>> {
    let known: BTreeSet<String> = all.iter().flat_map(&names).collect();
    match wanted.iter().find(|name| !known.contains(*name)) {
        Some(name) => {
            let known: Vec<String> = known.into_iter().collect();
            Err(format!("no {kind} is called {name:?}; there are {}", known.join(", ")).into())
        }
        None if wanted.is_empty() => Ok(all),
        None => Ok(all.into_iter().filter(|one| names(one).iter().any(|name| wanted.contains(name))).collect()),
    }
}

/// How long each row is measured, and how long the walks of the same-traffic kernel that it is chosen from.
#[derive(Clone, Copy)]
struct Effort {
    row: Patience,
    choice: Patience,
}

impl Effort {
    const FULL: Effort = Effort {
        row: Patience { time: Duration::from_secs(3), least: 11 },
        choice: Patience { time: Duration::from_millis(500), least: 5 },
    };
    const QUICK: Effort = Effort {
        row: Patience { time: Duration::from_millis(150), least: 2 },
        choice: Patience { time: Duration::from_millis(20), least: 1 },
    };
}

/// A rule with the options with which it is timed.
struct Subject {
    rule: &'static str,
    /// The rule's name; where the options are not the defaults, their case's too.
    label: String,
    config: Config,
    /// The format of parameters and gradients.
    format: DType,
    /// The bytes that a step reads and writes of one element.
    load: Load,
    /// Whether it is a rule's defaults, and no rule before it moves the same bytes in the same passes.
    first_of_its_load: bool,
}

/// Each rule with its defaults, and with the first of its cases for each other number of bytes to move; one of them
/// with what may be wrapped around it, and one in other formats.
fn subjects() -> Result<Vec<Subject>> {
    let mut subjects: Vec<Subject> = vec![];
    for row in rules::ALL {
        let mut seen = vec![];
        for (case, rule) in std::iter::once(("", (row.default)())).chain((row.cases)()) {
            let rule = match rule.history() {
                Some(_) => rule.with(&serde_json::Map::from_iter([("history_size".into(), PAIRS.into())]))?,
                None => rule,
            };
            let load = Load::of(&*rule, &Wrappers::default(), 1);
            if rule.needs_look_ahead() || seen.contains(&load) {
                continue; // a look-ahead belongs before the gradients, outside a step
            }
            seen.push(load.clone());
            let mut fields = rule.to_json();
            fields.insert("optimizer".into(), row.name.into());
            if rule.has_products() {
                fields.insert("others".into(), serde_json::json!({"optimizer": OTHERS}));
            }
            let label = format!("{} {case}", row.name).trim().into();
            let config = Config::from_value(fields.into())?;
            let format = DType::F32;
            subjects.push(Subject { rule: row.name, label, config, format, load, first_of_its_load: false });
        }
    }
    for (wrap, fields) in wraps() {
        let mut config = serde_json::json!({"optimizer": WRAPPED});
        config.as_object_mut().expect("it was just made").extend(fields);
        let config = Config::from_value(config)?;
        let load = Load::of(config.rule(), config.wrappers(), 1);
        let label = format!("{WRAPPED} {wrap}");
        subjects.push(Subject { rule: WRAPPED, label, config, format: DType::F32, load, first_of_its_load: false });
    }
    for (name, format, fields) in formats() {
        let mut config = serde_json::json!({"optimizer": STORED});
        config.as_object_mut().expect("it was just made").extend(fields.as_object().expect("an object").clone());
        let config = Config::from_value(config)?;
        let load = Load::of_tensors(&config, &[in_format(TensorSpec::f32("one", [1 << 20]), format)])?.swap_remove(0);
        let label = format!("{STORED} {name}");
        subjects.push(Subject { rule: STORED, label, config, format, load, first_of_its_load: false });
    }
    // Neighbours share their same-traffic kernel.
    let order = |s: &Subject| (s.format, s.load.slots, s.load.bytes(), s.load.sums.len());
    subjects.sort_by_key(order);
    for i in 0..subjects.len() {
        let same = |other: &&Subject| other.label == other.rule && other.load == subjects[i].load;
        subjects[i].first_of_its_load = subjects.iter().find(same).is_some_and(|s| s.label == subjects[i].label);
    }
    Ok(subjects)
}

/// Whether the device is too small for a row.
fn is_of_the_device(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(Error::TooLarge { .. } | Error::Limit { .. }))
}

/// The pairs of a history: as many as most fits need, where the default is PyTorch's.
const PAIRS: usize = 10;

/// The most elements that a rule with a history is timed with: its state is many times as large.
const ELEMENTS_OF_HISTORY: u64 = 1 << 21;

impl Subject {
    /// Whether the rule is for such tensors: matrices, or few enough elements.
    fn fits(&self, tensors: &[TensorSpec]) -> bool {
        let rule = self.config.rule();
        let elements: u64 = tensors.iter().map(TensorSpec::len_elements).sum();
        (!rule.has_products() || tensors.iter().any(|tensor| tensor.shape.len() >= 2))
            && (rule.history().is_none() || elements <= ELEMENTS_OF_HISTORY)
    }
}

/// The rule that is timed with what may be wrapped around it.
const WRAPPED: &str = "adam";

/// What is wrapped around it, and what that is called.
fn wraps() -> [(&'static str, serde_json::Map<String, serde_json::Value>); 4] {
    [
        ("+check", serde_json::json!({"skip_nonfinite": true})),
        ("+clip", serde_json::json!({"clip": {"global_norm": 1}})),
        ("+scale+check+clip", serde_json::json!({"loss_scale": {}, "clip": {"global_norm": 1}})),
        ("+ema", serde_json::json!({"ema": {}})),
    ]
    .map(|(name, fields)| (name, fields.as_object().expect("an object").clone()))
}

/// The rule that is timed in formats beside f32.
const STORED: &str = "adamw";

/// Its formats: what they are called, that of parameters and gradients, and how these and the state are stored.
fn formats() -> [(&'static str, DType, serde_json::Value); 7] {
    use serde_json::json;
    [
        ("f16", DType::F16, json!({})),
        ("bf16", DType::Bf16, json!({})),
        ("bf16 stochastic", DType::Bf16, json!({"param_rounding": "stochastic"})),
        ("bf16 remainder", DType::Bf16, json!({"param_rounding": "remainder"})),
        ("bf16 state bf16", DType::Bf16, json!({"state_format": "bf16"})),
        ("bf16 state q8", DType::Bf16, json!({"state_format": "q8"})),
        ("bf16 stochastic q8", DType::Bf16, json!({"param_rounding": "stochastic", "state_format": "q8"})),
    ]
}

/// What one list of tensors is measured with.
struct Desk<'a> {
    gpu: &'a Gpu,
    clock: &'a mut Clock,
    tensors: &'a [TensorSpec],
    elements: u64,
    params: Arena,
    grads: Arena,
    /// The bytes of a step, for each form that the rule has for these tensors.
    traffic: Vec<Traffic>,
    effort: Effort,
}

impl<'a> Desk<'a> {
    fn new(gpu: &'a Gpu, clock: &'a mut Clock, tensors: &'a [TensorSpec], effort: Effort) -> Result<Desk<'a>> {
        let elements = tensors.iter().map(|tensor| tensor.len_elements()).sum();
        let arena = || -> Result<Arena> {
            let arena = Arena::new(gpu, tensors)?;
            fill(gpu, &arena, tensors)?;
            Ok(arena)
        };
        Ok(Desk { gpu, clock, tensors, elements, params: arena()?, grads: arena()?, traffic: vec![], effort })
    }

    fn row(&mut self, shapes: &'static str, subject: &Subject) -> Result<Row> {
        let mut optimizer = Optimizer::new(self.gpu, self.tensors, subject.config.clone())?;
        let dispatches = optimizer.plan(&self.params, &self.grads)?.dispatches;
        let loads = Load::of_tensors(&subject.config, self.tensors)?;
        if self.traffic.iter().map(|traffic| &traffic.load).ne(&loads) {
            self.traffic.clear(); // frees its buffers before the next ones are made
            for load in &loads {
                self.traffic.push(Traffic::new(self.gpu, load.clone(), self.clock, self.effort.choice)?);
            }
        }

        let mut rule = |encoder: &mut wgpu::CommandEncoder| {
            optimizer.encode(encoder, &self.params, &self.grads)?;
            Ok(())
        };
        let mut same = |encoder: &mut wgpu::CommandEncoder| {
            self.traffic.iter().for_each(|traffic| traffic.encode(encoder));
            Ok(())
        };
        let times = self.clock.times(&mut [&mut rule, &mut same], self.effort.row)?;
        let time_ns_median = median(times.iter().map(|pair| pair[0]));
        let encode_ns_median = self.encode_ns(&mut optimizer)?;
        let flops = product_flops(subject.config.rule(), self.tensors);
        let same_traffic_walks = self.traffic.iter().flat_map(Traffic::walks).collect();
        Ok(Row {
            rule: subject.label.clone(),
            formats: subject.format.name(),
            shapes,
            elements: self.elements,
            bytes_per_element: loads.iter().map(Load::bytes).sum::<u64>() as f64 / self.elements as f64,
            tensors: self.tensors.len(),
            time_ns_median,
            gb_per_s: loads.iter().map(Load::bytes).sum::<u64>() as f64 / time_ns_median,
            gflop_per_s: (flops > 0.0).then(|| flops / time_ns_median),
            share_of_same_traffic: median(times.iter().map(|pair| pair[1] / pair[0])),
            same_traffic_ns_median: median(times.iter().map(|pair| pair[1])),
            same_traffic_walks,
            encode_ns_median,
            dispatches,
            torch_ns_median: None,
        })
    }

    /// The processor's time of one `encode`, when all that can be kept from the step before is.
    fn encode_ns(&self, optimizer: &mut Optimizer) -> Result<f64> {
        let mut times = vec![];
        for _ in 0..101 {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let start = Instant::now();
            let token = optimizer.encode(&mut encoder, &self.params, &self.grads)?;
            times.push(start.elapsed().as_nanos() as f64);
            drop(encoder);
            optimizer.undo(token)?;
        }
        Ok(median(times))
    }
}

/// A tensor whose parameter and gradient are in this format.
fn in_format(tensor: TensorSpec, format: DType) -> TensorSpec {
    tensor.with_dtype(format).with_grad_dtype(format)
}

/// Numbers of both signs up to 0.01, the same few over and over: their values cost no time, zeros and denormals might.
fn fill(gpu: &Gpu, arena: &Arena, tensors: &[TensorSpec]) -> Result<()> {
    let noise: Vec<f32> = (0..1 << 20).map(|i: i32| i.wrapping_mul(0x9E37_79B1_u32 as i32) as f32 / 2e11).collect();
    let bytes = tensors.first().map_or(DType::F32, |tensor| tensor.dtype).encode(&noise);
    let size = bytes.len() as u64;
    let noise = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue().write_buffer(&noise, 0, &bytes);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for tensor in tensors {
        let slice = arena.slice(&tensor.name)?;
        for at in (0..slice.size).step_by(bytes.len()) {
            // A copy takes whole words.
            let part = size.min(slice.size - at).next_multiple_of(4);
            encoder.copy_buffer_to_buffer(&noise, 0, slice.buffer, slice.offset + at, part);
        }
    }
    gpu.queue().submit([encoder.finish()]);
    Ok(())
}
