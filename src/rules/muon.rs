//! Muon. Twin: `shaders/rules/muon.wgsl`.

use crate::error::{Result, above_zero, below_one, refuse};
use crate::options::{AdjustLr, Nesterov, NsCoefficients};
use crate::parts::{Real, at_least, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Product, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// Muon: momentum whose matrix is made nearly orthogonal, so that no singular vector dominates the update.
///
/// A tensor of rank 2 or more is a matrix of `r` rows, its first dimension, and `c` columns, all others together.
/// The rule refuses tensors below rank 2. `m = momentum*m + (1-momentum)*g`, then `u = momentum*m + (1-momentum)*g` of
/// the new `m`, or `u = m` with `nesterov = off`. `X = u/max(ns_safety*norm(u), eps)`, then `ns_steps` times
/// `A = X*X^T; X <- k1*X + (k2*A + k3*A*A)*X`; where `r > c`, `X` is the transpose. `p -= lr*f*X`, where [`AdjustLr`]
/// says what `f` is. A decay follows `lr` without `f`. Slot `m` per element. A step takes `4 + 3*ns_steps` passes,
/// however many matrices there are. Beside the state it needs a work buffer: 12 bytes an element, and 8 for each pair
/// of rows (or of columns, where these are fewer). The part of each tensor must fit one binding.
///
/// Sources: Jordan et al. 2024, kellerjordan.github.io/posts/muon; the form and the defaults are `torch.optim.Muon`'s,
/// which casts to bfloat16; here all is f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.95.
    pub momentum: f64,
    /// Simplified or off. Default simplified.
    pub nesterov: Nesterov,
    /// `k1`, `k2`, `k3` of the iteration, with which no singular value may exceed 4. Default [`NsCoefficients::MUON`].
    pub ns_coefficients: NsCoefficients,
    /// Steps of the iteration, from 1 to 99. Default 5.
    pub ns_steps: u64,
    /// What the norm is multiplied by before it divides the matrix, above 0 in f32. Default 1.
    pub ns_safety: f64,
    /// The least number that divides the matrix, above 0 in f32. Default 1e-7.
    pub eps: f64,
    /// How `f` follows the shape. Default original.
    pub adjust_lr: AdjustLr,
    /// Any [general](WeightDecay::GENERAL) kind. Default `Decoupled(0.1)`.
    pub weight_decay: WeightDecay,
}

fields!(Muon: lr, momentum, nesterov, ns_coefficients, ns_steps, ns_safety, eps, adjust_lr, weight_decay);

impl Default for Muon {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.95,
            nesterov: Nesterov::Simplified,
            ns_coefficients: NsCoefficients::MUON,
            ns_steps: 5,
            ns_safety: 1.0,
            eps: 1e-7,
            adjust_lr: AdjustLr::Original,
            weight_decay: WeightDecay::Decoupled(0.1),
        }
    }
}

impl Muon {
    /// The coefficients of Amsel et al. 2025, arXiv 2505.16932, which bring all singular values nearer to 1.
    pub fn polar_express() -> Self {
        Self { ns_coefficients: NsCoefficients::polar_express(), ns_safety: 1.01, ..Self::default() }
    }

    /// Updates as large as AdamW's, whose learning rate it can take (Liu et al. 2025, arXiv 2502.16982).
    pub fn match_rms() -> Self {
        Self { adjust_lr: AdjustLr::MatchRmsAdamw, ..Self::default() }
    }

    /// Returns the momentum; with Nesterov's, the momentum as the same gradient would move it once more.
    fn update_of<F: Real>(&self, h: &Hyper<F>, g: F, s: &State<F>) -> F {
        match self.nesterov {
            Nesterov::Off => s.m,
            _ => ema(s.m, g, h.momentum, h.one_minus_momentum),
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, momentum, one_minus_momentum, safety, eps }
}
numbers! {
    /// The momentum, and what the iteration makes of it.
    State { m, x }
}
numbers! {
    /// Numbers of a matrix.
    Tensor {
        /// What the matrix is divided by before the iteration.
        norm,
        /// What `lr` is multiplied by.
        factor,
    }
}

impl Rule for Muon {
    const NAME: &'static str = "muon";
    const SUMMARY: &'static str = "momentum whose matrix is made orthogonal (Jordan et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/muon.wgsl");
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, momentum, ns_safety, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("momentum", self.momentum)?;
        if self.nesterov == Nesterov::LookAhead {
            return refuse("nesterov", "look_ahead", "simplified or off for muon");
        }
        above_zero("eps", self.eps)?;
        self.ns_coefficients.check(self.ns_steps, self.ns_safety)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("NESTEROV", f64::from(self.nesterov != Nesterov::Off)), ("ADJUST", f64::from(self.adjust_lr as u8))]
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::product("x")]
    }

    fn passes(&self) -> Vec<Pass> {
        let sums = Sums { state: true, stores: true, ..Sums::GRADS };
        let products = Product::iteration(self.ns_coefficients.steps(self.ns_steps)).map(Pass::Product);
        [Pass::Sums(sums), Pass::Finish, Pass::Spread].into_iter().chain(products).chain([Pass::Apply]).collect()
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            lr: self.lr,
            momentum: self.momentum,
            one_minus_momentum: 1.0 - self.momentum,
            safety: self.ns_safety,
            eps: self.eps,
        }
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, _p: F, g: F, s: &mut State<F>) -> [F; 2] {
        s.m = ema(s.m, g, h.momentum, h.one_minus_momentum);
        let u = self.update_of(h, g, s);
        [u * u, F::zero()]
    }

    fn of_shape<F: Real>(&self, _h: &Hyper<F>, rows: F, columns: F, k: &mut Tensor<F>) {
        k.factor = self.adjust_lr.factor(rows, columns);
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        k.norm = at_least(h.safety * sums[0].sqrt(), h.eps);
    }

    fn spread<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, g: F, s: &State<F>) -> F {
        self.update_of(h, g, s) / k.norm
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, _p: F, _g: F, s: &mut State<F>) -> F {
        h.lr * k.factor * s.x
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("polar_express", Self::polar_express()), ("match_rms", Self::match_rms())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.3,
            momentum: 0.7,
            ns_coefficients: NsCoefficients::Each(vec![[2.5, -2.0, 0.6], [2.0, -1.5, 0.5]]),
            ns_steps: 4,
            ns_safety: 1.5,
            eps: 2.0,
            adjust_lr: AdjustLr::SpectralUnclamped,
            weight_decay: WeightDecay::L2(0.2),
            ..Self::default()
        };
        vec![
            ("default", Self::default()),
            ("polar_express", Self { nesterov: Nesterov::Off, ..Self::polar_express() }),
            ("match_rms", Self { weight_decay: WeightDecay::Cautious(0.3), ns_steps: 1, ..Self::match_rms() }),
            ("unadjusted", Self { adjust_lr: AdjustLr::None, ns_steps: 2, ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"momentum": 1}"#, error: "momentum is 1, must be at least 0 and below 1" },
            Reject {
                json: r#"{"nesterov": "look_ahead"}"#,
                error: "nesterov is look_ahead, must be simplified or off for muon",
            },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"ns_steps": 0}"#, error: "ns_steps is 0, must be at least 1 and at most 99" },
            Reject { json: r#"{"ns_steps": 100}"#, error: "ns_steps is 100, must be at least 1 and at most 99" },
            Reject { json: r#"{"ns_safety": 0}"#, error: "ns_safety is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"ns_coefficients": []}"#,
                error: "ns_coefficients is [], must be a triple or a list of at least one",
            },
            Reject {
                json: r#"{"ns_coefficients": [4, -1, 0]}"#,
                error: "ns_coefficients is [4.0,-1.0,0.0], must be such that no singular value exceeds 4 with \
                        ns_safety 1; one does in step 2",
            },
        ]
    }
}
