//! First values of the parameters.
//!
//! An [`Init`](crate::Init) sets a tensor on the GPU from a seed and the tensor's name; the host uploads no values. The
//! values depend on seed, name and place alone, so the order of the tensors does not matter. All initialisers but
//! [`Orthogonal`](crate::Init::Orthogonal) give the same bits on every device, and on the CPU with
//! [`Init::fill`](crate::Init::fill).
//!
//! ```no_run
//! use wgpu_optim::{Arena, Error, Fans, Init};
//!
//! fn start(params: &Arena, seed: u64) -> Result<(), Error> {
//!     params.init("w1", &Init::HeNormal(Fans::default()), seed)?;
//!     params.init("b1", &Init::RELU_BIAS, seed)?;
//!     params.init("w2", &Init::from_json(r#"{"orthogonal": {"gain": 1.4}}"#)?, seed)
//! }
//! ```
//!
//! [`Gpu::init`](crate::Gpu::init) does the same with a slice of a buffer of yours, and
//! [`Init::mean_target`](crate::Init::mean_target) makes the initialiser for the bias of an output layer.
//!
//! ```
//! use wgpu_optim::{Init, TensorSpec};
//!
//! let weights = Init::from_json(r#"{"he_normal": {"mode": "fan_out"}}"#)?.fill(&TensorSpec::f32("w", [64, 32]), 7)?;
//! let variance = weights.iter().map(|w| w * w).sum::<f32>() / 2048.0;
//! assert!((variance - 2.0 / 64.0).abs() < 3e-3);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
