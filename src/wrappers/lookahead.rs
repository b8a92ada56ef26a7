//! Lookahead. Twin: `shaders/wrappers/lookahead.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Slot, numbers};
use crate::wrapper::{Moment, Setting, Wrapper};

/// Lookahead: a slow copy of the parameters, to which they return at times. JSON: `{"k": 5, "alpha": 0.5}`.
///
/// The slow copy starts as the parameters before a tensor's first step. After every `k`-th of its steps
/// `slow += alpha*(p - slow); p <- slow`. The rule's own state stays as it is. Slot `lookahead_slow` per element. The
/// update does this too: 8 bytes an element more in every `k`-th step, 4 in the first, none in the others.
///
/// Source: Zhang et al. 2019, Algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lookahead {
    /// Steps from one pull to the next, at least 1. Default 5.
    pub k: u64,
    /// The share of the distance that the slow parameters go: above 0, at most 1. Default 0.5.
    pub alpha: f64,
}

impl Default for Lookahead {
    fn default() -> Self {
        Self { k: 5, alpha: 0.5 }
    }
}

impl Lookahead {
    /// Whether the parameters return to the slow ones in a tensor's step `t`.
    fn pulls(&self, t: u64) -> bool {
        t.is_multiple_of(self.k)
    }
}

numbers! {
    /// How far the slow parameters go in this step: `alpha` in every `k`-th, else 0.
    Numbers { pull }
}

impl Wrapper for Lookahead {
    const NAME: &'static str = "lookahead";
    const SUMMARY: &'static str = "slow parameters to which the others return (Zhang et al. 2019)";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/lookahead.wgsl");

    type Numbers<F: Real> = Numbers<F>;

    fn check(&self) -> Result<()> {
        let Self { k, alpha } = *self;
        if k == 0 {
            return refuse("lookahead.k", k, "at least 1");
        }
        if !(alpha > 0.0 && alpha <= 1.0 && alpha as f32 > 0.0) {
            return refuse("lookahead.alpha", alpha, "above 0 and at most 1");
        }
        Ok(())
    }

    fn slot(&self, _setting: Setting) -> Option<Slot> {
        Some(Slot::element("lookahead_slow").starting_as_param())
    }

    fn numbers(&self, moment: Moment) -> Numbers<f64> {
        Numbers { pull: if moment.batches.is_some() && self.pulls(moment.t) { self.alpha } else { 0.0 } }
    }

    fn bytes_per_element(&self, t: u64, first: bool) -> u64 {
        match first {
            true => 4,
            false if self.pulls(t) => 8,
            false => 0,
        }
    }

    fn landed<F: Real>(&self, n: &Numbers<F>, first: bool, before: F, after: F, slow: &mut F) -> F {
        if first {
            *slow = before;
        }
        if n.pull == F::zero() {
            return after;
        }
        *slow = *slow + n.pull * (after - *slow);
        *slow
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("two", Self { k: 2, alpha: 0.3 })]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"k": 0}"#, error: "lookahead.k is 0, must be at least 1" },
            Reject { json: r#"{"alpha": 0}"#, error: "lookahead.alpha is 0, must be above 0 and at most 1" },
        ]
    }
}
