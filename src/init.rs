//! Initialisers: what parameters start as, on the GPU and on the CPU.
//!
//! Random bits are those of [`philox`], with the seed as key and a counter of two halves: which four elements of the
//! tensor, and the [`stream`] of the tensor's name. So a value depends on seed, name and place alone, whatever
//! the order of the tensors and however the work is cut up. One element takes 32 bits.
//!
//! All but [`Init::Orthogonal`] give the same bits on every device and on the CPU: a whole number of at most 24 bits is
//! made of the random ones by integer arithmetic, then multiplied by one f32 and added to another, each rounded once.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result, refuse};
use crate::tensor::TensorSpec;

/// The shader that draws values one by one: entry point `fill`.
pub const FILL: &str =
    concat!(include_str!("../shaders/init/philox.wgsl"), "\n", include_str!("../shaders/init/fill.wgsl"));

/// The shader that makes vectors orthonormal: entry points `project`, `normalise` and `place`.
pub const ORTHOGONAL: &str = include_str!("../shaders/init/orthogonal.wgsl");

/// What a tensor's values start as.
///
/// In JSON a name, or an object of a name and its options: `"zeros"`, `{"constant": 0.1}`,
/// `{"uniform": {"low": -1, "high": 1}}`, `"he_normal"`, `{"he_normal": {"mode": "fan_out"}}`. Numbers that scale or
/// shift random values are 0 or of a magnitude from 1e-20 to 1e20, so that no device meets a subnormal number.
///
/// On the GPU: [`Arena::init`](crate::Arena::init), or [`Gpu::init`](crate::Gpu::init) for any slice of a buffer.
///
/// ```
/// use wgpu_optim::{Init, TensorSpec};
///
/// let weights = Init::from_json(r#"{"glorot_uniform": {"gain": 2}}"#)?.fill(&TensorSpec::f32("w", [10, 14]), 7)?;
/// assert!(weights.iter().all(|w| w.abs() <= 1.0)); // 2*sqrt(6/(10+14))
///
/// let wrong = Init::Normal { mean: 0.0, std: -1.0 }.fill(&TensorSpec::f32("w", [10, 14]), 7);
/// assert_eq!(wrong.unwrap_err().to_string(), "normal.std of tensor w is -1, must be at least 1e-20 and at most 1e20");
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Init {
    /// 0.
    Zeros,
    /// This number, finite in f32. For biases see [`RELU_BIAS`](Self::RELU_BIAS) and
    /// [`mean_target`](Self::mean_target).
    Constant(f64),
    /// Uniform from `low`, included, to `high`, excluded: `low + (high-low)*k/2^24` for a whole `k`.
    Uniform {
        /// The least value.
        low: f64,
        /// Above `low`.
        high: f64,
    },
    /// Normal: `mean + std*z`, where `z` is the normal distribution's quantile at the middle of one of 2^32 equal
    /// shares: at most 6.338 in magnitude, within 1e-7 of the true quantile below 2 and within 3e-7 beyond.
    Normal {
        /// The middle. Default 0.
        #[serde(default)]
        mean: f64,
        /// Standard deviation, above 0.
        std: f64,
    },
    /// Normal within bounds: `mean + std*z` with `low <= z <= high`. The result's standard deviation is less than
    /// `std`: 0.8796 of it for -2 and 2.
    ///
    /// The bounds are counted in standard deviations from the mean, as in JAX and Keras; PyTorch's `trunc_normal_`
    /// takes `a = mean + std*low` and `b = mean + std*high`.
    TruncatedNormal {
        /// The middle before truncation. Default 0.
        #[serde(default)]
        mean: f64,
        /// Standard deviation before truncation, above 0.
        std: f64,
        /// The least `z`. Default -2.
        #[serde(default = "minus_two")]
        low: f64,
        /// The largest `z`. Default 2. At least 1/256 of the distribution must lie between the bounds.
        #[serde(default = "two")]
        high: f64,
    },
    /// Uniform within `gain*sqrt(6/(fan_in+fan_out))` of 0. Glorot and Bengio 2010, equation 16.
    GlorotUniform(Fans),
    /// Normal with standard deviation `gain*sqrt(2/(fan_in+fan_out))`. Glorot and Bengio 2010, equation 12.
    GlorotNormal(Fans),
    /// Uniform within `gain*sqrt(6/fan)` of 0: the variance of [`HeNormal`](Self::HeNormal).
    HeUniform(Fans),
    /// Normal with standard deviation `gain*sqrt(2/fan)`. He et al. 2015, equations 10 and 14.
    ///
    /// A gain of 1 is for ReLU, `1/sqrt(1+a^2)` for a leaky one of slope `a`. Not truncated, as in PyTorch; Keras and
    /// JAX truncate.
    HeNormal(Fans),
    /// Normal with standard deviation `gain*sqrt(1/fan)`. LeCun et al. 1998, "Efficient BackProp", section 4.6.
    ///
    /// Not truncated; Keras and JAX truncate.
    LecunNormal(Fans),
    /// Orthonormal vectors, times `gain`. Saxe et al. 2014; every such set is equally likely.
    ///
    /// The tensor counts as a matrix of `shape[0]` rows. Rows are orthonormal where there are no more of them than
    /// columns, else columns are. Normal values are made orthogonal by modified Gram-Schmidt, twice; in f32 on the GPU,
    /// in f64 on the CPU, so that both agree to rounding, of which nearly dependent vectors make much. Work and
    /// dispatches grow with the number of vectors, work with its square.
    Orthogonal {
        /// The vectors' length, above 0. Default 1.
        #[serde(default = "one")]
        gain: f64,
    },
}

fn minus_two() -> f64 {
    -2.0
}

fn two() -> f64 {
    2.0
}

fn one() -> f64 {
    1.0
}

/// How an initialiser follows the number of inputs and outputs. JSON: an object of some of these fields.
///
/// `fan_in` is the number of inputs that an output sums over, `fan_out` that of the outputs that an input reaches: the
/// dimensions of [`layout`](Self::layout), each times the product of the other dimensions (a convolution's kernel).
/// A tensor of fewer than two dimensions has neither.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fans {
    /// Multiplies the values, above 0. Default 1.
    pub gain: f64,
    /// Which of the two counts. Default `fan_in`, and nothing else where both count.
    pub mode: Fan,
    /// Which dimensions they are. Default `out_in`.
    pub layout: WeightLayout,
}

impl Default for Fans {
    fn default() -> Self {
        Self { gain: 1.0, mode: Fan::In, layout: WeightLayout::OutIn }
    }
}

/// What keeps its variance from layer to layer. JSON: `"fan_in"`, `"fan_out"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fan {
    /// The activations, on the way forward.
    #[default]
    #[serde(rename = "fan_in")]
    In,
    /// The gradients, on the way back.
    #[serde(rename = "fan_out")]
    Out,
}

/// Where a weight's inputs and outputs stand in its shape. JSON: `"out_in"`, `"in_out"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// `[out, in, kernel...]`: PyTorch.
    #[default]
    OutIn,
    /// `[kernel..., in, out]`: Keras, JAX.
    InOut,
}

impl Init {
    /// 0.1, for the biases of hidden layers with ReLUs, so that these are active at first (Goodfellow et al. 2016,
    /// section 8.4).
    pub const RELU_BIAS: Self = Self::Constant(0.1);

    /// The mean of the targets, for the bias of an output layer: with small weights the first predictions are the mean,
    /// which has the least squared error of all constants. Of several outputs each has a mean of its own: one bias
    /// tensor each, or [`Arena::write`](crate::Arena::write).
    ///
    /// # Errors
    /// [`Error::Field`] for no targets, or a mean that is not finite.
    pub fn mean_target(targets: &[f32]) -> Result<Self> {
        if targets.is_empty() {
            return refuse("the number of targets", 0, "at least 1");
        }
        let mean = targets.iter().map(|&target| f64::from(target)).sum::<f64>() / targets.len() as f64;
        if mean.is_finite() { Ok(Self::Constant(mean)) } else { refuse("the targets' mean", mean, "finite") }
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// [`Error::Config`] with the path of what is not JSON, unknown or of a wrong type. Bounds are checked with the
    /// tensor.
    pub fn from_json(text: &str) -> Result<Self> {
        let value = serde_json::from_str(text)
            .map_err(|error| Error::Config { path: "JSON".into(), message: error.to_string() })?;
        Self::from_value(value)
    }

    /// The same from a parsed value.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_value(value: Value) -> Result<Self> {
        // A name without options has the default ones.
        let value = match value {
            Value::String(name) if name != "zeros" => Map::from_iter([(name, Map::new().into())]).into(),
            value => value,
        };
        let mut track = serde_path_to_error::Track::new();
        Self::deserialize(serde_path_to_error::Deserializer::new(value, &mut track))
            .map_err(|error| Error::Config { path: track.path().to_string(), message: error.to_string() })
    }

    /// The tensor's values, computed on the CPU.
    ///
    /// # Errors
    /// [`Error::Field`] for a number outside its bound, [`Error::Shape`] for a tensor of too few dimensions,
    /// [`Error::TooLarge`] for one that no memory can hold.
    pub fn fill(&self, tensor: &TensorSpec, seed: u64) -> Result<Vec<f32>> {
        let law = self.law(tensor)?;
        let (size_bytes, page_bytes) = (tensor.size_bytes(), isize::MAX as u64);
        if size_bytes > page_bytes {
            return Err(Error::TooLarge { tensor: tensor.name.clone(), what: "values", size_bytes, page_bytes });
        }
        let len = tensor.len_elements();
        Ok(match law {
            Law::Draw(draw) => draw.fill(len, seed, stream(&tensor.name)),
            Law::Orthogonal(orthogonal) => orthogonal.fill(len, seed, stream(&tensor.name)),
        })
    }

    /// The name in JSON.
    fn name(&self) -> &'static str {
        match self {
            Self::Zeros => "zeros",
            Self::Constant(_) => "constant",
            Self::Uniform { .. } => "uniform",
            Self::Normal { .. } => "normal",
            Self::TruncatedNormal { .. } => "truncated_normal",
            Self::GlorotUniform(_) => "glorot_uniform",
            Self::GlorotNormal(_) => "glorot_normal",
            Self::HeUniform(_) => "he_uniform",
            Self::HeNormal(_) => "he_normal",
            Self::LecunNormal(_) => "lecun_normal",
            Self::Orthogonal { .. } => "orthogonal",
        }
    }

    /// What the tensor's values come from, with everything checked.
    pub(crate) fn law(&self, tensor: &TensorSpec) -> Result<Law> {
        let of = Checks { init: self.name(), tensor };
        let draw = match *self {
            Self::Zeros => Draw::constant(0.0),
            Self::Constant(value) if (value as f32).is_finite() => Draw::constant(value),
            Self::Constant(value) => {
                return refuse(format!("constant of tensor {}", tensor.name), value, "finite in f32");
            }
            Self::Uniform { low, high } => of.uniform(low, high)?,
            Self::Normal { mean, std } => Draw::normal(of.number("mean", mean)?, of.scale("std", std)?),
            Self::TruncatedNormal { mean, std, low, high } => of.truncated(mean, std, low, high)?,
            Self::GlorotUniform(ref fans) => of.glorot(fans)?.uniform(),
            Self::GlorotNormal(ref fans) => of.glorot(fans)?.normal(),
            Self::HeUniform(ref fans) => of.variance(fans, 2.0)?.uniform(),
            Self::HeNormal(ref fans) => of.variance(fans, 2.0)?.normal(),
            Self::LecunNormal(ref fans) => of.variance(fans, 1.0)?.normal(),
            Self::Orthogonal { gain } => return of.orthogonal(gain).map(Law::Orthogonal),
        };
        Ok(Law::Draw(draw))
    }
}

impl Serialize for Init {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Init {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An initialiser's options against their bounds, and against its tensor.
struct Checks<'a> {
    init: &'static str,
    tensor: &'a TensorSpec,
}

impl Checks<'_> {
    fn refuse<T>(&self, field: &str, value: impl ToString, bound: impl Into<String>) -> Result<T> {
        refuse(format!("{}.{field} of tensor {}", self.init, self.tensor.name), value, bound)
    }

    fn number(&self, field: &str, value: f64) -> Result<f64> {
        if value == 0.0 || (1e-20..=1e20).contains(&value.abs()) {
            return Ok(value);
        }
        self.refuse(field, value, "0, or of a magnitude of at least 1e-20 and at most 1e20")
    }

    fn scale(&self, field: &str, value: f64) -> Result<f64> {
        if (1e-20..=1e20).contains(&value) {
            return Ok(value);
        }
        self.refuse(field, value, "at least 1e-20 and at most 1e20")
    }

    fn uniform(&self, low: f64, high: f64) -> Result<Draw> {
        self.number("low", low)?;
        self.number("high", high)?;
        if low as f32 >= high as f32 {
            return self.refuse("high", high, format!("above low, which is {low}, also in f32"));
        }
        Ok(Draw::uniform(low, high))
    }

    fn truncated(&self, mean: f64, std: f64, low: f64, high: f64) -> Result<Draw> {
        let draw = Draw::normal(self.number("mean", mean)?, self.scale("std", std)?);
        for (field, value) in [("low", low), ("high", high)] {
            if !value.is_finite() {
                return self.refuse(field, value, "finite");
            }
        }
        let first = shares(|share| deviations(share) < low);
        let end = shares(|share| deviations(share) <= high);
        // As many values as a uniform distribution has; fewer would show.
        if end < first + (1 << 24) {
            let bound = format!("so far above low, which is {low}, that 1/256 of the distribution lies between them");
            return self.refuse("high", high, bound);
        }
        let at = |z: f64| (mean + std * z).clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        Ok(Draw { first: first as u32, span: (end - 1 - first) as u32, low: at(low), high: at(high), ..draw })
    }

    /// `fan_in` and `fan_out`.
    fn fans(&self, layout: WeightLayout) -> Result<[f64; 2]> {
        let (inputs, outputs, kernel) = match (layout, &self.tensor.shape[..]) {
            (WeightLayout::OutIn, [outputs, inputs, kernel @ ..]) => (inputs, outputs, kernel),
            (WeightLayout::InOut, [kernel @ .., inputs, outputs]) => (inputs, outputs, kernel),
            _ => return Err(self.too_flat()),
        };
        let kernel: f64 = kernel.iter().map(|&dim| dim as f64).product();
        // With a 0 among them the tensor has no elements.
        Ok([inputs, outputs].map(|&dim| (dim as f64 * kernel).max(1.0)))
    }

    fn too_flat(&self) -> Error {
        let TensorSpec { name, shape, .. } = self.tensor;
        let (found, expected) = (format!("shape {shape:?}"), "at least 2 dimensions".into());
        Error::Shape { what: self.init.into(), tensor: name.clone(), found, expected }
    }

    fn glorot(&self, fans: &Fans) -> Result<Spread> {
        if fans.mode != Fan::In {
            return self.refuse("mode", "fan_out", "left out, since both fans count");
        }
        let [inputs, outputs] = self.fans(fans.layout)?;
        Ok(Spread { gain: self.scale("gain", fans.gain)?, variance: 2.0 / (inputs + outputs) })
    }

    fn variance(&self, fans: &Fans, variance: f64) -> Result<Spread> {
        let [inputs, outputs] = self.fans(fans.layout)?;
        let fan = if fans.mode == Fan::In { inputs } else { outputs };
        Ok(Spread { gain: self.scale("gain", fans.gain)?, variance: variance / fan })
    }

    fn orthogonal(&self, gain: f64) -> Result<Orthogonal> {
        let [rows, rest @ ..] = &self.tensor.shape[..] else { return Err(self.too_flat()) };
        if rest.is_empty() {
            return Err(self.too_flat());
        }
        let rows = *rows as u64;
        let columns = rest.iter().fold(1, |product: u64, &dim| product.saturating_mul(dim as u64));
        let gain = self.scale("gain", gain)? as f32;
        Ok(Orthogonal { vectors: rows.min(columns), width: rows.max(columns), columns, tall: rows > columns, gain })
    }
}

/// Values around 0 of a known variance, times the gain.
struct Spread {
    gain: f64,
    variance: f64,
}

impl Spread {
    fn uniform(self) -> Draw {
        let limit = self.gain * (3.0 * self.variance).sqrt();
        Draw::uniform(-limit, limit)
    }

    fn normal(self) -> Draw {
        Draw::normal(0.0, self.gain * self.variance.sqrt())
    }
}

/// Where a tensor's values come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Law {
    /// Each from its own random bits.
    Draw(Draw),
    /// All from each other.
    Orthogonal(Orthogonal),
}

/// What a whole number is drawn from, by the shader's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonFinite {
    Constant,
    Uniform,
    Normal,
}

/// How a value comes of 32 random bits. Twin: `shaders/init/fill.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Draw {
    pub(crate) kind: NonFinite,
    /// The first share of 2^-32 of a normal distribution, and how many more there are.
    pub(crate) first: u32,
    pub(crate) span: u32,
    pub(crate) scale: f32,
    pub(crate) base: f32,
    /// The least and the largest value.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Draw {
    fn constant(value: f64) -> Self {
        let base = value as f32;
        Self { kind: NonFinite::Constant, first: 0, span: u32::MAX, scale: 0.0, base, low: base, high: base }
    }

    fn uniform(low: f64, high: f64) -> Self {
        // -0 plus 0 is 0, which alone stands in a sum.
        let (low, high) = (low as f32 + 0.0, high as f32 + 0.0);
        let scale = (f64::from(high) - f64::from(low)) as f32 / (1 << 24) as f32;
        // Rounding could reach `high`.
        Self { kind: NonFinite::Uniform, scale, low, high: high.next_down(), ..Self::constant(low.into()) }
    }

    pub(crate) fn normal(mean: f64, std: f64) -> Self {
        let scale = std as f32 / UNIT as f32;
        let base = mean + 0.0;
        Self { kind: NonFinite::Normal, scale, low: f32::MIN, high: f32::MAX, ..Self::constant(base) }
    }

    fn value(&self, bits: u32) -> f32 {
        let draw = match self.kind {
            NonFinite::Constant => return self.base,
            NonFinite::Uniform => (bits >> 8) as i32,
            NonFinite::Normal => {
                let within = u64::from(bits) * (u64::from(self.span) + 1);
                quantile(self.first + (within >> 32) as u32)
            }
        };
        (draw as f32 * self.scale + self.base).clamp(self.low, self.high)
    }

    fn fill(&self, len: u64, seed: u64, stream: u64) -> Vec<f32> {
        let quads = (0..len.div_ceil(4)).map(|quad| philox([halves(quad), halves(stream)], halves(seed)));
        let mut values: Vec<_> = quads.flatten().map(|bits| self.value(bits)).collect();
        values.truncate(len as usize);
        values
    }
}

/// Orthonormal rows, or columns, of a matrix. Twin: `shaders/init/orthogonal.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Orthogonal {
    /// How many vectors, and the elements of each.
    pub(crate) vectors: u64,
    pub(crate) width: u64,
    /// Of the matrix.
    pub(crate) columns: u64,
    /// Whether the vectors are its columns.
    pub(crate) tall: bool,
    pub(crate) gain: f32,
}

impl Orthogonal {
    /// What the vectors are made of, one behind the other.
    pub(crate) fn draw(&self) -> Draw {
        Draw::normal(0.0, 1.0)
    }

    fn fill(&self, len: u64, seed: u64, stream: u64) -> Vec<f32> {
        if len == 0 {
            return Vec::new();
        }
        let (width, columns) = (self.width as usize, self.columns as usize);
        let drawn = self.draw().fill(len, seed, stream);
        let mut vectors: Vec<Vec<f64>> = drawn.chunks(width).map(|v| v.iter().map(|&x| x.into()).collect()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for _ in 0..2 {
            for i in 0..vectors.len() {
                let (done, later) = vectors.split_at_mut(i + 1);
                let pivot = &done[i];
                let square = dot(pivot, pivot);
                for vector in later {
                    let share = dot(pivot, vector) / square;
                    vector.iter_mut().zip(pivot).for_each(|(x, pivot)| *x -= share * pivot);
                }
            }
        }
        let lengths: Vec<f64> = vectors.iter().map(|v| dot(v, v).sqrt()).collect();
        let value = |element: usize| {
            let (row, column) = (element / columns, element % columns);
            let (vector, at) = if self.tall { (column, row) } else { (row, column) };
            (vectors[vector][at] / lengths[vector] * f64::from(self.gain)) as f32
        };
        (0..len as usize).map(value).collect()
    }
}

/// The lower word, then the upper.
pub(crate) fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// The stream of a tensor's random numbers: FNV-1a of its name, 64 bits.
pub fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Philox 4x32-10: 128 random bits of a counter and a key. Salmon et al. 2011, "Parallel random numbers: as easy as 1,
/// 2, 3".
///
/// For a tensor's elements `4q` to `4q+3` the counter is `q`, then the [`stream`], and the key is the seed; the lower
/// word of each comes first.
pub fn philox(counter: [[u32; 2]; 2], key: [u32; 2]) -> [u32; 4] {
    let ([[mut a, mut b], [mut c, mut d]], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let [x_low, x_high] = halves(u64::from(a) * 0xd251_1f53);
        let [y_low, y_high] = halves(u64::from(c) * 0xcd9e_8d57);
        [a, b, c, d] = [y_high ^ b ^ k, y_low, x_high ^ d ^ l, x_low];
        (k, l) = (k.wrapping_add(0x9e37_79b9), l.wrapping_add(0xbb67_ae85));
    }
    [a, b, c, d]
}

/// What one standard deviation is in [`quantiles`].
const UNIT: u32 = 1 << 28;

/// Segments of an octave of the tail's probability, and their ends and middles.
const OCTAVE_NODES: usize = 2 * 64;

/// The table that the shader `fill` binds: node `i` is how many 2^-28 of a standard deviation the normal distribution's
/// tail of probability `(1 + i%128/128) * 2^(i/128 - 33)` lies from the mean, for `i` up to 4096.
///
/// Computed with operations that IEEE 754 rounds correctly, so the same everywhere.
pub fn quantiles() -> &'static [u32] {
    static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let node = |i: usize| {
            let (octave, part) = (i / OCTAVE_NODES, (i % OCTAVE_NODES) as f64 / OCTAVE_NODES as f64);
            (tail_quantile(33 - octave as u32, part) * f64::from(UNIT)).round() as u32
        };
        (0..=32 * OCTAVE_NODES).map(node).collect()
    });
    &TABLE
}

/// How far from the mean the tail of probability `(1 + part) * 2^-octave` starts: Wichura 1988, algorithm AS 241,
/// PPND16, for probabilities above exp(-25); there within 1e-15 of itself.
#[expect(clippy::excessive_precision, reason = "the published digits")]
fn tail_quantile(octave: u32, part: f64) -> f64 {
    const CENTRE: [[f64; 8]; 2] = [
        [
            2.509_080_928_730_122_672_7e3,
            3.343_057_558_358_812_810_5e4,
            6.726_577_092_700_870_085_3e4,
            4.592_195_393_154_987_145_7e4,
            1.373_169_376_550_946_112_5e4,
            1.971_590_950_306_551_442_7e3,
            1.331_416_678_917_843_774_5e2,
            3.387_132_872_796_366_608_0,
        ],
        [
            5.226_495_278_852_854_561_0e3,
            2.872_908_573_572_194_267_4e4,
            3.930_789_580_009_271_061_0e4,
            2.121_379_430_158_659_586_7e4,
            5.394_196_021_424_751_107_7e3,
            6.871_870_074_920_579_083_0e2,
            4.231_333_070_160_091_125_2e1,
            1.0,
        ],
    ];
    const TAIL: [[f64; 8]; 2] = [
        [
            7.745_450_142_783_414_076_40e-4,
            2.272_384_498_926_918_458_33e-2,
            2.417_807_251_774_506_117_70e-1,
            1.270_458_252_452_368_382_58,
            3.647_848_324_763_204_605_04,
            5.769_497_221_460_691_405_50,
            4.630_337_846_156_545_295_90,
            1.423_437_110_749_683_577_34,
        ],
        [
            1.050_750_071_644_416_843_24e-9,
            5.475_938_084_995_344_946_00e-4,
            1.519_866_656_361_645_719_66e-2,
            1.481_039_764_274_800_745_90e-1,
            6.897_673_349_851_000_045_50e-1,
            1.676_384_830_183_803_849_40,
            2.053_191_626_637_758_821_87,
            1.0,
        ],
    ];
    let ratio = |[above, below]: [[f64; 8]; 2], x: f64| {
        let polynomial = |terms: [f64; 8]| terms.into_iter().fold(0.0, |sum, term| sum * x + term);
        polynomial(above) / polynomial(below)
    };
    let from_centre = 0.5 - (1.0 + part) / (1u64 << octave) as f64;
    if from_centre <= 0.425 {
        return from_centre * ratio(CENTRE, 0.180625 - from_centre * from_centre);
    }
    // ln(1+part) is 2*atanh(part/(2+part)), whose argument is at most 1/3.
    let x = part / (2.0 + part);
    let series = (0..20).rev().fold(0.0, |sum, i| sum * x * x + 1.0 / f64::from(2 * i + 1));
    let log = f64::from(octave) * std::f64::consts::LN_2 - 2.0 * x * series;
    ratio(TAIL, log.sqrt() - 1.6)
}

/// The normal distribution's quantile of `(share + 1/2) / 2^32` in 2^-28, rounded to 24 bits. Between the nodes at both
/// ends and in the middle of a segment goes a parabola.
fn quantile(share: u32) -> i32 {
    let below = share < 1 << 31;
    let tail = (if below { share } else { !share }) << 1 | 1;
    let zeros = tail.leading_zeros();
    let normalised = tail << zeros;
    let node = ((31 - zeros) << 7) + ((normalised >> 24) & 126);
    let at = normalised << 7;
    let [a, b, c] = [0, 1, 2].map(|i| quantiles()[(node + i) as usize]);
    let high = |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32;
    let bulge = ((a + c) >> 1) - b;
    let exact = (a - high(a - c, at) - high(bulge, high(at, !at) << 2)).max(1);
    let drop = 8 - exact.leading_zeros().min(8);
    let rounded = (((exact + ((1 << drop) >> 1)) >> drop) << drop) as i32;
    if below { -rounded } else { rounded }
}

/// [`quantile`] in standard deviations.
fn deviations(share: u32) -> f64 {
    f64::from(quantile(share)) / f64::from(UNIT)
}

/// How many of the 2^32 shares come before the first that is not `below`.
fn shares(below: impl Fn(u32) -> bool) -> u64 {
    let (mut first, mut end) = (0, 1 << 32);
    while first < end {
        let middle = (first + end) / 2;
        if below(middle as u32) { first = middle + 1 } else { end = middle }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probability that a normal number exceeds `z`, and its density there.
    fn tail(z: f64) -> (f64, f64) {
        let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
        // Abramowitz and Stegun 26.2.11 and 26.2.14.
        let probability = if z < 2.0 {
            let term = |sum: f64, n: i32| 1.0 + sum * z * z / f64::from(2 * n + 1);
            0.5 - density * z * (1..60).rev().fold(1.0, term)
        } else {
            density / (1..400).rev().fold(z, |fraction, n| z + f64::from(n) / fraction)
        };
        (probability, density)
    }

    /// How far `z` is from where the tail of this probability starts.
    fn error(z: f64, probability: f64) -> f64 {
        let mut exact = z;
        for _ in 0..3 {
            let (found, density) = tail(exact);
            exact += (found - probability) / density;
        }
        z - exact
    }

    #[test]
    fn the_table_holds_quantiles() {
        let mut worst = 0.0_f64;
        for octave in 2..=33 {
            for part in (0..OCTAVE_NODES).map(|i| i as f64 / OCTAVE_NODES as f64) {
                let probability = (1.0 + part) / (1u64 << octave) as f64;
                worst = worst.max(error(tail_quantile(octave, part), probability).abs());
            }
        }
        // Found: 4.4e-15.
        assert!(worst < 1e-14, "{worst:e}");
        assert_eq!((quantiles().len(), quantiles()[4096]), (4097, 0));
        assert!(quantiles().is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn draws_are_quantiles_to_rounding() {
        const PER_OCTAVE: u64 = 5000;
        let mut worst = [0.0_f64; 2];
        for octave in 0..31 {
            for i in 0..PER_OCTAVE {
                let share = ((1 << octave) + (i << octave) / PER_OCTAVE) as u32;
                assert_eq!(quantile(share), -quantile(!share), "{share}");
                let z = -deviations(share);
                let error = error(z, (f64::from(share) + 0.5) / (1u64 << 32) as f64).abs();
                let worst = &mut worst[usize::from(z >= 2.0)];
                *worst = worst.max(error);
            }
        }
        // Found: 9.1e-8 and 2.6e-7, of which rounding to 24 bits makes 6e-8 and 2.4e-7.
        assert!(worst[0] < 1e-7 && worst[1] < 3e-7, "{worst:?}");
        let tensor = TensorSpec::f32("w", [1]);
        let truncated = Init::TruncatedNormal { mean: 0.0, std: 1.0, low: -2.0, high: 0.5 }.law(&tensor);
        let Ok(Law::Draw(Draw { first, span, .. })) = truncated else { panic!("{truncated:?}") };
        let around = [first - 1, first, first + span, first + span + 1].map(deviations);
        assert!(around[0] < -2.0 && around[1] >= -2.0 && around[2] <= 0.5 && around[3] > 0.5, "{around:?}");
        // 6.338: the quantile of 2^-33. And never 0, so that no vector of an orthogonal tensor is.
        assert_eq!([0, u32::MAX, 1 << 31, (1 << 31) - 1].map(quantile), [-1_701_332_608, 1_701_332_608, 1, -1]);
    }
}
