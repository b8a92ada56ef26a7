//! What is wrapped round every rule's update.

use serde::{Deserialize, Serialize};

use crate::error::{Result, above_zero, below_one, refuse};
use crate::parts::correction;
use crate::rule::{Slot, Start};

/// What an optimizer does beside its rule, the same for all groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrappers {
    /// Gradients that are too large made smaller; off without.
    pub clip: Option<Clip>,
    /// The mean of so many micro-batches is one gradient, at least 1. Default 1.
    pub accumulate: u64,
    /// Skips a step whose gradients hold NaN, infinity, or a number of 2^63 or more. Default false.
    pub skip_nonfinite: bool,
    /// Gradients of a loss that was multiplied by a scale; off without. Skips as `skip_nonfinite` does.
    pub loss_scale: Option<LossScale>,
    /// Measures norms of the gradients also where nothing needs them. Default false.
    pub norms: bool,
    /// Lookahead; off without.
    pub lookahead: Option<Lookahead>,
    /// A running mean of the parameters; off without.
    pub ema: Option<Ema>,
    /// Options whose numbers a kernel of the caller's writes.
    pub on_device: Vec<String>,
}

impl Default for Wrappers {
    fn default() -> Self {
        Self {
            clip: None,
            accumulate: 1,
            skip_nonfinite: false,
            loss_scale: None,
            norms: false,
            lookahead: None,
            ema: None,
            on_device: Vec::new(),
        }
    }
}

/// What becomes of gradients that are too large. JSON: an object of one field, `{"global_norm": 1.0}`.
///
/// `c` is the number, above 0; `g` the gradient, unscaled and averaged, before maximize and L2 decay; `||.||` the
/// square root of the sum of squares over a tensor. Sources: Pascanu et al. 2013, Algorithm 1 (norms); Brock et al.
/// 2021, section 4, by tensor (adaptive).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Each number within `-c..=c`. Costs nothing.
    Value(f64),
    /// `g*min(1, c/(||g|| + 1e-6))`. Reads the gradients once more, as all that follow.
    TensorNorm(f64),
    /// The same with the norm over all tensors of all groups that are in the step.
    GlobalNorm(f64),
    /// `g*min(1, c*max(||p||, eps)/max(||g||, 1e-6))`. Reads the parameters once more, too.
    Adaptive(AdaptiveClip),
    /// `c*sign(g)` where the global norm exceeds `c`.
    Sign(f64),
}

/// The numbers of [`Clip::Adaptive`]. JSON: `{"clip": 0.01, "eps": 0.001}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveClip {
    /// The largest share of the parameters' norm, above 0. Default 0.01.
    pub clip: f64,
    /// What stands in for the norm of parameters near 0, above 0. Default 1e-3.
    pub eps: f64,
}

impl Default for AdaptiveClip {
    fn default() -> Self {
        Self { clip: 0.01, eps: 1e-3 }
    }
}

impl Clip {
    /// The number `c`.
    pub fn limit(self) -> f64 {
        match self {
            Self::Value(c) | Self::TensorNorm(c) | Self::GlobalNorm(c) | Self::Sign(c) => c,
            Self::Adaptive(AdaptiveClip { clip, .. }) => clip,
        }
    }

    /// The name in JSON.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Value(_) => "value",
            Self::TensorNorm(_) => "tensor_norm",
            Self::GlobalNorm(_) => "global_norm",
            Self::Adaptive(_) => "adaptive",
            Self::Sign(_) => "sign",
        }
    }

    /// Whether norms must be known before the update.
    pub fn needs_norms(self) -> bool {
        !matches!(self, Self::Value(_))
    }
}

/// A scale of the loss that follows what the gradients bear. JSON:
/// `{"init": 65536, "growth": 2, "backoff": 0.5, "interval": 2000}`, the defaults.
///
/// The loss is multiplied by the scale before its gradients are computed, so that small ones stay above the smallest
/// number of their format; the step divides by it. On a skipped step `scale *= backoff`, after `interval` good steps in
/// a row `scale *= growth`, always within 2^-24 and 2^24. All numbers are powers of two, so that nothing is rounded.
///
/// Source: Micikevicius et al. 2018, section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossScale {
    /// The first scale: a power of two from 2^-24 to 2^24. Default 65536.
    pub init: f64,
    /// A power of two above 1, at most 2^24. Default 2.
    pub growth: f64,
    /// A power of two below 1, at least 2^-24. Default 0.5.
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

    fn check(&self) -> Result<()> {
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

/// A running mean of the parameters (Polyak averaging). JSON: `{"decay": 0.999, "debias": false}`, the defaults.
///
/// `e = decay*e + (1-decay)*p` after each applied step, `p` being what the step leaves, lookahead included. `e` starts
/// as the parameters before a tensor's first step; with `debias` as 0, and is read as `e/(1-decay^t)`. Slot `ema`.
/// Fused into the update: 8 bytes an element, 4 in a tensor's first step.
///
/// Source: Kingma and Ba 2015, section 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ema {
    /// At least 0 and below 1. Default 0.999.
    pub decay: f64,
    /// Whether it starts at 0. Default false.
    pub debias: bool,
}

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.999, debias: false }
    }
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

impl Wrappers {
    /// Lookahead's slow parameters.
    pub const SLOW: Slot = Slot::element("lookahead_slow").starting_as_param();
    /// The running mean of the parameters.
    pub const EMA: Slot = Slot::element("ema").starting_as_param();
    /// The parameters before a look-ahead, to which a skipped step returns.
    pub const BEFORE: Slot = Slot::element("before_look_ahead");
    /// The sum of micro-batches. It lies beside the state, as gradients do.
    pub const ACCUMULATED: Slot = Slot::element("accumulated");
    /// What all of them are called, in the order in which they lie.
    pub const SLOTS: [&'static str; 4] = [Self::SLOW.name, Self::EMA.name, Self::BEFORE.name, Self::ACCUMULATED.name];

    /// The slots that it adds to those of a rule, behind them in every block.
    pub fn slots(&self, looks_ahead: bool) -> Vec<Slot> {
        let ema =
            self.ema.map(|ema| if ema.debias { Slot { start: Start::Value(0.0), ..Self::EMA } } else { Self::EMA });
        let before = (looks_ahead && self.skips()).then_some(Self::BEFORE);
        let accumulated = (self.accumulate > 1).then_some(Self::ACCUMULATED);
        [self.lookahead.map(|_| Self::SLOW), ema, before, accumulated].into_iter().flatten().collect()
    }

    /// Whether a step may be skipped.
    pub fn skips(&self) -> bool {
        self.skip_nonfinite || self.loss_scale.is_some()
    }

    /// Whether norms of the gradients are measured before each update.
    pub fn measures(&self) -> bool {
        self.skips() || self.norms || self.clip.is_some_and(Clip::needs_norms)
    }

    /// Whether what the update does is decided on the device.
    pub fn is_controlled(&self) -> bool {
        self.measures() || !self.on_device.is_empty()
    }

    /// Lookahead's `alpha` in step `t` of a tensor, 0 where it does not pull.
    pub fn pull(&self, t: u64) -> f64 {
        self.lookahead.filter(|lookahead| t.is_multiple_of(lookahead.k)).map_or(0.0, |lookahead| lookahead.alpha)
    }

    /// What the mean of the parameters is divided by after `t` steps.
    pub fn ema_correction(&self, t: u64) -> f64 {
        self.ema.filter(|ema| ema.debias).map_or(1.0, |ema| correction(ema.decay, t))
    }

    /// Bytes that step `t` of a tensor moves beside the rule's, of each element. In its first one, slots take their
    /// start.
    pub fn bytes_per_element(&self, t: u64, first: bool) -> u64 {
        let lookahead = match self.lookahead {
            None => 0,
            Some(_) if first => 4,
            Some(_) if self.pull(t) != 0.0 => 8,
            Some(_) => 0,
        };
        let ema = match self.ema {
            None => 0,
            Some(Ema { debias: false, .. }) if first => 4,
            Some(_) => 8,
        };
        lookahead + ema
    }

    /// Refuses numbers outside their bounds.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    pub fn check(&self) -> Result<()> {
        match self.clip {
            None => {}
            Some(Clip::Adaptive(AdaptiveClip { clip, eps })) => {
                above_zero("clip.adaptive.clip", clip)?;
                above_zero("clip.adaptive.eps", eps)?;
            }
            Some(clip) => above_zero(&format!("clip.{}", clip.kind()), clip.limit())?,
        }
        if self.accumulate == 0 || self.accumulate > 1 << 24 {
            return refuse("accumulate", self.accumulate, "at least 1 and at most 16777216");
        }
        self.loss_scale.map_or(Ok(()), |scale| scale.check())?;
        self.ema.map_or(Ok(()), |ema| below_one("ema.decay", ema.decay))?;
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
