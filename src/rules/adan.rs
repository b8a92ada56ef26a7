//! Adan. Twin: `shaders/rules/adan.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Adan: running means of the gradient, of its change, and of the square of both together.
///
/// `y = g - g_prev`, 0 at the first step. `m = beta1*m + (1-beta1)*g; d = beta2*d + (1-beta2)*y;
/// n = beta3*n + (1-beta3)*(g + beta2*y)^2`, each corrected for its start at 0 (`bc = 1-beta^t`), and
/// `p -= lr*(m/bc1 + beta2*d/bc2)/(sqrt(n/bc3 + eps_root) + eps)`. [`WeightDecay::Proximal`] divides the result by
/// `1 + lr*d`. Slots `m`, `d`, `n`, `g_prev` per element.
///
/// Source: Xie et al. 2022, Algorithm 1, whose betas are 1 minus these. Defaults are the authors'.
#[derive(Clone, Debug, PartialEq)]
pub struct Adan {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.98.
    pub beta1: f64,
    /// How much of `d` a step keeps, and the weight of the change in the update: at least 0 and below 1. Default 0.92.
    pub beta2: f64,
    /// How much of `n` a step keeps: at least 0 and below 1. Default 0.99.
    pub beta3: f64,
    /// What is added to the root: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// What is added under the root: at least 0. Default 0.
    pub eps_root: f64,
    /// Any [general](WeightDecay::GENERAL) kind, or `Proximal`. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Adan: lr, beta1, beta2, beta3, eps, eps_root, weight_decay);

impl Default for Adan {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.98,
            beta2: 0.92,
            beta3: 0.99,
            eps: 1e-8,
            eps_root: 0.0,
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
        /// The weight of `y` in `d`; 0 at the first step.
        take2,
        /// How much of `y` is added to `g`: `beta2`; 0 at the first step.
        ahead,
        beta3,
        one_minus_beta3,
        /// What `m` is multiplied by.
        step_m,
        /// What `d` is multiplied by.
        step_d,
        /// What `n` is multiplied by.
        correction3,
        eps,
        eps_root,
        /// The share of `p` that the proximal decay subtracts.
        proximal,
    }
}
numbers! {
    /// The running means of gradient, change and square, and the gradient of the step before.
    State { m, d, n, g_prev }
}

impl Rule for Adan {
    const NAME: &'static str = "adan";
    const SUMMARY: &'static str = "running means of gradient, its change, and the square of both (Xie et al. 2022)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adan.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "l2", "decoupled", "independent", "cautious", "proximal"];

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, beta3, eps, eps_root; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        below_one("beta3", self.beta3)?;
        above_zero("eps", self.eps)?;
        at_least_zero("eps_root", self.eps_root)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("d"), Slot::element("n").nonnegative(), Slot::element("g_prev")]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let later = f64::from(t > 1);
        let pull = match self.weight_decay {
            WeightDecay::Proximal(d) => self.lr * d,
            _ => 0.0,
        };
        // (p - u)/(1 + pull) is p - (u + pull*p)/(1 + pull).
        let lr = self.lr / (1.0 + pull);
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            take2: later * (1.0 - self.beta2),
            ahead: later * self.beta2,
            beta3: self.beta3,
            one_minus_beta3: 1.0 - self.beta3,
            step_m: lr / correction(self.beta1, t),
            step_d: lr * self.beta2 / correction(self.beta2, t),
            correction3: 1.0 / correction(self.beta3, t),
            eps: self.eps,
            eps_root: self.eps_root,
            proximal: pull / (1.0 + pull),
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), p: F, g: F, s: &mut State<F>) -> F {
        let y = g - s.g_prev;
        let ahead = g + h.ahead * y;
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.d = ema(s.d, y, h.beta2, h.take2);
        s.n = ema(s.n, ahead * ahead, h.beta3, h.one_minus_beta3);
        s.g_prev = g;
        let root = (s.n * h.correction3 + h.eps_root).sqrt();
        (h.step_m * s.m + h.step_d * s.d) / (root + h.eps) + h.proximal * p
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.8,
            beta2: 0.7,
            beta3: 0.9,
            eps: 0.1,
            eps_root: 0.3,
            weight_decay: WeightDecay::L2(0.2),
        };
        vec![
            ("default", Self::default()),
            ("proximal", Self { lr: 0.1, weight_decay: WeightDecay::Proximal(3.0), ..loud.clone() }),
            ("cautious", Self { eps_root: 0.0, weight_decay: WeightDecay::Cautious(0.3), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta3": 1.5}"#, error: "beta3 is 1.5, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"eps_root": -1}"#, error: "eps_root is -1, must be at least 0 and finite" },
            Reject {
                json: r#"{"weight_decay": {"proximal": -1}}"#,
                error: "weight_decay.proximal is -1, must be at least 0 and finite",
            },
            Reject {
                json: r#"{"weight_decay": {"inside": 0.1}}"#,
                error: "weight_decay is {\"inside\": 0.1}, must be one of none, l2, decoupled, independent, cautious, \
                        proximal for adan",
            },
        ]
    }
}
