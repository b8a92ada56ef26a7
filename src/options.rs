//! Choices that several rules share.

use serde::{Deserialize, Serialize};

use crate::error::{Result, refuse};

/// Where eps stands beside a root. JSON: `"outside"`, `"inside"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsPlacement {
    /// `sqrt(v) + eps`.
    #[default]
    Outside,
    /// `sqrt(v + eps)`.
    Inside,
}

/// What a momentum buffer holds. JSON: `"accumulate"`, `"velocity"`, `"average"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentumForm {
    /// A decaying sum of gradients; the learning rate comes after it (PyTorch).
    #[default]
    Accumulate,
    /// A decaying sum of steps; the learning rate is in it (Keras, TensorFlow).
    Velocity,
    /// A weighted mean of gradients.
    Average,
}

/// Nesterov's momentum. JSON: `"off"`, `"simplified"`, `"look_ahead"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nesterov {
    /// Classic momentum.
    #[default]
    Off,
    /// The gradient is taken where the parameter stands, and the buffer's next move is added (Bengio et al. 2012).
    Simplified,
    /// In two phases: the caller asks for a look-ahead before it computes the gradient (Nesterov 1983).
    LookAhead,
}

impl Nesterov {
    /// The shader's number.
    pub(crate) fn number(self) -> f64 {
        f64::from(self as u8)
    }

    /// Refuses what would be silently without effect.
    pub(crate) fn check(self, momentum: f64, form: MomentumForm) -> Result<()> {
        if momentum == 0.0 && self != Self::Off {
            return refuse("momentum", 0, "above 0 with nesterov set");
        }
        if momentum == 0.0 && form != MomentumForm::default() {
            return refuse("momentum", 0, "above 0 with form set");
        }
        if self == Self::LookAhead && form != MomentumForm::Velocity {
            return refuse("nesterov", "look_ahead", "off or simplified unless form is velocity");
        }
        Ok(())
    }
}
