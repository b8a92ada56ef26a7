//! What training is on any device: the tensors, their groups, where a training stands between two steps, and the
//! methods over these that [`Reference`](crate::Reference) and [`Optimizer`](crate::Optimizer) share.

use std::fmt::Debug;

use crate::clock::{Clock, Clocks, Order};
use crate::codecs::DType;
use crate::error::{Error, Result, refuse};
use crate::groups::{Groups, Records};
use crate::report::LossScaleState;
use crate::rule::{Carried, Stopping};
use crate::tensor::TensorSpec;
use crate::wrappers::{Ema, LossScale};

/// How a training keeps its clocks: as one state of them, or as all states that may be the true one.
pub(crate) trait Counts {
    /// The numbers of a move, which the move back uses again.
    type Numbers: Clone + Debug;

    /// The clocks where every step that is not known to be skipped is applied.
    fn hoped(&self) -> &Clocks;

    /// Sets a tensor's clock in every state that may be the true one.
    fn set_clock(&mut self, tensor: usize, set: impl FnMut(&mut Clock));

    /// Sets the count of applied steps in every such state.
    fn set_steps(&mut self, steps: u64);

    /// Takes in the tensors of these groups that are new, with clocks before their first step.
    fn add(&mut self, groups: &Groups);

    /// Makes sure that taking back an encoding brings back no micro-batches that were dropped.
    fn forget_batches(&mut self) {}
}

impl Counts for Clocks {
    type Numbers = Records;

    fn hoped(&self) -> &Clocks {
        self
    }

    fn set_clock(&mut self, tensor: usize, set: impl FnMut(&mut Clock)) {
        self.set(tensor, set);
    }

    fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn add(&mut self, groups: &Groups) {
        let known = self.tensors();
        Clocks::add(self, &groups.of()[known..]);
    }
}

/// A training between two steps.
#[derive(Clone, Debug)]
pub(crate) struct Session<C: Counts> {
    pub(crate) tensors: Vec<TensorSpec>,
    pub(crate) groups: Groups,
    pub(crate) order: Order<C::Numbers>,
    pub(crate) counts: C,
    /// Micro-batches since the last step.
    pub(crate) batch: u64,
    /// The tensors that had a gradient in one of these micro-batches.
    pub(crate) begun: Vec<bool>,
}

impl<C: Counts> Session<C> {
    /// A training before its first step.
    pub(crate) fn new(tensors: &[TensorSpec], groups: Groups, counts: C) -> Self {
        let begun = vec![false; tensors.len()];
        Self { tensors: tensors.to_vec(), groups, order: Order::default(), counts, batch: 0, begun }
    }

    /// The place of a tensor in the list.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub(crate) fn find(&self, tensor: &str) -> Result<usize> {
        find(&self.tensors, tensor)
    }

    /// The number of the coming step, which schedules follow.
    pub(crate) fn coming_step(&self) -> u64 {
        self.counts.hoped().steps.saturating_add(1)
    }

    /// Refuses a step of its own where the rule looks for the length of each.
    pub(crate) fn check_step(&self) -> Result<()> {
        match self.groups.rule(0).line_search() {
            Some(_) => refuse("line_search", "strong_wolfe", "none in a step of its own; minimize takes them"),
            None => Ok(()),
        }
    }

    /// When a minimisation is to stop; refuses a rule that cannot look for lengths.
    pub(crate) fn check_search(&self) -> Result<Stopping> {
        match self.groups.rule(0).line_search() {
            Some(stopping) => Ok(stopping),
            None => refuse("line_search", "none", "strong_wolfe of lbfgs to minimize"),
        }
    }

    /// Refuses what cannot be between the micro-batches of a step.
    ///
    /// # Errors
    /// [`Error::Order`].
    pub(crate) fn between_steps(&self, what: &'static str) -> Result<()> {
        if self.batch == 0 {
            return Ok(());
        }
        let (batch, batches) = (self.batch, self.groups.wrappers().batches());
        let message = format!("{batch} of {batches} micro-batches are taken; take the rest first");
        Err(Error::Order { what, message })
    }

    /// Refuses what needs the running mean of the parameters where there is none.
    pub(crate) fn check_ema(&self) -> Result<()> {
        match self.groups.wrappers().ema() {
            Some(_) => Ok(()),
            None => {
                let message = "is not set; there is no mean of the parameters".into();
                Err(Error::Config { path: "ema".into(), message })
            }
        }
    }

    /// Refuses to swap the parameters with a mean that is read otherwise than it is kept.
    pub(crate) fn check_swap(&self) -> Result<()> {
        self.check_ema()?;
        // The mean would come back rounded.
        let is_rounded = |&i: &usize| self.tensors[i].dtype != DType::F32 && self.groups.keeper(i).is_none();
        if let Some(tensor) = (0..self.tensors.len()).find(is_rounded).map(|i| &self.tensors[i]) {
            let bound = "f32 to swap in place; ema_into copies the mean out";
            return refuse(format!("format of parameter {}", tensor.name), tensor.dtype, bound);
        }
        match self.groups.wrappers().ema() {
            Some(Ema { debias: true, .. }) => {
                refuse("ema.debias", true, "false to swap in place; ema_into copies the mean out")
            }
            _ => Ok(()),
        }
    }

    /// Refuses to set the loss scale now, or to a state that no step leaves.
    pub(crate) fn check_scale(&self, scale: LossScaleState) -> Result<()> {
        self.between_steps("set_loss_scale")?;
        let Some(&LossScale { interval, .. }) = self.groups.wrappers().loss_scale() else {
            return Err(Error::Config { path: "loss_scale".into(), message: "is not set; there is no scale".into() });
        };
        LossScale::check_scale("scale", scale.scale)?;
        if u64::from(scale.good) >= interval {
            return refuse("good", scale.good, format!("below loss_scale.interval, {interval}"));
        }
        Ok(())
    }

    /// Freezes the tensors that a name or pattern matches, or lets them take part again.
    pub(crate) fn freeze(&mut self, what: &'static str, pattern: &str, frozen: bool) -> Result<()> {
        self.order.settled(what)?;
        self.between_steps(what)?;
        self.groups.freeze(&self.tensors, pattern, frozen)
    }

    /// Lists the tensors with new ones behind them, and the groups that take all of these, where tensors may be added
    /// now.
    pub(crate) fn grown(
        &self,
        what: &'static str,
        tensors: &[TensorSpec],
        assign: impl FnOnce(&mut Groups, &[TensorSpec]) -> Result<()>,
    ) -> Result<(Vec<TensorSpec>, Groups)> {
        self.order.settled(what)?;
        self.order.in_training(what)?;
        self.between_steps(what)?;
        let all = [&self.tensors[..], tensors].concat();
        let mut groups = self.groups.clone();
        assign(&mut groups, &all)?;
        Ok((all, groups))
    }

    /// Takes the lists that [`grown`](Self::grown) made. The new tensors start at `t = 0`.
    pub(crate) fn grow(&mut self, all: Vec<TensorSpec>, groups: Groups) {
        self.counts.add(&groups);
        self.begun.resize(all.len(), false);
        (self.tensors, self.groups) = (all, groups);
    }

    /// Sets a tensor's count of applied steps.
    pub(crate) fn set_t(&mut self, tensor: &str, t: u64) -> Result<()> {
        let i = self.find(tensor)?;
        self.order.settled("set_t")?;
        let carried = self.groups.rule_of(i).carried(t);
        let set = |clock: &mut Clock| {
            let averaged_from = clock.averaged_from.map(|from| from.min(t));
            *clock = Clock { t, carried, averaged_from, ..*clock };
        };
        self.counts.set_clock(i, set);
        Ok(())
    }

    /// Sets how many of a tensor's steps the running mean of the parameters holds.
    pub(crate) fn set_averaged(&mut self, tensor: &str, averaged: u64) -> Result<()> {
        let i = self.find(tensor)?;
        self.check_ema()?;
        self.order.settled("set_averaged")?;
        let t = self.counts.hoped().clock(i).t;
        if averaged > t {
            return refuse(format!("averaged of tensor {tensor}"), averaged, format!("at most its t, {t}"));
        }
        let from = |clock: &mut Clock| clock.averaged_from = Some(clock.t.saturating_sub(averaged));
        self.counts.set_clock(i, from);
        Ok(())
    }

    /// Leaves out the micro-batches since the last step.
    pub(crate) fn drop_micro_batches(&mut self) {
        self.counts.forget_batches();
        (self.batch, self.begun) = (0, vec![false; self.tensors.len()]);
    }

    /// Refuses to take a step early where no micro-batch waits for it.
    pub(crate) fn check_early(&self) -> Result<()> {
        match self.batch {
            0 => Err(Error::Order { what: "step_early", message: "no micro-batch waits for its step".into() }),
            _ => Ok(()),
        }
    }

    /// Sets what a tensor's rule carries.
    pub(crate) fn set_carried(&mut self, tensor: &str, carried: Carried) -> Result<()> {
        let i = self.find(tensor)?;
        if let Some(value) = carried.iter().find(|value| !value.is_finite() || **value < 0.0) {
            return refuse(format!("carried of tensor {tensor}"), value, "at least 0 and finite");
        }
        self.order.settled("set_carried")?;
        self.counts.set_clock(i, |clock| clock.carried = carried);
        Ok(())
    }
}

/// The place of a tensor in a list.
///
/// # Errors
/// [`Error::UnknownTensor`].
pub(crate) fn find(tensors: &[TensorSpec], name: &str) -> Result<usize> {
    tensors.iter().position(|tensor| tensor.name == name).ok_or_else(|| Error::UnknownTensor {
        tensor: name.into(),
        known: tensors.iter().map(|tensor| &tensor.name[..]).collect::<Vec<_>>().join(", "),
    })
}

/// Refuses a number of values other than expected.
///
/// # Errors
/// [`Error::Shape`].
pub(crate) fn check_len(what: &str, tensor: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (format!("{found} elements"), format!("{expected} elements"));
    Err(Error::Shape { what: what.into(), tensor: tensor.into(), found, expected })
}

/// The public methods of everything that trains and holds a [`Session`] in its field `session`. They are written here
/// once, and each such type has them as its own, so that its users need no trait.
macro_rules! session_methods {
    () => {
        /// The tensors, in order.
        pub fn tensors(&self) -> &[crate::tensor::TensorSpec] {
            &self.session.tensors
        }

        /// Whether the coming step, or its first micro-batch, needs a look-ahead before its gradients are computed.
        pub fn needs_look_ahead(&self) -> bool {
            self.session.batch == 0
                && !self.session.order.has_looked()
                && self.session.groups.have_move(crate::rule::Move::LookAhead)
        }

        /// The micro-batches since the last step, which wait for the rest of their step.
        pub fn micro_batches(&self) -> u64 {
            self.session.batch
        }

        /// Drops the micro-batches since the last step, as where an epoch ends within a step and its rest is not to
        /// count: the next micro-batch is the first of a step again. Those that are encoded and not submitted may be
        /// submitted or taken back. A look-ahead that was made counts for the coming step.
        pub fn drop_micro_batches(&mut self) {
            self.session.drop_micro_batches();
        }

        /// Whether the model is to be evaluated elsewhere than its parameters are trained: see [`eval`](Self::eval).
        pub fn has_eval(&self) -> bool {
            self.session.groups.have_move(crate::rule::Move::Evaluation)
        }

        /// The learning rate of the top level, as set last: what a schedule multiplies.
        pub fn lr(&self) -> f64 {
            self.session.groups.rule(0).lr()
        }

        /// Sets the learning rate, from the next step on. A group with a rate of its own keeps its ratio to the top
        /// level's rate.
        ///
        /// # Errors
        /// [`Error::Field`](crate::Error) for a rate that is negative or not finite, or where the device writes it
        /// (`on_device`), [`Error::Config`](crate::Error) where the rule's rate cannot change,
        /// [`Error::Order`](crate::Error) between a look-ahead and its step.
        pub fn set_lr(&mut self, lr: f64) -> crate::error::Result<()> {
            self.session.order.settled("set_lr")?;
            self.session.groups.set_lr(lr)
        }

        /// Sets a numeric option by name, from the next step on, at the top level and in every group that has no value
        /// of its own. `weight_decay` sets the number and keeps the kind.
        ///
        /// # Errors
        /// [`Error::Config`](crate::Error) for an unknown field, [`Error::Field`](crate::Error) for a value outside its
        /// bound, one that would need another pipeline or other state, or an option that the device writes
        /// (`on_device`), [`Error::Order`](crate::Error) between a look-ahead and its step.
        pub fn set(&mut self, field: &str, value: f64) -> crate::error::Result<()> {
            self.session.order.settled("set")?;
            self.session.groups.set(field, value)
        }

        /// [`set`](Self::set) for one group, counted as in the configuration's `groups`. From then on the number is the
        /// group's own; a rate keeps its ratio to the top level's rate.
        ///
        /// # Errors
        /// The same, and [`Error::Group`](crate::Error) where there is no such group.
        pub fn set_group(&mut self, group: usize, field: &str, value: f64) -> crate::error::Result<()> {
            self.session.order.settled("set_group")?;
            self.session.groups.set_group(group, field, value)
        }

        /// An option of the top level in the coming step, its schedule included. For an option that the device writes,
        /// this is the number that the host has.
        ///
        /// # Errors
        /// [`Error::Config`](crate::Error) for a field that is no such option, [`Error::Field`](crate::Error) where its
        /// schedule leads out of bounds.
        pub fn value(&self, option: &str) -> crate::error::Result<f64> {
            self.session.groups.value(option, self.session.coming_step())
        }

        /// [`value`](Self::value) of one group, counted as in the configuration's `groups`.
        ///
        /// # Errors
        /// The same, and [`Error::Group`](crate::Error) where there is no such group.
        pub fn group_value(&self, group: usize, option: &str) -> crate::error::Result<f64> {
            self.session.groups.group_value(group, option, self.session.coming_step())
        }

        /// Feeds a metric, such as the loss of a validation, to every schedule that has a plateau, those of groups
        /// included.
        ///
        /// # Errors
        /// [`Error::Field`](crate::Error) for NaN, or where no schedule has a plateau,
        /// [`Error::Order`](crate::Error) between a look-ahead and its step.
        pub fn feed(&mut self, metric: f64) -> crate::error::Result<()> {
            self.session.order.settled("feed")?;
            self.session.groups.feed(metric)
        }

        /// The top level's schedule of an option, which says where its plateaus stand.
        pub fn scheduler(&self, option: &str) -> Option<&crate::schedule::Scheduler> {
            self.session.groups.scheduler(option)
        }

        /// The top level's schedule of an option, to be resumed.
        pub fn scheduler_mut(&mut self, option: &str) -> Option<&mut crate::schedule::Scheduler> {
            self.session.groups.scheduler_mut(option)
        }

        /// The schedule of an option that a group, counted as in the configuration's `groups`, has of its own; `None`
        /// where the group follows the top level's schedule.
        pub fn group_scheduler(&self, group: usize, option: &str) -> Option<&crate::schedule::Scheduler> {
            self.session.groups.group_scheduler(group, option)
        }

        /// [`group_scheduler`](Self::group_scheduler), to be resumed.
        pub fn group_scheduler_mut(&mut self, group: usize, option: &str) -> Option<&mut crate::schedule::Scheduler> {
            self.session.groups.group_scheduler_mut(group, option)
        }

        /// Freezes every tensor that a name or `*` pattern matches, from the next step on: each step treats it as a
        /// tensor without a gradient, whether one is given or not. Its parameter, state and `t` stay until it is
        /// [unfrozen](Self::unfreeze), and then go on. Moves to evaluation and back still take all parameters.
        ///
        /// # Errors
        /// [`Error::Pattern`](crate::Error) where it matches no tensor, [`Error::Order`](crate::Error) between a
        /// look-ahead or a micro-batch and its step.
        pub fn freeze(&mut self, pattern: &str) -> crate::error::Result<()> {
            self.session.freeze("freeze", pattern, true)
        }

        /// Lets every tensor that a name or `*` pattern matches take part in steps again. Tensors that are not frozen
        /// take part already.
        ///
        /// # Errors
        /// As [`freeze`](Self::freeze).
        pub fn unfreeze(&mut self, pattern: &str) -> crate::error::Result<()> {
            self.session.freeze("unfreeze", pattern, false)
        }

        /// Whether a tensor is frozen. No tensor is at creation.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error).
        pub fn frozen(&self, tensor: &str) -> crate::error::Result<bool> {
            Ok(self.session.groups.is_frozen(self.session.find(tensor)?))
        }

        /// The number of applied steps, whichever tensors they had, which schedules follow. On a device it includes the
        /// steps that are encoded, and steps that may be skipped count as applied until they have reported.
        pub fn steps(&self) -> u64 {
            crate::session::Counts::hoped(&self.session.counts).steps
        }

        /// Sets the count of applied steps, to resume a training with schedules.
        ///
        /// # Errors
        /// [`Error::Order`](crate::Error) between a look-ahead and its step.
        pub fn set_steps(&mut self, steps: u64) -> crate::error::Result<()> {
            self.session.order.settled("set_steps")?;
            crate::session::Counts::set_steps(&mut self.session.counts, steps);
            Ok(())
        }

        /// The number of a tensor's applied steps, counted as in [`steps`](Self::steps).
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error).
        pub fn t(&self, tensor: &str) -> crate::error::Result<u64> {
            let tensor = self.session.find(tensor)?;
            Ok(crate::session::Counts::hoped(&self.session.counts).clock(tensor).t)
        }

        /// Sets the count of applied steps of a tensor, to resume its training. What its rule carries from step to step
        /// becomes what it is after `t` steps with the options of now; [`set_carried`](Self::set_carried) sets it
        /// exactly.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error), or [`Error::Order`](crate::Error) between a look-ahead and its step.
        pub fn set_t(&mut self, tensor: &str, t: u64) -> crate::error::Result<()> {
            self.session.set_t(tensor, t)
        }

        /// What a tensor's rule carries from step to step beside `t`, on the host and in f64: running products and
        /// sums, 0 where it has none. A training that saves these numbers and sets them again goes on with the same
        /// bits.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error).
        pub fn carried(&self, tensor: &str) -> crate::error::Result<crate::rule::Carried> {
            let tensor = self.session.find(tensor)?;
            Ok(crate::session::Counts::hoped(&self.session.counts).clock(tensor).carried)
        }

        /// Sets what [`carried`](Self::carried) gave. Call it after [`set_t`](Self::set_t).
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error), [`Error::Order`](crate::Error) between a look-ahead and its step, or
        /// [`Error::Field`](crate::Error) for a number that is negative or not finite.
        pub fn set_carried(&mut self, tensor: &str, carried: crate::rule::Carried) -> crate::error::Result<()> {
            self.session.set_carried(tensor, carried)
        }

        /// How many of a tensor's steps the running mean of the parameters (`ema`) holds, which `debias` corrects by:
        /// `t`, or fewer where the mean was switched on later. 0 without a mean.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error).
        pub fn averaged(&self, tensor: &str) -> crate::error::Result<u64> {
            let tensor = self.session.find(tensor)?;
            Ok(crate::session::Counts::hoped(&self.session.counts).clock(tensor).averaged())
        }

        /// Sets what [`averaged`](Self::averaged) gave. Call it after [`set_t`](Self::set_t). Where it is not called, a
        /// mean whose slot was set holds all steps, and one whose slot was not set begins with the coming step.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error), [`Error::Config`](crate::Error) without `ema`,
        /// [`Error::Field`](crate::Error) for more than `t`, [`Error::Order`](crate::Error) between a look-ahead and
        /// its step.
        pub fn set_averaged(&mut self, tensor: &str, averaged: u64) -> crate::error::Result<()> {
            self.session.set_averaged(tensor, averaged)
        }

        /// A tensor's rule, with the options of this moment.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error).
        pub fn rule(&self, tensor: &str) -> crate::error::Result<&(dyn crate::rule::AnyRule + 'static)> {
            Ok(self.session.groups.rule_of(self.session.find(tensor)?))
        }

        /// The names of a tensor's state slots.
        ///
        /// # Errors
        /// [`Error::UnknownTensor`](crate::Error).
        pub fn slots(&self, tensor: &str) -> crate::error::Result<Vec<&'static str>> {
            let slots = self.session.groups.slots_of(self.session.find(tensor)?);
            Ok(slots.iter().map(|slot| slot.name).collect())
        }
    };
}
pub(crate) use session_methods;
