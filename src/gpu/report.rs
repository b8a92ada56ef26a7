//! The device writes a report of each step that it has run, and the host reads it later.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Gpu;
use crate::error::{Error, Result};
use crate::words::REPORT_WORDS;

/// Small buffers that the host reads back. Each one holds the report of one step at a time.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
}

/// A buffer that a command buffer is going to fill.
#[derive(Debug)]
pub(crate) struct Receipt {
    buffer: wgpu::Buffer,
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    state: Arc<AtomicU8>,
}

/// What became of the step that a receipt stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum News {
    /// The device has not run the step yet.
    None,
    /// The command buffer was dropped and not submitted.
    Dropped,
    /// The device has run the step and left these words.
    Words([u32; REPORT_WORDS]),
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
    /// Takes a buffer for the coming step.
    pub(crate) fn reserve(&mut self, gpu: &Gpu) -> Result<wgpu::Buffer> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(buffer) => Ok(buffer),
            None => gpu.scoped_now(|| {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                gpu.create_buffer("wgpu-optim/report", 4 * REPORT_WORDS as u64, usage)
            }),
        }
    }

    /// Gives the buffer back unused.
    pub(crate) fn give_back(&mut self, buffer: wgpu::Buffer) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }

    /// Encodes the copy of the report behind all that the encoder holds so far.
    pub(crate) fn encode(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        control: &wgpu::Buffer,
        buffer: wgpu::Buffer,
    ) -> Receipt {
        encoder.copy_buffer_to_buffer(control, 0, &buffer, 0, buffer.size());
        let state = Arc::new(AtomicU8::new(PENDING));
        let callback = Callback(state.clone());
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            callback.0.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        Receipt { buffer, free: self.free.clone(), state }
    }
}

impl Receipt {
    /// Looks whether the report has come, without waiting.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] where it cannot be read any more.
    pub(crate) fn look(&self) -> Result<News> {
        match self.state.load(Ordering::Acquire) {
            PENDING => Ok(News::None),
            DROPPED => Ok(News::Dropped),
            MAPPED => {
                let view = self.buffer.slice(..).get_mapped_range();
                let view = view.map_err(|error| Error::DeviceLost(error.to_string()))?;
                let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view);
                drop(view);
                Ok(News::Words(words.try_into().expect("as many words as asked for")))
            }
            _ => Err(Error::DeviceLost("a report was not delivered".into())),
        }
    }

    /// Lets the next step have the buffer.
    pub(crate) fn finish(self) {
        if self.state.load(Ordering::Acquire) == MAPPED {
            self.buffer.unmap();
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.buffer);
    }
}
