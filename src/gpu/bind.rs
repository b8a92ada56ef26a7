//! What a step or a move of certain buffers is bound to: its plan, table, bind groups and pipelines, kept for the
//! buffers used last.

use std::collections::HashSet;
use std::sync::Arc;

use super::binder::{Binder, Bindings, Call, New, ONCE, Value, run};
use super::buffers::Grads;
use super::engine::Engine;
use super::limits::{partial_words, sums};
use super::ring::Slot;
use super::slices::{Resolved, no_param};
use super::variants::Variant;
use super::{Buffers, Slice};
use crate::codecs::DType;
use crate::error::{Error, Result};
use crate::init::short_stream;
use crate::plan::{Item, Piece, Plan, Span, Window, place, plan};
use crate::rule::Renewal;
use crate::shader::{Pages, Skeleton, Walk, model_numbers};
use crate::storage::Room;
use crate::tensor::{Access, Formats, TensorSpec};
use crate::words::row;
use crate::wrappers::Moving;

/// How many tables are kept.
const TABLES: usize = 4;

/// What is encoded beside the parameters' buffers: a step with its gradients, or a move outside a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work<'a, 'b> {
    /// A step; the new parameters go to other buffers where there are any.
    Step(&'a Grads<'b>, Option<&'a Buffers<'b>>),
    Move(Moving),
    /// A look at the gradient of a trial of a line search.
    Probe(&'a Grads<'b>),
    /// A micro-batch added to the sums, which stand where parameters do.
    Accumulate(&'a Grads<'b>),
}

impl<'a, 'b> Work<'a, 'b> {
    fn kind(self) -> Kind {
        match self {
            Self::Step(..) => Kind::Step,
            Self::Move(to) => Kind::Move(to),
            Self::Probe(_) => Kind::Probe,
            Self::Accumulate(_) => Kind::Accumulate,
        }
    }

    fn grads(self) -> Option<&'a Grads<'b>> {
        match self {
            Self::Step(grads, _) | Self::Probe(grads) | Self::Accumulate(grads) => Some(grads),
            Self::Move(_) => None,
        }
    }

    fn outs(self) -> Option<&'a Buffers<'b>> {
        match self {
            Self::Step(_, outs) => outs,
            Self::Move(_) | Self::Probe(_) | Self::Accumulate(_) => None,
        }
    }
}

/// What is encoded, apart from the buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Step,
    Move(Moving),
    Probe,
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
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// What stands in a slot of the ring before the words of a step: the words of the dispatches, and the rows.
    pub(super) head: Arc<[u32]>,
    /// The dispatches that come before the decision.
    measures: Arc<[Call]>,
    decides: Option<Arc<Call>>,
    calls: Arc<[Call]>,
    /// Rows of gradients that may lie elsewhere in the next step.
    movable: Arc<[Movable]>,
    /// Windows of the update.
    pub(crate) windows: usize,
    /// Passes of the variant that has most.
    pub(crate) passes: usize,
    /// Tensors that take the scalar kernel.
    pub(crate) scalar: Vec<usize>,
}

impl Bound {
    /// Encodes a part of the dispatches as one pass, which reads the words in this slot. Of those that renew bases it
    /// encodes the ways that the step may take.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder, slot: &Slot, part: Part, renewals: &[Renewal]) {
        let (measures, decides) = (self.measures.iter(), self.decides.as_deref());
        let calls = self.calls_with(renewals);
        match part {
            Part::Whole => run(encoder, slot, measures.chain(decides).chain(calls)),
            Part::Measures => run(encoder, slot, measures.chain(decides)),
            Part::Updates => run(encoder, slot, decides.into_iter().chain(calls)),
        }
    }

    /// The dispatches behind the decision, of a step that may renew bases in these ways.
    fn calls_with<'a>(&'a self, renewals: &'a [Renewal]) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(|call| call.only.is_none_or(|only| renewals.contains(&only)))
    }

    /// Whether there are dispatches that renew bases.
    pub(crate) fn renews(&self) -> bool {
        self.calls.iter().any(|call| call.only.is_some())
    }

    /// How many dispatches the whole step has, where it may renew bases in these ways.
    pub(crate) fn dispatches(&self, renewals: &[Renewal]) -> usize {
        self.measures.iter().chain(self.decides.as_deref()).chain(self.calls_with(renewals)).map(Call::count).sum()
    }
}

/// The rows of a window, where its gradients may move within buffers that it binds and does not write. Such a move
/// changes two words a row, and needs none of the checks that a new buffer does.
#[derive(Debug)]
struct Movable {
    /// The word of the head at which the first row stands.
    first: usize,
    /// Words from one row to the next.
    stride: usize,
    /// The formats of its tensors.
    formats: Formats,
    /// The tensor of each row that has a gradient.
    rows: Vec<Option<usize>>,
    /// What the window binds, with nothing in the place of what it writes.
    pages: Vec<Option<Value>>,
}

impl Movable {
    /// Writes the rows of these gradients into a head. `None` where one of them lies outside the pages, or where the
    /// vec4 kernel cannot read it.
    fn put(&self, head: &mut [u32], grads: &[Option<Slice>]) -> Option<()> {
        let Formats { param, grad } = self.formats;
        // Sizes are powers of two, and a division takes longer than the rest of a row.
        let (shift, grid) = (grad.size_bytes().trailing_zeros(), grad.quad_bytes() - 1);
        let grid_of_end = grid.max(param.quad_bytes() - 1);
        let mut page = 0;
        for (row, words) in self.rows.iter().zip(head[self.first..].chunks_mut(self.stride)) {
            let Some(tensor) = *row else { continue };
            let slice = grads[tensor].as_ref()?;
            let start_in = |page: &Option<Value>| {
                let (buffer, offset, size) = page.as_ref()?;
                let is_inside = buffer == slice.buffer
                    && (*offset..offset + size).contains(&slice.offset)
                    && (slice.offset + slice.size + grid_of_end) & !grid_of_end <= offset + size;
                is_inside.then(|| slice.offset - offset)
            };
            // Neighbours mostly share a page, so the last one found is tried first.
            let start = start_in(&self.pages[page]).or_else(|| {
                let (found, start) = self.pages.iter().enumerate().find_map(|(i, page)| Some((i, start_in(page)?)))?;
                page = found;
                Some(start)
            })?;
            if slice.offset & grid != 0 {
                return None;
            }
            words[row::GRAD] = (start >> shift) as u32;
            if self.stride > row::GRAD_PAGE {
                words[row::GRAD_PAGE] = page as u32;
            }
        }
        Some(())
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

    /// Whether slices are given for the same tensors, and none of these is empty.
    fn is_like(&self, slices: &[Option<Slice>]) -> bool {
        let Self::Slices(_, places) = self else { return false };
        let same = |(known, slice): (&Option<(usize, u64, u64)>, &Option<Slice>)| match (known, slice) {
            (None, None) => true,
            (Some((.., size)), Some(slice)) => *size == slice.size && *size > 0,
            _ => false,
        };
        places.len() == slices.len() && places.iter().zip(slices).all(same)
    }
}

/// A placement, and what was bound for it.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    kind: Kind,
    params: Arc<Where>,
    grads: Option<Arc<Where>>,
    outs: Option<Arc<Where>>,
    bound: Arc<Bound>,
}

impl Placement {
    fn of(params: &Buffers, work: Work, bound: Bound) -> Self {
        let place = |buffers: &Buffers| Arc::new(Where::of(buffers));
        Self {
            kind: work.kind(),
            params: place(params),
            grads: work.grads().map(|grads| place(&grads.buffers)),
            outs: work.outs().map(place),
            bound: Arc::new(bound),
        }
    }

    /// Whether all values lie here. Gradients move most often, so they come first.
    fn is(&self, params: &Buffers, work: Work) -> bool {
        same(&self.grads, work.grads().map(|grads| &grads.buffers)) && self.is_but_for_grads(params, work)
    }

    fn is_but_for_grads(&self, params: &Buffers, work: Work) -> bool {
        self.kind == work.kind() && self.params.is(params) && same(&self.outs, work.outs())
    }

    /// The same placement, but for gradients that lie elsewhere in buffers that it binds.
    fn moved(&self, params: &Buffers, work: Work) -> Option<Self> {
        let Buffers::Slices(grads) = &work.grads()?.buffers else { return None };
        let Bound { movable, .. } = &*self.bound;
        if movable.is_empty() || !self.is_but_for_grads(params, work) || !self.grads.as_ref()?.is_like(grads) {
            return None;
        }
        let mut head = self.bound.head.clone();
        let words = Arc::make_mut(&mut head);
        movable.iter().try_for_each(|rows| rows.put(words, grads))?;
        let bound = Arc::new(Bound { head, ..(*self.bound).clone() });
        Some(Self { grads: Some(Arc::new(Where::of(&work.grads()?.buffers))), bound, ..self.clone() })
    }
}

fn same(known: &Option<Arc<Where>>, buffers: Option<&Buffers>) -> bool {
    match (known, buffers) {
        (Some(known), Some(buffers)) => known.is(buffers),
        (None, None) => true,
        _ => false,
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
        let placement = match self.placements.iter().rev().find_map(|known| known.moved(params, work)) {
            Some(moved) => moved,
            None => Placement::of(params, work, self.make_bound(params, work)?),
        };
        let (kind, bound) = (work.kind(), placement.bound.clone());
        let same = || self.placements.iter().enumerate().filter(|(_, known)| known.kind == kind);
        if same().count() >= self.gpu.tuning().placements as usize {
            let oldest = same().map(|(at, _)| at).next();
            oldest.map(|at| self.placements.remove(at));
        }
        self.placements.push(placement);
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
        let are_arenas = params.arena().and(work.grads().and_then(|grads| grads.buffers.arena())).is_some();
        let pages = |variant: usize| match &self.variants[variant] {
            // Values in arenas never move, and walks that see lines are faster where they need not pick a page.
            Variant { rule, .. } if are_arenas && rule.has_lines() => 2,
            Variant { pages, .. } => *pages,
        };
        let placed = |pieces| place(pieces, &slices.homes, &sizes, pages, self.bounds);
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
        let New { fresh, kernels, groups, spare, head, rows } = binder.finish();
        self.gpu.pipelines().keep(fresh);
        self.kernels.extend(kernels);
        self.groups.extend(groups);
        self.spare = spare;
        let scalar = (0..self.tensors.len())
            .filter(|&i| slices.access[i] == Access::Scalar && slices.homes[i].is_some())
            .collect();
        let stepped =
            (0..self.tensors.len()).filter(|&i| slices.homes[i].is_some() && self.tensors[i].len_elements() > 0);
        let has_sides = |i: usize| self.sides[i].as_ref().is_some_and(|sided| !sided.sides.is_empty());
        let passes_of = |i: usize| {
            let passes = self.variants[self.variant_of[i]].rule.passes();
            passes.iter().filter(|pass| has_sides(i) || !pass.is_over_sides()).count()
        };
        let passes = stepped.map(passes_of).max().unwrap_or(0);
        let passes = passes + usize::from(!measures.is_empty()) + 2 * usize::from(steps && self.wrappers.counts());
        let movable = match work.grads().map(|grads| &grads.buffers) {
            Some(Buffers::Slices(grads)) => movable(plan, &windows, &slices, &rows, &head, grads),
            _ => vec![],
        };
        Ok(Bound {
            head: head.into(),
            measures: measures.into(),
            decides: decides.map(Arc::new),
            calls: calls.into(),
            movable: movable.into(),
            windows: windows[0].len(),
            passes,
            scalar,
        })
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
        let steps = matches!(work, Work::Step(..) | Work::Probe(_));
        let accumulates = matches!(work, Work::Accumulate(_));
        let takes_part = |i: &usize| match work {
            Work::Step(..) | Work::Probe(_) | Work::Accumulate(_) | Work::Move(Moving::Wrapper(..)) => true,
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
                room: if accumulates { Room::default() } else { variant.layout.room() },
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
        let size = plan.table.size_bytes().max(crate::tensor::ALIGNMENT);
        let found = self.gpu.device().limits().max_buffer_size.min(u32::MAX.into());
        if size > found {
            return Err(Error::Limit { limit: "max_buffer_size", found, needed: size });
        }
        let table = self.gpu.scoped_now(|| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let table = self.gpu.create_buffer("wgpu-optim/table", size, usage);
            self.gpu.queue().write_buffer(&table, 0, bytemuck::cast_slice(&plan.table.words()));
            table
        })?;
        Ok(Planned { kind: work.kind(), access: slices.access.clone(), plan, table })
    }
}

/// The rows of a placement whose gradients may move; none where the vec4 kernel cannot read them all.
fn movable(
    plan: &Plan,
    windows: &[Vec<Window>; 2],
    slices: &Resolved,
    rows: &[([usize; 2], usize, usize)],
    head: &[u32],
    grads: &[Option<Slice>],
) -> Vec<Movable> {
    let written: HashSet<usize> =
        slices.homes.iter().flatten().map(|home| home.out.unwrap_or(home.param).buffer).collect();
    let of_rows = |&([kind, i], first, stride): &([usize; 2], usize, usize)| {
        let (window, pieces) = (&windows[kind][i], [&plan.chunks, &plan.tiles][kind]);
        let row = |piece: &Piece| slices.homes[piece.tensor].and_then(|home| home.grad).map(|_| piece.tensor);
        let page = |span: &Span| {
            let value = || (slices.buffers[span.buffer].clone(), span.offset, span.size);
            (!written.contains(&span.buffer)).then(value)
        };
        let rows = pieces[window.first..][..window.rows.len()].iter().map(row).collect();
        Movable { first, stride, formats: window.like.formats, rows, pages: window.spans.iter().map(page).collect() }
    };
    let movable: Vec<_> = rows.iter().map(of_rows).collect();
    let mut again = head.to_vec();
    let put = movable.iter().try_for_each(|rows| rows.put(&mut again, grads));
    if put.is_some() && again == head { movable } else { vec![] }
}
