//! The public stepper: from the tensors and buffers of a step to what is encoded of it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clocks, Order};
use crate::config::Config;
use crate::course::{self, Choices, Course, Task};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Bound, Buffers, Engine, Gpu, Grads, News, Part, Reports, Slice, Slot, Work};
use crate::report::StepReport;
use crate::rule::{Move, Renewal};
use crate::session::{Session, session_methods};
use crate::tensor::TensorSpec;
use crate::words::{ABSENT, Layout, stage};
use crate::wrappers::Wrappers;

mod growth;
mod history;
mod minimize;
mod moves;
mod plan;
mod reports;
mod saved;
mod slots;
mod telemetry;

use history::{Encoded, History, Leaves, OfStep, Standing};
pub use plan::{Memory, StepPlan};
pub use telemetry::Norms;

/// An optimizer on the GPU: state, clocks, and the encoding of steps.
///
/// Nothing is read back and nothing waits in a step, up to 1023 steps in flight where steps may be skipped. Numbers
/// that depend on `t` are computed on the host in f64 and travel with the step; a tensor without a gradient, or one
/// that is [frozen](Self::freeze), is touched by nothing, and its `t` stays.
#[derive(Debug)]
pub struct Optimizer {
    id: u64,
    session: Session<History>,
    layout: Layout,
    engine: Engine,
    /// Encodings so far.
    sequence: u64,
    clears: bool,
    reports: Reports,
    arrived: VecDeque<StepReport>,
}

/// An encoded step or move, to be taken back with [`Optimizer::undo`] where its encoder is not submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedStep {
    optimizer: u64,
    sequence: u64,
}

impl Optimizer {
    /// An optimizer for these tensors, its state at the start, of a rule or a [`Config`]. Nothing waits, as in
    /// [`Arena::new`].
    ///
    /// # Errors
    /// A bad option, group or list of tensors, a state slot too large for a buffer of the
    /// device, or [`Error::Wgpu`] when its memory does not hold the state.
    pub fn new(gpu: &Gpu, tensors: &[TensorSpec], config: impl Into<Config>) -> Result<Self> {
        let config: Config = config.into();
        let groups = config.groups(tensors)?;
        let engine = Engine::new(gpu, tensors, &groups)?;
        let history = History::new(&Clocks::new(groups.of()), &groups);
        Ok(Self {
            id: Self::next_id(),
            layout: course::layout(tensors.len(), &groups),
            session: Session::new(tensors, groups, history),
            engine,
            sequence: 0,
            clears: false,
            reports: Reports::default(),
            arrived: VecDeque::new(),
        })
    }

    /// The number by which an optimizer knows its encodings.
    fn next_id() -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(0);
        IDS.fetch_add(1, Ordering::Relaxed)
    }

    /// Encodes one step: an update of every tensor that has a gradient, from `grads` into `params`.
    ///
    /// Any number of steps may be encoded before one is submitted, in one encoder or several; they must be submitted in
    /// the order of encoding. Where the encoder is dropped instead, give what this returns to [`undo`](Self::undo).
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
        let encoding = self.prepare(&params.into(), &Grads::new(grads.into()), None, Role::Alone)?;
        self.commit(encoder, encoding)
    }

    /// Encodes one step out of place: it reads `params` and writes the new parameters to `outs`, for callers whose
    /// parameters others still read. It moves as many bytes as [`encode`](Self::encode).
    ///
    /// Parameters that the step leaves alone, since it is skipped or they are frozen or without gradient, are copied to
    /// `outs`; an output that is `None` is left out. Of micro-batches the last one alone writes.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); an output that is missing where there is a gradient, or that shares bytes with
    /// another output, a parameter or a gradient ([`Error::Aliased`]); [`Error::Limit`] where the device cannot bind
    /// three buffers of values at once.
    pub fn encode_into<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
        grads: impl Into<Buffers<'a>>,
        outs: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let (params, outs) = (params.into(), outs.into());
        let encoding = self.prepare(&params, &Grads::new(grads.into()), Some(&outs), Role::Alone)?;
        self.commit(encoder, encoding)
    }

    /// All that a step needs, bound and computed.
    pub(crate) fn prepare<'a>(
        &mut self,
        params: &Buffers<'a>,
        grads: &Grads<'a>,
        outs: Option<&Buffers<'a>>,
        role: Role,
    ) -> Result<Encoding> {
        self.session.check_step()?;
        self.prepare_step(params, grads, outs, role)
    }

    /// The same, of a step that a line search may be part of.
    fn prepare_step<'a>(
        &mut self,
        params: &Buffers<'a>,
        grads: &Grads<'a>,
        outs: Option<&Buffers<'a>>,
        role: Role,
    ) -> Result<Encoding> {
        self.take_reports()?;
        let cleared = self.to_clear(grads)?;
        let zeros = self.zeros(grads)?;
        let filled = zeros.as_ref().map(|zeros| self.filled(grads, zeros)).transpose()?;
        let grads = filled.as_ref().unwrap_or(grads);
        let present = self.present(grads);
        let encoding = match self.engine.accumulated() {
            None => {
                let bound = self.engine.bind(params, Work::Step(grads, outs))?;
                self.whole_step(bound, present, 1, role)?
            }
            Some(sums) => self.micro_batch(params, grads, outs, present, &sums)?,
        };
        Ok(Encoding { cleared, ..encoding })
    }

    /// Zeros for the tensors without gradient whose rule counts them as ones with a gradient of 0.
    fn zeros(&mut self, grads: &Grads) -> Result<Option<wgpu::Buffer>> {
        if grads.given().is_none() {
            return Ok(None);
        }
        let size = |i: usize| self.session.tensors[i].grad_size_bytes();
        let missing = (0..self.session.tensors.len()).filter(|&i| self.is_filled(grads, i));
        missing.map(size).max().map(|bytes| self.engine.zeros(bytes)).transpose()
    }

    fn is_filled(&self, grads: &Grads, tensor: usize) -> bool {
        !grads.has(tensor) && self.session.groups.rule_of(tensor).history().is_some()
    }

    /// These gradients, with zeros where they are missing and count.
    fn filled<'a>(&self, grads: &Grads<'a>, zeros: &'a wgpu::Buffer) -> Result<Grads<'a>> {
        let specs: Vec<_> = self.session.tensors.iter().map(TensorSpec::grad_spec).collect();
        let given = grads.buffers.slices(self.engine.gpu(), "gradient", &specs, wgpu::BufferUsages::STORAGE)?;
        let fill = |(i, slice): (usize, Option<Slice<'a>>)| match self.is_filled(grads, i) {
            true => Some(Slice { buffer: zeros, offset: 0, size: specs[i].size_bytes() }),
            false => slice.filter(|_| grads.has(i)),
        };
        Ok(Grads::new(Buffers::Slices(given.into_iter().enumerate().map(fill).collect())))
    }

    /// The step of these tensors, of so many micro-batches, whose buffers are bound. `None` stands for all tensors.
    fn whole_step(
        &mut self,
        bound: Arc<Bound>,
        present: Option<Vec<bool>>,
        batches: u64,
        role: Role,
    ) -> Result<Encoding> {
        let (course, choices) = self.step_course(present.as_deref(), batches)?;
        let mut order = self.session.order.clone();
        let looked = order.has_looked();
        let groups = &self.session.groups;
        let looks_ahead = groups.have_move(Move::LookAhead);
        let is_present = |i: usize| present.as_ref().is_none_or(|present| present[i]);
        let needs = |i: usize| is_present(i) && groups.rule_of(i).needs_look_ahead();
        order.step(looks_ahead, &self.session.tensors, needs)?;
        let sequence = self.coming_sequence();
        let parts = role.parts(self.session.groups.wrappers().measures());
        let tasks: Vec<_> =
            parts.iter().map(|&(_, stages, others)| Task { stages, sequence, others, batches }).collect();
        let words = self.words(&choices, present.as_deref(), &tasks);
        let renewals = self.renewals(&bound, &choices);
        let run = |((part, _, _), words): ((Part, u32, u32), Vec<u32>)| {
            let renewals = renewals.clone();
            Run { bound: bound.clone(), part, words, renewals }
        };
        let runs = parts.into_iter().zip(words).map(run).collect();
        let number = self.session.counts.attempts + 1;
        Ok(Encoding {
            step: Some(OfStep { number, present, batches }),
            leaves: if looked { Leaves::Moved } else { Leaves::Update },
            ..self.encoding(runs, course, order)
        })
    }

    /// How a step with these numbers may renew bases.
    fn renewals(&self, bound: &Bound, choices: &Choices) -> Vec<Renewal> {
        if bound.renews() { choices.renewals(&self.session.groups) } else { vec![] }
    }

    /// The course behind a step of these tensors, and the step's numbers. Beyond the bounds of a course this waits for
    /// the device, which must first say what became of earlier steps; where it says nothing new, as of steps that are
    /// not submitted, and in a browser, which cannot wait here, the bound is the error.
    fn step_course(&mut self, present: Option<&[bool]>, batches: u64) -> Result<(Course, Choices)> {
        let certain = !self.session.groups.wrappers().skips();
        let step = |optimizer: &Self| {
            let mut course = optimizer.session.counts.course.clone();
            let choices = course.step(&optimizer.session.groups, present, batches, certain)?;
            Ok((course, choices))
        };
        let first = step(self);
        #[cfg(not(target_arch = "wasm32"))]
        if matches!(first, Err(Error::Order { .. })) {
            let known = self.session.counts.course.reported();
            self.engine.gpu().wait()?;
            self.take_news()?;
            if self.session.counts.course.reported() > known {
                return step(self);
            }
        }
        first
    }

    /// A micro-batch added to the sums, and the step where it is the last one.
    fn micro_batch(
        &mut self,
        params: &Buffers,
        grads: &Grads,
        outs: Option<&Buffers>,
        present: Option<Vec<bool>>,
        sums: &Arena,
    ) -> Result<Encoding> {
        let present = present.unwrap_or_else(|| vec![true; self.session.tensors.len()]);
        let bound = self.engine.bind(&sums.into(), Work::Accumulate(grads))?;
        let looks_ahead = |i: usize| present[i] && self.session.groups.rule_of(i).needs_look_ahead();
        self.session.order.batch((0..present.len()).any(looks_ahead))?;
        let started = |(&present, &begun): (&bool, &bool)| if present { u32::from(begun) } else { ABSENT };
        let words: Vec<u32> = present.iter().zip(&self.session.begun).map(started).collect();
        let begun: Vec<bool> =
            present.iter().zip(&self.session.begun).map(|(&present, &begun)| present || begun).collect();
        let of_step = sums_of(sums, &begun);
        let adds = Run { bound, part: Part::Whole, words, renewals: vec![] };
        // A micro-batch that is not the last also binds the step, which refuses bad parameters before any sum is taken.
        let bound = self.engine.bind(params, Work::Step(&of_step, outs))?;
        if self.session.batch + 1 < self.session.groups.wrappers().batches() {
            let encoding = self.encoding(vec![adds], self.session.counts.course.clone(), self.session.order.clone());
            return Ok(Encoding { batch: self.session.batch + 1, begun, leaves: Leaves::Sums, ..encoding });
        }
        let mut step = self.whole_step(bound, self.present(&of_step), self.session.batch + 1, Role::Alone)?;
        step.runs.insert(0, adds);
        Ok(Encoding { batch: 0, begun: vec![false; begun.len()], ..step })
    }

    /// Encodes the step of the micro-batches since the last one before they are all there, as where an epoch ends: the
    /// gradient is the mean of those there are. [`drop_micro_batches`](Self::drop_micro_batches) leaves them out
    /// instead.
    ///
    /// # Errors
    /// [`Error::Order`] where no micro-batch waits; as [`encode`](Self::encode).
    pub fn encode_early<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        self.take_reports()?;
        self.session.check_early()?;
        let sums = self.engine.accumulated().expect("there are micro-batches");
        let of_step = sums_of(&sums, &self.session.begun);
        let bound = self.engine.bind(&params.into(), Work::Step(&of_step, None))?;
        let step = self.whole_step(bound, self.present(&of_step), self.session.batch, Role::Alone)?;
        self.commit(encoder, Encoding { batch: 0, begun: vec![false; self.session.tensors.len()], ..step })
    }

    /// [`encode_early`](Self::encode_early) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn step_early<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_early(encoder, params))
    }

    /// Which tensors have a gradient and are not frozen; `None` for all.
    fn present(&self, grads: &Grads) -> Option<Vec<bool>> {
        self.session.groups.present(grads.given().map(<[bool]>::to_vec))
    }

    /// The number that the device knows the coming encoding by.
    fn coming_sequence(&self) -> u32 {
        // Whether one of two numbers is the later one is told by their difference, so they may wrap.
        (self.sequence + 1) as u32
    }

    /// The words of a step or a move, a list for each task. `None` stands for all tensors.
    fn words(&self, choices: &Choices, present: Option<&[bool]>, tasks: &[Task]) -> Vec<Vec<u32>> {
        match self.session.groups.wrappers().is_controlled() {
            true => course::words(&self.session.groups, &self.layout, choices, present, tasks),
            false => vec![choices.words_of_only(); tasks.len()],
        }
    }

    /// An encoding of these runs that leads to this course and order.
    fn encoding(&self, runs: Vec<Run>, course: Course, order: Order<Choices>) -> Encoding {
        let (batch, begun) = (self.session.batch, self.session.begun.clone());
        Encoding { runs, course, order, batch, begun, step: None, leaves: Leaves::Update, cleared: vec![] }
    }

    /// The gradients to be cleared: buffer, first byte, bytes.
    fn to_clear(&self, grads: &Grads) -> Result<Vec<(wgpu::Buffer, u64, u64)>> {
        if !self.clears {
            return Ok(vec![]);
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let of_grads: Vec<_> = self.session.tensors.iter().map(TensorSpec::grad_spec).collect();
        let slices = grads.buffers.slices(self.engine.gpu(), "gradient", &of_grads, usage)?;
        let given = slices.into_iter().enumerate().filter(|(i, _)| grads.has(*i));
        let bytes: Vec<_> = given.filter_map(|(i, slice)| Some((i, slice.filter(|slice| slice.size > 0)?))).collect();
        if let Some((i, slice)) = bytes.iter().find(|(_, slice)| slice.offset % 4 != 0) {
            let message = format!("offset is {}, must be a multiple of 4 bytes to be cleared", slice.offset);
            return Err(Error::Slice { what: "gradient", tensor: self.session.tensors[*i].name.clone(), message });
        }
        Ok(bytes
            .into_iter()
            .map(|(_, slice)| (slice.buffer.clone(), slice.offset, slice.size.next_multiple_of(4)))
            .collect())
    }

    /// Sets whether each step clears the gradients that it was given, once it has read them. A step that is skipped
    /// clears them, too, and so does every micro-batch. A gradient of 16 bits with an odd number of elements ends in
    /// the middle of a word of 4 bytes; the step then also clears the other half of that word. A gradient that starts
    /// in the middle of one is refused. The buffers need `COPY_DST` usage.
    /// At first this is off, and gradients stay as they are.
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

    /// Encodes into an encoder of its own, submitted.
    fn submit(
        &mut self,
        encode: impl FnOnce(&mut Self, &mut wgpu::CommandEncoder) -> Result<EncodedStep>,
    ) -> Result<()> {
        let gpu = self.engine.gpu().clone();
        let mut encoder = gpu.encoder()?;
        encode(self, &mut encoder)?;
        let latest = self.session.counts.encodings.len() - 1;
        let submitted = gpu.submit(encoder).and_then(|()| match self.session.counts.encodings[latest].receipt.look() {
            News::Unread => Err(gpu.lost("a submit was refused")),
            _ => Ok(()),
        });
        if submitted.is_err() {
            self.take_back(latest);
            self.session.counts.encodings.pop_back();
        }
        submitted
    }

    fn commit(&mut self, encoder: &mut wgpu::CommandEncoder, encoding: Encoding) -> Result<EncodedStep> {
        let ready = self.reserve(encoding)?;
        ready.encode(encoder, Part::Whole);
        Ok(self.note(encoder, ready))
    }

    /// Writes the words of an encoding, and takes a buffer for the report. This is the last thing that can fail.
    pub(crate) fn reserve(&mut self, encoding: Encoding) -> Result<Ready> {
        let serial = self.reports.next_serial();
        let write = |run: &Run| self.engine.write(&run.bound, &run.words, serial);
        let slots = encoding.runs.iter().map(write).collect::<Result<_>>()?;
        let report = self.reports.reserve(self.engine.gpu())?;
        Ok(Ready { encoding, slots, report })
    }

    /// Notes what was encoded. Nothing here can fail.
    pub(crate) fn note(&mut self, encoder: &mut wgpu::CommandEncoder, ready: Ready) -> EncodedStep {
        let Ready { encoding: work, slots, report } = ready;
        for (buffer, offset, size) in &work.cleared {
            encoder.clear_buffer(buffer, *offset, Some(*size));
        }
        let receipt = self.reports.encode(encoder, slots, self.engine.control(), report);
        self.sequence += 1;
        self.session.counts.attempts += u64::from(work.step.is_some());
        self.session.counts.encodings.push_back(Encoded {
            sequence: self.sequence,
            before: Standing {
                course: std::mem::replace(&mut self.session.counts.course, work.course),
                order: std::mem::replace(&mut self.session.order, work.order),
                batch: std::mem::replace(&mut self.session.batch, work.batch),
                begun: std::mem::replace(&mut self.session.begun, work.begun),
            },
            receipt,
            step: work.step,
            leaves: work.leaves,
            fixed: false,
            taken_back: false,
        });
        EncodedStep { optimizer: self.id, sequence: self.sequence }
    }

    /// What is wrapped around the rule.
    pub(crate) fn wrappers(&self) -> &Wrappers {
        self.session.groups.wrappers()
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

    session_methods!();
}

/// The sums of micro-batches that are begun, as gradients.
fn sums_of<'a>(sums: &'a Arena, begun: &[bool]) -> Grads<'a> {
    let slices: Vec<_> = (0..begun.len()).map(|i| begun[i].then(|| sums.slice_at(i))).collect();
    let all = begun.iter().all(|&begun| begun);
    Grads::new(if all { Buffers::Arena(sums) } else { Buffers::Slices(slices) })
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
    /// How the step may renew bases.
    renewals: Vec<Renewal>,
}

/// An encoding whose words are written.
pub(crate) struct Ready {
    encoding: Encoding,
    /// One for each run.
    slots: Vec<Slot>,
    /// The buffer that the report goes to.
    report: wgpu::Buffer,
}

impl Ready {
    /// Encodes the runs of this part.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder, part: Part) {
        for (run, slot) in self.encoding.runs.iter().zip(&self.slots).filter(|(run, _)| run.part == part) {
            run.bound.encode(encoder, slot, part, &run.renewals);
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
    step: Option<OfStep>,
    leaves: Leaves,
    cleared: Vec<(wgpu::Buffer, u64, u64)>,
}
