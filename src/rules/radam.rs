//! RAdam. Twin: `shaders/rules/radam.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one, refuse};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// RAdam: Adam whose steps are scaled by how well `v` is known so far; the first steps do without it.
///
/// `m` and `v` as in Adam, `bc1 = 1-beta1^t`, `bc2 = 1-beta2^t`. `rho_inf = 2/(1-beta2) - 1`;
/// `rho = rho_inf - 2*t*beta2^t/bc2`. While `rho` is at most `threshold`, `p -= lr*m/bc1` (or nothing, see
/// [`Unrectified`]); then `p -= lr*(m/bc1)*r*sqrt(bc2)/(sqrt(v) + eps)` with
/// `r = sqrt((rho-4)*(rho-2)*rho_inf/((rho_inf-4)*(rho_inf-2)*rho))`; [`RAdamEps`] names the other place for eps.
/// Slots `m`, `v` per element.
///
/// Source: Liu et al. 2020, Algorithm 2. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct RAdam {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Where `eps` stands. Default uncorrected.
    pub eps_placement: RAdamEps,
    /// What `rho` must exceed for a step to use `v`: at least 4. Default 5.
    pub threshold: f64,
    /// What a step does while `rho` is at most `threshold`. Default sgd.
    pub unrectified: Unrectified,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(RAdam: lr, beta1, beta2, eps, eps_placement, threshold, unrectified, weight_decay);

/// Where RAdam's eps stands; the paper has none. JSON: `"uncorrected"`, `"outside"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RAdamEps {
    /// `sqrt(1-beta2^t)/(sqrt(v) + eps)` (PyTorch).
    #[default]
    Uncorrected,
    /// `1/(sqrt(v/(1-beta2^t)) + eps)` (optax).
    Outside,
}

/// What RAdam's steps do while too little is known of the mean square. JSON: `"sgd"`, `"skip"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrectified {
    /// Momentum alone, `lr*m/(1-beta1^t)` (the paper; PyTorch; optax).
    #[default]
    Sgd,
    /// No update; the decay acts as in any step.
    Skip,
}

impl Default for RAdam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_placement: RAdamEps::Uncorrected,
            threshold: 5.0,
            unrectified: Unrectified::Sgd,
            weight_decay: WeightDecay::None,
        }
    }
}

impl RAdam {
    /// The paper's and the course notes': threshold 4.
    pub fn paper() -> Self {
        Self { threshold: 4.0, ..Self::default() }
    }

    /// optax's: eps outside the corrected root.
    pub fn optax() -> Self {
        Self { eps_placement: RAdamEps::Outside, ..Self::default() }
    }

    /// What `rho` approaches.
    fn rho_inf(&self) -> f64 {
        2.0 / (1.0 - self.beta2) - 1.0
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        /// What the mean is multiplied by.
        step,
        /// What the root of `v` is multiplied by; 0 in a step that does without `v`.
        correction2,
        eps,
    }
}
numbers! {
    /// The moments.
    State { m, v }
}

impl Rule for RAdam {
    const NAME: &'static str = "radam";
    const SUMMARY: &'static str = "Adam scaled by how much is known of the mean square (Liu et al. 2020)";
    const SHADER: &'static str = include_str!("../../shaders/rules/radam.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps, threshold; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        if !(self.threshold >= 4.0 && (self.threshold as f32).is_finite()) {
            return refuse("threshold", self.threshold, "at least 4 and finite");
        }
        if self.unrectified == Unrectified::Skip && self.rho_inf() <= self.threshold {
            return refuse(
                "unrectified",
                "skip",
                "sgd unless 2/(1-beta2)-1 exceeds threshold: every step would be skipped",
            );
        }
        Ok(())
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("v").nonnegative()]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let (bc1, bc2) = (correction(self.beta1, t), correction(self.beta2, t));
        let rho_inf = self.rho_inf();
        let rho = rho_inf - 2.0 * t as f64 * self.beta2.powf(t as f64) / bc2;
        let (step, correction2) = if rho > self.threshold {
            let r = ((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)).sqrt();
            match self.eps_placement {
                RAdamEps::Uncorrected => (self.lr * r * bc2.sqrt() / bc1, 1.0),
                RAdamEps::Outside => (self.lr * r / bc1, 1.0 / bc2.sqrt()),
            }
        } else {
            match self.unrectified {
                Unrectified::Sgd => (self.lr / bc1, 0.0),
                Unrectified::Skip => (0.0, 0.0),
            }
        };
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            step,
            correction2,
            eps: self.eps,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        if h.correction2 == F::zero() {
            return h.step * s.m;
        }
        h.step * s.m / (s.v.sqrt() * h.correction2 + h.eps)
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("paper", Self::paper()), ("optax", Self::optax())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud =
            Self { lr: 0.02, beta1: 0.8, beta2: 0.95, eps: 0.1, weight_decay: WeightDecay::L2(0.2), ..Self::default() };
        vec![
            ("default", Self::default()),
            ("outside", Self { eps_placement: RAdamEps::Outside, ..loud.clone() }),
            (
                "skip",
                Self {
                    threshold: 4.0,
                    unrectified: Unrectified::Skip,
                    weight_decay: WeightDecay::Decoupled(0.3),
                    ..loud.clone()
                },
            ),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"threshold": 3.9}"#, error: "threshold is 3.9, must be at least 4 and finite" },
            Reject {
                json: r#"{"beta2": 0.6, "unrectified": "skip"}"#,
                error: "unrectified is skip, must be sgd unless 2/(1-beta2)-1 exceeds threshold: every step would be \
                        skipped",
            },
        ]
    }
}
