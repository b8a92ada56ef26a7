//! The optimizer of a whole module.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::wgpu::WgpuSetup;
use wgpu_optim::{Config, Gpu, Optimizer, Slice, TensorSpec};

use crate::bridge::Held;
use crate::{Error, Result};

/// An optimizer of all parameters of a module, on the device that Burn trains on.
///
/// Parameters are named by their paths in the module, as `layers.0.weight`: groups of the configuration match these.
/// A parameter without gradient is left alone.
pub struct Fused {
    gpu: Gpu,
    config: Config,
    known: Option<Known>,
}

/// What the first step has found.
struct Known {
    optimizer: Optimizer,
    ids: Vec<ParamId>,
}

impl Fused {
    /// Makes an optimizer, from a rule or a [`Config`], for a model on the device of this setup. The first
    /// [`step`](Self::step), which knows the model, makes its state.
    pub fn new(setup: &WgpuSetup, config: impl Into<Config>) -> Self {
        Self { gpu: Gpu::new(&setup.device, &setup.queue), config: config.into(), known: None }
    }

    /// Steps every parameter that has a gradient, without waiting for the device. All groups that set no learning rate
    /// of their own take this one.
    ///
    /// # Errors
    /// A parameter or gradient that is not in F32, not contiguous or on another backend; a model with other parameters
    /// than the first one; what `wgpu_optim` refuses. The model is as it was then.
    pub fn step<M: Module>(&mut self, lr: f64, model: &mut M, grads: GradientsParams) -> Result<()> {
        let mut visit = Visit { grads, ..Visit::default() };
        model.visit(&mut visit);
        let Visit { found, path: _, grads: _, failed } = visit;
        failed.map_or(Ok(()), Err)?;
        let known = match &mut self.known {
            Some(known) => known,
            None => {
                let specs: Vec<_> =
                    found.iter().map(|one| TensorSpec::f32(one.name.as_str(), one.shape.clone())).collect();
                let optimizer = Optimizer::new(&self.gpu, &specs, self.config.clone())?;
                self.known.insert(Known { optimizer, ids: found.iter().map(|one| one.id).collect() })
            }
        };
        known.check(&found)?;
        let optimizer = &mut known.optimizer;
        if optimizer.lr().to_bits() != lr.to_bits() {
            optimizer.set_lr(lr)?;
        }
        let slices = |held: fn(&Found) -> Option<&Held>| -> Vec<Option<Slice<'_>>> {
            found.iter().map(|one| held(one).map(Held::slice)).collect()
        };
        let params = slices(|one| Some(&one.param));
        let grads = slices(|one| one.step.as_ref().map(|step| &step.grad));
        let outs = slices(|one| one.step.as_ref().map(|step| &step.out));
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        optimizer.encode_into(&mut encoder, &params, &grads, &outs)?;
        self.gpu.queue().submit([encoder.finish()]);
        *model = model.clone().map(&mut Replace { found: found.into_iter() });
        Ok(())
    }

    /// The optimizer of `wgpu_optim` that does the work, with its state, reports, options and schedules. There is none
    /// before the first step.
    pub fn optimizer(&mut self) -> Option<&mut Optimizer> {
        self.known.as_mut().map(|known| &mut known.optimizer)
    }
}

impl Known {
    /// Refuses a model with other parameters than the optimizer's.
    fn check(&self, found: &[Found]) -> Result<()> {
        let tensors = self.optimizer.tensors();
        if found.len() != tensors.len() {
            let count = |count: usize| format!("{count} parameters");
            return Err(Error::Model { found: count(found.len()), expected: count(tensors.len()) });
        }
        for ((one, tensor), id) in found.iter().zip(tensors).zip(&self.ids) {
            if (&one.name, &one.shape) != (&tensor.name, &tensor.shape) || one.id != *id {
                let text = |name: &str, shape: &[usize], id: ParamId| format!("{name} of shape {shape:?}, id {id}");
                let found = text(&one.name, &one.shape, one.id);
                return Err(Error::Model { found, expected: text(&tensor.name, &tensor.shape, *id) });
            }
        }
        Ok(())
    }
}

/// A parameter of the module.
struct Found {
    id: ParamId,
    name: String,
    shape: Vec<usize>,
    param: Held,
    step: Option<Step>,
}

/// What a step needs of a parameter that has a gradient.
struct Step {
    grad: Held,
    /// Where the new parameter goes.
    out: Held,
    /// The new parameter, as the tensor that the model takes.
    new: Box<dyn std::any::Any>,
}

#[derive(Default)]
struct Visit {
    grads: GradientsParams,
    path: Vec<String>,
    found: Vec<Found>,
    failed: Option<Error>,
}

impl Visit {
    fn look_at<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<Found> {
        let name = self.path.join(".");
        let value = param.val().inner();
        let step = match self.grads.remove::<D>(param.id) {
            None => None,
            Some(grad) => {
                let new = Tensor::<D>::empty(value.shape(), &value.device());
                let grad = Held::new("gradient", &name, grad)?;
                Some(Step { grad, out: Held::new("output", &name, new.clone())?, new: Box::new(new) })
            }
        };
        let shape = value.dims().to_vec();
        Ok(Found { id: param.id, shape, param: Held::new("parameter", &name, value)?, name, step })
    }
}

impl ModuleVisitor for Visit {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.failed.is_some() {
            return;
        }
        match self.look_at(param) {
            Ok(found) => self.found.push(found),
            Err(error) => self.failed = Some(error),
        }
    }
}

/// Puts the new parameters in the places of the old ones, which come in the same order.
struct Replace {
    found: std::vec::IntoIter<Found>,
}

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let new = self.found.next().and_then(|one| one.step).map(|step| step.new.downcast::<Tensor<D>>());
        let Some(Ok(new)) = new else { return param };
        let (id, old, mapper) = param.consume();
        let mut tensor = Tensor::from_inner(*new);
        if let Some(strategy) = old.gradient_checkpointing_strategy() {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        if old.is_require_grad() {
            tensor = tensor.require_grad();
        }
        Param::from_mapped_value(id, tensor, mapper)
    }
}
