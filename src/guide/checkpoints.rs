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
//! [`Optimizer::save_to`] writes a safetensors file with the parameters in it, which other programs open.
//! [`Checkpoint::load_latest`] checks such a file, [`Optimizer::load`] makes an optimizer of it, and
//! [`Optimizer::load_params`] fills the parameters. Values go from the device to the file and back in parts of 4 MiB,
//! so that neither the host nor the device ever holds much of them twice, however large the model is.
//!
//! ```no_run
//! # use wgpu_optim::{AdamW, Arena, Checkpoint, Gpu, Optimizer, TensorSpec};
//! # let gpu = Gpu::request_blocking()?;
//! # let tensors = [TensorSpec::f32("w", [2])];
//! # let params = Arena::new(&gpu, &tensors)?;
//! # let mut optimizer = Optimizer::new(&gpu, &tensors, AdamW::default())?;
//! let path = "run/checkpoint.safetensors";
//! optimizer.save_to_blocking(path, &params, |done, all| println!("{done} of {all} bytes"))?;
//!
//! let (checkpoint, refused) = Checkpoint::load_latest(path, |_, _| ())?;
//! if let Some(refused) = refused {
//!     println!("resumed from the checkpoint before: {refused}");
//! }
//! let optimizer = Optimizer::load(&gpu, &tensors, &checkpoint)?;
//! optimizer.load_params(&checkpoint, &params)?;
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! The file is written under another name in the same folder, synced, and renamed, and the folder is synced: a process
//! that is killed leaves the old file or the new one. The file that was there before stays beside it, where
//! [`Checkpoint::previous`] says, and is loaded where the first cannot be read. The demo does so with
//! `--save DIR --resume`; killed at any system call and started again, it ends with the same bits.
//!
//! [`Checkpoint::save_to`] and [`Checkpoint::load_from`] are for what is in memory, as a
//! [`Reference`](crate::Reference) saves it, and [`Checkpoint::to_bytes`] and [`Checkpoint::from_bytes`] for places
//! that are no files.
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
//! ## Its format
//!
//! This is version 2. Of version 1, which is read as well, the only difference is that each tensor has what is the
//! whole model's: `state.<tensor>.<slot>` in place of `optimizer.<slot>`. A later version is refused.
//!
//! | in the file | holds |
//! |---|---|
//! | `param.<tensor>` | a parameter in f32, whatever its format, in the tensor's shape |
//! | `state.<tensor>.<slot>` | a slot: the tensor's shape, `[]`, `[.., rows, 1]`, `[.., 1, columns]`, `[pairs, ..]` |
//! | `optimizer.<slot>` | a slot of the whole model, once: `[]`, or `[2, pairs, pairs]` |
//! | `steps.<tensor>.<slot>` | of a slot in `q8` or `q4`: the step of each group of 32 values, `[groups]` |
//! | metadata `format` | `wgpu-optim.checkpoint/2` |
//! | metadata `training` | all else, as JSON; numbers that may be any f64 are 16 hexadecimal digits of their bits |
//! | metadata `crc32c` | the CRC-32C of each tensor's bytes, as JSON: 8 hexadecimal digits by name |
//! | metadata `crc32c_of_metadata` | the CRC-32C of the texts `training` and `crc32c`, one behind the other |
//!
//! The checksums stand before the values, so that a writer leaves their place free and fills it at the end. Loading
//! checks all of a file before the first byte goes to the device: lengths, offsets without gaps or overlaps, fields
//! that stand twice, shapes, checksums, every number of the training. It takes no more memory than the file's header is
//! long, times what JSON takes in memory. The error names the file and what is wrong.
//!
//! # PyTorch, bitsandbytes and optax
//!
//! The Python programs in `examples/interchange` write the state of other libraries' optimizers as such files, and read
//! them: `torch_optim.py` for all of PyTorch's that are rules here, `bitsandbytes_optim.py` for AdamW and Lion with
//! state in 32 or 8 bits, `optax_state.py` for Adam, AdaBelief, Lion, LAMB and Yogi. `checkpoint.py` reads and writes
//! the format, and may start a program for another library.
//!
//! ```python
//! optimizer, params = torch_optim.load("checkpoint.safetensors")
//! torch_optim.save("checkpoint.safetensors", optimizer, params)
//! ```
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
//! [`Checkpoint::from_bytes`]: crate::Checkpoint::from_bytes
//! [`Checkpoint::load_from`]: crate::Checkpoint::load_from
//! [`Checkpoint::load_latest`]: crate::Checkpoint::load_latest
//! [`Checkpoint::previous`]: crate::Checkpoint::previous
//! [`Checkpoint::save_to`]: crate::Checkpoint::save_to
//! [`Checkpoint::to_bytes`]: crate::Checkpoint::to_bytes
//! [`Checkpoint::put_param`]: crate::Checkpoint::put_param
//! [`Checkpoint::rule`]: crate::Checkpoint::rule
//! [`Checkpoint::schedule`]: crate::Checkpoint::schedule
//! [`Schedule::named`]: crate::Schedule::named
//! [`Optimizer::save`]: crate::Optimizer::save
//! [`Optimizer::load`]: crate::Optimizer::load
//! [`Optimizer::load_params`]: crate::Optimizer::load_params
//! [`Optimizer::save_to`]: crate::Optimizer::save_to
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
