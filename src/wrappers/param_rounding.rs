//! How new parameters of 16 bits are rounded. Twin: `shaders/wrappers/param_rounding.wgsl`.

use serde::{Deserialize, Serialize};

use crate::codecs::DType;
use crate::error::{Result, refuse};
use crate::init::{key_of, key_parts, philox};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Slot, numbers};
use crate::storage::Storage;
use crate::tensor::{Stored, TensorSpec};
use crate::wrapper::{Moment, Setting, Wrapper};

/// What keeps the precision of parameters of 16 bits, at the top level or in a group. JSON: `"nearest"`, the default,
/// `"stochastic"`, `"master"` or `"remainder"`. Parameters in f32 stay as they are.
///
/// A master is the slot `master` of the state, which holds the parameters in f32: steps and moves go on from there, as
/// if all were in f32, and the parameters are a copy that is rounded to the nearest. A tensor's first step takes the
/// parameters as its master. Who sets the parameters otherwise later sets the slot, too. AdamW moves 28 bytes an
/// element with parameters and gradients of 16 bits.
///
/// Stochastic rounding takes one of the two neighbours by chance, the likelier the nearer, so that updates far below
/// the distance between them count on average. Philox draws the bits from the seed
/// ([`Config::seed`](crate::Config::seed)), the tensor's name, the element and the tensor's `t`: they are the same on
/// every device and on the reference, and a skipped step does not advance them. A finite number stays finite: what
/// exceeds the format's largest number becomes that. Moves outside a step round to the nearest.
///
/// A remainder completes parameters in bf16 to the f32 of a training in f32: the parameter is its upper half, rounded,
/// and the slot `remainder` holds in 16 bits how many units of the f32's last place are missing, from -32768 to 32767
/// ([`whole`](Self::whole)). Halfway between two numbers of bf16 the parameter is rounded away from zero, since the
/// remainder has one sign there. AdamW moves 26 bytes an element with gradients of 16 bits. Whoever sets the parameters
/// sets the slot, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamRounding {
    /// To the nearest number, ties to even.
    #[default]
    Nearest,
    /// To one of both neighbours, by chance.
    Stochastic,
    /// To the nearest, beside a master in f32.
    Master,
    /// To the nearest, halfway away from zero, beside the rest of the f32 in 16 bits. Of bf16 alone.
    Remainder,
}

impl ParamRounding {
    /// The name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Stochastic => "stochastic",
            Self::Master => "master",
            Self::Remainder => "remainder",
        }
    }

    /// Whether the state holds what the parameters lack.
    pub(crate) fn keeps(self) -> bool {
        matches!(self, Self::Master | Self::Remainder)
    }

    /// Refuses a tensor whose format it cannot complete.
    pub(crate) fn check_tensor(self, tensor: &TensorSpec) -> Result<()> {
        if self == Self::Remainder && !matches!(tensor.dtype, DType::F32 | DType::Bf16) {
            let bound = format!("another kind for parameters in {}; bf16 alone is the half of an f32", tensor.dtype);
            return refuse(format!("param_rounding of tensor {}", tensor.name), self.name(), bound);
        }
        Ok(())
    }

    /// Refuses tensors none of which it changes.
    pub(crate) fn check_tensors(self, tensors: &[&TensorSpec]) -> Result<()> {
        if self == Self::Nearest || tensors.is_empty() || tensors.iter().any(|tensor| tensor.dtype.is_narrow()) {
            return Ok(());
        }
        refuse("param_rounding", self.name(), "left out where every parameter is in f32")
    }

    /// The f32 that a parameter in bf16 and its [remainder](Self::Remainder) make up.
    ///
    /// ```
    /// use wgpu_optim::ParamRounding;
    ///
    /// // 1 + 1/256 lies halfway between two numbers of bf16.
    /// assert_eq!(ParamRounding::whole(1.0 + 1.0 / 128.0, -32768.0), 1.0 + 1.0 / 256.0);
    /// ```
    pub fn whole(param: f32, remainder: f32) -> f32 {
        f32::from_bits(param.to_bits().wrapping_add(remainder as i32 as u32))
    }

    /// A number in f32 as a parameter in bf16 and its [remainder](Self::Remainder). NaN has none.
    pub fn split(number: f32) -> (f32, f32) {
        if number.is_nan() {
            return (number, 0.0);
        }
        let upper = number.to_bits().wrapping_add(0x8000) & 0xffff_0000;
        (f32::from_bits(upper), number.to_bits().wrapping_sub(upper) as i32 as f32)
    }
}

/// The shader of a kind.
macro_rules! shader {
    ($file:literal) => {
        concat!(
            include_str!("../../shaders/wrappers/param_rounding.wgsl"),
            "\n",
            include_str!(concat!("../../shaders/wrappers/param_rounding_", $file, ".wgsl"))
        )
    };
}

numbers! {
    /// The key of the step in three parts, of 22, 22 and 20 bits, which f32 holds.
    Numbers { low, middle, high }
}

impl Wrapper for ParamRounding {
    const NAME: &'static str = "param_rounding";
    const SUMMARY: &'static str =
        "rounds parameters of 16 bits to the nearest or by chance, or keeps what they lack of f32";
    const SHADER: &'static str = shader!("stochastic");

    type Numbers<F: Real> = Numbers<F>;

    fn shader(&self) -> &'static str {
        match self {
            Self::Master => shader!("master"),
            Self::Remainder => shader!("remainder"),
            Self::Nearest | Self::Stochastic => Self::SHADER,
        }
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn takes_part(&self, setting: Setting) -> bool {
        *self != Self::Nearest && setting.narrow
    }

    fn slot(&self, setting: Setting) -> Option<Slot> {
        self.keeps_params(setting).then(|| Slot::element(self.name()).starting_as_param())
    }

    fn slot_storage(&self) -> Storage {
        if *self == Self::Remainder { Storage::I16 } else { Storage::F32 }
    }

    fn keeps_params(&self, setting: Setting) -> bool {
        self.keeps() && setting.narrow
    }

    fn reads_copies(&self) -> bool {
        *self == Self::Remainder
    }

    fn off() -> Option<Self> {
        Some(Self::Nearest)
    }

    fn numbers(&self, moment: Moment) -> Numbers<f64> {
        let [low, middle, high] = key_parts(moment.t, moment.seed);
        Numbers { low, middle, high }
    }

    fn stored<F: Real>(&self, n: &Numbers<F>, stored: Stored, element: usize, p: F) -> F {
        if *self != Self::Stochastic {
            return p;
        }
        let key = key_of([n.low, n.middle, n.high].map(Real::f64));
        let bits = philox([[(element / 4) as u32, 0], [stored.stream, 0]], key);
        F::of(stored.dtype.dither(p.f64(), bits[element % 4]))
    }

    fn whole<F: Real>(&self, p: F, slot: F) -> F {
        match self {
            Self::Master => slot,
            Self::Remainder => F::of(Self::whole(p.f64() as f32, slot.f64() as f32).into()),
            Self::Nearest | Self::Stochastic => p,
        }
    }

    fn kept<F: Real>(&self, p: F, slot: &mut F) -> F {
        let (copy, rest) = match self {
            Self::Master => (p, p),
            Self::Remainder => {
                let (upper, remainder) = Self::split(p.f64() as f32);
                (F::of(upper.into()), F::of(remainder.into()))
            }
            Self::Nearest | Self::Stochastic => return p,
        };
        *slot = rest;
        copy
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("stochastic", Self::Stochastic), ("master", Self::Master), ("remainder", Self::Remainder)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![Reject {
            json: r#""up""#,
            error: "param_rounding: unknown variant `up`, expected one of `nearest`, `stochastic`, `master`, \
                    `remainder`",
        }]
    }
}
