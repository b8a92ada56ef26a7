//! The caller gives a step its parameters and gradients as arenas, or as slices of any buffers.

use super::Gpu;
use super::arena::{Arena, ArenaSubset};
use crate::error::{Error, Result};
use crate::tensor::TensorSpec;

/// Bytes of a buffer of the caller's that hold one tensor. The optimizer works on them where they lie.
///
/// The buffer needs `STORAGE` usage. A slice that starts at a multiple of 16 bytes takes the vec4 kernel; one that
/// starts at a multiple of 4, or whose last word of 16 bytes another parameter shares or the buffer cuts off, takes the
/// scalar one ([`StepPlan::scalar_tensors`](crate::StepPlan)). Of elements of 16 bits a multiple of 8 bytes, and a last
/// word of 8, suffice for the vec4 kernel. Bytes outside the slice keep their values.
///
/// Gradients of 16 bits may start at any multiple of 2 bytes, and the rest of their first and last word of 4 may hold
/// anything. Where a step writes an odd number of elements of 16 bits, no other tensor may have the other half of the
/// last word.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// The first byte, a multiple of 4; of gradients one of their format's size.
    pub offset: u64,
    /// Bytes: those of the format for each element.
    pub size: u64,
}

impl<'a> Slice<'a> {
    /// The bytes `offset..offset + size` of a buffer.
    pub fn new(buffer: &'a wgpu::Buffer, offset: u64, size: u64) -> Self {
        Self { buffer, offset, size }
    }

    /// The whole buffer.
    pub fn all(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, offset: 0, size: buffer.size() }
    }

    /// Refuses a slice that does not hold this tensor's values, or whose buffer lacks this usage. `what` names the
    /// slice in errors.
    pub(super) fn check(&self, what: &'static str, tensor: &TensorSpec, usage: wgpu::BufferUsages) -> Result<()> {
        let Self { buffer, offset, size } = *self;
        if size != tensor.size_bytes() {
            let (found, expected) = (format!("{size} bytes"), format!("{} bytes", tensor.size_bytes()));
            return Err(Error::Shape { what: what.into(), tensor: tensor.name.clone(), found, expected });
        }
        // What is written are whole words.
        let unit = if what == "gradient" { tensor.dtype.size_bytes() } else { 4 };
        let message = if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
            format!("{size} bytes at {offset} end behind the buffer's {}", buffer.size())
        } else if offset % unit != 0 {
            format!("offset is {offset}, must be a multiple of {unit} bytes")
        } else if (offset + size).next_multiple_of(4) > buffer.size() {
            format!("{size} bytes at {offset} end in a word of 4 bytes that the buffer's {} cut off", buffer.size())
        } else if !buffer.usage().contains(usage) {
            let names = usage.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" | ");
            format!("buffer usage is {:?}, must contain {names}", buffer.usage())
        } else {
            return Ok(());
        };
        Err(Error::Slice { what, tensor: tensor.name.clone(), message })
    }

    /// Refuses a place for a loss that does not hold one f32 that can be copied.
    pub(crate) fn check_loss(&self) -> Result<()> {
        self.check("loss", &TensorSpec::f32("loss", []), wgpu::BufferUsages::COPY_SRC)
    }
}

/// Parameters or gradients of all tensors, in the order given at creation.
#[derive(Clone, Debug)]
pub enum Buffers<'a> {
    /// An arena with all its tensors.
    Arena(&'a Arena),
    /// An arena with some of its tensors.
    Subset(&'a ArenaSubset<'a>),
    /// One slice for each tensor; `None` where a tensor has no gradient in this step.
    Slices(Vec<Option<Slice<'a>>>),
}

impl<'a> Buffers<'a> {
    /// The arena, or the arena of which a subset is given; `None` for slices.
    pub(super) fn arena(&self) -> Option<&'a Arena> {
        match self {
            Self::Arena(arena) => Some(arena),
            Self::Subset(part) => Some(part.arena),
            Self::Slices(_) => None,
        }
    }

    /// Returns each tensor's slice, checked for this use, those that a subset of an arena leaves out included. `what`
    /// names the slices in errors.
    pub(crate) fn slices(
        &self,
        gpu: &Gpu,
        what: &'static str,
        tensors: &[TensorSpec],
        usage: wgpu::BufferUsages,
    ) -> Result<Vec<Option<Slice<'a>>>> {
        let all = |arena: &'a Arena| (0..arena.tensors().len()).map(|i| Some(arena.slice_at(i))).collect();
        let slices: Vec<_> = match self {
            Self::Slices(slices) => slices.clone(),
            Self::Arena(arena) => all(arena),
            Self::Subset(part) => all(part.arena),
        };
        if self.arena().is_some_and(|arena| !arena.gpu().same(gpu)) {
            return Err(Error::OtherGpu { what: "the arena" });
        }
        if slices.len() != tensors.len() {
            let what = if what == "parameter" { "parameters" } else { "gradients" };
            return Err(Error::Count { what, found: slices.len(), expected: tensors.len() });
        }
        let own = self.arena().map_or(&[][..], Arena::tensors);
        let differs = |(found, expected): &(&TensorSpec, &TensorSpec)| !found.same_values(expected);
        if let Some((found, expected)) = own.iter().zip(tensors).find(differs) {
            let text = |tensor: &TensorSpec| format!("{} {:?} of {}", tensor.name, tensor.shape, tensor.dtype);
            let (tensor, found, expected) = (expected.name.clone(), text(found), text(expected));
            return Err(Error::Shape { what: what.into(), tensor, found, expected });
        }
        for (slice, tensor) in slices.iter().zip(tensors) {
            slice.map_or(Ok(()), |slice| slice.check(what, tensor, usage))?;
        }
        Ok(slices)
    }

    /// Checks the slices of parameters in the same way; none may be missing.
    pub(crate) fn all_slices(
        &self,
        gpu: &Gpu,
        tensors: &[TensorSpec],
        usage: wgpu::BufferUsages,
    ) -> Result<Vec<Slice<'a>>> {
        let what = "parameter";
        let slices = self.slices(gpu, what, tensors, usage)?;
        let present = self.present();
        let given = |i: usize| slices[i].filter(|_| present.as_ref().is_none_or(|present| present[i]));
        let missing = |i: usize| Error::Slice { what, tensor: tensors[i].name.clone(), message: "is missing".into() };
        (0..tensors.len()).map(|i| given(i).ok_or_else(|| missing(i))).collect()
    }

    /// Which tensors are given; `None` for all.
    pub(crate) fn present(&self) -> Option<Vec<bool>> {
        match self {
            Self::Arena(_) => None,
            Self::Subset(part) => Some(part.present.clone()).filter(|present| present.contains(&false)),
            Self::Slices(slices) if slices.iter().all(Option::is_some) => None,
            Self::Slices(slices) => Some(slices.iter().map(Option::is_some).collect()),
        }
    }
}

/// The gradients of a step, and for which tensors there is one, which the step finds out once, when it begins.
#[derive(Clone, Debug)]
pub(crate) struct Grads<'a> {
    pub(crate) buffers: Buffers<'a>,
    /// `None` stands for all tensors.
    given: Option<Vec<bool>>,
}

impl<'a> Grads<'a> {
    /// Looks for which tensors the buffers hold a gradient.
    pub(crate) fn new(buffers: Buffers<'a>) -> Self {
        let given = buffers.present();
        Self { buffers, given }
    }

    /// The tensors that have a gradient; `None` stands for all.
    pub(crate) fn given(&self) -> Option<&[bool]> {
        self.given.as_deref()
    }

    /// Whether a tensor has a gradient.
    pub(crate) fn has(&self, tensor: usize) -> bool {
        self.given().is_none_or(|given| given.get(tensor) == Some(&true))
    }
}

impl<'a> From<&'a Arena> for Buffers<'a> {
    fn from(arena: &'a Arena) -> Self {
        Self::Arena(arena)
    }
}

impl<'a> From<&'a ArenaSubset<'a>> for Buffers<'a> {
    fn from(part: &'a ArenaSubset<'a>) -> Self {
        Self::Subset(part)
    }
}

impl<'a> From<&[Slice<'a>]> for Buffers<'a> {
    fn from(slices: &[Slice<'a>]) -> Self {
        Self::Slices(slices.iter().copied().map(Some).collect())
    }
}

impl<'a, const N: usize> From<&[Slice<'a>; N]> for Buffers<'a> {
    fn from(slices: &[Slice<'a>; N]) -> Self {
        slices.as_slice().into()
    }
}

impl<'a> From<&Vec<Slice<'a>>> for Buffers<'a> {
    fn from(slices: &Vec<Slice<'a>>) -> Self {
        slices.as_slice().into()
    }
}

impl<'a> From<&[Option<Slice<'a>>]> for Buffers<'a> {
    fn from(slices: &[Option<Slice<'a>>]) -> Self {
        Self::Slices(slices.to_vec())
    }
}

impl<'a, const N: usize> From<&[Option<Slice<'a>>; N]> for Buffers<'a> {
    fn from(slices: &[Option<Slice<'a>>; N]) -> Self {
        Self::Slices(slices.to_vec())
    }
}

impl<'a> From<&Vec<Option<Slice<'a>>>> for Buffers<'a> {
    fn from(slices: &Vec<Option<Slice<'a>>>) -> Self {
        Self::Slices(slices.clone())
    }
}
