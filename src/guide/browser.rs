//! In a browser: from JavaScript, or in your own program that is compiled to wasm.
//!
//! # From JavaScript
//!
//! The package in the repository's `crates/wgpu-optim-web` is this crate as a module for pages. It works on your
//! `GPUDevice` and your `GPUBuffer`s, and encodes into your encoder:
//!
//! ```js
//! import { Optimizer } from "wgpu-optim";
//!
//! const tensors = [{ name: "weight", shape: [300, 10] }, { name: "bias", shape: [10] }];
//! const optimizer = await Optimizer.create(device, tensors, { optimizer: "adamw", lr: 1e-3 });
//! await optimizer.warmUp(params, grads);
//! for (const [i, batch] of batches.entries()) {
//!     const encoder = device.createCommandEncoder();
//!     backward(encoder, batch);
//!     const step = optimizer.encode(encoder, params, grads);
//!     device.queue.submit([encoder.finish()]);
//!     step.submitted();
//!     if (i % 100 === 99) await optimizer.settle();
//! }
//! ```
//!
//! | you want | you call |
//! |---|---|
//! | the names of all optimizers; the options of one | `Optimizer.rules()`, `Optimizer.options(name)` |
//! | an optimizer | `await Optimizer.create(device, tensors, config)` |
//! | one that goes on where another stood | `await Optimizer.load(device, tensors, bytes)` |
//! | the first step as fast as the second | `await warmUp(params, grads)` |
//! | a step | `step(params, grads)`, or `encode(encoder, params, grads)` and then `submitted()` or `undo()` |
//! | what became of steps | `reports()` |
//! | another option from the next step on | `set(option, value)`, `setGroup(group, option, value)` |
//! | the parameters moved for a look-ahead or an evaluation | `move(to, params)`, `encodeMove(encoder, to, params)` |
//! | first values; values of the state; a checkpoint | `init`, `await state(tensor, slot)`, `await save()` |
//! | its memory back | `destroy()` |
//!
//! The configuration is [that of the crate](super::configuration) as an object, and a checkpoint that a page saved
//! loads in Rust.
//!
//! # In your own wasm
//!
//! With the feature `webgpu` the crate compiles for `wasm32-unknown-unknown` as it is. Nothing may block there: take
//! [`Gpu::request`](crate::Gpu::request) for `request_blocking`, and so on.
//!
//! ```no_run
//! use wgpu_optim::{AdamW, Arena, Error, Gpu, Optimizer, TensorSpec};
//!
//! async fn train() -> Result<(), Error> {
//!     let gpu = Gpu::request().await?;
//!     let tensors = [TensorSpec::f32("w", [300, 10])];
//!     let (params, grads) = (Arena::new(&gpu, &tensors)?, Arena::new(&gpu, &tensors)?);
//!     let mut optimizer = Optimizer::new(&gpu, &tensors, AdamW::default())?;
//!     optimizer.warm_up(&params, &grads)?;
//!     optimizer.settle().await?; // compiled, and what the browser refused is told
//!     for step in 1..=1000 {
//!         // ... your backward pass ...
//!         optimizer.step(&params, &grads)?;
//!         if step % 100 == 0 {
//!             optimizer.settle().await?;
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # How often to yield
//!
//! A browser tells of finished work only between tasks. A loop that never awaits gets no reports, its steps are all in
//! flight, and each holds its words; with 512 in flight the package's next step throws and says so. Await something
//! each frame, or [`settle`](crate::Optimizer::settle) every hundred steps. A step needs no answer from the device, so
//! nothing is gained by awaiting each one.
//!
//! # What is refused, and when it is told
//!
//! What the crate can see it refuses in the call: a buffer that is too short, misaligned or without `STORAGE`, an
//! unknown option, a shape that does not fit. Whether a buffer is destroyed, or of another device, only the browser
//! knows, and it answers after the call: `warmUp` awaits that answer and names the tensor; `step` cannot, so `settle`
//! or the next call tells. A lost device is an error of every call.
//!
//! # The same bits
//!
//! Every rule computes the bits that it computes elsewhere: the page in the repository's `web/` shows a SHA-256 of a
//! replayed run, and the devices that gave the same.
