//! SOAP. Twin: `shaders/rules/soap.wgsl`.

use crate::error::{Result, above_zero, below_one, refuse};
use crate::parts::{Real, correction, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Pass, Rule, Sides, Slot, Turning, WeightDecay, fields, numbers, options};

/// SOAP: Adam in the eigenbasis of Shampoo's preconditioner.
///
/// Each dimension `i` of a tensor whose size is at most `max_precondition_dim` is a side: it has a Gram matrix `G_i`
/// and a basis `Q_i`. `outer_i(g)` is the gradient with dimension `i` first, as a matrix, times its transpose.
/// `turn(x)` applies `Q_i^T` along every side, and `back(x)` applies `Q_i`. Other dimensions are left as they are, so a
/// tensor without a side takes Adam's steps.
///
/// The first step moves no parameter, but for its decay: `G_i = (1-shampoo_beta)*outer_i(g)`, and `Q_i` are its
/// eigenvectors. From then on, with `k = t-1`, `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*turn(g)^2`, and
/// `p -= lr*sqrt(1-beta2^k)/(1-beta1^k)*back(turn(m)/(sqrt(v) + eps))`. Without `bias_correction` the rate is `lr`.
/// `G_i = shampoo_beta*G_i + (1-shampoo_beta)*outer_i(g)`, and where `precondition_frequency` divides `k`, `Q_i`
/// becomes the orthogonal factor of the QR decomposition of `G_i*Q_i` behind the update. The decomposition takes the
/// columns in the order of the diagonal of `Q_i^T*G_i*Q_i`, largest first. The authors sort the columns, and `v` with
/// them; here they keep their places, which moves no parameter elsewhere.
///
/// Slots `m` and `v` per element; `gram` and `basis`, the matrices of all sides one behind the other. Eight passes,
/// however many tensors there are: a pass that turns takes a dispatch for each side of the tensor that has most. Beside
/// the state a step needs a work buffer: 16 bytes an element, and 4 for each element of the matrices, with 128 for each
/// of a side's indices.
///
/// The eigenvectors come from Jacobi's rotations, and QR from Householder's reflections, all on the device, by tiles of
/// 32 columns: nothing is read back and nothing waits, in a browser neither. Steps that may renew a basis take more
/// dispatches, as many as the largest side of the model asks for: for a side of `n`, about `n/16` behind every
/// `precondition_frequency` steps, and `2.5*n` in a tensor's first step, which does about `40*n^3` multiplications.
/// [`StepPlan::dispatches`](crate::StepPlan) counts those of the coming step.
///
/// An optimizer on the GPU refuses a tensor whose part of the work buffer, Gram matrices and bases included, exceeds a
/// binding: 768 by 3072 elements have 159 MB there, where WebGPU's default limits allow 134 MB. It also refuses slices
/// across a side of more than 131072 elements. `max_precondition_dim` leaves such sides out.
///
/// Bases hang on roundings where eigenvalues lie close to each other. On devices that divide and take roots as the CPU
/// does, all numbers have the reference's bits; on others they may differ far beyond a few units in the last place.
///
/// Sources: Vyas et al. 2024, arXiv 2409.11321, and the authors' implementation, without `merge_dims`.
#[derive(Clone, Debug, PartialEq)]
pub struct Soap {
    /// Learning rate, at least 0. Default 3e-3.
    pub lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.95.
    pub beta1: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.95.
    pub beta2: f64,
    /// How much of the Gram matrices a step keeps: at least 0 and below 1. Default none, which is `beta2`.
    pub shampoo_beta: Option<f64>,
    /// Added to the root, above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Steps from one basis to the next, at least 1. Default 10.
    pub precondition_frequency: u64,
    /// The largest size of a side, at least 1. It says how much state there is, and cannot change. Default 10000.
    pub max_precondition_dim: usize,
    /// Whether the dimension of a tensor of rank 1 may be a side. Default false.
    pub precondition_1d: bool,
    /// Whether the rate is corrected for the start of `m` and `v` at 0. Default true.
    pub bias_correction: bool,
    /// Any [general](WeightDecay::GENERAL) kind. Default none; the authors have `Decoupled(0.01)`.
    pub weight_decay: WeightDecay,
}

fields!(
    Soap: lr, beta1, beta2, shampoo_beta, eps, precondition_frequency, max_precondition_dim, precondition_1d,
    bias_correction, weight_decay
);

impl Default for Soap {
    fn default() -> Self {
        Self {
            lr: 3e-3,
            beta1: 0.95,
            beta2: 0.95,
            shampoo_beta: None,
            eps: 1e-8,
            precondition_frequency: 10,
            max_precondition_dim: 10_000,
            precondition_1d: false,
            bias_correction: true,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group. In a first step `lr` is 0, and `m` and `v` are kept whole.
    Hyper {
        lr,
        beta1,
        one_minus_beta1,
        beta2,
        one_minus_beta2,
        gram_beta,
        one_minus_gram_beta,
        eps,
        /// 0 where the bases stay, 1 where they become eigenvectors, 2 where they become the factors of QR.
        renewal,
    }
}
numbers! {
    /// The moments, the update, the gradient in the bases, and the slots of the sides, which are nothing of an element.
    State { m, v, x, turned, gram, basis }
}

fn new_v<F: Real>(h: &Hyper<F>, g: F, old: F) -> F {
    ema(old, g * g, h.beta2, h.one_minus_beta2)
}

impl Rule for Soap {
    const NAME: &'static str = "soap";
    const SUMMARY: &'static str = "Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/rules/soap.wgsl");
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, beta1, beta2, eps; weight_decay, shampoo_beta);

    fn check(&self) -> Result<()> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        if let Some(beta) = self.shampoo_beta {
            below_one("shampoo_beta", beta)?;
        }
        above_zero("eps", self.eps)?;
        if self.precondition_frequency == 0 {
            return refuse("precondition_frequency", 0, "at least 1");
        }
        if self.max_precondition_dim == 0 {
            return refuse("max_precondition_dim", 0, "at least 1");
        }
        Ok(())
    }

    fn slots(&self) -> Vec<Slot> {
        let sides = Sides { most: self.max_precondition_dim, of_vectors: self.precondition_1d };
        vec![
            Slot::element("m"),
            Slot::element("v").nonnegative(),
            Slot::product("x"),
            Slot::turned("turned"),
            Slot::sides("gram", sides),
            Slot::sides("basis", sides),
        ]
    }

    fn passes(&self) -> Vec<Pass> {
        let [into, back, power] = [Turning::Into, Turning::Back, Turning::Power].map(Pass::Turn);
        vec![Pass::Spread, Pass::Grams, into, Pass::Weigh, back, power, Pass::Bases, Pass::Apply]
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let (k, gram_beta) = (t.saturating_sub(1), self.shampoo_beta.unwrap_or(self.beta2));
        let is_first = k == 0;
        let [beta1, beta2] = [self.beta1, self.beta2].map(|beta| if is_first { 1.0 } else { beta });
        let correction = match self.bias_correction && !is_first {
            true => correction(beta2, k).sqrt() / correction(beta1, k),
            false => 1.0,
        };
        Hyper {
            lr: if is_first { 0.0 } else { self.lr * correction },
            beta1,
            one_minus_beta1: 1.0 - beta1,
            beta2,
            one_minus_beta2: 1.0 - beta2,
            gram_beta,
            one_minus_gram_beta: 1.0 - gram_beta,
            eps: self.eps,
            renewal: match k % self.precondition_frequency {
                _ if is_first => 1.0,
                0 => 2.0,
                _ => 0.0,
            },
        }
    }

    fn spread<F: Real>(&self, h: &Hyper<F>, _k: &(), g: F, s: &State<F>) -> F {
        ema(s.m, g, h.beta1, h.one_minus_beta1)
    }

    fn gram<F: Real>(&self, h: &Hyper<F>, sum: F, old: F) -> F {
        ema(old, sum, h.gram_beta, h.one_minus_gram_beta)
    }

    fn weigh<F: Real>(&self, h: &Hyper<F>, x: F, g: F, s: &State<F>) -> F {
        x / (new_v(h, g, s.v).sqrt() + h.eps)
    }

    fn renewal<F: Real>(&self, h: &Hyper<F>) -> F {
        h.renewal
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.beta1, h.one_minus_beta1);
        s.v = new_v(h, s.turned, s.v);
        h.lr * s.x
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let default = Self { max_precondition_dim: 40, ..Self::default() };
        let loud = Self {
            lr: 0.3,
            beta1: 0.8,
            beta2: 0.9,
            shampoo_beta: Some(0.7),
            eps: 0.1,
            precondition_frequency: 1,
            max_precondition_dim: 12,
            precondition_1d: true,
            bias_correction: false,
            weight_decay: WeightDecay::L2(0.2),
        };
        let corrected = Self {
            max_precondition_dim: 40,
            bias_correction: true,
            weight_decay: WeightDecay::Cautious(0.3),
            ..loud.clone()
        };
        vec![("default", default), ("corrected", corrected), ("loud", loud)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"beta1": 1}"#, error: "beta1 is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"beta2": -0.1}"#, error: "beta2 is -0.1, must be at least 0 and below 1" },
            Reject { json: r#"{"shampoo_beta": 1}"#, error: "shampoo_beta is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"precondition_frequency": 0}"#,
                error: "precondition_frequency is 0, must be at least 1",
            },
            Reject { json: r#"{"max_precondition_dim": 0}"#, error: "max_precondition_dim is 0, must be at least 1" },
        ]
    }
}
