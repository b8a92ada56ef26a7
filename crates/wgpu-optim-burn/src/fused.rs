//! The optimizer of a whole module.

use burn::backend::Wgpu;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, OptimizerRecord};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use wgpu_optim::{Config, Gpu, Optimizer, Slice, TensorSpec};

use crate::bridge::{Held, Label, Primitive, primitive};
use crate::record::Record;
use crate::{Error, Result};

/// An optimizer of all parameters of a module, on the device that Burn trains on.
///
/// Parameters are named by their paths in the module, as `layers.0.weight`: groups of the configuration match these.
/// A parameter without gradient is left alone.
pub struct Fused {
    gpu: Gpu,
    config: Config,
    known: Option<Known>,
    /// A record for a model that the optimizer has not met yet.
    loaded: Option<Record>,
    copies: u64,
}

/// What follows from the model.
struct Known {
    optimizer: Optimizer,
    ids: Vec<ParamId>,
}

impl Fused {
    /// Makes an optimizer, from a rule or a [`Config`], for a model on the device of this setup. Its state follows once
    /// it knows the model, from [`prepare`](Self::prepare) or from the first [`step`](Self::step).
    pub fn new(setup: &WgpuSetup, config: impl Into<Config>) -> Self {
        let gpu = Gpu::new(&setup.device, &setup.queue);
        Self { gpu, config: config.into(), known: None, loaded: None, copies: 0 }
    }

    /// Makes the state for this model's parameters, which the first step does otherwise. A record that was loaded
    /// before is put into it.
    ///
    /// # Errors
    /// A model with other parameters than the optimizer's; options that `wgpu_optim` refuses; a record of another rule
    /// or model, which is kept, so that the next call refuses it again.
    pub fn prepare<M: Module>(&mut self, model: &M) -> Result<()> {
        let mut visit = Visit::default();
        model.visit(&mut visit);
        visit.failed.map_or(Ok(()), Err)?;
        self.meet(&visit.found)
    }

    /// Makes the state for these parameters, or checks that it is theirs.
    fn meet(&mut self, found: &[Found]) -> Result<()> {
        if let Some(known) = &self.known {
            return known.check(found);
        }
        for (i, one) in found.iter().enumerate() {
            if let Some(tied) = found[..i].iter().find(|other| other.id == one.id) {
                let message =
                    format!("is tied to {}: both have the id {}, of which there is one gradient", tied.name, one.id);
                return Err(Error::Tensor { what: "parameter", name: one.name.clone(), message });
            }
        }
        let specs = found.iter().map(|one| TensorSpec::f32(one.name.as_str(), one.shape.clone())).collect::<Vec<_>>();
        let ids = found.iter().map(|one| one.id).collect();
        self.known = Some(Known::new(&self.gpu, &self.config, &specs, ids, self.loaded.as_ref())?);
        self.loaded = None;
        Ok(())
    }

    /// Steps every parameter that has a gradient, without waiting for the device. All groups that set no learning rate
    /// of their own take this one.
    ///
    /// # Errors
    /// A parameter or gradient that is not in F32 or not on the wgpu backend; a model with other parameters than the
    /// optimizer's; what `wgpu_optim` refuses; as [`prepare`](Self::prepare). The model is as it was then.
    pub fn step<M: Module>(&mut self, lr: f64, model: &mut M, grads: GradientsParams) -> Result<()> {
        let mut visit = Visit { grads, ..Visit::default() };
        model.visit(&mut visit);
        let Visit { found, params, mut gradients, failed, .. } = visit;
        failed.map_or(Ok(()), Err)?;
        self.meet(&found)?;
        let known = self.known.as_mut().expect("the optimizer has met the model");
        let optimizer = &mut known.optimizer;
        if optimizer.lr().to_bits() != lr.to_bits() {
            optimizer.set_lr(lr)?;
        }
        let present: Vec<bool> = gradients.iter().map(Option::is_some).collect();
        let stepped: Vec<usize> = (0..found.len()).filter(|&i| present[i]).collect();
        let mut labels: Vec<_> = found.iter().map(|one| Label { what: "parameter", name: &one.name }).collect();
        labels.extend(stepped.iter().map(|&i| Label { what: "gradient", name: &found[i].name }));
        let tensors = params.into_iter().chain(gradients.iter_mut().filter_map(Option::take)).collect();
        let (held, news) = Held::new(&labels, tensors, &stepped)?;
        // Parameters come first, then the gradients that there are, then as many new parameters.
        let place = |from: usize| stepped.iter().enumerate().map(move |(n, &i)| (i, from + n));
        let some = |from: usize| {
            let mut slices = vec![None; found.len()];
            place(from).for_each(|(i, n)| slices[i] = Some(held.slice(n)));
            slices
        };
        let all: Vec<_> = (0..found.len()).map(|i| Some(held.slice(i))).collect();
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let (grads, outs) = (some(found.len()), some(found.len() + stepped.len()));
        optimizer.encode_into(&mut encoder, &all, &grads, &outs)?;
        self.gpu.queue().submit([encoder.finish()]);
        self.copies += held.copies;
        *model = model.clone().map(&mut Replace { present: present.into_iter(), news: news.into_iter() });
        Ok(())
    }

    /// The loss scale of now, by which the caller multiplies the loss before the backward pass, as a tensor that does
    /// not wait for the device. The configuration has a [`LossScale`](wgpu_optim::LossScale).
    ///
    /// # Errors
    /// [`Error::Order`] before the optimizer knows a model; [`Error::Optim`] without a loss scale.
    pub fn loss_scale(&self, device: &Device) -> Result<Tensor<1>> {
        let Some(known) = &self.known else { return Err(unknown_model()) };
        let scale = known.optimizer.loss_scale_buffer()?;
        let label = Label { what: "tensor", name: "loss_scale" };
        let tensor = Tensor::<1>::ones([1], device).inner();
        let (held, _) = Held::new(&[label], vec![primitive(label, tensor.clone())?], &[])?;
        let Slice { buffer, offset, size } = held.slice(0);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(scale.buffer, scale.offset, buffer, offset, size);
        self.gpu.queue().submit([encoder.finish()]);
        Ok(Tensor::from_inner(tensor))
    }

    /// A copy of the model whose parameters are the running means, where the configuration has an
    /// [`Ema`](wgpu_optim::Ema). Parameters before their first step are as they are in the model.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`Error::Optim`] without a running mean.
    pub fn ema<M: Module>(&mut self, model: &M) -> Result<M> {
        self.prepare(model)?;
        let mut copies = Copies::default();
        model.visit(&mut copies);
        let tensors = copies.0.into_iter().collect::<Result<Vec<_>>>()?;
        let optimizer = &mut self.known.as_mut().expect("the optimizer has met the model").optimizer;
        let names: Vec<String> = optimizer.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        let labels: Vec<_> = names.iter().map(|name| Label { what: "parameter", name }).collect();
        let (held, _) = Held::new(&labels, tensors.clone(), &[])?;
        let slices: Vec<_> = (0..tensors.len()).map(|i| held.slice(i)).collect();
        optimizer.ema_into(&slices)?;
        let present = vec![true; tensors.len()];
        Ok(model.clone().map(&mut Replace { present: present.into_iter(), news: tensors.into_iter() }))
    }

    /// The state as Burn's own record of an optimizer, once all steps are done: Burn's optimizer of the same rule goes
    /// on from it through `load_record`, as does [`load_record`](Self::load_record). It holds the parameters that have
    /// made a step. What Burn's optimizers do not have (other rules, running means of parameters, a loss scale) stands
    /// under names that they pass over.
    ///
    /// # Errors
    /// [`Error::Order`] before the optimizer knows a model, or while micro-batches wait for their step.
    #[cfg(not(target_family = "wasm"))]
    pub fn to_record(&mut self) -> Result<OptimizerRecord> {
        pollster::block_on(self.to_record_async())
    }

    /// [`to_record`](Self::to_record) without blocking the thread, for a page.
    ///
    /// # Errors
    /// The same.
    pub async fn to_record_async(&mut self) -> Result<OptimizerRecord> {
        let Some(known) = &mut self.known else { return Err(unknown_model()) };
        Record::of(&mut known.optimizer, &known.ids).await?.write()
    }

    /// Goes on from a record, of this optimizer or of one of Burn's with the same rule: Adam and AdamW (also for each
    /// other), SGD, RmsProp, AdaGrad, Lion, LAMB, Adafactor, Adan, Muon. As in Burn, parameters that the record does
    /// not hold begin anew, and options are the configuration's. Burn counts no steps for SGD, RmsProp, Lion and Muon;
    /// from a record of Burn's they count as one.
    ///
    /// Before the optimizer knows its model, the record waits for it: then [`prepare`](Self::prepare) or the first
    /// [`step`](Self::step) refuses what does not fit.
    ///
    /// # Errors
    /// [`Error::Record`], naming the parameter that the model does not have, or whose state is that of another rule.
    /// The optimizer is as it was then.
    pub fn load_record(&mut self, record: OptimizerRecord) -> Result<()> {
        let record = Record::read(record)?;
        match &mut self.known {
            Some(known) => {
                let (specs, ids) = (known.optimizer.tensors(), known.ids.clone());
                *known = Known::new(&self.gpu, &self.config, specs, ids, Some(&record))?;
            }
            None => self.loaded = Some(record),
        }
        Ok(())
    }

    /// How many tensors have been copied before a step, since their elements did not lie in order, as those of a
    /// transposed view.
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// The optimizer of `wgpu_optim` that does the work, with its state, reports, options and schedules. There is none
    /// before the optimizer knows a model.
    pub fn optimizer(&mut self) -> Option<&mut Optimizer> {
        self.known.as_mut().map(|known| &mut known.optimizer)
    }
}

fn unknown_model() -> Error {
    Error::Order { message: "the optimizer knows no model; prepare or a step tells it" }
}

impl Known {
    fn new(
        gpu: &Gpu,
        config: &Config,
        specs: &[TensorSpec],
        ids: Vec<ParamId>,
        record: Option<&Record>,
    ) -> Result<Self> {
        let mut optimizer = Optimizer::new(gpu, specs, config.clone())?;
        record.map_or(Ok(()), |record| record.put(&mut optimizer, &ids))?;
        Ok(Self { optimizer, ids })
    }

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
}

#[derive(Default)]
struct Visit {
    /// The gradients that no parameter has taken yet.
    grads: GradientsParams,
    path: Vec<String>,
    found: Vec<Found>,
    params: Vec<Primitive>,
    gradients: Vec<Option<Primitive>>,
    failed: Option<Error>,
}

impl Visit {
    fn look_at<const D: usize>(&mut self, param: &Param<Tensor<D>>, name: &str) -> Result<()> {
        let value = param.val().inner();
        self.params.push(primitive(Label { what: "parameter", name }, value)?);
        let grad = self.grads.remove::<D>(param.id);
        self.gradients.push(grad.map(|grad| primitive(Label { what: "gradient", name }, grad)).transpose()?);
        Ok(())
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
        let name = self.path.join(".");
        self.failed = self.look_at(param, &name).err();
        self.found.push(Found { id: param.id, name, shape: param.val().dims().to_vec() });
    }
}

/// A copy of each parameter, made by Burn.
#[derive(Default)]
struct Copies(Vec<Result<Primitive>>);

impl ModuleVisitor for Copies {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let copy = param.val().inner().mul_scalar(1.0);
        self.0.push(primitive(Label { what: "parameter", name: "copied" }, copy));
    }
}

/// Puts the new parameters in the places of the old ones, which come in the same order.
struct Replace {
    /// Whether each parameter has a new one.
    present: std::vec::IntoIter<bool>,
    news: std::vec::IntoIter<Primitive>,
}

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let new = self.present.next().unwrap_or(false).then(|| self.news.next()).flatten();
        let Some(new) = new else { return param };
        let (id, old, mapper) = param.consume();
        let mut tensor = Tensor::from_inner(Tensor::<D>::from_primitive::<Wgpu>(new));
        if let Some(strategy) = old.gradient_checkpointing_strategy() {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        if old.is_require_grad() {
            tensor = tensor.require_grad();
        }
        if old.is_distributed() {
            tensor = tensor.set_distributed(id);
        }
        Param::from_mapped_value(id, tensor, mapper)
    }
}
