//! The buffers on the device that an optimizer owns: state, scratch, control, the words of steps.

use std::collections::HashMap;
use std::sync::Arc;

use super::bind::{Bound, Placement, Planned};
use super::binder::{Groups as BindGroups, Kernel};
use super::ring::{Ring, Slot};
use super::sizes::Sizes;
use super::variants::Variant;
use super::{Arena, Gpu};
use crate::course;
use crate::error::Result;
use crate::groups::Groups;
use crate::lines::Lines;
use crate::plan::{Bounds, Framed, Place, Sided};
use crate::report::LossScaleState;
use crate::shader::tensor_numbers;
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
        let sizes = Sizes::of(&gpu.device().limits(), gpu.tuning(), tensors, groups)?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let create =
            |label: &str, size: u64| (size > 0).then(|| gpu.create_buffer(&format!("wgpu-optim/{label}"), size, usage));
        let pages = |label: &str, sizes: &[u64]| sizes.iter().filter_map(|&size| create(label, size)).collect();
        let (state_pages, line_pages, work_pages, scratch, control) = gpu.scoped_now(|| {
            let (scratch, control) = (create("scratch", sizes.scratch), create("control", sizes.control));
            (pages("state", &sizes.state), pages("lines", &sizes.line), pages("work", &sizes.work), scratch, control)
        })?;
        let (wrappers, layout) = (groups.wrappers(), course::layout(tensors.len(), groups));
        let Sizes { variants, variant_of, bounds, state_places, lines, line_places, frames, sides, .. } = sizes;
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
            engine.start(groups, i)?;
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
