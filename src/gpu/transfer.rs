//! Values on their way between the host and the device, in parts, so that few bytes of them are there twice.

use super::{Gpu, Piece, Slice};
use crate::codecs::DType;
use crate::error::Result;

/// As many bytes go to the device or from it at once.
const PART_BYTES: u64 = 4 << 20;

/// Writes after as many bytes as this are handed to the device, which frees what holds them on the way.
#[cfg(not(target_arch = "wasm32"))]
const STAGED_BYTES: u64 = 16 << 20;

/// What is on its way to the device: bytes since the last submit for them, and that submit.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, Default)]
pub(super) struct Staged(std::sync::Mutex<(u64, Option<wgpu::SubmissionIndex>)>);

/// Ranges of a buffer that go over at once.
pub(crate) struct Part<'a> {
    pub(super) buffer: &'a wgpu::Buffer,
    pub(super) pieces: Vec<Piece>,
}

impl Part<'_> {
    pub(crate) fn size_bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, size)| size).sum()
    }
}

/// Cuts ranges of a buffer into parts.
pub(super) fn parts(buffer: &wgpu::Buffer, pieces: Vec<Piece>) -> Vec<Part<'_>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut room = 0;
    for (mut from, mut size) in pieces {
        while size > 0 {
            if room == 0 {
                parts.push(Part { buffer, pieces: vec![] });
                room = PART_BYTES;
            }
            let here = size.min(room);
            parts.last_mut().expect("one was pushed").pieces.push((from, here));
            (from, size, room) = (from + here, size - here, room - here);
        }
    }
    parts
}

/// Parts of a slice, in whole words, which is how wgpu copies.
pub(crate) fn parts_of(slice: Slice<'_>) -> Vec<Part<'_>> {
    parts(slice.buffer, vec![(slice.offset, slice.size.next_multiple_of(4))])
}

impl Gpu {
    /// Reads a part of a slice with so many values left, as f32.
    pub(crate) async fn read_values(&self, part: &Part<'_>, dtype: DType, left: u64, wait: bool) -> Result<Vec<f32>> {
        let mut bytes = self.read(part.buffer, &part.pieces, wait).await?;
        bytes.truncate(usize::try_from(left.saturating_mul(dtype.size_bytes())).unwrap_or(usize::MAX));
        Ok(dtype.decode(&bytes))
    }

    /// Writes a part, before any work that is not yet submitted. Bytes that are missing at its end are zero.
    pub(crate) fn write_part(&self, part: &Part<'_>, bytes: &[u8]) -> Result<()> {
        let mut bytes = std::borrow::Cow::Borrowed(bytes);
        if bytes.len() as u64 != part.size_bytes() {
            bytes.to_mut().resize(part.size_bytes() as usize, 0);
        }
        self.scoped_now(|| match part.pieces[..] {
            [(offset, _)] => self.queue().write_buffer(part.buffer, offset, &bytes),
            _ => self.write(part.buffer, &part.pieces, &bytes),
        })?;
        self.bound(bytes.len() as u64)
    }

    /// Writes all values of a slice, in parts.
    pub(crate) fn write_slice(&self, slice: Slice<'_>, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for part in parts_of(slice) {
            let (here, behind) = rest.split_at(rest.len().min(part.size_bytes() as usize));
            self.write_part(&part, here)?;
            rest = behind;
        }
        Ok(())
    }

    /// Counts bytes that were just written. When there are many, submits them and waits for those before, so that what
    /// wgpu holds of them stays bounded. A page cannot wait.
    #[cfg(not(target_arch = "wasm32"))]
    fn bound(&self, bytes: u64) -> Result<()> {
        let before = {
            let mut staged = self.0.staged.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            staged.0 += bytes;
            if staged.0 < STAGED_BYTES {
                return Ok(());
            }
            staged.0 = 0;
            let now = self.caught_now(|| self.queue().submit([]))?;
            staged.1.replace(now)
        };
        match before {
            Some(before) => {
                self.poll(wgpu::PollType::Wait { submission_index: Some(before), timeout: Some(self.deadline()) })
            }
            None => Ok(()),
        }
    }

    #[cfg(target_arch = "wasm32")]
    fn bound(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}
