//! Early stopping ends a training when a metric has not improved for a number of evaluations.

use serde::{Deserialize, Serialize};

use crate::error::{Result, at_least_zero, refuse};
use crate::schedule::Mode;

/// When to stop: after `patience` metrics in a row that are not better than the best one by more than `min_delta`.
///
/// Better means `metric < best - min_delta`, or `metric > best + min_delta` for max. JSON:
/// `{"patience": 10, "min_delta": 0, "mode": "min"}`.
///
/// Source: Goodfellow, Bengio and Courville 2016, algorithm 7.1; `min_delta` and the count as in Keras.
///
/// ```
/// use wgpu_optim::{EarlyStopping, Verdict};
///
/// let mut monitor = EarlyStopping { patience: 2, ..EarlyStopping::default() }.monitor()?;
/// assert_eq!(monitor.feed(0.9)?, Verdict::Improved);
/// assert_eq!(monitor.feed(1.1)?, Verdict::Worse(1));
/// assert_eq!(monitor.feed(1.0)?, Verdict::Stop);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyStopping {
    /// How many metrics in a row that are not better stop the training, at least 1. Default 10.
    pub patience: u64,
    /// By how much a metric must be better than the best one, at least 0. Default 0.
    pub min_delta: f64,
    /// Which metric is better. Default min.
    pub mode: Mode,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { patience: 10, min_delta: 0.0, mode: Mode::Min }
    }
}

/// What a metric says about the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The metric is the best so far.
    Improved,
    /// This many metrics in a row, fewer than the patience, did not improve.
    Worse(u64),
    /// As many metrics in a row as the patience, or more, did not improve: the training should stop.
    Stop,
}

impl EarlyStopping {
    /// Refuses options with which a training would stop at once or never.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for a number outside its bound.
    pub fn check(&self) -> Result<()> {
        if self.patience == 0 {
            return refuse("patience", 0, "at least 1");
        }
        at_least_zero("min_delta", self.min_delta)
    }

    /// Makes a monitor that has seen no metric yet.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn monitor(self) -> Result<Monitor> {
        self.check()?;
        Ok(Monitor { stopping: self, best: None, worse: 0 })
    }
}

/// Early stopping at work: the best metric, and how many have been worse since. [`EarlyStopping::monitor`] makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    stopping: EarlyStopping,
    best: Option<f64>,
    worse: u64,
}

impl Monitor {
    /// Judges a metric.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for a metric that is NaN or infinitely good, which then does not count.
    pub fn feed(&mut self, metric: f64) -> Result<Verdict> {
        let EarlyStopping { patience, min_delta, mode } = self.stopping;
        mode.check(metric)?;
        let best = self.best.unwrap_or(mode.worst());
        let to_beat = match mode {
            Mode::Min => best - min_delta,
            Mode::Max => best + min_delta,
        };
        if mode.better(metric, to_beat) {
            (self.best, self.worse) = (Some(metric), 0);
            return Ok(Verdict::Improved);
        }
        self.worse = self.worse.saturating_add(1);
        Ok(if self.worse < patience { Verdict::Worse(self.worse) } else { Verdict::Stop })
    }

    /// The options.
    pub fn stopping(&self) -> &EarlyStopping {
        &self.stopping
    }

    /// The best metric; none before one improved.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// How many metrics since the best one were not better.
    pub fn worse(&self) -> u64 {
        self.worse
    }

    /// Goes on from [`best`](Self::best) and [`worse`](Self::worse) of an earlier run.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for a metric as in [`feed`](Self::feed).
    pub fn resume(&mut self, best: Option<f64>, worse: u64) -> Result<()> {
        best.map_or(Ok(()), |best| self.stopping.mode.check(best))?;
        (self.best, self.worse) = (best, worse);
        Ok(())
    }
}
