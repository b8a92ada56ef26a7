//! From Burn's tensors to slices of buffers and back, in one round trip to each of Burn's threads for a whole step.
//!
//! CubeCL's server answers on a thread of its own, and Burn's fusion on another one in front of it. A call to either
//! that waits for an answer takes some tens of microseconds, however little it does. On these threads themselves the
//! same calls are plain function calls, so the questions about all tensors go there together.

use burn::backend::Wgpu;
use burn::backend::wgpu::{AutoCompiler, CubeTensor, WgpuResource};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::cubecl::wgpu::WgpuServer;
use burn_cubecl::kernel::into_contiguous;
use cubecl_runtime::storage::ManagedResource;
use wgpu_optim::Slice;

use crate::{Error, Result};

/// A tensor as the backend has it, which with fusion may still be waiting for the operations that make it.
#[cfg(feature = "fusion")]
pub(crate) type Primitive = burn_fusion::FusionTensor<burn_cubecl::fusion::FusionCubeRuntime>;
/// A tensor as the backend has it.
#[cfg(not(feature = "fusion"))]
pub(crate) type Primitive = CubeTensor;

/// Bytes that views of one allocation start at multiples of: what any device takes as the offset of a binding.
const ALIGNMENT: u64 = 256;

/// The most bytes of an allocation that tensors share. Its memory is free again when the last of them is gone.
const SHARED_BYTES: u64 = 128 << 20;

/// What a tensor is to a step, and its parameter's name, for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'a> {
    pub(crate) what: &'static str,
    pub(crate) name: &'a str,
}

impl Label<'_> {
    fn refuse(self, message: String) -> Error {
        Error::Tensor { what: self.what, name: self.name.into(), message }
    }
}

/// The tensor as the backend has it.
///
/// # Errors
/// A tensor of another backend or with autodiff, or one that is not in F32, as quantised ones are.
pub(crate) fn primitive<const D: usize>(label: Label, tensor: Tensor<D>) -> Result<Primitive> {
    let dtype = tensor.dtype();
    if dtype != DType::F32 {
        return Err(label.refuse(format!("is stored as {dtype:?}, must be F32")));
    }
    tensor.try_into_primitive::<Wgpu>().map_err(|_| label.refuse("is not a plain tensor of Burn's wgpu backend".into()))
}

/// Waits until Burn has queued the operations that make these tensors.
#[cfg(not(feature = "fusion"))]
fn resolve(tensors: Vec<Primitive>) -> std::result::Result<Vec<CubeTensor>, String> {
    Ok(tensors)
}

/// Waits until Burn has queued the operations that make these tensors, on the thread of its fusion.
#[cfg(feature = "fusion")]
fn resolve(tensors: Vec<Primitive>) -> std::result::Result<Vec<CubeTensor>, String> {
    use burn_backend::{DeviceHandle, DeviceId, DeviceService, DeviceServiceStage, ServerUtilitiesHandle};

    /// A service without work, which exists to name the thread that fusion runs on.
    struct Thread;
    impl DeviceService for Thread {
        fn init(_device: DeviceId) -> Self {
            Self
        }
        fn utilities(&self) -> ServerUtilitiesHandle {
            std::sync::Arc::new(())
        }
        fn stage() -> DeviceServiceStage {
            DeviceServiceStage::Upstream
        }
    }

    let Some(first) = tensors.first() else { return Ok(vec![]) };
    let thread = DeviceHandle::<Thread>::new(first.client.device().to_id());
    let resolved = thread.exclusive(move || {
        let resolve = |tensor: Primitive| {
            let client = tensor.client.clone();
            client.resolve_tensor_float::<burn::backend::wgpu::CubeBackend>(tensor)
        };
        tensors.into_iter().map(resolve).collect()
    });
    resolved.map_err(|error| format!("the thread of Burn's fusion has failed: {error:?}"))
}

/// Tensors whose memory is known. CubeCL does not reuse it while this lives.
pub(crate) struct Held {
    tensors: Vec<(ManagedResource<WgpuResource>, u64)>,
    /// How many of them Burn had to copy first, since they did not lie in the order of their elements.
    pub(crate) copies: u64,
}

impl Held {
    /// Finds the buffers behind tensors, and those of new memory for some of them: `outs` gives the tensors' numbers.
    /// Burn's queue has all work on the tensors once this returns.
    ///
    /// # Errors
    /// A tensor on another device than the first one, one without a buffer.
    pub(crate) fn new(labels: &[Label], tensors: Vec<Primitive>, outs: &[usize]) -> Result<(Self, Vec<Primitive>)> {
        let Some(first) = labels.first() else { return Ok((Self { tensors: vec![], copies: 0 }, vec![])) };
        let mut copies = 0;
        let resolved = resolve(tensors).map_err(|message| first.refuse(message))?;
        let tensors = resolved.into_iter().map(|tensor| {
            let is_plain = tensor.is_contiguous() && !tensor.meta.is_tiled();
            copies += u64::from(!is_plain);
            if is_plain { tensor } else { into_contiguous(tensor) }
        });
        let tensors: Vec<_> = tensors.collect();
        let (client, device) = (&tensors[0].client, &tensors[0].device);
        if let Some((tensor, label)) = tensors.iter().zip(labels).find(|(tensor, _)| tensor.device != *device) {
            let message =
                format!("is on {:?}, must be where {} {} is, on {device:?}", tensor.device, first.what, first.name);
            return Err(label.refuse(message));
        }
        let shapes: Vec<_> = outs.iter().map(|&i| tensors[i].meta.shape().clone()).collect();
        let views = lay_out(client, device, &shapes);
        let labels = labels.iter().chain(outs.iter().map(|&i| &labels[i]));
        let all = || tensors.iter().chain(&views);
        let handles: Vec<Handle> = all().map(|tensor| tensor.handle.clone()).collect();
        let get = |handle| client.get_resource::<WgpuServer<AutoCompiler>>(handle);
        let resources = client.exclusive(|| handles.into_iter().map(get).collect::<Vec<_>>());
        let resources = resources.map_err(|error| first.refuse(format!("CubeCL's thread has failed: {error:?}")))?;
        let found = resources.into_iter().zip(all()).zip(labels).map(|((resource, tensor), label)| match resource {
            Ok(resource) => Ok((resource, 4 * tensor.meta.shape().num_elements() as u64)),
            Err(error) => Err(label.refuse(format!("its buffer was not found: {error:?}"))),
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        Ok((Self { tensors: found, copies }, views.into_iter().map(lazy).collect()))
    }

    /// The bytes of a tensor, in the order given; those of new memory follow.
    pub(crate) fn slice(&self, i: usize) -> Slice<'_> {
        let (resource, bytes) = &self.tensors[i];
        let WgpuResource { buffer, offset, .. } = resource.resource();
        Slice::new(buffer, *offset, *bytes)
    }
}

/// New memory for tensors of these shapes, which share allocations.
fn lay_out(client: &Client, device: &CubeDevice, shapes: &[Shape]) -> Vec<CubeTensor> {
    let bytes = |shape: &Shape| 4 * shape.num_elements() as u64;
    let mut views = Vec::new();
    let mut rest = shapes;
    while let Some(first) = rest.first() {
        let mut end = bytes(first);
        let mut starts = vec![0];
        for shape in &rest[1..] {
            let start = end.next_multiple_of(ALIGNMENT);
            if start + bytes(shape) > SHARED_BYTES {
                break;
            }
            starts.push(start);
            end = start + bytes(shape);
        }
        let end = end.max(ALIGNMENT);
        let memory = client.empty(end as usize);
        let (here, behind) = rest.split_at(starts.len());
        for (start, shape) in starts.into_iter().zip(here) {
            let behind = end - start - bytes(shape);
            let handle = memory.clone().offset_start(start).offset_end(behind);
            views.push(CubeTensor::new_contiguous(client.clone(), device.clone(), shape.clone(), handle, DType::F32));
        }
        rest = behind;
    }
    views
}

/// The tensor as the backend has it.
#[cfg(not(feature = "fusion"))]
fn lazy(tensor: CubeTensor) -> Primitive {
    tensor
}

/// The tensor as fusion knows it. This does not wait.
#[cfg(feature = "fusion")]
fn lazy(tensor: CubeTensor) -> Primitive {
    use burn::backend::wgpu::CubeBackend;
    use burn_fusion::NoOp;
    use burn_fusion::custom::{OperationIr, OperationOutput, StreamId};

    let client = burn_fusion::get_client::<CubeBackend>(&tensor.device);
    let (shape, dtype) = (tensor.meta.shape().clone(), tensor.dtype);
    let made = burn_ir::InitOperationIr::create(shape, dtype, || client.register_tensor_handle(tensor.into()));
    client.register(StreamId::current(), OperationIr::Init(made), NoOp::<CubeBackend>::new()).output()
}
