//! Your device, buffers and encoders, and what a step costs.
//!
//! # Slices of your buffers
//!
//! Wherever the crate takes an [`Arena`](crate::Arena), it also takes one [`Slice`](crate::Slice) a tensor, in the
//! order that you gave the tensors in at creation. The optimizer works where the bytes lie and copies nothing. Buffers
//! need `STORAGE` usage. Parameters and gradients must lie in different buffers.
//!
//! A tensor without a gradient in a step is left alone: it does not decay, and its count of steps stays. Give `None`
//! for its slice, or [`Arena::without`](crate::Arena::without) in place of the arena.
//!
//! ```no_run
//! use wgpu_optim::wgpu::{Buffer, CommandEncoder};
//! use wgpu_optim::{EncodedStep, Error, Optimizer, Slice};
//!
//! fn step(
//!     optimizer: &mut Optimizer,
//!     encoder: &mut CommandEncoder,
//!     weights: &Buffer,
//!     grad: &Buffer,
//! ) -> Result<EncodedStep, Error> {
//!     let params = [Slice::new(weights, 0, 401_408), Slice::new(weights, 401_408, 512)]; // first byte, bytes
//!     let grads = [Some(Slice::all(grad)), None]; // the second tensor has no gradient in this step
//!     optimizer.encode(encoder, &params, &grads)
//! }
//! ```
//!
//! A slice that starts at a multiple of 16 bytes, with no other parameter in its last 16 bytes, takes the fast kernel.
//! One that starts at another multiple of 4 takes a slower one; [`StepPlan::scalar_tensors`](crate::StepPlan) names the
//! tensors that do.
//!
//! # Gradients in f16
//!
//! The optimizer reads gradients in f16 as they are. Say so of each tensor, and make the arena of the gradients for
//! what [`TensorSpec::grad_spec`](crate::TensorSpec::grad_spec) gives. Slices of such gradients hold two bytes an
//! element and start at a multiple of 4, for the fast kernel of 8. Parameters and state stay in f32.
//!
//! ```
//! use wgpu_optim::{DType, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w1", [784, 128]).with_grad_dtype(DType::F16)];
//! let of_grads = tensors.each_ref().map(TensorSpec::grad_spec);
//! assert_eq!([tensors[0].size_bytes(), of_grads[0].size_bytes()], [401_408, 200_704]);
//! ```
//!
//! # Encoding, submitting, undoing
//!
//! [`Optimizer::encode`](crate::Optimizer::encode) writes a step into an encoder of yours. You may encode any number of
//! steps before you submit one, as long as you submit them in the order of encoding. To give steps up, drop their
//! encoders and call [`Optimizer::undo`](crate::Optimizer::undo) with what `encode` returned, the latest first.
//!
//! # What a step does, and what it takes
//!
//! The first step with a set of buffers checks them, and makes pipelines, a table and bind groups. Later steps make
//! nothing, as long as their buffers are among the last eight sets used and no more steps are in flight than before.
//! [`Optimizer::warm_up`](crate::Optimizer::warm_up) does the making ahead of time;
//! [`release_buffers`](crate::Optimizer::release_buffers) lets go of the sets, which keep their buffers alive.
//!
//! ```no_run
//! use wgpu_optim::{Arena, Error, Optimizer};
//!
//! fn inspect(optimizer: &mut Optimizer, params: &Arena, grads: &Arena) -> Result<(), Error> {
//!     optimizer.warm_up(params, grads)?;
//!     let plan = optimizer.plan(params, grads)?;
//!     println!("{} passes, {} dispatches, {} bytes a step", plan.passes, plan.dispatches, plan.bytes);
//!     println!("{} bytes of state, {} in all", optimizer.memory().state, optimizer.memory().total());
//!     Ok(())
//! }
//! ```
//!
//! A step takes one dispatch a pass and window. A rule has one pass; three if it needs a norm of each tensor before its
//! update; Adafactor has five for matrices. A window is a set of tensors that the device can bind at once. Tensors in
//! one arena share a window as far as the device's largest binding reaches; tensors in a buffer each need a window
//! each. [`Gpu::with_tuning`](crate::Gpu::with_tuning) chooses how the work is cut up, which changes no bit of the
//! results.
