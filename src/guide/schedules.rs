//! Schedules of the learning rate and of other options.
//!
//! A [`Schedule`](crate::Schedule) gives a factor for each applied step. The optimizer multiplies the option by it, in
//! every group: a group with ten times the top level's rate keeps ten times the rate. `schedule` is the schedule of the
//! learning rate, `schedules` those of any other numeric options by name.
//!
//! ```
//! use wgpu_optim::{Config, Reference, Schedule, Sgd, TensorSpec};
//!
//! let config = Config::from_json(r#"{
//!     "optimizer": "sgd", "lr": 0.1, "momentum": 0.5,
//!     "schedule": {"warmup": {"steps": 500, "then": {"cosine": {"total": 10000, "end": 0.01}}}},
//!     "schedules": {"momentum": {"linear": {"total": 1000, "end": 1.8}}}
//! }"#)?;
//! let mut optimizer = Reference::<f32>::new(&config, &[TensorSpec::f32("w", [3])])?;
//! assert_eq!(optimizer.value("lr")?, 0.0); // the rate of the coming step, which is the first
//! optimizer.set_steps(250)?; // as if 250 steps had been taken
//! assert_eq!([optimizer.value("lr")?, optimizer.value("momentum")?], [0.05, 0.6]);
//!
//! // In Rust, and with a function of your own of the step `t`, counted from 1.
//! let halves = Schedule::custom(|t| 0.5_f64.powi((t / 1000) as i32));
//! let config = Config::from(Sgd::default()).schedule("lr", halves);
//! # Reference::<f32>::new(&config, &[TensorSpec::f32("w", [3])])?;
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! [`Schedule`](crate::Schedule) lists all kinds with their formulas. They nest at will: `warmup` and `sequence` take
//! other schedules. Schedules follow the applied steps of the optimizer, so a step that the device skips does not
//! count. A closure has no JSON: set it again where you read the rest.
//!
//! If a schedule leads an option out of its bounds, the step returns an error that names the option, and changes
//! nothing.
//!
//! # Plateaus
//!
//! A `plateau` lowers its factor when a metric no longer gets better. It waits for you to feed it:
//!
//! ```
//! use wgpu_optim::{Config, Reference, TensorSpec};
//!
//! let config = Config::from_json(r#"{
//!     "optimizer": "sgd", "lr": 0.1,
//!     "schedule": {"plateau": {"factor": 0.5, "patience": 1}}
//! }"#)?;
//! let mut optimizer = Reference::<f32>::new(&config, &[TensorSpec::f32("w", [3])])?;
//! for validation_loss in [1.0, 1.1, 1.2] {
//!     optimizer.feed(validation_loss)?;
//! }
//! assert_eq!(optimizer.value("lr")?, 0.05); // two metrics in a row were no better than the first
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! Better means by a share of the best metric, 1e-4 by default. With `"threshold_mode": "abs"` the `threshold` is a
//! difference, for metrics around 0.
