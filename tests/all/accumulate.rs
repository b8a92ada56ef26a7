//! The GPU adds up micro-batches and clears gradients: tests compare it with f32 sums on the CPU, around every rule.

use crate::common::twin::{Parity, bound, noise, tensors};
use crate::common::{device, gpu, say_share, share_of_cases};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wgpu_optim::{
    Accumulate, Arena, Buffers, Clip, Config, DType, Ema, Gpu, Lookahead, LossScale, LossScaleState, NonFinite,
    Optimizer, Sgd,
};
use wgpu_optim::{Slice, TensorSpec, wgpu};

const SIZES: [usize; 6] = [0, 3, 5, 1024, 1025, 8195];

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Makes tensors of which every other one has gradients in f16.
fn mixed() -> Vec<TensorSpec> {
    let of = |(i, tensor): (usize, TensorSpec)| if i % 2 == 1 { tensor.with_grad_dtype(DType::F16) } else { tensor };
    let shaped = [TensorSpec::f32("m0", [5, 7]), TensorSpec::f32("m1", [3, 40, 31])];
    tensors(&SIZES).into_iter().chain(shaped).enumerate().map(of).collect()
}

#[test]
fn the_mean_is_the_sum_in_order_divided_by_k() {
    let Some(gpu) = gpu("sums of micro-batches", 8) else { return };
    for (k, odd) in [1u64, 2, 3, 7].into_iter().flat_map(|k| [(k, false), (k, true)]) {
        let rate_one = Config::from(Sgd { lr: 1.0, ..Sgd::default() });
        let list = mixed();
        let mut twin = Parity::new(&gpu, &rate_one.wrap(Accumulate(k)), &list, 41);
        if odd {
            twin = twin.at_odd_words();
        }
        for cycle in 0..2 {
            // t1 has no gradient in the first micro-batch of a cycle, t2 in none, t3 in the last alone.
            let mut expected: Vec<Option<Vec<f32>>> = vec![None; list.len()];
            let before: Vec<Vec<f32>> = list.iter().map(|t| twin.params.read_blocking(&t.name).unwrap()).collect();
            for batch in 0..k {
                let mut absent = vec!["t2"];
                absent.extend((batch == 0).then_some("t1"));
                absent.extend((batch + 1 < k).then_some("t3"));
                let worst = twin.step_without(&absent);
                assert!(worst.ulps <= bound(&gpu), "{k}, micro-batch {batch} of cycle {cycle}: {}", worst.text);
                let given = twin.history.last().unwrap();
                for ((tensor, sum), grad) in list.iter().zip(&mut expected).zip(given) {
                    if absent.contains(&&tensor.name[..]) {
                        continue;
                    }
                    match sum {
                        None => *sum = Some(grad.clone()),
                        Some(sum) => sum.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g),
                    }
                }
                for (tensor, before) in list.iter().zip(&before).filter(|_| batch + 1 < k) {
                    assert_eq!(
                        twin.params.read_blocking(&tensor.name).unwrap(),
                        *before,
                        "{}: no step yet",
                        tensor.name
                    );
                }
            }
            for ((tensor, before), sum) in list.iter().zip(&before).zip(&expected) {
                let moved = |(i, p): (usize, &f32)| sum.as_ref().map_or(*p, |sum| p - sum[i] / k as f32);
                let expected: Vec<f32> = before.iter().enumerate().map(moved).collect();
                assert_eq!(twin.params.read_blocking(&tensor.name).unwrap(), expected, "{}, k = {k}", tensor.name);
            }
            let counted = cycle + 1;
            let ts = ["t0", "t2", "t3"].map(|name| twin.optimizer.t(name).unwrap());
            assert_eq!((ts, twin.optimizer.steps()), ([counted, 0, counted], counted));
        }
    }
}

#[test]
fn every_rule_takes_micro_batches() {
    let (tried, all) = share_of_cases(2);
    let Some(gpu) = gpu("micro-batches around rules", all) else { return };
    say_share("micro-batches around rules", tried.len(), all);
    for (row, case, rule) in tried {
        let config = Config::from(rule)
            .wrap(Accumulate(3))
            .wrap(Clip::GlobalNorm(20.0))
            .wrap(LossScale { init: 8.0, ..LossScale::default() })
            .wrap(Lookahead { k: 2, alpha: 0.5 })
            .wrap(Ema { decay: 0.75, debias: false });
        let mut twin = Parity::new(&gpu, &config, &mixed(), 42);
        for batch in 0..9 {
            let absent: &[&str] = if batch % 2 == 1 { &["t5"] } else { &[] };
            let worst = twin.step_without(absent);
            let (name, ulps, text) = (row.name, worst.ulps, worst.text);
            assert!(ulps <= bound(&gpu), "{name}/{case}, micro-batch {batch}: {ulps} ulp: {text}");
        }
        assert_eq!((twin.optimizer.t("t3"), twin.optimizer.steps()), (Ok(3), 3), "{}/{case}", row.name);
    }
}

#[test]
fn a_step_taken_early_is_that_of_fewer_micro_batches() {
    let Some(gpu) = gpu("steps taken early", 3) else { return };
    let wrappers = [
        json!({}),
        json!({"clip": {"global_norm": 2}, "loss_scale": {"init": 8}, "ema": {"decay": 0.5}}),
        json!({"optimizer": "lamb", "clip": {"adaptive": {"clip": 0.1}}, "norms": true}),
    ];
    for wrappers in wrappers {
        let of = |batches: u64| {
            let mut value = json!({"optimizer": "adamw", "accumulate": batches});
            value.as_object_mut().unwrap().extend(wrappers.as_object().unwrap().clone());
            config(value)
        };
        // The same seed gives the same parameters and gradients.
        let [mut four, mut three] = [4, 3].map(|batches| Parity::new(&gpu, &of(batches), &mixed(), 44));
        for cycle in 0..2 {
            for batch in 0..3 {
                let absent: &[&str] = if batch == cycle { &["t1", "t2"] } else { &["t2"] };
                four.step_without(absent);
                three.step_without(absent);
            }
            assert_eq!((four.optimizer.micro_batches(), three.optimizer.micro_batches()), (3, 0));
            four.optimizer.step_early(&four.params).unwrap();
            four.reference.step_early(&mut four.values).unwrap();
        }
        assert_eq!(four.values, three.values);
        assert_eq!((four.optimizer.t("t1"), four.optimizer.t("t2")), (Ok(2), Ok(0)));
        let words = |twin: &Parity| -> Vec<_> {
            let read = |tensor: &TensorSpec| twin.params.read_blocking(&tensor.name).unwrap();
            twin.tensors
                .iter()
                .map(read)
                .map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(words(&four), words(&three), "{wrappers}");
        let text = "step_early: no micro-batch waits for its step";
        four.refuses("no micro-batch", text, |Parity { optimizer, params, .. }| optimizer.step_early(&*params));
    }
}

#[test]
fn micro_batches_that_are_dropped_leave_nothing() {
    let Some(gpu) = gpu("micro-batches that are dropped", 2) else { return };
    for value in [
        json!({"optimizer": "adam", "accumulate": 2}),
        json!({"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "form": "velocity", "nesterov": "look_ahead",
            "accumulate": 2, "skip_nonfinite": true}),
    ] {
        let mut twin = Parity::new(&gpu, &config(value), &mixed(), 45);
        for _ in 0..5 {
            twin.step(); // ends within the third window
        }
        twin.optimizer.drop_micro_batches();
        twin.reference.drop_micro_batches();
        assert_eq!((twin.optimizer.micro_batches(), twin.optimizer.steps()), (0, 2));
        for batch in 0..4 {
            let worst = twin.step();
            assert!(worst.ulps <= bound(&gpu), "micro-batch {batch}: {}", worst.text);
        }
        assert_eq!((twin.optimizer.micro_batches(), twin.optimizer.steps(), twin.reference.steps()), (0, 4, 4));

        // An encoding of a micro-batch that was dropped can still be taken back.
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        if !twin.optimizer.needs_look_ahead() {
            let token = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
            twin.optimizer.drop_micro_batches();
            drop(encoder);
            twin.optimizer.undo(token).unwrap();
            assert_eq!(twin.optimizer.micro_batches(), 0);
        }
    }
}

#[test]
fn one_look_ahead_and_one_count_a_cycle() {
    let value = json!({
        "optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "form": "velocity", "nesterov": "look_ahead", "accumulate": 3,
        "lookahead": {"k": 2}, "ema": {"decay": 0.5}
    });
    let Some(gpu) = gpu("look-aheads of micro-batches", 1) else { return };
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 1030]), 43);
    let text = "look-ahead: a step without one before it (nesterov look_ahead)";
    twin.refuses("no look-ahead", text, |Parity { optimizer, params, grads, .. }| optimizer.step(&*params, &*grads));
    for batch in 0..12 {
        assert_eq!(twin.optimizer.needs_look_ahead(), batch % 3 == 0, "micro-batch {batch}");
        assert_eq!(twin.reference.needs_look_ahead(), batch % 3 == 0, "micro-batch {batch}");
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "micro-batch {batch}: {}", worst.text);
    }
    assert_eq!(twin.optimizer.t("t0"), Ok(4));
}

#[test]
fn a_micro_batch_that_no_step_can_use_skips_the_cycle() {
    let large = 2.0f32.powi(63);
    // What the three micro-batches hold at one place, whether that is skipped, and as what.
    let cases = [
        ([f32::NAN, 1.0, 1.0], Some(NonFinite::NaN)),
        ([1.0, f32::INFINITY, 1.0], Some(NonFinite::Infinite)),
        ([1.0, f32::INFINITY, f32::NEG_INFINITY], Some(NonFinite::NaN)),
        ([1.0, large, -large], Some(NonFinite::Infinite)),
        ([large, -large, 0.0], Some(NonFinite::Infinite)),
        ([large, 0.0, -large], Some(NonFinite::Infinite)),
        ([0.75 * large, 0.75 * large, 0.75 * large], None),
        ([0.75 * large, -0.75 * large, 1.0], None),
        ([1.0, 2.0, 3.0], None),
    ];
    let Some(gpu) = gpu("bad micro-batches", 4 * cases.len()) else { return };
    for scale in [None, Some(8.0)] {
        for nesterov in ["off", "look_ahead"] {
            let mut value = json!({
                "optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "form": "velocity", "nesterov": nesterov,
                "accumulate": 3, "skip_nonfinite": true, "ema": {}
            });
            if let Some(scale) = scale {
                value["loss_scale"] = json!({"init": scale, "interval": 2});
            }
            let mut twin = Parity::new(&gpu, &config(value), &tensors(&[5, 1030]), 44);
            for _ in 0..3 {
                twin.step();
            }
            for (bad, kind) in &cases {
                let before = twin.snapshot();
                let bits = |twin: &Parity| ["t0", "t1"].map(|name| twin.params.read_blocking(name).unwrap().map_bits());
                let (start, t) = (bits(&twin), twin.reference.t("t1").unwrap());
                let scale = twin.reference.loss_scale().scale as f32;
                if twin.optimizer.needs_look_ahead() {
                    twin.optimizer.look_ahead(&twin.params).unwrap();
                    twin.reference.look_ahead(&mut twin.values).unwrap();
                }
                for &bad in bad {
                    let mut grads: Vec<_> = [5, 1030].map(|len| noise(&mut twin.rng, len)).into();
                    grads[1][1027] = bad * scale;
                    twin.give(grads, &[]);
                }
                twin.optimizer.settle_blocking().unwrap();
                let what = format!("{bad:?}, {nesterov}, scale {scale}");
                let worst = twin.compare(&before);
                assert!(worst.ulps <= bound(&gpu), "{what}: {} ulp: {}", worst.ulps, worst.text);
                let report = twin.optimizer.reports().unwrap().pop().expect("it has run");
                let culprit = kind.map(|kind| ("t1".to_string(), kind));
                // As text, for NaN equals nothing.
                let expected_report = twin.reference.report().expect("it was taken");
                assert_eq!(format!("{report:?}"), format!("{expected_report:?}"), "{what}");
                assert_eq!((report.applied, &report.culprit), (culprit.is_none(), &culprit), "{what}");
                assert_eq!(
                    bits(&twin) == start,
                    culprit.is_some(),
                    "{what}: parameters are as they were where skipped"
                );
                let counted = t + u64::from(culprit.is_none());
                assert_eq!((twin.optimizer.t("t1"), twin.reference.t("t1")), (Ok(counted), Ok(counted)), "{what}");
            }
        }
    }
}

trait MapBits {
    fn map_bits(self) -> Vec<u32>;
}

impl MapBits for Vec<f32> {
    fn map_bits(self) -> Vec<u32> {
        self.into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn tiny_limits_change_no_bit_of_a_sum() {
    let Some(gpu) = gpu("micro-batches on tiny limits", 2) else { return };
    let (device, queue) = device(&gpu, |limits| {
        limits.max_storage_buffer_binding_size = 64 << 10;
        limits.max_buffer_size = 256 << 10;
        limits.max_compute_workgroups_per_dimension = 7;
        limits.min_storage_buffer_offset_alignment = 256;
    });
    let tiny = Gpu::new(&device, &queue);
    let list: Vec<_> = mixed().into_iter().chain([TensorSpec::f32("large", [20_000])]).collect();
    for optimizer in ["adamw", "novograd"] {
        let value = json!({"optimizer": optimizer, "accumulate": 2, "clip": {"global_norm": 10}, "ema": {}});
        let outcome = |gpu: &Gpu| {
            let mut twin = Parity::new(gpu, &config(value.clone()), &list, 45);
            for _ in 0..4 {
                let worst = twin.step();
                assert!(worst.ulps <= bound(gpu), "{optimizer}: {}", worst.text);
            }
            let report = twin.optimizer.plan(&twin.params, &twin.grads).unwrap();
            let all = list.iter().map(|tensor| twin.params.read_blocking(&tensor.name).unwrap().map_bits());
            (all.collect::<Vec<_>>(), report.dispatches)
        };
        let ((whole, few), (tiled, many)) = (outcome(&gpu), outcome(&tiny));
        assert!(many > 2 * few, "{few} and {many} dispatches");
        assert!(whole == tiled, "{optimizer}");
    }
}

#[test]
fn a_forgotten_micro_batch_leaves_no_trace() {
    let Some(gpu) = gpu("forgotten micro-batches", 6) else { return };
    let value = json!({"optimizer": "adam", "lr": 0.1, "accumulate": 3, "skip_nonfinite": true});
    for forgotten in 0..6 {
        let mut twin = Parity::new(&gpu, &config(value.clone()), &tensors(&[700, 3]), 46);
        for batch in 0..6 {
            if batch == forgotten {
                // Other gradients, and one tensor less than the micro-batch that is taken.
                twin.grads.write("t0", &[9.0; 700]).unwrap();
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                let part = twin.grads.without(&["t1"]).unwrap();
                let first = twin.optimizer.encode(&mut encoder, &twin.params, &part).unwrap();
                let second = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
                drop(part);
                drop(encoder);
                twin.optimizer.undo(second).unwrap();
                twin.optimizer.undo(first).unwrap();
            }
            let worst = twin.step();
            assert!(worst.ulps <= bound(&gpu), "{forgotten} forgotten, micro-batch {batch}: {}", worst.text);
        }
        assert_eq!((twin.optimizer.t("t0"), twin.optimizer.t("t1"), twin.optimizer.steps()), (Ok(2), Ok(2), 2));
    }
}

#[test]
fn between_micro_batches_nothing_that_would_part_them_is_taken() {
    let value = json!({
        "optimizer": "sgd", "momentum": 0.5, "form": "velocity", "nesterov": "look_ahead", "accumulate": 3,
        "loss_scale": {}, "ema": {}
    });
    let Some(gpu) = gpu("refusals between micro-batches", 8) else { return };
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[3, 5]), 47);
    twin.step();
    let rest = "1 of 3 micro-batches are taken; take the rest first";
    let looked = "a look-ahead waits for its step; take the step first";
    let scale = LossScaleState { scale: 4.0, good: 0 };
    twin.refuses("look-ahead", &format!("look-ahead: {rest}"), |t| t.optimizer.look_ahead(&t.params));
    twin.refuses("set_loss_scale", &format!("set_loss_scale: {rest}"), |t| t.optimizer.set_loss_scale(scale));
    twin.refuses("swap", &format!("swap: {rest}"), |t| t.optimizer.swap_ema(&t.params));
    twin.refuses("freeze", &format!("freeze: {looked}"), |t| t.optimizer.freeze("t0"));
    let look_ahead = |reference: &mut wgpu_optim::Reference<f32>| reference.look_ahead(&mut twin.values.clone());
    assert_eq!(look_ahead(&mut twin.reference).unwrap_err().to_string(), format!("look-ahead: {rest}"));
    assert_eq!(twin.reference.set_loss_scale(scale).unwrap_err().to_string(), format!("set_loss_scale: {rest}"));
    for _ in 0..2 {
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    twin.optimizer.set_loss_scale(scale).unwrap();

    let value = json!({"optimizer": "schedule_free", "accumulate": 3, "ema": {}});
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[3, 5]), 47);
    twin.step();
    twin.refuses("freeze", &format!("freeze: {rest}"), |t| t.optimizer.freeze("t0"));
    twin.refuses("unfreeze", &format!("unfreeze: {rest}"), |t| t.optimizer.unfreeze("t0"));
    twin.refuses("evaluation", &format!("evaluation: {rest}"), |t| t.optimizer.eval(&t.params));
    assert_eq!(twin.reference.freeze("t0").unwrap_err().to_string(), format!("freeze: {rest}"));
    let mut values = twin.values.clone();
    assert_eq!(twin.reference.eval(&mut values).unwrap_err().to_string(), format!("evaluation: {rest}"));
    assert_eq!(twin.reference.swap_ema(&mut values).unwrap_err().to_string(), format!("swap: {rest}"));
    for _ in 0..2 {
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    twin.evaluate();
}

/// Reads a whole buffer as f32.
fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Vec<f32> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let size = buffer.size();
    let staging =
        gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
    gpu.queue().submit([encoder.finish()]);
    staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    bytemuck::pod_collect_to_vec(&staging.slice(..).get_mapped_range().unwrap())
}

fn buffer_of(gpu: &Gpu, words: &[f32], usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let size = 4 * words.len() as u64;
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: true };
    let buffer = gpu.device().create_buffer(&descriptor);
    buffer.slice(..).get_mapped_range_mut().unwrap().copy_from_slice(bytemuck::cast_slice(words));
    buffer.unmap();
    buffer
}

#[test]
fn gradients_are_left_in_place_or_cleared() {
    use wgpu::BufferUsages as Usage;
    let Some(gpu) = gpu("cleared gradients", 6) else { return };
    let list = tensors(&[700, 3, 5]);
    for (value, bad) in [
        (json!({"optimizer": "adam"}), 1.0),
        (json!({"optimizer": "adam", "accumulate": 2}), 1.0),
        (json!({"optimizer": "adam", "skip_nonfinite": true}), f32::NAN),
    ] {
        let mut optimizer = Optimizer::new(&gpu, &list, config(value.clone())).unwrap();
        let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &list).unwrap());
        let fill = || list.iter().for_each(|t| grads.write(&t.name, &vec![bad; t.len_elements() as usize]).unwrap());
        let left = |grads: &Arena| {
            list.iter().map(|t| grads.read_blocking(&t.name).unwrap().iter().all(|g| *g != 0.0)).collect::<Vec<_>>()
        };
        let none = |grads: &Arena| list.iter().all(|t| grads.read_blocking(&t.name).unwrap().iter().all(|g| *g == 0.0));
        fill();
        optimizer.step(&params, &grads).unwrap();
        assert_eq!(left(&grads), [true; 3], "{value}: left as they are");
        optimizer.clear_grads(true);
        optimizer.step(&params, &grads).unwrap();
        assert!(none(&grads), "{value}: cleared, also in a step that is skipped");
        fill();
        optimizer.step(&params, &grads.without(&["t1"]).unwrap()).unwrap();
        assert_eq!(left(&grads), [false, true, false], "{value}: what was not given is left");
        fill();
        if value.get("accumulate").is_none() {
            optimizer.freeze("t0").unwrap();
        }
        optimizer.step(&params, &grads).unwrap();
        assert!(none(&grads), "{value}: what was given is cleared, frozen or not");
        optimizer.clear_grads(false);
        fill();
        optimizer.step(&params, &grads).unwrap();
        assert_eq!(left(&grads), [true; 3], "{value}: left again");
    }

    // Slices with canaries around them, at words where the scalar kernel reads.
    let grads = buffer_of(&gpu, &[7.0; 720], Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST);
    let params = Arena::new(&gpu, &list).unwrap();
    let slices = [Slice::new(&grads, 4, 2800), Slice::new(&grads, 2808, 12), Slice::new(&grads, 2828, 20)];
    let mut optimizer = Optimizer::new(&gpu, &list, config(json!({"optimizer": "sgd", "lr": 1}))).unwrap();
    optimizer.clear_grads(true);
    optimizer.step(&params, &slices).unwrap();
    let found = read(&gpu, &grads);
    let is_given = |i: usize| (1..701).contains(&i) || (702..705).contains(&i) || (707..712).contains(&i);
    assert!((0..720).all(|i| found[i] == if is_given(i) { 0.0 } else { 7.0 }), "{found:?}");
    assert_eq!(params.read_blocking("t1").unwrap(), [-7.0; 3], "they were read before");

    // A buffer that cannot be cleared is refused by name before anything happens.
    let fixed = buffer_of(&gpu, &[7.0; 4], Usage::STORAGE | Usage::COPY_SRC);
    let slices = [Slice::new(&grads, 0, 2800), Slice::new(&fixed, 0, 12), Slice::new(&grads, 2848, 20)];
    let error = optimizer.step(&params, &slices).unwrap_err().to_string();
    let usage = Usage::STORAGE | Usage::COPY_SRC;
    assert_eq!(error, format!("gradient of tensor t1: buffer usage is {usage:?}, must contain COPY_DST | STORAGE"));
    assert_eq!((params.read_blocking("t1").unwrap(), optimizer.t("t0")), (vec![-7.0; 3], Ok(1)));
    optimizer.clear_grads(false);
    optimizer.step(&params, &slices).unwrap();
    assert_eq!(params.read_blocking("t1").unwrap(), [-14.0; 3]);
}

#[test]
fn micro_batches_may_lie_in_other_buffers_each_time() {
    let Some(gpu) = gpu("micro-batches as slices", 1) else { return };
    let list = [TensorSpec::f32("a", [1030]), TensorSpec::f32("b", [5])];
    let mut rng = StdRng::seed_from_u64(48);
    let batches = [(); 3].map(|()| [noise(&mut rng, 1030), noise(&mut rng, 5)]);
    let mut optimizer =
        Optimizer::new(&gpu, &list, Config::from(Sgd { lr: 1.0, ..Sgd::default() }).wrap(Accumulate(3))).unwrap();
    let params = Arena::new(&gpu, &list).unwrap();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for (i, [a, b]) in batches.iter().enumerate() {
        // All three in one encoder; b has no gradient in the second, and each lies elsewhere.
        let words: Vec<f32> =
            [&vec![f32::NAN; i + 1], a, &vec![f32::NAN; 5 - i], b].into_iter().flatten().copied().collect();
        let buffer = buffer_of(&gpu, &words, wgpu::BufferUsages::STORAGE);
        let of_b = Slice::new(&buffer, 4 * 1036, 20);
        let slices = vec![Some(Slice::new(&buffer, 4 * (i as u64 + 1), 4120)), (i != 1).then_some(of_b)];
        optimizer.encode(&mut encoder, &params, Buffers::Slices(slices)).unwrap();
    }
    gpu.queue().submit([encoder.finish()]);
    let [first, second, third] = &batches;
    let expected: Vec<f32> = (0..1030).map(|i| -((first[0][i] + second[0][i] + third[0][i]) / 3.0)).collect();
    assert_eq!(params.read_blocking("a").unwrap(), expected);
    let expected: Vec<f32> = (0..5).map(|i| -((first[1][i] + third[1][i]) / 3.0)).collect();
    assert_eq!(params.read_blocking("b").unwrap(), expected);
}

#[test]
fn lists_of_another_length_are_refused_with_any_micro_batch() {
    let Some(gpu) = gpu("lists of micro-batches", 1) else { return };
    let tensors = tensors(&[5, 2]);
    let config = Config::from_value(serde_json::json!({"optimizer": "adam", "accumulate": 2})).unwrap();
    let mut twin = Parity::new(&gpu, &config, &tensors, 3);
    let slice = twin.grads.slice("t0").unwrap();
    let text = "gradients are 3, expected 2: one a tensor, in the order given at creation";
    let error = twin.optimizer.step(&twin.params, &[None, None, Some(slice)]).unwrap_err();
    assert_eq!(error.to_string(), text);
    let text = "parameters are 0, expected 2: one a tensor, in the order given at creation";
    let none: [wgpu_optim::Slice; 0] = [];
    assert_eq!(twin.optimizer.step(&none, &twin.grads).unwrap_err().to_string(), text);
}
