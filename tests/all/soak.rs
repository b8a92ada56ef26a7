//! Long and wide trainings: memory stays flat over thousands of steps, optimizers share a device between threads, come
//! and go by the thousand, and train thousands of tensors.
//!
//! `cargo xtask soak` sets `SOAK_STEPS` to 100 000 and runs this module alone. Then host memory is watched, too.

use crate::common::twin::{Parity, bound, tensors};
use crate::common::{gpu, say};
use serde_json::{Value, json};
use wgpu_optim::wgpu;
use wgpu_optim::{Arena, Config, Gpu, Optimizer, Reference, TensorSpec};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// How many steps were asked for.
fn asked() -> Option<u64> {
    std::env::var("SOAK_STEPS").ok().map(|steps| steps.parse().expect("SOAK_STEPS is a number"))
}

/// Live buffers, bind groups and bytes of buffers, as wgpu counts them once the device has nothing to do.
fn live(gpu: &Gpu) -> [isize; 3] {
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let hal = gpu.device().get_internal_counters().hal;
    [hal.buffers.read(), hal.bind_groups.read(), hal.buffer_memory.read()]
}

/// Bytes of the process that are in memory, where the system says so.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.trim().trim_end_matches(" kB").parse::<u64>().ok()?)
}

#[test]
fn memory_stays_flat_over_many_steps() {
    let steps = asked().unwrap_or(2000);
    let Some(gpu) = gpu("long trainings", 2) else { return };
    for value in [
        json!({"optimizer": "adamw"}),
        json!({"optimizer": "adamw", "loss_scale": {"init": 4}, "clip": {"global_norm": 1}, "ema": {},
            "schedule": {"inverse_time": {"decay": 0.01}}}),
    ] {
        let what = value.to_string();
        let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 3000]), 81);
        // As many steps as are ever in flight at once make all that is ever made.
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for _ in 0..16 {
            twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
        }
        gpu.queue().submit([encoder.finish()]);
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(twin.optimizer.reports().unwrap().len(), 16, "{what}");
        let mut seen = Vec::new();
        for i in 1..=steps {
            twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            if i % 16 == 0 {
                twin.optimizer.settle_blocking().unwrap();
                assert_eq!(twin.optimizer.reports().unwrap().len(), 16, "{what}");
            }
            if i % (steps / 4) == 0 {
                seen.push((live(&gpu), twin.optimizer.memory(), resident()));
            }
        }
        let (first, last) = (&seen[0], &seen[seen.len() - 1]);
        assert_eq!((first.0, first.1), (last.0, last.1), "{what}: {seen:?}");
        if let (Some(_), Some(first), Some(last)) = (asked(), first.2, last.2) {
            say(&format!("soak: {steps} steps, host memory {first} bytes after a quarter, {last} at the end"));
            assert!(last < first + (4 << 20), "{what}: host memory grew from {first} to {last} bytes");
        }
    }
}

#[test]
fn sixty_four_threads_train_on_one_device() {
    let Some(gpu) = gpu("threads on one device", 64) else { return };
    let list = tensors(&[130]);
    std::thread::scope(|scope| {
        for thread in 0..64u32 {
            let (gpu, list) = (&gpu, &list);
            scope.spawn(move || {
                let skips = thread % 2 == 0;
                let config = || config(json!({"optimizer": "adam", "lr": 0.01, "skip_nonfinite": skips}));
                let mut optimizer = Optimizer::new(gpu, list, config()).unwrap();
                let [params, grads] = [0, 1].map(|_| Arena::new(gpu, list).unwrap());
                let mut reference = Reference::<f32>::new(&config(), list).unwrap();
                let mut values = [ndarray::ArrayD::zeros(vec![130])];
                for step in 0..20u32 {
                    let gradient = vec![(thread + step) as f32 - 40.0; 130];
                    grads.write("t0", &gradient).unwrap();
                    optimizer.step(&params, &grads).unwrap();
                    let gradient = ndarray::ArrayD::from_shape_vec(vec![130], gradient).unwrap();
                    reference.step(&mut values, &[Some(gradient)]).unwrap();
                }
                optimizer.settle_blocking().unwrap();
                assert_eq!((optimizer.steps(), optimizer.reports().unwrap().len()), (20, 20), "thread {thread}");
                let found = params.read_blocking("t0").unwrap();
                let far = |(found, expected): (&f32, &f32)| (found - expected).abs() > 1e-6 * expected.abs();
                assert!(!found.iter().zip(&values[0]).any(far), "thread {thread}: {}, {}", found[0], values[0][0]);
            });
        }
    });
}

#[test]
fn a_thousand_optimizers_leave_nothing() {
    let Some(gpu) = gpu("optimizers that come and go", 1000) else { return };
    let list = tensors(&[5, 1030]);
    let [params, grads] = [0, 1].map(|_| Arena::new(&gpu, &list).unwrap());
    let train = || {
        let config = config(json!({"optimizer": "adam", "skip_nonfinite": true}));
        Optimizer::new(&gpu, &list, config).unwrap().step(&params, &grads).unwrap();
    };
    train();
    let before = live(&gpu);
    (0..1000).for_each(|_| train());
    assert_eq!(live(&gpu), before);
}

#[test]
fn a_model_of_many_tensors_trains_in_one_dispatch() {
    let Some(gpu) = gpu("21 000 tensors", 1) else { return };
    let list: Vec<_> = (0..21_000usize).map(|i| TensorSpec::f32(format!("t{i}"), [1 + i % 7])).collect();
    let mut twin = Parity::new(&gpu, &config(json!({"optimizer": "adam"})), &list, 82);
    assert_eq!(twin.optimizer.plan(&twin.params, &twin.grads).unwrap().dispatches, 1);
    for _ in 0..2 {
        let grads = twin.values.iter().map(|values| vec![0.5; values.len()]).collect();
        twin.give(grads, &[]);
    }
    for i in (0..list.len()).step_by(997) {
        let found = twin.params.read_blocking(&list[i].name).unwrap();
        let allowed = if bound(&gpu) == 0.0 { 0.0 } else { 1e-6 };
        let far = |(found, expected): (&f32, &f32)| (found - expected).abs() > allowed * expected.abs();
        assert!(!found.iter().zip(&twin.values[i]).any(far), "{}", list[i].name);
    }
}
