//! The optimizer as a checkpoint and back.

use std::collections::VecDeque;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use super::history::History;
use super::{Optimizer, Reports};
use crate::checkpoint::{Beside, Checkpoint, Held, Values, numbers_of, steps_of};
#[cfg(not(target_arch = "wasm32"))]
use crate::checkpoint::{Line, Saving, param_name};
use crate::course::{self, Choices};
use crate::error::{Error, Result};
use crate::gpu::{Buffers, Engine, Gpu, parts_of};
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
        let mut checkpoint = self.save_head(wait).await?;
        for held in checkpoint.slots(&self.session.tensors, &self.session.groups) {
            let values = self.values_of(&held, wait).await?;
            checkpoint.put_state(held, Values::F32(values));
        }
        Ok(checkpoint)
    }

    /// Writes a file of all that the training is, with these parameters, as [`save`](Self::save) and
    /// [`Checkpoint::save_to`] would. The values go from the device to the file in parts, so that the host never holds
    /// more than 32 MiB of them. `progress` is told how many bytes of values are written, and of how many.
    ///
    /// # Errors
    /// Those of [`save`](Self::save); [`Error::File`], naming the path; those of buffers. The file is as it was then.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn save_to<'a>(
        &mut self,
        path: impl AsRef<Path>,
        params: impl Into<Buffers<'a>>,
        progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        self.save_to_with(path.as_ref(), params.into(), progress, false).await
    }

    /// [`save_to`](Self::save_to), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save_to_blocking<'a>(
        &mut self,
        path: impl AsRef<Path>,
        params: impl Into<Buffers<'a>>,
        progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        pollster::block_on(self.save_to_with(path.as_ref(), params.into(), progress, true))
    }

    #[cfg(not(target_arch = "wasm32"))]
    async fn save_to_with(
        &mut self,
        path: &Path,
        params: Buffers<'_>,
        progress: impl FnMut(u64, u64),
        wait: bool,
    ) -> Result<()> {
        let checkpoint = self.save_head(wait).await?;
        let (tensors, gpu) = (&self.session.tensors, self.engine.gpu());
        let params = params.all_slices(gpu, tensors, wgpu::BufferUsages::COPY_SRC)?;
        let slots = checkpoint.slots(tensors, &self.session.groups);
        let of_param = |tensor: &TensorSpec| Line::of_f32(param_name(&tensor.name), tensor.shape.clone());
        let of_slot = |held: &Held| Line::of_f32(held.name.clone(), held.shape.clone());
        let lines = tensors.iter().map(of_param).chain(slots.iter().map(of_slot)).collect();
        let mut saving = Saving::new(path, &checkpoint, lines, progress)?;
        for (tensor, slice) in tensors.iter().zip(params) {
            let mut left = tensor.len_elements();
            for part in parts_of(slice) {
                let values = gpu.read_values(&part, tensor.dtype, left, wait).await?;
                left -= values.len() as u64;
                saving.write(bytemuck::cast_slice(&values))?;
            }
        }
        for Held { tensor, slot, is_steps, .. } in slots {
            for part in self.engine.coded_parts(tensor, slot) {
                let values = match is_steps {
                    true => numbers_of(&self.engine.read_steps(&part, wait).await?).map(|step| step as f32).collect(),
                    false => self.engine.read_coded(&part, wait).await?,
                };
                saving.write(bytemuck::cast_slice(&values))?;
            }
            for part in self.engine.parts(&self.session.groups, tensor, slot)? {
                saving.write(&self.engine.read_part(&part, wait).await?)?;
            }
        }
        saving.finish()
    }

    /// The values of a slot, or the steps of its groups.
    async fn values_of(&self, held: &Held, wait: bool) -> Result<Vec<f32>> {
        match held.is_steps {
            true => {
                let steps = self.engine.steps(held.tensor, held.slot, wait).await?;
                Ok(numbers_of(&steps).map(|step| step as f32).collect())
            }
            false => self.engine.state(&self.session.groups, held.tensor, held.slot, wait).await,
        }
    }

    /// All that the training is but the values of slots.
    async fn save_head(&mut self, wait: bool) -> Result<Checkpoint> {
        self.settle_with(wait).await?;
        let pending = self.session.counts.unsettled();
        if pending > 0 {
            let message = format!("encodings that are neither submitted nor taken back: {pending}");
            return Err(Error::Order { what: "save", message });
        }
        let words = self.engine.read_control(control::SCALE, control::GOOD - control::SCALE + 1, wait).await?;
        let scale = match self.wrappers().loss_scale() {
            Some(_) => LossScaleState {
                scale: f64::from(f32::from_bits(words[0])),
                good: words[control::GOOD - control::SCALE],
            },
            None => LossScaleState::new(None),
        };
        let on_device = self.engine.read_control(self.layout.options, self.wrappers().on_device.len(), wait).await?;
        let course = &self.session.counts.course;
        let beside = Beside {
            attempts: self.session.counts.attempts,
            scale,
            on_device: on_device.into_iter().map(|word| f64::from(f32::from_bits(word))).collect(),
        };
        Checkpoint::of(&self.session, beside, |choices| Ok(course.records(choices)))
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
        let engine = Engine::new(gpu, tensors, groups)?;
        let layout = course::layout(tensors.len(), groups);
        let slots = checkpoint.slots(tensors, groups);
        let mut coded = vec![vec![]; tensors.len()];
        for (n, held) in slots.iter().enumerate().filter(|(_, held)| !held.is_steps) {
            let &Held { tensor, slot, .. } = held;
            let mut values = checkpoint.reader(held);
            for part in engine.parts(groups, tensor, slot)? {
                gpu.write_part(&part, &values.take(part.size_bytes() as usize)?)?;
            }
            if engine.is_coded(tensor, slot) {
                let steps = match slots.get(n + 1) {
                    Some(held) if held.is_steps => steps_of(checkpoint.state::<f32>(held)?.into_iter().map(f64::from)),
                    _ => vec![],
                };
                let take = |len| Ok(bytemuck::pod_collect_to_vec(&values.take(4 * len)?));
                engine.set_codes(tensor, slot, &steps, take)?;
                coded[tensor].push((slot, steps));
            }
        }
        coded.into_iter().enumerate().try_for_each(|(i, steps)| engine.set_steps(i, steps))?;
        if groups.wrappers().loss_scale().is_some() {
            let LossScaleState { scale, good } = checkpoint.scale();
            engine.write_control(control::SCALE, &[(scale as f32).to_bits()])?;
            engine.write_control(control::GOOD, &[good])?;
        }
        let numbers: Vec<u32> = checkpoint.on_device().iter().map(|&number| (number as f32).to_bits()).collect();
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

    /// Writes the parameters that a checkpoint holds to where the training has them, in parts.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a parameter that is missing or of another shape; those of buffers. Nothing is written
    /// then. [`Error::Checkpoint`], too, where the checkpoint's file has changed since it was loaded.
    pub fn load_params<'a>(&self, checkpoint: &Checkpoint, params: impl Into<Buffers<'a>>) -> Result<()> {
        let (tensors, gpu) = (&self.session.tensors, self.engine.gpu());
        let slices = params.into().all_slices(gpu, tensors, wgpu::BufferUsages::COPY_DST)?;
        let readers = tensors.iter().map(|tensor| checkpoint.param_reader(tensor)).collect::<Result<Vec<_>>>()?;
        for ((tensor, slice), mut values) in tensors.iter().zip(slices).zip(readers) {
            for part in parts_of(slice) {
                let elements = part.size_bytes() / tensor.dtype.size_bytes();
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(&values.take(4 * elements as usize)?);
                gpu.write_part(&part, &tensor.dtype.encode(&values))?;
            }
        }
        Ok(())
    }
}
