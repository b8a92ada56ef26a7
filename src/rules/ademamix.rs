//! AdEMAMix. Twin: `shaders/rules/ademamix.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// AdEMAMix: Adam with a second, slow mean of gradients beside the fast one.
///
/// `m1 = beta1*m1 + (1-beta1)*g; m2 = beta3*m2 + (1-beta3)*g; v = beta2*v + (1-beta2)*g^2`, and
/// `p -= lr*(m1/(1-beta1^t) + alpha*m2)/(sqrt(v/(1-beta2^t)) + eps)`. Slots `m1`, `m2`, `v` per element.
///
/// The paper lets `alpha` and `beta3` grow from small values at the start: schedule them.
///
/// Source: Pagliardini et al. 2024, Algorithm 1. Defaults are optax's.
#[derive(Clone, Debug, PartialEq)]
pub struct AdEmaMix {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m1` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// Of the slow mean; at least 0 and below 1. Default 0.9999.
    pub beta3: f64,
    /// Weight of the slow mean, at least 0. Default 5.
    pub alpha: f64,
    /// What is added to the root: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(AdEmaMix: lr, beta1, beta2, beta3, alpha, eps, weight_decay);

impl Default for AdEmaMix {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            beta3: 0.9999,
            alpha: 5.0,
            eps: 1e-8,
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
        beta3,
        one_minus_beta3,
        /// What `m1` is multiplied by.
        step1,
        /// What `m2` is multiplied by.
        step2,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
    }
}
numbers! {
    /// The fast mean, the slow one, the mean square.
    State { m1, m2, v }
}

impl Rule for AdEmaMix {
    const NAME: &'static str = "ademamix";
    const SUMMARY: &'static str = "Adam with a slow mean of gradients beside the fast one (Pagliardini et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/ademamix.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, beta3, alpha, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        below_one("beta3", self.beta3)?;
        at_least_zero("alpha", self.alpha)?;
        above_zero("eps", self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m1"), Slot::element("m2"), Slot::element("v").nonnegative()]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            beta3: self.beta3,
            one_minus_beta3: 1.0 - self.beta3,
            step1: self.lr / correction(self.beta1, t),
            step2: self.lr * self.alpha,
            correction2: 1.0 / correction(self.beta2, t).sqrt(),
            eps: self.eps,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m1 = ema(s.m1, g, h.beta1, h.one_minus_beta1);
        s.m2 = ema(s.m2, g, h.beta3, h.one_minus_beta3);
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        (h.step1 * s.m1 + h.step2 * s.m2) / (s.v.sqrt() * h.correction2 + h.eps)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.7,
            beta2: 0.95,
            beta3: 0.9,
            alpha: 3.0,
            eps: 0.1,
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
            Reject { json: r#"{"beta3": 1}"#, error: "beta3 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"alpha": -1}"#, error: "alpha is -1, must be at least 0 and finite" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
        ]
    }
}
