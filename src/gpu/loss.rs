//! The loss of a device: who tells of it, and how calls learn of it.

use std::sync::{Arc, Mutex, OnceLock};

use super::Gpu;
use crate::error::{Error, Result};

/// What is known of the loss of a device.
#[derive(Debug)]
pub(super) struct Loss {
    /// Why the device is lost, once it is.
    why: Arc<OnceLock<String>>,
    /// A buffer that nothing uses. wgpu refuses to map it where the device is gone, and so tells of the loss before its
    /// callback does: that of a device that was destroyed comes with a later poll.
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "a browser's callbacks come by themselves"))]
    canary: Mutex<wgpu::Buffer>,
}

impl Loss {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        Self { why: Arc::default(), canary: Mutex::new(canary(device)) }
    }

    /// Whether wgpu refuses to map a buffer.
    #[cfg(not(target_arch = "wasm32"))]
    fn is_refused(&self, device: &wgpu::Device) -> bool {
        let mut kept = self.canary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A buffer that was made on a lost device is invalid, which wgpu says as an error.
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        // Where another thread polls the device while this one unmaps the buffer, the buffer may end up mapped, and is
        // refused then although the device is there. A new one is not.
        let refused = !can_map(&kept) && {
            *kept = canary(device);
            !can_map(&kept)
        };
        drop(pollster::block_on(scope.pop()));
        refused
    }
}

fn canary(device: &wgpu::Device) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("wgpu-optim/canary"),
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Whether wgpu takes a request to map the buffer, which is unmapped again.
#[cfg(not(target_arch = "wasm32"))]
fn can_map(buffer: &wgpu::Buffer) -> bool {
    let answer = Arc::new(OnceLock::new());
    let callback = answer.clone();
    buffer.slice(..).map_async(wgpu::MapMode::Read, move |result| {
        let _ = callback.set(result.is_err());
    });
    let refused = answer.get() == Some(&true);
    if !refused {
        buffer.unmap();
    }
    !refused
}

impl Gpu {
    /// Installs the crate's callback for the loss of the device ([`Error::DeviceLost`]), in place of any other one.
    /// [`request`](Self::request) and [`request_named`](Self::request_named) have done so. Who needs a callback of his
    /// own calls [`note_lost`](Self::note_lost) in it instead. Natively every call also finds out by itself, at the
    /// latest when a submit fails; in a browser nothing else tells.
    pub fn watch(&self) {
        let why = self.0.loss.why.clone();
        self.device().set_device_lost_callback(move |reason, message| {
            // The first cause stays.
            let _ = why.set(format!("{reason:?}: {message}"));
        });
    }

    /// Notes that the device is lost: every call that needs it is an [`Error::DeviceLost`] from now on.
    pub fn note_lost(&self, message: &str) {
        // The first cause stays.
        let _ = self.0.loss.why.set(message.into());
    }

    /// Notes that the device is lost, and gives the error, with the first cause that was noted.
    pub(crate) fn lost(&self, message: &str) -> Error {
        Error::DeviceLost(self.0.loss.why.get_or_init(|| message.into()).clone())
    }

    /// Refuses to go on with a device that is gone.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) fn check_alive(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if self.0.loss.why.get().is_none() && self.0.loss.is_refused(self.device()) {
            self.note_lost("wgpu refuses to map a buffer");
        }
        match self.0.loss.why.get() {
            Some(why) => Err(Error::DeviceLost(why.clone())),
            None => Ok(()),
        }
    }
}
