//! Numbers that the device decides by: norms of gradients, the loss scale, options that the caller writes there.

use super::Optimizer;
use crate::control::Measured;
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::report::LossScaleState;
use crate::words::{Layout, control, tensor};

/// Norms of gradients.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Norms {
    /// The norm of all gradients that were in the step.
    pub all: f64,
    /// The norm of each tensor's gradients, in order; 0 where the tensor had none.
    pub tensors: Vec<f64>,
}

impl Optimizer {
    /// Reads the norms of the last step's gradients, before a clip, once all submitted work is done. They are in f64,
    /// since the device keeps sums of squares in a form that does not overflow.
    ///
    /// # Errors
    /// [`Error::Config`] where they are not measured, [`Error::Wgpu`] or [`Error::DeviceLost`].
    pub async fn norms(&self) -> Result<Norms> {
        self.read_norms(false).await
    }

    /// [`norms`](Self::norms), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn norms_blocking(&self) -> Result<Norms> {
        pollster::block_on(self.read_norms(true))
    }

    async fn read_norms(&self, wait: bool) -> Result<Norms> {
        self.check_norms()?;
        let words =
            self.engine.read_control(control::SCALE, Layout::of_tensor(self.session.tensors.len()), wait).await?;
        let norm = |first: usize| Measured::<f32>::read(&words[first..]).norm();
        let tensors = (0..self.session.tensors.len()).map(|i| norm(Layout::of_tensor(i) + tensor::MEASURED)).collect();
        Ok(Norms { all: norm(control::ALL), tensors })
    }

    fn check_norms(&self) -> Result<()> {
        if self.session.groups.wrappers().measures() {
            return Ok(());
        }
        Err(Error::Config { path: "norms".into(), message: "are not measured; set norms to true".into() })
    }

    /// The norms of the last step's gradients on the device, to be bound by the caller's kernels: f32, of all
    /// gradients, then of each tensor's in order. Above f32's largest number they are infinity.
    ///
    /// # Errors
    /// [`Error::Config`] where they are not measured.
    pub fn norms_buffer(&self) -> Result<Slice<'_>> {
        self.check_norms()?;
        Ok(self.of_control(self.layout.norms, self.layout.norms_len()))
    }

    /// The loss scale on the device, one f32. The caller's backward pass binds it, and multiplies the loss by it.
    ///
    /// # Errors
    /// [`Error::Config`] without `loss_scale`.
    pub fn loss_scale_buffer(&self) -> Result<Slice<'_>> {
        match self.session.groups.wrappers().loss_scale() {
            Some(_) => Ok(self.of_control(control::SCALE, 1)),
            None => Err(Error::Config { path: "loss_scale".into(), message: "is not set; there is no scale".into() }),
        }
    }

    /// The options that a kernel of the caller's writes (`on_device`), in the order of the configuration: f32, at first
    /// as configured. A step takes the numbers that stand there when it runs; nothing checks them. A schedule
    /// multiplies them, and a group with a rate of its own keeps its ratio to the top level's.
    ///
    /// # Errors
    /// [`Error::Config`] where there are none.
    pub fn on_device(&self) -> Result<Slice<'_>> {
        match self.session.groups.wrappers().on_device.len() {
            0 => {
                Err(Error::Config { path: "on_device".into(), message: "is not set; the host has all options".into() })
            }
            options => Ok(self.of_control(self.layout.options, options)),
        }
    }

    fn of_control(&self, first: usize, words: usize) -> Slice<'_> {
        Slice::new(self.control(), 4 * first as u64, 4 * words as u64)
    }

    /// The loss scale once all submitted work is done.
    ///
    /// # Errors
    /// [`Error::Config`] without `loss_scale`, [`Error::Wgpu`] or [`Error::DeviceLost`].
    pub async fn loss_scale(&self) -> Result<LossScaleState> {
        self.read_scale(false).await
    }

    /// [`loss_scale`](Self::loss_scale), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn loss_scale_blocking(&self) -> Result<LossScaleState> {
        pollster::block_on(self.read_scale(true))
    }

    async fn read_scale(&self, wait: bool) -> Result<LossScaleState> {
        self.loss_scale_buffer()?;
        let words = self.engine.read_control(control::SCALE, control::LEN, wait).await?;
        Ok(LossScaleState { scale: f32::from_bits(words[control::SCALE]).into(), good: words[control::GOOD] })
    }

    /// Sets the loss scale, before any work that is not yet submitted, as when a training is resumed.
    ///
    /// # Errors
    /// [`Error::Config`] without `loss_scale`, [`Error::Field`] for what is no power of two from 2^-24 to 2^24 or for
    /// more good steps than the interval has, [`Error::Order`] between micro-batches.
    pub fn set_loss_scale(&mut self, scale: LossScaleState) -> Result<()> {
        self.session.check_scale(scale)?;
        self.engine.write_control(control::SCALE, &[(scale.scale as f32).to_bits()])?;
        self.engine.write_control(control::GOOD, &[scale.good])
    }
}
