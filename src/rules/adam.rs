//! Adam and AdamW. Twin: `shaders/rules/adam.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one, refuse};
use crate::parts::{Real, correction, ema, max};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, numbers, options};

/// Adam, without decay unless one is given. See [`AdamFamily`].
pub type Adam = AdamFamily<false>;

/// AdamW: Adam with a decoupled decay of 0.01 unless another is given. See [`AdamFamily`].
pub type AdamW = AdamFamily<true>;

/// Adam: running means of the gradient and of its square, both corrected for their start at 0.
///
/// `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2; mh = m/(1-beta1^t); vh = v/(1-beta2^t)`, and
/// `p -= lr*mh/(sqrt(vh) + eps)`; [`AdamEps`] names the other places for eps, [`Amsgrad`] the running maximum of `v`.
/// Slots `m`, `v`, and `vmax` with AMSGrad. The parameter `DECOUPLED` only chooses the default of `weight_decay`.
///
/// Sources: Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; Reddi et al. 2018, Algorithm 2.
/// Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, bound = "")]
pub struct AdamFamily<const DECOUPLED: bool> {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// At least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// At least 0 and below 1. Default 0.999.
    pub beta2: f64,
    /// Above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Default outside.
    pub eps_placement: AdamEps,
    /// Default off.
    pub amsgrad: Amsgrad,
    /// Default true.
    pub bias_correction: bool,
    /// Any general kind. Default none for [`Adam`], `Decoupled(0.01)` for [`AdamW`].
    pub weight_decay: WeightDecay,
}

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

impl<const DECOUPLED: bool> Default for AdamFamily<DECOUPLED> {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_placement: AdamEps::Outside,
            amsgrad: Amsgrad::Off,
            bias_correction: true,
            weight_decay: if DECOUPLED { WeightDecay::Decoupled(0.01) } else { WeightDecay::None },
        }
    }
}

impl<const DECOUPLED: bool> AdamFamily<DECOUPLED> {
    /// The course notes': eps inside the root.
    pub fn seeds() -> Self {
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
    }
}
numbers! {
    /// The moments, and the largest second one.
    State { m, v, vmax }
}

impl<const DECOUPLED: bool> Rule for AdamFamily<DECOUPLED> {
    const NAME: &'static str = if DECOUPLED { "adamw" } else { "adam" };
    const SUMMARY: &'static str = if DECOUPLED {
        "Adam with decoupled decay 0.01 (Loshchilov and Hutter 2019)"
    } else {
        "corrected running means of gradient and square, AMSGrad (Kingma and Ba 2015; Reddi et al. 2018)"
    };
    const SHADER: &'static str = include_str!("../../shaders/rules/adam.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        if self.eps_placement == AdamEps::Hat && self.amsgrad == Amsgrad::Corrected {
            return refuse("amsgrad", "corrected", "off or raw with eps_placement hat");
        }
        Ok(())
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("EPS_INSIDE", f64::from(self.eps_placement == AdamEps::Inside)),
            ("AMSGRAD", f64::from(self.amsgrad as u8)),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot::element("m"), Slot::element("v").nonnegative()];
        if self.amsgrad != Amsgrad::Off {
            slots.push(Slot::element("vmax").nonnegative());
        }
        slots
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
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = ema(s.v, g * g, h.beta2, h.one_minus_beta2);
        let v = match self.amsgrad {
            Amsgrad::Off => s.v,
            Amsgrad::Raw => {
                s.vmax = max(s.vmax, s.v);
                s.vmax
            }
            Amsgrad::Corrected => {
                s.vmax = max(s.vmax, s.v * h.correction2);
                s.vmax
            }
        };
        let correction2 = if self.amsgrad == Amsgrad::Corrected { F::one() } else { h.correction2 };
        match self.eps_placement {
            AdamEps::Inside => h.step * s.m / (v * correction2 + h.eps).sqrt(),
            AdamEps::Outside | AdamEps::Hat => h.step * s.m / (v.sqrt() * correction2 + h.eps),
        }
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("seeds", Self::seeds()), ("keras", Self::keras()), ("burn", Self::burn())]
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
        ]
    }
}
