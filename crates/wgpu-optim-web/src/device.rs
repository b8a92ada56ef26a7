//! Devices of pages: one `Gpu` for each, so that optimizers of a device share their pipelines.

use std::cell::RefCell;

use wgpu_optim::wgpu::{
    BindGroupDescriptor, BindGroupEntry, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingResource, BindingType,
    Buffer, BufferBinding, BufferBindingType, BufferSize, BufferUsages, Device, ErrorFilter, GPUDevice, ShaderStages,
};
use wgpu_optim::{Error, Gpu, TensorSpec};

use crate::given::Given;
use crate::{JsError, Result, thrown};

thread_local! {
    /// The devices in use, and how many optimizers use each.
    static DEVICES: RefCell<Vec<(Gpu, usize)>> = const { RefCell::new(Vec::new()) };
}

/// The use of a device by one optimizer.
pub(crate) struct Lease(Gpu);

impl Lease {
    pub(crate) fn new(device: GPUDevice) -> Self {
        DEVICES.with_borrow_mut(|devices| {
            if let Some((gpu, users)) = devices.iter_mut().find(|(gpu, _)| *gpu.device().js() == device) {
                *users += 1;
                return Self(gpu.clone());
            }
            let device = Device::of(device);
            let gpu = Gpu::new(&device, &device.queue());
            devices.push((gpu.clone(), 1));
            Self(gpu)
        })
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.0
    }

    /// Refuses a device that is lost, and tells once of a submit that the browser refused.
    pub(crate) fn check(&self) -> Result<()> {
        let device = self.0.device();
        if let Some(reason) = device.lost() {
            return Err(thrown(Error::DeviceLost(reason)));
        }
        match device.take_refused() {
            Some(message) => Err(thrown(format!("the browser refused commands that were submitted: {message}"))),
            None => Ok(()),
        }
    }

    /// The error of a call that waited: the loss of the device, where it is lost.
    pub(crate) fn cause(&self, error: Error) -> JsError {
        match self.0.device().lost() {
            Some(reason) => thrown(Error::DeviceLost(reason)),
            None => thrown(error),
        }
    }

    /// Refuses buffers that cannot be bound, as those of another device, naming the tensor.
    pub(crate) async fn check_buffers(&self, given: &[&Given], tensors: &[TensorSpec]) -> Result<()> {
        let device = self.0.device();
        let layout = device.create_bind_group_layout(&BindGroupLayoutDescriptor {
            label: Some("wgpu-optim/check"),
            entries: &[BindGroupLayoutEntry {
                binding: 0,
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer {
                    ty: BufferBindingType::Storage { read_only: true },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            }],
        });
        let mut known: Vec<&Buffer> = Vec::new();
        for (what, i, buffer) in given.iter().flat_map(|given| given.named()) {
            // What has no such usage the optimizer refuses itself.
            if known.contains(&buffer) || buffer.size() < 4 || !buffer.usage().contains(BufferUsages::STORAGE) {
                continue;
            }
            known.push(buffer);
            let start = BufferBinding { buffer, offset: 0, size: BufferSize::new(4) };
            let scope = device.push_error_scope(ErrorFilter::Validation);
            device.create_bind_group(&BindGroupDescriptor {
                label: Some("wgpu-optim/check"),
                layout: &layout,
                entries: &[BindGroupEntry { binding: 0, resource: BindingResource::Buffer(start) }],
            });
            if let Some(error) = scope.pop().await {
                let message = format!("its buffer cannot be bound: {error}");
                return Err(thrown(Error::Slice { what, tensor: tensors[i].name.clone(), message }));
            }
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        DEVICES.with_borrow_mut(|devices| {
            if let Some(at) = devices.iter().position(|(gpu, _)| gpu.device().js() == self.0.device().js()) {
                devices[at].1 -= 1;
                if devices[at].1 == 0 {
                    devices.remove(at);
                }
            }
        });
    }
}
