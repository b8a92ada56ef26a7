//! How new parameters of 16 bits are rounded. Twin: `shaders/wrappers/param_rounding.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::init::{key_of, key_parts, philox};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Slot, numbers};
use crate::tensor::{Stored, TensorSpec};
use crate::wrapper::{Moment, Setting, Wrapper};

/// What keeps the precision of parameters of 16 bits. JSON: `"nearest"`, the default, `"stochastic"` or `"master"`.
/// Parameters in f32 stay as they are.
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
}

/// The shader of [`ParamRounding::Master`].
const MASTER: &str = concat!(
    include_str!("../../shaders/wrappers/param_rounding.wgsl"),
    "\n",
    include_str!("../../shaders/wrappers/param_rounding_master.wgsl")
);

numbers! {
    /// The key of the step in three parts, of 22, 22 and 20 bits, which f32 holds.
    Numbers { low, middle, high }
}

impl Wrapper for ParamRounding {
    const NAME: &'static str = "param_rounding";
    const SUMMARY: &'static str = "rounds parameters of 16 bits to the nearest, or by chance, or keeps an f32 master";
    const SHADER: &'static str = concat!(
        include_str!("../../shaders/wrappers/param_rounding.wgsl"),
        "\n",
        include_str!("../../shaders/wrappers/param_rounding_stochastic.wgsl")
    );

    type Numbers<F: Real> = Numbers<F>;

    fn shader(&self) -> &'static str {
        match self {
            Self::Master => MASTER,
            Self::Nearest | Self::Stochastic => Self::SHADER,
        }
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn check_tensors(&self, tensors: &[TensorSpec]) -> Result<()> {
        let kind = match self {
            Self::Nearest => return Ok(()),
            Self::Stochastic => "stochastic",
            Self::Master => "master",
        };
        match tensors.is_empty() || tensors.iter().any(|tensor| tensor.dtype.is_narrow()) {
            true => Ok(()),
            false => refuse("param_rounding", kind, "left out where every parameter is in f32"),
        }
    }

    fn takes_part(&self, setting: Setting) -> bool {
        *self == Self::Stochastic || setting.narrow
    }

    fn slot(&self, setting: Setting) -> Option<Slot> {
        self.keeps_params(setting).then(|| Slot::element("master").starting_as_param())
    }

    fn keeps_params(&self, setting: Setting) -> bool {
        *self == Self::Master && setting.narrow
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

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("stochastic", Self::Stochastic), ("master", Self::Master)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![Reject {
            json: r#""up""#,
            error: "param_rounding: unknown variant `up`, expected one of `nearest`, `stochastic`, `master`",
        }]
    }
}
