//! The configuration: a rule and the fields around it, as Rust values or JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::around::{Around, Lookahead};
use crate::error::{Error, Result, refuse};
use crate::format::Tensor;
use crate::groups::{ActiveGroup, Groups, in_group};
use crate::rule::{AnyRule, Rule};
use crate::rules;
use crate::schedule::{Schedule, Scheduler};

/// Fields around the rule that later versions honour. They are refused by name.
const LATER: [&str; 5] = ["clip", "accumulate", "skip_nonfinite", "loss_scale", "ema"];

/// Fields that are the same for all groups.
const TOP: [&str; 3] = ["lookahead", "schedule", "schedules"];

/// An optimizer's configuration: a rule with its options, and the fields around it.
///
/// Made from a rule (`Config::from(AdamW::default())`) or from JSON. It (de)serialises with serde; written out, it
/// holds every option with its value.
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
    around: Around,
    /// By the option that each scales.
    schedules: Vec<(String, Schedule)>,
    groups: Vec<Group>,
}

/// Tensors that differ from the rest in some options. JSON: `{"tensors": ["*.bias"], "lr": 0.1, ...}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(expecting = "an object with tensors")]
pub struct Group {
    /// Names, or patterns in which `*` stands for any text. Each must match a tensor.
    pub tensors: Vec<String>,
    /// Options of the rule, and `maximize`; what is left out is taken from the top level.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Group {
    /// A group of these names or patterns.
    pub fn new<S: Into<String>>(tensors: impl IntoIterator<Item = S>) -> Self {
        Self { tensors: tensors.into_iter().map(Into::into).collect(), fields: Map::new() }
    }

    /// Sets an option of the group. A NaN or infinity becomes JSON's `null` and is refused with the rest.
    #[must_use]
    pub fn set(mut self, field: &str, value: impl Serialize) -> Self {
        self.fields.insert(field.into(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

impl<R: Rule> From<R> for Config {
    fn from(rule: R) -> Self {
        (Box::new(rule) as Box<dyn AnyRule>).into()
    }
}

impl From<Box<dyn AnyRule>> for Config {
    fn from(rule: Box<dyn AnyRule>) -> Self {
        Self { rule, maximize: false, around: Around::default(), schedules: Vec::new(), groups: Vec::new() }
    }
}

impl Config {
    /// Reads JSON: `{"optimizer": NAME, "preset": NAME, "maximize": false, "lookahead": {..}, "schedule": {..},
    /// "schedules": {OPTION: {..}}, "groups": [..], ..options of the rule}`.
    ///
    /// # Errors
    /// [`Error::Config`] with the path of what is not JSON, unknown or of a wrong type; [`Error::Unsupported`];
    /// [`Error::Field`] for a value outside its bound.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_value(serde_json::from_str(text).map_err(|error| wrong("JSON", error))?)
    }

    /// The same from a parsed value.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_value(value: Value) -> Result<Self> {
        let mut fields = Map::deserialize(value).map_err(|error| wrong("JSON", error))?;
        if let Some(field) = LATER.iter().find(|&&field| fields.contains_key(field)) {
            return Err(Error::Unsupported { field: (*field).into() });
        }
        let name: String = take(&mut fields, "optimizer")?.ok_or_else(|| wrong("optimizer", "is missing"))?;
        let names = || rules::ALL.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        let row = match rules::find(&name) {
            Some(row) => row,
            None => return refuse("optimizer", name, format!("one of {}", names())),
        };
        let start = match take::<String>(&mut fields, "preset")? {
            None => (row.default)(),
            Some(preset) => {
                let presets = (row.presets)();
                let known = presets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                match presets.into_iter().find(|(name, _)| *name == preset) {
                    Some((_, rule)) => rule,
                    None if known.is_empty() => return refuse("preset", preset, format!("left out for {name}")),
                    None => return refuse("preset", preset, format!("one of {known} for {name}")),
                }
            }
        };
        let maximize = take(&mut fields, "maximize")?.unwrap_or(false);
        let groups = take(&mut fields, "groups")?.unwrap_or_default();
        let around = Around { lookahead: take(&mut fields, "lookahead")? };
        let mut schedules: Vec<(String, Schedule)> = Vec::new();
        schedules.extend(take(&mut fields, "schedule")?.map(|schedule| ("lr".into(), schedule)));
        for (option, schedule) in take::<Map<String, Value>>(&mut fields, "schedules")?.unwrap_or_default() {
            if option == "lr" && !schedules.is_empty() {
                return Err(wrong("schedules.lr", "schedule says what lr is; leave one of them out"));
            }
            let path = format!("schedules.{option}");
            let schedule =
                take(&mut Map::from_iter([(path.clone(), schedule)]), &path)?.expect("it was just put there");
            schedules.push((option, schedule));
        }
        let config = Self { rule: start.with(&fields)?, maximize, around, schedules, groups };
        config.active()?;
        Ok(config)
    }

    /// JSON with every option.
    ///
    /// # Errors
    /// [`Error::Config`] for a schedule that is a closure.
    pub fn to_json(&self) -> Result<String> {
        for (option, schedule) in &self.schedules {
            serde_json::to_value(schedule).map_err(|error| wrong(schedule_path(option), error))?;
        }
        serde_json::to_string_pretty(self).map_err(|error| wrong("JSON", error))
    }

    /// Ascends where true.
    #[must_use]
    pub fn maximize(mut self, maximize: bool) -> Self {
        self.maximize = maximize;
        self
    }

    /// Wraps the rule in [`Lookahead`].
    #[must_use]
    pub fn lookahead(mut self, lookahead: Lookahead) -> Self {
        self.around.lookahead = Some(lookahead);
        self
    }

    /// Lets an option follow a schedule: in every group that has it, the group's own number times the schedule's
    /// factor. `"lr"` is JSON's `schedule`, others stand in its `schedules`.
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

    /// The rule's name.
    pub fn name(&self) -> &'static str {
        self.rule.name()
    }

    /// The rule with the options of the top level.
    pub fn rule(&self) -> &dyn AnyRule {
        &*self.rule
    }

    /// What is wrapped round the rule.
    pub fn around(&self) -> &Around {
        &self.around
    }

    /// The configured learning rate of the top level.
    pub fn lr(&self) -> f64 {
        self.rule.lr()
    }

    /// Whether a rounding can turn the sign of a whole update.
    pub fn takes_signs(&self) -> bool {
        self.rule.takes_signs()
    }

    /// Every group, the top level first, and the schedules, checked; of no tensors yet.
    fn active(&self) -> Result<Groups> {
        self.rule.check()?;
        self.around.check()?;
        let mut all = vec![ActiveGroup::new(self.rule.clone(), self.maximize, Map::new())?];
        for (i, group) in self.groups.iter().enumerate() {
            let mut own = group.fields.clone();
            if let Some(field) = LATER.iter().find(|&&field| own.contains_key(field)) {
                return Err(Error::Unsupported { field: format!("groups[{i}].{field}") });
            }
            if let Some(field) = TOP.iter().find(|&&field| own.contains_key(field)) {
                let message = "belongs to the top level; it is the same for all groups";
                return Err(wrong(format!("groups[{i}].{field}"), message));
            }
            let within = |error| in_group(i, error);
            let maximize = take(&mut own, "maximize").map_err(within)?.unwrap_or(self.maximize);
            let rule = self.rule.with(&own).map_err(within)?;
            all.push(ActiveGroup::new(rule, maximize, own).map_err(within)?);
        }
        let schedulers = self.schedules.iter().map(|(option, schedule)| {
            let path = schedule_path(option);
            let scheduler = Scheduler::new(schedule.clone(), &path)?;
            if let Err(error) = self.rule.check_option(option) {
                return Err(wrong(path, error));
            }
            let numbers: Vec<_> = all.iter().filter_map(|group| group.rule().number(option)).collect();
            if numbers.iter().all(|&number| number == 0.0) {
                let value = if numbers.is_empty() { "none" } else { "0" };
                return refuse(option, value, "above 0 with a schedule, which multiplies it");
            }
            Ok((option.clone(), scheduler))
        });
        let schedulers = schedulers.collect::<Result<_>>()?;
        let groups = Groups::new(all, self.around, schedulers);
        groups.check_schedules()?;
        Ok(groups)
    }

    /// The groups of these tensors.
    ///
    /// # Errors
    /// A bad option, the same tensor twice, a pattern that matches none, a tensor in two groups.
    pub fn groups(&self, tensors: &[Tensor]) -> Result<Groups> {
        Tensor::check_names(tensors)?;
        tensors.iter().try_for_each(Tensor::check_param)?;
        let mut groups = self.active()?;
        let mut of = vec![0; tensors.len()];
        for (group, Group { tensors: patterns, .. }) in self.groups.iter().enumerate() {
            let refuse = |message| Err(Error::Group { group, message });
            for pattern in patterns {
                let mut matched = false;
                for (tensor, of) in tensors.iter().zip(&mut of).filter(|(tensor, _)| matches(pattern, &tensor.name)) {
                    matched = true;
                    if *of != 0 && *of != group + 1 {
                        return refuse(format!("tensor {} is in groups[{}] already", tensor.name, *of - 1));
                    }
                    *of = group + 1;
                }
                if !matched {
                    return refuse(format!("pattern {pattern} matches none of the {} tensors", tensors.len()));
                }
            }
            if patterns.is_empty() {
                return refuse("tensors is empty, must hold at least one name".into());
            }
        }
        groups.assign(tensors, of);
        for (i, tensor) in tensors.iter().enumerate() {
            if groups.rule_of(i).has_lines() && groups.lines_of(i).is_none() {
                let (what, name) = ("shape".into(), tensor.name.clone());
                let (found, expected) = (format!("{:?}", tensor.shape), "rows and columns, for this rule".into());
                return Err(Error::Shape { what, tensor: name, found, expected });
            }
        }
        Ok(groups)
    }
}

/// Where an option's schedule stands.
fn schedule_path(option: &str) -> String {
    if option == "lr" { "schedule".into() } else { format!("schedules.{option}") }
}

fn wrong(path: impl Into<String>, message: impl ToString) -> Error {
    Error::Config { path: path.into(), message: message.to_string() }
}

/// Takes a field out of the map, with its path in the error.
fn take<T: for<'de> Deserialize<'de>>(fields: &mut Map<String, Value>, name: &str) -> Result<Option<T>> {
    let Some(value) = fields.shift_remove(name) else { return Ok(None) };
    serde_path_to_error::deserialize(value).map(Some).map_err(|error| {
        let inner = error.path().to_string();
        let path = match inner.as_str() {
            "." => name.to_string(),
            path if path.starts_with('[') => format!("{name}{path}"),
            path => format!("{name}.{path}"),
        };
        wrong(path, error.inner())
    })
}

/// Whether `*` in the pattern can stand for some text so that the name comes out.
fn matches(pattern: &str, name: &str) -> bool {
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

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut fields = Map::new();
        fields.insert("optimizer".into(), self.name().into());
        fields.extend(self.rule.to_json());
        fields.insert("maximize".into(), self.maximize.into());
        if let Some(lookahead) = &self.around.lookahead {
            fields.insert("lookahead".into(), serde_json::to_value(lookahead).map_err(serde::ser::Error::custom)?);
        }
        let mut schedules = Map::new();
        for (option, schedule) in &self.schedules {
            let schedule = serde_json::to_value(schedule).map_err(serde::ser::Error::custom)?;
            match &option[..] {
                "lr" => fields.insert("schedule".into(), schedule),
                option => schedules.insert(option.into(), schedule),
            };
        }
        if !schedules.is_empty() {
            fields.insert("schedules".into(), schedules.into());
        }
        fields.insert("groups".into(), serde_json::to_value(&self.groups).map_err(serde::ser::Error::custom)?);
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
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
