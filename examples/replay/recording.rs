//! The files of a replay: what goes in, what comes out, what is expected, and how far the results may be from that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};
use safetensors::{Dtype, serialize_to_file};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use wgpu_optim::{Config, DType};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Returns an error with its text.
macro_rules! refuse {
    ($($text:tt)*) => { return Err(format!($($text)*).into()) };
}
pub(crate) use refuse;

/// A recorded run: the initial parameters, and the gradients of every step.
#[derive(Debug)]
pub struct Recording {
    pub steps: usize,
    /// The format in which a device is to store the parameters.
    pub param_format: DType,
    /// The format in which a device is to store the gradients.
    pub grad_format: DType,
    /// The tensors, by name.
    pub tensors: Vec<Recorded>,
}

#[derive(Debug)]
pub struct Recorded {
    pub name: String,
    pub shape: Vec<usize>,
    /// The initial parameter.
    pub param: Vec<f32>,
    /// `[steps, ...shape]`
    grads: Vec<f32>,
}

/// What a replay returns.
#[derive(Debug)]
pub struct Replayed<F> {
    /// For each tensor of the recording, the parameter after every step, `[steps, ...shape]`.
    pub params: Vec<Vec<F>>,
    /// The state after the last step.
    pub slots: Vec<Slot<F>>,
    /// For each tensor of the recording, its count of applied steps.
    pub t: Vec<u64>,
}

#[derive(Debug)]
pub struct Slot<F> {
    /// `<tensor>.<slot>`
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<F>,
}

/// What another library made of the same recording, in f64.
#[derive(Debug)]
pub struct Expected {
    /// The steps that were kept, counted from 1.
    steps: Vec<usize>,
    tensors: Vec<ExpectedTensor>,
}

#[derive(Debug)]
struct ExpectedTensor {
    /// The tensor's place in the recording.
    index: usize,
    /// `[len(steps), ...shape]`
    param: Vec<f64>,
    /// The library's own f32 run, of the same shape.
    f32: Option<Vec<f32>>,
}

/// How far a tensor may be from what is expected, after step `t`:
/// `max(own * s, t * rounding * max|param| + moved * max|param - initial|)`, where `s` is how far the other library's
/// own f32 run is off. Of a rule whose bases hang on roundings, `of_bases` stands in the place of `own`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub own: f64,
    pub of_bases: f64,
    pub rounding: f64,
    pub moved: f64,
}

impl Tolerance {
    /// About one rounding to f32 of the largest parameter, for each step.
    pub const F32: Self = Self { own: 3.0, of_bases: 10.0, rounding: f32::EPSILON as f64 / 2.0, moved: 2e-6 };
}

/// One tensor after one step, beside what was expected.
#[derive(Debug)]
pub struct Comparison {
    pub tensor: String,
    /// Counted from 1.
    pub step: usize,
    pub elements: usize,
    /// The largest `|out - param|`.
    pub error: f64,
    pub bound: f64,
    /// How many elements have an error above the bound.
    pub outside: usize,
    /// How many elements may have one.
    pub allowed: usize,
}

impl Comparison {
    pub fn passes(&self) -> bool {
        self.outside <= self.allowed
    }

    /// The error, as a share of the bound.
    pub fn share(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.bound }
    }
}

impl Recording {
    pub fn read(path: &Path) -> Result<Self> {
        read(path, Self::parse)
    }

    /// The recording that these bytes of a file are.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse(bytes, &["param", "grad"], |entries| {
            let mut steps = None;
            let mut tensors = Vec::new();
            for name in names(entries, &["param", "grad"]) {
                let (param, grad) = match (entries.get(&("param", name)), entries.get(&("grad", name))) {
                    (Some(param), Some(grad)) => (param, grad),
                    (Some(param), None) => {
                        refuse!("tensor {name} {:?} lacks its gradient: there is no grad.{name}", param.shape())
                    }
                    (None, _) => refuse!("tensor {name} has a gradient, but lacks its param.{name}"),
                };
                let (param_shape, grad_shape) = (param.shape(), grad.shape());
                if grad_shape.split_first().is_none_or(|(_, per_step)| per_step != param_shape) {
                    refuse!(
                        "tensor {name}: param.{name} is {param_shape:?}, grad.{name} is {grad_shape:?}; \
                         a gradient is [steps, ...shape]"
                    );
                }
                let (first, first_shape) = *steps.get_or_insert((name, grad_shape));
                if grad_shape[0] != first_shape[0] {
                    refuse!(
                        "tensor {name}: grad.{name} is {grad_shape:?}, but grad.{first} is {first_shape:?}: \
                         {} steps and {} steps",
                        grad_shape[0],
                        first_shape[0]
                    );
                }
                tensors.push(Recorded {
                    name: name.to_string(),
                    shape: param_shape.to_vec(),
                    param: numbers(&format!("param.{name}"), param)?,
                    grads: numbers(&format!("grad.{name}"), grad)?,
                });
            }
            match steps {
                // Without elements, a gradient has as many steps as it says.
                Some((name, shape)) if shape[0] > bytes.len() => {
                    refuse!("grad.{name} is {shape:?}: more steps than the file has bytes, {}", bytes.len())
                }
                Some((_, shape)) => {
                    let [param_format, grad_format] = [DType::F32; 2];
                    Ok(Self { steps: shape[0], param_format, grad_format, tensors })
                }
                None => refuse!("there is no tensor: neither param.<tensor> nor grad.<tensor>"),
            }
        })
    }

    /// Rounds first parameters and all gradients, so that the CPU sees what a device does.
    pub fn store_in(&mut self, param: DType, grad: DType) {
        (self.param_format, self.grad_format) = (param, grad);
        for tensor in &mut self.tensors {
            for (numbers, format) in [(&mut tensor.param, param), (&mut tensor.grads, grad)] {
                *numbers = format.decode(&format.encode(numbers));
            }
        }
    }
}

impl Recorded {
    /// The gradient of a step, counted from 0.
    pub fn grad(&self, step: usize) -> &[f32] {
        nth(&self.grads, step, self.param.len())
    }
}

impl Expected {
    /// Reads what is expected of a replay of `recording`. Refuses what that replay does not give.
    pub fn read(path: &Path, recording: &Recording) -> Result<Self> {
        read(path, |bytes| Self::parse(bytes, recording))
    }

    fn parse(bytes: &[u8], recording: &Recording) -> Result<Self> {
        parse(bytes, &["steps", "param", "f32"], |entries| {
            let Some(steps) = entries.get(&("steps", "")) else { refuse!("steps is missing: which steps were kept") };
            let steps = numbers::<i64>("steps", steps)?;
            let last = recording.steps;
            if let Some(step) = steps.iter().find(|&&step| step < 1 || step as u64 > last as u64) {
                refuse!("steps has {step}, the replay has steps 1 to {last}");
            }
            let mut tensors = Vec::new();
            for name in names(entries, &["param", "f32"]) {
                let Some(index) = recording.tensors.iter().position(|tensor| tensor.name == name) else {
                    refuse!("tensor {name} is expected, the replay has no such tensor");
                };
                let shape = [&[steps.len()], recording.tensors[index].shape.as_slice()].concat();
                let entry = |kind| -> Result<_> {
                    let view = entries.get(&(kind, name));
                    if let Some(view) = view.filter(|view| view.shape() != shape) {
                        refuse!("tensor {name}: {kind}.{name} is {:?}, the replay gives {shape:?}", view.shape());
                    }
                    Ok(view)
                };
                let Some(param) = entry("param")? else {
                    refuse!("tensor {name} has an f32.{name}, but no param.{name}")
                };
                tensors.push(ExpectedTensor {
                    index,
                    param: numbers(&format!("param.{name}"), param)?,
                    f32: entry("f32")?.map(|own| numbers(&format!("f32.{name}"), own)).transpose()?,
                });
            }
            if tensors.is_empty() || steps.is_empty() {
                refuse!("nothing is expected: there is no param.<tensor>, or no step");
            }
            Ok(Self { steps: steps.into_iter().map(|step| step as usize).collect(), tensors })
        })
    }

    /// Compares every kept step of every tensor that is expected, tensor by tensor. Where a rounding can turn a sign,
    /// which moves an element far, one element in 500 may be outside the bound, and one in any tensor. Where a wrapper
    /// counts elements, such a sign changes the count by one, and with it every element; the bound allows for that with
    /// a count of half the elements.
    pub fn compare<F: Number>(
        &self,
        recording: &Recording,
        replayed: &Replayed<F>,
        tolerance: Tolerance,
        config: &Config,
    ) -> Vec<Comparison> {
        let counts = config.wrappers().counts();
        let takes_signs = counts || config.takes_signs();
        let allowance = if config.rule().sides().is_some() { tolerance.of_bases } else { tolerance.own };
        let mut comparisons = Vec::new();
        for expected in &self.tensors {
            let tensor = &recording.tensors[expected.index];
            let elements = tensor.param.len();
            for (kept, &step) in self.steps.iter().enumerate() {
                let out = nth(&replayed.params[expected.index], step - 1, elements);
                let param = nth(&expected.param, kept, elements);
                let own = expected.f32.as_ref().map_or(0.0, |f32| largest(distances(nth(f32, kept, elements), param)));
                let rounding = step as f64 * tolerance.rounding * largest(param.iter().map(|value| value.abs()));
                let moved = largest(distances(param, &tensor.param));
                let own = if counts { own.max(2.0 * moved / elements.max(1) as f64) } else { own };
                let bound = f64::max(allowance * own, rounding + tolerance.moved * moved);
                comparisons.push(Comparison {
                    tensor: tensor.name.clone(),
                    step,
                    elements,
                    error: distances(out, param).fold(0.0, f64::max),
                    bound,
                    outside: distances(out, param).filter(|&error| error > bound).count(),
                    allowed: if takes_signs { (elements / 500).max(1) } else { 0 },
                });
            }
        }
        comparisons
    }
}

impl<F: Number> Replayed<F> {
    /// Writes every parameter after every step, and the last state, with where they come from.
    pub fn write(&self, path: &Path, recording: &Recording, source: String) -> Result<()> {
        let mut entries = Vec::new();
        let mut entry = |name, dtype, shape, bytes| -> Result<()> {
            entries.push((name, TensorView::new(dtype, shape, bytes)?));
            Ok(())
        };
        for ((tensor, params), t) in recording.tensors.iter().zip(&self.params).zip(&self.t) {
            let shape = [&[recording.steps], tensor.shape.as_slice()].concat();
            entry(format!("param.{}", tensor.name), F::DTYPE, shape, bytemuck::cast_slice(params))?;
            entry(format!("state.{}.t", tensor.name), i64::DTYPE, vec![], bytemuck::bytes_of(t))?;
        }
        for slot in &self.slots {
            entry(format!("state.{}", slot.name), F::DTYPE, slot.shape.clone(), bytemuck::cast_slice(&slot.values))?;
        }
        let metadata = HashMap::from([("source".to_string(), source)]);
        serialize_to_file(entries, Some(metadata), path).map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

/// A number as the files hold it: little-endian, as on every machine with a GPU.
pub trait Number: bytemuck::Pod {
    const DTYPE: Dtype;
    fn to_f64(self) -> f64;
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Number for f64 {
    const DTYPE: Dtype = Dtype::F64;
    fn to_f64(self) -> f64 {
        self
    }
}

impl Number for i64 {
    const DTYPE: Dtype = Dtype::I64;
    fn to_f64(self) -> f64 {
        self as f64
    }
}

/// Entries by kind and tensor: `param.w1` is `("param", "w1")`.
type Entries<'a> = BTreeMap<(&'a str, &'a str), TensorView<'a>>;

/// Reads a file; every error names it.
fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let parse_file = || parse(&std::fs::read(path)?);
    parse_file().map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Parses the bytes of a safetensors file with entries of some kinds.
fn parse<T>(bytes: &[u8], kinds: &[&str], parse: impl FnOnce(&Entries) -> Result<T>) -> Result<T> {
    let file = match SafeTensors::deserialize(bytes) {
        Ok(file) => file,
        Err(error) => refuse!("cut short, or no safetensors file: {error}"),
    };
    if let Err(error) = check_names(bytes) {
        refuse!("the header: {error}");
    }
    let mut entries = Entries::new();
    for (key, view) in file.iter() {
        let (kind, name) = key.split_once('.').unwrap_or((key, ""));
        if !kinds.contains(&kind) {
            refuse!("{key} is unknown; there are {}", kinds.join(", "));
        }
        entries.insert((kind, name), view);
    }
    parse(&entries)
}

/// Refuses a header in which a name is there twice: of two entries of a name, readers would take one each.
fn check_names(bytes: &[u8]) -> serde_json::Result<()> {
    struct Once;
    impl<'de> Visitor<'de> for Once {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            let mut names = BTreeSet::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
                if let Some(name) = names.replace(name) {
                    return Err(de::Error::custom(format!("{name} is there twice")));
                }
            }
            Ok(())
        }
    }
    let (len, header) = bytes.split_first_chunk().expect("safetensors has read it");
    let header = &header[..u64::from_le_bytes(*len) as usize];
    serde_json::Deserializer::from_slice(header).deserialize_map(Once)
}

fn names<'a>(entries: &Entries<'a>, kinds: &[&str]) -> BTreeSet<&'a str> {
    entries.keys().filter(|(kind, _)| kinds.contains(kind)).map(|(_, name)| *name).collect()
}

fn numbers<T: Number>(key: &str, view: &TensorView) -> Result<Vec<T>> {
    if view.dtype() != T::DTYPE {
        refuse!("{key} is {}, must be {}", view.dtype(), T::DTYPE);
    }
    Ok(view.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}

fn nth<T>(values: &[T], n: usize, len_elements: usize) -> &[T] {
    &values[n * len_elements..(n + 1) * len_elements]
}

/// The distance of two numbers: 0 for two NaN or the same infinity, infinite where only one is finite.
fn distances(a: &[impl Number], b: &[impl Number]) -> impl Iterator<Item = f64> {
    a.iter().zip(b).map(|(a, b)| match (a.to_f64(), b.to_f64()) {
        (a, b) if a == b || a.is_nan() && b.is_nan() => 0.0,
        (a, b) if a.is_finite() && b.is_finite() => (a - b).abs(),
        _ => f64::INFINITY,
    })
}

/// The largest finite value. Infinities do not count, since an overflow in one element does not excuse the others.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}
