//! Where the values of state slots lie on the device, and how they are read, set, and taken over.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::transfer::{Part, parts};
use super::{Piece, Slice, floats};
use crate::course;
use crate::error::Result;
use crate::groups::Groups;
use crate::plan::{Place, Sided, padded};
use crate::rule::{AnyRule, Extent, Start};
use crate::session::check_len;
use crate::shader::model_numbers;
use crate::storage::{GROUP, Layout, Room, Section, Steps, Storage};
use crate::tensor::BLOCK;
use crate::words::{control, tensor};

/// As many blocks of a slot that is stored otherwise than in f32 are read or written at once: their values take 4 MiB.
const CODED_BLOCKS: usize = (1 << 20) / BLOCK;

/// Blocks of a slot that is stored otherwise than in f32.
pub(crate) struct CodedPart<'a> {
    codes: Part<'a>,
    /// The words that hold the steps of the groups, where the slot is stored by groups.
    steps: Option<Part<'a>>,
    /// Whether the steps are the upper halves of their words.
    is_upper: bool,
    section: &'a Section,
    /// The elements of each block.
    counts: Vec<u64>,
}

impl CodedPart<'_> {
    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().sum::<u64>() as usize
    }
}

impl Engine {
    /// Reads the values of a slot.
    pub(crate) async fn state(&self, groups: &Groups, i: usize, slot: &str, wait: bool) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for part in self.parts(groups, i, slot)? {
            values.extend(floats(&self.read_part(&part, wait).await?));
        }
        for part in self.coded_parts(i, slot) {
            values.extend(self.read_coded(&part, wait).await?);
        }
        Ok(values)
    }

    /// Reads the numbers of the model, of a rule that has some; none without tensors.
    pub(crate) async fn numbers_of_model(&self, rule: &dyn AnyRule, wait: bool) -> Result<Vec<f32>> {
        let Some(scratch) = &self.scratch else { return Ok(vec![]) };
        let bytes = 4 * rule.names().tensor.len() as u64;
        Ok(floats(&self.gpu.read(scratch, &[(0, bytes)], wait).await?))
    }

    /// Reads one number from a buffer of the caller's.
    pub(crate) async fn read_number(&self, place: &Slice<'_>, wait: bool) -> Result<f32> {
        Ok(floats(&self.gpu.read(place.buffer, &[(place.offset, 4)], wait).await?)[0])
    }

    /// Reads the steps of a slot's groups, where the slot is stored by groups.
    pub(crate) async fn steps(&self, i: usize, slot: &str, wait: bool) -> Result<Vec<u32>> {
        match self.coded(i, slot) {
            Some((layout, section)) => self.steps_of(i, layout, section, wait).await,
            None => Ok(vec![]),
        }
    }

    async fn steps_of(&self, i: usize, layout: &Layout, section: usize, wait: bool) -> Result<Vec<u32>> {
        let mut steps = Vec::new();
        for part in self.coded_parts_of(i, layout, section) {
            steps.extend(self.read_steps(&part, wait).await?);
        }
        Ok(steps)
    }

    /// A slot's values, in order, in parts that are decoded or encoded one by one; none of a slot in f32.
    pub(crate) fn coded_parts(&self, i: usize, slot: &str) -> Vec<CodedPart<'_>> {
        let coded = self.coded(i, slot);
        coded.map_or(vec![], |(layout, section)| self.coded_parts_of(i, layout, section))
    }

    fn coded_parts_of<'a>(&'a self, i: usize, layout: &'a Layout, section: usize) -> Vec<CodedPart<'a>> {
        let (before, steps, of) = (layout.before(section), layout.steps(section), &layout.sections[section]);
        let cut = |(buffer, start, len): (&'a wgpu::Buffer, u64, u64)| {
            let codes = pieces_of(layout, before, |len| of.words(len), start, len);
            let words = steps.map(|steps| pieces_of(layout, steps.before, |len| groups_of(len) as u64, start, len));
            let counts: Vec<u64> = blocks(len).map(|(_, count, _)| count).collect();
            let part = move |n: usize| {
                let range = n..(n + CODED_BLOCKS).min(counts.len());
                CodedPart {
                    codes: Part { buffer, pieces: codes[range.clone()].to_vec() },
                    steps: words.as_ref().map(|words| Part { buffer, pieces: words[range.clone()].to_vec() }),
                    is_upper: steps.is_some_and(|steps| steps.is_upper),
                    section: of,
                    counts: counts[range].to_vec(),
                }
            };
            (0..len.div_ceil(BLOCK as u64) as usize).step_by(CODED_BLOCKS).map(part)
        };
        self.state_of(i).flat_map(cut).collect()
    }

    /// The values of a part.
    pub(crate) async fn read_coded(&self, part: &CodedPart<'_>, wait: bool) -> Result<Vec<f32>> {
        let mut steps = self.read_steps(part, wait).await?.into_iter();
        let mut words = words_of(&self.read_part(&part.codes, wait).await?).into_iter();
        let mut values = Vec::with_capacity(part.len());
        for &count in &part.counts {
            let words: Vec<u32> = words.by_ref().take(part.section.words(count) as usize).collect();
            let steps: Vec<u32> = steps.by_ref().take(groups_of(count)).collect();
            values.extend(part.section.decode(&words, &steps, count as usize));
        }
        Ok(values)
    }

    /// The steps of a part's groups; none of a slot that is not stored by groups.
    pub(crate) async fn read_steps(&self, part: &CodedPart<'_>, wait: bool) -> Result<Vec<u32>> {
        let Some(steps) = &part.steps else { return Ok(vec![]) };
        let words = words_of(&self.read_part(steps, wait).await?);
        Ok(words.into_iter().map(|word| if part.is_upper { word >> 16 } else { word & 0xffff }).collect())
    }

    /// Writes the values of a part, each rounded to the nearest; by groups with these steps.
    pub(crate) fn write_coded(&self, part: &CodedPart<'_>, values: &[f32], steps: &[u32]) -> Result<()> {
        let (mut words, mut done) = (Vec::new(), 0);
        for &count in &part.counts {
            let here = &values[done..done + count as usize];
            words.extend(part.section.encode(here, &steps[(done / GROUP).min(steps.len())..]));
            done += count as usize;
        }
        self.gpu.write_part(&part.codes, bytemuck::cast_slice(&words))
    }

    /// Whether a slot is stored otherwise than in f32.
    pub(crate) fn is_coded(&self, i: usize, slot: &str) -> bool {
        self.coded(i, slot).is_some()
    }

    /// A slot's place in its blocks, where it is stored otherwise than in f32.
    fn coded(&self, i: usize, slot: &str) -> Option<(&Layout, usize)> {
        let layout = &self.variants[self.variant_of[i]].layout;
        let section = layout.find(slot)?;
        (layout.sections[section].storage != Storage::F32).then_some((layout, section))
    }

    /// Sets slots of a tensor that are stored otherwise than in f32, each rounded to the nearest. A slot that is not
    /// set keeps its steps.
    fn set_coded(&self, i: usize, slots: &[(&str, Vec<f32>)]) -> Result<()> {
        let mut all_steps = Vec::new();
        for (name, values) in slots {
            let codes = self.coded(i, name).and_then(|(layout, section)| layout.sections[section].codes());
            let steps = codes.map_or(vec![], |codes| codes.steps(values));
            let mut rest = &values[..];
            self.set_codes(i, name, &steps, |len| {
                let (here, behind) = rest.split_at(len);
                rest = behind;
                Ok(here.to_vec())
            })?;
            all_steps.push((*name, steps));
        }
        self.set_steps(i, all_steps)
    }

    /// Sets the values of a slot that is stored otherwise than in f32, each rounded to the nearest; by groups with
    /// these steps, which [`set_steps`](Self::set_steps) sets. `take` gives the next values, so many.
    pub(crate) fn set_codes(
        &self,
        i: usize,
        slot: &str,
        steps: &[u32],
        mut take: impl FnMut(usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let mut done = 0;
        for part in self.coded_parts(i, slot) {
            self.write_coded(&part, &take(part.len())?, &steps[(done / GROUP).min(steps.len())..])?;
            done += part.len();
        }
        Ok(())
    }

    /// Sets the steps of slots' groups. A slot that is not among them keeps its steps, which are read where they share
    /// words with those of one that is.
    pub(crate) fn set_steps(&self, i: usize, slots: Vec<(&str, Vec<u32>)>) -> Result<()> {
        let layout = &self.variants[self.variant_of[i]].layout;
        let section = |(name, steps)| layout.find(name).map(|section| (section, steps));
        let mut all_steps: BTreeMap<usize, Vec<u32>> = slots.into_iter().filter_map(section).collect();
        all_steps.retain(|&section, _| layout.sections[section].codes().is_some());
        for section in all_steps.keys().copied().collect::<Vec<_>>() {
            let partner = layout.steps(section).and_then(|steps| steps.partner);
            if let Some(partner) = partner.filter(|partner| !all_steps.contains_key(partner)) {
                all_steps.insert(partner, self.steps_now(i, layout, partner)?);
            }
        }
        for (&section, steps) in &all_steps {
            let Some(Steps { is_upper: false, partner, .. }) = layout.steps(section) else { continue };
            let upper = partner.and_then(|partner| all_steps.get(&partner));
            let word = |(at, &step): (usize, &u32)| step | upper.map_or(0, |upper| upper[at] << 16);
            let mut words = steps.iter().enumerate().map(word);
            for part in self.coded_parts_of(i, layout, section) {
                let Some(place) = &part.steps else { continue };
                let here: Vec<u32> = words.by_ref().take(place.size_bytes() as usize / 4).collect();
                self.gpu.write_part(place, bytemuck::cast_slice(&here))?;
            }
        }
        Ok(())
    }

    /// The steps of a slot once all submitted work is done.
    fn steps_now(&self, i: usize, layout: &Layout, section: usize) -> Result<Vec<u32>> {
        #[cfg(not(target_arch = "wasm32"))]
        return pollster::block_on(self.steps_of(i, layout, section, true));
        #[cfg(target_arch = "wasm32")]
        {
            let slot = layout.sections[section].name;
            let message = format!(
                "tensor {}: its steps share words with those of slot {slot}, and nothing waits in a browser",
                self.tensors[i].name
            );
            Err(crate::error::Error::Order { what: "set_state", message })
        }
    }

    /// Sets the values of a slot, before any work that is not yet submitted.
    pub(crate) fn set_state(&self, groups: &Groups, i: usize, slot: &str, values: &[f32]) -> Result<()> {
        if self.coded(i, slot).is_some() {
            let len = self.tensors[i].len_elements() as usize;
            check_len(&format!("state {slot}"), &self.tensors[i].name, values.len(), len)?;
            return self.set_coded(i, &[(slot, values.to_vec())]);
        }
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

    /// A slot's values, in order, in parts that go to the device or from it one by one; none of a slot that is stored
    /// otherwise than in f32.
    pub(crate) fn parts(&self, groups: &Groups, i: usize, slot: &str) -> Result<Vec<Part<'_>>> {
        if self.is_coded(i, slot) {
            return Ok(vec![]);
        }
        Ok(self.pieces(groups, i, slot)?.into_iter().flat_map(|(buffer, pieces)| parts(buffer, pieces)).collect())
    }

    /// The bytes of a part.
    pub(crate) async fn read_part(&self, part: &Part<'_>, wait: bool) -> Result<Vec<u8>> {
        self.gpu.read(part.buffer, &part.pieces, wait).await
    }

    /// Fills slots of a tensor with the values they start at, those in f32 by copies of one block of them.
    pub(super) fn start(&self, groups: &Groups, i: usize) -> Result<()> {
        let slots = groups.slots_of(i);
        let starts = slots.iter().map(|slot| match slot.start {
            Start::Value(start) => (slot.name, start),
            // The slot starts as the parameter: a tensor's first step writes it.
            Start::Param => (slot.name, 0.0),
        });
        let (coded, others): (Vec<_>, Vec<_>) = starts.partition(|(slot, _)| self.is_coded(i, slot));
        if coded.iter().any(|&(_, start)| start != 0.0) {
            let values = |start: f64| vec![start as f32; self.tensors[i].len_elements() as usize];
            let coded: Vec<_> = coded.into_iter().map(|(slot, start)| (slot, values(start))).collect();
            self.set_coded(i, &coded)?;
        }
        let others = others.into_iter().filter(|&(_, start)| start != 0.0);
        others.into_iter().try_for_each(|(slot, start)| self.start_slot(groups, i, slot, start))
    }

    fn start_slot(&self, groups: &Groups, i: usize, slot: &str, start: f64) -> Result<()> {
        let block = vec![start as f32; BLOCK];
        for (buffer, pieces) in self.pieces(groups, i, slot)? {
            self.gpu.scoped_now(|| self.gpu.fill(buffer, &pieces, bytemuck::cast_slice(&block)))?;
        }
        Ok(())
    }

    /// Where a slot's values lie, in order: buffers, and the pieces of each. A slot without elements has none.
    fn pieces(&self, groups: &Groups, i: usize, name: &str) -> Result<Vec<(&wgpu::Buffer, Vec<Piece>)>> {
        let (slot, place) = groups.find_slot(i, &self.tensors[i].name, name)?;
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
        let layout = &self.variants[self.variant_of[i]].layout;
        let (room, before) = (layout.room(), layout.find(name).map_or(Room::default(), |place| layout.before(place)));
        let of_piece = |index: u64| {
            move |(page, start, len): (_, u64, u64)| {
                let block = |(first, count, span)| {
                    (start + room.bytes(first) + 4 * (before.words(count) + index * span), 4 * count)
                };
                (page, blocks(len).map(block).collect())
            }
        };
        let numbers = 0..slot.extent.of_element() as u64;
        Ok(numbers.flat_map(|index| self.state_of(i).map(of_piece(index))).collect())
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
        self.bounds.piece_len(self.variants[self.variant_of[i]].layout.room())
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
                let room = self.variants[self.variant_of[i]].layout.room();
                // Both have the same pieces, since both have the same bounds.
                for ((from, first, len), (to, start, _)) in other.state_of(i).zip(self.state_of(i)) {
                    copy(Some((from, first)), Some((to, start)), room.bytes(len));
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

fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// How many groups so many elements make up.
fn groups_of(len: u64) -> usize {
    len.div_ceil(GROUP as u64) as usize
}

/// Where something of every block of a tensor's piece lies that starts at this byte: `before` stands before it in a
/// block, and of a block's elements it takes so many words.
fn pieces_of(layout: &Layout, before: Room, words: impl Fn(u64) -> u64, start: u64, len: u64) -> Vec<Piece> {
    let room = layout.room();
    let piece = |(first, count, _)| (start + room.bytes(first) + 4 * before.words(count), 4 * words(count));
    blocks(len).map(piece).collect()
}

/// The blocks of so many elements: each one's first element, its elements, and its elements with padding.
fn blocks(len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (0..len).step_by(BLOCK).map(move |first| {
        let count = (len - first).min(BLOCK as u64);
        (first, count, padded(count))
    })
}
