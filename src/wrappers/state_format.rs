//! How the numbers of the state are stored. Twin: `shaders/wrappers/state_format.wgsl`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Result;
use crate::init::{key_of, key_parts, philox};
use crate::parts::Real;
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::numbers;
use crate::storage::Storage;
use crate::tensor::Stored;
use crate::wrapper::{Moment, Setting, Wrapper};

/// The format of the state's numbers of elements, at the top level or in a group: one for all slots of the rule, or one
/// for each of some, the others in f32. JSON: `"f32"`, the default, `"bf16"`, `"q8"`, `"q4"`, or `{"m": "q8"}`.
///
/// Steps compute in f32: the update sees the new numbers before they are rounded. In `q8` and `q4` a number has a code
/// of 8 or 4 bits, and 32 elements share a step in bf16, so AdamW's state takes 2.125 bytes an element in `q8` and
/// 1.125 in `q4`. Codes stand for squares, so small numbers beside large ones have small steps between them, and what
/// is never negative has one bit more, and is never 0 where it is positive.
///
/// Numbers are rounded by chance, the nearer neighbour the likelier, so that a mean whose steps are far below the
/// distance of two codes moves on average. Philox draws the bits from the seed
/// ([`Config::seed`](crate::Config::seed)), the tensor's name, slot, element and `t`: they are the same on every device
/// and on the reference, and a skipped step does not advance them. What
/// [`set_state`](crate::Optimizer::set_state) sets is rounded to the nearest.
///
/// Tensors of less than [`Config::min_elements`](crate::Config::min_elements) elements keep f32, and so do slots that
/// hold parameters, numbers of rows, columns, tensors or the model, histories, and the slots of wrappers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StateFormat {
    /// The same for all slots of the rule.
    All(Storage),
    /// By the slot's name.
    Slots(BTreeMap<String, Storage>),
}

impl Default for StateFormat {
    fn default() -> Self {
        Self::All(Storage::F32)
    }
}

impl StateFormat {
    /// The format of a slot of this name.
    pub fn of(&self, slot: &str) -> Storage {
        match self {
            Self::All(storage) => *storage,
            Self::Slots(slots) => slots.get(slot).copied().unwrap_or_default(),
        }
    }

    /// The format, or the formats with their slots.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::All(storage) => storage.to_string(),
            Self::Slots(slots) => {
                slots.iter().map(|(slot, storage)| format!("{slot}: {storage}")).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Whether every slot is in f32.
    pub fn is_f32(&self) -> bool {
        match self {
            Self::All(storage) => *storage == Storage::F32,
            Self::Slots(slots) => slots.values().all(|&storage| storage == Storage::F32),
        }
    }
}

impl<'de> Deserialize<'de> for StateFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OneOrSome;
        impl<'de> Visitor<'de> for OneOrSome {
            type Value = StateFormat;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a format, or an object with a format for each of some slots")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<StateFormat, E> {
                Storage::deserialize(serde::de::value::StrDeserializer::new(name)).map(StateFormat::All)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<StateFormat, A::Error> {
                BTreeMap::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(StateFormat::Slots)
            }
        }
        deserializer.deserialize_any(OneOrSome)
    }
}

numbers! {
    /// The key of the step in three parts, of 22, 22 and 20 bits, which f32 holds.
    Numbers { low, middle, high }
}

impl Wrapper for StateFormat {
    const NAME: &'static str = "state_format";
    const SUMMARY: &'static str = "stores the state in bf16, or in 8 or 4 bits by groups";
    const SHADER: &'static str = include_str!("../../shaders/wrappers/state_format.wgsl");

    type Numbers<F: Real> = Numbers<F>;

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn takes_part(&self, setting: Setting) -> bool {
        setting.coded
    }

    fn off() -> Option<Self> {
        Some(Self::default())
    }

    fn numbers(&self, moment: Moment) -> Numbers<f64> {
        let [low, middle, high] = key_parts(moment.t, moment.seed);
        Numbers { low, middle, high }
    }

    fn chance<F: Real>(&self, n: &Numbers<F>, stored: Stored, pair: usize, quad: usize) -> Option<[u32; 4]> {
        let key = key_of([n.low, n.middle, n.high].map(Real::f64));
        Some(philox([[quad as u32, 0], [stored.stream, 1 + pair as u32]], key))
    }

    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        Storage::ALL[1..].iter().map(|&storage| (storage.name(), Self::All(storage))).collect()
    }

    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        vec![Reject {
            json: r#""q9""#,
            error: "state_format: unknown variant `q9`, expected one of `f32`, `bf16`, `q8`, `q4`",
        }]
    }
}
