//! A running mean of the parameters. Twin: `shaders/wrappers/ema.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, below_one};
use crate::parts::{self, Real, correction};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Slot, numbers};
use crate::wrapper::{Moment, Setting, Wrapper};

/// A running mean of the parameters (Polyak averaging). JSON: `{"decay": 0.999, "debias": false}`, the defaults.
///
/// `e = decay*e + (1-decay)*p` after each applied step, where `p` is what the step leaves, lookahead included. `e`
/// starts as the parameters before a tensor's first step. With `debias` it starts as 0, and is read as
/// `e/(1-decay^n)`, where `n` counts the steps since the mean was switched on. Slot `ema` per element. The update does
/// this too: 8 bytes an element more, 4 in a tensor's first step.
///
/// Source: Kingma and Ba 2015, section 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ema {
    /// How much of the mean a step keeps: at least 0 and below 1. Default 0.999.
    pub decay: f64,
    /// Whether the mean starts at 0 and is corrected for that where it is read. Default false.
    pub debias: bool,
}

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.999, debias: false }
    }
}

impl Ema {
    /// The move that swaps the parameters with the mean.
    pub(crate) const SWAP: usize = 0;
    /// The move that writes the mean, as it is read, over the parameters.
    pub(crate) const READ: usize = 1;
}

numbers! {
    /// The mean's weights.
    Numbers {
        /// The share of the old mean in the new one.
        keep,
        /// The share of the parameter in it.
        take,
        /// What the mean is divided by where it is read.
        correction,
    }
}

impl Wrapper for Ema {
    const NAME: &'static str = "ema";
    const SUMMARY: &'static str = "a running mean of the parameters (Kingma and Ba 2015, section 7.2)";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/ema.wgsl");
    const MOVES: &'static [&'static str] = &["swap", "read"];

    type Numbers<F: Real> = Numbers<F>;

    fn check(&self) -> Result<()> {
        below_one("ema.decay", self.decay)
    }

    fn slot(&self, _setting: Setting) -> Option<Slot> {
        let slot = Slot::element("ema");
        Some(if self.debias { slot } else { slot.starting_as_param() })
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("EMA_DEBIAS", f64::from(self.debias))]
    }

    fn numbers(&self, moment: Moment) -> Numbers<f64> {
        let correction = if self.debias { correction(self.decay, moment.averaged) } else { 1.0 };
        Numbers { keep: self.decay, take: 1.0 - self.decay, correction }
    }

    fn bytes_per_element(&self, _t: u64, first: bool) -> u64 {
        if first && !self.debias { 4 } else { 8 }
    }

    fn landed<F: Real>(&self, n: &Numbers<F>, first: bool, before: F, after: F, mean: &mut F) -> F {
        let old = if first && !self.debias { before } else { *mean };
        *mean = parts::ema(old, after, n.keep, n.take);
        after
    }

    fn moved<F: Real>(&self, to: usize, n: &Numbers<F>, p: F, mean: &mut F) -> F {
        match to {
            Self::SWAP => std::mem::replace(mean, p),
            _ => *mean / n.correction,
        }
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("plain", Self { decay: 0.7, debias: false }), ("debias", Self { decay: 0.6, debias: true })]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![Reject { json: r#"{"decay": 1}"#, error: "ema.decay is 1, must be at least 0 and below 1" }]
    }
}
