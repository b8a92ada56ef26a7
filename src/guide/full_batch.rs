//! Fits without noise: L-BFGS.
//!
//! Where each gradient is of all data, as in a fit, a calibration or a physics-informed network, successive gradients
//! say how the function bends. [`Lbfgs`](crate::Lbfgs) keeps the last `history_size` pairs of a movement and the change
//! of the gradient that came of it, and its steps are close to Newton's. On gradients of changing batches it learns
//! nothing.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Lbfgs, Reference, TensorSpec};
//!
//! // A valley: 50 x^2 + y^2/2.
//! let tensors = [TensorSpec::f32("xy", [2])];
//! let mut lbfgs = Reference::<f64>::new(&Lbfgs::default().into(), &tensors)?;
//! let mut params = [arr1(&[1.0, 10.0]).into_dyn()];
//! for _ in 0..10 {
//!     let [x, y] = [params[0][0], params[0][1]];
//!     lbfgs.step(&mut params, &[Some(arr1(&[100.0 * x, y]).into_dyn())])?;
//! }
//! assert!(params[0].iter().all(|x| x.abs() < 1e-3), "{}", params[0]);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # What a step costs
//!
//! A step reads the history twice and writes one pair. It has five dispatches, however many tensors and pairs there
//! are, and reads nothing back: inner products, their sums and the recursion's coefficients stay on the device. The
//! state takes `8*history_size + 8` bytes a parameter, so a history of 100 pairs, PyTorch's default, takes 808; 5 to
//! 20 pairs are enough for most fits.
//!
//! # What is the whole model's
//!
//! All tensors are one vector, whose products go over all groups; so `lr` and `history_size` are the top level's alone.
//! A tensor without a gradient counts as one whose gradient is 0, and moves along the history. To leave a tensor as it
//! is, [freeze](super::groups) it.
//!
//! # Without a line search
//!
//! The first step moves the parameters by at most `lr` in all, and each later step takes the whole direction times
//! `lr`. Far from a minimum that may go too far: choose an `lr` below 1, as 0.1 to 0.5, until the loss falls, or come
//! close with Adam first.
