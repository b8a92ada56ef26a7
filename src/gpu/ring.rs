//! Per-step host data: a slot is in use from `encode` until the report of its step has come.

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
    /// What was written into a slot last, kept for its memory.
    written: Vec<u32>,
}

#[derive(Debug)]
struct Page {
    buffer: wgpu::Buffer,
    group: wgpu::BindGroup,
    free: Arc<Mutex<Vec<u32>>>,
    /// The head that each slot holds.
    heads: Vec<Option<Arc<[u32]>>>,
}

/// A slot that holds a step's data.
pub(crate) struct Slot {
    pub(super) group: wgpu::BindGroup,
    pub(super) offset: u32,
    pub(super) buffer: wgpu::Buffer,
    /// The serial number of its encoding, and its first byte in the buffer.
    pub(super) serial: u32,
    pub(super) serial_at: u64,
    pub(super) guard: Guard,
}

/// Frees its slot when it goes: when the report of the step has come, or with an encoder that was never submitted.
#[derive(Debug)]
pub(super) struct Guard {
    free: Arc<Mutex<Vec<u32>>>,
    slot: u32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

impl Ring {
    /// Writes the head of a step, then its words and the serial number of its encoding, into a free slot. A head that
    /// the slot holds already, as from an earlier step with the same buffers, stays there.
    ///
    /// # Errors
    /// [`Error::Limit`] where a binding does not hold them, [`Error::Wgpu`] where the ring cannot grow.
    pub(super) fn write(&mut self, gpu: &Gpu, head: &Arc<[u32]>, words: &[u32], serial: u32) -> Result<Slot> {
        let serial_at = 4 * (head.len() + words.len()) as u64;
        let needed = (serial_at + 4).max(ALIGNMENT);
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
        let found = self.pages.iter_mut().rev().find_map(|page| free(page).map(|slot| (page, slot)));
        let (page, slot) = match found {
            Some(found) => found,
            None => {
                self.grow(gpu)?;
                let page = self.pages.last_mut().expect("one was pushed");
                let slot = free(page).expect("a new page is free");
                (page, slot)
            }
        };
        let offset = u64::from(slot) * self.slot_bytes;
        let guard = Guard { free: page.free.clone(), slot };
        let (buffer, group, serial_at) = (page.buffer.clone(), page.group.clone(), offset + serial_at);
        let held = &mut page.heads[slot as usize];
        // In a browser the error of a write comes late, so a slot there may lack what was written last.
        let holds = cfg!(not(target_arch = "wasm32")) && held.as_ref().is_some_and(|held| Arc::ptr_eq(held, head));
        let kept = if holds { head.len() } else { 0 };
        self.written.clear();
        for part in [&head[kept..], words, &[serial]] {
            self.written.extend_from_slice(part);
        }
        let start = offset + 4 * kept as u64;
        gpu.caught_now(|| gpu.queue().write_buffer(&buffer, start, bytemuck::cast_slice(&self.written)))?;
        *held = Some(head.clone());
        Ok(Slot { group, offset: offset as u32, buffer, serial, serial_at, guard })
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
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
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
            let free = Arc::new(Mutex::new((0..slots as u32).rev().collect()));
            Page { buffer, group, free, heads: vec![None; slots as usize] }
        })?;
        self.pages.push(page);
        Ok(())
    }
}
