//! How to use the crate, one subject a page. No code lives here: a page is text, and its programs are tests.
//!
//! | page | what it answers |
//! |---|---|
//! | [configuration] | How do I name an optimizer and its options, and change an option later? |
//! | [groups] | How do I give some tensors other options than the rest, freeze tensors, or add new ones? |
//! | [schedules] | How does the learning rate, or another option, follow the steps or a metric? |
//! | [clipping_and_mixed_precision] | How do I clip gradients, skip bad steps, and train with gradients in f16? |
//! | [formats] | How do I store parameters and gradients in 16 bits, and what is rounded where? |
//! | [micro_batches] | How do I accumulate gradients over several backward passes? |
//! | [ema] | How do I keep a running mean of the parameters, or wrap Lookahead around a rule? |
//! | [full_batch] | How do I fit a function whose gradient has no noise? |
//! | [evaluation] | Where do I evaluate a model, when do I stop, and what does Nesterov's look-ahead ask for? |
//! | [checkpoints] | What do I save, so that a resumed training goes on with the same bits? |
//! | [faults] | What happens when a submit is refused, a device is lost, or memory runs out? |
//! | [your_buffers] | How do I keep my own buffers and encoders, and what does a step cost? |
//! | [initialisers] | How do I set the first values of the parameters? |
//! | [browser] | How do I train in a page, and how often does a loop have to yield? |
//! | [without_a_gpu] | How do I run an optimizer on the CPU, in f32 or f64? |
//! | [your_own_rule] | How do I write a rule that the crate does not have? |
//! | [wgsl_only] | How do I use the shaders from a backend that does not use wgpu? |
//!
//! Where a program needs no GPU, it runs on [`Reference`](crate::Reference), which has the methods of
//! [`Optimizer`](crate::Optimizer) over arrays of [`ndarray`](https://docs.rs/ndarray).

pub mod browser;
pub mod checkpoints;
pub mod clipping_and_mixed_precision;
pub mod configuration;
pub mod ema;
pub mod evaluation;
pub mod faults;
pub mod formats;
pub mod full_batch;
pub mod groups;
pub mod initialisers;
pub mod micro_batches;
pub mod schedules;
pub mod wgsl_only;
pub mod without_a_gpu;
pub mod your_buffers;
pub mod your_own_rule;
