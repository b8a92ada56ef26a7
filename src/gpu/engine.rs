//! From tensors and groups to dispatches: state pages, plans bound to buffers, and their encoding.

use std::collections::HashMap;
use std::sync::Arc;

use super::buffers::Grads;
use super::pipelines::{Fresh, Shader, of_group};
use super::ring::{Ring, Slot};
use super::{Arena, Buffers, Cache, Gpu, Made, Piece, floats};
use crate::course;
use crate::error::{Error, Result};
use crate::groups::Groups;
use crate::lines::Lines;
use crate::plan::{Bounds, Dispatch, Item, Place, Plan, Span, Window, check_lines, pack, padded, plan};
use crate::reference::check_len;
use crate::report::LossScaleState;
use crate::rule::{AnyRule, Extent, Start, WeightDecay};
use crate::shader::{self, Binding, Skeleton, Switches, Walk, element_slots, tensor_numbers};
use crate::tensor::{ALIGNMENT, Access, BLOCK, DType, TensorSpec};
use crate::words::{NORM_WORDS, SUM_WORDS, control};
use crate::wrappers::{Moving, Wrappers};

/// Placements of parameters and gradients that keep their tables and bind groups.
const BOUND_MAX: usize = 8;

/// What is encoded beside the parameters' buffers: a step with its gradients, or a move outside a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work<'a, 'b> {
    Step(&'a Grads<'b>),
    Move(Moving),
    /// A micro-batch added to the sums, which stand where parameters do.
    Accumulate(&'a Grads<'b>),
}

/// Groups whose pipelines are the same.
#[derive(Debug)]
struct Variant {
    rule: Box<dyn AnyRule>,
    /// Numbers of state an element.
    slots: u64,
    switches: Switches,
}

/// One set of bindings and the dispatches that use it.
#[derive(Debug)]
struct Call {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    /// Whether it reads the table, from each dispatch's own offset.
    has_table: bool,
    dispatches: Vec<Dispatch>,
}

/// Which dispatches of a step are encoded with one list of words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    /// All of them.
    Whole,
    /// Those that measure the gradients and combine what they measured.
    Measures,
    /// Those that decide and update.
    Updates,
}

/// A plan with its table and bind groups: all that encoding needs.
#[derive(Debug)]
pub(crate) struct Bound {
    table: wgpu::Buffer,
    /// What comes before the decision.
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

    /// Dispatches of one encoding.
    pub(crate) fn dispatches(&self) -> usize {
        let calls = self.measures.iter().chain(&self.decides).chain(&self.calls);
        calls.map(|call| call.dispatches.len()).sum()
    }
}

/// Where parameters or gradients lie, for comparison from step to step.
#[derive(Debug, PartialEq)]
enum Where {
    Arena(u64),
    Slices(Vec<Option<(wgpu::Buffer, u64, u64)>>),
}

impl Where {
    fn of(buffers: &Buffers) -> Self {
        match buffers {
            Buffers::Slices(slices) => Self::Slices(
                slices
                    .iter()
                    .map(|slice| slice.map(|slice| (slice.buffer.clone(), slice.offset, slice.size)))
                    .collect(),
            ),
            _ => Self::Arena(buffers.arena().map_or(0, |arena| arena.id())),
        }
    }

    fn is(&self, buffers: &Buffers) -> bool {
        match (self, buffers) {
            (Self::Arena(id), _) => buffers.arena().is_some_and(|arena| arena.id() == *id),
            (Self::Slices(known), Buffers::Slices(slices)) => {
                known.len() == slices.len()
                    && known.iter().zip(slices).all(|(known, slice)| match (known, slice) {
                        (None, None) => true,
                        (Some((buffer, offset, size)), Some(slice)) => {
                            *offset == slice.offset && *size == slice.size && buffer == slice.buffer
                        }
                        _ => false,
                    })
            }
            _ => false,
        }
    }
}

type BoundKey = (Where, BoundWork);

/// What a plan is for.
#[derive(Debug, PartialEq)]
enum BoundWork {
    Step(Where),
    Move(Moving),
    Accumulate(Where),
}

/// The GPU side of one optimizer.
#[derive(Debug)]
pub(crate) struct Engine {
    gpu: Gpu,
    tensors: Vec<TensorSpec>,
    wrappers: Wrappers,
    variants: Vec<Variant>,
    variant_of: Vec<usize>,
    bounds: Bounds,
    state_places: Vec<Place>,
    state_pages: Vec<wgpu::Buffer>,
    /// The rows and columns of the tensors whose rule has numbers of them.
    lines: Vec<Option<Lines>>,
    line_places: Vec<Place>,
    line_pages: Vec<wgpu::Buffer>,
    /// Numbers of the tensors, then partial results.
    scratch: Option<wgpu::Buffer>,
    /// What is decided on the device, where anything is.
    control: Option<wgpu::Buffer>,
    /// Sums of micro-batches.
    accumulated: Option<Arc<Arena>>,
    ring: Ring,
    /// What was bound for the buffers of the last steps.
    bound: Cache<BoundKey, Arc<Bound>>,
}

impl Engine {
    /// State for these tensors, at its start.
    pub(crate) fn new(gpu: &Gpu, tensors: &[TensorSpec], groups: &Groups) -> Result<Self> {
        let (variants, variant_of) = variants(groups, gpu.tuning().lanes);
        let limits = gpu.device().limits();
        let binding_bytes = limits.max_storage_buffer_binding_size.min(super::BINDING_BYTES_MAX);
        let slots_max = variants.iter().map(|variant| variant.slots).max().unwrap_or(0);
        let workgroups = limits.max_compute_workgroups_per_dimension;
        let bounds = Bounds::new(binding_bytes, workgroups, gpu.tuning().chunk_blocks, slots_max);
        check_limits(&limits, &variants, groups.wrappers())?;
        let lens: Vec<u64> = tensors.iter().map(TensorSpec::len_elements).collect();
        let size = |i: usize| padded(lens[i]).saturating_mul(4 * variants[variant_of[i]].slots);
        let (state_places, sizes) = pack(tensors, "state slots", size, 16, gpu.page_bytes())?;
        let has_lines = |i: &usize| groups.rule_of(*i).has_lines();
        let lines_of = |i: usize| Some(i).filter(has_lines).and_then(|i| groups.lines_of(i));
        let lines: Vec<_> = (0..tensors.len()).map(lines_of).collect();
        for (tensor, lines) in tensors.iter().zip(&lines) {
            let too_large = |what, size_bytes, page_bytes| {
                Err(Error::TooLarge { tensor: tensor.name.clone(), what, size_bytes, page_bytes })
            };
            if tensor.size_bytes() > gpu.page_bytes() {
                return too_large("values", tensor.size_bytes(), gpu.page_bytes());
            }
            if let Some(Err(Error::Limit { found, needed, .. })) = lines.map(|l| check_lines(&l, binding_bytes)) {
                return too_large("rows and columns", needed, found);
            }
        }
        let size = |i: usize| lines[i].map_or(0, |lines: Lines| lines.words().saturating_mul(4));
        let (line_places, line_sizes) = pack(tensors, "rows and columns", size, 16, gpu.page_bytes())?;
        let scratch_words = scratch_words(tensors, groups, &lines, bounds);
        if scratch_words.saturating_mul(4) > binding_bytes {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { limit, found: binding_bytes, needed: scratch_words.saturating_mul(4) });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let create = |label: &str, size: u64| gpu.create_buffer(label, size, usage);
        let pages = |label: &str, sizes: &[u64]| -> Vec<_> {
            sizes.iter().filter(|&&size| size > 0).map(|&size| create(label, size)).collect()
        };
        let wrappers = groups.wrappers();
        let layout = course::layout(tensors.len(), groups);
        let control_bytes = if wrappers.is_controlled() { 4 * layout.words() as u64 } else { 0 };
        if control_bytes > binding_bytes {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { limit, found: binding_bytes, needed: control_bytes });
        }
        let (state_pages, line_pages, scratch, control) = gpu.scoped_now(|| {
            let state_pages = pages("wgpu-optim/state", &sizes);
            let line_pages = pages("wgpu-optim/lines", &line_sizes);
            let scratch = (scratch_words > 0).then(|| create("wgpu-optim/scratch", 4 * scratch_words));
            let control = (control_bytes > 0).then(|| create("wgpu-optim/control", control_bytes));
            (state_pages, line_pages, scratch, control)
        })?;
        let accumulated = match wrappers.batches() {
            1 => None,
            _ => Some(Arc::new(Arena::new(gpu, tensors)?)),
        };
        let engine = Self {
            gpu: gpu.clone(),
            tensors: tensors.to_vec(),
            wrappers: wrappers.clone(),
            variants,
            variant_of,
            bounds,
            state_places,
            state_pages,
            lines,
            line_places,
            line_pages,
            scratch,
            control,
            accumulated,
            ring: Ring::default(),
            bound: Cache::new(BOUND_MAX),
        };
        engine.write_control(control::SCALE, &[(LossScaleState::new(wrappers.loss_scale()).scale as f32).to_bits()])?;
        engine.write_control(control::UNSCALE, &[1.0f32.to_bits()])?;
        for (i, option) in wrappers.on_device.iter().enumerate() {
            let number = wrappers.option(option).or(groups.rule(0).number(option));
            engine.write_control(layout.options + i, &[(number.unwrap_or(0.0) as f32).to_bits()])?;
        }
        for i in 0..tensors.len() {
            for slot in groups.slots_of(i) {
                match slot.start {
                    Start::Value(start) if start != 0.0 => engine.start_slot(groups, i, slot.name, start)?,
                    // The first step gives it its value.
                    Start::Value(_) | Start::Param => {}
                }
            }
        }
        Ok(engine)
    }

    /// Takes over what another engine, of the first of these tensors, has: state, numbers, and what is decided on the
    /// device.
    pub(crate) fn take_over(&self, groups: &Groups, other: &Self) -> Result<()> {
        self.gpu.scoped_now(|| {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let mut copy = |from: Option<(&wgpu::Buffer, u64)>, to: Option<(&wgpu::Buffer, u64)>, bytes: u64| {
                if let (Some((from, first)), Some((to, start)), true) = (from, to, bytes > 0) {
                    encoder.copy_buffer_to_buffer(from, first, to, start, bytes);
                }
            };
            for i in 0..other.tensors.len() {
                let slots = self.variants[self.variant_of[i]].slots;
                copy(other.state_place(i), self.state_place(i), 4 * slots * padded(self.tensors[i].len_elements()));
                let numbers = 4 * tensor_numbers(groups.rule_of(i), &self.wrappers) as u64;
                let in_scratch = |engine: &'_ Self| engine.scratch.clone();
                let (from, to) = (in_scratch(other), in_scratch(self));
                let place = numbers * i as u64;
                copy(from.as_ref().map(|buffer| (buffer, place)), to.as_ref().map(|buffer| (buffer, place)), numbers);
                let bytes = self.lines[i].map_or(0, |lines| 4 * lines.words());
                copy(other.line_place(i), self.line_place(i), bytes);
            }
            let [from, to] = [other, self].map(|engine| course::layout(engine.tensors.len(), groups));
            if let (Some(old), Some(new)) = (&other.control, &self.control) {
                copy(Some((old, 0)), Some((new, 0)), 4 * control::LEN as u64);
                let options = 4 * self.wrappers.on_device.len() as u64;
                copy(Some((old, 4 * from.options as u64)), Some((new, 4 * to.options as u64)), options);
            }
            self.gpu.queue().submit([encoder.finish()]);
        })
    }

    fn line_place(&self, i: usize) -> Option<(&wgpu::Buffer, u64)> {
        let Place { buffer, offset } = self.line_places[i];
        self.lines[i].and(self.line_pages.get(buffer)).map(|page| (page, offset))
    }

    /// The device that it works on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Sums of micro-batches.
    pub(crate) fn accumulated(&self) -> Option<Arc<Arena>> {
        self.accumulated.clone()
    }

    /// What is decided on the device.
    pub(crate) fn control(&self) -> Option<&wgpu::Buffer> {
        self.control.as_ref()
    }

    /// Waits until all submitted work is done.
    pub(crate) async fn idle(&self, wait: bool) -> Result<()> {
        let buffer = match (&self.control, self.state_pages.first()) {
            (Some(buffer), _) | (None, Some(buffer)) => buffer.clone(),
            (None, None) => {
                let usage = wgpu::BufferUsages::COPY_SRC;
                self.gpu.scoped_now(|| self.gpu.create_buffer("wgpu-optim/idle", 4, usage))?
            }
        };
        self.gpu.read(&buffer, &[(0, 4)], wait).await.map(|_| ())
    }

    /// Words of control from one on, once all submitted work is done.
    pub(crate) async fn read_control(&self, first: usize, words: usize, wait: bool) -> Result<Vec<u32>> {
        let Some(control) = &self.control else { return Ok(vec![]) };
        let bytes = self.gpu.read(control, &[(4 * first as u64, 4 * words as u64)], wait).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Sets words of control from one on, before any work that is not yet submitted.
    pub(crate) fn write_control(&self, first: usize, words: &[u32]) -> Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        self.gpu.scoped_now(|| self.gpu.queue().write_buffer(control, 4 * first as u64, bytemuck::cast_slice(words)))
    }

    /// Bytes: state, sums of micro-batches, scratch, tables, steps.
    pub(crate) fn memory(&self) -> [u64; 5] {
        let sizes = |buffers: &[wgpu::Buffer]| buffers.iter().map(wgpu::Buffer::size).sum::<u64>();
        let kept: u64 = self.lines.iter().flatten().flat_map(Lines::counts).map(|numbers| 4 * numbers).sum();
        [
            sizes(&self.state_pages) + kept,
            self.accumulated.as_ref().map_or(0, |arena| arena.size_bytes()),
            [&self.scratch, &self.control].into_iter().flatten().map(wgpu::Buffer::size).sum::<u64>()
                + sizes(&self.line_pages)
                - kept,
            self.bound.values().map(|bound| bound.table.size()).sum(),
            self.ring.size_bytes(),
        ]
    }

    /// How many kinds of pipeline the groups need.
    pub(crate) fn variants(&self) -> usize {
        self.variants.len()
    }

    /// Table, pipelines and bind groups for these buffers, checked and made where they are new.
    pub(crate) fn bind(&mut self, params: &Buffers, work: Work) -> Result<Arc<Bound>> {
        // The key knows the arena, and does not know which of its tensors are given.
        if let (Buffers::Subset(subset), Work::Step(grads) | Work::Accumulate(grads)) = (params, work) {
            if let Some(i) = (0..subset.present.len()).find(|&i| !subset.present[i] && grads.has(i)) {
                return Err(no_param(&subset.arena.tensors()[i]));
            }
        }
        let is = |key: &BoundKey| {
            key.0.is(params)
                && match (&key.1, work) {
                    (BoundWork::Step(known), Work::Step(grads)) => known.is(&grads.buffers),
                    (BoundWork::Move(known), Work::Move(to)) => *known == to,
                    (BoundWork::Accumulate(known), Work::Accumulate(grads)) => known.is(&grads.buffers),
                    _ => false,
                }
        };
        if let Some(bound) = self.bound.get(is) {
            return Ok(bound.clone());
        }
        let bound = Arc::new(self.make_bound(params, work)?);
        let work = match work {
            Work::Step(grads) => BoundWork::Step(Where::of(&grads.buffers)),
            Work::Move(to) => BoundWork::Move(to),
            Work::Accumulate(grads) => BoundWork::Accumulate(Where::of(&grads.buffers)),
        };
        self.bound.push((Where::of(params), work), bound.clone());
        Ok(bound)
    }

    /// Forgets tables and bind groups, and with them the buffers.
    pub(crate) fn release(&mut self) {
        self.bound = Cache::new(BOUND_MAX);
    }

    /// Writes a list of words into a slot that no other work uses. [`Bound::encode`] takes the slot.
    pub(crate) fn write(&mut self, words: &[u32]) -> Result<Slot> {
        self.ring.write(&self.gpu, words)
    }

    fn make_bound(&self, params: &Buffers, work: Work) -> Result<Bound> {
        let grads = match work {
            Work::Step(grads) | Work::Accumulate(grads) => Some(&grads.buffers),
            Work::Move(_) => None,
        };
        let (steps, accumulates) = (matches!(work, Work::Step(_)), matches!(work, Work::Accumulate(_)));
        let measures = steps && self.wrappers.measures();
        // Sums of micro-batches are in f32.
        let summed =
            || self.tensors.iter().map(|tensor| tensor.clone().with_grad_dtype(DType::F32)).collect::<Vec<_>>();
        let tensors = if steps && self.accumulated.is_some() { &summed() } else { &self.tensors };
        let slices = Resolved::new(&self.gpu, tensors, params, grads)?;
        let takes_part = |variant: usize| match work {
            Work::Step(_) | Work::Accumulate(_) | Work::Move(Moving::Wrapper(..)) => true,
            Work::Move(Moving::Rule(to)) => self.variants[variant].rule.moves().contains(&to),
        };
        let items: Vec<Item> = (0..self.tensors.len())
            .filter(|&i| takes_part(self.variant_of[i]))
            .filter_map(|i| {
                let variant = &self.variants[self.variant_of[i]];
                let (param, grad) = slices.places[i]?;
                Some(Item {
                    tensor: i,
                    len: self.tensors[i].len_elements(),
                    variant: self.variant_of[i],
                    access: slices.access[i],
                    param,
                    grad,
                    grad_format: grad.map_or(DType::F32, |_| tensors[i].grad_dtype),
                    state: (variant.slots > 0 && !accumulates).then_some((self.state_places[i], variant.slots)),
                    lines: self.lines[i].filter(|_| steps).map(|lines| (self.line_places[i], lines)),
                    partial_words: match steps && sums(&*variant.rule, &self.wrappers) {
                        _ if measures => NORM_WORDS,
                        true => SUM_WORDS,
                        false => 0,
                    },
                    sums: steps && sums(&*variant.rule, &self.wrappers),
                })
            })
            .collect();
        let numbers =
            (self.tensors.len() * self.variants.first().map_or(0, |v| tensor_numbers(&*v.rule, &self.wrappers))) as u64;
        let plan = plan(&items, self.bounds, numbers)?;
        let made = self.gpu.scoped_now(|| {
            let mut binder = Binder::new(self, &plan, &slices.buffers);
            let measures = if measures { binder.measures() } else { vec![] };
            let decides = (self.control.is_some() && !accumulates)
                .then(|| binder.call(0, Walk::new(Skeleton::Decide), None, &[ONCE]));
            let calls = binder.calls(work);
            (binder.table, [measures, decides.into_iter().collect(), calls], binder.fresh)
        });
        let (table, [measures, mut decides, calls], fresh) =
            made.map_err(|error| slices.blame(&self.gpu, &self.tensors).unwrap_or(error))?;
        self.gpu.pipelines().keep(fresh);
        let scalar = (0..self.tensors.len())
            .filter(|&i| slices.access[i] == Access::Scalar && slices.places[i].is_some())
            .collect();
        let used = items.iter().map(|item| item.variant);
        let passes = used.map(|variant| self.variants[variant].rule.passes().len()).max().unwrap_or(0);
        let passes = passes + usize::from(!measures.is_empty()) + 2 * usize::from(steps && self.wrappers.counts());
        let decides = decides.pop();
        Ok(Bound { table, measures, decides, calls, windows: plan.windows.len(), passes, scalar })
    }

    /// The values of a slot.
    pub(crate) async fn state(&self, groups: &Groups, i: usize, slot: &str, wait: bool) -> Result<Vec<f32>> {
        let (buffer, pieces) = self.pieces(groups, i, slot)?;
        let Some(buffer) = buffer else { return Ok(Vec::new()) };
        Ok(floats(&self.gpu.read(buffer, &pieces, wait).await?))
    }

    /// Sets the values of a slot, before any work that is not yet submitted.
    pub(crate) fn set_state(&self, groups: &Groups, i: usize, slot: &str, values: &[f32]) -> Result<()> {
        let (buffer, pieces) = self.pieces(groups, i, slot)?;
        let len = pieces.iter().map(|(_, size)| size / 4).sum::<u64>() as usize;
        check_len(&format!("state {slot}"), &self.tensors[i].name, values.len(), len)?;
        let Some(buffer) = buffer else { return Ok(()) };
        self.gpu.scoped_now(|| self.gpu.write(buffer, &pieces, bytemuck::cast_slice(values)))
    }

    /// Fills a slot with its start, from one block of it.
    fn start_slot(&self, groups: &Groups, i: usize, slot: &str, start: f64) -> Result<()> {
        let (buffer, pieces) = self.pieces(groups, i, slot)?;
        let Some(buffer) = buffer else { return Ok(()) };
        let block = vec![start as f32; BLOCK];
        self.gpu.scoped_now(|| self.gpu.fill(buffer, &pieces, bytemuck::cast_slice(&block)))
    }

    /// Where a slot's values lie, in order: the buffer and its pieces. None for no elements.
    fn pieces(&self, groups: &Groups, i: usize, name: &str) -> Result<(Option<&wgpu::Buffer>, Vec<Piece>)> {
        let (slot, place) = groups.find_slot(i, &self.tensors[i].name, name)?;
        let rule = groups.rule_of(i);
        if slot.extent == Extent::Tensor {
            let words = tensor_numbers(rule, &self.wrappers);
            return Ok((self.scratch.as_ref(), vec![(4 * (i * words + place) as u64, 4)]));
        }
        if let (Some(lines), true) = (self.lines[i], slot.extent.is_line()) {
            let Place { buffer, offset } = self.line_places[i];
            let [rows, columns] = lines.counts().map(|numbers| 4 * numbers);
            let piece = if slot.extent == Extent::Row { (offset, rows) } else { (offset + rows, columns) };
            return Ok((self.line_pages.get(buffer), vec![piece]));
        }
        if let (true, Some(arena)) = (slot.name == "accumulated", &self.accumulated) {
            let slice = arena.slice_at(i);
            return Ok((Some(slice.buffer), if slice.size == 0 { vec![] } else { vec![(slice.offset, slice.size)] }));
        }
        let elements = element_slots(rule, &self.wrappers);
        let index = elements.iter().position(|other| other.name == name).unwrap_or(0) as u64;
        let Some((page, start)) = self.state_place(i) else { return Ok((None, vec![])) };
        let pieces = blocks(self.tensors[i].len_elements());
        let piece = |(first, count, span)| (start + 4 * (first * elements.len() as u64 + index * span), 4 * count);
        Ok((Some(page), pieces.map(piece).collect()))
    }

    fn state_place(&self, i: usize) -> Option<(&wgpu::Buffer, u64)> {
        let Place { buffer, offset } = self.state_places[i];
        if self.tensors[i].len_elements() == 0 { None } else { Some((self.state_pages.get(buffer)?, offset)) }
    }
}

/// Makes the table, pipelines and bind groups of a plan. To be used within an error scope.
struct Binder<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    buffers: &'a [wgpu::Buffer],
    table: wgpu::Buffer,
    fresh: Fresh,
}

impl<'a> Binder<'a> {
    fn new(engine: &'a Engine, plan: &'a Plan, buffers: &'a [wgpu::Buffer]) -> Self {
        let size = (4 * plan.table.len() as u64).max(ALIGNMENT);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let table = engine.gpu.create_buffer("wgpu-optim/table", size, usage);
        engine.gpu.queue().write_buffer(&table, 0, bytemuck::cast_slice(&plan.table));
        Self { engine, plan, buffers, table, fresh: Fresh::default() }
    }

    /// The calls that measure all gradients.
    fn measures(&mut self) -> Vec<Call> {
        let plan = self.plan;
        let of_window =
            |window: &Window| self.call(window.variant, Walk::new(Skeleton::Norms), Some(window), &window.dispatches);
        let mut calls: Vec<_> = plan.windows.iter().map(of_window).collect();
        if !plan.norms.is_empty() {
            calls.push(self.call(0, Walk::new(Skeleton::FinishNorms), None, &plan.norms));
        }
        calls
    }

    /// The calls of a whole step, of a move or of a micro-batch.
    fn calls(&mut self, work: Work) -> Vec<Call> {
        let (engine, plan) = (self.engine, self.plan);
        let walks: Vec<_> = match work {
            Work::Step(_) => {
                engine.variants.iter().map(|variant| Walk::of_step(&*variant.rule, &engine.wrappers)).collect()
            }
            Work::Move(to) => vec![vec![Walk::of_move(to)]; engine.variants.len()],
            Work::Accumulate(_) => vec![vec![Walk::new(Skeleton::Accumulate)]; engine.variants.len()],
        };
        let stages = walks.iter().map(Vec::len).max().unwrap_or(0);
        let mut calls = Vec::new();
        for stage in 0..stages {
            for (kind, windows) in [(0, &plan.tiles), (1, &plan.lines), (2, &plan.windows)] {
                for window in windows {
                    let here = |walk: &&Walk| match walk.skeleton {
                        Skeleton::Lines => kind == 0,
                        Skeleton::FinishLines => kind == 1,
                        Skeleton::Sums
                        | Skeleton::Counts
                        | Skeleton::Apply
                        | Skeleton::Moves
                        | Skeleton::Accumulate => kind == 2,
                        Skeleton::Finish
                        | Skeleton::FinishCounts
                        | Skeleton::Norms
                        | Skeleton::FinishNorms
                        | Skeleton::Decide => false,
                    };
                    if let Some(&walk) = walks[window.variant].get(stage).filter(here) {
                        calls.push(self.call(window.variant, walk, Some(window), &window.dispatches));
                    }
                }
            }
            for (variant, dispatches) in &plan.finishes {
                let finishes = |walk: &&Walk| matches!(walk.skeleton, Skeleton::Finish | Skeleton::FinishCounts);
                if let Some(&walk) = walks[*variant].get(stage).filter(finishes) {
                    calls.push(self.call(*variant, walk, None, dispatches));
                }
            }
        }
        calls
    }

    fn call(&mut self, variant: usize, walk: Walk, window: Option<&Window>, dispatches: &[Dispatch]) -> Call {
        let gpu = &self.engine.gpu;
        let wrappers = &self.engine.wrappers;
        let Variant { rule, switches, .. } = &self.engine.variants[variant];
        let skeleton = walk.skeleton;
        let bindings = of_group(&shader::bindings(&**rule, wrappers, skeleton), 0);
        let [param, grad, state, lines] = window.map_or([None; 4], |w| [w.param, w.grad, w.state, w.lines]);
        let entries: Vec<_> = bindings
            .iter()
            .map(|binding| wgpu::BindGroupEntry {
                binding: binding.place().1,
                resource: wgpu::BindingResource::Buffer(match binding {
                    Binding::Params => bind_span(self.buffers, param),
                    Binding::Grads => bind_span(self.buffers, grad),
                    Binding::State => bind_span(&self.engine.state_pages, state),
                    Binding::Lines => bind_span(&self.engine.line_pages, lines),
                    Binding::Tables => wgpu::BufferBinding {
                        buffer: &self.table,
                        offset: 0,
                        size: wgpu::BufferSize::new(self.plan.table_span),
                    },
                    Binding::Scratch => {
                        let scratch = self.engine.scratch.as_ref().expect("made where a rule has numbers a tensor");
                        scratch.as_entire_buffer_binding()
                    }
                    Binding::Control | Binding::Decisions => {
                        let control = self.engine.control.as_ref().expect("made where anything is decided");
                        control.as_entire_buffer_binding()
                    }
                    Binding::Clocks => unreachable!("group 1"),
                }),
            })
            .collect();
        let mut pipelines = gpu.pipelines();
        let access = window.map_or(Access::Vec4, |window| window.access);
        let grad = window.map_or(DType::F32, |window| window.grad_format);
        let tails = window.is_some_and(|window| window.tails);
        let crossings = window.is_some_and(|window| window.crossings);
        let constants = Switches { tails, crossings, ..*switches }.constants(&**rule, wrappers, walk);
        let pipeline =
            pipelines.get(&mut self.fresh, gpu, &Shader { rule: &**rule, wrappers, constants, skeleton, access, grad });
        gpu.count(Made::BindGroup);
        let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("wgpu-optim"),
            layout: &pipelines.layout(gpu, &bindings),
            entries: &entries,
        });
        let has_table = bindings.contains(&Binding::Tables);
        Call { pipeline, group, has_table, dispatches: dispatches.to_vec() }
    }
}

/// Encodes calls as one pass.
fn run<'a>(encoder: &mut wgpu::CommandEncoder, slot: &Slot, calls: impl Iterator<Item = &'a Call>) {
    let mut calls = calls.peekable();
    if calls.peek().is_none() {
        return;
    }
    let descriptor = wgpu::ComputePassDescriptor { label: Some("wgpu-optim"), timestamp_writes: None };
    let mut pass = encoder.begin_compute_pass(&descriptor);
    pass.set_bind_group(1, &slot.group, &[slot.offset]);
    for call in calls {
        pass.set_pipeline(&call.pipeline);
        for dispatch in &call.dispatches {
            let offset = [dispatch.offset];
            pass.set_bind_group(0, &call.group, if call.has_table { &offset } else { &[] });
            pass.dispatch_workgroups(dispatch.x, dispatch.y, 1);
        }
    }
}

/// Whether chunks leave partial results of a rule's sums, or of a wrapper's counts.
fn sums(rule: &dyn AnyRule, wrappers: &Wrappers) -> bool {
    rule.sums().next().is_some() || wrappers.counts()
}

/// One workgroup.
const ONCE: Dispatch = Dispatch { offset: 0, x: 1, y: 1 };

fn bind_span(buffers: &[wgpu::Buffer], span: Option<Span>) -> wgpu::BufferBinding<'_> {
    let Span { buffer, offset, size } = span.expect("a window has what its shader binds");
    wgpu::BufferBinding { buffer: &buffers[buffer], offset, size: wgpu::BufferSize::new(size) }
}

/// First element, elements, and elements with padding of each block.
fn blocks(len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (0..len).step_by(BLOCK).map(move |first| {
        let count = (len - first).min(BLOCK as u64);
        (first, count, padded(count))
    })
}

/// Refuses a device that cannot bind what the shaders declare.
fn check_limits(limits: &wgpu::Limits, variants: &[Variant], wrappers: &Wrappers) -> Result<()> {
    let skeletons = |rule: &dyn AnyRule| {
        let walks = Walk::of_step(rule, wrappers)
            .into_iter()
            .map(|walk| walk.skeleton)
            .chain(rule.moves().iter().map(|_| Skeleton::Moves));
        let decides: &[_] =
            if wrappers.is_controlled() { &[Skeleton::Norms, Skeleton::FinishNorms, Skeleton::Decide] } else { &[] };
        let accumulates = (wrappers.batches() > 1).then_some(Skeleton::Accumulate);
        walks.chain(decides.iter().copied()).chain(accumulates).collect::<Vec<_>>()
    };
    let all = || {
        let of = |Variant { rule, .. }: &Variant| {
            skeletons(&**rule)
                .into_iter()
                .map(|skeleton| shader::bindings(&**rule, wrappers, skeleton))
                .collect::<Vec<_>>()
        };
        variants.iter().flat_map(of)
    };
    let most = all().map(|bindings| bindings.len()).max().unwrap_or(0);
    let dynamic = all().map(|bindings| bindings.iter().filter(|binding| binding.dynamic()).count()).max().unwrap_or(0);
    for (limit, found, needed) in [
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, most),
        (
            "max_dynamic_storage_buffers_per_pipeline_layout",
            limits.max_dynamic_storage_buffers_per_pipeline_layout,
            dynamic,
        ),
    ] {
        if u64::from(found) < needed as u64 {
            return Err(Error::Limit { limit, found: found.into(), needed: needed as u64 });
        }
    }
    Ok(())
}

/// Groups whose pipelines are the same, and each tensor's.
fn variants(groups: &Groups, lanes: u32) -> (Vec<Variant>, Vec<usize>) {
    let mut variants: Vec<Variant> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut places = HashMap::new();
    let mut variant_of = Vec::with_capacity(groups.of().len());
    for (i, &group) in groups.of().iter().enumerate() {
        let rule = groups.rule_of(i);
        variant_of.push(*places.entry((group, groups.lines_of(i).is_some())).or_insert_with(|| {
            let names = |rule: &dyn AnyRule| rule.slots().iter().map(|slot| slot.name).collect::<Vec<_>>();
            let same = |variant: &Variant| {
                variant.rule.constants() == rule.constants()
                    && variant.rule.passes() == rule.passes()
                    && names(&*variant.rule) == names(rule)
            };
            let place = variants.iter().position(same).unwrap_or_else(|| {
                let slots = element_slots(rule, groups.wrappers()).len() as u64;
                variants.push(Variant { rule: rule.boxed(), slots, switches: Switches::default() });
                members.push(Vec::new());
                variants.len() - 1
            });
            members[place].push(group);
            place
        }));
    }
    if variants.is_empty() {
        // Without tensors, too, the device decides on steps.
        let switches = Switches { lanes, ..Switches::default() };
        variants.push(Variant { rule: groups.rule(0).boxed(), slots: 0, switches });
        return (variants, variant_of);
    }
    for (variant, members) in variants.iter_mut().zip(members) {
        let decays =
            |wanted: fn(WeightDecay) -> bool| members.iter().any(|&group| wanted(groups.rule(group).weight_decay()));
        variant.switches = Switches {
            maximize: members.iter().any(|&group| groups.maximizes(group)),
            l2: decays(|decay| matches!(decay, WeightDecay::L2(_))),
            decay: decays(|decay| matches!(decay, WeightDecay::Decoupled(_) | WeightDecay::Independent(_))),
            cautious: decays(|decay| matches!(decay, WeightDecay::Cautious(_))),
            tails: true,
            crossings: true,
            lanes,
        };
    }
    (variants, variant_of)
}

/// Words of the numbers of all tensors and of all partial results.
fn scratch_words(tensors: &[TensorSpec], groups: &Groups, lines: &[Option<Lines>], bounds: Bounds) -> u64 {
    let words = |(i, tensor): (usize, &TensorSpec)| {
        let rule = groups.rule_of(i);
        let partial = match sums(rule, groups.wrappers()) {
            _ if groups.wrappers().measures() => NORM_WORDS,
            true => SUM_WORDS,
            false => 0,
        };
        let partials = partial * tensor.len_elements().div_ceil(bounds.chunk_len());
        let of_matrix = |lines: Lines| lines.shares().iter().sum::<u64>().saturating_mul(lines.matrices);
        (tensor_numbers(rule, groups.wrappers()) as u64 + partials).saturating_add(lines[i].map_or(0, of_matrix))
    };
    tensors.iter().enumerate().map(words).fold(0, u64::saturating_add)
}

/// The caller's buffers, checked: one list of buffers, and each tensor's places in it.
struct Resolved {
    buffers: Vec<wgpu::Buffer>,
    places: Vec<Option<(Place, Option<Place>)>>,
    access: Vec<Access>,
}

impl Resolved {
    fn new(gpu: &Gpu, tensors: &[TensorSpec], params: &Buffers, grads: Option<&Buffers>) -> Result<Self> {
        let mut resolved = Self { buffers: vec![], places: vec![], access: vec![Access::Vec4; tensors.len()] };
        #[expect(clippy::mutable_key_type, reason = "a buffer's hash is that of its handle")]
        let mut known: HashMap<wgpu::Buffer, usize> = HashMap::new();
        let param_places = resolved.places(gpu, tensors, "parameter", params, &mut known)?;
        let params_end = resolved.buffers.len();
        let grad_places = match grads {
            Some(grads) => {
                let of_grads: Vec<_> = tensors.iter().map(TensorSpec::grad_spec).collect();
                Some(resolved.places(gpu, &of_grads, "gradient", grads, &mut known)?)
            }
            None => None,
        };
        resolved.check_overlaps(tensors, &param_places)?;
        for (i, tensor) in tensors.iter().enumerate() {
            let Some(grad_places) = &grad_places else { continue };
            match (param_places[i], grad_places[i]) {
                (_, Some(grad)) if grad.buffer < params_end && tensor.len_elements() > 0 => {
                    let holds = |place: &Option<Place>| place.is_some_and(|place| place.buffer == grad.buffer);
                    let param = param_places.iter().position(holds).expect("the buffer came from a parameter");
                    let (param, grad) = (tensors[param].name.clone(), tensor.name.clone());
                    return Err(Error::SharedBuffer { param, grad });
                }
                (None, Some(_)) => {
                    return Err(no_param(tensor));
                }
                (Some(_), Some(grad)) => {
                    let four = 4 * tensor.grad_dtype.size_bytes();
                    let end = grad.offset + tensor.grad_size_bytes().next_multiple_of(four);
                    if grad.offset % four != 0 || end > resolved.buffers[grad.buffer].size() {
                        resolved.access[i] = Access::Scalar;
                    }
                }
                (_, None) => {}
            }
        }
        // A parameter without its gradient sits the step out.
        resolved.places = match grad_places {
            None => param_places.into_iter().map(|param| Some((param?, None))).collect(),
            Some(grads) => {
                param_places.into_iter().zip(grads).map(|(param, grad)| Some((param?, Some(grad?)))).collect()
            }
        };
        Ok(resolved)
    }

    /// Where each tensor lies, with everything about a single slice checked.
    #[expect(clippy::mutable_key_type, reason = "a buffer's hash is that of its handle")]
    fn places(
        &mut self,
        gpu: &Gpu,
        tensors: &[TensorSpec],
        what: &'static str,
        buffers: &Buffers,
        known: &mut HashMap<wgpu::Buffer, usize>,
    ) -> Result<Vec<Option<Place>>> {
        let mut places = Vec::with_capacity(tensors.len());
        for slice in buffers.slices(gpu, what, tensors, wgpu::BufferUsages::STORAGE)? {
            let Some(slice) = slice else {
                places.push(None);
                continue;
            };
            let buffer = *known.entry(slice.buffer.clone()).or_insert_with(|| {
                self.buffers.push(slice.buffer.clone());
                self.buffers.len() - 1
            });
            places.push(Some(Place { buffer, offset: slice.offset }));
        }
        Ok(places)
    }

    /// The first slice whose buffer alone wgpu refuses: one of another device, or destroyed.
    fn blame(&self, gpu: &Gpu, tensors: &[TensorSpec]) -> Option<Error> {
        let layout = gpu.pipelines().layout(gpu, &[Binding::Grads]);
        let refused = |buffer: &wgpu::Buffer| {
            let size = wgpu::BufferSize::new(buffer.size().min(ALIGNMENT) / 4 * 4);
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size });
            let entries = [wgpu::BindGroupEntry { binding: Binding::Grads.place().1, resource }];
            let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
            gpu.scoped_now(|| gpu.device().create_bind_group(&descriptor)).err()
        };
        let slices = tensors.iter().zip(&self.places).filter_map(|(tensor, places)| Some((tensor, (*places)?)));
        let mut named = slices.flat_map(|(tensor, (param, grad))| {
            [("parameter", Some(param)), ("gradient", grad)].map(|(what, place)| (tensor, what, place))
        });
        named.find_map(|(tensor, what, place)| {
            let message = format!("its buffer cannot be bound: {}", refused(&self.buffers[place?.buffer])?);
            Some(Error::Slice { what, tensor: tensor.name.clone(), message })
        })
    }

    /// Refuses parameters that share bytes; those that share a word of 16 take the scalar kernel.
    fn check_overlaps(&mut self, tensors: &[TensorSpec], places: &[Option<Place>]) -> Result<()> {
        let mut sorted: Vec<(usize, u64, u64, usize)> = places
            .iter()
            .zip(tensors)
            .enumerate()
            .filter_map(|(i, (place, tensor))| {
                let place = (*place)?;
                let size = tensor.size_bytes();
                (size > 0).then_some((place.buffer, place.offset, place.offset + size, i))
            })
            .collect();
        sorted.sort_unstable();
        for (n, &(buffer, start, end, i)) in sorted.iter().enumerate() {
            let owned_end = end.next_multiple_of(16);
            if start % 16 != 0 || owned_end > self.buffers[buffer].size() {
                self.access[i] = Access::Scalar;
            }
            let Some(&(next_buffer, next_start, next_end, next)) = sorted.get(n + 1) else { continue };
            if next_buffer != buffer || next_start >= owned_end {
                continue;
            }
            self.access[i] = Access::Scalar;
            if next_start < end {
                return Err(Error::Overlap {
                    first: tensors[i].name.clone(),
                    first_range: format!("{start}..{end}"),
                    second: tensors[next].name.clone(),
                    second_range: format!("{next_start}..{next_end}"),
                });
            }
        }
        Ok(())
    }
}

fn no_param(tensor: &TensorSpec) -> Error {
    let message = "is missing where the gradient is given".into();
    Error::Slice { what: "parameter", tensor: tensor.name.clone(), message }
}
