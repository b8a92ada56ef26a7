//! A snapshot of the best parameters.

use super::{Arena, Buffers, Gpu, Slice};
use crate::early_stopping::{EarlyStopping, Monitor, Verdict};
use crate::error::{Result, refuse};
use crate::tensor::TensorSpec;

/// [Early stopping](EarlyStopping) that keeps the parameters of the best metric in an arena on the GPU.
///
/// Keeping and restoring copy from buffer to buffer on the device. The copies are submitted at once, behind all work
/// that was submitted before; nothing is read back, and nothing waits. Slices need `COPY_SRC` usage to be kept and
/// `COPY_DST` to be restored.
///
/// ```no_run
/// use wgpu_optim::{Arena, BestParams, EarlyStopping, Error, Gpu, TensorSpec, Verdict};
///
/// fn train(gpu: &Gpu, tensors: &[TensorSpec], params: &Arena, epoch: impl Fn() -> f64) -> Result<(), Error> {
///     let mut best = BestParams::new(gpu, tensors, EarlyStopping::default())?;
///     while best.feed(epoch(), params)? != Verdict::Stop {}
///     best.restore(params)
/// }
/// ```
#[derive(Debug)]
pub struct BestParams {
    arena: Arena,
    monitor: Monitor,
}

impl BestParams {
    /// Makes room for these tensors' values, without waiting, as [`Arena::new`] does.
    ///
    /// # Errors
    /// As [`EarlyStopping::check`] and [`Arena::new`].
    pub fn new(gpu: &Gpu, tensors: &[TensorSpec], stopping: EarlyStopping) -> Result<Self> {
        let monitor = stopping.monitor()?;
        Ok(Self { arena: Arena::new(gpu, tensors)?, monitor })
    }

    /// Judges the metric of these parameters, all of them, and keeps them where it improved.
    ///
    /// # Errors
    /// A metric as in [`Monitor::feed`]; buffers that do not fit the tensors or cannot be copied from, named by tensor.
    /// The metric does not count then.
    pub fn feed<'a>(&mut self, metric: f64, params: impl Into<Buffers<'a>>) -> Result<Verdict> {
        let params = params.into().all_slices(self.arena.gpu(), self.arena.tensors(), wgpu::BufferUsages::COPY_SRC)?;
        let mut monitor = self.monitor.clone();
        let verdict = monitor.feed(metric)?;
        if verdict == Verdict::Improved {
            self.copy(params.into_iter().zip(self.slices()))?;
        }
        self.monitor = monitor;
        Ok(verdict)
    }

    /// Copies the best parameters back.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) where no metric has improved yet; buffers that do not fit the tensors or cannot
    /// be copied to, named by tensor.
    pub fn restore<'a>(&self, params: impl Into<Buffers<'a>>) -> Result<()> {
        let params = params.into().all_slices(self.arena.gpu(), self.arena.tensors(), wgpu::BufferUsages::COPY_DST)?;
        if self.monitor.best().is_none() {
            return refuse("the snapshot", "empty", "filled by a metric that improved");
        }
        self.copy(self.slices().zip(params))
    }

    /// The best metric, and how many have been worse since.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// The arena of the parameters kept, which are zero before a metric improved. Read it, or write it before
    /// [`resume`](Self::resume).
    pub fn params(&self) -> &Arena {
        &self.arena
    }

    /// Goes on as [`Monitor::resume`], with what [`params`](Self::params) holds as the parameters of the best metric.
    ///
    /// # Errors
    /// The same.
    pub fn resume(&mut self, best: Option<f64>, worse: u64) -> Result<()> {
        self.monitor.resume(best, worse)
    }

    fn slices(&self) -> impl Iterator<Item = Slice<'_>> {
        (0..self.arena.tensors().len()).map(|i| self.arena.slice_at(i))
    }

    /// Copies each first slice to its second.
    fn copy<'a>(&self, pairs: impl Iterator<Item = (Slice<'a>, Slice<'a>)>) -> Result<()> {
        let gpu = self.arena.gpu();
        gpu.scoped_now(|| {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for (from, to) in pairs {
                // Copies go by words of 4 bytes.
                let bytes = to.size.next_multiple_of(4);
                encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, bytes);
            }
            gpu.queue().submit([encoder.finish()]);
        })
    }
}
