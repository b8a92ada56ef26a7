//! The caller's buffers, checked against the tensors and against each other.

use std::collections::{HashMap, HashSet};

use super::{Buffers, Gpu};
use crate::error::{Error, Result};
use crate::plan::{Home, Place};
use crate::shader::Binding;
use crate::tensor::{ALIGNMENT, Access, TensorSpec};

/// The caller's buffers, checked: one list of buffers, and each tensor's places in it.
pub(super) struct Resolved {
    pub(super) buffers: Vec<wgpu::Buffer>,
    pub(super) homes: Vec<Option<Home>>,
    pub(super) access: Vec<Access>,
}

impl Resolved {
    pub(super) fn new(
        gpu: &Gpu,
        tensors: &[TensorSpec],
        params: &Buffers,
        grads: Option<(&Buffers, &[TensorSpec])>,
        outs: Option<&Buffers>,
    ) -> Result<Self> {
        let mut resolved = Self { buffers: vec![], homes: vec![], access: vec![Access::Vec4; tensors.len()] };
        #[expect(clippy::mutable_key_type, reason = "a buffer's hash is that of its handle")]
        let mut known: HashMap<wgpu::Buffer, usize> = HashMap::new();
        let params = resolved.places(gpu, tensors, "parameter", params, &mut known)?;
        let of_grads = |(grads, specs)| resolved.places(gpu, specs, "gradient", grads, &mut known);
        let grads = grads.map(of_grads).transpose()?;
        let outs = outs.map(|outs| resolved.places(gpu, tensors, "output", outs, &mut known)).transpose()?;
        let of_params: HashSet<usize> = params.iter().flatten().map(|place| place.buffer).collect();
        let are_apart = of_params.len() <= 1 && resolved.buffers.len() == 2 && outs.is_none();
        for (i, tensor) in tensors.iter().enumerate() {
            let grad = grads.as_ref().and_then(|grads| grads[i]);
            if grad.is_some() && params[i].is_none() {
                return Err(no_param(tensor));
            }
            if let Some(grad) = grad {
                let four = tensor.grad_dtype.quad_bytes();
                // Where a buffer may be bound for parameters, too, it has their words.
                let word = if are_apart { four } else { four.max(tensor.dtype.quad_bytes()) };
                let end = (grad.offset + tensor.grad_size_bytes()).next_multiple_of(word);
                if grad.offset % four != 0 || end > resolved.buffers[grad.buffer].size() {
                    resolved.access[i] = Access::Scalar;
                }
            }
            let out = outs.as_ref().map(|outs| outs[i]);
            if let (Some(None), Some(_)) = (out, grad) {
                let message = "is missing where the gradient is given".into();
                return Err(Error::Slice { what: "output", tensor: tensor.name.clone(), message });
            }
            // The step only copies a parameter without a gradient to its output.
            let out = out.flatten();
            let takes_part = grads.is_none() || grad.is_some() || out.is_some();
            resolved.homes.push(params[i].filter(|_| takes_part).map(|param| Home { param, grad, out }));
        }
        resolved.check_overlaps(tensors, [Some(&params[..]), grads.as_deref(), outs.as_deref()])?;
        Ok(resolved)
    }

    /// Checks each slice by itself, and finds where each tensor lies.
    #[expect(clippy::mutable_key_type, reason = "a buffer's hash is that of its handle")]
    fn places(
        &mut self,
        gpu: &Gpu,
        tensors: &[TensorSpec],
        what: &'static str,
        buffers: &Buffers,
        known: &mut HashMap<wgpu::Buffer, usize>,
    ) -> Result<Vec<Option<Place>>> {
        let mut places: Vec<Option<Place>> = Vec::with_capacity(tensors.len());
        let mut last = 0;
        for slice in buffers.slices(gpu, what, tensors, wgpu::BufferUsages::STORAGE)? {
            let place = slice.map(|slice| {
                // Neighbours mostly share a buffer, so the last one found is tried first.
                if self.buffers.get(last) != Some(slice.buffer) {
                    last = *known.entry(slice.buffer.clone()).or_insert_with(|| {
                        self.buffers.push(slice.buffer.clone());
                        self.buffers.len() - 1
                    });
                }
                Place { buffer: last, offset: slice.offset }
            });
            places.push(place);
        }
        Ok(places)
    }

    /// The first slice whose buffer alone wgpu refuses: one of another device, or destroyed.
    pub(super) fn blame(&self, gpu: &Gpu, tensors: &[TensorSpec]) -> Option<Error> {
        let layout = gpu.pipelines().layout(gpu, &[Binding::Grads]);
        let refused = |buffer: &wgpu::Buffer| {
            let size = wgpu::BufferSize::new(buffer.size().min(ALIGNMENT) / 4 * 4);
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size });
            let entries = [wgpu::BindGroupEntry { binding: Binding::Grads.place().1, resource }];
            let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
            gpu.scoped_now(|| gpu.device().create_bind_group(&descriptor)).err()
        };
        let homes = tensors.iter().zip(&self.homes).filter_map(|(tensor, home)| Some((tensor, (*home)?)));
        let mut named = homes.flat_map(|(tensor, Home { param, grad, out })| {
            [("parameter", Some(param)), ("gradient", grad), ("output", out)].map(|(what, place)| (tensor, what, place))
        });
        named.find_map(|(tensor, what, place)| {
            let message = format!("its buffer cannot be bound: {}", refused(&self.buffers[place?.buffer])?);
            Some(Error::Slice { what, tensor: tensor.name.clone(), message })
        })
    }

    /// Refuses values that share bytes where one of them is written, or a word of 4 of which it has a half. Written
    /// values that share the words of the vec4 kernel take the scalar one.
    fn check_overlaps(&mut self, tensors: &[TensorSpec], places: [Option<&[Option<Place>]>; 3]) -> Result<()> {
        let outs = places[2].is_some();
        let mut sorted: Vec<Range> = Vec::new();
        for (what, places) in [What::Param, What::Grad, What::Out].into_iter().zip(places) {
            let of_tensor = |(tensor, place): (usize, &Option<Place>)| {
                let Place { buffer, offset: start } = (*place)?;
                let TensorSpec { dtype, grad_dtype, .. } = tensors[tensor];
                let format = if what == What::Grad { grad_dtype } else { dtype };
                let size = tensors[tensor].len_elements() * format.size_bytes();
                let word = format.quad_bytes();
                let is_written = what == if outs { What::Out } else { What::Param } && self.homes[tensor].is_some();
                (size > 0).then_some(Range { buffer, start, end: start + size, word, what, tensor, is_written })
            };
            sorted.extend(places.into_iter().flatten().enumerate().filter_map(of_tensor));
        }
        sorted.sort_unstable_by_key(|range| (range.buffer, range.start, range.end));
        // Of the ranges that start before this one, the one that ends last; and the same of those that are written.
        let mut before: [Option<Range>; 2] = [None; 2];
        for &range in &sorted {
            let unaligned = range.start % range.word != 0 || range.owned_end() > self.buffers[range.buffer].size();
            // The kernel reads the old parameter, so it does not know what stands behind the new one.
            if range.what != What::Grad && unaligned || range.what == What::Out && range.end % range.word != 0 {
                self.access[range.tensor] = Access::Scalar;
            }
            let here = before.map(|before| before.filter(|before| before.buffer == range.buffer));
            let other = here[usize::from(!range.is_written)].filter(|other| range.start < other.written_end());
            if let Some(other) = other {
                return Err(overlap(tensors, other, range));
            }
            if let (true, Some(other)) = (range.is_written, here[1].filter(|other| range.start < other.owned_end())) {
                self.access[other.tensor] = Access::Scalar;
                self.access[range.tensor] = Access::Scalar;
            }
            for (before, counts) in before.iter_mut().zip([true, range.is_written]) {
                if counts && before.is_none_or(|before| before.buffer != range.buffer || before.end <= range.end) {
                    *before = Some(range);
                }
            }
        }
        Ok(())
    }
}

/// What a range of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Param,
    Grad,
    Out,
}

/// The bytes of one tensor's values.
#[derive(Clone, Copy, Debug)]
struct Range {
    buffer: usize,
    start: u64,
    end: u64,
    /// Bytes of a word of the vec4 kernel.
    word: u64,
    what: What,
    tensor: usize,
    is_written: bool,
}

impl Range {
    /// Where the last word of the vec4 kernel ends.
    fn owned_end(&self) -> u64 {
        self.end.next_multiple_of(self.word)
    }

    /// Where the last word of 4 bytes ends that a step writes.
    fn written_end(&self) -> u64 {
        if self.is_written { self.end.next_multiple_of(4) } else { self.end }
    }
}

fn overlap(tensors: &[TensorSpec], first: Range, second: Range) -> Error {
    let (first_end, second_start) = (first.end, second.start);
    let name = |range: Range| tensors[range.tensor].name.clone();
    let [first_range, second_range] = [first, second].map(|range| format!("{}..{}", range.start, range.end));
    if (first.what, second.what) == (What::Param, What::Param) && second.start < first.end {
        return Error::Overlap { first: name(first), first_range, second: name(second), second_range };
    }
    let [first, second] = [first, second].map(|range| match range.what {
        What::Param => format!("parameter {}", name(range)),
        What::Grad => format!("gradient {}", name(range)),
        What::Out => format!("output {}", name(range)),
    });
    if first_end <= second_start {
        return Error::HalfWord { first, first_range, second, second_range };
    }
    Error::Aliased { first, first_range, second, second_range }
}

pub(super) fn no_param(tensor: &TensorSpec) -> Error {
    let message = "is missing where the gradient is given".into();
    Error::Slice { what: "parameter", tensor: tensor.name.clone(), message }
}
