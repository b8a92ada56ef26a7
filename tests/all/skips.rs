//! The device skips steps, whatever the rule, as the reference does and as runs without the bad batches do.

use std::collections::HashSet;

use crate::common::twin::{Parity, Worst, all_tensors, bound, noise, same, tensors};
use crate::common::{default_of, device, gpu, say, say_share, share};
use ndarray::ArrayD;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use wgpu_optim::proof::check;
use wgpu_optim::rule::AnyRule;
use wgpu_optim::rules::ALL;
use wgpu_optim::{
    Arena, Config, DType, Ema, Gpu, Lookahead, LossScale, LossScaleState, NonFinite, Optimizer, Schedule,
    SkipNonfinite, StepReport, TensorSpec,
};

/// 2^63.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Makes a loss scale that changes often.
fn quick_scale() -> LossScale {
    LossScale { init: 8.0, growth: 2.0, backoff: 0.25, interval: 2 }
}

/// The rule with `skip_nonfinite` alone, and with all wrappers and schedules that count applied steps.
fn both(rule: Box<dyn AnyRule>) -> [Config; 2] {
    let scheduled = rule.options().contains(&"lr");
    let checked = Config::from(rule).wrap(SkipNonfinite(true));
    let all = checked.clone().wrap(SkipNonfinite(false)).wrap(quick_scale());
    let all = all.wrap(Lookahead { k: 2, alpha: 0.3 }).wrap(Ema { decay: 0.75, debias: false });
    let falling = Schedule::custom(|t| 1.0 / t as f64);
    [checked, if scheduled { all.schedule("lr", falling) } else { all }]
}

fn number(kind: NonFinite, scale: f64) -> f32 {
    match kind {
        NonFinite::NaN => f32::NAN,
        NonFinite::Infinite => f32::NEG_INFINITY,
        NonFinite::TooLarge => (TOO_LARGE * scale) as f32,
    }
}

/// A step of both with a bad number at an element of a tensor, or with none. What is skipped must leave every word as
/// it was; what is not must be the reference's.
fn step(twin: &mut Parity, bad: Option<(usize, usize, NonFinite)>, what: &str) {
    twin.optimizer.settle_blocking().unwrap();
    twin.optimizer.reports().unwrap();
    let before = twin.words();
    let scale = twin.reference.loss_scale().scale;
    let worst = twin.step_changed(&[], |i, values| {
        if let Some((tensor, element, kind)) = bad.filter(|bad| bad.0 == i) {
            assert_eq!(tensor, i);
            values[element] = number(kind, scale);
        }
    });
    twin.optimizer.settle_blocking().unwrap();
    assert!(worst.ulps <= bound(&twin.gpu), "{what}: {}", worst.text);
    let after = twin.words();
    match bad {
        Some(_) => before.iter().zip(&after).for_each(|(a, b)| assert_eq!(a, b, "{what}")),
        None => assert_ne!(before[0], after[0], "{what}: a step"),
    }
    let reports = twin.optimizer.reports().unwrap();
    let expected = twin.reference.report().expect("a step was taken");
    assert!(reports.len() == 1 && same(&reports[0], expected), "{what}: {reports:?}, expected {expected:?}");
    let culprit = bad.map(|(tensor, _, kind)| (twin.tensors[tensor].name.clone(), kind));
    assert_eq!((reports[0].applied, &reports[0].culprit), (bad.is_none(), &culprit), "{what}");
    for tensor in &twin.tensors {
        let name = &tensor.name[..];
        assert_eq!(twin.optimizer.t(name), twin.reference.t(name), "{what}: t of {name}");
        assert_eq!(twin.optimizer.carried(name), twin.reference.carried(name), "{what}: {name}");
    }
    assert_eq!(twin.optimizer.steps(), twin.reference.steps(), "{what}");
    if reports[0].scale != 1.0 {
        assert_eq!(twin.optimizer.loss_scale_blocking().unwrap(), twin.reference.loss_scale(), "{what}");
    }
}

/// Vectors and matrices, none of whose ends is a whole vector of four.
fn few() -> Vec<TensorSpec> {
    let mut list = tensors(&[5, 1026]);
    list.push(TensorSpec::f32("m0", [3, 70]));
    list
}

#[test]
fn a_bad_gradient_skips_the_step_of_every_rule() {
    let Some(gpu) = gpu("skips of every rule", ALL.len()) else { return };
    let (mut cases, mut all, mut undone) = (0, 0, 0);
    for row in ALL {
        for (case, rule) in (row.cases)() {
            let configs: Vec<_> = both(rule).into_iter().zip(["checked", "with all"]).collect();
            all += configs.len();
            for (config, name) in share(configs, 2, cases) {
                let mut twin = Parity::new(&gpu, &config, &few(), 31);
                undone += usize::from(twin.optimizer.needs_look_ahead());
                let last = (2, 209);
                let steps = [
                    Some((last.0, last.1, NonFinite::NaN)),
                    None,
                    Some((0, 0, NonFinite::Infinite)),
                    None,
                    Some((last.0, last.1, NonFinite::TooLarge)),
                    None,
                ];
                for (i, bad) in steps.into_iter().enumerate() {
                    step(&mut twin, bad, &format!("{}/{case}, {name}, step {}", row.name, i + 1));
                }
                cases += 1;
            }
        }
    }
    say(&format!("skips: {cases} cases, {undone} of them with a look-ahead to be undone"));
    say_share("skips", cases, all);
    assert!(undone > 0, "no case looks ahead");
}

#[test]
fn counts_beyond_32_bits_follow_the_applied_steps() {
    let Some(gpu) = gpu("skips at late steps", ALL.len()) else { return };
    for row in ALL {
        for (start, config) in [(1u64 << 32) - 2, 1 << 53].into_iter().zip(both(default_of(row))) {
            let mut twin = Parity::new(&gpu, &config, &few(), 32).midway(start);
            twin.optimizer.set_steps(start).unwrap();
            twin.reference.set_steps(start).unwrap();
            let bad = Some((2, 209, NonFinite::Infinite));
            for (i, bad) in [bad, None, bad, None, None].into_iter().enumerate() {
                step(&mut twin, bad, &format!("{} from step {start}, step {}", row.name, i + 1));
            }
            assert_eq!(twin.optimizer.t("m0"), Ok(start + 3));
        }
    }
}

/// One rule with state per element is enough where the rule does not matter.
fn plain() -> Config {
    config(json!({"optimizer": "adamw", "lr": 0.05, "skip_nonfinite": true}))
}

/// A device with the least that is supported.
fn tiny(gpu: &Gpu) -> Gpu {
    let (device, queue) = device(gpu, |limits| {
        limits.max_storage_buffer_binding_size = 64 << 10;
        limits.max_buffer_size = 256 << 10;
        limits.max_compute_workgroups_per_dimension = 7;
    });
    Gpu::new(&device, &queue)
}

/// Writes a gradient into the arena.
fn write(arena: &Arena, tensor: &TensorSpec, values: &[f32]) {
    arena.write(&tensor.name, values).expect("as many values as elements");
}

/// A step on the GPU alone, and what it reports.
fn report(optimizer: &mut Optimizer, params: &Arena, grads: &Arena) -> StepReport {
    optimizer.step(params, grads).unwrap();
    optimizer.settle_blocking().unwrap();
    optimizer.reports().unwrap().pop().expect("a report")
}

#[test]
fn every_bad_word_is_found_wherever_it_is_and_named() {
    let Some(gpu) = gpu("bad words", 4) else { return };
    let halves = all_tensors().into_iter().map(|tensor| tensor.with_grad_dtype(DType::F16)).collect::<Vec<_>>();
    for (gpu, list) in [(gpu.clone(), all_tensors()), (tiny(&gpu), all_tensors()), (gpu.clone(), halves)] {
        let twin = &mut Parity::new(&gpu, &plain(), &list, 33);
        twin.step();
        let before = twin.words();
        let words = [
            (0x7fc0_0000, Some(NonFinite::NaN)),
            (0x7f80_0001, Some(NonFinite::NaN)),
            (0xffff_ffff, Some(NonFinite::NaN)),
            (0x7f80_0000, Some(NonFinite::Infinite)),
            (0xff80_0000, Some(NonFinite::Infinite)),
            (0x5f00_0000, Some(NonFinite::TooLarge)),
            (0xdf00_0000, Some(NonFinite::TooLarge)),
            (0xff7f_ffff, Some(NonFinite::TooLarge)),
        ];
        for (n, tensor) in list.iter().enumerate().filter(|(_, tensor)| tensor.len_elements() > 0) {
            let len = tensor.len_elements() as usize;
            for (i, element) in HashSet::from([0, len / 2, len - 1]).into_iter().enumerate() {
                let (word, mut kind) = words[(3 * n + i) % words.len()];
                if tensor.grad_dtype == DType::F16 && kind == Some(NonFinite::TooLarge) {
                    kind = Some(NonFinite::Infinite);
                }
                let mut values = vec![1.0; len];
                values[element] = f32::from_bits(word);
                write(&twin.grads, tensor, &values);
                let found = report(&mut twin.optimizer, &twin.params, &twin.grads);
                let expected = kind.map(|kind| (tensor.name.clone(), kind));
                assert_eq!((found.applied, found.culprit), (false, expected), "{word:#x} at {element} of {len}");
                values[element] = 1.0;
                write(&twin.grads, tensor, &values);
            }
        }
        before.iter().zip(twin.words()).for_each(|(a, b)| assert_eq!(*a, b));
        // The first in order, and the worst that it holds.
        let [t5, t9] = ["t5", "t9"].map(|name| list.iter().find(|tensor| tensor.name == name).unwrap());
        let mut values = vec![0.5; 5];
        (values[0], values[3]) = (f32::INFINITY, f32::NAN);
        write(&twin.grads, t5, &values);
        write(&twin.grads, t9, &vec![f32::NEG_INFINITY; t9.len_elements() as usize]);
        let found = report(&mut twin.optimizer, &twin.params, &twin.grads);
        assert_eq!(found.culprit, Some(("t5".into(), NonFinite::NaN)));
        write(&twin.grads, t5, &[0.5; 5]);
        let found = report(&mut twin.optimizer, &twin.params, &twin.grads);
        assert_eq!(found.culprit, Some(("t9".into(), NonFinite::Infinite)));
        assert_eq!(found.norm, Some(f64::INFINITY));
    }
}

#[test]
fn padding_and_what_is_large_but_not_too_large_skip_nothing() {
    let Some(gpu) = gpu("NaN in padding", 4) else { return };
    let mixed = |(i, tensor): (usize, TensorSpec)| if i % 2 == 0 { tensor.with_grad_dtype(DType::F16) } else { tensor };
    let halves: Vec<_> = all_tensors().into_iter().enumerate().map(mixed).collect();
    let check = |mut twin: Parity| {
        for _ in 0..2 {
            let worst = twin.step();
            assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        }
        twin.optimizer.settle_blocking().unwrap();
        assert!(twin.optimizer.reports().unwrap().iter().all(|report| report.applied));
    };
    for list in [all_tensors(), halves] {
        check(Parity::new(&gpu, &plain(), &list, 34));
        check(Parity::new(&gpu, &plain(), &list, 34).at_odd_words());
        check(Parity::new(&tiny(&gpu), &plain(), &list, 34));
    }
    // The largest number below 2^63, and what a scale leads there.
    let mut twin = Parity::new(&gpu, &plain(), &few(), 35);
    let worst = twin.step_changed(&[], |_, values| values[4] = f32::from_bits(0x5eff_ffff));
    assert!(worst.ulps <= bound(&gpu) && twin.reference.report().unwrap().applied, "{}", worst.text);
    let scaled = Config::from((ALL[0].default)()).wrap(LossScale { init: LossScale::MAX, ..quick_scale() });
    let mut twin = Parity::new(&gpu, &scaled, &few(), 35);
    let worst = twin.step_changed(&[], |_, values| values[4] = f32::from_bits(0x6aff_ffff));
    assert!(worst.ulps <= bound(&gpu) && twin.reference.report().unwrap().applied, "{}", worst.text);
    // Numbers that overflow as they are unscaled.
    let scaled = Config::from((ALL[0].default)()).wrap(LossScale { init: 1.0 / LossScale::MAX, ..quick_scale() });
    let mut twin = Parity::new(&gpu, &scaled, &few(), 35);
    for bad in [f32::MAX, 2.0f32.powi(39)] {
        let worst = twin.step_changed(&[], |_, values| values[4] = bad);
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        twin.optimizer.settle_blocking().unwrap();
        let report = twin.optimizer.reports().unwrap().pop().unwrap();
        assert_eq!((report.applied, report.culprit), (false, Some(("t0".into(), NonFinite::TooLarge))));
    }
}

#[test]
fn what_has_no_gradient_or_is_frozen_skips_nothing() {
    let Some(gpu) = gpu("bad gradients that are not given", 1) else { return };
    let mut twin = Parity::new(&gpu, &plain(), &few(), 36);
    let nan_in = |bad: usize| move |i: usize, values: &mut [f32]| values[0] = if i == bad { f32::NAN } else { 0.5 };
    let expect = |twin: &mut Parity, worst: Worst, applied: bool, without: &[&str]| {
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        twin.optimizer.settle_blocking().unwrap();
        let report = twin.optimizer.reports().unwrap().pop().unwrap();
        assert!(same(&report, twin.reference.report().unwrap()), "{report:?}");
        assert_eq!(report.applied, applied);
        assert_eq!(report.without_gradient, without);
    };
    let worst = twin.step_changed(&["t1"], nan_in(1));
    expect(&mut twin, worst, true, &["t1"]);
    let worst = twin.step_changed(&["t1"], nan_in(2));
    expect(&mut twin, worst, false, &["t1"]);
    twin.optimizer.freeze("m0").unwrap();
    twin.reference.freeze("m0").unwrap();
    let worst = twin.step_changed(&[], nan_in(2));
    expect(&mut twin, worst, true, &["m0"]);
    let worst = twin.step_changed(&["t0", "t1"], nan_in(0));
    expect(&mut twin, worst, true, &["t0", "t1", "m0"]);
    assert_eq!(["t0", "t1", "m0"].map(|name| twin.optimizer.t(name).unwrap()), [2, 1, 1]);
    assert_eq!(twin.optimizer.steps(), 3);
}

/// What counts applied steps, in full.
fn counting(skips: bool) -> Config {
    config(json!({
        "optimizer": "nadam", "lr": 0.002, "weight_decay": {"decoupled": 0.01}, "skip_nonfinite": skips,
        "ema": {"decay": 0.99}, "lookahead": {"k": 3, "alpha": 0.4},
        "schedule": {"cosine_restarts": {"first": 37, "end": 0.1}}
    }))
}

#[test]
fn ten_thousand_steps_with_bad_batches_equal_those_without_them() {
    const STEPS: usize = 10_000;
    let Some(gpu) = gpu("ten thousand steps", STEPS) else { return };
    let list = tensors(&[5, 130]);
    // No more than the placements whose bind groups are kept.
    let batches = [(); 8].map(|()| Arena::new(&gpu, &list).unwrap());
    let mut rng = StdRng::seed_from_u64(37);
    for (i, batch) in batches.iter().enumerate() {
        for tensor in &list {
            let mut values = noise(&mut rng, tensor.len_elements() as usize);
            match i {
                6 if tensor.name == "t1" => values[129] = f32::NAN,
                7 if tensor.name == "t0" => values[0] = f32::INFINITY,
                _ => {}
            }
            write(batch, tensor, &values);
        }
    }
    for several in [false, true] {
        let mut twins = [true, false].map(|skips| Parity::new(&gpu, &counting(skips), &list, 38));
        let [with, without] = &mut twins;
        let (mut left, mut bad) = (STEPS / 2, 0);
        while left > 0 {
            let count = if several { rng.random_range(1..=20).min(left) } else { 1 };
            left -= count;
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for _ in 0..count {
                let batch = if rng.random_range(0..4) == 0 { rng.random_range(6..8) } else { rng.random_range(0..6) };
                with.optimizer.encode(&mut encoder, &with.params, &batches[batch]).unwrap();
                if batch < 6 {
                    without.optimizer.step(&without.params, &batches[batch]).unwrap();
                } else {
                    bad += 1;
                }
            }
            gpu.queue().submit([encoder.finish()]);
        }
        with.optimizer.settle_blocking().unwrap();
        assert!(bad > STEPS / 10, "{bad}");
        assert_eq!(with.optimizer.t("t0"), Ok((STEPS / 2 - bad) as u64));
        let [with, without] = twins.map(|twin| twin.words());
        with.iter().zip(&without).for_each(|(a, b)| assert_eq!(a, b, "several in an encoder: {several}"));
        let params =
            |words: &[(String, Vec<u32>)]| words.iter().find(|(what, _)| what == "param of t1").unwrap().1.clone();
        assert!(params(&with).iter().all(|&bits| f32::from_bits(bits).is_finite()));
    }
}

#[test]
fn steps_of_some_tensors_in_one_encoder_are_the_references() {
    let Some(gpu) = gpu("skips and missing gradients", 2) else { return };
    let full = json!({"optimizer": "adamw", "lr": 0.05, "loss_scale": {"init": 4, "backoff": 0.5, "interval": 3},
        "ema": {"decay": 0.5}, "lookahead": {"k": 2}, "schedule": {"inverse_time": {"decay": 0.1}},
        "groups": [{"tensors": ["t1"], "lr": 0.01, "beta1": 0.5}]});
    let looks = json!({"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead",
        "skip_nonfinite": true});
    for (value, misses) in [(full, true), (looks, false)] {
        let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 130, 9, 33]), 39);
        let arenas = [(); 6].map(|()| Arena::new(&gpu, &twin.tensors).unwrap());
        let mut rng = StdRng::seed_from_u64(40);
        let mut found = Vec::new();
        let mut expected = Vec::new();
        for round in 0..30 {
            let before = twin.snapshot();
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for arena in &arenas[..rng.random_range(1..=6)] {
                let absent: Vec<_> =
                    ["t0", "t1", "t2", "t3"].into_iter().filter(|_| misses && rng.random_range(0..3) == 0).collect();
                if rng.random_range(0..3) == 0 {
                    let lr = rng.random_range(0.01..0.1);
                    twin.optimizer.set_lr(lr).unwrap();
                    twin.reference.set_lr(lr).unwrap();
                }
                if twin.optimizer.needs_look_ahead() {
                    twin.optimizer.encode_look_ahead(&mut encoder, &twin.params).unwrap();
                    twin.reference.look_ahead(&mut twin.values).unwrap();
                }
                let bad = rng.random_range(0..12);
                let grads: Vec<_> = (0..4)
                    .map(|i| {
                        let tensor = &twin.tensors[i];
                        let mut values = noise(&mut rng, tensor.len_elements() as usize);
                        if bad == i {
                            *values.last_mut().unwrap() = f32::NAN;
                        }
                        write(arena, tensor, &values);
                        let array = ArrayD::from_shape_vec(tensor.shape.clone(), values).unwrap();
                        (!absent.contains(&&tensor.name[..])).then_some(array)
                    })
                    .collect();
                let part = arena.without(&absent).unwrap();
                twin.optimizer.encode(&mut encoder, &twin.params, &part).unwrap();
                twin.reference.step(&mut twin.values, &grads).unwrap();
                expected.push(twin.reference.report().unwrap().clone());
            }
            gpu.queue().submit([encoder.finish()]);
            // Some rounds are in flight at once.
            if round % 3 == 0 {
                let worst = twin.compare(&before);
                assert!(worst.ulps <= bound(&gpu), "round {round}: {}", worst.text);
                found.extend(twin.optimizer.reports().unwrap());
            }
        }
        twin.optimizer.settle_blocking().unwrap();
        found.extend(twin.optimizer.reports().unwrap());
        assert_eq!(found.len(), expected.len());
        found.iter().zip(&expected).for_each(|(a, b)| assert!(same(a, b), "{a:?}, expected {b:?}"));
        assert!(found.iter().any(|report| !report.applied));
        for name in ["t0", "t1", "t2", "t3"] {
            assert_eq!(twin.optimizer.t(name), twin.reference.t(name), "{name}");
        }
        assert_eq!(twin.optimizer.steps(), twin.reference.steps());
    }
}

#[test]
fn a_forgotten_step_leaves_the_device_in_turn() {
    let Some(gpu) = gpu("forgotten steps that may be skipped", 2) else { return };
    for taken in [0, 1] {
        let mut twin = Parity::new(&gpu, &counting(true), &few(), 41);
        (0..taken).for_each(|_| drop(twin.step()));
        let encoders = || gpu.device().create_command_encoder(&Default::default());
        let (mut first, mut second) = (encoders(), encoders());
        let grads = Arena::new(&gpu, &twin.tensors).unwrap();
        write(&grads, &twin.tensors[1], &[f32::NAN; 1026]);
        let before = twin.words();
        twin.optimizer.encode(&mut first, &twin.params, &grads).unwrap();
        let tokens = [(); 2].map(|()| twin.optimizer.encode(&mut second, &twin.params, &twin.grads).unwrap());
        assert_eq!(twin.optimizer.t("t0"), Ok(taken + 3), "as if all were applied");
        // What is learnt of the first before the others are taken back stays known.
        gpu.queue().submit([first.finish()]);
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(twin.optimizer.t("t0"), Ok(taken + 2));
        drop(second);
        twin.optimizer.undo(tokens[1]).unwrap();
        twin.optimizer.undo(tokens[0]).unwrap();
        before.iter().zip(twin.words()).for_each(|(a, b)| assert_eq!(*a, b));
        let applied: Vec<_> = twin.optimizer.reports().unwrap().iter().map(|report| report.applied).collect();
        assert_eq!(applied, [true, false][1 - taken as usize..]);
        for _ in 0..2 {
            let worst = twin.step();
            assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        }
        twin.optimizer.settle_blocking().unwrap();
        let steps: Vec<_> = twin.optimizer.reports().unwrap().iter().map(|report| report.step).collect();
        assert_eq!(steps, [taken + 2, taken + 3]);
    }
}

#[test]
fn moves_follow_steps_that_may_have_been_skipped() {
    let Some(gpu) = gpu("moves after skips", ALL.len()) else { return };
    let mut moved = 0;
    for row in ALL {
        for (case, rule) in (row.cases)() {
            let [config, _] = both(rule);
            let mut twin = Parity::new(&gpu, &config, &few(), 44);
            if !twin.optimizer.has_eval() {
                continue;
            }
            moved += 1;
            twin.step();
            // Not yet known to be skipped when the move is encoded.
            let before = twin.snapshot();
            let grads: Vec<_> = twin.values.iter().map(|values| Some(values.mapv(|_| f32::NAN))).collect();
            twin.tensors.iter().for_each(|t| write(&twin.grads, t, &vec![f32::NAN; t.len_elements() as usize]));
            twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            twin.reference.step(&mut twin.values, &grads).unwrap();
            twin.optimizer.eval(&twin.params).unwrap();
            twin.reference.eval(&mut twin.values).unwrap();
            let worst = twin.compare(&before);
            assert!(worst.ulps <= bound(&gpu), "{}/{case}, in evaluation: {}", row.name, worst.text);
            twin.optimizer.train(&twin.params).unwrap();
            twin.reference.train(&mut twin.values).unwrap();
            step(&mut twin, None, &format!("{}/{case}, back", row.name));
        }
    }
    assert!(moved > 0, "no rule moves");
}

#[test]
fn too_many_steps_in_flight_are_refused_and_the_rest_goes_on() {
    let Some(gpu) = gpu("steps that have not reported", 1) else { return };
    let mut twin = Parity::new(&gpu, &plain(), &tensors(&[5]), 45);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for _ in 0..1023 {
        twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    }
    let text = "step: 1024 steps have not reported, must be at most 1023; submit them, and let the device work";
    let error = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).expect_err(text);
    check(text, &error, text);
    gpu.queue().submit([encoder.finish()]);
    // One more waits for the device instead.
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!((twin.optimizer.t("t0"), twin.optimizer.reports().unwrap().len()), (Ok(1024), 1024));
}

#[test]
fn the_scale_is_the_references_and_stays_a_power_of_two_within_its_bounds() {
    let Some(gpu) = gpu("loss scales", 3) else { return };
    let mut rng = StdRng::seed_from_u64(46);
    for (init, growth, backoff, interval, bad) in [
        (65536.0, 2.0, 0.5, 3, 4),
        (LossScale::MAX, 4.0, 0.125, 1, 3),
        (1.0 / LossScale::MAX, 1024.0, 1.0 / 4096.0, 2, 2),
    ] {
        let scale = LossScale { init, growth, backoff, interval };
        let mut twin = Parity::new(&gpu, &Config::from((ALL[0].default)()).wrap(scale), &tensors(&[5]), 47);
        let mut seen = Vec::new();
        for i in 0..60 {
            let bad = rng.random_range(0..bad) == 0;
            let before = twin.reference.loss_scale().scale;
            twin.step_changed(&[], |_, values| values[0] = if bad { f32::NAN } else { 0.0 });
            let found = twin.optimizer.loss_scale_blocking().unwrap();
            assert_eq!(found, twin.reference.loss_scale(), "step {i}");
            assert!(found.scale.log2().fract() == 0.0 && found.scale.log2().abs() <= 24.0, "{found:?}");
            let reports = twin.optimizer.reports().unwrap();
            assert_eq!(reports.iter().map(|report| report.scale).collect::<Vec<_>>(), [before]);
            seen.push(found.scale);
        }
        let (low, high) = seen.iter().fold((f64::MAX, 0.0f64), |(low, high), &s| (low.min(s), high.max(s)));
        assert!(low < high, "{seen:?}");
        if interval < 3 {
            assert!(low == 1.0 / LossScale::MAX || high == LossScale::MAX, "no bound was met: {seen:?}");
        }
    }
    // By hand: three good steps and growth, a bad one and back-off, by the defaults' factors.
    let scale = LossScale { interval: 3, ..LossScale::default() };
    let mut twin = Parity::new(&gpu, &Config::from((ALL[0].default)()).wrap(scale), &tensors(&[5]), 47);
    let mut seen = Vec::new();
    for bad in [false, false, false, true, false, true, true] {
        twin.step_changed(&[], |_, values| values[0] = if bad { f32::INFINITY } else { 0.0 });
        let LossScaleState { scale, good, .. } = twin.optimizer.loss_scale_blocking().unwrap();
        seen.push((scale / 65536.0, good));
    }
    assert_eq!(seen, [(1.0, 1), (1.0, 2), (2.0, 0), (1.0, 0), (1.0, 1), (0.5, 0), (0.25, 0)]);
}

#[test]
fn a_scale_that_is_set_goes_on_as_one_that_was_reached() {
    let Some(gpu) = gpu("scales that are set", 1) else { return };
    let config = Config::from((ALL[0].default)()).wrap(quick_scale());
    let mut twin = Parity::new(&gpu, &config, &few(), 48);
    step(&mut twin, None, "before");
    let set = LossScaleState { scale: 1024.0, good: 1 };
    twin.optimizer.set_loss_scale(set).unwrap();
    twin.reference.set_loss_scale(set).unwrap();
    assert_eq!(twin.optimizer.loss_scale_blocking().unwrap(), set);
    assert_eq!(pollster::block_on(twin.optimizer.loss_scale()).unwrap(), set);
    step(&mut twin, None, "grows");
    assert_eq!(twin.optimizer.loss_scale_blocking().unwrap(), LossScaleState { scale: 2048.0, good: 0 });
    step(&mut twin, Some((0, 4, NonFinite::TooLarge)), "shrinks");
    for (scale, text) in [
        (LossScaleState { scale: 3.0, good: 0 }, "scale is 3, must be a power of two from 2^-24 to 2^24"),
        (LossScaleState { scale: f64::NAN, good: 0 }, "scale is NaN, must be a power of two from 2^-24 to 2^24"),
        (LossScaleState { scale: 2.0, good: 2 }, "good is 2, must be below loss_scale.interval, 2"),
    ] {
        twin.refuses(text, text, |twin| twin.optimizer.set_loss_scale(scale));
        check(text, &twin.reference.set_loss_scale(scale).expect_err(text), text);
    }
    let mut twin = Parity::new(&gpu, &plain(), &few(), 48);
    let text = "configuration: loss_scale: is not set; there is no scale";
    twin.refuses(text, text, |twin| twin.optimizer.set_loss_scale(set));
    twin.refuses(text, text, |twin| twin.optimizer.loss_scale_blocking());
    twin.refuses(text, text, |twin| twin.optimizer.loss_scale_buffer().map(|_| ()));
}
