//! wgpu's interface, as far as wgpu-optim calls it, over a `GPUDevice` that JavaScript owns.
//!
//! wgpu itself takes no device in from JavaScript. A build of wgpu-optim against this crate works on the device,
//! buffers and encoders of a page, by the very code that works on wgpu elsewhere. Names, arguments and results are
//! wgpu's, and the compiler refuses what is not here. What wgpu does not have says so: [`Device::of`], [`Buffer::of`],
//! [`CommandEncoder::of`], [`Pending`].

mod adapter;
mod buffer;
mod describe;
mod device;
mod encoder;
mod js;

pub use adapter::*;
pub use buffer::*;
pub use describe::*;
pub use device::*;
pub use encoder::*;
pub use js::{GPUBuffer, GPUCommandEncoder, GPUDevice};

/// What WebGPU says of a call that failed.
#[derive(Clone, Debug)]
pub struct Error(pub(crate) String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error {
    pub(crate) fn of(value: &wasm_bindgen::JsValue) -> Self {
        Self(js::message(value))
    }
}
