//! Weight decay: its kinds and their JSON. Nothing else may live here.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

/// Weight decay: what pulls parameters towards 0. JSON: `"none"`, or an object of one field such as `{"l2": 0.01}`.
///
/// In the formulas `d` is the number, `lr` the scheduled learning rate, and `u` what the rule subtracts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WeightDecay {
    /// No decay.
    #[default]
    None,
    /// `g <- g + d*p` before the rule sees `g` (the classic penalty; PyTorch's `weight_decay` of all but AdamW).
    L2(f64),
    /// `p <- p - (lr*d*p + u)` (Loshchilov and Hutter 2019, Algorithm 2).
    Decoupled(f64),
    /// As decoupled, with `d*lr/lr_initial` in place of `lr*d`: the decay follows the schedule of the learning rate,
    /// but not its configured value.
    Independent(f64),
    /// As decoupled, but only for elements where `sign(u) == sign(p)` (arXiv 2510.12402).
    Cautious(f64),
    /// NovoGrad's: `d*p` joins the normalised gradient in the moment (Ginsburg et al. 2019, Algorithm 1).
    InsideMoment(f64),
    /// `d*p` joins what the rule scales as a whole: LAMB's and LARS's trust ratio, schedule-free's two sequences.
    Inside(f64),
    /// Adan's: `p <- (p - u)/(1 + lr*d)` (Xie et al. 2022, Algorithm 1).
    Proximal(f64),
}

impl WeightDecay {
    /// The JSON names of the kinds that most rules take.
    pub const GENERAL: &[&str] = &["none", "l2", "decoupled", "independent", "cautious"];

    /// The kind's name in JSON.
    pub fn kind(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L2(_) => "l2",
            Self::Decoupled(_) => "decoupled",
            Self::Independent(_) => "independent",
            Self::Cautious(_) => "cautious",
            Self::InsideMoment(_) => "inside_moment",
            Self::Inside(_) => "inside",
            Self::Proximal(_) => "proximal",
        }
    }

    /// The number `d`; 0 where the kind is none.
    pub fn amount(mut self) -> f64 {
        self.amount_mut().map_or(0.0, |amount| *amount)
    }

    /// The number `d`, to be set. The kind none has no number.
    pub fn amount_mut(&mut self) -> Option<&mut f64> {
        match self {
            Self::None => None,
            Self::L2(d)
            | Self::Decoupled(d)
            | Self::Independent(d)
            | Self::Cautious(d)
            | Self::InsideMoment(d)
            | Self::Inside(d)
            | Self::Proximal(d) => Some(d),
        }
    }
}

impl Display for WeightDecay {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            _ => write!(f, "{{\"{}\": {}}}", self.kind(), self.amount()),
        }
    }
}
