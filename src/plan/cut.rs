//! How tensors are cut into the entries of the chunk table, and which entries make up a piece. Nothing but that may
//! live here.
//!
//! A piece is what a binding holds whole: adjacent elements of a tensor whose parameters, gradients and state each lie
//! within the device's binding limit. An entry's place is counted from the start of its piece, so no address is in the
//! table.

use super::table::Table;
use super::{Bounds, Framed, Item, Piece, Place, QUAD_BYTES, Sided, padded};
use crate::lines::Lines;
use crate::product::Frame;
use crate::sides::{EDGE, Parts, Side, Turning};
use crate::storage::Room;
use crate::tensor::BLOCK;
use crate::words::{ABSENT, Chunk, Entry, LinesOfMatrix, MatrixTile, SideTile, Tile, part};

/// How many columns of a large matrix one workgroup finishes.
const COLUMNS: u64 = 256;

/// Adds the chunks of a tensor to the table, and its pieces to the list. Each chunk of several takes the next partial
/// result.
pub(super) fn cut(item: &Item, bounds: Bounds, partial: &mut u64, table: &mut Table, pieces: &mut Vec<Piece>) {
    let chunk_len = bounds.chunk_len();
    let piece_len = bounds.piece_len(item.room);
    let is_alone = bounds.partials(item.len) == 0;
    for (n, start) in (0..item.len).step_by(piece_len as usize).enumerate() {
        let (len, state) = (piece_len.min(item.len - start), item.state.get(n).copied());
        let begin = table.len();
        let stride = if is_alone { 0 } else { item.partial_words };
        let entry = |n: u64| {
            let first = n * chunk_len;
            let entry = Chunk {
                tensor: item.tensor as u64,
                len: chunk_len.min(len - first),
                piece: pieces.len() as u64,
                first: start + first,
                state: state.map_or(0, |place| (place.offset + item.room.bytes(first)) / QUAD_BYTES),
                partial: if is_alone { ABSENT.into() } else { *partial + n * stride },
                stream: item.stream.into(),
                ..Chunk::default()
            };
            let entry = match item.lines {
                Some((place, lines)) => with_lines(entry, start + first, place, lines),
                None => entry,
            };
            match (item.product, &item.sides) {
                (Some(framed), _) => with_product(entry, start + first, framed),
                (None, Some(sided)) => with_sides(entry, start + first, sided),
                (None, None) => entry,
            }
        };
        let (count, whole) = (len.div_ceil(chunk_len), len / chunk_len);
        // Rows and columns start anew within a chunk, so those of matrices differ by other words each time.
        let evenly = if whole > 1 && item.lines.is_none() && item.product.is_none() { whole } else { 0 };
        if evenly > 0 {
            table.push_evenly([entry(0), entry(1)], evenly as usize);
        }
        (evenly..count).for_each(|n| table.push(entry(n)));
        *partial += count * stride;
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

/// The entry of a chunk that starts at an element of a tensor with lines.
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

/// The entry of a chunk that starts at an element of a tensor whose rule takes products.
fn with_product(chunk: Chunk, first: u64, framed: Framed) -> Chunk {
    let Lines { rows, columns, .. } = framed.lines;
    let [product, start, turned] = framed.ends();
    Chunk { rows, columns, top: first / columns, left: first % columns, product, start, turned, ..chunk }
}

/// The entry of a chunk that starts at an element of a tensor whose rule turns it.
fn with_sides(chunk: Chunk, first: u64, sided: &Sided) -> Chunk {
    let at = |place: u64| sided.first() + place + first;
    let places = sided.parts.places();
    Chunk { product: at(places[0]), start: at(places[sided.sides.len() % 2]), turned: sided.parts.span(), ..chunk }
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
    // The longest run of elements that a binding holds, wherever the run starts.
    let most = bounds.piece_len(Room::default());
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
            first,
            width: wide,
            row_sums,
            column_sums,
            seen_rows,
            rows,
            columns,
            product: item
                .product
                .map_or(0, |framed| framed.ends()[0] + first / columns * padded(columns) + first % columns),
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

/// Adds those lines of a large matrix to the table in which several tiles have shares. [`cut_tiles`] has given the
/// tiles the places of these shares.
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

/// Rows and columns of a tile of a product, which one workgroup makes.
const PART: [u64; 2] = [128, 64];

impl Framed {
    /// How many words of the page come before the tensor's own.
    fn first(&self) -> u64 {
        self.place.offset / 4
    }

    /// Three places, in the tensor's own rows and columns: of what the last product leaves, of what the first one
    /// starts from, and of that one's transpose.
    fn ends(&self) -> [u64; 3] {
        let frame = Frame::of(&self.lines);
        let (x, turned) = (frame.x(), self.first() + frame.x_turned());
        let start = self.first() + x[usize::from(self.is_second)];
        if frame.is_turned { [turned, turned, start] } else { [self.first() + x[0], start, turned] }
    }
}

/// Adds the tiles of one product of a tensor's matrix to the table: of `A`, of `B`, or of `X`.
pub(super) fn cut_product(item: &Item, framed: Framed, kind: usize, table: &mut Table) {
    let frame = Frame::of(&framed.lines);
    let quads = |words: u64| (framed.first() + words) / 4;
    let [across, down] = [frame.columns, frame.rows].map(|size| padded(size) / 4);
    let [x, turned, gram, square] = [frame.x()[0], frame.x_turned(), frame.gram(), frame.square()].map(quads);
    // The two factors with their strides, what is added, the result with its stride, and the rows of the factors.
    let (p, p_stride, q, q_stride, d, c, c_stride, len) = match kind {
        0 => (turned, down, turned, down, 0, gram, down, frame.columns),
        1 => (gram, down, gram, down, gram, square, down, frame.rows),
        _ => (square, down, x, across, x, x, across, frame.rows),
    };
    let (wide, second) = if kind == 2 { (frame.columns, (frame.x()[1] - frame.x()[0]) / 4) } else { (frame.rows, 0) };
    for top in (0..frame.rows).step_by(PART[0] as usize) {
        for left in (0..wide).step_by(PART[1] as usize) {
            let place = top * c_stride + left / 4;
            table.push(MatrixTile {
                tensor: item.tensor as u64,
                len,
                p: p + top / 4,
                p_stride,
                q: q + left / 4,
                q_stride,
                d: d + place,
                c: c + place,
                c_stride,
                turned: turned + left * down + top / 4,
                turned_stride: down,
                rows: PART[0].min(frame.rows - top),
                columns: PART[1].min(wide - left),
                second,
            });
        }
    }
}

impl Sided {
    /// How many words of the page come before the tensor's own.
    fn first(&self) -> u64 {
        self.place.offset / 4
    }

    /// The sides, each with how many elements of matrices and how many words of notes come before its own.
    fn sides(&self) -> impl Iterator<Item = (Side, u64, u64)> {
        self.sides.iter().scan((0, 0), |(elements, notes), &side| {
            let before = (side, *elements, *notes);
            (*elements, *notes) = (*elements + side.size * side.size, *notes + Parts::notes_of(side));
            Some(before)
        })
    }
}

/// Adds a result of so many numbers to the table, cut into what one workgroup makes at most.
fn cut_result(result: SideTile, len: u64, most: u64, table: &mut Table) {
    for first in (0..len).step_by(most as usize) {
        table.push(SideTile { first, len: (len - first).min(most), ..result });
    }
}

/// Elements of a Gram matrix that a workgroup makes, one a lane: their sums may be long.
const GRAM: u64 = 256;

/// Adds the Gram matrices of a tensor's sides to the table.
pub(super) fn cut_grams(item: &Item, sided: &Sided, table: &mut Table) {
    let parts = sided.parts;
    for (Side { size, inner, len }, before, _) in sided.sides() {
        let result = SideTile {
            tensor: item.tensor as u64,
            size,
            inner,
            products: len / size,
            source: sided.first() + parts.places()[0] + parts.span(),
            to: sided.first() + parts.grams() + before,
            ..SideTile::default()
        };
        cut_result(result, size * size, GRAM, table);
    }
}

/// Adds parts of the renewal of a tensor's bases to the table.
pub(super) fn cut_bases(item: &Item, sided: &Sided, of_renewal: &[u64], table: &mut Table) {
    let (parts, edge) = (sided.parts, EDGE as u64);
    for (side, before, notes) in sided.sides() {
        let tiles = side.tiles();
        let mut workgroup = |part: u64, [first, second]: [u64; 2], columns: u64| {
            table.push(SideTile {
                tensor: item.tensor as u64,
                len: edge * columns,
                first,
                second,
                part,
                size: side.size,
                source: sided.first() + parts.grams() + before,
                to: sided.first() + parts.drafts() + before,
                matrix: sided.first() + parts.bases() + before,
                notes: sided.first() + parts.notes() + notes,
                ..SideTile::default()
            });
        };
        for (&part, first) in of_renewal.iter().flat_map(|part| (0..tiles).map(move |first| (part, first))) {
            match part {
                part::PAIRS => workgroup(part, [first, 0], edge),
                part::BLOCKS => (first + 1..tiles).for_each(|second| workgroup(part, [first, second], edge)),
                part::VECTORS => (0..tiles).for_each(|second| workgroup(part, [first, second], edge)),
                _ => workgroup(part, [first, 0], side.size),
            }
        }
    }
}

/// Adds a turn of a tensor along one of its sides to the table, if there are so many; of the power iteration, that of
/// all its bases.
pub(super) fn cut_turn(item: &Item, sided: &Sided, turning: Turning, stage: usize, table: &mut Table) {
    let (parts, count) = (sided.parts, sided.sides.len());
    let mut turn = |side: Side, [source, to, matrix]: [u64; 3]| {
        let [source, to, matrix] = [source, to, matrix].map(|place| sided.first() + place);
        let Side { size, inner, len } = side;
        let tensor = item.tensor as u64;
        cut_result(
            SideTile { tensor, size, inner, source, to, matrix, ..SideTile::default() },
            len,
            BLOCK as u64,
            table,
        );
    };
    if turning == Turning::Power {
        for (Side { size, .. }, before, _) in sided.sides() {
            let [source, to, matrix] = [parts.bases(), parts.drafts(), parts.grams()].map(|place| place + before);
            turn(Side::of_matrix(size), [source, to, matrix]);
        }
    } else if let Some((side, before, _)) = sided.sides().nth(stage) {
        // Into the bases go the spread and the gradient, and back comes what was made of them.
        let (done, count) = match turning {
            Turning::Into => (stage, 2),
            _ => (stage + count, 1),
        };
        let [source, to] = [done % 2, (done + 1) % 2].map(|place| parts.places()[place]);
        for n in 0..count {
            let before_it = n * parts.span();
            turn(side, [source + before_it, to + before_it, parts.bases() + before]);
        }
    }
}

/// The bytes of a tensor's state in each page that it needs. Each piece of the tensor takes a page.
pub(super) fn state_bytes(len: u64, room: Room, bounds: Bounds) -> impl Iterator<Item = u64> {
    let piece_len = bounds.piece_len(room);
    (0..len).step_by(piece_len as usize).map(move |start| room.bytes(piece_len.min(len - start)))
}

const _: () = assert!(Chunk::FIELDS.len() <= crate::words::ENTRY_WORDS);
