//! How tensors are cut into the entries of the chunk table, and which entries share a window. Nothing but that may live
//! here.
//!
//! An entry's offsets are counted from where its own bytes start, until the window is known that it shares with others.

use super::table::Table;
use super::{Item, Place, QUAD_BYTES, Span, Window, padded};
use crate::lines::Lines;
use crate::tensor::{ALIGNMENT, Access, DType};
use crate::words::{Chunk, Entry, LinesOfMatrix, Tile};

/// Columns of a large matrix that one workgroup finishes.
const PIECE: u64 = 256;

/// Bytes `[start, end)` of one kind that the entries of a window reach.
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

/// The bytes that an entry or a window reaches of parameters, gradients, state and lines.
type Reaches = [Option<Reach>; 4];

/// An entry of the table before its window is known, with the bytes that it reaches.
pub(super) struct Cut<E> {
    entry: E,
    reach: Reaches,
}

/// An entry whose offsets are counted from where its own bytes start.
pub(super) trait Cuttable: Entry {
    /// The same with offsets into bindings: so many units of parameters, gradients, state and lines lie before it.
    fn moved(self, before: [u64; 4]) -> Self;

    /// Elements or lines.
    fn len(self) -> u64;

    /// Columns of its matrix, 0 where it knows of none.
    fn columns(self) -> u64;
}

impl Cuttable for Chunk {
    fn moved(self, [param, grad, state, lines]: [u64; 4]) -> Self {
        Self {
            param: self.param + param,
            grad: self.grad + grad,
            state: self.state + state,
            column_numbers: self.column_numbers + lines,
            seen_rows: self.seen_rows + lines,
            ..self
        }
    }

    fn len(self) -> u64 {
        self.len
    }

    fn columns(self) -> u64 {
        self.columns
    }
}

impl Cuttable for Tile {
    fn moved(self, [param, grad, _, lines]: [u64; 4]) -> Self {
        let moved = Self { param: self.param + param, grad: self.grad + grad, ..self };
        // The sums of a tile of a large matrix go to scratch, which is bound whole.
        if !(Lines { matrices: 1, rows: self.rows, columns: self.columns }).is_small() {
            return moved;
        }
        Self {
            row_sums: self.row_sums + lines,
            column_sums: self.column_sums + lines,
            seen_rows: self.seen_rows + lines,
            ..moved
        }
    }

    fn len(self) -> u64 {
        self.len
    }

    fn columns(self) -> u64 {
        self.columns
    }
}

impl Cuttable for LinesOfMatrix {
    fn moved(self, [.., lines]: [u64; 4]) -> Self {
        Self { numbers: self.numbers + lines, seen_rows: self.seen_rows + lines, ..self }
    }

    fn len(self) -> u64 {
        self.len
    }

    fn columns(self) -> u64 {
        self.columns
    }
}

/// Joins the reaches of a window with those of one more entry; none where a binding does not hold both.
fn join(window: Reaches, entry: Reaches, limit: u64) -> Option<Reaches> {
    let mut joined = [None; 4];
    for (joined, (a, b)) in joined.iter_mut().zip(window.into_iter().zip(entry)) {
        *joined = match (a, b) {
            (Some(a), Some(b)) => Some(a.join(b, limit)?),
            (None, None) => None,
            _ => return None,
        };
    }
    Some(joined)
}

/// The bytes that hold so many elements of parameters or gradients, and how many elements of these bytes come before
/// the first.
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

/// The bytes of all lines of a tensor.
fn lines_reach(place: Place, lines: &Lines) -> Reach {
    Reach { buffer: place.buffer, start: place.offset, end: place.offset + 4 * lines.words() }
}

/// The chunk of a tensor that starts at an element. It takes the next partial result.
pub(super) fn cut(item: &Item, first: u64, chunk_len: u64, partial: &mut u64) -> Cut<Chunk> {
    let len = chunk_len.min(item.len - first);
    let value = |place: Place, format: DType| values(item.access, format, place, first, len).0;
    let state = item.state.map(|(place, slots)| {
        let start = place.offset + 4 * first * slots;
        Reach { buffer: place.buffer, start, end: start + 4 * padded(len) * slots }
    });
    let mut entry = Chunk { tensor: item.tensor as u64, len, partial: *partial, ..Chunk::default() };
    if let Some((_, lines)) = item.lines {
        let [rows, columns] = lines.counts();
        let row = first / lines.columns;
        let matrix = row / lines.rows;
        entry = Chunk {
            column_numbers: rows + matrix * lines.columns,
            seen_rows: rows + columns + row,
            rows: lines.rows,
            columns: lines.columns,
            top: row % lines.rows,
            left: first % lines.columns,
            ..entry
        };
    }
    let reach = [
        Some(value(item.param, DType::F32)),
        item.grad.map(|place| value(place, item.grad_format)),
        state,
        item.lines.map(|(place, lines)| lines_reach(place, &lines)),
    ];
    *partial += item.partial_words;
    Cut { entry, reach }
}

/// Cuts a tensor with lines into tiles and, where its matrices are large, into the lines that several tiles have shares
/// in.
pub(super) fn cut_lines(
    item: &Item,
    place: Place,
    lines: Lines,
    share: &mut u64,
    tiles: &mut Vec<Cut<Tile>>,
    rest: &mut Vec<Cut<LinesOfMatrix>>,
) {
    let Lines { matrices, rows, columns } = lines;
    let [all_rows, all_columns] = lines.counts();
    let tensor = item.tensor as u64;
    let whole = Some(lines_reach(place, &lines));
    let mut tile = |first: u64, [high, wide]: [u64; 2], at: [u64; 3]| {
        let len = (high - 1) * columns + wide;
        let reach = |place: Place, format: DType| values(item.access, format, place, first, len);
        let (param, grad) = (reach(item.param, DType::F32), item.grad.map(|place| reach(place, item.grad_format)));
        let from_grad = grad.map_or(0, |(_, from)| from);
        let [row_sums, column_sums, seen_rows] = at;
        tiles.push(Cut {
            entry: Tile {
                tensor,
                len: high * wide,
                param: param.1,
                grad: from_grad,
                width: wide,
                row_sums,
                column_sums,
                seen_rows,
                rows,
                columns,
            },
            reach: [Some(param.0), grad.map(|(reach, _)| reach), None, whole],
        });
    };
    if lines.is_small() {
        for first in (0..matrices).step_by(lines.matrices_of_tile() as usize) {
            let count = lines.matrices_of_tile().min(matrices - first);
            let at = [first * rows, all_rows + first * columns, all_rows + all_columns + first * rows];
            tile(first * rows * columns, [count * rows, columns], at);
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
            tile(first, [high.min(rows - top), wide.min(columns - left)], at);
        }
        let row = matrix * rows;
        let mut line = |numbers: u64, len: u64, [shares, stride, share]: [u64; 3], are_columns: u64| {
            let seen_rows = all_rows + all_columns + row;
            rest.push(Cut {
                entry: LinesOfMatrix {
                    tensor,
                    len,
                    are_columns,
                    shares,
                    stride,
                    share,
                    numbers,
                    seen_rows,
                    rows,
                    columns,
                },
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

/// Few windows that hold these entries, with the dispatches over them.
pub(super) fn windows<E: Cuttable>(table: &mut Table, like: &Item, cuts: Vec<Cut<E>>, limit: u64) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut cuts = &cuts[..];
    while let [first, rest @ ..] = cuts {
        let mut reach = first.reach;
        let joins = |cut: &&Cut<E>| join(reach, cut.reach, limit).map(|joined| reach = joined).is_some();
        let count = 1 + rest.iter().take_while(joins).count();
        let (window, others) = cuts.split_at(count);
        windows.push(close(table, like, window, reach));
        cuts = others;
    }
    windows
}

fn close<E: Cuttable>(table: &mut Table, like: &Item, window: &[Cut<E>], reach: Reaches) -> Window {
    let spans = reach.map(|reach| reach.map(Reach::span));
    let units = [4, like.grad_format.size_bytes(), QUAD_BYTES, 4];
    let placed = |cut: &Cut<E>| {
        cut.entry.moved(std::array::from_fn(|kind| match (cut.reach[kind], spans[kind]) {
            (Some(reach), Some(span)) => (reach.start - span.offset) / units[kind],
            _ => 0,
        }))
    };
    let entries: Vec<E> = window.iter().map(placed).collect();
    let [param, grad, state, lines] = spans;
    let crossings = entries.iter().any(|entry| entry.columns() % 4 != 0);
    let tails = entries.iter().any(|entry| entry.len() % 4 != 0);
    let dispatches = table.push(&entries);
    let (variant, access, grad_format) = like.kind();
    Window { variant, access, grad_format, param, grad, state, lines, tails, crossings, dispatches }
}
