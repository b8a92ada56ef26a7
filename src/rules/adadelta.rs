//! Adadelta. Twin: `shaders/rules/adadelta.wgsl`.

use crate::error::{Result, above_zero, below_one};
use crate::parts::{Real, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Adadelta: the gradient over the root of its mean square, times the root of the mean square of the steps so far.
///
/// `s = rho*s + (1-rho)*g^2; d = sqrt(a + eps)/sqrt(s + eps)*g; a = rho*a + (1-rho)*d^2; p -= lr*d`. Slots `s`, `a` per
/// element.
///
/// Source: Zeiler 2012, Algorithm 1. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Adadelta {
    /// Learning rate, at least 0; 1 in the paper. Default 1.
    pub lr: f64,
    /// How much of `s` and `a` a step keeps: at least 0 and below 1. Default 0.9.
    pub rho: f64,
    /// Above 0 in f32. Default 1e-6. Its root is about the size of the first steps.
    pub eps: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Adadelta: lr, rho, eps, weight_decay);

impl Default for Adadelta {
    fn default() -> Self {
        Self { lr: 1.0, rho: 0.9, eps: 1e-6, weight_decay: WeightDecay::None }
    }
}

impl Adadelta {
    /// Keras's: `lr=1e-3, rho=0.95, eps=1e-7`.
    pub fn keras() -> Self {
        Self { lr: 1e-3, rho: 0.95, eps: 1e-7, ..Self::default() }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, rho, one_minus_rho, eps }
}
numbers! {
    /// The mean squares of gradients and of steps.
    State { s, a }
}

impl Rule for Adadelta {
    const NAME: &'static str = "adadelta";
    const SUMMARY: &'static str = "gradient over its root mean square, times that of the steps so far (Zeiler 2012)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adadelta.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, rho, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("rho", self.rho)?;
        above_zero("eps", self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("s").nonnegative(), Slot::element("a").nonnegative()]
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper { lr: self.lr, rho: self.rho, one_minus_rho: 1.0 - self.rho, eps: self.eps }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.s = ema(s.s, g * g, h.rho, h.one_minus_rho);
        let d = (s.a + h.eps).sqrt() / (s.s + h.eps).sqrt() * g;
        s.a = ema(s.a, d * d, h.rho, h.one_minus_rho);
        h.lr * d
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("keras", Self::keras())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self { lr: 0.7, rho: 0.8, eps: 0.1, weight_decay: WeightDecay::L2(0.2) };
        vec![("default", Self::default()), ("loud", loud)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"rho": 1}"#, error: "rho is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
        ]
    }
}
