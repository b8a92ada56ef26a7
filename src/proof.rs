//! The parity harness: an optimizer on the GPU beside its f32 reference. It comes with the feature `proof`.
//!
//! A rule is written twice, in Rust and in WGSL. [`parity`] runs both over tensors of every size and shape at which the
//! work is cut up, and compares every parameter and every number of the state. This crate's tests hold each of its own
//! rules to it; whoever writes a rule outside the crate does the same, as `examples/your_own_rule.rs` shows.
//!
//! Nothing here returns an error: what goes wrong is a panic, as in a test.
//!
//! ```no_run
//! use wgpu_optim::{Config, Gpu, Sgd, proof};
//!
//! let gpu = Gpu::request_blocking()?;
//! let worst = proof::parity("sgd", &gpu, &Config::from(Sgd { momentum: 0.9, ..Sgd::default() }));
//! println!("the GPU differs from the reference by at most {} ulp", worst.ulps);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```

use std::fmt::Debug;

use ndarray::ArrayD;
pub use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::codecs::DType;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffers, Gpu, Slice};
use crate::groups::Groups;
use crate::optimizer::Optimizer;
use crate::reference::Reference;
use crate::report::StepReport;
use crate::rule::{AnyRule, Reject, Rule, Slot};
use crate::tensor::TensorSpec;

/// Runs a configuration on the GPU beside its f32 reference and returns the largest difference found: three steps from
/// the start and two from a random state at `t = 1000`, over [tensors of every size and shape](all_tensors); two over
/// tensors of whole vectors of four; and a move to evaluation and back, where the rule has one.
///
/// # Panics
/// Where the configuration is refused, and where a number differs by more than [`bound`]: the text starts with `what`
/// and names the tensor, the element and both numbers.
pub fn parity(what: &str, gpu: &Gpu, config: &Config) -> Worst {
    let mut worst = Parity::new(gpu, config, &all_tensors(), 1).run(what, 3);
    worst.join(Parity::new(gpu, config, &all_tensors(), 2).midway(1000).run(what, 2));
    // Without the code for what ends within four elements.
    worst.join(Parity::new(gpu, config, &fours(), 3).midway(10).run(what, 2));
    worst
}

/// Holds a rule to what it signs, and returns the largest difference found: [`parity`] of the default options and of
/// every case, and each of its rejects refused with the whole text of its error.
///
/// # Panics
/// As [`parity`]; where options are accepted that must be refused, or refused with another text; and where there is no
/// case beside the default, since defaults hide terms.
pub fn check_rule<R: Rule>(gpu: &Gpu) -> Worst {
    let (name, cases) = (R::NAME, R::cases());
    assert!(cases.iter().any(|(_, rule)| *rule != R::default()), "{name}: no case beside the default");
    let mut worst = parity(name, gpu, &R::default().into());
    for (case, rule) in cases {
        worst.join(parity(&format!("{name}/{case}"), gpu, &rule.into()));
    }
    for Reject { json, error } in R::rejects() {
        let what = format!("{name} with {json}");
        let fields: serde_json::Map<_, _> = serde_json::from_str(json).expect("a reject's JSON is an object");
        let default: Box<dyn AnyRule> = Box::new(R::default());
        match default.with(&fields) {
            Ok(rule) => panic!("{what}: accepted, with {rule:?}; expected: {error}"),
            Err(found) => check(&what, &found, error),
        }
    }
    worst
}

/// The harness: an optimizer on the GPU and its f32 reference, with the same parameters, state and counts.
pub struct Parity {
    /// The device.
    pub gpu: Gpu,
    /// The tensors that both step.
    pub tensors: Vec<TensorSpec>,
    /// The optimizer on the GPU.
    pub optimizer: Optimizer,
    /// Its f32 reference on the CPU.
    pub reference: Reference<f32>,
    /// The GPU's parameters.
    pub params: Arena,
    /// The GPU's gradients, unless they lie [at odd words](Self::at_odd_words).
    pub grads: Arena,
    /// The reference's parameters.
    pub values: Vec<ArrayD<f32>>,
    /// Where random gradients come from.
    pub rng: StdRng,
    groups: Groups,
    /// A buffer of gradients in place of the arena, and where each gradient starts in it.
    odd_grads: Option<OddGrads>,
    /// The gradients of every step so far.
    pub history: Vec<Vec<Vec<f32>>>,
}

/// The largest difference found, in units in the last place of the larger of the numbers before and after.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    /// The difference.
    pub ulps: f64,
    /// What differs: the tensor, the element and both numbers.
    pub text: String,
}

impl Worst {
    /// Takes the other where it is worse.
    pub fn join(&mut self, other: Worst) {
        if other.ulps > self.ulps || self.text.is_empty() {
            *self = other;
        }
    }
}

/// Sizes around every boundary: of a vector of four, a workgroup, a block, a chunk.
pub const SIZES: [usize; 20] =
    [0, 1, 2, 3, 4, 5, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 8191, 8192, 8193, 20_000, 3];

/// Shapes of matrices: dims of 0 and 1, small ones that share a tile or fill it, larger ones that end within a tile,
/// with rows and columns longer than one, in batches; and one of 41 columns, whose inverse times 41 is below 1 in f32.
pub const SHAPES: [&[usize]; 15] = [
    &[0, 5],
    &[2, 3, 0],
    &[1, 1],
    &[7, 1],
    &[1, 9],
    &[5, 7],
    &[6, 41],
    &[30, 4, 1, 1],
    &[2100, 4, 1, 1],
    &[300, 3, 3],
    &[2, 3, 40, 31],
    &[3, 2100],
    &[2500, 2],
    &[2, 35, 68],
    &[2, 34, 270],
];

/// Tensors of every size and shape, named `t0`, ... and `m0`, ...
pub fn all_tensors() -> Vec<TensorSpec> {
    let shaped = SHAPES.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("m{i}"), shape));
    tensors(&SIZES).into_iter().chain(shaped).collect()
}

/// Tensors whose ends and whose rows' ends are at multiples of four elements.
pub fn fours() -> Vec<TensorSpec> {
    let shapes: [&[usize]; 8] = [&[4], &[256], &[8192], &[4, 4], &[50, 2, 8], &[2, 35, 68], &[40, 300], &[4100, 4]];
    shapes.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("f{i}"), shape)).collect()
}

/// The tensors as this configuration takes them: for a rule of matrices vectors are columns.
pub fn fitting(config: &Config, tensors: &[TensorSpec]) -> Vec<TensorSpec> {
    let fit = |tensor: &TensorSpec| match &tensor.shape[..] {
        &[len] if config.rule().has_products() => TensorSpec { shape: vec![len, 1], ..tensor.clone() },
        _ => tensor.clone(),
    };
    tensors.iter().map(fit).collect()
}

/// Tensors of these sizes, named `t0`, `t1`, ...
pub fn tensors(sizes: &[usize]) -> Vec<TensorSpec> {
    sizes.iter().enumerate().map(|(i, &size)| TensorSpec::f32(format!("t{i}"), [size])).collect()
}

/// Numbers of many magnitudes and both signs; one in sixteen is 0.
pub fn noise(rng: &mut StdRng, len: usize) -> Vec<f32> {
    let one = |rng: &mut StdRng| {
        if rng.random_range(0..16) == 0 {
            return 0.0;
        }
        rng.random_range(-1.0f32..1.0) * 2.0f32.powi(rng.random_range(-8..4))
    };
    (0..len).map(|_| one(rng)).collect()
}

/// A byte that makes a NaN in every format where all bytes of a number are this one.
const NAN_BYTE: u8 = 0xff;

type OddGrads = (wgpu::Buffer, Vec<u64>);

fn words_of(numbers: &[u64]) -> Vec<u32> {
    numbers.iter().flat_map(|&number| [number as u32, (number >> 32) as u32]).collect()
}

/// A gradient's slice, wherever it lies.
fn grad_at<'a>(arena: &'a Arena, odd: &'a Option<OddGrads>, i: usize) -> Slice<'a> {
    let tensor = &arena.tensors()[i];
    match odd {
        Some((buffer, starts)) => Slice::new(buffer, starts[i], tensor.size_bytes()),
        None => arena.slice(&tensor.name).expect("a known tensor"),
    }
}

fn odd_slices<'a>(arena: &'a Arena, odd: &'a Option<OddGrads>, absent: &[&str]) -> Buffers<'a> {
    let given =
        |(i, tensor): (usize, &TensorSpec)| (!absent.contains(&&tensor.name[..])).then(|| grad_at(arena, odd, i));
    Buffers::Slices(arena.tensors().iter().enumerate().map(given).collect())
}

/// Writes a gradient and returns it as rounded; what is left of its first and last words is NaN.
fn write_grad(gpu: &Gpu, slice: Slice, format: DType, values: &[f32]) -> Vec<f32> {
    let encoded = format.encode(values);
    let before = slice.offset % 4;
    let mut bytes = [&vec![NAN_BYTE; before as usize][..], &encoded].concat();
    bytes.resize(bytes.len().next_multiple_of(4), NAN_BYTE);
    gpu.queue().write_buffer(slice.buffer, slice.offset - before, &bytes);
    format.decode(&encoded)
}

impl Parity {
    /// Makes a harness with random parameters, state at its start, and NaN in every padding.
    ///
    /// # Panics
    /// Where the configuration or the tensors are refused.
    pub fn new(gpu: &Gpu, config: &Config, tensors: &[TensorSpec], seed: u64) -> Self {
        let (tensors, mut rng) = (&fitting(config, tensors)[..], StdRng::seed_from_u64(seed));
        let params = Arena::new(gpu, tensors).expect("parameters");
        let of_grads: Vec<_> = tensors.iter().map(TensorSpec::grad_spec).collect();
        let grads = Arena::new(gpu, &of_grads).expect("gradients");
        for (arena, tensor) in
            [&params, &grads].into_iter().flat_map(|arena| arena.tensors().iter().map(move |t| (arena, t)))
        {
            let slice = arena.slice(&tensor.name).expect("a known tensor");
            let end = slice.size.next_multiple_of(4);
            let padding = slice.size.next_multiple_of(4 * tensor.dtype.size_bytes()) - end;
            gpu.queue().write_buffer(slice.buffer, slice.offset + end, &vec![NAN_BYTE; padding as usize]);
        }
        let values = tensors
            .iter()
            .map(|tensor| {
                let mut values = noise(&mut rng, tensor.len_elements() as usize);
                values.iter_mut().for_each(|value| *value = tensor.dtype.round((*value).into()) as f32);
                params.write(&tensor.name, &values).expect("as many values as elements");
                ArrayD::from_shape_vec(tensor.shape.clone(), values).expect("as many values as elements")
            })
            .collect();
        Self {
            gpu: gpu.clone(),
            tensors: tensors.to_vec(),
            optimizer: Optimizer::new(gpu, tensors, config.clone()).expect("optimizer"),
            reference: Reference::new(config, tensors).expect("reference"),
            groups: config.groups(tensors).expect("groups"),
            params,
            grads,
            values,
            rng,
            odd_grads: None,
            history: Vec::new(),
        }
    }

    /// With gradients in a buffer of their own that is NaN elsewhere, none where the vec4 kernel could read it: those
    /// of 16 bits start in the middle of a word.
    pub fn at_odd_words(mut self) -> Self {
        let mut starts = Vec::new();
        let mut end = 0;
        for tensor in &self.tensors {
            let start = end + tensor.grad_dtype.size_bytes();
            starts.push(start);
            end = (start + tensor.grad_size_bytes()).next_multiple_of(16);
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: end.max(16), usage, mapped_at_creation: false };
        let buffer = self.gpu.device().create_buffer(&descriptor);
        self.gpu.queue().write_buffer(&buffer, 0, &vec![NAN_BYTE; end as usize]);
        self.odd_grads = Some((buffer, starts));
        self
    }

    /// How many tensors take the scalar kernel.
    pub fn count_scalar(&mut self) -> usize {
        let grads = odd_slices(&self.grads, &self.odd_grads, &[]);
        self.optimizer.plan(&self.params, grads).expect("a plan").scalar_tensors.len()
    }

    /// Sets random state as in the midst of training, at a late step. A history is that of some steps,
    /// since its numbers have to do with each other.
    pub fn midway(mut self, t: u64) -> Self {
        if self.groups.rule(0).history().is_some() {
            (0..3).for_each(|_| _ = self.step());
        }
        for (i, tensor) in self.tensors.iter().enumerate() {
            let slots = self.groups.slots_of(i).into_iter().filter(|_| self.groups.rule_of(i).history().is_none());
            for Slot { name, nonnegative, .. } in slots {
                let len = self.reference.state(&tensor.name, name).expect("a known slot").len();
                let sign = |x: f32| if nonnegative { x.abs() } else { x };
                let values: Vec<f32> = noise(&mut self.rng, len).into_iter().map(sign).collect();
                self.optimizer.set_state(&tensor.name, name, &values).expect("as many values as elements");
                self.reference.set_state(&tensor.name, name, &values).expect("as many values as elements");
            }
            self.optimizer.set_t(&tensor.name, t).expect("a known tensor");
            self.reference.set_t(&tensor.name, t).expect("a known tensor");
        }
        self
    }

    /// Takes so many steps of both, and a move to evaluation and back where the rule has one. Returns the worst
    /// difference of all.
    ///
    /// # Panics
    /// Where a number differs by more than [`bound`]; the text starts with `what`.
    pub fn run(&mut self, what: &str, steps: usize) -> Worst {
        let (bound, mut worst) = (bound(&self.gpu), Worst::default());
        for step in 1..=steps {
            let found = self.step();
            assert!(found.ulps <= bound, "{what}, step {step}: {} ulp: {}", found.ulps, found.text);
            worst.join(found);
        }
        if self.optimizer.has_eval() {
            let found = self.evaluate();
            assert!(found.ulps <= bound, "{what}, evaluation: {} ulp: {}", found.ulps, found.text);
            worst.join(found);
        }
        worst
    }

    /// Takes a step of both with random gradients, and returns the worst difference after it.
    pub fn step(&mut self) -> Worst {
        self.step_without(&[])
    }

    /// As `step`, but without a gradient for the tensors named.
    pub fn step_without(&mut self, absent: &[&str]) -> Worst {
        self.step_changed(absent, |_, _| {})
    }

    /// As `step`, but with gradients that `change` has changed, given the tensor's place.
    pub fn step_changed(&mut self, absent: &[&str], mut change: impl FnMut(usize, &mut [f32])) -> Worst {
        let lens: Vec<_> = self.tensors.iter().map(|tensor| tensor.len_elements() as usize).collect();
        let mut grads: Vec<_> = lens.into_iter().map(|len| noise(&mut self.rng, len)).collect();
        grads.iter_mut().enumerate().for_each(|(i, grads)| change(i, grads));
        self.step_with(grads, absent)
    }

    /// As `step`, but with these gradients.
    pub fn step_with(&mut self, grads: Vec<Vec<f32>>, absent: &[&str]) -> Worst {
        let before = self.snapshot();
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&self.params).expect("look-ahead");
            self.reference.look_ahead(&mut self.values).expect("look-ahead");
        }
        self.give(grads, absent);
        self.compare(&before)
    }

    /// As `step`, but with these gradients, and without the look-ahead and the comparison.
    pub fn give(&mut self, grads: Vec<Vec<f32>>, absent: &[&str]) {
        self.history.push(Vec::new());
        let write = |((i, tensor), values): ((usize, &TensorSpec), Vec<f32>)| {
            let values = write_grad(&self.gpu, grad_at(&self.grads, &self.odd_grads, i), tensor.grad_dtype, &values);
            self.history.last_mut().expect("one was pushed").push(values.clone());
            let array = ArrayD::from_shape_vec(tensor.shape.clone(), values).expect("as many values");
            (!absent.contains(&&tensor.name[..])).then_some(array)
        };
        let grads: Vec<_> = self.tensors.iter().enumerate().zip(grads).map(write).collect();
        let part = self.grads.without(absent).expect("known tensors");
        let given = match &self.odd_grads {
            Some(_) => odd_slices(&self.grads, &self.odd_grads, absent),
            None if absent.is_empty() => Buffers::from(&self.grads),
            None => Buffers::from(&part),
        };
        self.optimizer.step(&self.params, given).expect("step");
        self.reference.step(&mut self.values, &grads).expect("step");
    }

    /// Moves the parameters of both to evaluation and back, and returns the worst difference after either.
    pub fn evaluate(&mut self) -> Worst {
        let before = self.snapshot();
        self.optimizer.eval(&self.params).expect("evaluation");
        self.reference.eval(&mut self.values).expect("evaluation");
        let mut worst = self.compare(&before);
        self.optimizer.train(&self.params).expect("training");
        self.reference.train(&mut self.values).expect("training");
        worst.join(self.compare(&before));
        worst
    }

    /// All parameters and state on the GPU as bits, and the counts of steps; but what is put aside for the undoing of a
    /// look-ahead.
    pub fn words(&self) -> Vec<(String, Vec<u32>)> {
        let mut all = vec![("steps".into(), words_of(&[self.optimizer.steps()]))];
        for tensor in &self.tensors {
            let name = &tensor.name[..];
            let mut note = |what: &str, values: Vec<f32>| {
                all.push((format!("{what} of {name}"), values.into_iter().map(f32::to_bits).collect()));
            };
            note("param", self.params.read_blocking(name).expect("a readback"));
            for slot in self.optimizer.slots(name).expect("a known tensor") {
                if slot != "before_look_ahead" {
                    note(slot, self.optimizer.state_blocking(name, slot).expect("a readback"));
                }
            }
            let carried = self.optimizer.carried(name).expect("a known tensor").map(f64::to_bits);
            let t = self.optimizer.t(name).expect("a known tensor");
            all.push((format!("t of {name}"), words_of(&[t, carried[0], carried[1]])));
        }
        all
    }

    /// Whether all that is told of the last step is what the reference tells, counts of steps included; the norms on
    /// the device to rounding. An error is told, too.
    pub fn agrees(&mut self) -> bool {
        let (Ok(()), Ok(reports)) = (self.optimizer.settle_blocking(), self.optimizer.reports()) else { return false };
        let (optimizer, reference) = (&self.optimizer, &self.reference);
        let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a / b - 1.0).abs() < 1e-6;
        let told = reports.last().is_none_or(|report| reference.report().is_some_and(|known| same(report, known)));
        let scale = optimizer.loss_scale_blocking().is_ok_and(|scale| scale != reference.loss_scale());
        let norms = optimizer.norms_buffer().map_or(vec![], |slice| read(&self.gpu, slice));
        let mut known = reference.report().and_then(|report| report.norm).into_iter().collect::<Vec<_>>();
        known.extend(self.tensors.iter().map(|tensor| reference.norm(&tensor.name).expect("a known tensor")));
        let told_later = optimizer.norms_blocking().map_or(vec![], |norms| [vec![norms.all], norms.tensors].concat());
        let norms = norms.iter().zip(&known).all(|(&norm, &known)| close(norm.into(), known))
            && told_later.iter().zip(&known).all(|(&norm, &known)| close(norm, known));
        let counts = self.tensors.iter().all(|tensor| optimizer.t(&tensor.name) == reference.t(&tensor.name));
        told && !scale && norms && counts && optimizer.steps() == reference.steps()
    }

    /// The parameters swapped with their mean and back, and the mean copied out; the worst difference in all three.
    pub fn swap(&mut self) -> Worst {
        let before = self.snapshot();
        let mut worst = Worst::default();
        for _ in 0..2 {
            if self.optimizer.swap_ema(&self.params).is_ok() {
                self.reference.swap_ema(&mut self.values).expect("a swap");
                worst.join(self.compare(&before));
            }
        }
        // Parameters stand in for the copy, so that they are compared.
        self.optimizer.ema_into(&self.params).expect("a copy");
        self.reference.ema_into(&mut self.values).expect("a copy");
        worst.join(self.compare(&before));
        worst
    }

    /// Parameters and state of the reference: per tensor a name and values. For [`compare`](Self::compare), later.
    pub fn snapshot(&self) -> Vec<Vec<(String, Vec<f32>)>> {
        let flat = |array: &ArrayD<f32>| array.iter().copied().collect::<Vec<_>>();
        let each = self.tensors.iter().zip(&self.values).map(|(tensor, values)| {
            let mut all = vec![("param".to_string(), flat(values))];
            for slot in self.reference.slots(&tensor.name).expect("a known tensor") {
                let state = self.reference.state(&tensor.name, slot).expect("a known slot");
                all.push((slot.to_string(), flat(&state)));
            }
            all
        });
        each.collect()
    }

    /// The worst difference of the GPU from the reference, `before` being the latter before the step.
    ///
    /// What a rule with sides moves hangs on the roundings of its bases. On a device that rounds otherwise than the CPU
    /// such a rule is compared in this alone: which numbers are finite.
    pub fn compare(&self, before: &[Vec<(String, Vec<f32>)>]) -> Worst {
        let mut worst = Worst::default();
        let (flushes, rounds) = (flushes(&self.gpu), bound(&self.gpu) == 0.0);
        for (tensor_index, (after, before)) in self.snapshot().into_iter().zip(before).enumerate() {
            let tensor = &self.tensors[tensor_index];
            let hangs = !rounds && self.groups.rule_of(tensor_index).sides().is_some();
            for ((what, expected), (_, before)) in after.iter().zip(before) {
                let found = match &what[..] {
                    "param" => self.params.read_blocking(&tensor.name),
                    slot => self.optimizer.state_blocking(&tensor.name, slot),
                }
                .expect("a readback");
                assert_eq!(found.len(), expected.len(), "{what} of {}", tensor.name);
                for (i, ((&found, &expected), &before)) in found.iter().zip(expected).zip(before).enumerate() {
                    // The remainder counts units of a parameter that may be flushed itself.
                    let is_remainder = what == "remainder" && after[0].1[i].abs() < f32::MIN_POSITIVE;
                    let flushed = flushes && (is_remainder || (found - expected).abs() < f32::MIN_POSITIVE);
                    let same = flushed || hangs && found.is_finite() == expected.is_finite();
                    let ulps = if same { 0.0 } else { ulps(found, expected, before) };
                    let text = || format!("{what} of {}[{i}]: {found:e}, expected {expected:e}", tensor.name);
                    if ulps > worst.ulps {
                        worst = Worst { ulps, text: text() };
                    }
                }
            }
        }
        worst
    }

    /// Makes a call that must fail: checks the error's text, and that no byte of parameters, gradients and state and no
    /// `t` has changed.
    pub fn refuses<T: Debug>(&mut self, what: &str, text: &str, call: impl FnOnce(&mut Self) -> Result<T>) {
        let before = self.everything();
        match call(self) {
            Ok(value) => panic!("{what}: accepted, with {value:?}; expected: {text}"),
            Err(error) => check(what, &error, text),
        }
        for (before, after) in before.iter().zip(self.everything()) {
            assert!(*before == after, "{what}: {} has changed", after.0);
        }
    }

    /// Every number on the GPU as bits, and the counts of steps.
    fn everything(&self) -> Vec<(String, Vec<u32>)> {
        let mut all = Vec::new();
        for tensor in &self.tensors {
            let name = &tensor.name[..];
            let mut note = |what: &str, values: Vec<f32>| {
                all.push((format!("{what} of {name}"), values.into_iter().map(f32::to_bits).collect()));
            };
            note("parameter", self.params.read_blocking(name).expect("a readback"));
            note("gradient", self.grads.read_blocking(name).expect("a readback"));
            for slot in self.optimizer.slots(name).expect("a known tensor") {
                note(slot, self.optimizer.state_blocking(name, slot).expect("a readback"));
            }
            let t = self.optimizer.t(name).expect("a known tensor");
            all.push((format!("t of {name}"), vec![t as u32, (t >> 32) as u32]));
        }
        all
    }
}

/// Checks that the error's text is `text`, or begins with it where `text` ends in `...`.
pub fn check(what: &str, error: &Error, text: &str) {
    let found = error.to_string();
    let same = match text.strip_suffix("...") {
        Some(start) => found.starts_with(start),
        None => found == text,
    };
    assert!(same, "{what}:\n  found    {found}\n  expected {text}");
}

/// Whether two reports are the same; the norm to rounding, as devices may differ from the CPU.
pub fn same(a: &StepReport, b: &StepReport) -> bool {
    let norm = match (a.norm, b.norm) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a / b - 1.0).abs() < 1e-6,
        (a, b) => a == b,
    };
    let rest = |report: &StepReport| {
        (report.step, report.applied, report.without_gradient.clone(), report.scale, report.culprit.clone())
    };
    norm && rest(a) == rest(b)
}

/// What an adapter does where WGSL leaves it a choice, as measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Whether results below f32's smallest normal number are 0: then terms of a sum may be missing that are smaller.
    pub flushes: bool,
    /// Whether a product that is added to something is not rounded first.
    pub fuses: bool,
    /// Units in the last place by which a quotient is off; WGSL allows 2.5.
    pub quotient: f64,
    /// Units in the last place by which a root is off; WGSL allows about 4.5.
    pub root: f64,
}

/// Adapters by parts of their names, and what they do: the one table of differences between adapters that are no
/// faults. This crate's tests measure them again, and a difference that is gone fails as one that is new.
pub const MEASURED: [(&str, Arithmetic); 2] = [
    ("llvmpipe", Arithmetic { flushes: false, fuses: false, quotient: 0.0, root: 0.0 }),
    ("SwiftShader", Arithmetic { flushes: true, fuses: false, quotient: 0.0, root: 0.0 }),
];

/// What was measured of this adapter, if it is in the [table](MEASURED).
pub fn measured(gpu: &Gpu) -> Option<Arithmetic> {
    let name = gpu.adapter_info().name;
    MEASURED.iter().find(|(part, _)| name.contains(part)).map(|(_, arithmetic)| *arithmetic)
}

/// Units in the last place that a step from a random state may differ by: 0 where the adapter was measured to round as
/// the CPU does, else what quotients, roots and fused products come to.
pub fn bound(gpu: &Gpu) -> f64 {
    let rounds = |arithmetic: Arithmetic| !arithmetic.fuses && arithmetic.quotient == 0.0 && arithmetic.root == 0.0;
    if measured(gpu).is_some_and(rounds) { 0.0 } else { 8.0 }
}

/// Whether the device may make 0 of results below f32's smallest normal number.
pub fn flushes(gpu: &Gpu) -> bool {
    measured(gpu).is_none_or(|arithmetic| arithmetic.flushes)
}

/// The distance in units in the last place of the larger of `expected` and `before`.
pub fn ulps(found: f32, expected: f32, before: f32) -> f64 {
    if found.to_bits() == expected.to_bits() || found == expected || (found.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    let scale = expected.abs().max(before.abs()).max(f32::MIN_POSITIVE);
    let ulp = f64::from(f32::from_bits(scale.to_bits() + 1)) - f64::from(scale);
    let distance = (f64::from(found) - f64::from(expected)).abs() / ulp;
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// All numbers of a slice, as f32, once all work that was submitted has run.
pub fn read(gpu: &Gpu, slice: Slice) -> Vec<f32> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: slice.size, usage, mapped_at_creation: false };
    let staging = gpu.device().create_buffer(&descriptor);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(slice.buffer, slice.offset, &staging, 0, slice.size);
    gpu.queue().submit([encoder.finish()]);
    staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.expect("a mapping"));
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("a poll");
    bytemuck::pod_collect_to_vec(&staging.slice(..).get_mapped_range().expect("a mapped range"))
}
