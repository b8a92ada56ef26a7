//! Where the values of state slots lie on the device, and how they are read, set, and taken over.

use super::engine::Engine;
use super::{Piece, floats};
use crate::course;
use crate::error::Result;
use crate::groups::Groups;
use crate::plan::{Place, padded};
use crate::rule::Extent;
use crate::session::check_len;
use crate::shader::{element_slots, tensor_numbers};
use crate::tensor::BLOCK;
use crate::words::control;

impl Engine {
    /// The values of a slot.
    pub(crate) async fn state(&self, groups: &Groups, i: usize, slot: &str, wait: bool) -> Result<Vec<f32>> {
        let (buffer, pieces) = self.pieces(groups, i, slot)?;
        let Some(buffer) = buffer else { return Ok(Vec::new()) };
        Ok(floats(&self.gpu.read(buffer, &pieces, wait).await?))
    }

    /// Sets the values of a slot, before any work that is not yet submitted.
    pub(crate) fn set_state(&self, groups: &Groups, i: usize, slot: &str, values: &[f32]) -> Result<()> {
        let (buffer, pieces) = self.pieces(groups, i, slot)?;
        let len = pieces.iter().map(|(_, size)| size / 4).sum::<u64>() as usize;
        check_len(&format!("state {slot}"), &self.tensors[i].name, values.len(), len)?;
        let Some(buffer) = buffer else { return Ok(()) };
        self.gpu.scoped_now(|| self.gpu.write(buffer, &pieces, bytemuck::cast_slice(values)))
    }

    /// Fills a slot with its start, from one block of it.
    pub(super) fn start_slot(&self, groups: &Groups, i: usize, slot: &str, start: f64) -> Result<()> {
        let (buffer, pieces) = self.pieces(groups, i, slot)?;
        let Some(buffer) = buffer else { return Ok(()) };
        let block = vec![start as f32; BLOCK];
        self.gpu.scoped_now(|| self.gpu.fill(buffer, &pieces, bytemuck::cast_slice(&block)))
    }

    /// Where a slot's values lie, in order: the buffer and its pieces. None for no elements.
    fn pieces(&self, groups: &Groups, i: usize, name: &str) -> Result<(Option<&wgpu::Buffer>, Vec<Piece>)> {
        let (slot, place) = groups.find_slot(i, &self.tensors[i].name, name)?;
        let rule = groups.rule_of(i);
        if slot.extent == Extent::Tensor {
            let words = tensor_numbers(rule, &self.wrappers);
            return Ok((self.scratch.as_ref(), vec![(4 * (i * words + place) as u64, 4)]));
        }
        if let (Some(lines), true) = (self.lines[i], slot.extent.is_line()) {
            let Place { buffer, offset } = self.line_places[i];
            let [rows, columns] = lines.counts().map(|numbers| 4 * numbers);
            let piece = if slot.extent == Extent::Row { (offset, rows) } else { (offset + rows, columns) };
            return Ok((self.line_pages.get(buffer), vec![piece]));
        }
        if let (true, Some(arena)) = (slot.name == "accumulated", &self.accumulated) {
            let slice = arena.slice_at(i);
            return Ok((Some(slice.buffer), if slice.size == 0 { vec![] } else { vec![(slice.offset, slice.size)] }));
        }
        let elements = element_slots(rule, &self.wrappers);
        let index = elements.iter().position(|other| other.name == name).unwrap_or(0) as u64;
        let Some((page, start)) = self.state_place(i) else { return Ok((None, vec![])) };
        let pieces = blocks(self.tensors[i].len_elements());
        let piece = |(first, count, span)| (start + 4 * (first * elements.len() as u64 + index * span), 4 * count);
        Ok((Some(page), pieces.map(piece).collect()))
    }

    fn state_place(&self, i: usize) -> Option<(&wgpu::Buffer, u64)> {
        let Place { buffer, offset } = self.state_places[i];
        if self.tensors[i].len_elements() == 0 { None } else { Some((self.state_pages.get(buffer)?, offset)) }
    }

    fn line_place(&self, i: usize) -> Option<(&wgpu::Buffer, u64)> {
        let Place { buffer, offset } = self.line_places[i];
        self.lines[i].and(self.line_pages.get(buffer)).map(|page| (page, offset))
    }

    /// Takes over what another engine, of the first of these tensors, has: state, numbers, and what is decided on the
    /// device.
    pub(crate) fn take_over(&self, groups: &Groups, other: &Self) -> Result<()> {
        self.gpu.scoped_now(|| {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let mut copy = |from: Option<(&wgpu::Buffer, u64)>, to: Option<(&wgpu::Buffer, u64)>, bytes: u64| {
                if let (Some((from, first)), Some((to, start)), true) = (from, to, bytes > 0) {
                    encoder.copy_buffer_to_buffer(from, first, to, start, bytes);
                }
            };
            for i in 0..other.tensors.len() {
                let slots = self.variants[self.variant_of[i]].slots;
                copy(other.state_place(i), self.state_place(i), 4 * slots * padded(self.tensors[i].len_elements()));
                let numbers = 4 * tensor_numbers(groups.rule_of(i), &self.wrappers) as u64;
                let in_scratch = |engine: &'_ Self| engine.scratch.clone();
                let (from, to) = (in_scratch(other), in_scratch(self));
                let place = numbers * i as u64;
                copy(from.as_ref().map(|buffer| (buffer, place)), to.as_ref().map(|buffer| (buffer, place)), numbers);
                let bytes = self.lines[i].map_or(0, |lines| 4 * lines.words());
                copy(other.line_place(i), self.line_place(i), bytes);
            }
            let [from, to] = [other, self].map(|engine| course::layout(engine.tensors.len(), groups));
            if let (Some(old), Some(new)) = (&other.control, &self.control) {
                copy(Some((old, 0)), Some((new, 0)), 4 * control::LEN as u64);
                let options = 4 * self.wrappers.on_device.len() as u64;
                copy(Some((old, 4 * from.options as u64)), Some((new, 4 * to.options as u64)), options);
            }
            self.gpu.queue().submit([encoder.finish()]);
        })
    }
}

/// First element, elements, and elements with padding of each block.
fn blocks(len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (0..len).step_by(BLOCK).map(move |first| {
        let count = (len - first).min(BLOCK as u64);
        (first, count, padded(count))
    })
}
