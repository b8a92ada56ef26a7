//! Options of groups, set and read between steps, and the schedules that scale them.

use super::{ActiveGroup, Groups, in_group};
use crate::error::{Error, Result, at_least_zero, refuse};
use crate::schedule::Scheduler;

impl Groups {
    /// The top level's schedule of an option, where it has one.
    pub fn scheduler(&self, option: &str) -> Option<&Scheduler> {
        self.list[0].scheduler(option)
    }

    /// The top level's schedule of an option, to be fed or resumed.
    pub fn scheduler_mut(&mut self, option: &str) -> Option<&mut Scheduler> {
        self.scheduler_mut_of(0, option)
    }

    /// The schedule of an option that a group, counted as in `groups`, has of its own.
    pub fn group_scheduler(&self, group: usize, option: &str) -> Option<&Scheduler> {
        self.list[1..].get(group)?.scheduler(option)
    }

    /// The schedule of an option that a group has of its own, to be fed or resumed.
    pub fn group_scheduler_mut(&mut self, group: usize, option: &str) -> Option<&mut Scheduler> {
        self.scheduler_mut_of(group.checked_add(1)?, option)
    }

    pub(super) fn scheduler_mut_of(&mut self, group: usize, option: &str) -> Option<&mut Scheduler> {
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

    /// An option of a group, counted as in `groups`, in the optimizer's step `step`, its schedule included.
    ///
    /// # Errors
    /// As [`value`](Self::value), and [`Error::Group`] where there is no such group.
    pub fn group_value(&self, group: usize, option: &str, step: u64) -> Result<f64> {
        self.check_group(group)?;
        self.value_of(group + 1, option, step)
    }

    pub(super) fn value_of(&self, group: usize, option: &str, step: u64) -> Result<f64> {
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
    pub(super) fn schedulers_of(&self, group: usize) -> impl Iterator<Item = &(String, Scheduler)> {
        let (top, of_group) = (&self.list[0], &self.list[group]);
        let own = of_group.schedulers.iter();
        own.chain(top.schedulers.iter().filter(|(option, _)| of_group.scheduler(option).is_none()))
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
            let is_second = group.rule.name() != self.list[0].rule.name();
            if is_second && !group.rule.options().contains(&"lr") {
                return Ok(group.rule.clone());
            }
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
        let is_of_top = |group: &ActiveGroup| group.rule.name() == self.list[0].rule.name();
        let follows = |&i: &usize| is_of_top(&self.list[i]) && !self.list[i].own.contains_key(field);
        let takers = (0..self.list.len()).filter(follows).collect::<Vec<_>>();
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
        self.rule(group + 1).check_of_group(field, value).map_err(|error| in_group(group, error))?;
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
    pub(super) fn check_of_host(&self, field: &str, value: f64) -> Result<()> {
        match self.wrappers().on_device.iter().any(|option| option == field) {
            true => refuse(field, value, "left to the device, which writes it"),
            false => Ok(()),
        }
    }

    pub(super) fn check_group(&self, group: usize) -> Result<()> {
        let groups = self.list.len() - 1;
        if group < groups {
            return Ok(());
        }
        Err(Error::Group { group, message: format!("there is no such group; the configuration has {groups}") })
    }

    pub(super) fn set_in(&mut self, groups: &[usize], field: &str, value: f64) -> Result<()> {
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
