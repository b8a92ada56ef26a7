//! RMSProp. Twin: `shaders/rules/rmsprop.wgsl`.

use crate::error::{Result, above_zero, at_least_zero, below_one, refuse};
use crate::options::{EpsPlacement, MomentumForm, Nesterov};
use crate::parts::{Real, ema, larger};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Move, Rule, Slot, WeightDecay, fields, numbers, options};

/// RMSProp: the gradient over the root of its running mean square, plain, centered, with momentum.
///
/// `v = alpha*v + (1-alpha)*g^2`. With `centered`, `a = alpha*a + (1-alpha)*g` and `w = max(v - a^2, 0)`, else `w = v`.
/// `q = g/(sqrt(w) + eps)`, or with [`EpsPlacement::Inside`] `q = g/sqrt(w + eps)`. Without momentum `p -= lr*q`. With
/// [`MomentumForm::Accumulate`] `b = momentum*b + q; p -= lr*b` (PyTorch), with [`MomentumForm::Velocity`]
/// `b = momentum*b - lr*q; p += b` (TensorFlow). Nesterov's forms are those of [`Sgd`](crate::Sgd) with `q` for `g`.
/// Slots `v` (starting at `initial_v`), `a` when centered, `b` with momentum, per element.
///
/// Sources: Tieleman and Hinton 2012, lecture 6.5; Graves 2013, section 4.2. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    /// Learning rate, at least 0. Default 1e-2.
    pub lr: f64,
    /// How much of `v` and `a` a step keeps: at least 0 and below 1. Default 0.99.
    pub alpha: f64,
    /// What is added to the root, or under it: above 0 in f32. Default 1e-8.
    pub eps: f64,
    /// Where `eps` stands. Default outside.
    pub eps_placement: EpsPlacement,
    /// Whether the gradient is divided by its standard deviation, not by its root mean square. Default false.
    pub centered: bool,
    /// Start of `v`, at least 0. Default 0.
    pub initial_v: f64,
    /// How much of `b` a step keeps: at least 0 and below 1. Default 0.
    /// After creation it cannot change between 0 and other numbers.
    pub momentum: f64,
    /// What `b` holds: `Accumulate` (default) or `Velocity`.
    pub form: MomentumForm,
    /// The form of Nesterov's momentum. Default off.
    pub nesterov: Nesterov,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(RmsProp: lr, alpha, eps, eps_placement, centered, initial_v, momentum, form, nesterov, weight_decay);

impl Default for RmsProp {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            alpha: 0.99,
            eps: 1e-8,
            eps_placement: EpsPlacement::Outside,
            centered: false,
            initial_v: 0.0,
            momentum: 0.0,
            form: MomentumForm::Accumulate,
            nesterov: Nesterov::Off,
            weight_decay: WeightDecay::None,
        }
    }
}

impl RmsProp {
    /// TensorFlow's: `lr=1e-3, alpha=0.9`, eps 1e-10 inside the root, `v` starting at 1
    /// (`tf.compat.v1.train.RMSPropOptimizer`). Its momentum is in velocity form: where you give `momentum`, give
    /// `form: MomentumForm::Velocity` too.
    pub fn tensorflow() -> Self {
        Self {
            lr: 1e-3,
            alpha: 0.9,
            eps: 1e-10,
            eps_placement: EpsPlacement::Inside,
            initial_v: 1.0,
            ..Self::default()
        }
    }

    /// The numbers of a course's notes on optimizers: `lr=1e-3, alpha=0.9`, eps inside the root. JSON also reads the
    /// name `seeds`.
    pub fn course_notes() -> Self {
        Self { lr: 1e-3, alpha: 0.9, eps_placement: EpsPlacement::Inside, ..Self::default() }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, alpha, one_minus_alpha, eps, momentum }
}
numbers! {
    /// Mean square, mean, momentum buffer.
    State { v, a, b }
}

impl Rule for RmsProp {
    const NAME: &'static str = "rmsprop";
    const SUMMARY: &'static str = "gradient over the root of its mean square (Tieleman and Hinton 2012; Graves 2013)";
    const SHADER: &'static str = include_str!("../../shaders/rules/rmsprop.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, alpha, eps, momentum; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("alpha", self.alpha)?;
        above_zero("eps", self.eps)?;
        at_least_zero("initial_v", self.initial_v)?;
        below_one("momentum", self.momentum)?;
        if self.form == MomentumForm::Average {
            return refuse("form", "average", "accumulate or velocity for rmsprop");
        }
        self.nesterov.check(self.momentum, self.form)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("CENTERED", f64::from(self.centered)),
            ("EPS_INSIDE", f64::from(self.eps_placement == EpsPlacement::Inside)),
            ("MOMENTUM", f64::from(self.momentum != 0.0)),
            ("VELOCITY", f64::from(self.form == MomentumForm::Velocity)),
            ("NESTEROV", self.nesterov.number()),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot::element("v").nonnegative().starting_at(self.initial_v)];
        if self.centered {
            slots.push(Slot::element("a"));
        }
        if self.momentum != 0.0 {
            slots.push(Slot::element("b"));
        }
        slots
    }

    fn moves(&self) -> &'static [Move] {
        if self.nesterov == Nesterov::LookAhead { &[Move::LookAhead] } else { &[] }
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper {
            lr: self.lr,
            alpha: self.alpha,
            one_minus_alpha: 1.0 - self.alpha,
            eps: self.eps,
            momentum: self.momentum,
        }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.v = ema(s.v, g * g, h.alpha, h.one_minus_alpha);
        let mut w = s.v;
        if self.centered {
            s.a = ema(s.a, g, h.alpha, h.one_minus_alpha);
            w = larger(w - s.a * s.a, F::zero());
        }
        let q = match self.eps_placement {
            EpsPlacement::Inside => g / (w + h.eps).sqrt(),
            EpsPlacement::Outside => g / (w.sqrt() + h.eps),
        };
        if self.momentum == 0.0 {
            return h.lr * q;
        }
        if self.form == MomentumForm::Velocity {
            s.b = h.momentum * s.b - h.lr * q;
            return match self.nesterov {
                Nesterov::Off => -s.b,
                Nesterov::Simplified => h.lr * q - h.momentum * s.b,
                Nesterov::LookAhead => h.lr * q,
            };
        }
        s.b = h.momentum * s.b + q;
        if self.nesterov == Nesterov::Simplified {
            return h.lr * (q + h.momentum * s.b);
        }
        h.lr * s.b
    }

    fn moved<F: Real>(_to: Move, h: &Hyper<F>, p: F, s: &State<F>) -> F {
        p + h.momentum * s.b
    }

    fn presets() -> Vec<(&'static str, Self)> {
        vec![("tensorflow", Self::tensorflow()), ("course_notes", Self::course_notes())]
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let inside = Self { eps_placement: EpsPlacement::Inside, ..Self::course_notes() };
        let momentum = Self { alpha: 0.9, momentum: 0.8, eps: 1e-3, ..Self::default() };
        let velocity = Self { form: MomentumForm::Velocity, initial_v: 1.0, ..momentum.clone() };
        let simplified = Nesterov::Simplified;
        vec![
            ("default", Self::default()),
            ("inside", inside),
            ("momentum", Self { weight_decay: WeightDecay::Independent(0.1), ..momentum.clone() }),
            ("nesterov", Self { nesterov: simplified, ..momentum.clone() }),
            ("centered", Self { centered: true, eps: 1e-2, weight_decay: WeightDecay::L2(0.2), ..momentum }),
            ("velocity", velocity.clone()),
            ("velocity_nesterov", Self { nesterov: simplified, ..velocity.clone() }),
            ("look_ahead", Self { nesterov: Nesterov::LookAhead, ..velocity }),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"alpha": 1}"#, error: "alpha is 1, must be at least 0 and below 1" },
            Reject {
                json: r#"{"alpha": 0.99999999999}"#,
                error: "alpha is 0.99999999999, must be at least 0 and below 1",
            },
            Reject { json: r#"{"eps": -1e-8}"#, error: "eps is -0.00000001, must be above 0 and finite in f32" },
            Reject { json: r#"{"initial_v": -1}"#, error: "initial_v is -1, must be at least 0 and finite" },
            Reject {
                json: r#"{"momentum": 0.9, "form": "average"}"#,
                error: "form is average, must be accumulate or velocity for rmsprop",
            },
            Reject { json: r#"{"form": "velocity"}"#, error: "momentum is 0, must be above 0 with form set" },
            Reject {
                json: r#"{"momentum": 0.9, "nesterov": "look_ahead"}"#,
                error: "nesterov is look_ahead, must be off or simplified unless form is velocity",
            },
        ]
    }
}
