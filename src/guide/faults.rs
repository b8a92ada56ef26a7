//! What happens when a submit is refused, a device is lost, or memory runs out.
//!
//! A step counts where the device has run it, and nowhere else. Each encoding has a serial number, which the device
//! copies to a report when it runs; wgpu's callbacks alone would not tell a submit that it refused from one that has
//! run. [`Optimizer::reports`] says of each step whether it was applied, and if not, by [`StepReport::fault`], why it
//! never ran.
//!
#![doc = include_str!("faults.md")]
//!
//! Where nothing is skipped, steps that were encoded behind one that never ran were computed as if it had: their own
//! numbers, such as a bias correction, are one step ahead, and only the counts are put right. Where steps may be
//! skipped the device knows better, and no bit differs from a run without the step.
//!
//! # A lost device
//!
//! [`Gpu::request`] and [`Gpu::request_named`] install a callback for the loss of the device. On a device of your own,
//! call [`Gpu::watch`], or call [`Gpu::note_lost`] in a callback of yours. Natively calls also find out without either.
//! Buffers on a lost device are gone: open another device, and [load](super::checkpoints) the last checkpoint.
//!
//! ```no_run
//! use wgpu_optim::{Arena, Checkpoint, Error, Gpu, Optimizer};
//!
//! # fn train(_: &mut Optimizer, _: &Arena) -> Result<(), Error> { Ok(()) }
//! # fn run(tensors: &[wgpu_optim::TensorSpec]) -> Result<(), Error> {
//! loop {
//!     let gpu = Gpu::request_blocking()?;
//!     let checkpoint = Checkpoint::load_from("checkpoint.safetensors")?;
//!     let mut optimizer = Optimizer::load(&gpu, tensors, &checkpoint)?;
//!     let params = Arena::new(&gpu, tensors)?; // and its values from the checkpoint
//!     match train(&mut optimizer, &params) {
//!         Err(Error::DeviceLost(why)) => eprintln!("{why}; going on from the last checkpoint"),
//!         done => return done,
//!     }
//! }
//! # }
//! ```
//!
//! [`Error::Deadline`]: crate::Error::Deadline
//! [`Error::DeviceLost`]: crate::Error::DeviceLost
//! [`Error::Order`]: crate::Error::Order
//! [`Fault::Dropped`]: crate::Fault::Dropped
//! [`Fault::OutOfTurn`]: crate::Fault::OutOfTurn
//! [`Fault::Refused`]: crate::Fault::Refused
//! [`Gpu::note_lost`]: crate::Gpu::note_lost
//! [`Gpu::request`]: crate::Gpu::request
//! [`Gpu::request_named`]: crate::Gpu::request_named
//! [`Gpu::set_deadline`]: crate::Gpu::set_deadline
//! [`Gpu::watch`]: crate::Gpu::watch
//! [`Optimizer::reports`]: crate::Optimizer::reports
//! [`StepReport::fault`]: crate::StepReport::fault
//! [`step`]: crate::Optimizer::step
//! [`undo`]: crate::Optimizer::undo
