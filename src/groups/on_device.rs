//! Options that the device writes: which options may be such, and the numbers of a step as polynomials in them.

use super::Groups;
use crate::clock::Clock;
use crate::error::{Result, refuse};
use crate::rule::AnyRule;

impl Groups {
    /// These groups with these numbers for the options that the device writes. A group with a rate of its own keeps its
    /// ratio, and other options of its own stay. Schedules multiply these numbers as they would any.
    pub(super) fn numbers_on_device(
        &self,
        rule: &dyn AnyRule,
        clock: &Clock,
        batches: Option<u64>,
        options: &[f64],
    ) -> Vec<f64> {
        let group = &self.list[clock.group];
        let mut rule = rule.boxed();
        let mut wrappers = self.wrappers().clone();
        for (name, &number) in self.wrappers().on_device.iter().zip(options) {
            if !wrappers.set_option(name, number) && group.follows(name) {
                let (now, set) = (rule.number(name), group.rule.number(name));
                // The schedule's factor at this step: the option as scheduled over the option as set.
                let factor = now.zip(set).filter(|(_, set)| *set != 0.0).map_or(1.0, |(now, set)| now / set);
                let ratio = if name == "lr" { group.ratio } else { 1.0 };
                if let Some(option) = rule.option(name) {
                    *option = number * factor * ratio;
                }
            }
        }
        self.numbers(&*rule, &wrappers, &mut clock.clone(), batches).numbers().collect()
    }

    /// Takes numbers that a device has written as the host's own, for a training that goes on without a device.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error) for a number that the option cannot be.
    #[cfg(feature = "reference")]
    pub(crate) fn take_numbers(&mut self, numbers: &[f64]) -> Result<()> {
        let names = self.wrappers().on_device.clone();
        // What the device writes, the host cannot set.
        self.wrappers.iter_mut().for_each(|wrappers| wrappers.on_device.clear());
        let taken = names.iter().zip(numbers).try_for_each(|(name, &number)| self.take_number(name, number));
        self.wrappers.iter_mut().for_each(|wrappers| wrappers.on_device.clone_from(&names));
        taken
    }

    #[cfg(feature = "reference")]
    fn take_number(&mut self, name: &str, number: f64) -> Result<()> {
        let host = self.wrappers().option(name).or(self.rule(0).number(name));
        // The device has the host's number in f32 until it writes another.
        if host.is_some_and(|host| host as f32 == number as f32) {
            return Ok(());
        }
        if self.wrappers().option(name).is_some() {
            self.wrappers.iter_mut().for_each(|wrappers| _ = wrappers.set_option(name, number));
            return self.wrappers().check();
        }
        if name == "lr" { self.set_lr(number) } else { self.set(name, number) }
    }

    pub(super) fn terms(&self, rule: &dyn AnyRule, clock: &Clock, batches: Option<u64>) -> Vec<Vec<f64>> {
        let options = self.wrappers().on_device.len();
        if options == 0 {
            return vec![];
        }
        let corner = |of: usize| {
            let numbers: Vec<f64> = (0..options).map(|i| f64::from(of >> i & 1 == 1)).collect();
            self.numbers_on_device(rule, clock, batches, &numbers)
        };
        let mut terms: Vec<Vec<f64>> = (0..1 << options).map(corner).collect();
        // The values at the corners of the unit cube become the coefficients of the polynomial.
        for i in 0..options {
            for of in (0..terms.len()).filter(|of| of >> i & 1 == 1) {
                let without = terms[of & !(1 << i)].clone();
                terms[of].iter_mut().zip(without).for_each(|(with, without)| *with -= without);
            }
        }
        terms
    }

    /// Refuses options that the device cannot write: those on which a number of the step depends otherwise than
    /// linearly.
    ///
    /// # Errors
    /// [`Error::Field`].
    pub(crate) fn check_on_device(&self) -> Result<()> {
        if self.wrappers().on_device.is_empty() {
            return Ok(());
        }
        const KNOWN: [&str; 6] = ["lr", "weight_decay", "eps", "momentum", "alpha", "clip"];
        for (i, name) in self.wrappers().on_device.iter().enumerate() {
            let rule = self.rule(0);
            let has = self.wrappers().option(name).or(rule.number(name)).is_some();
            if !KNOWN.contains(&&name[..]) || self.wrappers().on_device[..i].contains(name) {
                return refuse(format!("on_device[{i}]"), name, format!("one of {}, each once", KNOWN.join(", ")));
            }
            if !has {
                return refuse(format!("on_device[{i}]"), name, format!("a number that {} has here", rule.name()));
            }
        }
        for (group, active) in self.list.iter().enumerate() {
            let rule = self.rule(group);
            for name in self.wrappers().on_device.iter().filter(|name| active.follows(name)) {
                let mut other = rule.boxed();
                other.option(name).into_iter().for_each(|option| *option = 0.5);
                if other.constants() != rule.constants() || other.slots() != rule.slots() {
                    let bound = format!("left to the host for {}: pipeline or state follow from it", rule.name());
                    return refuse("on_device", name, bound);
                }
            }
            for name in &self.wrappers().on_device {
                let number = rule.number(name).unwrap_or(1.0);
                if number == 0.0 && active.follows(name) && self.schedulers_of(group).any(|(option, _)| option == name)
                {
                    return refuse(name, 0, "above 0 with a schedule, which multiplies what the device writes");
                }
            }
            let batches = Some(self.wrappers().batches());
            for t in [1, 2, 3, 10, 1000] {
                let clock = Clock { group, t, carried: rule.carried(t - 1), started: t > 1, averaged_from: Some(0) };
                let terms = self.terms(rule, &clock, batches);
                let point: Vec<f64> = (0..self.wrappers().on_device.len()).map(|i| [0.37, 0.59, 0.83][i % 3]).collect();
                let found = self.numbers_on_device(rule, &clock, batches, &point);
                let carries = |option: &str, number| {
                    let mut rule = rule.boxed();
                    if let Some(option) = rule.option(option) {
                        *option = number;
                    }
                    rule.carried(t)
                };
                if let Some(name) =
                    self.wrappers().on_device.iter().find(|name| carries(name, 0.25) != carries(name, 0.5))
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
                        return refuse("on_device", self.wrappers().on_device.join(", "), bound);
                    }
                }
            }
        }
        Ok(())
    }
}
