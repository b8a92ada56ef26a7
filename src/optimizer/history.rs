//! What encodings changed on the host: the counts of steps with all that may be taken back.

use std::collections::VecDeque;

use super::reports::Source;
use super::{EncodedStep, Optimizer};
use crate::clock::{Clocks, Order};
use crate::course::{Choices, Course};
use crate::error::{Error, Result};
use crate::gpu::StepState;
use crate::session::Counts;

/// The counts of steps, and what they were before the encodings whose command buffers are not done.
#[derive(Debug)]
pub(super) struct History {
    pub(super) course: Course,
    /// The oldest encoding first.
    pub(super) undo: VecDeque<Undo>,
    /// Whether the device decides which steps are applied.
    skips: bool,
}

impl History {
    /// Makes a history without encodings.
    pub(super) fn new(clocks: Clocks, skips: bool) -> Self {
        Self::resumed(Course::new(clocks), skips)
    }

    /// Makes a history that goes on with a course.
    pub(super) fn resumed(course: Course, skips: bool) -> Self {
        Self { course, undo: VecDeque::new(), skips }
    }

    /// Changes the clocks now, and also where encodings are taken back.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Clocks)) {
        self.course.change(&mut change);
        self.undo.iter_mut().for_each(|undo| undo.course.change(&mut change));
    }
}

impl Counts for History {
    type Numbers = Choices;

    fn hoped(&self) -> &Clocks {
        self.course.hoped()
    }

    /// Changes the clocks. Where the device decides on steps, an encoding from before the change can still be taken
    /// back, and leads to clocks that are changed likewise. Elsewhere it can no longer be taken back.
    fn change(&mut self, mut change: impl FnMut(&mut Clocks)) {
        if self.skips {
            return self.change_all(change);
        }
        self.course.change(&mut change);
        self.undo.clear();
    }

    fn forget_batches(&mut self) {
        for undo in self.undo.iter_mut().rev().take_while(|undo| !undo.reports) {
            undo.batch = 0;
            undo.begun.fill(false);
        }
    }
}

/// What an encoding changed on the host, until its command buffer is done.
#[derive(Debug)]
pub(super) struct Undo {
    pub(super) sequence: u64,
    pub(super) course: Course,
    pub(super) order: Order<Choices>,
    pub(super) batch: u64,
    pub(super) begun: Vec<bool>,
    pub(super) state: StepState,
    /// Whether it is a step, which reports.
    pub(super) reports: bool,
}

impl Optimizer {
    /// Takes back the latest encoding that was not taken back yet. Its encoder, or the command buffer made of it, must
    /// have been dropped without being submitted.
    ///
    /// # Errors
    /// [`Error::EncodedStep`] for another optimizer's step, for one that is not the latest, for one whose encoder was
    /// submitted or is there still, and, where no step may be skipped, for one from before [`set_t`](Self::set_t),
    /// `set_carried` or `set_steps`.
    pub fn undo(&mut self, step: EncodedStep) -> Result<()> {
        let refuse = |message: &str| Err(Error::EncodedStep { message: message.into() });
        if step.optimizer != self.id {
            return refuse("belongs to another optimizer");
        }
        match self.session.counts.undo.back() {
            Some(last) if last.sequence == step.sequence && last.state.is_done() => refuse("its work has run"),
            Some(last) if last.sequence == step.sequence && !last.state.is_dropped() => {
                refuse("its encoder is there still, or was submitted; drop it first")
            }
            Some(last) if last.sequence == step.sequence => {
                let last = self.session.counts.undo.pop_back().expect("it was just seen");
                if let Some(waiting) = last.reports.then(|| self.waiting.pop_back()).flatten() {
                    if let Source::Device(receipt) = waiting.from {
                        receipt.finish();
                    }
                }
                self.session.counts.course.go_back(last.course);
                (self.session.order, self.session.batch, self.session.begun) = (last.order, last.batch, last.begun);
                Ok(())
            }
            _ if self.session.counts.undo.iter().any(|undo| undo.sequence == step.sequence) => {
                refuse("is not the latest encoding; take those after it back first")
            }
            _ => refuse("its work has run, it was taken back already, or a count of steps was set after it"),
        }
    }
}
