//! From Burn's tensors to slices of buffers.

use burn::backend::Wgpu;
use burn::backend::wgpu::{AutoCompiler, CubeTensor, WgpuResource};
use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl::wgpu::WgpuServer;
use wgpu_optim::Slice;

use crate::{Error, Result};

/// The buffer behind a tensor. CubeCL does not reuse its memory while this lives.
pub(crate) struct Held {
    resource: cubecl_runtime::storage::ManagedResource<WgpuResource>,
    bytes: u64,
}

impl Held {
    /// Finds the buffer of a tensor without autodiff. `what` and `name` name it in errors. Burn's queue has all work on
    /// the tensor once this returns.
    pub(crate) fn new<const D: usize>(what: &'static str, name: &str, tensor: Tensor<D>) -> Result<Self> {
        let refuse = |message: String| Error::Tensor { what, name: name.into(), message };
        let tensor = cube(tensor).map_err(&refuse)?;
        if tensor.qparams.is_some() || tensor.dtype != DType::F32 {
            return Err(refuse(format!("is stored as {:?}, must be F32", tensor.dtype)));
        }
        let dims: Vec<usize> = tensor.meta.shape().iter().copied().collect();
        let strides: Vec<usize> = tensor.meta.strides().iter().copied().collect();
        let mut expected = 1;
        for (&len, &stride) in dims.iter().zip(&strides).rev() {
            if len != 1 && stride != expected {
                return Err(refuse(format!("has shape {dims:?} and strides {strides:?}, must be contiguous")));
            }
            expected *= len;
        }
        let resource = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
        let resource = resource.map_err(|error| refuse(format!("its buffer was not found: {error:?}")))?;
        Ok(Self { resource, bytes: 4 * expected as u64 })
    }

    /// The tensor's bytes.
    pub(crate) fn slice(&self) -> Slice<'_> {
        let WgpuResource { buffer, offset, .. } = self.resource.resource();
        Slice::new(buffer, *offset, self.bytes)
    }
}

/// The tensor as CubeCL knows it. With fusion this waits until the operations that make it are queued.
fn cube<const D: usize>(tensor: Tensor<D>) -> std::result::Result<CubeTensor, String> {
    let primitive = tensor.try_into_primitive::<Wgpu>();
    let primitive = primitive.map_err(|_| "is not on Burn's wgpu backend".to_string())?;
    #[cfg(feature = "fusion")]
    {
        let client = primitive.client.clone();
        Ok(client.resolve_tensor_float::<burn::backend::wgpu::CubeBackend>(primitive))
    }
    #[cfg(not(feature = "fusion"))]
    Ok(primitive)
}
