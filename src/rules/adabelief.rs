//! AdaBelief. Twin: `shaders/rules/adabelief.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// AdaBelief: Adam with the gradient's distance from its running mean under the root, in place of the gradient.
///
/// `m = beta1*m + (1-beta1)*g; s = beta2*s + (1-beta2)*(g-m)^2 + eps_root`, and
/// `p -= lr*(m/(1-beta1^t))/(sqrt(s/(1-beta2^t)) + eps)`. Slots `m`, `s` per element.
///
/// Source: Zhuang et al. 2020, Algorithm 2. Defaults are optax's.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaBelief {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `s` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-16.
    pub eps: f64,
    /// What is added to `s` in every step, at least 0. Default 1e-16.
    pub eps_root: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(AdaBelief: lr, beta1, beta2, eps, eps_root, weight_decay);

impl Default for AdaBelief {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-16, eps_root: 1e-16, weight_decay: WeightDecay::None }
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
        /// What the root of `s` is multiplied by.
        correction2,
        eps,
        eps_root,
    }
}
numbers! {
    /// The mean, and the mean square of distances from it.
    State { m, s }
}

impl Rule for AdaBelief {
    const NAME: &'static str = "adabelief";
    const SUMMARY: &'static str = "Adam with the gradient's distance from its mean under the root (Zhuang et al. 2020)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adabelief.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps, eps_root; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        at_least_zero("eps_root", self.eps_root)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("s").nonnegative()]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            step: self.lr / correction(self.beta1, t),
            correction2: 1.0 / correction(self.beta2, t).sqrt(),
            eps: self.eps,
            eps_root: self.eps_root,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        let surprise = g - s.m;
        // The terms stand in the shader's order: Mesa's compiler would reorder `(a + b) + eps_root` there.
        s.s = h.beta2 * s.s + (h.one_minus_beta2 * (surprise * surprise) + h.eps_root);
        h.step * s.m / (s.s.sqrt() * h.correction2 + h.eps)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud =
            Self { lr: 0.02, beta1: 0.8, beta2: 0.95, eps: 0.1, eps_root: 0.3, weight_decay: WeightDecay::L2(0.2) };
        vec![
            ("default", Self::default()),
            ("decoupled", Self { eps_root: 0.0, weight_decay: WeightDecay::Decoupled(0.3), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"eps_root": -1}"#, error: "eps_root is -1, must be at least 0 and finite" },
        ]
    }
}
