//! Adafactor. Twin: `shaders/rules/adafactor.wgsl`.

use crate::error::{Result, above_zero, refuse};
use crate::parts::{Real, at_least, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{AnyRule, Carried, Pass, Rule, Slot, Sums, WeightDecay, fields, numbers, options};

/// Adafactor. See [`AdafactorForm`].
pub type Adafactor = AdafactorForm<false, false>;

/// Adafactor: the gradient over a running root mean square, of which matrices keep rows and columns alone.
///
/// `k = t^beta2_decay`. Below rank 2 `v = (1-k)*v + k*g^2`. From rank 2 on, in each matrix of the last two dimensions,
/// `row = (1-k)*row + k*mean(g^2)` over the elements of the row, `col` likewise over those of the column, and
/// `v = row*col/max(mean(row), eps1)`. `w = g/max(sqrt(v), eps1)`; `p -= a*w/max(1, rms(w)/d)`, where
/// `a = max(eps2, rms(p))*min(lr, 1/sqrt(t))`, and `rms` is over the tensor and takes `p` before the decay. Slot `v`
/// per element, or `row` per row and `col` per column. Three passes: root mean squares, scale, update. From rank 2 on
/// five: sums over rows and columns, and what follows from them, come first, but where each matrix is a single element.
///
/// Sources: Shazeer and Stern 2018, Algorithms 4 and 5; the form and the defaults are PyTorch's. The type's parameter
/// `FACTORED` is true for the form that [the optimizer chooses](Rule::for_matrices) for tensors of rank 2 and more, and
/// `POINTWISE` for that where each matrix is [a single element](Rule::for_pointwise).
#[derive(Clone, Debug, PartialEq)]
pub struct AdafactorForm<const FACTORED: bool, const POINTWISE: bool> {
    /// The largest relative step, at least 0. Default 1e-2.
    pub lr: f64,
    /// The exponent of `k`, at most 0. Default -0.8.
    pub beta2_decay: f64,
    /// What roots and the means of rows are at least: above 0 in f32. Default 2^-23.
    pub eps1: f64,
    /// The least root mean square of parameters that steps are relative to. Above 0 in f32. Default 1e-3.
    pub eps2: f64,
    /// The largest root mean square of an update. Above 0 in f32. Default 1.
    pub d: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(AdafactorForm<const FACTORED: bool, const POINTWISE: bool>: lr, beta2_decay, eps1, eps2, d, weight_decay);

impl<const FACTORED: bool, const POINTWISE: bool> Default for AdafactorForm<FACTORED, POINTWISE> {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            beta2_decay: -0.8,
            eps1: f64::from(f32::EPSILON),
            eps2: 1e-3,
            d: 1.0,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        /// The weight of the old number in a running mean: `1-k`.
        keep,
        /// The weight of the new one: `k`.
        take,
        /// The relative step, `min(lr, 1/sqrt(t))`.
        rate,
        eps1,
        /// The square of `eps1`, but at least f32's least normal number.
        floor,
        eps2,
        d,
    }
}
numbers! {
    /// The mean square of an element; in matrices what `finish_row` made of its row's, and its column's, in its place.
    State { v, row, col }
}
numbers! {
    /// What normalised gradients are multiplied by.
    Tensor { scale }
}

impl<const FACTORED: bool, const POINTWISE: bool> AdafactorForm<FACTORED, POINTWISE> {
    /// Returns the mean square of the gradient, and advances what the element has of its own.
    fn square<F: Real>(h: &Hyper<F>, g: F, s: &mut State<F>) -> F {
        if POINTWISE {
            s.row = ema(s.row, g * g, h.keep, h.take);
            s.col = ema(s.col, g * g, h.keep, h.take);
            return s.row / at_least(s.row, h.eps1) * s.col;
        }
        if FACTORED {
            return s.row * s.col;
        }
        s.v = ema(s.v, g * g, h.keep, h.take);
        s.v
    }
}

impl<const FACTORED: bool, const POINTWISE: bool> Rule for AdafactorForm<FACTORED, POINTWISE> {
    const NAME: &'static str = "adafactor";
    const SUMMARY: &'static str =
        "gradient over a root mean square kept by rows and columns, relative steps (Shazeer and Stern 2018)";
    const SHADER: &'static str = include_str!("../../shaders/rules/adafactor.wgsl");
    const ELEMENTWISE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = Tensor<F>;

    options!(lr, beta2_decay, eps1, eps2, d; weight_decay);

    fn check(&self) -> Result<()> {
        if !(self.beta2_decay <= 0.0 && (self.beta2_decay as f32).is_finite()) {
            return refuse("beta2_decay", self.beta2_decay, "at most 0 and finite in f32");
        }
        above_zero("eps1", self.eps1)?;
        above_zero("eps2", self.eps2)?;
        above_zero("d", self.d)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("FACTORED", f64::from(FACTORED)), ("POINTWISE", f64::from(POINTWISE))]
    }

    fn slots(&self) -> Vec<Slot> {
        if POINTWISE {
            vec![Slot::element("row").nonnegative(), Slot::element("col").nonnegative()]
        } else if FACTORED {
            vec![Slot::row("row").nonnegative(), Slot::column("col").nonnegative()]
        } else {
            vec![Slot::element("v").nonnegative()]
        }
    }

    fn passes(&self) -> Vec<Pass> {
        let sums = Pass::Sums(Sums { pair: true, param: true, state: true, ..Sums::GRADS });
        let all = [Pass::Lines, Pass::FinishLines, sums, Pass::Finish, Pass::Apply];
        if FACTORED { all.into() } else { all[2..].into() }
    }

    fn for_matrices(&self) -> Option<Box<dyn AnyRule>> {
        let &Self { lr, beta2_decay, eps1, eps2, d, weight_decay } = self;
        Some(Box::new(AdafactorForm::<true, false> { lr, beta2_decay, eps1, eps2, d, weight_decay }))
    }

    fn for_pointwise(&self) -> Option<Box<dyn AnyRule>> {
        let &Self { lr, beta2_decay, eps1, eps2, d, weight_decay } = self;
        // The form for matrices takes these, too, where it is asked for by its type.
        (!FACTORED)
            .then(|| Box::new(AdafactorForm::<false, true> { lr, beta2_decay, eps1, eps2, d, weight_decay }) as _)
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let ln_k = self.beta2_decay * (t as f64).ln();
        Hyper {
            keep: -ln_k.exp_m1(),
            take: ln_k.exp(),
            rate: self.lr.min(1.0 / (t as f64).sqrt()),
            eps1: self.eps1,
            floor: (self.eps1 * self.eps1).max(f32::MIN_POSITIVE.into()),
            eps2: self.eps2,
            d: self.d,
        }
    }

    fn measure_line<F: Real>(&self, _h: &Hyper<F>, g: F) -> F {
        g * g
    }

    fn finish_line<F: Real>(&self, h: &Hyper<F>, sum: F, len: F, old: F) -> F {
        ema(old, sum / len, h.keep, h.take)
    }

    fn finish_row<F: Real>(&self, h: &Hyper<F>, row: F, mean: F) -> F {
        row / at_least(mean, h.eps1)
    }

    fn measure<F: Real>(&self, h: &Hyper<F>, _k: &Tensor<F>, p: F, g: F, s: &mut State<F>) -> [F; 2] {
        // The square of what `direction` multiplies by the scale, computed without the root: arithmetic bounds this
        // walk on the GPU.
        [g * g / at_least(Self::square(h, g, s), h.floor), p * p]
    }

    fn finish<F: Real>(&self, h: &Hyper<F>, sums: [F; 2], len: F, k: &mut Tensor<F>) {
        let step = at_least((sums[1] / len).sqrt(), h.eps2) * h.rate;
        k.scale = step / at_least((sums[0] / len).sqrt() / h.d, F::one());
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, k: &Tensor<F>, _p: F, g: F, s: &mut State<F>) -> F {
        k.scale * g / at_least(Self::square(h, g, s), h.floor).sqrt()
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self {
            lr: 0.3,
            beta2_decay: -0.5,
            eps1: 0.2,
            eps2: 0.01,
            d: 0.5,
            weight_decay: WeightDecay::Decoupled(0.2),
        };
        vec![
            ("default", Self::default()),
            ("floored", Self { lr: 2.0, eps2: 30.0, d: 100.0, weight_decay: WeightDecay::None, ..loud.clone() }),
            ("tiny_eps1", Self { eps1: 1e-30, ..Self::default() }),
            ("l2", Self { weight_decay: WeightDecay::L2(0.2), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject {
                json: r#"{"beta2_decay": 0.8}"#,
                error: "beta2_decay is 0.8, must be at most 0 and finite in f32",
            },
            Reject { json: r#"{"eps1": 0}"#, error: "eps1 is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"eps2": 0}"#, error: "eps2 is 0, must be above 0 and finite in f32" },
            Reject { json: r#"{"d": -1}"#, error: "d is -1, must be above 0 and finite in f32" },
        ]
    }
}
