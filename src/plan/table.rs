//! The chunk table's words, and the dispatches that walk over them. How tensors are cut is none of its business.

use std::ops::Range;

use super::Bounds;
use crate::words::{ENTRY_WORDS, Entry};

/// Bytes of an entry.
const ENTRY_BYTES: u64 = 4 * ENTRY_WORDS as u64;

/// How many entries there are from one that may stand at the start of a binding to the next: 256 bytes of them.
const STRIDE: u64 = 16;

/// One dispatch: workgroups in two dimensions over entries of the table, one entry a workgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The byte of the table that the binding starts at, a multiple of 256.
    pub offset: u32,
    /// The entries, counted from that byte.
    pub entries: Range<u32>,
    /// Workgroups in the first dimension.
    pub x: u32,
    /// Workgroups in the second dimension. Some of the last ones may find no entry.
    pub y: u32,
}

/// A table that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    words: Vec<u32>,
}

impl Table {
    /// Appends an entry.
    pub(super) fn push<E: Entry>(&mut self, entry: E) {
        self.words.extend(entry.words());
    }

    /// How many entries there are so far.
    pub(super) fn len(&self) -> usize {
        self.words.len() / ENTRY_WORDS
    }

    /// Returns the words, with as many zeros behind them as a binding that starts late reaches, and the bytes of a
    /// binding.
    pub(super) fn finish(self, bounds: Bounds) -> (Vec<u32>, u64) {
        let mut words = self.words;
        let (size, most) = (4 * words.len() as u64, span(bounds));
        if size > most {
            words.resize(words.len() + most as usize / 4, 0);
        }
        (words, size.min(most))
    }
}

/// The most bytes of the table that a binding holds.
fn span(bounds: Bounds) -> u64 {
    bounds.binding_bytes / (STRIDE * ENTRY_BYTES) * STRIDE * ENTRY_BYTES
}

/// The dispatches that walk over these entries of a table, and move so many bytes for each element.
pub(super) fn dispatches(entries: Range<usize>, table: &[u32], element_bytes: u64, bounds: Bounds) -> Vec<Dispatch> {
    let workgroups = u64::from(bounds.workgroups);
    let fits = 4 * table.len() as u64 <= span(bounds);
    let of_binding = if fits { u64::MAX } else { span(bounds) / ENTRY_BYTES - STRIDE };
    let most = of_binding.min(workgroups.pow(2));
    // The second word of every entry is its length.
    let bytes = |entry: u64| element_bytes * u64::from(table[entry as usize * ENTRY_WORDS + 1]);
    let (mut first, end) = (entries.start as u64, entries.end as u64);
    let mut dispatches = Vec::new();
    while first < end {
        let room = most.min(end - first);
        let mut sum = 0;
        let within = (first..first + room).take_while(|&entry| {
            sum += bytes(entry);
            sum <= bounds.dispatch_bytes
        });
        let count = (within.count() as u64).max(1);
        let y = count.div_ceil(workgroups);
        let from = if fits { 0 } else { first / STRIDE * STRIDE };
        dispatches.push(Dispatch {
            offset: (from * ENTRY_BYTES) as u32,
            entries: (first - from) as u32..(first + count - from) as u32,
            x: count.div_ceil(y) as u32,
            y: y as u32,
        });
        first += count;
    }
    dispatches
}
