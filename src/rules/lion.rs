//! Lion. Twin: `shaders/rules/lion.wgsl`.

use crate::error::{Result, below_one};
use crate::parts::{Real, ema, sign};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Lion: the sign of a mean of gradient and momentum; the momentum itself takes the gradient more slowly.
///
/// `p -= lr*sign(beta1*m + (1-beta1)*g); m = beta2*m + (1-beta2)*g`. One slot `m` per element.
///
/// Source: Chen et al. 2023, Algorithm 2. The defaults are the paper's, apart from the decay: the paper's is decoupled.
#[derive(Clone, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate, at least 0: how far every element moves. Default 1e-4.
    pub lr: f64,
    /// The weight of `m` in the mean whose sign is taken: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.99.
    pub beta2: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Lion: lr, beta1, beta2, weight_decay);

impl Default for Lion {
    fn default() -> Self {
        Self { lr: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: WeightDecay::None }
    }
}

impl Lion {
    /// Keras's: `lr=1e-3`.
    pub fn keras() -> Self {
        Self { lr: 1e-3, ..Self::default() }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, beta1, one_minus_beta1, beta2, one_minus_beta2 }
}
numbers! {
    /// The momentum.
    State { m }
}

impl Rule for Lion {
    const NAME: &'static str = "lion";
    const SUMMARY: &'static str = "the sign of a mean of gradient and momentum (Chen et al. 2023)";
    const SHADER: &'static str = include_str!("../../shaders/rules/lion.wgsl");
    const TAKES_SIGNS: bool = true;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m")]
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            lr: self.lr,
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        let m = s.m;
        s.m = ema(m, g, h.beta2, h.one_minus_beta2);
        h.lr * sign(ema(m, g, h.beta1, h.one_minus_beta1))
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("keras", Self::keras())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self { lr: 0.05, beta1: 0.6, beta2: 0.7, weight_decay: WeightDecay::L2(0.2) };
        vec![
            ("default", Self::default()),
            ("cautious", Self { weight_decay: WeightDecay::Cautious(0.3), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
        ]
    }
}
