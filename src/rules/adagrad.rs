//! AdaGrad. Twin: `shaders/rules/adagrad.wgsl`.

use crate::error::{Result, above_zero, at_least_zero};
use crate::options::EpsPlacement;
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// AdaGrad: the step shrinks with the sum of squared gradients so far.
///
/// `s += g^2; clr = lr/(1 + (t-1)*lr_decay)`; `p -= clr*g/(sqrt(s) + eps)`, or with [`EpsPlacement::Inside`]
/// `p -= clr*g/sqrt(s + eps)`. One slot `s` per element, starting at `initial_accumulator`.
///
/// Source: Duchi, Hazan and Singer 2011, section 1.1. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    /// Learning rate, at least 0. Default 1e-2.
    pub lr: f64,
    /// How fast the rate decays: at least 0. Default 0.
    pub lr_decay: f64,
    /// Start of `s`, at least 0. Default 0.
    pub initial_accumulator: f64,
    /// What is added to the root, or under it: above 0 in f32. Default 1e-10.
    pub eps: f64,
    /// Where `eps` stands. Default outside.
    pub eps_placement: EpsPlacement,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Adagrad: lr, lr_decay, initial_accumulator, eps, eps_placement, weight_decay);

impl Default for Adagrad {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            lr_decay: 0.0,
            initial_accumulator: 0.0,
            eps: 1e-10,
            eps_placement: EpsPlacement::Outside,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { clr, eps }
}
numbers! {
    /// The sum of squares.
    State { s }
}

impl Rule for Adagrad {
    const NAME: &'static str = "adagrad";
    const SUMMARY: &'static str = "gradient over the root of the sum of squares (Duchi et al. 2011)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adagrad.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, lr_decay, eps; weight_decay);

    fn check(&self) -> Result<()> {
        at_least_zero("lr_decay", self.lr_decay)?;
        at_least_zero("initial_accumulator", self.initial_accumulator)?;
        above_zero("eps", self.eps)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("EPS_INSIDE", f64::from(self.eps_placement == EpsPlacement::Inside))]
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("s").nonnegative().starting_at(self.initial_accumulator)]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper { clr: self.lr / (1.0 + t.saturating_sub(1) as f64 * self.lr_decay), eps: self.eps }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.s += g * g;
        match self.eps_placement {
            EpsPlacement::Inside => h.clr * g / (s.s + h.eps).sqrt(),
            EpsPlacement::Outside => h.clr * g / (s.s.sqrt() + h.eps),
        }
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.05,
            lr_decay: 0.3,
            initial_accumulator: 0.2,
            eps: 0.1,
            weight_decay: WeightDecay::L2(0.2),
            ..Self::default()
        };
        vec![
            ("default", Self::default()),
            ("inside", Self { eps_placement: EpsPlacement::Inside, ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"eps": 1e-60}"#, error: "eps is 1e-60, must be above 0 and finite in f32" },
            Reject { json: r#"{"lr_decay": -1}"#, error: "lr_decay is -1, must be at least 0 and finite" },
            Reject {
                json: r#"{"initial_accumulator": -0.5}"#,
                error: "initial_accumulator is -0.5, must be at least 0 and finite",
            },
        ]
    }
}
