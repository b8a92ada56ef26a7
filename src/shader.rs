//! The shaders: which walks there are, what each binds, which constants it has, and how its text is composed. This file
//! lists what the rest of the crate uses; the work is in `src/shader/`. Nothing here knows wgpu.

mod bindings;
mod compose;
mod constants;
mod glue;
mod hooks;
mod state;
mod values;
mod walk;

pub use crate::tensor::Pages;
pub use bindings::{Binding, bindings, model_numbers, tensor_numbers};
pub use compose::compose;
pub(crate) use constants::LANES_MANY;
pub use constants::Switches;
pub use values::Values;
pub use walk::{Skeleton, Walk};
