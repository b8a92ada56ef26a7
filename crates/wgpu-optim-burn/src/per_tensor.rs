//! Burn's trait of an optimizer, which steps a tensor at a time.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Wgpu;
use burn::optim::{LearningRate, Optimizer as OfBurn, OptimizerRecord, RecordState, StateSink, StateSource};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Bytes, Device, Tensor, TensorData};
use wgpu_optim::{Config, Gpu, Optimizer, TensorSpec};

use crate::Result;
use crate::bridge::{Held, Label, primitive};
use crate::record::{OWN, RANK, Record, State};

/// The name of every tensor: Burn does not say which one it steps.
const NAME: &str = "tensor";

/// The name of the tensor that holds, as bytes, what Burn's optimizers do not have of one parameter's state.
const REST: &str = "wgpu_optim";

/// All tensors that Burn's optimizers keep of a parameter.
const FIELDS: [&str; 18] = [
    "momentum.moment_1",
    "momentum.moment_2",
    "momentum.max_moment_2",
    "momentum.velocity",
    "square_avg.square_avg",
    "centered.grad_avg",
    "centered.avg",
    "momentum.buf",
    "lr_decay.sum",
    "momentum",
    "moment_1",
    "moment_2",
    "second_moment",
    "column_second_moment",
    "momentum.exp_avg",
    "momentum.exp_avg_sq",
    "momentum.exp_avg_diff",
    "momentum.neg_pre_grad",
];

/// All counts of steps that they keep.
const TIMES: [&str; 3] = ["momentum.time", "lr_decay.time", "time"];

/// An optimizer that Burn's `ModuleOptimizer` and `Learner` take: `ModuleOptimizer::from(PerTensor::new(..)?)`.
///
/// Burn calls it for one tensor at a time and names none. So each tensor has an optimizer of its own, which costs a
/// submit, a dispatch and some round trips to Burn's threads, and a norm, a skipped step and a loss scale are a
/// tensor's own, not the model's. A step of [`Fused`](crate::Fused) costs as much as one tensor here, and its groups
/// know the parameters' names. Take this only where Burn must call the optimizer.
#[derive(Clone, Debug)]
pub struct PerTensor {
    gpu: Gpu,
    config: Config,
}

/// A tensor's state. A clone keeps its numbers whatever becomes of the original: the first step of one of them copies.
#[derive(Clone)]
pub struct PerTensorState<const D: usize>(Arc<Mutex<Inner>>);

enum Inner {
    Made(Box<Optimizer>),
    /// Read from a record, which does not say on which device the tensor is.
    Loaded(State),
}

impl PerTensor {
    /// Makes an optimizer, from a rule or a [`Config`] without groups, for tensors on the device of this setup.
    ///
    /// # Errors
    /// Options that `wgpu_optim` refuses.
    pub fn new(setup: &WgpuSetup, config: impl Into<Config>) -> Result<Self> {
        let config: Config = config.into();
        // A matrix has all that a rule may need.
        config.groups(&[TensorSpec::f32(NAME, [1, 1])])?;
        Ok(Self { gpu: Gpu::new(&setup.device, &setup.queue), config })
    }

    /// A state that nobody else has, for a tensor of this shape.
    fn own<const D: usize>(&self, shape: &[usize], state: Option<PerTensorState<D>>) -> Result<Box<Optimizer>> {
        let tensors = [TensorSpec::f32(NAME, shape)];
        let fresh = || Ok(Box::new(Optimizer::new(&self.gpu, &tensors, self.config.clone())?));
        match state.map(|PerTensorState(state)| Arc::try_unwrap(state)) {
            None => fresh(),
            Some(Ok(inner)) => match inner.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Inner::Made(optimizer) => Ok(optimizer),
                Inner::Loaded(state) => {
                    let mut optimizer = fresh()?;
                    state.put(&mut optimizer, NAME)?;
                    Ok(optimizer)
                }
            },
            Some(Err(shared)) => match &mut *shared.lock().unwrap_or_else(PoisonError::into_inner) {
                Inner::Made(optimizer) => {
                    let saved = optimizer.save_blocking()?;
                    Ok(Box::new(Optimizer::load(&self.gpu, &tensors, &saved)?))
                }
                Inner::Loaded(state) => {
                    let mut optimizer = fresh()?;
                    state.put(&mut optimizer, NAME)?;
                    Ok(optimizer)
                }
            },
        }
    }

    fn try_step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<PerTensorState<D>>,
    ) -> Result<(Tensor<D>, PerTensorState<D>)> {
        let mut optimizer = self.own(&tensor.dims(), state)?;
        optimizer.set_lr(lr)?;
        let labels = ["parameter", "gradient"].map(|what| Label { what, name: NAME });
        let tensors = vec![primitive(labels[0], tensor)?, primitive(labels[1], grad)?];
        let (held, news) = Held::new(&labels, tensors, &[0])?;
        let [param, grad, out] = [0, 1, 2].map(|i| [held.slice(i)]);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        optimizer.encode_into(&mut encoder, &param, &grad, &out)?;
        self.gpu.queue().submit([encoder.finish()]);
        let new = news.into_iter().next().expect("one output was asked for");
        Ok((Tensor::from_primitive::<Wgpu>(new), PerTensorState(Arc::new(Mutex::new(Inner::Made(optimizer))))))
    }
}

impl State {
    /// What Burn's optimizers have of the state, and the rest.
    fn split(self) -> (Self, Self) {
        let is_own = |field: &String| field.starts_with(OWN);
        let (own_tensors, tensors) = self.tensors.into_iter().partition(|(field, _)| is_own(field));
        let (own_scalars, scalars) =
            self.scalars.into_iter().filter(|(field, _)| field != RANK).partition(|(field, _)| is_own(field));
        (Self { tensors, scalars }, Self { tensors: own_tensors, scalars: own_scalars })
    }
}

impl Record {
    /// A record of one state alone.
    fn of_one(state: State) -> Self {
        let mut record = Self::default();
        record.states.insert(0, state);
        record
    }

    /// The state of a record of one.
    fn into_one(mut self) -> State {
        self.states.remove(&0).unwrap_or_default()
    }
}

impl OfBurn for PerTensor {
    type State<const D: usize> = PerTensorState<D>;

    /// Steps a tensor.
    ///
    /// # Panics
    /// Burn's trait has no way to return an error, so this panics with its text: for a tensor that is not in F32 or not
    /// on the wgpu backend, for a state of another rule, for options that do not suit the tensor.
    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (tensor, state) = self.try_step(lr, tensor, grad, state).unwrap_or_else(|error| panic!("{error}"));
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, _device: &Device) -> Self::State<D> {
        state
    }
}

impl<const D: usize> RecordState for PerTensorState<D> {
    /// Writes the state under Burn's names, and what Burn does not have as the bytes of one tensor.
    ///
    /// # Panics
    /// Where the state cannot be read from the device: Burn's trait has no way to return an error.
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let read = |inner: &mut Inner| match inner {
            Inner::Loaded(state) => Ok(state.clone()),
            Inner::Made(optimizer) => {
                optimizer.settle_blocking()?;
                pollster::block_on(State::of(optimizer, NAME))
            }
        };
        let write = |state: State| {
            let (of_burn, own) = state.split();
            for (field, (shape, values)) in of_burn.tensors {
                out.push_tensor(prefix, &field, TensorData::new(values, shape));
            }
            for (field, scalar) in of_burn.scalars {
                out.push_scalar(prefix, &field, scalar);
            }
            let bytes = Record::of_one(own).write()?.into_bytes()?.to_vec();
            let len = bytes.len();
            out.push_tensor(prefix, REST, TensorData::new(bytes, [len]));
            Ok(())
        };
        let state = read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        state.and_then(write).unwrap_or_else(|error: crate::Error| panic!("{error}"));
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, _device: &Device) -> Option<Self> {
        let mut state = State::default();
        if let Some(rest) = source.take_tensor(prefix, REST) {
            let bytes = Bytes::from_bytes_vec(rest.try_to_vec::<u8>().ok()?);
            state = Record::read(OptimizerRecord::from_bytes(bytes).ok()?).ok()?.into_one();
        }
        for field in FIELDS {
            let Some(data) = source.take_tensor(prefix, field) else { continue };
            let shape = data.shape().iter().copied().collect();
            state.tensors.insert(field.into(), (shape, data.try_to_vec().ok()?));
        }
        for field in TIMES {
            state.scalars.extend(source.take_scalar(prefix, field).map(|scalar| (field.to_string(), scalar)));
        }
        Some(Self(Arc::new(Mutex::new(Inner::Loaded(state)))))
    }
}
