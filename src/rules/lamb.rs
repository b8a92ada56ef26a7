//! LAMB. Twin: `shaders/rules/lamb.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, at_least_zero, below_one, refuse};
use crate::parts::{Real, correction, ema, within};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// LAMB: Adam's update, made as long as the parameters of its tensor.
///
/// `m, v, mh, vh` as in [`Adam`](crate::Adam). `u = mh/(sqrt(vh) + eps) + d*p` with [`WeightDecay::Inside`], and
/// `r = ||p||/||u||` over the tensor, within `trust_min` and `trust_max`; 1 where either norm is 0. `p -= lr*r*u`.
/// Slots `m`, `v` per element. Three passes: moments and norms, `r`, update.
///
/// Source: You et al. 2020, Algorithm 2. Defaults are optax's.
#[derive(Clone, Debug, PartialEq)]
pub struct Lamb {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root: above 0 in f32. Default 1e-6.
    pub eps: f64,
    /// Whether `m` and `v` are corrected for their start at 0. Default true.
    pub bias_correction: bool,
    /// None (default) or `Inside`.
    pub weight_decay: WeightDecay,
    /// Which tensors have an `r`. Default always.
    pub adapt: LambAdapt,
    /// The least `r`, at least 0. Default 0.
    pub trust_min: f64,
    /// The largest `r`, above 0 and at least `trust_min`; none (default) for no bound.
    pub trust_max: Option<f64>,
}

fields!(Lamb: lr, beta1, beta2, eps, bias_correction, weight_decay, adapt, trust_min, trust_max);

/// Which tensors LAMB scales. JSON: `"always"`, `"decayed_only"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LambAdapt {
    /// All.
    #[default]
    Always,
    /// Those of groups with a decay above 0; `r` is 1 for all others.
    DecayedOnly,
}

impl Default for Lamb {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-6,
            bias_correction: true,
            weight_decay: WeightDecay::None,
            adapt: LambAdapt::Always,
            trust_min: 0.0,
            trust_max: None,
        }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        lr,
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        /// What `m` is multiplied by.
        correction1,
        /// What the root of `v` is multiplied by.
        correction2,
        eps,
        inside,
        /// Both bounds are 1 where the tensor is not scaled.
        trust_min,
        trust_max,
    }
}
numbers! {
    /// The moments.
    State { m, v }
}
numbers! {
    /// What updates are multiplied by: the learning rate times `r`.
    Tensor { rate }
}

impl Lamb {
    fn adam<F: Real>(h: &Hyper<F>, p: F, m: F, v: F) -> F {
        h.correction1 * m / (v.sqrt() * h.correction2 + h.eps) + h.inside * p
    }
}

impl Rule for Lamb {
    const NAME: &'static str = "lamb";
    const SUMMARY: &'static str = "Adam's update over its norm, times the parameter's norm (You et al. 2020)";
    const SHADER: &'static str = include_str!("../../shaders/rules/lamb.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "inside"];
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, beta1, beta2, eps, trust_min; weight_decay, trust_max);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        at_least_zero("trust_min", self.trust_min)?;
        let Some(trust_max) = self.trust_max else { return Ok(()) };
        above_zero("trust_max", trust_max)?;
        if trust_max < self.trust_min {
            return refuse("trust_max", trust_max, format!("at least trust_min, which is {}", self.trust_min));
        }
        Ok(())
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::element("v").nonnegative()]
    }

    fn passes(&self) -> Vec<Pass> {
        let sums = Sums { pair: true, param: true, state: true, stores: true, ..Sums::GRADS };
        vec![Pass::Sums(sums), Pass::Finish, Pass::Apply]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let correction = |beta| if self.bias_correction { correction(beta, t) } else { 1.0 };
        let inside = self.weight_decay.amount();
        let (trust_min, trust_max) = match self.adapt {
            LambAdapt::DecayedOnly if inside == 0.0 => (1.0, 1.0),
            _ => (self.trust_min, self.trust_max.unwrap_or(f32::MAX.into())),
        };
        Hyper {
            lr: self.lr,
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            correction1: 1.0 / correction(self.beta1),
            correction2: 1.0 / correction(self.beta2).sqrt(),
            eps: self.eps,
            inside,
            trust_min,
            trust_max,
        }
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, p: F, g: F, s: &mut State<F>) -> [F; 2] {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        let u = Self::adam(h, p, s.m, s.v);
        [p * p, u * u]
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        let mut ratio = F::one();
        if sums[0] > F::zero() && sums[1] > F::zero() {
            ratio = sums[0].sqrt() / sums[1].sqrt();
        }
        // A NaN in a norm, or in the ratio of two infinite ones, reaches the whole tensor.
        let lost = sums[0] + sums[1] + ratio;
        if sums[0] > F::zero() && sums[1] > F::zero() {
            ratio = within(ratio, h.trust_min, h.trust_max);
        }
        k.rate = if lost.is_nan() { lost } else { h.lr * ratio };
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, p: F, _g: F, s: &mut State<F>) -> F {
        k.rate * Self::adam(h, p, s.m, s.v)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.05,
            beta1: 0.8,
            beta2: 0.95,
            eps: 0.1,
            weight_decay: WeightDecay::Inside(0.3),
            ..Self::default()
        };
        let decayed_only = Self { adapt: LambAdapt::DecayedOnly, ..loud.clone() };
        vec![
            ("default", Self::default()),
            ("uncorrected", Self { bias_correction: false, ..loud.clone() }),
            ("least", Self { trust_min: 30.0, trust_max: Some(40.0), ..loud.clone() }),
            ("largest", Self { trust_min: 0.2, trust_max: Some(0.3), ..loud.clone() }),
            ("not_decayed", Self { weight_decay: WeightDecay::None, ..decayed_only.clone() }),
            ("decayed_only", decayed_only),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"trust_min": -1}"#, error: "trust_min is -1, must be at least 0 and finite" },
            Reject { json: r#"{"trust_max": 0}"#, error: "trust_max is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"trust_min": 2, "trust_max": 1}"#,
                error: "trust_max is 1, must be at least trust_min, which is 2",
            },
            Reject {
                json: r#"{"weight_decay": {"decoupled": 0.1}}"#,
                error: "weight_decay is {\"decoupled\": 0.1}, must be one of none, inside for lamb",
            },
        ]
    }
}
