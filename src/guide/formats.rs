//! Parameters and gradients of 16 bits, and state of 16, 8 and 4.
//!
//! A tensor says how its parameter and its gradient are stored: in f32, f16 or bf16, each by itself. What is stored in
//! 16 bits takes half the memory and half the traffic: a step of AdamW moves 28 bytes a parameter in f32, and 22 with
//! parameters and gradients in bf16. The device needs no feature for it. Arithmetic is in f32 whatever the
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
//! all devices and the reference round alike, and a skipped step takes no chance. A group may have a `"seed"` of its
//! own. A finite number never becomes infinite.
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
//! # A remainder beside bf16
//!
//! A bf16 is the upper half of an f32, so the lower half alone makes it whole.
//! [`ParamRounding::Remainder`](crate::ParamRounding::Remainder), in JSON `"param_rounding": "remainder"`, keeps it as
//! the slot `remainder`, 2 bytes a parameter: as with a master steps and moves have the numbers of a training in f32,
//! bit by bit, and AdamW moves 26 bytes a parameter in place of 28.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, DType, ParamRounding, Reference, Sgd, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [1]).with_dtype(DType::Bf16), TensorSpec::f32("f", [1])];
//! let config = Config::from(Sgd { lr: 1.0, ..Sgd::default() }).wrap(ParamRounding::Remainder);
//! let mut sgd = Reference::<f32>::new(&config, &tensors)?;
//! let mut params = [0, 1].map(|_| arr1(&[1.0]).into_dyn());
//! for _ in 0..10 {
//!     sgd.step(&mut params, &[0, 1].map(|_| Some(arr1(&[-0.0005]).into_dyn())))?;
//! }
//! let remainder = sgd.state("w", "remainder")?[[0]];
//! assert_eq!(ParamRounding::whole(params[0][[0]], remainder), params[1][[0]]);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! The number in the slot is how many units of the f32's last place are missing, from -32768 to 32767. Halfway between
//! two numbers of bf16 the parameter goes away from zero, since this range has -32768 alone.
//! [`ParamRounding::split`](crate::ParamRounding::split) gives the two numbers of an f32, such as those of a training
//! to go on with: write one and set the other. Parameters in f16 are refused.
//!
//! # Kinds by group
//!
//! A group may have a kind of its own, as `{"tensors": ["embed"], "param_rounding": "stochastic"}`; the others have the
//! top level's. Every kind leaves tensors in f32 alone, and is refused where all tensors of its groups are in f32. A
//! group that is [added](super::groups) to an optimizer without any kind but `nearest` rounds to the nearest, too.
//!
//! # State
//!
//! [`StateFormat`](crate::StateFormat) says how the state is stored: in f32, in `bf16`, or in `q8` or `q4`, codes of 8
//! or 4 bits with a step in bf16 for every 32 elements. With parameters and gradients in bf16 and state in `q8` a step
//! of AdamW moves 10.25 bytes a parameter and stores 2.125 beside parameter and gradient.
//!
//! ```
//! use ndarray::ArrayD;
//! use wgpu_optim::{AdamW, Config, Group, Reference, StateFormat, Storage, TensorSpec};
//!
//! let config = Config::from(AdamW::default())
//!     .wrap(StateFormat::All(Storage::Q8))
//!     .group(Group::new(["embed"]).set("state_format", "f32"));
//! let same = Config::from_json(r#"{"optimizer": "adamw", "state_format": "q8",
//!     "groups": [{"tensors": ["embed"], "state_format": "f32"}]}"#)?;
//! assert_eq!(config.to_json()?, same.to_json()?);
//!
//! let tensors = ["w", "embed"].map(|name| TensorSpec::f32(name, [64, 64]));
//! let mut adamw = Reference::<f32>::new(&config, &tensors)?;
//! let mut params = [0, 1].map(|_| ArrayD::zeros(vec![64, 64]));
//! let grad = ArrayD::from_shape_fn(vec![64, 64], |at| (at[0] * at[1]) as f32 / 4096.0);
//! adamw.step(&mut params, &[Some(grad.clone()), Some(grad)])?;
//! // The update knows the new numbers before they are rounded, so the first step is that of f32.
//! assert_eq!(params[0], params[1]);
//! let [coded, exact] = [adamw.state("w", "v")?, adamw.state("embed", "v")?];
//! assert!(coded != exact && coded.iter().zip(&exact).all(|(coded, exact)| (*coded > 0.0) == (*exact > 0.0)));
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! A format is for all slots of the rule, or for some by name: `{"m": "q8", "v": "bf16"}`, the others in f32. Tensors
//! of less than 4096 elements keep f32; [`Config::min_elements`](crate::Config::min_elements) sets another number. f32
//! stays where a slot holds parameters, has no number for each element or belongs to a history, and in the slots of
//! wrappers: to ask for another format by name is refused there, and so is a format that no slot of the rule can have.
//!
//! A step rounds new numbers by chance, so that slow means follow: rounded to the nearest, a second moment with `beta2`
//! 0.999 never falls in bf16. The chance hangs on the seed, the tensor's name, the slot, the element and `t`. What it
//! adds is noise, which is small in bf16 and `q8`. In `q4` a second moment over a thousand steps is rough; give `v`
//! another format where that hurts. A code stands for a square, so that numbers far below the largest of their 32 keep
//! about the precision that they need, and a second moment that is positive never becomes 0.
//!
//! A number that is not finite takes the other 31 of its group with it, since no step reaches it:
//! [`SkipNonfinite`](crate::SkipNonfinite) keeps steps with such gradients out. A checkpoint holds such state as f32
//! beside the groups' steps, and a training goes on with the same bits; steps that are not finite are refused by name.
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
//! # Dispatches
//!
//! Any mix of formats trains in one optimizer. A dispatch serves the tensors whose parameters, gradients and state have
//! the same formats; each other combination takes one more, about as long as a small tensor's step. A model in bf16
//! with state in `q8` takes two: its matrices, and the tensors whose state is too small to code.
//! [`Optimizer::plan`](crate::Optimizer::plan) tells how many there are.
//!
//! # State of 8 bits from elsewhere
//!
//! [`DynamicMap`](crate::DynamicMap) reads and writes state as bitsandbytes stores it: a code of 8 bits for each
//! number, and a scale in f32 for each 256. What it decodes is set as any state, in whatever format the optimizer
//! stores it:
//!
//! ```
//! use wgpu_optim::{AdamW, Config, DynamicMap, Reference, TensorSpec};
//!
//! # fn main() -> wgpu_optim::Result<()> {
//! # let (state1, absmax1) = (vec![255; 300], [0.02, 0.01]);
//! # let (state2, absmax2) = (vec![255; 300], [4e-4, 1e-4]);
//! let tensors = [TensorSpec::f32("w", [300])];
//! let mut adamw = Reference::<f32>::new(&Config::from(AdamW::default()), &tensors)?;
//! // `state1`, `absmax1` and so on are those of bitsandbytes' `optimizer.state[param]`.
//! adamw.set_state("w", "m", &DynamicMap::signed().decode(&state1, &absmax1)?)?;
//! adamw.set_state("w", "v", &DynamicMap::unsigned().decode(&state2, &absmax2)?)?;
//! // And back.
//! let v: Vec<f32> = adamw.state("w", "v")?.iter().copied().collect();
//! let coded = DynamicMap::unsigned().encode(&v)?;
//! assert_eq!((coded.codes, &coded.scales[..]), (state2, &absmax2[..]));
//! # Ok(())
//! # }
//! ```
//!
//! The example `interchange` takes trainings over with it, both ways; see
//! [checkpoints](super::checkpoints#the-file).
//!
//! [`Memory::of`](crate::Memory::of) says without a device what an optimizer will hold, and the example `memory` prints
//! it of three models, for each way to store them; `docs/pictures.md` shows it.
//!
//! [`Gpu::init`](crate::Gpu::init) rounds the values that it has in f32 to the nearest. A
//! [`Checkpoint`](crate::Checkpoint) holds parameters as f32, which has every number of the other formats.
