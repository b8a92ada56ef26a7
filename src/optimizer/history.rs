//! What encodings changed on the host: the counts of steps with all that may be taken back.

use std::collections::VecDeque;

use super::{EncodedStep, Optimizer};
use crate::clock::{Clock, Clocks, Order};
use crate::course::{Choices, Course};
use crate::error::{Error, Result};
use crate::gpu::{News, Receipt};
use crate::groups::Groups;
use crate::report::Fault;
use crate::session::Counts;

/// Encodings that never ran and are remembered, so that they may be taken back once more.
const LOST: usize = 1024;

/// The counts of steps, and what they were before the encodings of which nothing is known yet.
#[derive(Debug)]
pub(super) struct History {
    pub(super) course: Course,
    /// Steps encoded so far, without those that the caller took back.
    pub(super) attempts: u64,
    /// The oldest encoding first.
    pub(super) encodings: VecDeque<Encoded>,
    /// What was reported of steps since the oldest encoding, for courses from before these reports.
    outcomes: VecDeque<bool>,
    /// Encodings that never ran and were taken back by themselves, by their sequence.
    lost: VecDeque<u64>,
    /// Why the parameters or the state can no longer be what they should be.
    pub(super) broken: Option<String>,
    /// Whether the device decides which steps are applied.
    skips: bool,
}

impl History {
    /// A history without encodings.
    pub(super) fn new(clocks: &Clocks, groups: &Groups) -> Self {
        Self::resumed(clocks, groups, 0)
    }

    /// A history that goes on after so many steps, the skipped ones included.
    pub(super) fn resumed(clocks: &Clocks, groups: &Groups, attempts: u64) -> Self {
        Self {
            course: Course::new(clocks, groups),
            attempts,
            encodings: VecDeque::new(),
            outcomes: VecDeque::new(),
            lost: VecDeque::new(),
            broken: None,
            skips: groups.wrappers().skips(),
        }
    }

    /// Changes the course now, and also where encodings are taken back.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Course)) {
        change(&mut self.course);
        self.encodings.iter_mut().for_each(|encoded| change(&mut encoded.before.course));
    }

    /// Changes the course. Where the device decides on steps, an encoding from before the change can still be taken
    /// back, and leads to clocks that are changed likewise. Elsewhere it can no longer be taken back.
    fn change(&mut self, mut change: impl FnMut(&mut Course)) {
        if self.skips {
            return self.change_all(change);
        }
        change(&mut self.course);
        self.encodings.iter_mut().for_each(|encoded| encoded.fixed = true);
    }

    /// Learns what became of the oldest step that has not reported.
    pub(super) fn report(&mut self, applied: bool) {
        self.course.report(applied);
        self.outcomes.push_back(applied);
        let oldest = self.encodings.front().map_or(self.course.reported(), |front| front.before.course.reported());
        let known = self.course.reported() - oldest;
        while self.outcomes.len() as u64 > known {
            self.outcomes.pop_front();
        }
    }

    /// Remembers an encoding that was taken back by itself.
    pub(super) fn remember(&mut self, sequence: u64) {
        if self.lost.len() == LOST {
            self.lost.pop_front();
        }
        self.lost.push_back(sequence);
    }

    /// A course from before some encoding, with what was learnt since.
    fn learnt(&self, mut earlier: Course) -> Course {
        let missed = (self.course.reported() - earlier.reported()) as usize;
        self.outcomes.iter().skip(self.outcomes.len() - missed).for_each(|&applied| earlier.report(applied));
        earlier
    }

    /// The encodings that are not known to have run, and were neither submitted nor taken back.
    pub(super) fn unsettled(&self) -> usize {
        self.encodings.iter().filter(|encoded| !encoded.taken_back).count()
    }

    /// Counts anew the steps that were encoded behind one that never ran, where nothing is skipped.
    pub(super) fn recount(&mut self, groups: &Groups, from: usize) -> Result<()> {
        if self.skips || self.encodings[from].fixed {
            return Ok(());
        }
        let mut course = self.encodings[from].before.course.clone();
        for encoded in self.encodings.iter_mut().skip(from + 1) {
            encoded.before.course = course.clone();
            if let (Some(step), false) = (&encoded.step, encoded.taken_back) {
                course.step(groups, step.present.as_deref(), step.batches, true)?;
            }
        }
        self.course = course;
        Ok(())
    }
}

impl Counts for History {
    type Numbers = Choices;

    fn hoped(&self) -> &Clocks {
        self.course.hoped()
    }

    fn set_clock(&mut self, tensor: usize, mut set: impl FnMut(&mut Clock)) {
        self.change(|course| course.set_clock(tensor, &mut set));
    }

    fn set_steps(&mut self, steps: u64) {
        self.change(|course| course.set_steps(steps));
    }

    fn add(&mut self, groups: &Groups) {
        self.course.add(groups);
    }

    fn forget_batches(&mut self) {
        for encoded in self.encodings.iter_mut().rev().take_while(|encoded| encoded.step.is_none()) {
            encoded.before.batch = 0;
            encoded.before.begun.fill(false);
        }
    }
}

/// Where an optimizer stands between two encodings.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) course: Course,
    pub(super) order: Order<Choices>,
    pub(super) batch: u64,
    pub(super) begun: Vec<bool>,
}

/// An encoding, until it is known what became of it.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) sequence: u64,
    /// Where the optimizer stood before it.
    pub(super) before: Standing,
    pub(super) receipt: Receipt,
    /// What a step is.
    pub(super) step: Option<OfStep>,
    /// What is lost with it beside the counts of steps.
    pub(super) leaves: Leaves,
    /// Whether the caller has set counts since, so that it can no longer be taken back.
    pub(super) fixed: bool,
    /// Whether it never ran and was taken back by itself. It stays until its turn to report.
    pub(super) taken_back: bool,
}

/// A step that was encoded.
#[derive(Clone, Debug)]
pub(super) struct OfStep {
    /// Its number over the optimizer's life.
    pub(super) number: u64,
    /// The tensors with a gradient; `None` for all.
    pub(super) present: Option<Vec<bool>>,
    pub(super) batches: u64,
}

/// What later encodings find changed where an encoding has run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaves {
    /// The update of a step, or nothing: later steps may do without it.
    Update,
    /// Sums of micro-batches, which the rest of their step adds to.
    Sums,
    /// Parameters elsewhere, where the next encoding expects them.
    Moved,
}

impl Encoded {
    /// Whether and why it never ran.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self.receipt.look() {
            News::Dropped => Some(Fault::Dropped),
            News::Refused => Some(Fault::Refused),
            News::Unread => Some(Fault::DeviceLost),
            News::None | News::Ran(_) => None,
        }
    }
}

impl Optimizer {
    /// Takes back the latest encoding that was not taken back yet. Its encoder, or the command buffer made of it, must
    /// have been dropped without being submitted, or its submit refused. One that the optimizer has found out about by
    /// itself is taken back already, and this changes nothing more.
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
        let history = &mut self.session.counts;
        let Some(at) = history.encodings.iter().position(|encoded| encoded.sequence == step.sequence) else {
            return match history.lost.iter().position(|&lost| lost == step.sequence) {
                Some(at) => {
                    history.lost.remove(at);
                    Ok(())
                }
                None => refuse("its work has run, it was taken back already, or a count of steps was set after it"),
            };
        };
        if history.encodings[at].taken_back {
            return Ok(());
        }
        if history.encodings[at].fixed {
            return refuse("its work has run, it was taken back already, or a count of steps was set after it");
        }
        if history.encodings.iter().skip(at + 1).any(|later| !later.taken_back) {
            return refuse("is not the latest encoding; take those after it back first");
        }
        if cfg!(not(target_arch = "wasm32")) && history.encodings[at].receipt.look() == News::None {
            // What wgpu knows of a refused submit it tells when it is asked.
            self.engine.gpu().poll_once()?;
        }
        match self.session.counts.encodings[at].receipt.look() {
            News::Ran(_) => refuse("its work has run"),
            News::None => refuse("its encoder is there still, or was submitted; drop it first"),
            News::Dropped | News::Refused | News::Unread => {
                self.take_back(at);
                self.session.counts.encodings.remove(at);
                Ok(())
            }
        }
    }

    /// Lets the optimizer stand where it stood before an encoding, with what was learnt since.
    pub(super) fn take_back(&mut self, at: usize) {
        let history = &mut self.session.counts;
        let encoded = &mut history.encodings[at];
        if encoded.step.is_some() {
            history.attempts -= 1;
        }
        let Standing { course, order, batch, begun } = &encoded.before;
        let course = course.clone();
        (self.session.order, self.session.batch, self.session.begun) = (order.clone(), *batch, begun.clone());
        if !encoded.fixed {
            history.course = history.learnt(course);
        }
    }
}
