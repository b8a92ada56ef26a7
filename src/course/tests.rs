//! The states of clocks, and the words of steps, in trainings whose steps may be skipped.

use super::*;
use crate::config::Config;
use crate::rules::Adam;
use crate::tensor::TensorSpec;

fn course(tensors: usize, json: &str) -> (Groups, Course) {
    let tensors: Vec<_> = (0..tensors).map(|i| TensorSpec::f32(format!("t{i}"), [1])).collect();
    let groups = Config::from_json(json).unwrap().groups(&tensors).unwrap();
    let course = Course::new(&Clocks::new(groups.of()), &groups);
    (groups, course)
}

fn adam() -> (Groups, Course) {
    course(1, &Config::from(Adam::default()).to_json().unwrap())
}

#[test]
fn a_class_may_be_in_as_many_states_as_steps_have_not_reported_and_one() {
    let (groups, mut course) = adam();
    for steps in 1..=5 {
        course.step(&groups, None, 1, false).unwrap();
        assert_eq!(course.classes[1].states.len(), steps + 1);
    }
    let (mut steps, mut possible) = (vec![], 6);
    for applied in [true, false, true, true, false] {
        course.report(applied);
        possible -= 1;
        course.prune();
        assert_eq!(course.classes[1].states.len(), possible);
        steps.push(course.hoped().steps);
    }
    assert_eq!(steps, [5, 4, 4, 4, 3], "hoped for, then known");
}

/// Each step lacks other tensors, and what was applied is drawn: after a hundred steps in flight the states are as
/// many as steps, and what is known at last is what a host that knew at once would have counted.
#[test]
fn states_grow_with_the_steps_in_flight_whatever_they_lack() {
    let plain = r#"{"optimizer": "adam"}"#;
    let scheduled = r#"{"optimizer": "nadam", "schedule": {"inverse_time": {"decay": 0.01}}}"#;
    for (json, most) in [(plain, 101), (scheduled, 51 * 51)] {
        let (groups, mut course) = course(6, json);
        let mut known = Clocks::new(groups.of());
        let mut bits = 1u32;
        let mut draw = || {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bits >> 16
        };
        let mut applied = Vec::new();
        for _ in 0..100 {
            let present: Vec<bool> = (0..6).map(|_| draw() % 2 == 0).collect();
            course.step(&groups, Some(&present), 1, false).unwrap();
            applied.push(draw() % 3 > 0);
            if applied[applied.len() - 1] {
                groups.step(&mut known, Some(&present), 1).unwrap();
            }
        }
        let states = course.classes.iter().map(|class| class.states.len()).max().unwrap();
        assert!(states <= most, "{json}: {states}");
        applied.into_iter().for_each(|applied| course.report(applied));
        course.prune();
        assert!(course.classes.iter().all(|class| class.states.len() == 1), "{json}");
        assert_eq!(course.hoped().steps, known.steps, "{json}");
        for tensor in 0..6 {
            assert_eq!(course.hoped().clock(tensor), known.clock(tensor), "{json}");
        }
        course.step(&groups, None, 1, false).unwrap();
    }
}

#[test]
fn what_is_set_between_steps_holds_in_every_state() {
    let (groups, mut course) = course(2, r#"{"optimizer": "adam"}"#);
    course.step(&groups, None, 1, false).unwrap();
    course.set_clock(0, |clock| clock.t = 7);
    course.set_steps(9);
    course.step(&groups, None, 1, false).unwrap();
    assert_eq!((course.hoped().clock(0).t, course.hoped().clock(1).t, course.hoped().steps), (8, 2, 10));
    course.report(false);
    course.report(true);
    assert_eq!((course.hoped().clock(0).t, course.hoped().clock(1).t, course.hoped().steps), (8, 1, 10));
}

#[test]
fn classes_that_are_known_to_count_alike_are_one_again() {
    let (groups, mut course) = course(2, r#"{"optimizer": "adam"}"#);
    course.step(&groups, Some(&[true, false]), 1, false).unwrap();
    course.step(&groups, Some(&[false, true]), 1, false).unwrap();
    assert_eq!(course.classes.len(), 3);
    course.step(&groups, None, 1, false).unwrap();
    assert_eq!(course.classes.len(), 3, "each may have missed its own step");
    (0..3).for_each(|_| course.report(true));
    course.step(&groups, None, 1, false).unwrap();
    assert_eq!(course.classes.len(), 2);
}

#[test]
fn too_many_steps_that_have_not_reported_are_refused() {
    let (groups, mut course) = adam();
    for _ in 0..STEPS_MAX {
        course.step(&groups, None, 1, false).unwrap();
    }
    let error = course.clone().step(&groups, None, 1, false).unwrap_err().to_string();
    let expected = "step: 1024 steps have not reported, must be at most 1023; submit them, and let the device work";
    assert_eq!(error, expected);
    course.report(true);
    course.step(&groups, None, 1, false).unwrap();
}
