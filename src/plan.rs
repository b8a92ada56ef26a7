//! Chunks, windows, tables: pure arithmetic over sizes and limits. Knows no wgpu.
//!
//! A tensor is cut into chunks of a power of two of blocks; a workgroup takes one chunk, a row of the table. Rows whose
//! parameters, gradients and state lie within the device's binding limit of each other share a window: one set of
//! bindings, one dispatch a pass. Partial sums are added in a binary tree over the blocks of a tensor, so where the
//! cuts fall changes no bit.

use crate::error::{Error, Result, refuse};
use crate::format::{ALIGNMENT, Access, BLOCK, Tensor};

/// Words of a row of the table: tensor, len, param, grad, state, partial, and two that are free.
pub const ROW_WORDS: usize = 8;

/// Bytes of a row.
const ROW_BYTES: u64 = 4 * ROW_WORDS as u64;

/// Bytes of four elements: what a lane of the vec4 kernel reads and writes.
const QUAD_BYTES: u64 = 16;

/// What of a device's limits a plan needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `max_storage_buffer_binding_size`.
    pub binding_bytes: u64,
    /// `max_compute_workgroups_per_dimension`.
    pub workgroups: u32,
    /// Blocks of a chunk, a power of two up to 8.
    pub chunk_blocks: u32,
}

impl Bounds {
    /// Bounds whose chunk is the one wanted, or the largest that a binding holds with so many slots per element.
    pub fn new(binding_bytes: u64, workgroups: u32, wanted_blocks: u32, slots_max: u64) -> Self {
        let fitting = (binding_bytes.saturating_sub(ALIGNMENT) / block_bytes(slots_max)).max(1);
        let chunk_blocks = wanted_blocks.min(1 << fitting.min(8).ilog2());
        Self { binding_bytes, workgroups, chunk_blocks }
    }

    /// Elements of a chunk.
    pub fn chunk_len(&self) -> u64 {
        u64::from(self.chunk_blocks) * BLOCK as u64
    }
}

/// Bytes of a block in the buffer that holds most of it.
fn block_bytes(slots: u64) -> u64 {
    4 * BLOCK as u64 * slots.max(1)
}

/// Bytes in a buffer; buffers are counted by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which buffer.
    pub buffer: usize,
    /// The first byte.
    pub offset: u64,
}

/// Packs tensors of these sizes into pages: where each lies, and the pages' sizes.
///
/// # Errors
/// [`Error::TooLarge`] for a tensor larger than a page.
pub fn pack(
    tensors: &[Tensor],
    what: &'static str,
    size_bytes: impl Fn(usize) -> u64,
    align: u64,
    page_bytes: u64,
) -> Result<(Vec<Place>, Vec<u64>)> {
    let mut pages: Vec<u64> = Vec::new();
    let mut places = Vec::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        let size_bytes = size_bytes(i);
        if size_bytes > page_bytes {
            return Err(Error::TooLarge { tensor: tensor.name.clone(), what, size_bytes, page_bytes });
        }
        let start = pages.last().map_or(0, |used| used.next_multiple_of(align.max(1)));
        if pages.is_empty() || start + size_bytes > page_bytes {
            pages.push(size_bytes);
            places.push(Place { buffer: pages.len() - 1, offset: 0 });
        } else {
            let page = pages.len() - 1;
            pages[page] = start + size_bytes;
            places.push(Place { buffer: page, offset: start });
        }
    }
    Ok((places, pages))
}

/// Elements of a tensor with the padding of its last block, saturating.
pub fn padded(len_elements: u64) -> u64 {
    len_elements.checked_next_multiple_of(4).unwrap_or(u64::MAX)
}

/// One tensor to be stepped.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Its place in the list.
    pub tensor: usize,
    /// Elements; none means no rows.
    pub len: u64,
    /// Which pipeline it needs. Variants do not share a dispatch.
    pub variant: usize,
    /// How it can be read.
    pub access: Access,
    /// Its parameters.
    pub param: Place,
    /// Its gradients; a look-ahead has none.
    pub grad: Option<Place>,
    /// Its state, and the number of slots per element.
    pub state: Option<(Place, u64)>,
    /// Whether its sums need partial results.
    pub sums: bool,
}

/// A range of a buffer that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which buffer.
    pub buffer: usize,
    /// The first byte, a multiple of 256.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// One dispatch: workgroups in two dimensions over rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The first row's byte in the table, a multiple of 256.
    pub offset: u32,
    /// Workgroups.
    pub x: u32,
    /// Workgroups.
    pub y: u32,
}

/// Rows that share bindings, and the dispatches over them: one, unless a limit of the device asks for more.
#[derive(Clone, Debug)]
pub struct Window {
    /// The pipeline's variant.
    pub variant: usize,
    /// How parameters and gradients are read.
    pub access: Access,
    /// Bound parameters.
    pub param: Span,
    /// Bound gradients.
    pub grad: Option<Span>,
    /// Bound state.
    pub state: Option<Span>,
    /// Whether a row ends within a vector of four.
    pub tails: bool,
    /// The walks over its rows.
    pub dispatches: Vec<Dispatch>,
}

/// Everything that a step's dispatches need, for one placement of parameters and gradients.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of the dispatches.
    pub windows: Vec<Window>,
    /// Per variant that has sums: the walks over its tensors.
    pub finishes: Vec<(usize, Vec<Dispatch>)>,
    /// The table's words.
    pub table: Vec<u32>,
    /// Bytes of the table that a dispatch binds.
    pub table_span: u64,
    /// Words of partial results.
    pub partial_words: u64,
}

struct Table {
    words: Vec<u32>,
    rows_max: u64,
    workgroups: u64,
    span: u64,
}

impl Table {
    /// Appends rows and the dispatches that walk over them.
    fn push(&mut self, rows: &[[u32; ROW_WORDS]]) -> Vec<Dispatch> {
        let mut dispatches = Vec::new();
        for rows in rows.chunks(self.rows_max as usize) {
            self.words.resize(self.words.len().next_multiple_of(ALIGNMENT as usize / 4), 0);
            let offset = 4 * self.words.len() as u32;
            let count = rows.len() as u64;
            let y = count.div_ceil(self.workgroups);
            let x = count.div_ceil(y);
            self.words.extend(rows.as_flattened());
            // Workgroups beyond the last row find rows without elements.
            self.words.resize(offset as usize / 4 + (x * y) as usize * ROW_WORDS, 0);
            self.span = self.span.max(x * y * ROW_BYTES);
            dispatches.push(Dispatch { offset, x: x as u32, y: y as u32 });
        }
        dispatches
    }
}

/// Bytes `[start, end)` of one kind that the rows of a window reach.
#[derive(Clone, Copy)]
struct Reach {
    buffer: usize,
    start: u64,
    end: u64,
}

impl Reach {
    fn join(self, other: Self, limit: u64) -> Option<Self> {
        let joined = Self { start: self.start.min(other.start), end: self.end.max(other.end), ..self };
        let first = joined.start / ALIGNMENT * ALIGNMENT;
        (self.buffer == other.buffer && joined.end - first <= limit).then_some(joined)
    }

    fn span(self) -> Span {
        let offset = self.start / ALIGNMENT * ALIGNMENT;
        Span { buffer: self.buffer, offset, size: self.end - offset }
    }
}

/// A chunk before its window is known: bytes are counted from the buffers' starts.
struct Chunk {
    tensor: usize,
    len: u64,
    partial: u64,
    reach: [Option<Reach>; 3],
}

/// Joins the reaches of a window with those of a chunk.
fn join(window: [Option<Reach>; 3], chunk: [Option<Reach>; 3], limit: u64) -> Option<[Option<Reach>; 3]> {
    let mut joined = [None; 3];
    for (joined, (a, b)) in joined.iter_mut().zip(window.into_iter().zip(chunk)) {
        *joined = match (a, b) {
            (Some(a), Some(b)) => Some(a.join(b, limit)?),
            (None, None) => None,
            _ => return None,
        };
    }
    Some(joined)
}

/// Plans a step over these tensors. `partials` is the first word of partial results in the scratch buffer.
///
/// # Errors
/// [`Error::Limit`] where a binding does not hold a single block, [`Error::Field`] for bounds of 0.
pub fn plan(items: &[Item], bounds: Bounds, partials: u64) -> Result<Plan> {
    if ![1, 2, 4, 8].contains(&bounds.chunk_blocks) {
        return refuse("chunk_blocks", bounds.chunk_blocks, "1, 2, 4 or 8");
    }
    if bounds.workgroups == 0 {
        return refuse("workgroups", 0, "at least 1");
    }
    let limit = bounds.binding_bytes / QUAD_BYTES * QUAD_BYTES;
    let slots_max = items.iter().filter_map(|item| item.state).map(|(_, slots)| slots).max().unwrap_or(0);
    // A chunk's subtree of sums is whole only where the chunk starts at a multiple of its own length.
    let needed = u64::from(bounds.chunk_blocks) * block_bytes(slots_max) + ALIGNMENT;
    if limit < needed {
        return Err(Error::Limit { limit: "max_storage_buffer_binding_size", found: bounds.binding_bytes, needed });
    }
    let chunk_len = bounds.chunk_len();

    let rows_bound = (limit / ALIGNMENT * ALIGNMENT / ROW_BYTES).min(u64::from(bounds.workgroups).pow(2));
    let mut table = Table {
        words: Vec::new(),
        // A grid of two dimensions has up to one row too many in each of its lines.
        rows_max: (rows_bound - rows_bound.div_ceil(u64::from(bounds.workgroups))).max(1),
        workgroups: u64::from(bounds.workgroups),
        span: 0,
    };
    let mut order: Vec<&Item> = items.iter().filter(|item| item.len > 0).collect();
    // Those of one buffer side by side, so that few windows hold them.
    order.sort_by_key(|item| (item.variant, item.access, item.param.buffer, item.grad.map(|grad| grad.buffer)));
    let mut partial = partials;
    let mut plan = Plan { windows: vec![], finishes: vec![], table: vec![], table_span: 0, partial_words: 0 };
    for same in order.chunk_by(|a, b| (a.variant, a.access) == (b.variant, b.access)) {
        let mut window: Vec<Chunk> = Vec::new();
        let mut reach = [None; 3];
        for item in same {
            let chunks = item.len.div_ceil(chunk_len);
            for chunk in 0..chunks {
                let chunk = cut(item, chunk * chunk_len, chunk_len, &mut partial);
                match join(reach, chunk.reach, limit) {
                    Some(joined) if !window.is_empty() => reach = joined,
                    _ => {
                        close(&mut plan, &mut table, same[0], &window, reach);
                        window.clear();
                        reach = chunk.reach;
                    }
                }
                window.push(chunk);
            }
        }
        close(&mut plan, &mut table, same[0], &window, reach);
    }
    let mut first = partials;
    for same in order.chunk_by(|a, b| a.variant == b.variant).filter(|same| same[0].sums) {
        let mut rows = Vec::new();
        for item in same {
            let count = item.len.div_ceil(chunk_len);
            rows.push([item.tensor as u32, item.len as u32, count as u32, 0, 0, first as u32, 0, 0]);
            first += 2 * count;
        }
        let dispatches = table.push(&rows);
        plan.finishes.push((same[0].variant, dispatches));
    }
    // Every dispatch binds the same number of bytes from its own offset.
    let last = plan.windows.iter().flat_map(|window| &window.dispatches).chain(plan.finishes.iter().flat_map(|f| &f.1));
    let end = last.map(|dispatch| u64::from(dispatch.offset) + table.span).max().unwrap_or(0);
    table.words.resize(end as usize / 4, 0);
    plan.table = table.words;
    plan.table_span = table.span;
    plan.partial_words = partial - partials;
    Ok(plan)
}

fn cut(item: &Item, first: u64, chunk_len: u64, partial: &mut u64) -> Chunk {
    let len = chunk_len.min(item.len - first);
    let owned = match item.access {
        Access::Vec4 => padded(len),
        Access::Scalar => len,
    };
    let values = |place: Place| {
        let start = place.offset + 4 * first;
        Reach { buffer: place.buffer, start, end: start + 4 * owned }
    };
    let state = item.state.map(|(place, slots)| {
        let start = place.offset + 4 * first * slots;
        Reach { buffer: place.buffer, start, end: start + 4 * padded(len) * slots }
    });
    let chunk = Chunk {
        tensor: item.tensor,
        len,
        partial: *partial,
        reach: [Some(values(item.param)), item.grad.map(values), state],
    };
    *partial += if item.sums { 2 } else { 0 };
    chunk
}

fn close(plan: &mut Plan, table: &mut Table, like: &Item, window: &[Chunk], reach: [Option<Reach>; 3]) {
    if window.is_empty() {
        return;
    }
    let [param, grad, state] = reach.map(|reach| reach.map(Reach::span));
    let from = |reach: Option<Reach>, span: Option<Span>, unit: u64| match (reach, span) {
        (Some(reach), Some(span)) => ((reach.start - span.offset) / unit) as u32,
        _ => 0,
    };
    let rows: Vec<_> = window
        .iter()
        .map(|chunk| {
            let [p, g, s] = chunk.reach;
            [
                chunk.tensor as u32,
                chunk.len as u32,
                from(p, param, 4),
                from(g, grad, 4),
                from(s, state, QUAD_BYTES),
                chunk.partial as u32,
                0,
                0,
            ]
        })
        .collect();
    let dispatches = table.push(&rows);
    let param = param.expect("every item has parameters");
    let tails = window.iter().any(|chunk| chunk.len % 4 != 0);
    plan.windows.push(Window { variant: like.variant, access: like.access, param, grad, state, tails, dispatches });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { binding_bytes: 128 << 20, workgroups: 65_535, chunk_blocks: 8 };

    fn items(lens: &[u64], slots: u64) -> Vec<Item> {
        let tensors: Vec<_> = lens.iter().map(|&len| Tensor::f32(format!("t{len}"), [len as usize])).collect();
        let (params, _) = pack(&tensors, "values", |i| 4 * lens[i], 256, u64::MAX).unwrap();
        let (states, _) = pack(&tensors, "state", |i| 4 * slots * padded(lens[i]), 16, u64::MAX).unwrap();
        (0..lens.len())
            .map(|tensor| Item {
                tensor,
                len: lens[tensor],
                variant: 0,
                access: Access::Vec4,
                param: params[tensor],
                grad: Some(Place { buffer: 1, ..params[tensor] }),
                state: (slots > 0).then_some((states[tensor], slots)),
                sums: true,
            })
            .collect()
    }

    /// Every element of every tensor is in exactly one row, and each row lies within its window.
    fn check(plan: &Plan, items: &[Item], bounds: Bounds) {
        let mut seen: Vec<u64> = vec![0; items.len()];
        for window in &plan.windows {
            for span in [Some(window.param), window.grad, window.state].into_iter().flatten() {
                assert!(span.size <= bounds.binding_bytes && span.offset % ALIGNMENT == 0, "{span:?}");
            }
            for dispatch in &window.dispatches {
                assert!(dispatch.x <= bounds.workgroups && dispatch.y <= bounds.workgroups);
                let start = dispatch.offset as usize / 4;
                let end = start + (dispatch.x * dispatch.y) as usize * ROW_WORDS;
                for row in plan.table[start..end].chunks(ROW_WORDS).filter(|row| row[1] > 0) {
                    let item = &items[row[0] as usize];
                    let first = seen[item.tensor];
                    assert_eq!(window.param.offset + 4 * u64::from(row[2]), item.param.offset + 4 * first);
                    if let (Some(span), Some((place, slots))) = (window.state, item.state) {
                        assert_eq!(span.offset + 16 * u64::from(row[4]), place.offset + 4 * first * slots);
                    }
                    assert!(4 * u64::from(row[2] + row[1]) <= window.param.size);
                    seen[item.tensor] += u64::from(row[1]);
                }
            }
        }
        for item in items {
            assert_eq!(seen[item.tensor], item.len, "tensor {}", item.tensor);
        }
    }

    #[test]
    fn a_thousand_tensors_in_one_pair_of_arenas_are_one_dispatch() {
        let items = items(&[1024; 1000], 2);
        let plan = plan(&items, BOUNDS, 0).unwrap();
        check(&plan, &items, BOUNDS);
        assert_eq!(plan.windows.len(), 1);
        assert_eq!(plan.windows[0].dispatches, [Dispatch { offset: 0, x: 1000, y: 1 }]);
    }

    #[test]
    fn small_limits_make_more_windows_and_dispatches() {
        for slots in 0..=3 {
            let bounds = Bounds::new(64 << 10, 7, 8, slots);
            let items = items(&[0, 1, 5, 1023, 1024, 1025, 70_001, 3], slots);
            let plan = plan(&items, bounds, 6).unwrap();
            check(&plan, &items, bounds);
            assert!(plan.windows.len() > 4);
            assert_eq!(plan.finishes.len(), 1);
        }
    }

    #[test]
    fn more_than_65535_workgroups_take_a_second_dimension() {
        let items = items(&[1; 70_000], 1);
        let plan = plan(&items, BOUNDS, 0).unwrap();
        check(&plan, &items, BOUNDS);
        assert_eq!(plan.windows[0].dispatches, [Dispatch { offset: 0, x: 35_000, y: 2 }]);
    }

    #[test]
    fn a_grid_and_its_padding_fit_the_binding() {
        let bounds = Bounds { binding_bytes: 64 << 10, workgroups: 100, chunk_blocks: 1 };
        let items = items(&[1; 5000], 1);
        let plan = plan(&items, bounds, 0).unwrap();
        check(&plan, &items, bounds);
        assert!(plan.table_span <= bounds.binding_bytes, "{}", plan.table_span);
    }

    #[test]
    fn elements_beyond_32_bits_of_bytes_are_reached() {
        let items = items(&[600_000_000, 600_000_000], 2);
        let bounds = Bounds::new((1 << 31) - 256, 65_535, 8, 2);
        let plan = plan(&items, bounds, 0).unwrap();
        check(&plan, &items, bounds);
        assert!(plan.windows.len() >= 5, "9.6 GB of state in windows below 2 GiB: {}", plan.windows.len());
    }

    #[test]
    fn a_binding_smaller_than_a_block_is_refused_with_its_numbers() {
        let bounds = Bounds::new(4096, 65_535, 8, 2);
        let error = plan(&items(&[5], 2), bounds, 0).unwrap_err();
        assert_eq!(error.to_string(), "the device's max_storage_buffer_binding_size is 4096, needed are 8448");
    }

    #[test]
    fn a_tensor_larger_than_a_page_is_refused_with_both_sizes() {
        let error = pack(&[Tensor::f32("w", [100])], "values", |_| 400, 256, 256).unwrap_err();
        assert_eq!(error.to_string(), "tensor w: its values take 400 bytes, a buffer holds at most 256");
    }
}
