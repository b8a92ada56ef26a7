//! Schedules give PyTorch's values and those of closed forms, read and write JSON, refuse bad input, and keep the state
//! of plateaus.

use serde_json::{Value, json};
use wgpu_optim::{DecayShape, Error, Mode, Plateau, PlateauState, Result, Schedule, Scheduler, Stage};

fn read(json: Value) -> Schedule {
    serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn scheduler(json: Value) -> Scheduler {
    Scheduler::new(read(json.clone()), "schedule").unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// Makes the factors of a schedule at these steps.
fn factors<const N: usize>(json: Value, steps: [u64; N]) -> [f64; N] {
    let scheduler = scheduler(json);
    steps.map(|t| scheduler.factor(t).unwrap())
}

fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("should be refused").to_string()
}

/// To the last bit of a number near 1. Measured: at most 5.6e-17.
fn near<const N: usize>(what: &str, found: [f64; N], expected: [f64; N]) {
    for (n, (found, expected)) in found.into_iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1.2e-16, "{what}, number {n}: {found}, expected {expected}");
    }
}

// PyTorch's values.

/// Relative. Measured: 2.8e-15 for `cyclic`, where PyTorch subtracts large numbers, at most 1.3e-15 for the others.
const GOLDEN: f64 = 3e-15;

#[test]
fn pytorchs_factors() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/schedules.json")).unwrap();
    assert_eq!(cases.len(), 11);
    let mut worst: f64 = 0.0;
    for case in cases {
        let what = case["schedule"].to_string();
        let mut scheduler = scheduler(case["schedule"].clone());
        for (i, expected) in case["factors"].as_array().unwrap().iter().enumerate() {
            let (found, expected) = (scheduler.factor(i as u64 + 1).unwrap(), expected.as_f64().unwrap());
            let error = (found - expected).abs();
            assert!(error <= GOLDEN * expected, "{what} at t = {}: {found}, PyTorch has {expected}", i + 1);
            if error > 0.0 {
                worst = worst.max(error / expected);
            }
            if let Some(metric) = case.get("metric") {
                scheduler.feed(metric[i].as_f64().unwrap()).unwrap();
            }
        }
    }
    println!("at most {worst:.2e} from PyTorch's");
}

// Closed forms: the first value, the middle, the end, and what holds behind it.

#[test]
fn closed_forms() {
    let root = 0.5_f64.sqrt();
    for (json, steps, expected) in [
        (json!({"constant": {}}), [1, 2, 3, 100, u64::MAX], [1.0; 5]),
        (json!({"step": {"every": 3, "gamma": 0.5}}), [1, 3, 4, 7, 10], [1.0, 1.0, 0.5, 0.25, 0.125]),
        (json!({"multi_step": {"at": [0, 2], "gamma": 3}}), [1, 2, 3, 4, u64::MAX], [3.0, 3.0, 9.0, 9.0, 9.0]),
        (json!({"exponential": {"gamma": 0.5}}), [1, 2, 3, 4, u64::MAX], [1.0, 0.5, 0.25, 0.125, 0.0]),
        (json!({"linear": {"total": 8}}), [1, 3, 5, 9, 10], [1.0, 0.75, 0.5, 0.0, 0.0]),
        (json!({"linear": {"total": 8, "end": 3}}), [1, 3, 5, 9, 10], [1.0, 1.5, 2.0, 3.0, 3.0]),
        (json!({"linear_floor": {"total": 8, "floor": 0.2}}), [1, 3, 5, 9, 10], [1.0, 0.8, 0.6, 0.2, 0.2]),
        (json!({"polynomial": {"total": 8}}), [1, 3, 5, 9, 10], [1.0, 0.75, 0.5, 0.0, 0.0]),
        (
            json!({"polynomial": {"total": 8, "power": 3, "end": 0.2}}),
            [1, 5, 7, 9, u64::MAX],
            [1.0, 0.3, 0.2125, 0.2, 0.2],
        ),
        (json!({"cosine": {"total": 6}}), [1, 3, 4, 7, 8], [1.0, 0.75, 0.5, 0.0, 0.0]),
        (json!({"cosine": {"total": 6, "end": 0.2}}), [1, 3, 4, 7, u64::MAX], [1.0, 0.8, 0.6, 0.2, 0.2]),
        // Cycles of 2, 6 and 18.
        (
            json!({"cosine_restarts": {"first": 2, "mult": 3}}),
            [2, 3, 5, 8, 9],
            [0.5, 1.0, 0.75, 0.5 - 0.25 * 3.0_f64.sqrt(), 1.0],
        ),
        (json!({"cosine_restarts": {"first": 4, "end": 0.2}}), [1, 3, 5, 7, 4_000_000_003], [1.0, 0.6, 1.0, 0.6, 0.6]),
        (json!({"inverse_time": {"decay": 0.5}}), [1, 2, 3, 7, 19], [1.0, 1.0 / 1.5, 0.5, 0.25, 0.1]),
        (json!({"inverse_sqrt": {"warmup": 4}}), [1, 3, 4, 8, 16], [0.25, 0.75, 1.0, root, 0.5]),
        (
            json!({"warmup": {"steps": 4, "then": {"linear": {"total": 4}}}}),
            [1, 3, 5, 7, 10],
            [0.0, 0.5, 1.0, 0.5, 0.0],
        ),
        (
            json!({"sequence": [
                {"steps": 2, "schedule": {"exponential": {"gamma": 0.5}}},
                {"steps": 3, "schedule": {"linear": {"total": 2}}},
                {"steps": 1, "schedule": {"step": {"every": 2, "gamma": 0.1}}},
            ]}),
            [2, 3, 5, 6, 9],
            [0.5, 1.0, 0.0, 1.0, 0.1],
        ),
        // Turns at 4 and 9.
        (
            json!({"one_cycle": {"total": 10, "warmup_fraction": 0.5, "start": 0.2, "end": 0.1}}),
            [1, 3, 5, 10, 11],
            [0.2, 0.6, 1.0, 0.1, 0.1],
        ),
        (json!({"cyclic": {"low": 0.2, "up": 4, "down": 2}}), [1, 3, 5, 6, 7], [0.2, 0.6, 1.0, 0.6, 0.2]),
        (
            json!({"warmup_stable_decay": {"warmup": 2, "total": 10, "decay": 4, "end": 0.2}}),
            [1, 2, 7, 9, 11],
            [0.5, 1.0, 1.0, 0.6, 0.2],
        ),
        (
            json!({"warmup_stable_decay": {"warmup": 0, "total": 8, "decay": 8, "shape": "sqrt"}}),
            [1, 3, 9, 10, u64::MAX],
            [1.0, 0.5, 0.0, 0.0, 0.0],
        ),
        (
            json!({"warmup_stable_decay": {"warmup": 1, "total": 7, "decay": 6, "shape": "cosine"}}),
            [1, 2, 4, 5, 8],
            [1.0, 1.0, 0.75, 0.5, 0.0],
        ),
        // No descent: stable for good.
        (
            json!({"warmup_stable_decay": {"warmup": 2, "total": 2, "decay": 0}}),
            [1, 2, 3, 4, u64::MAX],
            [0.5, 1.0, 1.0, 1.0, 1.0],
        ),
    ] {
        near(&json.to_string(), factors(json, steps), expected);
    }
}

#[test]
fn curves_have_no_jumps() {
    // The largest change a step, with a hundredth more for rounding.
    let half_pi = std::f64::consts::FRAC_PI_2;
    for (json, steepest) in [
        (json!({"linear": {"total": 1000}}), 1e-3),
        (json!({"polynomial": {"total": 1000, "power": 2}}), 2e-3),
        (json!({"cosine": {"total": 1000}}), half_pi * 1e-3),
        (json!({"inverse_time": {"decay": 1e-3}}), 1e-3),
        (json!({"inverse_sqrt": {"warmup": 1000}}), 1e-3),
        (json!({"warmup": {"steps": 1000, "then": {"linear": {"total": 1000}}}}), 1e-3),
        (json!({"one_cycle": {"total": 2000, "warmup_fraction": 0.5}}), half_pi * 1.01e-3),
        (json!({"cyclic": {"low": 0, "up": 1000, "down": 1000}}), 1e-3),
        (
            json!({"warmup_stable_decay": {"warmup": 1000, "total": 2500, "decay": 1000, "shape": "cosine"}}),
            half_pi * 1e-3,
        ),
        (json!({"warmup_stable_decay": {"warmup": 1000, "total": 2000, "decay": 1000}}), 1e-3),
    ] {
        let scheduler = scheduler(json.clone());
        let values: Vec<f64> = (1..=4000).map(|t| scheduler.factor(t).unwrap()).collect();
        let largest = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max);
        assert!(largest <= 1.01 * steepest && largest >= 0.9 * steepest, "{json}: {largest:e}");
    }
}

#[test]
fn any_t_is_answered_at_once() {
    let longest = u64::MAX;
    let early = std::f64::consts::PI * (0.5_f64.powi(20) - 0.5_f64.powi(32));
    for (json, expected) in [
        (json!({"step": {"every": 1, "gamma": 1}}), 1.0),
        (json!({"step": {"every": longest, "gamma": 0.5}}), 1.0),
        (json!({"linear": {"total": longest}}), 0.0),
        (json!({"cosine_restarts": {"first": 1}}), 1.0),
        (json!({"cosine_restarts": {"first": longest - 1, "mult": longest}}), 1.0),
        // The third cycle starts at 2^20 + 2^52 and has 2^84 steps.
        (json!({"cosine_restarts": {"first": 1_u64 << 20, "mult": 1_u64 << 32}}), (1.0 + early.cos()) / 2.0),
        (json!({"inverse_time": {"decay": 1}}), 0.5_f64.powi(64)),
        (json!({"inverse_sqrt": {"warmup": 1}}), 0.5_f64.powi(32)),
        (json!({"warmup": {"steps": longest, "then": {"constant": {}}}}), 1.0),
        (json!({"one_cycle": {"total": longest, "end": 0.25}}), 0.25),
        // (2^64 - 2) mod (2^65 - 2) steps: the very last one up.
        (json!({"cyclic": {"low": 0, "up": longest, "down": longest}}), 1.0),
        (json!({"warmup_stable_decay": {"warmup": longest, "total": longest, "decay": 0}}), 1.0),
        (json!({"warmup_stable_decay": {"warmup": 0, "total": longest, "decay": longest}}), 0.0),
        (json!({"multi_step": {"at": [longest], "gamma": 0.5}}), 1.0),
    ] {
        near(&json.to_string(), factors(json, [longest]), [expected]);
    }
}

// JSON.

/// Every kind: with what is required, and with all that is written out.
fn kinds() -> Vec<(Value, Value)> {
    let whole = |kind: &str, fields: Value, defaults: Value| {
        let mut all = fields.clone();
        all.as_object_mut().unwrap().extend(defaults.as_object().unwrap().clone());
        (json!({kind: fields}), json!({kind: all}))
    };
    let then = json!({"linear": {"total": 3, "end": 0.5}});
    let stages = json!({"sequence": [{"steps": 2, "schedule": {"constant": {}}}, {"steps": 1, "schedule": then}]});
    vec![
        whole("constant", json!({}), json!({})),
        whole("step", json!({"every": 2, "gamma": 0.5}), json!({})),
        whole("multi_step", json!({"at": [1, 5], "gamma": 0.5}), json!({})),
        whole("exponential", json!({"gamma": 0.5}), json!({})),
        whole("linear", json!({"total": 5}), json!({"end": 0.0})),
        whole("linear_floor", json!({"total": 5, "floor": 0.25}), json!({})),
        whole("polynomial", json!({"total": 5}), json!({"power": 1.0, "end": 0.0})),
        whole("cosine", json!({"total": 5}), json!({"end": 0.0})),
        whole("cosine_restarts", json!({"first": 5}), json!({"mult": 1, "end": 0.0})),
        whole("inverse_time", json!({"decay": 0.5}), json!({})),
        whole("inverse_sqrt", json!({"warmup": 5}), json!({})),
        whole("warmup", json!({"steps": 5, "then": then}), json!({"start": 0.0})),
        (stages.clone(), stages),
        whole("one_cycle", json!({"total": 5}), json!({"warmup_fraction": 0.3, "start": 0.04, "end": 4e-6})),
        whole("cyclic", json!({"low": 0.5, "up": 5, "down": 6}), json!({})),
        whole(
            "warmup_stable_decay",
            json!({"warmup": 1, "total": 5, "decay": 2}),
            json!({"shape": "linear", "end": 0.0}),
        ),
        whole(
            "plateau",
            json!({}),
            json!({"factor": 0.1, "patience": 10, "threshold": 1e-4, "threshold_mode": "rel", "cooldown": 0, "min": 0.0, "mode": "min"}),
        ),
    ]
}

#[test]
fn every_kind_goes_through_json() {
    for (least, all) in kinds() {
        let schedule = read(least.clone());
        schedule.check("schedule").unwrap_or_else(|error| panic!("{least}: {error}"));
        assert_eq!(serde_json::to_value(&schedule).unwrap(), all);
        assert_eq!(read(all), schedule);
    }
    for (shape, name) in [(DecayShape::Linear, "linear"), (DecayShape::Cosine, "cosine"), (DecayShape::Sqrt, "sqrt")] {
        assert_eq!(serde_json::to_value(shape).unwrap(), name);
    }
    for (mode, name) in [(Mode::Min, "min"), (Mode::Max, "max")] {
        assert_eq!(serde_json::to_value(mode).unwrap(), name);
    }
}

/// What serde says, with the field's path, as the configuration says it.
fn unread(json: &Value) -> String {
    match wgpu_optim::read::read::<Schedule>(json) {
        Ok(schedule) => panic!("{json} was read as {schedule:?}"),
        Err(misread) => match misread.into_error() {
            Error::Config { path, message } => format!("{path}: {message}"),
            other => panic!("{other}"),
        },
    }
}

#[test]
fn unknown_and_missing_fields_are_named_at_every_depth() {
    let name = |kind: &Value| format!("`{}`", kind.as_object().unwrap().keys().next().unwrap());
    let names = kinds().iter().map(|(kind, _)| name(kind)).collect::<Vec<_>>().join(", ");
    assert_eq!(unread(&json!({"sine": {}})), format!(".: unknown variant `sine`, expected one of {names}, `custom`"));

    for (kind, _) in kinds().into_iter().filter(|(kind, _)| kind.get("sequence").is_none()) {
        let (name, fields) = kind.as_object().unwrap().iter().next().unwrap();
        let mut more = fields.clone();
        more["warmth"] = json!(1);
        let error = unread(&json!({name: more}));
        assert!(error.starts_with(&format!("{name}.warmth: unknown field `warmth`, ")), "{error}");
        let nested = unread(&json!({"warmup": {"steps": 1, "then": {name: more}}}));
        assert!(nested.starts_with(&format!("warmup.then.{name}.warmth: unknown field `warmth`, ")), "{nested}");
        for field in fields.as_object().unwrap().keys() {
            let mut less = fields.clone();
            less.as_object_mut().unwrap().remove(field);
            assert_eq!(unread(&json!({name: less})), format!("{name}: missing field `{field}`"));
        }
    }
    for (json, error) in [
        (
            json!({"sequence": [{"steps": 1, "schedule": {"constant": {}}, "warmth": 1}]}),
            "sequence[0].warmth: unknown field `warmth`, expected `steps` or `schedule`",
        ),
        (json!({"sequence": [{"steps": 1}]}), "sequence[0]: missing field `schedule`"),
        (json!({"sequence": [{"schedule": {"constant": {}}}]}), "sequence[0]: missing field `steps`"),
    ] {
        assert_eq!(unread(&json), error);
    }
}

#[test]
fn wrong_types_are_named() {
    let counts = ["every", "total", "first", "mult", "warmup", "steps", "up", "down", "decay", "patience", "cooldown"];
    let mut seen = 0;
    for (_, all) in kinds() {
        let (name, fields) = all.as_object().unwrap().iter().next().unwrap();
        for (field, value) in fields.as_object().into_iter().flatten().filter(|(_, value)| value.is_number()) {
            let with = |value: Value| {
                let mut fields = fields.clone();
                fields[field] = value;
                json!({name: fields})
            };
            let path = format!("{name}.{field}");
            if counts.contains(&&field[..]) && path != "inverse_time.decay" {
                seen += 1;
                let float = format!("{path}: invalid type: floating point `10.5`, expected u64");
                assert_eq!(unread(&with(json!(10.5))), float);
                let negative = format!("{path}: invalid value: integer `-1`, expected u64");
                assert_eq!(unread(&with(json!(-1))), negative);
            } else {
                assert!(value.is_f64(), "{path} is taken for no count");
                read(with(json!(1)));
            }
            let word = format!("{path}: invalid type: string \"much\", expected ");
            assert!(unread(&with(json!("much"))).starts_with(&word));
            let null = format!("{path}: invalid type: null, expected ");
            assert!(unread(&with(Value::Null)).starts_with(&null));
        }
    }
    assert_eq!(seen, 17);
    for (json, error) in [
        (
            json!({"multi_step": {"at": [1, 2.5], "gamma": 1}}),
            "multi_step.at[1]: invalid type: floating point `2.5`, expected u64",
        ),
        (
            json!({"sequence": [{"steps": -1, "schedule": {"constant": {}}}]}),
            "sequence[0].steps: invalid value: integer `-1`, expected u64",
        ),
        (json!({"plateau": {"mode": "up"}}), "plateau.mode: unknown variant `up`, expected `min` or `max`"),
        (
            json!({"warmup_stable_decay": {"warmup": 1, "total": 5, "decay": 2, "shape": "flat"}}),
            "warmup_stable_decay.shape: unknown variant `flat`, expected one of `linear`, `cosine`, `sqrt`",
        ),
    ] {
        assert_eq!(unread(&json), error);
    }
}

// Bounds.

#[test]
fn bad_numbers_are_refused() {
    for (json, error) in [
        (json!({"step": {"every": 0, "gamma": 0.1}}), "schedule.step.every is 0, must be at least 1"),
        (json!({"step": {"every": 1, "gamma": 1.1}}), "schedule.step.gamma is 1.1, must be at least 0 and at most 1"),
        (json!({"step": {"every": 1, "gamma": -0.1}}), "schedule.step.gamma is -0.1, must be at least 0 and at most 1"),
        (
            json!({"multi_step": {"at": [3], "gamma": -1}}),
            "schedule.multi_step.gamma is -1, must be at least 0 and finite",
        ),
        (
            json!({"multi_step": {"at": [3, 4], "gamma": 1e20}}),
            "schedule.multi_step.gamma is 1e20, must be small enough for its power 2 to be finite",
        ),
        (json!({"multi_step": {"at": [], "gamma": 1}}), "schedule.multi_step.at is empty, must be at least one step"),
        (
            json!({"multi_step": {"at": [3, 7, 7], "gamma": 1}}),
            "schedule.multi_step.at[2] is 7, must be above the 7 before it",
        ),
        (
            json!({"multi_step": {"at": [7, 3], "gamma": 1}}),
            "schedule.multi_step.at[1] is 3, must be above the 7 before it",
        ),
        (json!({"exponential": {"gamma": 1.5}}), "schedule.exponential.gamma is 1.5, must be at least 0 and at most 1"),
        (json!({"linear": {"total": 0}}), "schedule.linear.total is 0, must be at least 1"),
        (json!({"linear": {"total": 1, "end": -1}}), "schedule.linear.end is -1, must be at least 0 and finite"),
        (json!({"linear": {"total": 1, "end": 1e39}}), "schedule.linear.end is 1e39, must be at least 0 and finite"),
        (json!({"linear_floor": {"total": 0, "floor": 0}}), "schedule.linear_floor.total is 0, must be at least 1"),
        (
            json!({"linear_floor": {"total": 1, "floor": -1}}),
            "schedule.linear_floor.floor is -1, must be at least 0 and finite",
        ),
        (json!({"polynomial": {"total": 0}}), "schedule.polynomial.total is 0, must be at least 1"),
        (
            json!({"polynomial": {"total": 1, "power": 0}}),
            "schedule.polynomial.power is 0, must be above 0 and finite in f32",
        ),
        (
            json!({"polynomial": {"total": 1, "end": -2}}),
            "schedule.polynomial.end is -2, must be at least 0 and finite",
        ),
        (json!({"cosine": {"total": 0}}), "schedule.cosine.total is 0, must be at least 1"),
        (json!({"cosine": {"total": 1, "end": -1}}), "schedule.cosine.end is -1, must be at least 0 and finite"),
        (json!({"cosine_restarts": {"first": 0}}), "schedule.cosine_restarts.first is 0, must be at least 1"),
        (json!({"cosine_restarts": {"first": 1, "mult": 0}}), "schedule.cosine_restarts.mult is 0, must be at least 1"),
        (
            json!({"cosine_restarts": {"first": 1, "end": -1}}),
            "schedule.cosine_restarts.end is -1, must be at least 0 and finite",
        ),
        (json!({"inverse_time": {"decay": -1}}), "schedule.inverse_time.decay is -1, must be at least 0 and finite"),
        (json!({"inverse_sqrt": {"warmup": 0}}), "schedule.inverse_sqrt.warmup is 0, must be at least 1"),
        (json!({"warmup": {"steps": 0, "then": {"constant": {}}}}), "schedule.warmup.steps is 0, must be at least 1"),
        (
            json!({"warmup": {"steps": 1, "start": -1, "then": {"constant": {}}}}),
            "schedule.warmup.start is -1, must be at least 0 and finite",
        ),
        (
            json!({"warmup": {"steps": 1, "then": {"step": {"every": 0, "gamma": 1}}}}),
            "schedule.warmup.then.step.every is 0, must be at least 1",
        ),
        (json!({"sequence": []}), "schedule.sequence is empty, must be at least one part"),
        (
            json!({"sequence": [{"steps": 0, "schedule": {"constant": {}}}]}),
            "schedule.sequence[0].steps is 0, must be at least 1",
        ),
        (
            json!({"sequence": [
                {"steps": 1, "schedule": {"constant": {}}},
                {"steps": 1, "schedule": {"linear": {"total": 1, "end": -1}}},
            ]}),
            "schedule.sequence[1].schedule.linear.end is -1, must be at least 0 and finite",
        ),
        (json!({"one_cycle": {"total": 1}}), "schedule.one_cycle.total is 1, must be at least 2"),
        (
            json!({"one_cycle": {"total": 60, "warmup_fraction": 1}}),
            "schedule.one_cycle.warmup_fraction is 1, must be above 1/60 and below 1",
        ),
        (
            json!({"one_cycle": {"total": 4, "warmup_fraction": 0.25}}),
            "schedule.one_cycle.warmup_fraction is 0.25, must be above 1/4 and below 1",
        ),
        (
            json!({"one_cycle": {"total": 60, "start": -1}}),
            "schedule.one_cycle.start is -1, must be at least 0 and finite",
        ),
        (json!({"one_cycle": {"total": 60, "end": -1}}), "schedule.one_cycle.end is -1, must be at least 0 and finite"),
        (
            json!({"cyclic": {"low": -1, "up": 1, "down": 1}}),
            "schedule.cyclic.low is -1, must be at least 0 and finite",
        ),
        (json!({"cyclic": {"low": 0, "up": 0, "down": 1}}), "schedule.cyclic.up is 0, must be at least 1"),
        (json!({"cyclic": {"low": 0, "up": 1, "down": 0}}), "schedule.cyclic.down is 0, must be at least 1"),
        (
            json!({"warmup_stable_decay": {"warmup": 0, "total": 0, "decay": 0}}),
            "schedule.warmup_stable_decay.total is 0, must be at least 1",
        ),
        (
            json!({"warmup_stable_decay": {"warmup": 5, "total": 8, "decay": 4}}),
            "schedule.warmup_stable_decay.total is 8, must be at least warmup + decay, which is 9",
        ),
        (
            json!({"warmup_stable_decay": {"warmup": u64::MAX, "total": 8, "decay": 1}}),
            "schedule.warmup_stable_decay.total is 8, must be at least warmup + decay, which is 18446744073709551616",
        ),
        (
            json!({"warmup_stable_decay": {"warmup": 5, "total": 9, "decay": 4, "end": -1}}),
            "schedule.warmup_stable_decay.end is -1, must be at least 0 and finite",
        ),
        (json!({"plateau": {"factor": 1}}), "schedule.plateau.factor is 1, must be at least 0 and below 1"),
        (json!({"plateau": {"factor": -0.1}}), "schedule.plateau.factor is -0.1, must be at least 0 and below 1"),
        (json!({"plateau": {"threshold": 1}}), "schedule.plateau.threshold is 1, must be at least 0 and below 1"),
        (
            json!({"plateau": {"threshold": -1, "mode": "max"}}),
            "schedule.plateau.threshold is -1, must be at least 0 and finite",
        ),
        (json!({"plateau": {"threshold": -1}}), "schedule.plateau.threshold is -1, must be at least 0 and below 1"),
        (json!({"plateau": {"min": 1.5}}), "schedule.plateau.min is 1.5, must be at least 0 and at most 1"),
    ] {
        assert_eq!(text(read(json).check("schedule")), error);
    }
    for (schedule, error) in [
        (Schedule::Exponential { gamma: f64::NAN }, "lr.exponential.gamma is NaN, must be at least 0 and at most 1"),
        (Schedule::Linear { total: 1, end: f64::INFINITY }, "lr.linear.end is inf, must be at least 0 and finite"),
        (
            Schedule::OneCycle { total: 60, warmup_fraction: f64::NAN, start: 0.0, end: 0.0 },
            "lr.one_cycle.warmup_fraction is NaN, must be above 1/60 and below 1",
        ),
        (
            Schedule::MultiStep { at: vec![1], gamma: f64::NAN },
            "lr.multi_step.gamma is NaN, must be at least 0 and finite",
        ),
    ] {
        assert_eq!(text(Scheduler::new(schedule, "lr")), error);
    }
    assert_eq!(text(scheduler(json!({"constant": {}})).factor(0)), "t is 0, must be at least 1");
}

// Closures.

#[test]
fn a_closure_is_checked_when_it_is_asked() {
    let schedule = Schedule::custom(|t| match t {
        1 => 0.5,
        2 => -0.5,
        3 => f64::NAN,
        _ => 1e300,
    });
    let alone = Scheduler::new(schedule.clone(), "schedule").unwrap();
    assert_eq!(alone.factor(1), Ok(0.5));
    assert_eq!(text(alone.factor(2)), "schedule at t = 2 is -0.5, must be at least 0 and finite");
    assert_eq!(text(alone.factor(3)), "schedule at t = 3 is NaN, must be at least 0 and finite");
    assert_eq!(text(alone.factor(4)), "schedule at t = 4 is 1e300, must be at least 0 and finite");

    let after = Schedule::Warmup { steps: 10, start: 0.0, then: Box::new(schedule.clone()) };
    let after = Scheduler::new(after, "schedules.momentum").unwrap();
    assert_eq!(after.factor(11), Ok(0.5));
    assert_eq!(text(after.factor(12)), "schedules.momentum at t = 12 is -0.5, must be at least 0 and finite");

    assert_eq!(schedule, schedule.clone());
    assert_ne!(schedule, Schedule::custom(|_| 1.0));
    assert!(format!("{schedule:?}").starts_with("Custom(Closure(0x"));
    let unwritten = serde_json::to_string(&schedule).expect_err("a closure is no data").to_string();
    assert_eq!(unwritten, "a schedule's closure cannot be written out; set it again where the rest is read");
}

// Plateaus.

/// The factor before each of these metrics, and after the last.
fn fed<const N: usize>(scheduler: &mut Scheduler, metrics: [f64; N]) -> Vec<f64> {
    let mut factors: Vec<f64> = metrics
        .into_iter()
        .map(|metric| {
            let factor = scheduler.factor(1).unwrap();
            scheduler.feed(metric).unwrap();
            factor
        })
        .collect();
    factors.push(scheduler.factor(1).unwrap());
    factors
}

#[test]
fn a_plateau_counts_what_is_not_better() {
    let plateau = |more: Value| {
        let mut fields = json!({"factor": 0.5, "patience": 0, "threshold": 0});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scheduler(json!({"plateau": fields}))
    };
    // Smaller is better, or larger.
    assert_eq!(fed(&mut plateau(json!({})), [3.0, 2.0, 2.0, 4.0, 1.0]), [1.0, 1.0, 1.0, 0.5, 0.25, 0.25]);
    assert_eq!(fed(&mut plateau(json!({"mode": "max"})), [3.0, 4.0, 4.0, 2.0, 5.0]), [1.0, 1.0, 1.0, 0.5, 0.25, 0.25]);
    // Not enough better counts as worse.
    let threshold = json!({"threshold": 0.1});
    assert_eq!(fed(&mut plateau(threshold), [10.0, 9.5, 8.9, 8.1]), [1.0, 1.0, 0.5, 0.5, 0.25]);
    let threshold = json!({"threshold": 0.1, "mode": "max"});
    assert_eq!(fed(&mut plateau(threshold), [10.0, 10.5, 11.5, 12.5]), [1.0, 1.0, 0.5, 0.5, 0.25]);
    // Also below 0, where a share of the best metric is a share of its magnitude.
    let share = json!({"threshold": 0.1});
    assert_eq!(fed(&mut plateau(share.clone()), [-10.0, -10.0, -10.5, -11.5]), [1.0, 1.0, 0.5, 0.25, 0.25]);
    assert_eq!(fed(&mut plateau(share), [-10.0, -9.5]), [1.0, 1.0, 0.5], "worse by less than the share");
    let share = json!({"threshold": 0.1, "mode": "max"});
    assert_eq!(fed(&mut plateau(share), [-10.0, -10.0, -9.5, -8.5]), [1.0, 1.0, 0.5, 0.25, 0.25]);
    // A difference, on both sides of 0.
    let difference = json!({"threshold": 2, "threshold_mode": "abs"});
    assert_eq!(fed(&mut plateau(difference), [1.0, -0.5, -1.5, -3.5]), [1.0, 1.0, 0.5, 0.5, 0.25]);
    let difference = json!({"threshold": 2, "threshold_mode": "abs", "mode": "max"});
    assert_eq!(fed(&mut plateau(difference), [-1.0, 0.5, 1.5, 3.0]), [1.0, 1.0, 0.5, 0.5, 0.25]);
    // One is borne, and what comes between starts the count again.
    let patience = json!({"patience": 1});
    assert_eq!(fed(&mut plateau(patience), [5.0, 6.0, 4.0, 5.0, 5.0]), [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]);
    // Two that are not counted after each change.
    let cooldown = json!({"cooldown": 2});
    assert_eq!(fed(&mut plateau(cooldown), [1.0; 6]), [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]);
    // Not below min.
    assert_eq!(fed(&mut plateau(json!({"min": 0.3})), [1.0; 4]), [1.0, 1.0, 0.5, 0.3, 0.3]);
    assert_eq!(fed(&mut plateau(json!({"factor": 0})), [1.0; 3]), [1.0, 1.0, 0.0, 0.0]);
    // A first metric that is infinitely bad is worse than none.
    assert_eq!(fed(&mut plateau(json!({})), [f64::INFINITY, 1.0]), [1.0, 0.5, 0.5]);
}

#[test]
fn plateaus_are_fed_at_every_depth() {
    let down = |factor: f64| json!({"plateau": {"factor": factor, "patience": 0}});
    let stages = json!({"sequence": [
        {"steps": 5, "schedule": {"warmup": {"steps": 2, "then": down(0.5)}}},
        {"steps": 5, "schedule": {"constant": {}}},
        {"steps": 5, "schedule": down(0.25)},
        {"steps": 5, "schedule": down(0.125)},
    ]});
    let mut nested = scheduler(stages.clone());
    assert!(nested.has_plateau());
    nested.feed(1.0).unwrap();
    nested.feed(1.0).unwrap();
    let found = [1, 2, 3, 5, 6, 10, 11, 15, 16, 1000].map(|t| nested.factor(t).unwrap());
    assert_eq!(found, [0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 0.25, 0.25, 0.125, 0.125]);

    // Another run goes on from the state, also through JSON.
    let state = serde_json::to_string(nested.state()).unwrap();
    let state: Vec<PlateauState> = serde_json::from_str(&state).unwrap();
    let mut resumed = scheduler(stages);
    resumed.set_state(&state).unwrap();
    for scheduler in [&mut nested, &mut resumed] {
        scheduler.feed(2.0).unwrap();
        assert_eq!([3, 11, 16].map(|t| scheduler.factor(t).unwrap()), [0.25, 0.0625, 0.015625]);
    }
}

#[test]
fn a_plateau_resumes_within_patience_and_cooldown() {
    let options = json!({"plateau": {"factor": 0.5, "patience": 2, "cooldown": 3, "mode": "max"}});
    let metrics = [1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.5, 2.0, 2.0, 3.0, 2.0, 2.0, 2.0];
    let mut whole = scheduler(options.clone());
    let factors = metrics.map(|metric| {
        whole.feed(metric).unwrap();
        whole.factor(1).unwrap()
    });
    assert_eq!(factors.iter().filter(|&&factor| factor == 0.5).count(), 6);
    for cut in 0..metrics.len() {
        let mut first = scheduler(options.clone());
        metrics[..cut].iter().for_each(|&metric| first.feed(metric).unwrap());
        let mut second = scheduler(options.clone());
        second.set_state(first.state()).unwrap();
        for n in cut..metrics.len() {
            second.feed(metrics[n]).unwrap();
            assert_eq!(second.factor(1), Ok(factors[n]), "cut at {cut}, metric {n}");
        }
        assert_eq!(second.state(), whole.state());
    }
}

#[test]
fn what_a_plateau_refuses_changes_nothing() {
    let mut plateau = scheduler(json!({"plateau": {"patience": 0}}));
    let before = plateau.state().to_vec();
    assert_eq!(before, [PlateauState { factor: 1.0, best: None, worse: 0, cooldown: 0 }]);
    assert_eq!(text(plateau.feed(f64::NAN)), "metric is NaN, must be a number");
    assert_eq!(text(plateau.feed(f64::NEG_INFINITY)), "metric is -inf, must be above -inf with mode min");
    let state = |factor: f64, best: f64| PlateauState { factor, best: Some(best), worse: 0, cooldown: 0 };
    assert_eq!(text(plateau.set_state(&[])), "schedule's state is of 0 plateaus, must be of 1");
    let factor = "schedule's state: factor is 2, must be at least 0 and at most 1";
    assert_eq!(text(plateau.set_state(&[state(2.0, 0.0)])), factor);
    assert_eq!(text(plateau.set_state(&[state(1.0, f64::NAN)])), "metric is NaN, must be a number");
    assert_eq!(plateau.state(), before);

    // Both look at the metric before either moves.
    let plateau = |mode| Schedule::Plateau(Plateau { mode, ..Plateau::default() });
    let stages = [Mode::Min, Mode::Max].map(|mode| Stage { steps: 1, schedule: plateau(mode) });
    let mut both = Scheduler::new(Schedule::Sequence(stages.into()), "schedule").unwrap();
    let before = both.state().to_vec();
    assert_eq!(text(both.feed(f64::INFINITY)), "metric is inf, must be below inf with mode max");
    assert_eq!(both.state(), before);

    let mut none = scheduler(json!({"constant": {}}));
    assert!(!none.has_plateau());
    assert_eq!(text(none.feed(1.0)), "schedule is without a plateau, must be one with a plateau to take a metric");
}
