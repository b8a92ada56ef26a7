//! A running mean of the parameters, and Lookahead.
//!
//! # The running mean
//!
//! With `"ema": {"decay": 0.999}` each applied step also updates a running mean of the parameters, within the dispatch
//! of the rule. [`Ema`](crate::Ema) has the formula. [`Optimizer::swap_ema`](crate::Optimizer::swap_ema) puts the mean
//! where the parameters are, so that you can evaluate the model with it, and the next call puts the parameters back,
//! bit for bit. Between the two calls a step is an error.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, Reference, TensorSpec};
//!
//! let config = Config::from_json(r#"{"optimizer": "sgd", "lr": 1, "ema": {"decay": 0.5}}"#)?;
//! let mut optimizer = Reference::<f32>::new(&config, &[TensorSpec::f32("w", [1])])?;
//! let mut params = [arr1(&[2.0]).into_dyn()];
//! optimizer.step(&mut params, &[Some(arr1(&[1.0]).into_dyn())])?;
//! assert_eq!(params[0][0], 1.0);
//! optimizer.swap_ema(&mut params)?;
//! assert_eq!(params[0][0], 1.5); // half of 2, where the mean started, and half of 1
//! optimizer.swap_ema(&mut params)?;
//! assert_eq!(params[0][0], 1.0);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! [`Optimizer::ema_into`](crate::Optimizer::ema_into) copies the mean into other buffers instead. With `"debias":
//! true` only the copy is allowed, since what is read then differs from what is stored. A mean that is switched on in
//! the midst of a training counts its own steps ([`averaged`](crate::Optimizer::averaged)).
//!
//! # Lookahead
//!
//! [`Lookahead`](crate::Lookahead) (Zhang et al. 2019) wraps any rule: after every `k`-th step of a tensor it pulls
//! slow parameters towards the parameters, and the parameters return to them. It is part of the rule's dispatch.
//!
//! ```
//! use wgpu_optim::{AdamW, Config, Lookahead};
//!
//! let config = Config::from(AdamW::default()).wrap(Lookahead { k: 5, alpha: 0.5 });
//! let same = Config::from_json(r#"{"optimizer": "adamw", "lookahead": {"k": 5, "alpha": 0.5}}"#)?;
//! assert_eq!(config.to_json()?, same.to_json()?);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! Lookahead is not the look-ahead of Nesterov's momentum, which [evaluation](super::evaluation) describes.
