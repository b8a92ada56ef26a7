//! What is wrapped round every rule's update.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};
use crate::rule::Slot;

/// What an optimizer does beside its rule, the same for all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Around {
    /// Lookahead; off without.
    pub lookahead: Option<Lookahead>,
}

/// Lookahead: slow parameters that the others return to. JSON: `{"k": 5, "alpha": 0.5}`.
///
/// The slow copy starts as the parameters before a tensor's first step. After every `k`-th of its steps
/// `slow += alpha*(p - slow); p <- slow`. The rule's own state is kept. Slot `lookahead_slow`. Fused into the update:
/// 8 bytes an element in the `k`-th step, 4 in the first, none in the others.
///
/// Source: Zhang et al. 2019, Algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lookahead {
    /// Steps from one pull to the next, at least 1. Default 5.
    pub k: u64,
    /// How far the slow parameters go: above 0, at most 1. Default 0.5.
    pub alpha: f64,
}

impl Default for Lookahead {
    fn default() -> Self {
        Self { k: 5, alpha: 0.5 }
    }
}

impl Around {
    /// Lookahead's slow parameters.
    pub const SLOW: Slot = Slot::element("lookahead_slow").starting_as_param();

    /// The slots that it adds to the rule's, behind them in every block.
    pub fn slots(&self) -> Vec<Slot> {
        self.lookahead.map(|_| Self::SLOW).into_iter().collect()
    }

    /// Lookahead's `alpha` in step `t` of a tensor, 0 where it does not pull.
    pub fn pull(&self, t: u64) -> f64 {
        self.lookahead.filter(|lookahead| t.is_multiple_of(lookahead.k)).map_or(0.0, |lookahead| lookahead.alpha)
    }

    /// Bytes that step `t` of a tensor moves beside the rule's, of each element. In its first one, slots take their
    /// start.
    pub fn bytes_per_element(&self, t: u64, first: bool) -> u64 {
        match self.lookahead {
            None => 0,
            Some(_) if first => 4,
            Some(_) if self.pull(t) != 0.0 => 8,
            Some(_) => 0,
        }
    }

    /// Refuses numbers outside their bounds.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    pub fn check(&self) -> Result<()> {
        let Some(Lookahead { k, alpha }) = self.lookahead else { return Ok(()) };
        if k == 0 {
            return refuse("lookahead.k", k, "at least 1");
        }
        if !(alpha > 0.0 && alpha <= 1.0 && alpha as f32 > 0.0) {
            return refuse("lookahead.alpha", alpha, "above 0 and at most 1");
        }
        Ok(())
    }
}
