//! Your device, buffers and encoders, and what a step costs.
//!
//! # Slices of your buffers
//!
//! Wherever the crate takes an [`Arena`](crate::Arena), it also takes one [`Slice`](crate::Slice) a tensor, in the
//! order that you gave the tensors in at creation. The optimizer works where the bytes lie and copies nothing. Buffers
//! need `STORAGE` usage. One buffer may hold anything: many tensors, parameters and gradients, other things of yours.
//! But no byte that a step writes may belong to a second slice of that step. A parameter that two tensors share (tied
//! weights) is one tensor: two names for its bytes are [`Error::Overlap`](crate::Error::Overlap), which says both.
//!
//! Slices may lie elsewhere in each step. Values that moved within buffers that the last step knew make nothing new; a
//! buffer that is new costs the bind groups that hold it. The optimizer keeps the buffers of its last two placements
//! alive ([`Tuning::placements`](crate::Tuning)), so gradients that you drop are freed after two further steps.
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
//! # Out of place
//!
//! Where others still read the parameters, [`Optimizer::encode_into`](crate::Optimizer::encode_into) leaves them as
//! they are and writes the new ones elsewhere, at the same cost:
//!
//! ```
//! # use wgpu_optim::{Error, Gpu};
//! # fn main() -> Result<(), Error> {
//! # let gpu = match Gpu::request_blocking() { Err(Error::NoAdapter { .. }) => return Ok(()), gpu => gpu? };
//! use wgpu_optim::{Adam, Arena, Optimizer, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [3])];
//! let [old, grads, new] = [(); 3].map(|()| Arena::new(&gpu, &tensors));
//! let (old, grads, new) = (old?, grads?, new?);
//! grads.write("w", &[1.0, -1.0, 0.0])?;
//! let mut optimizer = Optimizer::new(&gpu, &tensors, Adam { lr: 0.5, ..Adam::default() })?;
//! let mut encoder = gpu.device().create_command_encoder(&Default::default());
//! optimizer.encode_into(&mut encoder, &old, &grads, &new)?;
//! gpu.queue().submit([encoder.finish()]);
//! assert_eq!(old.read_blocking("w")?, [0.0, 0.0, 0.0]);
//! assert_eq!(new.read_blocking("w")?, [-0.5, 0.5, 0.0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Encoding, submitting, undoing
//!
//! [`Optimizer::encode`](crate::Optimizer::encode) writes a step into an encoder of yours. You may encode any number of
//! steps before you submit one, as long as you submit them in the order of encoding. To give steps up, drop their
//! encoders and call [`Optimizer::undo`](crate::Optimizer::undo) with what `encode` returned, the latest first. One
//! that you forget, and one whose submit wgpu refuses, [count as none](super::faults).
//!
//! # What a step does, and what it takes
//!
//! The first step checks the buffers, and makes pipelines, a table and bind groups. Later steps make nothing, as long
//! as their buffers are those of the last placements and no more steps are in flight than before.
//! [`Optimizer::warm_up`](crate::Optimizer::warm_up) does the making ahead of time;
//! [`release_buffers`](crate::Optimizer::release_buffers) lets go of the buffers.
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
//! one arena share a window as far as the device's largest binding reaches. Of tensors in buffers of their own, as many
//! share one as the device has storage bindings for: with Adam two pairs of parameter and gradient on every device, and
//! 16 on one with 64 bindings, if you ask for them. No dispatch works on more than
//! [`Tuning::dispatch_bytes`](crate::Tuning): systems reset a device that is busy for two seconds.
//! [`Gpu::with_tuning`](crate::Gpu::with_tuning) chooses how the work is cut up, which changes no bit of the results.
//!
//! # Models of Burn
//!
//! The crate `wgpu-optim-burn` gives a step the tensors of a Burn model where they lie, and writes the new parameters
//! elsewhere with [`encode_into`](crate::Optimizer::encode_into), so that clones of the model stay as they were. It
//! exchanges the optimizer's state with Burn's own optimizers through Burn's records.
