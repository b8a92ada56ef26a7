//! Skipped steps. Twin: `shaders/wrappers/skip_nonfinite.wgsl`; the walk `decide` decides.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::Slot;
use crate::wrapper::{Measures, Moment, Setting, Wrapper};

/// Whether a step is skipped whose gradients hold NaN, infinity, or a number of 2^63 or more. JSON: `true`; `false`,
/// the default, is off.
///
/// A skipped step changes no bit of parameters, state, means or counts. Where the rule moved the parameters ahead of
/// the step, they return to where they stood: the slot `before_look_ahead` keeps them, 4 bytes an element.
/// [`LossScale`](crate::LossScale) skips the same steps without this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SkipNonfinite(pub bool);

impl Wrapper for SkipNonfinite {
    const NAME: &'static str = "skip_nonfinite";
    const SUMMARY: &'static str = "skips steps whose gradients are not finite";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/skip_nonfinite.wgsl");

    type Numbers<F: Real> = ();

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn off() -> Option<Self> {
        Some(Self(false))
    }

    fn takes_part(&self, setting: Setting) -> bool {
        setting.looks_ahead
    }

    fn slot(&self, setting: Setting) -> Option<Slot> {
        setting.looks_ahead.then_some(Slot::element("before_look_ahead"))
    }

    fn numbers(&self, _moment: Moment) {}

    fn measures(&self) -> Measures {
        Measures { grads: true, params: false }
    }

    fn skips(&self) -> bool {
        true
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("on", Self(true))]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![]
    }
}
