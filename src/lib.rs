#![cfg_attr(feature = "gpu", doc = include_str!("crate_page.md"))]
#![cfg_attr(not(feature = "gpu"), doc = "Shader texts, plans and perhaps the CPU reference, without wgpu.")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "reference"), allow(unused, reason = "the CPU reference alone uses some"))]

pub mod backend;
mod checkpoint;
mod clock;
mod codecs;
mod config;
mod control;
#[cfg(feature = "gpu")]
mod course;
mod decay;
mod dynamic_map;
mod early_stopping;
mod error;
mod fields;
#[cfg(feature = "gpu")]
mod gpu;
mod groups;
#[cfg(feature = "gpu")]
pub mod guide;
mod history;
pub mod init;
#[cfg(feature = "gpu")]
mod joint;
mod line_search;
mod lines;
#[cfg(feature = "gpu")]
mod optimizer;
mod options;
pub mod parts;
mod plan;
mod product;
#[cfg(all(feature = "gpu", feature = "proof"))]
pub mod proof;
pub mod read;
#[cfg(feature = "reference")]
mod reference;
mod report;
pub mod rule;
pub mod rules;
mod schedule;
mod session;
pub mod shader;
mod sides;
mod storage;
mod tensor;
mod traffic;
mod words;
pub mod wrapper;
pub mod wrappers;

pub use checkpoint::Checkpoint;
pub use codecs::DType;
pub use config::{Config, Group};
pub use control::NonFinite;
pub use dynamic_map::{Blockwise, DynamicMap};
pub use early_stopping::{EarlyStopping, Monitor, Verdict};
pub use error::{Error, Result};
#[cfg(feature = "gpu")]
pub use gpu::{Arena, ArenaSubset, BestParams, Buffers, Counts, Gpu, Slice, Tuning, required_limits};
pub use init::{Fan, Fans, Init, WeightLayout};
#[cfg(feature = "gpu")]
pub use joint::{Together, encode_together};
pub use line_search::{LineSearch, Minimum, Stop};
#[cfg(feature = "gpu")]
pub use optimizer::{EncodedStep, Memory, Norms, Optimizer, StepPlan};
pub use options::{AdjustLr, EpsPlacement, MomentumForm, Nesterov, NsCoefficients, RootEps};
#[cfg(feature = "reference")]
pub use reference::Reference;
pub use report::{Fault, LossScaleState, StepReport};
pub use rule::WeightDecay;
pub use rules::*;
pub use schedule::{Closure, DecayShape, Mode, Plateau, PlateauState, Schedule, Scheduler, Stage, ThresholdMode};
pub use storage::Storage;
pub use tensor::TensorSpec;
#[cfg(feature = "gpu")]
pub use wgpu;
pub use wrappers::{Accumulate, AdaptiveClip, CautiousUpdate, Clip, Ema, Lookahead, LossScale, ParamRounding};
pub use wrappers::{SkipNonfinite, StateFormat, Wrappers};
