//! Evaluation, early stopping, and Nesterov's look-ahead: where the parameters stand, and when.
//!
//! # Evaluation mode
//!
//! A schedule-free model is evaluated at other parameters than it is trained at.
//! [`Optimizer::has_eval`](crate::Optimizer::has_eval) says whether an optimizer is of this kind. If so, call
//! [`eval`](crate::Optimizer::eval) before you evaluate, and [`train`](crate::Optimizer::train) before the next step.
//! While the parameters stand where they are evaluated, a step is an error.
//!
//! ```no_run
//! use wgpu_optim::{Arena, Error, Optimizer};
//!
//! fn evaluate(optimizer: &mut Optimizer, params: &Arena, loss: impl Fn(&Arena) -> f64) -> Result<f64, Error> {
//!     let moves = optimizer.has_eval();
//!     if moves {
//!         optimizer.eval(params)?;
//!     }
//!     let found = loss(params);
//!     if moves {
//!         optimizer.train(params)?; // leads back, to rounding
//!     }
//!     Ok(found)
//! }
//! ```
//!
//! To evaluate a running mean of the parameters with any rule, see [ema](super::ema).
//!
//! # Early stopping
//!
//! [`EarlyStopping`](crate::EarlyStopping) says when a metric has not got better for long enough.
//! [`BestParams`](crate::BestParams) also keeps the parameters of the best metric on the GPU: it copies them when the
//! metric improves, and reads nothing back.
//!
//! ```no_run
//! use wgpu_optim::{Arena, BestParams, EarlyStopping, Error, Gpu, TensorSpec, Verdict};
//!
//! fn train(gpu: &Gpu, tensors: &[TensorSpec], params: &Arena, epoch: impl Fn() -> f64) -> Result<(), Error> {
//!     let mut best = BestParams::new(gpu, tensors, EarlyStopping { patience: 3, ..EarlyStopping::default() })?;
//!     while best.feed(epoch(), params)? != Verdict::Stop {}
//!     best.restore(params)
//! }
//! ```
//!
//! # Nesterov's look-ahead
//!
//! With [`Nesterov::LookAhead`](crate::Nesterov) the gradient belongs to a point ahead of the parameters. Call
//! [`Optimizer::encode_look_ahead`](crate::Optimizer::encode_look_ahead) before your forward pass, and
//! [`encode`](crate::Optimizer::encode) after your backward pass;
//! [`needs_look_ahead`](crate::Optimizer::needs_look_ahead) says whether the coming step needs one. One without the
//! other is an error.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, Reference, TensorSpec};
//!
//! let config = Config::from_json(
//!     r#"{"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead"}"#,
//! )?;
//! let mut optimizer = Reference::<f64>::new(&config, &[TensorSpec::f32("w", [1])])?;
//! let mut params = [arr1(&[1.0]).into_dyn()];
//! for _ in 0..100 {
//!     optimizer.look_ahead(&mut params)?;
//!     let grad = params[0].clone(); // of w^2/2, ahead of the parameters
//!     optimizer.step(&mut params, &[Some(grad)])?;
//! }
//! assert!(params[0][0].abs() < 1e-3);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
