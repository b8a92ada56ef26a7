//! L-BFGS. Twin: `shaders/rules/lbfgs.wgsl`.

use crate::error::{Result, above_zero, refuse};
use crate::line_search::LineSearch;
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Move, Pass, Rule, Slot, Stopping, WeightDecay, fields, numbers, options};

/// L-BFGS for problems whose gradient has no noise: fits, physics-informed networks, calibration. All tensors together
/// are one vector.
///
/// With `s` the movement of the last step and `y` the change of the gradient since, a pair with `y.s > 1e-10` is kept,
/// and the oldest of more than `history_size` dropped. The direction `d = -B*g` follows from the pairs by the two loops
/// of the recursion, started from `B = (y.s/y.y)` of the newest pair. `p += lr*d`, in the first step
/// `p -= min(1, 1/sum(abs(g)))*lr*g`. Where `g.d > 0`, which rounding alone brings about, the parameters stay. A step
/// whose gradients are all 0 changes nothing.
///
/// With [`LineSearch::StrongWolfe`] the length of a step is not `lr` but looked for: see
/// [`minimize`](crate::Reference::minimize), which takes the place of steps then. `lr` is the first length that it
/// tries.
///
/// Every product is over all tensors of all groups. A tensor without a gradient counts as one whose gradient is 0.
/// Groups set `weight_decay` alone, and whether they ascend.
///
/// Slots `g_prev` and `d` an element; `s` and `y`, `[history_size, ..]`, with the pairs in a ring; `scale` (1 at
/// first), `step`, `pairs`, `next`, `started` and `slope`, which is `g.d`, one of each in all; `products`,
/// `[2, history_size, history_size]`, the inner products of movements with changes and of changes with changes. Five
/// passes, which go over the history twice: inner products, those of each tensor, the recursion, the direction, the
/// update.
///
/// Sources: Liu and Nocedal 1989, Mathematical Programming 45; Nocedal and Wright, Numerical Optimization, 2nd edition,
/// Algorithm 7.4; PyTorch's `LBFGS` with `max_iter=1` and both tolerances 0. The recursion in inner products is Chen,
/// Wang and Zhou 2014, "Large-scale L-BFGS using MapReduce".
#[derive(Clone, Debug, PartialEq)]
pub struct Lbfgs {
    /// What the direction is multiplied by, at least 0. Default 1.
    pub lr: f64,
    /// Pairs that are kept at most, from 1 to 4096. It says how much state there is, and cannot change. Default 100.
    pub history_size: usize,
    /// None or L2; none with a line search, whose loss must hold the penalty. Default none.
    pub weight_decay: WeightDecay,
    /// Whether a step looks for its length. Default none.
    pub line_search: LineSearch,
    /// Directions of a minimisation at most, at least 1. Default 20. This and the rest belong to a line search.
    pub max_iter: usize,
    /// Evaluations behind which a minimisation takes no further direction, at least 1. Default a quarter more than
    /// `max_iter`.
    pub max_eval: Option<usize>,
    /// The largest element of a gradient that ends a minimisation, at least 0. Default 1e-7.
    pub tolerance_grad: f64,
    /// The change of the loss, of all parameters, and the slope that end a minimisation, at least 0. Default 1e-9.
    pub tolerance_change: f64,
}

fields!(Lbfgs: lr, history_size, weight_decay, line_search, max_iter, max_eval, tolerance_grad, tolerance_change);

impl Default for Lbfgs {
    fn default() -> Self {
        Self {
            lr: 1.0,
            history_size: 100,
            weight_decay: WeightDecay::None,
            line_search: LineSearch::None,
            max_iter: 20,
            max_eval: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr }
}
numbers! {
    /// The last gradient and direction, and the slots of the history.
    State { g_prev, d, s, y }
}
numbers! {
    /// Numbers of the model: those of its history.
    Tensor {
        scale, step, last, pairs, next, started, kept, updates, moves, slope, along, grad_max, direction_max
    }
}

impl Rule for Lbfgs {
    const NAME: &'static str = "lbfgs";
    const SUMMARY: &'static str =
        "quasi-Newton steps from the last pairs of movements and changes of the gradient (Liu and Nocedal 1989)";
    const SHADER: &'static str = include_str!("../../shaders/rules/lbfgs.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "l2"];
    const MASKABLE: bool = false;
    const MODEL_FIELDS: &'static [&'static str] =
        &["lr", "history_size", "line_search", "max_iter", "max_eval", "tolerance_grad", "tolerance_change"];

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr; weight_decay);

    fn check(&self) -> Result<()> {
        if !(1..=4096).contains(&self.history_size) {
            return refuse("history_size", self.history_size, "from 1 to 4096");
        }
        match self.line_search {
            LineSearch::None => self.check_plain(),
            LineSearch::StrongWolfe if self.weight_decay != WeightDecay::None => {
                refuse("weight_decay", self.weight_decay, "none with a line search; add the penalty to the loss")
            }
            LineSearch::StrongWolfe => {
                above_zero("lr", self.lr)?;
                self.stopping().check()
            }
        }
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("HISTORY", self.history_size as f64)]
    }

    fn slots(&self) -> Vec<Slot> {
        let pairs = self.history_size;
        vec![
            Slot::element("g_prev"),
            Slot::element("d"),
            Slot::history("s", pairs),
            Slot::history("y", pairs),
            Slot::model("scale").starting_at(1.0).nonnegative(),
            Slot::model("step").nonnegative(),
            Slot::model("pairs").nonnegative(),
            Slot::model("next").nonnegative(),
            Slot::model("started").nonnegative(),
            Slot::model("slope"),
            Slot::products("products", pairs),
        ]
    }

    fn passes(&self) -> Vec<Pass> {
        vec![Pass::Inner, Pass::FinishInner, Pass::Recursion, Pass::Recall, Pass::Apply]
    }

    fn moves(&self) -> &'static [Move] {
        if self.line_search == LineSearch::None { &[] } else { &[Move::Trial] }
    }

    fn line_search(&self) -> Option<Stopping> {
        (self.line_search != LineSearch::None).then(|| self.stopping())
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper { lr: self.lr }
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        k.step = sums[0] * h.lr;
        k.slope = sums[1];
        k.moves = if sums[1] > F::zero() { F::zero() } else { F::one() };
    }

    fn direction<F: Real>(&self, _h: &Hyper<F>, k: &Tensor<F>, _p: F, _g: F, s: &mut State<F>) -> F {
        if k.moves == F::zero() { F::zero() } else { -(k.step * s.d) }
    }

    fn moved<F: Real>(_to: Move, h: &Hyper<F>, p: F, s: &State<F>) -> F {
        p + h.lr * s.d
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let default = Self { history_size: 5, ..Self::default() };
        vec![
            ("short", Self { lr: 0.3, history_size: 1, ..default.clone() }),
            ("l2", Self { lr: 0.5, history_size: 3, weight_decay: WeightDecay::L2(0.2), ..default.clone() }),
            ("default", default),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"history_size": 0}"#, error: "history_size is 0, must be from 1 to 4096" },
            Reject { json: r#"{"history_size": 4097}"#, error: "history_size is 4097, must be from 1 to 4096" },
            Reject {
                json: r#"{"max_iter": 5}"#,
                error: "max_iter is 5, must be left out without line_search, which alone stops by it",
            },
            Reject {
                json: r#"{"line_search": "strong_wolfe", "max_iter": 0}"#,
                error: "max_iter is 0, must be at least 1",
            },
            Reject {
                json: r#"{"line_search": "strong_wolfe", "max_eval": 0}"#,
                error: "max_eval is 0, must be at least 1",
            },
            Reject {
                json: r#"{"line_search": "strong_wolfe", "tolerance_grad": -1}"#,
                error: "tolerance_grad is -1, must be at least 0 and finite",
            },
            Reject {
                json: r#"{"line_search": "strong_wolfe", "weight_decay": {"l2": 0.1}}"#,
                error: r#"weight_decay is {"l2": 0.1}, must be none with a line search; add the penalty to the loss"#,
            },
        ]
    }
}

impl Lbfgs {
    fn stopping(&self) -> Stopping {
        Stopping {
            max_iter: self.max_iter,
            max_eval: self.max_eval.unwrap_or(self.max_iter.saturating_mul(5) / 4),
            tolerance_grad: self.tolerance_grad,
            tolerance_change: self.tolerance_change,
        }
    }

    /// Refuses options that nothing reads without a line search.
    fn check_plain(&self) -> Result<()> {
        let Self { max_iter, max_eval, tolerance_grad, tolerance_change, .. } = Self::default();
        let set = [
            ("max_iter", self.max_iter != max_iter, self.max_iter.to_string()),
            ("max_eval", self.max_eval != max_eval, self.max_eval.unwrap_or(0).to_string()),
            ("tolerance_grad", self.tolerance_grad != tolerance_grad, self.tolerance_grad.to_string()),
            ("tolerance_change", self.tolerance_change != tolerance_change, self.tolerance_change.to_string()),
        ];
        match set.into_iter().find(|(_, is_set, _)| *is_set) {
            Some((field, _, value)) => refuse(field, value, "left out without line_search, which alone stops by it"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Numbers;

    #[test]
    fn the_numbers_of_the_model_are_those_of_a_history() {
        assert_eq!(<Tensor<f32> as Numbers<f32>>::NAMES, crate::history::NAMES);
    }
}
