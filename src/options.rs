//! Choices that several rules share.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::parts::sum_of_powers;
use crate::rule::Carried;

/// Where eps stands beside a root. JSON: `"outside"`, `"inside"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsPlacement {
    /// `sqrt(v) + eps`.
    #[default]
    Outside,
    /// `sqrt(v + eps)`.
    Inside,
}

/// Where eps stands beside a corrected root. JSON: `"outside"`, `"uncorrected"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootEps {
    /// `x/(sqrt(v/(1-beta2^t)) + eps)`.
    #[default]
    Outside,
    /// `x*sqrt(1-beta2^t)/(sqrt(v) + eps)`.
    Uncorrected,
}

impl RootEps {
    /// What the numerator and the root are multiplied by, where `v` is corrected by division through `bc2`.
    pub(crate) fn corrections(self, bc2: f64) -> (f64, f64) {
        match self {
            Self::Outside => (1.0, 1.0 / bc2.sqrt()),
            Self::Uncorrected => (bc2.sqrt(), 1.0),
        }
    }
}

/// What a momentum buffer holds. JSON: `"accumulate"`, `"velocity"`, `"average"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentumForm {
    /// A decaying sum of gradients; the learning rate comes after it (PyTorch).
    #[default]
    Accumulate,
    /// A decaying sum of steps; the learning rate is in it (Keras, TensorFlow).
    Velocity,
    /// A weighted mean of gradients.
    Average,
}

/// Nesterov's momentum. JSON: `"off"`, `"simplified"`, `"look_ahead"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nesterov {
    /// Classic momentum.
    #[default]
    Off,
    /// The caller computes the gradient where the parameter stands, and the rule adds the buffer's next move to the
    /// update (Bengio et al. 2012).
    Simplified,
    /// A step has two phases: the caller asks for a look-ahead before it computes the gradient (Nesterov 1983).
    LookAhead,
}

impl Nesterov {
    /// The number by which the shader knows the choice.
    pub(crate) fn number(self) -> f64 {
        f64::from(self as u8)
    }

    /// Refuses combinations in which an option would have no effect.
    pub(crate) fn check(self, momentum: f64, form: MomentumForm) -> Result<()> {
        if momentum == 0.0 && self != Self::Off {
            return refuse("momentum", 0, "above 0 with nesterov set");
        }
        if momentum == 0.0 && form != MomentumForm::default() {
            return refuse("momentum", 0, "above 0 with form set");
        }
        if self == Self::LookAhead && form != MomentumForm::Velocity {
            return refuse("nesterov", "look_ahead", "off or simplified unless form is velocity");
        }
        Ok(())
    }
}

/// What schedule-free rules share: how a step's rate grows in warm-up, and how much of the mean each step makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreeWeights {
    pub(crate) lr: f64,
    pub(crate) warmup_steps: u64,
    pub(crate) weight_lr_power: f64,
    pub(crate) r: f64,
}

impl FreeWeights {
    /// Refuses powers beyond which weights leave the range of f64.
    pub(crate) fn check(&self) -> Result<()> {
        for (field, power) in [("weight_lr_power", self.weight_lr_power), ("r", self.r)] {
            if !(0.0..=16.0).contains(&power) {
                return refuse(field, power, "at least 0 and at most 16");
            }
        }
        Ok(())
    }

    /// The rate of step `t`.
    fn warm_lr(&self, t: u64) -> f64 {
        if t < self.warmup_steps { self.lr * (t as f64 / self.warmup_steps as f64) } else { self.lr }
    }

    /// The rate of step `t` and the share of the step in the mean; takes the largest rate and the sum of weights along.
    pub(crate) fn step(&self, t: u64, carried: &mut Carried) -> (f64, f64) {
        let [max_lr, weights] = if t == 1 { [0.0; 2] } else { *carried };
        let lr = self.warm_lr(t);
        let max_lr = lr.max(max_lr);
        let weight = (t as f64).powf(self.r) * max_lr.powf(self.weight_lr_power);
        let weights = weights + weight;
        *carried = [max_lr, weights];
        (lr, if weights == 0.0 { 0.0 } else { weight / weights })
    }

    /// The largest rate and the sum of weights after `t` steps.
    pub(crate) fn carried(&self, t: u64) -> Carried {
        if t == 0 {
            return Carried::default();
        }
        // Both the weights of warm-up and those after it are powers of the step.
        let warm = t.min(self.warmup_steps);
        let slope = self.lr / self.warmup_steps.max(1) as f64;
        let growing = slope.powf(self.weight_lr_power) * sum_of_powers(0, warm, self.r + self.weight_lr_power);
        let full = self.lr.powf(self.weight_lr_power) * sum_of_powers(warm, t, self.r);
        [self.warm_lr(t), growing + full]
    }
}
