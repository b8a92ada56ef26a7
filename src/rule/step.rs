//! What the CPU executor is given of one tensor's step: numbers, arrays, slots, and the wrappers whose hooks run.

use super::{Numbers, numbers};
use crate::decay::WeightDecay;
use crate::lines::Lines;
use crate::parts::Real;
use crate::sides::Side;
use crate::storage::Section;
use crate::tensor::Stored;
use crate::wrapper::WrapperKernel;

numbers! {
    /// Numbers of a group and clock that the skeleton uses around any rule.
    Common {
        /// -1 to ascend, else 1.
        sign,
        /// `d` of the L2 penalty.
        l2,
        /// What the skeleton multiplies by `p` and subtracts with the update.
        decay,
        /// What it multiplies by `p` and subtracts where update and parameter have one sign.
        cautious,
        /// 1 in a tensor's first step, in which slots that start as the parameter take its value; else 0.
        first,
    }
}

impl Common<f64> {
    /// The numbers of a group whose scheduled rate is `lr` and whose configured one is `lr_initial`.
    pub fn new(maximize: bool, decay: WeightDecay, lr: f64, lr_initial: f64) -> Self {
        let mut common =
            Self { sign: if maximize { -1.0 } else { 1.0 }, l2: 0.0, decay: 0.0, cautious: 0.0, first: 0.0 };
        match decay {
            WeightDecay::L2(d) => common.l2 = d,
            WeightDecay::Decoupled(d) => common.decay = lr * d,
            WeightDecay::Independent(d) => common.decay = d * lr / lr_initial,
            WeightDecay::Cautious(d) => common.cautious = lr * d,
            // The rule applies these kinds itself.
            WeightDecay::None | WeightDecay::InsideMoment(_) | WeightDecay::Inside(_) | WeightDecay::Proximal(_) => {}
        }
        common
    }

    /// The numbers in the order of their names.
    pub fn values(&self) -> Vec<f64> {
        let mut values = vec![0.0; <Self as Numbers<f64>>::NAMES.len()];
        self.write(&mut values);
        values
    }

    /// The numbers in another precision, each rounded once.
    pub fn round<F: Real>(&self) -> Common<F> {
        Common::read(&self.values().into_iter().map(F::of).collect::<Vec<_>>())
    }
}

/// One tensor's step on the CPU.
pub struct Step<'a, F> {
    /// The numbers that are common to all rules.
    pub common: Common<F>,
    /// The numbers of the rule, in f64.
    pub hyper: &'a [f64],
    /// The tensor's own numbers; those of the model where the rule sums over it.
    pub tensor: &'a mut [F],
    /// Parameters, updated in place.
    pub params: &'a mut [F],
    /// Gradients.
    pub grads: &'a [F],
    /// How the new parameters are stored.
    pub stored: Stored,
    /// The tensor as matrices, where it has them.
    pub lines: Option<Lines>,
    /// The tensor's sides, where its rule turns them.
    pub sides: Vec<Side>,
    /// Slots of elements, rows and columns, in the order of the rule's `State`; those that are off are empty.
    pub state: &'a mut [Vec<F>],
    /// Which of these slots are stored otherwise than in f32, in the order of a block.
    pub coded: Vec<Coded<'a>>,
    /// The wrappers whose hooks run, in the order of the registry.
    pub wrappers: Vec<WrapperStep<'a, F>>,
}

impl<F: Real> Step<'_, F> {
    /// Rounds the state as its formats hold it.
    pub(super) fn round_state(&mut self) {
        for (pair, slots) in self.coded.chunks_mut(2).enumerate() {
            let len = self.params.len();
            let chances = |step: &WrapperStep<'_, F>| step.wrapper.chances(&step.numbers, self.stored, pair, len);
            let bits = self.wrappers.iter().find_map(chances).expect("the wrapper that gives slots their formats");
            for (n, Coded { field, section, steps }) in slots.iter_mut().enumerate() {
                let random = |i: usize| bits[i / 4][i % 4] >> (16 * n);
                **steps = section.storage.dither(section.nonnegative, &mut self.state[*field], random);
            }
        }
    }
}

/// A slot that is stored otherwise than in f32.
pub struct Coded<'a> {
    /// Its place among the slots of the state.
    pub field: usize,
    /// What is known of its format.
    pub section: Section,
    /// The steps of its groups, where it is stored by groups.
    pub steps: &'a mut Vec<u32>,
}

/// A wrapper in one tensor's step.
pub struct WrapperStep<'a, F> {
    /// The wrapper.
    pub wrapper: &'a dyn WrapperKernel<F>,
    /// The wrapper's numbers.
    pub numbers: Vec<F>,
    /// Whether the wrapper counts elements before the update lands.
    pub counts: bool,
    /// The wrapper's slot; empty where it has none.
    pub slot: &'a mut [F],
}
