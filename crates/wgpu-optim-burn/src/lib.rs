//! The optimizers of [`wgpu_optim`] for models of [Burn](burn): all parameters of a model in one fused update, on the
//! device and in the memory that Burn trains with. Any rule, wrapper, group and schedule of `wgpu_optim` works, so a
//! Burn model gets what Burn's own optimizers leave out: a norm over all gradients clipped without a wait, loss scales,
//! steps that skip what is not finite, running means of the parameters.
//!
//! ```no_run
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::GradientsParams;
//! use burn::tensor::{Device, Distribution, Tensor};
//! use wgpu_optim::{AdamW, Clip, Config};
//! use wgpu_optim_burn::Fused;
//!
//! let (device, setup) = Device::wgpu_options().init_with_setup()?;
//! let device = device.autodiff();
//! let mut model: Linear = LinearConfig::new(64, 10).init(&device);
//! let mut optim = Fused::new(&setup, Config::from(AdamW::burn()).wrap(Clip::GlobalNorm(1.0)));
//! for _ in 0..100 {
//!     let batch = Tensor::<2>::random([32, 64], Distribution::Default, &device);
//!     let loss = model.forward(batch).powi_scalar(2).mean();
//!     let grads = GradientsParams::from_grads(loss.backward(), &model);
//!     optim.step(1e-3, &mut model, grads)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Clones
//!
//! Burn's tensors are values: a clone of a model keeps its numbers whatever becomes of the model. So [`Fused::step`]
//! reads the parameters where they lie and writes the new ones to memory of their own, which the model holds from then
//! on. It moves no more bytes than an update in place and copies nothing. Clones, models under validation, and graphs
//! that were built before the step stay as they were; the old memory goes back to Burn's pool when nobody holds it.
//!
//! The new parameters are views of common allocations of up to 128 MiB, so a step of many small tensors binds few
//! buffers. What keeps one of the views keeps its whole allocation.
//!
//! # Records
//!
//! [`Fused::to_record`] gives Burn's own record of an optimizer, and [`Fused::load_record`] takes one. So a training
//! may change between Burn's optimizer and ours in the middle:
//!
//! ```no_run
//! # use burn::optim::{AdamWConfig, ModuleOptimizer};
//! # use burn::tensor::Device;
//! # use wgpu_optim::AdamW;
//! # use wgpu_optim_burn::Fused;
//! # let (_device, setup) = Device::wgpu_options().init_with_setup()?;
//! # let burn: ModuleOptimizer = AdamWConfig::new().init();
//! let mut optim = Fused::new(&setup, AdamW::burn());
//! optim.load_record(burn.to_record())?; // Burn's steps so far
//! // Steps of ours, then back:
//! let burn = AdamWConfig::new().init().load_record(optim.to_record()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A tensor at a time
//!
//! [`PerTensor`] is Burn's own trait of an optimizer, for `Learner`. Burn steps one tensor at a time through it and
//! says neither which nor when all are through, so it costs a submit and some round trips for each tensor, and knows no
//! norm over the model. `TrainStep::optimize` of Burn's `Learner` can be overridden to call [`Fused`] instead.
//!
//! # Host time
//!
//! Burn's tensors are resolved on threads of Burn's, and a question to one of them takes some tens of microseconds. A
//! step asks about all tensors together: one question to CubeCL's thread, and one more to the thread of fusion.

mod bridge;
mod fused;
#[cfg(not(target_family = "wasm"))]
mod per_tensor;
mod record;

pub use fused::Fused;
#[cfg(not(target_family = "wasm"))]
pub use per_tensor::{PerTensor, PerTensorState};
pub use wgpu_optim;

/// What can go wrong. The model is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What `wgpu_optim` refuses: an option, a group, a tensor.
    #[error(transparent)]
    Optim(#[from] wgpu_optim::Error),
    /// A tensor that the optimizer cannot work on.
    #[error("{what} {name}: {message}")]
    Tensor {
        /// Whether it is a parameter or a gradient.
        what: &'static str,
        /// The parameter's path in the module.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A record of another rule or model.
    #[error("{name} in the record {message}")]
    Record {
        /// The parameter's path in the module.
        name: String,
        /// What is wrong with its state.
        message: String,
    },
    /// A call at a time when it has no meaning.
    #[error("{message}")]
    Order {
        /// What must come before.
        message: &'static str,
    },
    /// A record that Burn cannot read or write.
    #[error(transparent)]
    Burn(#[from] burn::store::RecordError),
    /// A model other than the one of the first step.
    #[error("the model has {found}, the optimizer's has {expected}")]
    Model {
        /// What the model has.
        found: String,
        /// What the first step's model had.
        expected: String,
    },
}

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
