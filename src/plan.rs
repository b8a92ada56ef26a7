//! Plans: which dispatches a step needs, over which buffers. Only arithmetic over sizes and limits may live here; it
//! knows no wgpu.
//!
//! A tensor is cut into chunks of a power of two of blocks; a workgroup takes one chunk, an entry of the chunk table.
//! The chunks that a binding holds whole make up a piece. Sizes alone decide all this, so the table outlives every move
//! of a buffer. Where the values of a piece lie is a row of words that travels with the step, and pieces whose buffers
//! the device can bind together share a window: one set of bindings, one dispatch a pass. Partial sums are added in a
//! binary tree over the blocks of a tensor, so where the cuts fall changes no bit. Passes over rows and columns go by
//! tiles of matrices, whose size is a constant.

mod cut;
mod place;
mod table;

use std::ops::Range;

pub use place::{Home, Row, Span, Window, place};
pub use table::{Dispatch, Table};

use crate::error::{Error, Result, refuse};
use crate::lines::Lines;
use crate::product::Frame;
use crate::sides::{EDGE, Parts, Renewal, Side, Turning};
use crate::storage::Room;
use crate::tensor::{ALIGNMENT, Access, BLOCK, Formats, TensorSpec};
use crate::words::{ModelSums, TensorSums, part};
use cut::{cut, cut_bases, cut_grams, cut_lines, cut_product, cut_tiles, cut_turn, state_bytes};

/// Bytes of four elements in f32: what a lane of the vec4 kernel reads and writes.
const QUAD_BYTES: u64 = 16;

/// The most elements of a chunk that is short. A walk of sums or norms may take [`SIDE_BY_SIDE`] of them a workgroup.
pub const SHORT: u64 = BLOCK as u64 / 4;

/// How many short chunks a workgroup takes. Twin: `shaders/skeletons/chunks.wgsl`.
pub const SIDE_BY_SIDE: u64 = 8;

/// So many short tensors are worth a dispatch of their own.
pub(crate) const SHORT_LEAST: usize = 32;

/// The bounds that a plan keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `max_storage_buffer_binding_size`.
    pub binding_bytes: u64,
    /// `max_compute_workgroups_per_dimension`.
    pub workgroups: u32,
    /// The most blocks of a chunk, a power of two up to 8.
    pub chunk_blocks: u32,
    /// The most bytes that one dispatch reads and writes.
    pub dispatch_bytes: u64,
}

impl Bounds {
    /// Bounds whose chunks have `wanted_blocks` blocks, or fewer where a binding holds the state of fewer. `block_max`
    /// is the most [bytes of a block](block_bytes).
    pub fn new(binding_bytes: u64, workgroups: u32, wanted_blocks: u32, block_max: u64) -> Self {
        let fitting = (binding_bytes.saturating_sub(ALIGNMENT) / block_max).max(1);
        let chunk_blocks = wanted_blocks.min(1 << fitting.min(8).ilog2());
        Self { binding_bytes, workgroups, chunk_blocks, dispatch_bytes: u64::MAX }
    }

    /// Elements of a chunk.
    pub fn chunk_len(&self) -> u64 {
        u64::from(self.chunk_blocks) * BLOCK as u64
    }

    /// How many partial results the chunks of a tensor of so many elements leave: one each, but none where a single
    /// chunk has the whole result.
    pub fn partials(&self, len: u64) -> u64 {
        match len.div_ceil(self.chunk_len()) {
            1 => 0,
            chunks => chunks,
        }
    }

    /// How many elements a piece has at most, in a tensor whose state takes this room: as many whole chunks as a
    /// binding holds the state of, and the parameters of, wherever they start.
    pub fn piece_len(&self, state: Room) -> u64 {
        let bytes = self.binding_bytes.saturating_sub(ALIGNMENT);
        (bytes / block_bytes(state) / u64::from(self.chunk_blocks)).max(1) * self.chunk_len()
    }
}

/// The bytes of a block in the buffer in which it is largest: the state, or the parameters.
pub fn block_bytes(state: Room) -> u64 {
    state.bytes(BLOCK as u64).max(4 * BLOCK as u64)
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

/// Packs the state of tensors, given with their elements and the room of their state, into pages that a binding holds,
/// and returns where each piece of each tensor has its state, and the pages' sizes.
pub fn pack_state(tensors: &[(u64, Room)], bounds: Bounds) -> (Vec<Vec<Place>>, Vec<u64>) {
    let most = bounds.binding_bytes / QUAD_BYTES * QUAD_BYTES;
    let mut pages: Vec<u64> = Vec::new();
    let mut place = |size: u64| {
        if pages.last().is_none_or(|used| used + size > most) {
            pages.push(0);
        }
        let buffer = pages.len() - 1;
        pages[buffer] += size;
        Place { buffer, offset: pages[buffer] - size }
    };
    let of = |&(len, room): &(u64, Room)| match room.is_empty() {
        true => vec![],
        false => state_bytes(len, room, bounds).map(&mut place).collect(),
    };
    (tensors.iter().map(of).collect(), pages)
}

/// The elements of a tensor with the padding of its last block; the sum saturates.
pub fn padded(len_elements: u64) -> u64 {
    len_elements.checked_next_multiple_of(4).unwrap_or(u64::MAX)
}

/// A tensor, as a plan of a step sees it.
#[derive(Clone, Debug)]
pub struct Item {
    /// The tensor's place in the list.
    pub tensor: usize,
    /// How many elements it has. A tensor without any has no chunk.
    pub len: u64,
    /// Which pipeline it needs. Variants do not share a dispatch.
    pub variant: usize,
    /// Its stream of random numbers.
    pub stream: u32,
    /// How its parameters and gradients can be read.
    pub access: Access,
    /// How its parameters and gradients are stored. Formats do not share a dispatch.
    pub formats: Formats,
    /// What its state takes.
    pub room: Room,
    /// Where the state of each of its pieces lies ([`pack_state`]); empty where none is bound.
    pub state: Vec<Place>,
    /// Where its rule keeps numbers of rows and columns. The numbers of its rows stand at this place, then those of its
    /// columns, then what elements see of its rows.
    pub lines: Option<(Place, Lines)>,
    /// How many words a partial result of its sums has; 0 where it has no sums.
    pub partial_words: u64,
    /// Whether its rule has sums; else its partial results come from norms alone.
    pub sums: bool,
    /// Whether its gradients are measured.
    pub measured: bool,
    /// Whether its rule sums over the model.
    pub of_model: bool,
    /// Its matrix, where its rule takes products.
    pub product: Option<Framed>,
    /// Its sides, where its rule turns them.
    pub sides: Option<Sided>,
}

/// A matrix of which products are taken.
#[derive(Clone, Copy, Debug)]
pub struct Framed {
    /// Where the parts of its iteration start in the pages of work.
    pub place: Place,
    /// The tensor as one matrix.
    pub lines: Lines,
    /// Whether the first product finds `X` at the second of its two places.
    pub is_second: bool,
}

/// A tensor that is turned into the bases of its sides.
#[derive(Clone, Debug)]
pub struct Sided {
    /// Where its parts start in the pages of work.
    pub place: Place,
    /// Its sides.
    pub sides: Vec<Side>,
    /// Its parts.
    pub parts: Parts,
}

impl Item {
    /// The page of work that it needs.
    fn work(&self) -> Option<usize> {
        let sided = self.sides.as_ref().map(|sided| sided.place);
        self.product.map(|framed| framed.place).or(sided).map(|place| place.buffer)
    }

    /// What tensors that share a dispatch have in common.
    fn kind(&self) -> (usize, Access, Formats) {
        (self.variant, self.access, self.formats)
    }
}

impl Framed {
    /// The place behind its parts.
    pub fn behind(&self) -> Place {
        let Place { buffer, offset } = self.place;
        Place { buffer, offset: offset + 4 * Frame::of(&self.lines).words() }
    }
}

/// Adjacent elements of a tensor, whose parameters, gradients and state a binding holds whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The tensor.
    pub tensor: usize,
    /// The pipeline's variant.
    pub variant: usize,
    /// How parameters and gradients are read.
    pub access: Access,
    /// How parameters and gradients are stored.
    pub formats: Formats,
    /// The first element.
    pub first: u64,
    /// How many elements there are from the first to the last one.
    pub len: u64,
    /// The page that holds its state.
    pub state: Option<usize>,
    /// The page that holds the numbers of its rows and columns.
    pub lines: Option<usize>,
    /// The page that holds its matrix of products, or its sides.
    pub work: Option<usize>,
    /// Its entries in the table.
    pub entries: Range<usize>,
    /// Whether an entry of its kind ends within a vector of four.
    pub tails: bool,
    /// Whether four elements may lie in several rows of a matrix, in a piece of its kind.
    pub crossings: bool,
}

impl Piece {
    /// A piece of this tensor that has no elements yet.
    fn of(item: &Item) -> Self {
        Self {
            tensor: item.tensor,
            variant: item.variant,
            access: item.access,
            formats: item.formats,
            first: 0,
            len: 0,
            state: None,
            lines: item.lines.map(|(place, _)| place.buffer),
            work: item.work(),
            entries: 0..0,
            tails: false,
            crossings: item.lines.is_some_and(|(_, lines)| lines.columns % 4 != 0),
        }
    }

    fn kind(&self) -> (usize, Access, Formats) {
        (self.variant, self.access, self.formats)
    }

    /// Whether one dispatch may walk over both.
    fn shares_with(&self, other: &Self) -> bool {
        let pages = |piece: &Self| (piece.state, piece.lines, piece.work);
        (self.kind(), pages(self)) == (other.kind(), pages(other))
    }
}

/// Dispatches over sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverSides {
    /// The pipeline's variant.
    pub variant: usize,
    /// The page of work.
    pub page: usize,
    /// What the dispatches walk over, one behind the other: entries, and bytes for each number of an entry. A product
    /// that a sum adds up counts as a byte.
    pub entries: Vec<(Range<usize>, u64)>,
    /// How often all of them are encoded, one time behind the other.
    pub times: u64,
    /// Steps that renew no basis in this way do without them; `None` for those of every step.
    pub only: Option<Renewal>,
}

/// What the dispatches of a step walk over. Sizes alone decide it; [`place`] adds where values lie.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The tensors' chunks, in the order of the dispatches.
    pub chunks: Vec<Piece>,
    /// The tiles of tensors with lines.
    pub tiles: Vec<Piece>,
    /// For the lines of matrices that are larger than a tile: variant, page of lines, and entries.
    pub lines: Vec<(usize, usize, Range<usize>)>,
    /// For the tiles of products, a list for each of `A`, `B` and `X`: variant, page of work, and entries.
    pub products: [Vec<(usize, usize, Range<usize>)>; 3],
    /// The Gram matrices of sides.
    pub grams: Vec<OverSides>,
    /// The turns [into the bases, back, and of the bases](crate::rule::Turning). Those that a turn comes behind stand
    /// before it.
    pub turns: [Vec<OverSides>; 3],
    /// The new bases of sides, in the order of the dispatches.
    pub bases: Vec<OverSides>,
    /// For each variant that has sums, the entries of its tensors.
    pub finishes: Vec<(usize, Range<usize>)>,
    /// The entry of the sums of all tensors, where a rule sums over the model.
    pub model: Range<usize>,
    /// The entries of all tensors whose norms are measured.
    pub norms: Range<usize>,
    /// The chunk table.
    pub table: Table,
    /// Bytes of the table that a dispatch binds.
    pub table_bytes: u64,
    /// Words of partial results.
    pub partial_words: u64,
}

impl Plan {
    /// The dispatches over some entries of the table, of which a workgroup takes so many, by a walk that moves so many
    /// bytes of memory for each element.
    pub fn dispatches(
        &self,
        entries: Range<usize>,
        of_group: u64,
        element_bytes: u64,
        bounds: Bounds,
    ) -> Vec<Dispatch> {
        table::dispatches(entries, of_group, &self.table, element_bytes, bounds)
    }
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
    let block_max = items.iter().map(|item| block_bytes(item.room)).max().unwrap_or(block_bytes(Room::default()));
    // A chunk's subtree of sums is whole only where the chunk starts at a multiple of its own length.
    let needed = u64::from(bounds.chunk_blocks) * block_max + ALIGNMENT;
    if limit < needed {
        return Err(Error::Limit { limit: "max_storage_buffer_binding_size", found: bounds.binding_bytes, needed });
    }
    let mut plan = Plan::default();
    let mut table = Table::default();
    let mut order: Vec<&Item> = items.iter().filter(|item| item.len > 0).collect();
    order.sort_by_key(|item| item.kind());
    // Where many short tensors are summed, they come first, so that walks of sums can take them by themselves.
    let is_short = |item: &&Item| item.len <= SHORT && (item.sums || item.measured);
    for same in order.chunk_by_mut(|a, b| a.kind() == b.kind()) {
        if same.iter().filter(|item| is_short(item)).count() >= SHORT_LEAST {
            same.sort_by_key(|item| !is_short(item));
        }
    }
    let mut partial = partials;
    for item in &order {
        cut(item, bounds, &mut partial, &mut table, &mut plan.chunks);
    }
    let with_lines = || order.iter().filter_map(|item| item.lines.map(|(place, lines)| (item, place, lines)));
    let (mut share, mut again) = (partial, partial);
    for (item, place, lines) in with_lines() {
        check_lines(&lines, bounds.binding_bytes)?;
        cut_tiles(item, place, lines, bounds, &mut share, &mut table, &mut plan.tiles);
    }
    for (item, place, lines) in with_lines() {
        let first = table.len();
        cut_lines(item, place, lines, &mut again, &mut table);
        match plan.lines.last_mut() {
            Some((variant, page, entries)) if (*variant, *page) == (item.variant, place.buffer) => {
                entries.end = table.len()
            }
            _ if table.len() > first => plan.lines.push((item.variant, place.buffer, first..table.len())),
            _ => {}
        }
    }
    for pieces in [&mut plan.chunks, &mut plan.tiles] {
        for same in pieces.chunk_by_mut(|a, b| a.kind() == b.kind()) {
            let tails = same.iter().any(|piece| piece.tails);
            let crossings = same.iter().any(|piece| piece.crossings);
            same.iter_mut().for_each(|piece| (piece.tails, piece.crossings) = (tails, crossings));
        }
    }
    for (kind, parts) in plan.products.iter_mut().enumerate() {
        for (item, framed) in order.iter().filter_map(|item| Some((item, item.product?))) {
            let first = table.len();
            cut_product(item, framed, kind, &mut table);
            match parts.last_mut() {
                Some((variant, page, entries)) if (*variant, *page) == (item.variant, framed.place.buffer) => {
                    entries.end = table.len()
                }
                _ => parts.push((item.variant, framed.place.buffer, first..table.len())),
            }
        }
    }
    let sided: Vec<_> = order.iter().filter_map(|item| Some((*item, item.sides.as_ref()?))).collect();
    for same in sided.chunk_by(|a, b| (a.0.variant, a.0.work()) == (b.0.variant, b.0.work())) {
        plan_sides(same, &mut table, &mut plan);
    }
    // Tensors come in the order in which their chunks took partial results.
    let mut first = partials;
    let sums = |item: &&Item| {
        let (partials, stride) = (bounds.partials(item.len), item.partial_words);
        let [rows, columns] = item.product.map_or([0, 0], |framed| [framed.lines.rows, framed.lines.columns]);
        let tensor = item.tensor as u64;
        let sums = TensorSums { tensor, len: item.len, partials, stride, partial: first, rows, columns };
        first += stride * partials;
        (item.variant, item.sums, sums)
    };
    let has_partials = |item: &&&Item| item.partial_words > 0 && bounds.partials(item.len) > 0;
    let all: Vec<_> = order.iter().filter(has_partials).map(sums).collect();
    let mut push = |list: &mut dyn Iterator<Item = TensorSums>| {
        let first = table.len();
        list.for_each(|sums| table.push(sums));
        first..table.len()
    };
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let entries = push(&mut same.iter().filter(|sums| sums.1).map(|sums| sums.2));
        if !entries.is_empty() {
            plan.finishes.push((same[0].0, entries));
        }
    }
    if order.iter().any(|item| item.measured) {
        plan.norms = push(&mut all.iter().map(|sums| sums.2));
    }
    if let Some(last) = items.iter().filter(|item| item.of_model).map(|item| item.tensor as u64).max() {
        table.push(ModelSums { tensor: 0, len: 1, tensors: last + 1 });
        plan.model = table.len() - 1..table.len();
    }
    plan.table_bytes = table.finish(bounds);
    plan.table = table;
    plan.partial_words = share - partials;
    Ok(plan)
}

/// Plans the dispatches over the sides of tensors that share a variant and a page of work.
fn plan_sides(same: &[(&Item, &Sided)], table: &mut Table, plan: &mut Plan) {
    let sides = || same.iter().flat_map(|(_, sided)| &sided.sides);
    let Some(largest) = sides().max_by_key(|side| side.size) else { return };
    let slice = sides().map(|side| side.len / side.size).max().unwrap_or(0);
    let mut walk = |cut: &dyn Fn(&Item, &Sided, &mut Table), bytes: u64| {
        let first = table.len();
        same.iter().for_each(|(item, sided)| cut(item, sided, table));
        (first..table.len(), bytes)
    };
    let over = |entries: Vec<(Range<usize>, u64)>, times: u64, only: Option<Renewal>| OverSides {
        variant: same[0].0.variant,
        page: same[0].1.place.buffer,
        entries,
        times,
        only,
    };
    plan.grams.push(over(vec![walk(&cut_grams, slice)], 1, None));
    let most = same.iter().map(|(_, sided)| sided.sides.len()).max().unwrap_or(0);
    let power = Some(Renewal::Power);
    for (turning, stages, only) in
        [(Turning::Into, most, None), (Turning::Back, most, None), (Turning::Power, 1, power)]
    {
        for stage in 0..stages {
            let cut = |item: &Item, sided: &Sided, table: &mut Table| cut_turn(item, sided, turning, stage, table);
            plan.turns[turning.kind()].push(over(vec![walk(&cut, largest.size)], 1, only));
        }
    }
    // A number of a tile is turned twice, and one of a column takes the reflections of a tile.
    let products = 2 * EDGE as u64;
    let mut of_bases = |parts: &[u64]| {
        let cut = |item: &Item, sided: &Sided, table: &mut Table| cut_bases(item, sided, parts, table);
        walk(&cut, products)
    };
    let mut renew = |renewal: Renewal, start: u64, parts: &[&[u64]]| {
        plan.bases.push(over(vec![of_bases(&[start])], 1, Some(renewal)));
        let rounds = parts.iter().map(|parts| of_bases(parts)).collect();
        plan.bases.push(over(rounds, largest.rounds(renewal), Some(renewal)));
    };
    renew(Renewal::Eigenvectors, part::COPY, &[&[part::PAIRS], &[part::BLOCKS, part::VECTORS]]);
    renew(Renewal::Power, part::SCALE, &[&[part::REFLECTIONS]]);
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
mod tests;
