//! Rprop. Twin: `shaders/rules/rprop.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one, refuse};
use crate::parts::{Real, sign, within};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers};

/// Rprop: a step size for each element, which grows while its gradient keeps its sign. For gradients of a whole data
/// set, not of batches.
///
/// `f` is `eta_plus`, `eta_minus` or 1 where `g*prev` is above, below or equal to 0; `step = clamp(step*f, step_min,
/// step_max)`; `g = 0` where `f = eta_minus`; `p -= sign(g)*step; prev = g`. Slots `prev` and `step` per element, of
/// which `step` starts at `lr`. The size of the gradient does not count, and there is no weight decay.
///
/// Sources: Riedmiller and Braun 1993; without a step where the sign turns: Igel and Hüsken 2000 (iRprop-). Defaults
/// are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Rprop {
    /// The first size of every step, at least 0 and clamped as the later ones. Default 1e-2. As the start of a slot it
    /// cannot change after creation.
    pub lr: f64,
    /// What a step is multiplied by where the sign turns, above 0 and below 1. Default 0.5.
    pub eta_minus: f64,
    /// What a step is multiplied by where the sign stays, above 1. Default 1.2.
    pub eta_plus: f64,
    /// The smallest step, at least 0. Default 1e-6.
    pub step_min: f64,
    /// The largest step, at least `step_min`. Default 50.
    pub step_max: f64,
    /// `None`, the only kind that the rule takes.
    pub weight_decay: WeightDecay,
}

fields!(Rprop: lr, eta_minus, eta_plus, step_min, step_max, weight_decay);

impl Default for Rprop {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            eta_minus: 0.5,
            eta_plus: 1.2,
            step_min: 1e-6,
            step_max: 50.0,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { eta_minus, eta_plus, step_min, step_max }
}
numbers! {
    /// The gradient before, and the size of the step.
    State { prev, step }
}

impl Rule for Rprop {
    const NAME: &'static str = "rprop";
    const SUMMARY: &'static str = "a step for each element that grows while the sign stays (Riedmiller and Braun 1993)";
    const SHADER: &'static str = include_str!("../../shaders/rules/rprop.wgsl");
    const DECAYS: &'static [&'static str] = &["none"];
    const TAKES_SIGNS: bool = true;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    fn check(&self) -> Result<()> {
        above_zero("eta_minus", self.eta_minus)?;
        below_one("eta_minus", self.eta_minus)?;
        above_zero("eta_plus", self.eta_plus)?;
        if self.eta_plus as f32 <= 1.0 {
            return refuse("eta_plus", self.eta_plus, "above 1 in f32");
        }
        at_least_zero("step_min", self.step_min)?;
        at_least_zero("step_max", self.step_max)?;
        if self.step_max < self.step_min {
            return refuse("step_max", self.step_max, format!("at least step_min, which is {}", self.step_min));
        }
        Ok(())
    }

    const OPTIONS: &'static [&'static str] = &["eta_minus", "eta_plus", "step_min", "step_max", "weight_decay"];

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> WeightDecay {
        self.weight_decay
    }
    fn option(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "lr" => Some(&mut self.lr), // to be read; OPTIONS lacks it, since it is the start of a slot
            "eta_minus" => Some(&mut self.eta_minus),
            "eta_plus" => Some(&mut self.eta_plus),
            "step_min" => Some(&mut self.step_min),
            "step_max" => Some(&mut self.step_max),
            _ => None,
        }
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("prev"), Slot::element("step").nonnegative().starting_at(self.lr)]
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper { eta_minus: self.eta_minus, eta_plus: self.eta_plus, step_min: self.step_min, step_max: self.step_max }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        let turn = sign(g) * sign(s.prev);
        let (factor, kept) = if turn > F::zero() {
            (h.eta_plus, g)
        } else if turn < F::zero() {
            (h.eta_minus, F::zero())
        } else {
            (F::one(), g)
        };
        s.prev = kept;
        s.step = within(s.step * factor, h.step_min, h.step_max);
        sign(kept) * s.step
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self { lr: 0.1, eta_minus: 0.3, eta_plus: 1.7, step_min: 0.05, step_max: 2.0, ..Self::default() };
        vec![("default", Self::default()), ("loud", loud)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"lr": -0.1}"#, error: "lr is -0.1, must be at least 0 and finite" },
            Reject { json: r#"{"eta_minus": 0}"#, error: "eta_minus is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"eta_minus": 1}"#, error: "eta_minus is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"eta_plus": 1}"#, error: "eta_plus is 1, must be above 1 in f32" },
            Reject { json: r#"{"step_min": -1}"#, error: "step_min is -1, must be at least 0 and finite" },
            Reject {
                json: r#"{"step_min": 0.5, "step_max": 0.25}"#,
                error: "step_max is 0.25, must be at least step_min, which is 0.5",
            },
            Reject {
                json: r#"{"weight_decay": {"l2": 0.1}}"#,
                error: "weight_decay is {\"l2\": 0.1}, must be one of none for rprop",
            },
        ]
    }
}
