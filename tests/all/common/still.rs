//! A twin that a refused call must leave as it was.

use std::fmt::Debug;

use wgpu_optim::{Error, Result};

use super::twin::Twin;

impl Twin {
    /// Calls, checks the error's text, and that no byte of parameters, gradients and state and no `t` has changed.
    pub fn refuses<T: Debug>(&mut self, what: &str, text: &str, call: impl FnOnce(&mut Self) -> Result<T>) {
        let before = self.everything();
        match call(self) {
            Ok(value) => panic!("{what}: accepted, with {value:?}; expected: {text}"),
            Err(error) => check(what, &error, text),
        }
        for (before, after) in before.iter().zip(self.everything()) {
            assert!(*before == after, "{what}: {} has changed", after.0);
        }
    }

    /// Every number on the GPU as bits, and the counts of steps.
    fn everything(&self) -> Vec<(String, Vec<u32>)> {
        let mut all = Vec::new();
        for tensor in &self.tensors {
            let name = &tensor.name[..];
            let mut note = |what: &str, values: Vec<f32>| {
                all.push((format!("{what} of {name}"), values.into_iter().map(f32::to_bits).collect()));
            };
            note("parameter", self.params.read_blocking(name).expect("a readback"));
            note("gradient", self.grads.read_blocking(name).expect("a readback"));
            for slot in self.optimizer.slots(name).expect("a known tensor") {
                note(slot, self.optimizer.state_blocking(name, slot).expect("a readback"));
            }
            let t = self.optimizer.t(name).expect("a known tensor");
            all.push((format!("t of {name}"), vec![t as u32, (t >> 32) as u32]));
        }
        all
    }
}

/// The error's text is `text`, or begins with it where it ends in `...`.
pub fn check(what: &str, error: &Error, text: &str) {
    let found = error.to_string();
    let same = match text.strip_suffix("...") {
        Some(start) => found.starts_with(start),
        None => found == text,
    };
    assert!(same, "{what}:\n  found    {found}\n  expected {text}");
}
