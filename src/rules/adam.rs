//! Adam and AdamW. Twin: `shaders/rules/adam.wgsl`.

use std::any::TypeId;

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one, refuse};
use crate::parts::{Real, at_least, correction, ema, larger};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{AnyRule, Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// Adam, without decay unless one is given. See [`AdamFamily`].
pub type Adam = AdamFamily<false>;

/// AdamW: Adam with a decoupled decay of 0.01 unless another is given. See [`AdamFamily`].
pub type AdamW = AdamFamily<true>;

/// Adam: running means of the gradient and of its square, both corrected for their start at 0.
///
/// `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2; mh = m/(1-beta1^t); vh = v/(1-beta2^t)`, and
/// `p -= lr*mh/(sqrt(vh) + eps)`; [`AdamEps`] names the other places for eps, [`Amsgrad`] the running maximum of `v`.
/// Slots `m`, `v`, and `vmax` with AMSGrad, per element.
///
/// With `update_rms_clip = c` the rate of a tensor is `lr/max(1, R/c)` in a step, where
/// `R = sqrt(mean(g^2/max(vh, eps^2)))` over the tensor; every decay but L2 follows this rate. A step then takes three
/// passes. The type's parameter `DECOUPLED` only chooses the default of `weight_decay`.
///
/// With `v_per = row` a tensor of rank 2 and more has one `v` for each index of its first dimension:
/// `v = beta2*v + (1-beta2)*mean(g^2)`, where the mean is over all elements of that index. Tensors below rank 2 keep
/// one `v` per element. Two passes over the tensors of rank 2 and more come first. The type's parameter `ROWS` is true
/// for the form of the rule that [the optimizer chooses](Rule::for_matrices) for these tensors.
///
/// Sources: Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; Reddi et al. 2018, Algorithm 2;
/// Wortsman et al. 2023, arXiv 2304.13013, Algorithm 2 (StableAdamW); Zhang et al. 2024, arXiv 2406.16793, section 2
/// (Adam-mini, whose blocks are rows in perceptrons).
/// Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamFamily<const DECOUPLED: bool, const ROWS: bool = false> {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// What is added to the root, or under it: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Where `eps` stands. Default outside.
    pub eps_placement: AdamEps,
    /// Which running maximum of `v` divides. Default off.
    pub amsgrad: Amsgrad,
    /// What has a `v` of its own. Default element; a row only without AMSGrad.
    pub v_per: VPer,
    /// Whether `m` and `v` are corrected for their start at 0. Default true.
    pub bias_correction: bool,
    /// `c`, the root mean square above which a tensor's rate falls: above 0 in f32. It needs an `eps` of at least
    /// 1.1e-19, and no AMSGrad. Default none, which is no clip; the source takes 1.
    pub update_rms_clip: Option<f64>,
    /// Any [general](WeightDecay::GENERAL) kind. Default none for [`Adam`], `Decoupled(0.01)` for [`AdamW`].
    pub weight_decay: WeightDecay,
}

fields!(
    AdamFamily<const DECOUPLED: bool, const ROWS: bool>: lr, beta1, beta2, eps, eps_placement, amsgrad, v_per,
    bias_correction, update_rms_clip, weight_decay
);

/// Where Adam's eps stands. JSON: `"outside"`, `"inside"`, `"hat"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdamEps {
    /// `lr*mh/(sqrt(vh) + eps)` (Kingma and Ba 2015, Algorithm 1; PyTorch).
    #[default]
    Outside,
    /// `lr*mh/sqrt(vh + eps)`.
    Inside,
    /// `lr*sqrt(1-beta2^t)/(1-beta1^t) * m/(sqrt(v) + eps)` (the same paper, end of section 2; Keras).
    Hat,
}

/// The running maximum of `v`. JSON: `"off"`, `"raw"`, `"corrected"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amsgrad {
    /// None.
    #[default]
    Off,
    /// `vmax = max(vmax, v)`, corrected afterwards (PyTorch).
    Raw,
    /// `vmax = max(vmax, v/(1-beta2^t))` (optax).
    Corrected,
}

/// What has a mean square of its own. JSON: `"element"`, `"row"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VPer {
    /// Each element.
    #[default]
    Element,
    /// Each index of the first dimension of a tensor of rank 2 and more; each element of other tensors.
    Row,
}

impl<const DECOUPLED: bool, const ROWS: bool> Default for AdamFamily<DECOUPLED, ROWS> {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_placement: AdamEps::Outside,
            amsgrad: Amsgrad::Off,
            v_per: VPer::Element,
            bias_correction: true,
            update_rms_clip: None,
            weight_decay: if DECOUPLED { WeightDecay::Decoupled(0.01) } else { WeightDecay::None },
        }
    }
}

impl<const DECOUPLED: bool, const ROWS: bool> AdamFamily<DECOUPLED, ROWS> {
    /// The numbers of a course's notes on optimizers: eps stands inside the root. JSON also reads the name `seeds`.
    pub fn course_notes() -> Self {
        Self { eps_placement: AdamEps::Inside, ..Self::default() }
    }

    /// Keras's: eps 1e-7 in the hat place, and for AdamW a decay of 0.004.
    pub fn keras() -> Self {
        Self { eps: 1e-7, eps_placement: AdamEps::Hat, ..Self::default() }.decaying(0.004)
    }

    /// Burn's: eps 1e-5, and for AdamW a decay of 1e-4.
    pub fn burn() -> Self {
        Self { eps: 1e-5, ..Self::default() }.decaying(1e-4)
    }

    fn decaying(self, amount: f64) -> Self {
        if DECOUPLED { Self { weight_decay: WeightDecay::Decoupled(amount), ..self } } else { self }
    }

    /// Returns the mean square of the gradient. A row's comes from `finish_line`, so it has this step's gradients.
    fn square<F: Real>(h: &Hyper<F>, g: F, s: &State<F>) -> F {
        if ROWS { s.v } else { ema(s.v, g * g, h.beta2, h.one_minus_beta2) }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        /// `lr` over the first bias correction.
        step,
        /// What `v` (eps inside, corrected AMSGrad) or its root is multiplied by.
        correction2,
        eps,
        /// What `v` is multiplied by where the update is measured for the clip.
        correction_v,
        eps_squared,
        /// The root mean square of `g` over the root of `v`, above which the rate falls.
        rms,
    }
}
numbers! {
    /// The moments, and the largest second moment so far. `v` may be that of the element's row.
    State { m, v, vmax }
}
numbers! {
    /// What the rate is multiplied by where the update is clipped.
    Tensor { scale }
}

impl<const DECOUPLED: bool, const ROWS: bool> Rule for AdamFamily<DECOUPLED, ROWS> {
    const NAME: &'static str = if DECOUPLED { "adamw" } else { "adam" };
    const SUMMARY: &'static str = if DECOUPLED {
        "Adam with decoupled decay 0.01 (Loshchilov and Hutter 2019)"
    } else {
        "corrected running means of gradient and square, AMSGrad (Kingma and Ba 2015; Reddi et al. 2018)"
    };
    const SHADER: &'static str = include_str!("../../shaders/rules/adam.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, beta1, beta2, eps; weight_decay, update_rms_clip);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        if self.eps_placement == AdamEps::Hat && self.amsgrad == Amsgrad::Corrected {
            return refuse("amsgrad", "corrected", "off or raw with eps_placement hat");
        }
        if self.v_per == VPer::Row && self.amsgrad != Amsgrad::Off {
            return refuse("v_per", "row", "element with amsgrad");
        }
        let Some(clip) = self.update_rms_clip else { return Ok(()) };
        above_zero("update_rms_clip", clip)?;
        if self.amsgrad != Amsgrad::Off {
            return refuse("update_rms_clip", clip, "left out with amsgrad");
        }
        // The square of eps is a divisor in f32.
        if self.eps < 1.1e-19 {
            return refuse("eps", self.eps, "at least 1.1e-19 with update_rms_clip");
        }
        Ok(())
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("EPS_INSIDE", f64::from(self.eps_placement == AdamEps::Inside)),
            ("AMSGRAD", f64::from(self.amsgrad as u8)),
            ("RMS_CLIP", f64::from(self.update_rms_clip.is_some())),
            ("ROWS", f64::from(ROWS)),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        let v = if ROWS { Slot::leading("v") } else { Slot::element("v") };
        let mut slots = vec![Slot::element("m"), v.nonnegative()];
        if self.amsgrad != Amsgrad::Off {
            slots.push(Slot::element("vmax").nonnegative());
        }
        slots
    }

    fn passes(&self) -> Vec<Pass> {
        let sums = Pass::Sums(Sums { state: true, ..Sums::GRADS });
        let mut passes = if ROWS { vec![Pass::Lines, Pass::FinishLines] } else { vec![] };
        passes.extend(self.update_rms_clip.map(|_| [sums, Pass::Finish]).into_iter().flatten());
        passes.push(Pass::Apply);
        passes
    }

    fn types() -> Vec<TypeId> {
        vec![TypeId::of::<AdamFamily<DECOUPLED, false>>(), TypeId::of::<AdamFamily<DECOUPLED, true>>()]
    }

    fn for_matrices(&self) -> Option<Box<dyn AnyRule>> {
        let &Self { lr, beta1, beta2, eps, eps_placement, amsgrad, v_per, .. } = self;
        let &Self { bias_correction, update_rms_clip, weight_decay, .. } = self;
        (v_per == VPer::Row && !ROWS).then(|| -> Box<dyn AnyRule> {
            Box::new(AdamFamily::<DECOUPLED, true> {
                lr,
                beta1,
                beta2,
                eps,
                eps_placement,
                amsgrad,
                v_per,
                bias_correction,
                update_rms_clip,
                weight_decay,
            })
        })
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let [bc1, bc2] =
            [self.beta1, self.beta2].map(|beta| if self.bias_correction { correction(beta, t) } else { 1.0 });
        let (step, correction2) = match (self.eps_placement, self.amsgrad) {
            (AdamEps::Hat, _) => (self.lr * bc2.sqrt() / bc1, 1.0),
            (AdamEps::Inside, _) | (_, Amsgrad::Corrected) => (self.lr / bc1, 1.0 / bc2),
            (AdamEps::Outside, _) => (self.lr / bc1, 1.0 / bc2.sqrt()),
        };
        Hyper {
            beta1: self.beta1,
            one_minus_beta1: 1.0 - self.beta1,
            beta2: self.beta2,
            one_minus_beta2: 1.0 - self.beta2,
            step,
            correction2,
            eps: self.eps,
            correction_v: 1.0 / bc2,
            // Where the device writes eps, the square would not follow it. Only the clip uses the square.
            eps_squared: if self.update_rms_clip.is_some() { self.eps * self.eps } else { 0.0 },
            rms: self.update_rms_clip.unwrap_or(1.0),
        }
    }

    fn measure_line<F: Real>(&self, _h: &Hyper<F>, g: F) -> F {
        g * g
    }

    fn finish_line<F: Real>(&self, h: &Hyper<F>, sum: F, len: F, old: F) -> F {
        ema(old, sum / len, h.beta2, h.one_minus_beta2)
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, _p: F, g: F, s: &mut State<F>) -> [F; 2] {
        let v = Self::square(h, g, s);
        [g * g / at_least(v * h.correction_v, h.eps_squared), F::zero()]
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], len: F, k: &mut Tensor<F>) {
        k.scale = F::one() / at_least((sums[0] / len).sqrt() / h.rms, F::one());
    }

    fn decay_rate<F: Real>(&self, _h: &Hyper<F>, k: &Tensor<F>) -> F {
        if self.update_rms_clip.is_some() { k.scale } else { F::one() }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = Self::square(h, g, s);
        let v = match self.amsgrad {
            Amsgrad::Off => s.v,
            Amsgrad::Raw => {
                s.vmax = larger(s.vmax, s.v);
                s.vmax
            }
            Amsgrad::Corrected => {
                s.vmax = larger(s.vmax, s.v * h.correction2);
                s.vmax
            }
        };
        let correction2 = if self.amsgrad == Amsgrad::Corrected { F::one() } else { h.correction2 };
        let step = if self.update_rms_clip.is_some() { h.step * k.scale } else { h.step };
        match self.eps_placement {
            AdamEps::Inside => step * s.m / (v * correction2 + h.eps).sqrt(),
            AdamEps::Outside | AdamEps::Hat => step * s.m / (v.sqrt() * correction2 + h.eps),
        }
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("course_notes", Self::course_notes()), ("keras", Self::keras()), ("burn", Self::burn())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.02,
            beta1: 0.8,
            beta2: 0.95,
            eps: 0.1,
            weight_decay: if DECOUPLED { WeightDecay::Decoupled(0.3) } else { WeightDecay::L2(0.2) },
            ..Self::default()
        };
        let raw = Self { amsgrad: Amsgrad::Raw, ..loud.clone() };
        let corrected = Self { amsgrad: Amsgrad::Corrected, ..loud.clone() };
        let inside = Self { eps_placement: AdamEps::Inside, ..loud.clone() };
        vec![
            ("default", Self::default()),
            ("hat", Self { eps_placement: AdamEps::Hat, ..loud.clone() }),
            ("amsgrad", raw.clone()),
            ("amsgrad_inside", Self { eps_placement: AdamEps::Inside, ..raw }),
            ("amsgrad_corrected", corrected.clone()),
            ("amsgrad_corrected_inside", Self { eps_placement: AdamEps::Inside, ..corrected }),
            ("uncorrected", Self { bias_correction: false, ..loud.clone() }),
            ("independent", Self { weight_decay: WeightDecay::Independent(0.01), ..loud.clone() }),
            ("cautious", Self { weight_decay: WeightDecay::Cautious(0.3), ..inside.clone() }),
            ("inside", inside),
            ("update_rms_clip", Self { update_rms_clip: Some(0.4), eps: 1e-3, ..loud.clone() }),
            ("rows", Self { v_per: VPer::Row, ..loud.clone() }),
            ("rows_clipped", Self { v_per: VPer::Row, update_rms_clip: Some(0.4), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"amsgrad": "corrected", "eps_placement": "hat"}"#,
                error: "amsgrad is corrected, must be off or raw with eps_placement hat",
            },
            Reject {
                json: r#"{"v_per": "row", "amsgrad": "raw"}"#,
                error: "v_per is row, must be element with amsgrad",
            },
            Reject {
                json: r#"{"update_rms_clip": 0}"#,
                error: "update_rms_clip is 0, must be above 0 and finite in f32",
            },
            Reject {
                json: r#"{"update_rms_clip": 1, "amsgrad": "raw"}"#,
                error: "update_rms_clip is 1, must be left out with amsgrad",
            },
            Reject {
                json: r#"{"update_rms_clip": 1, "eps": 1e-20}"#,
                error: "eps is 1e-20, must be at least 1.1e-19 with update_rms_clip",
            },
        ]
    }
}
