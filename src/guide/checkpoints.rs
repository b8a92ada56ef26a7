//! What to save so that a resumed training goes on with the same bits.
//!
//! The crate has no file format of its own. It gives you every number that a step depends on, and takes it back:
//!
//! | what | read | set |
//! |---|---|---|
//! | the configuration, as you made it | [`Config::to_json`] | [`Config::from_json`] |
//! | parameters | [`Arena::read`] | [`Arena::write`] |
//! | state, by tensor and slot | [`slots`], [`state`] | [`set_state`] |
//! | a tensor's count of applied steps | [`t`] | [`set_t`] |
//! | what a rule carries beside it | [`carried`] | [`set_carried`], after `set_t` |
//! | the optimizer's count of applied steps | [`steps`] | [`set_steps`] |
//! | plateaus of schedules | [`scheduler`], [`group_scheduler`] | [`Scheduler::set_state`] |
//! | the loss scale | [`loss_scale`] | [`set_loss_scale`] |
//! | early stopping | [`BestParams::monitor`], [`BestParams::params`] | [`BestParams::resume`] |
//!
//! [`Config::to_json`]: crate::Config::to_json
//! [`Config::from_json`]: crate::Config::from_json
//! [`Arena::read`]: crate::Arena::read
//! [`Arena::write`]: crate::Arena::write
//! [`slots`]: crate::Optimizer::slots
//! [`state`]: crate::Optimizer::state
//! [`set_state`]: crate::Optimizer::set_state
//! [`t`]: crate::Optimizer::t
//! [`set_t`]: crate::Optimizer::set_t
//! [`carried`]: crate::Optimizer::carried
//! [`set_carried`]: crate::Optimizer::set_carried
//! [`steps`]: crate::Optimizer::steps
//! [`set_steps`]: crate::Optimizer::set_steps
//! [`scheduler`]: crate::Optimizer::scheduler
//! [`group_scheduler`]: crate::Optimizer::group_scheduler
//! [`Scheduler::set_state`]: crate::Scheduler::set_state
//! [`loss_scale`]: crate::Optimizer::loss_scale
//! [`set_loss_scale`]: crate::Optimizer::set_loss_scale
//! [`BestParams::monitor`]: crate::BestParams::monitor
//! [`BestParams::params`]: crate::BestParams::params
//! [`BestParams::resume`]: crate::BestParams::resume
//!
//! Options that you changed with `set`, `set_lr` or `set_group` are not in the `Config`, nor are frozen tensors: set
//! them again. Save between steps, not between micro-batches or between a look-ahead and its step.
//!
//! This program saves a run after three steps, resumes it in another optimizer, and compares both after three more:
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
//! let mut second = Reference::<f32>::new(&config, &tensors)?;
//! for name in ["w", "b"] {
//!     for slot in first.slots(name)? {
//!         let values = first.state(name, slot)?;
//!         second.set_state(name, slot, values.as_slice().unwrap())?;
//!     }
//!     second.set_t(name, first.t(name)?)?;
//!     second.set_carried(name, first.carried(name)?)?;
//! }
//! second.set_steps(first.steps())?;
//!
//! let mut copy = params.clone();
//! run(&mut first, &mut params)?;
//! run(&mut second, &mut copy)?;
//! assert_eq!(params, copy);
//! # Ok::<(), Error>(())
//! ```
//!
//! On the GPU the calls are the same, but that [`Optimizer::state`](crate::Optimizer::state) waits for the device: it
//! is `async`, and [`state_blocking`](crate::Optimizer::state_blocking) blocks.
