//! Plateaus: which metric is better, and a factor that goes down when a metric no longer gets better.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};

/// Which metric is better. JSON: `"min"`, `"max"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The smaller metric is better, as with a loss.
    #[default]
    Min,
    /// The larger metric is better, as with an accuracy.
    Max,
}

/// What a plateau's threshold is. JSON: `"rel"`, `"abs"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    /// A share of the best metric's magnitude.
    #[default]
    Rel,
    /// A difference.
    Abs,
}

/// A factor that starts at 1 and goes down when a metric no longer gets better: PyTorch's `ReduceLROnPlateau`.
///
/// Better means `metric < best - threshold*|best|`, or `metric > best + threshold*|best|` for max; with
/// `threshold_mode` abs `metric < best - threshold`, or `metric > best + threshold`. For metrics that are not negative
/// these are PyTorch's bounds; below 0 PyTorch's `rel` counts a metric as better that is a little worse. After more
/// than `patience` worse metrics in a row the factor is multiplied by `factor`, but stays at least `min`. The next
/// `cooldown` metrics do not count as worse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plateau {
    /// What the factor is multiplied by: at least 0 and below 1. Default 0.1.
    pub factor: f64,
    /// How many worse metrics in a row leave the factor as it is; may be 0. Default 10.
    pub patience: u64,
    /// By how much a new metric must be better than the best one, at least 0; below 1 with mode min and
    /// `threshold_mode` rel. Default 1e-4.
    pub threshold: f64,
    /// Whether `threshold` is a share of the best metric. Default rel.
    pub threshold_mode: ThresholdMode,
    /// How many metrics after a change do not count as worse; may be 0. Default 0.
    pub cooldown: u64,
    /// The least factor, at most 1. Default 0.
    pub min: f64,
    /// Which metric is better. Default min.
    pub mode: Mode,
}

impl Default for Plateau {
    fn default() -> Self {
        Self {
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min: 0.0,
            mode: Mode::Min,
        }
    }
}

impl Plateau {
    /// What a metric must be better than to be the new best one.
    fn bound(&self, best: f64) -> f64 {
        let threshold = match self.mode {
            Mode::Min => -self.threshold,
            Mode::Max => self.threshold,
        };
        match self.threshold_mode {
            ThresholdMode::Abs => best + threshold,
            // In this form metrics of at least 0 are rounded as in PyTorch.
            ThresholdMode::Rel => best * (1.0 + threshold * best.signum()),
        }
    }
}

impl Mode {
    /// Whether `a` is better than `b`.
    pub(crate) fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Min => a < b,
            Self::Max => a > b,
        }
    }

    /// The metric that every number is better than.
    pub(crate) fn worst(self) -> f64 {
        match self {
            Self::Min => f64::INFINITY,
            Self::Max => f64::NEG_INFINITY,
        }
    }

    /// Refuses NaN, and a metric that no other could ever be better than.
    pub(crate) fn check(self, metric: f64) -> Result<()> {
        if metric.is_nan() {
            return refuse("metric", metric, "a number");
        }
        match self {
            Self::Min if metric == f64::NEG_INFINITY => refuse("metric", metric, "above -inf with mode min"),
            Self::Max if metric == f64::INFINITY => refuse("metric", metric, "below inf with mode max"),
            _ => Ok(()),
        }
    }
}

/// Where a [`Plateau`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// The factor now.
    pub factor: f64,
    /// The best metric; none before the first.
    pub best: Option<f64>,
    /// Worse metrics in a row.
    pub worse: u64,
    /// How many of the coming metrics do not count as worse.
    pub cooldown: u64,
}

impl PlateauState {
    pub(super) const START: Self = Self { factor: 1.0, best: None, worse: 0, cooldown: 0 };

    pub(super) fn feed(&mut self, plateau: &Plateau, metric: f64) {
        let bound = self.best.map_or(plateau.mode.worst(), |best| plateau.bound(best));
        if plateau.mode.better(metric, bound) {
            self.best = Some(metric);
            self.worse = 0;
        } else {
            self.worse = self.worse.saturating_add(1);
        }
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.worse = 0;
        }
        if self.worse > plateau.patience {
            self.factor = (self.factor * plateau.factor).max(plateau.min);
            self.cooldown = plateau.cooldown;
            self.worse = 0;
        }
    }
}
