//! Adam-atan2. Twin: `shaders/rules/adam_atan2.wgsl`.

use crate::error::{Result, above_zero, below_one};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Adam-atan2: Adam with the angle of its moments for their quotient, which is bounded and needs no eps.
///
/// `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2; mh = m/(1-beta1^t); vh = v/(1-beta2^t)`, and
/// `p -= lr*a*atan2(mh, b*sqrt(vh))`, where `atan2(0, 0)` is 0. Slots `m`, `v` per element.
///
/// Source: Everett et al. 2024, arXiv 2407.05872, section 5.3. Defaults are those of adam-atan2-pytorch.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamAtan2 {
    /// Learning rate, at least 0. Default 1e-4.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.99.
    pub beta2: f64,
    /// What the angle is multiplied by, above 0 in f32. Default 1.27.
    pub a: f64,
    /// What the root of the second moment is multiplied by, above 0 in f32. Default 1.
    pub b: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(AdamAtan2: lr, beta1, beta2, a, b, weight_decay);

impl Default for AdamAtan2 {
    fn default() -> Self {
        Self { lr: 1e-4, beta1: 0.9, beta2: 0.99, a: 1.27, b: 1.0, weight_decay: WeightDecay::None }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        /// `lr` times `a`.
        step,
        /// What `m` is multiplied by.
        correction1,
        /// What the root of `v` is multiplied by: `b` over the root of the second bias correction.
        correction2,
    }
}
numbers! {
    /// The moments.
    State { m, v }
}

impl Rule for AdamAtan2 {
    const NAME: &'static str = "adam_atan2";
    const SUMMARY: &'static str = "Adam with the angle of its moments, without eps (Everett et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adam_atan2.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, a, b; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("a", self.a)?;
        above_zero("b", self.b)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("v").nonnegative()]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            step: self.lr * self.a,
            correction1: 1.0 / correction(self.beta1, t),
            correction2: self.b / correction(self.beta2, t).sqrt(),
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        h.step * F::angle(h.correction1 * s.m, h.correction2 * s.v.sqrt())
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud =
            Self { lr: 0.02, beta1: 0.8, beta2: 0.95, a: 0.7, b: 2.0, weight_decay: WeightDecay::Decoupled(0.3) };
        vec![("default", Self::default()), ("loud", loud)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"a": 0}"#, error: "a is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"b": -1}"#, error: "b is -1, must be above 0 and finite in f32" },
        ]
    }
}
