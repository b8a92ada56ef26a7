//! Checkpoints: a training that is saved, loaded elsewhere and goes on has the bits of one that was never stopped.

use crate::common::twin::{Parity, check, fitting, tensors};
use crate::common::{gpu, say, say_share, share};
use ndarray::ArrayD;
use serde_json::{Value, json};
use wgpu_optim::rule::RuleEntry;
use wgpu_optim::rules::ALL;
use wgpu_optim::{
    AdamW, Arena, Checkpoint, Config, DType, Error, Optimizer, Reference, Result, Schedule, TensorSpec, wgpu,
};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

fn some_tensors() -> Vec<TensorSpec> {
    let shaped = [TensorSpec::f32("m0", [5, 7]), TensorSpec::f32("m1", [2, 35, 18])];
    tensors(&[0, 1, 3, 1025]).into_iter().chain(shaped).collect()
}

/// A rule's case with what is wrapped around it.
///
/// # Errors
/// The wrapper is none of the rule's.
fn wrapped(rule: &Config, wrappers: &Value) -> Result<Config> {
    let mut value = serde_json::to_value(rule).expect("JSON");
    value.as_object_mut().unwrap().extend(wrappers.as_object().unwrap().clone());
    Config::from_value(value)
}

/// A second optimizer, loaded from a checkpoint of the first, and its parameters.
struct Second {
    optimizer: Optimizer,
    params: Arena,
}

impl Second {
    /// `by_reference` goes from the GPU to the CPU and back.
    fn of(twin: &mut Parity, by_reference: bool) -> Self {
        let mut checkpoint = twin.optimizer.save_blocking().expect("a checkpoint");
        if by_reference {
            let reference = Reference::<f32>::load(&twin.tensors, &checkpoint).expect("a reference");
            checkpoint = reference.save().expect("a checkpoint");
        }
        let optimizer = Optimizer::load(&twin.gpu, &twin.tensors, &checkpoint).expect("an optimizer");
        let params = Arena::new(&twin.gpu, &twin.tensors).expect("parameters");
        for tensor in &twin.tensors {
            let values: Vec<f32> = twin.params.read_blocking(&tensor.name).expect("a readback");
            params.write(&tensor.name, &values).expect("as many values");
        }
        Self { optimizer, params }
    }

    /// The step that the twin takes, too.
    fn step(&mut self, twin: &mut Parity, absent: &[&str]) {
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&self.params).expect("a look-ahead");
        }
        twin.step_without(absent);
        let grads = twin.grads.without(absent).expect("known tensors");
        self.optimizer.step(&self.params, &grads).expect("a step");
    }

    fn compare(&mut self, twin: &mut Parity, what: &str) {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        twin.optimizer.settle_blocking().expect("the device works");
        self.optimizer.settle_blocking().expect("the device works");
        for TensorSpec { name, .. } in &twin.tensors {
            let [first, second] =
                [&twin.params, &self.params].map(|arena| bits(arena.read_blocking(name).expect("a readback")));
            assert!(first == second, "{what}: parameter {name}");
            for slot in twin.optimizer.slots(name).expect("a known tensor") {
                let [first, second] = [&twin.optimizer, &self.optimizer]
                    .map(|optimizer| bits(optimizer.state_blocking(name, slot).expect("a readback")));
                assert!(first == second, "{what}: {slot} of {name}");
            }
            let [first, second] = [&twin.optimizer, &self.optimizer]
                .map(|optimizer| (optimizer.t(name), optimizer.carried(name), optimizer.averaged(name)));
            assert_eq!(first, second, "{what}: {name}");
        }
        let [first, second] = [&twin.optimizer, &self.optimizer].map(|o| (o.steps(), o.micro_batches()));
        assert_eq!(first, second, "{what}");
        if twin.optimizer.loss_scale_buffer().is_ok() {
            let [first, second] = [&twin.optimizer, &self.optimizer].map(Optimizer::loss_scale_blocking);
            assert_eq!(first, second, "{what}");
        }
    }
}

#[test]
fn every_rule_in_every_wrapper_goes_on_with_the_same_bits() {
    let scale = json!({"init": 8, "interval": 2});
    let around = [
        json!({}),
        json!({"accumulate": 3, "clip": {"global_norm": 2}, "loss_scale": scale, "lookahead": {"k": 2},
            "ema": {"decay": 0.75}}),
        json!({"skip_nonfinite": true, "ema": {"decay": 0.5, "debias": true}, "norms": true}),
        json!({"cautious_update": "count", "lookahead": {"k": 3, "alpha": 0.25}}),
        json!({"state_format": "q8", "min_elements": 0, "seed": 5, "loss_scale": scale}),
        json!({"state_format": "bf16", "min_elements": 0, "param_rounding": "master", "ema": {"decay": 0.5}}),
        json!({"param_rounding": "stochastic", "seed": 6, "accumulate": 2}),
    ];
    let cases: usize = ALL.iter().map(|row| (row.cases)().len()).sum();
    let Some(gpu) = gpu("checkpoints", cases * around.len()) else { return };
    let list = some_tensors();
    let narrow: Vec<_> = list.iter().map(|tensor| tensor.clone().with_dtype(DType::Bf16)).collect();
    let (mut tried, mut refused) = ([0; 7], 0);
    let cases_of = |row: &'static RuleEntry| (row.cases)().into_iter().map(move |case| (row, case));
    for (turn, (row, (case, rule))) in ALL.iter().flat_map(cases_of).enumerate() {
        for (n, wrappers) in share(around.iter().enumerate().collect(), 5, turn) {
            tried[n] += 1;
            let what = format!("{}/{case} in {wrappers}", row.name);
            let Ok(config) = wrapped(&Config::from(rule.clone()), wrappers) else {
                refused += 1;
                continue;
            };
            let list = fitting(&config, if wrappers.get("param_rounding").is_some() { &narrow } else { &list });
            if config.groups(&list).is_err() {
                refused += 1;
                continue;
            }
            let mut twin = Parity::new(&gpu, &config, &list, 71);
            let some: &[&str] =
                if twin.optimizer.has_eval() || twin.optimizer.needs_look_ahead() { &[] } else { &["t3"] };
            for step in 0..4 {
                twin.step_without(if step == 1 { some } else { &[] });
            }
            if n == 2 {
                twin.step_changed(&[], |i, grads| {
                    grads.iter_mut().take(usize::from(i == 3)).for_each(|g| *g = f32::NAN)
                });
            }
            let mut second = Second::of(&mut twin, n % 2 == 1);
            for step in 0..3 {
                second.step(&mut twin, if step == 1 { some } else { &[] });
            }
            second.compare(&mut twin, &what);
        }
    }
    let pairs: usize = tried.iter().sum();
    assert!(!tried.contains(&0), "tried in the wrappers: {tried:?} times");
    say(&format!("checkpoints of rules in wrappers: {refused} of {pairs} pairs are refused"));
    say_share("checkpoints of rules in wrappers", pairs, cases * around.len());
    assert!(refused * 8 < pairs, "{refused}");
}

#[test]
fn where_the_parameters_stand_is_saved() {
    let Some(gpu) = gpu("checkpoints of parameters that are moved", 4) else { return };
    let list = some_tensors();
    for by_reference in [false, true] {
        // Where they are evaluated.
        let value =
            json!({"optimizer": "schedule_free", "skip_nonfinite": true, "schedule": {"exponential": {"gamma": 0.9}}});
        let mut twin = Parity::new(&gpu, &config(value), &list, 72);
        twin.step();
        twin.step();
        twin.optimizer.eval(&twin.params).unwrap();
        twin.reference.eval(&mut twin.values).unwrap();
        let mut second = Second::of(&mut twin, by_reference);
        let again = second.optimizer.eval(&second.params).unwrap_err();
        check("eval", &again, "evaluation: the parameters are in evaluation already");
        twin.optimizer.train(&twin.params).unwrap();
        twin.reference.train(&mut twin.values).unwrap();
        second.optimizer.train(&second.params).unwrap();
        second.step(&mut twin, &[]);
        second.compare(&mut twin, "evaluation");

        // Swapped with their mean.
        let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam", "ema": {"decay": 0.5}})), &list, 73);
        twin.step();
        twin.optimizer.swap_ema(&twin.params).unwrap();
        twin.reference.swap_ema(&mut twin.values).unwrap();
        let mut second = Second::of(&mut twin, by_reference);
        twin.optimizer.swap_ema(&twin.params).unwrap();
        twin.reference.swap_ema(&mut twin.values).unwrap();
        second.optimizer.swap_ema(&second.params).unwrap();
        second.step(&mut twin, &[]);
        second.compare(&mut twin, "swapped");

        // Ahead of the coming step, which is skipped.
        let value = json!({"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "form": "velocity",
            "nesterov": "look_ahead", "skip_nonfinite": true});
        let mut twin = Parity::new(&gpu, &config(value), &list, 74);
        twin.step();
        twin.optimizer.look_ahead(&twin.params).unwrap();
        twin.reference.look_ahead(&mut twin.values).unwrap();
        let mut second = Second::of(&mut twin, by_reference);
        assert!(!second.optimizer.needs_look_ahead());
        let grads = list.iter().map(|tensor| vec![f32::NAN; tensor.len_elements() as usize]).collect();
        twin.give(grads, &[]);
        second.optimizer.step(&second.params, &twin.grads).unwrap();
        second.step(&mut twin, &[]);
        second.compare(&mut twin, "looked ahead");
    }
}

#[test]
fn options_groups_and_schedules_are_those_of_the_moment() {
    let Some(gpu) = gpu("checkpoints of options", 1) else { return };
    let value = json!({
        "optimizer": "adamw", "lr": 0.1, "schedules": {"beta1": {"cosine": {"total": 9, "end": 0.5}}},
        "schedule": {"plateau": {"factor": 0.5, "patience": 0}},
        "groups": [{"tensors": ["t3"], "lr": 0.3}, {"tensors": ["m*"], "schedule": {"linear": {"total": 8}}}]
    });
    let mut twin = Parity::new(&gpu, &config(value), &some_tensors(), 75);
    twin.step();
    for optimizer in [&mut twin.optimizer as &mut dyn Change, &mut twin.reference] {
        optimizer.change();
    }
    twin.step();
    let mut second = Second::of(&mut twin, true);
    let values = |optimizer: &Optimizer| {
        let of = |name: &str| (optimizer.value(name), optimizer.group_value(0, name), optimizer.group_value(1, name));
        (["lr", "beta1", "beta2", "weight_decay"].map(of), optimizer.lr(), optimizer.frozen("t1"))
    };
    assert_eq!(values(&second.optimizer), values(&twin.optimizer));
    for optimizer in [&mut twin.optimizer, &mut second.optimizer] {
        optimizer.feed(3.0).unwrap();
        optimizer.set_lr(0.5).unwrap();
        optimizer.set("beta2", 0.5).unwrap();
    }
    twin.reference.feed(3.0).unwrap();
    twin.reference.set_lr(0.5).unwrap();
    twin.reference.set("beta2", 0.5).unwrap();
    assert_eq!(values(&second.optimizer), values(&twin.optimizer));
    second.step(&mut twin, &[]);
    second.compare(&mut twin, "options");
}

/// What both kinds of optimizer are changed by.
trait Change {
    fn change(&mut self);
}

macro_rules! change {
    ($($kind:ty),+) => {
        $(impl Change for $kind {
            fn change(&mut self) {
                self.set_lr(0.2).unwrap();
                self.set("weight_decay", 0.25).unwrap();
                self.set_group(1, "beta2", 0.75).unwrap();
                self.freeze("t1").unwrap();
                self.feed(1.0).unwrap();
                self.feed(2.0).unwrap();
            }
        })+
    };
}

change!(Optimizer, Reference<f32>);

#[test]
fn a_closure_is_saved_by_its_name_and_handed_over() {
    let list = [TensorSpec::f32("w", [2])];
    let saved = |schedule: Schedule| -> Result<Checkpoint> {
        let config = Config::from(AdamW::default()).schedule("lr", schedule);
        Reference::<f32>::new(&config, &list)?.save()
    };
    let text = |result: Result<Reference<f32>>| result.unwrap_err().to_string();
    let unnamed = saved(Schedule::custom(|_| 1.0)).unwrap_err().to_string();
    assert_eq!(unnamed, "checkpoint: schedule: is a closure without a name; make it with Schedule::named");
    let halves = |t: u64| 0.5f64.powi(t as i32);
    let then = Box::new(Schedule::named("halves", halves));
    let checkpoint = saved(Schedule::Warmup { steps: 2, start: 0.5, then }).unwrap();
    let missing = "checkpoint: schedule: is the closure halves; hand it to Checkpoint::schedule";
    assert_eq!(text(Reference::load(&list, &checkpoint)), missing);
    let mut loaded = Reference::<f32>::load(&list, &checkpoint.schedule("halves", halves)).unwrap();
    loaded.set_steps(3).unwrap();
    assert_eq!(loaded.value("lr"), Ok(0.25 * AdamW::default().lr));
    let config = r#"{"optimizer": "adam", "schedule": {"custom": "halves"}}"#;
    let unset = "schedule.custom is halves, must be set by Config::schedule: JSON holds no function";
    assert_eq!(Config::from_json(config).unwrap_err().to_string(), unset);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let list = [TensorSpec::f32("w", [2]), TensorSpec::f32("b", [3])];
    let reference = Reference::<f32>::new(&Config::from(AdamW::default()), &list).unwrap();
    let checkpoint = reference.save().unwrap();
    let refused = |list: &[TensorSpec], message: &str| {
        let error = Reference::<f32>::load(list, &checkpoint).unwrap_err().to_string();
        assert_eq!(error, format!("checkpoint: {message}"));
    };
    refused(&[list[0].clone()], "tensor b: is not among those given");
    refused(&[&list[..], &[TensorSpec::f32("c", [1])]].concat(), "tensor c: is missing");
    refused(&[list[0].clone(), TensorSpec::f32("b", [1, 3])], "tensor b: has shape [3], expected [1, 3]");
    let error = Reference::<f64>::load(&list, &checkpoint).unwrap_err().to_string();
    assert_eq!(error, "checkpoint: state.w.m: is f32, expected f64");
    let mut laid = checkpoint.clone();
    laid.put_param("w", &[1.0, 2.0]).unwrap();
    assert_eq!(laid.param("w"), Ok(vec![1.0, 2.0]));
    assert_eq!(laid.param("b").unwrap_err().to_string(), "checkpoint: param.b: is missing");
    assert!(matches!(laid.put_param("w", &[1.0]), Err(Error::Shape { .. })));
    Reference::<f32>::load(&list, &laid).unwrap();
    // The order of tensors is the caller's.
    let turned = [list[1].clone(), list[0].clone()];
    assert_eq!(Reference::<f32>::load(&turned, &checkpoint).unwrap().state("b", "m").unwrap().len(), 3);
}

#[test]
fn what_is_refused_leaves_nothing_on_the_device() {
    let Some(gpu) = gpu("checkpoints that are refused", 4) else { return };
    let list = some_tensors();
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adafactor"})), &list, 77);
    twin.step();
    let mut checkpoint = twin.optimizer.save_blocking().unwrap();
    checkpoint.put_param("m0", &[0.5; 35]).unwrap();
    let live = || {
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let hal = gpu.device().get_internal_counters().hal;
        [hal.buffers.read(), hal.bind_groups.read(), hal.buffer_memory.read()]
    };
    let (before, made) = (live(), gpu.counts());
    let mut turned = list.clone();
    turned[4] = TensorSpec::f32("m0", [7, 5]);
    let more = [&list[..], &[TensorSpec::f32("x", [1])]].concat();
    let half = list.iter().map(|tensor| tensor.clone().with_dtype(DType::F16)).collect();
    for (tensors, message) in [
        (list[..3].to_vec(), "tensor t3: is not among those given"),
        (turned, "tensor m0: has shape [5, 7], expected [7, 5]"),
        (more, "tensor x: is missing"),
        (half, "tensor t0: is f32, expected f16"),
    ] {
        let error = Optimizer::load(&gpu, &tensors, &checkpoint).unwrap_err().to_string();
        assert_eq!(error, format!("checkpoint: {message}"));
    }
    assert_eq!((live(), gpu.counts()), (before, made));
    // Where one parameter is missing, none is written.
    let optimizer = Optimizer::load(&gpu, &list, &checkpoint).unwrap();
    let error = optimizer.load_params(&checkpoint, &twin.params).unwrap_err().to_string();
    assert_eq!(error, "checkpoint: param.t0: is missing");
    assert_ne!(twin.params.read_blocking("m0").unwrap(), [0.5; 35]);
}

#[test]
fn encodings_that_are_not_submitted_are_counted() {
    let Some(gpu) = gpu("checkpoints of what is not submitted", 1) else { return };
    let mut twin = Parity::new(&gpu, &Config::from(AdamW::default()), &some_tensors(), 76);
    twin.step();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    let second = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    let text = "save: encodings that are neither submitted nor taken back: 2";
    check("save", &twin.optimizer.save_blocking().unwrap_err(), text);
    drop(encoder);
    twin.optimizer.undo(second).unwrap();
    // The first one was dropped as well, so it never ran and counts as none.
    let saved = twin.optimizer.save_blocking().unwrap();
    let resumed = Optimizer::load(&gpu, &twin.tensors, &saved).unwrap();
    assert_eq!((twin.optimizer.steps(), resumed.steps()), (1, 1));
}

#[test]
fn a_mean_counts_its_own_steps() {
    let list = [TensorSpec::f32("w", [1])];
    let with_mean = config(json!({"optimizer": "sgd", "lr": 0, "ema": {"decay": 0.5, "debias": true}}));
    let array = |value: f32| [ArrayD::from_elem(vec![1], value)];
    let grads = [Some(array(0.0)[0].clone())];

    // Resumed by hand, and read before the first step.
    let mut first = Reference::<f32>::new(&with_mean, &list).unwrap();
    let mut params = array(3.0);
    first.step(&mut params, &grads).unwrap();
    let mut second = Reference::<f32>::new(&with_mean, &list).unwrap();
    second.set_state("w", "ema", first.state("w", "ema").unwrap().as_slice().unwrap()).unwrap();
    second.set_t("w", first.t("w").unwrap()).unwrap();
    let mut copy = array(0.0);
    second.ema_into(&mut copy).unwrap();
    assert_eq!((copy, second.averaged("w")), (array(3.0), Ok(1)));

    // Switched on late.
    let mut late = Reference::<f32>::new(&with_mean, &list).unwrap();
    late.set_t("w", 1000).unwrap();
    let mut copy = array(7.0);
    late.ema_into(&mut copy).unwrap();
    assert_eq!(copy, array(7.0), "the mean holds nothing yet");
    for n in 1..4 {
        late.step(&mut params, &grads).unwrap();
        late.ema_into(&mut copy).unwrap();
        assert_eq!((copy.clone(), late.averaged("w"), late.t("w")), (array(3.0), Ok(n), Ok(1000 + n)));
    }
    let mut third = Reference::<f32>::new(&with_mean, &list).unwrap();
    third.set_state("w", "ema", late.state("w", "ema").unwrap().as_slice().unwrap()).unwrap();
    third.set_t("w", 1003).unwrap();
    third.set_averaged("w", 3).unwrap();
    third.ema_into(&mut copy).unwrap();
    assert_eq!(copy, array(3.0));
    let error = third.set_averaged("w", 1004).unwrap_err().to_string();
    assert_eq!(error, "averaged of tensor w is 1004, must be at most its t, 1003");
}

mod outside {
    use wgpu_optim::parts::Real;
    use wgpu_optim::rule::{Carried, Reject, Rule, Slot};
    use wgpu_optim::{Result, WeightDecay, fields, numbers, options};

    /// A rule that the registry does not know.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Heavy {
        pub lr: f64,
        pub weight_decay: WeightDecay,
    }

    fields!(Heavy: lr, weight_decay);

    numbers! {
        /// The rate.
        Hyper { lr }
    }
    numbers! {
        /// The sum of all gradients.
        State { sum }
    }

    impl Rule for Heavy {
        const NAME: &'static str = "heavy";
        const SUMMARY: &'static str = "a step along the sum of all gradients";
        const SHADER: &'static str = "";

        type Hyper<F: Real> = Hyper<F>;
        type State<F: Real> = State<F>;
        type Tensor<F: Real> = ();

        options!(lr; weight_decay);

        fn check(&self) -> Result<()> {
            Ok(())
        }

        fn slots(&self) -> Vec<Slot> {
            vec![Slot::element("sum")]
        }

        fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
            Hyper { lr: self.lr }
        }

        fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
            s.sum += g;
            h.lr * s.sum
        }

        fn cases() -> Vec<(&'static str, Self)> {
            vec![]
        }

        fn rejects() -> Vec<Reject> {
            vec![]
        }
    }
}

#[test]
fn a_rule_from_outside_is_handed_over_by_its_type() {
    let list = [TensorSpec::f32("w", [2])];
    let rule = outside::Heavy { lr: 0.5, ..outside::Heavy::default() };
    let mut first = Reference::<f64>::new(&Config::from(rule), &list).unwrap();
    let mut params = [ArrayD::from_elem(vec![2], 1.0)];
    let grads = [Some(ArrayD::from_elem(vec![2], 0.25))];
    first.step(&mut params, &grads).unwrap();
    let checkpoint = first.save().unwrap();
    let error = Reference::<f64>::load(&list, &checkpoint).unwrap_err().to_string();
    let missing = "checkpoint: optimizer heavy: is no rule of this crate; hand its type to Checkpoint::rule";
    assert_eq!(error, missing);
    let mut second = Reference::<f64>::load(&list, &checkpoint.rule::<outside::Heavy>()).unwrap();
    second.step(&mut params, &grads).unwrap();
    assert_eq!(params[0], ArrayD::from_elem(vec![2], 1.0 - 0.125 - 0.25));
}
