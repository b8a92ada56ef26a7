//! Schedules, lookahead and moves to evaluation act alike around every rule on the GPU and on the reference.

use crate::common::twin::{Parity, SIZES, bound, tensors};
use crate::common::{default_of, gpu};
use serde_json::{Value, json};
use wgpu_optim::backend::traffic;
use wgpu_optim::proof::check;
use wgpu_optim::rule::Move;
use wgpu_optim::rules::ALL;
use wgpu_optim::{AdamW, Config, Error, Group, Lookahead, Schedule, Sgd};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Reads each tensor's parameters as bits.
fn bits(twin: &Parity) -> Vec<Vec<u32>> {
    let read = |name: &str| twin.params.read_blocking(name).expect("a readback");
    twin.tensors.iter().map(|tensor| read(&tensor.name).into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn schedules_scale_every_group_as_setting_its_numbers_would() {
    let Some(gpu) = gpu("schedules", 1) else { return };
    let plain = json!({
        "optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": {"independent": 0.01},
        "groups": [
            {"tensors": ["t1"], "lr": 0.3, "momentum": 0.8},
            {"tensors": ["t2"], "weight_decay": "none"}
        ]
    });
    let mut scheduled = plain.clone();
    scheduled["schedule"] = json!({"warmup": {"steps": 2, "start": 0.5, "then": {"exponential": {"gamma": 0.5}}}});
    scheduled["schedules"] = json!({"momentum": {"linear": {"total": 4, "end": 0.5}}});
    let tensors = tensors(&[5, 1030, 9]);
    let mut by_schedule = Parity::new(&gpu, &config(scheduled), &tensors, 1);
    let mut by_hand = Parity::new(&gpu, &config(plain), &tensors, 1);
    for (step, factor) in [0.5, 0.75, 1.0, 0.5, 0.25].into_iter().enumerate() {
        let momentum = 1.0 - 0.5 * step.min(4) as f64 / 4.0;
        by_hand.optimizer.set_lr(0.1 * factor).unwrap();
        by_hand.optimizer.set("momentum", 0.5 * momentum).unwrap();
        by_hand.optimizer.set_group(0, "momentum", 0.8 * momentum).unwrap();
        by_hand.reference.set_lr(0.1 * factor).unwrap();
        by_hand.reference.set("momentum", 0.5 * momentum).unwrap();
        by_hand.reference.set_group(0, "momentum", 0.8 * momentum).unwrap();
        assert_eq!(by_schedule.optimizer.value("lr"), Ok(0.1 * factor));
        assert_eq!(by_schedule.optimizer.value("momentum"), Ok(0.5 * momentum));
        // A tensor that takes no part does not hold the schedule back.
        let absent: &[&str] = if step == 1 { &["t0"] } else { &[] };
        for twin in [&mut by_schedule, &mut by_hand] {
            let worst = twin.step_without(absent);
            assert!(worst.ulps <= bound(&gpu), "step {step}: {}", worst.text);
        }
        assert_eq!(bits(&by_schedule), bits(&by_hand), "step {step}");
    }
    assert_eq!(by_schedule.optimizer.lr(), 0.1, "what is set stays the base");
    assert_eq!((by_schedule.optimizer.steps(), by_schedule.optimizer.t("t0")), (5, Ok(4)));
}

#[test]
fn a_training_resumes_where_its_schedule_stood() {
    let Some(gpu) = gpu("resumed schedules", 1) else { return };
    let plateau = json!({"optimizer": "sgd", "schedule": {"plateau": {"factor": 0.5, "patience": 1}}});
    let tensors = tensors(&[3]);
    let mut twin = Parity::new(&gpu, &config(plateau.clone()), &tensors, 1);
    for metric in [1.0, 1.0, 1.0] {
        twin.step();
        twin.optimizer.feed(metric).unwrap();
        twin.reference.feed(metric).unwrap();
    }
    assert_eq!(twin.optimizer.value("lr"), Ok(0.5e-3));
    let worst = twin.step();
    assert!(worst.ulps <= bound(&gpu), "the reference follows the same plateau: {}", worst.text);
    let mut resumed = Parity::new(&gpu, &config(plateau), &tensors, 1);
    let state = twin.optimizer.scheduler("lr").unwrap().state().to_vec();
    resumed.optimizer.scheduler_mut("lr").unwrap().set_state(&state).unwrap();
    resumed.optimizer.set_steps(4).unwrap();
    assert_eq!(resumed.optimizer.value("lr"), Ok(0.5e-3));
    assert_eq!(resumed.optimizer.steps(), 4);
}

#[test]
fn a_schedule_that_leads_out_of_bounds_stops_the_step_and_moves_nothing() {
    let Some(gpu) = gpu("schedules out of bounds", 4) else { return };
    let negative = Schedule::custom(|t| if t < 3 { 1.0 } else { -1.0 });
    let not_finite = Schedule::custom(|t| if t < 3 { 1.0 } else { f64::NAN });
    let growing = Schedule::custom(|t| t as f64);
    let momentum = Sgd { momentum: 0.4, ..Sgd::default() };
    let group = Group::new(["t1"]).set("momentum", 0.2);
    for (config, text) in [
        (
            Config::from(AdamW::default()).schedule("lr", negative),
            "schedule at t = 3 is -1, must be at least 0 and ...",
        ),
        (
            Config::from(AdamW::default()).schedule("lr", not_finite),
            "schedule at t = 3 is NaN, must be at least 0 and ...",
        ),
        (
            Config::from(momentum.clone()).schedule("momentum", growing.clone()),
            "momentum at step 3 of its schedule is 1.2000000000000002, must be at least 0 and below 1",
        ),
        (
            Config::from(Sgd { momentum: 0.1, ..momentum })
                .schedule("momentum", growing)
                .group(group.set("momentum", 0.4)),
            "groups[0].momentum at step 3 of its schedule is 1.2000000000000002, must be at least 0 and below 1",
        ),
    ] {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 9]), 2);
        twin.step();
        twin.step();
        twin.refuses(text, text, |Parity { optimizer, params, grads, .. }| optimizer.step(&*params, &*grads));
        assert_eq!(twin.optimizer.steps(), 2);
        let mut values = twin.values.clone();
        let grads: Vec<_> = values.iter().cloned().map(Some).collect();
        check(text, &twin.reference.step(&mut values, &grads).expect_err(text), text);
        assert_eq!(values, twin.values);
    }
}

#[test]
fn schedules_that_mean_nothing_are_refused() {
    for (fields, text) in [
        (json!({"schedule": {"warm": {}}}), "configuration: schedule: unknown variant `warm`, expected one of ..."),
        (json!({"schedule": {"cosine": {"total": 0}}}), "schedule.cosine.total is 0, must be at least 1"),
        (
            json!({"schedule": {"cosine": {"total": 5, "last": 0}}}),
            "configuration: schedule.cosine.last: unknown field `last`, expected `total` or `end`",
        ),
        (json!({"schedule": {"cosine": {}}}), "configuration: schedule.cosine: missing field `total`"),
        (
            json!({"schedule": {"linear": {"total": 5, "end": -1}}}),
            "schedule.linear.end is -1, must be at least 0 and finite",
        ),
        (
            json!({"schedules": {"beta1": {"linear": {"total": 0}}}}),
            "schedules.beta1.linear.total is 0, must be at least 1",
        ),
        (
            json!({"schedules": {"beta1": {"linear": {"total": "x"}}}}),
            "configuration: schedules.beta1.linear.total: invalid type: string \"x\", expected u64",
        ),
        (
            json!({"schedules": {"warmth": {"constant": {}}}}),
            "configuration: schedules.warmth: is not an option that may change; those of adam are lr, beta1, ...",
        ),
        (
            json!({"schedules": {"weight_decay": {"constant": {}}}}),
            "weight_decay is none, must be above 0 with a schedule, which multiplies it",
        ),
        (
            json!({"lr": 0, "schedule": {"constant": {}}}),
            "lr is 0, must be above 0 with a schedule, which multiplies it",
        ),
        (
            json!({"schedule": {"constant": {}}, "schedules": {"lr": {"constant": {}}}}),
            "configuration: schedules.lr: schedule says what lr is; leave one of them out",
        ),
        (json!({"lookahead": {"k": 0}}), "lookahead.k is 0, must be at least 1"),
        (
            json!({"lookahead": {"k": 2.5}}),
            "configuration: lookahead.k: invalid type: floating point `2.5`, expected u64",
        ),
        (json!({"lookahead": {"k": -1}}), "configuration: lookahead.k: invalid value: integer `-1`, expected u64"),
        (json!({"lookahead": {"alpha": 0}}), "lookahead.alpha is 0, must be above 0 and at most 1"),
        (json!({"lookahead": {"alpha": 1.5}}), "lookahead.alpha is 1.5, must be above 0 and at most 1"),
        (
            json!({"lookahead": {"beta": 1}}),
            "configuration: lookahead.beta: unknown field `beta`, expected `k` or `alpha`",
        ),
        (
            json!({"groups": [{"tensors": ["w"], "lookahead": {}}]}),
            "configuration: groups[0].lookahead: belongs to the top level; it is the same for all groups",
        ),
    ] {
        let mut all = json!({"optimizer": "adam"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        check(text, &Config::from_value(all).expect_err(text), text);
    }
    let nan = Lookahead { alpha: f64::NAN, ..Lookahead::default() };
    let error = Config::from(AdamW::default()).wrap(nan).groups(&tensors(&[3])).unwrap_err();
    check("alpha", &error, "lookahead.alpha is NaN, must be above 0 and at most 1");
}

#[test]
fn a_schedule_of_a_group_s_decay_leaves_groups_without_alone() {
    let value = json!({
        "optimizer": "adamw", "schedules": {"weight_decay": {"step": {"every": 1, "gamma": 0.5}}},
        "groups": [{"tensors": ["t1"], "weight_decay": "none"}]
    });
    let Some(gpu) = gpu("schedules of a decay", 1) else { return };
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 9]), 3);
    for _ in 0..3 {
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    assert_eq!(twin.optimizer.value("weight_decay"), Ok(0.01 * 0.125));
}

#[test]
fn metrics_want_a_plateau_and_a_number() {
    let Some(gpu) = gpu("metrics", 2) else { return };
    let mut twin = Parity::new(&gpu, &AdamW::default().into(), &tensors(&[3]), 1);
    let text = "metric is 1, must be fed to a schedule with a plateau; there is none";
    twin.refuses("no plateau", text, |twin| twin.optimizer.feed(1.0));
    let plateau = config(json!({"optimizer": "adam", "schedule": {"plateau": {}}}));
    let mut twin = Parity::new(&gpu, &plateau, &tensors(&[3]), 1);
    twin.refuses("NaN", "metric is NaN, must be a number...", |twin| twin.optimizer.feed(f64::NAN));
}

#[test]
fn a_metric_that_one_plateau_refuses_counts_for_none() {
    let plateaus = json!({"optimizer": "adam", "schedule": {"plateau": {"patience": 0, "factor": 0.5}},
        "schedules": {"beta1": {"plateau": {"mode": "max"}}}});
    let Some(gpu) = gpu("metrics that one plateau refuses", 1) else { return };
    let mut twin = Parity::new(&gpu, &config(plateaus), &tensors(&[3]), 1);
    twin.optimizer.feed(1.0).unwrap();
    // Worse for the first plateau, infinitely good for the second.
    assert!(matches!(twin.optimizer.feed(f64::INFINITY), Err(Error::Field { .. })));
    assert_eq!(twin.optimizer.value("lr"), Ok(1e-3), "the first plateau has not counted it");
}

#[test]
fn a_group_keeps_its_rate_where_the_top_level_s_was_0() {
    let zero = json!({"optimizer": "sgd", "lr": 0, "groups": [{"tensors": ["t1"], "lr": 0.5}]});
    let Some(gpu) = gpu("rates that were 0", 1) else { return };
    let mut twin = Parity::new(&gpu, &config(zero), &tensors(&[3, 5]), 1);
    for (lr, own) in [(0.1, 0.5), (0.2, 1.0)] {
        twin.optimizer.set_lr(lr).unwrap();
        twin.reference.set_lr(lr).unwrap();
        let before = twin.params.read_blocking("t1").unwrap();
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        let grads = twin.grads.read_blocking("t1").unwrap();
        let after = twin.params.read_blocking("t1").unwrap();
        let i = (0..5).max_by(|&a, &b| grads[a].abs().total_cmp(&grads[b].abs())).unwrap();
        let found = (before[i] - after[i]) / grads[i];
        assert!((found / own - 1.0).abs() < 1e-3, "rate {found}, expected {own}");
    }
}

#[test]
fn a_look_ahead_that_a_schedule_stops_is_not_pending() {
    let value = json!({"optimizer": "sgd", "momentum": 0.5, "form": "velocity", "nesterov": "look_ahead"});
    let growing = Schedule::custom(|t| if t < 2 { 1.0 } else { 3.0 });
    let config = config(value).schedule("momentum", growing);
    let Some(gpu) = gpu("look-aheads that a schedule stops", 1) else { return };
    let mut twin = Parity::new(&gpu, &config, &tensors(&[5]), 1);
    twin.step();
    let text = "momentum at step 2 of its schedule is 1.5, must be at least 0 and below 1";
    for _ in 0..2 {
        twin.refuses(text, text, |Parity { optimizer, params, .. }| optimizer.look_ahead(&*params));
        let mut values = twin.values.clone();
        check(text, &twin.reference.look_ahead(&mut values).expect_err(text), text);
    }
}

#[test]
fn a_configuration_with_all_round_it_writes_itself_out() {
    let config = config(json!({
        "optimizer": "adam", "lookahead": {"k": 3}, "schedule": {"cosine": {"total": 9}},
        "schedules": {"beta1": {"linear": {"total": 9, "end": 0.5}}}
    }));
    let text = config.to_json().unwrap();
    let again = Config::from_json(&text).unwrap();
    assert_eq!(again.to_json().unwrap(), text);
    for part in ["\"lookahead\"", "\"alpha\": 0.5", "\"schedule\"", "\"cosine\"", "\"schedules\"", "\"beta1\""] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let closure = Config::from(AdamW::default()).schedule("lr", Schedule::custom(|_| 1.0)).to_json();
    check("a closure", &closure.unwrap_err(), "configuration: schedule: a schedule's closure cannot be written out...");
}

#[test]
fn lookahead_moves_8_bytes_in_the_kth_step_and_4_in_the_first() {
    let Some(gpu) = gpu("lookahead's bytes", ALL.len()) else { return };
    for row in ALL {
        let rule = default_of(row);
        let own = traffic::rule_bytes(&*rule);
        let config = Config::from(rule).wrap(Lookahead { k: 3, ..Lookahead::default() });
        let mut twin = Parity::new(&gpu, &config, &tensors(&[9000]), 1);
        for extra in [4, 0, 8, 0, 0, 8, 0] {
            let report = twin.optimizer.plan(&twin.params, &twin.grads).unwrap();
            assert_eq!(report.bytes, 9000 * (own + extra), "{}: {report:?}", row.name);
            assert_eq!(report.dispatches, report.passes, "{}: fused", row.name);
            twin.step();
        }
    }
}

#[test]
fn lookahead_counts_the_steps_of_each_tensor() {
    let Some(gpu) = gpu("lookahead of tensors that sit out", 1) else { return };
    let config = Config::from(Sgd { lr: 0.1, ..Sgd::default() }).wrap(Lookahead { k: 2, alpha: 0.5 });
    let mut twin = Parity::new(&gpu, &config, &tensors(&SIZES), 1);
    for absent in [&["t3"][..], &[], &["t0", "t3"], &[], &["t17"], &[]] {
        let worst = twin.step_without(absent);
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    let slow = twin.optimizer.state_blocking("t17", "lookahead_slow").unwrap();
    let fast = twin.params.read_blocking("t17").unwrap();
    assert_ne!(slow, fast, "five steps: not at a pull");
    let slow = twin.optimizer.state_blocking("t18", "lookahead_slow").unwrap();
    assert_eq!(slow, twin.params.read_blocking("t18").unwrap(), "six steps: at a pull");
}

/// Takes steps, sets in another optimizer all by which a training is resumed, and takes a step of both: they have the
/// same bits.
#[test]
fn a_training_goes_on_with_the_same_bits() {
    let Some(gpu) = gpu("resumed trainings", ALL.len()) else { return };
    for row in ALL {
        let rule = default_of(row);
        let mut config = Config::from(rule.clone()).wrap(Lookahead { k: 3, alpha: 0.4 });
        if rule.options().contains(&"lr") {
            config = config.schedule("lr", Schedule::Exponential { gamma: 0.7 });
        }
        let mut saved = Parity::new(&gpu, &config, &tensors(&[5, 1030]), 9);
        saved.step();
        saved.step_without(&["t1"]);
        saved.step();
        let mut resumed = Parity::new(&gpu, &config, &tensors(&[5, 1030]), 9);
        for name in ["t0", "t1"] {
            resumed.params.write(name, &saved.params.read_blocking(name).unwrap()).unwrap();
            for slot in saved.optimizer.slots(name).unwrap() {
                let values = saved.optimizer.state_blocking(name, slot).unwrap();
                resumed.optimizer.set_state(name, slot, &values).unwrap();
            }
            resumed.optimizer.set_t(name, saved.optimizer.t(name).unwrap()).unwrap();
            resumed.optimizer.set_carried(name, saved.optimizer.carried(name).unwrap()).unwrap();
        }
        resumed.optimizer.set_steps(saved.optimizer.steps()).unwrap();
        for twin in [&mut saved, &mut resumed] {
            for name in ["t0", "t1"] {
                let len = twin.values[usize::from(name == "t1")].len();
                twin.grads.write(name, &vec![0.25; len]).unwrap();
            }
            for _ in 0..3 {
                if twin.optimizer.needs_look_ahead() {
                    twin.optimizer.look_ahead(&twin.params).unwrap();
                }
                twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            }
        }
        assert_eq!(bits(&saved), bits(&resumed), "{}", row.name);
    }
}

#[test]
fn a_count_set_before_the_first_step_leaves_slots_to_start_as_the_parameter() {
    let Some(gpu) = gpu("slots that start late", 1) else { return };
    let config = Config::from(AdamW::default()).wrap(Lookahead { k: 2, alpha: 0.5 });
    let mut twin = Parity::new(&gpu, &config, &tensors(&[5]), 1);
    for t in [7, 8] {
        twin.optimizer.set_t("t0", t).unwrap();
        twin.reference.set_t("t0", t).unwrap();
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    let slow = twin.optimizer.state_blocking("t0", "lookahead_slow").unwrap();
    let moved = twin.values[0].iter().zip(&slow).map(|(p, slow)| (p - slow).abs()).fold(0.0, f32::max);
    assert!(moved < 0.01, "the slow parameters began where the others were, not at 0: {moved}");
    let mut set = Parity::new(&gpu, &config, &tensors(&[5]), 1);
    set.optimizer.set_state("t0", "lookahead_slow", &[3.0; 5]).unwrap();
    set.optimizer.step(&set.params, &set.grads).unwrap();
    assert_eq!(set.optimizer.state_blocking("t0", "lookahead_slow"), Ok(vec![3.0; 5]), "what was set stays");
}

#[test]
fn nothing_changes_between_a_look_ahead_and_its_step() {
    let Some(gpu) = gpu("calls between a look-ahead and its step", 1) else { return };
    let value = json!({"optimizer": "sgd", "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead",
        "schedules": {"momentum": {"plateau": {}}}});
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 9]), 4);
    for len in [0, 1, 3] {
        let text = format!("parameters are {len}, expected 2: one a tensor, in the order given at creation");
        twin.refuses("a list of another length", &text, |Parity { optimizer, params, .. }| {
            let all = [Some(params.slice("t0").unwrap()), None, None];
            optimizer.look_ahead(&all[..len])
        });
    }
    twin.optimizer.look_ahead(&twin.params).unwrap();
    type Call = fn(&mut Parity) -> wgpu_optim::Result<()>;
    let calls: [(&str, Call); 8] = [
        ("set", |twin| twin.optimizer.set("momentum", 0.5)),
        ("set_lr", |twin| twin.optimizer.set_lr(0.5)),
        ("set_t", |twin| twin.optimizer.set_t("t0", 5)),
        ("set_carried", |twin| twin.optimizer.set_carried("t0", [0.0; 2])),
        ("set_steps", |twin| twin.optimizer.set_steps(5)),
        ("feed", |twin| twin.optimizer.feed(1.0)),
        ("freeze", |twin| twin.optimizer.freeze("t0")),
        ("unfreeze", |twin| twin.optimizer.unfreeze("t0")),
    ];
    for (what, call) in calls {
        twin.refuses(what, &format!("{what}: a look-ahead waits for its step; take the step first"), call);
    }
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    twin.optimizer.set_t("t0", u64::MAX).unwrap();
    twin.optimizer.look_ahead(&twin.params).unwrap();
}

#[test]
fn options_that_bound_each_other_may_follow_schedules_together() {
    let linear = json!({"linear": {"total": 10, "end": 4}});
    let value = json!({"optimizer": "rprop", "step_min": 1, "step_max": 2, "lr": 1.5,
        "schedules": {"step_min": linear, "step_max": linear}});
    let Some(gpu) = gpu("schedules that go together", 1) else { return };
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5]), 1);
    for _ in 0..12 {
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    assert_eq!(twin.optimizer.value("step_max"), Ok(8.0));
    assert_eq!(twin.optimizer.value("lr"), Ok(1.5), "to be read, though not to be set");
}

#[test]
fn evaluation_and_training_take_turns() {
    let Some(gpu) = gpu("evaluation out of turn", ALL.len()) else { return };
    let mut have = 0;
    for row in ALL {
        let rule = default_of(row);
        let moves = rule.moves().contains(&Move::Evaluation);
        let mut twin = Parity::new(&gpu, &rule.into(), &tensors(&SIZES), 1).midway(4);
        if !moves {
            let text = "evaluation: the parameters are evaluated where they are trained; leave the call out";
            twin.refuses(row.name, text, |Parity { optimizer, params, .. }| optimizer.eval(&*params));
            continue;
        }
        have += 1;
        let text = "training: the parameters are in training already";
        twin.refuses(row.name, text, |Parity { optimizer, params, .. }| optimizer.train(&*params));
        // After a first step, the slots that start as the parameter keep their values.
        let mut first = Parity::new(&gpu, &default_of(row).into(), &tensors(&SIZES), 1).midway(1);
        let worst = first.evaluate();
        assert!(worst.ulps <= bound(&gpu), "{} after a step: {}", row.name, worst.text);
        twin.optimizer.eval(&twin.params).unwrap();
        for (what, text) in [
            ("evaluation", "evaluation: the parameters are in evaluation already"),
            ("step", "step: the parameters are in evaluation; call train first"),
        ] {
            twin.refuses(what, text, |Parity { optimizer, params, grads, .. }| match what {
                "evaluation" => optimizer.eval(&*params),
                _ => optimizer.step(&*params, &*grads),
            });
        }
        twin.optimizer.train(&twin.params).unwrap();
        twin.optimizer.step(&twin.params, &twin.grads).unwrap();

        // A move that is not submitted is taken back as a step is.
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let token = twin.optimizer.encode_eval(&mut encoder, &twin.params).unwrap();
        drop(encoder);
        twin.optimizer.undo(token).unwrap();
        twin.optimizer.step(&twin.params, &twin.grads).unwrap();

        // Before its first step a tensor is evaluated where it stands.
        let fresh = Parity::new(&gpu, &default_of(row).into(), &tensors(&[5]), 2);
        let (before, mut optimizer) = (bits(&fresh), fresh.optimizer);
        optimizer.eval(&fresh.params).unwrap();
        let after = fresh.params.read_blocking("t0").unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(after, before[0], "{}", row.name);
        let error = optimizer.eval(&fresh.params).unwrap_err();
        assert!(matches!(error, Error::Order { .. }), "{error}");
    }
    crate::common::say(&format!("evaluation: {have} of {} rules move to it", ALL.len()));
}
