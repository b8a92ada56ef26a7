//! Plans: which dispatches a step needs, over which buffers. Only arithmetic over sizes and limits may live here; it
//! knows no wgpu.
//!
//! A tensor is cut into chunks of a power of two of blocks; a workgroup takes one chunk, an entry of the chunk table.
//! Entries whose parameters, gradients and state lie within the device's binding limit of each other share a window:
//! one set of bindings, one dispatch a pass. Partial sums are added in a binary tree over the blocks of a tensor, so
//! where the cuts fall changes no bit. Passes over rows and columns go by tiles of matrices, whose size is a constant.

mod cut;
mod table;

pub use table::Dispatch;

use crate::error::{Error, Result, refuse};
use crate::lines::Lines;
use crate::tensor::{ALIGNMENT, Access, BLOCK, DType, TensorSpec};
use crate::words::{SUM_WORDS, TensorSums};
use cut::{cut, cut_lines, windows};
use table::Table;

/// Bytes of four elements in f32: what a lane of the vec4 kernel reads and writes.
const QUAD_BYTES: u64 = 16;

/// The limits that a plan keeps to.
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
    /// Bounds with chunks of so many blocks as wanted, or of as many as a binding holds of the state, which has so many
    /// slots an element.
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

/// Bytes that a block takes in the buffer where it is largest: the state, or parameters without state.
fn block_bytes(slots: u64) -> u64 {
    4 * BLOCK as u64 * slots.max(1)
}

/// A place in one of several buffers, which the caller numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which buffer.
    pub buffer: usize,
    /// The first byte.
    pub offset: u64,
}

/// Packs tensors of these sizes into pages, and returns where each tensor lies, and the pages' sizes.
///
/// # Errors
/// [`Error::TooLarge`] for a tensor larger than a page.
pub fn pack(
    tensors: &[TensorSpec],
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
    /// Elements; a tensor without any has no chunk.
    pub len: u64,
    /// Which pipeline it needs. Variants do not share a dispatch.
    pub variant: usize,
    /// How its parameters and gradients can be read.
    pub access: Access,
    /// Its parameters.
    pub param: Place,
    /// Its gradients; a move outside a step has none.
    pub grad: Option<Place>,
    /// How its gradients are stored, f32 where there are none. Formats do not share a dispatch.
    pub grad_format: DType,
    /// Its state, and the number of slots per element.
    pub state: Option<(Place, u64)>,
    /// Where its rule keeps numbers of rows and columns: the place at which there are, in this order, the numbers of
    /// its rows, those of its columns, and what elements see of its rows.
    pub lines: Option<(Place, Lines)>,
    /// Words of a partial result of its sums, 0 where it has no sums.
    pub partial_words: u64,
    /// Whether its rule has sums; else its partial results are of norms alone.
    pub sums: bool,
}

impl Item {
    /// What tensors that share a dispatch have in common.
    fn kind(&self) -> (usize, Access, DType) {
        (self.variant, self.access, self.grad_format)
    }
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

/// Entries that share bindings, and the dispatches over them: one, unless a limit of the device asks for more.
#[derive(Clone, Debug)]
pub struct Window {
    /// The pipeline's variant.
    pub variant: usize,
    /// How parameters and gradients are read.
    pub access: Access,
    /// How gradients are stored.
    pub grad_format: DType,
    /// Bound parameters.
    pub param: Option<Span>,
    /// Bound gradients.
    pub grad: Option<Span>,
    /// Bound state.
    pub state: Option<Span>,
    /// Bound numbers of rows and columns.
    pub lines: Option<Span>,
    /// Whether an entry ends within a vector of four.
    pub tails: bool,
    /// Whether four elements may lie in several rows of a matrix.
    pub crossings: bool,
    /// The dispatches over its entries.
    pub dispatches: Vec<Dispatch>,
}

/// Everything that a step's dispatches need, for one placement of parameters and gradients.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The windows over the tensors' chunks, in the order of the dispatches.
    pub windows: Vec<Window>,
    /// The windows over the tiles of tensors with lines.
    pub tiles: Vec<Window>,
    /// The windows over the lines of matrices that are larger than a tile.
    pub lines: Vec<Window>,
    /// For each variant that has sums, the dispatches over its tensors.
    pub finishes: Vec<(usize, Vec<Dispatch>)>,
    /// The dispatches over all tensors whose norms are measured.
    pub norms: Vec<Dispatch>,
    /// The table's words.
    pub table: Vec<u32>,
    /// Bytes of the table that a dispatch binds.
    pub table_span: u64,
    /// Words of partial results.
    pub partial_words: u64,
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

    let mut table = Table::new(limit, bounds.workgroups);
    let mut order: Vec<&Item> = items.iter().filter(|item| item.len > 0).collect();
    // Tensors of one buffer stand side by side, so that few windows hold them.
    order.sort_by_key(|item| (item.kind(), item.param.buffer, item.grad.map(|grad| grad.buffer)));
    let mut partial = partials;
    let mut plan = Plan {
        windows: vec![],
        tiles: vec![],
        lines: vec![],
        finishes: vec![],
        norms: vec![],
        table: vec![],
        table_span: 0,
        partial_words: 0,
    };
    for same in order.chunk_by(|a, b| a.kind() == b.kind()) {
        let mut chunks = Vec::new();
        for item in same {
            for first in (0..item.len).step_by(chunk_len as usize) {
                chunks.push(cut(item, first, chunk_len, &mut partial));
            }
        }
        plan.windows.extend(windows(&mut table, same[0], chunks, limit));
    }
    let mut share = partial;
    for same in order.chunk_by(|a, b| a.kind() == b.kind()) {
        let (mut tiles, mut lines) = (Vec::new(), Vec::new());
        for item in same {
            if let Some((place, found)) = item.lines {
                check_lines(&found, bounds.binding_bytes)?;
                cut_lines(item, place, found, &mut share, &mut tiles, &mut lines);
            }
        }
        plan.tiles.extend(windows(&mut table, same[0], tiles, limit));
        plan.lines.extend(windows(&mut table, same[0], lines, limit));
    }
    // Tensors come in the order in which their chunks took partial results.
    let mut first = partials;
    let sums = |item: &&Item| {
        let (partials, stride) = (item.len.div_ceil(chunk_len), item.partial_words);
        let sums = TensorSums { tensor: item.tensor as u64, len: item.len, partials, stride, partial: first };
        first += stride * partials;
        (item.variant, item.sums, sums)
    };
    let all: Vec<_> = order.iter().filter(|item| item.partial_words > 0).map(sums).collect();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let of_rule: Vec<_> = same.iter().filter(|sums| sums.1).map(|sums| sums.2).collect();
        if !of_rule.is_empty() {
            plan.finishes.push((same[0].0, table.push(&of_rule)));
        }
    }
    if order.iter().any(|item| item.partial_words > SUM_WORDS) {
        plan.norms = table.push(&all.iter().map(|sums| sums.2).collect::<Vec<_>>());
    }
    // Every dispatch binds the same number of bytes from its own offset.
    let windows = plan.windows.iter().chain(&plan.tiles).chain(&plan.lines);
    let finishes = plan.finishes.iter().flat_map(|finish| &finish.1).chain(&plan.norms);
    let dispatches = windows.flat_map(|window| &window.dispatches).chain(finishes);
    let (words, span) = table.finish(dispatches);
    (plan.table, plan.table_span) = (words, span);
    plan.partial_words = share - partials;
    Ok(plan)
}

/// Refuses a device whose bindings do not hold a tensor's lines, or a tile of it.
///
/// # Errors
/// [`Error::Limit`].
pub fn check_lines(lines: &Lines, binding_bytes: u64) -> Result<()> {
    let needed = lines.words().max(lines.reach()).saturating_mul(4).saturating_add(2 * ALIGNMENT);
    if binding_bytes < needed {
        return Err(Error::Limit { limit: "max_storage_buffer_binding_size", found: binding_bytes, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Chunk, ENTRY_WORDS, Entry, LinesOfMatrix, Tile};

    const BOUNDS: Bounds = Bounds { binding_bytes: 128 << 20, workgroups: 65_535, chunk_blocks: 8 };

    fn items(lens: &[u64], slots: u64) -> Vec<Item> {
        let tensors: Vec<_> = lens.iter().map(|&len| TensorSpec::f32(format!("t{len}"), [len as usize])).collect();
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
                grad_format: DType::F32,
                state: (slots > 0).then_some((states[tensor], slots)),
                lines: None,
                partial_words: SUM_WORDS,
                sums: true,
            })
            .collect()
    }

    /// The entries of a dispatch that ask for anything.
    fn entries<E: Entry>(plan: &Plan, dispatch: &Dispatch) -> Vec<E> {
        let start = dispatch.offset as usize / 4;
        let words = &plan.table[start..start + (dispatch.x * dispatch.y) as usize * ENTRY_WORDS];
        let entry = |words: &[u32]| E::read(words.try_into().unwrap());
        // The second field of all of them is the length.
        assert_eq!(E::FIELDS[1].0, "len");
        words.chunks(ENTRY_WORDS).filter(|words| words[1] > 0).map(entry).collect()
    }

    /// Every element of every tensor is in exactly one chunk, and each chunk lies within its window.
    fn check(plan: &Plan, items: &[Item], bounds: Bounds) {
        let mut seen: Vec<u64> = vec![0; items.len()];
        for window in &plan.windows {
            for span in [window.param, window.grad, window.state].into_iter().flatten() {
                assert!(span.size <= bounds.binding_bytes && span.offset % ALIGNMENT == 0, "{span:?}");
            }
            let param = window.param.unwrap();
            for dispatch in &window.dispatches {
                assert!(dispatch.x <= bounds.workgroups && dispatch.y <= bounds.workgroups);
                for chunk in entries::<Chunk>(plan, dispatch) {
                    let item = &items[chunk.tensor as usize];
                    let first = seen[item.tensor];
                    assert_eq!(param.offset + 4 * chunk.param, item.param.offset + 4 * first);
                    if let (Some(span), Some((place, slots))) = (window.state, item.state) {
                        assert_eq!(span.offset + 16 * chunk.state, place.offset + 4 * first * slots);
                    }
                    assert!(4 * (chunk.param + chunk.len) <= param.size);
                    if let (Some(span), Some(grad)) = (window.grad, item.grad) {
                        let size = item.grad_format.size_bytes();
                        assert_eq!(window.grad_format, item.grad_format);
                        assert_eq!(span.offset + size * chunk.grad, grad.offset + size * first);
                        assert!(size * (chunk.grad + chunk.len) <= span.size && span.size % 4 == 0, "{span:?}");
                    }
                    seen[item.tensor] += chunk.len;
                }
            }
        }
        for item in items {
            assert_eq!(seen[item.tensor], item.len, "tensor {}", item.tensor);
        }
    }

    /// As those of `items`, with rows and columns.
    fn matrices(shapes: &[[u64; 3]]) -> Vec<Item> {
        let lens: Vec<u64> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let mut place = Place { buffer: 0, offset: 0 };
        let mut items = items(&lens, 0);
        for (item, &[matrices, rows, columns]) in items.iter_mut().zip(shapes) {
            let lines = Lines { matrices, rows, columns };
            item.lines = Some((place, lines));
            place.offset += (4 * lines.words()).next_multiple_of(16);
        }
        items
    }

    #[test]
    fn tiles_cover_each_element_once_and_lines_each_row_and_column() {
        let shapes = [[1, 1, 1], [300, 3, 3], [3, 40, 31], [1, 3, 2100], [2, 34, 270], [1, 2500, 2], [1, 70, 300]];
        let mut items = matrices(&shapes);
        for (format, bounds) in [(DType::F32, BOUNDS), (DType::F16, Bounds::new(56 << 10, 7, 4, 0))] {
            items.iter_mut().for_each(|item| item.grad_format = format);
            items.iter_mut().filter(|_| format == DType::F16).for_each(|item| {
                item.access = Access::Scalar;
                item.grad.as_mut().unwrap().offset += 4;
            });
            let plan = plan(&items, bounds, 5).unwrap();
            check(&plan, &items, bounds);
            for window in plan.windows.iter().chain(&plan.tiles).chain(&plan.lines) {
                let spans = [window.param, window.lines];
                assert!(spans.iter().flatten().all(|span| span.size <= bounds.binding_bytes));
            }
            let mut seen: Vec<Vec<u32>> = items.iter().map(|item| vec![0; item.len as usize]).collect();
            for window in &plan.tiles {
                for tile in window.dispatches.iter().flat_map(|dispatch| entries::<Tile>(&plan, dispatch)) {
                    let item = &items[tile.tensor as usize];
                    let first = (window.param.unwrap().offset + 4 * tile.param - item.param.offset) / 4;
                    let (grad, size) = (window.grad.unwrap(), format.size_bytes());
                    assert_eq!(grad.offset + size * tile.grad, item.grad.unwrap().offset + size * first);
                    for i in 0..tile.len {
                        seen[item.tensor][(first + i / tile.width * tile.columns + i % tile.width) as usize] += 1;
                    }
                }
            }
            assert!(seen.iter().flatten().all(|&count| count == 1));
            let mut words: Vec<Vec<u32>> =
                items.iter().map(|item| vec![0; item.lines.unwrap().1.words() as usize]).collect();
            for window in &plan.lines {
                for some in window.dispatches.iter().flat_map(|dispatch| entries::<LinesOfMatrix>(&plan, dispatch)) {
                    let (place, lines) = items[some.tensor as usize].lines.unwrap();
                    let first = (window.lines.unwrap().offset + 4 * some.numbers - place.offset) / 4;
                    assert!(!lines.is_small());
                    let of_tensor = &mut words[some.tensor as usize];
                    (first..first + some.len).for_each(|word| of_tensor[word as usize] += 1);
                }
            }
            for (item, words) in items.iter().zip(words) {
                let lines = item.lines.unwrap().1;
                let [rows, columns] = lines.counts();
                let once = u32::from(!lines.is_small());
                assert!(words[..(rows + columns) as usize].iter().all(|&count| count == once), "{lines:?}");
            }
        }
    }

    #[test]
    fn lines_that_no_binding_holds_are_refused_with_their_numbers() {
        let error = plan(&matrices(&[[20_000, 1, 1]]), Bounds::new(64 << 10, 7, 4, 0), 0).unwrap_err();
        assert_eq!(error.to_string(), "the device's max_storage_buffer_binding_size is 65536, needed are 240512");
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
    fn formats_of_gradients_share_no_dispatch() {
        for (access, offset) in [(Access::Vec4, 8), (Access::Scalar, 4)] {
            let mut items = items(&[0, 1, 5, 1023, 1024, 1025, 70_001, 3, 20_000], 1);
            for item in &mut items[3..] {
                item.grad_format = DType::F16;
                item.access = access;
                item.grad.as_mut().unwrap().offset += offset;
            }
            let whole = plan(&items, BOUNDS, 0).unwrap();
            check(&whole, &items, BOUNDS);
            assert_eq!(whole.windows.len(), 2);
            let bounds = Bounds::new(64 << 10, 7, 8, 1);
            check(&plan(&items, bounds, 0).unwrap(), &items, bounds);
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
        let error = pack(&[TensorSpec::f32("w", [100])], "values", |_| 400, 256, 256).unwrap_err();
        assert_eq!(error.to_string(), "tensor w: its values take 400 bytes, a buffer holds at most 256");
    }
}
