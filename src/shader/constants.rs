//! The `override` constants of a walk: the choices of a rule, of what is wrapped around it, and of a dispatch. One
//! shader text serves them all, and a pipeline sets them.

use super::bindings::tensor_numbers;
use super::hooks::in_walk;
use super::walk::{Skeleton, Walk};
use crate::parts::Combine;
use crate::rule::{AnyRule, Product, Turning};
use crate::storage::GROUP_LANES;
use crate::wrapper::AnyWrapper;
use crate::wrappers::Wrappers;

/// The switches of `shaders/skeletons/common.wgsl` that depend on the groups and tensors of a dispatch. Each is on
/// where any group needs it; a group that does not need it has the number that changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Switches {
    /// Some group ascends.
    pub maximize: bool,
    /// Some group has an L2 penalty.
    pub l2: bool,
    /// Some group decays, decoupled or independent.
    pub decay: bool,
    /// Some group decays cautiously.
    pub cautious: bool,
    /// Some chunk or tile ends within a vector of four.
    pub tails: bool,
    /// Four elements may lie in several rows of a matrix.
    pub crossings: bool,
    /// The new parameters go elsewhere than the old ones.
    pub copies: bool,
    /// How many lanes a workgroup has.
    pub lanes: u32,
    /// How many numbers each tensor has in scratch, where another variant of the optimizer needs more than this one.
    pub numbers: u32,
}

impl Switches {
    /// All `override` constants of a rule's walk, with their values.
    pub fn constants(&self, rule: &dyn AnyRule, wrappers: &Wrappers, walk: Walk) -> Vec<(&'static str, f64)> {
        let Walk { skeleton, sums, product, turning, short, probe, to } = walk;
        // Walks behind the products read the last one.
        let sees_product = match skeleton {
            Skeleton::Sums | Skeleton::Finish => sums.product,
            Skeleton::Lines | Skeleton::Counts | Skeleton::Apply => rule.has_work(),
            _ => false,
        };
        let is_batch = skeleton == Skeleton::Accumulate;
        // Gradients are divided by the loss scale where they are first read.
        let scales = wrappers.loss_scale().is_some() && is_batch == (wrappers.batches() > 1);
        let mut constants = if skeleton.knows_no_rule() { vec![] } else { rule.constants() };
        constants.extend(
            [
                ("MAXIMIZE", self.maximize),
                ("L2", self.l2),
                ("DECAY", self.decay),
                ("CAUTIOUS", self.cautious),
                ("UNSCALE", scales),
                ("MEAN", wrappers.batches() > 1),
                ("SKIPS", wrappers.skips()),
                ("NORM_PARAM", wrappers.measures_params()),
                ("TAILS", self.tails),
                ("CROSSINGS", self.crossings),
                ("COPIES", self.copies),
                ("COLUMNS", rule.has_columns()),
                ("BIT_MAX", sums.combine == Combine::BitMax),
                ("SUM_PAIR", sums.pair),
                ("SUM_PARAM", sums.param),
                ("SUM_GRAD", sums.grad),
                ("SUM_STATE", sums.state),
                ("SUM_STORES", sums.stores),
                ("SHORT", short),
                ("PROBE", probe),
                ("PRODUCT", sees_product),
                ("READS", to.reads()),
            ]
            .map(|(name, on)| (name, f64::from(on))),
        );
        let stores = match skeleton {
            Skeleton::Apply => !rule.stores_early(),
            Skeleton::Sums => sums.stores,
            _ => false,
        };
        let holds_groups = stores && wrappers.layout(rule).is_grouped() && self.lanes <= GROUP_LANES;
        let numbers = self.numbers.max(tensor_numbers(rule, wrappers) as u32);
        constants.extend([
            ("MOVE", to.number() as f64),
            ("LANES", if skeleton.has_long_loops() { LANES_MANY } else { self.lanes }.into()),
            ("STRETCH", if holds_groups { GROUP_LANES } else { 1 }.into()),
            ("TENSOR_NUMBERS", numbers.into()),
        ]);
        if skeleton == Skeleton::Product {
            constants.extend(of_product(product.unwrap_or(Product::Gram)));
        }
        if skeleton == Skeleton::Turn {
            let is = |wanted| f64::from(turning == Some(wanted));
            constants.extend([("BACK", is(Turning::Back)), ("POWER", is(Turning::Power))]);
        }
        constants.extend(in_walk(rule, wrappers, skeleton).into_iter().flat_map(AnyWrapper::constants));
        constants
    }
}

/// Lanes of a workgroup whose loops are long, on every device: Mesa's llvmpipe ends those of a lane after 65535 rounds.
pub(crate) const LANES_MANY: u32 = 256;

/// The constants of a walk of products.
fn of_product(product: Product) -> [(&'static str, f64); 4] {
    let (alpha, beta) = match product {
        Product::Gram => (1.0, 0.0),
        Product::Square { alpha, beta } => (alpha.number(), beta.number()),
        Product::Update { beta, .. } => (1.0, beta.number()),
    };
    let is_second = matches!(product, Product::Update { is_second: true, .. });
    let turns = matches!(product, Product::Update { .. });
    [("ALPHA", alpha), ("BETA", beta), ("TURNS", f64::from(turns)), ("IS_SECOND", f64::from(is_second))]
}
