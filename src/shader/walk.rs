//! The walks over tensors that a shader can make: their names, their texts, and what of them a pipeline's constants
//! must know. What a walk binds, and how it reads that, is in `bindings` and `glue`.

use crate::rule::{AnyRule, Move, Pass, Product, Sums, Turning};
use crate::wrappers::{Moving, Wrappers};

/// The text that makes a walk: one entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skeleton {
    /// One workgroup a tile adds `measure_line` up over the tile's rows and columns. Where the tile holds whole
    /// matrices, it finishes their lines too.
    Lines,
    /// One workgroup finishes all rows of a matrix, others some of its columns, with `finish_line` and `finish_row`.
    FinishLines,
    /// One workgroup a chunk combines `measure` of the chunk's elements.
    Sums,
    /// One workgroup a tensor combines the chunks' results and calls `finish`.
    Finish,
    /// One workgroup a tensor combines the chunks' results and keeps them.
    FinishSums,
    /// One workgroup combines what was kept of the tensors and calls `finish`.
    FinishModel,
    /// One workgroup a chunk spreads the chunk's elements into the matrix that products start from.
    Spread,
    /// One workgroup makes a tile of a product of matrices.
    Product,
    /// One workgroup makes elements of the Gram matrix of a side.
    Grams,
    /// One workgroup turns elements of a tensor along a side.
    Turn,
    /// One workgroup a chunk weighs the chunk's elements in the bases.
    Weigh,
    /// One workgroup makes the new basis of a side.
    Bases,
    /// One workgroup a chunk takes inner products of the gradient and the pairs of a history.
    Inner,
    /// One workgroup a tensor combines those of the tensor's chunks.
    FinishInner,
    /// One workgroup combines those of all tensors, and makes the coefficients of the direction of them.
    Recursion,
    /// One workgroup a chunk makes the direction of each element, and keeps the newest pair.
    Recall,
    /// One workgroup a chunk counts the chunk's elements for a wrapper, by what the rule is about to subtract.
    Counts,
    /// One workgroup a tensor adds the chunks' counts up, and the wrapper makes the tensor's factor of them.
    FinishCounts,
    /// One workgroup a chunk updates the chunk's elements.
    Apply,
    /// One workgroup a chunk moves parameters outside a step. It binds no gradients.
    Moves,
    /// One workgroup a chunk measures the chunk's gradients. This walk and those that follow know no rule.
    Norms,
    /// One workgroup a tensor combines what `Norms` measured of the tensor's chunks.
    FinishNorms,
    /// One workgroup decides, before a step, whether the step is applied and with which numbers.
    Decide,
    /// One workgroup a chunk adds a micro-batch to the sum of those before it. The sums are bound as parameters.
    Accumulate,
}

/// What a skeleton consists of.
struct Parts {
    name: &'static str,
    entry: &'static str,
    /// The pieces that the text builds upon.
    base: &'static [&'static str],
    text: &'static str,
}

impl Skeleton {
    /// All skeletons.
    pub const ALL: [Self; 24] = [
        Self::Lines,
        Self::FinishLines,
        Self::Sums,
        Self::Finish,
        Self::FinishSums,
        Self::FinishModel,
        Self::Spread,
        Self::Product,
        Self::Grams,
        Self::Turn,
        Self::Weigh,
        Self::Bases,
        Self::Inner,
        Self::FinishInner,
        Self::Recursion,
        Self::Recall,
        Self::Counts,
        Self::FinishCounts,
        Self::Apply,
        Self::Moves,
        Self::Norms,
        Self::FinishNorms,
        Self::Decide,
        Self::Accumulate,
    ];

    fn parts(self) -> Parts {
        const PAIR: &str = include_str!("../../shaders/skeletons/pair.wgsl");
        const MEASURED: &str = include_str!("../../shaders/skeletons/measured.wgsl");
        const TREE: &str = include_str!("../../shaders/skeletons/tree.wgsl");
        const CHUNKS: &str = include_str!("../../shaders/skeletons/chunks.wgsl");
        const PREPARE: &str = include_str!("../../shaders/skeletons/prepare.wgsl");
        const PREPARED: &str = include_str!("../../shaders/skeletons/prepared.wgsl");
        const ROWS: &str = include_str!("../../shaders/skeletons/rows.wgsl");
        const PARTIALS: &str = include_str!("../../shaders/skeletons/partials.wgsl");
        const RUNS: &str = include_str!("../../shaders/skeletons/runs.wgsl");
        match self {
            Self::Lines => Parts {
                name: "lines",
                entry: "lines_of_tile",
                base: &[PREPARE],
                text: include_str!("../../shaders/skeletons/lines.wgsl"),
            },
            Self::FinishLines => Parts {
                name: "finish_lines",
                entry: "finish_lines",
                base: &[],
                text: include_str!("../../shaders/skeletons/finish_lines.wgsl"),
            },
            Self::Sums => Parts {
                name: "sums",
                entry: "sums",
                base: &[PREPARE, PAIR, TREE, CHUNKS],
                text: include_str!("../../shaders/skeletons/sums.wgsl"),
            },
            Self::Finish => Parts {
                name: "finish",
                entry: "finish_tensor",
                base: &[PAIR, PARTIALS],
                text: include_str!("../../shaders/skeletons/finish.wgsl"),
            },
            Self::FinishSums => Parts {
                name: "finish_sums",
                entry: "finish_sums",
                base: &[PAIR, PARTIALS],
                text: include_str!("../../shaders/skeletons/finish_sums.wgsl"),
            },
            Self::FinishModel => Parts {
                name: "finish_model",
                entry: "finish_model",
                base: &[PAIR],
                text: include_str!("../../shaders/skeletons/finish_model.wgsl"),
            },
            Self::Spread => Parts {
                name: "spread",
                entry: "spread_chunk",
                base: &[PREPARE],
                text: include_str!("../../shaders/skeletons/spread.wgsl"),
            },
            Self::Product => Parts {
                name: "product",
                entry: "multiply",
                base: &[],
                text: include_str!("../../shaders/skeletons/product.wgsl"),
            },
            Self::Grams => Parts {
                name: "grams",
                entry: "grams",
                base: &[RUNS],
                text: include_str!("../../shaders/skeletons/grams.wgsl"),
            },
            Self::Turn => Parts {
                name: "turn",
                entry: "turn",
                base: &[RUNS],
                text: include_str!("../../shaders/skeletons/turn.wgsl"),
            },
            Self::Weigh => Parts {
                name: "weigh",
                entry: "weigh_chunk",
                base: &[],
                text: include_str!("../../shaders/skeletons/weigh.wgsl"),
            },
            Self::Bases => Parts {
                name: "bases",
                entry: "bases",
                base: &[RUNS],
                text: include_str!("../../shaders/skeletons/bases.wgsl"),
            },
            Self::Inner => Parts {
                name: "inner",
                entry: "inner_of_chunk",
                base: &[PREPARE, PREPARED, ROWS, TREE],
                text: include_str!("../../shaders/skeletons/inner.wgsl"),
            },
            Self::FinishInner => Parts {
                name: "finish_inner",
                entry: "finish_inner",
                base: &[ROWS],
                text: include_str!("../../shaders/skeletons/finish_inner.wgsl"),
            },
            Self::Recursion => Parts {
                name: "recursion",
                entry: "recursion",
                base: &[ROWS],
                text: include_str!("../../shaders/skeletons/recursion.wgsl"),
            },
            Self::Recall => Parts {
                name: "recall",
                entry: "recall_chunk",
                base: &[PREPARE, PREPARED],
                text: include_str!("../../shaders/skeletons/recall.wgsl"),
            },
            Self::Counts => Parts {
                name: "counts",
                entry: "counts",
                base: &[PREPARE],
                text: include_str!("../../shaders/skeletons/counts.wgsl"),
            },
            Self::FinishCounts => Parts {
                name: "finish_counts",
                entry: "finish_counts",
                base: &[],
                text: include_str!("../../shaders/skeletons/finish_counts.wgsl"),
            },
            Self::Apply => Parts {
                name: "apply",
                entry: "apply",
                base: &[PREPARE],
                text: include_str!("../../shaders/skeletons/apply.wgsl"),
            },
            Self::Moves => Parts {
                name: "moves",
                entry: "move_all",
                base: &[],
                text: include_str!("../../shaders/skeletons/moves.wgsl"),
            },
            Self::Norms => Parts {
                name: "norms",
                entry: "norms",
                base: &[MEASURED, TREE, CHUNKS],
                text: include_str!("../../shaders/skeletons/norms.wgsl"),
            },
            Self::FinishNorms => Parts {
                name: "finish_norms",
                entry: "finish_norms",
                base: &[MEASURED, PARTIALS],
                text: include_str!("../../shaders/skeletons/finish_norms.wgsl"),
            },
            Self::Decide => Parts {
                name: "decide",
                entry: "decide_step",
                base: &[MEASURED],
                text: include_str!("../../shaders/skeletons/decide.wgsl"),
            },
            Self::Accumulate => Parts {
                name: "accumulate",
                entry: "accumulate",
                base: &[],
                text: include_str!("../../shaders/skeletons/accumulate.wgsl"),
            },
        }
    }

    /// The file's stem, which labels use.
    pub fn name(self) -> &'static str {
        self.parts().name
    }

    /// The entry point's name.
    pub fn entry(self) -> &'static str {
        self.parts().entry
    }

    /// Whether the text is the same for all rules.
    pub fn knows_no_rule(self) -> bool {
        matches!(self, Self::Norms | Self::FinishNorms | Self::Decide | Self::Accumulate)
    }

    /// Whether lanes may go round loops so often that each workgroup has `LANES_MANY` lanes.
    pub fn has_long_loops(self) -> bool {
        matches!(self, Self::Grams | Self::Turn | Self::Bases)
    }

    /// The pieces of the text, in order.
    pub(super) fn texts(self, rule: &dyn AnyRule) -> impl Iterator<Item = &'static str> {
        const FINISHED: &str = include_str!("../../shaders/skeletons/finished.wgsl");
        const KEPT: &str = include_str!("../../shaders/skeletons/kept_sums.wgsl");
        let Parts { base, text, .. } = self.parts();
        let finishes = match self {
            Self::Finish => Some(FINISHED),
            Self::FinishSums => Some(KEPT),
            Self::Sums => Some(if rule.sums_over_model() { KEPT } else { FINISHED }),
            _ => None,
        };
        base.iter().copied().chain(finishes).chain([text])
    }
}

/// One walk of a step or a move: a skeleton, and what of the walk a pipeline's constants must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    /// The skeleton that makes it.
    pub skeleton: Skeleton,
    /// The sums that a walk takes, or that the walk behind it finishes; in other walks, sums over gradients.
    pub sums: Sums,
    /// Which product a walk of products makes.
    pub product: Option<Product>,
    /// Where a walk that turns leads.
    pub turning: Option<Turning>,
    /// Whether a walk of sums or norms takes [several short chunks a workgroup](crate::plan::SHORT).
    pub short: bool,
    /// Whether a walk over a history looks at the gradient of a trial alone.
    pub probe: bool,
    /// The move that a walk makes outside a step; in other walks, the look-ahead.
    pub to: Moving,
}

impl Walk {
    /// A walk that measures nothing for a rule and moves nothing outside a step.
    pub const fn new(skeleton: Skeleton) -> Self {
        let to = Moving::Rule(Move::LookAhead);
        Self { skeleton, sums: Sums::GRADS, product: None, turning: None, short: false, probe: false, to }
    }

    /// A move outside a step.
    pub const fn of_move(to: Moving) -> Self {
        Self { to, ..Self::new(Skeleton::Moves) }
    }

    /// The walks that look at the gradient of a trial.
    pub fn of_probe() -> Vec<Self> {
        [Skeleton::Inner, Skeleton::FinishInner, Skeleton::Recursion]
            .map(|skeleton| Self { probe: true, ..Self::new(skeleton) })
            .into()
    }

    /// The walks of a step, in order.
    pub fn of_step(rule: &dyn AnyRule, wrappers: &Wrappers) -> Vec<Self> {
        let mut last = Sums::GRADS;
        let walk = |pass| match pass {
            Pass::Lines => Self::new(Skeleton::Lines),
            Pass::FinishLines => Self::new(Skeleton::FinishLines),
            Pass::Sums(sums) => {
                last = sums;
                Self { sums, ..Self::new(Skeleton::Sums) }
            }
            Pass::Finish => Self { sums: last, ..Self::new(Skeleton::Finish) },
            Pass::FinishSums => Self { sums: last, ..Self::new(Skeleton::FinishSums) },
            Pass::FinishModel => Self { sums: last, ..Self::new(Skeleton::FinishModel) },
            Pass::Spread => Self::new(Skeleton::Spread),
            Pass::Product(product) => Self { product: Some(product), ..Self::new(Skeleton::Product) },
            Pass::Grams => Self::new(Skeleton::Grams),
            Pass::Turn(turning) => Self { turning: Some(turning), ..Self::new(Skeleton::Turn) },
            Pass::Weigh => Self::new(Skeleton::Weigh),
            Pass::Bases => Self::new(Skeleton::Bases),
            Pass::Inner => Self::new(Skeleton::Inner),
            Pass::FinishInner => Self::new(Skeleton::FinishInner),
            Pass::Recursion => Self::new(Skeleton::Recursion),
            Pass::Recall => Self::new(Skeleton::Recall),
            Pass::Apply => Self::new(Skeleton::Apply),
        };
        let mut walks: Vec<_> = rule.passes().into_iter().map(walk).collect();
        if wrappers.counts() {
            let apply = walks.iter().position(|walk| walk.skeleton == Skeleton::Apply).unwrap_or(walks.len());
            walks.splice(apply..apply, [Skeleton::Counts, Skeleton::FinishCounts].map(Self::new));
        }
        walks
    }
}
