//! The public stepper.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clocks, Order};
use crate::config::{Config, Group};
use crate::control::{Measured, NonFinite};
use crate::course::{self, Choices, Course, Task};
use crate::error::{Error, Result};
use crate::gpu::{
    Arena, Bound, Buffers, Engine, Gpu, Grads, News, Part, Receipt, Reports, Slice, Slot, StepState, Work,
};
use crate::groups::Groups;
use crate::reference::{between_steps, check_carried, check_ema, check_scale, check_swap, find};
use crate::report::{LossScaleState, StepReport};
use crate::rule::{Carried, Move, Start};
use crate::schedule::Scheduler;
use crate::tensor::TensorSpec;
use crate::traffic;
use crate::words::{ABSENT, Layout, OUT_OF_TURN, control, measured, stage, tensor};
use crate::wrappers::{Ema, Moving, Wrappers};

/// An optimizer on the GPU: state, clocks, and the encoding of steps.
///
/// Nothing is read back and nothing waits in a step. Numbers that depend on `t` are computed on the host in f64 and
/// travel with the step; a tensor without a gradient, or one that is [frozen](Self::freeze), is touched by nothing, and
/// its `t` stays.
#[derive(Debug)]
pub struct Optimizer {
    id: u64,
    tensors: Vec<TensorSpec>,
    groups: Groups,
    layout: Layout,
    course: Course,
    order: Order<Choices>,
    engine: Engine,
    sequence: u64,
    undo: VecDeque<Undo>,
    /// Micro-batches since the last step, and the tensors that had a gradient in one of them.
    batch: u64,
    begun: Vec<bool>,
    clears: bool,
    reports: Reports,
    /// Steps whose reports have not come, the oldest first.
    waiting: VecDeque<Waiting>,
    arrived: VecDeque<StepReport>,
}

/// A step whose report has not come.
#[derive(Debug)]
struct Waiting {
    step: u64,
    /// Places of tensors.
    without_gradient: Vec<usize>,
    from: Source,
}

/// Where the news of a step comes from.
#[derive(Debug)]
enum Source {
    /// The device decides.
    Device(Receipt),
    /// It is applied, once it has run.
    Host(StepState),
}

/// What an encoding changed on the host, until its command buffer is done.
#[derive(Debug)]
struct Undo {
    sequence: u64,
    course: Course,
    order: Order<Choices>,
    batch: u64,
    begun: Vec<bool>,
    state: StepState,
    /// Whether it is a step, which reports.
    reports: bool,
}

/// An encoded step or move, to be taken back with [`Optimizer::undo`] where its encoder is not submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedStep {
    optimizer: u64,
    sequence: u64,
}

/// What a step of certain buffers does.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
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
    /// Sums of micro-batches, each tensor on 256 bytes.
    pub accumulated: u64,
    /// Numbers of the tensors, what elements see of their rows, partial sums, and what is decided on the device.
    pub scratch: u64,
    /// Chunk tables of the placements in use.
    pub tables: u64,
    /// Slots of per-step data.
    pub steps: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.state + self.accumulated + self.scratch + self.tables + self.steps
    }
}

impl Optimizer {
    /// An optimizer for these tensors, its state at the start, of a rule or a [`Config`]. Nothing waits, as in
    /// [`Arena::new`].
    ///
    /// # Errors
    /// A bad option, group or list of tensors, a parameter not in f32, a state slot too large for a buffer of the
    /// device, or [`Error::Wgpu`] when its memory does not hold the state.
    pub fn new(gpu: &Gpu, tensors: &[TensorSpec], config: impl Into<Config>) -> Result<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let config: Config = config.into();
        let groups = config.groups(tensors)?;
        let engine = Engine::new(gpu, tensors, &groups)?;
        Ok(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            tensors: tensors.to_vec(),
            layout: course::layout(tensors.len(), &groups),
            course: Course::new(Clocks::new(groups.of())),
            groups,
            order: Order::default(),
            engine,
            sequence: 0,
            undo: VecDeque::new(),
            batch: 0,
            begun: vec![false; tensors.len()],
            clears: false,
            reports: Reports::default(),
            waiting: VecDeque::new(),
            arrived: VecDeque::new(),
        })
    }

    /// Encodes one step: an update of every tensor that has a gradient, from `grads` into `params`.
    ///
    /// Any number of steps may be encoded before one is submitted, in one encoder or several; they must be submitted in
    /// the order of encoding. Where the encoder is dropped instead, give the token to [`undo`](Self::undo).
    ///
    /// # Errors
    /// Buffers that do not fit the tensors or cannot be bound, a missing look-ahead, parameters in evaluation, a
    /// schedule that leads out of bounds. Nothing is encoded then.
    pub fn encode<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
        grads: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let encoding = self.prepare(&params.into(), &Grads::new(grads.into()), Role::Alone)?;
        self.commit(encoder, encoding)
    }

    /// All that a step needs, bound and computed.
    pub(crate) fn prepare(&mut self, params: &Buffers, grads: &Grads, role: Role) -> Result<Encoding> {
        self.take_reports()?;
        let cleared = self.to_clear(grads)?;
        let present = self.present(grads);
        let encoding = match self.engine.accumulated() {
            None => {
                let bound = self.engine.bind(params, Work::Step(grads))?;
                self.whole_step(bound, &present, role)?
            }
            Some(sums) => self.micro_batch(params, grads, &present, &sums)?,
        };
        Ok(Encoding { cleared, ..encoding })
    }

    /// What is wrapped round the rule.
    pub(crate) fn wrappers(&self) -> &Wrappers {
        self.groups.wrappers()
    }

    /// The device that it works on.
    pub(crate) fn gpu(&self) -> &Gpu {
        self.engine.gpu()
    }

    /// Encodes a copy of words of another optimizer's control to a place in the control of this one.
    pub(crate) fn copy_control(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        other: &Self,
        words: Range<usize>,
        to: usize,
    ) {
        let (from, bytes) = (4 * words.start as u64, 4 * words.len() as u64);
        encoder.copy_buffer_to_buffer(other.control(), from, self.control(), 4 * to as u64, bytes);
    }

    fn control(&self) -> &wgpu::Buffer {
        self.engine.control().expect("made where anything is decided on the device")
    }

    /// Changes counts of steps, or what is carried. Encodings of before can be taken back only where they must be,
    /// since the device decides on steps: to what they came after, changed likewise.
    fn change_counts(&mut self, mut change: impl FnMut(&mut Clocks)) {
        self.course.change(&mut change);
        match self.groups.wrappers().skips() {
            true => self.undo.iter_mut().for_each(|undo| undo.course.change(&mut change)),
            false => self.undo.clear(),
        }
    }

    /// Which tensors have a gradient and are not frozen.
    fn present(&self, grads: &Grads) -> Vec<bool> {
        self.groups.present(grads.given().map(<[bool]>::to_vec)).unwrap_or_else(|| vec![true; self.tensors.len()])
    }

    /// The step of these tensors, whose buffers are bound.
    fn whole_step(&self, bound: Arc<Bound>, present: &[bool], role: Role) -> Result<Encoding> {
        let mut order = self.order.clone();
        order.step(&self.tensors, |i| present[i] && self.groups.rule_of(i).needs_look_ahead())?;
        let certain = !self.groups.wrappers().skips();
        let mut course = self.course.clone();
        let choices = course.step(&self.groups, Some(present).filter(|all| !all.iter().all(|&is| is)), certain)?;
        if certain {
            course.report(true);
        }
        let sequence = [self.place_of(&self.course), self.place_of(&course)];
        let parts = role.parts(self.groups.wrappers().measures());
        let tasks: Vec<_> = parts.iter().map(|&(_, stages, others)| Task { stages, sequence, others }).collect();
        let words = self.words(&choices, present, &tasks);
        let run = |((part, ..), words)| Run { bound: bound.clone(), part, words };
        let runs = parts.into_iter().zip(words).map(run).collect();
        let without_gradient = (0..present.len()).filter(|&i| !present[i]).collect();
        Ok(Encoding { step: Some(without_gradient), ..self.encoding(runs, course, order) })
    }

    /// A micro-batch added to the sums, and the step where it is the last one.
    fn micro_batch(&mut self, params: &Buffers, grads: &Grads, present: &[bool], sums: &Arena) -> Result<Encoding> {
        let bound = self.engine.bind(&sums.into(), Work::Accumulate(grads))?;
        let looks_ahead = |i: usize| present[i] && self.groups.rule_of(i).needs_look_ahead();
        self.order.batch((0..present.len()).any(looks_ahead))?;
        let started = |(&present, &begun): (&bool, &bool)| if present { u32::from(begun) } else { ABSENT };
        let words: Vec<u32> = present.iter().zip(&self.begun).map(started).collect();
        let begun: Vec<bool> = present.iter().zip(&self.begun).map(|(&present, &begun)| present || begun).collect();
        let slices: Vec<_> = (0..begun.len()).map(|i| begun[i].then(|| sums.slice_at(i))).collect();
        let all = begun.iter().all(|&begun| begun);
        let of_step = Grads::new(if all { Buffers::Arena(sums) } else { Buffers::Slices(slices) });
        let adds = Run { bound, part: Part::Whole, words };
        // A micro-batch that is not the last also binds the step, which refuses bad parameters before any sum is taken.
        let bound = self.engine.bind(params, Work::Step(&of_step))?;
        if self.batch + 1 < self.groups.wrappers().batches() {
            let encoding = self.encoding(vec![adds], self.course.clone(), self.order.clone());
            return Ok(Encoding { batch: self.batch + 1, begun, ..encoding });
        }
        let mut step = self.whole_step(bound, &begun, Role::Alone)?;
        step.runs.insert(0, adds);
        Ok(Encoding { batch: 0, begun: vec![false; begun.len()], ..step })
    }

    /// What the device counts, to notice an encoder that is missing: steps, where they may be skipped.
    fn place_of(&self, course: &Course) -> u32 {
        if self.groups.wrappers().skips() { course.attempts() as u32 } else { 0 }
    }

    /// The words of a step or a move, a list for each task.
    fn words(&self, choices: &Choices, present: &[bool], tasks: &[Task]) -> Vec<Vec<u32>> {
        match self.groups.wrappers().is_controlled() {
            true => course::words(&self.groups, &self.layout, choices, present, tasks),
            false => vec![choices.only().words(); tasks.len()],
        }
    }

    /// An encoding of these runs that leads to this course and order.
    fn encoding(&self, runs: Vec<Run>, course: Course, order: Order<Choices>) -> Encoding {
        let (batch, begun) = (self.batch, self.begun.clone());
        Encoding { runs, course, order, batch, begun, step: None, cleared: vec![] }
    }

    /// Refuses what cannot be between the micro-batches of a step.
    fn between_steps(&self, what: &'static str) -> Result<()> {
        between_steps(what, self.batch, self.groups.wrappers().batches())
    }

    /// The gradients to be cleared: buffer, first byte, bytes.
    fn to_clear(&self, grads: &Grads) -> Result<Vec<(wgpu::Buffer, u64, u64)>> {
        if !self.clears {
            return Ok(vec![]);
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let of_grads: Vec<_> = self.tensors.iter().map(TensorSpec::grad_spec).collect();
        let slices = grads.buffers.slices(self.engine.gpu(), "gradient", &of_grads, usage)?;
        let given = slices.into_iter().enumerate().filter_map(|(i, slice)| slice.filter(|_| grads.has(i)));
        let bytes = given.filter(|slice| slice.size > 0);
        Ok(bytes.map(|slice| (slice.buffer.clone(), slice.offset, slice.size.next_multiple_of(4))).collect())
    }

    /// Whether each step clears the gradients that it was given, once it has read them: also where it is skipped, and
    /// of micro-batches each; of a tensor in f16 with an odd length the half behind it, too. Their buffers need
    /// `COPY_DST` usage then. Off at first: gradients are left as they are.
    pub fn clear_grads(&mut self, clears: bool) {
        self.clears = clears;
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
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        self.between_steps("look-ahead")?;
        let bound = self.engine.bind(&params, Work::Move(Moving::Rule(Move::LookAhead)))?;
        let present = self.groups.present(params.present());
        let moved =
            |i: usize| present.as_ref().is_none_or(|present| present[i]) && self.groups.rule_of(i).needs_look_ahead();
        let mut order = self.order.clone();
        order.look(self.needs_look_ahead(), (0..self.tensors.len()).map(moved).collect())?;
        let choices = self.course.moved(|clocks| self.groups.moved(clocks, Moving::Rule(Move::LookAhead), moved))?;
        self.commit_move(encoder, bound, &choices, order)
    }

    /// [`encode_look_ahead`](Self::encode_look_ahead) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn look_ahead<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_look_ahead(encoder, params))
    }

    /// Encodes the move of the parameters to where the model is to be evaluated, for rules that train it elsewhere
    /// ([`has_eval`](Self::has_eval)); [`encode_training`](Self::encode_training) leads back, to rounding.
    /// In between a step is an error. The way back takes the same numbers, whatever is set or fed in between.
    ///
    /// # Errors
    /// [`Error::Order`] where no rule has such a move or the parameters stand there already; buffers as in
    /// [`encode`](Self::encode), all parameters given.
    pub fn encode_evaluation<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        self.between_steps("evaluation")?;
        let bound = self.bind_all(&params, Moving::Rule(Move::Evaluation))?;
        let choices =
            self.course.moved(|clocks| self.groups.moved(clocks, Moving::Rule(Move::Evaluation), |_| true))?;
        let mut order = self.order.clone();
        order.evaluate(self.has_eval(), choices.clone())?;
        self.commit_move(encoder, bound, &choices, order)
    }

    /// Encodes the way back from [`encode_evaluation`](Self::encode_evaluation).
    ///
    /// # Errors
    /// The same.
    pub fn encode_training<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        let bound = self.bind_all(&params, Moving::Rule(Move::Training))?;
        let mut order = self.order.clone();
        let choices = order.train()?;
        self.commit_move(encoder, bound, &choices, order)
    }

    /// Encodes the swap of the parameters with their running mean (`ema`), which is to be evaluated, and the way back
    /// with the next call: no byte is copied elsewhere, and none is lost. In between a step is an error. A tensor
    /// before its first step stays as it is.
    ///
    /// # Errors
    /// [`Error::Config`] without `ema`, [`Error::Field`] with `debias` ([`encode_ema_into`](Self::encode_ema_into)
    /// copies that mean), [`Error::Order`] in evaluation or between a look-ahead or a micro-batch and its step; buffers
    /// as in [`encode`](Self::encode), all parameters given.
    pub fn encode_swap_ema<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        self.between_steps("swap")?;
        check_swap(&self.groups)?;
        let bound = self.bind_all(&params, Moving::Wrapper("ema", Ema::SWAP))?;
        let mut order = self.order.clone();
        let numbers =
            || self.course.moved(|clocks| self.groups.moved(clocks, Moving::Wrapper("ema", Ema::SWAP), |_| true));
        let choices = order.swap(numbers)?;
        self.commit_move(encoder, bound, &choices, order)
    }

    /// Encodes a copy of the running mean of the parameters, as it is to be read, into other buffers. Tensors before
    /// their first step are left alone there.
    ///
    /// # Errors
    /// [`Error::Config`] without `ema`, [`Error::Order`] in evaluation or while the parameters are swapped with it;
    /// buffers as in [`encode`](Self::encode).
    pub fn encode_ema_into<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        copy: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let copy = copy.into();
        self.take_reports()?;
        check_ema(&self.groups)?;
        self.order.in_training("ema")?;
        let bound = self.bind_all(&copy, Moving::Wrapper("ema", Ema::READ))?;
        let choices =
            self.course.moved(|clocks| self.groups.moved(clocks, Moving::Wrapper("ema", Ema::READ), |_| true))?;
        self.commit_move(encoder, bound, &choices, self.order.clone())
    }

    /// [`encode_swap_ema`](Self::encode_swap_ema) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn swap_ema<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_swap_ema(encoder, params))
    }

    /// [`encode_ema_into`](Self::encode_ema_into) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn ema_into<'a>(&mut self, copy: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_ema_into(encoder, copy))
    }

    /// [`encode_evaluation`](Self::encode_evaluation) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn eval<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_evaluation(encoder, params))
    }

    /// [`encode_training`](Self::encode_training) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn train<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_training(encoder, params))
    }

    /// Binds all parameters for a move.
    fn bind_all(&mut self, params: &Buffers, to: Moving) -> Result<Arc<Bound>> {
        let bound = self.engine.bind(params, Work::Move(to))?;
        match params.present().and_then(|present| present.iter().position(|present| !present)) {
            Some(i) => Err(Error::Slice {
                what: "parameter",
                tensor: self.tensors[i].name.clone(),
                message: "is missing; all parameters move together".into(),
            }),
            None => Ok(bound),
        }
    }

    /// Takes back the latest encoding that was not taken back yet. Its encoder, or the command buffer made of it, must
    /// have been dropped without being submitted.
    ///
    /// # Errors
    /// [`Error::EncodedStep`] for another optimizer's token, one that is not the latest, one whose encoder was
    /// submitted or is there still, or, where no step may be skipped, one from before [`set_t`](Self::set_t),
    /// `set_carried` or `set_steps`.
    pub fn undo(&mut self, token: EncodedStep) -> Result<()> {
        let refuse = |message: &str| Err(Error::EncodedStep { message: message.into() });
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
                if let Some(waiting) = last.reports.then(|| self.waiting.pop_back()).flatten() {
                    if let Source::Device(receipt) = waiting.from {
                        receipt.finish();
                    }
                }
                self.course.go_back(last.course);
                (self.order, self.batch, self.begun) = (last.order, last.batch, last.begun);
                Ok(())
            }
            _ if self.undo.iter().any(|undo| undo.sequence == token.sequence) => {
                refuse("is not the latest encoding; take those after it back first")
            }
            _ => refuse("its work has run, it was taken back already, or a count of steps was set after it"),
        }
    }

    /// Whether the coming step, or its first micro-batch, needs a look-ahead before its gradients are computed.
    pub fn needs_look_ahead(&self) -> bool {
        self.batch == 0 && self.groups.have_move(Move::LookAhead)
    }

    /// Whether the model is to be evaluated elsewhere than its parameters are trained: see
    /// [`encode_evaluation`](Self::encode_evaluation).
    pub fn has_eval(&self) -> bool {
        self.groups.have_move(Move::Evaluation)
    }

    /// Sets the learning rate, from the next encoded step on. A group with a rate of its own keeps its ratio to the
    /// top level's.
    ///
    /// # Errors
    /// [`Error::Field`] for a rate that is negative or not finite, or where the device writes it (`on_device`),
    /// [`Error::Config`] where the rule's rate cannot change, [`Error::Order`] between a look-ahead and its step.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.order.settled("set_lr")?;
        self.groups.set_lr(lr)
    }

    /// Sets a numeric option by name, from the next encoded step on, at the top level and in every group that has no
    /// value of its own. `weight_decay` sets the number and keeps the kind.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown field, [`Error::Field`] for a value outside its bound, one that would need
    /// another pipeline or other state, or an option that the device writes (`on_device`).
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

    /// An option of the top level in the coming step, its schedule included; what the host has of one that is written
    /// on the device.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is no such option, [`Error::Field`] where its schedule leads out of bounds.
    pub fn value(&self, option: &str) -> Result<f64> {
        self.groups.value(option, self.course.hoped().steps.saturating_add(1))
    }

    /// [`value`](Self::value) of one group, counted as in the configuration's `groups`.
    ///
    /// # Errors
    /// The same, and [`Error::Group`] where there is no such group.
    pub fn group_value(&self, group: usize, option: &str) -> Result<f64> {
        self.groups.group_value(group, option, self.course.hoped().steps.saturating_add(1))
    }

    /// Feeds a metric, as the loss of a validation, to every schedule that has a plateau, those of groups included.
    ///
    /// # Errors
    /// [`Error::Field`] for NaN, or where no schedule has a plateau.
    pub fn feed(&mut self, metric: f64) -> Result<()> {
        self.order.settled("feed")?;
        self.groups.feed(metric)
    }

    /// The top level's schedule of an option: where its plateaus stand.
    pub fn scheduler(&self, option: &str) -> Option<&Scheduler> {
        self.groups.scheduler(option)
    }

    /// The top level's schedule of an option, to be resumed.
    pub fn scheduler_mut(&mut self, option: &str) -> Option<&mut Scheduler> {
        self.groups.scheduler_mut(option)
    }

    /// The schedule of an option that a group, counted as in the configuration's `groups`, has of its own; none where
    /// it follows the top level's.
    pub fn group_scheduler(&self, group: usize, option: &str) -> Option<&Scheduler> {
        self.groups.group_scheduler(group, option)
    }

    /// The same, to be resumed.
    pub fn group_scheduler_mut(&mut self, group: usize, option: &str) -> Option<&mut Scheduler> {
        self.groups.group_scheduler_mut(group, option)
    }

    /// Freezes every tensor that a name or `*` pattern matches, from the next encoded step on: each step treats it as
    /// one without a gradient, whether one is given or not. Parameter, state and `t` stay until it is
    /// [unfrozen](Self::unfreeze), and then go on. Moves to evaluation and back still take all parameters.
    ///
    /// # Errors
    /// [`Error::Pattern`] where it matches no tensor, [`Error::Order`] between a look-ahead and its step.
    pub fn freeze(&mut self, pattern: &str) -> Result<()> {
        self.order.settled("freeze")?;
        self.between_steps("freeze")?;
        self.groups.freeze(&self.tensors, pattern, true)
    }

    /// Lets every tensor that a name or `*` pattern matches take part in steps again; those that are not frozen do
    /// already.
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze).
    pub fn unfreeze(&mut self, pattern: &str) -> Result<()> {
        self.order.settled("unfreeze")?;
        self.between_steps("unfreeze")?;
        self.groups.freeze(&self.tensors, pattern, false)
    }

    /// Whether a tensor is frozen. None is at creation.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn frozen(&self, tensor: &str) -> Result<bool> {
        Ok(self.groups.is_frozen(find(&self.tensors, tensor)?))
    }

    /// Adds tensors behind those there are, each to the one group with a name or pattern that matches it, or else to
    /// the top level, once all submitted work is done. They start as at creation, at `t = 0`, with the options of now;
    /// schedules go on where they are. State, `t` and what is carried of the others stay. From now on parameters and
    /// gradients are those of all. The state is copied to larger buffers: for a moment the device holds it twice. What
    /// [`loss_scale_buffer`](Self::loss_scale_buffer), [`norms_buffer`](Self::norms_buffer) and
    /// [`on_device`](Self::on_device) name is elsewhere then: ask again, and bind it anew.
    ///
    /// # Errors
    /// [`Error::TensorTwice`] for a name that is there already; [`Error::Group`] for a tensor that two groups match;
    /// what is refused of tensors at creation; [`Error::Order`] between a look-ahead or a micro-batch and its step, in
    /// evaluation, and for an encoding that is neither submitted nor taken back. Nothing has changed then.
    pub async fn add(&mut self, tensors: &[TensorSpec]) -> Result<()> {
        self.grow("add", tensors, |groups, all| groups.add(all), false).await
    }

    /// Adds a group behind those there are, and tensors as [`add`](Self::add) does. The group matches new tensors
    /// alone; options that it leaves out are those that the top level has now.
    ///
    /// # Errors
    /// As [`add`](Self::add), and what is refused of a group at creation: a bad option or schedule, a name or pattern
    /// that matches none of the new tensors.
    pub async fn add_group(&mut self, group: Group, tensors: &[TensorSpec]) -> Result<()> {
        let step = self.steps().saturating_add(1);
        self.grow("add_group", tensors, |groups, all| groups.add_group(&group, all, step), false).await
    }

    /// [`add`](Self::add), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn add_blocking(&mut self, tensors: &[TensorSpec]) -> Result<()> {
        pollster::block_on(self.grow("add", tensors, |groups, all| groups.add(all), true))
    }

    /// [`add_group`](Self::add_group), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn add_group_blocking(&mut self, group: Group, tensors: &[TensorSpec]) -> Result<()> {
        let step = self.steps().saturating_add(1);
        let assign = |groups: &mut Groups, all: &[TensorSpec]| groups.add_group(&group, all, step);
        pollster::block_on(self.grow("add_group", tensors, assign, true))
    }

    async fn grow(
        &mut self,
        what: &'static str,
        tensors: &[TensorSpec],
        assign: impl FnOnce(&mut Groups, &[TensorSpec]) -> Result<()>,
        wait: bool,
    ) -> Result<()> {
        self.order.settled(what)?;
        self.order.in_training(what)?;
        self.between_steps(what)?;
        let from = self.tensors.len();
        let all = [&self.tensors[..], tensors].concat();
        let mut groups = self.groups.clone();
        assign(&mut groups, &all)?;
        self.settle_with(wait).await?;
        if self.undo.iter().any(|undo| !undo.state.is_done()) {
            let message = "an encoding is neither submitted nor taken back; its step would be lost".into();
            return Err(Error::Order { what, message });
        }
        let engine = Engine::new(self.engine.gpu(), &all, &groups)?;
        engine.take_over(&groups, &self.engine)?;
        self.course.change(|clocks| clocks.add(&groups.of()[from..]));
        self.begun.resize(all.len(), false);
        (self.layout, self.engine, self.tensors, self.groups) =
            (course::layout(all.len(), &groups), engine, all, groups);
        self.undo.clear();
        Ok(())
    }

    /// Applied steps of the optimizer, the encoded ones included, whichever tensors they had. Schedules follow them.
    /// Steps that may be skipped count as applied until they have [reported](Self::reports).
    pub fn steps(&self) -> u64 {
        self.course.hoped().steps
    }

    /// Sets the count of applied steps of the optimizer, as when a training with schedules is resumed.
    ///
    /// # Errors
    /// [`Error::Order`] between a look-ahead and its step.
    pub fn set_steps(&mut self, steps: u64) -> Result<()> {
        self.order.settled("set_steps")?;
        self.change_counts(|clocks| clocks.steps = steps);
        Ok(())
    }

    /// Applied steps of a tensor, the encoded ones included. Steps that may be skipped count as applied until they have
    /// [reported](Self::reports).
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn t(&self, tensor: &str) -> Result<u64> {
        Ok(self.course.hoped().clock(find(&self.tensors, tensor)?).t)
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
        self.change_counts(|clocks| clocks.set(i, |clock| (clock.t, clock.carried) = (t, carried)));
        Ok(())
    }

    /// What a tensor's rule carries from step to step beside `t`, on the host and in f64: running products and sums,
    /// 0 where it has none. Saved and set again, a training goes on with the same bits.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn carried(&self, tensor: &str) -> Result<Carried> {
        Ok(self.course.hoped().clock(find(&self.tensors, tensor)?).carried)
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
        self.change_counts(|clocks| clocks.set(i, |clock| clock.carried = carried));
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
            let undone = self.undo.iter_mut().map(|undo| &mut undo.course);
            let start = |course: &mut Course| course.change(|clocks| clocks.set(i, |clock| clock.started = true));
            undone.chain([&mut self.course]).for_each(start);
        }
        Ok(())
    }

    /// What a step with these buffers does. Makes its pipelines and tables, as [`warm_up`](Self::warm_up) does.
    ///
    /// # Errors
    /// Buffers as in [`encode`](Self::encode).
    pub fn plan<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<StepPlan> {
        let (params, grads) = (params.into(), Grads::new(grads.into()));
        let present = self.present(&grads);
        let mut accumulates = (0, 0);
        let wrappers = self.groups.wrappers().clone();
        let sums = self.engine.accumulated();
        let of_step = sums.as_ref().map_or(grads.clone(), |sums| Grads::new(Buffers::Arena(sums)));
        if let Some(sums) = &sums {
            let bound = self.engine.bind(&Buffers::Arena(sums), Work::Accumulate(&grads))?;
            accumulates = (1, bound.dispatches());
        }
        let (variants, tensors) = (self.engine.variants(), &self.tensors);
        let bound = self.engine.bind(&params, Work::Step(&of_step))?;
        let stepped = || (0..tensors.len()).filter(|&i| present[i]);
        let with_lines = stepped().filter(|&i| self.groups.rule_of(i).has_lines());
        let line_bytes = with_lines.filter_map(|i| self.groups.lines_of(i)).map(|lines| traffic::line_bytes(&lines));
        let bytes = stepped().map(|i| {
            let (clock, grad) = (self.course.hoped().clock(i), tensors[i].grad_dtype);
            let (t, first) = (clock.t.saturating_add(1), !clock.started);
            tensors[i].len_elements() * traffic::step_bytes(self.groups.rule_of(i), &wrappers, grad, t, first)
        });
        Ok(StepPlan {
            passes: bound.passes + accumulates.0,
            windows: bound.windows,
            dispatches: bound.dispatches() + accumulates.1,
            variants,
            bytes: bytes.sum(),
            line_bytes: line_bytes.sum(),
            scalar_tensors: bound.scalar.iter().map(|&i| tensors[i].name.clone()).collect(),
        })
    }

    /// Makes every pipeline, table and bind group that steps with these buffers need, so that the first step is as
    /// fast as the second.
    ///
    /// # Errors
    /// Buffers as in [`encode`](Self::encode).
    pub fn warm_up<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<()> {
        let (params, grads) = (params.into(), Grads::new(grads.into()));
        for to in [Move::LookAhead, Move::Evaluation, Move::Training] {
            if self.groups.have_move(to) {
                self.engine.bind(&params, Work::Move(Moving::Rule(to)))?;
            }
        }
        if check_swap(&self.groups).is_ok() {
            self.engine.bind(&params, Work::Move(Moving::Wrapper("ema", Ema::SWAP)))?;
        }
        let sums = self.engine.accumulated();
        let of_step = sums.as_ref().map_or(grads.clone(), |sums| Grads::new(Buffers::Arena(sums)));
        if let Some(sums) = &sums {
            self.engine.bind(&Buffers::Arena(sums), Work::Accumulate(&grads))?;
        }
        self.engine.bind(&params, Work::Step(&of_step))?;
        if self.groups.wrappers().is_controlled() {
            let buffer = self.reports.reserve(self.engine.gpu())?;
            self.reports.give_back(buffer);
        }
        let mut course = self.course.clone();
        let choices = course.step(&self.groups, None, !self.groups.wrappers().skips())?;
        let task = Task { stages: 0, sequence: [0, 0], others: 0 };
        for words in self.words(&choices, &vec![true; self.tensors.len()], &[task]) {
            self.engine.write(&words)?;
        }
        Ok(())
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
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Bytes of the device's memory that it holds now.
    pub fn memory(&self) -> Memory {
        let [state, accumulated, scratch, tables, steps] = self.engine.memory();
        Memory { state, accumulated, scratch, tables, steps }
    }

    /// Encodes into an encoder of its own, submitted.
    fn submit(
        &mut self,
        encode: impl FnOnce(&mut Self, &mut wgpu::CommandEncoder) -> Result<EncodedStep>,
    ) -> Result<()> {
        let mut encoder = self.engine.gpu().device().create_command_encoder(&Default::default());
        encode(self, &mut encoder)?;
        self.engine.gpu().queue().submit([encoder.finish()]);
        Ok(())
    }

    fn commit_move(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        bound: Arc<Bound>,
        choices: &Choices,
        order: Order<Choices>,
    ) -> Result<EncodedStep> {
        let now = self.place_of(&self.course);
        let task = Task { stages: stage::SELECT, sequence: [now, now], others: 0 };
        let words = self.words(choices, &vec![true; self.tensors.len()], &[task]);
        let run = |words| Run { bound: bound.clone(), part: Part::Whole, words };
        let runs = words.into_iter().map(run).collect();
        let encoding = self.encoding(runs, self.course.clone(), order);
        self.commit(encoder, encoding)
    }

    fn commit(&mut self, encoder: &mut wgpu::CommandEncoder, encoding: Encoding) -> Result<EncodedStep> {
        let ready = self.reserve(encoding)?;
        ready.encode(encoder, Part::Whole);
        Ok(self.note(encoder, ready))
    }

    /// Writes the words of an encoding, and takes a buffer for the report. This is the last thing that can fail.
    pub(crate) fn reserve(&mut self, encoding: Encoding) -> Result<Ready> {
        let slots = encoding.runs.iter().map(|run| self.engine.write(&run.words)).collect::<Result<_>>()?;
        let receipt = match &encoding.step {
            Some(_) if self.groups.wrappers().is_controlled() => Some(self.reports.reserve(self.engine.gpu())?),
            _ => None,
        };
        Ok(Ready { encoding, slots, receipt })
    }

    /// Notes what was encoded. Nothing here can fail.
    pub(crate) fn note(&mut self, encoder: &mut wgpu::CommandEncoder, ready: Ready) -> EncodedStep {
        let Ready { encoding: work, slots, receipt } = ready;
        for (buffer, offset, size) in &work.cleared {
            encoder.clear_buffer(buffer, *offset, Some(*size));
        }
        let state = slots.last().expect("every encoding has words").guard.state();
        for slot in slots {
            encoder.on_submitted_work_done(move || slot.guard.done());
        }
        let reports = work.step.is_some();
        if let Some(without_gradient) = work.step {
            let from = match (receipt, self.engine.control()) {
                (Some(buffer), Some(control)) => Source::Device(self.reports.encode(encoder, control, buffer)),
                _ => Source::Host(state.clone()),
            };
            self.waiting.push_back(Waiting { step: work.course.attempts(), without_gradient, from });
        }
        // What came before work that has run can no longer be taken back.
        if let Some(last) = self.undo.iter().rposition(|undo| undo.state.is_done()) {
            self.undo.drain(..=last);
        }
        self.sequence += 1;
        self.undo.push_back(Undo {
            sequence: self.sequence,
            course: std::mem::replace(&mut self.course, work.course),
            order: std::mem::replace(&mut self.order, work.order),
            batch: std::mem::replace(&mut self.batch, work.batch),
            begun: std::mem::replace(&mut self.begun, work.begun),
            state,
            reports,
        });
        EncodedStep { optimizer: self.id, sequence: self.sequence }
    }

    /// What became of steps, the oldest first: of those alone whose news has come, each once. Waits for nothing, and
    /// asks the device for nothing: wgpu brings news during later submits, and where the caller polls the device. The
    /// last 1024 are kept.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or [`Error::Order`] where encoders were submitted in another order than they were encoded
    /// in and steps may be skipped: no step can be taken then.
    pub fn reports(&mut self) -> Result<Vec<StepReport>> {
        let news = self.take_news();
        let arrived = self.arrived.drain(..).collect();
        news.map(|()| arrived)
    }

    /// Waits until all steps that were submitted have run, so that their [reports](Self::reports) are there.
    ///
    /// # Errors
    /// As [`reports`](Self::reports), and [`Error::Wgpu`].
    pub async fn settle(&mut self) -> Result<()> {
        self.settle_with(false).await
    }

    /// [`settle`](Self::settle), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn settle_blocking(&mut self) -> Result<()> {
        pollster::block_on(self.settle_with(true))
    }

    async fn settle_with(&mut self, wait: bool) -> Result<()> {
        self.engine.idle(wait).await?;
        self.take_news()
    }

    /// Takes in the news that has come, and refuses to go on where steps were lost.
    fn take_reports(&mut self) -> Result<()> {
        self.gpu().late_error()?;
        self.take_news()?;
        let wrappers = self.groups.wrappers();
        if (wrappers.skips() || wrappers.batches() > 1) && self.undo.iter().any(|undo| undo.state.is_dropped()) {
            let message = "the encoder of an encoding was dropped; forget its token".into();
            return Err(Error::Order { what: "step", message });
        }
        Ok(())
    }

    fn take_news(&mut self) -> Result<()> {
        const KEPT: usize = 1024;
        while let Some(waiting) = self.waiting.front() {
            let words = match &waiting.from {
                Source::Host(state) if state.is_done() => None,
                Source::Host(state) if state.is_dropped() => {
                    self.waiting.pop_front();
                    continue;
                }
                Source::Host(_) => break,
                Source::Device(receipt) => match receipt.look()? {
                    News::Words(words) => Some(words),
                    News::Dropped if !self.groups.wrappers().skips() => {
                        if let Some(Waiting { from: Source::Device(receipt), .. }) = self.waiting.pop_front() {
                            receipt.finish();
                        }
                        continue;
                    }
                    News::None | News::Dropped => break,
                },
            };
            let read = |word: usize| words.map_or(0, |words| words[word]);
            if read(control::SKIPPED) == OUT_OF_TURN {
                let message = format!("step {} ran out of the order of encoding; nothing fits any more", waiting.step);
                return Err(Error::Order { what: "step", message });
            }
            let applied = read(control::SKIPPED) == 0;
            let name = |&i: &usize| self.tensors[i].name.clone();
            let float = |word: u32| f64::from(f32::from_bits(word));
            let (measures, scales) = (self.groups.wrappers().measures(), self.groups.wrappers().loss_scale().is_some());
            let culprit = NonFinite::read(read(control::CULPRIT_KIND))
                .map(|kind| (name(&(read(control::CULPRIT) as usize)), kind));
            let all = words.filter(|_| measures).map(|words| Measured::<f32>::read(&words[control::ALL..]));
            let report = StepReport {
                step: waiting.step,
                applied,
                without_gradient: waiting.without_gradient.iter().map(name).collect(),
                norm: all.map(Measured::norm),
                scale: if scales { float(read(control::SCALE_USED)) } else { 1.0 },
                culprit,
            };
            if self.groups.wrappers().skips() {
                self.course.report(applied);
            }
            if let Some(Waiting { from: Source::Device(receipt), .. }) = self.waiting.pop_front() {
                receipt.finish();
            }
            if self.arrived.len() == KEPT {
                self.arrived.pop_front();
            }
            self.arrived.push_back(report);
        }
        Ok(())
    }

    /// The norms of the last step's gradients, before a clip, once all submitted work is done. In f64: sums of squares
    /// are kept so that none overflows.
    ///
    /// # Errors
    /// [`Error::Config`] where they are not measured, [`Error::Wgpu`] or [`Error::DeviceLost`].
    pub async fn norms(&self) -> Result<Norms> {
        self.read_norms(false).await
    }

    /// [`norms`](Self::norms), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn norms_blocking(&self) -> Result<Norms> {
        pollster::block_on(self.read_norms(true))
    }

    async fn read_norms(&self, wait: bool) -> Result<Norms> {
        self.check_norms()?;
        let words = self.engine.read_control(control::SCALE, Layout::of_tensor(self.tensors.len()), wait).await?;
        let norm = |first: usize| Measured::<f32>::read(&words[first..]).norm();
        let tensors = (0..self.tensors.len()).map(|i| norm(Layout::of_tensor(i) + tensor::MEASURED)).collect();
        Ok(Norms { all: norm(control::ALL), tensors })
    }

    fn check_norms(&self) -> Result<()> {
        if self.groups.wrappers().measures() {
            return Ok(());
        }
        Err(Error::Config { path: "norms".into(), message: "are not measured; set norms to true".into() })
    }

    /// The norms of the last step's gradients on the device, to be bound by the caller's kernels: f32, of all
    /// gradients, then of each tensor's in order. Above f32's largest number they are infinity.
    ///
    /// # Errors
    /// [`Error::Config`] where they are not measured.
    pub fn norms_buffer(&self) -> Result<Slice<'_>> {
        self.check_norms()?;
        Ok(self.of_control(self.layout.norms, self.layout.norms_len()))
    }

    /// The loss scale on the device, one f32, to be bound by the caller's backward pass: what it multiplies the loss
    /// by.
    ///
    /// # Errors
    /// [`Error::Config`] without `loss_scale`.
    pub fn loss_scale_buffer(&self) -> Result<Slice<'_>> {
        match self.groups.wrappers().loss_scale() {
            Some(_) => Ok(self.of_control(control::SCALE, 1)),
            None => Err(Error::Config { path: "loss_scale".into(), message: "is not set; there is no scale".into() }),
        }
    }

    /// The options that a kernel of the caller's writes (`on_device`), in the order of the configuration: f32, at first
    /// as configured. A step takes what stands there when it runs; nothing checks it. A schedule multiplies it, and a
    /// group with a rate of its own keeps its ratio to the top level's.
    ///
    /// # Errors
    /// [`Error::Config`] where there are none.
    pub fn on_device(&self) -> Result<Slice<'_>> {
        match self.groups.wrappers().on_device.len() {
            0 => {
                Err(Error::Config { path: "on_device".into(), message: "is not set; the host has all options".into() })
            }
            options => Ok(self.of_control(self.layout.options, options)),
        }
    }

    fn of_control(&self, first: usize, words: usize) -> Slice<'_> {
        Slice::new(self.control(), 4 * first as u64, 4 * words as u64)
    }

    /// The loss scale once all submitted work is done.
    ///
    /// # Errors
    /// [`Error::Config`] without `loss_scale`, [`Error::Wgpu`] or [`Error::DeviceLost`].
    pub async fn loss_scale(&self) -> Result<LossScaleState> {
        self.read_scale(false).await
    }

    /// [`loss_scale`](Self::loss_scale), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn loss_scale_blocking(&self) -> Result<LossScaleState> {
        pollster::block_on(self.read_scale(true))
    }

    async fn read_scale(&self, wait: bool) -> Result<LossScaleState> {
        self.loss_scale_buffer()?;
        let words = self.engine.read_control(control::SCALE, control::LEN, wait).await?;
        Ok(LossScaleState { scale: f32::from_bits(words[control::SCALE]).into(), good: words[control::GOOD] })
    }

    /// Sets the loss scale, before any work that is not yet submitted, as when a training is resumed.
    ///
    /// # Errors
    /// [`Error::Config`] without `loss_scale`, [`Error::Field`] for what is no power of two from 2^-24 to 2^24 or for
    /// more good steps than the interval has, [`Error::Order`] between micro-batches.
    pub fn set_loss_scale(&mut self, scale: LossScaleState) -> Result<()> {
        self.between_steps("set_loss_scale")?;
        check_scale(&self.groups, scale)?;
        self.engine.write_control(control::SCALE, &[(scale.scale as f32).to_bits()])?;
        self.engine.write_control(control::GOOD, &[scale.good])
    }
}

/// Norms of gradients.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Norms {
    /// Of all that were in the step.
    pub all: f64,
    /// Of each tensor's, in order; 0 where it had none.
    pub tensors: Vec<f64>,
}

/// How a step comes to its decision: whether to skip, and what to multiply the gradients by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// It decides by its own gradients.
    Alone,
    /// It decides for so many other optimizers, too.
    Leads { others: u32 },
    /// Another optimizer decides for it.
    Follows,
}

impl Role {
    /// The parts of the step that are encoded with words of their own, the stages of each, and how many other
    /// optimizers its decision is for.
    fn parts(self, measures: bool) -> Vec<(Part, u32, u32)> {
        let updates = stage::SELECT | stage::ADVANCE;
        let first = (Part::Measures, stage::MEASURE, 0);
        match self {
            Self::Alone if measures => vec![(Part::Whole, updates | stage::DECIDE | stage::MEASURE, 0)],
            Self::Alone => vec![(Part::Whole, updates | stage::DECIDE, 0)],
            Self::Leads { others } => vec![first, (Part::Updates, updates | stage::DECIDE, others)],
            Self::Follows => vec![first, (Part::Updates, updates, 0)],
        }
    }
}

/// A part of the dispatches of what was bound, and the words that they read.
#[derive(Debug)]
struct Run {
    bound: Arc<Bound>,
    part: Part,
    words: Vec<u32>,
}

/// An encoding whose words are written.
pub(crate) struct Ready {
    encoding: Encoding,
    /// One for each run.
    slots: Vec<Slot>,
    /// The buffer that the report of a step goes to, where the device decides.
    receipt: Option<wgpu::Buffer>,
}

impl Ready {
    /// Encodes the runs of this part.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder, part: Part) {
        for (run, slot) in self.encoding.runs.iter().zip(&self.slots).filter(|(run, _)| run.part == part) {
            run.bound.encode(encoder, slot, part);
        }
    }
}

/// What is to be encoded, and where the optimizer stands once it is.
#[derive(Debug)]
pub(crate) struct Encoding {
    /// In the order of their encoding.
    runs: Vec<Run>,
    course: Course,
    order: Order<Choices>,
    batch: u64,
    begun: Vec<bool>,
    /// Of a step, the tensors without gradient.
    step: Option<Vec<usize>>,
    cleared: Vec<(wgpu::Buffer, u64, u64)>,
}
