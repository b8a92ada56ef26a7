//! What a tensor's bytes are: its description, its storage format and the constants of the layout.

use std::collections::HashMap;

use crate::error::{Error, Result, refuse};

/// How many elements a block has: the unit in which state is laid out, sums are taken and windows are cut. It is a
/// constant of the format, so that no choice of chunk or window changes a bit.
pub const BLOCK: usize = 1024;

/// Every tensor of an arena starts at a multiple of so many bytes: `SwiftShader` and WebGPU ask it of a binding's
/// offset.
pub const ALIGNMENT: u64 = 256;

/// Storage format of a tensor's elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision, 4 bytes.
    #[default]
    F32,
    /// IEEE half precision, 2 bytes, two in a word. Only gradients may have this format.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub fn size_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// The name in labels and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How parameters and gradients are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Four elements at once: slices that start at a multiple of 16 bytes and share their last word of 16 with none;
    /// gradients in f16 at a multiple of 8.
    Vec4,
    /// One element at a time: slices that start at a multiple of 4 bytes.
    Scalar,
}

impl Access {
    /// The name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vec4 => "vec4",
            Self::Scalar => "scalar",
        }
    }
}

/// In which buffers a dispatch finds parameters and gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pages {
    /// Parameters in one buffer, gradients in another.
    Apart,
    /// Parameters and gradients in one buffer. One binding serves both.
    Shared,
    /// Parameters and gradients in any of so many buffers.
    Many(u32),
}

/// A tensor's description: the name that errors, groups and state use, its shape and its format.
///
/// A dimension of 0 is legal: such a tensor has no elements and takes part in nothing but the count of steps.
/// `[]` is one number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Unique within a list of tensors.
    pub name: String,
    /// Elements per dimension, the last one contiguous.
    pub shape: Vec<usize>,
    /// Storage format of the parameter. It is f32, except in a list for which an arena of gradients is made.
    pub dtype: DType,
    /// Storage format of the gradient.
    pub grad_dtype: DType,
}

impl TensorSpec {
    /// A tensor of f32, its gradient too.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), dtype: DType::F32, grad_dtype: DType::F32 }
    }

    /// This tensor, with gradients of this format.
    ///
    /// ```
    /// use wgpu_optim::{DType, TensorSpec};
    ///
    /// let tensors = [TensorSpec::f32("w", [128, 784]), TensorSpec::f32("b", [128])];
    /// let tensors = tensors.map(|tensor| tensor.with_grad_dtype(DType::F16));
    /// // What an arena of their gradients is made for.
    /// let of_grads = tensors.each_ref().map(TensorSpec::grad_spec);
    /// assert_eq!([tensors[1].size_bytes(), of_grads[1].size_bytes()], [512, 256]);
    /// ```
    #[must_use]
    pub fn with_grad_dtype(self, dtype: DType) -> Self {
        Self { grad_dtype: dtype, ..self }
    }

    /// The tensor's gradient as a tensor: it has the same name and shape, and the format of the gradient.
    #[must_use]
    pub fn grad_spec(&self) -> Self {
        Self { dtype: self.grad_dtype, ..self.clone() }
    }

    /// How many elements the tensor has: the product of the shape, which saturates.
    pub fn len_elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &dim| product.saturating_mul(dim as u64))
    }

    /// How many bytes the values take without padding; the product saturates.
    pub fn size_bytes(&self) -> u64 {
        self.len_elements().saturating_mul(self.dtype.size_bytes())
    }

    /// How many bytes the gradient takes without padding; the product saturates.
    pub fn grad_size_bytes(&self) -> u64 {
        self.len_elements().saturating_mul(self.grad_dtype.size_bytes())
    }

    /// Whether the other is to hold the same values, whatever it says of gradients.
    #[cfg(feature = "gpu")]
    pub(crate) fn same_values(&self, other: &Self) -> bool {
        (&self.name, &self.shape, self.dtype) == (&other.name, &other.shape, other.dtype)
    }

    /// Refuses a parameter in another format than f32.
    pub(crate) fn check_param(&self) -> Result<()> {
        if self.dtype == DType::F32 {
            return Ok(());
        }
        refuse(format!("format of parameter {}", self.name), self.dtype, "f32; gradients may be f16")
    }

    /// Refuses a list in which two tensors have one name.
    pub(crate) fn check_names(tensors: &[Self]) -> Result<()> {
        let mut names = HashMap::new();
        for (second, tensor) in tensors.iter().enumerate() {
            if let Some(first) = names.insert(&tensor.name, second) {
                return Err(Error::TensorTwice { tensor: tensor.name.clone(), first, second });
            }
        }
        Ok(())
    }
}
