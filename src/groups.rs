//! Groups at work: their options of this moment, and from them the numbers of each step.

use serde_json::{Map, Value};

use crate::around::Around;
use crate::clock::Clocks;
use crate::error::{Error, Result, at_least_zero, refuse};
use crate::format::Tensor;
use crate::lines::Lines;
use crate::rule::{AnyRule, Carried, Common, Extent, Move, Slot, WeightDecay};

/// In the map of records: the tensor has no part in this step.
const ABSENT: u32 = u32::MAX;

/// A group at work: its rule with the options of this moment.
#[derive(Clone, Debug)]
pub struct ActiveGroup {
    rule: Box<dyn AnyRule>,
    /// The same for tensors that have lines, where it is another.
    for_matrices: Option<Box<dyn AnyRule>>,
    maximize: bool,
    lr_initial: f64,
    /// Fields that the top level does not decide.
    own: Map<String, Value>,
    /// Of its rate to the top level's, where it has one of its own.
    ratio: f64,
}

impl ActiveGroup {
    /// A group with the fields that are its own.
    ///
    /// # Errors
    /// [`Error::Field`] for an independent decay without a rate.
    pub fn new(rule: Box<dyn AnyRule>, maximize: bool, own: Map<String, Value>) -> Result<Self> {
        let lr_initial = rule.lr();
        if matches!(rule.weight_decay(), WeightDecay::Independent(_)) && lr_initial == 0.0 {
            return refuse("lr", 0, "above 0 with weight_decay independent");
        }
        let for_matrices = rule.for_matrices();
        Ok(Self { rule, for_matrices, maximize, lr_initial, own, ratio: 1.0 })
    }

    fn set_rule(&mut self, rule: Box<dyn AnyRule>) {
        self.for_matrices = rule.for_matrices();
        self.rule = rule;
    }
}

/// The groups of a list of tensors: the top level first, then as configured.
#[derive(Clone, Debug)]
pub struct Groups {
    list: Vec<ActiveGroup>,
    /// Each tensor's group.
    of: Vec<usize>,
    lines: Vec<Option<Lines>>,
    around: Around,
}

/// The numbers of one step or move: a record for every clock that takes part, each number in f64.
#[derive(Clone, Debug)]
pub struct Records {
    list: Vec<Record>,
    /// Each tensor's.
    of: Vec<Option<usize>>,
}

/// The numbers of a clock in one step.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the skeleton uses round any rule.
    pub common: Common<f64>,
    /// The rule's, in the order of its `Hyper`.
    pub hyper: Vec<f64>,
}

impl Records {
    /// A tensor's record, where it takes part.
    pub fn of(&self, tensor: usize) -> Option<&Record> {
        Some(&self.list[self.of[tensor]?])
    }

    /// What a shader reads: for each tensor where its record starts, or `0xffffffff`; then the records, each number
    /// rounded to f32 once.
    pub fn words(&self) -> Vec<u32> {
        let mut words = vec![ABSENT; self.of.len()];
        let mut starts = Vec::with_capacity(self.list.len());
        for Record { common, hyper } in &self.list {
            starts.push(words.len() as u32);
            words.extend(common.values().iter().chain(hyper).map(|&number| (number as f32).to_bits()));
        }
        for (word, record) in words.iter_mut().zip(&self.of) {
            if let Some(record) = record {
                *word = starts[*record];
            }
        }
        words
    }
}

impl Groups {
    /// Groups, the top level first, and each tensor's.
    pub(crate) fn new(mut list: Vec<ActiveGroup>, tensors: &[Tensor], of: Vec<usize>, around: Around) -> Self {
        let base = list[0].lr_initial;
        for group in list.iter_mut().filter(|group| group.own.contains_key("lr")) {
            group.ratio = group.lr_initial / base;
        }
        Self { list, of, lines: tensors.iter().map(Lines::of).collect(), around }
    }

    /// Each tensor's group.
    pub fn of(&self) -> &[usize] {
        &self.of
    }

    /// How many groups there are, the top level included.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Never: the top level is always there.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What is wrapped round every rule.
    pub fn around(&self) -> &Around {
        &self.around
    }

    /// A group's rule.
    pub fn rule(&self, group: usize) -> &(dyn AnyRule + 'static) {
        &*self.list[group].rule
    }

    /// A tensor's rule.
    pub fn rule_of(&self, tensor: usize) -> &(dyn AnyRule + 'static) {
        let group = &self.list[self.of[tensor]];
        let for_matrices = self.lines[tensor].and(group.for_matrices.as_ref());
        &**for_matrices.unwrap_or(&group.rule)
    }

    /// A tensor's rows and columns, where it has them.
    pub fn lines_of(&self, tensor: usize) -> Option<Lines> {
        self.lines[tensor]
    }

    /// A tensor's state: the slots of its rule, then those round it.
    pub fn slots_of(&self, tensor: usize) -> Vec<Slot> {
        self.rule_of(tensor).slots().into_iter().chain(self.around.slots()).collect()
    }

    /// A tensor's slot, and its place among the fields of the rule's struct, behind which are the slots round it.
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
        let fields = if slot.extent == Extent::Tensor { names.tensor } else { names.state };
        let behind = || self.around.slots().iter().position(|around| around == slot).map(|i| fields.len() + i);
        let place = fields.iter().position(|field| *field == name).or_else(behind);
        Ok((*slot, place.expect("a slot is a field of the rule's struct, or round it")))
    }

    /// Whether the group ascends.
    pub fn maximizes(&self, group: usize) -> bool {
        self.list[group].maximize
    }

    /// Whether the rule of any tensor makes this move.
    pub fn have_move(&self, to: Move) -> bool {
        self.of.iter().any(|&group| self.rule(group).moves().contains(&to))
    }

    /// Counts a step of the tensors present, and gives its numbers.
    pub fn step(&self, clocks: &mut Clocks, present: Option<&[bool]>) -> Records {
        let marks = clocks.part(present);
        let mut list = Vec::new();
        let mut record_of = Vec::with_capacity(marks.len());
        for (clock, present) in clocks.list_mut().iter_mut().zip(marks) {
            record_of.push(present.then_some(list.len()));
            if present {
                clock.t = clock.t.saturating_add(1);
                list.push(self.record(clock.group, clock.t, &mut clock.carried));
            }
        }
        let of = (0..self.of.len()).map(|tensor| record_of[clocks.of(tensor)]).collect();
        clocks.steps = clocks.steps.saturating_add(1);
        if present.is_some() {
            clocks.join();
        }
        Records { list, of }
    }

    /// The numbers of a move of those of the tensors marked whose rule makes it. A tensor before its first step is
    /// evaluated where it stands.
    pub fn moved(&self, clocks: &Clocks, to: Move, marked: impl Fn(usize) -> bool) -> Records {
        let ahead = u64::from(to == Move::LookAhead);
        let record = |clock: &crate::clock::Clock| {
            let mut carried = clock.carried;
            self.record(clock.group, clock.t.saturating_add(ahead).max(1), &mut carried)
        };
        let list = clocks.list().iter().map(record).collect();
        let moves = |tensor: usize| {
            let started = clocks.clock(tensor).t + ahead > 0;
            marked(tensor) && started && self.rule_of(tensor).moves().contains(&to)
        };
        let of = (0..self.of.len()).map(|tensor| moves(tensor).then(|| clocks.of(tensor))).collect();
        Records { list, of }
    }

    fn record(&self, group: usize, t: u64, carried: &mut Carried) -> Record {
        let ActiveGroup { rule, maximize, lr_initial, .. } = &self.list[group];
        let mut common = Common::new(*maximize, rule.weight_decay(), rule.lr(), *lr_initial);
        common.first = f64::from(t == 1);
        common.pull = self.around.pull(t);
        let mut hyper = Vec::new();
        rule.hyper(t, carried, &mut hyper);
        Record { common, hyper }
    }

    /// Sets the learning rate of the top level. A group with a rate of its own keeps its ratio.
    ///
    /// # Errors
    /// [`Error::Field`] for a rate that is negative or not finite, or where the rule takes its rate at creation alone.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        at_least_zero("lr", lr)?;
        for (i, group) in self.list.iter().enumerate().skip(1) {
            if !group.ratio.is_finite() {
                let bound = "left alone: the top level's rate was 0 when the group's was set, so there is no ratio";
                return refuse(format!("groups[{}].lr", i - 1), group.rule.lr(), bound);
            }
            at_least_zero(&format!("groups[{}].lr", i - 1), lr * group.ratio)?;
        }
        let set = |group: &ActiveGroup| group.rule.with_option("lr", lr * group.ratio);
        let rules = self.list.iter().map(set).collect::<Result<Vec<_>>>()?;
        self.list.iter_mut().zip(rules).for_each(|(group, rule)| group.set_rule(rule));
        Ok(())
    }

    /// Sets a numeric option of the top level and of every group that has none of its own; `weight_decay` sets the
    /// number and keeps the kind.
    ///
    /// # Errors
    /// As [`AnyRule::with_option`](trait@AnyRule).
    pub fn set(&mut self, field: &str, value: f64) -> Result<()> {
        if field == "lr" {
            return self.set_lr(value);
        }
        let takers = (0..self.list.len()).filter(|&i| !self.list[i].own.contains_key(field)).collect::<Vec<_>>();
        self.set_in(&takers, field, value)
    }

    /// Sets a numeric option of one group, counted as in `groups`. From then on it is the group's own: the top level's
    /// does not change it, and a rate keeps its ratio to the top level's.
    ///
    /// # Errors
    /// As [`set`](Self::set), and [`Error::Group`] where there is no such group.
    pub fn set_group(&mut self, group: usize, field: &str, value: f64) -> Result<()> {
        let groups = self.list.len() - 1;
        if group >= groups {
            let message = format!("there is no such group; the configuration has {groups}");
            return Err(Error::Group { group, message });
        }
        self.set_in(&[group + 1], field, value).map_err(|error| in_group(group, error))?;
        let base = self.list[0].rule.lr();
        let group = &mut self.list[group + 1];
        group.own.insert(field.into(), value.into());
        if field == "lr" {
            group.ratio = value / base;
        }
        Ok(())
    }

    fn set_in(&mut self, groups: &[usize], field: &str, value: f64) -> Result<()> {
        let set = |&group: &usize| Ok((group, self.list[group].rule.with_option(field, value)?));
        for (group, rule) in groups.iter().map(set).collect::<Result<Vec<_>>>()? {
            self.list[group].set_rule(rule);
        }
        Ok(())
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
