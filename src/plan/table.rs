//! The chunk table's words, and the dispatches that walk over them. How tensors are cut is none of its business.

use crate::tensor::ALIGNMENT;
use crate::words::{ENTRY_WORDS, Entry};

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: u64 = 4 * ENTRY_WORDS as u64;

/// One dispatch: workgroups in two dimensions over entries of the table, one entry a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The first entry's byte in the table, a multiple of 256.
    pub offset: u32,
    /// Workgroups.
    pub x: u32,
    /// Workgroups.
    pub y: u32,
}

/// A table that grows.
pub(super) struct Table {
    words: Vec<u32>,
    /// Entries of a dispatch, at most.
    most: u64,
    workgroups: u64,
    /// Bytes of the largest dispatch's entries.
    span: u64,
}

impl Table {
    /// An empty table. A binding holds `binding_bytes`, a dispatch has at most `workgroups` in each dimension.
    pub(super) fn new(binding_bytes: u64, workgroups: u32) -> Self {
        let workgroups = u64::from(workgroups);
        let bound = (binding_bytes / ALIGNMENT * ALIGNMENT / ENTRY_BYTES).min(workgroups.pow(2));
        // A grid of two dimensions has up to one entry too many in each of its lines.
        Self { words: Vec::new(), most: (bound - bound.div_ceil(workgroups)).max(1), workgroups, span: 0 }
    }

    /// Appends entries, and returns the dispatches that walk over them.
    pub(super) fn push<E: Entry>(&mut self, entries: &[E]) -> Vec<Dispatch> {
        let mut dispatches = Vec::new();
        for entries in entries.chunks(self.most as usize) {
            self.words.resize(self.words.len().next_multiple_of(ALIGNMENT as usize / 4), 0);
            let offset = 4 * self.words.len() as u32;
            let count = entries.len() as u64;
            let y = count.div_ceil(self.workgroups);
            let x = count.div_ceil(y);
            self.words.extend(entries.iter().flat_map(|entry| entry.words()));
            // Workgroups beyond the last entry find entries without elements.
            self.words.resize(offset as usize / 4 + (x * y) as usize * ENTRY_WORDS, 0);
            self.span = self.span.max(x * y * ENTRY_BYTES);
            dispatches.push(Dispatch { offset, x: x as u32, y: y as u32 });
        }
        dispatches
    }

    /// The words, and the bytes that each of the dispatches binds from its own offset.
    pub(super) fn finish<'a>(mut self, dispatches: impl Iterator<Item = &'a Dispatch>) -> (Vec<u32>, u64) {
        let end = dispatches.map(|dispatch| u64::from(dispatch.offset) + self.span).max().unwrap_or(0);
        self.words.resize(end as usize / 4, 0);
        (self.words, self.span)
    }
}
