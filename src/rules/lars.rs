//! LARS. Twin: `shaders/rules/lars.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, at_least_zero, below_one, refuse};
use crate::options::{MomentumForm, Nesterov};
use crate::parts::{Real, ema, smaller};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// LARS: momentum of gradients that are scaled by the norms of their tensor.
///
/// `c = g + d*p` with [`WeightDecay::Inside`]. `r = trust_coefficient*||p||/(||c|| + eps)` with
/// [`LarsRatio::Combined`], `trust_coefficient*||p||/(||g|| + d*||p|| + eps)` with [`LarsRatio::Separate`], and 1 where
/// the norm of `p`, or that of `c` (of `g` with `Separate`), is 0. With `larc`, `r` becomes `min(r/lr, 1)`, or 1 where
/// `lr` is 0.
///
/// | form | buffer | step | `Nesterov::Simplified` |
/// |---|---|---|---|
/// | `Velocity` | `b = momentum*b + lr*r*c` | `p -= b` | `p -= momentum*b + lr*r*c` |
/// | `Accumulate` | `b = momentum*b + r*c` | `p -= lr*b` | `p -= lr*(momentum*b + r*c)` |
///
/// Slot `b` per element, none with `momentum = 0`. Three passes: norms, `r`, update.
///
/// Sources: You, Gitman and Ginsburg 2017, Algorithm 1 (`separate`); `combined` and the default form are optax's,
/// `larc` is NVIDIA Apex's.
#[derive(Clone, Debug, PartialEq)]
pub struct Lars {
    /// Learning rate, at least 0. Default 0.1.
    pub lr: f64,
    /// How much of `b` a step keeps: at least 0 and below 1. Default 0.9.
    /// After creation it cannot change between 0 and other numbers.
    pub momentum: f64,
    /// The form of Nesterov's momentum: `Off` (default) or `Simplified`, which needs momentum.
    pub nesterov: Nesterov,
    /// What the ratio of the norms is multiplied by: above 0 in f32. Default 1e-3.
    pub trust_coefficient: f64,
    /// What is added to the norm that divides: at least 0. Default 0.
    pub eps: f64,
    /// What divides the parameters' norm. Default combined.
    pub ratio: LarsRatio,
    /// What `b` holds: `Velocity` (default) or `Accumulate`, which needs momentum.
    pub form: MomentumForm,
    /// Whether `r` becomes `min(r/lr, 1)`: `lr*r` then is `r`, and at most `lr`. Default false.
    pub larc: bool,
    /// None (default) or `Inside`.
    pub weight_decay: WeightDecay,
}

fields!(Lars: lr, momentum, nesterov, trust_coefficient, eps, ratio, form, larc, weight_decay);

/// What LARS divides the parameters' norm by. JSON: `"combined"`, `"separate"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LarsRatio {
    /// The norm of gradient and decay together (optax).
    #[default]
    Combined,
    /// The gradient's norm and the decay's, added (the paper).
    Separate,
}

impl Default for Lars {
    fn default() -> Self {
        Self {
            lr: 0.1,
            momentum: 0.9,
            nesterov: Nesterov::Off,
            trust_coefficient: 1e-3,
            eps: 0.0,
            ratio: LarsRatio::Combined,
            form: MomentumForm::Velocity,
            larc: false,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper {
        /// What the buffer is multiplied by on its way to the parameter.
        step,
        momentum,
        inside,
        eps,
        /// What the ratio of the norms is multiplied by.
        trust,
        /// The scale where a norm is 0, so that there is no ratio.
        alone,
        /// The largest scale.
        scale_max,
    }
}
numbers! {
    /// The momentum buffer.
    State { b }
}
numbers! {
    /// What gradient and decay are multiplied by on their way into the buffer.
    Tensor { scale }
}

impl Rule for Lars {
    const NAME: &'static str = "lars";
    const SUMMARY: &'static str =
        "momentum of the gradient over its norm, times the parameter's norm (You et al. 2017)";
    const SHADER: &'static str = include_str!("../../shaders/rules/lars.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "inside"];
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, momentum, trust_coefficient, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("momentum", self.momentum)?;
        above_zero("trust_coefficient", self.trust_coefficient)?;
        at_least_zero("eps", self.eps)?;
        if self.nesterov == Nesterov::LookAhead {
            return refuse("nesterov", "look_ahead", "off or simplified for lars");
        }
        if self.form == MomentumForm::Average {
            return refuse("form", "average", "velocity or accumulate for lars");
        }
        if self.momentum == 0.0 && self.nesterov != Nesterov::Off {
            return refuse("momentum", 0, "above 0 with nesterov set");
        }
        if self.momentum == 0.0 && self.form != MomentumForm::Velocity {
            return refuse("momentum", 0, "above 0 with form set");
        }
        Ok(())
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("MOMENTUM", f64::from(self.momentum != 0.0)),
            ("NESTEROV", f64::from(self.nesterov == Nesterov::Simplified)),
            ("SEPARATE", f64::from(self.ratio == LarsRatio::Separate)),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        if self.momentum == 0.0 { vec![] } else { vec![Slot::element("b")] }
    }

    fn passes(&self) -> Vec<Pass> {
        vec![Pass::Sums(Sums { pair: true, param: true, ..Sums::GRADS }), Pass::Finish, Pass::Apply]
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        // What gradient and decay are multiplied by, `r` and perhaps the learning rate, is `min(alone*r, scale_max)`.
        let none: f64 = f32::MAX.into();
        let (step, alone, scale_max) = match (self.form, self.larc) {
            (MomentumForm::Accumulate, false) => (self.lr, 1.0, none),
            // Rates below 1e-20 move nothing, and 0 has no inverse.
            (MomentumForm::Accumulate, true) => (self.lr, 1.0 / self.lr.max(1e-20), 1.0),
            (_, false) => (1.0, self.lr, none),
            (_, true) => (1.0, 1.0, self.lr),
        };
        Hyper {
            step,
            momentum: self.momentum,
            inside: self.weight_decay.amount(),
            eps: self.eps,
            trust: alone * self.trust_coefficient,
            alone,
            scale_max,
        }
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, p: F, g: F, _s: &mut State<F>) -> [F; 2] {
        let measured = match self.ratio {
            LarsRatio::Combined => g + h.inside * p,
            LarsRatio::Separate => g,
        };
        [p * p, measured * measured]
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        let mut scale = h.alone;
        if sums[0] > F::zero() && sums[1] > F::zero() {
            let norm = sums[0].sqrt();
            let denominator = match self.ratio {
                LarsRatio::Combined => sums[1].sqrt() + h.eps,
                LarsRatio::Separate => sums[1].sqrt() + h.inside * norm + h.eps,
            };
            scale = h.trust * norm / denominator;
        }
        // A NaN in a norm reaches the whole tensor.
        let both = sums[0] + sums[1];
        k.scale = if both.is_nan() { both } else { smaller(scale, h.scale_max) };
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, p: F, g: F, s: &mut State<F>) -> F {
        let c = g + h.inside * p;
        if self.momentum == 0.0 {
            return k.scale * c;
        }
        s.b = ema(s.b, c, h.momentum, k.scale);
        if self.nesterov == Nesterov::Simplified {
            return h.step * ema(s.b, c, h.momentum, k.scale);
        }
        h.step * s.b
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.3,
            momentum: 0.8,
            trust_coefficient: 0.4,
            eps: 0.7,
            weight_decay: WeightDecay::Inside(0.5),
            ..Self::default()
        };
        let accumulate = Self { form: MomentumForm::Accumulate, ..loud.clone() };
        let separate = Self { ratio: LarsRatio::Separate, ..loud.clone() };
        let simplified = Nesterov::Simplified;
        vec![
            ("default", Self::default()),
            ("plain", Self { momentum: 0.0, ..loud.clone() }),
            ("nesterov", Self { nesterov: simplified, ..loud.clone() }),
            ("larc", Self { larc: true, trust_coefficient: 0.2, ..loud.clone() }),
            ("larc_at_most", Self { larc: true, lr: 0.01, ..separate.clone() }),
            ("separate", separate),
            ("accumulate_nesterov", Self { nesterov: simplified, ..accumulate.clone() }),
            ("accumulate_larc", Self { larc: true, trust_coefficient: 0.2, ..accumulate.clone() }),
            ("accumulate", accumulate),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"momentum": 1}"#, error: "momentum is 1, must be at least 0 and below 1" },
            Reject {
                json: r#"{"trust_coefficient": 0}"#,
                error: "trust_coefficient is 0, must be above 0 and finite in f32",
            },
            Reject { json: r#"{"eps": -1e-8}"#, error: "eps is -0.00000001, must be at least 0 and finite" },
            Reject {
                json: r#"{"nesterov": "look_ahead"}"#,
                error: "nesterov is look_ahead, must be off or simplified for lars",
            },
            Reject {
                json: r#"{"form": "average"}"#,
                error: "form is average, must be velocity or accumulate for lars",
            },
            Reject {
                json: r#"{"momentum": 0, "nesterov": "simplified"}"#,
                error: "momentum is 0, must be above 0 with nesterov set",
            },
            Reject {
                json: r#"{"momentum": 0, "form": "accumulate"}"#,
                error: "momentum is 0, must be above 0 with form set",
            },
            Reject {
                json: r#"{"weight_decay": {"l2": 0.1}}"#,
                error: "weight_decay is {\"l2\": 0.1}, must be one of none, inside for lars",
            },
        ]
    }
}
