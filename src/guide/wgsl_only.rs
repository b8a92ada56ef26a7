//! The shaders without wgpu.
//!
//! With `default-features = false` the crate does not depend on wgpu. It then gives shader texts, chunk tables, the
//! words of each step and the CPU reference to backends that bring a GPU layer of their own, in any language that WGSL
//! can be translated to.
//!
//! ```
//! use wgpu_optim::backend::{Access, Formats};
//! use wgpu_optim::shader::{Pages, Skeleton, Values, bindings, compose};
//! use wgpu_optim::{AdamW, Wrappers};
//!
//! let (rule, wrappers) = (AdamW::default(), Wrappers::default());
//! let text = compose(&rule, &wrappers, Skeleton::Apply, Values::apart(Access::Vec4, Formats::default()));
//! assert!(text.contains("fn apply("));
//! for binding in bindings(&rule, &wrappers, Skeleton::Apply, Pages::Apart) {
//!     println!("{binding:?} at {:?}", binding.place());
//! }
//! ```
//!
//! `cargo run --example print_wgsl -- adamw apply vec4`, in a clone of the repository, prints the same shader. The
//! repository's `ARCHITECTURE.md` says what each buffer holds, byte by byte.
//! [`backend`](crate::backend) holds the plans, clocks and records that such a backend needs besides.
