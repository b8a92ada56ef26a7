//! What the registry holds of a rule.

use std::any::TypeId;
use std::fmt::{Debug, Formatter};

#[cfg(feature = "proof")]
use super::Reject;
use super::{AnyRule, Rule};

/// Rules with a name each.
pub type Named = Vec<(&'static str, Box<dyn AnyRule>)>;

/// An entry of the registry: what the crate knows of a rule before it has options.
#[derive(Clone, Copy)]
pub struct RuleEntry {
    /// [`Rule::NAME`].
    pub name: &'static str,
    /// [`Rule::SUMMARY`].
    pub summary: &'static str,
    /// [`Rule::types`]: shaders of these types alone run without wgpu's checks.
    pub types: fn() -> Vec<TypeId>,
    /// [`Rule::DECAYS`].
    pub decays: &'static [&'static str],
    /// The rule with its default options.
    pub default: fn() -> Box<dyn AnyRule>,
    /// [`Rule::presets`].
    pub presets: fn() -> Named,
    /// [`Rule::cases`].
    #[cfg(feature = "proof")]
    pub cases: fn() -> Named,
    /// [`Rule::rejects`].
    #[cfg(feature = "proof")]
    pub rejects: fn() -> Vec<Reject>,
}

impl RuleEntry {
    /// The entry of a rule.
    pub const fn of<R: Rule>() -> Self {
        fn boxed<R: Rule>(named: Vec<(&'static str, R)>) -> Named {
            named.into_iter().map(|(name, rule)| (name, Box::new(rule) as Box<dyn AnyRule>)).collect()
        }
        Self {
            name: R::NAME,
            summary: R::SUMMARY,
            types: R::types,
            decays: R::DECAYS,
            default: || Box::new(R::default()),
            presets: || boxed(R::presets()),
            #[cfg(feature = "proof")]
            cases: || boxed(R::cases()),
            #[cfg(feature = "proof")]
            rejects: R::rejects,
        }
    }
}

impl Debug for RuleEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleEntry").field("name", &self.name).finish_non_exhaustive()
    }
}
