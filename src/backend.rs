//! What a backend without wgpu needs: which dispatches a step takes, over which buffers, and the words that the shaders
//! read. Only re-exports may live here.
//!
//! [`Optimizer`](crate::Optimizer) does with wgpu what this module lets you do with any other GPU layer. Three things
//! happen, each as often as it must:
//!
//! 1. Once: [`compose`](crate::shader::compose) gives the text of each walk, [`bindings`](crate::shader::bindings) the
//!    buffers that it binds.
//! 2. Once: [`plan::plan`] cuts the tensors into chunks and gives the chunk table. For each placement of parameters and
//!    gradients, [`plan::place`] gives the buffers to bind and the rows that say where values lie in them.
//! 3. For each step: [`Groups::step`] advances the [`Clocks`] and gives the step's [`Records`], whose words the shaders
//!    read.
//!
//! ```
//! use wgpu_optim::backend::plan::{Bounds, Home, Item, Place, pack_state, place, plan};
//! use wgpu_optim::backend::storage::Room;
//! use wgpu_optim::backend::{Access, BLOCK, Clocks, Formats};
//! use wgpu_optim::shader::{Skeleton, Values, compose};
//! use wgpu_optim::{AdamW, Config, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("weight", [300, 10]), TensorSpec::f32("bias", [10])];
//! let config = Config::from(AdamW::default());
//! let groups = config.groups(&tensors)?;
//!
//! // Once. The backend compiles this text, for example by way of SPIR-V.
//! let values = Values::apart(Access::Vec4, Formats::default());
//! let text = compose(config.rule(), config.wrappers(), Skeleton::Apply, values);
//! assert!(text.contains("fn apply("));
//!
//! // Once. Each tensor has the state of two slots in f32, in pages that a binding holds.
//! let room = Room::of_f32(2);
//! let bounds = Bounds::new(128 << 20, 65535, 8, 4 * 2 * BLOCK as u64);
//! let (states, pages) = pack_state(&[(3000, room), (10, room)], bounds);
//! assert_eq!(pages, [4 * 2 * (3000 + 12)]); // the last block of a tensor is padded to 4 elements
//! let item = |(tensor, state): (usize, Vec<Place>)| Item {
//!     tensor,
//!     len: tensors[tensor].len_elements(),
//!     variant: 0,
//!     stream: 0,
//!     access: Access::Vec4,
//!     formats: Formats::default(),
//!     room,
//!     state,
//!     lines: None,
//!     partial_words: 0,
//!     measured: false,
//!     sums: false,
//!     of_model: false,
//!     product: None,
//!     sides: None,
//! };
//! let plan = plan(&states.into_iter().enumerate().map(item).collect::<Vec<_>>(), bounds, 0)?;
//!
//! // For each placement. All parameters lie in buffer 0, all gradients in buffer 1, the bias 12032 bytes behind the
//! // weight.
//! let home = |i: u64| {
//!     let [param, grad] = [0, 1].map(|buffer| Place { buffer, offset: 12032 * i });
//!     Some(Home { param, grad: Some(grad), out: None })
//! };
//! let windows = place(&plan.chunks, &[home(0), home(1)], &[16384, 16384], |_| 2, bounds);
//! let dispatches = plan.dispatches(windows[0].entries.clone(), 1, 28, bounds);
//! assert_eq!((windows.len(), dispatches.len()), (1, 1)); // both tensors, one dispatch
//! assert_eq!(windows[0].rows[1][..2], [3008, 3008]); // elements before the bias and its gradient
//!
//! // For each step. The backend uploads these words behind those of the dispatches and the rows.
//! let mut clocks = Clocks::new(groups.of());
//! let records = groups.step(&mut clocks, None, 1)?;
//! assert_eq!(clocks.clock(0).t, 1);
//! assert!(records.of(1).is_some() && records.words().len() > tensors.len());
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! A backend may also run rules on a CPU of its own: [`Kernel`] is a rule's [`Step`] over a whole tensor, in f32 or
//! f64. [`traffic`] counts the bytes that a step moves.
//!
//! The repository's `ARCHITECTURE.md` says what each buffer holds, and its `shaders/README.md` how a text is composed.

pub use crate::clock::{Clock, Clocks};
pub use crate::groups::{Groups, Record, Records};
pub use crate::rule::kernel::Kernel;
#[cfg(feature = "reference")]
pub use crate::rule::kernel::Precision;
pub use crate::rule::step::{Coded, Common, Step, WrapperStep};
pub use crate::tensor::{ALIGNMENT, Access, BLOCK, Formats, Pages, Stored};

/// Tensors as matrices: how their rows and columns are summed, in the order of the GPU.
pub mod lines {
    pub use crate::lines::*;
}

/// Products of matrices: the iteration that a rule may run, in the order of the GPU.
pub mod product {
    pub use crate::product::*;
}

/// The sides of a tensor, and what a rule makes of them, in the order of the GPU.
pub mod sides {
    pub use crate::sides::*;
}

/// Plans: which dispatches a step needs, over which buffers.
pub mod plan {
    pub use crate::plan::*;
}

/// The formats of state, and where a block of state holds which numbers.
pub mod storage {
    pub use crate::storage::*;
}

/// The one model of bytes: what the walks of a step read and write of each element.
pub mod traffic {
    pub use crate::traffic::*;
}

/// Every word that the host and the shaders share, by name.
pub mod words {
    pub use crate::words::*;
}
