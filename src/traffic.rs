//! The one model of bytes: what the walks of a step read and write of each element. The plan, the bench and the
//! README's table count with it. Only counts of bytes may live here.

use crate::codecs::DType;
use crate::decay::WeightDecay;
use crate::lines::Lines;
use crate::rule::{AnyRule, Extent, Pass, Sums};
use crate::tensor::Formats;
use crate::wrappers::Wrappers;

/// What one walk reads and writes of each element. Parameters and gradients take the bytes of their formats, any other
/// number takes 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// Whether the walk reads the parameter.
    pub param: bool,
    /// Whether the walk reads the gradient.
    pub grad: bool,
    /// Numbers of the state that the walk reads.
    pub read: u32,
    /// Whether the walk writes the parameter.
    pub lands: bool,
    /// Numbers of the state that the walk writes.
    pub written: u32,
}

impl Touch {
    /// The walk that adds the gradients of a micro-batch: it reads a gradient and a sum, and writes the sum.
    pub const ACCUMULATE: Self = Self { param: false, grad: true, read: 1, lands: false, written: 1 };

    /// Bytes of each element.
    pub fn bytes(&self, formats: Formats) -> u64 {
        let params = u64::from(self.param) + u64::from(self.lands);
        let state = u64::from(self.read) + u64::from(self.written);
        params * formats.param.size_bytes() + u64::from(self.grad) * formats.grad.size_bytes() + 4 * state
    }

    /// What a slot of so many bytes adds that holds what parameters in memory lack: it is read, but in a tensor's first
    /// step, beside the parameter or `instead` of it, and written beside it.
    fn kept_bytes(&self, formats: Formats, first: bool, slot: u64, instead: bool) -> u64 {
        let read = slot - if instead { formats.param.size_bytes() } else { 0 };
        u64::from(self.param && !first) * read + u64::from(self.lands) * slot
    }
}

/// The walk that measures gradients, and parameters where a clip compares them, if a wrapper asks for it.
pub fn measured(wrappers: &Wrappers) -> Option<Touch> {
    wrappers.measures().then(|| Touch { param: wrappers.measures_params(), grad: true, ..Touch::default() })
}

/// The walks of a rule over elements, in the order of the step; the last one is the update. `counts` says whether a
/// wrapper [counts](crate::wrapper::Wrapper::counts) elements before the update lands, from all that the update reads.
pub fn of_rule(rule: &dyn AnyRule, counts: bool) -> Vec<Touch> {
    let slots = rule.slots().iter().filter(|slot| slot.extent == Extent::Element).count() as u32;
    let of_history = rule.history().map_or(0, |pairs| 2 * pairs as u32);
    let l2 = matches!(rule.weight_decay(), WeightDecay::L2(_));
    let only = |touched: bool| if touched { slots } else { 0 };
    let late = !rule.stores_early();
    let mut touches = Vec::new();
    for pass in rule.passes() {
        match pass {
            Pass::Lines if rule.has_products() => touches.push(Touch::default()),
            Pass::Lines => touches.push(Touch { param: l2, grad: true, ..Touch::default() }),
            Pass::Spread => touches.push(Touch { param: l2, grad: true, read: slots, ..Touch::default() }),
            Pass::Weigh => touches.push(Touch { read: slots, ..Touch::default() }),
            // What products and turns move is beside the elements.
            Pass::Product(_) | Pass::Grams | Pass::Turn(_) | Pass::Bases => {}
            Pass::Sums(Sums { param, grad, state, stores, .. }) => touches.push(Touch {
                param: param || (l2 && grad),
                grad,
                read: only(state),
                lands: false,
                written: only(stores),
            }),
            Pass::Inner => touches.push(Touch { param: l2, grad: true, read: slots + of_history, ..Touch::default() }),
            Pass::Recall => touches.push(Touch {
                param: l2,
                grad: true,
                read: slots + of_history,
                lands: false,
                // A pair takes the place of the oldest.
                written: slots + 2,
            }),
            Pass::Finish
            | Pass::FinishSums
            | Pass::FinishModel
            | Pass::FinishLines
            | Pass::FinishInner
            | Pass::Recursion => {}
            Pass::Apply => {
                if counts {
                    touches.push(Touch { param: true, grad: true, read: slots, ..Touch::default() });
                }
                let (grad, written) = (counts || late, only(late));
                touches.push(Touch { param: true, grad, read: slots, lands: true, written });
            }
        }
    }
    touches
}

/// Bytes that a step reads and writes of each element in f32 with the rule alone; numbers of rows and columns are
/// beside them.
pub fn rule_bytes(rule: &dyn AnyRule) -> u64 {
    of_rule(rule, false).iter().map(|touch| touch.bytes(Formats::default())).sum()
}

/// Bytes that the state of a tensor of so many elements takes for its elements, those of wrappers included. The
/// wrappers know the tensor's formats.
pub fn state_bytes(rule: &dyn AnyRule, wrappers: &Wrappers, len: u64) -> u64 {
    wrappers.layout(rule).room().exact_bytes(len)
}

/// Bytes that step `t` of a tensor of so many elements, counted from 1, reads and writes. The wrappers know the
/// tensor's formats. `first` says whether the step is the tensor's first, in which slots that start as the parameter
/// are not read.
pub fn step_bytes(rule: &dyn AnyRule, wrappers: &Wrappers, formats: Formats, len: u64, t: u64, first: bool) -> u64 {
    // Sums of micro-batches are in f32, and the step reads them in the gradients' place.
    let accumulates = wrappers.batches() > 1;
    let of_step = if accumulates { Formats { grad: DType::F32, ..formats } } else { formats };
    let touches = measured(wrappers).into_iter().chain(of_rule(rule, wrappers.counts()));
    let accumulated = if accumulates { Touch::ACCUMULATE.bytes(formats) } else { 0 };
    let kept: u64 = match wrappers.keeper(rule) {
        Some(keeper) => {
            let (slot, instead) = (keeper.slot_storage().element_bytes(), !keeper.reads_copies());
            of_rule(rule, wrappers.counts()).iter().map(|touch| touch.kept_bytes(formats, first, slot, instead)).sum()
        }
        None => 0,
    };
    let of_element = touches.map(|touch| touch.bytes(of_step)).sum::<u64>()
        + kept
        + accumulated
        + wrappers.bytes_per_element(t, first);
    len * of_element - saved_bytes(rule, wrappers, len)
}

/// What the formats of the state save of the bytes of a step in which all of it were in f32.
fn saved_bytes(rule: &dyn AnyRule, wrappers: &Wrappers, len: u64) -> u64 {
    let mut layout = wrappers.layout(rule);
    layout.sections.retain(|section| rule.slots().iter().any(|slot| slot.name == section.name));
    if !layout.is_coded() {
        return 0;
    }
    let in_f32 = layout.sections.iter().map(|section| 4 * section.numbers).sum::<u64>() * len;
    let touches = of_rule(rule, wrappers.counts());
    let walks = touches.iter().map(|touch| u64::from(touch.read > 0) + u64::from(touch.written > 0));
    (in_f32 - layout.room().exact_bytes(len)) * walks.sum::<u64>()
}

/// Bytes of the numbers of a tensor's rows and columns, and of the tiles' shares in them, that a step with one pass
/// over lines reads and writes.
pub fn line_bytes(lines: &Lines) -> u64 {
    let [rows, columns] = lines.counts();
    let shares = lines.matrices.saturating_mul(lines.shares().iter().sum());
    4 * (5 * rows + 4 * columns + 2 * shares)
}
