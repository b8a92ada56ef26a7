//! The optimizer as a checkpoint and back.

use std::collections::VecDeque;

use super::history::History;
use super::{Optimizer, Reports};
use crate::checkpoint::{Around, Checkpoint, Values};
use crate::course::{self, Choices};
use crate::error::{Error, Result};
use crate::gpu::{Engine, Gpu};
use crate::groups::Groups;
use crate::report::LossScaleState;
use crate::tensor::TensorSpec;
use crate::words::control;

impl Optimizer {
    /// Returns all that the training is, once all submitted work is done, so that only applied steps count. The
    /// parameters are the caller's ([`Checkpoint::put_param`]).
    ///
    /// # Errors
    /// [`Error::Order`] for encodings that are neither submitted nor taken back, which it counts;
    /// [`Error::Checkpoint`] for a schedule that is a closure without a name; [`Error::Wgpu`] or
    /// [`Error::DeviceLost`].
    pub async fn save(&mut self) -> Result<Checkpoint> {
        self.save_with(false).await
    }

    /// [`save`](Self::save), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save_blocking(&mut self) -> Result<Checkpoint> {
        pollster::block_on(self.save_with(true))
    }

    async fn save_with(&mut self, wait: bool) -> Result<Checkpoint> {
        self.settle_with(wait).await?;
        let pending = self.session.counts.unsettled();
        if pending > 0 {
            let message = format!("encodings that are neither submitted nor taken back: {pending}");
            return Err(Error::Order { what: "save", message });
        }
        let words = self.engine.read_control(control::SCALE, control::GOOD - control::SCALE + 1, wait).await?;
        let scale = match self.wrappers().loss_scale() {
            Some(_) => LossScaleState { scale: f64::from(f32::from_bits(words[0])), good: *words.last().unwrap_or(&0) },
            None => LossScaleState::new(None),
        };
        let on_device = self.engine.read_control(self.layout.options, self.wrappers().on_device.len(), wait).await?;
        let course = &self.session.counts.course;
        let around = Around {
            attempts: self.session.counts.attempts,
            scale,
            on_device: on_device.into_iter().map(|word| f64::from(f32::from_bits(word))).collect(),
        };
        let mut checkpoint = Checkpoint::of(&self.session, around, |choices| Ok(course.records(choices)))?;
        for (i, tensor) in self.session.tensors.iter().enumerate() {
            for slot in self.session.groups.slots_of(i) {
                let values = self.engine.state(&self.session.groups, i, slot.name, wait).await?;
                let shape = slot.extent.shape(&tensor.shape);
                checkpoint.put_state(&tensor.name, slot.name, shape, Values::F32(values));
                let steps = self.engine.steps(i, slot.name, wait).await?;
                checkpoint.put_steps::<f32>(&tensor.name, slot.name, &steps);
            }
        }
        Ok(checkpoint)
    }

    /// Makes an optimizer that goes on where a checkpoint was made, by this or another device or by a
    /// [`Reference`](crate::Reference) in f32. It finds tensors by name, and does not wait.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], naming the rule, schedule, tensor or slot that is missing, unknown or of another shape or
    /// format, or a version of the future; as [`new`](Self::new). Nothing is on the device then.
    pub fn load(gpu: &Gpu, tensors: &[TensorSpec], checkpoint: &Checkpoint) -> Result<Self> {
        let counts = |clocks, groups: &Groups| History::resumed(&clocks, groups, checkpoint.head.attempts);
        let session = checkpoint.session::<f32, History>(tensors, counts, Choices::of_one)?;
        let groups = &session.groups;
        let on_device = &checkpoint.head.on_device;
        if on_device.len() != groups.wrappers().on_device.len() {
            let message = format!("holds {} numbers, expected {}", on_device.len(), groups.wrappers().on_device.len());
            return Err(Error::Checkpoint { what: "on_device".into(), message });
        }
        let engine = Engine::new(gpu, tensors, groups)?;
        let layout = course::layout(tensors.len(), groups);
        for (i, tensor) in tensors.iter().enumerate() {
            let mut coded = Vec::new();
            for slot in groups.slots_of(i) {
                let values = checkpoint.state::<f32>(&tensor.name, slot.name);
                match engine.is_coded(i, slot.name) {
                    true => coded.push((slot.name, values, checkpoint.steps(&tensor.name, slot.name))),
                    false => engine.set_state(groups, i, slot.name, &values)?,
                }
            }
            engine.set_coded(i, &coded)?;
        }
        if groups.wrappers().loss_scale().is_some() {
            let LossScaleState { scale, good } = checkpoint.scale();
            engine.write_control(control::SCALE, &[(scale as f32).to_bits()])?;
            engine.write_control(control::GOOD, &[good])?;
        }
        let numbers: Vec<u32> = on_device.iter().map(|bits| (bits.0 as f32).to_bits()).collect();
        if !numbers.is_empty() {
            engine.write_control(layout.options, &numbers)?;
        }
        Ok(Self {
            id: Self::next_id(),
            layout,
            session,
            engine,
            sequence: 0,
            clears: false,
            reports: Reports::default(),
            arrived: VecDeque::new(),
        })
    }
}
