//! The running mean of the parameters is fused around every rule, swapped in and out, and copied out.

use crate::common::twin::{Parity, bound, noise, tensors, ulps};
use crate::common::{default_of, gpu, say, say_share, share_of_cases};
use ndarray::ArrayD;
use serde_json::{Value, json};
use wgpu_optim::{Arena, Config, Ema, Lookahead, TensorSpec};

const DECAY: f64 = 0.75;

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

fn some_tensors() -> Vec<TensorSpec> {
    let shaped = [TensorSpec::f32("m0", [5, 7]), TensorSpec::f32("m1", [2, 35, 68])];
    tensors(&[0, 1, 3, 1024, 1025, 8195]).into_iter().chain(shaped).collect()
}

/// Reads parameters and means as bits.
fn bits(twin: &Parity) -> Vec<[Vec<u32>; 2]> {
    let of = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let each = twin.tensors.iter().map(|tensor| {
        let mean = twin.optimizer.state_blocking(&tensor.name, "ema").expect("a readback");
        [of(twin.params.read_blocking(&tensor.name).expect("a readback")), of(mean)]
    });
    each.collect()
}

/// The mean in f64 of a tensor's parameters as they are after each step.
struct Mean {
    values: Vec<f64>,
    debias: bool,
    t: i32,
}

impl Mean {
    fn new(start: &[f32], debias: bool) -> Self {
        let values = start.iter().map(|&p| if debias { 0.0 } else { f64::from(p) }).collect();
        Self { values, debias, t: 0 }
    }

    fn take(&mut self, params: &[f32]) {
        self.t += 1;
        for (mean, &p) in self.values.iter_mut().zip(params) {
            *mean = DECAY * *mean + (1.0 - DECAY) * f64::from(p);
        }
    }

    fn check(&self, what: &str, found: &[f32]) {
        let divisor = if self.debias { 1.0 - DECAY.powi(self.t) } else { 1.0 };
        assert_eq!(found.len(), self.values.len(), "{what}");
        for (i, (&found, mean)) in found.iter().zip(&self.values).enumerate() {
            let expected = mean / divisor;
            // Measured: 1.2e-7 of 8, the largest parameter, after five steps.
            let error = (f64::from(found) - expected).abs();
            assert!(error <= 3e-7 * expected.abs().max(8.0), "{what}[{i}]: {found:e}, expected {expected:e}");
        }
    }
}

#[test]
fn every_rule_keeps_a_mean_of_its_parameters() {
    let (tried, all) = share_of_cases(2);
    let Some(gpu) = gpu("means of parameters", all) else { return };
    say_share("means of parameters", tried.len(), all);
    let list = some_tensors();
    for (row, case, rule) in tried {
        for debias in [false, true] {
            let what = format!("{}/{case}, debias {debias}", row.name);
            let mut twin = Parity::new(&gpu, &Config::from(rule.clone()).wrap(Ema { decay: DECAY, debias }), &list, 51);
            let read = |twin: &Parity, i: usize| twin.params.read_blocking(&list[i].name).unwrap();
            let mut means: Vec<_> = (0..list.len()).map(|i| Mean::new(&read(&twin, i), debias)).collect();
            // A look-ahead would have moved the tensors that take no part, and with a history all take part.
            let all_move = twin.optimizer.needs_look_ahead() || default_of(row).history().is_some();
            let some: &[&str] = if all_move { &[] } else { &["t3", "m0"] };
            for absent in [&[][..], some, &[]] {
                let worst = twin.step_without(absent);
                assert!(worst.ulps <= bound(&gpu), "{what}: {} ulp: {}", worst.ulps, worst.text);
                for (i, mean) in means.iter_mut().enumerate().filter(|(i, _)| !absent.contains(&&list[*i].name[..])) {
                    mean.take(&read(&twin, i));
                }
            }
            let copy = Arena::new(&gpu, &twin.tensors).unwrap();
            twin.optimizer.ema_into(&copy).unwrap();
            let mut values = twin.values.clone();
            twin.reference.ema_into(&mut values).unwrap();
            for ((tensor, mean), expected) in list.iter().zip(&means).zip(&values) {
                let found = copy.read_blocking(&tensor.name).unwrap();
                if found.iter().all(|x| x.is_finite() && x.abs() < 8.0) {
                    mean.check(&format!("{what}: {}", tensor.name), &found);
                }
                for (&found, &expected) in found.iter().zip(expected) {
                    assert!(ulps(found, expected, 0.0) <= bound(&gpu), "{what}: {found:e}, expected {expected:e}");
                }
            }
        }
        say(&format!("means around {}: as the reference", row.name));
    }
}

#[test]
fn a_swap_and_another_lead_back_to_the_same_bits() {
    let Some(gpu) = gpu("swaps", 4) else { return };
    for (fields, rule) in [(json!({}), "adamw"), (json!({"skip_nonfinite": true}), "adamw"), (json!({}), "novograd")]
        .into_iter()
        .chain([(json!({"lookahead": {"k": 2}}), "schedule_free")])
    {
        let mut value = json!({"optimizer": rule, "lr": 0.1, "ema": {"decay": DECAY}});
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut twin = Parity::new(&gpu, &config(value.clone()), &some_tensors(), 52);
        // t3 is not there before the swap, and stays as it is.
        for _ in 0..3 {
            twin.step_without(&["t3"]);
        }
        let before = twin.snapshot();
        let start = bits(&twin);
        twin.optimizer.swap_ema(&twin.params).unwrap();
        twin.reference.swap_ema(&mut twin.values).unwrap();
        let worst = twin.compare(&before);
        assert!(worst.ulps == 0.0, "{value}: {}", worst.text);
        for (i, ([params, mean], tensor)) in bits(&twin).into_iter().zip(&twin.tensors).enumerate() {
            let [old_params, old_mean] = &start[i];
            if tensor.name == "t3" {
                assert!(params == *old_params && mean == *old_mean, "{value}: before its first step");
            } else {
                assert!(params == *old_mean && mean == *old_params, "{value}: {} changes places", tensor.name);
                assert!(params.is_empty() || params != mean, "{value}: {}", tensor.name);
            }
        }
        twin.optimizer.swap_ema(&twin.params).unwrap();
        twin.reference.swap_ema(&mut twin.values).unwrap();
        assert!(bits(&twin) == start, "{value}: twice");
        for _ in 0..2 {
            let worst = twin.step();
            assert!(worst.ulps <= bound(&gpu), "{value}: {} ulp: {}", worst.ulps, worst.text);
        }
    }
}

#[test]
fn a_forgotten_swap_is_none() {
    let Some(gpu) = gpu("forgotten swaps", 2) else { return };
    let value = json!({"optimizer": "sgd", "ema": {"decay": 0.5}});
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[3]), 53);
    twin.step();
    for undoes in [true, false] {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let token = twin.optimizer.encode_swap_ema(&mut encoder, &twin.params).unwrap();
        assert!(twin.optimizer.step(&twin.params, &twin.grads).is_err());
        drop(encoder);
        if undoes {
            twin.optimizer.undo(token).unwrap();
        }
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "undoes {undoes}: {}", worst.text);
    }
}

#[test]
fn what_cannot_be_while_swapped_is_refused() {
    let Some(gpu) = gpu("refused swaps", 11) else { return };
    let twin = |value: Value| Parity::new(&gpu, &config(value), &tensors(&[3, 5]), 54);
    let swapped = "the parameters are swapped with their mean; swap them back first";

    let mut free = twin(json!({"optimizer": "schedule_free", "ema": {}}));
    free.step();
    free.optimizer.swap_ema(&free.params).unwrap();
    free.reference.swap_ema(&mut free.values).unwrap();
    free.refuses("step", &format!("step: {swapped}"), |t| t.optimizer.step(&t.params, &t.grads));
    free.refuses("ema_into", &format!("ema: {swapped}"), |t| t.optimizer.ema_into(&t.params));
    let text = "evaluation: the parameters are in evaluation already";
    free.refuses("evaluation", text, |t| t.optimizer.eval(&t.params));
    let text = "training: the parameters are swapped with their mean; swap them back";
    free.refuses("training", text, |t| t.optimizer.train(&t.params));
    let mut values = free.values.clone();
    assert_eq!(free.reference.ema_into(&mut values).unwrap_err().to_string(), format!("ema: {swapped}"));
    let grads: Vec<Option<ArrayD<f32>>> = values.iter().cloned().map(Some).collect();
    assert_eq!(free.reference.step(&mut values, &grads).unwrap_err().to_string(), format!("step: {swapped}"));
    free.optimizer.swap_ema(&free.params).unwrap();
    free.reference.swap_ema(&mut free.values).unwrap();
    free.optimizer.eval(&free.params).unwrap();
    let text = "swap: the parameters are in evaluation; call train first";
    free.refuses("in evaluation", text, |t| t.optimizer.swap_ema(&t.params));
    free.optimizer.train(&free.params).unwrap();

    let mut part = twin(json!({"optimizer": "sgd", "ema": {}}));
    part.step();
    let text = "parameter of tensor t1: is missing; all parameters move together";
    part.refuses("a part", text, |t| t.optimizer.swap_ema(&t.params.without(&["t1"]).unwrap()));

    let mut none = twin(json!({"optimizer": "sgd"}));
    let text = "configuration: ema: is not set; there is no mean of the parameters";
    none.refuses("swap without", text, |t| t.optimizer.swap_ema(&t.params));
    none.refuses("copy without", text, |t| t.optimizer.ema_into(&t.params));
    assert_eq!(none.reference.swap_ema(&mut none.values).unwrap_err().to_string(), text);

    let mut debiased = twin(json!({"optimizer": "sgd", "ema": {"debias": true}}));
    debiased.step();
    let text = "ema.debias is true, must be false to swap in place; ema_into copies the mean out";
    debiased.refuses("debias", text, |t| t.optimizer.swap_ema(&t.params));

    let look_ahead = json!({
        "optimizer": "sgd", "momentum": 0.5, "form": "velocity", "nesterov": "look_ahead", "ema": {}
    });
    let mut ahead = twin(look_ahead);
    ahead.step();
    ahead.optimizer.look_ahead(&ahead.params).unwrap();
    let text = "swap: a look-ahead waits for its step; take the step first";
    ahead.refuses("look-ahead", text, |t| t.optimizer.swap_ema(&t.params));
}

#[test]
fn the_mean_is_of_what_lookahead_leaves() {
    let Some(gpu) = gpu("means of lookahead", 2) else { return };
    for debias in [false, true] {
        let config = config(json!({"optimizer": "sgd", "lr": 0.5, "ema": {"decay": DECAY, "debias": debias}}));
        let mut twin = Parity::new(&gpu, &config.wrap(Lookahead { k: 2, alpha: 0.5 }), &tensors(&[1030]), 55);
        let mut mean = Mean::new(&twin.params.read_blocking("t0").unwrap(), debias);
        for _ in 0..5 {
            // Gradients below 1, so that parameters stay below 8.
            let grads = noise(&mut twin.rng, 1030).into_iter().map(|g| g / 16.0).collect();
            let worst = twin.step_with(vec![grads], &[]);
            assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
            mean.take(&twin.params.read_blocking("t0").unwrap());
        }
        let copy = Arena::new(&gpu, &twin.tensors).unwrap();
        twin.optimizer.ema_into(&copy).unwrap();
        mean.check("t0", &copy.read_blocking("t0").unwrap());
        assert_eq!(twin.optimizer.steps(), 5, "a copy is no step");
    }
}

#[test]
fn what_has_not_started_is_not_copied() {
    let Some(gpu) = gpu("means before the first step", 4) else { return };
    for (debias, skips) in [(false, false), (true, false), (false, true), (true, true)] {
        let value = json!({"optimizer": "adam", "skip_nonfinite": skips, "ema": {"decay": 0.5, "debias": debias}});
        let mut twin = Parity::new(&gpu, &config(value), &tensors(&[3, 5]), 56);
        let copy = Arena::new(&gpu, &twin.tensors).unwrap();
        copy.write("t0", &[9.0; 3]).unwrap();
        copy.write("t1", &[9.0; 5]).unwrap();
        twin.optimizer.ema_into(&copy).unwrap();
        assert_eq!(copy.read_blocking("t0").unwrap(), [9.0; 3]);
        if skips {
            twin.step_with(vec![vec![f32::NAN; 3], vec![1.0; 5]], &[]);
            twin.optimizer.ema_into(&copy).unwrap();
            assert_eq!(copy.read_blocking("t0").unwrap(), [9.0; 3], "a step that is skipped starts nothing");
        }
        twin.step_without(&["t1"]);
        twin.optimizer.ema_into(&copy).unwrap();
        assert_ne!(copy.read_blocking("t0").unwrap(), [9.0; 3]);
        assert_eq!(copy.read_blocking("t1").unwrap(), [9.0; 5]);
    }
}
