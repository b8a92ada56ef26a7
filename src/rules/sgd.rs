//! SGD with momentum. Twin: `shaders/rules/sgd.wgsl`.

use crate::error::{Result, below_one, refuse};
use crate::options::{MomentumForm, Nesterov};
use crate::parts::{Real, ema};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Move, Rule, Slot, WeightDecay, fields, numbers, options};

/// Stochastic gradient descent, plain or with one of three kinds of momentum.
///
/// With `momentum = 0` there is no state and `p -= lr*g`. Otherwise there is one slot `v` per element, and
/// `take` is `1 - dampening` (1 at the first step) for [`MomentumForm::Accumulate`], `1 - momentum` for
/// [`MomentumForm::Average`]:
///
/// | form | buffer | step | `Nesterov::Simplified` |
/// |---|---|---|---|
/// | `Accumulate`, `Average` | `v = momentum*v + take*g` | `p -= lr*v` | `p -= lr*(momentum*v + take*g)` |
/// | `Velocity` | `v = momentum*v - lr*g` | `p += v` | `p += momentum*v - lr*g` |
///
/// `Nesterov::LookAhead` needs `Velocity`: [`look_ahead`](crate::Optimizer::look_ahead) moves `p <- p + momentum*v`,
/// the gradient is computed there, and the step does `p -= lr*g; v = momentum*v - lr*g`.
///
/// Sources: Polyak 1964; Nesterov 1983; Sutskever et al. 2013, section 2. The default form is PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate, at least 0. Default 1e-3.
    pub lr: f64,
    /// How much of `v` a step keeps: at least 0 and below 1. Default 0.
    /// After creation it cannot change between 0 and other numbers.
    pub momentum: f64,
    /// The share that a gradient loses on its way into `v`, from 0 to 1. Above 0 it needs momentum, the form
    /// `Accumulate` and no Nesterov. Default 0.
    pub dampening: f64,
    /// The form of Nesterov's momentum. Default off.
    pub nesterov: Nesterov,
    /// What `v` holds. Default accumulate.
    pub form: MomentumForm,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Sgd: lr, momentum, dampening, nesterov, form, weight_decay);

impl Default for Sgd {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: Nesterov::Off,
            form: MomentumForm::Accumulate,
            weight_decay: WeightDecay::None,
        }
    }
}

numbers! {
    /// Numbers of a group.
    Hyper { lr, momentum, take }
}
numbers! {
    /// The momentum buffer.
    State { v }
}

impl Rule for Sgd {
    const NAME: &'static str = "sgd";
    const SUMMARY: &'static str = "momentum, Nesterov, in three forms (Polyak 1964; Sutskever et al. 2013)";
    const SHADER: &'static str = include_str!("../../shaders/rules/sgd.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, momentum, dampening; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("momentum", self.momentum)?;
        self.nesterov.check(self.momentum, self.form)?;
        if !(0.0..=1.0).contains(&self.dampening) {
            return refuse("dampening", self.dampening, "at least 0 and at most 1");
        }
        if self.dampening != 0.0 && (self.form != MomentumForm::Accumulate || self.nesterov != Nesterov::Off) {
            return refuse("dampening", self.dampening, "0 unless form is accumulate and nesterov off");
        }
        if self.momentum == 0.0 && self.dampening != 0.0 {
            return refuse("momentum", 0, "above 0 with dampening set");
        }
        Ok(())
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("MOMENTUM", f64::from(self.momentum != 0.0)),
            ("VELOCITY", f64::from(self.form == MomentumForm::Velocity)),
            ("NESTEROV", self.nesterov.number()),
        ]
    }

    fn slots(&self) -> Vec<Slot> {
        if self.momentum == 0.0 { vec![] } else { vec![Slot::element("v")] }
    }

    fn moves(&self) -> &'static [Move] {
        if self.nesterov == Nesterov::LookAhead { &[Move::LookAhead] } else { &[] }
    }

    fn hyper(&self, t: u64, _carried: &mut Carried) -> Hyper<f64> {
        let take = match self.form {
            MomentumForm::Average => 1.0 - self.momentum,
            _ if t == 1 => 1.0,
            _ => 1.0 - self.dampening,
        };
        Hyper { lr: self.lr, momentum: self.momentum, take }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        if self.momentum == 0.0 {
            return h.lr * g;
        }
        if self.form == MomentumForm::Velocity {
            s.v = h.momentum * s.v - h.lr * g;
            return match self.nesterov {
                Nesterov::Off => -s.v,
                Nesterov::Simplified => h.lr * g - h.momentum * s.v,
                Nesterov::LookAhead => h.lr * g,
            };
        }
        s.v = ema(s.v, g, h.momentum, h.take);
        if self.nesterov == Nesterov::Simplified {
            return h.lr * ema(s.v, g, h.momentum, h.take);
        }
        h.lr * s.v
    }

    fn moved<F: Real>(_to: Move, h: &Hyper<F>, p: F, s: &State<F>) -> F {
        p + h.momentum * s.v
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let momentum = Self { lr: 0.05, momentum: 0.9, ..Self::default() };
        let velocity = Self { form: MomentumForm::Velocity, ..momentum.clone() };
        let average = Self { form: MomentumForm::Average, ..momentum.clone() };
        let simplified = Nesterov::Simplified;
        vec![
            ("plain", Self { lr: 0.05, ..Self::default() }),
            ("momentum", momentum.clone()),
            ("dampening", Self { dampening: 0.3, weight_decay: WeightDecay::L2(0.2), ..momentum.clone() }),
            ("nesterov", Self { nesterov: simplified, weight_decay: WeightDecay::Decoupled(0.3), ..momentum }),
            ("velocity", velocity.clone()),
            ("velocity_nesterov", Self { nesterov: simplified, ..velocity.clone() }),
            ("look_ahead", Self { nesterov: Nesterov::LookAhead, ..velocity }),
            ("average", average.clone()),
            ("average_nesterov", Self { nesterov: simplified, weight_decay: WeightDecay::Cautious(0.4), ..average }),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"lr": -0.1}"#, error: "lr is -0.1, must be at least 0 and finite" },
            Reject { json: r#"{"momentum": 1}"#, error: "momentum is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"nesterov": "simplified"}"#, error: "momentum is 0, must be above 0 with nesterov set" },
            Reject { json: r#"{"form": "velocity"}"#, error: "momentum is 0, must be above 0 with form set" },
            Reject { json: r#"{"dampening": 0.5}"#, error: "momentum is 0, must be above 0 with dampening set" },
            Reject {
                json: r#"{"momentum": 0.9, "dampening": 1.5}"#,
                error: "dampening is 1.5, must be at least 0 and at most 1",
            },
            Reject {
                json: r#"{"momentum": 0.9, "dampening": 0.5, "form": "average"}"#,
                error: "dampening is 0.5, must be 0 unless form is accumulate and nesterov off",
            },
            Reject {
                json: r#"{"momentum": 0.9, "dampening": 0.5, "nesterov": "simplified"}"#,
                error: "dampening is 0.5, must be 0 unless form is accumulate and nesterov off",
            },
            Reject {
                json: r#"{"momentum": 0.9, "nesterov": "look_ahead"}"#,
                error: "nesterov is look_ahead, must be off or simplified unless form is velocity",
            },
            Reject {
                json: r#"{"weight_decay": {"inside_moment": 0.1}}"#,
                error: "weight_decay is {\"inside_moment\": 0.1}, must be one of none, l2, decoupled, independent, \
                        cautious for sgd",
            },
            Reject {
                json: r#"{"weight_decay": {"l2": -1}}"#,
                error: "weight_decay.l2 is -1, must be at least 0 and finite",
            },
            Reject {
                json: r#"{"lr": 0, "weight_decay": {"independent": 0.1}}"#,
                error: "lr is 0, must be above 0 with weight_decay independent",
            },
        ]
    }
}
