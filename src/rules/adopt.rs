//! ADOPT. Twin: `shaders/rules/adopt.wgsl`.

use crate::error::{Result, above_zero, below_one};
use crate::parts::{Real, ema, larger, within};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// ADOPT: momentum of gradients over the root of the mean square of those before them.
///
/// First step: `v = g^2`, and no update. Later: `x = g/max(sqrt(v), eps)`, within `+-(t-1)^0.25` with `clip_update`;
/// `m = beta1*m + (1-beta1)*x; p -= lr*m`, and then `v = beta2*v + (1-beta2)*g^2`. Slots `m`, `v` per element.
///
/// Source: Taniguchi et al. 2024, Algorithm 1, and the clip of the authors' code, whose defaults these are.
#[derive(Clone, Debug, PartialEq)]
pub struct Adopt {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.9999.
    pub beta2: f64,
    /// The least divisor of a gradient: above 0 in f32. Default 1e-6.
    pub eps: f64,
    /// Whether `x` stays within `+-(t-1)^0.25`. Default true.
    pub clip_update: bool,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Adopt: lr, beta1, beta2, eps, clip_update, weight_decay);

impl Default for Adopt {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.9999, eps: 1e-6, clip_update: true, weight_decay: WeightDecay::None }
    }
}

numbers! {
    /// Numbers of a group at one `t`. In the first step `m` stays as it is, and `v` becomes the gradient's square.
    Hyper {
        /// 0 at the first step.
        lr,
        keep1,
        take1,
        keep2,
        take2,
        eps,
        /// The largest `|x|`.
        x_max,
    }
}
numbers! {
    /// The moments.
    State { m, v }
}

impl Rule for Adopt {
    const NAME: &'static str = "adopt";
    const SUMMARY: &'static str =
        "momentum of the gradient over the root of its mean square so far (Taniguchi et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adopt.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("v").nonnegative()]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let (beta1, beta2) = (self.beta1, self.beta2);
        let x_max = if self.clip_update { ((t - 1) as f64).powf(0.25) } else { f32::MAX.into() };
        if t == 1 {
            return Hyper { lr: 0.0, keep1: 1.0, take1: 0.0, keep2: 0.0, take2: 1.0, eps: self.eps, x_max };
        }
        Hyper { lr: self.lr, keep1: beta1, take1: 1.0 - beta1, keep2: beta2, take2: 1.0 - beta2, eps: self.eps, x_max }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        let x = within(g / larger(s.v.sqrt(), h.eps), -h.x_max, h.x_max);
        s.m = ema(s.m, x, h.keep1, h.take1);
        s.v = ema(s.v, g * g, h.keep2, h.take2);
        h.lr * s.m
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud =
            Self { lr: 0.02, beta1: 0.8, beta2: 0.7, eps: 0.5, clip_update: true, weight_decay: WeightDecay::L2(0.2) };
        let decoupled = WeightDecay::Decoupled(0.3);
        vec![
            ("default", Self::default()),
            ("not_clipped", Self { clip_update: false, weight_decay: decoupled, ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
        ]
    }
}
