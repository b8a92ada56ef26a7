//! Trainings saved and loaded where something stands out of the ordinary: each goes on with the bits, and ends in the
//! state, of one that was not stopped. `checkpoint.rs` has every rule and wrapper, `fuzz.rs` random sequences.

use crate::common::{gpu, say};
use ndarray::ArrayD;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use wgpu_optim::{
    Arena, Checkpoint, Config, DType, Gpu, Group, Optimizer, Reference, Result, Schedule, TensorSpec, Together,
    encode_together,
};

/// An optimizer and what it trains. Gradients follow from the count of steps alone.
struct Run {
    gpu: Gpu,
    optimizer: Optimizer,
    params: Arena,
    grads: Arena,
    taken: u64,
}

impl Run {
    fn new(gpu: &Gpu, config: impl Into<Config>, tensors: &[TensorSpec]) -> Self {
        let optimizer = Optimizer::new(gpu, tensors, config).expect("an optimizer");
        let mut run = Self::of(gpu, optimizer, tensors);
        for tensor in tensors {
            run.params.write(&tensor.name, &noise(tensor, 0)).unwrap();
        }
        run.taken = 1;
        run
    }

    fn of(gpu: &Gpu, optimizer: Optimizer, tensors: &[TensorSpec]) -> Self {
        let params = Arena::new(gpu, tensors).unwrap();
        let grads = Arena::new(gpu, &tensors.iter().map(TensorSpec::grad_spec).collect::<Vec<_>>()).unwrap();
        Self { gpu: gpu.clone(), optimizer, params, grads, taken: 0 }
    }

    /// Writes the gradients of the coming step.
    fn fill(&mut self, factor: f32) {
        for tensor in self.grads.tensors() {
            let values: Vec<f32> = noise(tensor, self.taken).into_iter().map(|value| factor * value).collect();
            self.grads.write(&tensor.name, &values).unwrap();
        }
        self.taken += 1;
    }

    fn step_without(&mut self, absent: &[&str]) {
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&self.params).unwrap();
        }
        self.fill(1.0);
        self.optimizer.step(&self.params, &self.grads.without(absent).unwrap()).unwrap();
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step_without(&[]));
    }

    /// A step that is skipped.
    fn bad_step(&mut self) {
        self.fill(f32::INFINITY);
        self.optimizer.step(&self.params, &self.grads).unwrap();
    }

    /// New tensors, in arenas of all tensors.
    fn grow(&mut self, tensors: &[TensorSpec], join: impl FnOnce(&mut Optimizer, &[TensorSpec]) -> Result<()>) {
        let all = [self.params.tensors(), tensors].concat();
        join(&mut self.optimizer, tensors).unwrap();
        let params = Arena::new(&self.gpu, &all).unwrap();
        for tensor in self.params.tensors() {
            params.write(&tensor.name, &self.params.read_blocking(&tensor.name).unwrap()).unwrap();
        }
        tensors.iter().for_each(|tensor| params.write(&tensor.name, &noise(tensor, 0)).unwrap());
        (self.params, self.grads) = (params, Arena::new(&self.gpu, &all).unwrap());
    }

    /// All that the training is.
    fn state(&mut self) -> Vec<u8> {
        let mut checkpoint = self.optimizer.save_blocking().expect("a checkpoint");
        for tensor in self.params.tensors() {
            checkpoint.put_param(&tensor.name, &self.params.read_blocking(&tensor.name).unwrap()).unwrap();
        }
        checkpoint.to_bytes().unwrap()
    }
}

fn noise(tensor: &TensorSpec, seed: u64) -> Vec<f32> {
    let of_name = tensor.name.bytes().fold(seed, |sum, byte| 131 * sum + u64::from(byte));
    let mut rng = StdRng::seed_from_u64(of_name);
    let value = |_| rng.random_range(-1.0..1.0f32);
    (0..tensor.len_elements()).map(value).map(|value| tensor.dtype.round(value.into()) as f32).collect()
}

fn list() -> Vec<TensorSpec> {
    vec![
        TensorSpec::f32("w", [5, 7]),
        TensorSpec::f32("b", [3]),
        TensorSpec::f32("none", [0]),
        TensorSpec::f32("long", [1030]),
    ]
}

/// Trains with `before`, then on with `after`; saved and loaded between the two in each of three ways, it ends in the
/// same state.
fn resumed(
    gpu: &Gpu,
    what: &str,
    config: impl Into<Config>,
    tensors: &[TensorSpec],
    before: impl FnOnce(&mut Run),
    after: impl Fn(&mut Run),
) {
    resumed_with(gpu, what, config, tensors, before, after, |checkpoint| checkpoint);
}

fn resumed_with(
    gpu: &Gpu,
    what: &str,
    config: impl Into<Config>,
    tensors: &[TensorSpec],
    before: impl FnOnce(&mut Run),
    after: impl Fn(&mut Run),
    given: impl Fn(Checkpoint) -> Checkpoint,
) {
    let mut first = Run::new(gpu, config, tensors);
    before(&mut first);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    first.optimizer.save_to_blocking(&path, &first.params, |_, _| ()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let list = first.params.tensors().to_vec();
    let mut others = Vec::new();
    let load = || given(Checkpoint::load_from(&path).unwrap());
    for by_reference in [false, true] {
        let mut checkpoint = load();
        let params = list.iter().map(|tensor| (tensor.name.clone(), checkpoint.param(&tensor.name).unwrap()));
        let params: Vec<_> = params.collect();
        if by_reference {
            let reference = Reference::<f32>::load(&list, &checkpoint).unwrap_or_else(|e| panic!("{what}: {e}"));
            checkpoint = given(reference.save().unwrap());
            params.iter().for_each(|(name, values)| checkpoint.put_param(name, values).unwrap());
        }
        let optimizer = Optimizer::load(gpu, &list, &checkpoint).unwrap_or_else(|error| panic!("{what}: {error}"));
        let run = Run::of(gpu, optimizer, &list);
        run.optimizer.load_params(&checkpoint, &run.params).unwrap();
        others.push(Run { taken: first.taken, ..run });
    }
    // Loaded, saved and loaded again.
    let again = given(Checkpoint::from_bytes(&others[0].state()).unwrap());
    let run = Run::of(gpu, Optimizer::load(gpu, &list, &again).unwrap(), &list);
    run.optimizer.load_params(&again, &run.params).unwrap();
    others.push(Run { taken: first.taken, ..run });

    after(&mut first);
    let expected = first.state();
    for (way, mut other) in ["by a file", "by the reference", "twice"].into_iter().zip(others) {
        after(&mut other);
        if other.state() != expected {
            let parsed = |bytes: &[u8]| {
                let (_, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
                header.metadata().as_ref().unwrap()["training"].clone()
            };
            panic!("{what}, {way}:\n{}\n{}", parsed(&other.state()), parsed(&expected));
        }
    }
}

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

#[test]
fn trainings_that_stand_out_of_the_ordinary() {
    let Some(gpu) = gpu("trainings that are resumed", 20) else { return };
    let run = |what: &str, value: Value, before: fn(&mut Run), after: fn(&mut Run)| {
        resumed(&gpu, what, config(value), &list(), before, after);
    };
    run("before the first step", json!({"optimizer": "adamw", "ema": {}}), |_| (), |run| run.steps(2));
    run(
        "added tensors, some of them in a new group",
        json!({"optimizer": "nadam", "ema": {"decay": 0.5, "debias": true}, "schedule": {"linear": {"total": 9}},
            "lookahead": {"k": 2}}),
        |run| {
            run.steps(3);
            run.grow(&[TensorSpec::f32("late", [4, 2])], |optimizer, tensors| optimizer.add_blocking(tensors));
            run.steps(1);
            let group =
                || Group::new(["last*"]).set("lr", 0.25).schedule("lr", Schedule::Linear { end: 0.5, total: 9 });
            run.grow(&[TensorSpec::f32("last.1", [6])], |optimizer, tensors| {
                optimizer.add_group_blocking(group(), tensors)
            });
        },
        |run| run.steps(3),
    );
    run(
        "frozen tensors",
        json!({"optimizer": "adam", "skip_nonfinite": true, "ema": {"decay": 0.5}}),
        |run| {
            run.steps(2);
            run.optimizer.freeze("w").unwrap();
            run.steps(1);
        },
        |run| {
            run.steps(1);
            run.optimizer.unfreeze("w").unwrap();
            run.steps(2);
        },
    );
    run(
        "a plateau in a group, its metric below 0",
        json!({"optimizer": "sgd", "groups": [{"tensors": ["b"], "lr": 0.5,
            "schedule": {"plateau": {"factor": 0.5, "patience": 1}}}]}),
        |run| {
            for metric in [-3.0, -2.0] {
                run.steps(1);
                run.optimizer.group_scheduler_mut(0, "lr").unwrap().feed(metric).unwrap();
            }
        },
        |run| {
            run.optimizer.group_scheduler_mut(0, "lr").unwrap().feed(-2.5).unwrap();
            assert_eq!(run.optimizer.group_scheduler(0, "lr").unwrap().factor(run.optimizer.steps()), Ok(0.5));
            run.steps(2);
        },
    );
    run(
        "a window of micro-batches that ended early, then one that is open",
        json!({"optimizer": "adamw", "accumulate": 4, "loss_scale": {"init": 8, "interval": 2}}),
        |run| {
            run.steps(3);
            run.optimizer.step_early(&run.params).unwrap();
            run.step_without(&["b"]);
        },
        |run| {
            run.step_without(&["w"]);
            run.optimizer.step_early(&run.params).unwrap();
            run.steps(5);
        },
    );
    run(
        "a window that was dropped",
        json!({"optimizer": "lion", "accumulate": 3}),
        |run| {
            run.steps(4);
            run.optimizer.drop_micro_batches();
        },
        |run| run.steps(4),
    );
    run(
        "a window that is dropped once it was loaded",
        json!({"optimizer": "lion", "accumulate": 3, "skip_nonfinite": true}),
        |run| run.steps(4),
        |run| {
            run.optimizer.drop_micro_batches();
            run.steps(3);
        },
    );
    run(
        "swapped with the mean between windows",
        json!({"optimizer": "adam", "accumulate": 2, "ema": {"decay": 0.5}}),
        |run| {
            run.steps(4);
            run.optimizer.swap_ema(&run.params).unwrap();
        },
        |run| {
            run.optimizer.swap_ema(&run.params).unwrap();
            run.steps(2);
        },
    );
    run(
        "evaluation before any step, with a tensor that never has a gradient",
        json!({"optimizer": "schedule_free", "warmup_steps": 3}),
        |run| {
            run.step_without(&["long"]);
            run.optimizer.eval(&run.params).unwrap();
        },
        |run| {
            run.optimizer.train(&run.params).unwrap();
            run.step_without(&["w"]);
            run.optimizer.eval(&run.params).unwrap();
        },
    );
    run(
        "the loss scale after skipped steps",
        json!({"optimizer": "adamw", "loss_scale": {"init": 64, "interval": 3}, "lookahead": {"k": 3}}),
        |run| {
            run.steps(2);
            run.bad_step();
            run.steps(2);
        },
        |run| {
            run.steps(2);
            run.bad_step();
            run.steps(1);
        },
    );
    run(
        "only skipped steps",
        json!({"optimizer": "radam", "skip_nonfinite": true, "ema": {"decay": 0.5, "debias": true}}),
        Run::bad_step,
        |run| run.steps(2),
    );
    run(
        "a step that was taken back",
        json!({"optimizer": "asgd", "t0": 1}),
        |run| {
            run.steps(2);
            let mut encoder = run.gpu.device().create_command_encoder(&Default::default());
            let step = run.optimizer.encode(&mut encoder, &run.params, &run.grads).unwrap();
            drop(encoder);
            run.optimizer.undo(step).unwrap();
        },
        |run| run.steps(2),
    );
    run(
        "a ring of pairs that is full",
        json!({"optimizer": "lbfgs", "history_size": 2, "lr": 0.1, "skip_nonfinite": true}),
        |run| {
            run.steps(6);
            run.bad_step();
        },
        |run| run.steps(4),
    );
    run(
        "matrices and the second rule",
        json!({"optimizer": "muon", "others": {"optimizer": "adamw", "lr": 0.1}, "ema": {"decay": 0.5}}),
        |run| {
            run.steps(2);
            run.optimizer.set_lr(0.125).unwrap();
            run.optimizer.set_group(0, "beta1", 0.5).unwrap();
        },
        |run| {
            run.optimizer.set_lr(0.25).unwrap();
            run.steps(2);
        },
    );
    run(
        "counts that were set",
        json!({"optimizer": "adamw", "ema": {"decay": 0.9, "debias": true}, "schedule": {"cosine": {"total": 20}}}),
        |run| {
            run.optimizer.set_steps(7).unwrap();
            run.optimizer.set_t("w", 1000).unwrap();
            run.optimizer.set_averaged("w", 3).unwrap();
            run.steps(2);
        },
        |run| run.steps(2),
    );
    for rounding in ["master", "stochastic", "nearest"] {
        let mut value = json!({"optimizer": "adam", "param_rounding": rounding, "skip_nonfinite": true,
            "ema": {"decay": 0.5}});
        if rounding == "stochastic" {
            value["seed"] = json!(0x1234_5678_9abcu64);
        }
        let narrow: Vec<_> = list().into_iter().map(|tensor| tensor.with_dtype(DType::Bf16)).collect();
        resumed(&gpu, rounding, config(value), &narrow, |run| run.steps(3), |run| run.steps(3));
    }
}

#[test]
fn options_that_the_device_has_written() {
    let Some(gpu) = gpu("options that the device has written", 1) else { return };
    let value = json!({"optimizer": "adamw", "on_device": ["lr", "weight_decay", "clip"], "skip_nonfinite": true,
        "clip": {"global_norm": 1}, "groups": [{"tensors": ["b"], "lr": 0.5}]});
    let list = list();
    let mut first = Run::new(&gpu, config(value), &list);
    first.steps(1);
    let numbers = first.optimizer.on_device().unwrap();
    gpu.queue().write_buffer(numbers.buffer, numbers.offset, bytemuck::cast_slice(&[0.25f32, 0.125, 0.5]));
    first.steps(1);
    let checkpoint = Checkpoint::from_bytes(&first.state()).unwrap();
    let mut reference = Reference::<f32>::load(&list, &checkpoint).unwrap();
    assert_eq!(["lr", "weight_decay"].map(|name| reference.value(name)), [Ok(0.25), Ok(0.125)]);
    let mut by_reference = reference.save().unwrap();
    list.iter().for_each(|t| by_reference.put_param(&t.name, &checkpoint.param(&t.name).unwrap()).unwrap());
    let mut runs = [&checkpoint, &by_reference].map(|checkpoint| {
        let run = Run::of(&gpu, Optimizer::load(&gpu, &list, checkpoint).unwrap(), &list);
        run.optimizer.load_params(checkpoint, &run.params).unwrap();
        Run { taken: first.taken, ..run }
    });
    let array = |tensor: &TensorSpec, values: Vec<f32>| ArrayD::from_shape_vec(tensor.shape.clone(), values).unwrap();
    let mut params: Vec<_> = list.iter().map(|t| array(t, checkpoint.param(&t.name).unwrap())).collect();
    let grads: Vec<_> = list.iter().map(|tensor| Some(array(tensor, noise(tensor, first.taken)))).collect();
    reference.step(&mut params, &grads).unwrap();
    first.steps(1);
    runs.iter_mut().for_each(|run| run.steps(1));
    let of = |run: &Run, name: &str| run.params.read_blocking(name).unwrap();
    for (tensor, expected) in list.iter().zip(&params) {
        let found = of(&first, &tensor.name);
        for run in &runs {
            assert!(of(run, &tensor.name) == found, "{}", tensor.name);
        }
        let far = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 1e-5, "{}: the reference is {far} off", tensor.name);
    }
}

#[test]
fn closures_in_groups() {
    let Some(gpu) = gpu("closures that are handed over again", 1) else { return };
    let schedule = || Schedule::named("halves", |t| 0.5f64.powi(t as i32));
    let group = Group::new(["b"]).set("lr", 0.5).schedule("lr", schedule());
    let config = config(json!({"optimizer": "adamw"})).schedule("beta1", schedule()).group(group);
    let given = |checkpoint: Checkpoint| checkpoint.schedule("halves", |t| 0.5f64.powi(t as i32));
    resumed_with(&gpu, "closures", config, &list(), |run| run.steps(2), |run| run.steps(2), given);
}

#[test]
fn optimizers_that_step_together() {
    let Some(gpu) = gpu("optimizers that step together", 1) else { return };
    let value =
        |rule: &str| json!({"optimizer": rule, "clip": {"global_norm": 1}, "loss_scale": {"init": 32, "interval": 2}});
    let of = |rule: &str, name: &str| Run::new(&gpu, config(value(rule)), &[TensorSpec::f32(name, [6, 5])]);
    let step = |runs: &mut [Run; 2], factor: f32| {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        runs[0].fill(1.0);
        runs[1].fill(factor);
        let mut steps = runs
            .iter_mut()
            .map(|Run { optimizer, params, grads, .. }| Together::new(optimizer, &*params, &*grads))
            .collect::<Vec<_>>();
        encode_together(&mut encoder, &mut steps).unwrap();
        gpu.queue().submit([encoder.finish()]);
    };
    let mut first = [of("muon", "w"), of("adamw", "v")];
    for factor in [1.0, f32::INFINITY, 3.0] {
        step(&mut first, factor);
    }
    let mut second = first.each_mut().map(|run| {
        let checkpoint = Checkpoint::from_bytes(&run.state()).unwrap();
        let tensors = run.params.tensors().to_vec();
        let other = Run::of(&gpu, Optimizer::load(&gpu, &tensors, &checkpoint).unwrap(), &tensors);
        other.optimizer.load_params(&checkpoint, &other.params).unwrap();
        Run { taken: run.taken, ..other }
    });
    for factor in [1.0, f32::INFINITY, 2.0, 1.0] {
        step(&mut first, factor);
        step(&mut second, factor);
    }
    for (first, second) in first.iter_mut().zip(&mut second) {
        assert!(first.state() == second.state(), "{:?}", first.params.tensors());
    }
}

#[test]
fn tensors_in_another_order() {
    let Some(gpu) = gpu("tensors in another order", 3) else { return };
    for value in [
        json!({"optimizer": "prodigy"}),
        json!({"optimizer": "adafactor", "accumulate": 2, "groups": [{"tensors": ["w"], "lr": 0.5}]}),
        json!({"optimizer": "schedule_free", "skip_nonfinite": true}),
    ] {
        let what = value.to_string();
        let mut first = Run::new(&gpu, config(value), &list());
        first.steps(1);
        first.step_without(&["w"]);
        if first.optimizer.has_eval() {
            first.optimizer.eval(&first.params).unwrap();
        }
        let checkpoint = Checkpoint::from_bytes(&first.state()).unwrap();
        let turned: Vec<_> = list().into_iter().rev().collect();
        let mut second = Run::of(&gpu, Optimizer::load(&gpu, &turned, &checkpoint).unwrap(), &turned);
        second.optimizer.load_params(&checkpoint, &second.params).unwrap();
        second.taken = first.taken;
        // Sums over tensors add up in another order, so that steps need not have the same bits.
        let back = Checkpoint::from_bytes(&second.state()).unwrap();
        let third = Run::of(&gpu, Optimizer::load(&gpu, &list(), &back).unwrap(), &list());
        third.optimizer.load_params(&back, &third.params).unwrap();
        let mut third = Run { taken: first.taken, ..third };
        for run in [&mut first, &mut third] {
            if run.optimizer.has_eval() {
                run.optimizer.train(&run.params).unwrap();
            }
            run.steps(2);
        }
        assert!(first.state() == third.state(), "{what}");
        second.optimizer.has_eval().then(|| second.optimizer.train(&second.params).unwrap());
        second.steps(2);
        for tensor in list() {
            let [a, b] = [&first, &second].map(|run| run.params.read_blocking(&tensor.name).unwrap());
            let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= 1e-5, "{what}: {} differs by {far}", tensor.name);
        }
    }
    say("resumed: trainings out of the ordinary by a file, by the reference, and twice");
}
