//! Any optimizer on the CPU.
//!
//! [`Reference`](crate::Reference) runs the same optimizers over arrays of `ndarray`, in f32 or f64. The tests hold the
//! GPU against it. It takes the same [`Config`](crate::Config), groups, schedules and wrappers, and its methods have
//! the names of those of [`Optimizer`](crate::Optimizer). It differs in one point: its `look_ahead` moves all tensors
//! that need one and are not frozen.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Adam, Config, Reference, TensorSpec};
//!
//! let config = Config::from(Adam { lr: 0.1, ..Adam::default() });
//! let mut optimizer = Reference::<f64>::new(&config, &[TensorSpec::f32("w", [2])])?;
//! let mut params = [arr1(&[3.0, -1.0]).into_dyn()];
//! for _ in 0..200 {
//!     let grad = params[0].mapv(|w| 2.0 * (w - 0.5)); // of (w - 0.5)^2
//!     optimizer.step(&mut params, &[Some(grad)])?;
//! }
//! assert!(params[0].iter().all(|w| (w - 0.5).abs() < 1e-2));
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
