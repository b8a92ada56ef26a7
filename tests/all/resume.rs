//! Trainings saved and loaded where something stands out of the ordinary. `checkpoint.rs` has every rule and wrapper,
//! `fuzz.rs` random sequences.

use crate::common::gpu;
use crate::common::run::{Run, list, noise, resumed, resumed_with};
use ndarray::ArrayD;
use serde_json::{Value, json};
use wgpu_optim::{
    Arena, Checkpoint, Config, DType, Group, LossScale, Optimizer, Reference, Schedule, TensorSpec, Together,
    encode_together,
};

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
fn bounds_and_changes_behind_the_checkpoint() {
    let Some(gpu) = gpu("trainings at their bounds", 16) else { return };
    let run = |what: &str, value: Value, before: fn(&mut Run), after: fn(&mut Run)| {
        resumed(&gpu, what, config(value), &list(), before, after);
    };
    for init in [1.0, LossScale::MAX] {
        run(
            "the loss scale at its bounds",
            json!({"optimizer": "adam", "loss_scale": {"init": init, "interval": 1}}),
            |run| {
                run.steps(1);
                run.bad_step();
                run.bad_step();
                run.steps(3);
            },
            |run| {
                run.bad_step();
                run.steps(2);
                run.bad_step();
            },
        );
    }
    run(
        "a micro-batch that no step can use, in a window that ends early",
        json!({"optimizer": "adamw", "accumulate": 4, "loss_scale": {"init": 8, "interval": 1},
            "ema": {"decay": 0.5}, "lookahead": {"k": 2}}),
        |run| {
            run.steps(5);
            run.bad_step();
        },
        |run| {
            run.optimizer.step_early(&run.params).unwrap();
            run.steps(6);
            run.optimizer.step_early(&run.params).unwrap();
        },
    );
    run(
        "a look-ahead in a window that ends early",
        json!({"optimizer": "sgd", "momentum": 0.5, "form": "velocity", "nesterov": "look_ahead", "accumulate": 3}),
        |run| run.steps(4),
        |run| {
            run.optimizer.step_early(&run.params).unwrap();
            run.steps(3);
        },
    );
    run(
        "a rate that is set within a window",
        json!({"optimizer": "adamw", "accumulate": 3, "schedule": {"cosine": {"total": 5}}}),
        |run| {
            run.steps(4);
            run.optimizer.set_lr(0.5).unwrap();
        },
        |run| {
            run.optimizer.set_lr(0.25).unwrap();
            run.steps(4);
        },
    );
    run(
        "a rate of 0, to which no group has a ratio",
        json!({"optimizer": "adamw", "lr": 0.0, "groups": [{"tensors": ["w"], "lr": 0.5}, {"tensors": ["b"]}]}),
        |run| {
            run.steps(1);
            run.optimizer.set_group(1, "lr", 0.0).unwrap();
        },
        |run| {
            run.optimizer.set_lr(0.25).unwrap();
            run.steps(2);
        },
    );
    for rule in ["adamw", "prodigy", "soap", "schedule_free"] {
        run(
            "tensors that thaw and tensors that join once it was loaded",
            json!({"optimizer": rule, "ema": {"decay": 0.5, "debias": true}, "clip": {"global_norm": 1}}),
            |run| {
                run.optimizer.freeze("b").unwrap();
                run.steps(2);
            },
            |run| {
                run.grow(&[TensorSpec::f32("late", [4, 2])], |optimizer, tensors| optimizer.add_blocking(tensors));
                run.step_without(&["late"]);
                run.optimizer.unfreeze("b").unwrap();
                run.steps(2);
            },
        );
    }
    run(
        "a mean that is read at once, where the last step was skipped",
        json!({"optimizer": "adamw", "ema": {"decay": 0.5, "debias": true}, "skip_nonfinite": true}),
        |run| {
            run.step_without(&["b"]);
            run.bad_step();
        },
        |run| run.optimizer.ema_into(&run.params).unwrap(),
    );
    run(
        "swapped with a mean that holds nothing yet",
        json!({"optimizer": "adamw", "ema": {"decay": 0.5}}),
        |run| run.optimizer.swap_ema(&run.params).unwrap(),
        |run| {
            run.optimizer.swap_ema(&run.params).unwrap();
            run.steps(1);
        },
    );
    let plateau = json!({"plateau": {"factor": 0.5, "patience": 0, "cooldown": 2, "min": 0.2, "threshold_mode": "abs",
        "mode": "max"}});
    let stages = json!({"sequence": [{"steps": 2, "schedule": plateau}, {"steps": 9, "schedule": plateau}]});
    for schedule in [json!({"warmup": {"steps": 2, "then": plateau}}), stages] {
        run(
            "a plateau that cools down, within another schedule",
            json!({"optimizer": "adamw", "schedule": schedule}),
            |run| {
                for metric in [1.0, 0.5, f64::NEG_INFINITY] {
                    run.steps(1);
                    run.optimizer.feed(metric).unwrap();
                }
            },
            |run| {
                for metric in [1.0, 0.5, 0.4, 0.3, 0.2] {
                    run.steps(1);
                    run.optimizer.feed(metric).unwrap();
                }
            },
        );
    }
    run(
        "counts beyond 32 and 53 bits",
        json!({"optimizer": "adamw", "schedule": {"inverse_time": {"decay": 0.1}}, "skip_nonfinite": true}),
        |run| {
            run.optimizer.set_steps((1 << 53) + 1).unwrap();
            run.optimizer.set_t("w", (1 << 53) + 1).unwrap();
            run.optimizer.set_t("b", u64::from(u32::MAX)).unwrap();
            run.steps(1);
        },
        |run| run.steps(3),
    );
    run(
        "options that are set while the parameters are evaluated",
        json!({"optimizer": "schedule_free", "warmup_steps": 3}),
        |run| {
            run.steps(2);
            run.optimizer.eval(&run.params).unwrap();
            run.optimizer.set("beta1", 0.5).unwrap();
        },
        |run| {
            run.optimizer.set_lr(0.3).unwrap();
            run.optimizer.train(&run.params).unwrap();
            run.steps(2);
        },
    );
    run(
        "parameters and state that are no numbers, or hardly any",
        json!({"optimizer": "adamw", "ema": {"decay": 0.5}}),
        |run| {
            run.params.write("b", &[f32::NAN, -0.0, f32::from_bits(1)]).unwrap();
            run.bad_step();
        },
        |run| run.steps(1),
    );
}

#[test]
fn a_mean_that_is_switched_on_late_holds_its_own_steps() {
    let Some(gpu) = gpu("means that are switched on late", 1) else { return };
    let value = json!({"optimizer": "sgd", "lr": 0, "ema": {"decay": 0.5, "debias": true}});
    let mut run = Run::new(&gpu, config(value), &list());
    let names = ["w", "b", "long"];
    names.into_iter().for_each(|name| run.optimizer.set_t(name, 1000).unwrap());
    let copy = Arena::new(&gpu, &list()).unwrap();
    copy.write("b", &[7.0; 3]).unwrap();
    run.optimizer.ema_into(&copy).unwrap();
    assert_eq!(copy.read_blocking("b").unwrap(), [7.0; 3], "the mean holds nothing yet");
    for taken in 1..4 {
        run.steps(1);
        run.optimizer.ema_into(&copy).unwrap();
        for name in names {
            let [mean, param] = [&copy, &run.params].map(|arena| arena.read_blocking(name).unwrap());
            let far = mean.iter().zip(&param).map(|(mean, p)| (mean - p).abs()).fold(0.0, f32::max);
            assert!(far <= 2.0 * f32::EPSILON, "{name}: {far} after {taken} steps");
        }
        assert_eq!((run.optimizer.averaged("b"), run.optimizer.t("b")), (Ok(taken), Ok(1000 + taken)));
    }
}
