//! What to save so that a resumed training goes on with the same bits.
//!
//! [`Optimizer::save`] makes a [`Checkpoint`]: all that the training is, in memory. [`Optimizer::load`] makes an
//! optimizer of it that goes on with the same bits, on this device or another. [`Reference`](crate::Reference) has the
//! same two calls, and each loads what the other saved. This program saves a run after three steps, loads it, and
//! compares both after three more:
//!
//! ```
//! use ndarray::{ArrayD, arr1};
//! use wgpu_optim::{Config, Error, Reference, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [2]), TensorSpec::f32("b", [1])];
//! let config = Config::from_json(r#"{"optimizer": "nadam", "schedule": {"cosine": {"total": 6}}}"#)?;
//! let run = |optimizer: &mut Reference<f32>, params: &mut [ArrayD<f32>]| -> Result<(), Error> {
//!     for _ in 0..3 {
//!         let grads = [Some(params[0].clone()), Some(params[1].clone())]; // of (w*w + b*b)/2
//!         optimizer.step(params, &grads)?;
//!     }
//!     Ok(())
//! };
//! let mut first = Reference::<f32>::new(&config, &tensors)?;
//! let mut params = [arr1(&[1.0, -2.0]).into_dyn(), arr1(&[0.5]).into_dyn()];
//! run(&mut first, &mut params)?;
//!
//! let checkpoint = first.save()?; // optimizer.save().await? or save_blocking()? on the GPU
//! let mut second = Reference::<f32>::load(&tensors, &checkpoint)?;
//!
//! let mut copy = params.clone();
//! run(&mut first, &mut params)?;
//! run(&mut second, &mut copy)?;
//! assert_eq!(params, copy);
//! # Ok::<(), Error>(())
//! ```
//!
//! # What it holds
//!
//! * the rule and every option of this moment, of each group: what `set`, `set_lr` and `set_group` changed, too, and
//!   without the factors of schedules;
//! * schedules, and where their plateaus stand;
//! * which group each tensor is in, which tensors are frozen, and those that were added later;
//! * every state slot of rules and wrappers;
//! * each tensor's count of applied steps, what its rule carries beside it, how many steps the running mean holds, and
//!   the optimizer's own count;
//! * the loss scale and for how many steps it has stood; the numbers of options that the device writes;
//! * the micro-batches that wait for their step, with their sums;
//! * whether the parameters stand where they are evaluated, are swapped with their mean, or have looked ahead;
//! * the versions of the checkpoint's format and of the crate.
//!
//! It does not hold parameters, which are yours: [`Checkpoint::put_param`] lays them beside the rest. Nor does it hold
//! what concerns one process: reports, [`clear_grads`](crate::Optimizer::clear_grads), and
//! [`BestParams`](crate::BestParams), which has its own [`resume`](crate::BestParams::resume).
//!
//! [`Optimizer::save`] waits for submitted work, so that skipped steps do not count. An encoding that is neither
//! submitted nor taken back is an error, since its step would be lost. [`Optimizer::load`] finds tensors by name and
//! refuses a checkpoint that lacks one, has one too many, or has another shape or format, before anything is on the
//! device.
//!
//! # In a file
//!
//! [`Checkpoint::save_to`] writes a safetensors file, which other programs open, and [`Checkpoint::load_from`] reads
//! it.
//!
//! ```no_run
//! # use wgpu_optim::{Checkpoint, Config, Reference, TensorSpec};
//! # let tensors = [TensorSpec::f32("w", [2])];
//! # let config = Config::from_json(r#"{"optimizer": "adamw"}"#)?;
//! # let first = Reference::<f32>::new(&config, &tensors)?;
//! let mut checkpoint = first.save()?;
//! checkpoint.put_param("w", &[1.0, -2.0])?;
//! checkpoint.save_to("checkpoint.safetensors")?;
//!
//! let checkpoint = Checkpoint::load_from("checkpoint.safetensors")?;
//! let second = Reference::<f32>::load(&tensors, &checkpoint)?;
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! The file is written under another name in the same folder, synced, and renamed, and the folder is synced: a process
//! that is killed leaves the old file or the new one. The file that was there before stays beside it, where
//! [`Checkpoint::previous`] says.
//!
//! | in the file | holds |
//! |---|---|
//! | `param.<tensor>` | a parameter, in the tensor's shape |
//! | `state.<tensor>.<slot>` | a slot, in the tensor's shape, or `[]`, `[.., rows, 1]` or `[.., 1, columns]` |
//! | metadata `format` | `wgpu-optim.checkpoint/1`; another is refused |
//! | metadata `training` | all else, as JSON; numbers that may be any f64 are 16 hexadecimal digits of their bits |
//! | metadata `crc32c` | the CRC-32C of each tensor's bytes, as JSON: 8 hexadecimal digits by name |
//! | metadata `crc32c_of_metadata` | the CRC-32C of the texts `training` and `crc32c`, one behind the other |
//!
//! [`Checkpoint::load_from`] reads the whole file and checks all of it: lengths, offsets without gaps or overlaps,
//! fields that stand twice, shapes, checksums. The error names the file and what is wrong.
//!
//! # Closures and rules of your own
//!
//! A checkpoint holds names of what is code. Give a closure its name with [`Schedule::named`], and hand the closure
//! over again with [`Checkpoint::schedule`]; hand over a rule from outside the crate with [`Checkpoint::rule`]:
//!
//! ```
//! use wgpu_optim::{AdamW, Config, Reference, Schedule, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [2])];
//! let halves = |t: u64| 0.5_f64.powi(t as i32);
//! let config = Config::from(AdamW::default()).schedule("lr", Schedule::named("halves", halves));
//! let checkpoint = Reference::<f32>::new(&config, &tensors)?.save()?;
//!
//! let error = Reference::<f32>::load(&tensors, &checkpoint).unwrap_err();
//! let message = "checkpoint: schedule: is the closure halves; hand it to Checkpoint::schedule";
//! assert_eq!(error.to_string(), message);
//! let resumed = Reference::<f32>::load(&tensors, &checkpoint.schedule("halves", halves))?;
//! assert_eq!(resumed.value("lr")?, 0.5e-3);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # By hand
//!
//! Every number can also be read and set by itself: [`state`] and [`set_state`] by tensor and slot, then [`t`] and
//! [`set_t`], then [`carried`] and [`set_carried`], and [`averaged`] and [`set_averaged`] for the running mean;
//! [`steps`] and [`set_steps`], [`loss_scale`] and [`set_loss_scale`], [`scheduler`] and [`Scheduler::set_state`].
//!
//! [`Checkpoint`]: crate::Checkpoint
//! [`Checkpoint::load_from`]: crate::Checkpoint::load_from
//! [`Checkpoint::previous`]: crate::Checkpoint::previous
//! [`Checkpoint::save_to`]: crate::Checkpoint::save_to
//! [`Checkpoint::put_param`]: crate::Checkpoint::put_param
//! [`Checkpoint::rule`]: crate::Checkpoint::rule
//! [`Checkpoint::schedule`]: crate::Checkpoint::schedule
//! [`Schedule::named`]: crate::Schedule::named
//! [`Optimizer::save`]: crate::Optimizer::save
//! [`Optimizer::load`]: crate::Optimizer::load
//! [`state`]: crate::Optimizer::state
//! [`set_state`]: crate::Optimizer::set_state
//! [`t`]: crate::Optimizer::t
//! [`set_t`]: crate::Optimizer::set_t
//! [`carried`]: crate::Optimizer::carried
//! [`set_carried`]: crate::Optimizer::set_carried
//! [`averaged`]: crate::Optimizer::averaged
//! [`set_averaged`]: crate::Optimizer::set_averaged
//! [`steps`]: crate::Optimizer::steps
//! [`set_steps`]: crate::Optimizer::set_steps
//! [`loss_scale`]: crate::Optimizer::loss_scale
//! [`set_loss_scale`]: crate::Optimizer::set_loss_scale
//! [`scheduler`]: crate::Optimizer::scheduler
//! [`Scheduler::set_state`]: crate::Scheduler::set_state
