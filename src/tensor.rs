//! What a tensor's bytes are: its description and the constants of the layout.

use std::collections::HashMap;

use crate::codecs::DType;
use crate::error::{Error, Result};

/// How many elements a block has: the unit in which state is laid out, sums are taken and windows are cut. It is a
/// constant of the format, so that no choice of chunk or window changes a bit.
pub const BLOCK: usize = 1024;

/// Every tensor of an arena starts at a multiple of so many bytes: `SwiftShader` and WebGPU ask it of a binding's
/// offset.
pub const ALIGNMENT: u64 = 256;

/// The formats that a dispatch reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Formats {
    /// Of the parameters.
    pub param: DType,
    /// Of the gradients; f32 where there are none.
    pub grad: DType,
}

/// What rounding knows of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The format of its parameters.
    pub dtype: DType,
    /// Its stream of random numbers.
    pub stream: u32,
}

/// How parameters and gradients are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Four elements at once: slices that start at a multiple of 16 bytes and share their last word of 16 with none; of
    /// formats of 16 bits at a multiple of 8, and their last word of 8.
    Vec4,
    /// One word of 4 bytes at a time: slices that start at such a word, and gradients of 16 bits anywhere.
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
    /// Storage format of the parameter.
    pub dtype: DType,
    /// Storage format of the gradient.
    pub grad_dtype: DType,
}

impl TensorSpec {
    /// A tensor of f32, its gradient too.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), dtype: DType::F32, grad_dtype: DType::F32 }
    }

    /// The same with parameters of this type. Arithmetic is in f32 whatever the type; a step rounds the new parameter
    /// to the nearest number of the type, ties to even.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The same with gradients of this type.
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

    /// The formats of the parameter and of the gradient.
    pub fn formats(&self) -> Formats {
        Formats { param: self.dtype, grad: self.grad_dtype }
    }

    /// The tensor's gradient as a tensor: the same name and shape, its format that of the gradient.
    #[must_use]
    pub fn grad_spec(&self) -> Self {
        Self { dtype: self.grad_dtype, ..self.clone() }
    }

    /// The tensor's values in f32: the same name and shape, and gradients in f32.
    #[cfg(feature = "gpu")]
    pub(crate) fn summed_spec(&self) -> Self {
        self.clone().with_dtype(DType::F32).with_grad_dtype(DType::F32)
    }

    /// The product of the shape, saturating.
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
