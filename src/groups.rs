//! Groups at work: their options of this moment, and from them the numbers of each step.

use serde_json::{Map, Value};

use crate::clock::{Clock, Clocks};
use crate::error::{Error, Result, at_least_zero, refuse};
use crate::lines::Lines;
use crate::rule::{AnyRule, Common, Extent, Move, Slot, WeightDecay};
use crate::schedule::Scheduler;
use crate::tensor::TensorSpec;
use crate::words::ABSENT;
use crate::wrappers::{Moving, Wrappers};

/// A group at work: its rule with the options of this moment.
#[derive(Clone, Debug)]
pub struct ActiveGroup {
    rule: Box<dyn AnyRule>,
    /// The same for tensors that have lines, where it is another.
    for_matrices: Option<Box<dyn AnyRule>>,
    maximize: bool,
    lr_initial: f64,
    /// Names and patterns of its tensors; none for the top level.
    pub(crate) patterns: Vec<String>,
    /// Fields that the top level does not decide.
    own: Map<String, Value>,
    /// Of its rate to the top level's, where it has one of its own.
    ratio: f64,
    /// Its own schedules, by the option that each scales. Of others it follows the top level's.
    pub(crate) schedulers: Vec<(String, Scheduler)>,
}

impl ActiveGroup {
    /// The top level, or a group below it with the fields that are its own.
    ///
    /// # Errors
    /// [`Error::Field`] for an independent decay without a rate.
    pub fn new(rule: Box<dyn AnyRule>, maximize: bool, own: Map<String, Value>, top: Option<&Self>) -> Result<Self> {
        let (lr_initial, ratio) = match top {
            Some(top) if own.contains_key("lr") => (rule.lr(), rule.lr() / top.rule.lr()),
            Some(top) => (top.lr_initial, 1.0),
            None => (rule.lr(), 1.0),
        };
        if matches!(rule.weight_decay(), WeightDecay::Independent(_)) && lr_initial == 0.0 {
            return refuse("lr", 0, "above 0 with weight_decay independent");
        }
        let for_matrices = rule.for_matrices();
        let (patterns, schedulers) = (Vec::new(), Vec::new());
        Ok(Self { rule, for_matrices, maximize, lr_initial, patterns, own, ratio, schedulers })
    }

    fn set_rule(&mut self, rule: Box<dyn AnyRule>) {
        self.for_matrices = rule.for_matrices();
        self.rule = rule;
    }

    /// Its rule, without schedules.
    pub fn rule(&self) -> &dyn AnyRule {
        &*self.rule
    }

    /// Whether it ascends.
    pub fn maximizes(&self) -> bool {
        self.maximize
    }

    /// Its rule for a tensor, whose lines these are.
    fn rule_for(&self, lines: Option<Lines>) -> &(dyn AnyRule + 'static) {
        &**lines.and(self.for_matrices.as_ref()).unwrap_or(&self.rule)
    }

    /// Whether an option is the top level's, perhaps times a ratio. A rate of its own has none to a rate of 0.
    fn follows(&self, option: &str) -> bool {
        if option == "lr" { self.ratio.is_finite() } else { !self.own.contains_key(option) }
    }

    /// Whether a name or pattern of its is the tensor's.
    fn matches(&self, tensor: &TensorSpec) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, &tensor.name))
    }

    /// Its own schedule of an option.
    pub fn scheduler(&self, option: &str) -> Option<&Scheduler> {
        self.schedulers.iter().find(|(name, _)| name == option).map(|(_, scheduler)| scheduler)
    }
}

/// The groups of a list of tensors: the top level first, then as configured.
#[derive(Clone, Debug)]
pub struct Groups {
    list: Vec<ActiveGroup>,
    /// Each tensor's group.
    of: Vec<usize>,
    lines: Vec<Option<Lines>>,
    /// Whether each tensor is treated as one without a gradient.
    frozen: Vec<bool>,
    wrappers: Wrappers,
}

/// The numbers of one step or move: a record for every clock that takes part, each number in f64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    list: Vec<Record>,
    /// Each tensor's.
    of: Vec<Option<usize>>,
}

/// The numbers of a clock in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What every walk uses around a rule.
    pub common: Common<f64>,
    /// What the wrappers use that are on, in the order of the registry.
    pub wrapped: Vec<f64>,
    /// The rule's, in the order of its `Hyper`.
    pub hyper: Vec<f64>,
    /// All of them as a polynomial in the options that are written on the device, of the first degree in each: bit `i`
    /// of a term's place says whether it has option `i`. Empty where there are none.
    pub terms: Vec<Vec<f64>>,
}

impl Record {
    fn numbers(&self) -> impl Iterator<Item = f64> {
        self.common.values().into_iter().chain(self.wrapped.iter().copied()).chain(self.hyper.iter().copied())
    }

    /// Appends all terms, each number rounded to f32 once.
    pub(crate) fn push_terms(&self, words: &mut Vec<u32>) {
        let bits = |number: f64| (number as f32).to_bits();
        match &self.terms[..] {
            [] => words.extend(self.numbers().map(bits)),
            terms => words.extend(terms.iter().flatten().copied().map(bits)),
        }
    }
}

impl Records {
    /// All records.
    #[cfg(feature = "gpu")]
    pub(crate) fn list(&self) -> &[Record] {
        &self.list
    }

    /// Each tensor's, as a place among them.
    #[cfg(feature = "gpu")]
    pub(crate) fn map(&self) -> &[Option<usize>] {
        &self.of
    }

    /// A tensor's record, where it takes part.
    pub fn of(&self, tensor: usize) -> Option<&Record> {
        Some(&self.list[self.of[tensor]?])
    }

    /// What a shader reads: for each tensor where its record starts, or `0xffffffff`; then the records, each number
    /// rounded to f32 once.
    pub fn words(&self) -> Vec<u32> {
        let mut words = vec![ABSENT; self.of.len()];
        let mut starts = Vec::with_capacity(self.list.len());
        for record in &self.list {
            starts.push(words.len() as u32);
            record.push_terms(&mut words);
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
    /// Groups of no tensors, the top level first.
    pub(crate) fn new(list: Vec<ActiveGroup>, wrappers: Wrappers) -> Self {
        Self { list, of: Vec::new(), lines: Vec::new(), frozen: Vec::new(), wrappers }
    }

    /// Adds a group of no tensors yet, behind the others.
    pub(crate) fn push(&mut self, group: ActiveGroup) {
        self.list.push(group);
    }

    /// The top level.
    pub(crate) fn top(&self) -> &ActiveGroup {
        &self.list[0]
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
            let (group, lines) = (takers.next().unwrap_or(0), Lines::of(tensor));
            if let Some(other) = takers.next() {
                let message = format!("tensor {} is in groups[{}] already", tensor.name, group - 1);
                return Err(Error::Group { group: other - 1, message });
            }
            if self.list[group].rule_for(lines).has_lines() && lines.is_none() {
                let (what, name) = ("shape".into(), tensor.name.clone());
                let (found, expected) = (format!("{:?}", tensor.shape), "rows and columns, for this rule".into());
                return Err(Error::Shape { what, tensor: name, found, expected });
            }
            all_of.push(group);
            all_lines.push(lines);
        }
        (self.of, self.lines) = (all_of, all_lines);
        self.frozen.resize(tensors.len(), false);
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
            if patterns.is_empty() {
                return refuse("tensors is empty, must hold at least one name".into());
            }
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

    /// Never: the top level is always there.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Freezes the tensors that a name or `*` pattern matches, or no longer.
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

    /// Those of the tensors given that take part: all that are not frozen. `None` stands for all.
    pub fn present(&self, given: Option<Vec<bool>>) -> Option<Vec<bool>> {
        if !self.frozen.contains(&true) {
            return given;
        }
        let mut present = given.unwrap_or_else(|| vec![true; self.frozen.len()]);
        present.iter_mut().zip(&self.frozen).for_each(|(present, frozen)| *present &= !frozen);
        Some(present)
    }

    /// What is wrapped round every rule.
    pub fn wrappers(&self) -> &Wrappers {
        &self.wrappers
    }

    /// A group's rule.
    pub fn rule(&self, group: usize) -> &(dyn AnyRule + 'static) {
        &*self.list[group].rule
    }

    /// A tensor's rule.
    pub fn rule_of(&self, tensor: usize) -> &(dyn AnyRule + 'static) {
        self.list[self.of[tensor]].rule_for(self.lines[tensor])
    }

    /// A tensor's rows and columns, where it has them.
    pub fn lines_of(&self, tensor: usize) -> Option<Lines> {
        self.lines[tensor]
    }

    /// A tensor's state: the slots of its rule, then those round it.
    pub fn slots_of(&self, tensor: usize) -> Vec<Slot> {
        let rule = self.rule_of(tensor);
        rule.slots().into_iter().chain(self.wrappers.slots(rule)).collect()
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
        let behind = || self.wrappers.place_of_slot(self.rule_of(tensor), name).map(|place| fields.len() + place);
        let place = fields.iter().position(|field| *field == name).or_else(behind);
        Ok((*slot, place.expect("a slot is a field of the rule's struct, or a wrapper's")))
    }

    /// Whether the group ascends.
    pub fn maximizes(&self, group: usize) -> bool {
        self.list[group].maximize
    }

    /// Whether the rule of any tensor makes this move.
    pub fn have_move(&self, to: Move) -> bool {
        self.of.iter().any(|&group| self.rule(group).moves().contains(&to))
    }

    /// The top level's schedule of an option, where it has one.
    pub fn scheduler(&self, option: &str) -> Option<&Scheduler> {
        self.list[0].scheduler(option)
    }

    /// The same, to be fed or resumed.
    pub fn scheduler_mut(&mut self, option: &str) -> Option<&mut Scheduler> {
        self.scheduler_mut_of(0, option)
    }

    /// The schedule of an option that a group, counted as in `groups`, has of its own.
    pub fn group_scheduler(&self, group: usize, option: &str) -> Option<&Scheduler> {
        self.list[1..].get(group)?.scheduler(option)
    }

    /// The same, to be fed or resumed.
    pub fn group_scheduler_mut(&mut self, group: usize, option: &str) -> Option<&mut Scheduler> {
        self.scheduler_mut_of(group.checked_add(1)?, option)
    }

    fn scheduler_mut_of(&mut self, group: usize, option: &str) -> Option<&mut Scheduler> {
        let mut schedulers = self.list.get_mut(group)?.schedulers.iter_mut();
        schedulers.find(|(name, _)| name == option).map(|(_, scheduler)| scheduler)
    }

    /// Feeds a metric to every schedule that waits for one, those of groups included.
    ///
    /// # Errors
    /// [`Error::Field`] for NaN, or where no schedule has a plateau.
    pub fn feed(&mut self, metric: f64) -> Result<()> {
        let mut fed = self.list.iter().map(|group| group.schedulers.clone()).collect::<Vec<_>>();
        let mut waiting = fed.iter_mut().flatten().filter(|(_, scheduler)| scheduler.has_plateau()).peekable();
        if waiting.peek().is_none() {
            return refuse("metric", metric, "fed to a schedule with a plateau; there is none");
        }
        waiting.try_for_each(|(_, scheduler)| scheduler.feed(metric))?;
        for (group, fed) in self.list.iter_mut().zip(fed) {
            group.schedulers = fed;
        }
        Ok(())
    }

    /// An option of the top level in the optimizer's step `step`, its schedule included.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is no such option, or what its schedule says.
    pub fn value(&self, option: &str, step: u64) -> Result<f64> {
        self.value_of(0, option, step)
    }

    /// The same of a group, counted as in `groups`.
    ///
    /// # Errors
    /// As [`value`](Self::value), and [`Error::Group`] where there is no such group.
    pub fn group_value(&self, group: usize, option: &str, step: u64) -> Result<f64> {
        self.check_group(group)?;
        self.value_of(group + 1, option, step)
    }

    fn value_of(&self, group: usize, option: &str, step: u64) -> Result<f64> {
        let rule = &self.list[group].rule;
        let followed = self.schedulers_of(group).find(|(name, _)| name == option);
        let factor = followed.map_or(Ok(1.0), |(_, scheduler)| scheduler.factor(step))?;
        match rule.number(option) {
            Some(number) => Ok(number * factor),
            None => {
                let known = rule.check_option(option).map_err(|message| Error::Config { path: option.into(), message });
                let none = known.and_then(|()| refuse(option, "none", "a number to be read"));
                none.map_err(|error| self.in_group(group, error))
            }
        }
    }

    /// The schedules that a group follows: its own, and the top level's of other options.
    fn schedulers_of(&self, group: usize) -> impl Iterator<Item = &(String, Scheduler)> {
        let (top, of_group) = (&self.list[0], &self.list[group]);
        let own = of_group.schedulers.iter();
        own.chain(top.schedulers.iter().filter(|(option, _)| of_group.scheduler(option).is_none()))
    }

    /// A group's rule in the optimizer's step `step`; none where no schedule changes it.
    fn scheduled(&self, group: usize, step: u64) -> Result<Option<Box<dyn AnyRule>>> {
        let rule = &self.list[group].rule;
        let mut options = Vec::new();
        for (option, scheduler) in self.schedulers_of(group) {
            // A decay of kind none has no number.
            if let Some(number) = rule.number(option) {
                options.push((&option[..], number * scheduler.factor(step)?));
            }
        }
        if options.is_empty() {
            return Ok(None);
        }
        let named = |error| match error {
            Error::Field { field, value, bound } => {
                Error::Field { field: format!("{field} at step {step} of its schedule"), value, bound }
            }
            other => other,
        };
        let scheduled = rule.with_options(&options).map_err(|error| self.in_group(group, named(error)));
        scheduled.map(Some)
    }

    /// Every group's rule in the optimizer's step `step`, where a schedule changes it.
    fn all_scheduled(&self, step: u64) -> Result<Vec<Option<Box<dyn AnyRule>>>> {
        (0..self.list.len()).map(|group| self.scheduled(group, step)).collect()
    }

    /// The error with the path of a group, counted with the top level.
    fn in_group(&self, group: usize, error: Error) -> Error {
        match group.checked_sub(1) {
            Some(group) => in_group(group, error),
            None => error,
        }
    }

    /// Counts a step of the tensors present, and gives its numbers.
    ///
    /// # Errors
    /// [`Error::Field`] where a schedule leads a number out of its bounds.
    pub fn step(&self, clocks: &mut Clocks, present: Option<&[bool]>) -> Result<Records> {
        let step = clocks.steps.saturating_add(1);
        let rules = self.all_scheduled(step)?;
        let marks = clocks.part(present);
        let mut list = Vec::new();
        let mut record_of = Vec::with_capacity(marks.len());
        for (clock, present) in clocks.list_mut().iter_mut().zip(marks) {
            record_of.push(present.then_some(list.len()));
            if present {
                clock.t = clock.t.saturating_add(1);
                list.push(self.record(rules[clock.group].as_deref(), clock, true));
                clock.started = true;
            }
        }
        let of = (0..self.of.len()).map(|tensor| record_of[clocks.of(tensor)]).collect();
        clocks.steps = step;
        if present.is_some() {
            clocks.join();
        }
        Ok(Records { list, of })
    }

    /// The numbers of a move of those of the tensors marked whose rule makes it: a look-ahead's are those of the step
    /// to come. A tensor before its first step is evaluated where it stands.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn moved(&self, clocks: &Clocks, to: Moving, marked: impl Fn(usize) -> bool) -> Result<Records> {
        let ahead = to == Moving::Rule(Move::LookAhead);
        let rules = self.all_scheduled(clocks.steps.saturating_add(ahead.into()).max(1))?;
        let record = |clock: &Clock| {
            let t = clock.t.saturating_add(ahead.into()).max(1);
            self.record(rules[clock.group].as_deref(), &mut Clock { t, ..*clock }, ahead)
        };
        let list = clocks.list().iter().map(record).collect();
        let moves = |tensor: usize| {
            let started = ahead || clocks.clock(tensor).started;
            let makes = match to {
                Moving::Rule(to) => self.rule_of(tensor).moves().contains(&to),
                Moving::Wrapper(..) => true,
            };
            marked(tensor) && started && makes
        };
        let of = (0..self.of.len()).map(|tensor| moves(tensor).then(|| clocks.of(tensor))).collect();
        Ok(Records { list, of })
    }

    /// The numbers of a clock at its `t`; those of a step take what it carries with them.
    fn record(&self, scheduled: Option<&dyn AnyRule>, clock: &mut Clock, step: bool) -> Record {
        let rule = scheduled.unwrap_or(&*self.list[clock.group].rule);
        let terms = self.terms(rule, clock, step);
        Record { terms, ..self.numbers(rule, &self.wrappers, clock, step) }
    }

    fn numbers(&self, rule: &dyn AnyRule, wrappers: &Wrappers, clock: &mut Clock, step: bool) -> Record {
        let ActiveGroup { maximize, lr_initial, .. } = &self.list[clock.group];
        let mut common = Common::new(*maximize, rule.weight_decay(), rule.lr(), *lr_initial);
        common.first = f64::from(step && !clock.started);
        let wrapped = wrappers.numbers(clock.t, step);
        let mut hyper = Vec::new();
        rule.hyper(clock.t, &mut clock.carried, &mut hyper);
        Record { common, wrapped, hyper, terms: vec![] }
    }

    /// The same with these numbers for the options that are written on the device; the rate of a group with one of its
    /// own keeps its ratio, and other options of its own stay. What schedules multiply, they multiply here, too.
    fn numbers_on_device(&self, rule: &dyn AnyRule, clock: &Clock, step: bool, options: &[f64]) -> Vec<f64> {
        let group = &self.list[clock.group];
        let mut rule = rule.boxed();
        let mut wrappers = self.wrappers.clone();
        for (name, &number) in self.wrappers.on_device.iter().zip(options) {
            if !wrappers.set_option(name, number) && group.follows(name) {
                let (now, set) = (rule.number(name), group.rule.number(name));
                // What a schedule makes of it now, to what is set.
                let factor = now.zip(set).filter(|(_, set)| *set != 0.0).map_or(1.0, |(now, set)| now / set);
                let ratio = if name == "lr" { group.ratio } else { 1.0 };
                if let Some(option) = rule.option(name) {
                    *option = number * factor * ratio;
                }
            }
        }
        self.numbers(&*rule, &wrappers, &mut clock.clone(), step).numbers().collect()
    }

    fn terms(&self, rule: &dyn AnyRule, clock: &Clock, step: bool) -> Vec<Vec<f64>> {
        let options = self.wrappers.on_device.len();
        if options == 0 {
            return vec![];
        }
        let corner = |of: usize| {
            let numbers: Vec<f64> = (0..options).map(|i| f64::from(of >> i & 1 == 1)).collect();
            self.numbers_on_device(rule, clock, step, &numbers)
        };
        let mut terms: Vec<Vec<f64>> = (0..1 << options).map(corner).collect();
        // From the values at the corners of the unit cube to what is added at each.
        for i in 0..options {
            for of in (0..terms.len()).filter(|of| of >> i & 1 == 1) {
                let without = terms[of & !(1 << i)].clone();
                terms[of].iter_mut().zip(without).for_each(|(with, without)| *with -= without);
            }
        }
        terms
    }

    /// Refuses options that cannot be written on the device: those from which other numbers follow than in a straight
    /// line.
    ///
    /// # Errors
    /// [`Error::Field`].
    pub(crate) fn check_on_device(&self) -> Result<()> {
        if self.wrappers.on_device.is_empty() {
            return Ok(());
        }
        const KNOWN: [&str; 6] = ["lr", "weight_decay", "eps", "momentum", "alpha", "clip"];
        for (i, name) in self.wrappers.on_device.iter().enumerate() {
            let rule = self.rule(0);
            let has = self.wrappers.option(name).or(rule.number(name)).is_some();
            if !KNOWN.contains(&&name[..]) || self.wrappers.on_device[..i].contains(name) {
                return refuse(format!("on_device[{i}]"), name, format!("one of {}, each once", KNOWN.join(", ")));
            }
            if !has {
                return refuse(format!("on_device[{i}]"), name, format!("a number that {} has here", rule.name()));
            }
        }
        for (group, active) in self.list.iter().enumerate() {
            let rule = self.rule(group);
            for name in self.wrappers.on_device.iter().filter(|name| active.follows(name)) {
                let mut other = rule.boxed();
                other.option(name).into_iter().for_each(|option| *option = 0.5);
                if other.constants() != rule.constants() || other.slots() != rule.slots() {
                    let bound = format!("left to the host for {}: pipeline or state follow from it", rule.name());
                    return refuse("on_device", name, bound);
                }
            }
            for name in &self.wrappers.on_device {
                let number = rule.number(name).unwrap_or(1.0);
                if number == 0.0 && active.follows(name) && self.schedulers_of(group).any(|(option, _)| option == name)
                {
                    return refuse(name, 0, "above 0 with a schedule, which multiplies what the device writes");
                }
            }
            for t in [1, 2, 3, 10, 1000] {
                let clock = Clock { group, t, carried: rule.carried(t - 1), started: t > 1 };
                let terms = self.terms(rule, &clock, true);
                let point: Vec<f64> = (0..self.wrappers.on_device.len()).map(|i| [0.37, 0.59, 0.83][i % 3]).collect();
                let found = self.numbers_on_device(rule, &clock, true, &point);
                let carries = |option: &str, number| {
                    let mut rule = rule.boxed();
                    if let Some(option) = rule.option(option) {
                        *option = number;
                    }
                    rule.carried(t)
                };
                if let Some(name) =
                    self.wrappers.on_device.iter().find(|name| carries(name, 0.25) != carries(name, 0.5))
                {
                    return refuse(
                        "on_device",
                        name,
                        format!("left to the host for {}, which carries it", rule.name()),
                    );
                }
                for (i, &found) in found.iter().enumerate() {
                    let factor =
                        |of: usize| (0..point.len()).filter(|i| of >> i & 1 == 1).map(|i| point[i]).product::<f64>();
                    let line: f64 = terms.iter().enumerate().map(|(of, term)| term[i] * factor(of)).sum();
                    let size = terms.iter().fold(found.abs(), |size, term| size.max(term[i].abs()));
                    let off = (found - line).abs();
                    if off.is_nan() || off > 1e-9 * size {
                        let bound = format!("left to the host for {}: its numbers are no multiples of it", rule.name());
                        return refuse("on_device", self.wrappers.on_device.join(", "), bound);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets the learning rate of the top level. A group with a rate of its own keeps its ratio, or its rate where the
    /// top level's was 0.
    ///
    /// # Errors
    /// [`Error::Field`] for a rate that is negative or not finite, or where the rule takes its rate at creation alone.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.check_of_host("lr", lr)?;
        at_least_zero("lr", lr)?;
        let set = |(i, group): (usize, &ActiveGroup)| {
            let own = if group.ratio.is_finite() { lr * group.ratio } else { group.rule.lr() };
            group.rule.with_options(&[("lr", own)]).map_err(|error| self.in_group(i, error))
        };
        let rules = self.list.iter().enumerate().map(set).collect::<Result<Vec<_>>>()?;
        for (group, rule) in self.list.iter_mut().zip(rules) {
            group.set_rule(rule);
            if !group.ratio.is_finite() {
                group.ratio = group.rule.lr() / lr;
            }
        }
        Ok(())
    }

    /// Sets a numeric option of the top level and of every group that has none of its own; `weight_decay` sets the
    /// number and keeps the kind.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is no option that may change, [`Error::Field`] for a value outside its bound
    /// or one that would need another pipeline or other state.
    pub fn set(&mut self, field: &str, value: f64) -> Result<()> {
        if field == "lr" {
            return self.set_lr(value);
        }
        self.check_of_host(field, value)?;
        let takers = (0..self.list.len()).filter(|&i| !self.list[i].own.contains_key(field)).collect::<Vec<_>>();
        self.set_in(&takers, field, value)
    }

    /// Sets a numeric option of one group, counted as in `groups`. From then on it is the group's own: the top level's
    /// does not change it, and a rate keeps its ratio to the top level's.
    ///
    /// # Errors
    /// As [`set`](Self::set), and [`Error::Group`] where there is no such group.
    pub fn set_group(&mut self, group: usize, field: &str, value: f64) -> Result<()> {
        self.check_group(group)?;
        self.check_of_host(field, value).map_err(|error| in_group(group, error))?;
        self.set_in(&[group + 1], field, value)?;
        let base = self.list[0].rule.lr();
        let group = &mut self.list[group + 1];
        group.own.insert(field.into(), value.into());
        if field == "lr" {
            group.ratio = value / base;
        }
        Ok(())
    }

    /// Refuses an option that a kernel of the caller's writes.
    fn check_of_host(&self, field: &str, value: f64) -> Result<()> {
        match self.wrappers.on_device.iter().any(|option| option == field) {
            true => refuse(field, value, "left to the device, which writes it"),
            false => Ok(()),
        }
    }

    fn check_group(&self, group: usize) -> Result<()> {
        let groups = self.list.len() - 1;
        if group < groups {
            return Ok(());
        }
        Err(Error::Group { group, message: format!("there is no such group; the configuration has {groups}") })
    }

    fn set_in(&mut self, groups: &[usize], field: &str, value: f64) -> Result<()> {
        let set = |&group: &usize| {
            let rule = self.list[group].rule.with_options(&[(field, value)]);
            rule.map(|rule| (group, rule)).map_err(|error| self.in_group(group, error))
        };
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

/// Whether `*` in the pattern can stand for some text so that the name comes out.
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
