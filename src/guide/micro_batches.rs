//! Gradient accumulation: one step from the gradients of several backward passes.
//!
//! With `"accumulate": 4` every fourth call of [`Optimizer::encode`](crate::Optimizer::encode) takes a step, and the
//! three calls before it only add the gradients up. The step uses the mean of the four gradients. The optimizer keeps
//! the sums in f32, whatever the format of the gradients, and adds in the order of the calls.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, Reference, TensorSpec};
//!
//! let config = Config::from_json(r#"{"optimizer": "sgd", "lr": 0.5, "accumulate": 2}"#)?;
//! let mut optimizer = Reference::<f32>::new(&config, &[TensorSpec::f32("w", [1])])?;
//! let mut params = [arr1(&[1.0]).into_dyn()];
//! optimizer.step(&mut params, &[Some(arr1(&[0.5]).into_dyn())])?; // adds up
//! assert_eq!(params[0][0], 1.0);
//! optimizer.step(&mut params, &[Some(arr1(&[1.5]).into_dyn())])?; // adds up, and steps
//! assert_eq!(params[0][0], 0.5);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! * Where an epoch ends within a step, [`Optimizer::step_early`](crate::Optimizer::step_early) takes the step with the
//!   mean of the micro-batches there are, and
//!   [`Optimizer::drop_micro_batches`](crate::Optimizer::drop_micro_batches) leaves them out.
//!   [`Optimizer::micro_batches`](crate::Optimizer::micro_batches) counts them.
//! * A tensor needs a gradient in one of the calls at least to take part in the step.
//! * A clip, a norm and the loss scale work on the mean, and the optimizer decides once a step whether to skip it. With
//!   `skip_nonfinite` or a loss scale, a gradient of 2^63 or more makes the sum infinite, so that later micro-batches
//!   cannot hide it.
//! * You cannot freeze tensors, swap in the mean of the parameters, or evaluate between the micro-batches of a step.
//! * The sums take 4 bytes a parameter ([`Memory::accumulated`](crate::Memory)), and each call moves 8 bytes a
//!   parameter besides reading the gradient.
//!
//! With [`Optimizer::clear_grads`](crate::Optimizer::clear_grads) each call sets the gradients to zero once it has read
//! them, for backward passes that add to what is there. Their buffers need `COPY_DST` usage.
