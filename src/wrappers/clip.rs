//! Clips. Twin: `shaders/wrappers/clip.wgsl`; the walk `decide` calls its `clip_factors`.

use serde::{Deserialize, Serialize};

use crate::control::{Measured, NonFinite};
use crate::error::{Result, above_zero};
use crate::parts::{Real, at_least, sign};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::numbers;
use crate::wrapper::{Decided, Measures, Moment, Wrapper};

/// What becomes of gradients that are too large. JSON: an object of one field, `{"global_norm": 1.0}`.
///
/// `c` is the number, above 0; `g` the gradient, unscaled and averaged, before maximize and L2 decay; `||.||` the
/// square root of the sum of squares over a tensor. Sources: Pascanu et al. 2013, Algorithm 1 (norms); Brock et al.
/// 2021, section 4, by tensor (adaptive).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Every number of a gradient stays within `-c..=c`. This clip costs nothing.
    Value(f64),
    /// `g*min(1, c/(||g|| + 1e-6))`. This clip and those below read the gradients once more.
    TensorNorm(f64),
    /// The same with the norm over all tensors of all groups that are in the step.
    GlobalNorm(f64),
    /// `g*min(1, c*max(||p||, eps)/max(||g||, 1e-6))`. This clip reads the parameters once more, too.
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
    /// The least norm that the parameters of a tensor count as, above 0. Default 1e-3.
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

impl Clip {
    /// The shader's `CLIP_KIND`.
    fn number(self) -> u8 {
        match self {
            Self::Value(_) => 1,
            Self::TensorNorm(_) => 2,
            Self::GlobalNorm(_) => 3,
            Self::Adaptive(_) => 4,
            Self::Sign(_) => 5,
        }
    }

    /// `coarse` and `fine` of a tensor, from what is measured of its gradients and of all.
    pub(crate) fn factors<F: Real>(self, tensor: Measured<F>, all: Measured<F>) -> [F; 2] {
        let limit = F::of(self.limit());
        match self {
            Self::Value(_) => [F::one(); 2],
            Self::TensorNorm(_) => by_norm(tensor, limit, None),
            Self::GlobalNorm(_) => by_norm(all, limit, None),
            Self::Adaptive(AdaptiveClip { eps, .. }) => by_norm(tensor, limit, Some(F::of(eps))),
            Self::Sign(_) => [F::one(), if exceeds(all, limit) { F::one() } else { F::zero() }],
        }
    }
}

/// What gradients are multiplied by, in two steps: a power of two, and the rest. NaN where the norm is.
fn by_norm<F: Real>(measured: Measured<F>, limit: F, adaptive: Option<F>) -> [F; 2] {
    let (root, coarse) = measured.grads.root();
    let bound = adaptive.map_or(limit, |eps| {
        let (params, unit) = measured.params.root();
        limit * at_least(params / unit, eps)
    });
    match measured.kind {
        Some(NonFinite::NaN) => [F::one(), F::nan()],
        Some(NonFinite::Infinite) => [F::one(), F::zero()],
        _ if coarse == F::one() => {
            let tiny = F::of(1e-6);
            let ratio = bound / if adaptive.is_some() { at_least(root, tiny) } else { root + tiny };
            [F::one(), if ratio >= F::one() { F::one() } else { ratio }]
        }
        _ if bound * coarse >= root => [F::one(); 2],
        _ => [coarse, bound / root],
    }
}

/// Whether the norm exceeds the limit.
fn exceeds<F: Real>(measured: Measured<F>, limit: F) -> bool {
    let (root, coarse) = measured.grads.root();
    measured.kind == Some(NonFinite::Infinite) || (measured.kind != Some(NonFinite::NaN) && root > limit * coarse)
}

numbers! {
    /// The clip's numbers of a tensor.
    Numbers {
        /// By value: the largest number that stays. By sign: what a number becomes, apart from its sign.
        limit,
        /// By a norm: the power of two that gradients are multiplied by first, to bring a large norm near 1.
        coarse,
        /// By a norm: what they are multiplied by then. By sign: 1 where the clip acts, else 0.
        fine,
    }
}

impl Wrapper for Clip {
    const NAME: &'static str = "clip";
    const SUMMARY: &'static str = "gradients that are too large become smaller, by value, norm or sign";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/clip.wgsl");
    const DECIDED: &'static [Decided] = &[Decided::Coarse, Decided::Fine];

    type Numbers<F: Real> = Numbers<F>;

    fn check(&self) -> Result<()> {
        match *self {
            Self::Adaptive(AdaptiveClip { clip, eps }) => {
                above_zero("clip.adaptive.clip", clip)?;
                above_zero("clip.adaptive.eps", eps)
            }
            clip => above_zero(&format!("clip.{}", clip.kind()), clip.limit()),
        }
    }

    fn constants(&self) -> Vec<(&'static str, f64)> {
        vec![("CLIP_KIND", self.number().into())]
    }

    fn numbers(&self, _moment: Moment) -> Numbers<f64> {
        Numbers { limit: self.limit(), coarse: 1.0, fine: 1.0 }
    }

    fn option(&mut self, name: &str) -> Option<&mut f64> {
        match self {
            _ if name != "clip" => None,
            Self::Value(c) | Self::TensorNorm(c) | Self::GlobalNorm(c) | Self::Sign(c) => Some(c),
            Self::Adaptive(AdaptiveClip { clip, .. }) => Some(clip),
        }
    }

    fn measures(&self) -> Measures {
        Measures { grads: self.needs_norms(), params: matches!(self, Self::Adaptive(_)) }
    }

    fn gradient<F: Real>(&self, n: &Numbers<F>, g: F) -> F {
        match self {
            // A NaN stays one.
            Self::Value(_) if g > n.limit => n.limit,
            Self::Value(_) if g < -n.limit => -n.limit,
            Self::Value(_) => g,
            Self::Sign(_) if n.fine != F::zero() => n.limit * sign(g),
            Self::Sign(_) => g,
            Self::TensorNorm(_) | Self::GlobalNorm(_) | Self::Adaptive(_) => g * n.coarse * n.fine,
        }
    }

    fn is_lost<F: Real>(&self, n: &Numbers<F>, raw: F) -> bool {
        match self {
            Self::Value(_) | Self::Sign(_) => false,
            Self::TensorNorm(_) | Self::GlobalNorm(_) | Self::Adaptive(_) => raw.is_infinite() || n.fine.is_nan(),
        }
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![
            ("value", Self::Value(0.3)),
            ("tensor_norm", Self::TensorNorm(0.7)),
            ("global_norm", Self::GlobalNorm(0.9)),
            ("adaptive", Self::Adaptive(AdaptiveClip { clip: 0.05, eps: 0.01 })),
            ("sign", Self::Sign(0.2)),
        ]
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"value": 0}"#, error: "clip.value is 0, must be above 0 and finite in f32" },
            Reject {
                json: r#"{"global_norm": -1}"#,
                error: "clip.global_norm is -1, must be above 0 and finite in f32",
            },
            Reject {
                json: r#"{"adaptive": {"eps": 0}}"#,
                error: "clip.adaptive.eps is 0, must be above 0 and finite in f32",
            },
        ]
    }
}
