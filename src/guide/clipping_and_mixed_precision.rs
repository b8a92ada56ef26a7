//! Clipping, skipping of bad steps, loss scaling, norms and reports.
//!
//! All of it runs on the GPU within the step, and the host waits for nothing. This configuration clips by the global
//! norm and scales the loss, here on the CPU:
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, Reference, TensorSpec};
//!
//! let config = Config::from_json(r#"{
//!     "optimizer": "sgd", "lr": 1,
//!     "clip": {"global_norm": 1.0},
//!     "loss_scale": {"init": 4, "growth": 2, "backoff": 0.5, "interval": 2000}
//! }"#)?;
//! let mut optimizer = Reference::<f32>::new(&config, &[TensorSpec::f32("w", [2])])?;
//! let mut params = [arr1(&[0.0, 0.0]).into_dyn()];
//!
//! optimizer.step(&mut params, &[Some(arr1(&[12.0, f32::INFINITY]).into_dyn())])?; // is skipped
//! assert_eq!(params[0][0], 0.0);
//! assert_eq!(optimizer.loss_scale().scale, 2.0);
//!
//! optimizer.step(&mut params, &[Some(arr1(&[12.0, 16.0]).into_dyn())])?; // 6 and 8, whose norm is 10
//! assert!((params[0][0] + 0.6).abs() < 1e-6 && (params[0][1] + 0.8).abs() < 1e-6);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # Clips
//!
//! `clip` is `{"value": c}`, `{"tensor_norm": c}`, `{"global_norm": c}`, `{"adaptive": {"clip": c, "eps": e}}` or
//! `{"sign": c}`; [`Clip`](crate::Clip) has the formulas. The optimizer clips the mean gradient of a step, divided by
//! the loss scale. A clip by value costs nothing. The others read the gradients once more, and `adaptive` the
//! parameters, too.
//!
//! All clips but that by value need norms, and `"norms": true` measures them without a clip.
//! [`Optimizer::norms`](crate::Optimizer::norms) reads them back in f64;
//! [`norms_buffer`](crate::Optimizer::norms_buffer) names where they are on the device. Sums of squares do not
//! overflow: a billion of f32's largest numbers have a finite norm.
//!
//! # Skipping bad steps
//!
//! With `"skip_nonfinite": true` the device skips a step in which any gradient is NaN, infinite, or of a magnitude of
//! 2^63 or more. It changes no bit of parameters, state, means or counts then, and takes a pending look-ahead back.
//! Without this option a NaN gradient makes its own parameter NaN.
//!
//! The host learns only later whether a step was applied. Bias corrections, schedules and every other number follow the
//! applied steps all the same: the host sends the numbers for each possible outcome, and the device picks.
//!
//! # Loss scale
//!
//! Gradients in f16 vanish below 6e-8. So the backward pass multiplies the loss by a scale, and the optimizer divides
//! the gradients by it. With `"loss_scale": {"init": 65536}` the device keeps the scale:
//! [`loss_scale_buffer`](crate::Optimizer::loss_scale_buffer) is one f32 that your backward pass binds. A step whose
//! gradients overflow is skipped and halves the scale; 2000 good steps in a row double it
//! ([`LossScale`](crate::LossScale)). The demo trains so, with gradients in f16, in `examples/train_digits/mlp.wgsl`.
//! How to declare gradients in f16 is on the page [formats](super::formats).
//!
//! # Reports
//!
//! [`Optimizer::reports`](crate::Optimizer::reports) returns what became of the steps whose news has come, each once:
//! whether a step was applied, its norm, its loss scale, and which tensor caused a skip. It does not wait.
//! [`settle`](crate::Optimizer::settle) waits for all submitted steps. Until a step has reported,
//! [`t`](crate::Optimizer::t) and [`steps`](crate::Optimizer::steps) count it as applied.
//!
//! ```no_run
//! use wgpu_optim::{Error, Optimizer};
//!
//! fn watch(optimizer: &mut Optimizer) -> Result<(), Error> {
//!     for report in optimizer.reports()? {
//!         if let Some((tensor, kind)) = report.culprit {
//!             println!("step {} was skipped: {kind:?} in {tensor}; the loss scale was {}", report.step, report.scale);
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! At most 1023 steps may be in flight where steps may be skipped, whichever tensors each one has. There are fewer
//! where a rule carries a number from step to step and you set its rate between steps in flight: every outcome is a
//! state of its own then, and there are at most 4096. Beyond that a step waits until the device has told of earlier
//! ones; steps that are not submitted, and a browser, get an error instead. What becomes of encoders that you drop
//! stands under [faults](super::faults).
//!
//! # Several optimizers, one norm, one decision
//!
//! A model may need two optimizers: one rule for its matrices, another for the rest. A joint step encodes the steps of
//! all of them: the global norm is that of all gradients, and a gradient that is not finite skips the steps of all.
//!
//! ```no_run
//! use wgpu_optim::wgpu::CommandEncoder;
//! use wgpu_optim::{Arena, Error, Optimizer, Together, encode_together};
//!
//! fn together(
//!     encoder: &mut CommandEncoder,
//!     [(hidden, w, dw), (rest, b, db)]: [(&mut Optimizer, &Arena, &Arena); 2],
//! ) -> Result<(), Error> {
//!     encode_together(encoder, &mut [Together::new(hidden, w, dw), Together::new(rest, b, db)])?;
//!     Ok(())
//! }
//! ```
//!
//! # Options that the device writes
//!
//! `"on_device": ["lr"]` leaves options to a kernel of yours, which writes them where
//! [`Optimizer::on_device`](crate::Optimizer::on_device) says. Each of `lr`, `weight_decay`, `eps`, `momentum`, `alpha`
//! and `clip` can be one, if the numbers of a step depend on it linearly. Otherwise the optimizer refuses it by name:
//! the rate of `asgd`, `adafactor` or `schedule_free`, for example.
