//! The caller's buffers, checked against the tensors and against each other.

use std::collections::HashMap;

use super::{Buffers, Gpu};
use crate::error::{Error, Result};
use crate::plan::Place;
use crate::shader::Binding;
use crate::tensor::{ALIGNMENT, Access, TensorSpec};

/// The caller's buffers, checked: one list of buffers, and each tensor's places in it.
pub(super) struct Resolved {
    pub(super) buffers: Vec<wgpu::Buffer>,
    pub(super) places: Vec<Option<(Place, Option<Place>)>>,
    pub(super) access: Vec<Access>,
}

impl Resolved {
    pub(super) fn new(gpu: &Gpu, tensors: &[TensorSpec], params: &Buffers, grads: Option<&Buffers>) -> Result<Self> {
        let mut resolved = Self { buffers: vec![], places: vec![], access: vec![Access::Vec4; tensors.len()] };
        #[expect(clippy::mutable_key_type, reason = "a buffer's hash is that of its handle")]
        let mut known: HashMap<wgpu::Buffer, usize> = HashMap::new();
        let param_places = resolved.places(gpu, tensors, "parameter", params, &mut known)?;
        let params_end = resolved.buffers.len();
        let grad_places = match grads {
            Some(grads) => {
                let of_grads: Vec<_> = tensors.iter().map(TensorSpec::grad_spec).collect();
                Some(resolved.places(gpu, &of_grads, "gradient", grads, &mut known)?)
            }
            None => None,
        };
        resolved.check_overlaps(tensors, &param_places)?;
        for (i, tensor) in tensors.iter().enumerate() {
            let Some(grad_places) = &grad_places else { continue };
            match (param_places[i], grad_places[i]) {
                (_, Some(grad)) if grad.buffer < params_end && tensor.len_elements() > 0 => {
                    let holds = |place: &Option<Place>| place.is_some_and(|place| place.buffer == grad.buffer);
                    let param = param_places.iter().position(holds).expect("the buffer came from a parameter");
                    let (param, grad) = (tensors[param].name.clone(), tensor.name.clone());
                    return Err(Error::SharedBuffer { param, grad });
                }
                (None, Some(_)) => {
                    return Err(no_param(tensor));
                }
                (Some(_), Some(grad)) => {
                    let four = 4 * tensor.grad_dtype.size_bytes();
                    let end = grad.offset + tensor.grad_size_bytes().next_multiple_of(four);
                    if grad.offset % four != 0 || end > resolved.buffers[grad.buffer].size() {
                        resolved.access[i] = Access::Scalar;
                    }
                }
                (_, None) => {}
            }
        }
        // A parameter without its gradient sits the step out.
        resolved.places = match grad_places {
            None => param_places.into_iter().map(|param| Some((param?, None))).collect(),
            Some(grads) => {
                param_places.into_iter().zip(grads).map(|(param, grad)| Some((param?, Some(grad?)))).collect()
            }
        };
        Ok(resolved)
    }

    /// Where each tensor lies, with everything about a single slice checked.
    #[expect(clippy::mutable_key_type, reason = "a buffer's hash is that of its handle")]
    fn places(
        &mut self,
        gpu: &Gpu,
        tensors: &[TensorSpec],
        what: &'static str,
        buffers: &Buffers,
        known: &mut HashMap<wgpu::Buffer, usize>,
    ) -> Result<Vec<Option<Place>>> {
        let mut places = Vec::with_capacity(tensors.len());
        for slice in buffers.slices(gpu, what, tensors, wgpu::BufferUsages::STORAGE)? {
            let Some(slice) = slice else {
                places.push(None);
                continue;
            };
            let buffer = *known.entry(slice.buffer.clone()).or_insert_with(|| {
                self.buffers.push(slice.buffer.clone());
                self.buffers.len() - 1
            });
            places.push(Some(Place { buffer, offset: slice.offset }));
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
        let slices = tensors.iter().zip(&self.places).filter_map(|(tensor, places)| Some((tensor, (*places)?)));
        let mut named = slices.flat_map(|(tensor, (param, grad))| {
            [("parameter", Some(param)), ("gradient", grad)].map(|(what, place)| (tensor, what, place))
        });
        named.find_map(|(tensor, what, place)| {
            let message = format!("its buffer cannot be bound: {}", refused(&self.buffers[place?.buffer])?);
            Some(Error::Slice { what, tensor: tensor.name.clone(), message })
        })
    }

    /// Refuses parameters that share bytes; those that share a word of 16 take the scalar kernel.
    fn check_overlaps(&mut self, tensors: &[TensorSpec], places: &[Option<Place>]) -> Result<()> {
        let mut sorted: Vec<(usize, u64, u64, usize)> = places
            .iter()
            .zip(tensors)
            .enumerate()
            .filter_map(|(i, (place, tensor))| {
                let place = (*place)?;
                let size = tensor.size_bytes();
                (size > 0).then_some((place.buffer, place.offset, place.offset + size, i))
            })
            .collect();
        sorted.sort_unstable();
        for (n, &(buffer, start, end, i)) in sorted.iter().enumerate() {
            let owned_end = end.next_multiple_of(16);
            if start % 16 != 0 || owned_end > self.buffers[buffer].size() {
                self.access[i] = Access::Scalar;
            }
            let Some(&(next_buffer, next_start, next_end, next)) = sorted.get(n + 1) else { continue };
            if next_buffer != buffer || next_start >= owned_end {
                continue;
            }
            self.access[i] = Access::Scalar;
            if next_start < end {
                return Err(Error::Overlap {
                    first: tensors[i].name.clone(),
                    first_range: format!("{start}..{end}"),
                    second: tensors[next].name.clone(),
                    second_range: format!("{next_start}..{next_end}"),
                });
            }
        }
        Ok(())
    }
}

pub(super) fn no_param(tensor: &TensorSpec) -> Error {
    let message = "is missing where the gradient is given".into();
    Error::Slice { what: "parameter", tensor: tensor.name.clone(), message }
}
