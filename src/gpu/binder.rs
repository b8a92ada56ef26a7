//! From the windows of a step to bind groups, pipelines and the dispatches that use them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Made;
use super::bind::{Planned, Work};
use super::engine::Engine;
use super::pipelines::{Fresh, Shader, of_group};
use super::ring::Slot;
use super::variants::Variant;
use crate::error::{Error, Result};
use crate::plan::{Dispatch, SIDE_BY_SIDE, Window};
use crate::rule::Renewal;
use crate::shader::{self, Binding, Pages, Skeleton, Switches, Values, Walk};
use crate::storage::GROUP;
use crate::tensor::{ALIGNMENT, Formats};
use crate::words::{dispatch, row};

/// What makes two pipelines of an optimizer differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    variant: usize,
    walk: Walk,
    values: Values,
    tails: bool,
    crossings: bool,
    copies: bool,
}

/// What a bind group binds: its layout, the table, the pages of state and of lines, and the caller's buffers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bindings {
    layout: Vec<Binding>,
    table: wgpu::Buffer,
    state: Option<usize>,
    lines: Option<usize>,
    work: Option<usize>,
    pub(super) values: Vec<Value>,
}

/// A buffer of the caller's, the first byte that is bound, and bytes.
pub(super) type Value = (wgpu::Buffer, u64, u64);

/// The bind groups that are kept, by what they bind.
pub(super) type Groups = HashMap<Bindings, Arc<wgpu::BindGroup>>;

/// One set of bindings and the dispatches that use it.
#[derive(Debug)]
pub(super) struct Call {
    pipeline: wgpu::ComputePipeline,
    group: Arc<wgpu::BindGroup>,
    /// Whether the walk reads the table, from each dispatch's own offset.
    has_table: bool,
    /// The dispatches, each with the byte of the head at which its words stand.
    dispatches: Vec<(u32, Dispatch)>,
    /// How often all of them are encoded, one time behind the other.
    times: u64,
    /// Steps that renew no basis in this way do without them.
    pub(super) only: Option<Renewal>,
}

impl Call {
    /// How many dispatches are encoded.
    pub(super) fn count(&self) -> usize {
        self.dispatches.len() * self.times as usize
    }
}

/// What a binder has made. The caller keeps it if wgpu has found no error in it.
pub(super) struct New {
    pub(super) fresh: Fresh,
    pub(super) kernels: HashMap<Kernel, wgpu::ComputePipeline>,
    pub(super) groups: Groups,
    pub(super) spare: Option<wgpu::Buffer>,
    /// The words of the dispatches and the rows.
    pub(super) head: Vec<u32>,
    /// Where the rows of a window stand in the head: the window's kind, its place among those of that kind, the first
    /// word, and words from one row to the next.
    pub(super) rows: Vec<([usize; 2], usize, usize)>,
}

/// Entries of the table, how many of them a workgroup takes, and the window that they belong to: a kind, and its place
/// among the windows of that kind.
type Walked = (Range<usize>, u64, Option<[usize; 2]>);

/// Makes pipelines and bind groups of a plan.
pub(super) struct Binder<'a> {
    engine: &'a Engine,
    planned: &'a Planned,
    /// The windows over chunks, and those over tiles.
    windows: &'a [Vec<Window>; 2],
    buffers: &'a [wgpu::Buffer],
    new: New,
    /// The dispatches over these entries whose words stand in the head, by the rows that they read.
    words: HashMap<Walked, Vec<(u32, Dispatch)>>,
}

impl<'a> Binder<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        planned: &'a Planned,
        windows: &'a [Vec<Window>; 2],
        buffers: &'a [wgpu::Buffer],
    ) -> Self {
        let new = New {
            fresh: Fresh::default(),
            kernels: HashMap::new(),
            groups: HashMap::new(),
            spare: engine.spare.clone(),
            head: vec![],
            rows: vec![],
        };
        Self { engine, planned, windows, buffers, new, words: HashMap::new() }
    }

    /// Returns all that was made. The words of a step will stand behind the head.
    pub(super) fn finish(self) -> New {
        let mut new = self.new;
        let len = new.head.len().next_multiple_of(ALIGNMENT as usize / 4);
        new.head.resize(len, 0);
        for at in self.words.values().flatten().map(|(byte, _)| *byte as usize / 4) {
            new.head[at + dispatch::STEP] = (len - at) as u32;
        }
        new
    }

    /// Adds the calls that measure all gradients.
    pub(super) fn measures(&mut self) -> Result<Vec<Call>> {
        let walk = Walk::new(Skeleton::Norms);
        let mut calls = Vec::new();
        for (i, window) in self.windows[0].iter().enumerate() {
            calls.extend(self.over_window(window.like.variant, walk, [0, i])?);
        }
        let norms = &self.planned.plan.norms;
        if !norms.is_empty() {
            calls.push(self.call(0, Walk::new(Skeleton::FinishNorms), None, norms)?);
        }
        Ok(calls)
    }

    /// Adds the calls of a whole step, of a move or of a micro-batch.
    pub(super) fn calls(&mut self, work: Work) -> Result<Vec<Call>> {
        let (engine, plan) = (self.engine, &self.planned.plan);
        let walks: Vec<_> = match work {
            Work::Step(..) => {
                engine.variants.iter().map(|variant| Walk::of_step(&*variant.rule, &variant.wrappers)).collect()
            }
            Work::Move(to) => vec![vec![Walk::of_move(to)]; engine.variants.len()],
            Work::Probe(_) => vec![Walk::of_probe(); engine.variants.len()],
            Work::Accumulate(_) => vec![vec![Walk::new(Skeleton::Accumulate)]; engine.variants.len()],
        };
        let stages = walks.iter().map(Vec::len).max().unwrap_or(0);
        let mut calls = Vec::new();
        for stage in 0..stages {
            let walk = |variant: usize, over: Over| {
                walks[variant].get(stage).copied().filter(|walk| Over::of(walk.skeleton) == over)
            };
            for (kind, over) in [(1, Over::Tiles), (0, Over::Chunks)] {
                for i in 0..self.windows[kind].len() {
                    let variant = self.windows[kind][i].like.variant;
                    if let Some(walk) = walk(variant, over) {
                        calls.extend(self.over_window(variant, walk, [kind, i])?);
                    }
                }
            }
            for (variant, page, entries) in &plan.lines {
                if let Some(walk) = walk(*variant, Over::Lines) {
                    calls.push(self.call_with(*variant, walk, None, &[(entries.clone(), 0)], [Some(*page); 2])?);
                }
            }
            for (kind, parts) in plan.products.iter().enumerate() {
                for (variant, page, entries) in parts {
                    let is_here = |walk: &Walk| walk.product.is_some_and(|product| product.kind() == kind);
                    if let Some(walk) = walk(*variant, Over::Parts).filter(is_here) {
                        calls.push(self.call_with(
                            *variant,
                            walk,
                            None,
                            &[(entries.clone(), 0)],
                            [None, Some(*page)],
                        )?);
                    }
                }
            }
            let of_sides = |walk: &Walk| match (walk.skeleton, walk.turning) {
                (Skeleton::Grams, _) => &plan.grams[..],
                (Skeleton::Bases, _) => &plan.bases[..],
                (_, turning) => turning.map_or(&[][..], |turning| &plan.turns[turning.kind()]),
            };
            for (variant, walks) in walks.iter().enumerate() {
                let Some(walk) = walks.get(stage).filter(|walk| Over::of(walk.skeleton) == Over::Sides) else {
                    continue;
                };
                for over in of_sides(walk).iter().filter(|over| over.variant == variant) {
                    let call = self.call_with(variant, *walk, None, &over.entries, [None, Some(over.page)])?;
                    calls.push(Call { times: over.times, only: over.only, ..call });
                }
            }
            for (variant, entries) in &plan.finishes {
                if let Some(walk) = walk(*variant, Over::Tensors) {
                    calls.push(self.call(*variant, walk, None, entries)?);
                }
            }
            // One dispatch is enough: the groups of a rule that sums over the model are one variant.
            if let Some(walk) = walk(0, Over::Model).filter(|_| !plan.model.is_empty()) {
                calls.push(self.call(0, walk, None, &plan.model)?);
            }
        }
        Ok(calls)
    }

    /// Adds a walk over a window. One of sums or norms takes short entries by themselves.
    fn over_window(&mut self, variant: usize, walk: Walk, at: [usize; 2]) -> Result<Vec<Call>> {
        let walked = self.windows[at[0]][at[1]].walked();
        let is_apart = walked.len() > 1 && matches!(walk.skeleton, Skeleton::Sums | Skeleton::Norms);
        let parts = if is_apart { &walked[1..] } else { &walked[..1] };
        let call = |(entries, of_group): &(Range<usize>, u64)| {
            self.call(variant, Walk { short: *of_group > 1, ..walk }, Some(at), entries)
        };
        parts.iter().map(call).collect()
    }

    /// Adds a walk over entries of a window, or over entries that know no values.
    pub(super) fn call(
        &mut self,
        variant: usize,
        walk: Walk,
        window: Option<[usize; 2]>,
        entries: &Range<usize>,
    ) -> Result<Call> {
        let of_window = window.map(|[kind, i]| &self.windows[kind][i]);
        let pages = of_window.map_or([None; 2], |window| [window.like.lines, window.like.work]);
        self.call_with(variant, walk, window, &[(entries.clone(), 0)], pages)
    }

    fn call_with(
        &mut self,
        variant: usize,
        walk: Walk,
        at: Option<[usize; 2]>,
        entries: &[(Range<usize>, u64)],
        [lines, work]: [Option<usize>; 2],
    ) -> Result<Call> {
        let (engine, planned) = (self.engine, self.planned);
        let window = at.map(|[kind, i]| &self.windows[kind][i]);
        let Variant { rule, wrappers, layout: state, .. } = &engine.variants[variant];
        let values = Values {
            access: window.map_or(crate::tensor::Access::Vec4, |window| window.like.access),
            formats: window.map_or(Formats::default(), |window| window.like.formats),
            pages: window.map_or(Pages::Apart, |window| window.pages),
        };
        let all = shader::bindings(&**rule, wrappers, walk.skeleton, values.pages);
        let (found, needed) = (engine.gpu.device().limits().max_storage_buffers_per_shader_stage, all.len() as u64);
        if needed > u64::from(found) {
            let limit = "max_storage_buffers_per_shader_stage";
            return Err(Error::Limit { limit, found: found.into(), needed });
        }
        let kernel = Kernel {
            variant,
            walk,
            values,
            tails: window.is_some_and(|window| window.like.tails),
            crossings: window.is_some_and(|window| window.like.crossings),
            copies: window.is_some_and(|window| window.copies) && walk.skeleton == Skeleton::Apply,
        };
        let pipeline = self.pipeline(kernel)?;
        let layout = of_group(&all, 0);
        let spans = window.map_or(&[][..], |window| &window.spans);
        let bindings = Bindings {
            state: window.and_then(|window| window.like.state).filter(|_| layout.contains(&Binding::State)),
            lines: lines.filter(|_| layout.contains(&Binding::Lines)),
            work: work.filter(|_| layout.contains(&Binding::Work)),
            table: planned.table.clone(),
            values: spans.iter().map(|span| (self.buffers[span.buffer].clone(), span.offset, span.size)).collect(),
            layout,
        };
        let has_table = bindings.layout.contains(&Binding::Tables);
        let group = self.group(bindings)?;
        // The most that a walk reads and writes of an element: the parameter twice, the gradient, and the state twice.
        let of_values = window.map(|_| 12 + 2 * state.room().exact_bytes(GROUP as u64).div_ceil(GROUP as u64));
        let of_group = if walk.short { SIDE_BY_SIDE } else { 1 };
        let dispatches = entries
            .iter()
            .flat_map(|(entries, bytes)| self.dispatches(entries.clone(), of_group, at, of_values.unwrap_or(*bytes)))
            .collect();
        Ok(Call { pipeline, group, has_table, dispatches, times: 1, only: None })
    }

    /// Returns the dispatches over these entries, of which a workgroup takes so many. Puts their words into the head.
    fn dispatches(
        &mut self,
        entries: Range<usize>,
        of_group: u64,
        at: Option<[usize; 2]>,
        element_bytes: u64,
    ) -> Vec<(u32, Dispatch)> {
        let key = (entries, of_group, at);
        if let Some(known) = self.words.get(&key) {
            return known.clone();
        }
        // A dispatch finds rows behind its own words alone, so all dispatches over a window come before its rows.
        let window = at.map(|[kind, i]| &self.windows[kind][i]);
        let walked = window.map_or_else(|| vec![(key.0.clone(), of_group)], Window::walked);
        let head = &mut self.new.head;
        let mut places = Vec::new();
        for (entries, of_group) in walked {
            let dispatches = match entries == ONCE {
                true => vec![Dispatch { offset: 0, entries: 0..0, x: 1, y: 1 }],
                false => self.planned.plan.dispatches(entries.clone(), of_group, element_bytes, self.engine.bounds),
            };
            let mut all = Vec::new();
            for dispatch in dispatches {
                let place = head.len().next_multiple_of(ALIGNMENT as usize / 4);
                head.resize(place + dispatch::LEN, 0);
                head[place + dispatch::FIRST] = dispatch.entries.start;
                head[place + dispatch::END] = dispatch.entries.end;
                places.push(place);
                all.push((4 * place as u32, dispatch));
            }
            self.words.insert((entries, of_group, at), all);
        }
        if let (Some(at), Some(window)) = (at, window) {
            let rows = head.len();
            let len = if matches!(window.pages, Pages::Many(_)) { row::LEN } else { row::OUT };
            head.extend(window.rows.iter().flat_map(|row| &row[..len]));
            self.new.rows.push((at, rows, len));
            for place in places {
                head[place + dispatch::ROWS] = ((rows - place) as u32).wrapping_sub((window.first * len) as u32);
            }
        }
        self.words[&key].clone()
    }

    fn pipeline(&mut self, kernel: Kernel) -> Result<wgpu::ComputePipeline> {
        let engine = self.engine;
        if let Some(known) = engine.kernels.get(&kernel).or(self.new.kernels.get(&kernel)) {
            return Ok(known.clone());
        }
        let Variant { rule, wrappers, switches, .. } = &engine.variants[kernel.variant];
        let Kernel { tails, crossings, copies, .. } = kernel;
        let constants = Switches { tails, crossings, copies, ..*switches }.constants(&**rule, wrappers, kernel.walk);
        let shader =
            Shader { rule: &**rule, wrappers, constants, skeleton: kernel.walk.skeleton, values: kernel.values };
        let fresh = &mut self.new.fresh;
        let pipeline = engine.gpu.scoped_now(|| engine.gpu.pipelines().get(fresh, &engine.gpu, &shader))?;
        self.new.kernels.insert(kernel, pipeline.clone());
        Ok(pipeline)
    }

    fn group(&mut self, bindings: Bindings) -> Result<Arc<wgpu::BindGroup>> {
        if let Some(known) = self.engine.groups.get(&bindings).or(self.new.groups.get(&bindings)) {
            return Ok(known.clone());
        }
        let engine = self.engine;
        let pages = bindings.layout.iter().filter(|binding| matches!(binding, Binding::Page(_))).count();
        if pages > bindings.values.len() && self.new.spare.is_none() {
            let usage = wgpu::BufferUsages::STORAGE;
            let create = || engine.gpu.create_buffer("wgpu-optim/spare", SPARE_PAGES * ALIGNMENT, usage);
            self.new.spare = Some(engine.gpu.scoped_now(create)?);
        }
        let value = |i: usize| match bindings.values.get(i) {
            Some((buffer, offset, size)) => {
                wgpu::BufferBinding { buffer, offset: *offset, size: wgpu::BufferSize::new(*size) }
            }
            None => wgpu::BufferBinding {
                buffer: self.new.spare.as_ref().expect("made where a page is left over"),
                offset: i as u64 % SPARE_PAGES * ALIGNMENT,
                size: wgpu::BufferSize::new(ALIGNMENT),
            },
        };
        let page = |pages: &'a [wgpu::Buffer], page: Option<usize>| {
            pages[page.expect("a window has what its shader binds")].as_entire_buffer_binding()
        };
        let entries: Vec<_> = bindings
            .layout
            .iter()
            .map(|binding| wgpu::BindGroupEntry {
                binding: binding.place().1,
                resource: wgpu::BindingResource::Buffer(match binding {
                    Binding::Params => value(0),
                    // Buffers of gradients come second in the list. A walk that reads no parameters binds them alone.
                    Binding::Grads => value(bindings.values.len().saturating_sub(1)),
                    Binding::Page(i) => value(*i as usize),
                    Binding::State => page(&engine.state_pages, bindings.state),
                    Binding::Lines => page(&engine.line_pages, bindings.lines),
                    Binding::Work => page(&engine.work_pages, bindings.work),
                    Binding::Tables => wgpu::BufferBinding {
                        buffer: &bindings.table,
                        offset: 0,
                        size: wgpu::BufferSize::new(self.planned.plan.table_bytes.max(ALIGNMENT)),
                    },
                    Binding::Scratch => {
                        let scratch = engine.scratch.as_ref().expect("made where a rule has numbers a tensor");
                        scratch.as_entire_buffer_binding()
                    }
                    Binding::Control | Binding::Decisions => {
                        let control = engine.control.as_ref().expect("made where anything is decided");
                        control.as_entire_buffer_binding()
                    }
                    Binding::Clocks => unreachable!("group 1"),
                }),
            })
            .collect();
        engine.gpu.count(Made::BindGroup);
        let create = || {
            engine.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("wgpu-optim"),
                layout: &engine.gpu.pipelines().layout(&engine.gpu, &bindings.layout),
                entries: &entries,
            })
        };
        let group = Arc::new(engine.gpu.scoped_now(create)?);
        self.new.groups.insert(bindings, group.clone());
        Ok(group)
    }
}

/// What one workgroup of a walk works on.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Tiles,
    Lines,
    Chunks,
    Parts,
    Sides,
    Tensors,
    Model,
    Nothing,
}

impl Over {
    fn of(skeleton: Skeleton) -> Self {
        match skeleton {
            Skeleton::Lines => Self::Tiles,
            Skeleton::FinishLines => Self::Lines,
            Skeleton::Sums
            | Skeleton::Spread
            | Skeleton::Weigh
            | Skeleton::Inner
            | Skeleton::Recall
            | Skeleton::Counts
            | Skeleton::Apply
            | Skeleton::Moves
            | Skeleton::Accumulate => Self::Chunks,
            Skeleton::Finish | Skeleton::FinishSums | Skeleton::FinishInner | Skeleton::FinishCounts => Self::Tensors,
            Skeleton::FinishModel | Skeleton::Recursion => Self::Model,
            Skeleton::Product => Self::Parts,
            Skeleton::Grams | Skeleton::Turn | Skeleton::Bases => Self::Sides,
            Skeleton::Norms | Skeleton::FinishNorms | Skeleton::Decide => Self::Nothing,
        }
    }
}

/// Encodes calls as one pass.
pub(super) fn run<'a>(encoder: &mut wgpu::CommandEncoder, slot: &Slot, calls: impl Iterator<Item = &'a Call>) {
    let mut calls = calls.peekable();
    if calls.peek().is_none() {
        return;
    }
    let descriptor = wgpu::ComputePassDescriptor { label: Some("wgpu-optim"), timestamp_writes: None };
    let mut pass = encoder.begin_compute_pass(&descriptor);
    for call in calls {
        pass.set_pipeline(&call.pipeline);
        for (words, dispatch) in (0..call.times).flat_map(|_| &call.dispatches) {
            // An offset lies in the table, whose bytes 32 bits count.
            let offset = [dispatch.offset as u32];
            pass.set_bind_group(0, &*call.group, if call.has_table { &offset } else { &[] });
            pass.set_bind_group(1, &slot.group, &[slot.offset + words]);
            pass.dispatch_workgroups(dispatch.x, dispatch.y, 1);
        }
    }
}

/// A range without entries, for a walk of one workgroup that reads no table.
pub(super) const ONCE: Range<usize> = 0..0;

/// The pages of a dispatch, where others stand in for those that it does not use.
const SPARE_PAGES: u64 = 64;
