//! Tensors packed into few buffers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Gpu, Slice};
use crate::error::Result;
use crate::plan::{Place, pack, padded};
use crate::session::{check_len, find};
use crate::tensor::{ALIGNMENT, TensorSpec};

/// Values of a list of tensors in as few buffers as the device allows, zero at first. Each tensor starts on 256 bytes.
///
/// An arena is a convenience: wherever the crate takes an arena, it also takes slices of any buffers. Gradients have an
/// arena of [their own list](TensorSpec::grad_spec) where their format is another than the parameters'.
#[derive(Debug)]
pub struct Arena {
    gpu: Gpu,
    id: u64,
    tensors: Vec<TensorSpec>,
    places: Vec<Place>,
    pages: Vec<wgpu::Buffer>,
}

/// An arena of which some tensors are left out: gradients that a step lacks. See [`Arena::without`].
#[derive(Clone, Debug)]
pub struct ArenaSubset<'a> {
    pub(super) arena: &'a Arena,
    pub(super) present: Vec<bool>,
}

/// Where the values of tensors lie in an arena, and the bytes of its pages.
pub(super) fn pages(tensors: &[TensorSpec], page_bytes: u64) -> Result<(Vec<Place>, Vec<u64>)> {
    let size = |i: usize| padded(tensors[i].len_elements()).saturating_mul(tensors[i].dtype.size_bytes());
    pack(tensors, "values", size, ALIGNMENT, page_bytes)
}

impl Arena {
    /// Makes an arena for these tensors, without waiting. Where the device says only later that it refuses, as in a
    /// browser, the next call that makes anything on this [`Gpu`] returns the error.
    ///
    /// # Errors
    /// [`Error::TensorTwice`](crate::Error), [`Error::TooLarge`](crate::Error), or
    /// [`Error::Wgpu`](crate::Error) when the device's memory does not hold them.
    pub fn new(gpu: &Gpu, tensors: &[TensorSpec]) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        static IDS: AtomicU64 = AtomicU64::new(0);
        TensorSpec::check_names(tensors)?;
        let (places, sizes) = pages(tensors, gpu.page_bytes())?;
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        // A buffer of no bytes cannot be bound.
        let create = |&size: &u64| gpu.create_buffer("wgpu-optim/arena", size.max(16), usage);
        let pages = gpu.scoped_now(|| sizes.iter().map(create).collect())?;
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { gpu: gpu.clone(), id, tensors: tensors.to_vec(), places, pages })
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Where a tensor lies.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`](crate::Error).
    pub fn slice(&self, name: &str) -> Result<Slice<'_>> {
        Ok(self.slice_at(find(&self.tensors, name)?))
    }

    pub(crate) fn slice_at(&self, tensor: usize) -> Slice<'_> {
        let Place { buffer, offset } = self.places[tensor];
        Slice { buffer: &self.pages[buffer], offset, size: self.tensors[tensor].size_bytes() }
    }

    /// Bytes of the device's memory that the arena takes.
    pub fn size_bytes(&self) -> u64 {
        self.pages.iter().map(wgpu::Buffer::size).sum()
    }

    /// Reads a tensor's values, once all submitted work is done.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`](crate::Error), [`Error::Wgpu`](crate::Error) or [`Error::DeviceLost`](crate::Error).
    pub async fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.read_with(name, false).await
    }

    /// [`read`](Self::read), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(&self, name: &str) -> Result<Vec<f32>> {
        pollster::block_on(self.read_with(name, true))
    }

    async fn read_with(&self, name: &str, wait: bool) -> Result<Vec<f32>> {
        let i = find(&self.tensors, name)?;
        let slice = self.slice_at(i);
        // wgpu copies whole words of 4 bytes.
        let mut bytes = self.gpu.read(slice.buffer, &[(slice.offset, slice.size.next_multiple_of(4))], wait).await?;
        bytes.truncate(slice.size as usize);
        Ok(self.tensors[i].dtype.decode(&bytes))
    }

    /// Sets a tensor's values, before any work that is not yet submitted. They are rounded as
    /// [`DType::round`](crate::DType::round) says. Natively this waits for the device, where it has more than 16 MiB of
    /// values from earlier calls to take.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`](crate::Error), or [`Error::Shape`](crate::Error) for another number of values.
    pub fn write(&self, name: &str, values: &[f32]) -> Result<()> {
        let i = find(&self.tensors, name)?;
        let slice = self.slice_at(i);
        check_len("values", name, values.len(), self.tensors[i].len_elements() as usize)?;
        self.gpu.write_slice(slice, &self.tensors[i].dtype.encode(values))
    }

    /// Returns this arena of gradients without those of the tensors named, which a step then leaves alone.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`](crate::Error).
    pub fn without(&self, names: &[&str]) -> Result<ArenaSubset<'_>> {
        let mut present = vec![true; self.tensors.len()];
        for name in names {
            present[find(&self.tensors, name)?] = false;
        }
        Ok(ArenaSubset { arena: self, present })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}
