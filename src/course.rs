//! The course of a training where the device decides which steps are applied: the states that the clocks may be in, and
//! the words of a step that tell the device of them.
//!
//! The host learns late which steps were applied. Tensors that take part in the same steps are a class. Of each class
//! the host keeps every state that its clock may be in, each with a number, and sends the numbers of a step for each.
//! The device keeps for each tensor the number of the true state. A step that is skipped changes no state, nor does one
//! that never ran, so neither is missed by those behind it. A report, which comes later, tells the host which states
//! have become impossible. Twin: `shaders/skeletons/decide.wgsl`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use crate::clock::{Clock, Clocks, Key};
use crate::error::{Error, Result};
use crate::groups::{Groups, Record, Records};
use crate::rule::{AnyRule, Common, Numbers, Renewal};
use crate::words::{ABSENT, Layout, class, state, step};
use crate::wrappers::{AdaptiveClip, Clip, Moving, Wrappers};

/// Steps that may be encoded and have not reported, at once.
const STEPS_MAX: usize = 1023;

/// States that one class may be in at once. Where a clock counts its steps alone, there is one state more than steps
/// that have not reported. With a schedule it is a pair of counts, the class's and the optimizer's; what a rule carries
/// may depend on which steps were applied.
const STATES_MAX: usize = 4096;

/// All states that the clocks may be in.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// The first class counts the optimizer's steps; no tensor is in it.
    classes: Arc<Vec<Class>>,
    /// The class of each tensor.
    of: Arc<Vec<usize>>,
    /// Steps that have not reported, the oldest first.
    pending: VecDeque<Arc<Choice>>,
    /// The true state of each class there was before the oldest step that has not reported.
    settled: Vec<u32>,
    /// Steps that have reported.
    reported: u64,
    /// Whether a step has reported since the states were listed, so that some may be impossible.
    learnt: bool,
    /// What [`hoped`](Self::hoped) gave last.
    hoped: OnceLock<Clocks>,
}

/// Tensors that have taken part in the same steps.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    states: Vec<State>,
    /// Whether their numbers follow the count of the optimizer's steps.
    follows: bool,
}

/// A state that a clock may be in.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// The number that the device knows it by.
    number: u32,
    clock: Clock,
    /// The optimizer's steps, 0 for a class that does not follow them.
    steps: u64,
}

impl State {
    fn key(&self) -> (Key, u64) {
        (self.clock.key(), self.steps)
    }
}

/// Where a step leads.
#[derive(Clone, Debug, Default)]
struct Choice {
    /// Of each class behind the step, the class before it that it comes from.
    from: Vec<usize>,
    /// Of each class behind the step, from which state to which one a step that is applied leads, by number.
    applied: Vec<HashMap<u32, u32>>,
}

impl Choice {
    /// The states behind the step, of states before it.
    fn led(&self, before: &[u32], applied: bool) -> Vec<u32> {
        let led = |(&from, to): (&usize, &HashMap<u32, u32>)| {
            let number = before[from];
            if applied { to.get(&number).copied().unwrap_or(number) } else { number }
        };
        self.from.iter().zip(&self.applied).map(led).collect()
    }
}

/// The numbers of a step or a move in each state that is possible, and the states that it leads to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    classes: Vec<OfClass>,
    /// For each tensor that takes part one more than its class, as a course counts them; 0 for the others.
    of: Arc<Vec<usize>>,
}

/// What a step or a move is for each state of a class.
type OfClass = Vec<OfState>;

#[derive(Clone, Debug)]
struct OfState {
    number: u32,
    /// None where the class sits out.
    record: Option<Record>,
    applied: u32,
}

/// Rules as schedules change them, for the groups and steps that were asked for.
struct Scheduled<'a> {
    groups: &'a Groups,
    rules: HashMap<(usize, u64), Option<Box<dyn AnyRule>>>,
}

impl<'a> Scheduled<'a> {
    fn new(groups: &'a Groups) -> Self {
        Self { groups, rules: HashMap::new() }
    }

    fn rule(&mut self, group: usize, step: u64) -> Result<Option<&dyn AnyRule>> {
        let rule = match self.rules.entry((group, step)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.groups.scheduled(group, step)?),
        };
        Ok(rule.as_deref())
    }
}

impl Course {
    /// The only state: these clocks.
    pub(crate) fn new(clocks: &Clocks, groups: &Groups) -> Self {
        let count =
            Class { states: vec![State { number: 0, clock: Clock::new(0), steps: clocks.steps }], follows: true };
        let class = |clock: &Clock| Class::of_one(*clock, groups, clocks.steps);
        let classes: Vec<_> = std::iter::once(count).chain(clocks.list().iter().map(class)).collect();
        let of = (0..groups.of().len()).map(|tensor| 1 + clocks.of(tensor)).collect();
        Self {
            settled: vec![0; classes.len()],
            classes: Arc::new(classes),
            of: Arc::new(of),
            pending: VecDeque::new(),
            reported: 0,
            learnt: false,
            hoped: OnceLock::new(),
        }
    }

    /// The numbers of a move since the last step, in the states that are known to be true.
    pub(crate) fn records(&self, choices: &Choices) -> Records {
        choices.records(|class, states| {
            let known = self.settled.get(class + 1).and_then(|number| states.iter().position(|s| s.number == *number));
            known.unwrap_or(0)
        })
    }

    /// The clocks where every step that has not reported is applied.
    pub(crate) fn hoped(&self) -> &Clocks {
        self.hoped.get_or_init(|| {
            let numbers = self.pending.iter().fold(self.settled.clone(), |before, choice| choice.led(&before, true));
            let state = |class: usize| {
                let states = &self.classes[class].states;
                states.iter().find(|state| state.number == numbers[class]).expect("a hoped state is possible")
            };
            Clocks::of_each(self.of.iter().map(|&class| state(class).clock).collect(), state(0).steps)
        })
    }

    /// Changes a tensor's clock in every state.
    pub(crate) fn set_clock(&mut self, tensor: usize, mut change: impl FnMut(&mut Clock)) {
        self.hoped = OnceLock::new();
        let old = self.of[tensor];
        let mut class = self.classes[old].clone();
        class.states.iter_mut().for_each(|state| change(&mut state.clock));
        if self.of.iter().filter(|&&class| class == old).count() == 1 {
            Arc::make_mut(&mut self.classes)[old] = class;
            return;
        }
        Arc::make_mut(&mut self.of)[tensor] = self.push(class, old);
    }

    /// Sets the count of the optimizer's steps in every state.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.hoped = OnceLock::new();
        let follow = Arc::make_mut(&mut self.classes).iter_mut().filter(|class| class.follows);
        follow.for_each(|class| class.states.iter_mut().for_each(|state| state.steps = steps));
    }

    /// Takes in tensors behind the others, with clocks before their first step. All steps have reported.
    pub(crate) fn add(&mut self, groups: &Groups) {
        let steps = self.hoped().steps;
        self.hoped = OnceLock::new();
        let mut known: HashMap<usize, usize> = HashMap::new();
        for &group in &groups.of()[self.of.len()..] {
            let class = *known.entry(group).or_insert_with(|| {
                let class = Class::of_one(Clock::new(group), groups, steps);
                Arc::make_mut(&mut self.classes).push(class);
                self.settled.push(0);
                self.classes.len() - 1
            });
            Arc::make_mut(&mut self.of).push(class);
        }
    }

    /// Adds a class that has come the way of another one.
    fn push(&mut self, class: Class, like: usize) -> usize {
        match self.pending.back_mut() {
            Some(choice) => {
                let choice = Arc::make_mut(choice);
                choice.from.push(choice.from[like]);
                choice.applied.push(choice.applied[like].clone());
            }
            None => self.settled.push(self.settled[like]),
        }
        let classes = Arc::make_mut(&mut self.classes);
        classes.push(class);
        classes.len() - 1
    }

    /// Forgets states that have become impossible.
    fn prune(&mut self) {
        if !std::mem::take(&mut self.learnt) {
            return;
        }
        let mut possible: Vec<BTreeSet<u32>> = self.settled.iter().map(|&number| [number].into()).collect();
        for choice in &self.pending {
            let led = |(&from, to): (&usize, &HashMap<u32, u32>)| {
                let before = possible[from].iter();
                before.flat_map(|number| [*number, to.get(number).copied().unwrap_or(*number)]).collect()
            };
            possible = choice.from.iter().zip(&choice.applied).map(led).collect();
        }
        for (class, possible) in Arc::make_mut(&mut self.classes).iter_mut().zip(possible) {
            class.states.retain(|state| possible.contains(&state.number));
        }
    }

    /// The classes of a step of the tensors present: for each one the class that it comes from and whether it takes
    /// part; and the class of each tensor. Classes that are known to be in the same state become one.
    fn part(&self, present: Option<&[bool]>) -> (Vec<(usize, bool)>, Arc<Vec<usize>>) {
        if present.is_none() && self.are_apart() {
            return ((0..self.classes.len()).map(|class| (class, true)).collect(), self.of.clone());
        }
        let mut parts = vec![(0, true)];
        let mut known = HashMap::new();
        let mut places = vec![[None; 2]; self.classes.len()];
        let mut of = Vec::with_capacity(self.of.len());
        for (tensor, &class) in self.of.iter().enumerate() {
            let present = present.is_none_or(|present| present[tensor]);
            of.push(*places[class][usize::from(present)].get_or_insert_with(|| {
                let mut new = || {
                    parts.push((class, present));
                    parts.len() - 1
                };
                match &self.classes[class].states[..] {
                    [only] => *known.entry((only.key(), only.number, present)).or_insert_with(new),
                    _ => new(),
                }
            }));
        }
        (parts, Arc::new(of))
    }

    /// Whether no two classes are known to be in the same state.
    fn are_apart(&self) -> bool {
        let mut known = HashSet::new();
        let mut only = self.classes[1..].iter().filter_map(|class| match &class.states[..] {
            [only] => Some((only.key(), only.number)),
            _ => None,
        });
        only.all(|state| known.insert(state))
    }

    /// Takes a step of the tensors that are present, of so many micro-batches, in every state. A step that is `certain`
    /// is applied.
    ///
    /// # Errors
    /// [`Error::Field`] where a schedule leads a number out of its bounds, [`Error::Order`] where too many steps have
    /// not reported.
    pub(crate) fn step(
        &mut self,
        groups: &Groups,
        present: Option<&[bool]>,
        batches: u64,
        certain: bool,
    ) -> Result<Choices> {
        self.prune();
        if self.pending.len() >= STEPS_MAX {
            let message = format!(
                "{} steps have not reported, must be at most {STEPS_MAX}; submit them, and let the device work",
                self.pending.len() + 1
            );
            return Err(Error::Order { what: "step", message });
        }
        let (parts, of) = self.part(present);
        let mut scheduled = Scheduled::new(groups);
        let mut choice = Choice::default();
        let mut classes = Vec::with_capacity(parts.len());
        let mut of_classes = Vec::with_capacity(parts.len());
        for (place, (from, present)) in parts.into_iter().enumerate() {
            let old = &self.classes[from];
            let mut after = Successors::new(if certain { &[] } else { &old.states });
            let mut applied = HashMap::new();
            let mut of_class = Vec::with_capacity(old.states.len());
            for state in &old.states {
                let mut next = state.clone();
                let step = state.steps.saturating_add(1);
                if old.follows {
                    next.steps = step;
                }
                let record = match place > 0 && present {
                    true => Some(groups.advance(scheduled.rule(state.clock.group, step)?, &mut next.clock, batches)),
                    false => None,
                };
                if !certain && next != *state {
                    next.number = next.number.wrapping_add(1);
                }
                let number = after.take(next);
                if number != state.number {
                    applied.insert(state.number, number);
                }
                of_class.push(OfState { number: state.number, record, applied: number });
            }
            let states = after.states;
            if states.len() > STATES_MAX {
                let message = format!(
                    "the {} steps that have not reported and this one leave {} states that the counts of a tensor's \
                     steps may be in, must be at most {STATES_MAX}; submit them, and let the device work",
                    self.pending.len(),
                    states.len()
                );
                return Err(Error::Order { what: "step", message });
            }
            choice.from.push(from);
            choice.applied.push(applied);
            classes.push(Class { states, follows: old.follows });
            if place > 0 {
                of_classes.push(of_class);
            }
        }
        let choices = Choices { classes: of_classes, of: of.clone() };
        if certain {
            self.settled = choice.led(&self.settled, true);
        } else {
            self.pending.push_back(Arc::new(choice));
        }
        (self.classes, self.of, self.hoped) = (Arc::new(classes), of, OnceLock::new());
        Ok(choices)
    }

    /// The numbers of a move of those of the tensors marked whose rule makes it, in every state.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub(crate) fn moved(&self, groups: &Groups, to: Moving, marked: impl Fn(usize) -> bool) -> Result<Choices> {
        let mut scheduled = Scheduled::new(groups);
        let mut of_state = |state: &State| {
            let rule = scheduled.rule(state.clock.group, Groups::step_of_move(state.steps, to))?;
            let record = groups.moved_clock(rule, &state.clock, to);
            Ok(OfState { number: state.number, record, applied: state.number })
        };
        let of_class = |class: &Class| class.states.iter().map(&mut of_state).collect::<Result<OfClass>>();
        let classes = self.classes[1..].iter().map(of_class).collect::<Result<_>>()?;
        let takes = |(tensor, &class)| if marked(tensor) && groups.makes(tensor, to) { class } else { 0 };
        Ok(Choices { classes, of: Arc::new(self.of.iter().enumerate().map(takes).collect()) })
    }

    /// Steps that have reported.
    pub(crate) fn reported(&self) -> u64 {
        self.reported
    }

    /// Learns what became of the oldest step that has not reported.
    pub(crate) fn report(&mut self, applied: bool) {
        if let Some(choice) = self.pending.pop_front() {
            self.settled = choice.led(&self.settled, applied);
            self.reported += 1;
            self.learnt = true;
            if !applied {
                self.hoped = OnceLock::new();
            }
        }
    }
}

impl Class {
    fn of_one(clock: Clock, groups: &Groups, steps: u64) -> Self {
        let follows = groups.follows_steps(clock.group);
        Self { states: vec![State { number: 0, clock, steps: if follows { steps } else { 0 } }], follows }
    }
}

/// The states behind a step. Equal ones are one.
struct Successors {
    states: Vec<State>,
    by_key: HashMap<(Key, u64), u32>,
    numbers: BTreeSet<u32>,
}

impl Successors {
    fn new(kept: &[State]) -> Self {
        Self {
            states: kept.to_vec(),
            by_key: kept.iter().map(|state| (state.key(), state.number)).collect(),
            numbers: kept.iter().map(|state| state.number).collect(),
        }
    }

    /// Takes in a state, at its number or the next one that is free, and returns the number it has.
    fn take(&mut self, mut state: State) -> u32 {
        if let Some(known) = self.by_key.get(&state.key()) {
            return *known;
        }
        while !self.numbers.insert(state.number) {
            state.number = state.number.wrapping_add(1);
        }
        self.by_key.insert(state.key(), state.number);
        self.states.push(state);
        self.states[self.states.len() - 1].number
    }
}

impl Choices {
    /// The numbers of a move in the only state.
    pub(crate) fn of_one(records: Records) -> Self {
        let (list, of) = records.parts();
        let of_one = |record| vec![OfState { number: 0, record: Some(record), applied: 0 }];
        let of = of.into_iter().map(|record| record.map_or(0, |record| record + 1)).collect();
        Self { classes: list.into_iter().map(of_one).collect(), of: Arc::new(of) }
    }

    /// How a step may renew bases in some state: each way once.
    pub(crate) fn renewals(&self, groups: &Groups) -> Vec<Renewal> {
        let mut found = Vec::new();
        for (tensor, class) in self.of().enumerate().filter_map(|(tensor, class)| Some((tensor, class?))) {
            let records = self.classes[class].iter().filter_map(|state| state.record.as_ref());
            for renewal in records.filter_map(|record| groups.rule_of(tensor).renewal(&record.hyper)) {
                if !found.contains(&renewal) {
                    found.push(renewal);
                }
            }
        }
        found
    }

    /// The class of each tensor that takes part.
    fn of(&self) -> impl ExactSizeIterator<Item = Option<usize>> {
        self.of.iter().map(|class| class.checked_sub(1))
    }

    /// The words of the only state, where the device decides nothing.
    pub(crate) fn words_of_only(&self) -> Vec<u32> {
        Records::words_of(self.classes.iter().map(|class| class[0].record.as_ref()), self.of())
    }

    /// The records of one state of each class, which `pick` picks.
    fn records(&self, pick: impl Fn(usize, &[OfState]) -> usize) -> Records {
        let (mut list, mut places) = (Vec::with_capacity(self.classes.len()), Vec::with_capacity(self.classes.len()));
        for (i, class) in self.classes.iter().enumerate() {
            let record = class[pick(i, class)].record.clone();
            places.push(record.is_some().then_some(list.len()));
            list.extend(record);
        }
        Records::new(list, self.of().map(|class| places[class?]).collect())
    }
}

/// Where things stand in control for the first so many tensors of these groups.
pub(crate) fn layout(tensors: usize, groups: &Groups) -> Layout {
    let recorded = groups.wrappers().recorded().count();
    let hyper = (0..groups.len()).map(|group| groups.rule(group).names().hyper.len()).max().unwrap_or(0);
    let record = <Common<f64> as Numbers<f64>>::NAMES.len() + recorded + hyper;
    Layout::new(tensors, groups.wrappers().on_device.len(), record)
}

/// What the walk `decide` is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Bits of [`stage`](crate::words::stage).
    pub(crate) stages: u32,
    /// The number of the step or move.
    pub(crate) sequence: u32,
    /// How many other optimizers share the decision.
    pub(crate) others: u32,
    /// Micro-batches of the step.
    pub(crate) batches: u64,
}

/// What the walk `decide` reads, a list of words for each task. The lists differ in their heads. Where `present` is
/// `None`, all tensors are.
pub(crate) fn words(
    groups: &Groups,
    layout: &Layout,
    choices: &Choices,
    present: Option<&[bool]>,
    tasks: &[Task],
) -> Vec<Vec<u32>> {
    let mut lists = vec![with_empty_head(layout, choices, present); tasks.len()];
    for (words, &task) in lists.iter_mut().zip(tasks) {
        write_head(words, groups.wrappers(), layout, task);
    }
    lists
}

/// Room for the head, and behind it the words that are the same for all tasks.
fn with_empty_head(layout: &Layout, choices: &Choices, present: Option<&[bool]>) -> Vec<u32> {
    let mut words = vec![0; step::LEN];
    match present {
        None => words.resize(step::LEN + layout.tensors, 0),
        Some(present) => words.extend(present.iter().map(|&present| if present { 0 } else { ABSENT })),
    }
    words[step::CLASS_OF] = words.len() as u32;
    words.extend(choices.of().map(|class| class.map_or(ABSENT, |class| class as u32)));
    let classes = words.len();
    words[step::CLASSES] = classes as u32;
    words[step::CLASSES_COUNT] = choices.classes.len() as u32;
    words.resize(classes + class::LEN * choices.classes.len(), 0);
    let mut first_tensors = vec![None; choices.classes.len()];
    for (tensor, class) in choices.of().enumerate() {
        if let Some(class) = class {
            first_tensors[class].get_or_insert(tensor);
        }
    }
    for (i, (of_class, first_tensor)) in choices.classes.iter().zip(first_tensors).enumerate() {
        // Numbers wrap, so they are counted from one that is as far down as any of the others.
        let some = of_class[0].number;
        let down = of_class.iter().map(|state| state.number.wrapping_sub(some) as i32).min().unwrap_or(0);
        let first = some.wrapping_add(down as u32);
        let place = |state: &OfState| state.number.wrapping_sub(first) as usize;
        let states = of_class.iter().map(|state| place(state) + 1).max().unwrap_or(0);
        let table = words.len();
        for (word, value) in [
            (class::TENSOR, first_tensor.unwrap_or(0) as u32),
            (class::FIRST, first),
            (class::STATES, if first_tensor.is_some() { states as u32 } else { 0 }),
            (class::TABLE, table as u32),
        ] {
            words[classes + class::LEN * i + word] = value;
        }
        words.resize(table + state::LEN * states, ABSENT);
        for of_state in of_class {
            let at = table + state::LEN * place(of_state);
            words[at + state::APPLIED] = of_state.applied;
            if let Some(record) = &of_state.record {
                words[at + state::RECORD] = words.len() as u32;
                record.push_terms(&mut words, layout.record);
            }
        }
    }
    words
}

/// Writes the words of a step that do not depend on clocks.
fn write_head(words: &mut [u32], wrappers: &Wrappers, layout: &Layout, task: Task) {
    let bits = |number: f64| (number as f32).to_bits();
    let limit = wrappers.clip().map_or(0.0, Clip::limit);
    let eps = match wrappers.clip() {
        Some(Clip::Adaptive(AdaptiveClip { eps, .. })) => eps,
        _ => 0.0,
    };
    let option = wrappers.on_device.iter().position(|option| option == "clip");
    for (word, value) in [
        (step::TENSORS, layout.tensors as u32),
        (step::STAGES, task.stages),
        (step::RECORDS, layout.records as u32),
        (step::RECORD_LEN, layout.record as u32),
        (step::NORMS, layout.norms as u32),
        (step::SEQUENCE, task.sequence),
        (step::CLIP_LIMIT, bits(limit)),
        (step::CLIP_EPS, bits(eps)),
        (step::CLIP_OPTION, option.map_or(ABSENT, |option| option as u32)),
        (step::SKIPS, wrappers.skips().into()),
        (step::BATCHES, bits(task.batches as f64)),
        (step::OPTIONS, layout.options as u32),
        (step::OPTIONS_COUNT, wrappers.on_device.len() as u32),
        (step::OTHERS, task.others),
    ] {
        words[word] = value;
    }
    if let Some(scale) = wrappers.loss_scale() {
        words[step::GROWTH] = bits(scale.growth);
        words[step::BACKOFF] = bits(scale.backoff);
        words[step::INTERVAL] = scale.interval as u32;
    }
}

#[cfg(test)]
mod tests;
