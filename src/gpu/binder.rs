//! From a plan to bind groups, pipelines and the dispatches that use them.

use super::Made;
use super::bind::Work;
use super::engine::Engine;
use super::pipelines::{Fresh, Shader, of_group};
use super::ring::Slot;
use super::variants::Variant;
use crate::plan::{Dispatch, Plan, Span, Window};
use crate::shader::{self, Binding, Skeleton, Switches, Walk};
use crate::tensor::{ALIGNMENT, Access, DType};

/// One set of bindings and the dispatches that use it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
    /// Whether it reads the table, from each dispatch's own offset.
    pub(super) has_table: bool,
    pub(super) dispatches: Vec<Dispatch>,
}

/// Makes the table, pipelines and bind groups of a plan. To be used within an error scope.
pub(super) struct Binder<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    buffers: &'a [wgpu::Buffer],
    pub(super) table: wgpu::Buffer,
    pub(super) fresh: Fresh,
}

impl<'a> Binder<'a> {
    pub(super) fn new(engine: &'a Engine, plan: &'a Plan, buffers: &'a [wgpu::Buffer]) -> Self {
        let size = (4 * plan.table.len() as u64).max(ALIGNMENT);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let table = engine.gpu.create_buffer("wgpu-optim/table", size, usage);
        engine.gpu.queue().write_buffer(&table, 0, bytemuck::cast_slice(&plan.table));
        Self { engine, plan, buffers, table, fresh: Fresh::default() }
    }

    /// The calls that measure all gradients.
    pub(super) fn measures(&mut self) -> Vec<Call> {
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
    pub(super) fn calls(&mut self, work: Work) -> Vec<Call> {
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

    pub(super) fn call(
        &mut self,
        variant: usize,
        walk: Walk,
        window: Option<&Window>,
        dispatches: &[Dispatch],
    ) -> Call {
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
pub(super) fn run<'a>(encoder: &mut wgpu::CommandEncoder, slot: &Slot, calls: impl Iterator<Item = &'a Call>) {
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

/// One workgroup.
pub(super) const ONCE: Dispatch = Dispatch { offset: 0, x: 1, y: 1 };

fn bind_span(buffers: &[wgpu::Buffer], span: Option<Span>) -> wgpu::BufferBinding<'_> {
    let Span { buffer, offset, size } = span.expect("a window has what its shader binds");
    wgpu::BufferBinding { buffer: &buffers[buffer], offset, size: wgpu::BufferSize::new(size) }
}
