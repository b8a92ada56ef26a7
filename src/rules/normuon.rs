//! NorMuon. Twin: `shaders/rules/normuon.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one, refuse};
use crate::options::{AdjustLr, Nesterov, NsCoefficients};
use crate::parts::{Real, at_least, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Product, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// NorMuon: [`Muon`](super::Muon) whose rows are divided by their root mean square so far, so that the weights of all
/// neurons move equally far.
///
/// `X` comes from the same iteration as Muon's. `v = beta2*v + (1-beta2)*mean(X^2)` over each row, without a bias
/// correction; `N = X/(sqrt(v) + eps_row)`; then by [`UpdateScale`] `p -= lr*f*N*norm(X)/(norm(N) + eps_row)` or
/// `p -= lr*N*0.2*sqrt(r*c)/(norm(N) + eps_row)`. Slots `m` per element and `v` per row, one for each index of the
/// first dimension. A step takes `8 + 3*ns_steps` passes, and as large a work buffer as Muon's.
///
/// Source: Li et al. 2025, arXiv 2510.05491, Algorithm 1, and the authors' implementation, whose defaults these are.
/// That implementation adds 1e-7 to the norm of `u`; this one takes at least `eps` for it.
#[derive(Clone, Debug, PartialEq)]
pub struct NorMuon {
    /// Learning rate, at least 0. Default 0.02.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.95.
    pub momentum: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.95.
    pub beta2: f64,
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
    /// What is added to the root of `v` and to the norm of `N`, above 0 in f32. Default 1e-10.
    pub eps_row: f64,
    /// How large updates are. Default preserve_norm.
    pub update_scale: UpdateScale,
    /// How `f` follows the shape. Default original, and nothing else with [`UpdateScale::MatchRms`], which has no `f`.
    pub adjust_lr: AdjustLr,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(
    NorMuon: lr, momentum, beta2, nesterov, ns_coefficients, ns_steps, ns_safety, eps, eps_row, update_scale, adjust_lr,
    weight_decay
);

/// How large NorMuon's updates are. JSON: `"preserve_norm"`, `"match_rms"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateScale {
    /// As large as `X`, times `f` (the authors' implementation).
    #[default]
    PreserveNorm,
    /// As large as AdamW's: a root mean square of 0.2 (Algorithm 1 of the paper).
    MatchRms,
}

impl Default for NorMuon {
    fn default() -> Self {
        Self {
            lr: 0.02,
            momentum: 0.95,
            beta2: 0.95,
            nesterov: Nesterov::Simplified,
            ns_coefficients: NsCoefficients::MUON,
            ns_steps: 5,
            ns_safety: 1.0,
            eps: 1e-7,
            eps_row: 1e-10,
            update_scale: UpdateScale::PreserveNorm,
            adjust_lr: AdjustLr::Original,
            weight_decay: WeightDecay::None,
        }
    }
}

impl NorMuon {
    /// The coefficients of Amsel et al. 2025, arXiv 2505.16932, which bring all singular values nearer to 1.
    pub fn polar_express() -> Self {
        Self { ns_coefficients: NsCoefficients::polar_express(), ns_safety: 1.01, ..Self::default() }
    }

    /// Updates as large as AdamW's, whose learning rate it can take: the paper's form.
    pub fn match_rms() -> Self {
        Self { update_scale: UpdateScale::MatchRms, ..Self::default() }
    }

    /// Returns an element over the root mean square of its row.
    fn normalised<F: Real>(h: &Hyper<F>, s: &State<F>) -> F {
        s.x / (s.v.sqrt() + h.eps_row)
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
    Hyper { lr, momentum, one_minus_momentum, beta2, one_minus_beta2, safety, eps, eps_row }
}
numbers! {
    /// The momentum, the row's mean square, and what the iteration makes of the momentum.
    State { m, v, x }
}
numbers! {
    /// Numbers of a matrix.
    Tensor {
        /// What the matrix is divided by before the iteration.
        norm,
        /// What `lr` is multiplied by for the shape.
        factor,
        /// What the divided rows are multiplied by.
        scale,
    }
}

impl Rule for NorMuon {
    const NAME: &'static str = "normuon";
    const SUMMARY: &'static str = "Muon whose rows are divided by their root mean square so far (Li et al. 2025)";
    const SHADER: &'static str = include_str!("../../shaders/rules/normuon.wgsl");
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, momentum, beta2, ns_safety, eps, eps_row; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("momentum", self.momentum)?;
        below_one("beta2", self.beta2)?;
        if self.nesterov == Nesterov::LookAhead {
            return refuse("nesterov", "look_ahead", "simplified or off for normuon");
        }
        above_zero("eps", self.eps)?;
        above_zero("eps_row", self.eps_row)?;
        if self.update_scale == UpdateScale::MatchRms && self.adjust_lr != AdjustLr::Original {
            return refuse("adjust_lr", serde_json::json!(self.adjust_lr), "original with update_scale match_rms");
        }
        self.ns_coefficients.check(self.ns_steps, self.ns_safety)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("NESTEROV", f64::from(self.nesterov != Nesterov::Off)),
            ("ADJUST", f64::from(self.adjust_lr as u8)),
            ("MATCH_RMS", f64::from(self.update_scale == UpdateScale::MatchRms)),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::leading("v").nonnegative(), Slot::product("x")]
    }

    fn passes(&self) -> Vec<Pass> {
        let sums = Sums { state: true, stores: true, ..Sums::GRADS };
        let products = Product::iteration(self.ns_coefficients.steps(self.ns_steps)).map(Pass::Product);
        let rows = Sums { pair: true, grad: false, state: true, product: true, ..Sums::GRADS };
        let behind = [Pass::Lines, Pass::FinishLines, Pass::Sums(rows), Pass::Finish, Pass::Apply];
        [Pass::Sums(sums), Pass::Finish, Pass::Spread].into_iter().chain(products).chain(behind).collect()
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            lr: self.lr,
            momentum: self.momentum,
            one_minus_momentum: 1.0 - self.momentum,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            safety: self.ns_safety,
            eps: self.eps,
            eps_row: self.eps_row,
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

    fn measure_line<F: Real>(&self, _h: &Hyper<F>, g: F) -> F {
        g * g
    }

    fn finish_line<F: Real>(&self, h: &Hyper<F>, sum: F, len: F, old: F) -> F {
        ema(old, sum / len, h.beta2, h.one_minus_beta2)
    }

    fn measure_product<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, s: &State<F>) -> [F; 2] {
        let n = Self::normalised(h, s);
        [s.x * s.x, n * n]
    }

    fn finish_product<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], len: F, k: &mut Tensor<F>) {
        let size = match self.update_scale {
            UpdateScale::PreserveNorm => k.factor * sums[0].sqrt(),
            UpdateScale::MatchRms => F::of(0.2) * len.sqrt(),
        };
        k.scale = size / (sums[1].sqrt() + h.eps_row);
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, _p: F, _g: F, s: &mut State<F>) -> F {
        h.lr * k.scale * Self::normalised(h, s)
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("polar_express", Self::polar_express()), ("match_rms", Self::match_rms())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.3,
            momentum: 0.7,
            beta2: 0.6,
            ns_coefficients: NsCoefficients::Each(vec![[2.5, -2.0, 0.6], [2.0, -1.5, 0.5]]),
            ns_steps: 4,
            ns_safety: 1.5,
            eps: 2.0,
            eps_row: 0.1,
            adjust_lr: AdjustLr::SpectralUnclamped,
            weight_decay: WeightDecay::L2(0.2),
            ..Self::default()
        };
        vec![
            ("default", Self::default()),
            ("adjusted", Self { adjust_lr: AdjustLr::MatchRmsAdamw, ..Self::default() }),
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
            Reject { json: r#"{"beta2": 1}"#, error: "beta2 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps_row": 0}"#, error: "eps_row is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"update_scale": "match_rms", "adjust_lr": "none"}"#,
                error: "adjust_lr is \"none\", must be original with update_scale match_rms",
            },
            Reject {
                json: r#"{"nesterov": "look_ahead"}"#,
                error: "nesterov is look_ahead, must be simplified or off for normuon",
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
