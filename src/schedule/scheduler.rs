//! A schedule at work: a training without an optimizer of this crate asks it for factors, and tells it metrics.

use super::{PlateauState, Schedule, at_most_one};
use crate::error::{Result, refuse};

/// A checked [`Schedule`] at work, with the state of its plateaus.
///
/// All other kinds are closed forms of `t`, so `t` and [`state`](Self::state) are all that resuming a training needs.
///
/// ```
/// use wgpu_optim::{Plateau, Schedule, Scheduler};
///
/// let plateau = Plateau { factor: 0.5, patience: 1, ..Plateau::default() };
/// let mut scheduler = Scheduler::new(Schedule::Plateau(plateau), "schedule")?;
/// let mut factors = Vec::new();
/// for loss in [1.0, 1.0, 1.0, 1.0] {
///     factors.push(scheduler.factor(1)?);
///     scheduler.feed(loss)?;
/// }
/// assert_eq!(factors, [1.0, 1.0, 1.0, 0.5]);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    schedule: Schedule,
    field: String,
    states: Vec<PlateauState>,
}

impl Scheduler {
    /// Checks the schedule; `field` is its name in the configuration, for errors.
    ///
    /// # Errors
    /// As [`Schedule::check`].
    pub fn new(schedule: Schedule, field: &str) -> Result<Self> {
        schedule.check(field)?;
        let states = vec![PlateauState::START; schedule.plateaus().len()];
        Ok(Self { schedule, field: field.into(), states })
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The factor at applied step `t`, counted from 1.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for `t = 0`, and where a closure gives what is negative or not finite.
    pub fn factor(&self, t: u64) -> Result<f64> {
        if t == 0 {
            return refuse("t", t, "at least 1");
        }
        let factor = self.schedule.factor(t, &self.states);
        if factor >= 0.0 && (factor as f32).is_finite() {
            return Ok(factor);
        }
        refuse(format!("{} at t = {t}", self.field), factor, "at least 0 and finite")
    }

    /// Whether the schedule has a plateau at any depth. A plateau needs metrics: see [`feed`](Self::feed).
    pub fn has_plateau(&self) -> bool {
        !self.states.is_empty()
    }

    /// Shows a metric to every plateau, also to one whose turn has not come. Steps that were taken before keep the
    /// factor that they had.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for a metric that is NaN or infinitely good, and where there is no plateau.
    pub fn feed(&mut self, metric: f64) -> Result<()> {
        let plateaus = self.schedule.plateaus();
        if plateaus.is_empty() {
            return refuse(&self.field, "without a plateau", "one with a plateau to take a metric");
        }
        plateaus.iter().try_for_each(|plateau| plateau.mode.check(metric))?;
        for (plateau, state) in plateaus.into_iter().zip(&mut self.states) {
            state.feed(plateau, metric);
        }
        Ok(())
    }

    /// Where each plateau stands, outer and earlier ones first.
    pub fn state(&self) -> &[PlateauState] {
        &self.states
    }

    /// Goes on from where the plateaus stood.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for another number of plateaus, a factor above 1, a metric that is NaN.
    pub fn set_state(&mut self, state: &[PlateauState]) -> Result<()> {
        let plateaus = self.schedule.plateaus();
        if state.len() != plateaus.len() {
            let bound = format!("of {}", plateaus.len());
            return refuse(format!("{}'s state", self.field), format!("of {} plateaus", state.len()), bound);
        }
        for (plateau, state) in plateaus.into_iter().zip(state) {
            at_most_one(&format!("{}'s state: factor", self.field), state.factor)?;
            state.best.map_or(Ok(()), |best| plateau.mode.check(best))?;
        }
        self.states = state.to_vec();
        Ok(())
    }
}
