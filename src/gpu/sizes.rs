//! How large the buffers are that an optimizer owns, and what lies where in them: arithmetic over tensors, groups and
//! limits, before any buffer is made.

use super::limits::{WorkPages, check_lanes, check_limits, scratch_words, work_pages};
use super::variants::{Variant, variants};
use super::{BINDING_BYTES_MAX, Tuning, arena, page_bytes};
use crate::course;
use crate::error::{Error, Result};
use crate::groups::Groups;
use crate::lines::Lines;
use crate::plan::{Bounds, Framed, Place, Sided, block_bytes, check_lines, pack, pack_state};
use crate::storage::Room;
use crate::tensor::TensorSpec;

/// Places and sizes of all that an optimizer allocates.
#[derive(Debug)]
pub(crate) struct Sizes {
    pub(super) variants: Vec<Variant>,
    pub(super) variant_of: Vec<usize>,
    pub(super) bounds: Bounds,
    /// Where the pieces of each tensor's state lie, and the pages' bytes.
    pub(super) state_places: Vec<Vec<Place>>,
    pub(super) state: Vec<u64>,
    /// The rows and columns of the tensors whose rule has numbers of them; where they lie, and the pages' bytes.
    pub(super) lines: Vec<Option<Lines>>,
    pub(super) line_places: Vec<Place>,
    pub(super) line: Vec<u64>,
    /// The matrices of which rules take products, and the pages' bytes.
    pub(super) frames: Vec<Option<Framed>>,
    /// The tensors that rules turn.
    pub(super) sides: Vec<Option<Sided>>,
    pub(super) work: Vec<u64>,
    /// Bytes of the numbers of the tensors and of partial results.
    pub(super) scratch: u64,
    /// Bytes of the buffer `control`; 0 where the device decides nothing.
    pub(super) control: u64,
    /// Bytes of the sums of micro-batches.
    accumulated: u64,
}

impl Sizes {
    /// The sizes for these tensors on a device with these limits.
    ///
    /// # Errors
    /// [`Error::Limit`] and [`Error::TooLarge`] for what the device cannot hold or bind.
    pub(crate) fn of(limits: &wgpu::Limits, tuning: Tuning, tensors: &[TensorSpec], groups: &Groups) -> Result<Self> {
        let (variants, variant_of) = variants(groups, tuning.lanes, limits);
        let page_bytes = page_bytes(limits);
        let binding_bytes = limits.max_storage_buffer_binding_size.min(BINDING_BYTES_MAX).min(page_bytes);
        let blocks = variants.iter().map(|variant| block_bytes(variant.layout.room()));
        let block_max = blocks.max().unwrap_or(block_bytes(Room::default()));
        let workgroups = limits.max_compute_workgroups_per_dimension;
        let bounds = Bounds::new(binding_bytes, workgroups, tuning.chunk_blocks, block_max);
        let bounds = Bounds { dispatch_bytes: tuning.dispatch_bytes, ..bounds };
        check_limits(limits, &variants)?;
        check_lanes(tuning.lanes, &variants)?;
        let has_lines = |i: &usize| groups.rule_of(*i).has_lines();
        let lines_of = |i: usize| Some(i).filter(has_lines).and_then(|i| groups.lines_of(i));
        let lines: Vec<_> = (0..tensors.len()).map(lines_of).collect();
        for (tensor, lines) in tensors.iter().zip(&lines) {
            let too_large = |what, size_bytes, page_bytes| {
                Err(Error::TooLarge { tensor: tensor.name.clone(), what, size_bytes, page_bytes })
            };
            if tensor.size_bytes() > page_bytes {
                return too_large("values", tensor.size_bytes(), page_bytes);
            }
            if let Some(Err(Error::Limit { found, needed, .. })) = lines.map(|l| check_lines(&l, binding_bytes)) {
                return too_large("rows and columns", needed, found);
            }
        }
        let state_of =
            |(tensor, &variant): (&TensorSpec, &usize)| (tensor.len_elements(), variants[variant].layout.room());
        let of_state: Vec<_> = tensors.iter().zip(&variant_of).map(state_of).collect();
        let (state_places, state) = pack_state(&of_state, bounds);
        let WorkPages { frames, sides, sizes: work } = work_pages(tensors, groups, page_bytes.min(binding_bytes))?;
        for (tensor, sided) in tensors.iter().zip(&sides) {
            let sides = sided.iter().flat_map(|sided| &sided.sides);
            sides.into_iter().try_for_each(|side| side.check(&tensor.name))?;
        }
        let apart = |i: usize| lines[i].filter(|_| frames[i].is_none());
        let size = |i: usize| apart(i).map_or(0, |lines: Lines| lines.words().saturating_mul(4));
        let (mut line_places, line) = pack(tensors, "rows and columns", size, 16, binding_bytes / 16 * 16)?;
        for (place, framed) in line_places.iter_mut().zip(&frames) {
            if let Some(framed) = framed {
                *place = framed.behind();
            }
        }
        let scratch = scratch_words(tensors, groups, &lines, bounds).saturating_mul(4);
        let wrappers = groups.wrappers();
        let words = course::layout(tensors.len(), groups).words() as u64;
        let control = if wrappers.is_controlled() { 4 * words } else { 0 };
        for needed in [scratch, control] {
            if needed > binding_bytes {
                return Err(Error::Limit { limit: "max_storage_buffer_binding_size", found: binding_bytes, needed });
            }
        }
        let accumulated = match wrappers.batches() {
            1 => 0,
            _ => arena::pages(&tensors.iter().map(TensorSpec::summed_spec).collect::<Vec<_>>(), page_bytes)?
                .1
                .iter()
                .sum(),
        };
        Ok(Self {
            variants,
            variant_of,
            bounds,
            state_places,
            state,
            lines,
            line_places,
            line,
            frames,
            sides,
            work,
            scratch,
            control,
            accumulated,
        })
    }

    /// Bytes of the state, of the sums of micro-batches, and of scratch.
    pub(crate) fn memory(&self) -> [u64; 3] {
        let of_lines = self.lines.iter().flatten().flat_map(Lines::counts).map(|numbers| 4 * numbers);
        let of_sides = self.sides.iter().flatten().map(|sided| 8 * sided.parts.matrices());
        let kept: u64 = of_lines.chain(of_sides).sum();
        let sum = |sizes: &[u64]| sizes.iter().sum::<u64>();
        let scratch = self.scratch + self.control + sum(&self.line) + sum(&self.work) - kept;
        [sum(&self.state) + kept, self.accumulated, scratch]
    }
}
