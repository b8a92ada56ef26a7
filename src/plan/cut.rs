//! How tensors are cut into the entries of the chunk table, and which entries make up a piece. Nothing but that may
//! live here.
//!
//! A piece is what a binding holds whole: adjacent elements of a tensor whose parameters, gradients and state each lie
//! within the device's binding limit. An entry's place is counted from the start of its piece, so no address is in the
//! table.

use super::table::Table;
use super::{Bounds, Item, Piece, Place, QUAD_BYTES, padded};
use crate::lines::Lines;
use crate::words::{Chunk, Entry, LinesOfMatrix, Tile};

/// Columns of a large matrix that one workgroup finishes.
const COLUMNS: u64 = 256;

/// Adds the chunks of a tensor to the table, and its pieces to the list. Each chunk takes the next partial result.
pub(super) fn cut(item: &Item, bounds: Bounds, partial: &mut u64, table: &mut Table, pieces: &mut Vec<Piece>) {
    let chunk_len = bounds.chunk_len();
    let piece_len = bounds.piece_len(item.slots);
    for (n, start) in (0..item.len).step_by(piece_len as usize).enumerate() {
        let (len, state) = (piece_len.min(item.len - start), item.state.get(n).copied());
        let begin = table.len();
        for first in (0..len).step_by(chunk_len as usize) {
            let entry = Chunk {
                tensor: item.tensor as u64,
                len: chunk_len.min(len - first),
                piece: pieces.len() as u64,
                first,
                state: state.map_or(0, |place| place.offset / QUAD_BYTES + first / 4 * item.slots),
                partial: *partial,
                ..Chunk::default()
            };
            table.push(match item.lines {
                Some((place, lines)) => with_lines(entry, start + first, place, lines),
                None => entry,
            });
            *partial += item.partial_words;
        }
        pieces.push(Piece {
            first: start,
            len,
            state: state.map(|place| place.buffer),
            entries: begin..table.len(),
            tails: len % 4 != 0,
            ..Piece::of(item)
        });
    }
}

/// A chunk that starts at an element of a tensor with lines.
fn with_lines(chunk: Chunk, first: u64, place: Place, lines: Lines) -> Chunk {
    let [rows, columns] = lines.counts();
    let row = first / lines.columns;
    let matrix = row / lines.rows;
    let bound = place.offset / 4;
    Chunk {
        column_numbers: bound + rows + matrix * lines.columns,
        seen_rows: bound + rows + columns + row,
        rows: lines.rows,
        columns: lines.columns,
        top: row % lines.rows,
        left: first % lines.columns,
        ..chunk
    }
}

/// Adds the tiles of a tensor with lines to the table, and their pieces to the list. A tile of a large matrix takes the
/// next shares.
pub(super) fn cut_tiles(
    item: &Item,
    place: Place,
    lines: Lines,
    bounds: Bounds,
    share: &mut u64,
    table: &mut Table,
    pieces: &mut Vec<Piece>,
) {
    let Lines { matrices, rows, columns, .. } = lines;
    let [all_rows, all_columns] = lines.counts();
    let bound = place.offset / 4;
    // The longest run of elements that a binding holds whatever they start at.
    let most = bounds.piece_len(0);
    let crosses = columns % 4 != 0;
    let mut open: Option<Piece> = None;
    let mut tile = |first: u64, [high, wide]: [u64; 2], [row_sums, column_sums, seen_rows]: [u64; 3]| {
        let end = first + (high - 1) * columns + wide;
        // Tiles that lie side by side come one behind the other, and may start before the last one ends.
        let fits = |piece: &Piece| end.max(piece.first + piece.len) - piece.first <= most;
        if open.as_ref().is_none_or(|piece| !fits(piece)) {
            pieces.extend(open.take());
            let start = first / 4 * 4;
            let piece = Piece {
                first: start,
                len: 0,
                entries: table.len()..table.len(),
                crossings: crosses,
                ..Piece::of(item)
            };
            open = Some(piece);
        }
        let piece = open.as_mut().expect("one was opened");
        let entry = Tile {
            tensor: item.tensor as u64,
            len: high * wide,
            piece: pieces.len() as u64,
            first: first - piece.first,
            width: wide,
            row_sums,
            column_sums,
            seen_rows,
            rows,
            columns,
        };
        table.push(entry);
        piece.len = piece.len.max(end - piece.first);
        piece.entries.end = table.len();
        piece.tails |= !entry.len.is_multiple_of(4);
    };
    if lines.is_small() {
        for first in (0..matrices).step_by(lines.matrices_of_tile() as usize) {
            let count = lines.matrices_of_tile().min(matrices - first);
            let at = [first * rows, all_rows + first * columns, all_rows + all_columns + first * rows];
            tile(first * rows * columns, [count * rows, columns], at.map(|at| bound + at));
        }
    } else {
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
            *share = of_columns + column_shares;
        }
    }
    pieces.extend(open);
}

/// Adds the lines that several tiles of a large matrix have shares in to the table. The shares are those that
/// [`cut_tiles`] gave away.
pub(super) fn cut_lines(item: &Item, place: Place, lines: Lines, share: &mut u64, table: &mut Table) {
    if lines.is_small() {
        return;
    }
    let Lines { matrices, rows, columns, has_columns } = lines;
    let [all_rows, all_columns] = lines.counts();
    let [down, across] = lines.tiles();
    let bound = place.offset / 4;
    for matrix in 0..matrices {
        let [row_shares, column_shares] = lines.shares();
        let of_columns = *share + row_shares;
        let row = matrix * rows;
        let mut line = |numbers: u64, len: u64, [shares, stride, share]: [u64; 3], are_columns: u64| {
            let seen_rows = bound + all_rows + all_columns + row;
            table.push(LinesOfMatrix {
                tensor: item.tensor as u64,
                len,
                are_columns,
                shares,
                stride,
                share,
                numbers: bound + numbers,
                seen_rows,
                rows,
                columns,
            });
        };
        line(row, rows, [across, rows, *share], 0);
        for left in (0..if has_columns { columns } else { 0 }).step_by(COLUMNS as usize) {
            let first = all_rows + matrix * columns + left;
            line(first, COLUMNS.min(columns - left), [down, columns, of_columns + left], 1);
        }
        *share = of_columns + column_shares;
    }
}

/// Bytes of a tensor's state in each page that it needs: one number a piece.
pub(super) fn state_bytes(len: u64, slots: u64, bounds: Bounds) -> impl Iterator<Item = u64> {
    let piece_len = bounds.piece_len(slots);
    (0..len).step_by(piece_len as usize).map(move |start| 4 * slots * padded(piece_len.min(len - start)))
}

const _: () = assert!(Chunk::FIELDS.len() <= crate::words::ENTRY_WORDS);
