//! Where the values of pieces lie in one step: which buffers a dispatch binds, and which places in them travel with the
//! step. This is the only part of a plan that knows addresses.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Bounds, Piece, Place, QUAD_BYTES, SHORT, SHORT_LEAST, SIDE_BY_SIDE};
use crate::codecs::DType;
use crate::tensor::{ALIGNMENT, Access, Pages};
use crate::words::{ABSENT, row};

/// The home of a tensor: where its values lie in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its parameters.
    pub param: Place,
    /// Its gradients; a move outside a step has none.
    pub grad: Option<Place>,
    /// Where the new parameters go, if not to the place of the old ones.
    pub out: Option<Place>,
}

/// A range of a buffer that a dispatch binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Which buffer.
    pub buffer: usize,
    /// The first byte, a multiple of 256.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Span {
    fn end(&self) -> u64 {
        self.offset + self.size
    }

    fn holds(&self, other: &Self) -> bool {
        self.buffer == other.buffer && self.offset <= other.offset && other.end() <= self.end()
    }
}

/// The words of a [`row`].
pub type Row = [u32; row::LEN];

/// Pieces that share bindings, and so their dispatches.
#[derive(Clone, Debug)]
pub struct Window {
    /// The first piece. All pieces of a window are of its kind.
    pub like: Piece,
    /// In which buffers the values lie.
    pub pages: Pages,
    /// The ranges that are bound: those of parameters before those of gradients where they lie apart.
    pub spans: Vec<Span>,
    /// Whether the new parameters go elsewhere than the old ones.
    pub copies: bool,
    /// The entries of the table that belong to the window.
    pub entries: Range<usize>,
    /// How many of the first entries are [short](SHORT) chunks: 0, or enough for a dispatch of their own. Walks over
    /// tiles do not ask.
    pub short: usize,
    /// The number of the first piece.
    pub first: usize,
    /// Where the pieces' values lie.
    pub rows: Vec<Row>,
}

impl Window {
    /// What dispatches walk over: all entries, then the short ones and the others where these are apart. Each comes
    /// with the number of entries that a workgroup takes.
    pub fn walked(&self) -> Vec<(Range<usize>, u64)> {
        let Range { start, end } = self.entries;
        let first = start + self.short;
        let parts = [(start..end, 1), (start..first, SIDE_BY_SIDE), (first..end, 1)];
        let count = if self.short > 0 { 3 } else { 1 };
        parts.into_iter().take(count).filter(|(entries, _)| !entries.is_empty()).collect()
    }

    /// Binds the same spans in another order: `order` lists where each comes from.
    pub fn reorder(&mut self, order: &[usize]) {
        self.spans = order.iter().map(|&from| self.spans[from]).collect();
        for row in self.rows.iter_mut().filter(|row| row[row::OUT_PAGE] != ABSENT) {
            for page in [row::PARAM_PAGE, row::GRAD_PAGE, row::OUT_PAGE] {
                row[page] = order.iter().position(|&from| from as u32 == row[page]).unwrap_or(0) as u32;
            }
        }
    }
}

/// The values of a piece that a dispatch binds, each as the bytes that its kernel reaches.
#[derive(Clone, Copy)]
struct Reach {
    span: Span,
    /// How many bytes an element has.
    size: u64,
    /// The byte of the first element.
    start: u64,
}

fn reach(place: Place, access: Access, format: DType, piece: &Piece, sizes: &[u64]) -> Reach {
    let size = format.size_bytes();
    let unit = match access {
        Access::Vec4 => QUAD_BYTES,
        // The kernel reads whole words, each of which may hold several elements.
        Access::Scalar => 4,
    };
    let start = place.offset + size * piece.first;
    let offset = start / unit * unit;
    let end = (start + size * piece.len).next_multiple_of(unit).min(sizes[place.buffer] / 4 * 4);
    Reach { span: Span { buffer: place.buffer, offset, size: end - offset }, size, start }
}

/// What the dispatches over some pieces bind so far.
#[derive(Clone, Default)]
struct Bound {
    spans: Vec<Span>,
    /// Whether new parameters go elsewhere than the old ones.
    copies: bool,
}

impl Bound {
    /// Adds a span. A buffer that a binding holds is bound whole; in a larger one, spans that a binding holds together
    /// are bound as one.
    fn bind(&mut self, span: Span, sizes: &[u64], limit: u64) {
        let size = sizes[span.buffer];
        if size <= limit {
            let whole = Span { buffer: span.buffer, offset: 0, size: size / 4 * 4 };
            if !self.spans.contains(&whole) {
                self.spans.push(whole);
            }
            return;
        }
        let joined = |other: &Span| {
            let offset = span.offset.min(other.offset) / ALIGNMENT * ALIGNMENT;
            let size = span.end().max(other.end()) - offset;
            (span.buffer == other.buffer && size <= limit).then_some(Span { buffer: span.buffer, offset, size })
        };
        match self.spans.iter_mut().find_map(|other| Some((joined(other)?, other))) {
            Some((joined, other)) => *other = joined,
            None => {
                let offset = span.offset / ALIGNMENT * ALIGNMENT;
                self.spans.push(Span { offset, size: span.end() - offset, ..span });
            }
        }
    }

    /// Whether the spans hold these values.
    fn holds(&self, values: &[Option<Reach>; 3]) -> bool {
        values.iter().flatten().all(|reach| self.spans.iter().any(|page| page.holds(&reach.span)))
    }

    /// Which of the spans holds another, and where it starts there.
    fn find(&self, span: Span) -> (usize, u64) {
        let page = self.spans.iter().position(|page| page.holds(&span)).expect("every value of a window is bound");
        (page, self.spans[page].offset)
    }
}

/// Puts these pieces into few windows, in their order. A dispatch of a variant binds at most `most` buffers of values:
/// at least two, or three where new parameters go elsewhere. `homes` has a home for each tensor, or none where the
/// tensor takes no part; `sizes` has the bytes of each buffer.
pub fn place(
    pieces: &[Piece],
    homes: &[Option<Home>],
    sizes: &[u64],
    most: impl Fn(usize) -> usize,
    bounds: Bounds,
) -> Vec<Window> {
    let limit = bounds.binding_bytes / QUAD_BYTES * QUAD_BYTES;
    let mut windows = Vec::new();
    let mut open: Option<(Range<usize>, Bound)> = None;
    let reaches = |piece: &Piece| {
        let home = homes[piece.tensor]?;
        let of = |place: Place, format: DType| reach(place, piece.access, format, piece, sizes);
        Some([
            Some(of(home.param, piece.formats.param)),
            home.grad.map(|place| of(place, piece.formats.grad)),
            home.out.map(|place| of(place, piece.formats.param)),
        ])
    };
    let mut close = |open: &mut Option<(Range<usize>, Bound)>| {
        if let Some((range, bound)) = open.take() {
            windows.push(window(pieces, range, bound, &reaches));
        }
    };
    let of_grads = grad_buffers(homes, sizes, limit);
    for (i, piece) in pieces.iter().enumerate() {
        let Some(values) = reaches(piece) else { continue };
        let with = |mut bound: Bound| {
            let is_new = bound.spans.is_empty();
            values.iter().flatten().for_each(|reach| bound.bind(reach.span, sizes, limit));
            if is_new && (2..=most(piece.variant) / 2).contains(&of_grads.len()) {
                of_grads.iter().for_each(|&span| bound.bind(span, sizes, limit));
            }
            bound.copies |= values[2].is_some();
            bound
        };
        let joins = |range: &Range<usize>| pieces[range.start].shares_with(piece);
        // Most pieces need no page that is not bound already.
        if let Some((range, bound)) = open.as_mut().filter(|(range, bound)| joins(range) && bound.holds(&values)) {
            bound.copies |= values[2].is_some();
            range.end = i + 1;
            continue;
        }
        let joined = open.as_ref().filter(|(range, _)| joins(range)).and_then(|(range, bound)| {
            let bound = with(bound.clone());
            let least = 2 + usize::from(bound.copies);
            (bound.spans.len() <= most(piece.variant).max(least)).then_some((range.start..i + 1, bound))
        });
        if joined.is_none() {
            close(&mut open);
        }
        open = Some(joined.unwrap_or_else(|| (i..i + 1, with(Bound::default()))));
    }
    close(&mut open);
    windows
}

/// Returns all buffers of gradients that a binding holds whole. Where they are few, every window binds all of them, so
/// that gradients which change places among them change no binding.
fn grad_buffers(homes: &[Option<Home>], sizes: &[u64], limit: u64) -> Vec<Span> {
    let buffers: BTreeSet<usize> =
        homes.iter().flatten().filter_map(|home| home.grad).map(|place| place.buffer).collect();
    let whole = |buffer: usize| Span { buffer, offset: 0, size: sizes[buffer] / 4 * 4 };
    buffers.into_iter().filter(|&buffer| (QUAD_BYTES..=limit).contains(&sizes[buffer])).map(whole).collect()
}

fn window(
    pieces: &[Piece],
    range: Range<usize>,
    bound: Bound,
    reaches: &impl Fn(&Piece) -> Option<[Option<Reach>; 3]>,
) -> Window {
    let row = |piece: &Piece| {
        let Some([Some(param), grad, out]) = reaches(piece) else {
            let mut row = [0; row::LEN];
            row[row::OUT_PAGE] = ABSENT;
            return row;
        };
        let mut row = [0; row::LEN];
        let mut set = |reach: Reach, [at, page_at]: [usize; 2]| {
            let (page, offset) = bound.find(reach.span);
            // The piece's first element is not the tensor's.
            row[at] = ((reach.start - offset) / reach.size).wrapping_sub(piece.first) as u32;
            row[page_at] = page as u32;
        };
        set(param, [row::PARAM, row::PARAM_PAGE]);
        set(out.unwrap_or(param), [row::OUT, row::OUT_PAGE]);
        if let Some(grad) = grad {
            set(grad, [row::GRAD, row::GRAD_PAGE]);
        }
        row
    };
    let rows: Vec<Row> = pieces[range.clone()].iter().map(row).collect();
    let present = || rows.iter().filter(|row| row[row::OUT_PAGE] != ABSENT);
    let has_grads = pieces[range.clone()].iter().filter_map(reaches).any(|values| values[1].is_some());
    // A buffer that a dispatch writes it cannot bind for reading alone.
    let are_apart =
        bound.spans.last().is_some_and(|last| bound.spans.len() == 1 || last.buffer != bound.spans[0].buffer)
            && present().all(|row| row[row::PARAM_PAGE] == 0 && row[row::GRAD_PAGE] == u32::from(has_grads));
    let pages = match bound.spans.len() {
        1 if has_grads && !bound.copies => Pages::Shared,
        1 | 2 if are_apart && !bound.copies => Pages::Apart,
        // What an update out of place needs.
        3 => Pages::Many(3),
        count => Pages::Many(count.next_power_of_two() as u32),
    };
    let short = pieces[range.clone()].iter().take_while(|piece| piece.len <= SHORT).count();
    Window {
        like: pieces[range.start].clone(),
        pages,
        spans: bound.spans,
        copies: bound.copies,
        entries: pieces[range.start].entries.start..pieces[range.end - 1].entries.end,
        short: if short < SHORT_LEAST { 0 } else { short },
        first: range.start,
        rows,
    }
}
