//! The ring of slots: a slot holds the words of one step, from `encode` until the step's command buffer is done.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::pipelines::of_group;
use super::{BINDING_BYTES_MAX, Gpu, Made};
use crate::error::{Error, Result};
use crate::shader::Binding;
use crate::tensor::ALIGNMENT;

/// How many slots the ring has at first.
const SLOTS: u32 = 4;

/// A buffer of slots. When all are in use the ring doubles: steps in one encoder that shared a slot would all read the
/// numbers of the last one.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pages: Vec<Page>,
    slot_bytes: u64,
}

#[derive(Debug)]
struct Page {
    buffer: wgpu::Buffer,
    group: wgpu::BindGroup,
    free: Arc<Mutex<Vec<u32>>>,
}

/// A slot that holds a step's data.
pub(crate) struct Slot {
    pub(super) group: wgpu::BindGroup,
    pub(super) offset: u32,
    pub(crate) guard: Guard,
}

/// What became of a step's commands.
#[derive(Clone, Debug)]
pub(crate) struct State(Arc<AtomicU8>);

impl State {
    const PENDING: u8 = 0;
    const DONE: u8 = 1;
    const DROPPED: u8 = 2;

    /// Whether the step's command buffer has run.
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::DONE
    }

    /// Whether the step's encoder or command buffer was dropped and not submitted.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::DROPPED
    }
}

/// Frees its slot when it is dropped: after the command buffer is done, or with an encoder that was never submitted.
#[derive(Debug)]
pub(crate) struct Guard {
    free: Arc<Mutex<Vec<u32>>>,
    slot: u32,
    state: State,
}

impl Guard {
    /// What became of the step's commands, for the caller to keep.
    pub(crate) fn state(&self) -> State {
        self.state.clone()
    }

    /// Notes that the device has finished the command buffer.
    pub(crate) fn done(self) {
        self.state.0.store(State::DONE, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (from, to) = (State::PENDING, State::DROPPED);
        // The guard is dropped after `done`, too: a step that is done stays done.
        let _ = self.state.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

impl Ring {
    /// Writes the head of a step, then its words, into a free slot.
    ///
    /// # Errors
    /// [`Error::Limit`] where a binding does not hold them, [`Error::Wgpu`] where the ring cannot grow.
    pub(super) fn write(&mut self, gpu: &Gpu, head: &[u32], words: &[u32]) -> Result<Slot> {
        let needed = (4 * (head.len() + words.len()) as u64).max(ALIGNMENT);
        if needed > self.slot_bytes {
            let limits = gpu.device().limits();
            let most = limits.max_storage_buffer_binding_size.min(BINDING_BYTES_MAX) / ALIGNMENT * ALIGNMENT;
            let slot_bytes = needed.next_power_of_two().min(most);
            if needed > slot_bytes {
                return Err(Error::Limit { limit: "max_storage_buffer_binding_size", found: most, needed });
            }
            // Slots in use keep their buffer alive until their command buffers are done.
            self.pages.clear();
            self.slot_bytes = slot_bytes;
        }
        let free = |page: &Page| page.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let found = self.pages.iter().rev().find_map(|page| Some((page, free(page)?)));
        let (page, slot) = match found {
            Some(found) => found,
            None => {
                self.grow(gpu)?;
                let page = self.pages.last().expect("one was pushed");
                (page, free(page).expect("a new page is free"))
            }
        };
        let offset = u64::from(slot) * self.slot_bytes;
        let start = 4 * head.len() as u64;
        if start > 0 {
            gpu.queue().write_buffer(&page.buffer, offset, bytemuck::cast_slice(head));
        }
        gpu.queue().write_buffer(&page.buffer, offset + start, bytemuck::cast_slice(words));
        let guard = Guard { free: page.free.clone(), slot, state: State(Arc::new(AtomicU8::new(State::PENDING))) };
        Ok(Slot { group: page.group.clone(), offset: offset as u32, guard })
    }

    /// How many bytes of the device's memory the ring takes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.pages.iter().map(|page| page.buffer.size()).sum()
    }

    fn grow(&mut self, gpu: &Gpu) -> Result<()> {
        let limits = gpu.device().limits();
        let have: u64 = self.pages.iter().map(|page| page.buffer.size() / self.slot_bytes - 1).sum();
        // A dispatch binds a slot's size from its own words on, which reaches into the next slot, so the buffer has the
        // room of one slot behind the last.
        let most = (limits.max_buffer_size.min(u64::from(u32::MAX)) / self.slot_bytes).saturating_sub(1).max(1);
        let slots = have.max(u64::from(SLOTS)).min(most);
        let page = gpu.scoped_now(|| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let buffer = gpu.create_buffer("wgpu-optim/steps", (slots + 1) * self.slot_bytes, usage);
            gpu.count(Made::BindGroup);
            let layout = gpu.pipelines().layout(gpu, &of_group(&[Binding::Clocks], 1));
            let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("wgpu-optim/steps"),
                layout: &layout,
                entries: &[wgpu::BindGroupEntry {
                    binding: Binding::Clocks.place().1,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &buffer,
                        offset: 0,
                        size: wgpu::BufferSize::new(self.slot_bytes),
                    }),
                }],
            });
            Page { buffer, group, free: Arc::new(Mutex::new((0..slots as u32).rev().collect())) }
        })?;
        self.pages.push(page);
        Ok(())
    }
}
