//! Groups as a checkpoint holds them: with the options of the moment, without the factors of schedules.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ActiveGroup, GroupState, Groups, Record, Records};
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::rule::{AnyRule, Common, Numbers, RuleEntry};
use crate::schedule::{PlateauState, Schedule, Scheduler};
use crate::tensor::TensorSpec;
use crate::wrappers::{self, Wrappers};

/// A number in f64 that is written as its bits, sixteen hexadecimal digits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Bits(pub(crate) f64);

impl From<Bits> for String {
    fn from(Bits(number): Bits) -> Self {
        format!("{:016x}", number.to_bits())
    }
}

impl TryFrom<String> for Bits {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        match u64::from_str_radix(&text, 16) {
            Ok(bits) if text.len() == 16 => Ok(Self(f64::from_bits(bits))),
            _ => Err(format!("{text} is not the 16 hexadecimal digits of an f64")),
        }
    }
}

/// All groups and what is wrapped around them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedGroups {
    pub(crate) optimizer: String,
    wrappers: Map<String, Value>,
    norms: bool,
    on_device: Vec<String>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    min_elements: Option<u64>,
    /// The top level first.
    groups: Vec<SavedGroup>,
    /// Which group is the second rule, `others`.
    others: Option<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedGroup {
    tensors: Vec<String>,
    optimizer: String,
    options: Map<String, Value>,
    maximize: bool,
    lr_initial: Bits,
    own: Map<String, Value>,
    ratio: Bits,
    #[serde(default)]
    state: GroupState,
    schedules: Vec<SavedSchedule>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSchedule {
    option: String,
    schedule: Schedule,
    plateaus: Vec<PlateauState>,
}

/// The numbers of a move.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedRecords {
    list: Vec<SavedRecord>,
    of: Vec<Option<usize>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRecord {
    common: Vec<Bits>,
    wrapped: Vec<Bits>,
    hyper: Vec<Bits>,
    terms: Vec<Vec<Bits>>,
}

/// What a checkpoint cannot hold, so that the caller hands it over: closures and rules from outside the crate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) rules: Vec<RuleEntry>,
    /// The closures, by name.
    pub(crate) schedules: Vec<(String, Schedule)>,
}

fn wrong(what: impl Into<String>, message: impl ToString) -> Error {
    Error::Checkpoint { what: what.into(), message: message.to_string() }
}

impl Groups {
    /// # Errors
    /// [`Error::Checkpoint`] for a schedule that is a closure without a name.
    pub(crate) fn save(&self) -> Result<SavedGroups> {
        let groups = self.list.iter().enumerate().map(|(i, group)| group.save(i)).collect::<Result<_>>()?;
        Ok(SavedGroups {
            optimizer: self.rule(0).name().into(),
            wrappers: self.wrappers().iter().map(|wrapper| (wrapper.name().into(), wrapper.to_json())).collect(),
            norms: self.wrappers().norms,
            on_device: self.wrappers().on_device.clone(),
            seed: self.wrappers().seed,
            min_elements: self.wrappers().min_elements,
            groups,
            others: self.others,
        })
    }

    /// Makes the groups of these tensors again: `of` has the group of each, and `frozen` says which are frozen.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a rule or a schedule that is neither known nor given, and for what no optimizer saves;
    /// those of the options.
    pub(crate) fn load(
        saved: &SavedGroups,
        given: &Given,
        tensors: &[TensorSpec],
        of: Vec<usize>,
        frozen: Vec<bool>,
    ) -> Result<Self> {
        let mut wrappers = Wrappers::default();
        (wrappers.norms, wrappers.on_device) = (saved.norms, saved.on_device.clone());
        (wrappers.seed, wrappers.min_elements) = (saved.seed, saved.min_elements);
        for (name, value) in &saved.wrappers {
            let Some(entry) = wrappers::ALL.iter().find(|entry| entry.name == name) else {
                return Err(wrong(name, "is no wrapper of this crate"));
            };
            wrappers = wrappers.with((entry.read)(value.clone()).map_err(|error| wrong(name, error))?);
        }
        wrappers.check()?;
        let load = |(i, group): (usize, &SavedGroup)| {
            let known = given.rules.iter().find(|entry| entry.name == group.optimizer);
            let Some(entry) = known.or(crate::rules::find(&group.optimizer)) else {
                let message = "is no rule of this crate; hand its type to Checkpoint::rule";
                return Err(wrong(format!("optimizer {}", group.optimizer), message));
            };
            group.load(i, (entry.default)(), given)
        };
        let list = saved.groups.iter().enumerate().map(load).collect::<Result<Vec<_>>>()?;
        match list.first() {
            None => return Err(wrong("groups", "is empty, must hold the top level")),
            Some(top) if top.rule.name() != saved.optimizer => {
                return Err(wrong(
                    "optimizer",
                    format!("is {}, the top level's is {}", saved.optimizer, top.rule.name()),
                ));
            }
            Some(_) => {}
        }
        let mut lines = Vec::new();
        for (tensor, &group) in tensors.iter().zip(&of) {
            if group >= list.len() {
                return Err(wrong(format!("group of tensor {}", tensor.name), format!("is {group} of {}", list.len())));
            }
            let rule = list[group].rule_for(Lines::of(tensor));
            let needs_rows = rule.has_products() || rule.has_lines();
            if needs_rows && rule.lines_of(tensor).is_none() && tensor.shape.len() < 2 {
                return Err(wrong(format!("tensor {}", tensor.name), "has no rows and columns, which its rule needs"));
            }
            lines.push(rule.lines_of(tensor));
        }
        wrappers.iter().try_for_each(|wrapper| wrapper.check_rule(&*list[0].rule))?;
        if let Some(others) = saved.others.filter(|&others| others == 0 || others >= list.len()) {
            return Err(wrong("others", format!("is group {others} of {}", list.len())));
        }
        let mut groups = Self { of, lines, frozen, ..Self::new(list, saved.others, wrappers) };
        groups.check_formats()?;
        groups.wrap(tensors);
        groups.check_on_device()?;
        Ok(groups)
    }
}

impl ActiveGroup {
    fn save(&self, i: usize) -> Result<SavedGroup> {
        let save = |(option, scheduler): &(String, Scheduler)| {
            if scheduler.schedule().has_unnamed() {
                let message = "is a closure without a name; make it with Schedule::named";
                return Err(wrong(scheduled(i, option), message));
            }
            let (schedule, plateaus) = (scheduler.schedule().clone(), scheduler.state().to_vec());
            Ok(SavedSchedule { option: option.clone(), schedule, plateaus })
        };
        Ok(SavedGroup {
            tensors: self.patterns.clone(),
            optimizer: self.rule.name().into(),
            options: self.rule.to_json(),
            maximize: self.maximize,
            lr_initial: Bits(self.lr_initial),
            own: self.own.clone(),
            ratio: Bits(self.ratio),
            state: self.state.clone(),
            schedules: self.schedulers.iter().map(save).collect::<Result<_>>()?,
        })
    }
}

impl SavedGroup {
    fn load(&self, i: usize, default: Box<dyn AnyRule>, given: &Given) -> Result<ActiveGroup> {
        let rule = default.with(&self.options)?;
        let in_own = |error| wrong(format!("own options of group {i}"), error);
        self.own.iter().try_for_each(|(field, value)| rule.check_of_group(field, value)).map_err(in_own)?;
        rule.with(&self.own).map_err(in_own)?;
        // A group has no ratio to a rate of 0.
        for (name, Bits(number), is_sound) in [
            ("lr_initial", self.lr_initial, self.lr_initial.0.is_finite()),
            ("ratio", self.ratio, !self.ratio.0.is_finite() || self.own.contains_key("lr") || self.ratio.0 == 1.0),
        ] {
            if number < 0.0 || !is_sound {
                return Err(wrong(format!("{name} of group {i}"), format!("is {number}, which no rate gives")));
            }
        }
        let load = |saved: &SavedSchedule| {
            let mut schedule = saved.schedule.clone();
            if let Some(name) = schedule.take_closures(&given.schedules) {
                let message = format!("is the closure {name}; hand it to Checkpoint::schedule");
                return Err(wrong(scheduled(i, &saved.option), message));
            }
            rule.check_option(&saved.option).map_err(|error| wrong(scheduled(i, &saved.option), error))?;
            let mut scheduler = Scheduler::new(schedule, &scheduled(i, &saved.option))?;
            scheduler.set_state(&saved.plateaus)?;
            Ok((saved.option.clone(), scheduler))
        };
        let schedulers = self.schedules.iter().map(load).collect::<Result<_>>()?;
        Ok(ActiveGroup {
            for_matrices: rule.for_matrices(),
            for_pointwise: rule.for_pointwise(),
            rule,
            maximize: self.maximize,
            lr_initial: self.lr_initial.0,
            patterns: self.tensors.clone(),
            own: self.own.clone(),
            ratio: self.ratio.0,
            state: self.state.clone(),
            schedulers,
        })
    }
}

/// The path of a schedule, the top level's being group 0.
fn scheduled(group: usize, option: &str) -> String {
    let within = group.checked_sub(1).map_or(String::new(), |group| format!("groups[{group}]."));
    if option == "lr" { format!("{within}schedule") } else { format!("{within}schedules.{option}") }
}

impl Records {
    pub(crate) fn save(&self) -> SavedRecords {
        let bits = |numbers: &[f64]| numbers.iter().copied().map(Bits).collect::<Vec<_>>();
        let save = |record: &Record| SavedRecord {
            common: bits(&record.common.values()),
            wrapped: bits(&record.wrapped),
            hyper: bits(&record.hyper),
            terms: record.terms.iter().map(|term| bits(term)).collect(),
        };
        SavedRecords { list: self.list.iter().map(save).collect(), of: self.of.clone() }
    }

    /// The numbers of the move for these groups' tensors. `places` says where each tensor stands in the checkpoint.
    pub(crate) fn load(saved: &SavedRecords, groups: &Groups, places: &[usize]) -> Result<Self> {
        let numbers = |bits: &[Bits]| bits.iter().map(|bits| bits.0).collect::<Vec<_>>();
        let recorded = groups.wrappers().recorded().count();
        let common = <Common<f64> as Numbers<f64>>::NAMES.len();
        let load = |record: &SavedRecord| {
            let len = common + recorded + record.hyper.len();
            let fits = (record.common.len(), record.wrapped.len()) == (common, recorded)
                && record.terms.iter().all(|term| term.len() == len);
            fits.then(|| Record {
                common: Numbers::read(&numbers(&record.common)),
                wrapped: numbers(&record.wrapped),
                hyper: numbers(&record.hyper),
                terms: record.terms.iter().map(|term| numbers(term)).collect(),
            })
        };
        let list = saved.list.iter().map(load).collect::<Option<Vec<_>>>();
        let of = places.iter().map(|&place| saved.of.get(place).copied()).collect::<Option<Vec<_>>>();
        // Each tensor's record has the numbers of its own rule.
        let fits = |list: &[Record], (tensor, &record): (usize, &Option<usize>)| {
            let len = groups.rule_of(tensor).names().hyper.len();
            record.is_none_or(|record| list.get(record).is_some_and(|record| record.hyper.len() == len))
        };
        match (list, of) {
            (Some(list), Some(of)) if of.iter().enumerate().all(|one| fits(&list, one)) => Ok(Self { list, of }),
            _ => Err(wrong("numbers of evaluation", "are not those of these tensors and this rule")),
        }
    }
}
