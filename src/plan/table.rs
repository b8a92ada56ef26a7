//! The chunk table, and the dispatches that walk over them. How tensors are cut is none of its business.

use std::ops::Range;

use super::Bounds;
use crate::words::{ENTRY_WORDS, Entry};

/// Bytes of an entry.
const ENTRY_BYTES: u64 = 4 * ENTRY_WORDS as u64;

/// The word of every entry that holds how many elements it has.
const LEN: usize = 1;

/// How many entries there are from one that may stand at the start of a binding to the next: 256 bytes of them.
const STRIDE: u64 = 16;

/// One dispatch: workgroups in two dimensions over entries of the table, one entry a workgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The byte of the table that the binding starts at, a multiple of 256.
    pub offset: u64,
    /// The entries, counted from that byte.
    pub entries: Range<u32>,
    /// Workgroups in the first dimension.
    pub x: u32,
    /// Workgroups in the second dimension. Some of the last ones may find no entry.
    pub y: u32,
}

/// The chunk table. Chunks of one tensor differ by the same words from one to the next, so the table keeps runs of
/// such entries, and takes little memory for any number of elements.
#[derive(Clone, Debug, Default)]
pub struct Table {
    runs: Vec<Run>,
    len: usize,
    /// Zeros behind the entries, which a binding that starts late reaches.
    padding: usize,
}

/// Entries, each of which adds the same words to the one before it.
#[derive(Clone, Debug)]
struct Run {
    /// The place of the first entry in the table.
    at: usize,
    len: usize,
    first: [u32; ENTRY_WORDS],
    step: [u32; ENTRY_WORDS],
}

impl Run {
    fn words(&self, i: usize) -> [u32; ENTRY_WORDS] {
        std::array::from_fn(|word| self.first[word].wrapping_add(self.step[word].wrapping_mul(i as u32)))
    }
}

/// What leads from one entry to the next.
fn step(from: &[u32; ENTRY_WORDS], to: &[u32; ENTRY_WORDS]) -> [u32; ENTRY_WORDS] {
    std::array::from_fn(|word| to[word].wrapping_sub(from[word]))
}

impl Table {
    /// Appends an entry.
    pub(super) fn push<E: Entry>(&mut self, entry: E) {
        let words = entry.words();
        let at = self.len;
        self.len += 1;
        if let Some(last) = self.runs.last_mut() {
            let step = step(&last.words(last.len - 1), &words);
            if last.len == 1 || last.step == step {
                (last.step, last.len) = (step, last.len + 1);
                return;
            }
        }
        self.runs.push(Run { at, len: 1, first: words, step: [0; ENTRY_WORDS] });
    }

    /// Appends so many entries, of which these are the first two; each of the others differs as much from the one
    /// before it as the second does from the first.
    pub(super) fn push_evenly<E: Entry>(&mut self, [first, second]: [E; 2], len: usize) {
        let first = first.words();
        let step = step(&first, &second.words());
        self.runs.extend((len > 0).then_some(Run { at: self.len, len, first, step }));
        self.len += len;
    }

    /// How many entries there are so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends as many zeros as a binding that starts late reaches, and returns the bytes of a binding.
    pub(super) fn finish(&mut self, bounds: Bounds) -> u64 {
        let (size, most) = (self.size_bytes(), span(bounds));
        if size > most {
            self.padding = most as usize / 4;
        }
        size.min(most)
    }

    /// The table's bytes on the device.
    pub fn size_bytes(&self) -> u64 {
        ENTRY_BYTES * self.len as u64 + 4 * self.padding as u64
    }

    /// The table's words on the device.
    pub fn words(&self) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.size_bytes() as usize / 4);
        self.runs.iter().for_each(|run| (0..run.len).for_each(|i| words.extend(run.words(i))));
        words.resize(words.len() + self.padding, 0);
        words
    }

    /// How many of these entries have at most so many elements together.
    pub(super) fn count_within(&self, entries: Range<usize>, elements: u64) -> usize {
        let (mut at, mut left) = (entries.start, elements);
        let first = self.runs.partition_point(|run| run.at + run.len <= at);
        for run in self.runs[first..].iter().take_while(|run| run.at < entries.end) {
            let end = entries.end.min(run.at + run.len);
            while at < end {
                let len = u64::from(run.words(at - run.at)[LEN]).max(1);
                // Entries of equal length are counted at once.
                let same = if run.step[LEN] == 0 { end - at } else { 1 };
                let fitting = same.min(usize::try_from(left / len).unwrap_or(usize::MAX));
                at += fitting;
                left -= fitting as u64 * len;
                if fitting < same {
                    return at - entries.start;
                }
            }
        }
        at - entries.start
    }
}

/// The most bytes of the table that a binding holds.
fn span(bounds: Bounds) -> u64 {
    bounds.binding_bytes / (STRIDE * ENTRY_BYTES) * STRIDE * ENTRY_BYTES
}

/// The dispatches that walk over these entries of a table, of which a workgroup takes so many, and move so many bytes
/// for each element.
pub(super) fn dispatches(
    entries: Range<usize>,
    of_group: u64,
    table: &Table,
    element_bytes: u64,
    bounds: Bounds,
) -> Vec<Dispatch> {
    let workgroups = u64::from(bounds.workgroups);
    let fits = table.size_bytes() <= span(bounds);
    let of_binding = if fits { u64::MAX } else { span(bounds) / ENTRY_BYTES - STRIDE };
    let most = of_binding.min(workgroups.pow(2));
    let elements = bounds.dispatch_bytes / element_bytes.max(1);
    let (mut first, end) = (entries.start as u64, entries.end as u64);
    let mut dispatches = Vec::new();
    while first < end {
        let some = first as usize..(first + most.min(end - first)) as usize;
        let count = table.count_within(some, elements).max(1) as u64;
        let groups = count.div_ceil(of_group);
        let y = groups.div_ceil(workgroups);
        let from = if fits { 0 } else { first / STRIDE * STRIDE };
        dispatches.push(Dispatch {
            offset: from * ENTRY_BYTES,
            entries: (first - from) as u32..(first + count - from) as u32,
            x: groups.div_ceil(y) as u32,
            y: y as u32,
        });
        first += count;
    }
    dispatches
}
