//! A clock counts the applied steps `t` of the tensors that have one history of steps.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::rule::{Carried, Move, Slot, Start};
use crate::tensor::TensorSpec;
use crate::wrappers::{Ema, Moving};

/// One history of applied steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// The group whose options the clock follows.
    pub group: usize,
    /// How many steps were applied.
    pub t: u64,
    /// What the rule carries from step to step.
    pub carried: Carried,
    /// Whether the slots that start as the parameter hold it: a step has filled them, or the caller has set them.
    pub started: bool,
    /// The count of applied steps at which the running mean of the parameters began: by a step, or by being set.
    pub averaged_from: Option<u64>,
}

/// What a clock's future depends on.
pub(crate) type Key = (usize, u64, [u64; 2], bool, Option<u64>);

impl Clock {
    /// A clock of a group before its first step.
    pub(crate) fn new(group: usize) -> Self {
        Self { group, t: 0, carried: Carried::default(), started: false, averaged_from: None }
    }

    /// Two clocks with equal keys count alike from now on, so one of them can serve the tensors of both.
    pub(crate) fn key(&self) -> Key {
        (self.group, self.t, self.carried.map(f64::to_bits), self.started, self.averaged_from)
    }

    /// How many of its steps the running mean of the parameters holds.
    pub fn averaged(&self) -> u64 {
        self.averaged_from.map_or(0, |from| self.t.saturating_sub(from))
    }

    /// Notes that a slot was set.
    pub(crate) fn take_slot(&mut self, slot: &Slot) {
        self.started |= slot.start == Start::Param;
        if slot.name == "ema" {
            self.averaged_from.get_or_insert(0);
        }
    }
}

/// All clocks, and which one each tensor follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Clocks {
    list: Vec<Clock>,
    of: Arc<Vec<usize>>,
    /// The number of the optimizer's applied steps, whichever tensors they had, which schedules follow.
    pub steps: u64,
}

impl Clocks {
    /// Makes one clock at 0 for each group that has tensors.
    pub fn new(group_of: &[usize]) -> Self {
        let mut clocks = Self { list: Vec::new(), of: Arc::default(), steps: 0 };
        clocks.add(group_of);
        clocks
    }

    /// The clocks of tensors that each stand like this.
    pub(crate) fn of_each(each: Vec<Clock>, steps: u64) -> Self {
        let mut clocks = Self { list: Vec::new(), of: Arc::default(), steps };
        clocks.assign(each.into_iter().map(|clock| (clock, true)).collect());
        clocks
    }

    /// Adds tensors of these groups behind the others. Their clocks start at 0; nothing else changes.
    pub fn add(&mut self, group_of: &[usize]) {
        let known = self.of.iter().map(|&clock| self.list[clock]);
        let all = known.chain(group_of.iter().map(|&group| Clock::new(group)));
        self.assign(all.map(|clock| (clock, true)).collect());
    }

    /// The clocks.
    pub fn list(&self) -> &[Clock] {
        &self.list
    }

    /// The clocks, for the caller to advance.
    pub fn list_mut(&mut self) -> &mut [Clock] {
        &mut self.list
    }

    /// How many tensors there are.
    pub(crate) fn tensors(&self) -> usize {
        self.of.len()
    }

    /// The clock of a tensor, as a place in [`list`](Self::list).
    pub fn of(&self, tensor: usize) -> usize {
        self.of[tensor]
    }

    /// A tensor's clock.
    pub fn clock(&self, tensor: usize) -> &Clock {
        &self.list[self.of[tensor]]
    }

    /// Splits clocks until the tensors of each are all present or all absent in the step, and says which are present.
    pub fn part(&mut self, present: Option<&[bool]>) -> Vec<bool> {
        match present {
            None => vec![true; self.list.len()],
            Some(present) => {
                let each = self.of.iter().zip(present).map(|(&clock, &present)| (self.list[clock], present));
                self.assign(each.collect::<Vec<_>>())
            }
        }
    }

    /// Merges the clocks that have equal keys.
    pub fn join(&mut self) {
        self.assign(self.of.iter().map(|&clock| (self.list[clock], true)).collect::<Vec<_>>());
    }

    /// Changes a tensor's clock alone.
    pub fn set(&mut self, tensor: usize, change: impl FnOnce(&mut Clock)) {
        let mut each: Vec<_> = self.of.iter().map(|&clock| (self.list[clock], true)).collect();
        change(&mut each[tensor].0);
        self.assign(each);
    }

    /// One clock for all tensors with one history and mark, and each clock's mark.
    fn assign(&mut self, each: Vec<(Clock, bool)>) -> Vec<bool> {
        let mut places = std::collections::HashMap::new();
        let mut marks = Vec::new();
        self.list.clear();
        let of = each
            .into_iter()
            .map(|(clock, mark)| {
                *places.entry((clock.key(), mark)).or_insert_with(|| {
                    self.list.push(clock);
                    marks.push(mark);
                    self.list.len() - 1
                })
            })
            .collect();
        self.of = Arc::new(of);
        marks
    }
}

/// Keeps the order of the steps and of the moves between them: look-aheads, evaluation and the swap with the mean.
#[derive(Clone, Debug)]
pub struct Order<N> {
    /// The tensors of a look-ahead whose step has not come.
    looked: Option<Vec<bool>>,
    /// The move that led the parameters to where they are evaluated, while they stand there, and its numbers.
    evaluating: Option<(Moving, N)>,
}

impl<N> Default for Order<N> {
    fn default() -> Self {
        Self { looked: None, evaluating: None }
    }
}

impl<N: Clone> Order<N> {
    /// Notes a look-ahead of the tensors marked: those that need it and are given.
    ///
    /// # Errors
    /// [`Error::Order`] where no tensor needs one or one is pending.
    pub fn look(&mut self, groups_need: bool, moved: Vec<bool>) -> Result<()> {
        if !groups_need {
            return Err(error("look-ahead", "no option asks for one (nesterov look_ahead)"));
        }
        if self.looked.is_some() {
            return Err(error("look-ahead", "two in a row; the step between them is missing"));
        }
        self.in_training("look-ahead")?;
        self.looked = Some(moved);
        Ok(())
    }

    /// Refuses a micro-batch whose gradients need a look-ahead that has not been, or that come in evaluation.
    ///
    /// # Errors
    /// [`Error::Order`].
    pub fn batch(&self, needs: bool) -> Result<()> {
        self.in_training("step")?;
        if needs && self.looked.is_none() {
            return Err(error("look-ahead", "a step without one before it (nesterov look_ahead)"));
        }
        Ok(())
    }

    /// Whether a look-ahead waits for its step.
    pub fn has_looked(&self) -> bool {
        self.looked.is_some()
    }

    /// The order that a checkpoint holds.
    pub(crate) fn resumed(looked: Option<Vec<bool>>, evaluating: Option<(Moving, N)>) -> Self {
        Self { looked, evaluating }
    }

    /// The tensors of a look-ahead whose step has not come.
    pub(crate) fn looked(&self) -> Option<&[bool]> {
        self.looked.as_deref()
    }

    /// The move that led to where the parameters are evaluated, while they stand there, and its numbers.
    pub(crate) fn evaluating(&self) -> Option<&(Moving, N)> {
        self.evaluating.as_ref()
    }

    /// Takes the look-ahead that a step needs, where any group needs one. `needs` marks the tensors that need it and
    /// have a gradient.
    ///
    /// # Errors
    /// [`Error::Order`] where it is missing or was for other tensors, or the parameters stand where they are evaluated.
    pub fn step(&mut self, groups_need: bool, tensors: &[TensorSpec], needs: impl Fn(usize) -> bool) -> Result<()> {
        self.in_training("step")?;
        if !groups_need {
            return Ok(());
        }
        let Some(looked) = &self.looked else {
            let needed = (0..tensors.len()).any(needs);
            let message = "a step without one before it (nesterov look_ahead)";
            return if needed { Err(error("look-ahead", message)) } else { Ok(()) };
        };
        if let Some(i) = (0..looked.len()).find(|&i| looked[i] != needs(i)) {
            let (had, has) = if looked[i] { ("in", "not in") } else { ("not in", "in") };
            let message = format!("tensor {} was {had} the look-ahead and is {has} the step", tensors[i].name);
            return Err(error("look-ahead", &message));
        }
        self.looked = None;
        Ok(())
    }

    /// Notes a move to evaluation and its numbers.
    ///
    /// # Errors
    /// [`Error::Order`] where no rule has such a move, the parameters stand there already, or a look-ahead waits for
    /// its step.
    pub fn evaluate(&mut self, groups_have: bool, numbers: N) -> Result<()> {
        if !groups_have {
            let message = "the parameters are evaluated where they are trained; leave the call out";
            return Err(error("evaluation", message));
        }
        if self.evaluating.is_some() {
            return Err(error("evaluation", "the parameters are in evaluation already"));
        }
        self.settled("evaluation")?;
        self.evaluating = Some((Moving::Rule(Move::Evaluation), numbers));
        Ok(())
    }

    /// Notes a swap of the parameters with their mean, or the way back, and gives the numbers that led there.
    ///
    /// # Errors
    /// [`Error::Order`] where the parameters are in evaluation otherwise, or a look-ahead waits for its step; what
    /// `numbers` says.
    pub fn swap(&mut self, numbers: impl FnOnce() -> Result<N>) -> Result<N> {
        match &self.evaluating {
            Some((Moving::Wrapper(..), _)) => Ok(self.evaluating.take().expect("it was just seen").1),
            Some(_) => Err(error("swap", "the parameters are in evaluation; call train first")),
            None => {
                self.settled("swap")?;
                let numbers = numbers()?;
                self.evaluating = Some((Moving::Wrapper("ema", Ema::SWAP), numbers.clone()));
                Ok(numbers)
            }
        }
    }

    /// Notes the move back to training, and gives the numbers of the move that led to evaluation.
    ///
    /// # Errors
    /// [`Error::Order`] where the parameters are not in evaluation.
    pub fn train(&mut self) -> Result<N> {
        match self.evaluating {
            Some((Moving::Rule(Move::Evaluation), _)) => Ok(self.evaluating.take().expect("it was just seen").1),
            Some(_) => Err(error("training", "the parameters are swapped with their mean; swap them back")),
            None => Err(error("training", "the parameters are in training already")),
        }
    }

    /// Refuses a call that would change the numbers of the step that a look-ahead waits for.
    ///
    /// # Errors
    /// [`Error::Order`] between a look-ahead and its step.
    pub fn settled(&self, what: &'static str) -> Result<()> {
        match self.looked {
            Some(_) => Err(error(what, "a look-ahead waits for its step; take the step first")),
            None => Ok(()),
        }
    }

    /// Refuses a call that is not allowed while the parameters are in evaluation.
    ///
    /// # Errors
    /// [`Error::Order`].
    pub fn in_training(&self, what: &'static str) -> Result<()> {
        match self.evaluating {
            Some((Moving::Wrapper(..), _)) => {
                Err(error(what, "the parameters are swapped with their mean; swap them back first"))
            }
            Some(_) => Err(error(what, "the parameters are in evaluation; call train first")),
            None => Ok(()),
        }
    }
}

fn error(what: &'static str, message: &str) -> Error {
    Error::Order { what, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_that_misses_a_step_keeps_its_count_and_meets_the_others_again() {
        let mut clocks = Clocks::new(&[0, 0, 1]);
        assert_eq!(clocks.list().len(), 2);
        let mut step = |present: Option<&[bool]>| {
            let marks = clocks.part(present);
            clocks.list_mut().iter_mut().zip(marks).for_each(|(clock, present)| clock.t += u64::from(present));
            clocks.join();
            ([0, 1, 2].map(|tensor| clocks.clock(tensor).t), clocks.list().len())
        };
        step(None);
        assert_eq!(step(Some(&[true, false, true])), ([2, 1, 2], 3));
        assert_eq!(step(Some(&[false, true, false])), ([2, 2, 2], 2), "equal histories share a clock again");
    }

    #[test]
    fn tensors_that_are_added_start_at_0_beside_the_others() {
        let mut clocks = Clocks::new(&[0, 1]);
        clocks.set(1, |clock| (clock.t, clock.carried) = (7, [0.5, 2.0]));
        clocks.steps = 9;
        clocks.add(&[1, 0, 2]);
        let found = [0, 1, 2, 3, 4].map(|tensor| (clocks.clock(tensor).group, clocks.clock(tensor).t));
        assert_eq!(found, [(0, 0), (1, 7), (1, 0), (0, 0), (2, 0)]);
        assert_eq!((clocks.clock(1).carried, clocks.steps, clocks.list().len()), ([0.5, 2.0], 9, 4));
    }
}
