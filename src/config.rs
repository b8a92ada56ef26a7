//! The configuration: a rule and the fields around it, as Rust values or JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result, refuse};
use crate::groups::{ActiveGroup, GroupState, Groups, in_group};
use crate::read::{self, Misread, read};
use crate::rule::{AnyRule, Rule};
use crate::rules;
use crate::schedule::{Schedule, Scheduler};
use crate::tensor::TensorSpec;
use crate::wrapper::{AnyWrapper, Wrapper};
use crate::wrappers::{self, ParamRounding, StateFormat, Wrappers};

/// The fields that are the same for all groups, beside those of wrappers.
const TOP: [&str; 2] = ["norms", "on_device"];

/// An optimizer's configuration: a rule with its options, and the fields around it.
///
/// Make one from a rule (`Config::from(AdamW::default())`) or from JSON. It serialises with serde, and holds every
/// option with its value then.
///
/// ```
/// use wgpu_optim::Config;
///
/// let config = Config::from_json(r#"{
///     "optimizer": "adamw", "lr": 0.001,
///     "groups": [{"tensors": ["*.bias"], "weight_decay": "none"}]
/// }"#)?;
/// assert_eq!(config.name(), "adamw");
///
/// let wrong = Config::from_json(r#"{"optimizer": "adam", "beta1": 1}"#);
/// assert_eq!(wrong.unwrap_err().to_string(), "beta1 is 1, must be at least 0 and below 1");
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    rule: Box<dyn AnyRule>,
    maximize: bool,
    wrappers: Wrappers,
    /// The schedules, by the option that each scales.
    schedules: Vec<(String, Schedule)>,
    groups: Vec<Group>,
    /// The rule of the tensors that the top level's does not take.
    others: Option<Box<Config>>,
}

/// Tensors that differ from the rest in some options. JSON: `{"tensors": ["*.bias"], "lr": 0.1, ...}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(expecting = "an object with tensors")]
pub struct Group {
    /// Names, or patterns in which `*` stands for any text. Each must match a tensor.
    pub tensors: Vec<String>,
    /// Options of the rule, `maximize`, `param_rounding`, `state_format`, `min_elements` and `seed`, and `schedule`
    /// and `schedules`; what is left out is taken from the top level. With `"others": true` the rule is the
    /// [second one](Config::others), and what is left out of its options is taken from there.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
    /// The schedules that stand beside those among the fields.
    #[serde(skip)]
    schedules: Vec<(String, Schedule)>,
}

impl Group {
    /// Makes a group of these names or patterns.
    pub fn new<S: Into<String>>(tensors: impl IntoIterator<Item = S>) -> Self {
        Self { tensors: tensors.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets an option of the group. A NaN or infinity becomes JSON's `null` and is refused with the rest.
    #[must_use]
    pub fn set(mut self, field: &str, value: impl Serialize) -> Self {
        self.fields.insert(field.into(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }

    /// Lets an option of the group follow a schedule of its own, perhaps a closure, in place of the top level's. `"lr"`
    /// is JSON's `schedule`, others stand in its `schedules`. Options that the group gives no schedule follow those of
    /// the top level. The same option's schedule among the `fields`, too, is refused with the rest.
    #[must_use]
    pub fn schedule(mut self, option: &str, schedule: Schedule) -> Self {
        self.schedules.retain(|(known, _)| known != option);
        self.schedules.push((option.into(), schedule));
        self
    }

    /// The group at work, with the top level's options where it has none of its own, or those of the second rule; `i`
    /// is its place in `groups`.
    fn active(&self, i: usize, top: &ActiveGroup, others: Option<&ActiveGroup>) -> Result<ActiveGroup> {
        let mut own = self.fields.clone();
        let within = |error| in_group(i, error);
        let state = GroupState {
            format: take(&mut own, StateFormat::NAME).map_err(within)?,
            min_elements: take(&mut own, "min_elements").map_err(within)?,
            rounding: take(&mut own, ParamRounding::NAME).map_err(within)?,
            seed: take(&mut own, "seed").map_err(within)?,
        };
        let top_fields = wrappers::ALL.iter().map(|entry| entry.name).chain(TOP);
        if let Some(field) = top_fields.into_iter().find(|field| own.contains_key(*field)) {
            let message = "belongs to the top level; it is the same for all groups";
            return Err(wrong(format!("groups[{i}].{field}"), message));
        }
        let mut schedules = take_schedules(&mut own).map_err(within)?;
        if let Some((option, _)) = schedules.iter().find(|(option, _)| self.schedules.iter().any(|(o, _)| o == option))
        {
            let message = "is among the group's fields and set beside them; leave one of them out";
            return Err(within(wrong(schedule_path(option), message)));
        }
        schedules.extend(self.schedules.iter().cloned());
        let maximize = take(&mut own, "maximize").map_err(within)?.unwrap_or(top.maximizes());
        let mut group = match (take(&mut own, "others").map_err(within)?.unwrap_or(false), others) {
            (false, _) => {
                let rule = top.rule().with(&own).map_err(within)?;
                ActiveGroup::new(rule, maximize, own, Some(top)).map_err(within)?
            }
            (true, Some(others)) => {
                own.iter().try_for_each(|(field, value)| others.rule().check_of_group(field, value)).map_err(within)?;
                others_at_work(others.rule().with(&own).map_err(within)?, maximize, top).map_err(within)?
            }
            (true, None) => {
                return refuse(format!("groups[{i}].others"), true, "left out where the top level has none");
            }
        };
        group.patterns = self.tensors.clone();
        group.state = state;
        group.schedulers = schedulers(&schedules, &format!("groups[{i}]."), std::slice::from_ref(&group))?;
        Ok(group)
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut fields = Map::from_iter([("tensors".into(), self.tensors.clone().into())]);
        fields.extend(self.fields.clone());
        put_schedules(&mut fields, &self.schedules).map_err(serde::ser::Error::custom)?;
        fields.serialize(serializer)
    }
}

/// Makes a group with another rule than the top level's: all of its options are its own, and its rate has a ratio to
/// the top level's.
fn others_at_work(rule: Box<dyn AnyRule>, maximize: bool, top: &ActiveGroup) -> Result<ActiveGroup> {
    let own = rule.to_json();
    ActiveGroup::new(rule, maximize, own, Some(top))
}

/// Names of presets that JSON goes on reading, and those that they have now.
const PRESETS_BEFORE: [(&str, &str); 1] = [("seeds", "course_notes")];

impl<R: Rule> From<R> for Config {
    fn from(rule: R) -> Self {
        (Box::new(rule) as Box<dyn AnyRule>).into()
    }
}

impl From<Box<dyn AnyRule>> for Config {
    fn from(rule: Box<dyn AnyRule>) -> Self {
        let (schedules, groups) = (Vec::new(), Vec::new());
        Self { rule, maximize: false, wrappers: Wrappers::default(), schedules, groups, others: None }
    }
}

impl Config {
    /// Reads JSON: `{"optimizer": NAME, "preset": NAME, "maximize": false, "clip": {..}, "accumulate": 1,
    /// "skip_nonfinite": false, "loss_scale": {..}, "norms": false, "lookahead": {..}, "ema": {..}, "on_device": [..],
    /// "param_rounding": "nearest", "state_format": "f32", "min_elements": 4096, "seed": 0,
    /// "schedule": {..}, "schedules": {OPTION: {..}}, "groups": [..], "others": {..}, ..options of the rule}`.
    ///
    /// # Errors
    /// [`Error::Config`] with the path of what is not JSON, unknown, repeated or of a wrong type; [`Error::Field`] for
    /// a value outside its bound.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_value(read::parse(text).map_err(|error| wrong("JSON", error))?)
    }

    /// Reads a parsed value.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_value(value: Value) -> Result<Self> {
        let mut fields = Map::deserialize(value).map_err(|error| wrong("JSON", error))?;
        let name: String = take(&mut fields, "optimizer")?.ok_or_else(|| wrong("optimizer", "is missing"))?;
        let names = || rules::ALL.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let entry = match rules::find(&name) {
            Some(entry) => entry,
            None => return refuse("optimizer", name, format!("one of {}", names())),
        };
        let start = match take::<String>(&mut fields, "preset")? {
            None => (entry.default)(),
            Some(preset) => {
                let presets = (entry.presets)();
                let known = presets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                let of_today =
                    PRESETS_BEFORE.iter().find(|(before, _)| *before == preset).map_or(&preset[..], |&(_, now)| now);
                match presets.into_iter().find(|(name, _)| *name == of_today) {
                    Some((_, rule)) => rule,
                    None if known.is_empty() => return refuse("preset", preset, format!("left out for {name}")),
                    None => return refuse("preset", preset, format!("one of {known} for {name}")),
                }
            }
        };
        let maximize = take(&mut fields, "maximize")?.unwrap_or(false);
        let groups = take(&mut fields, "groups")?.unwrap_or_default();
        let mut wrappers = Wrappers::default();
        for entry in wrappers::ALL {
            let Some(value) = fields.shift_remove(entry.name) else { continue };
            wrappers = wrappers.with((entry.read)(value).map_err(|error| wrong_at(entry.name, error))?);
        }
        wrappers.norms = take(&mut fields, "norms")?.unwrap_or(false);
        wrappers.on_device = take(&mut fields, "on_device")?.unwrap_or_default();
        wrappers.seed = take(&mut fields, "seed")?.unwrap_or_default();
        wrappers.min_elements = take(&mut fields, "min_elements")?;
        let others = fields.shift_remove("others").map(|others| Self::from_value(others).map_err(in_others));
        let others = others.transpose()?.map(Box::new);
        let schedules = take_schedules(&mut fields)?;
        let config = Self { rule: start.with(&fields)?, maximize, wrappers, schedules, groups, others };
        config.active()?;
        Ok(config)
    }

    /// Writes JSON with every option.
    ///
    /// # Errors
    /// [`Error::Config`] for a schedule that is a closure.
    pub fn to_json(&self) -> Result<String> {
        for (option, schedule) in &self.schedules {
            serde_json::to_value(schedule).map_err(|error| wrong(schedule_path(option), error))?;
        }
        for (i, group) in self.groups.iter().enumerate() {
            for (option, schedule) in &group.schedules {
                let within = |error| in_group(i, wrong(schedule_path(option), error));
                serde_json::to_value(schedule).map_err(within)?;
            }
        }
        serde_json::to_string_pretty(self).map_err(|error| wrong("JSON", error))
    }

    /// Whether steps ascend: with true the rule sees `-g`.
    #[must_use]
    pub fn maximize(mut self, maximize: bool) -> Self {
        self.maximize = maximize;
        self
    }

    /// Wraps the rule: [`Clip`](crate::Clip), [`Accumulate`](crate::Accumulate), [`LossScale`](crate::LossScale),
    /// [`SkipNonfinite`](crate::SkipNonfinite), [`Lookahead`](crate::Lookahead), [`Ema`](crate::Ema) and the others of
    /// [`wrappers`](mod@crate::wrappers), one of each kind.
    #[must_use]
    pub fn wrap(mut self, wrapper: impl Into<Box<dyn AnyWrapper>>) -> Self {
        self.wrappers = self.wrappers.with(wrapper);
        self
    }

    /// Whether norms of the gradients are measured even where nothing needs them.
    #[must_use]
    pub fn norms(mut self, norms: bool) -> Self {
        self.wrappers.norms = norms;
        self
    }

    /// The seed of [stochastic rounding](crate::ParamRounding), and of that of the [state](crate::StateFormat), where a
    /// group has none of its own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.wrappers.seed = seed;
        self
    }

    /// Tensors of fewer elements keep their state in f32 whatever [`StateFormat`](crate::StateFormat) says: 4096 where
    /// no other number is given.
    #[must_use]
    pub fn min_elements(mut self, elements: u64) -> Self {
        self.wrappers.min_elements = Some(elements);
        self
    }

    /// Lets a kernel of the caller's write these options, in a buffer that
    /// [`Optimizer::on_device`](crate::Optimizer) names: some of `lr`, `weight_decay`, `eps`, `momentum`, `alpha` and
    /// `clip`.
    #[must_use]
    pub fn on_device<S: Into<String>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.wrappers.on_device = options.into_iter().map(Into::into).collect();
        self
    }

    /// Lets an option follow a schedule: in every group that has it and no [schedule](Group::schedule) of its own for
    /// it, the group's own number times the schedule's factor. `"lr"` is JSON's `schedule`, others stand in its
    /// `schedules`.
    #[must_use]
    pub fn schedule(mut self, option: &str, schedule: Schedule) -> Self {
        self.schedules.retain(|(known, _)| known != option);
        self.schedules.push((option.into(), schedule));
        self
    }

    /// Adds a group.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.groups.push(group);
        self
    }

    /// Gives a second rule to the tensors below rank 2, where the top level's rule takes none of them, and to the
    /// groups with `"others": true`. `others` is a rule with its options and schedules alone: what is around a rule is
    /// the top level's. The second rule counts as a group behind those that are configured; its rate keeps its ratio to
    /// the top level's, and an option of the top level that is set between steps does not set its own.
    #[must_use]
    pub fn others(mut self, others: impl Into<Self>) -> Self {
        self.others = Some(Box::new(others.into()));
        self
    }

    /// The second rule at work.
    fn active_others(&self, top: &ActiveGroup) -> Result<Option<ActiveGroup>> {
        let Some(others) = &self.others else { return Ok(None) };
        let Self { rule, maximize, wrappers, schedules, groups, others } = &**others;
        let is_alone = !maximize && wrappers.is_empty() && groups.is_empty() && others.is_none();
        if !is_alone {
            return Err(wrong("others", "must be a rule with its options and schedules; the rest is the top level's"));
        }
        for rule in [rule, &self.rule] {
            if rule.sums_over_model() {
                return refuse("others", rule.name(), "left out with a rule that sums over the model");
            }
        }
        rule.check().map_err(in_others)?;
        self.wrappers.iter().try_for_each(|wrapper| wrapper.check_rule(&**rule))?;
        let mut group = others_at_work(rule.clone(), self.maximize, top)?;
        group.schedulers = schedulers(schedules, "others.", std::slice::from_ref(&group))?;
        Ok(Some(group))
    }

    /// The rule's name.
    pub fn name(&self) -> &'static str {
        self.rule.name()
    }

    /// The rule with the options of the top level.
    pub fn rule(&self) -> &dyn AnyRule {
        &*self.rule
    }

    /// The wrappers around the rule.
    pub fn wrappers(&self) -> &Wrappers {
        &self.wrappers
    }

    /// The configured learning rate of the top level.
    pub fn lr(&self) -> f64 {
        self.rule.lr()
    }

    /// Whether a rounding can turn the sign of a whole update.
    pub fn takes_signs(&self) -> bool {
        self.rule.takes_signs()
    }

    /// Checks the groups and schedules, and makes every group, the top level first. They have no tensors yet.
    fn active(&self) -> Result<Groups> {
        self.rule.check()?;
        self.wrappers.check()?;
        self.wrappers.iter().try_for_each(|wrapper| wrapper.check_rule(&*self.rule))?;
        self.check_search()?;
        let mut all = vec![ActiveGroup::new(self.rule.clone(), self.maximize, Map::new(), None)?];
        let others = self.active_others(&all[0])?;
        for (i, group) in self.groups.iter().enumerate() {
            all.push(group.active(i, &all[0], others.as_ref())?);
        }
        let place = others.as_ref().map(|_| all.len());
        all.extend(others);
        all[0].schedulers = schedulers(&self.schedules, "", &all)?;
        let groups = Groups::new(all, place, self.wrappers.completed());
        groups.check_schedules(1)?;
        groups.check_on_device()?;
        groups.check_formats()?;
        Ok(groups)
    }

    /// Refuses what does not go with a line search: the loss would be that of another function than the gradient's, or
    /// the length another than that which was looked for.
    fn check_search(&self) -> Result<()> {
        if self.rule.line_search().is_none() {
            return Ok(());
        }
        let bound = "left out with a line search";
        if let Some(wrapper) = self.wrappers.iter().next() {
            return refuse(wrapper.name(), "set", bound);
        }
        if self.wrappers.is_controlled() {
            let field = if self.wrappers.norms { "norms" } else { "on_device" };
            return refuse(field, "set", bound);
        }
        let maximizes = |group: &Group| group.fields.get("maximize").is_some_and(|value| value != false);
        if self.maximize || self.groups.iter().any(maximizes) {
            return refuse("maximize", true, bound);
        }
        let follows = |group: &Group| {
            !group.schedules.is_empty()
                || ["schedule", "schedules"].iter().any(|field| group.fields.contains_key(*field))
        };
        if !self.schedules.is_empty() || self.groups.iter().any(follows) {
            return refuse("schedules", "set", bound);
        }
        Ok(())
    }

    /// Makes the groups of these tensors.
    ///
    /// # Errors
    /// A bad option, the same tensor twice, a pattern that matches none, a tensor in two groups.
    pub fn groups(&self, tensors: &[TensorSpec]) -> Result<Groups> {
        let mut groups = self.active()?;
        groups.check_patterns(1, tensors)?;
        groups.add(tensors)?;
        groups.check_roundings(0, tensors)?;
        Ok(groups)
    }
}

impl Groups {
    /// Adds a group for new tensors, behind the others: what it leaves out is what the top level has now. `tensors` are
    /// all, the new ones behind those there were; new ones that the group does not match are [added](Self::add), too.
    /// `step` is the optimizer's coming one.
    ///
    /// # Errors
    /// A bad option or schedule, a pattern that matches none of the new tensors, and as [`add`](Self::add). Nothing has
    /// changed then.
    pub(crate) fn add_group(&mut self, group: &Group, tensors: &[TensorSpec], step: u64) -> Result<()> {
        let mut groups = self.clone();
        groups.push(group.active(self.len() - 1, self.top(), self.others())?);
        groups.check_schedules(step)?;
        groups.check_on_device()?;
        groups.check_formats()?;
        groups.check_patterns(self.len(), &tensors[self.of().len()..])?;
        groups.add(tensors)?;
        groups.check_roundings(self.len(), tensors)?;
        *self = groups;
        Ok(())
    }
}

/// Schedules at work, `within` before their paths. Each multiplies its option in those of the groups that have no
/// schedule of their own for it.
fn schedulers(
    schedules: &[(String, Schedule)],
    within: &str,
    groups: &[ActiveGroup],
) -> Result<Vec<(String, Scheduler)>> {
    let schedulers = schedules.iter().map(|(option, schedule)| {
        let path = format!("{within}{}", schedule_path(option));
        let scheduler = Scheduler::new(schedule.clone(), &path)?;
        if let Err(error) = groups[0].rule().check_option(option) {
            return Err(wrong(path, error));
        }
        if !within.is_empty() {
            groups[0].rule().check_of_group(option, "scheduled").map_err(|error| wrong(path, error))?;
        }
        let scaled = groups.iter().filter(|group| group.scheduler(option).is_none());
        let numbers: Vec<_> = scaled.filter_map(|group| group.rule().number(option)).collect();
        if numbers.iter().all(|&number| number == 0.0) {
            let value = if numbers.is_empty() { "none" } else { "0" };
            return refuse(format!("{within}{option}"), value, "above 0 with a schedule, which multiplies it");
        }
        Ok((option.clone(), scheduler))
    });
    schedulers.collect()
}

/// Reads `schedule` and `schedules`, and takes them out of the fields.
fn take_schedules(fields: &mut Map<String, Value>) -> Result<Vec<(String, Schedule)>> {
    let mut schedules: Vec<(String, Schedule)> = Vec::new();
    schedules.extend(take(fields, "schedule")?.map(|schedule| ("lr".into(), schedule)));
    for (option, schedule) in take::<Map<String, Value>>(fields, "schedules")?.unwrap_or_default() {
        if option == "lr" && !schedules.is_empty() {
            return Err(wrong("schedules.lr", "schedule says what lr is; leave one of them out"));
        }
        let path = format!("schedules.{option}");
        let schedule = take(&mut Map::from_iter([(path.clone(), schedule)]), &path)?.expect("it was just put there");
        schedules.push((option, schedule));
    }
    Ok(schedules)
}

/// Writes schedules as `schedule` and `schedules`.
fn put_schedules(fields: &mut Map<String, Value>, schedules: &[(String, Schedule)]) -> serde_json::Result<()> {
    let mut others = match fields.shift_remove("schedules") {
        Some(Value::Object(others)) => others,
        _ => Map::new(),
    };
    for (option, schedule) in schedules {
        let schedule = serde_json::to_value(schedule)?;
        match &option[..] {
            "lr" => fields.insert("schedule".into(), schedule),
            option => others.insert(option.into(), schedule),
        };
    }
    if !others.is_empty() {
        fields.insert("schedules".into(), others.into());
    }
    Ok(())
}

/// Where an option's schedule stands.
fn schedule_path(option: &str) -> String {
    if option == "lr" { "schedule".into() } else { format!("schedules.{option}") }
}

/// The error with the path of the second rule.
fn in_others(error: Error) -> Error {
    match error {
        Error::Config { path, message } => wrong(format!("others.{path}"), message),
        Error::Field { field, value, bound } => Error::Field { field: format!("others.{field}"), value, bound },
        other => other,
    }
}

fn wrong(path: impl Into<String>, message: impl ToString) -> Error {
    Error::Config { path: path.into(), message: message.to_string() }
}

/// Takes a field out of the map, with its path in the error.
fn take<T: for<'de> Deserialize<'de>>(fields: &mut Map<String, Value>, name: &str) -> Result<Option<T>> {
    let Some(value) = fields.shift_remove(name) else { return Ok(None) };
    read(&value).map(Some).map_err(|error| wrong_at(name, error))
}

/// The error of a field's value, with the whole path.
fn wrong_at(name: &str, error: Misread) -> Error {
    error.inside(name.into()).into_error()
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut fields = Map::new();
        fields.insert("optimizer".into(), self.name().into());
        fields.extend(self.rule.to_json());
        fields.insert("maximize".into(), self.maximize.into());
        fields.insert("norms".into(), self.wrappers.norms.into());
        for entry in wrappers::ALL {
            let on = self.wrappers.iter().find(|wrapper| wrapper.name() == entry.name);
            if let Some(value) = on.map(|wrapper| wrapper.to_json()).or_else(entry.off) {
                fields.insert(entry.name.into(), value);
            }
        }
        if !self.wrappers.on_device.is_empty() {
            fields.insert("on_device".into(), self.wrappers.on_device.clone().into());
        }
        if let Some(elements) = self.wrappers.min_elements {
            fields.insert("min_elements".into(), elements.into());
        }
        if self.wrappers.seed != 0 {
            fields.insert("seed".into(), self.wrappers.seed.into());
        }
        put_schedules(&mut fields, &self.schedules).map_err(serde::ser::Error::custom)?;
        fields.insert("groups".into(), serde_json::to_value(&self.groups).map_err(serde::ser::Error::custom)?);
        if let Some(others) = &self.others {
            let mut of_others = Map::from_iter([("optimizer".into(), others.name().into())]);
            of_others.extend(others.rule.to_json());
            put_schedules(&mut of_others, &others.schedules).map_err(serde::ser::Error::custom)?;
            fields.insert("others".into(), of_others.into());
        }
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
