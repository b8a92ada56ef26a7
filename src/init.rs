//! Initialisers: what parameters start as, on the GPU and on the CPU.
//!
//! Random bits are those of [`philox`], with the seed as key and a counter of two halves: which four elements of the
//! tensor, and the [`stream`] of the tensor's name. So a value depends on seed, name and place alone, whatever
//! the order of the tensors and however the work is cut up. One element takes 32 bits.
//!
//! All but [`Init::Orthogonal`] give the same bits on every device and on the CPU: a whole number of at most 24 bits is
//! made of the random ones by integer arithmetic, then multiplied by one f32 and added to another, each rounded once.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::codecs::DType;
use crate::error::{Error, Result, refuse};
use crate::init::quantile::{deviations, shares};
use crate::read::{self, Json, Misread};
use crate::tensor::TensorSpec;

mod quantile;
mod values;

pub use quantile::quantiles;
#[cfg(feature = "gpu")]
pub(crate) use values::halves;
pub(crate) use values::{Draw, Law, Orthogonal};
pub(crate) use values::{key_of, key_parts};
pub use values::{philox, short_stream, stream};

/// The shader that draws values one by one: entry point `fill`.
pub const FILL: &str =
    concat!(include_str!("../shaders/init/philox.wgsl"), "\n", include_str!("../shaders/init/fill.wgsl"));

/// The shader that makes vectors orthonormal: entry points `project`, `normalise` and `place`.
pub const ORTHOGONAL: &str = include_str!("../shaders/init/orthogonal.wgsl");

/// The shader that rounds values to a format of 16 bits: entry point `pack`.
pub fn pack(dtype: DType) -> String {
    let narrowed = format!("fn narrowed(words: vec4<u32>) -> vec4<u32> {{\n    return narrow_{dtype}(words);\n}}\n");
    let (halves, pack) = (include_str!("../shaders/codecs/halves.wgsl"), include_str!("../shaders/init/pack.wgsl"));
    [halves, dtype.shader(), &narrowed, pack].join("\n")
}

/// What a tensor's values start as.
///
/// In JSON this is a name, or an object of a name and its options: `"zeros"`, `{"constant": 0.1}`,
/// `{"uniform": {"low": -1, "high": 1}}`, `"he_normal"`, `{"he_normal": {"mode": "fan_out"}}`. Numbers that scale or
/// shift random values are 0 or of a magnitude from 1e-20 to 1e20, so that no device meets a subnormal number.
///
/// On the GPU, use [`Arena::init`](crate::Arena::init), or [`Gpu::init`](crate::Gpu::init) for any slice of a buffer.
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
    /// A gain of 1 is for ReLU, `1/sqrt(1+a^2)` for a leaky ReLU of slope `a`. The distribution is not truncated, as in
    /// PyTorch; Keras and JAX truncate theirs.
    HeNormal(Fans),
    /// Normal with standard deviation `gain*sqrt(1/fan)`. LeCun et al. 1998, "Efficient BackProp", section 4.6.
    ///
    /// The distribution is not truncated; Keras and JAX truncate theirs.
    LecunNormal(Fans),
    /// Orthonormal vectors, times `gain`. Saxe et al. 2014; every such set is equally likely.
    ///
    /// The tensor counts as a matrix of `shape[0]` rows. Its rows are orthonormal where there are no more of them than
    /// columns; else its columns are. Modified Gram-Schmidt, done twice, makes normal values orthogonal: in f32 on the
    /// GPU and in f64 on the CPU. So both agree within rounding, which grows where vectors are nearly dependent. The
    /// number of dispatches grows with the number of vectors, and the work with its square.
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
    /// What the values are multiplied by, above 0. Default 1.
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
    /// which has the least squared error of all constants. Several outputs have a mean each: give each a bias tensor of
    /// its own, or use [`Arena::write`](crate::Arena::write).
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
        let value =
            read::parse(text).map_err(|error| Error::Config { path: "JSON".into(), message: error.to_string() })?;
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
        Self::deserialize(Json(&value)).map_err(Misread::into_error)
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

    /// Where the tensor's values come from. Every option has been checked against its bounds and against the tensor.
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
        // A uniform distribution has 2^24 values, too; with fewer, their steps would show.
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
