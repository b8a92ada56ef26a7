//! Signum. Twin: `shaders/rules/signum.wgsl`.

use crate::error::{Result, below_one};
use crate::parts::{Real, ema, sign};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Signum: the sign of a running mean of gradients; of the gradient itself with `momentum = 0` (signSGD).
///
/// `m = momentum*m + (1-momentum)*g; p -= lr*sign(m)`. One slot `m` per element, none without momentum.
///
/// Source: Bernstein et al. 2018, Algorithm 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Signum {
    /// Learning rate, at least 0: how far every element moves. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    /// After creation it cannot change between 0 and other numbers.
    pub momentum: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Signum: lr, momentum, weight_decay);

impl Default for Signum {
    fn default() -> Self {
        Self { lr: 1e-3, momentum: 0.9, weight_decay: WeightDecay::None }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, momentum, one_minus_momentum }
}
numbers! {
    /// The mean.
    State { m }
}

impl Rule for Signum {
    const NAME: &'static str = "signum";
    const SUMMARY: &'static str = "the sign of a running mean of gradients (Bernstein et al. 2018)";
    const SHADER: &'static str = include_str!("../../shaders/rules/signum.wgsl");
    const TAKES_SIGNS: bool = true;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, momentum; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("momentum", self.momentum)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("MOMENTUM", f64::from(self.momentum != 0.0))]
    }

    fn slots(&self) -> Vec<Slot> {
        if self.momentum == 0.0 { vec![] } else { vec![Slot::element("m")] }
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper { lr: self.lr, momentum: self.momentum, one_minus_momentum: 1.0 - self.momentum }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        if self.momentum == 0.0 {
            return h.lr * sign(g);
        }
        s.m = ema(s.m, g, h.momentum, h.one_minus_momentum);
        h.lr * sign(s.m)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self { lr: 0.05, momentum: 0.7, weight_decay: WeightDecay::L2(0.2) };
        vec![("default", Self::default()), ("plain", Self { momentum: 0.0, ..loud.clone() }), ("loud", loud)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"momentum": 1}"#, error: "momentum is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"momentum": -0.1}"#, error: "momentum is -0.1, must be at least 0 and below 1" },
        ]
    }
}
