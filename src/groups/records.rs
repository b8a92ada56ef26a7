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
    /// Each tensor's.
    pub(super) of: Vec<Option<usize>>,
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
            record.push_terms(&mut words, 0);
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
    /// A group's rule in the optimizer's step `step`; none where no schedule changes it.
    pub(super) fn scheduled(&self, group: usize, step: u64) -> Result<Option<Box<dyn AnyRule>>> {
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

    /// Counts a step of the tensors present, of so many micro-batches, and gives its numbers.
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
                if self.wrappers().ema().is_some() {
                    clock.averaged_from.get_or_insert(clock.t);
                }
                clock.t = clock.t.saturating_add(1);
                list.push(self.record(rules[clock.group].as_deref(), clock, Some(batches)));
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
            let batches = ahead.then(|| self.wrappers().batches());
            self.record(rules[clock.group].as_deref(), &mut Clock { t, ..*clock }, batches)
        };
        let list = clocks.list().iter().map(record).collect();
        let debias = self.wrappers().ema().is_some_and(|ema| ema.debias);
        let moves = |tensor: usize| {
            let clock = clocks.clock(tensor);
            let makes = match to {
                Moving::Rule(to) => (ahead || clock.started) && self.rule_of(tensor).moves().contains(&to),
                // A mean that starts at 0 holds nothing before its first step.
                Moving::Wrapper(..) => clock.averaged_from.is_some() && (!debias || clock.averaged() > 0),
            };
            marked(tensor) && makes
        };
        let of = (0..self.of.len()).map(|tensor| moves(tensor).then(|| clocks.of(tensor))).collect();
        Ok(Records { list, of })
    }

    /// The numbers of a clock at its `t`. Those of a step, which has micro-batches, take what it carries with them.
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
        let wrapped = wrappers.numbers(Moment { t: clock.t, averaged: clock.averaged(), batches, seed: wrappers.seed });
        let mut hyper = Vec::new();
        rule.hyper(clock.t, &mut clock.carried, &mut hyper);
        Record { common, wrapped, hyper, terms: vec![] }
    }
}
