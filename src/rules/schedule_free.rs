//! Schedule-free AdamW. Twin: `shaders/rules/schedule_free.wgsl`.

use crate::error::{Result, above_zero, below_one};
use crate::options::FreeWeights;
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Move, Rule, Slot, WeightDecay, fields, numbers, options};

/// Schedule-free AdamW: steps of Adam without momentum, and a running mean of the points they reach in place of a
/// schedule.
///
/// The parameters hold `y`, where gradients are computed; slot `z` is where plain steps lead, slot `v` Adam's. With
/// `slr = lr*min(1, t/warmup_steps)`, `weight = t^r * max_lr^weight_lr_power` (`max_lr` the largest `slr` so far) and
/// `c = weight/W` (`W` the sum of weights so far; 0 while that is 0):
/// `v = beta2*v + (1-beta2)*g^2; x = g/(sqrt(v/(1-beta2^t)) + eps) + d*y` with [`WeightDecay::Inside`],
/// `y <- y + c*(z-y) + slr*(beta1*(1-c)-1)*x`, and then `z -= slr*x`. Slots `z`, which starts as the parameter, and
/// `v`, per element; the host carries `max_lr` and `W` from step to step.
///
/// The trained model is the mean `x = y + (1-1/beta1)*(z-y)`: `Optimizer::eval` moves the parameters there,
/// `Optimizer::train` moves them back, `y = x + (1-beta1)*(z-x)`.
///
/// Source: Defazio et al. 2024, Algorithm 1. Defaults are the authors'.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleFree {
    /// Learning rate, at least 0. Default 2.5e-3.
    pub lr: f64,
    /// Where `y` stands between `z` (0) and the mean (1): above 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// The number of steps in which the rate grows to `lr`. Default 0.
    pub warmup_steps: u64,
    /// Power of the rate in a step's weight, at least 0 and at most 16. Default 2.
    pub weight_lr_power: f64,
    /// Power of `t` in a step's weight, at least 0 and at most 16. Default 0.
    pub r: f64,
    /// None (default) or `Inside`.
    pub weight_decay: WeightDecay,
}

fields!(ScheduleFree: lr, beta1, beta2, eps, warmup_steps, weight_lr_power, r, weight_decay);

impl Default for ScheduleFree {
    fn default() -> Self {
        Self {
            lr: 2.5e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            warmup_steps: 0,
            weight_lr_power: 2.0,
            r: 0.0,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta2,
        one_minus_beta2,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
        inside,
        /// The share of its distance to `z` that `y` goes towards `z`.
        c,
        /// `y` loses `step_y*x`.
        step_y,
        /// `z` loses `step_z*x`.
        step_z,
        /// The same share where `y` moves to be evaluated.
        evaluation,
        /// The same share where it moves back to be trained.
        training,
    }
}
numbers! {
    /// The sequence of plain steps, and the mean square.
    State { z, v }
}

impl ScheduleFree {
    fn weights(&self) -> FreeWeights {
        let &Self { lr, warmup_steps, weight_lr_power, r, .. } = self;
        FreeWeights { lr, warmup_steps, weight_lr_power, r }
    }
}

impl Rule for ScheduleFree {
    const NAME: &'static str = "schedule_free";
    const SUMMARY: &'static str = "Adam's plain steps and a mean of where they lead, no schedule (Defazio et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/schedule_free.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "inside"];

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps, weight_lr_power, r; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        above_zero("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        self.weights().check()
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("z").starting_as_param(), Slot::element("v").nonnegative()]
    }

    fn moves(&self) -> &'static [Move] {
        &[Move::Evaluation, Move::Training]
    }

    fn hyper(&self, t: u64, carried: &mut Carried) -> Hyper<f64> {
        let (lr, c) = self.weights().step(t, carried);
        Hyper {
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            correction2: 1.0 / correction(self.beta2, t).sqrt(),
            eps: self.eps,
            inside: self.weight_decay.amount(),
            c,
            step_y: lr * (1.0 - self.beta1 * (1.0 - c)),
            step_z: lr,
            evaluation: 1.0 - 1.0 / self.beta1,
            training: 1.0 - self.beta1,
        }
    }

    fn carried(&self, t: u64) -> Carried {
        self.weights().carried(t)
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), p: F, g: F, s: &mut State<F>) -> F {
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        let x = g / (s.v.sqrt() * h.correction2 + h.eps) + h.inside * p;
        let u = h.c * (p - s.z) + h.step_y * x;
        s.z -= h.step_z * x;
        u
    }

    fn moved<F: Real>(to: Move, h: &Hyper<F>, p: F, s: &State<F>) -> F {
        let part = if to == Move::Evaluation { h.evaluation } else { h.training };
        p + part * (s.z - p)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.05,
            beta1: 0.7,
            beta2: 0.95,
            eps: 0.1,
            weight_decay: WeightDecay::Inside(0.3),
            ..Self::default()
        };
        vec![
            ("default", Self::default()),
            ("warm_up", Self { warmup_steps: 4, weight_lr_power: 1.5, r: 0.5, ..loud.clone() }),
            ("warming_up", Self { warmup_steps: 2000, r: 2.0, ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta1": 0}"#, error: "beta1 is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"weight_lr_power": -1}"#,
                error: "weight_lr_power is -1, must be at least 0 and at most 16",
            },
            Reject { json: r#"{"r": 17}"#, error: "r is 17, must be at least 0 and at most 16" },
            Reject {
                json: r#"{"weight_decay": {"decoupled": 0.1}}"#,
                error: "weight_decay is {\"decoupled\": 0.1}, must be one of none, inside for schedule_free",
            },
        ]
    }
}
