//! The public stepper.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clocks, Order};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::Tensor;
use crate::gpu::{Buffers, Engine, Gpu, StepState, Work};
use crate::groups::{Groups, Records};
use crate::reference::{check_carried, find};
use crate::rule::{Carried, Move, Start};
use crate::schedule::Scheduler;

/// Makes an optimizer of a rule or a [`Config`].
pub trait On: Into<Config> {
    /// An optimizer for these tensors, its state at the start. Not in a browser: there, [`on_async`](Self::on_async).
    ///
    /// # Errors
    /// A bad option, group or list of tensors, a parameter not in f32, a state slot too large for a buffer of the
    /// device, or [`Error::Wgpu`] when its memory does not hold the state.
    #[cfg(not(target_arch = "wasm32"))]
    fn on(self, gpu: &Gpu, tensors: &[Tensor]) -> Result<Optimizer> {
        pollster::block_on(Optimizer::new(&self.into(), gpu, tensors))
    }

    /// [`on`](Self::on), awaiting what the device says.
    ///
    /// # Errors
    /// The same.
    fn on_async(self, gpu: &Gpu, tensors: &[Tensor]) -> impl Future<Output = Result<Optimizer>> {
        let config = self.into();
        async move { Optimizer::new(&config, gpu, tensors).await }
    }
}

impl<C: Into<Config>> On for C {}

/// An optimizer on the GPU: state, clocks, and the encoding of steps.
///
/// Nothing is read back and nothing waits in a step. Numbers that depend on `t` are computed on the host in f64 and
/// travel with the step; a tensor without a gradient is touched by nothing, and its `t` stays.
#[derive(Debug)]
pub struct Optimizer {
    id: u64,
    tensors: Vec<Tensor>,
    groups: Groups,
    clocks: Clocks,
    order: Order<Records>,
    engine: Engine,
    sequence: u64,
    undo: VecDeque<Undo>,
}

/// What an encoding changed on the host, until its command buffer is done.
#[derive(Debug)]
struct Undo {
    sequence: u64,
    clocks: Clocks,
    order: Order<Records>,
    state: StepState,
}

/// An encoded step or move, to be taken back with [`Optimizer::forget`] where its encoder is not submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    optimizer: u64,
    sequence: u64,
}

/// What a step of certain buffers does.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Walks over the tensors: 1, 3 with norms, 5 with rows and columns.
    pub passes: usize,
    /// Sets of bindings of one pass.
    pub windows: usize,
    /// Dispatches of a step.
    pub dispatches: usize,
    /// Kinds of pipeline that the groups need.
    pub variants: usize,
    /// Bytes of elements that the coming step reads and writes.
    pub bytes: u64,
    /// Bytes of rows and columns, of numbers and of sums, that it reads and writes beside them.
    pub line_bytes: u64,
    /// Tensors whose slices take the scalar kernel.
    pub scalar_tensors: Vec<String>,
}

/// Bytes of the device's memory that an optimizer holds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// State: 4 x slots x elements, each tensor's last block padded to 4 elements, and 4 a number of a row or column.
    pub state: u64,
    /// Numbers of the tensors, what elements see of their rows, and partial sums.
    pub scratch: u64,
    /// Chunk tables of the placements in use.
    pub tables: u64,
    /// Slots of per-step data.
    pub steps: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.state + self.scratch + self.tables + self.steps
    }
}

impl Optimizer {
    async fn new(config: &Config, gpu: &Gpu, tensors: &[Tensor]) -> Result<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let groups = config.groups(tensors)?;
        let engine = Engine::new(gpu, tensors, &groups).await?;
        Ok(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            tensors: tensors.to_vec(),
            clocks: Clocks::new(groups.of()),
            groups,
            order: Order::default(),
            engine,
            sequence: 0,
            undo: VecDeque::new(),
        })
    }

    /// Encodes one step: an update of every tensor that has a gradient, from `grads` into `params`.
    ///
    /// Any number of steps may be encoded before one is submitted, in one encoder or several; they must be submitted in
    /// the order of encoding. Where the encoder is dropped instead, give the token to [`forget`](Self::forget).
    ///
    /// # Errors
    /// Buffers that do not fit the tensors or cannot be bound, a missing look-ahead, parameters in evaluation, a
    /// schedule that leads out of bounds. Nothing is encoded then.
    pub fn encode<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
        grads: impl Into<Buffers<'a>>,
    ) -> Result<Token> {
        let (params, grads) = (params.into(), grads.into());
        self.engine.bind(&params, Work::Step(&grads))?;
        let present = grads.present();
        let mut order = self.order.clone();
        let is_present = |i: usize| present.as_ref().is_none_or(|present| present[i]);
        order.step(&self.tensors, |i| is_present(i) && self.groups.rule_of(i).needs_look_ahead())?;
        let mut clocks = self.clocks.clone();
        let records = self.groups.step(&mut clocks, present.as_deref())?;
        self.commit(encoder, &records, clocks, order)
    }

    /// [`encode`](Self::encode) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn step<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode(encoder, params, grads))
    }

    /// Encodes the look-ahead: moves the parameters to where the coming step's gradients are to be computed
    /// (`Nesterov::LookAhead`). The step must then have a gradient for the same tensors: leave a tensor that will have
    /// none out of `params`.
    ///
    /// # Errors
    /// [`Error::Order`] where no option asks for it or one is pending; buffers as in [`encode`](Self::encode).
    pub fn encode_look_ahead<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<Token> {
        let params = params.into();
        self.engine.bind(&params, Work::Move(Move::LookAhead))?;
        let present = params.present();
        let moved =
            |i: usize| present.as_ref().is_none_or(|present| present[i]) && self.groups.rule_of(i).needs_look_ahead();
        let mut order = self.order.clone();
        order.look(self.needs_look_ahead(), (0..self.tensors.len()).map(moved).collect())?;
        let records = self.groups.moved(&self.clocks, Move::LookAhead, moved)?;
        self.commit(encoder, &records, self.clocks.clone(), order)
    }

    /// [`encode_look_ahead`](Self::encode_look_ahead) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn look_ahead<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_look_ahead(encoder, params))
    }

    /// Encodes the move of the parameters to where the model is to be evaluated, for rules that train it elsewhere
    /// ([`has_evaluation`](Self::has_evaluation)); [`encode_training`](Self::encode_training) leads back, to rounding.
    /// In between a step is an error. The way back takes the same numbers, whatever is set or fed in between.
    ///
    /// # Errors
    /// [`Error::Order`] where no rule has such a move or the parameters stand there already; buffers as in
    /// [`encode`](Self::encode), all parameters given.
    pub fn encode_evaluation<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<Token> {
        let params = params.into();
        self.bind_all(&params, Move::Evaluation)?;
        let records = self.groups.moved(&self.clocks, Move::Evaluation, |_| true)?;
        let mut order = self.order.clone();
        order.evaluate(self.has_evaluation(), records.clone())?;
        self.commit(encoder, &records, self.clocks.clone(), order)
    }

    /// Encodes the way back from [`encode_evaluation`](Self::encode_evaluation).
    ///
    /// # Errors
    /// The same.
    pub fn encode_training<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<Token> {
        let params = params.into();
        self.bind_all(&params, Move::Training)?;
        let mut order = self.order.clone();
        let records = order.train()?;
        self.commit(encoder, &records, self.clocks.clone(), order)
    }

    /// [`encode_evaluation`](Self::encode_evaluation) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn evaluation<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_evaluation(encoder, params))
    }

    /// [`encode_training`](Self::encode_training) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn training<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_training(encoder, params))
    }

    /// Binds all parameters for a move.
    fn bind_all(&mut self, params: &Buffers, to: Move) -> Result<()> {
        self.engine.bind(params, Work::Move(to))?;
        match params.present().and_then(|present| present.iter().position(|present| !present)) {
            Some(i) => Err(Error::Slice {
                what: "parameter",
                tensor: self.tensors[i].name.clone(),
                message: "is missing; all parameters move together".into(),
            }),
            None => Ok(()),
        }
    }

    /// Takes back the latest encoding that was not taken back yet. Its encoder, or the command buffer made of it, must
    /// have been dropped without being submitted.
    ///
    /// # Errors
    /// [`Error::Token`] for another optimizer's token, one that is not the latest, one whose encoder was submitted or
    /// is there still, or one from before [`set_t`](Self::set_t), `set_carried` or `set_steps`.
    pub fn forget(&mut self, token: Token) -> Result<()> {
        let refuse = |message: &str| Err(Error::Token { message: message.into() });
        if token.optimizer != self.id {
            return refuse("belongs to another optimizer");
        }
        match self.undo.back() {
            Some(last) if last.sequence == token.sequence && last.state.is_done() => refuse("its work has run"),
            Some(last) if last.sequence == token.sequence && !last.state.is_dropped() => {
                refuse("its encoder is there still, or was submitted; drop it first")
            }
            Some(last) if last.sequence == token.sequence => {
                let last = self.undo.pop_back().expect("it was just seen");
                self.clocks = last.clocks;
                self.order = last.order;
                Ok(())
            }
            _ if self.undo.iter().any(|undo| undo.sequence == token.sequence) => {
                refuse("is not the latest encoding; take those after it back first")
            }
            _ => refuse("its work has run, it was taken back already, or a count of steps was set after it"),
        }
    }

    /// Whether each step needs a look-ahead before its gradients are computed.
    pub fn needs_look_ahead(&self) -> bool {
        self.groups.have_move(Move::LookAhead)
    }

    /// Whether the model is to be evaluated elsewhere than its parameters are trained: see
    /// [`encode_evaluation`](Self::encode_evaluation).
    pub fn has_evaluation(&self) -> bool {
        self.groups.have_move(Move::Evaluation)
    }

    /// Sets the learning rate, from the next encoded step on. A group with a rate of its own keeps its ratio to the
    /// top level's.
    ///
    /// # Errors
    /// [`Error::Field`] for a rate that is negative or not finite, [`Error::Config`] where the rule's rate cannot
    /// change, [`Error::Order`] between a look-ahead and its step.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.order.settled("set_lr")?;
        self.groups.set_lr(lr)
    }

    /// Sets a numeric option by name, from the next encoded step on, at the top level and in every group that has no
    /// value of its own. `weight_decay` sets the number and keeps the kind.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown field, [`Error::Field`] for a value outside its bound or one that would need
    /// another pipeline or other state.
    pub fn set(&mut self, field: &str, value: f64) -> Result<()> {
        self.order.settled("set")?;
        self.groups.set(field, value)
    }

    /// [`set`](Self::set) for one group, counted as in the configuration's `groups`. From then on the number is the
    /// group's own; a rate keeps its ratio to the top level's.
    ///
    /// # Errors
    /// The same, and [`Error::Group`] where there is no such group.
    pub fn set_group(&mut self, group: usize, field: &str, value: f64) -> Result<()> {
        self.order.settled("set_group")?;
        self.groups.set_group(group, field, value)
    }

    /// An option of the top level in the coming step, its schedule included.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is no such option, [`Error::Field`] where its schedule leads out of bounds.
    pub fn value(&self, option: &str) -> Result<f64> {
        self.groups.value(option, self.clocks.steps.saturating_add(1))
    }

    /// Feeds a metric, as the loss of a validation, to every schedule that has a plateau.
    ///
    /// # Errors
    /// [`Error::Field`] for NaN, or where no schedule has a plateau.
    pub fn feed(&mut self, metric: f64) -> Result<()> {
        self.order.settled("feed")?;
        self.groups.feed(metric)
    }

    /// The schedule of an option: where its plateaus stand.
    pub fn scheduler(&self, option: &str) -> Option<&Scheduler> {
        self.groups.scheduler(option)
    }

    /// The schedule of an option, to be resumed.
    pub fn scheduler_mut(&mut self, option: &str) -> Option<&mut Scheduler> {
        self.groups.scheduler_mut(option)
    }

    /// Applied steps of the optimizer, the encoded ones included, whichever tensors they had. Schedules follow them.
    pub fn steps(&self) -> u64 {
        self.clocks.steps
    }

    /// Sets the count of applied steps of the optimizer, as when a training with schedules is resumed.
    ///
    /// # Errors
    /// [`Error::Order`] between a look-ahead and its step.
    pub fn set_steps(&mut self, steps: u64) -> Result<()> {
        self.order.settled("set_steps")?;
        self.clocks.steps = steps;
        self.undo.clear();
        Ok(())
    }

    /// Applied steps of a tensor, the encoded ones included.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn t(&self, tensor: &str) -> Result<u64> {
        Ok(self.clocks.clock(find(&self.tensors, tensor)?).t)
    }

    /// Sets the count of applied steps of a tensor, as when its training is resumed. What its rule carries from step to
    /// step becomes what it is after `t` steps with the options of now; [`set_carried`](Self::set_carried) sets it
    /// exactly.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], or [`Error::Order`] between a look-ahead and its step.
    pub fn set_t(&mut self, tensor: &str, t: u64) -> Result<()> {
        let i = find(&self.tensors, tensor)?;
        self.order.settled("set_t")?;
        let carried = self.groups.rule_of(i).carried(t);
        self.clocks.set(i, |clock| (clock.t, clock.carried) = (t, carried));
        self.undo.clear();
        Ok(())
    }

    /// What a tensor's rule carries from step to step beside `t`, on the host and in f64: running products and sums,
    /// 0 where it has none. Saved and set again, a training goes on with the same bits.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn carried(&self, tensor: &str) -> Result<Carried> {
        Ok(self.clocks.clock(find(&self.tensors, tensor)?).carried)
    }

    /// Sets what [`carried`](Self::carried) gave. To be called after [`set_t`](Self::set_t).
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::Order`] between a look-ahead and its step, or [`Error::Field`] for a number
    /// that is negative or not finite.
    pub fn set_carried(&mut self, tensor: &str, carried: Carried) -> Result<()> {
        let i = find(&self.tensors, tensor)?;
        check_carried(tensor, carried)?;
        self.order.settled("set_carried")?;
        self.clocks.set(i, |clock| clock.carried = carried);
        self.undo.clear();
        Ok(())
    }

    /// The names of a tensor's state slots.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn slots(&self, tensor: &str) -> Result<Vec<&'static str>> {
        let slots = self.groups.slots_of(find(&self.tensors, tensor)?);
        Ok(slots.iter().map(|slot| slot.name).collect())
    }

    /// The values of a state slot once all submitted work is done: one an element, or one in all.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownSlot`], [`Error::Wgpu`] or [`Error::DeviceLost`].
    pub async fn state(&self, tensor: &str, slot: &str) -> Result<Vec<f32>> {
        self.read_state(tensor, slot, false).await
    }

    /// [`state`](Self::state), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn state_blocking(&self, tensor: &str, slot: &str) -> Result<Vec<f32>> {
        pollster::block_on(self.read_state(tensor, slot, true))
    }

    async fn read_state(&self, tensor: &str, slot: &str, wait: bool) -> Result<Vec<f32>> {
        let i = find(&self.tensors, tensor)?;
        self.engine.state(&self.groups, i, slot, wait).await
    }

    /// Sets a state slot, before any work that is not yet submitted. Slots that start as the parameter keep what they
    /// are set to; set all of a tensor's, or none.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownSlot`], or [`Error::Shape`] for another number of values.
    pub fn set_state(&mut self, tensor: &str, slot: &str, values: &[f32]) -> Result<()> {
        let i = find(&self.tensors, tensor)?;
        self.engine.set_state(&self.groups, i, slot, values)?;
        if self.groups.find_slot(i, tensor, slot)?.0.start == Start::Param {
            let undone = self.undo.iter_mut().map(|undo| &mut undo.clocks);
            undone.chain([&mut self.clocks]).for_each(|clocks| clocks.set(i, |clock| clock.started = true));
        }
        Ok(())
    }

    /// What a step with these buffers does. Makes its pipelines and tables, as [`warm_up`](Self::warm_up) does.
    ///
    /// # Errors
    /// Buffers as in [`encode`](Self::encode).
    pub fn plan<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<Report> {
        let (params, grads) = (params.into(), grads.into());
        let present = grads.present();
        let (variants, tensors) = (self.engine.variants(), &self.tensors);
        let bound = self.engine.bind(&params, Work::Step(&grads))?;
        let stepped = || (0..tensors.len()).filter(|&i| present.as_ref().is_none_or(|present| present[i]));
        let with_lines = stepped().filter(|&i| self.groups.rule_of(i).has_lines());
        let line_bytes = with_lines.filter_map(|i| self.groups.lines_of(i)).map(|lines| lines.bytes()).sum();
        let bytes = stepped().map(|i| {
            let clock = self.clocks.clock(i);
            let around = self.groups.around().bytes_per_element(clock.t.saturating_add(1), !clock.started);
            let rule = self.groups.rule_of(i);
            let saved = rule.grad_reads() * (4 - tensors[i].grad.size_bytes());
            tensors[i].len_elements() * (rule.bytes_per_element() - saved + around)
        });
        Ok(Report {
            passes: bound.passes,
            windows: bound.windows,
            dispatches: bound.dispatches(),
            variants,
            bytes: bytes.sum(),
            line_bytes,
            scalar_tensors: bound.scalar.iter().map(|&i| tensors[i].name.clone()).collect(),
        })
    }

    /// Makes every pipeline, table and bind group that steps with these buffers need, so that the first step is as
    /// fast as the second.
    ///
    /// # Errors
    /// Buffers as in [`encode`](Self::encode).
    pub fn warm_up<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<()> {
        let (params, grads) = (params.into(), grads.into());
        for to in [Move::LookAhead, Move::Evaluation, Move::Training] {
            if self.groups.have_move(to) {
                self.engine.bind(&params, Work::Move(to))?;
            }
        }
        self.engine.bind(&params, Work::Step(&grads))?;
        self.engine.reserve(&self.groups.step(&mut self.clocks.clone(), None)?.words())
    }

    /// Lets go of the buffers of the last steps. Tables and bind groups are kept for the eight placements used last,
    /// and keep their buffers alive; the next step makes its own again.
    pub fn release_buffers(&mut self) {
        self.engine.release();
    }

    /// The learning rate of the top level, as set last: what a schedule multiplies.
    pub fn lr(&self) -> f64 {
        self.groups.rule(0).lr()
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Bytes of the device's memory that it holds now.
    pub fn memory(&self) -> Memory {
        let [state, scratch, tables, steps] = self.engine.memory();
        Memory { state, scratch, tables, steps }
    }

    /// Encodes into an encoder of its own, submitted.
    fn submit(&mut self, encode: impl FnOnce(&mut Self, &mut wgpu::CommandEncoder) -> Result<Token>) -> Result<()> {
        let mut encoder = self.engine.gpu().device().create_command_encoder(&Default::default());
        encode(self, &mut encoder)?;
        self.engine.gpu().queue().submit([encoder.finish()]);
        Ok(())
    }

    fn commit(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        records: &Records,
        clocks: Clocks,
        order: Order<Records>,
    ) -> Result<Token> {
        let guard = self.engine.encode(encoder, &records.words())?;
        let state = guard.state();
        encoder.on_submitted_work_done(move || guard.done());
        // What came before work that has run can no longer be taken back.
        if let Some(last) = self.undo.iter().rposition(|undo| undo.state.is_done()) {
            self.undo.drain(..=last);
        }
        self.sequence += 1;
        self.undo.push_back(Undo {
            sequence: self.sequence,
            clocks: std::mem::replace(&mut self.clocks, clocks),
            order: std::mem::replace(&mut self.order, order),
            state,
        });
        Ok(Token { optimizer: self.id, sequence: self.sequence })
    }
}
