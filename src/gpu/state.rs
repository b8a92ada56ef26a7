//! Where the values of state slots lie on the device, and how they are read, set, and taken over.

use super::engine::Engine;
use super::transfer::{Part, parts};
use super::{Piece, floats};
use crate::course;
use crate::error::Result;
use crate::groups::Groups;
use crate::plan::{Place, Sided, padded};
use crate::rule::Extent;
use crate::session::check_len;
use crate::shader::{block_numbers, element_slots, model_numbers, place_of};
use crate::tensor::BLOCK;
use crate::words::{control, tensor};

impl Engine {
    /// Reads the values of a slot.
    pub(crate) async fn state(&self, groups: &Groups, i: usize, slot: &str, wait: bool) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for part in self.parts(groups, i, slot)? {
            values.extend(floats(&self.read_part(&part, wait).await?));
        }
        Ok(values)
    }

    /// Sets the values of a slot, before any work that is not yet submitted.
    pub(crate) fn set_state(&self, groups: &Groups, i: usize, slot: &str, values: &[f32]) -> Result<()> {
        let parts = self.parts(groups, i, slot)?;
        let len = parts.iter().map(Part::size_bytes).sum::<u64>() as usize / 4;
        check_len(&format!("state {slot}"), &self.tensors[i].name, values.len(), len)?;
        let mut rest: &[u8] = bytemuck::cast_slice(values);
        for part in &parts {
            let (here, behind) = rest.split_at(part.size_bytes() as usize);
            self.gpu.write_part(part, here)?;
            rest = behind;
        }
        Ok(())
    }

    /// A slot's values, in order, in parts that go to the device or from it one by one.
    pub(crate) fn parts(&self, groups: &Groups, i: usize, slot: &str) -> Result<Vec<Part<'_>>> {
        Ok(self.pieces(groups, i, slot)?.into_iter().flat_map(|(buffer, pieces)| parts(buffer, pieces)).collect())
    }

    /// The bytes of a part.
    pub(crate) async fn read_part(&self, part: &Part<'_>, wait: bool) -> Result<Vec<u8>> {
        self.gpu.read(part.buffer, &part.pieces, wait).await
    }

    /// Fills a slot with the values it starts at, by copies of one block of them.
    pub(super) fn start_slot(&self, groups: &Groups, i: usize, slot: &str, start: f64) -> Result<()> {
        let block = vec![start as f32; BLOCK];
        for (buffer, pieces) in self.pieces(groups, i, slot)? {
            self.gpu.scoped_now(|| self.gpu.fill(buffer, &pieces, bytemuck::cast_slice(&block)))?;
        }
        Ok(())
    }

    /// Where a slot's values lie, in order: buffers, and the pieces of each. A slot without elements has none.
    fn pieces(&self, groups: &Groups, i: usize, name: &str) -> Result<Vec<(&wgpu::Buffer, Vec<Piece>)>> {
        let (slot, place) = groups.find_slot(i, &self.tensors[i].name, name)?;
        let rule = groups.rule_of(i);
        if let Extent::Model | Extent::Products(_) = slot.extent {
            let numbers = slot.extent.shape(&[]).into_iter().product::<usize>();
            let piece = (4 * place as u64, 4 * numbers as u64);
            return Ok(self.scratch.iter().map(|scratch| (scratch, vec![piece])).collect());
        }
        if slot.extent == Extent::Tensor {
            let words = self.tensor_numbers();
            return Ok(self
                .scratch
                .iter()
                .map(|scratch| (scratch, vec![(4 * (i * words + place) as u64, 4)]))
                .collect());
        }
        if let (Some(sided), Extent::Sides(_)) = (&self.sides[i], slot.extent) {
            let first = if name == "gram" { sided.parts.grams() } else { sided.parts.bases() };
            let piece = (sided.place.offset + 4 * first, 4 * sided.parts.matrices());
            let pieces = if piece.1 == 0 { vec![] } else { vec![piece] };
            return Ok(self.work_page(i).map(|page| (page, pieces)).into_iter().collect());
        }
        if let (Some(lines), true) = (self.lines[i], slot.extent.is_line()) {
            let [rows, columns] = lines.counts().map(|numbers| 4 * numbers);
            let piece = |offset| if slot.extent == Extent::Column { (offset + rows, columns) } else { (offset, rows) };
            return Ok(self.line_place(i).map(|(page, offset)| (page, vec![piece(offset)])).into_iter().collect());
        }
        if let (true, Some(arena)) = (slot.name == "accumulated", &self.accumulated) {
            let slice = arena.slice_at(i);
            let pieces = if slice.size == 0 { vec![] } else { vec![(slice.offset, slice.size)] };
            return Ok(vec![(slice.buffer, pieces)]);
        }
        let elements = element_slots(rule, &self.variants[self.variant_of[i]].wrappers);
        let (place, all) = (place_of(&elements, name).unwrap_or(0), block_numbers(&elements) as u64);
        let of_piece = |index: u64| {
            move |(page, start, len): (_, u64, u64)| {
                let block = |(first, count, span)| (start + 4 * (first * all + index * span), 4 * count);
                (page, blocks(len).map(block).collect())
            }
        };
        let numbers = place..place + slot.extent.of_element();
        Ok(numbers.flat_map(|index| self.state_of(i).map(of_piece(index as u64))).collect())
    }

    /// The pieces of a tensor's state, each with its page, first byte, and elements.
    fn state_of(&self, i: usize) -> impl Iterator<Item = (&wgpu::Buffer, u64, u64)> {
        let (len, most) = (self.tensors[i].len_elements(), self.piece_len(i));
        let piece = move |(n, place): (usize, &Place)| {
            (&self.state_pages[place.buffer], place.offset, most.min(len - n as u64 * most))
        };
        self.state_places[i].iter().enumerate().map(piece)
    }

    fn piece_len(&self, i: usize) -> u64 {
        self.bounds.piece_len(self.variants[self.variant_of[i]].slots)
    }

    /// The page of work that a tensor with sides has.
    fn work_page(&self, i: usize) -> Option<&wgpu::Buffer> {
        self.sides[i].as_ref().and_then(|sided| self.work_pages.get(sided.place.buffer))
    }

    /// Where the Gram matrices and bases of a tensor lie.
    fn matrices(&self, i: usize) -> Option<(&wgpu::Buffer, u64)> {
        let at = |sided: &Sided| sided.place.offset + 4 * sided.parts.grams();
        self.work_page(i).zip(self.sides[i].as_ref().map(at))
    }

    fn line_place(&self, i: usize) -> Option<(&wgpu::Buffer, u64)> {
        let Place { buffer, offset } = self.line_places[i];
        let pages = if self.frames[i].is_some() { &self.work_pages } else { &self.line_pages };
        self.lines[i].and(pages.get(buffer)).map(|page| (page, offset))
    }

    /// Takes over what another engine of the first of these tensors holds: state, numbers, and the decisions on the
    /// device.
    pub(crate) fn take_over(&self, groups: &Groups, other: &Self) -> Result<()> {
        self.gpu.scoped_now(|| {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let mut copy = |from: Option<(&wgpu::Buffer, u64)>, to: Option<(&wgpu::Buffer, u64)>, bytes: u64| {
                if let (Some((from, first)), Some((to, start)), true) = (from, to, bytes > 0) {
                    encoder.copy_buffer_to_buffer(from, first, to, start, bytes);
                }
            };
            let in_scratch = |engine: &Self| engine.scratch.clone();
            let (old, new) = (in_scratch(other), in_scratch(self));
            let of_model = 4 * model_numbers(groups.rule(0)) as u64;
            copy(old.as_ref().map(|buffer| (buffer, 0)), new.as_ref().map(|buffer| (buffer, 0)), of_model);
            for i in 0..other.tensors.len() {
                let slots = self.variants[self.variant_of[i]].slots;
                // Both have the same pieces, since both have the same bounds.
                for ((from, first, len), (to, start, _)) in other.state_of(i).zip(self.state_of(i)) {
                    copy(Some((from, first)), Some((to, start)), 4 * slots * padded(len));
                }
                let [from, to] = [other, self].map(|engine| 4 * engine.tensor_numbers() as u64);
                let [old_place, new_place] = [from, to].map(|numbers| of_model + numbers * i as u64);
                let old = old.as_ref().map(|buffer| (buffer, old_place));
                copy(old, new.as_ref().map(|buffer| (buffer, new_place)), from.min(to));
                let bytes = self.lines[i].map_or(0, |lines| 4 * lines.words());
                copy(other.line_place(i), self.line_place(i), bytes);
                copy(
                    other.matrices(i),
                    self.matrices(i),
                    self.sides[i].as_ref().map_or(0, |sided| 8 * sided.parts.matrices()),
                );
            }
            let [from, to] = [other, self].map(|engine| course::layout(engine.tensors.len(), groups));
            if let (Some(old), Some(new)) = (&other.control, &self.control) {
                let kept = control::LEN + tensor::LEN * other.tensors.len();
                copy(Some((old, 0)), Some((new, 0)), 4 * kept as u64);
                let options = 4 * self.wrappers.on_device.len() as u64;
                copy(Some((old, 4 * from.options as u64)), Some((new, 4 * to.options as u64)), options);
            }
            self.gpu.queue().submit([encoder.finish()]);
        })
    }
}

/// The blocks of so many elements: each one's first element, its elements, and its elements with padding.
fn blocks(len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (0..len).step_by(BLOCK).map(move |first| {
        let count = (len - first).min(BLOCK as u64);
        (first, count, padded(count))
    })
}
