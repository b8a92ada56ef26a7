//! Micro-batches. Twin: `shaders/wrappers/accumulate.wgsl`; the walk that adds them up is
//! `shaders/skeletons/accumulate.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{Slot, numbers};
use crate::wrapper::{Moment, Setting, Wrapper};

/// Gradient accumulation: a step takes the mean of the gradients of so many calls, from 1 to 2^24. JSON: the number;
/// 1, the default, is off.
///
/// `g = (g_1 + ... + g_n)/n`. The calls are added up in their order, in f32, in buffers of 4 bytes an element that
/// stand beside the state; they can be read as the slot `accumulated`. A call moves 12 bytes an element, the first of a
/// step 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Accumulate(pub u64);

numbers! {
    /// How many micro-batches a gradient is the sum of.
    Numbers { batches }
}

impl Wrapper for Accumulate {
    const NAME: &'static str = "accumulate";
    const SUMMARY: &'static str = "the mean of several micro-batches is the gradient of a step";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/accumulate.wgsl");
    const SLOT_BESIDE: bool = true;

    type Numbers<F: Real> = Numbers<F>;

    fn check(&self) -> Result<()> {
        match self.0 {
            1..=16_777_216 => Ok(()),
            batches => refuse("accumulate", batches, "at least 1 and at most 16777216"),
        }
    }

    fn off() -> Option<Self> {
        Some(Self(1))
    }

    fn slot(&self, _setting: Setting) -> Option<Slot> {
        Some(Slot::element("accumulated"))
    }

    fn numbers(&self, moment: Moment) -> Numbers<f64> {
        Numbers { batches: moment.batches.unwrap_or(self.0) as f64 }
    }

    fn gradient<F: Real>(&self, n: &Numbers<F>, g: F) -> F {
        g / n.batches
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("three", Self(3))]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: "0", error: "accumulate is 0, must be at least 1 and at most 16777216" },
            Reject { json: "16777217", error: "accumulate is 16777217, must be at least 1 and at most 16777216" },
        ]
    }
}
