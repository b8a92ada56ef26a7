//! The buffers on the device that an optimizer owns: state, scratch, control, the words of steps.

use std::collections::HashMap;
use std::sync::Arc;

use super::bind::{Bound, Placement, Planned};
use super::binder::{Groups as BindGroups, Kernel};
use super::limits::{WorkPages, check_limits, scratch_words, work_pages};
use super::ring::{Ring, Slot};
use super::variants::{Variant, variants};
use super::{Arena, Gpu};
use crate::course;
use crate::error::{Error, Result, refuse};
use crate::groups::Groups;
use crate::lines::Lines;
use crate::plan::{Bounds, Framed, Place, Sided, check_lines, pack, pack_state};
use crate::report::LossScaleState;
use crate::rule::Start;
use crate::shader::tensor_numbers;
use crate::sides::Side;
use crate::tensor::TensorSpec;
use crate::words::control;
use crate::wrappers::Wrappers;

/// The GPU side of one optimizer.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) gpu: Gpu,
    pub(super) tensors: Vec<TensorSpec>,
    /// The gradients, as tensors of their format.
    pub(super) wrappers: Wrappers,
    pub(super) variants: Vec<Variant>,
    pub(super) variant_of: Vec<usize>,
    pub(super) bounds: Bounds,
    /// Where the pieces of each tensor's state lie.
    pub(super) state_places: Vec<Vec<Place>>,
    pub(super) state_pages: Vec<wgpu::Buffer>,
    /// The rows and columns of the tensors whose rule has numbers of them.
    pub(super) lines: Vec<Option<Lines>>,
    pub(super) line_places: Vec<Place>,
    pub(super) line_pages: Vec<wgpu::Buffer>,
    /// The matrices of which rules take products.
    pub(super) frames: Vec<Option<Framed>>,
    /// The tensors that rules turn.
    pub(super) sides: Vec<Option<Sided>>,
    pub(super) work_pages: Vec<wgpu::Buffer>,
    /// Numbers of the tensors, then partial results.
    pub(super) scratch: Option<wgpu::Buffer>,
    /// The buffer `control`, where the device decides anything.
    pub(super) control: Option<wgpu::Buffer>,
    /// Sums of micro-batches.
    pub(super) accumulated: Option<Arc<Arena>>,
    pub(super) ring: Ring,
    /// What was bound for the buffers of the last steps, the latest last.
    pub(super) placements: Vec<Placement>,
    pub(super) planned: Vec<Arc<Planned>>,
    pub(super) kernels: HashMap<Kernel, wgpu::ComputePipeline>,
    /// The bind groups of the placements.
    pub(super) groups: BindGroups,
    /// A buffer that stands in for pages that a dispatch does not use.
    pub(super) spare: Option<wgpu::Buffer>,
    /// Gradients of 0.
    zeros: Option<wgpu::Buffer>,
}

impl Engine {
    /// Makes the state of these tensors, each slot with the value it starts at.
    pub(crate) fn new(gpu: &Gpu, tensors: &[TensorSpec], groups: &Groups) -> Result<Self> {
        let limits = gpu.device().limits();
        let (variants, variant_of) = variants(groups, gpu.tuning().lanes, &limits);
        let binding_bytes = limits.max_storage_buffer_binding_size.min(super::BINDING_BYTES_MAX).min(gpu.page_bytes());
        let slots_max = variants.iter().map(|variant| variant.slots).max().unwrap_or(0);
        let workgroups = limits.max_compute_workgroups_per_dimension;
        let bounds = Bounds::new(binding_bytes, workgroups, gpu.tuning().chunk_blocks, slots_max);
        let bounds = Bounds { dispatch_bytes: gpu.tuning().dispatch_bytes, ..bounds };
        check_limits(&limits, &variants)?;
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
        let state_of = |(tensor, &variant): (&TensorSpec, &usize)| (tensor.len_elements(), variants[variant].slots);
        let of_state: Vec<_> = tensors.iter().zip(&variant_of).map(state_of).collect();
        let (state_places, sizes) = pack_state(&of_state, bounds);
        let page_bytes = gpu.page_bytes().min(binding_bytes);
        let WorkPages { frames, sides, sizes: work_sizes } = work_pages(tensors, groups, page_bytes)?;
        for (tensor, sided) in tensors.iter().zip(&sides) {
            let size = sided.iter().flat_map(|sided| &sided.sides).map(|side| side.size).max().unwrap_or(0);
            let most = Side::most(bounds.dispatch_bytes);
            if size > most {
                let bound = format!("at most {most} on this device; max_precondition_dim leaves larger ones out");
                return refuse(format!("a side of tensor {}", tensor.name), size, bound);
            }
        }
        let apart = |i: usize| lines[i].filter(|_| frames[i].is_none());
        let size = |i: usize| apart(i).map_or(0, |lines: Lines| lines.words().saturating_mul(4));
        let (mut line_places, line_sizes) = pack(tensors, "rows and columns", size, 16, binding_bytes / 16 * 16)?;
        for (place, framed) in line_places.iter_mut().zip(&frames) {
            if let Some(framed) = framed {
                *place = framed.behind();
            }
        }
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
        let (state_pages, line_pages, work_pages, scratch, control) = gpu.scoped_now(|| {
            let state_pages = pages("wgpu-optim/state", &sizes);
            let line_pages = pages("wgpu-optim/lines", &line_sizes);
            let work_pages = pages("wgpu-optim/work", &work_sizes);
            let scratch = (scratch_words > 0).then(|| create("wgpu-optim/scratch", 4 * scratch_words));
            let control = (control_bytes > 0).then(|| create("wgpu-optim/control", control_bytes));
            (state_pages, line_pages, work_pages, scratch, control)
        })?;
        let accumulated = match wrappers.batches() {
            1 => None,
            _ => {
                let sums: Vec<_> = tensors.iter().map(TensorSpec::summed_spec).collect();
                Some(Arc::new(Arena::new(gpu, &sums)?))
            }
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
            frames,
            sides,
            work_pages,
            scratch,
            control,
            accumulated,
            ring: Ring::default(),
            placements: vec![],
            planned: vec![],
            kernels: HashMap::new(),
            groups: BindGroups::new(),
            spare: None,
            zeros: None,
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
                    // The slot starts as the parameter: a tensor's first step writes it.
                    Start::Value(_) | Start::Param => {}
                }
            }
        }
        Ok(engine)
    }

    /// A buffer of at least so many bytes, all 0. It starts with four words.
    pub(crate) fn zeros(&mut self, bytes: u64) -> Result<wgpu::Buffer> {
        match &self.zeros {
            Some(buffer) if buffer.size() >= bytes => Ok(buffer.clone()),
            _ => {
                let size = bytes.next_multiple_of(16).max(16);
                let create = || self.gpu.create_buffer("wgpu-optim/zeros", size, wgpu::BufferUsages::STORAGE);
                let buffer = self.gpu.scoped_now(create)?;
                Ok(self.zeros.insert(buffer).clone())
            }
        }
    }

    /// The device that the optimizer works on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Sums of micro-batches.
    pub(crate) fn accumulated(&self) -> Option<Arc<Arena>> {
        self.accumulated.clone()
    }

    /// The buffer `control`.
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

    /// Reads words of `control` from one on, once all submitted work is done.
    pub(crate) async fn read_control(&self, first: usize, words: usize, wait: bool) -> Result<Vec<u32>> {
        let Some(control) = &self.control else { return Ok(vec![]) };
        let bytes = self.gpu.read(control, &[(4 * first as u64, 4 * words as u64)], wait).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Sets words of `control` from one on, before any work that is not yet submitted.
    pub(crate) fn write_control(&self, first: usize, words: &[u32]) -> Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        self.gpu.scoped_now(|| self.gpu.queue().write_buffer(control, 4 * first as u64, bytemuck::cast_slice(words)))
    }

    /// How many bytes of the device's memory each kind of buffer takes.
    pub(crate) fn memory(&self) -> [u64; 5] {
        let sizes = |buffers: &[wgpu::Buffer]| buffers.iter().map(wgpu::Buffer::size).sum::<u64>();
        let of_lines = self.lines.iter().flatten().flat_map(Lines::counts).map(|numbers| 4 * numbers);
        let of_sides = self.sides.iter().flatten().map(|sided| 8 * sided.parts.matrices());
        let kept: u64 = of_lines.chain(of_sides).sum();
        [
            sizes(&self.state_pages) + kept,
            self.accumulated.as_ref().map_or(0, |arena| arena.size_bytes()),
            [&self.scratch, &self.control].into_iter().flatten().map(wgpu::Buffer::size).sum::<u64>()
                + sizes(&self.line_pages)
                + sizes(&self.work_pages)
                - kept,
            self.planned
                .iter()
                .map(|planned| planned.table.size())
                .chain(self.spare.iter().chain(&self.zeros).map(wgpu::Buffer::size))
                .sum(),
            self.ring.size_bytes(),
        ]
    }

    /// How many numbers each tensor has in scratch.
    pub(super) fn tensor_numbers(&self) -> usize {
        let of_variant = |variant: &Variant| tensor_numbers(&*variant.rule, &self.wrappers);
        self.variants.iter().map(of_variant).max().unwrap_or(0)
    }

    /// How many kinds of pipeline the groups need.
    pub(crate) fn variants(&self) -> usize {
        self.variants.len()
    }

    /// Writes the head of what was bound, and these words, into a slot of the ring that no other work uses, and returns
    /// the slot for [`Bound::encode`].
    pub(crate) fn write(&mut self, bound: &Bound, words: &[u32], serial: u32) -> Result<Slot> {
        self.ring.write(&self.gpu, &bound.head, words, serial)
    }
}
