//! The loss scale. Twin: `shaders/wrappers/loss_scale.wgsl`; the walk `decide` moves the scale.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::numbers;
use crate::wrapper::{Decided, Measures, Moment, Setting, Wrapper};

/// A scale of the loss that grows as long as the gradients stay finite. JSON:
/// `{"init": 65536, "growth": 2, "backoff": 0.5, "interval": 2000}`, the defaults.
///
/// The caller multiplies the loss by the scale before computing its gradients, so that small gradients stay above the
/// smallest number of their format; the step divides them by it. After a skipped step `scale *= backoff`, after
/// `interval` good steps in a row `scale *= growth`, always within 2^-24 and 2^24. All these numbers are powers of two,
/// so that nothing is rounded.
///
/// Source: Micikevicius et al. 2018, section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossScale {
    /// The first scale: a power of two from 2^-24 to 2^24. Default 65536.
    pub init: f64,
    /// What the scale is multiplied by to grow: a power of two above 1, at most 2^24. Default 2.
    pub growth: f64,
    /// What the scale is multiplied by after a skipped step: a power of two below 1, at least 2^-24. Default 0.5.
    pub backoff: f64,
    /// Good steps in a row after which the scale grows, from 1 to 2^32 - 1. Default 2000.
    pub interval: u64,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { init: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }
}

impl LossScale {
    /// The largest scale; the smallest is its inverse.
    pub const MAX: f64 = 16_777_216.0;

    /// Refuses a scale that is no power of two from 2^-24 to 2^24.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    pub fn check_scale(field: &str, scale: f64) -> Result<()> {
        let within = (1.0 / Self::MAX..=Self::MAX).contains(&scale);
        if within && is_power_of_two(scale) {
            Ok(())
        } else {
            refuse(field, scale, "a power of two from 2^-24 to 2^24")
        }
    }

    fn check_numbers(&self) -> Result<()> {
        Self::check_scale("loss_scale.init", self.init)?;
        let Self { growth, backoff, interval, .. } = *self;
        if !(growth > 1.0 && growth <= Self::MAX && is_power_of_two(growth)) {
            return refuse("loss_scale.growth", growth, "a power of two above 1 and at most 2^24");
        }
        if !((1.0 / Self::MAX..1.0).contains(&backoff) && is_power_of_two(backoff)) {
            return refuse("loss_scale.backoff", backoff, "a power of two below 1 and at least 2^-24");
        }
        if interval == 0 || interval > u64::from(u32::MAX) {
            return refuse("loss_scale.interval", interval, "at least 1 and at most 4294967295");
        }
        Ok(())
    }
}

fn is_power_of_two(x: f64) -> bool {
    x.is_normal() && x.to_bits() << 12 == 0
}

numbers! {
    /// One over the loss scale.
    Numbers { unscale }
}

impl Wrapper for LossScale {
    const NAME: &'static str = "loss_scale";
    const SUMMARY: &'static str = "gradients of a loss that is multiplied by a scale, which follows what they bear";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/loss_scale.wgsl");
    const DECIDED: &'static [Decided] = &[Decided::Unscale];

    type Numbers<F: Real> = Numbers<F>;

    fn check(&self) -> Result<()> {
        self.check_numbers()
    }

    // With several micro-batches, `accumulate` divides gradients by the scale as it adds them up.
    fn takes_part(&self, setting: Setting) -> bool {
        setting.batches == 1
    }

    fn numbers(&self, _moment: Moment) -> Numbers<f64> {
        Numbers { unscale: 1.0 }
    }

    fn measures(&self) -> Measures {
        Measures { grads: true, params: false }
    }

    fn skips(&self) -> bool {
        true
    }

    fn gradient<F: Real>(&self, n: &Numbers<F>, g: F) -> F {
        g * n.unscale
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("quick", Self { init: 1024.0, growth: 4.0, backoff: 0.25, interval: 2 })]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"init": 3}"#, error: "loss_scale.init is 3, must be a power of two from 2^-24 to 2^24" },
            Reject {
                json: r#"{"growth": 1}"#,
                error: "loss_scale.growth is 1, must be a power of two above 1 and at most 2^24",
            },
            Reject {
                json: r#"{"backoff": 1}"#,
                error: "loss_scale.backoff is 1, must be a power of two below 1 and at least 2^-24",
            },
            Reject {
                json: r#"{"interval": 0}"#,
                error: "loss_scale.interval is 0, must be at least 1 and at most 4294967295",
            },
        ]
    }
}
