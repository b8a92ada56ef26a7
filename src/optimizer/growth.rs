//! Tensors and groups that join while an optimizer trains. This waits as reading does: only once the submitted work is
//! done can the host tell an encoding that was submitted from one that was not, whose step would be lost.

use super::Optimizer;
use crate::config::Group;
use crate::course;
use crate::error::{Error, Result};
use crate::gpu::Engine;
use crate::groups::Groups;
use crate::tensor::TensorSpec;

impl Optimizer {
    /// Adds tensors behind those there are, each to the one group with a name or pattern that matches it, or else to
    /// the top level, once all submitted work is done. They start as at creation, at `t = 0`, with the options of now;
    /// schedules go on where they are. State, `t` and what is carried of the others stay. From now on parameters and
    /// gradients are those of all. The state is copied to larger buffers: for a moment the device holds it twice. What
    /// [`loss_scale_buffer`](Self::loss_scale_buffer), [`norms_buffer`](Self::norms_buffer) and
    /// [`on_device`](Self::on_device) name is elsewhere then: ask again, and bind it anew.
    ///
    /// # Errors
    /// [`Error::TensorTwice`] for a name that is there already; [`Error::Group`] for a tensor that two groups match;
    /// what is refused of tensors at creation; [`Error::Order`] between a look-ahead or a micro-batch and its step, in
    /// evaluation, and for an encoding that is neither submitted nor taken back. Nothing has changed then.
    pub async fn add(&mut self, tensors: &[TensorSpec]) -> Result<()> {
        self.grow("add", tensors, |groups, all| groups.add(all), false).await
    }

    /// Adds a group behind those there are, and tensors as [`add`](Self::add) does. The group matches new tensors
    /// alone; options that it leaves out are those that the top level has now.
    ///
    /// # Errors
    /// As [`add`](Self::add), and what is refused of a group at creation: a bad option or schedule, a name or pattern
    /// that matches none of the new tensors.
    pub async fn add_group(&mut self, group: Group, tensors: &[TensorSpec]) -> Result<()> {
        let step = self.session.coming_step();
        self.grow("add_group", tensors, |groups, all| groups.add_group(&group, all, step), false).await
    }

    /// [`add`](Self::add), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn add_blocking(&mut self, tensors: &[TensorSpec]) -> Result<()> {
        pollster::block_on(self.grow("add", tensors, |groups, all| groups.add(all), true))
    }

    /// [`add_group`](Self::add_group), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn add_group_blocking(&mut self, group: Group, tensors: &[TensorSpec]) -> Result<()> {
        let step = self.session.coming_step();
        let assign = |groups: &mut Groups, all: &[TensorSpec]| groups.add_group(&group, all, step);
        pollster::block_on(self.grow("add_group", tensors, assign, true))
    }

    async fn grow(
        &mut self,
        what: &'static str,
        tensors: &[TensorSpec],
        assign: impl FnOnce(&mut Groups, &[TensorSpec]) -> Result<()>,
        wait: bool,
    ) -> Result<()> {
        let (all, groups) = self.session.grown(what, tensors, assign)?;
        self.settle_with(wait).await?;
        if self.session.counts.unsettled() > 0 {
            let message = "an encoding is neither submitted nor taken back; its step would be lost".into();
            return Err(Error::Order { what, message });
        }
        let engine = Engine::new(self.engine.gpu(), &all, &groups)?;
        engine.take_over(&groups, &self.engine)?;
        (self.layout, self.engine) = (course::layout(all.len(), &groups), engine);
        self.session.grow(all, groups);
        Ok(())
    }
}
