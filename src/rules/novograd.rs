//! NovoGrad. Twin: `shaders/rules/novograd.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one, refuse};
use crate::options::EpsPlacement;
use crate::parts::{Combine, Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// NovoGrad: the gradient over the running norm of its tensor, then momentum.
///
/// `n = ||g||^2` ([`Norm::L2`]) or `max|g|^2` ([`Norm::Linf`]) over the tensor. `v = n` at the first step with
/// [`NovoGradInit::FirstNorm`], else `v = beta2*v + (1-beta2)*n`. `x = g/(sqrt(v) + eps)` or `g/sqrt(v + eps)`, plus
/// `d*p` with [`WeightDecay::InsideMoment`]. `m = beta1*m + x` (with `averaging`: `beta1*m + (1-beta1)*x`);
/// `p -= lr*m`. `bias_correction` divides `v` by `1-beta2^t`, and with `averaging` `m` by `1-beta1^t`.
/// Slots `m` per element, `v` per tensor. Three passes: norms, `v`, update.
///
/// Source: Ginsburg et al. 2019, Algorithm 1.
#[derive(Clone, Debug, PartialEq)]
pub struct NovoGrad {
    /// Learning rate, at least 0. Default 1e-2.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.95.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.98.
    pub beta2: f64,
    /// What is added to the root, or under it: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Where `eps` stands. Default outside.
    pub eps_placement: EpsPlacement,
    /// The norm that divides. Default L2.
    pub norm: Norm,
    /// How `v` begins. Default first_norm.
    pub init: NovoGradInit,
    /// Whether `m` is a weighted mean of what it takes, not a sum. Default false.
    pub averaging: bool,
    /// Whether `v`, and `m` where it is a mean, are corrected for their start at 0; only with `init` zero. Default
    /// false.
    pub bias_correction: bool,
    /// None (default), `InsideMoment` or `Decoupled`.
    pub weight_decay: WeightDecay,
}

fields!(NovoGrad: lr, beta1, beta2, eps, eps_placement, norm, init, averaging, bias_correction, weight_decay);

/// A tensor's norm. JSON: `"l2"`, `"linf"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// The root of the sum of squares.
    #[default]
    L2,
    /// The largest absolute value.
    Linf,
}

/// How NovoGrad's `v` begins. JSON: `"first_norm"`, `"zero"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NovoGradInit {
    /// As the first squared norm (the paper).
    #[default]
    FirstNorm,
    /// At 0, as any running mean.
    Zero,
}

impl Default for NovoGrad {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            beta1: 0.95,
            beta2: 0.98,
            eps: 1e-8,
            eps_placement: EpsPlacement::Outside,
            norm: Norm::L2,
            init: NovoGradInit::FirstNorm,
            averaging: false,
            bias_correction: false,
            weight_decay: WeightDecay::None,
        }
    }
}

impl NovoGrad {
    /// optax's: `beta1=0.9, beta2=0.25, eps=1e-6`.
    pub fn optax() -> Self {
        Self { beta1: 0.9, beta2: 0.25, eps: 1e-6, ..Self::default() }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        step,
        beta1,
        take1,
        /// 0 at a first step that takes the norm whole.
        keep2,
        take2,
        correction2,
        eps,
        inside_moment,
    }
}
numbers! {
    /// The momentum buffer.
    State { m }
}
numbers! {
    /// The running squared norm, and what gradients are multiplied by.
    Tensor { v, scale }
}

impl Rule for NovoGrad {
    const NAME: &'static str = "novograd";
    const SUMMARY: &'static str = "gradient over the running norm of its tensor, then momentum (Ginsburg et al. 2019)";
    const SHADER: &'static str = include_str!("../../shaders/rules/novograd.wgsl");
    const DECAYS: &'static [&'static str] = &["none", "inside_moment", "decoupled"];
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, beta1, beta2, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("eps", self.eps)?;
        if self.bias_correction && self.init == NovoGradInit::FirstNorm {
            return refuse("bias_correction", true, "false with init first_norm");
        }
        Ok(())
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("EPS_INSIDE", f64::from(self.eps_placement == EpsPlacement::Inside)),
            ("LINF", f64::from(self.norm == Norm::Linf)),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m"), Slot::tensor("v").nonnegative()]
    }

    fn passes(&self) -> Vec<Pass> {
        let combine = match self.norm {
            Norm::L2 => Combine::Add,
            Norm::Linf => Combine::BitMax,
        };
        vec![Pass::Sums(Sums { combine, ..Sums::GRADS }), Pass::Finish, Pass::Apply]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let [bc1, bc2] =
            [self.beta1, self.beta2].map(|beta| if self.bias_correction { correction(beta, t) } else { 1.0 });
        let whole = t == 1 && self.init == NovoGradInit::FirstNorm;
        Hyper {
            step: if self.averaging { self.lr / bc1 } else { self.lr },
            beta1: self.beta1,
            take1: if self.averaging { 1.0 - self.beta1 } else { 1.0 },
            keep2: if whole { 0.0 } else { self.beta2 },
            take2: if whole { 1.0 } else { 1.0 - self.beta2 },
            correction2: 1.0 / bc2,
            eps: self.eps,
            inside_moment: match self.weight_decay {
                WeightDecay::InsideMoment(d) => d,
                _ => 0.0,
            },
        }
    }

    fn measure<F: Real>(&self, _h: &Hyper<F>, _k: &Tensor<F>, _p: F, g: F, _s: &mut State<F>) -> [F; 2] {
        match self.norm {
            Norm::L2 => [g * g, F::zero()],
            Norm::Linf => [g, F::zero()],
        }
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], _len: F, k: &mut Tensor<F>) {
        let n = match self.norm {
            Norm::L2 => sums[0],
            Norm::Linf => sums[0] * sums[0],
        };
        k.v = ema(k.v, n, h.keep2, h.take2);
        let denominator = match self.eps_placement {
            EpsPlacement::Inside => (k.v * h.correction2 + h.eps).sqrt(),
            EpsPlacement::Outside => (k.v * h.correction2).sqrt() + h.eps,
        };
        // The division is done once a tensor: one an element would cost some 2 % of the step on software Vulkan.
        k.scale = F::one() / denominator;
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, p: F, g: F, s: &mut State<F>) -> F {
        let x = g * k.scale + h.inside_moment * p;
        s.m = ema(s.m, x, h.beta1, h.take1);
        h.step * s.m
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("optax", Self::optax())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.05,
            beta1: 0.8,
            beta2: 0.6,
            eps: 0.1,
            weight_decay: WeightDecay::InsideMoment(0.2),
            ..Self::default()
        };
        let zero = Self { init: NovoGradInit::Zero, ..loud.clone() };
        vec![
            ("default", Self::default()),
            ("inside", Self { eps_placement: EpsPlacement::Inside, ..loud.clone() }),
            ("linf", Self { norm: Norm::Linf, ..loud.clone() }),
            ("averaging", Self { averaging: true, weight_decay: WeightDecay::Decoupled(0.2), ..zero.clone() }),
            ("corrected", Self { averaging: true, bias_correction: true, ..zero.clone() }),
            ("corrected_sum", Self { bias_correction: true, ..zero }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta2": 1.5}"#, error: "beta2 is 1.5, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"bias_correction": true}"#,
                error: "bias_correction is true, must be false with init first_norm",
            },
            Reject {
                json: r#"{"weight_decay": {"l2": 0.1}}"#,
                error: "weight_decay is {\"l2\": 0.1}, must be one of none, inside_moment, decoupled for novograd",
            },
        ]
    }
}
