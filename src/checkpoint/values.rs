//! The values of a parameter or a slot: in memory, or in a file that was checked.

use std::borrow::Cow;

#[cfg(not(target_arch = "wasm32"))]
use super::wrong;
use crate::error::Result;
use crate::parts::Real;

/// As many bytes of values are taken from one place to another at once, so that memory does not hold them twice.
pub(crate) const PART_BYTES: usize = 4 << 20;

/// A parameter or a slot.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// Values of a tensor, in the precision that they were saved from.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    #[cfg(not(target_arch = "wasm32"))]
    Stored(super::file::Stored),
}

/// What the values are numbers of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    F32,
    F64,
}

impl Number {
    /// The number whose name in a file this is.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::F32, Self::F64].into_iter().find(|number| number.name() == name)
    }

    /// Its name in a file.
    pub(super) fn name(self) -> &'static str {
        if self == Self::F32 { "F32" } else { "F64" }
    }

    /// Its name in errors.
    pub(super) fn text(self) -> &'static str {
        if self == Self::F32 { "f32" } else { "f64" }
    }

    pub(super) fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 8 }
    }

    /// The number that `F` is.
    pub(super) fn of<F: Real>() -> Self {
        if size_of::<F>() == 4 { Self::F32 } else { Self::F64 }
    }
}

impl Values {
    /// Takes over values in the precision that they have.
    pub(crate) fn of<F: Real>(values: impl Iterator<Item = F>) -> Self {
        match Number::of::<F>() {
            Number::F32 => Self::F32(values.map(|value| value.f64() as f32).collect()),
            Number::F64 => Self::F64(values.map(Real::f64).collect()),
        }
    }

    /// The values that these bytes hold, as many as there are whole ones.
    pub(super) fn parse(number: Number, bytes: &[u8]) -> Self {
        let whole = &bytes[..bytes.len() / number.bytes() * number.bytes()];
        match number {
            Number::F32 => Self::F32(bytemuck::pod_collect_to_vec(whole)),
            Number::F64 => Self::F64(bytemuck::pod_collect_to_vec(whole)),
        }
    }

    pub(super) fn number(&self) -> Number {
        match self {
            Self::F32(_) => Number::F32,
            Self::F64(_) => Number::F64,
            #[cfg(not(target_arch = "wasm32"))]
            Self::Stored(stored) => stored.number,
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::F32(values) => 4 * values.len() as u64,
            Self::F64(values) => 8 * values.len() as u64,
            #[cfg(not(target_arch = "wasm32"))]
            Self::Stored(stored) => stored.size_bytes,
        }
    }

    /// All values, as numbers of the type that they were saved from.
    pub(super) fn all<F: Real>(&self) -> Result<Vec<F>> {
        let mut values = Vec::with_capacity(self.size_bytes() as usize / size_of::<F>());
        self.each_part(|part: Vec<F>| {
            values.extend(part);
            Ok(())
        })?;
        Ok(values)
    }

    /// Takes the values in parts, as numbers of the type that they were saved from.
    pub(super) fn each_part<F: Real>(&self, mut take: impl FnMut(Vec<F>) -> Result<()>) -> Result<()> {
        let mut reader = self.reader();
        while reader.rest() > 0 {
            take(match Self::parse(self.number(), &reader.take(PART_BYTES)?) {
                Self::F32(part) => part.into_iter().map(|value| F::of(f64::from(value))).collect(),
                Self::F64(part) => part.into_iter().map(F::of).collect(),
                #[cfg(not(target_arch = "wasm32"))]
                Self::Stored(_) => unreachable!("what was parsed is in memory"),
            })?;
        }
        Ok(())
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            values: self,
            at: 0,
            #[cfg(not(target_arch = "wasm32"))]
            sum: super::bytes::CRC32C.digest(),
        }
    }
}

/// Takes values from their beginning to their end.
pub(crate) struct Reader<'a> {
    values: &'a Values,
    at: u64,
    /// Of what was taken from a file.
    #[cfg(not(target_arch = "wasm32"))]
    sum: super::bytes::Sum,
}

impl<'a> Reader<'a> {
    /// How many bytes are still there.
    pub(crate) fn rest(&self) -> u64 {
        self.values.size_bytes() - self.at
    }

    /// The next bytes, at most this many.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error) where the file no longer holds what it held when it was checked.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Cow<'a, [u8]>> {
        let (from, bytes) = (self.at, self.rest().min(bytes as u64));
        self.at += bytes;
        let range = from as usize..self.at as usize;
        Ok(match self.values {
            Values::F32(values) => Cow::Borrowed(&bytemuck::cast_slice(values)[range]),
            Values::F64(values) => Cow::Borrowed(&bytemuck::cast_slice(values)[range]),
            #[cfg(not(target_arch = "wasm32"))]
            Values::Stored(stored) => {
                let part = stored.read(from, bytes as usize).map_err(|error| wrong("file", error))?;
                self.sum.update(&part);
                if self.rest() == 0 && stored.sum != self.sum.clone().finalize() {
                    return Err(wrong("file", "has changed since it was checked"));
                }
                Cow::Owned(part)
            }
        })
    }
}
