//! The storage buffers that a walk's shader declares, with their places, and how many numbers of scratch it has.

use super::walk::Skeleton;
use crate::history;
use crate::rule::{AnyRule, Pass};
use crate::tensor::Pages;
use crate::wrappers::Wrappers;

/// A storage buffer of a composed shader, in the order of the binding numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// Group 0, binding 0, `read_write`: a window of a parameter buffer.
    Params,
    /// Group 0, binding 1, `read`: a window of a gradient buffer.
    Grads,
    /// Group 0, binding 2, `read_write`: a window of a state page.
    State,
    /// Group 0, binding 3, `read`, dynamic offset: entries of the chunk table.
    Tables,
    /// Group 0, binding 4, `read_write`: numbers of the tensors, then partial results.
    Scratch,
    /// Group 0, binding 5, `read_write`: a window of numbers of rows and columns.
    Lines,
    /// Group 0, binding 6, `read`: what was decided for the step, and its records.
    Control,
    /// Group 0, binding 6, `read_write`: the same buffer, in walks that decide.
    Decisions,
    /// Group 0, binding 7, `read_write`: a page of the matrices of products.
    Work,
    /// Group 0, from binding 8 on, `read_write`: a buffer that holds parameters, gradients, or both.
    Page(u32),
    /// Group 1, binding 0, `read`, dynamic offset: the words of a dispatch and of the step.
    Clocks,
}

impl Binding {
    /// Group and binding number.
    pub fn place(self) -> (u32, u32) {
        match self {
            Self::Params => (0, 0),
            Self::Grads => (0, 1),
            Self::State => (0, 2),
            Self::Tables => (0, 3),
            Self::Scratch => (0, 4),
            Self::Lines => (0, 5),
            Self::Control | Self::Decisions => (0, 6),
            Self::Work => (0, 7),
            Self::Page(page) => (0, 8 + page),
            Self::Clocks => (1, 0),
        }
    }

    /// Whether the shader writes the buffer.
    pub fn writable(self) -> bool {
        !matches!(self, Self::Grads | Self::Tables | Self::Control | Self::Clocks)
    }

    /// Whether the buffer's offset travels with the dispatch.
    pub fn dynamic(self) -> bool {
        matches!(self, Self::Tables | Self::Clocks)
    }
}

/// Which values a walk reads.
pub(super) struct Declares {
    pub(super) params: bool,
    pub(super) grads: bool,
}

/// Whether a walk reads parameters, and whether it reads gradients.
pub(super) fn declares(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> Declares {
    use Skeleton::{
        Accumulate, Apply, Bases, Counts, Decide, Finish, FinishCounts, FinishInner, FinishLines, FinishModel,
        FinishNorms, FinishSums, Grams, Inner, Lines, Moves, Norms, Product, Recall, Recursion, Spread, Sums, Turn,
        Weigh,
    };
    let grads = match skeleton {
        Lines | Sums | Spread | Inner | Recall | Counts | Norms | Accumulate => true,
        // A wrapper that counts compares the update with the gradient.
        Apply => !rule.stores_early() || wrappers.counts(),
        FinishLines | Finish | FinishSums | FinishModel | Product | Grams | Turn | Weigh | Bases | FinishInner
        | Recursion | FinishCounts | Moves | FinishNorms | Decide => false,
    };
    let params = match skeleton {
        Lines | Sums | Spread | Inner | Recall | Counts | Apply | Moves | Accumulate => true,
        Norms => wrappers.measures_params(),
        FinishLines | Finish | FinishSums | FinishModel | Product | Grams | Turn | Weigh | Bases | FinishInner
        | Recursion | FinishCounts | FinishNorms | Decide => false,
    };
    Declares { params, grads }
}

/// The bindings that a rule's shader of this skeleton declares.
pub fn bindings(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, pages: Pages) -> Vec<Binding> {
    use Skeleton::{
        Accumulate, Apply, Bases, Counts, Decide, Finish, FinishCounts, FinishInner, FinishLines, FinishModel,
        FinishNorms, FinishSums, Grams, Inner, Lines, Moves, Norms, Product, Recall, Recursion, Spread, Sums, Turn,
        Weigh,
    };
    let Declares { params, grads } = declares(rule, wrappers, skeleton);
    let (apart, values) = (pages == Pages::Apart, params || grads);
    let count = match pages {
        Pages::Many(count) if values => count,
        _ => 0,
    };
    let scratch = match skeleton {
        Lines | FinishLines | Sums | Finish | FinishSums | FinishModel | Counts | FinishCounts => true,
        Inner | FinishInner | Recursion | Recall | Norms | FinishNorms => true,
        Spread | Apply => tensor_numbers(rule, wrappers) > 0,
        Product | Grams | Turn | Weigh | Bases | Moves | Decide | Accumulate => false,
    };
    let lines = match skeleton {
        // The rows of a rule with products stand in the page of work.
        Lines | FinishLines => !rule.has_products(),
        Sums | Spread | Counts | Apply => rule.has_lines() && !rule.has_products(),
        Finish | FinishSums | FinishModel | Product | Grams | Turn | Weigh | Bases | Inner | FinishInner
        | Recursion | Recall | FinishCounts | Moves | Norms | FinishNorms | Decide | Accumulate => false,
    };
    let work = match skeleton {
        Product | Grams | Turn | Weigh | Bases => true,
        Lines | FinishLines => rule.has_products(),
        Sums | Spread | Counts | Apply => rule.has_work(),
        _ => false,
    };
    let state = matches!(skeleton, Sums | Spread | Weigh | Inner | Recall | Counts | Apply | Moves)
        && !wrappers.layout(rule).sections.is_empty();
    let decides = matches!(skeleton, Norms | FinishNorms | Decide);
    // Where the device decides, the walks behind `decide` read records from `control`.
    let reads_control = wrappers.is_controlled() && !decides;
    [
        (Binding::Params, apart && params || pages == Pages::Shared && values),
        (Binding::Grads, apart && grads),
        (Binding::State, state),
        (Binding::Tables, skeleton != Decide),
        (Binding::Scratch, scratch),
        (Binding::Lines, lines),
        (Binding::Control, reads_control),
        (Binding::Decisions, decides),
        (Binding::Work, work),
        (Binding::Clocks, true),
    ]
    .into_iter()
    .filter_map(|(binding, declared)| declared.then_some(binding))
    .chain((0..count).map(Binding::Page))
    .collect()
}

/// How many numbers a tensor has in the scratch buffer: those of the rule's `Tensor`, where a pass finishes them, or
/// the tensor's sums, where the rule sums over the model; then the factor of a wrapper that counts.
pub fn tensor_numbers(rule: &dyn AnyRule, wrappers: &Wrappers) -> usize {
    let own = match rule.sums_over_model() {
        true => rule.sum_words() as usize,
        false if rule.passes().contains(&Pass::Finish) => rule.names().tensor.len(),
        false => 0,
    };
    own + usize::from(wrappers.counts())
}

/// How many numbers the model has in the scratch buffer, before those of the tensors.
pub fn model_numbers(rule: &dyn AnyRule) -> usize {
    let of_rule = if rule.sums_over_model() { rule.names().tensor.len() } else { 0 };
    of_rule + rule.history().map_or(0, history::words)
}
