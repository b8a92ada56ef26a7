//! Values of state slots, read and set.

use super::Optimizer;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

impl Optimizer {
    /// The values of a state slot once all submitted work is done: one an element, or one in all.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownSlot`], [`Error::Wgpu`] or [`Error::DeviceLost`].
    pub async fn state(&self, tensor: &str, slot: &str) -> Result<Vec<f32>> {
        self.read_state(tensor, slot, false).await
    }

    /// [`state`](Self::state), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn state_blocking(&self, tensor: &str, slot: &str) -> Result<Vec<f32>> {
        pollster::block_on(self.read_state(tensor, slot, true))
    }

    async fn read_state(&self, tensor: &str, slot: &str, wait: bool) -> Result<Vec<f32>> {
        let i = self.session.find(tensor)?;
        self.engine.state(&self.session.groups, i, slot, wait).await
    }

    /// Sets a state slot, before any work that is not yet submitted. Slots that start as the parameter keep what they
    /// are set to; set all of a tensor's, or none.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownSlot`], or [`Error::Shape`] for another number of values.
    pub fn set_state(&mut self, tensor: &str, slot: &str, values: &[f32]) -> Result<()> {
        let i = self.session.find(tensor)?;
        self.engine.set_state(&self.session.groups, i, slot, values)?;
        let (slot, _) = self.session.groups.find_slot(i, tensor, slot)?;
        self.session.counts.change_all(|course| course.set_clock(i, |clock| clock.take_slot(&slot)));
        Ok(())
    }
}
