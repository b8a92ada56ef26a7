//! LaProp. Twin: `shaders/rules/laprop.wgsl`.

use crate::error::{Result, above_zero, below_one};
use crate::options::RootEps;
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// LaProp: Adam that normalises each gradient first and takes the momentum of the result.
///
/// `v = beta2*v + (1-beta2)*g^2; x = g/(sqrt(v/(1-beta2^t)) + eps); m = beta1*m + (1-beta1)*x`, and
/// `p -= lr*m/(1-beta1^t)`; [`RootEps`] names the other place for eps. Slots `m`, `v` per element.
///
/// Source: Ziyin et al. 2020, arXiv 2002.04839, Algorithm 1, with the learning rate outside the mean. Defaults are the
/// authors'.
#[derive(Clone, Debug, PartialEq)]
pub struct LaProp {
    /// Learning rate, at least 0. Default 4e-4.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-15.
    pub eps: f64,
    /// Where `eps` stands. Default outside.
    pub eps_placement: RootEps,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(LaProp: lr, beta1, beta2, eps, eps_placement, weight_decay);

impl Default for LaProp {
    fn default() -> Self {
        Self {
            lr: 4e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-15,
            eps_placement: RootEps::Outside,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        /// `lr` over the first bias correction.
        step,
        /// What the gradient is multiplied by.
        scale,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
    }
}
numbers! {
    /// The momentum, and the mean square of the gradient.
    State { m, v }
}

impl Rule for LaProp {
    const NAME: &'static str = "laprop";
    const SUMMARY: &'static str = "momentum of the gradient over its root mean square (Ziyin et al. 2020)";
    const SHADER: &'static str = include_str!("../../shaders/rules/laprop.wgsl");

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
        let (scale, correction2) = self.eps_placement.corrections(correction(self.beta2, t));
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            step: self.lr / correction(self.beta1, t),
            scale,
            correction2,
            eps: self.eps,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        let x = h.scale * g / (s.v.sqrt() * h.correction2 + h.eps);
        s.m = ema(s.m, x, h.beta1, h.one_minus_beta1);
        h.step * s.m
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.8,
            beta2: 0.95,
            eps: 0.1,
            weight_decay: WeightDecay::Decoupled(0.3),
            ..Self::default()
        };
        vec![
            ("default", Self::default()),
            ("uncorrected", Self { eps_placement: RootEps::Uncorrected, ..loud.clone() }),
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
