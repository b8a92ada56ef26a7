//! NAdam. Twin: `shaders/rules/nadam.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// NAdam: Adam with Nesterov's momentum, whose weight `mu` grows from step to step.
///
/// `mu(t) = beta1*(1 - 0.5*0.96^(t*momentum_decay))`, and `P` is the product of `mu(1)` to `mu(t)`; `m` and `v` are
/// Adam's. `p -= lr*((1-mu(t))/(1-P)*g + mu(t+1)/(1-P*mu(t+1))*m)/(sqrt(v/(1-beta2^t)) + eps)`. Slots `m`, `v`
/// per element; the host carries `P` from step to step.
///
/// Source: Dozat 2016. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct NAdam {
    /// Learning rate, at least 0. Default 2e-3.
    pub lr: f64,
    /// How much of `m` a step keeps, and what `mu` grows to: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// How fast `mu` goes from `beta1/2` to `beta1`, at least 0. Default 4e-3.
    pub momentum_decay: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(NAdam: lr, beta1, beta2, eps, momentum_decay, weight_decay);

impl Default for NAdam {
    fn default() -> Self {
        Self { lr: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, momentum_decay: 4e-3, weight_decay: WeightDecay::None }
    }
}

impl NAdam {
    /// Keras's: `lr=1e-3, eps=1e-7, momentum_decay=1`.
    pub fn keras() -> Self {
        Self { lr: 1e-3, eps: 1e-7, momentum_decay: 1.0, ..Self::default() }
    }

    /// The weight of the momentum at step `t`.
    fn mu(&self, t: u64) -> f64 {
        self.beta1 * (1.0 - 0.5 * 0.96f64.powf(t as f64 * self.momentum_decay))
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        /// What the gradient is multiplied by.
        step_g,
        /// What `m` is multiplied by.
        step_m,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
    }
}
numbers! {
    /// The moments.
    State { m, v }
}

impl Rule for NAdam {
    const NAME: &'static str = "nadam";
    const SUMMARY: &'static str = "Adam with Nesterov's momentum, whose weight grows (Dozat 2016)";
    const SHADER: &'static str = include_str!("../../shaders/rules/nadam.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps, momentum_decay; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        at_least_zero("momentum_decay", self.momentum_decay)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("v").nonnegative()]
    }

    fn hyper(&self, t: u64, carried: &mut Carried) -> Hyper<f64> {
        let before = if t == 1 { 1.0 } else { carried[0] };
        let (mu, mu_next) = (self.mu(t), self.mu(t.saturating_add(1)));
        let product = before * mu;
        *carried = [product, 0.0];
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            step_g: self.lr * (1.0 - mu) / (1.0 - product),
            step_m: self.lr * mu_next / (1.0 - product * mu_next),
            correction2: 1.0 / correction(self.beta2, t).sqrt(),
            eps: self.eps,
        }
    }

    fn carried(&self, t: u64) -> Carried {
        if t == 0 {
            return Carried::default();
        }
        let mut product = 1.0;
        for i in 1..=t {
            let mu = self.mu(i);
            if product == 0.0 || mu == self.beta1 {
                // From here on every weight is beta1.
                return [product * mu.powf((t - i + 1) as f64), 0.0];
            }
            product *= mu;
        }
        [product, 0.0]
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        (h.step_g * g + h.step_m * s.m) / (s.v.sqrt() * h.correction2 + h.eps)
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("keras", Self::keras())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.8,
            beta2: 0.95,
            eps: 0.1,
            momentum_decay: 0.5,
            weight_decay: WeightDecay::L2(0.2),
        };
        vec![("default", Self::default()), ("loud", loud)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"momentum_decay": -0.004}"#,
                error: "momentum_decay is -0.004, must be at least 0 and finite",
            },
        ]
    }
}
