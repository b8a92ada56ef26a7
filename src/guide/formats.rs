//! Parameters and gradients of 16 bits.
//!
//! A tensor says how its parameter and its gradient are stored: in f32, f16 or bf16, each by itself. What is stored in
//! 16 bits takes half the memory and half the traffic: a step of AdamW moves 28 bytes a parameter in f32, and 22 with
//! parameters and gradients in bf16. The device needs no feature for it. Arithmetic and state are in f32 whatever the
//! format.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, DType, Reference, Sgd, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [2]).with_dtype(DType::Bf16).with_grad_dtype(DType::Bf16)];
//! assert_eq!([tensors[0].size_bytes(), tensors[0].grad_size_bytes()], [4, 4]);
//!
//! let config = Config::from(Sgd { lr: 1.0, ..Sgd::default() });
//! let mut sgd = Reference::<f32>::new(&config, &tensors)?;
//! let mut params = [arr1(&[1.0, 1.0]).into_dyn()];
//! // Between 1 and 2, numbers of bf16 are 1/128 apart.
//! sgd.step(&mut params, &[Some(arr1(&[-0.003, -0.005]).into_dyn())])?;
//! assert_eq!(params[0], arr1(&[1.0, 1.0 + 1.0 / 128.0]).into_dyn());
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # Rounding
//!
//! A step computes the new parameter in f32 and rounds it to the nearest number of the format; of two that are equally
//! near it takes the one whose last bit is 0. Integers alone do this, so that every device and
//! [`Reference`](crate::Reference) give the same bits. In f16 what is 65 520 or more becomes infinite, and in bf16 what
//! is beyond its largest number, 3.39e38. [`DType::round`](crate::DType::round) does the same to one number.
//!
//! As the program above shows, an update below half the distance to the next number is lost, in every step anew. In
//! bf16 that is an update below 1/512 of a parameter, at most. Stochastic rounding keeps such updates on average: it
//! takes one of the two neighbours by chance, the likelier the nearer.
//!
//! ```
//! use ndarray::ArrayD;
//! use wgpu_optim::{Config, DType, ParamRounding, Reference, Sgd, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [1000]).with_dtype(DType::Bf16)];
//! let config = Config::from(Sgd { lr: 1.0, ..Sgd::default() }).wrap(ParamRounding::Stochastic).seed(7);
//! let same = Config::from_json(
//!     r#"{"optimizer": "sgd", "lr": 1, "param_rounding": "stochastic", "seed": 7}"#)?;
//! assert_eq!(config.to_json()?, same.to_json()?);
//!
//! let mut sgd = Reference::<f32>::new(&config, &tensors)?;
//! let mut params = [ArrayD::from_elem(vec![1000], 1.0)];
//! for _ in 0..10 {
//!     sgd.step(&mut params, &[Some(ArrayD::from_elem(vec![1000], -0.0005))])?;
//! }
//! // To the nearest, all would still be 1.
//! assert!((params[0].mean().unwrap() - 1.005f32).abs() < 0.001);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! The chance hangs on the seed, the tensor's name, the element and the tensor's `t`, and on nothing else: two runs,
//! all devices and the reference round alike, and a skipped step takes no chance. A finite number never becomes
//! infinite.
//! Moves outside a step round to the nearest.
//!
//! # A master in f32
//!
//! [`ParamRounding::Master`](crate::ParamRounding::Master), in JSON `"param_rounding": "master"`, keeps the parameters
//! in f32 as one more slot of the state, `master`. Steps and moves go on from there, with the numbers of a training in
//! f32, and leave a rounded copy for the forward pass. So AdamW moves 28 bytes a parameter, as in f32, and the forward
//! pass reads half.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, DType, ParamRounding, Reference, Sgd, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [1]).with_dtype(DType::Bf16)];
//! let config = Config::from(Sgd { lr: 1.0, ..Sgd::default() }).wrap(ParamRounding::Master);
//! let mut sgd = Reference::<f64>::new(&config, &tensors)?;
//! let mut params = [arr1(&[1.0]).into_dyn()];
//! for _ in 0..10 {
//!     sgd.step(&mut params, &[Some(arr1(&[-0.0005]).into_dyn())])?;
//! }
//! assert!((sgd.state("w", "master")?[[0]] - 1.005).abs() < 1e-12);
//! assert_eq!(params[0][[0]], 1.0 + 1.0 / 128.0);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! A tensor's first step takes the parameters as its master. Where you set the parameters yourself later, set the slot,
//! too ([`Optimizer::set_state`](crate::Optimizer::set_state)). An adaptive clip compares gradients with the copy. A
//! rule with numbers of rows and columns, as Adafactor, is refused with an L2 penalty beside a master.
//!
//! Both kinds are the whole model's and leave tensors in f32 alone; without any tensor of 16 bits they are refused.
//!
//! # Steps that are skipped, wrappers, moves
//!
//! A step that the device skips, and a tensor without gradient, leave every bit as it was. Wrappers see the new
//! parameter before it is rounded, so the means of `ema` and the slow parameters of `lookahead` are not rounded. A move
//! to evaluation and back (`schedule_free`) rounds the parameters twice. To swap parameters of 16 bits with their mean
//! would round the mean; it is refused without a master, and
//! [`Optimizer::ema_into`](crate::Optimizer::ema_into) copies the mean out.
//!
//! # Buffers
//!
//! ```
//! # use wgpu_optim::{Error, Gpu};
//! # fn main() -> Result<(), Error> {
//! # let gpu = match Gpu::request_blocking() { Err(Error::NoAdapter { .. }) => return Ok(()), gpu => gpu? };
//! use wgpu_optim::{AdamW, Arena, DType, Optimizer, TensorSpec};
//!
//! let tensors = [
//!     TensorSpec::f32("w", [128, 64]).with_dtype(DType::Bf16).with_grad_dtype(DType::Bf16),
//!     TensorSpec::f32("norm", [64]),
//! ];
//! // Gradients have an arena of their own list.
//! let of_grads = tensors.each_ref().map(TensorSpec::grad_spec);
//! let (params, grads) = (Arena::new(&gpu, &tensors)?, Arena::new(&gpu, &of_grads)?);
//! // Arenas take and give f32, and round what they take.
//! params.write("w", &vec![0.1; 128 * 64])?;
//! assert_eq!(params.read_blocking("w")?[0], 0.100_097_656);
//! let mut optimizer = Optimizer::new(&gpu, &tensors, AdamW::default())?;
//! optimizer.step(&params, &grads)?;
//! # Ok(())
//! # }
//! ```
//!
//! Two elements share a word of 4 bytes, the first in its lower half. Slices of parameters start at a multiple of 4
//! bytes, those of gradients at one of 2; at a multiple of 8 both take the fast kernel. A step writes whole words. So
//! where a parameter has an odd number of elements, no other tensor may have the other half of its last word: this is
//! refused, naming both. Bits of the caller's own in that half stay.
//!
//! Tensors of one pair of formats share their dispatches; each other pair takes one more.
//!
//! [`Gpu::init`](crate::Gpu::init) fills tensors in f32. For others write what [`Init::fill`](crate::Init::fill)
//! returns. A [`Checkpoint`](crate::Checkpoint) holds parameters as f32, which has every number of the other formats.
