//! What a caller learns of steps that the device decides on: the report of a step, and the state of the loss scale.

use crate::control::NonFinite;
use crate::wrappers::LossScale;

/// The loss scale, and for how many good steps it has stood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaleState {
    /// What the caller multiplies the coming loss by.
    pub scale: f64,
    /// How many good steps there have been since the scale changed last.
    pub good: u32,
}

impl LossScaleState {
    /// The state before the first step; the scale is 1 without a loss scale.
    pub fn new(options: Option<&LossScale>) -> Self {
        Self { scale: options.map_or(1.0, |options| options.init), good: 0 }
    }

    /// The state after a step.
    pub fn after(self, options: &LossScale, skipped: bool) -> Self {
        let good = self.good + 1;
        if skipped {
            Self { scale: (self.scale * options.backoff).max(1.0 / LossScale::MAX), good: 0 }
        } else if u64::from(good) >= options.interval {
            Self { scale: (self.scale * options.growth).min(LossScale::MAX), good: 0 }
        } else {
            Self { good, ..self }
        }
    }
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// The step's number, counted from 1 over the optimizer's life, skipped steps included.
    pub step: u64,
    /// Whether it was applied. Else it was skipped, and nothing but the loss scale has changed, or `fault` says why
    /// nothing has.
    pub applied: bool,
    /// The tensors that had no gradient, frozen ones among them.
    pub without_gradient: Vec<String>,
    /// The norm of all gradients that took part, before a clip; none where it is not measured.
    pub norm: Option<f64>,
    /// The loss scale that the gradients had; 1 without a loss scale.
    pub scale: f64,
    /// The first tensor in order whose gradient holds a number that no step can use, and the worst such number in it.
    /// With micro-batches it is found in their sum, where a number of 2^63 or more reads as infinity.
    pub culprit: Option<(String, NonFinite)>,
    /// Why a step that is not applied never ran; none where it did.
    pub fault: Option<Fault>,
}

/// Why a step never ran. It counts as none: counts of steps, schedules and the loss scale are as if it had not been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Its encoder or command buffer was dropped and not submitted.
    #[error("its encoder was dropped")]
    Dropped,
    /// wgpu refused its submit, since something else in the submit is invalid.
    #[error("its submit was refused")]
    Refused,
    /// It was submitted behind a step or move that had been encoded later. Where no step may be skipped nothing tells
    /// this, and it runs.
    #[error("it was submitted behind a later one")]
    OutOfTurn,
    /// The device is gone.
    #[error("the device is lost")]
    DeviceLost,
}
