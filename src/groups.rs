//! Groups at work: which tensors each takes, which of them are frozen, and the rule with the options of this moment.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result, refuse};
use crate::lines::Lines;
use crate::rule::{AnyRule, Extent, Move, Slot, WeightDecay};
use crate::schedule::Scheduler;
use crate::storage::Storage;
use crate::tensor::TensorSpec;
use crate::wrapper::AnyWrapper;
use crate::wrappers::{ParamRounding, StateFormat, Wrappers, keeps_f32, place};

mod on_device;
mod options;
mod records;
mod saved;

pub use records::{Record, Records};
pub(crate) use saved::{Bits, Given, SavedGroups, SavedRecords};

/// A group at work: its rule with the options of this moment.
#[derive(Clone, Debug)]
pub struct ActiveGroup {
    rule: Box<dyn AnyRule>,
    /// The rule's form for matrices, where it has one.
    for_matrices: Option<Box<dyn AnyRule>>,
    /// The same where each matrix is a single element.
    for_pointwise: Option<Box<dyn AnyRule>>,
    maximize: bool,
    lr_initial: f64,
    /// Names and patterns of its tensors; none for the top level.
    pub(crate) patterns: Vec<String>,
    /// Fields that the top level does not decide.
    own: Map<String, Value>,
    /// The ratio of its learning rate to the top level's; 1 where the rate is the top level's.
    ratio: f64,
    /// The formats of its state, where they are its own.
    pub(crate) state: GroupState,
    /// Its own schedules, by the option that each scales. For all other options the group follows the top level's.
    pub(crate) schedulers: Vec<(String, Scheduler)>,
}

impl ActiveGroup {
    /// Makes the top level, or a group below it with the fields that are the group's own.
    ///
    /// # Errors
    /// [`Error::Field`] for an independent decay without a rate, and for a field of a group that is the whole model's.
    pub fn new(rule: Box<dyn AnyRule>, maximize: bool, own: Map<String, Value>, top: Option<&Self>) -> Result<Self> {
        own.iter().try_for_each(|(field, value)| rule.check_of_group(field, value))?;
        let (lr_initial, ratio) = match top {
            Some(top) if own.contains_key("lr") => (rule.lr(), rule.lr() / top.rule.lr()),
            Some(top) => (top.lr_initial, 1.0),
            None => (rule.lr(), 1.0),
        };
        if matches!(rule.weight_decay(), WeightDecay::Independent(_)) && lr_initial == 0.0 {
            return refuse("lr", 0, "above 0 with weight_decay independent");
        }
        let (for_matrices, for_pointwise) = (rule.for_matrices(), rule.for_pointwise());
        let (patterns, schedulers) = (Vec::new(), Vec::new());
        let state = GroupState::default();
        Ok(Self { rule, for_matrices, for_pointwise, maximize, lr_initial, patterns, own, ratio, state, schedulers })
    }

    fn set_rule(&mut self, rule: Box<dyn AnyRule>) {
        (self.for_matrices, self.for_pointwise) = (rule.for_matrices(), rule.for_pointwise());
        self.rule = rule;
    }

    /// The group's rule, without the factors of schedules.
    pub fn rule(&self) -> &dyn AnyRule {
        &*self.rule
    }

    /// Whether the group ascends, that is, maximizes.
    pub fn maximizes(&self) -> bool {
        self.maximize
    }

    /// The group's rule for a tensor, of which these are the lines.
    fn rule_for(&self, lines: Option<Lines>) -> &(dyn AnyRule + 'static) {
        let for_pointwise = lines.filter(Lines::is_pointwise).and(self.for_pointwise.as_ref());
        &**for_pointwise.or(lines.and(self.for_matrices.as_ref())).unwrap_or(&self.rule)
    }

    /// Whether an option follows the top level's, perhaps times a ratio. A rate of the group's own does not follow a
    /// rate of 0, since there is no ratio to it.
    fn follows(&self, option: &str) -> bool {
        if option == "lr" { self.ratio.is_finite() } else { !self.own.contains_key(option) }
    }

    /// Whether one of the group's names and patterns matches the tensor.
    fn matches(&self, tensor: &TensorSpec) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, &tensor.name))
    }

    /// The group's own schedule of an option.
    pub fn scheduler(&self, option: &str) -> Option<&Scheduler> {
        self.schedulers.iter().find(|(name, _)| name == option).map(|(_, scheduler)| scheduler)
    }
}

/// Tensors of fewer elements keep their state in f32, where no other number is given.
const MIN_ELEMENTS: u64 = 4096;

/// What a group says of how its numbers are stored; what it leaves out is the top level's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupState {
    pub(crate) format: Option<StateFormat>,
    pub(crate) min_elements: Option<u64>,
    pub(crate) rounding: Option<ParamRounding>,
    pub(crate) seed: Option<u64>,
}

/// The groups of a list of tensors: the top level first, then as configured.
#[derive(Clone, Debug)]
pub struct Groups {
    list: Vec<ActiveGroup>,
    /// The place of the second rule, which takes what the top level's does not.
    others: Option<usize>,
    /// Each tensor's group.
    of: Vec<usize>,
    lines: Vec<Option<Lines>>,
    /// Whether each tensor is treated as one without a gradient.
    frozen: Vec<bool>,
    /// The wrappers around any rule; behind them the same around tensors of each kind of format.
    wrappers: Vec<Wrappers>,
    /// Which of them are around each tensor.
    around: Vec<usize>,
}

impl Groups {
    /// Makes groups that have no tensors yet, the top level first.
    pub(crate) fn new(list: Vec<ActiveGroup>, others: Option<usize>, wrappers: Wrappers) -> Self {
        let (of, lines, frozen, around) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let is_coded = list.iter().any(|group| group.state.format.as_ref().is_some_and(|format| !format.is_f32()));
        let rounds = list.iter().any(|group| group.state.rounding.unwrap_or_default() != ParamRounding::Nearest);
        let wrappers = wrappers.with_default::<StateFormat>(is_coded).with_default::<ParamRounding>(rounds);
        Self { list, others, of, lines, frozen, wrappers: vec![wrappers], around }
    }

    /// What a group's tensors have as formats of the state where they are large enough.
    fn format_of(&self, group: usize) -> Option<&StateFormat> {
        self.list[group].state.format.as_ref().or(self.wrappers().get())
    }

    /// The seed of a group's random numbers.
    pub(crate) fn seed_of(&self, group: usize) -> u64 {
        self.list[group].state.seed.unwrap_or(self.wrappers().seed)
    }

    /// The formats of the state of a tensor of this group.
    fn state_of(&self, group: usize, tensor: &TensorSpec) -> StateFormat {
        let least = self.list[group].state.min_elements.or(self.wrappers().min_elements).unwrap_or(MIN_ELEMENTS);
        match self.format_of(group) {
            Some(format) if tensor.len_elements() >= least => format.clone(),
            _ => StateFormat::default(),
        }
    }

    /// How the parameters of a group's tensors are rounded where they are of 16 bits.
    fn rounding_of(&self, group: usize) -> ParamRounding {
        self.list[group].state.rounding.or(self.wrappers().get().copied()).unwrap_or_default()
    }

    /// The wrappers around a tensor of this group.
    fn wrappers_around(&self, group: usize, tensor: &TensorSpec) -> Wrappers {
        let wrappers = self.wrappers().of_format(tensor.dtype).of_state(self.state_of(group, tensor));
        wrappers.of_rounding(self.rounding_of(group))
    }

    /// Puts wrappers around the tensors from the first one on that has none.
    fn wrap(&mut self, tensors: &[TensorSpec]) {
        for (i, tensor) in tensors.iter().enumerate().skip(self.around.len()) {
            let around = self.wrappers_around(self.of[i], tensor);
            let place = self.wrappers.iter().position(|known| known.same_formats(&around)).unwrap_or_else(|| {
                self.wrappers.push(around);
                self.wrappers.len() - 1
            });
            self.around.push(place);
        }
    }

    /// Adds a group that has no tensors yet, behind the others.
    pub(crate) fn push(&mut self, group: ActiveGroup) {
        self.list.push(group);
    }

    /// The top level.
    pub(crate) fn top(&self) -> &ActiveGroup {
        &self.list[0]
    }

    /// The second rule, where there is one.
    pub(crate) fn others(&self) -> Option<&ActiveGroup> {
        self.others.map(|group| &self.list[group])
    }

    /// Gives each new tensor the one group with a name or pattern that matches it, or else the top level. `tensors` are
    /// all, the new ones behind those there were.
    ///
    /// # Errors
    /// [`Error::TensorTwice`]; [`Error::Group`] for a tensor that two groups match; [`Error::Shape`] for one without
    /// the rows and columns that its rule needs. Nothing has changed then.
    pub(crate) fn add(&mut self, tensors: &[TensorSpec]) -> Result<()> {
        TensorSpec::check_names(tensors)?;
        let (mut all_of, mut all_lines) = (self.of.clone(), self.lines.clone());
        for tensor in &tensors[self.of.len()..] {
            let mut takers = (1..self.list.len()).filter(|&group| self.list[group].matches(tensor));
            let is_vector = tensor.shape.len() < 2;
            let left = self.others.filter(|_| is_vector && self.list[0].rule.has_products()).unwrap_or(0);
            let (group, lines) = (takers.next().unwrap_or(left), Lines::of(tensor));
            if let Some(other) = takers.next() {
                let message = format!("tensor {} is in groups[{}] already", tensor.name, group - 1);
                return Err(Error::Group { group: other - 1, message });
            }
            let rule = self.list[group].rule_for(lines);
            if is_vector && rule.has_products() || rule.has_lines() && !rule.has_products() && lines.is_none() {
                let (what, name) = ("shape".into(), tensor.name.clone());
                let (found, expected) = (format!("{:?}", tensor.shape), "rows and columns, for this rule".into());
                return Err(Error::Shape { what, tensor: name, found, expected });
            }
            let rounding = self.wrappers_around(group, tensor).rounding();
            rounding.check_tensor(tensor)?;
            // Walks over lines see the copy in memory.
            if rule.has_lines() && matches!(rule.weight_decay(), WeightDecay::L2(_)) && rounding.keeps() {
                let field = format!("weight_decay of tensor {}", tensor.name);
                let bound = "another kind where a {} is kept and the rule has rows and columns";
                return refuse(field, "l2", bound.replace("{}", rounding.name()));
            }
            all_of.push(group);
            all_lines.push(rule.lines_of(tensor));
        }
        (self.of, self.lines) = (all_of, all_lines);
        self.frozen.resize(tensors.len(), false);
        self.wrap(tensors);
        Ok(())
    }

    /// Refuses names and patterns of the groups from this one on, the top level being 0, that match no tensor.
    pub(crate) fn check_patterns(&self, from: usize, tensors: &[TensorSpec]) -> Result<()> {
        let new = if self.of.is_empty() { "" } else { "new " };
        for (group, ActiveGroup { patterns, .. }) in self.list.iter().enumerate().skip(from) {
            let refuse = |message| Err(Error::Group { group: group - 1, message });
            let matched = |pattern: &&String| tensors.iter().any(|tensor| matches(pattern, &tensor.name));
            if let Some(pattern) = patterns.iter().find(|pattern| !matched(pattern)) {
                return refuse(format!("pattern {pattern} matches none of the {} {new}tensors", tensors.len()));
            }
            if patterns.is_empty() && self.others != Some(group) {
                return refuse("tensors is empty, must hold at least one name".into());
            }
        }
        Ok(())
    }

    /// Refuses formats of the state that no rule can use, each with the group that asks for it.
    ///
    /// # Errors
    /// [`Error::Field`], naming slot, format and rule.
    pub(crate) fn check_formats(&self) -> Result<()> {
        let draws = |group: usize| {
            self.rounding_of(group) == ParamRounding::Stochastic
                || self.format_of(group).is_some_and(|format| !format.is_f32())
        };
        let unused = "left out unless param_rounding is stochastic or state_format is not f32";
        if self.wrappers().seed != 0 && !(0..self.len()).any(draws) {
            return refuse("seed", self.wrappers().seed, unused);
        }
        let top = self.wrappers().get::<StateFormat>().filter(|format| !format.is_f32());
        let of_top = self.list.iter().filter(|group| group.state.format.is_none()).collect();
        let own =
            self.list.iter().enumerate().filter_map(|(i, group)| Some((i, group.state.format.as_ref()?, vec![group])));
        for (i, format, groups) in top.map(|format| (0, format, of_top)).into_iter().chain(own) {
            check_format(format, &groups).map_err(|error| self.in_group(i, error))?;
        }
        for (i, group) in self.list.iter().enumerate() {
            if let (Some(format), None) = (&group.state.format, self.wrappers().get::<StateFormat>()) {
                if !format.is_f32() {
                    let bound = "f32 where the optimizer was made without another format";
                    return refuse("state_format", format.text(), bound).map_err(|error| self.in_group(i, error));
                }
            }
            if let Some(seed) = group.state.seed.filter(|_| !draws(i)) {
                return refuse("seed", seed, unused).map_err(|error| self.in_group(i, error));
            }
            let rounding = self.rounding_of(i);
            if rounding != ParamRounding::Nearest && self.wrappers().get::<ParamRounding>().is_none() {
                let bound = "nearest where no tensor of the optimizer was rounded otherwise before";
                return refuse("param_rounding", rounding.name(), bound).map_err(|error| self.in_group(i, error));
            }
        }
        Ok(())
    }

    /// Refuses roundings of which no tensor of their group has use.
    ///
    /// # Errors
    /// [`Error::Field`].
    pub(crate) fn check_roundings(&self, from: usize, tensors: &[TensorSpec]) -> Result<()> {
        let own = (from..self.len()).filter(|&i| i == 0 || self.list[i].state.rounding.is_some());
        for group in own {
            let is_of = |i: usize| self.of[i] == group || group == 0 && self.list[self.of[i]].state.rounding.is_none();
            let own: Vec<_> = (0..tensors.len()).filter(|&i| is_of(i)).map(|i| &tensors[i]).collect();
            self.rounding_of(group).check_tensors(&own).map_err(|error| self.in_group(group, error))?;
        }
        Ok(())
    }

    /// Refuses schedules that lead out of bounds in the optimizer's step `step`.
    pub(crate) fn check_schedules(&self, step: u64) -> Result<()> {
        self.all_scheduled(step).map(|_| ())
    }

    /// Each tensor's group.
    pub fn of(&self) -> &[usize] {
        &self.of
    }

    /// How many groups there are, the top level included.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns false: the top level is always there.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Freezes the tensors that a name or `*` pattern matches, or unfreezes them.
    ///
    /// # Errors
    /// [`Error::Pattern`] where it matches none.
    pub fn freeze(&mut self, tensors: &[TensorSpec], pattern: &str, frozen: bool) -> Result<()> {
        let matching = tensors.iter().zip(&mut self.frozen).filter(|(tensor, _)| matches(pattern, &tensor.name));
        let count = matching.map(|(_, place)| *place = frozen).count();
        if count > 0 {
            return Ok(());
        }
        Err(Error::Pattern { pattern: pattern.into(), tensors: tensors.len() })
    }

    /// Whether a tensor is frozen.
    pub fn is_frozen(&self, tensor: usize) -> bool {
        self.frozen[tensor]
    }

    /// Returns which of the tensors given take part: all that are not frozen. `None` stands for all tensors.
    pub fn present(&self, given: Option<Vec<bool>>) -> Option<Vec<bool>> {
        if !self.frozen.contains(&true) {
            return given;
        }
        let mut present = given.unwrap_or_else(|| vec![true; self.frozen.len()]);
        present.iter_mut().zip(&self.frozen).for_each(|(present, frozen)| *present &= !frozen);
        Some(present)
    }

    /// What is wrapped around every rule.
    pub fn wrappers(&self) -> &Wrappers {
        &self.wrappers[0]
    }

    /// What is wrapped around a tensor's rule, which knows the tensor's formats.
    pub fn wrappers_of(&self, tensor: usize) -> &Wrappers {
        &self.wrappers[self.around[tensor]]
    }

    /// Which tensors have the same formats: those with the same number.
    #[cfg(feature = "gpu")]
    pub(crate) fn formats_of(&self, tensor: usize) -> usize {
        self.around[tensor]
    }

    /// The wrapper that keeps what a tensor's parameters in memory lack, and where its slot stands among those behind
    /// the fields of the rule's struct.
    pub(crate) fn keeper(&self, tensor: usize) -> Option<(&dyn AnyWrapper, usize)> {
        let rule = self.rule_of(tensor);
        let keeper = self.wrappers_of(tensor).keeper(rule)?;
        Some((keeper, rule.names().state.len() + place(keeper.name())))
    }

    /// A group's rule.
    pub fn rule(&self, group: usize) -> &(dyn AnyRule + 'static) {
        &*self.list[group].rule
    }

    /// A tensor's rule.
    pub fn rule_of(&self, tensor: usize) -> &(dyn AnyRule + 'static) {
        self.list[self.of[tensor]].rule_for(self.lines[tensor])
    }

    /// A tensor's rows and columns as its rule sees them, where it has them.
    pub fn lines_of(&self, tensor: usize) -> Option<Lines> {
        self.lines[tensor]
    }

    /// A tensor's state: the slots of its rule, then those of the wrappers.
    pub fn slots_of(&self, tensor: usize) -> Vec<Slot> {
        let rule = self.rule_of(tensor);
        let own = rule.slots().into_iter().filter(|slot| slot.extent.is_kept());
        own.chain(self.wrappers_of(tensor).slots(rule)).collect()
    }

    /// A tensor's slot, and its place: first come the fields of the rule's struct, then the slots of the wrappers;
    /// the products of a history come behind the numbers of the model.
    ///
    /// # Errors
    /// [`Error::UnknownSlot`]. `tensor_name` is for its text.
    pub fn find_slot(&self, tensor: usize, tensor_name: &str, name: &str) -> Result<(Slot, usize)> {
        let slots = self.slots_of(tensor);
        let Some(slot) = slots.iter().find(|slot| slot.name == name) else {
            let names = slots.iter().map(|slot| slot.name).collect::<Vec<_>>().join(", ");
            let known = if names.is_empty() { "none".into() } else { names };
            return Err(Error::UnknownSlot { tensor: tensor_name.into(), slot: name.into(), known });
        };
        let names = self.rule_of(tensor).names();
        let is_number = matches!(slot.extent, Extent::Tensor | Extent::Model);
        if let Extent::Products(_) = slot.extent {
            return Ok((*slot, self.rule_of(tensor).names().tensor.len()));
        }
        let fields = if is_number { names.tensor } else { names.state };
        let behind =
            || self.wrappers_of(tensor).place_of_slot(self.rule_of(tensor), name).map(|place| fields.len() + place);
        let place = fields.iter().position(|field| *field == name).or_else(behind);
        Ok((*slot, place.expect("a slot is a field of the rule's struct, or a wrapper's")))
    }

    /// Whether the group ascends.
    pub fn maximizes(&self, group: usize) -> bool {
        self.list[group].maximize
    }

    /// Whether the rule of any tensor makes this move.
    pub fn have_move(&self, to: Move) -> bool {
        (0..self.len()).any(|group| self.rule(group).moves().contains(&to) && self.of.contains(&group))
    }

    /// The error with the path of a group, counted with the top level.
    fn in_group(&self, group: usize, error: Error) -> Error {
        match group.checked_sub(1) {
            Some(group) => in_group(group, error),
            None => error,
        }
    }
}

/// Refuses a format of the state that the rules of these groups cannot use.
fn check_format(format: &StateFormat, groups: &[&ActiveGroup]) -> Result<()> {
    let rules = || groups.iter().flat_map(|group| [Some(&group.rule), group.for_matrices.as_ref()]).flatten();
    let names = || {
        let names = rules().map(|rule| rule.name()).collect::<std::collections::BTreeSet<_>>();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let slots = || rules().flat_map(|rule| rule.slots().into_iter().map(move |slot| (slot, keeps_f32(&**rule, &slot))));
    match format {
        StateFormat::All(Storage::F32) => Ok(()),
        StateFormat::All(storage) if slots().all(|(_, reason)| reason.is_some()) => {
            refuse("state_format", storage, format!("f32 for {}, which has no slot for it here", names()))
        }
        StateFormat::All(_) => Ok(()),
        StateFormat::Slots(formats) => formats.iter().try_for_each(|(name, storage)| {
            let mut known = slots().filter(|(slot, _)| slot.name == name).peekable();
            let field = || format!("state_format.{name}");
            if known.peek().is_none() {
                let mut others =
                    slots().filter(|(_, reason)| reason.is_none()).map(|(slot, _)| slot.name).collect::<Vec<_>>();
                others.dedup();
                let others = if others.is_empty() { "none".into() } else { others.join(", ") };
                return refuse(
                    field(),
                    storage,
                    format!("left out for {}; slots that take formats: {others}", names()),
                );
            }
            match known.map(|(_, reason)| reason).min() {
                Some(Some(reason)) if *storage != Storage::F32 => {
                    refuse(field(), storage, format!("f32: the slot {reason}"))
                }
                _ => Ok(()),
            }
        }),
    }
}

/// The error with the path of its group.
pub(crate) fn in_group(group: usize, error: Error) -> Error {
    match error {
        Error::Config { path, message } => Error::Config { path: format!("groups[{group}].{path}"), message },
        Error::Field { field, value, bound } => {
            Error::Field { field: format!("groups[{group}].{field}"), value, bound }
        }
        other => other,
    }
}

/// Whether the name is the pattern with some text in place of each `*`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').collect::<Vec<_>>();
    let tail = parts.pop().unwrap_or("");
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("b1", "b1", true),
            ("b1", "b10", false),
            ("*", "", true),
            ("*.bias", "a.bias", true),
            ("*.bias", "a.bias2", false),
            ("h.*.w", "h.1.w", true),
            ("h.*.w", "h.w", false),
            ("a*a", "a", false),
            ("*b*b*", "abcb", true),
            ("*b*b*", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }
}
