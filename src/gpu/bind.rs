//! What a step or a move of certain buffers is bound to: its plan, table, bind groups and pipelines, kept for the
//! buffers used last.

use std::sync::Arc;

use super::binder::{Binder, Call, ONCE, run};
use super::buffers::Grads;
use super::engine::Engine;
use super::limits::sums;
use super::ring::Slot;
use super::slices::{Resolved, no_param};
use super::{Buffers, Cache};
use crate::error::Result;
use crate::plan::{Item, plan};
use crate::shader::{Skeleton, Walk, tensor_numbers};
use crate::tensor::{Access, DType};
use crate::words::{NORM_WORDS, SUM_WORDS};
use crate::wrappers::Moving;

/// Placements of parameters and gradients that keep their tables and bind groups.
pub(super) const BOUND_MAX: usize = 8;

/// What is encoded beside the parameters' buffers: a step with its gradients, or a move outside a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work<'a, 'b> {
    Step(&'a Grads<'b>),
    Move(Moving),
    /// A micro-batch added to the sums, which stand where parameters do.
    Accumulate(&'a Grads<'b>),
}

/// Which dispatches of a step are encoded with one list of words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    /// All of them.
    Whole,
    /// Those that measure the gradients and combine what they measured.
    Measures,
    /// Those that decide and update.
    Updates,
}

/// A plan with its table and bind groups: all that encoding needs.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) table: wgpu::Buffer,
    /// What comes before the decision.
    measures: Vec<Call>,
    decides: Option<Call>,
    calls: Vec<Call>,
    /// Windows of the update.
    pub(crate) windows: usize,
    /// Passes of the variant that has most.
    pub(crate) passes: usize,
    /// Tensors that take the scalar kernel.
    pub(crate) scalar: Vec<usize>,
}

impl Bound {
    /// Encodes a part of the dispatches as one pass, which reads the words in this slot.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder, slot: &Slot, part: Part) {
        let (measures, decides, calls) = (self.measures.iter(), self.decides.iter(), self.calls.iter());
        match part {
            Part::Whole => run(encoder, slot, measures.chain(decides).chain(calls)),
            Part::Measures => run(encoder, slot, measures.chain(decides)),
            Part::Updates => run(encoder, slot, decides.chain(calls)),
        }
    }

    /// Dispatches of one encoding.
    pub(crate) fn dispatches(&self) -> usize {
        let calls = self.measures.iter().chain(&self.decides).chain(&self.calls);
        calls.map(|call| call.dispatches.len()).sum()
    }
}

/// Where parameters or gradients lie, for comparison from step to step.
#[derive(Debug, PartialEq)]
pub(super) enum Where {
    Arena(u64),
    Slices(Vec<Option<(wgpu::Buffer, u64, u64)>>),
}

impl Where {
    fn of(buffers: &Buffers) -> Self {
        match buffers {
            Buffers::Slices(slices) => Self::Slices(
                slices
                    .iter()
                    .map(|slice| slice.map(|slice| (slice.buffer.clone(), slice.offset, slice.size)))
                    .collect(),
            ),
            _ => Self::Arena(buffers.arena().map_or(0, |arena| arena.id())),
        }
    }

    fn is(&self, buffers: &Buffers) -> bool {
        match (self, buffers) {
            (Self::Arena(id), _) => buffers.arena().is_some_and(|arena| arena.id() == *id),
            (Self::Slices(known), Buffers::Slices(slices)) => {
                known.len() == slices.len()
                    && known.iter().zip(slices).all(|(known, slice)| match (known, slice) {
                        (None, None) => true,
                        (Some((buffer, offset, size)), Some(slice)) => {
                            *offset == slice.offset && *size == slice.size && buffer == slice.buffer
                        }
                        _ => false,
                    })
            }
            _ => false,
        }
    }
}

pub(super) type BoundKey = (Where, BoundWork);

/// What a plan is for.
#[derive(Debug, PartialEq)]
pub(super) enum BoundWork {
    Step(Where),
    Move(Moving),
    Accumulate(Where),
}

impl Engine {
    /// Table, pipelines and bind groups for these buffers, checked and made where they are new.
    pub(crate) fn bind(&mut self, params: &Buffers, work: Work) -> Result<Arc<Bound>> {
        // The key knows the arena, and does not know which of its tensors are given.
        if let (Buffers::Subset(subset), Work::Step(grads) | Work::Accumulate(grads)) = (params, work) {
            if let Some(i) = (0..subset.present.len()).find(|&i| !subset.present[i] && grads.has(i)) {
                return Err(no_param(&subset.arena.tensors()[i]));
            }
        }
        let is = |key: &BoundKey| {
            key.0.is(params)
                && match (&key.1, work) {
                    (BoundWork::Step(known), Work::Step(grads)) => known.is(&grads.buffers),
                    (BoundWork::Move(known), Work::Move(to)) => *known == to,
                    (BoundWork::Accumulate(known), Work::Accumulate(grads)) => known.is(&grads.buffers),
                    _ => false,
                }
        };
        if let Some(bound) = self.bound.get(is) {
            return Ok(bound.clone());
        }
        let bound = Arc::new(self.make_bound(params, work)?);
        let work = match work {
            Work::Step(grads) => BoundWork::Step(Where::of(&grads.buffers)),
            Work::Move(to) => BoundWork::Move(to),
            Work::Accumulate(grads) => BoundWork::Accumulate(Where::of(&grads.buffers)),
        };
        self.bound.push((Where::of(params), work), bound.clone());
        Ok(bound)
    }

    /// Forgets tables and bind groups, and with them the buffers.
    pub(crate) fn release(&mut self) {
        self.bound = Cache::new(BOUND_MAX);
    }

    fn make_bound(&self, params: &Buffers, work: Work) -> Result<Bound> {
        let grads = match work {
            Work::Step(grads) | Work::Accumulate(grads) => Some(&grads.buffers),
            Work::Move(_) => None,
        };
        let (steps, accumulates) = (matches!(work, Work::Step(_)), matches!(work, Work::Accumulate(_)));
        let measures = steps && self.wrappers.measures();
        // Sums of micro-batches are in f32.
        let summed =
            || self.tensors.iter().map(|tensor| tensor.clone().with_grad_dtype(DType::F32)).collect::<Vec<_>>();
        let tensors = if steps && self.accumulated.is_some() { &summed() } else { &self.tensors };
        let slices = Resolved::new(&self.gpu, tensors, params, grads)?;
        let takes_part = |variant: usize| match work {
            Work::Step(_) | Work::Accumulate(_) | Work::Move(Moving::Wrapper(..)) => true,
            Work::Move(Moving::Rule(to)) => self.variants[variant].rule.moves().contains(&to),
        };
        let items: Vec<Item> = (0..self.tensors.len())
            .filter(|&i| takes_part(self.variant_of[i]))
            .filter_map(|i| {
                let variant = &self.variants[self.variant_of[i]];
                let (param, grad) = slices.places[i]?;
                Some(Item {
                    tensor: i,
                    len: self.tensors[i].len_elements(),
                    variant: self.variant_of[i],
                    access: slices.access[i],
                    param,
                    grad,
                    grad_format: grad.map_or(DType::F32, |_| tensors[i].grad_dtype),
                    state: (variant.slots > 0 && !accumulates).then_some((self.state_places[i], variant.slots)),
                    lines: self.lines[i].filter(|_| steps).map(|lines| (self.line_places[i], lines)),
                    partial_words: match steps && sums(&*variant.rule, &self.wrappers) {
                        _ if measures => NORM_WORDS,
                        true => SUM_WORDS,
                        false => 0,
                    },
                    sums: steps && sums(&*variant.rule, &self.wrappers),
                })
            })
            .collect();
        let numbers =
            (self.tensors.len() * self.variants.first().map_or(0, |v| tensor_numbers(&*v.rule, &self.wrappers))) as u64;
        let plan = plan(&items, self.bounds, numbers)?;
        let made = self.gpu.scoped_now(|| {
            let mut binder = Binder::new(self, &plan, &slices.buffers);
            let measures = if measures { binder.measures() } else { vec![] };
            let decides = (self.control.is_some() && !accumulates)
                .then(|| binder.call(0, Walk::new(Skeleton::Decide), None, &[ONCE]));
            let calls = binder.calls(work);
            (binder.table, [measures, decides.into_iter().collect(), calls], binder.fresh)
        });
        let (table, [measures, mut decides, calls], fresh) =
            made.map_err(|error| slices.blame(&self.gpu, &self.tensors).unwrap_or(error))?;
        self.gpu.pipelines().keep(fresh);
        let scalar = (0..self.tensors.len())
            .filter(|&i| slices.access[i] == Access::Scalar && slices.places[i].is_some())
            .collect();
        let used = items.iter().map(|item| item.variant);
        let passes = used.map(|variant| self.variants[variant].rule.passes().len()).max().unwrap_or(0);
        let passes = passes + usize::from(!measures.is_empty()) + 2 * usize::from(steps && self.wrappers.counts());
        let decides = decides.pop();
        Ok(Bound { table, measures, decides, calls, windows: plan.windows.len(), passes, scalar })
    }
}
