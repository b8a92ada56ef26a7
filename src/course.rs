//! The course of a training where the device decides which steps are applied: the states that the clocks may be in, and
//! the words of a step that tell the device of them.
//!
//! The host never waits to learn which steps were applied. It keeps every state that the clocks may be in, called a
//! world, and sends the numbers of each world with the step. The device knows by its number which world is the true
//! one. A report, which comes later, tells the host which worlds have become impossible. Twin:
//! `shaders/skeletons/decide.wgsl`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Clocks;
use crate::error::{Error, Result};
use crate::groups::{Groups, Records};
use crate::rule::{Common, Numbers};
use crate::words::{ABSENT, Layout, step, world};
use crate::wrappers::{AdaptiveClip, Clip, Wrappers};

/// Worlds that may be possible at once. Where all tensors take part in each step, and schedules alone set what rules
/// carry, there is one world more than steps that have not reported. Else each such step may double their number.
const WORLDS_MAX: usize = 1024;

/// All states that the clocks may be in.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// The worlds, each at the number that the device knows it by. Some may be impossible by now.
    worlds: Arc<Vec<Clocks>>,
    /// Steps that have not reported, the oldest first.
    pending: VecDeque<Arc<Choice>>,
    /// The world that was true before the oldest step that has not reported.
    settled: u32,
    /// Steps that have reported.
    reported: u64,
    /// Whether a step has reported since the worlds were listed, so that some may be impossible.
    learnt: bool,
}

/// Where a step leads from each world.
#[derive(Debug, Default)]
struct Choice {
    applied: Vec<u32>,
    skipped: Vec<u32>,
}

/// The numbers of a step or a move in each world that is possible, and the worlds that it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) records: Vec<Option<Records>>,
    choice: Arc<Choice>,
}

impl Course {
    pub(crate) fn new(clocks: Clocks) -> Self {
        Self { worlds: Arc::new(vec![clocks]), pending: VecDeque::new(), settled: 0, reported: 0, learnt: false }
    }

    /// The course that a checkpoint holds: after so many steps, the skipped ones included.
    pub(crate) fn resumed(clocks: Clocks, attempts: u64) -> Self {
        Self { reported: attempts, ..Self::new(clocks) }
    }

    /// The numbers of a move since the last step, in the world that is known to be true.
    pub(crate) fn records<'a>(&self, choices: &'a Choices) -> &'a Records {
        let known = choices.records.get(self.settled as usize).and_then(Option::as_ref);
        known.unwrap_or_else(|| choices.only())
    }

    /// The clocks where every step that has not reported is applied.
    pub(crate) fn hoped(&self) -> &Clocks {
        let world = self.pending.iter().fold(self.settled, |world, choice| choice.applied[world as usize]);
        &self.worlds[world as usize]
    }

    /// Steps encoded so far.
    pub(crate) fn attempts(&self) -> u64 {
        self.reported + self.pending.len() as u64
    }

    /// Changes the clocks in every world.
    pub(crate) fn change(&mut self, change: impl FnMut(&mut Clocks)) {
        Arc::make_mut(&mut self.worlds).iter_mut().for_each(change);
    }

    fn possible(&self) -> Vec<bool> {
        if !self.learnt {
            return vec![true; self.worlds.len()];
        }
        let mut numbers = vec![self.settled];
        for choice in &self.pending {
            let led = |&world: &u32| [choice.applied[world as usize], choice.skipped[world as usize]];
            numbers = numbers.iter().flat_map(led).collect();
            numbers.sort_unstable();
            numbers.dedup();
        }
        let mut possible = vec![false; self.worlds.len()];
        numbers.into_iter().for_each(|world| possible[world as usize] = true);
        possible
    }

    /// Takes a step of the tensors that are present, of so many micro-batches, in every world. A step that is `certain`
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
        let mut worlds: Vec<Clocks> = Vec::new();
        let mut number = |clocks: Clocks| {
            // The same world is most often the last one.
            worlds.iter().rposition(|world| *world == clocks).unwrap_or_else(|| {
                worlds.push(clocks);
                worlds.len() - 1
            }) as u32
        };
        let mut records = Vec::with_capacity(self.worlds.len());
        let mut choice = Choice::default();
        for (world, possible) in self.worlds.iter().zip(self.possible()) {
            let (mut skipped, mut applied) = (0, 0);
            records.push(match possible {
                false => None,
                true => {
                    let mut after = world.clone();
                    let records = groups.step(&mut after, present, batches)?;
                    if !certain {
                        skipped = number(world.clone());
                    }
                    applied = number(after);
                    Some(records)
                }
            });
            choice.skipped.push(skipped);
            choice.applied.push(applied);
        }
        if worlds.len() > WORLDS_MAX {
            let message = format!(
                "the {} steps that have not reported and this one leave {} states that the counts of steps may be in, \
                 must be at most {WORLDS_MAX}; submit them, and let the device work",
                self.pending.len(),
                worlds.len()
            );
            return Err(Error::Order { what: "step", message });
        }
        let choice = Arc::new(choice);
        self.pending.push_back(choice.clone());
        self.worlds = Arc::new(worlds);
        self.learnt = false;
        Ok(Choices { records, choice })
    }

    /// The numbers of a move in every world.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub(crate) fn moved(&self, numbers: impl Fn(&Clocks) -> Result<Records>) -> Result<Choices> {
        let of_world = |(world, possible): (&Clocks, bool)| possible.then(|| numbers(world)).transpose();
        let records = self.worlds.iter().zip(self.possible()).map(of_world).collect::<Result<_>>()?;
        Ok(Choices { records, choice: Arc::default() })
    }

    /// Learns what became of the oldest step that has not reported.
    pub(crate) fn report(&mut self, applied: bool) {
        if let Some(choice) = self.pending.pop_front() {
            let led = if applied { &choice.applied } else { &choice.skipped };
            self.settled = led[self.settled as usize];
            self.reported += 1;
            self.learnt = true;
        }
    }

    /// Goes back to an earlier course, but keeps what was learnt since.
    pub(crate) fn go_back(&mut self, mut earlier: Self) {
        while earlier.reported < self.reported && earlier.pending.pop_front().is_some() {
            earlier.reported += 1;
        }
        earlier.settled = self.settled;
        earlier.learnt = true;
        *self = earlier;
    }
}

impl Choices {
    /// The numbers of a move in the only world.
    pub(crate) fn of_one(records: Records) -> Self {
        Self { records: vec![Some(records)], choice: Arc::default() }
    }

    /// The records of the only world, where the device decides nothing.
    pub(crate) fn only(&self) -> &Records {
        self.records.iter().flatten().next().expect("some world is possible")
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
    /// The number of the step before this one, and of this one.
    pub(crate) sequence: [u32; 2],
    /// How many other optimizers share the decision.
    pub(crate) others: u32,
    /// Micro-batches of the step.
    pub(crate) batches: u64,
}

/// What the walk `decide` reads, a list of words for each task. The lists differ in their heads.
pub(crate) fn words(
    groups: &Groups,
    layout: &Layout,
    choices: &Choices,
    present: &[bool],
    tasks: &[Task],
) -> Vec<Vec<u32>> {
    let mut lists = vec![with_empty_head(layout, choices, present); tasks.len()];
    for (words, &task) in lists.iter_mut().zip(tasks) {
        write_head(words, groups.wrappers(), layout, task);
    }
    lists
}

/// Room for the head, and behind it the words that are the same for all tasks.
fn with_empty_head(layout: &Layout, choices: &Choices, present: &[bool]) -> Vec<u32> {
    let mut words = vec![0; step::LEN];
    words.extend(present.iter().map(|&present| if present { 0 } else { ABSENT }));
    let table = words.len();
    words[step::WORLDS] = table as u32;
    words.resize(table + choices.records.len(), 0);
    let mut map: Option<(&[Option<usize>], u32)> = None;
    for (number, records) in choices.records.iter().enumerate() {
        let Some(records) = records else { continue };
        let clock_of = match map {
            Some((known, place)) if known == records.map() => place,
            _ => {
                let place = words.len() as u32;
                words.extend(records.map().iter().map(|clock| clock.map_or(ABSENT, |clock| clock as u32)));
                map = Some((records.map(), place));
                place
            }
        };
        words[table + number] = words.len() as u32;
        let led = |to: &[u32]| to.get(number).copied().unwrap_or(0);
        let mut head = [0; world::LEN];
        head[world::APPLIED] = led(&choices.choice.applied);
        head[world::SKIPPED] = led(&choices.choice.skipped);
        head[world::CLOCKS] = records.list().len() as u32;
        head[world::CLOCK_OF] = clock_of;
        words.extend(head);
        records.list().iter().for_each(|record| record.push_terms(&mut words, layout.record));
    }
    words
}

/// Writes the words of a step that do not depend on worlds.
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
        (step::BEFORE, task.sequence[0]),
        (step::AFTER, task.sequence[1]),
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
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::rules::Adam;
    use crate::tensor::TensorSpec;

    fn course() -> (Groups, Course) {
        let groups = Config::from(Adam::default()).groups(&[TensorSpec::f32("w", [1])]).unwrap();
        let course = Course::new(Clocks::new(groups.of()));
        (groups, course)
    }

    #[test]
    fn as_many_worlds_are_possible_as_steps_have_not_reported_and_one() {
        let (groups, mut course) = course();
        for steps in 1..=5 {
            course.step(&groups, None, 1, false).unwrap();
            assert_eq!(course.worlds.len(), steps + 1);
        }
        let (mut steps, mut possible) = (vec![], 6);
        for applied in [true, false, true, true, false] {
            course.report(applied);
            possible -= 1;
            assert_eq!(course.possible().into_iter().filter(|&possible| possible).count(), possible);
            steps.push(course.hoped().steps);
        }
        assert_eq!(steps, [5, 4, 4, 4, 3], "hoped for, then known");
    }

    #[test]
    fn what_was_reported_since_is_known_after_a_step_is_taken_back() {
        let (groups, mut course) = course();
        course.step(&groups, None, 1, false).unwrap();
        let earlier = course.clone();
        course.step(&groups, None, 1, false).unwrap();
        course.report(true);
        course.go_back(earlier);
        assert_eq!((course.hoped().steps, course.attempts(), course.pending.len()), (1, 1, 0));
        assert_eq!(course.possible(), [false, true]);
        course.step(&groups, None, 1, false).unwrap();
        course.report(true);
        assert_eq!((course.hoped().steps, course.attempts()), (2, 2));
    }

    #[test]
    fn too_many_steps_that_have_not_reported_are_refused() {
        let (groups, mut course) = course();
        for _ in 0..WORLDS_MAX - 1 {
            course.step(&groups, None, 1, false).unwrap();
        }
        let error = course.clone().step(&groups, None, 1, false).unwrap_err().to_string();
        let expected = "step: the 1023 steps that have not reported and this one leave 1025 states that the counts of \
                        steps may be in, must be at most 1024; submit them, and let the device work";
        assert_eq!(error, expected);
        course.report(true);
        course.step(&groups, None, 1, false).unwrap();
    }
}
