//! The numbers of a step or a move: a record for every clock that takes part.

use super::{ActiveGroup, Groups};
use crate::clock::{Clock, Clocks};
use crate::error::{Error, Result};
use crate::rule::{AnyRule, Common, Move};
use crate::words::ABSENT;
use crate::wrapper::Moment;
use crate::wrappers::{Moving, Wrappers};

/// The numbers of one step or move: a record for every clock that takes part, each number in f64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    pub(super) list: Vec<Record>,
    /// The record of each tensor, as a place in the list; none where the tensor takes no part.
    pub(super) of: Vec<Option<usize>>,
}

/// The numbers of a clock in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The numbers that are common to all rules.
    pub common: Common<f64>,
    /// The numbers of the wrappers that are on, in the order of the registry.
    pub wrapped: Vec<f64>,
    /// The rule's numbers, in the order of its `Hyper`.
    pub hyper: Vec<f64>,
    /// All these numbers as a polynomial in the options that the device writes, of the first degree in each: bit `i` of
    /// a term's place says whether the term has option `i`. Empty where there are no such options.
    pub terms: Vec<Vec<f64>>,
}

impl Record {
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.common.values().into_iter().chain(self.wrapped.iter().copied()).chain(self.hyper.iter().copied())
    }

    /// Appends all terms, each number rounded to f32 once, and each term padded to so many words at least.
    pub(crate) fn push_terms(&self, words: &mut Vec<u32>, len: usize) {
        let mut push = |numbers: &mut dyn Iterator<Item = f64>| {
            let end = words.len() + len;
            words.extend(numbers.map(|number| (number as f32).to_bits()));
            words.resize(end.max(words.len()), 0);
        };
        match &self.terms[..] {
            [] => push(&mut self.numbers()),
            terms => terms.iter().for_each(|term| push(&mut term.iter().copied())),
        }
    }
}

impl Records {
    /// These records, and for each tensor which of them is its.
    #[cfg(feature = "gpu")]
    pub(crate) fn new(list: Vec<Record>, of: Vec<Option<usize>>) -> Self {
        Self { list, of }
    }

    /// All records, and for each tensor which of them is its.
    #[cfg(feature = "gpu")]
    pub(crate) fn parts(self) -> (Vec<Record>, Vec<Option<usize>>) {
        (self.list, self.of)
    }

    /// A tensor's record, where it takes part.
    pub fn of(&self, tensor: usize) -> Option<&Record> {
        Some(&self.list[self.of[tensor]?])
    }

    /// What a shader reads: for each tensor where its record starts, or `0xffffffff`; then the records, each number
    /// rounded to f32 once.
    pub fn words(&self) -> Vec<u32> {
        Self::words_of(self.list.iter().map(Some), self.of.iter().copied())
    }

    /// The same of records in a list, and for each tensor that takes part of the place of its own.
    pub(crate) fn words_of<'a>(
        list: impl Iterator<Item = Option<&'a Record>>,
        of: impl ExactSizeIterator<Item = Option<usize>>,
    ) -> Vec<u32> {
        let mut words = vec![ABSENT; of.len()];
        let mut append = |record: Option<&Record>| {
            let start = words.len() as u32;
            record.map_or(ABSENT, |record| {
                record.push_terms(&mut words, 0);
                start
            })
        };
        let starts: Vec<u32> = list.map(&mut append).collect();
        for (word, record) in words.iter_mut().zip(of) {
            *word = record.map_or(ABSENT, |record| starts[record]);
        }
        words
    }
}

impl Groups {
    /// Whether a group's numbers follow the count of the optimizer's steps.
    #[cfg(feature = "gpu")]
    pub(crate) fn follows_steps(&self, group: usize) -> bool {
        self.schedulers_of(group).next().is_some()
    }

    /// A group's rule in the optimizer's step `step`; none where no schedule changes it.
    pub(crate) fn scheduled(&self, group: usize, step: u64) -> Result<Option<Box<dyn AnyRule>>> {
        let rule = &self.list[group].rule;
        let mut options = Vec::new();
        for (option, scheduler) in self.schedulers_of(group) {
            // A decay of kind none has no number.
            if let Some(number) = rule.number(option).filter(|_| rule.options().contains(&&option[..])) {
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
    pub(super) fn all_scheduled(&self, step: u64) -> Result<Vec<Option<Box<dyn AnyRule>>>> {
        (0..self.list.len()).map(|group| self.scheduled(group, step)).collect()
    }

    /// Counts a step of the tensors present, which has so many micro-batches, and returns its numbers.
    ///
    /// # Errors
    /// [`Error::Field`] where a schedule leads a number out of its bounds.
    pub fn step(&self, clocks: &mut Clocks, present: Option<&[bool]>, batches: u64) -> Result<Records> {
        let step = clocks.steps.saturating_add(1);
        let rules = self.all_scheduled(step)?;
        let marks = clocks.part(present);
        let mut list = Vec::new();
        let mut record_of = Vec::with_capacity(marks.len());
        for (clock, present) in clocks.list_mut().iter_mut().zip(marks) {
            record_of.push(present.then_some(list.len()));
            if present {
                list.push(self.advance(rules[clock.group].as_deref(), clock, batches));
            }
        }
        let of = (0..self.of.len()).map(|tensor| record_of[clocks.of(tensor)]).collect();
        clocks.steps = step;
        if present.is_some() {
            clocks.join();
        }
        Ok(Records { list, of })
    }

    /// Counts a step of a clock, and gives its numbers.
    pub(crate) fn advance(&self, scheduled: Option<&dyn AnyRule>, clock: &mut Clock, batches: u64) -> Record {
        if self.wrappers().ema().is_some() {
            clock.averaged_from.get_or_insert(clock.t);
        }
        clock.t = clock.t.saturating_add(1);
        let record = self.record(scheduled, clock, Some(batches));
        clock.started = true;
        record
    }

    /// The numbers of a move, for those of the tensors marked whose rule makes it. A look-ahead has the numbers of the
    /// coming step. A tensor that has had no step is evaluated where it stands.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn moved(&self, clocks: &Clocks, to: Moving, marked: impl Fn(usize) -> bool) -> Result<Records> {
        let rules = self.all_scheduled(Self::step_of_move(clocks.steps, to))?;
        let of_clock = |clock: &Clock| self.moved_clock(rules[clock.group].as_deref(), clock, to);
        let each: Vec<_> = clocks.list().iter().map(of_clock).collect();
        let takes = |&i: &usize| marked(i) && self.makes(i, to) && each[clocks.of(i)].is_some();
        let of = (0..self.of.len()).map(|tensor| Some(tensor).filter(takes).map(|i| clocks.of(i))).collect();
        let (mut list, mut places) = (Vec::new(), Vec::with_capacity(each.len()));
        for record in each {
            places.push(list.len());
            list.extend(record);
        }
        let of = Vec::into_iter(of).map(|clock: Option<usize>| clock.map(|clock| places[clock])).collect();
        Ok(Records { list, of })
    }

    /// The optimizer's step whose schedules a move follows: a look-ahead's is the step to come.
    pub(crate) fn step_of_move(steps: u64, to: Moving) -> u64 {
        steps.saturating_add((to == Moving::Rule(Move::LookAhead)).into()).max(1)
    }

    /// Whether the tensor's rule makes a move.
    pub(crate) fn makes(&self, tensor: usize, to: Moving) -> bool {
        match to {
            Moving::Rule(to) => self.rule_of(tensor).moves().contains(&to),
            Moving::Wrapper(..) => true,
        }
    }

    /// The numbers of a clock in a move, where it has come far enough for the move.
    pub(crate) fn moved_clock(&self, scheduled: Option<&dyn AnyRule>, clock: &Clock, to: Moving) -> Option<Record> {
        let ahead = to == Moving::Rule(Move::LookAhead);
        let makes = match to {
            Moving::Rule(to) => matches!(to, Move::LookAhead | Move::Trial) || clock.started,
            // A mean that starts at 0 holds nothing before its first step.
            Moving::Wrapper(..) => {
                let debias = self.wrappers().ema().is_some_and(|ema| ema.debias);
                clock.averaged_from.is_some() && (!debias || clock.averaged() > 0)
            }
        };
        let t = clock.t.saturating_add(ahead.into()).max(1);
        let batches = ahead.then(|| self.wrappers().batches());
        makes.then(|| self.record(scheduled, &mut Clock { t, ..*clock }, batches))
    }

    /// The numbers of a clock at its `t`. In a step, which has micro-batches, `hyper` also advances what the clock
    /// carries.
    pub(super) fn record(&self, scheduled: Option<&dyn AnyRule>, clock: &mut Clock, batches: Option<u64>) -> Record {
        let rule = scheduled.unwrap_or(&*self.list[clock.group].rule);
        let terms = self.terms(rule, clock, batches);
        Record { terms, ..self.numbers(rule, self.wrappers(), clock, batches) }
    }

    pub(super) fn numbers(
        &self,
        rule: &dyn AnyRule,
        wrappers: &Wrappers,
        clock: &mut Clock,
        batches: Option<u64>,
    ) -> Record {
        let ActiveGroup { maximize, lr_initial, .. } = &self.list[clock.group];
        let mut common = Common::new(*maximize, rule.weight_decay(), rule.lr(), *lr_initial);
        common.first = f64::from(batches.is_some() && !clock.started);
        let seed = self.seed_of(clock.group);
        let wrapped = wrappers.numbers(Moment { t: clock.t, averaged: clock.averaged(), batches, seed });
        let mut hyper = Vec::new();
        rule.hyper(clock.t, &mut clock.carried, &mut hyper);
        Record { common, wrapped, hyper, terms: vec![] }
    }
}
