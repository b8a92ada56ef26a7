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
#[cfg(feature = "fusion")]
use {burn::backend::wgpu::CubeBackend, burn_cubecl::fusion::FusionCubeRuntime};

use crate::{Error, Result};

/// A tensor as the backend has it, which with fusion may still be waiting for the operations that make it.
#[cfg(feature = "fusion")]
pub(crate) type Primitive = burn_fusion::FusionTensor<FusionCubeRuntime>;
/// What fusion has behind its tensors.
#[cfg(feature = "fusion")]
type Handles = burn_fusion::custom::HandleContainer<<FusionCubeRuntime as burn_fusion::FusionRuntime>::FusionHandle>;
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

#[cfg(not(feature = "fusion"))]
fn device(tensor: &Primitive) -> &CubeDevice {
    &tensor.device
}
#[cfg(feature = "fusion")]
fn device(tensor: &Primitive) -> &CubeDevice {
    tensor.client.device()
}

/// Tensors that CubeCL knows, and those of new memory for some of them, which Burn knows as `given`.
struct Resolved {
    tensors: Vec<CubeTensor>,
    news: Vec<CubeTensor>,
    given: Vec<Primitive>,
}

/// Finds tensors, and makes new ones like those whose numbers `outs` gives.
#[cfg(not(feature = "fusion"))]
fn resolve(tensors: Vec<Primitive>, outs: &[usize]) -> std::result::Result<Resolved, String> {
    let shapes: Vec<_> = outs.iter().map(|&i| tensors[i].meta.shape().clone()).collect();
    let news = lay_out(&tensors[0].client, &tensors[0].device, &shapes);
    Ok(Resolved { given: news.clone(), tensors, news })
}

/// Finds tensors, and makes new ones like those whose numbers `outs` gives, on the thread of Burn's fusion once this
/// has run the operations that make the tensors.
///
/// The question is an operation in fusion's queue. A service of our own on that thread would be a shorter way in, but
/// CubeCL holds the lock on its list of services until the thread gets to the new one. What is queued there before
/// takes that lock, too, as each search for a fused kernel does to find its client: then neither goes on.
#[cfg(feature = "fusion")]
fn resolve(tensors: Vec<Primitive>, outs: &[usize]) -> std::result::Result<Resolved, String> {
    use burn_fusion::custom::{CustomOpIr, OperationIr, StreamId, TensorIr};

    let client = tensors[0].client.clone();
    let new = |i: usize| TensorIr::uninit(client.create_empty_handle(), tensors[i].shape.clone(), tensors[i].dtype);
    let outputs: Vec<_> = outs.iter().map(|&i| new(i)).collect();
    let inputs: Vec<_> = tensors.into_iter().map(Primitive::into_ir).collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    let operation = OperationIr::Custom(CustomOpIr::new("wgpu_optim", &inputs, &outputs));
    let given = client.register(StreamId::current(), operation, Resolve { inputs, outputs, sender });
    client.try_sync(|| ()).map_err(|error| format!("the thread of Burn's fusion has failed: {error:?}"))?;
    // Fusion skips an operation that reads what could not be made.
    let found = receiver.try_recv().map_err(|_| "an operation that makes one of the step's tensors has failed")?;
    let (tensors, news) = found;
    Ok(Resolved { tensors, news, given })
}

/// Sends the tensors that are behind those of fusion, and puts new ones behind its outputs.
#[cfg(feature = "fusion")]
#[derive(Debug)]
struct Resolve {
    inputs: Vec<burn_fusion::custom::TensorIr>,
    outputs: Vec<burn_fusion::custom::TensorIr>,
    sender: std::sync::mpsc::Sender<(Vec<CubeTensor>, Vec<CubeTensor>)>,
}

#[cfg(feature = "fusion")]
impl burn_fusion::custom::Operation<FusionCubeRuntime> for Resolve {
    fn execute(&self, handles: &mut Handles) -> std::result::Result<(), burn_fusion::ExecutionError> {
        let tensors: Vec<_> = self.inputs.iter().map(|input| handles.get_float_tensor::<CubeBackend>(input)).collect();
        let shapes: Vec<_> = self.outputs.iter().map(|output| output.shape.clone()).collect();
        let news = lay_out(&tensors[0].client, &tensors[0].device, &shapes);
        for (output, new) in self.outputs.iter().zip(&news) {
            handles.register_float_tensor::<CubeBackend>(&output.id, new.clone());
        }
        let sent = self.sender.send((tensors, news));
        sent.map_err(|_| burn_fusion::ExecutionError::generic("the step has been given up"))
    }
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
        let (Some(first), Some(tensor)) = (labels.first(), tensors.first()) else {
            return Ok((Self { tensors: vec![], copies: 0 }, vec![]));
        };
        let place = device(tensor);
        if let Some((tensor, label)) = tensors.iter().zip(labels).find(|(tensor, _)| device(tensor) != place) {
            let (what, name) = (first.what, first.name);
            let message = format!("is on {:?}, must be where {what} {name} is, on {place:?}", device(tensor));
            return Err(label.refuse(message));
        }
        let Resolved { tensors, news, given } = resolve(tensors, outs).map_err(|message| first.refuse(message))?;
        let mut copies = 0;
        let tensors = tensors.into_iter().map(|tensor| {
            let is_plain = tensor.is_contiguous() && !tensor.meta.is_tiled();
            copies += u64::from(!is_plain);
            if is_plain { tensor } else { into_contiguous(tensor) }
        });
        let tensors: Vec<_> = tensors.collect();
        let client = &tensors[0].client;
        let labels = labels.iter().chain(outs.iter().map(|&i| &labels[i]));
        let all = || tensors.iter().chain(&news);
        let handles: Vec<Handle> = all().map(|tensor| tensor.handle.clone()).collect();
        let get = |handle| client.get_resource::<WgpuServer<AutoCompiler>>(handle);
        let resources = client.exclusive(|| handles.into_iter().map(get).collect::<Vec<_>>());
        let resources = resources.map_err(|error| first.refuse(format!("CubeCL's thread has failed: {error:?}")))?;
        let found = resources.into_iter().zip(all()).zip(labels).map(|((resource, tensor), label)| match resource {
            Ok(resource) => Ok((resource, 4 * tensor.meta.shape().num_elements() as u64)),
            Err(error) => Err(label.refuse(format!("its buffer was not found: {error:?}"))),
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        Ok((Self { tensors: found, copies }, given))
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
