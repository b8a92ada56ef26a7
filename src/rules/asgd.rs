//! ASGD. Twin: `shaders/rules/asgd.wgsl`.

use crate::error::{Result, at_least_zero};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Carried, Rule, Slot, WeightDecay, fields, numbers, options};

/// Averaged SGD: descent with a fading rate and a pull towards 0, and beside it the average of the parameters.
///
/// `p -= eta*(lambd*p + g)`; then `ax += mu*(p - ax)` with the new `p` (`ax = p` where `mu = 1`); then, for the next
/// step, `eta = lr/(1 + lambd*lr*t)^alpha` and `mu = 1/max(1, t - t0)`. The first step has `eta = lr` and `mu = 1`.
/// The host carries both from step to step, so a rate that is set between steps takes effect one step later. Slot `ax`
/// per element, the average: read it to evaluate there.
///
/// Sources: Polyak and Juditsky 1992; the rate: Xu 2011. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct Asgd {
    /// Learning rate, at least 0. Default 1e-2.
    pub lr: f64,
    /// The strength of the pull towards 0, and how fast the rate fades; at least 0. Default 1e-4.
    pub lambd: f64,
    /// The power by which the rate fades, at least 0. Default 0.75.
    pub alpha: f64,
    /// The step after which `mu` falls below 1 and `ax` becomes an average, at least 0. Default 1e6.
    pub t0: f64,
    /// Any [general](WeightDecay::GENERAL) kind. Default none.
    pub weight_decay: WeightDecay,
}

fields!(Asgd: lr, lambd, alpha, t0, weight_decay);

impl Default for Asgd {
    fn default() -> Self {
        Self { lr: 1e-2, lambd: 1e-4, alpha: 0.75, t0: 1e6, weight_decay: WeightDecay::None }
    }
}

numbers! {
    /// Numbers of a group at one `t`.
    Hyper {
        /// The rate of this step.
        eta,
        lambd,
        /// The weight of the new parameter in the average.
        mu,
    }
}
numbers! {
    /// The average.
    State { ax }
}

impl Rule for Asgd {
    const NAME: &'static str = "asgd";
    const SUMMARY: &'static str = "fading rate, and the average of the parameters beside it (Polyak and Juditsky 1992)";
    const SHADER: &'static str = include_str!("../../shaders/rules/asgd.wgsl");
    const RESTS: bool = false;
    const MASKABLE: bool = false;

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, lambd, alpha, t0; weight_decay);

    fn check(&self) -> Result<()> {
        at_least_zero("lambd", self.lambd)?;
        at_least_zero("alpha", self.alpha)?;
        at_least_zero("t0", self.t0)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("ax")]
    }

    fn hyper(&self, t: u64, carried: &mut Carried) -> Hyper<f64> {
        let [eta, mu] = if t == 1 { [self.lr, 1.0] } else { *carried };
        *carried = self.carried(t);
        Hyper { eta, lambd: self.lambd, mu }
    }

    /// `eta` and `mu` of the step after `t`.
    fn carried(&self, t: u64) -> Carried {
        if t == 0 {
            return Carried::default();
        }
        let t = t as f64;
        [self.lr / (1.0 + self.lambd * self.lr * t).powf(self.alpha), 1.0 / (t - self.t0).max(1.0)]
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), p: F, g: F, _s: &mut State<F>) -> F {
        h.eta * (h.lambd * p + g)
    }

    fn land<F: Real>(&self, h: &Hyper<F>, _k: &(), p: F, u: F, s: &mut State<F>) -> F {
        let landed = p - u;
        s.ax = if h.mu == F::one() { landed } else { s.ax + h.mu * (landed - s.ax) };
        landed
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self { lr: 0.1, lambd: 0.3, alpha: 0.9, t0: 3.0, weight_decay: WeightDecay::L2(0.2) };
        vec![
            ("default", Self::default()),
            ("decoupled", Self { weight_decay: WeightDecay::Decoupled(0.3), ..loud.clone() }),
            ("loud", loud),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"lambd": -0.1}"#, error: "lambd is -0.1, must be at least 0 and finite" },
            Reject { json: r#"{"alpha": -1}"#, error: "alpha is -1, must be at least 0 and finite" },
            Reject { json: r#"{"t0": -1}"#, error: "t0 is -1, must be at least 0 and finite" },
        ]
    }
}
