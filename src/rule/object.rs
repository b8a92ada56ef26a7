//! A rule as an object: the same contract as [`Rule`] without its types. Only what follows from `Rule` may live here.

use std::any::Any;
use std::fmt::Debug;

use serde_json::{Map, Value};

use super::{
    Carried, Extent, Fields, Kernels, Move, Numbers, Pass, Product, Renewal, Rule, Sides, Slot, Stopping, Sums,
};
use crate::decay::WeightDecay;
use crate::error::{Error, Result, at_least_zero, refuse};
use crate::history;
use crate::lines::Lines;
use crate::read::Misread;
use crate::tensor::TensorSpec;
use crate::words::{INNER_WORDS, SUM_WORDS};

/// A rule as an object: what the registry, the config, the reference and the engine know of it.
pub trait AnyRule: Any + Kernels + Fields + Debug + Send + Sync {
    /// [`Rule::NAME`].
    fn name(&self) -> &'static str;
    /// [`Rule::SHADER`].
    fn shader(&self) -> &'static str;
    /// [`Rule::TAKES_SIGNS`].
    fn takes_signs(&self) -> bool;
    /// [`Rule::ELEMENTWISE`], and no number of the tensor goes into it.
    fn elementwise(&self) -> bool;
    /// [`Rule::RESTS`].
    fn rests(&self) -> bool;
    /// [`Rule::MASKABLE`].
    fn is_maskable(&self) -> bool;
    /// Names of `Hyper`, `State` and `Tensor`.
    fn names(&self) -> Names;
    /// [`Rule::check`], and the decay's own bounds.
    ///
    /// # Errors
    /// [`Error::Field`], naming field, value and bound.
    fn check(&self) -> Result<()>;
    /// [`Rule::OPTIONS`].
    fn options(&self) -> &'static [&'static str];
    /// [`Rule::lr`].
    fn lr(&self) -> f64;
    /// [`Rule::weight_decay`].
    fn weight_decay(&self) -> WeightDecay;
    /// [`Rule::MODEL_FIELDS`].
    fn model_fields(&self) -> &'static [&'static str];
    /// [`Rule::option`].
    fn option(&mut self, name: &str) -> Option<&mut f64>;
    /// [`Rule::constants`].
    fn constants(&self) -> Vec<(&'static str, f64)>;
    /// [`Rule::slots`].
    fn slots(&self) -> Vec<Slot>;
    /// [`Rule::passes`].
    fn passes(&self) -> Vec<Pass>;
    /// [`Rule::for_matrices`].
    fn for_matrices(&self) -> Option<Box<dyn AnyRule>>;
    /// [`Rule::for_pointwise`].
    fn for_pointwise(&self) -> Option<Box<dyn AnyRule>>;
    /// [`Rule::moves`].
    fn moves(&self) -> &'static [Move];
    /// [`Rule::line_search`].
    fn line_search(&self) -> Option<Stopping>;
    /// [`Rule::hyper`] appended to `numbers`.
    fn hyper(&self, t: u64, carried: &mut Carried, numbers: &mut Vec<f64>);
    /// What [`Rule::renewal`] means for the numbers that [`hyper`](Self::hyper) gives.
    fn renewal(&self, hyper: &[f64]) -> Option<Renewal>;
    /// [`Rule::carried`].
    fn carried(&self, t: u64) -> Carried;
    /// Changes the composed text of a shader. Tests break shaders with it, to see that parity notices.
    #[cfg(feature = "proof")]
    #[doc(hidden)]
    fn revise(&self, text: String) -> String {
        text
    }
    /// A copy.
    fn boxed(&self) -> Box<dyn AnyRule>;
}

/// The field names of a rule's structs of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of `Hyper`.
    pub hyper: &'static [&'static str],
    /// Of `State`.
    pub state: &'static [&'static str],
    /// Of `Tensor`; empty for none.
    pub tensor: &'static [&'static str],
}

impl<R: Rule> AnyRule for R {
    fn name(&self) -> &'static str {
        R::NAME
    }
    fn shader(&self) -> &'static str {
        R::SHADER
    }
    fn takes_signs(&self) -> bool {
        R::TAKES_SIGNS
    }
    fn elementwise(&self) -> bool {
        let finishes = |pass: &Pass| matches!(pass, Pass::Finish | Pass::FinishModel | Pass::Recursion);
        R::ELEMENTWISE && !Rule::passes(self).iter().any(finishes)
    }
    fn rests(&self) -> bool {
        R::RESTS
    }
    fn is_maskable(&self) -> bool {
        R::MASKABLE
    }
    fn names(&self) -> Names {
        Names {
            hyper: <R::Hyper<f64> as Numbers<f64>>::NAMES,
            state: <R::State<f64> as Numbers<f64>>::NAMES,
            tensor: <R::Tensor<f64> as Numbers<f64>>::NAMES,
        }
    }
    fn check(&self) -> Result<()> {
        check_decay(Rule::weight_decay(self), R::DECAYS, R::NAME)?;
        at_least_zero("lr", Rule::lr(self))?;
        Rule::check(self)
    }
    fn options(&self) -> &'static [&'static str] {
        R::OPTIONS
    }
    fn lr(&self) -> f64 {
        Rule::lr(self)
    }
    fn weight_decay(&self) -> WeightDecay {
        Rule::weight_decay(self)
    }
    fn model_fields(&self) -> &'static [&'static str] {
        R::MODEL_FIELDS
    }
    fn option(&mut self, name: &str) -> Option<&mut f64> {
        Rule::option(self, name)
    }
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Rule::constants(self)
    }
    fn slots(&self) -> Vec<Slot> {
        Rule::slots(self)
    }
    fn passes(&self) -> Vec<Pass> {
        Rule::passes(self)
    }
    fn for_matrices(&self) -> Option<Box<dyn AnyRule>> {
        Rule::for_matrices(self)
    }
    fn for_pointwise(&self) -> Option<Box<dyn AnyRule>> {
        Rule::for_pointwise(self)
    }
    fn moves(&self) -> &'static [Move] {
        Rule::moves(self)
    }
    fn line_search(&self) -> Option<Stopping> {
        Rule::line_search(self)
    }
    fn hyper(&self, t: u64, carried: &mut Carried, numbers: &mut Vec<f64>) {
        let start = numbers.len();
        numbers.resize(start + <R::Hyper<f64> as Numbers<f64>>::NAMES.len(), 0.0);
        Rule::hyper(self, t, carried).write(&mut numbers[start..]);
    }
    fn renewal(&self, hyper: &[f64]) -> Option<Renewal> {
        Renewal::of(Rule::renewal(self, &<R::Hyper<f64> as Numbers<f64>>::read(hyper)))
    }
    fn carried(&self, t: u64) -> Carried {
        Rule::carried(self, t)
    }
    fn boxed(&self) -> Box<dyn AnyRule> {
        Box::new(self.clone())
    }
}

/// Refuses a kind of decay that is none of those that the rule takes, and an amount outside its bounds.
fn check_decay(decay: WeightDecay, kinds: &[&str], rule: &str) -> Result<()> {
    if !kinds.contains(&decay.kind()) {
        return refuse("weight_decay", decay, format!("one of {} for {rule}", kinds.join(", ")));
    }
    at_least_zero(&format!("weight_decay.{}", decay.kind()), decay.amount())
}

impl dyn AnyRule {
    /// The options in JSON, all of them.
    pub fn to_json(&self) -> Map<String, Value> {
        let fields: &mut dyn Fields = &mut *self.boxed();
        fields.values()
    }

    /// The same rule with these fields in place of its own.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown field or a wrong type, [`Error::Field`] for a bad value.
    pub fn with(&self, values: &Map<String, Value>) -> Result<Box<dyn AnyRule>> {
        if let Some(decay) = values.get("weight_decay") {
            // serde's text would be "expected string or map".
            if decay != "none" && decay.as_object().is_none_or(|kinds| kinds.len() != 1) {
                return refuse("weight_decay", decay, r#""none" or an object of one field, as {"l2": 0.01}"#);
            }
        }
        let mut rule = self.boxed();
        let fields: &mut dyn Fields = &mut *rule;
        fields.set(values).map_err(Misread::into_error)?;
        rule.check()?;
        Ok(rule)
    }

    /// The forms that the rule has [for matrices](Rule::for_matrices) and [for single elements](Rule::for_pointwise) as
    /// matrices.
    pub fn forms(&self) -> impl Iterator<Item = Box<dyn AnyRule>> + use<> {
        [self.for_matrices(), self.for_pointwise()].into_iter().flatten()
    }

    /// Whether each step needs a look-ahead before its gradients are computed.
    pub fn needs_look_ahead(&self) -> bool {
        self.moves().contains(&Move::LookAhead)
    }

    /// The value of one of its options. An option whose value is none has no number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.boxed().option(name).copied()
    }

    /// Refuses a name that is none of its [`options`](AnyRule::options), with the text that says so.
    pub(crate) fn check_option(&self, name: &str) -> std::result::Result<(), String> {
        let (options, rule) = (self.options(), self.name());
        let known = || format!("is not an option that may change; those of {rule} are {}", options.join(", "));
        if options.contains(&name) { Ok(()) } else { Err(known()) }
    }

    /// The same rule with other numbers for some of its [`options`](AnyRule::options); `weight_decay` keeps its kind.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is no such option, [`Error::Field`] for a value outside its bound or one that
    /// would need another pipeline or other state.
    pub fn with_options(&self, options: &[(&str, f64)]) -> Result<Box<dyn AnyRule>> {
        let mut rule = self.boxed();
        for &(name, value) in options {
            if !value.is_finite() {
                return refuse(name, value, "finite");
            }
            self.check_option(name).map_err(|message| Error::Config { path: name.into(), message })?;
            match rule.option(name) {
                Some(option) => *option = value,
                None => return refuse(name, value, "left alone where it is none"),
            }
        }
        rule.check()?;
        if rule.constants() != self.constants() || rule.slots() != self.slots() {
            let (names, values): (Vec<_>, Vec<_>) =
                options.iter().map(|(name, value)| (*name, value.to_string())).unzip();
            let bound = "a value that needs no other pipeline or state than at creation";
            return refuse(names.join(", "), values.join(", "), bound);
        }
        Ok(rule)
    }

    /// Whether the rule keeps numbers of rows or columns.
    pub fn has_lines(&self) -> bool {
        self.slots().iter().any(|slot| slot.extent.is_line())
    }

    /// The products of a step.
    pub fn products(&self) -> impl Iterator<Item = Product> {
        self.passes().into_iter().filter_map(|pass| match pass {
            Pass::Product(product) => Some(product),
            _ => None,
        })
    }

    /// Whether the rule takes products of matrices, and no tensor below rank 2.
    pub fn has_products(&self) -> bool {
        self.products().next().is_some()
    }

    /// Which dimensions of a tensor are sides, where the rule turns tensors into bases.
    pub fn sides(&self) -> Option<Sides> {
        self.slots().iter().find_map(|slot| match slot.extent {
            Extent::Sides(sides) => Some(sides),
            _ => None,
        })
    }

    /// Whether a step of the rule needs a work buffer.
    pub fn has_work(&self) -> bool {
        self.has_products() || self.sides().is_some()
    }

    /// Whether the rule sums over the whole model.
    pub fn sums_over_model(&self) -> bool {
        self.passes().iter().any(|pass| matches!(pass, Pass::FinishModel | Pass::Recursion))
    }

    /// The pairs that the rule's history has at most, where the rule has one.
    pub fn history(&self) -> Option<usize> {
        self.slots().iter().find_map(|slot| match slot.extent {
            Extent::History(pairs) => Some(pairs),
            _ => None,
        })
    }

    /// Words of a partial result of the rule's sums, 0 without sums.
    pub fn sum_words(&self) -> u64 {
        let words = |pairs| history::rows(pairs) * INNER_WORDS;
        self.history().map(words).or(self.sums().next().map(|_| SUM_WORDS)).unwrap_or(0)
    }

    /// Refuses a field that is the whole model's where a group sets it.
    pub(crate) fn check_of_group(&self, field: &str, value: impl ToString) -> Result<()> {
        match self.model_fields().contains(&field) {
            true => refuse(field, value, format!("left to the top level: {} has one for all groups", self.name())),
            false => Ok(()),
        }
    }

    /// Whether the rule keeps numbers of columns.
    pub fn has_columns(&self) -> bool {
        self.slots().iter().any(|slot| slot.extent == Extent::Column)
    }

    /// The matrices that the rule sees in a tensor. A tensor below rank 2, or one without elements, has none.
    pub fn lines_of(&self, tensor: &TensorSpec) -> Option<Lines> {
        match self.slots().iter().any(|slot| matches!(slot.extent, Extent::Leading | Extent::Product)) {
            true => Lines::leading(tensor),
            false => Lines::of(tensor),
        }
    }

    /// The passes of sums.
    pub fn sums(&self) -> impl Iterator<Item = Sums> {
        self.passes().into_iter().filter_map(|pass| match pass {
            Pass::Sums(sums) => Some(sums),
            _ => None,
        })
    }

    /// Whether a pass before the update stores the state.
    pub fn stores_early(&self) -> bool {
        self.sums().any(|sums| sums.stores) || self.passes().contains(&Pass::Recall)
    }
}

impl Clone for Box<dyn AnyRule> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}
