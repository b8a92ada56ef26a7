//! Chunks, windows, tables: pure arithmetic over sizes and limits. Knows no wgpu.
//!
//! A tensor is cut into chunks of a power of two of blocks; a workgroup takes one chunk, a row of the table. Rows whose
//! parameters, gradients and state lie within the device's binding limit of each other share a window: one set of
//! bindings, one dispatch a pass. Partial sums are added in a binary tree over the blocks of a tensor, so where the
//! cuts fall changes no bit. Passes over rows and columns go by tiles of matrices, whose size is a constant.

use std::ops::Range;

use crate::error::{Error, Result, refuse};
use crate::lines::Lines;
use crate::tensor::{ALIGNMENT, Access, BLOCK, DType, TensorSpec};

/// Words of a row of the table: `Row` in `shaders/skeletons/common.wgsl`.
pub const ROW_WORDS: usize = 12;

/// Words of a partial result of a rule's sums.
pub const SUM_WORDS: u64 = 2;

/// Columns that a workgroup finishes.
const PIECE: u64 = 256;

/// Bytes of a row.
const ROW_BYTES: u64 = 4 * ROW_WORDS as u64;

/// Bytes of four elements in f32: what a lane of the vec4 kernel reads and writes.
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
    /// How gradients are stored. Formats do not share a dispatch: f32 where there are none.
    pub grad_format: DType,
    /// Its state, and the number of slots per element.
    pub state: Option<(Place, u64)>,
    /// The numbers of its rows, of its columns, and what is seen of its rows, in this order; where its rule has any.
    pub lines: Option<(Place, Lines)>,
    /// Words of a partial result of its sums; 0 without.
    pub partial_words: u64,
    /// Whether its own sums are among them, not only norms.
    pub sums: bool,
}

impl Item {
    /// What those that share a dispatch have in common.
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
    /// Whether a row ends within a vector of four.
    pub tails: bool,
    /// Whether four elements may lie in several rows of a matrix.
    pub crossings: bool,
    /// The walks over its rows.
    pub dispatches: Vec<Dispatch>,
}

/// Everything that a step's dispatches need, for one placement of parameters and gradients.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of the dispatches.
    pub windows: Vec<Window>,
    /// Of the tiles of tensors with lines.
    pub tiles: Vec<Window>,
    /// Of their lines, where matrices are more than a tile.
    pub lines: Vec<Window>,
    /// Per variant that has sums: the walks over its tensors.
    pub finishes: Vec<(usize, Vec<Dispatch>)>,
    /// The walks over all tensors whose norms are measured.
    pub norms: Vec<Dispatch>,
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

/// Bytes of parameters, gradients, state and lines.
type Reaches = [Option<Reach>; 4];

/// A row of the table before its window is known: its offsets are counted from where its bytes start.
struct Chunk {
    row: [u64; ROW_WORDS],
    /// Which words of the row are offsets into the lines.
    lines: Range<usize>,
    reach: Reaches,
}

/// Joins the reaches of a window with those of a chunk.
fn join(window: Reaches, chunk: Reaches, limit: u64) -> Option<Reaches> {
    let mut joined = [None; 4];
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
    // In the order in which chunks took their partials.
    let mut first = partials;
    let row = |item: &&Item| {
        let count = item.len.div_ceil(chunk_len);
        let words = item.partial_words;
        let row = [item.tensor as u64, item.len, count, words, 0, first, 0, 0, 0, 0, 0, 0];
        first += words * count;
        (item.variant, item.sums, row.map(|word| word as u32))
    };
    let rows: Vec<_> = order.iter().filter(|item| item.partial_words > 0).map(row).collect();
    for same in rows.chunk_by(|a, b| a.0 == b.0) {
        let of_sums: Vec<_> = same.iter().filter(|row| row.1).map(|row| row.2).collect();
        if !of_sums.is_empty() {
            plan.finishes.push((same[0].0, table.push(&of_sums)));
        }
    }
    if order.iter().any(|item| item.partial_words > SUM_WORDS) {
        plan.norms = table.push(&rows.iter().map(|row| row.2).collect::<Vec<_>>());
    }
    // Every dispatch binds the same number of bytes from its own offset.
    let windows = plan.windows.iter().chain(&plan.tiles).chain(&plan.lines);
    let finishes = plan.finishes.iter().flat_map(|finish| &finish.1).chain(&plan.norms);
    let last = windows.flat_map(|window| &window.dispatches).chain(finishes);
    let end = last.map(|dispatch| u64::from(dispatch.offset) + table.span).max().unwrap_or(0);
    table.words.resize(end as usize / 4, 0);
    plan.table = table.words;
    plan.table_span = table.span;
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

/// Bytes from one element to another in parameters or gradients, and the first one's place among these bytes.
fn values(access: Access, format: DType, place: Place, first: u64, len: u64) -> (Reach, u64) {
    let size = format.size_bytes();
    let (start, end) = (place.offset + size * first, place.offset + size * (first + len));
    let unit = match access {
        Access::Vec4 => 4 * size,
        // A word, which may hold several elements.
        Access::Scalar => 4,
    };
    let reach = Reach { buffer: place.buffer, start: start / unit * unit, end: end.next_multiple_of(unit) };
    (reach, (start - reach.start) / size)
}

/// All bytes of a tensor's lines.
fn lines_reach(place: Place, lines: &Lines) -> Reach {
    Reach { buffer: place.buffer, start: place.offset, end: place.offset + 4 * lines.words() }
}

fn cut(item: &Item, first: u64, chunk_len: u64, partial: &mut u64) -> Chunk {
    let len = chunk_len.min(item.len - first);
    let value = |place: Place, format: DType| values(item.access, format, place, first, len).0;
    let state = item.state.map(|(place, slots)| {
        let start = place.offset + 4 * first * slots;
        Reach { buffer: place.buffer, start, end: start + 4 * padded(len) * slots }
    });
    let crossing = item.lines.map_or([0; 6], |(_, lines)| {
        let [rows, columns] = lines.counts();
        let row = first / lines.columns;
        let matrix = row / lines.rows;
        let column = rows + matrix * lines.columns;
        let place = [row % lines.rows, first % lines.columns];
        [column, rows + columns + row, lines.rows, lines.columns, place[0], place[1]]
    });
    let [column, seen, rows, columns, top, left] = crossing;
    let chunk = Chunk {
        row: [item.tensor as u64, len, 0, 0, 0, *partial, column, seen, rows, columns, top, left],
        lines: 6..8,
        reach: [
            Some(value(item.param, DType::F32)),
            item.grad.map(|place| value(place, item.grad_format)),
            state,
            item.lines.map(|(place, lines)| lines_reach(place, &lines)),
        ],
    };
    *partial += item.partial_words;
    chunk
}

/// The tiles of a tensor, and the lines that they only have shares in.
fn cut_lines(item: &Item, place: Place, lines: Lines, share: &mut u64, tiles: &mut Vec<Chunk>, rest: &mut Vec<Chunk>) {
    let Lines { matrices, rows, columns } = lines;
    let [all_rows, all_columns] = lines.counts();
    let tensor = item.tensor as u64;
    let whole = Some(lines_reach(place, &lines));
    let mut tile = |first: u64, [high, wide]: [u64; 2], at: [u64; 3], of_lines: Range<usize>| {
        let len = (high - 1) * columns + wide;
        let reach = |place: Place, format: DType| values(item.access, format, place, first, len);
        let (param, grad) = (reach(item.param, DType::F32), item.grad.map(|place| reach(place, item.grad_format)));
        let from_grad = grad.map_or(0, |(_, from)| from);
        let [row, column, seen] = at;
        tiles.push(Chunk {
            row: [tensor, high * wide, param.1, from_grad, wide, row, column, seen, rows, columns, 0, 0],
            lines: of_lines,
            reach: [Some(param.0), grad.map(|(reach, _)| reach), None, whole],
        });
    };
    if lines.is_small() {
        for first in (0..matrices).step_by(lines.matrices_of_tile() as usize) {
            let count = lines.matrices_of_tile().min(matrices - first);
            let at = [first * rows, all_rows + first * columns, all_rows + all_columns + first * rows];
            tile(first * rows * columns, [count * rows, columns], at, 5..8);
        }
        return;
    }
    let ([high, wide], [down, across]) = (lines.tile(), lines.tiles());
    for matrix in 0..matrices {
        let [row_shares, column_shares] = lines.shares();
        let of_columns = *share + row_shares;
        for (d, a) in (0..down).flat_map(|d| (0..across).map(move |a| (d, a))) {
            let (top, left) = (d * high, a * wide);
            let first = (matrix * rows + top) * columns + left;
            let at = [*share + a * rows + top, of_columns + d * columns + left, 0];
            tile(first, [high.min(rows - top), wide.min(columns - left)], at, 0..0);
        }
        let row = matrix * rows;
        let mut line = |first: u64, len: u64, shares: [u64; 3], is_column: u64| {
            let [count, step, share] = shares;
            let seen = all_rows + all_columns + row;
            rest.push(Chunk {
                row: [tensor, len, count, step, 0, share, first, seen, rows, columns, is_column, 0],
                lines: 6..8,
                reach: [None, None, None, whole],
            });
        };
        line(row, rows, [across, rows, *share], 0);
        for left in (0..columns).step_by(PIECE as usize) {
            let first = all_rows + matrix * columns + left;
            line(first, PIECE.min(columns - left), [down, columns, of_columns + left], 1);
        }
        *share = of_columns + column_shares;
    }
}

/// Few windows that hold these chunks, with the dispatches over them.
fn windows(table: &mut Table, like: &Item, chunks: Vec<Chunk>, limit: u64) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut chunks = &chunks[..];
    while let [first, rest @ ..] = chunks {
        let mut reach = first.reach;
        let joins = |chunk: &&Chunk| join(reach, chunk.reach, limit).map(|joined| reach = joined).is_some();
        let count = 1 + rest.iter().take_while(joins).count();
        let (window, others) = chunks.split_at(count);
        windows.push(close(table, like, window, reach));
        chunks = others;
    }
    windows
}

fn close(table: &mut Table, like: &Item, window: &[Chunk], reach: Reaches) -> Window {
    let spans = reach.map(|reach| reach.map(Reach::span));
    let units = [4, like.grad_format.size_bytes(), QUAD_BYTES, 4];
    let rows: Vec<_> = window
        .iter()
        .map(|chunk| {
            let mut row = chunk.row;
            let from = |kind: usize| match (chunk.reach[kind], spans[kind]) {
                (Some(reach), Some(span)) => (reach.start - span.offset) / units[kind],
                _ => 0,
            };
            (0..3).for_each(|kind| row[2 + kind] += from(kind));
            row[chunk.lines.clone()].iter_mut().for_each(|word| *word += from(3));
            row.map(|word| word as u32)
        })
        .collect();
    let [param, grad, state, lines] = spans;
    let crossings = window.iter().any(|chunk| chunk.row[9] % 4 != 0);
    let tails = window.iter().any(|chunk| chunk.row[1] % 4 != 0);
    let dispatches = table.push(&rows);
    let (variant, access, grad_format) = like.kind();
    Window { variant, access, grad_format, param, grad, state, lines, tails, crossings, dispatches }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Every element of every tensor is in exactly one row, and each row lies within its window.
    fn check(plan: &Plan, items: &[Item], bounds: Bounds) {
        let mut seen: Vec<u64> = vec![0; items.len()];
        for window in &plan.windows {
            for span in [window.param, window.grad, window.state].into_iter().flatten() {
                assert!(span.size <= bounds.binding_bytes && span.offset % ALIGNMENT == 0, "{span:?}");
            }
            let param = window.param.unwrap();
            for dispatch in &window.dispatches {
                assert!(dispatch.x <= bounds.workgroups && dispatch.y <= bounds.workgroups);
                let start = dispatch.offset as usize / 4;
                let end = start + (dispatch.x * dispatch.y) as usize * ROW_WORDS;
                for row in plan.table[start..end].chunks(ROW_WORDS).filter(|row| row[1] > 0) {
                    let item = &items[row[0] as usize];
                    let first = seen[item.tensor];
                    assert_eq!(param.offset + 4 * u64::from(row[2]), item.param.offset + 4 * first);
                    if let (Some(span), Some((place, slots))) = (window.state, item.state) {
                        assert_eq!(span.offset + 16 * u64::from(row[4]), place.offset + 4 * first * slots);
                    }
                    assert!(4 * u64::from(row[2] + row[1]) <= param.size);
                    if let (Some(span), Some(grad)) = (window.grad, item.grad) {
                        let size = item.grad_format.size_bytes();
                        assert_eq!(window.grad_format, item.grad_format);
                        assert_eq!(span.offset + size * u64::from(row[3]), grad.offset + size * first);
                        assert!(size * u64::from(row[3] + row[1]) <= span.size && span.size % 4 == 0, "{span:?}");
                    }
                    seen[item.tensor] += u64::from(row[1]);
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
            let rows = |windows: &[Window]| -> Vec<([Option<Span>; 3], [u32; ROW_WORDS])> {
                let of = |window: &Window| {
                    let (window, table) = (window.clone(), &plan.table);
                    assert!(
                        [window.param, window.lines].iter().flatten().all(|span| span.size <= bounds.binding_bytes)
                    );
                    let words = |dispatch: &Dispatch| {
                        let start = dispatch.offset as usize / 4;
                        let rows = &table[start..start + (dispatch.x * dispatch.y) as usize * ROW_WORDS];
                        rows.chunks(ROW_WORDS).map(|row| row.try_into().unwrap()).collect::<Vec<[u32; ROW_WORDS]>>()
                    };
                    let each = window.dispatches.iter().flat_map(words).filter(|row| row[1] > 0);
                    each.map(|row| ([window.param, window.grad, window.lines], row)).collect::<Vec<_>>()
                };
                windows.iter().flat_map(of).collect()
            };
            let mut seen: Vec<Vec<u32>> = items.iter().map(|item| vec![0; item.len as usize]).collect();
            for ([param, grad, _], row) in rows(&plan.tiles) {
                let item = &items[row[0] as usize];
                let (width, columns) = (u64::from(row[4]), u64::from(row[9]));
                let first = (param.unwrap().offset + 4 * u64::from(row[2]) - item.param.offset) / 4;
                let (grad, size) = (grad.unwrap(), format.size_bytes());
                assert_eq!(grad.offset + size * u64::from(row[3]), item.grad.unwrap().offset + size * first);
                for i in 0..u64::from(row[1]) {
                    seen[item.tensor][(first + i / width * columns + i % width) as usize] += 1;
                }
            }
            assert!(seen.iter().flatten().all(|&count| count == 1));
            let mut words: Vec<Vec<u32>> =
                items.iter().map(|item| vec![0; item.lines.unwrap().1.words() as usize]).collect();
            for ([.., span], row) in rows(&plan.lines) {
                let (place, lines) = items[row[0] as usize].lines.unwrap();
                let first = (span.unwrap().offset + 4 * u64::from(row[6]) - place.offset) / 4;
                assert!(!lines.is_small());
                (first..first + u64::from(row[1])).for_each(|word| words[row[0] as usize][word as usize] += 1);
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
