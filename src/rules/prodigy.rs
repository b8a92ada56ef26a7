//! Prodigy. Twin: `shaders/rules/prodigy.wgsl`.

use crate::error::{Result, above_zero, below_one, refuse};
use crate::parts::{Real, ema, larger, smaller};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// Prodigy: Adam whose steps follow an estimate `d` of the distance to the solution, so that `lr` can stay 1.
///
/// `r = d*lr`, with `bias_correction` times `sqrt(1-beta2^k)/(1-beta1^k)`.
/// `num = beta3*num + (d/d0)*r*sum(g*(p0-p)); m = beta1*m + (1-beta1)*d*g; v = beta2*v + (1-beta2)*(d*g)^2`,
/// `s = beta3*s + (d/d0)*r*g`, or `(d/d0)*d*g` with `safeguard_warmup`. Then `hat = d_coef*num/sum(abs(s))`,
/// `d_max = max(d_max, hat)`, and `d` becomes `min(d_max, d'*growth_rate)`, where `d' = max(d, hat)` while `d = d0`,
/// else `d`. `p -= r*m/(sqrt(v) + d*eps)`, where `r` still has the old `d`; a decoupled decay is `r*weight_decay*p`.
/// `p0` is the parameter before the first step.
///
/// Both sums go over all tensors of all groups that have a gradient, and `d`, `d_max`, `num` and the corrections belong
/// to the whole model; `k` counts the steps that moved it. A step with `sum(abs(s)) = 0`, where all gradients so far
/// are 0, moves nothing. Groups set `eps` and `weight_decay` alone, and whether they ascend. Slots `m`, `v`, `s` and
/// `p0` per element; `d`, `d_max`, `num`, and with `bias_correction` `bc1` and `bc2`, once per model. Four passes:
/// sums, those of each tensor, those of the model, update.
///
/// Source: Mishchenko and Defazio 2023, arXiv 2306.06101, Algorithm 4, and the authors' implementation, whose defaults
/// these are.
#[derive(Clone, Debug, PartialEq)]
pub struct Prodigy {
    /// What the estimate is multiplied by, at least 0. Default 1.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// How much of `num` and `s` a step keeps: at least 0 and below 1. Default none, which is the root of `beta2`.
    pub beta3: Option<f64>,
    /// Above 0 in f32, and times `d0` at least f32's least normal number. Default 1e-8.
    pub eps: f64,
    /// The first estimate, above 0 in f32. The slots `d` and `d_max` start there, so it cannot change later. Default
    /// 1e-6.
    pub d0: f64,
    /// What new estimates are multiplied by, above 0 in f32. Default 1.
    pub d_coef: f64,
    /// The most that the estimate grows by in a step, at least 1. Default none.
    pub growth_rate: Option<f64>,
    /// Whether the rate is corrected for the start of `m` and `v` at 0. Default false.
    pub bias_correction: bool,
    /// Whether the weights of gradients in `s` leave the rate out, for rates that warm up. Default false.
    pub safeguard_warmup: bool,
    /// None, L2 or decoupled. Default none.
    pub weight_decay: WeightDecay,
}

fields!(
    Prodigy: lr, beta1, beta2, beta3, eps, d0, d_coef, growth_rate, bias_correction, safeguard_warmup, weight_decay
);

impl Default for Prodigy {
    fn default() -> Self {
        Self {
            lr: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            beta3: None,
            eps: 1e-8,
            d0: 1e-6,
            d_coef: 1.0,
            growth_rate: None,
            bias_correction: false,
            safeguard_warmup: false,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, eps, d0, d_coef, growth_rate }
}
numbers! {
    /// The moments, the sum of gradients, and the first parameter.
    State { m, v, s, p0 }
}
numbers! {
    /// Numbers of the model.
    Tensor {
        d,
        d_max,
        num,
        /// `1 - beta1^k` after `k` steps.
        bc1,
        bc2,
        /// What `lr` is multiplied by in this step.
        rate,
    }
}

impl Prodigy {
    /// Returns what `lr` is multiplied by: the estimate, and the bias corrections of the step that is being made.
    fn rate_of<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>) -> F {
        if !self.bias_correction {
            return k.d;
        }
        let bc1 = ema(k.bc1, F::one(), h.beta1, h.one_minus_beta1);
        let bc2 = ema(k.bc2, F::one(), h.beta2, h.one_minus_beta2);
        k.d * bc2.sqrt() / bc1
    }
}

impl Rule for Prodigy {
    const NAME: &'static str = "prodigy";
    const SUMMARY: &'static str =
        "Adam whose steps follow an estimate of the distance to the solution (Mishchenko and Defazio 2023)";
    const SHADER: &'static str = include_str!("../../shaders/rules/prodigy.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "l2", "decoupled"];
    const MASKABLE: bool = false;
    const MODEL_FIELDS: &'static [&'static str] =
        &["lr", "beta1", "beta2", "beta3", "d0", "d_coef", "growth_rate", "bias_correction", "safeguard_warmup"];

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, beta1, beta2, eps, d_coef; weight_decay, beta3, growth_rate);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        if let Some(beta3) = self.beta3 {
            below_one("beta3", beta3)?;
        }
        above_zero("eps", self.eps)?;
        above_zero("d0", self.d0)?;
        above_zero("d_coef", self.d_coef)?;
        let least = f64::from(f32::MIN_POSITIVE) / self.d0;
        if self.eps < least {
            return refuse("eps", self.eps, format!("at least {least:.2e} with d0 {:e}", self.d0));
        }
        match self.growth_rate {
            Some(rate) if !(rate >= 1.0 && (rate as f32).is_finite()) => {
                refuse("growth_rate", rate, "at least 1 and finite in f32")
            }
            _ => Ok(()),
        }
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("BIAS_CORRECTION", f64::from(self.bias_correction)), ("SAFEGUARD", f64::from(self.safeguard_warmup))]
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![
            Slot::element("m"),
            Slot::element("v").nonnegative(),
            Slot::element("s"),
            Slot::element("p0").starting_as_param(),
            Slot::model("d").starting_at(self.d0).nonnegative(),
            Slot::model("d_max").starting_at(self.d0).nonnegative(),
            Slot::model("num"),
        ];
        if self.bias_correction {
            slots.extend(["bc1", "bc2"].map(|name| Slot::model(name).nonnegative()));
        }
        slots
    }

    fn passes(&self) -> Vec<Pass> {
        let sums = Sums { pair: true, param: true, state: true, stores: true, ..Sums::GRADS };
        vec![Pass::Sums(sums), Pass::FinishSums, Pass::FinishModel, Pass::Apply]
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            lr: self.lr,
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            beta3: self.beta3.unwrap_or(self.beta2.sqrt()),
            eps: self.eps,
            d0: self.d0,
            d_coef: self.d_coef,
            growth_rate: self.growth_rate.unwrap_or(f32::MAX.into()),
        }
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, p: F, g: F, s: &mut State<F>) -> [F; 2] {
        let scaled = k.d * g;
        let weight = k.d / h.d0 * if self.safeguard_warmup { k.d } else { self.rate_of(h, k) * h.lr };
        s.m = ema(s.m, scaled, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, scaled * scaled, h.beta2, h.one_minus_beta2);
        s.s = ema(s.s, g, h.beta3, weight);
        [g * (s.p0 - p), s.s.abs()]
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        let rate = self.rate_of(h, k);
        k.rate = if sums[1] == F::zero() { F::zero() } else { rate };
        if sums[1] == F::zero() {
            return;
        }
        let num = ema(k.num, sums[0], h.beta3, k.d / h.d0 * (rate * h.lr));
        let hat = h.d_coef * num / sums[1];
        let hat = if hat.is_nan() { F::zero() } else { hat };
        let d_max = larger(k.d_max, hat);
        let reached = if k.d == h.d0 { larger(k.d, hat) } else { k.d };
        k.num = num;
        k.d_max = d_max;
        k.d = smaller(d_max, reached * h.growth_rate);
        if self.bias_correction {
            k.bc1 = ema(k.bc1, F::one(), h.beta1, h.one_minus_beta1);
            k.bc2 = ema(k.bc2, F::one(), h.beta2, h.one_minus_beta2);
        }
    }

    fn decay_rate<F: Real>(&self, _h: &Hyper<F>, k: &Tensor<F>) -> F {
        k.rate
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, _p: F, _g: F, s: &mut State<F>) -> F {
        k.rate * h.lr * s.m / (s.v.sqrt() + k.d * h.eps)
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.7,
            beta1: 0.8,
            beta2: 0.95,
            beta3: Some(0.9),
            eps: 0.1,
            d0: 0.3,
            d_coef: 2.0,
            growth_rate: Some(1.5),
            weight_decay: WeightDecay::Decoupled(0.2),
            ..Self::default()
        };
        vec![
            ("default", Self::default()),
            ("corrected", Self { bias_correction: true, weight_decay: WeightDecay::L2(0.2), ..loud.clone() }),
            ("safeguarded", Self { safeguard_warmup: true, beta3: None, growth_rate: None, ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta3": 1}"#, error: "beta3 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"eps": 1e-20, "d0": 1e-19}"#,
                error: "eps is 1e-20, must be at least 1.18e-19 with d0 1e-19",
            },
            Reject { json: r#"{"d0": 0}"#, error: "d0 is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"d_coef": 0}"#, error: "d_coef is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"growth_rate": 0.9}"#,
                error: "growth_rate is 0.9, must be at least 1 and finite in f32",
            },
        ]
    }
}
