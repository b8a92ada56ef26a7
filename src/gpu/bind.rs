//! What a step or a move of certain buffers is bound to: its plan, table, bind groups and pipelines, kept for the
//! buffers used last.

use std::sync::Arc;

use super::binder::{Binder, Bindings, Call, ONCE, Value, run};
use super::buffers::Grads;
use super::engine::Engine;
use super::limits::{partial_words, sums};
use super::ring::Slot;
use super::slices::{Resolved, no_param};
use super::{Buffers, Slice};
use crate::codecs::DType;
use crate::error::{Error, Result};
use crate::init::short_stream;
use crate::plan::{Item, Plan, Span, Window, place, plan};
use crate::shader::{Pages, Skeleton, Walk, model_numbers};
use crate::tensor::{Access, Formats, TensorSpec};
use crate::wrappers::Moving;

/// How many tables are kept.
const TABLES: usize = 4;

/// What is encoded beside the parameters' buffers: a step with its gradients, or a move outside a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work<'a, 'b> {
    /// A step; the new parameters go to other buffers where there are any.
    Step(&'a Grads<'b>, Option<&'a Buffers<'b>>),
    Move(Moving),
    /// A micro-batch added to the sums, which stand where parameters do.
    Accumulate(&'a Grads<'b>),
}

impl<'a, 'b> Work<'a, 'b> {
    fn kind(self) -> Kind {
        match self {
            Self::Step(..) => Kind::Step,
            Self::Move(to) => Kind::Move(to),
            Self::Accumulate(_) => Kind::Accumulate,
        }
    }

    fn grads(self) -> Option<&'a Grads<'b>> {
        match self {
            Self::Step(grads, _) | Self::Accumulate(grads) => Some(grads),
            Self::Move(_) => None,
        }
    }

    fn outs(self) -> Option<&'a Buffers<'b>> {
        match self {
            Self::Step(_, outs) => outs,
            Self::Move(_) | Self::Accumulate(_) => None,
        }
    }
}

/// What is encoded, apart from the buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Step,
    Move(Moving),
    Accumulate,
}

/// Which dispatches of a step one encoding holds. A joint step encodes those that measure, of all optimizers, before
/// those that update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    /// All dispatches of the step.
    Whole,
    /// The dispatches that measure the gradients and combine what was measured.
    Measures,
    /// The dispatches that decide and update.
    Updates,
}

/// A plan, and its table on the device. Neither knows an address.
#[derive(Debug)]
pub(super) struct Planned {
    kind: Kind,
    access: Vec<Access>,
    pub(super) plan: Plan,
    pub(super) table: wgpu::Buffer,
}

/// All that encoding needs for certain buffers.
#[derive(Debug)]
pub(crate) struct Bound {
    /// What stands in a slot of the ring before the words of a step: the words of the dispatches, and the rows.
    pub(super) head: Vec<u32>,
    /// The dispatches that come before the decision.
    measures: Vec<Call>,
    decides: Option<Call>,
    calls: Vec<Call>,
    /// Windows of the update.
    pub(crate) windows: usize,
    /// Passes of the variant that has most.
    pub(crate) passes: usize,
    /// Tensors that take the scalar kernel.
    pub(crate) scalar: Vec<usize>,
}

impl Bound {
    /// Encodes a part of the dispatches as one pass, which reads the words in this slot.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder, slot: &Slot, part: Part) {
        let (measures, decides, calls) = (self.measures.iter(), self.decides.iter(), self.calls.iter());
        match part {
            Part::Whole => run(encoder, slot, measures.chain(decides).chain(calls)),
            Part::Measures => run(encoder, slot, measures.chain(decides)),
            Part::Updates => run(encoder, slot, decides.chain(calls)),
        }
    }

    /// How many dispatches the whole step has.
    pub(crate) fn dispatches(&self) -> usize {
        let calls = self.measures.iter().chain(&self.decides).chain(&self.calls);
        calls.map(|call| call.dispatches.len()).sum()
    }
}

/// Where parameters, gradients or outputs lie, for comparison from step to step.
#[derive(Debug)]
enum Where {
    Arena(u64),
    /// Buffers, and for each tensor which of them, first byte and bytes.
    Slices(Vec<wgpu::Buffer>, Vec<Option<(usize, u64, u64)>>),
}

impl Where {
    fn of(buffers: &Buffers) -> Self {
        let Buffers::Slices(slices) = buffers else {
            return Self::Arena(buffers.arena().map_or(0, |arena| arena.id()));
        };
        let mut found: Vec<wgpu::Buffer> = Vec::new();
        let mut place = |slice: &Slice| {
            // Neighbours mostly share a buffer, so only the last one is compared. A buffer that is listed twice does no
            // harm.
            if found.last() != Some(slice.buffer) {
                found.push(slice.buffer.clone());
            }
            (found.len() - 1, slice.offset, slice.size)
        };
        let places = slices.iter().map(|slice| slice.as_ref().map(&mut place)).collect();
        Self::Slices(found, places)
    }

    fn is(&self, buffers: &Buffers) -> bool {
        match (self, buffers) {
            (Self::Arena(id), _) => buffers.arena().is_some_and(|arena| arena.id() == *id),
            (Self::Slices(found, places), Buffers::Slices(slices)) => {
                let same = |(known, slice): (&Option<(usize, u64, u64)>, &Option<Slice>)| match (known, slice) {
                    (None, None) => true,
                    (Some((buffer, offset, size)), Some(slice)) => {
                        (*offset, *size) == (slice.offset, slice.size) && found[*buffer] == *slice.buffer
                    }
                    _ => false,
                };
                places.len() == slices.len() && places.iter().zip(slices).all(same)
            }
            _ => false,
        }
    }
}

/// A placement, and what was bound for it.
#[derive(Debug)]
pub(super) struct Placement {
    kind: Kind,
    params: Where,
    grads: Option<Where>,
    outs: Option<Where>,
    bound: Arc<Bound>,
}

impl Placement {
    fn is(&self, params: &Buffers, work: Work) -> bool {
        let same = |known: &Option<Where>, buffers: Option<&Buffers>| match (known, buffers) {
            (Some(known), Some(buffers)) => known.is(buffers),
            (None, None) => true,
            _ => false,
        };
        self.kind == work.kind()
            && self.params.is(params)
            && same(&self.grads, work.grads().map(|grads| &grads.buffers))
            && same(&self.outs, work.outs())
    }
}

impl Engine {
    /// Returns table, pipelines and bind groups for these buffers. New buffers are checked; what is missing is made.
    pub(crate) fn bind(&mut self, params: &Buffers, work: Work) -> Result<Arc<Bound>> {
        // The placement knows the arena, and does not know which of its tensors are given.
        if let (Buffers::Subset(subset), Some(grads)) = (params, work.grads()) {
            if let Some(i) = (0..subset.present.len()).find(|&i| !subset.present[i] && grads.has(i)) {
                return Err(no_param(&subset.arena.tensors()[i]));
            }
        }
        if let Some(at) = self.placements.iter().position(|known| known.is(params, work)) {
            self.placements[at..].rotate_left(1);
            return Ok(self.placements[self.placements.len() - 1].bound.clone());
        }
        let bound = Arc::new(self.make_bound(params, work)?);
        let kind = work.kind();
        let same = || self.placements.iter().enumerate().filter(|(_, known)| known.kind == kind);
        if same().count() >= self.gpu.tuning().placements as usize {
            let oldest = same().map(|(at, _)| at).next();
            oldest.map(|at| self.placements.remove(at));
        }
        self.placements.push(Placement {
            kind,
            params: Where::of(params),
            grads: work.grads().map(|grads| Where::of(&grads.buffers)),
            outs: work.outs().map(Where::of),
            bound: bound.clone(),
        });
        // A bind group that no placement uses keeps no buffer alive.
        self.groups.retain(|_, group| Arc::strong_count(group) > 1);
        Ok(bound)
    }

    /// Forgets placements, tables and bind groups, and with them the buffers.
    pub(crate) fn release(&mut self) {
        self.placements.clear();
        self.groups.clear();
        self.planned.clear();
        self.spare = None;
    }

    fn make_bound(&mut self, params: &Buffers, work: Work) -> Result<Bound> {
        let tensors = self.specs(work);
        let of_grads: Vec<_> = tensors.iter().map(TensorSpec::grad_spec).collect();
        let grads = work.grads().map(|grads| (&grads.buffers, &of_grads[..]));
        let slices = Resolved::new(&self.gpu, &tensors, params, grads, work.outs())?;
        let planned = match self.planned.iter().find(|known| known.kind == work.kind() && known.access == slices.access)
        {
            Some(planned) => planned.clone(),
            None => {
                let planned = Arc::new(self.make_planned(&tensors, &slices, work)?);
                if self.planned.len() == TABLES {
                    self.planned.remove(0);
                }
                self.planned.push(planned.clone());
                planned
            }
        };
        let plan = &planned.plan;
        let sizes: Vec<u64> = slices.buffers.iter().map(wgpu::Buffer::size).collect();
        let placed = |pieces| place(pieces, &slices.homes, &sizes, |variant| self.variants[variant].pages, self.bounds);
        let mut windows = [placed(&plan.chunks), placed(&plan.tiles)];
        windows.iter_mut().flatten().for_each(|window| self.bind_as_before(window, &slices.buffers));
        let (steps, accumulates) = (matches!(work, Work::Step(..)), matches!(work, Work::Accumulate(_)));
        let measures = steps && self.wrappers.measures();
        let mut binder = Binder::new(self, &planned, &windows, &slices.buffers);
        let mut bind = || {
            let measures = if measures { binder.measures()? } else { vec![] };
            let decides = match self.control.is_some() && !accumulates {
                true => Some(binder.call(0, Walk::new(Skeleton::Decide), None, &ONCE)?),
                false => None,
            };
            Ok((measures, decides, binder.calls(work)?))
        };
        let blamed = |error| match error {
            Error::Wgpu(_) => slices.blame(&self.gpu, &self.tensors).unwrap_or(error),
            error => error,
        };
        let (measures, decides, calls) = bind().map_err(blamed)?;
        let made = binder.finish();
        self.gpu.pipelines().keep(made.fresh);
        self.kernels.extend(made.kernels);
        self.groups.extend(made.groups);
        self.spare = made.spare;
        let scalar = (0..self.tensors.len())
            .filter(|&i| slices.access[i] == Access::Scalar && slices.homes[i].is_some())
            .collect();
        let stepped =
            (0..self.tensors.len()).filter(|&i| slices.homes[i].is_some() && self.tensors[i].len_elements() > 0);
        let passes = stepped.map(|i| self.variants[self.variant_of[i]].rule.passes().len()).max().unwrap_or(0);
        let passes = passes + usize::from(!measures.is_empty()) + 2 * usize::from(steps && self.wrappers.counts());
        Ok(Bound { head: made.head, measures, decides, calls, windows: windows[0].len(), passes, scalar })
    }

    /// The tensors in the formats of this work: sums of micro-batches, in f32, stand where a micro-batch has parameters
    /// and where the step has gradients.
    fn specs(&self, work: Work) -> Vec<TensorSpec> {
        let of = |tensor: &TensorSpec| match work {
            Work::Accumulate(_) => tensor.clone().with_dtype(DType::F32),
            Work::Step(..) if self.accumulated.is_some() => tensor.clone().with_grad_dtype(DType::F32),
            _ => tensor.clone(),
        };
        self.tensors.iter().map(of).collect()
    }

    /// Orders the pages of a window as a bind group that exists has them, so that gradients which change places among
    /// the same pages need no new one.
    fn bind_as_before(&self, window: &mut Window, buffers: &[wgpu::Buffer]) {
        if !matches!(window.pages, Pages::Many(_)) {
            return;
        }
        let is = |span: &Span, (buffer, offset, size): &Value| {
            (span.offset, span.size) == (*offset, *size) && buffers[span.buffer] == *buffer
        };
        let order = |known: &Bindings| -> Option<Vec<usize>> {
            let from = |value: &Value| window.spans.iter().position(|span| is(span, value));
            (known.values.len() == window.spans.len()).then(|| known.values.iter().map(from).collect()).flatten()
        };
        if let Some(order) = self.groups.keys().find_map(order) {
            window.reorder(&order);
        }
    }

    /// Returns the plan of this work, and its table on the device.
    fn make_planned(&self, tensors: &[TensorSpec], slices: &Resolved, work: Work) -> Result<Planned> {
        let (steps, accumulates) = (matches!(work, Work::Step(..)), matches!(work, Work::Accumulate(_)));
        let takes_part = |i: &usize| match work {
            Work::Step(..) | Work::Accumulate(_) | Work::Move(Moving::Wrapper(..)) => true,
            Work::Move(Moving::Rule(to)) => self.variants[self.variant_of[*i]].rule.moves().contains(&to),
        };
        let item = |i: usize| {
            let variant = &self.variants[self.variant_of[i]];
            let sums = steps && sums(&*variant.rule, &self.wrappers);
            Item {
                tensor: i,
                len: self.tensors[i].len_elements(),
                variant: self.variant_of[i],
                stream: short_stream(&self.tensors[i].name),
                access: slices.access[i],
                formats: match work.grads() {
                    Some(_) => tensors[i].formats(),
                    None => Formats { param: tensors[i].dtype, ..Formats::default() },
                },
                slots: if accumulates { 0 } else { variant.slots },
                state: if accumulates { vec![] } else { self.state_places[i].clone() },
                lines: self.lines[i].filter(|_| steps).map(|lines| (self.line_places[i], lines)),
                partial_words: if steps { partial_words(&*variant.rule, &self.wrappers) } else { 0 },
                sums,
                measured: steps && self.wrappers.measures(),
                of_model: steps && variant.rule.sums_over_model(),
                product: self.frames[i].filter(|_| steps),
                sides: self.sides[i].clone().filter(|_| steps),
            }
        };
        let items: Vec<Item> = (0..self.tensors.len()).filter(takes_part).map(item).collect();
        let of_model = self.variants.first().map_or(0, |variant| model_numbers(&*variant.rule));
        let numbers = (of_model + self.tensors.len() * self.tensor_numbers()) as u64;
        let plan = plan(&items, self.bounds, numbers)?;
        let table = self.gpu.scoped_now(|| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let size = (4 * plan.table.len() as u64).max(crate::tensor::ALIGNMENT);
            let table = self.gpu.create_buffer("wgpu-optim/table", size, usage);
            self.gpu.queue().write_buffer(&table, 0, bytemuck::cast_slice(&plan.table));
            table
        })?;
        Ok(Planned { kind: work.kind(), access: slices.access.clone(), plan, table })
    }
}
