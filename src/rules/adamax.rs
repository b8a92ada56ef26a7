//! Adamax. Twin: `shaders/rules/adamax.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one};
use crate::parts::{Real, correction, ema, larger};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Adamax: Adam with the largest gradient so far, fading, in place of the root of the mean square.
///
/// `m = beta1*m + (1-beta1)*g; u = max(beta2*u, |g| + eps); p -= lr/(1-beta1^t) * m/u`; [`AdamaxEps`] names the other
/// place for eps. Slots `m`, `u` per element.
///
/// Source: Kingma and Ba 2015, Algorithm 2. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Adamax {
    /// Learning rate, at least 0. Default 2e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `u` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to `|g|`, or to `u`: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Where `eps` stands. Default in_max.
    pub eps_placement: AdamaxEps,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Adamax: lr, beta1, beta2, eps, eps_placement, weight_decay);

/// Where Adamax's eps stands; the paper has none. JSON: `"in_max"`, `"denominator"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdamaxEps {
    /// `u = max(beta2*u, |g| + eps)` (PyTorch).
    #[default]
    InMax,
    /// `u = max(beta2*u, |g|)`, and `m/(u + eps)` (Keras).
    Denominator,
}

impl Default for Adamax {
    fn default() -> Self {
        Self {
            lr: 2e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_placement: AdamaxEps::InMax,
            weight_decay: WeightDecay::None,
        }
    }
}

impl Adamax {
    /// Keras's: `lr=1e-3`, eps 1e-7 in the denominator.
    pub fn keras() -> Self {
        Self { lr: 1e-3, eps: 1e-7, eps_placement: AdamaxEps::Denominator, ..Self::default() }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        beta2,
        /// `lr` over the bias correction.
        step,
        eps,
    }
}
numbers! {
    /// The mean, and the largest gradient.
    State { m, u }
}

impl Rule for Adamax {
    const NAME: &'static str = "adamax";
    const SUMMARY: &'static str = "Adam with the largest gradient, fading, for the root (Kingma and Ba 2015)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adamax.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("EPS_IN_MAX", f64::from(self.eps_placement == AdamaxEps::InMax))]
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("u").nonnegative()]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            step: self.lr / correction(self.beta1, t),
            eps: self.eps,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        let faded = h.beta2 * s.u;
        match self.eps_placement {
            AdamaxEps::InMax => {
                s.u = larger(faded, g.abs() + h.eps);
                h.step * s.m / s.u
            }
            AdamaxEps::Denominator => {
                s.u = larger(faded, g.abs());
                h.step * s.m / (s.u + h.eps)
            }
        }
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("keras", Self::keras())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud =
            Self { lr: 0.02, beta1: 0.8, beta2: 0.7, eps: 0.1, weight_decay: WeightDecay::L2(0.2), ..Self::default() };
        vec![
            ("default", Self::default()),
            ("denominator", Self { eps_placement: AdamaxEps::Denominator, ..loud.clone() }),
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
