//! What fails outside the crate is never counted as a step: submits that are refused, encoders that are dropped or come
//! late, devices that are gone or too slow. What goes on afterwards is what the reference does, which never saw it.

use std::time::Duration;

use crate::common::twin::{Parity, bound, tensors};
use crate::common::{create, device, gpu, say};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use wgpu_optim::proof::check;
use wgpu_optim::rules::ALL;
use wgpu_optim::wgpu::{self, CommandEncoder, ErrorFilter};
use wgpu_optim::{
    Arena, Config, EncodedStep, Error, Fault, Gpu, LossScaleState, Optimizer, Result, StepReport, TensorSpec,
};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Encodes with the optimizer, and with it something that wgpu refuses at the submit; submits that.
fn refused(
    twin: &mut Parity,
    encode: impl FnOnce(&mut Parity, &mut CommandEncoder) -> Result<EncodedStep>,
) -> EncodedStep {
    let gpu = twin.gpu.clone();
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let [gone, other] = [create(&gpu, 16, usage), create(&gpu, 16, usage)];
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&gone, 0, &other, 0, 16);
    let token = encode(twin, &mut encoder).expect("the encoding is sound");
    gone.destroy();
    let scope = gpu.device().push_error_scope(ErrorFilter::Validation);
    gpu.queue().submit([encoder.finish()]);
    assert!(pollster::block_on(scope.pop()).is_some(), "wgpu took the submit");
    token
}

fn step(twin: &mut Parity, encoder: &mut CommandEncoder) -> Result<EncodedStep> {
    twin.optimizer.encode(encoder, &twin.params, &twin.grads)
}

/// What reports say: step, applied, fault.
fn told(reports: &[StepReport]) -> Vec<(u64, bool, Option<Fault>)> {
    reports.iter().map(|report| (report.step, report.applied, report.fault)).collect()
}

/// A step of both, whose numbers and counts are the reference's.
fn agree(twin: &mut Parity, what: &str) {
    let worst = twin.step();
    assert!(worst.ulps <= bound(&twin.gpu), "{what}: {}", worst.text);
    for tensor in &twin.tensors {
        assert_eq!(twin.optimizer.t(&tensor.name), twin.reference.t(&tensor.name), "{what}: {}", tensor.name);
    }
    assert_eq!(twin.optimizer.steps(), twin.reference.steps(), "{what}");
}

/// What reports by the serial number alone, with norms, and with skipping and all that follows it.
fn kinds() -> [(&'static str, Config); 3] {
    [
        ("plain", json!({"optimizer": "nadam"})),
        ("norms", json!({"optimizer": "nadam", "clip": {"global_norm": 1}})),
        (
            "skips",
            json!({"optimizer": "nadam", "loss_scale": {"init": 4, "interval": 3}, "ema": {}, "lookahead": {"k": 2},
                "schedule": {"inverse_time": {"decay": 0.1}}}),
        ),
    ]
    .map(|(name, value)| (name, config(value)))
}

#[test]
fn a_refused_step_of_every_rule_is_taken_back_or_counts_as_none() {
    let Some(gpu) = gpu("refused steps of every rule", 2 * ALL.len()) else { return };
    for row in ALL {
        for skips in [false, true] {
            let what = format!("{}, skips {skips}", row.name);
            let config = Config::from((row.default)()).wrap(wgpu_optim::SkipNonfinite(skips));
            let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 130]), 61);
            agree(&mut twin, &what);
            let before = twin.words();
            for asks in [false, true] {
                if twin.optimizer.needs_look_ahead() {
                    let ahead = |twin: &mut Parity, encoder: &mut CommandEncoder| {
                        twin.optimizer.encode_look_ahead(encoder, &twin.params)?;
                        step(twin, encoder)
                    };
                    refused(&mut twin, ahead);
                } else {
                    let token = refused(&mut twin, step);
                    if asks {
                        twin.optimizer.settle_blocking().unwrap();
                    }
                    twin.optimizer.undo(token).unwrap();
                    assert!(twin.optimizer.undo(token).is_err(), "{what}: once");
                }
                twin.optimizer.settle_blocking().unwrap();
                assert_eq!(twin.words(), before, "{what}");
            }
            twin.optimizer.settle_blocking().unwrap();
            let reports = twin.optimizer.reports().unwrap();
            assert_eq!(reports.iter().filter(|report| report.applied).count(), 1, "{what}: {reports:?}");
            agree(&mut twin, &what);
        }
    }
}

#[test]
fn a_step_that_never_ran_is_reported_in_its_turn_and_those_behind_it_count() {
    let Some(gpu) = gpu("steps behind one that never ran", 6) else { return };
    for (name, config) in kinds() {
        for (fault, what) in [(Fault::Refused, "refused"), (Fault::Dropped, "dropped")] {
            let what = format!("{name}, {what}");
            let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 130]), 62);
            agree(&mut twin, &what);
            let token = match fault {
                Fault::Refused => refused(&mut twin, step),
                _ => step(&mut twin, &mut gpu.device().create_command_encoder(&Default::default())).unwrap(),
            };
            // Encoded while nothing is known of the step before it, where it was refused.
            twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            twin.optimizer.settle_blocking().unwrap();
            let expected = [(1, true, None), (2, false, Some(fault)), (3, true, None)];
            assert_eq!(told(&twin.optimizer.reports().unwrap()), expected, "{what}");
            assert_eq!((twin.optimizer.t("t0"), twin.optimizer.steps()), (Ok(2), 2), "{what}");
            assert_eq!(twin.optimizer.undo(token), Ok(()), "{what}: it was taken back already");
            assert!(twin.optimizer.undo(token).is_err(), "{what}: once");
            twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            twin.optimizer.settle_blocking().unwrap();
            assert_eq!(told(&twin.optimizer.reports().unwrap()), [(4, true, None)], "{what}");
            assert_eq!((twin.optimizer.t("t0"), twin.optimizer.steps()), (Ok(3), 3), "{what}");
        }
    }
}

#[test]
fn with_skipping_refused_steps_in_flight_change_no_bit_of_those_behind_them() {
    let Some(gpu) = gpu("refused steps among steps in flight", 1) else { return };
    let [_, _, (_, config)] = kinds();
    let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 130]), 63);
    let mut rng = StdRng::seed_from_u64(64);
    for i in 0..60 {
        match rng.random_range(0..3) {
            0 => _ = refused(&mut twin, step),
            1 => _ = step(&mut twin, &mut gpu.device().create_command_encoder(&Default::default())).unwrap(),
            _ => {}
        }
        let bad = rng.random_range(0..5) == 0;
        let grads = twin.tensors.iter().map(|tensor| {
            let mut values = wgpu_optim::proof::noise(&mut rng, tensor.len_elements() as usize);
            values[0] = if bad { f32::NAN } else { values[0] };
            values
        });
        let grads: Vec<_> = grads.collect();
        let before = twin.snapshot();
        twin.give(grads, &[]);
        if i % 10 == 9 {
            let worst = twin.compare(&before);
            assert!(worst.ulps <= bound(&gpu), "step {i}: {}", worst.text);
            twin.optimizer.settle_blocking().unwrap();
            assert_eq!(twin.optimizer.t("t1"), twin.reference.t("t1"), "step {i}");
            assert_eq!(twin.optimizer.loss_scale_blocking().unwrap(), twin.reference.loss_scale(), "step {i}");
        }
    }
    let reports = twin.optimizer.reports().unwrap();
    assert!(reports.iter().enumerate().all(|(i, report)| report.step == i as u64 + 1), "{reports:?}");
    assert_eq!(reports.iter().filter(|report| report.fault.is_none()).count(), 60);
    assert!(reports.iter().any(|report| report.fault == Some(Fault::Refused)));
}

#[test]
fn a_step_of_its_own_encoder_that_is_refused_is_an_error_and_changes_nothing() {
    let Some(gpu) = gpu("steps over a buffer that was destroyed", 3) else { return };
    for (name, config) in kinds() {
        let list = tensors(&[64]);
        let mut optimizer = Optimizer::new(&gpu, &list, config).unwrap();
        let arenas = [0, 1].map(|_| Arena::new(&gpu, &list).unwrap());
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let gone = create(&gpu, 256, usage);
        let slices = [Some(wgpu_optim::Slice { buffer: &gone, offset: 0, size: 256 })];
        optimizer.warm_up(&arenas[0], &slices[..]).unwrap();
        gone.destroy();
        let error = optimizer.step(&arenas[0], &slices[..]).unwrap_err();
        assert!(matches!(error, Error::Wgpu(_) | Error::Slice { .. }), "{name}: {error}");
        assert_eq!((optimizer.t("t0"), optimizer.steps()), (Ok(0), 0), "{name}");
        optimizer.step(&arenas[0], &arenas[1]).unwrap();
        optimizer.settle_blocking().unwrap();
        assert_eq!(told(&optimizer.reports().unwrap()), [(1, true, None)], "{name}");
    }
}

#[test]
fn micro_batches_that_never_ran_are_taken_back_or_end_their_window() {
    let Some(gpu) = gpu("micro-batches that never ran", 2) else { return };
    for skips in [false, true] {
        let config = config(json!({"optimizer": "adam", "accumulate": 3, "skip_nonfinite": skips}));
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5]), 65);
        let batches = |twin: &Parity| twin.optimizer.micro_batches();
        twin.optimizer.step(&twin.params, &twin.grads).unwrap();
        // The latest is taken back, and its window goes on.
        refused(&mut twin, step);
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(batches(&twin), 1, "skips {skips}");
        (0..2).for_each(|_| twin.optimizer.step(&twin.params, &twin.grads).unwrap());
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(told(&twin.optimizer.reports().unwrap()), [(1, true, None)], "skips {skips}");
        // Another one was added behind it: the window begins anew.
        refused(&mut twin, step);
        twin.optimizer.step(&twin.params, &twin.grads).unwrap();
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!((batches(&twin), twin.optimizer.t("t0")), (0, Ok(1)), "skips {skips}");
        (0..3).for_each(|_| twin.optimizer.step(&twin.params, &twin.grads).unwrap());
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(told(&twin.optimizer.reports().unwrap()), [(2, true, None)], "skips {skips}");
        // Its step has run: nothing can mend that.
        refused(&mut twin, step);
        let late = (0..3).map(|_| twin.optimizer.step(&twin.params, &twin.grads)).collect::<Vec<_>>();
        let text = "step: a micro-batch never ran (its submit was refused), and later encodings have built on it; load \
                    the last checkpoint";
        if late.iter().all(Result::is_ok) {
            // What was refused was known in time, so the window began anew and is whole.
            twin.optimizer.settle_blocking().unwrap();
        } else {
            check(text, &twin.optimizer.settle_blocking().unwrap_err(), text);
        }
    }
}

#[test]
fn a_move_that_never_ran_is_taken_back_and_one_that_others_built_on_is_said() {
    let Some(gpu) = gpu("moves that never ran", 2) else { return };
    let of = |value: Value| Parity::new(&gpu, &config(value), &tensors(&[5]), 66);
    let mut twin = of(json!({"optimizer": "adam", "ema": {}}));
    agree(&mut twin, "before the swap");
    let swap = |twin: &mut Parity, encoder: &mut CommandEncoder| twin.optimizer.encode_swap_ema(encoder, &twin.params);
    refused(&mut twin, swap);
    twin.optimizer.settle_blocking().unwrap();
    agree(&mut twin, "a refused swap that nobody noticed");
    let token = refused(&mut twin, swap);
    twin.optimizer.undo(token).unwrap();
    agree(&mut twin, "a refused swap that was undone");
    // A copy of the mean leaves nothing behind, so nothing misses it.
    let copy = Arena::new(&gpu, &twin.tensors).unwrap();
    refused(&mut twin, |twin, encoder| twin.optimizer.encode_ema_into(encoder, &copy));
    agree(&mut twin, "a refused copy");
    refused(&mut twin, swap);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    // The way back of a swap that never was.
    twin.optimizer.encode_swap_ema(&mut encoder, &twin.params).unwrap();
    gpu.queue().submit([encoder.finish()]);
    let text = "step: a move of the parameters never ran (its submit was refused), and later encodings have built on \
                it; load the last checkpoint";
    check(text, &twin.optimizer.settle_blocking().unwrap_err(), text);
    check(text, &twin.optimizer.step(&twin.params, &twin.grads).unwrap_err(), text);
    check(text, &twin.optimizer.save_blocking().unwrap_err(), text);
    let mut twin = of(json!({"optimizer": "sgd", "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead"}));
    refused(&mut twin, |twin, encoder| twin.optimizer.encode_look_ahead(encoder, &twin.params));
    twin.optimizer.settle_blocking().unwrap();
    assert!(twin.optimizer.needs_look_ahead(), "it never was");
    agree(&mut twin, "a refused look-ahead");
}

#[test]
fn encoders_out_of_order_do_nothing_and_the_rest_goes_on() {
    let Some(gpu) = gpu("encoders out of order", 1) else { return };
    let [_, _, (_, config)] = kinds();
    let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 130]), 67);
    agree(&mut twin, "in order");
    let encoders = [(); 3].map(|()| {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        step(&mut twin, &mut encoder).unwrap();
        encoder.finish()
    });
    let [first, second, third] = encoders;
    gpu.queue().submit([first, third, second]);
    twin.optimizer.settle_blocking().unwrap();
    let told_of = told(&twin.optimizer.reports().unwrap());
    let expected = [(1, true, None), (2, true, None), (3, false, Some(Fault::OutOfTurn)), (4, true, None)];
    assert_eq!((told_of, twin.optimizer.t("t0")), (expected.to_vec(), Ok(3)));
    // A swap before its step: the step must not touch parameters that stand elsewhere.
    let mut second = gpu.device().create_command_encoder(&Default::default());
    let mut first = gpu.device().create_command_encoder(&Default::default());
    step(&mut twin, &mut first).unwrap();
    twin.optimizer.encode_swap_ema(&mut second, &twin.params).unwrap();
    gpu.queue().submit([second.finish(), first.finish()]);
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!(told(&twin.optimizer.reports().unwrap()), [(5, false, Some(Fault::OutOfTurn))]);
    twin.optimizer.swap_ema(&twin.params).unwrap();
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!((told(&twin.optimizer.reports().unwrap()), twin.optimizer.t("t0")), (vec![(6, true, None)], Ok(4)));
}

#[test]
fn any_pattern_of_absent_tensors_goes_with_a_hundred_steps_in_flight() {
    let Some(gpu) = gpu("a hundred steps in flight", 3) else { return };
    for value in [
        json!({"optimizer": "nadam", "skip_nonfinite": true}),
        json!({"optimizer": "adam", "skip_nonfinite": true, "ema": {}, "lookahead": {"k": 3}}),
        json!({"optimizer": "adam", "skip_nonfinite": true, "schedule": {"inverse_time": {"decay": 0.1}}}),
    ] {
        let what = value.to_string();
        let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5; 8]), 68);
        let mut rng = StdRng::seed_from_u64(69);
        let grads: Vec<Arena> = [false, true]
            .map(|bad| {
                let arena = Arena::new(&gpu, &twin.tensors).unwrap();
                for tensor in &twin.tensors {
                    arena.write(&tensor.name, &[if bad { f32::NAN } else { 0.5 }; 5]).unwrap();
                }
                arena
            })
            .into();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let before = twin.snapshot();
        for _ in 0..100 {
            let absent: Vec<bool> = (0..8).map(|_| rng.random_range(0..2) == 0).collect();
            let names: Vec<&str> =
                twin.tensors.iter().zip(&absent).filter(|(_, absent)| **absent).map(|(t, _)| &t.name[..]).collect();
            let bad = rng.random_range(0..3) == 0;
            let part = grads[usize::from(bad)].without(&names).unwrap();
            twin.optimizer.encode(&mut encoder, &twin.params, &part).expect(&what);
            let of_reference: Vec<_> = twin
                .values
                .iter()
                .zip(&absent)
                .map(|(values, absent)| (!absent).then(|| values.mapv(|_| if bad { f32::NAN } else { 0.5 })))
                .collect();
            twin.reference.step(&mut twin.values, &of_reference).unwrap();
        }
        gpu.queue().submit([encoder.finish()]);
        let worst = twin.compare(&before);
        assert!(worst.ulps <= bound(&gpu), "{what}: {}", worst.text);
        twin.optimizer.settle_blocking().unwrap();
        agree(&mut twin, &what);
    }
}

#[test]
fn states_without_bound_wait_for_the_device() {
    let Some(gpu) = gpu("options that change with each step in flight", 1) else { return };
    let config = config(json!({"optimizer": "nadam", "skip_nonfinite": true}));
    let mut twin = Parity::new(&gpu, &config, &tensors(&[5]), 70);
    // What the rule carries is a product over the applied steps, so any two outcomes are two states.
    let beta1 = |i: u32| 0.5 + f64::from(i).sqrt() / 100.0;
    for i in 0..40 {
        twin.optimizer.set("beta1", beta1(i)).unwrap();
        twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    }
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!(twin.optimizer.t("t0"), Ok(40));
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let error = (0..40).find_map(|i| {
        twin.optimizer.set("beta1", beta1(i)).unwrap();
        step(&mut twin, &mut encoder).err()
    });
    let text = "step: the 12 steps that have not reported and this one leave 8192 states that the counts of a tensor's \
                steps may be in, must be at most 4096; submit them, and let the device work";
    check(text, &error.expect(text), text);
    gpu.queue().submit([encoder.finish()]);
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
}

/// All calls that need the device, by name.
fn calls_of(twin: &mut Parity) -> Vec<(&'static str, Error)> {
    let gpu = twin.gpu.clone();
    let list = twin.tensors.clone();
    let mut found = Vec::new();
    let mut note = |what, result: Result<()>| found.push((what, result.expect_err(what)));
    note("Arena::new", Arena::new(&gpu, &list).map(drop));
    note("Optimizer::new", Optimizer::new(&gpu, &list, config(json!({"optimizer": "adam"}))).map(drop));
    note("write", twin.params.write("t0", &[0.0; 5]));
    note("read", twin.params.read_blocking("t0").map(drop));
    let encoder = &mut gpu.device().create_command_encoder(&Default::default());
    let Parity { optimizer, params, grads, .. } = twin;
    note("encode", optimizer.encode(encoder, &*params, &*grads).map(drop));
    note("step", optimizer.step(&*params, &*grads));
    note("swap", optimizer.swap_ema(&*params));
    note("ema_into", optimizer.ema_into(&*params));
    note("plan", optimizer.warm_up(&*params, &*grads));
    note("state", optimizer.state_blocking("t0", "m").map(drop));
    note("set_state", optimizer.set_state("t0", "m", &[0.0; 5]));
    note("loss_scale", optimizer.loss_scale_blocking().map(drop));
    note("set_loss_scale", optimizer.set_loss_scale(LossScaleState { scale: 2.0, good: 0 }));
    note("norms", optimizer.norms_blocking().map(drop));
    note("settle", optimizer.settle_blocking());
    note("save", optimizer.save_blocking().map(drop));
    note("add", optimizer.add_blocking(&[TensorSpec::f32("x", [2])]));
    found
}

#[test]
fn every_call_says_that_the_device_is_lost() {
    let Some(found) = gpu("lost devices", 3) else { return };
    let config = config(json!({"optimizer": "adam", "ema": {}, "clip": {"global_norm": 1}, "loss_scale": {"init": 4}}));
    let new = |gpu: &Gpu| {
        let mut twin = Parity::new(gpu, &config, &tensors(&[5]), 71);
        agree(&mut twin, "before");
        twin.optimizer.reports().unwrap();
        twin
    };
    // A device that the crate opened, and one of the caller's without a callback: natively each call finds out.
    let (device, queue) = device(&found, |_| ());
    for gpu in [Gpu::request_blocking().unwrap(), Gpu::new(&device, &queue)] {
        let mut twin = new(&gpu);
        gpu.device().destroy();
        for (what, error) in calls_of(&mut twin) {
            assert!(matches!(error, Error::DeviceLost(_)), "{what}: {error}");
        }
        assert!(twin.optimizer.reports().unwrap_or_default().is_empty(), "no step was applied");
        assert_eq!((twin.optimizer.t("t0"), twin.optimizer.steps()), (Ok(1), 1));
    }
    // What the caller was told by a callback of his own.
    let gpu = Gpu::request_blocking().unwrap();
    let mut twin = new(&gpu);
    gpu.note_lost("unplugged");
    for (what, error) in calls_of(&mut twin) {
        assert_eq!(error, Error::DeviceLost("unplugged".into()), "{what}");
    }
}

#[test]
fn a_step_in_flight_on_a_lost_device_is_not_reported_applied() {
    let Some(_) = gpu("steps in flight on a lost device", 3) else { return };
    for (name, config) in kinds() {
        let gpu = Gpu::request_blocking().unwrap();
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5]), 72);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let token = step(&mut twin, &mut encoder).unwrap();
        gpu.device().destroy();
        gpu.queue().submit([encoder.finish()]);
        let reports = twin.optimizer.reports();
        assert!(matches!(reports, Err(Error::DeviceLost(_))), "{name}: {reports:?}");
        twin.optimizer.undo(token).unwrap();
        assert_eq!(twin.optimizer.t("t0"), Ok(0), "{name}");
    }
}

#[test]
fn a_wait_ends_at_its_deadline_and_may_be_asked_again() {
    let Some(gpu) = gpu("deadlines", 1) else { return };
    assert_eq!(gpu.deadline(), Duration::from_secs(60));
    let text = "deadline is 0ns, must be at least 1 ms";
    check(text, &gpu.set_deadline(Duration::ZERO).unwrap_err(), text);
    let gpu = Gpu::request_blocking().unwrap();
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam"})), &tensors(&[4_000_000]), 73);
    twin.optimizer.warm_up(&twin.params, &twin.grads).unwrap();
    gpu.set_deadline(Duration::from_millis(1)).unwrap();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    (0..40).for_each(|_| assert!(step(&mut twin, &mut encoder).is_ok()));
    gpu.queue().submit([encoder.finish()]);
    if gpu.adapter_info().name.starts_with("llvmpipe") {
        return say("skipped: 1 case of deadlines: llvmpipe works while it is submitted to, so that no wait is long");
    }
    let text = "the device has not finished its work within the deadline of 0.001 s";
    check(text, &twin.optimizer.settle_blocking().unwrap_err(), text);
    check(text, &twin.params.read_blocking("t0").unwrap_err(), text);
    check(text, &pollster::block_on(twin.optimizer.settle()).unwrap_err(), text);
    gpu.set_deadline(Duration::from_secs(60)).unwrap();
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!((twin.optimizer.t("t0"), twin.optimizer.reports().unwrap().len()), (Ok(40), 40));
}
