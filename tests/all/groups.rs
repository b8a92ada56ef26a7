//! Groups: schedules of their own and tensors that are frozen, on the GPU and on the reference; tensors and groups that
//! are added, on the reference.

use crate::common::twin::{Parity, bound, noise, tensors};
use crate::common::{default_of, gpu};
use ndarray::{ArrayD, arr1};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wgpu_optim::proof::check;
use wgpu_optim::rule::{AnyRule, Move};
use wgpu_optim::rules::ALL;
use wgpu_optim::{
    AdamW, Arena, Config, Error, Group, Lookahead, Optimizer, Plateau, Reference, Result, Schedule, Sgd, TensorSpec,
    WeightDecay,
};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Reads each tensor's parameters as bits.
fn bits(twin: &Parity) -> Vec<Vec<u32>> {
    let read = |name: &str| twin.params.read_blocking(name).expect("a readback");
    twin.tensors.iter().map(|tensor| read(&tensor.name).into_iter().map(f32::to_bits).collect()).collect()
}

/// Steps the optimizer and its reference without gradients for these tensors.
fn step_without(twin: &mut Parity, absent: &[&str]) {
    let worst = twin.step_without(absent);
    assert!(worst.ulps <= bound(&twin.gpu), "{}", worst.text);
}

/// A call of the optimizer and of its reference.
macro_rules! both {
    ($twin:expr, $($call:tt)*) => {
        $twin.optimizer.$($call)*.unwrap();
        $twin.reference.$($call)*.unwrap();
    };
}

// Schedules.

/// `t0` follows the top level; `t1` has a rate and its schedule, `t2` the schedule of its momentum, `t3` a closure.
fn scheduled() -> Config {
    let value = json!({
        "optimizer": "sgd", "lr": 0.1, "momentum": 0.5,
        "schedule": {"exponential": {"gamma": 0.5}},
        "schedules": {"momentum": {"linear": {"total": 4}}},
        "groups": [
            {"tensors": ["t1"], "lr": 0.3, "schedule": {"step": {"every": 2, "gamma": 0.1}}},
            {"tensors": ["t2"], "schedules": {"momentum": {"constant": {}}}}
        ]
    });
    config(value).group(Group::new(["t3"]).schedule("lr", Schedule::custom(|t| 1.0 / t as f64)))
}

/// The rates of the four tensors above in each step.
const RATES: [[f64; 4]; 4] = [
    [0.1, 0.3, 0.1, 0.1],
    [0.1 * 0.5, 0.3, 0.1 * 0.5, 0.1 * (1.0 / 2.0)],
    [0.1 * 0.25, 0.3 * 0.1, 0.1 * 0.25, 0.1 * (1.0 / 3.0)],
    [0.1 * 0.125, 0.3 * 0.1, 0.1 * 0.125, 0.1 * (1.0 / 4.0)],
];

#[test]
fn a_group_s_schedule_replaces_the_top_level_s() {
    let Some(gpu) = gpu("schedules of groups", 1) else { return };
    let plain = config(json!({
        "optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "groups": [{"tensors": ["t1"], "lr": 0.3}]
    }));
    let plain = plain.group(Group::new(["t2"])).group(Group::new(["t3"]));
    let tensors = tensors(&[5, 1030, 9, 3]);
    let mut by_schedule = Parity::new(&gpu, &scheduled(), &tensors, 1);
    let mut by_hand = Parity::new(&gpu, &plain, &tensors, 1);
    for (step, rates) in RATES.into_iter().enumerate() {
        let momentum = 0.5 * (1.0 - step as f64 / 4.0);
        assert_eq!(by_schedule.optimizer.value("lr"), Ok(rates[0]));
        both!(by_hand, set_lr(rates[0]));
        for group in 0..3 {
            both!(by_hand, set_group(group, "lr", rates[group + 1]));
            assert_eq!(by_schedule.optimizer.group_value(group, "lr"), Ok(rates[group + 1]), "step {step}");
            assert_eq!(by_schedule.reference.group_value(group, "lr"), Ok(rates[group + 1]), "step {step}");
            let own = if group == 1 { 0.5 } else { momentum };
            both!(by_hand, set_group(group, "momentum", own));
            assert_eq!(by_schedule.optimizer.group_value(group, "momentum"), Ok(own), "step {step}");
        }
        both!(by_hand, set("momentum", momentum));
        // Schedules follow the optimizer's steps, whichever tensors they had.
        let absent: &[&str] = if step == 1 { &["t1"] } else { &[] };
        step_without(&mut by_schedule, absent);
        step_without(&mut by_hand, absent);
        assert_eq!(bits(&by_schedule), bits(&by_hand), "step {step}");
    }
}

#[test]
fn rates_of_groups_are_those_computed_by_hand() {
    let plain = |groups: Vec<Group>| {
        let config = Config::from(Sgd { lr: 0.1, ..Sgd::default() });
        let config = config.schedule("lr", Schedule::Exponential { gamma: 0.5 });
        groups.into_iter().fold(config, Config::group)
    };
    let config = plain(vec![
        Group::new(["t1"]).set("lr", 0.3).set("schedule", json!({"step": {"every": 2, "gamma": 0.1}})),
        Group::new(["t2"]),
        Group::new(["t3"]).schedule("lr", Schedule::custom(|t| 1.0 / t as f64)),
    ]);
    let mut reference = Reference::<f64>::new(&config, &tensors(&[1; 4])).unwrap();
    let mut params: Vec<_> = (0..4).map(|_| arr1(&[1.0]).into_dyn()).collect();
    let mut expected = [1.0; 4];
    let mut step = |reference: &mut Reference<f64>, rates: [f64; 4]| {
        reference.step(&mut params, &vec![Some(arr1(&[1.0]).into_dyn()); 4]).unwrap();
        for i in 0..4 {
            expected[i] -= rates[i];
            assert_eq!(params[i][[0]], expected[i], "t{i}");
        }
    };
    for rates in RATES {
        step(&mut reference, rates);
    }
    // A rate that is set scales every group, as the replay's `lr_per_step` does: those with schedules, too.
    reference.set_lr(0.2).unwrap();
    step(&mut reference, [0.2 * 0.0625, 0.3 / 0.1 * 0.2 * (0.1_f64 * 0.1), 0.2 * 0.0625, 0.2 * (1.0 / 5.0)]);
}

#[test]
fn a_metric_is_fed_to_the_plateaus_of_all_groups() {
    let Some(gpu) = gpu("plateaus of groups", 1) else { return };
    let plateau = |factor: f64| Schedule::Plateau(Plateau { factor, patience: 0, ..Plateau::default() });
    // The top level has none.
    let plain = Config::from(Sgd { lr: 1.0, momentum: 0.8, ..Sgd::default() });
    let config = plain
        .group(Group::new(["t0"]).schedule("lr", plateau(0.5)))
        .group(Group::new(["t1"]).schedule("momentum", plateau(0.25)).schedule("lr", Schedule::Constant {}));
    let tensors = tensors(&[3, 5]);
    let mut twin = Parity::new(&gpu, &config, &tensors, 1);
    for metric in [1.0, 1.0] {
        step_without(&mut twin, &[]);
        both!(twin, feed(metric));
    }
    let values = |twin: &Parity| [(0, "lr"), (1, "lr"), (1, "momentum")].map(|(i, o)| twin.optimizer.group_value(i, o));
    assert_eq!(values(&twin), [Ok(0.5), Ok(1.0), Ok(0.8 * 0.25)]);
    step_without(&mut twin, &[]);

    // What one group's plateau refuses counts for none.
    let up = Schedule::Plateau(Plateau { mode: wgpu_optim::Mode::Max, ..Plateau::default() });
    let min_and_max = Config::from(Sgd { lr: 1.0, ..Sgd::default() })
        .group(Group::new(["t0"]).schedule("lr", plateau(0.5)))
        .group(Group::new(["t1"]).schedule("lr", up));
    let mut refused = Parity::new(&gpu, &min_and_max, &tensors, 1).optimizer;
    refused.feed(1.0).unwrap();
    let text = "metric is inf, must be below inf with mode max";
    check(text, &refused.feed(f64::INFINITY).unwrap_err(), text);
    assert_eq!(refused.group_value(0, "lr"), Ok(1.0));

    // Another training goes on from their states.
    let mut resumed = Parity::new(&gpu, &config, &tensors, 1);
    for (group, option) in [(0, "lr"), (1, "momentum")] {
        let state = twin.optimizer.group_scheduler(group, option).unwrap().state().to_vec();
        resumed.optimizer.group_scheduler_mut(group, option).unwrap().set_state(&state).unwrap();
        resumed.reference.group_scheduler_mut(group, option).unwrap().set_state(&state).unwrap();
    }
    assert_eq!(values(&resumed), values(&twin));
    step_without(&mut resumed, &[]);
    for (group, option) in [(0, "momentum"), (2, "lr"), (usize::MAX, "lr")] {
        assert!(resumed.optimizer.group_scheduler(group, option).is_none(), "{option} of {group}");
        assert!(resumed.optimizer.group_scheduler_mut(group, option).is_none(), "{option} of {group}");
    }
    assert!(resumed.optimizer.scheduler("lr").is_none(), "that is the top level's");
}

#[test]
fn schedules_of_groups_write_themselves_out() {
    let schedule = Schedule::Cosine { total: 9, end: 0.0 };
    let from_json = json!({"optimizer": "adam", "schedule": {"constant": {}}, "groups": [{
        "tensors": ["a"], "lr": 0.5, "schedule": {"cosine": {"total": 9, "end": 0.0}},
        "schedules": {"beta1": {"linear": {"total": 9, "end": 0.5}}}
    }]});
    let linear = Schedule::Linear { total: 9, end: 0.5 };
    let group = Group::new(["a"]).set("lr", 0.5);
    let top = config(json!({"optimizer": "adam", "schedule": {"constant": {}}}));
    let in_rust = top.clone().group(group.clone().schedule("beta1", linear.clone()).schedule("lr", schedule.clone()));
    let both_ways = top.group(group.set("schedules", json!({"beta1": linear})).schedule("lr", schedule));
    let expected = from_json["groups"].clone();
    for config in [config(from_json), in_rust, both_ways] {
        let text = config.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["groups"], expected);
        let again = Config::from_json(&text).unwrap();
        assert_eq!(again.to_json().unwrap(), text);
        let reference = Reference::<f32>::new(&again, &tensors(&[3])[..0]);
        assert!(matches!(reference, Err(Error::Group { .. })), "the group is there still");
    }
    let closure = Config::from(AdamW::default()).group(Group::new(["a"]).schedule("beta1", Schedule::custom(|_| 1.0)));
    let text = "configuration: groups[0].schedules.beta1: a schedule's closure cannot be written out; ...";
    check("a closure", &closure.to_json().unwrap_err(), text);
}

#[test]
fn schedules_of_groups_that_mean_nothing_are_refused() {
    let linear = |total: u64| json!({"linear": {"total": total}});
    for (group, text) in [
        (
            json!({"schedule": {"warm": {}}}),
            "configuration: groups[1].schedule: unknown variant `warm`, expected one of ...",
        ),
        (json!({"schedule": null}), "configuration: groups[1].schedule: invalid type: null, expected ..."),
        (
            json!({"schedule": {"linear": {"total": 5, "last": 0}}}),
            "configuration: groups[1].schedule.linear.last: unknown field `last`, expected `total` or `end`",
        ),
        (json!({"schedule": linear(0)}), "groups[1].schedule.linear.total is 0, must be at least 1"),
        (json!({"schedules": {"beta1": linear(0)}}), "groups[1].schedules.beta1.linear.total is 0, must be at least 1"),
        (
            json!({"schedules": {"beta1": {"linear": {"total": "x"}}}}),
            "configuration: groups[1].schedules.beta1.linear.total: invalid type: string \"x\", expected u64",
        ),
        (json!({"schedules": 3}), "configuration: groups[1].schedules: invalid type: integer `3`, expected a map"),
        (
            json!({"schedules": {"warmth": linear(1)}}),
            "configuration: groups[1].schedules.warmth: is not an option that may change; those of adam are lr, ...",
        ),
        (
            json!({"schedules": {"weight_decay": linear(1)}}),
            "groups[1].weight_decay is none, must be above 0 with a schedule, which multiplies it",
        ),
        (
            json!({"lr": 0, "schedule": linear(1)}),
            "groups[1].lr is 0, must be above 0 with a schedule, which multiplies it",
        ),
        (
            json!({"schedule": linear(1), "schedules": {"lr": linear(1)}}),
            "configuration: groups[1].schedules.lr: schedule says what lr is; leave one of them out",
        ),
    ] {
        let mut all = json!({"optimizer": "adam", "groups": [{"tensors": ["t0"]}, {"tensors": ["t1"]}]});
        all["groups"][1].as_object_mut().unwrap().extend(group.as_object().unwrap().clone());
        check(text, &Config::from_value(all).expect_err(text), text);
    }
    // The only rate that the top level's schedule could scale has a schedule of its own.
    let unscaled = json!({"optimizer": "adam", "lr": 0, "schedule": linear(1),
        "groups": [{"tensors": ["t0"], "lr": 0.1, "schedule": linear(1)}]});
    let text = "lr is 0, must be above 0 with a schedule, which multiplies it";
    check(text, &Config::from_value(unscaled).unwrap_err(), text);

    let refused = |group: Group, text: &str| {
        let error = Config::from(Sgd { momentum: 0.5, ..Sgd::default() }).group(group).groups(&tensors(&[1]));
        check(text, &error.expect_err(text), text);
    };
    let twice =
        "configuration: groups[0].schedule: is among the group's fields and set beside them; leave one of them out";
    let constant = Schedule::Constant {};
    let group = Group::new(["t0"]);
    refused(group.clone().set("schedule", &constant).schedule("lr", constant), twice);
    let out = "groups[0].momentum at step 1 of its schedule is 1.5, must be at least 0 and below 1";
    refused(group.clone().schedule("momentum", Schedule::custom(|_| 3.0)), out);
    let negative = "groups[0].schedules.momentum at t = 1 is -1, must be at least 0 and finite";
    refused(group.schedule("momentum", Schedule::custom(|_| -1.0)), negative);
}

#[test]
fn a_group_s_schedule_that_leads_out_of_bounds_stops_the_step_and_moves_nothing() {
    let Some(gpu) = gpu("schedules of groups out of bounds", 2) else { return };
    let at_third = |value: f64| Schedule::custom(move |t| if t < 3 { 1.0 } else { value });
    for (option, value, text) in [
        ("lr", -1.0, "groups[0].schedule at t = 3 is -1, must be at least 0 and finite"),
        ("momentum", 4.0, "groups[0].momentum at step 3 of its schedule is 2, must be at least 0 and below 1"),
    ] {
        let top = Config::from(Sgd { momentum: 0.5, ..Sgd::default() });
        let config = top.group(Group::new(["t1"]).schedule(option, at_third(value)));
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 9]), 2);
        twin.step();
        twin.step();
        twin.refuses(text, text, |Parity { optimizer, params, grads, .. }| optimizer.step(&*params, &*grads));
        let mut values = twin.values.clone();
        let grads: Vec<_> = values.iter().cloned().map(Some).collect();
        check(text, &twin.reference.step(&mut values, &grads).expect_err(text), text);
        assert_eq!((values, twin.optimizer.steps()), (twin.values, 2));
    }
    let twin = Parity::new(&gpu, &scheduled(), &tensors(&[1; 4]), 2);
    for (group, option, text) in [
        (3, "lr", "groups[3]: there is no such group; the configuration has 3"),
        (1, "warmth", "configuration: groups[1].warmth: is not an option that may change; those of sgd are ..."),
        (1, "weight_decay", "groups[1].weight_decay is none, must be a number to be read"),
    ] {
        check(text, &twin.optimizer.group_value(group, option).unwrap_err(), text);
        check(text, &twin.reference.group_value(group, option).unwrap_err(), text);
    }
}

// Freezing.

/// State per element, sums, slots around a rule, rows and columns.
fn configs() -> [Config; 4] {
    [
        json!({"optimizer": "adamw", "lr": 0.05, "schedule": {"exponential": {"gamma": 0.5}}}),
        json!({"optimizer": "novograd", "lr": 0.05}),
        json!({"optimizer": "sgd", "lr": 0.05, "lookahead": {"k": 2}}),
        json!({"optimizer": "adafactor", "lr": 0.05}),
    ]
    .map(config)
}

/// Parameter and state of a tensor as bits.
fn all_of(twin: &Parity, name: &str) -> Vec<Vec<u32>> {
    let slots = twin.optimizer.slots(name).unwrap();
    let state = slots.into_iter().map(|slot| twin.optimizer.state_blocking(name, slot).unwrap());
    let all = [twin.params.read_blocking(name).unwrap()].into_iter().chain(state);
    all.map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn a_frozen_tensor_is_as_one_without_a_gradient() {
    let Some(gpu) = gpu("frozen tensors", configs().len()) else { return };
    for config in configs() {
        let tensors = [TensorSpec::f32("t0", [700]), TensorSpec::f32("t1", [3, 40]), TensorSpec::f32("t2", [1030])];
        let [mut frozen, mut absent] = [(); 2].map(|()| Parity::new(&gpu, &config, &tensors, 16));
        for twin in [&mut frozen, &mut absent] {
            step_without(twin, &[]);
        }
        let before = all_of(&frozen, "t1");
        let (counts, memory) = (gpu.counts(), frozen.optimizer.memory());
        both!(frozen, freeze("t1"));
        let held = ["t0", "t1", "t2"].map(|name| frozen.optimizer.frozen(name));
        assert_eq!(held, [Ok(false), Ok(true), Ok(false)]);
        for _ in 0..3 {
            step_without(&mut frozen, &[]);
            step_without(&mut absent, &["t1"]);
        }
        let made = |counts: wgpu_optim::Counts| (counts.bind_groups, counts.pipelines);
        assert_eq!(made(gpu.counts()), made(counts), "{}: no table is made again", config.name());
        assert_eq!(frozen.optimizer.memory().tables, memory.tables);
        assert_eq!(all_of(&frozen, "t1"), before, "{}: no decay, no state", config.name());
        assert_eq!(["t0", "t1"].map(|name| frozen.optimizer.t(name)), [Ok(4), Ok(1)]);
        // A gradient may be missing as well.
        step_without(&mut frozen, &["t1"]);
        step_without(&mut absent, &["t1"]);
        both!(frozen, unfreeze("t1"));
        for _ in 0..2 {
            step_without(&mut frozen, &[]);
            step_without(&mut absent, &[]);
        }
        for name in ["t0", "t1", "t2"] {
            assert_eq!(all_of(&frozen, name), all_of(&absent, name), "{name} of {}", config.name());
            assert_eq!(frozen.optimizer.t(name), frozen.reference.t(name), "{name}");
        }
        assert_eq!((frozen.optimizer.t("t1"), frozen.optimizer.steps()), (Ok(3), 7));
    }
}

#[test]
fn tensors_are_frozen_by_name_or_pattern() {
    let Some(gpu) = gpu("patterns of frozen tensors", 1) else { return };
    let tensors = ["h.0.w", "h.0.b", "h.1.w"].map(|name| TensorSpec::f32(name, [3]));
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam", "lr": 0.1})), &tensors, 4);
    let held = |twin: &Parity| {
        let of = |name: &str| (twin.optimizer.frozen(name).unwrap(), twin.reference.frozen(name).unwrap());
        ["h.0.w", "h.0.b", "h.1.w"].map(|name| match of(name) {
            (optimizer, reference) if optimizer == reference => optimizer,
            differ => panic!("{name}: {differ:?}"),
        })
    };
    both!(twin, freeze("*.w"));
    assert_eq!(held(&twin), [true, false, true]);
    let moved = twin.optimizer.plan(&twin.params, &twin.grads).unwrap().bytes;
    assert_eq!(moved, 28 * 3, "of one tensor");
    both!(twin, freeze("h.0.b"));
    both!(twin, unfreeze("h.0.*"));
    assert_eq!(held(&twin), [false, false, true]);
    for text in ["pattern h.2 matches none of the 3 tensors", "pattern *.v matches none of the 3 tensors"] {
        let pattern = text.split(' ').nth(1).unwrap();
        twin.refuses(text, text, |twin| twin.optimizer.freeze(pattern));
        twin.refuses(text, text, |twin| twin.optimizer.unfreeze(pattern));
        check(text, &twin.reference.freeze(pattern).unwrap_err(), text);
        check(text, &twin.reference.unfreeze(pattern).unwrap_err(), text);
    }
    let text = "tensor h.* is unknown; there are h.0.w, h.0.b, h.1.w";
    check(text, &twin.optimizer.frozen("h.*").unwrap_err(), text);
    check(text, &twin.reference.frozen("h.*").unwrap_err(), text);
    assert_eq!(held(&twin), [false, false, true], "what is refused changes nothing");

    // What is frozen stays so when an encoding from before is taken back.
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let token = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    twin.optimizer.freeze("*").unwrap();
    drop(encoder);
    twin.optimizer.undo(token).unwrap();
    assert_eq!(twin.optimizer.frozen("h.0.b"), Ok(true));
    let before = bits(&twin);
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    assert_eq!(bits(&twin), before);
    assert_eq!((twin.optimizer.t("h.0.b"), twin.optimizer.steps()), (Ok(0), 1));
}

#[test]
fn a_frozen_tensor_does_not_look_ahead() {
    let Some(gpu) = gpu("look-aheads of frozen tensors", 1) else { return };
    let value = json!({"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead"});
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 9]), 4);
    step_without(&mut twin, &[]);
    both!(twin, freeze("t1"));
    let before = all_of(&twin, "t1");
    // Its parameter and its gradient may be missing.
    let part = twin.params.without(&["t1"]).unwrap();
    twin.optimizer.look_ahead(&part).unwrap();
    twin.reference.look_ahead(&mut twin.values).unwrap();
    let text = "freeze: a look-ahead waits for its step; take the step first";
    check(text, &twin.reference.freeze("t0").unwrap_err(), text);
    let text = "unfreeze: a look-ahead waits for its step; take the step first";
    check(text, &twin.reference.unfreeze("t1").unwrap_err(), text);
    twin.grads.write("t0", &[0.5; 5]).unwrap();
    twin.optimizer.step(&part, &twin.grads.without(&["t1"]).unwrap()).unwrap();
    let grads = [Some(arr1(&[0.5_f32; 5]).into_dyn()), None];
    twin.reference.step(&mut twin.values, &grads).unwrap();
    drop(part);
    step_without(&mut twin, &[]);
    assert_eq!(all_of(&twin, "t1"), before);
    both!(twin, unfreeze("*"));
    step_without(&mut twin, &[]);
    assert_eq!(["t0", "t1"].map(|name| twin.optimizer.t(name)), [Ok(4), Ok(2)]);
    // Where every tensor is frozen a step needs none.
    both!(twin, freeze("*"));
    let before = bits(&twin);
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    assert_eq!(bits(&twin), before);
}

// More tensors.

fn random(rng: &mut StdRng, tensors: &[TensorSpec]) -> Vec<ArrayD<f32>> {
    let one = |tensor: &TensorSpec| {
        let values = noise(rng, tensor.len_elements() as usize);
        ArrayD::from_shape_vec(tensor.shape.clone(), values).expect("as many values as elements")
    };
    tensors.iter().map(one).collect()
}

fn grads_of(rng: &mut StdRng, tensors: &[TensorSpec]) -> Vec<Option<ArrayD<f32>>> {
    random(rng, tensors).into_iter().map(Some).collect()
}

/// The reference as text: options, state, counts.
fn all_in(reference: &Reference<f32>) -> String {
    format!("{reference:?}")
}

#[test]
fn added_tensors_start_beside_others_that_go_on() {
    // Where a rule sums over the model, no tensor goes on as it would alone.
    // Rules of matrices take no vector.
    let alone = |rule: &dyn AnyRule| rule.sums_over_model() || rule.has_products();
    for (row, rule) in ALL.iter().map(|row| (row, default_of(row))).filter(|(_, rule)| !alone(&**rule)) {
        let mut config = Config::from(rule.clone()).wrap(Lookahead { k: 2, alpha: 0.5 });
        if rule.options().contains(&"lr") {
            config = config.schedule("lr", Schedule::Exponential { gamma: 0.7 });
        }
        let config = config.group(Group::new(["*.b"]).set("maximize", true));
        let named =
            |model: &str| [("w", &[3, 4][..]), ("b", &[5])].map(|(t, s)| TensorSpec::f32(format!("{model}.{t}"), s));
        let (first, second) = (named("x"), named("y"));
        let mut rng = StdRng::seed_from_u64(7);
        let mut whole = Reference::<f32>::new(&config, &first).unwrap();
        let mut apart = [&first, &second].map(|tensors| Reference::<f32>::new(&config, tensors).unwrap());
        let mut params = random(&mut rng, &first);
        let mut params_apart = [params.clone(), random(&mut rng, &second)];
        let mut step = |whole: &mut Reference<f32>, params: &mut [ArrayD<f32>], absent: usize| {
            let tensors = [&first[..], &second].concat();
            let grads = random(&mut rng, &tensors[..params.len()]);
            let grads: Vec<_> = grads.into_iter().enumerate().map(|(i, grad)| (i != absent).then_some(grad)).collect();
            whole.step(params, &grads).unwrap();
            for (i, grads) in grads.chunks(2).enumerate() {
                apart[i].step(&mut params_apart[i], grads).unwrap();
                assert_eq!(params[2 * i..2 * i + 2], params_apart[i], "{}", row.name);
            }
            if params.len() == 2 {
                // Schedules follow the steps of the whole.
                apart[1].set_steps(whole.steps()).unwrap();
                params_apart[1].clone()
            } else {
                vec![]
            }
        };
        step(&mut whole, &mut params, 0);
        let new = step(&mut whole, &mut params, 2);
        whole.add(&second).unwrap();
        params.extend(new);
        for absent in [9, 2, 1] {
            step(&mut whole, &mut params, absent);
        }
        assert_eq!(["x.w", "x.b", "y.w", "y.b"].map(|name| whole.t(name)), [Ok(4), Ok(4), Ok(2), Ok(3)]);
        for (apart, tensors) in apart.iter().zip([&first, &second]) {
            for TensorSpec { name, .. } in tensors {
                for slot in apart.slots(name).unwrap() {
                    assert_eq!(whole.state(name, slot), apart.state(name, slot), "{slot} of {name}, {}", row.name);
                }
                assert_eq!(whole.carried(name), apart.carried(name), "{name}, {}", row.name);
            }
        }
    }
}

#[test]
fn an_added_group_takes_what_the_top_level_has_now() {
    let top = Config::from(Sgd { lr: 0.1, momentum: 0.5, ..Sgd::default() });
    let top = top.schedule("momentum", Schedule::Exponential { gamma: 0.5 }).group(Group::new(["a*"]).set("lr", 0.2));
    let one = |name: &str| TensorSpec::f32(name, [1]);
    let mut reference = Reference::<f64>::new(&top, &[one("a"), one("b")]).unwrap();
    let params = |count: usize| vec![arr1(&[1.0]).into_dyn(); count];
    let grads = |count: usize| vec![Some(arr1(&[0.0]).into_dyn()); count];
    reference.step(&mut params(2), &grads(2)).unwrap();
    reference.set_lr(0.05).unwrap();
    reference.set("momentum", 0.25).unwrap();
    reference.freeze("*").unwrap();

    let decay = |decay: f64| WeightDecay::Independent(decay);
    // The new group's pattern would match `b`, too, which keeps its group; `c` goes to the top level, `aa` to the group
    // that was there before.
    let group = Group::new(["b*", "d"]).set("weight_decay", decay(0.5)).schedule("lr", Schedule::custom(|t| t as f64));
    reference.add_group(group, &[one("bb"), one("c"), one("d"), one("aa")]).unwrap();
    assert_eq!(reference.value("lr"), Ok(0.05));
    assert_eq!([0, 1].map(|group| reference.group_value(group, "lr")), [Ok(0.1), Ok(0.05 * 2.0)]);
    assert_eq!(reference.group_value(1, "momentum"), Ok(0.25 * 0.5), "in the second step of the schedule");
    let own = Group::new(["e*"]).set("lr", 0.4).set("weight_decay", decay(0.25));
    reference.add_group(own, &[one("e")]).unwrap();
    // Later ones find the groups that were added.
    reference.add(&[one("e2"), one("f")]).unwrap();

    let names = ["a", "b", "bb", "c", "d", "aa", "e", "e2", "f"];
    assert_eq!(names.map(|name| reference.frozen(name).unwrap()), names.map(|name| ["a", "b"].contains(&name)));
    assert_eq!(names.map(|name| reference.t(name).unwrap()), [1, 1, 0, 0, 0, 0, 0, 0, 0]);
    let mut stepped = params(9);
    reference.step(&mut stepped, &grads(9)).unwrap();
    // Decay alone: by the rate's ratio to the configured one, which is the top level's where the group has none.
    let moved = |decay: f64, ratio: f64| 1.0 - decay * ratio;
    let grouped = moved(0.5, 0.1 / 0.1);
    let found: Vec<f64> = stepped.iter().map(|param| param[[0]]).collect();
    assert_eq!(found, [1.0, 1.0, grouped, 1.0, grouped, 1.0, moved(0.25, 1.0), moved(0.25, 1.0), 1.0]);
    assert_eq!(names.map(|name| reference.t(name).unwrap()), [1, 1, 1, 1, 1, 1, 1, 1, 1]);
    // A rate of its own keeps its ratio to the top level's of when it came.
    reference.set_lr(0.025).unwrap();
    assert_eq!(reference.group_value(2, "lr"), Ok(0.4 / 0.05 * 0.025));
    assert_eq!(reference.group_value(1, "lr"), Ok(0.025 * 3.0));
}

#[test]
fn tensors_and_groups_that_do_not_fit_are_not_added() {
    let value = json!({"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead",
        "groups": [{"tensors": ["*.b"], "nesterov": "off"}]});
    let one = |name: &str| TensorSpec::f32(name, [2]);
    let tensors = ["x.w", "x.b"].map(one);
    let mut reference = Reference::<f32>::new(&config(value), &tensors).unwrap();
    let mut rng = StdRng::seed_from_u64(8);
    let mut params = random(&mut rng, &tensors);
    reference.look_ahead(&mut params).unwrap();
    reference.step(&mut params, &grads_of(&mut rng, &tensors)).unwrap();
    let refused = |reference: &mut Reference<f32>, text: &str, call: &dyn Fn(&mut Reference<f32>) -> Result<()>| {
        let before = all_in(reference);
        check(text, &call(reference).expect_err(text), text);
        assert!(all_in(reference) == before, "{text}: something has changed");
    };
    let twice = "tensor x.b is listed twice, at 1 and 3";
    refused(&mut reference, twice, &|reference| reference.add(&[one("y.w"), one("x.b")]));
    let constant = |total: u64| json!({"linear": {"total": total}});
    for (group, names, text) in [
        (Group::new(["x.*"]), ["y.w", "y.b"], "groups[1]: pattern x.* matches none of the 2 new tensors"),
        (Group::new(["y.w", "z"]), ["y.w", "y.b"], "groups[1]: pattern z matches none of the 2 new tensors"),
        (Group::new(["y.*"]), ["y.w", "y.b"], "groups[1]: tensor y.b is in groups[0] already"),
        (Group::new([""; 0]), ["y.w", "y.b"], "groups[1]: tensors is empty, must hold at least one name"),
        (Group::new(["y.w"]), ["y.w", "y.w"], "tensor y.w is listed twice, at 2 and 3"),
        (Group::new(["y.w"]).set("momentum", 1), ["y.w", "y.b"], "groups[1].momentum is 1, must be at least 0 and ..."),
        (
            Group::new(["y.w"]).set("warmth", 1),
            ["y.w", "y.b"],
            "configuration: groups[1].warmth: unknown field `warmth`, expected one of ...",
        ),
        (
            Group::new(["y.w"]).set("schedule", constant(0)),
            ["y.w", "y.b"],
            "groups[1].schedule.linear.total is 0, must be at least 1",
        ),
        (
            Group::new(["y.w"]).schedule("lr", Schedule::custom(|t| if t == 2 { -1.0 } else { 1.0 })),
            ["y.w", "y.b"],
            "groups[1].schedule at t = 2 is -1, must be at least 0 and finite",
        ),
    ] {
        refused(&mut reference, text, &|reference| reference.add_group(group.clone(), &names.map(one)));
    }
    reference.look_ahead(&mut params).unwrap();
    let group = || Group::new(["y.w"]);
    let text = "add: a look-ahead waits for its step; take the step first";
    refused(&mut reference, text, &|reference| reference.add(&[one("y.w")]));
    let text = "add_group: a look-ahead waits for its step; take the step first";
    refused(&mut reference, text, &|reference| reference.add_group(group(), &[one("y.w")]));
    reference.step(&mut params, &grads_of(&mut rng, &tensors)).unwrap();
    reference.add_group(group(), &[one("y.w")]).unwrap();

    let apart = Config::from(AdamW::default()).group(Group::new(["x*"]));
    let mut reference = Reference::<f32>::new(&apart, &tensors).unwrap();
    reference.add_group(Group::new(["y*"]), &[one("y")]).unwrap();
    reference.add_group(Group::new(["*.b"]), &[one("z.b")]).unwrap();
    let text = "groups[2]: tensor y.b is in groups[1] already";
    refused(&mut reference, text, &|reference| reference.add(&[one("z"), one("y.b")]));

    // In evaluation, where there is one.
    let rules = ALL.iter().map(|row| default_of(row)).filter(|rule| rule.moves().contains(&Move::Evaluation));
    for rule in rules {
        let mut reference = Reference::<f32>::new(&rule.into(), &tensors).unwrap();
        reference.eval(&mut params).unwrap();
        let text = "add: the parameters are in evaluation; call train first";
        refused(&mut reference, text, &|reference| reference.add(&[one("y")]));
        reference.train(&mut params).unwrap();
        reference.add(&[one("y")]).unwrap();
    }
    // Rows and columns, where a rule takes nothing else.
    for rule in ALL.iter().filter_map(|row| default_of(row).for_matrices()) {
        let mut reference = Reference::<f32>::new(&rule.into(), &[TensorSpec::f32("w", [2, 3])]).unwrap();
        let text = "shape of tensor y has [2], expected rows and columns, for this rule";
        refused(&mut reference, text, &|reference| reference.add(&[one("y")]));
    }
}

#[test]
fn tensors_are_added_on_the_device_while_nothing_waits_and_all_that_was_stays() {
    let Some(gpu) = gpu("tensors added on the device", 2 * ALL.len()) else { return };
    let one = |name: &str, shape: &[usize]| TensorSpec::f32(name, shape);
    let first = [one("w", &[40, 70]), one("b", &[3])];
    let all = [&first[..], &[one("x", &[5, 9])]].concat();
    // Rules of matrices take no vector.
    for row in ALL.iter().filter(|row| !default_of(row).has_products()) {
        for wraps in [json!({}), json!({"loss_scale": {"init": 4}, "ema": {}, "lookahead": {}})] {
            let mut value = json!({"optimizer": row.name});
            value.as_object_mut().unwrap().extend(wraps.as_object().unwrap().clone());
            let mut twin = Parity::new(&gpu, &config(value), &first, 5);
            twin.step();
            twin.step();
            let state = |optimizer: &Optimizer, tensor: &str| -> Vec<Vec<u32>> {
                let slots = optimizer.slots(tensor).unwrap();
                let values = |slot: &str| optimizer.state_blocking(tensor, slot).unwrap();
                slots.into_iter().map(|slot| values(slot).iter().map(|x| x.to_bits()).collect()).collect()
            };
            let before = ["w", "b"].map(|name| (state(&twin.optimizer, name), twin.optimizer.t(name).unwrap()));
            let scale = twin.optimizer.loss_scale_blocking().ok();
            twin.optimizer.add_blocking(&all[2..]).unwrap();
            let after = ["w", "b"].map(|name| (state(&twin.optimizer, name), twin.optimizer.t(name).unwrap()));
            assert!(before == after, "{}", row.name);
            assert_eq!(twin.optimizer.loss_scale_blocking().ok(), scale, "{}", row.name);
            assert_eq!((twin.optimizer.t("x"), twin.optimizer.tensors()), (Ok(0), &all[..]));
        }
    }
}

#[test]
fn an_encoding_that_is_not_submitted_refuses_more_tensors() {
    let Some(gpu) = gpu("tensors added too early", 1) else { return };
    let tensors = tensors(&[5]);
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam"})), &tensors, 6);
    let new = [TensorSpec::f32("x", [2])];
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    let text = "add: an encoding is neither submitted nor taken back; its step would be lost";
    check(text, &twin.optimizer.add_blocking(&new).unwrap_err(), text);
    assert_eq!((twin.optimizer.tensors(), twin.optimizer.t("t0")), (&tensors[..], Ok(1)));
    gpu.queue().submit([encoder.finish()]);
    twin.optimizer.add_blocking(&new).unwrap();
    let twice = "tensor x is listed twice, at 1 and 2";
    check(twice, &twin.optimizer.add_blocking(&new).unwrap_err(), twice);
    assert_eq!(twin.optimizer.tensors().len(), 2);
}

#[test]
fn an_optimizer_without_tensors_counts_its_steps_and_takes_some_later() {
    let Some(gpu) = gpu("tensors added to none", 1) else { return };
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam", "skip_nonfinite": true})), &[], 7);
    twin.step();
    twin.optimizer.add_blocking(&[TensorSpec::f32("x", [2])]).unwrap();
    let [params, grads] = [0, 1].map(|_| Arena::new(&gpu, twin.optimizer.tensors()).unwrap());
    grads.write("x", &[1.0, -1.0]).unwrap();
    twin.optimizer.step(&params, &grads).unwrap();
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!((twin.optimizer.steps(), twin.optimizer.t("x")), (2, Ok(1)));
    assert!(params.read_blocking("x").unwrap()[0] < 0.0);
}

#[test]
fn a_dropped_encoding_is_forgotten_before_tensors_are_added_and_after_counts_are_set() {
    let Some(gpu) = gpu("dropped encodings", 1) else { return };
    let tensors = tensors(&[3]);
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam", "skip_nonfinite": true})), &tensors, 8);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let token = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    let text = "add: an encoding is neither submitted nor taken back; its step would be lost";
    check(text, &twin.optimizer.add_blocking(&[TensorSpec::f32("x", [2])]).unwrap_err(), text);
    twin.optimizer.set_steps(5).unwrap();
    drop(encoder);
    twin.optimizer.undo(token).unwrap();
    assert_eq!((twin.optimizer.steps(), twin.optimizer.t("t0")), (5, Ok(0)));
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    twin.optimizer.settle_blocking().unwrap();
    assert_eq!((twin.optimizer.steps(), twin.optimizer.t("t0")), (6, Ok(1)));
    // One that was dropped is in nobody's way.
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    drop(encoder);
    twin.optimizer.add_blocking(&[TensorSpec::f32("x", [2])]).unwrap();
    assert_eq!((twin.optimizer.steps(), twin.optimizer.t("t0"), twin.optimizer.t("x")), (6, Ok(1), Ok(0)));
}

#[test]
fn an_added_group_whose_numbers_the_device_cannot_write_is_refused() {
    let Some(gpu) = gpu("an added group on the device", 1) else { return };
    let tensors = tensors(&[3]);
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adan", "on_device": ["lr"]})), &tensors, 9);
    let group = Group::new(["x"]).set("weight_decay", json!({"proximal": 0.5}));
    let text = "on_device is lr, must be left to the host for adan: its numbers are no multiples of it";
    check(text, &twin.optimizer.add_group_blocking(group, &[TensorSpec::f32("x", [2])]).unwrap_err(), text);
    assert_eq!(twin.optimizer.tensors(), tensors);
}

/// A rule of matrices and a second rule for the rest, with groups of both.
#[test]
fn a_second_rule_takes_what_the_first_does_not() {
    let of_matrices: Vec<_> = ALL.iter().filter(|row| default_of(row).has_products()).collect();
    let others: Vec<_> = ALL.iter().filter(|row| !default_of(row).sums_over_model()).collect();
    let Some(gpu) = gpu("second rules", of_matrices.len() * others.len()) else { return };
    let mut list = tensors(&[1, 1030, 5]);
    list.extend(
        [&[40, 30][..], &[5, 7], &[33, 70]]
            .iter()
            .enumerate()
            .map(|(i, shape)| TensorSpec::f32(format!("m{i}"), *shape)),
    );
    for (row, other) in of_matrices.iter().flat_map(|row| others.iter().map(move |other| (row, other))) {
        if (other.default)().has_products() || (other.default)().needs_look_ahead() {
            continue;
        }
        for around in [json!({}), json!({"loss_scale": {"init": 4}, "ema": {}, "lookahead": {"k": 2}})] {
            let mut value = json!({
                "optimizer": row.name, "others": {"optimizer": other.name},
                "groups": [{"tensors": ["m0"], "others": true, "maximize": true}, {"tensors": ["m1"], "lr": 0.5}]
            });
            value.as_object_mut().unwrap().extend(around.as_object().unwrap().clone());
            let config = config(value);
            let json = config.to_json().unwrap();
            assert_eq!(Config::from_json(&json).unwrap().to_json().unwrap(), json);
            let what = format!("{} with {}, {around}", row.name, other.name);
            let mut twin = Parity::new(&gpu, &config, &list, 71);
            assert_eq!(twin.run(&what, 3).ulps, 0.0, "{what}");
            let lost = twin.step_changed(&["t0"], |i, grad| {
                if i == 3 {
                    grad[0] = f32::NAN
                }
            });
            assert!(lost.ulps <= bound(&gpu), "{what}: {}", lost.text);
            let rate = twin.optimizer.value("lr").unwrap();
            both!(twin, set_lr(2.0 * rate));
            assert_eq!(twin.step().ulps, 0.0, "{what}, twice the rate");
        }
    }
}

#[test]
fn a_second_rule_has_nothing_around_it() {
    let tensors = [TensorSpec::f32("w", [3, 2]), TensorSpec::f32("b", [3])];
    let of = |others: Value| Config::from_value(json!({"optimizer": "muon", "others": others}));
    let text = "configuration: others: must be a rule with its options and schedules; the rest is the top level's";
    for around in [json!({"maximize": true}), json!({"ema": {}}), json!({"norms": true})] {
        let mut others = json!({"optimizer": "adamw"});
        others.as_object_mut().unwrap().extend(around.as_object().unwrap().clone());
        check("around", &of(others).unwrap_err(), text);
    }
    for (others, text) in [
        (json!({"optimizer": "adamw", "beta1": 1}), "others.beta1 is 1, must be at least 0 and below 1"),
        (json!({"optimizer": "adamw", "warmth": 1}), "configuration: others.warmth: unknown field `warmth`, ..."),
        (json!({"optimizer": "prodigy"}), "others is prodigy, must be left out with a rule that sums over the model"),
    ] {
        check("a bad second rule", &of(others).unwrap_err(), text);
    }
    let alone = config(json!({"optimizer": "muon"})).groups(&tensors).unwrap_err();
    check("no second rule", &alone, "shape of tensor b has [3], expected rows and columns, for this rule");
    let group = json!({"optimizer": "muon", "groups": [{"tensors": ["b"], "others": true}]});
    let text = "groups[0].others is true, must be left out where the top level has none";
    check("a group of no second rule", &Config::from_value(group).unwrap_err(), text);
    let both = of(json!({"optimizer": "adamw", "lr": 0.002, "schedule": {"constant": {}}})).unwrap();
    let mut reference = Reference::<f32>::new(&both, &tensors).unwrap();
    assert_eq!(reference.group_value(0, "lr"), Ok(0.002), "the second rule counts as a group");
    reference.set_lr(0.01).unwrap();
    assert_eq!(reference.group_value(0, "lr"), Ok(0.02), "and keeps its ratio");
    assert_eq!((reference.slots("w").unwrap(), reference.slots("b").unwrap()), (vec!["m"], vec!["m", "v"]));
}
