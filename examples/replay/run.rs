//! The run that a replay repeats: its configuration, and its steps on the GPU or on the CPU reference.

use std::path::Path;

use ndarray::ArrayD;
use serde_json::Value;
use wgpu_optim::backend::Precision;
use wgpu_optim::{Arena, Config, Gpu, Optimizer, Reference, TensorSpec};

use super::recording::{Recorded, Recording, Replayed, Result, Slot, refuse};

/// `RUN.json`: an optimizer's configuration, and perhaps a learning rate for every step.
#[derive(Debug)]
pub struct Run {
    pub config: Config,
    lr_per_step: Option<Vec<f64>>,
}

impl Run {
    pub fn read(path: &Path, recording: &Recording) -> Result<Self> {
        let parse_file = || Self::from_value(serde_json::from_slice(&std::fs::read(path)?)?, recording.steps);
        parse_file().map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn from_value(mut value: Value, steps: usize) -> Result<Self> {
        let lr_per_step = value.as_object_mut().and_then(|fields| fields.shift_remove("lr_per_step"));
        let scheduled = [("schedule", value.get("schedule")), ("schedules.lr", value.pointer("/schedules/lr"))];
        if let (Some(_), Some((path, _))) = (&lr_per_step, scheduled.iter().find(|(_, value)| value.is_some())) {
            refuse!("lr_per_step and {path} both say what lr is; leave one of them out");
        }
        let lr_per_step = lr_per_step.map(serde_json::from_value::<Vec<f64>>).transpose();
        let lr_per_step = lr_per_step.map_err(|error| format!("lr_per_step: {error}"))?;
        if let Some(rates) = lr_per_step.as_ref().filter(|rates| rates.len() != steps) {
            refuse!("lr_per_step has {} rates, the recording has {steps} steps", rates.len());
        }
        Ok(Self { config: Config::from_value(value)?, lr_per_step })
    }

    pub fn on_gpu(&self, gpu: &Gpu, recording: &Recording) -> Result<Replayed<f32>> {
        let tensors = tensors(recording);
        let params = Arena::new(gpu, &tensors)?;
        for tensor in &recording.tensors {
            params.write(&tensor.name, &tensor.param)?;
        }
        let grads = Arena::new(gpu, &tensors.iter().map(TensorSpec::grad_spec).collect::<Vec<_>>())?;
        self.replay(recording, OnGpu { params, grads, optimizer: Optimizer::new(gpu, &tensors, self.config.clone())? })
    }

    pub fn on_cpu<F: Precision>(&self, recording: &Recording) -> Result<Replayed<F>> {
        let params = recording.tensors.iter().map(|tensor| array(tensor, &tensor.param)).collect();
        self.replay(recording, OnCpu { params, reference: Reference::<F>::new(&self.config, &tensors(recording))? })
    }

    fn replay<F: Clone>(&self, recording: &Recording, mut stepper: impl Stepper<F>) -> Result<Replayed<F>> {
        let mut params = vec![Vec::new(); recording.tensors.len()];
        for step in 0..recording.steps {
            if let Some(rates) = &self.lr_per_step {
                stepper.set_lr(rates[step]).map_err(|error| format!("lr_per_step[{step}]: {error}"))?;
            }
            stepper.step(recording, step)?;
            for (index, tensor) in recording.tensors.iter().enumerate() {
                params[index].extend(stepper.param(index, &tensor.name)?);
            }
        }
        let groups = self.config.groups(&tensors(recording))?;
        let mut slots = Vec::new();
        let mut t = Vec::new();
        for (index, tensor) in recording.tensors.iter().enumerate() {
            for slot in groups.slots_of(index) {
                let shape = slot.extent.shape(&tensor.shape);
                let values = stepper.state(&tensor.name, slot.name)?;
                slots.push(Slot { name: format!("{}.{}", tensor.name, slot.name), shape, values });
            }
            t.push(stepper.t(&tensor.name)?);
        }
        Ok(Replayed { params, slots, t })
    }
}

type Optim<T> = std::result::Result<T, wgpu_optim::Error>;

/// Parameters and their optimizer, on the GPU or on the CPU.
trait Stepper<F> {
    fn set_lr(&mut self, lr: f64) -> Optim<()>;
    /// Takes the step `step` of the recording, its look-ahead included.
    fn step(&mut self, recording: &Recording, step: usize) -> Optim<()>;
    fn param(&self, index: usize, tensor: &str) -> Optim<Vec<F>>;
    fn state(&self, tensor: &str, slot: &str) -> Optim<Vec<F>>;
    fn t(&self, tensor: &str) -> Optim<u64>;
}

struct OnGpu {
    params: Arena,
    grads: Arena,
    optimizer: Optimizer,
}

impl Stepper<f32> for OnGpu {
    fn set_lr(&mut self, lr: f64) -> Optim<()> {
        self.optimizer.set_lr(lr)
    }

    fn step(&mut self, recording: &Recording, step: usize) -> Optim<()> {
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&self.params)?;
        }
        for tensor in &recording.tensors {
            self.grads.write(&tensor.name, tensor.grad(step))?;
        }
        self.optimizer.step(&self.params, &self.grads)
    }

    fn param(&self, _: usize, tensor: &str) -> Optim<Vec<f32>> {
        self.params.read_blocking(tensor)
    }

    fn state(&self, tensor: &str, slot: &str) -> Optim<Vec<f32>> {
        self.optimizer.state_blocking(tensor, slot)
    }

    fn t(&self, tensor: &str) -> Optim<u64> {
        self.optimizer.t(tensor)
    }
}

struct OnCpu<F> {
    params: Vec<ArrayD<F>>,
    reference: Reference<F>,
}

impl<F: Precision> Stepper<F> for OnCpu<F> {
    fn set_lr(&mut self, lr: f64) -> Optim<()> {
        self.reference.set_lr(lr)
    }

    fn step(&mut self, recording: &Recording, step: usize) -> Optim<()> {
        if self.reference.needs_look_ahead() {
            self.reference.look_ahead(&mut self.params)?;
        }
        let grads = recording.tensors.iter().map(|tensor| Some(array(tensor, tensor.grad(step)))).collect::<Vec<_>>();
        self.reference.step(&mut self.params, &grads)
    }

    fn param(&self, index: usize, _: &str) -> Optim<Vec<F>> {
        Ok(self.params[index].iter().copied().collect())
    }

    fn state(&self, tensor: &str, slot: &str) -> Optim<Vec<F>> {
        Ok(self.reference.state(tensor, slot)?.iter().copied().collect())
    }

    fn t(&self, tensor: &str) -> Optim<u64> {
        self.reference.t(tensor)
    }
}

fn tensors(recording: &Recording) -> Vec<TensorSpec> {
    let of = |tensor: &Recorded| {
        let tensor = TensorSpec::f32(&tensor.name, tensor.shape.as_slice());
        tensor.with_dtype(recording.param_format).with_grad_dtype(recording.grad_format)
    };
    recording.tensors.iter().map(of).collect()
}

fn array<F: Precision>(tensor: &Recorded, values: &[f32]) -> ArrayD<F> {
    let values = values.iter().map(|&value| F::of(value.into())).collect();
    ArrayD::from_shape_vec(tensor.shape.as_slice(), values).expect("a recording whose lengths were checked")
}
