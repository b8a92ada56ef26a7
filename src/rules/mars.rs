//! MARS. Twin: `shaders/rules/mars.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one};
use crate::options::RootEps;
use crate::parts::{Real, at_least, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// MARS: Adam of a gradient to which its change since the last step is added, so that its noise cancels.
///
/// `x = g + gamma*beta1/(1-beta1)*(g - g_prev)`, then `x <- x/max(1, ||x||)` with the norm of the tensor;
/// `m = beta1*m + (1-beta1)*x; v = beta2*v + (1-beta2)*x^2`, and
/// `p -= lr*m/(1-beta1^t)/(sqrt(v/(1-beta2^t)) + eps)`; [`RootEps`] names the other place for eps. Slots `m`, `v`,
/// `g_prev` (0 before the first step) per element. Three passes: norm, scale, update.
///
/// Source: Yuan et al. 2024, arXiv 2411.10438, Algorithm 2 (MARS-AdamW) with the approximate gradient difference of
/// section 3.2, on tensors of every rank. Defaults are the authors'.
#[derive(Clone, Debug, PartialEq)]
pub struct Mars {
    /// Learning rate, at least 0. Default 3e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.95.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.99.
    pub beta2: f64,
    /// How much of the gradient's change is added, at least 0. Default 0.025.
    pub gamma: f64,
    /// What is added to the root: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Where `eps` stands. Default outside.
    pub eps_placement: RootEps,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Mars: lr, beta1, beta2, gamma, eps, eps_placement, weight_decay);

impl Default for Mars {
    fn default() -> Self {
        Self {
            lr: 3e-3,
            beta1: 0.95,
            beta2: 0.99,
            gamma: 0.025,
            eps: 1e-8,
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
        /// What the gradient's change is multiplied by.
        change,
        /// `lr` over the first bias correction; with [`RootEps::Uncorrected`] times the root of the second one.
        step,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
    }
}
numbers! {
    /// The moments, and the gradient of the last step.
    State { m, v, g_prev }
}
numbers! {
    /// What changed gradients are multiplied by.
    Tensor { scale }
}

fn changed<F: Real>(h: &Hyper<F>, g: F, g_prev: F) -> F {
    g + h.change * (g - g_prev)
}

impl Rule for Mars {
    const NAME: &'static str = "mars";
    const SUMMARY: &'static str = "Adam of the gradient with its change added (Yuan et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/mars.wgsl");
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, beta1, beta2, gamma, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        at_least_zero("gamma", self.gamma)?;
        above_zero("eps", self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("v").nonnegative(), Slot::element("g_prev")]
    }

    fn passes(&self) -> Vec<Pass> {
        vec![Pass::Sums(Sums { state: true, ..Sums::GRADS }), Pass::Finish, Pass::Apply]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let (scale, correction2) = self.eps_placement.corrections(correction(self.beta2, t));
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            change: self.gamma * self.beta1 / (1.0 - self.beta1),
            step: self.lr * scale / correction(self.beta1, t),
            correction2,
            eps: self.eps,
        }
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, _p: F, g: F, s: &mut State<F>) -> [F; 2] {
        let x = changed(h, g, s.g_prev);
        [x * x, F::zero()]
    }

    fn finish<F: Real>(&self, _h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        k.scale = F::one() / at_least(sums[0].sqrt(), F::one());
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, _p: F, g: F, s: &mut State<F>) -> F {
        let x = k.scale * changed(h, g, s.g_prev);
        s.m = ema(s.m, x, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, x * x, h.beta2, h.one_minus_beta2);
        s.g_prev = g;
        h.step * s.m / (s.v.sqrt() * h.correction2 + h.eps)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.8,
            beta2: 0.95,
            gamma: 0.4,
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
            Reject { json: r#"{"gamma": -1}"#, error: "gamma is -1, must be at least 0 and finite" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
        ]
    }
}
