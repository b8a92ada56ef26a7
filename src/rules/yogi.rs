//! Yogi. Twin: `shaders/rules/yogi.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one};
use crate::parts::{Real, correction, ema, sign};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Yogi: Adam, with a `v` that moves towards the gradient's square by steps that do not grow with their distance.
///
/// `m = beta1*m + (1-beta1)*g; v -= (1-beta2)*sign(v - g^2)*g^2`, and
/// `p -= lr*(m/(1-beta1^t))/(sqrt(v/(1-beta2^t)) + eps)`. Slots `m`, `v` per element, both starting
/// at `initial_accumulator`.
///
/// Source: Zaheer et al. 2018, Algorithm 2. Start and defaults are optax's.
#[derive(Clone, Debug, PartialEq)]
pub struct Yogi {
    /// Learning rate, at least 0. Default 1e-2.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// 1 minus the share of the gradient's square by which `v` moves: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-3.
    pub eps: f64,
    /// What `m` and `v` start at, at least 0. Default 1e-6.
    pub initial_accumulator: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Yogi: lr, beta1, beta2, eps, initial_accumulator, weight_decay);

impl Default for Yogi {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-3,
            initial_accumulator: 1e-6,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        one_minus_beta2,
        /// `lr` over the first bias correction.
        step,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
    }
}
numbers! {
    /// The moments.
    State { m, v }
}

impl Rule for Yogi {
    const NAME: &'static str = "yogi";
    const SUMMARY: &'static str = "Adam whose second moment moves by the gradient's square (Zaheer et al. 2018)";
    const SHADER: &'static str = include_str!("../../shaders/rules/yogi.wgsl");
    // `m` does not start at 0, so it moves the parameters even where gradients are 0.
    const RESTS: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        at_least_zero("initial_accumulator", self.initial_accumulator)
    }

    fn slots(&self) -> Vec<Slot> {
        let start = self.initial_accumulator;
        vec![Slot::element("m").starting_at(start), Slot::element("v").nonnegative().starting_at(start)]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            one_minus_beta2: 1.0 - self.beta2,
            step: self.lr / correction(self.beta1, t),
            correction2: 1.0 / correction(self.beta2, t).sqrt(),
            eps: self.eps,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        let square = g * g;
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v -= h.one_minus_beta2 * sign(s.v - square) * square;
        h.step * s.m / (s.v.sqrt() * h.correction2 + h.eps)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.8,
            beta2: 0.7,
            eps: 0.1,
            initial_accumulator: 0.2,
            weight_decay: WeightDecay::L2(0.2),
        };
        vec![
            ("default", Self::default()),
            ("decoupled", Self { weight_decay: WeightDecay::Decoupled(0.3), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"initial_accumulator": -1}"#,
                error: "initial_accumulator is -1, must be at least 0 and finite",
            },
        ]
    }
}
