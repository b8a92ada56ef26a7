//! Cautious updates, which drop what disagrees with the gradient. Twin: `shaders/wrappers/cautious_update.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::parts::{Real, at_least, sign};
use crate::rule::AnyRule;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::wrapper::{Moment, Wrapper};

/// A cautious update: an element stays where it is unless its update `u` has the sign of its gradient. JSON: `"count"`
/// or `"mean"`; `"off"`, the default, is off.
///
/// `u <- u*f` where `u*g > 0`, else 0; `g` is the gradient after clip, maximize and L2 decay, `n` the number of the
/// tensor's elements and `k` that of the elements that move. Decoupled and independent decay act on every element; a
/// cautious decay compares with the masked `u`. A step takes two passes more, which read what the update reads and
/// store nothing.
///
/// Source: Liang et al. 2024, arXiv 2411.16085, Algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CautiousUpdate {
    /// Every element moves.
    Off,
    /// `f = n/(k + 1)`: the paper's.
    Count,
    /// `f = n/max(k, 0.001*n)`: that of the authors' AdamW, timm and transformers.
    Mean,
}

impl Wrapper for CautiousUpdate {
    const NAME: &'static str = "cautious_update";
    const SUMMARY: &'static str = "drops updates that disagree with the gradient (Liang et al. 2024)";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/cautious_update.wgsl");

    type Numbers<F: Real> = ();

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn check_rule(&self, rule: &dyn AnyRule) -> Result<()> {
        let name = if *self == Self::Mean { "mean" } else { "count" };
        if rule.is_maskable() { Ok(()) } else { refuse("cautious_update", name, format!("off for {}", rule.name())) }
    }

    fn off() -> Option<Self> {
        Some(Self::Off)
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("CAUTIOUS_UPDATE_MEAN", f64::from(*self == Self::Mean))]
    }

    fn numbers(&self, _moment: Moment) {}

    fn counts(&self) -> bool {
        true
    }

    fn is_counted<F: Real>(&self, _n: &(), g: F, u: F) -> bool {
        sign(g) * sign(u) > F::zero()
    }

    fn factor<F: Real>(&self, _n: &(), count: F, len: F) -> F {
        match self {
            Self::Mean => len / at_least(count, F::of(0.001) * len),
            _ => len / (count + F::one()),
        }
    }

    fn update<F: Real>(&self, n: &(), k: F, g: F, u: F) -> F {
        if self.is_counted(n, g, u) || u.is_nan() { k * u } else { F::zero() }
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("count", Self::Count), ("mean", Self::Mean)]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![]
    }
}
