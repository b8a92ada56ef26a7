//! A rule that you write yourself, outside the crate.
//!
//! A rule is a type that implements [`Rule`](crate::rule::Rule), and a WGSL text that defines the same functions. You
//! write the formula for one element, once in each language. The crate does the rest: it loads and stores, runs the
//! wrappers around the rule, applies weight decay, keeps parameter groups and schedules, and steps all tensors in one
//! dispatch. The macro [`numbers!`](crate::numbers) declares the structs that both languages share, and
//! [`options!`](crate::options) names the options that may change between steps.
//!
//! With the feature `proof` the crate compares both texts for you: the harness `wgpu_optim::proof` runs the rule on the
//! GPU beside the f32 reference, over the cases that you give. The repository's `shaders/README.md` says what a rule's
//! WGSL may contain, and the program below, `examples/your_own_rule.rs`, does all of it.
//!
#![doc = "```text"]
#![doc = include_str!("../../examples/your_own_rule.rs")]
#![doc = "```"]
//!
//! Its twin, `examples/your_own_rule.wgsl`:
//!
#![doc = "```wgsl"]
#![doc = include_str!("../../examples/your_own_rule.wgsl")]
#![doc = "```"]
