//! The device writes a report of each encoding that it has run, and the host reads it later.
//!
//! wgpu calls back for a submit that it refused as for one that has run, and maps buffers for it. So each encoding has
//! a serial number among its words, which the device copies to the report: what has run says so itself.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Gpu;
use super::ring::{Guard, Slot};
use crate::error::Result;
use crate::words::REPORT_WORDS;

/// Where the serial number stands in a report, behind the words of control.
const SERIAL: usize = REPORT_WORDS;

/// Small buffers that the host reads back. Each one holds the report of one encoding at a time.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    /// The serial number that was given last.
    serial: u32,
}

/// A buffer that a command buffer is going to fill.
#[derive(Debug)]
pub(crate) struct Receipt {
    buffer: wgpu::Buffer,
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    serial: u32,
    state: Arc<AtomicU8>,
}

/// What became of an encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum News {
    /// The device has not run it yet.
    None,
    /// Its encoder or command buffer was dropped and not submitted.
    Dropped,
    /// wgpu refused its submit.
    Refused,
    /// The report cannot be read: the device is lost.
    Unread,
    /// The device has run it and left these words of control, where there is any.
    Ran([u32; REPORT_WORDS]),
}

const PENDING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;
const DROPPED: u8 = 3;

/// Marks the receipt as dropped when wgpu drops the callback without a call.
struct Callback(Arc<AtomicU8>);

impl Drop for Callback {
    fn drop(&mut self) {
        // A callback that wgpu has called keeps its outcome.
        let _ = self.0.compare_exchange(PENDING, DROPPED, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Reports {
    /// A serial number that no report holds. Numbers come again after 2^32 encodings.
    pub(crate) fn next_serial(&mut self) -> u32 {
        // A report that nothing was written to holds 0.
        self.serial = self.serial.wrapping_add(1).max(1);
        self.serial
    }

    /// A buffer for the coming encoding.
    pub(crate) fn reserve(&mut self, gpu: &Gpu) -> Result<wgpu::Buffer> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(buffer) => Ok(buffer),
            None => gpu.scoped_now(|| {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                gpu.create_buffer("wgpu-optim/report", 4 * (SERIAL as u64 + 1), usage)
            }),
        }
    }

    /// Gives the buffer back unused.
    pub(crate) fn give_back(&mut self, buffer: wgpu::Buffer) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }

    /// Encodes the report of what stands in these slots, behind it. Control is copied where it is given. The slots are
    /// in use until the report has come.
    pub(crate) fn encode(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        slots: Vec<Slot>,
        control: Option<&wgpu::Buffer>,
        buffer: wgpu::Buffer,
    ) -> Receipt {
        if let Some(control) = control {
            encoder.copy_buffer_to_buffer(control, 0, &buffer, 0, 4 * REPORT_WORDS as u64);
        }
        let last = slots.last().expect("every encoding has words");
        encoder.copy_buffer_to_buffer(&last.buffer, last.serial_at, &buffer, 4 * SERIAL as u64, 4);
        let (serial, state) = (last.serial, Arc::new(AtomicU8::new(PENDING)));
        let callback = Callback(state.clone());
        let guards: Vec<Guard> = slots.into_iter().map(|slot| slot.guard).collect();
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            callback.0.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
            drop(guards);
        });
        Receipt { buffer, free: self.free.clone(), serial, state }
    }
}

impl Receipt {
    /// Looks whether the report has come, without waiting.
    pub(crate) fn look(&self) -> News {
        match self.state.load(Ordering::Acquire) {
            PENDING => News::None,
            DROPPED => News::Dropped,
            MAPPED => {
                let Ok(view) = self.buffer.slice(..).get_mapped_range() else { return News::Unread };
                let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view);
                match words[SERIAL] == self.serial {
                    true => News::Ran(words[..REPORT_WORDS].try_into().expect("a report holds them")),
                    false => News::Refused,
                }
            }
            _ => News::Unread,
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        match self.state.load(Ordering::Acquire) {
            MAPPED => self.buffer.unmap(),
            // It may be mapped yet, or is lost with its device.
            PENDING | FAILED => return,
            _ => {}
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.buffer.clone());
    }
}
