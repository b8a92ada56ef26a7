//! Choices that several rules share.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, refuse};
use crate::parts::{Real, at_least, sum_of_powers};
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
/// Coefficients `[k1, k2, k3]` of Newton and Schulz's iteration `X <- k1*X + (k2*A + k3*A*A)*X` with `A = X*X^T`. JSON:
/// one triple, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NsCoefficients {
    /// The same in every step.
    Same([f64; 3]),
    /// A triple a step; the last one holds for those behind it.
    Each(Vec<[f64; 3]>),
}

impl NsCoefficients {
    /// Those of Keller Jordan's Muon, for any number of steps.
    pub const MUON: Self = Self::Same([3.4445, -4.775, 2.0315]);

    /// Polar Express (Amsel et al. 2025, arXiv 2505.16932, Algorithm 1), for an `ns_safety` of 1.01: the least singular
    /// value that counts is 1e-3, and all but the last triple are for values that are too large by a hundredth.
    pub fn polar_express() -> Self {
        let of_paper = [
            [8.28721201814563, -23.595886519098837, 17.300387312530933],
            [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
            [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
            [3.3184196573706015, -2.488488024314874, 0.51004894012372],
            [2.300652019954817, -1.6689039845749493, 0.4188073119525673],
            [1.891301407787398, -1.2679958271945868, 0.37680408948524835],
            [1.8750014808534479, -1.2500016453999487, 0.3750001645474248],
            [1.875, -1.25, 0.375],
        ];
        let last = of_paper.len() - 1;
        let safe = |(i, [k1, k2, k3]): (usize, [f64; 3])| {
            let by: f64 = if i == last { 1.0 } else { 1.01 };
            [k1 / by, k2 / by.powi(3), k3 / by.powi(5)]
        };
        Self::Each(of_paper.into_iter().enumerate().map(safe).collect())
    }

    /// The triples of so many steps.
    pub(crate) fn steps(&self, count: u64) -> Vec<[f64; 3]> {
        let of_step = |i: u64| match self {
            Self::Same(triple) => *triple,
            Self::Each(triples) => triples[(i as usize).min(triples.len() - 1)],
        };
        (0..count).map(of_step).collect()
    }

    /// Refuses a number of steps outside 1 to 99, no triples, and those with which a singular value grows. The values
    /// start between 0 and `1/safety`.
    pub(crate) fn check(&self, steps: u64, safety: f64) -> Result<()> {
        above_zero("ns_safety", safety)?;
        if !(1..=99).contains(&steps) {
            return refuse("ns_steps", steps, "at least 1 and at most 99");
        }
        let text = || serde_json::to_string(self).unwrap_or_default();
        if matches!(self, Self::Each(triples) if triples.is_empty()) {
            return refuse("ns_coefficients", text(), "a triple or a list of at least one");
        }
        let mut values: Vec<f64> = (0..=1000).map(|i| f64::from(i) / 1000.0 / safety).collect();
        for (step, [k1, k2, k3]) in self.steps(steps).into_iter().enumerate() {
            for value in &mut values {
                let square = *value * *value;
                *value *= k1 + square * (k2 + square * k3);
            }
            if !values.iter().all(|value| value.abs() <= SINGULAR_MOST) {
                let bound = format!(
                    "such that no singular value exceeds {SINGULAR_MOST} with ns_safety {safety}; one does in step {}",
                    step + 1
                );
                return refuse("ns_coefficients", text(), bound);
            }
        }
        Ok(())
    }
}

/// The largest singular value that an iteration may come to: those of the presets stay below 2.
const SINGULAR_MOST: f64 = 4.0;

/// What a matrix rule's learning rate is multiplied by for a matrix of `r` rows and `c` columns. JSON: `"original"`,
/// `"match_rms_adamw"`, `"spectral_unclamped"`, `"none"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// `sqrt(max(1, r/c))` (Keller Jordan's Muon).
    #[default]
    Original,
    /// `0.2*sqrt(max(r, c))`: updates as large as AdamW's (Liu et al. 2025, arXiv 2502.16982).
    MatchRmsAdamw,
    /// `sqrt(r/c)`.
    SpectralUnclamped,
    /// 1.
    None,
}

impl AdjustLr {
    /// The factor.
    pub(crate) fn factor<F: Real>(self, rows: F, columns: F) -> F {
        match self {
            Self::Original => at_least(rows / columns, F::one()).sqrt(),
            Self::MatchRmsAdamw => F::of(0.2) * at_least(rows, columns).sqrt(),
            Self::SpectralUnclamped => (rows / columns).sqrt(),
            Self::None => F::one(),
        }
    }
}
