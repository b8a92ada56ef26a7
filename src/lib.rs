#![cfg_attr(feature = "gpu", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "gpu"), doc = "Shader texts, chunk tables and the CPU reference, without wgpu.")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod around;
mod clock;
mod config;
mod error;
mod format;
#[cfg(feature = "gpu")]
mod gpu;
mod groups;
pub mod lines;
#[cfg(feature = "gpu")]
mod optimizer;
mod options;
pub mod parts;
pub mod plan;
mod reference;
pub mod rule;
pub mod rules;
pub mod wgsl;

pub use around::{Around, Lookahead};
pub use config::{Config, Group};
pub use error::{Error, Result};
pub use format::{ALIGNMENT, Access, BLOCK, Format, Tensor};
#[cfg(feature = "gpu")]
pub use gpu::{Arena, Buffers, Counts, Gpu, Part, Slice, Tuning, required_limits};
pub use groups::{Groups, Record, Records};
#[cfg(feature = "gpu")]
pub use optimizer::{Memory, On, Optimizer, Report, Token};
pub use options::{EpsPlacement, MomentumForm, Nesterov};
pub use reference::Reference;
pub use rule::{Precision, WeightDecay};
pub use rules::*;
#[cfg(feature = "gpu")]
pub use wgpu;
