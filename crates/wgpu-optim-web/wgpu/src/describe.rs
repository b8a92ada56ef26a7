//! What objects are made of: numbers, names, lists. Only plain data may live here.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

use crate::{BindGroupLayout, Buffer, PipelineLayout, ShaderModule};

bitflags::bitflags! {
    /// What a buffer may be used for.
    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    pub struct BufferUsages: u32 {
        /// `MAP_READ`.
        const MAP_READ = 1;
        /// `MAP_WRITE`.
        const MAP_WRITE = 1 << 1;
        /// `COPY_SRC`.
        const COPY_SRC = 1 << 2;
        /// `COPY_DST`.
        const COPY_DST = 1 << 3;
        /// `INDEX`.
        const INDEX = 1 << 4;
        /// `VERTEX`.
        const VERTEX = 1 << 5;
        /// `UNIFORM`.
        const UNIFORM = 1 << 6;
        /// `STORAGE`.
        const STORAGE = 1 << 7;
        /// `INDIRECT`.
        const INDIRECT = 1 << 8;
        /// `QUERY_RESOLVE`.
        const QUERY_RESOLVE = 1 << 9;
    }

    /// What a device may do beyond the core.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u32 {
        /// `timestamp-query`.
        const TIMESTAMP_QUERY = 1;
    }

    /// Where a binding is seen from.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ShaderStages: u32 {
        /// `COMPUTE`.
        const COMPUTE = 4;
    }
}

// As in wgpu. It is not derived, since a small build prints no fields of what is derived, and errors print usages.
impl fmt::Debug for BufferUsages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter_names().map(|(name, _)| name).collect();
        write!(f, "BufferUsages({})", names.join(" | "))
    }
}

/// Bytes of a binding.
pub type BufferSize = std::num::NonZeroU64;

/// A buffer to be made.
#[derive(Clone, Copy, Debug)]
pub struct BufferDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// Bytes.
    pub size: u64,
    /// What it is used for.
    pub usage: BufferUsages,
    /// Whether the host may write it at first.
    pub mapped_at_creation: bool,
}

/// The text of a shader.
#[derive(Clone, Debug)]
pub enum ShaderSource<'a> {
    /// In WGSL.
    Wgsl(Cow<'a, str>),
}

/// A shader to be made.
#[derive(Clone, Debug)]
pub struct ShaderModuleDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// Its text.
    pub source: ShaderSource<'a>,
}

/// Checks that a shader makes while it runs. A browser always makes its own.
#[derive(Clone, Copy, Debug)]
pub struct ShaderRuntimeChecks(());

impl ShaderRuntimeChecks {
    /// None.
    pub fn unchecked() -> Self {
        Self(())
    }
}

/// How a buffer is bound.
#[derive(Clone, Copy, Debug)]
pub enum BufferBindingType {
    /// As storage.
    Storage {
        /// Whether shaders only read it.
        read_only: bool,
    },
}

/// What is bound.
#[derive(Clone, Copy, Debug)]
pub enum BindingType {
    /// A buffer.
    Buffer {
        /// How.
        ty: BufferBindingType,
        /// Whether each use adds an offset of its own.
        has_dynamic_offset: bool,
        /// Bytes at least.
        min_binding_size: Option<BufferSize>,
    },
}

/// A place of a layout.
#[derive(Clone, Copy, Debug)]
pub struct BindGroupLayoutEntry {
    /// Its number.
    pub binding: u32,
    /// Where it is seen from.
    pub visibility: ShaderStages,
    /// What is bound there.
    pub ty: BindingType,
    /// How many, of an array.
    pub count: Option<std::num::NonZeroU32>,
}

/// A layout to be made.
#[derive(Clone, Copy, Debug)]
pub struct BindGroupLayoutDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// Its places.
    pub entries: &'a [BindGroupLayoutEntry],
}

/// A pipeline's layout to be made.
#[derive(Clone, Copy, Debug)]
pub struct PipelineLayoutDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// The layout of each group.
    pub bind_group_layouts: &'a [Option<&'a BindGroupLayout>],
    /// Bytes of immediate data; there are none.
    pub immediate_size: u32,
}

/// What a pipeline sets in its shader.
#[derive(Clone, Copy, Debug, Default)]
pub struct PipelineCompilationOptions<'a> {
    /// Constants by name.
    pub constants: &'a [(&'a str, f64)],
    /// Whether workgroup memory is zeroed. A browser always does.
    pub zero_initialize_workgroup_memory: bool,
}

/// A pipeline to be made.
#[derive(Clone, Debug)]
pub struct ComputePipelineDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// Its layout.
    pub layout: Option<&'a PipelineLayout>,
    /// Its shader.
    pub module: &'a ShaderModule,
    /// The function that runs.
    pub entry_point: Option<&'a str>,
    /// What it sets in its shader.
    pub compilation_options: PipelineCompilationOptions<'a>,
    /// A cache on disk; there is none.
    pub cache: Option<&'a Infallible>,
}

/// A part of a buffer to be bound.
#[derive(Clone, Debug)]
pub struct BufferBinding<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The first byte.
    pub offset: u64,
    /// Bytes; all from the first one on where none are given.
    pub size: Option<BufferSize>,
}

/// What is bound.
#[derive(Clone, Debug)]
pub enum BindingResource<'a> {
    /// A part of a buffer.
    Buffer(BufferBinding<'a>),
}

/// A place of a bind group.
#[derive(Clone, Debug)]
pub struct BindGroupEntry<'a> {
    /// Its number.
    pub binding: u32,
    /// What is bound there.
    pub resource: BindingResource<'a>,
}

/// A bind group to be made.
#[derive(Clone, Copy, Debug)]
pub struct BindGroupDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// Its layout.
    pub layout: &'a BindGroupLayout,
    /// What is bound.
    pub entries: &'a [BindGroupEntry<'a>],
}

/// An encoder to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandEncoderDescriptor;

/// A pass to be begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct ComputePassDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// Where times are written; there are none.
    pub timestamp_writes: Option<Infallible>,
}

/// Which errors a scope catches.
#[derive(Clone, Copy, Debug)]
pub enum ErrorFilter {
    /// Want of memory.
    OutOfMemory,
    /// Calls that the standard forbids.
    Validation,
    /// What an implementation could not do.
    Internal,
}

/// How a buffer is mapped.
#[derive(Clone, Copy, Debug)]
pub enum MapMode {
    /// To be read.
    Read,
}

/// A submit. A browser has no number for it.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionIndex;

/// How long a poll waits. A browser polls by itself.
#[derive(Clone, Copy, Debug)]
pub enum PollType {
    /// Not at all.
    Poll,
    /// For what was submitted.
    Wait {
        /// Up to which submit; none stands for all.
        submission_index: Option<SubmissionIndex>,
        /// How long at most.
        timeout: Option<std::time::Duration>,
    },
}

impl PollType {
    /// As long as it takes.
    pub fn wait_indefinitely() -> Self {
        Self::Wait { submission_index: None, timeout: None }
    }
}
