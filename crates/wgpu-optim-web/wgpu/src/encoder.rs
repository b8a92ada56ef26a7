//! Encoders and passes, and what waits for their commands.

use std::ops::RangeFull;

use js_sys::Object;

use crate::js::{GPUCommandEncoder, GPUComputePassEncoder};
use crate::{BindGroup, Buffer, ComputePassDescriptor, ComputePipeline, Error, MapMode};

/// What is called when commands are done, and what they use until they are submitted. Where commands are never
/// submitted it is dropped, and so are the functions, uncalled.
#[derive(Default)]
pub struct Pending {
    pub(crate) done: Vec<Box<dyn FnOnce()>>,
    pub(crate) maps: Vec<(Buffer, Mapped)>,
    pub(crate) kept: Vec<Kept>,
}

/// Called with how the mapping of a buffer went.
pub(crate) type Mapped = Box<dyn FnOnce(Result<(), Error>)>;

/// What commands use.
#[derive(Debug)]
#[expect(dead_code, reason = "it is held, so that its buffers are not destroyed before the submit")]
pub(crate) enum Kept {
    Group(BindGroup),
    Buffer(Buffer),
}

/// An encoder.
pub struct CommandEncoder {
    js: GPUCommandEncoder,
    pending: Pending,
}

impl CommandEncoder {
    /// An encoder that JavaScript owns, and finishes.
    pub fn of(js: GPUCommandEncoder) -> Self {
        Self { js, pending: Pending::default() }
    }

    /// What waits for the commands that were encoded here. [`Queue::follow`](crate::Queue::follow) takes it once
    /// JavaScript has submitted them.
    pub fn into_pending(self) -> Pending {
        self.pending
    }

    /// Begins a pass.
    pub fn begin_compute_pass(&mut self, _: &ComputePassDescriptor) -> ComputePass<'_> {
        let js = self.js.begin_compute_pass();
        ComputePass { js, kept: &mut self.pending.kept }
    }

    /// Copies bytes.
    pub fn copy_buffer_to_buffer(&mut self, from: &Buffer, start: u64, to: &Buffer, place: u64, size: u64) {
        self.js.copy_buffer_to_buffer(from.js(), start as f64, to.js(), place as f64, size as f64);
        self.pending.kept.extend([from, to].map(|buffer| Kept::Buffer(buffer.clone())));
    }

    /// Sets bytes to zero.
    pub fn clear_buffer(&mut self, buffer: &Buffer, offset: u64, size: Option<u64>) {
        let size = size.unwrap_or(buffer.size() - offset);
        self.js.clear_buffer(buffer.js(), offset as f64, size as f64);
        self.pending.kept.push(Kept::Buffer(buffer.clone()));
    }

    /// Calls a function once the commands are done.
    pub fn on_submitted_work_done(&mut self, tell: impl FnOnce() + 'static) {
        self.pending.done.push(Box::new(tell));
    }

    /// Maps a buffer once the commands are submitted.
    pub fn map_buffer_on_submit(
        &mut self,
        buffer: &Buffer,
        _: MapMode,
        _: RangeFull,
        tell: impl FnOnce(Result<(), Error>) + 'static,
    ) {
        self.pending.maps.push((buffer.clone(), Box::new(tell)));
    }

    /// The commands, to be submitted.
    pub fn finish(self) -> CommandBuffer {
        CommandBuffer { js: self.js.finish(), pending: self.pending }
    }
}

/// Commands to be submitted.
pub struct CommandBuffer {
    js: Object,
    pending: Pending,
}

impl CommandBuffer {
    pub(crate) fn into_parts(self) -> (Object, Pending) {
        (self.js, self.pending)
    }
}

/// A pass, which ends when it is dropped.
#[derive(Debug)]
pub struct ComputePass<'a> {
    js: GPUComputePassEncoder,
    kept: &'a mut Vec<Kept>,
}

impl ComputePass<'_> {
    /// Sets the pipeline of the dispatches from here on.
    pub fn set_pipeline(&mut self, pipeline: &ComputePipeline) {
        self.js.set_pipeline(&pipeline.0);
    }

    /// Sets a bind group of the dispatches from here on.
    pub fn set_bind_group(&mut self, index: u32, group: &BindGroup, offsets: &[u32]) {
        self.js.set_bind_group(index, &group.0.0, offsets, 0, offsets.len() as u32);
        self.kept.push(Kept::Group(group.clone()));
    }

    /// Dispatches workgroups.
    pub fn dispatch_workgroups(&mut self, x: u32, y: u32, z: u32) {
        self.js.dispatch_workgroups(x, y, z);
    }
}

impl Drop for ComputePass<'_> {
    fn drop(&mut self) {
        self.js.end();
    }
}
