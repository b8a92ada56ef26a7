//! Clocks: tensors with one history of applied steps share `t`.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::Tensor;

/// One history of applied steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    /// The group whose options it follows.
    pub group: usize,
    /// Applied steps.
    pub t: u64,
}

/// All clocks, and which one each tensor follows.
#[derive(Clone, Debug)]
pub struct Clocks {
    list: Vec<Clock>,
    of: Arc<Vec<usize>>,
}

impl Clocks {
    /// One clock a group that has tensors, at 0.
    pub fn new(group_of: &[usize]) -> Self {
        let mut clocks = Self { list: Vec::new(), of: Arc::new(vec![0; group_of.len()]) };
        let start = group_of.iter().map(|&group| Clock { group, t: 0 }).collect::<Vec<_>>();
        clocks.assign(&start);
        clocks
    }

    /// The clocks.
    pub fn list(&self) -> &[Clock] {
        &self.list
    }

    /// The clock of a tensor, as a place in [`list`](Self::list).
    pub fn of(&self, tensor: usize) -> usize {
        self.of[tensor]
    }

    /// Applied steps of a tensor.
    pub fn t(&self, tensor: usize) -> u64 {
        self.list[self.of[tensor]].t
    }

    /// Counts a step of all tensors, or of those marked; a tensor left out gets a clock of its own.
    pub fn advance(&mut self, present: Option<&[bool]>) {
        match present {
            None => self.list.iter_mut().for_each(|clock| clock.t = clock.t.saturating_add(1)),
            Some(present) => {
                let each = present
                    .iter()
                    .enumerate()
                    .map(|(tensor, &present)| {
                        let clock = self.list[self.of[tensor]];
                        Clock { t: clock.t.saturating_add(present.into()), ..clock }
                    })
                    .collect::<Vec<_>>();
                self.assign(&each);
            }
        }
    }

    /// Sets a tensor's `t`.
    pub fn set_t(&mut self, tensor: usize, t: u64) {
        let mut each: Vec<Clock> = self.of.iter().map(|&clock| self.list[clock]).collect();
        each[tensor].t = t;
        self.assign(&each);
    }

    /// One clock for all tensors that stand alike.
    fn assign(&mut self, each: &[Clock]) {
        let mut places = std::collections::HashMap::new();
        self.list.clear();
        let of = each
            .iter()
            .map(|&clock| {
                *places.entry(clock).or_insert_with(|| {
                    self.list.push(clock);
                    self.list.len() - 1
                })
            })
            .collect();
        self.of = Arc::new(of);
    }
}

/// The order of look-ahead and step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookedAhead(Option<Vec<bool>>);

impl LookedAhead {
    /// Notes a look-ahead of the tensors marked: those that need it and are given.
    ///
    /// # Errors
    /// [`Error::LookAhead`] where no tensor needs one or one is pending.
    pub fn look(&mut self, groups_need: bool, moved: Vec<bool>) -> Result<()> {
        if !groups_need {
            return Err(error("no option asks for one (nesterov look_ahead)"));
        }
        if self.0.is_some() {
            return Err(error("two in a row; the step between them is missing"));
        }
        self.0 = Some(moved);
        Ok(())
    }

    /// Takes the look-ahead that a step needs. `needs` marks the tensors that need it and have a gradient.
    ///
    /// # Errors
    /// [`Error::LookAhead`] where it is missing or was for other tensors.
    pub fn take(&mut self, tensors: &[Tensor], needs: impl Fn(usize) -> bool) -> Result<()> {
        let Some(looked) = &self.0 else {
            let needed = (0..tensors.len()).any(needs);
            return if needed { Err(error("a step without one before it (nesterov look_ahead)")) } else { Ok(()) };
        };
        if let Some(i) = (0..looked.len()).find(|&i| looked[i] != needs(i)) {
            let (had, has) = if looked[i] { ("in", "not in") } else { ("not in", "in") };
            return Err(error(&format!("tensor {} was {had} the look-ahead and is {has} the step", tensors[i].name)));
        }
        self.0 = None;
        Ok(())
    }
}

fn error(message: &str) -> Error {
    Error::LookAhead { message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_that_misses_a_step_keeps_its_count_and_meets_the_others_again() {
        let mut clocks = Clocks::new(&[0, 0, 1]);
        assert_eq!(clocks.list().len(), 2);
        clocks.advance(None);
        clocks.advance(Some(&[true, false, true]));
        assert_eq!([clocks.t(0), clocks.t(1), clocks.t(2)], [2, 1, 2]);
        assert_eq!(clocks.list().len(), 3);
        clocks.advance(Some(&[false, true, false]));
        assert_eq!([clocks.t(0), clocks.t(1), clocks.t(2)], [2, 2, 2]);
        assert_eq!(clocks.list().len(), 2, "equal histories share a clock again");
    }
}
