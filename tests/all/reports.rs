//! The device tells of steps by reports, norms and its loss scale, and no step waits for them.

use crate::common::twin::{Parity, all_tensors, bound, noise, tensors};
use crate::common::{create, default_of, gpu, read};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wgpu_optim::rules::ALL;
use wgpu_optim::wgpu;
use wgpu_optim::{Arena, Config, Gpu, LossScale, Optimizer, Slice, TensorSpec};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// What reports without the device's word, with norms, and with skipping and all that follows it.
fn configs() -> [Config; 3] {
    [
        json!({"optimizer": "adamw", "lr": 0.01}),
        json!({"optimizer": "adamw", "lr": 0.01, "clip": {"global_norm": 1}}),
        json!({"optimizer": "adamw", "lr": 0.01, "loss_scale": {"init": 4, "interval": 7}, "ema": {}, "lookahead": {},
            "schedule": {"inverse_time": {"decay": 0.01}}}),
    ]
    .map(config)
}

/// Makes two arenas of gradients: one is good, and in the other each tensor starts with NaN.
fn good_and_bad(gpu: &Gpu, list: &[TensorSpec]) -> [Arena; 2] {
    let mut rng = StdRng::seed_from_u64(51);
    [false, true].map(|bad| {
        let arena = Arena::new(gpu, list).unwrap();
        for tensor in list {
            let mut values = noise(&mut rng, tensor.len_elements() as usize);
            values[0] = if bad { f32::NAN } else { 0.5 };
            arena.write(&tensor.name, &values).unwrap();
        }
        arena
    })
}

#[test]
fn reports_come_with_later_submits_and_nothing_polls_for_them() {
    const STEPS: usize = 1000;
    let Some(gpu) = gpu("reports of a thousand steps", 3) else { return };
    for (config, name) in configs().into_iter().zip(["host", "norms", "skips"]) {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 130]), 52);
        let batches = good_and_bad(&gpu, &twin.tensors);
        twin.optimizer.warm_up(&twin.params, &batches[0]).unwrap();
        let polls = gpu.counts().polls;
        let mut reports = Vec::new();
        let bad = |i: usize| name == "skips" && i % 3 == 1;
        for i in 0..STEPS {
            twin.optimizer.step(&twin.params, &batches[usize::from(bad(i))]).unwrap();
            reports.extend(twin.optimizer.reports().unwrap());
        }
        assert_eq!(gpu.counts().polls, polls, "{name}: steps and reports poll");
        assert!(!reports.is_empty(), "{name}: no report came with a later submit");
        let known = reports.len();
        match name {
            "host" => twin.optimizer.settle_blocking().unwrap(),
            _ => pollster::block_on(twin.optimizer.settle()).unwrap(),
        }
        assert!(gpu.counts().polls > polls, "{name}: settling polls, and is counted");
        reports.extend(twin.optimizer.reports().unwrap());
        assert!(twin.optimizer.reports().unwrap().is_empty(), "{name}: each once");
        assert_eq!(reports.len(), STEPS, "{name}: {known} came early");
        for (i, report) in reports.iter().enumerate() {
            assert_eq!((report.step, report.applied), (i as u64 + 1, !bad(i)), "{name}");
            assert_eq!(report.norm.is_some(), name != "host");
            assert_eq!(report.culprit.is_some(), bad(i));
        }
        let applied = (0..STEPS).filter(|&i| !bad(i)).count() as u64;
        assert_eq!((twin.optimizer.t("t0"), twin.optimizer.steps()), (Ok(applied), applied), "{name}");
    }
}

/// Lines of the library that poll, without `Gpu::poll`'s callers and polls of futures.
fn polls(text: &str) -> usize {
    let known = ["self.poll(wgpu::PollType", ".poll(context)", ".poll(&mut context)", "fn poll("];
    text.lines().filter(|line| line.contains("poll(") && !known.iter().any(|known| line.contains(known))).count()
}

#[test]
fn the_library_polls_in_one_place_which_counts() {
    fn texts(folder: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        // The harness of proofs reads back as a caller does.
        let entries = entries.filter(|path| !path.ends_with("proof.rs"));
        entries
            .flat_map(|path| if path.is_dir() { texts(&path) } else { vec![std::fs::read_to_string(path).unwrap()] })
            .collect()
    }
    let all = texts(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert_eq!(all.iter().map(|text| polls(text)).sum::<usize>(), 1);
    assert_eq!(polls("    gpu.device().poll(wgpu::PollType::Poll)\n"), 1);
}

#[test]
fn nothing_is_made_after_the_second_step() {
    let Some(gpu) = gpu("second steps decided on the device", 3) else { return };
    for config in configs() {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 3000]), 53);
        let batches = good_and_bad(&gpu, &twin.tensors);
        let mut made = Vec::new();
        for i in 0..40 {
            twin.optimizer.step(&twin.params, &batches[usize::from(i % 5 == 1)]).unwrap();
            gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
            assert_eq!(twin.optimizer.reports().unwrap().len(), 1);
            made.push((gpu.counts(), twin.optimizer.memory()));
        }
        assert!(made[1..].iter().all(|now| *now == made[1]), "{made:?}");
    }
}

#[test]
fn a_report_names_what_had_no_gradient_and_the_last_thousand_are_kept() {
    let Some(gpu) = gpu("reports that nobody takes", 3) else { return };
    for config in configs() {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5, 3, 2]), 54);
        twin.step_without(&["t1"]);
        twin.optimizer.freeze("t0").unwrap();
        twin.reference.freeze("t0").unwrap();
        twin.step_without(&["t2"]);
        twin.optimizer.settle_blocking().unwrap();
        let reports = twin.optimizer.reports().unwrap();
        assert_eq!(
            reports.iter().map(|report| &report.without_gradient[..]).collect::<Vec<_>>(),
            [&["t1".to_string()][..], &["t0".to_string(), "t2".to_string()]]
        );
        for _ in 0..20 {
            for _ in 0..100 {
                twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            }
            twin.optimizer.settle_blocking().unwrap();
        }
        let steps: Vec<_> = twin.optimizer.reports().unwrap().iter().map(|report| report.step).collect();
        assert_eq!(steps, (2002 - 1023..=2002).collect::<Vec<_>>());
    }
}

#[test]
fn norms_are_those_of_the_reference_in_every_form() {
    let Some(gpu) = gpu("norms", 3) else { return };
    for value in [
        json!({"optimizer": "sgd", "norms": true}),
        json!({"optimizer": "novograd", "norms": true}),
        json!({"optimizer": "sgd", "loss_scale": {"init": 1024}}),
    ] {
        let mut twin = Parity::new(&gpu, &config(value), &all_tensors(), 55);
        for absent in [&[][..], &["t9", "m5"], &[]] {
            let worst = twin.step_without(absent);
            assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
            let found = twin.optimizer.norms_blocking().unwrap();
            let close = |a: f64, b: f64| a == b || (bound(&gpu) > 0.0 && (a / b - 1.0).abs() < 1e-6);
            let expected = twin.reference.report().unwrap().norm.unwrap();
            assert!(close(found.all, expected), "{} for {expected}", found.all);
            let on_device = read(&gpu, twin.optimizer.norms_buffer().unwrap());
            assert_eq!((found.tensors.len(), on_device.len()), (twin.tensors.len(), twin.tensors.len() + 1));
            // What is summed in f64, from the numbers themselves.
            let scale = 1.0 / twin.reference.loss_scale().scale;
            let grads = twin.history.last().unwrap();
            let mut square = 0.0;
            for (i, tensor) in twin.tensors.iter().enumerate() {
                let expected = twin.reference.norm(&tensor.name).unwrap();
                assert!(close(found.tensors[i], expected), "{}: {} for {expected}", tensor.name, found.tensors[i]);
                let given = !absent.contains(&&tensor.name[..]);
                let sum: f64 = grads[i].iter().filter(|_| given).map(|&g| (f64::from(g) * scale).powi(2)).sum();
                square += sum;
                // Measured: at most 6.1e-8 of the norm, and 5.2e-8 where the device took the root.
                assert!((expected - sum.sqrt()).abs() <= 1e-6 * sum.sqrt(), "{}: {expected}", tensor.name);
                let on_device = f64::from(on_device[i + 1]);
                assert!((on_device - expected).abs() <= 3e-7 * expected, "{}: {on_device}", tensor.name);
            }
            assert!((found.all - square.sqrt()).abs() <= 1e-6 * square.sqrt());
            assert!((f64::from(on_device[0]) - found.all).abs() <= 3e-7 * found.all);
        }
        let found = pollster::block_on(twin.optimizer.norms()).unwrap();
        assert_eq!(found, twin.optimizer.norms_blocking().unwrap());
    }
    let mut twin = Parity::new(&gpu, &configs()[0], &tensors(&[5]), 55);
    let text = "configuration: norms: are not measured; set norms to true";
    twin.refuses(text, text, |twin| twin.optimizer.norms_blocking());
    twin.refuses(text, text, |twin| twin.optimizer.norms_buffer().map(|_| ()));
}

#[test]
fn norms_of_the_largest_and_of_tiny_numbers_do_not_overflow_or_vanish() {
    const LEN: usize = 1 << 22;
    let Some(gpu) = gpu("norms of 4 M of the largest numbers", 1) else { return };
    let list = [TensorSpec::f32("most", [LEN]), TensorSpec::f32("few", [3]), TensorSpec::f32("tiny", [LEN / 4])];
    let mut optimizer =
        Optimizer::new(&gpu, &list, config(json!({"optimizer": "sgd", "lr": 0, "norms": true}))).unwrap();
    let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &list).unwrap());
    let tiny = 2.0f32.powi(-77);
    grads.write("most", &vec![f32::MAX; LEN]).unwrap();
    grads.write("few", &[3e38, -3e38, 1e-3]).unwrap();
    grads.write("tiny", &vec![tiny; LEN / 4]).unwrap();
    optimizer.step(&params, &grads).unwrap();
    let norms = optimizer.norms_blocking().unwrap();
    let most = f64::from(f32::MAX) * 2048.0;
    let expected = [most, 2.0f64.sqrt() * f64::from(3e38f32), f64::from(tiny) * 1024.0];
    let all = expected.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
    for (found, expected) in norms.tensors.iter().zip(expected).chain([(&norms.all, all)]) {
        // Sums of equal numbers are exact; what remains is the square's one rounding.
        assert!((found / expected - 1.0).abs() < 2e-7, "{found:e}, expected {expected:e}");
    }
    let on_device = read(&gpu, optimizer.norms_buffer().unwrap());
    assert_eq!(on_device[..3], [f32::INFINITY; 3], "beyond f32's largest number");
    assert!((f64::from(on_device[3]) / expected[2] - 1.0).abs() < 3e-7);
    optimizer.settle_blocking().unwrap();
    let reports = optimizer.reports().unwrap();
    assert_eq!((reports[0].norm, reports[0].applied), (Some(norms.all), true));
}

/// Multiplies gradients by the scale, as a backward pass does of a scaled loss in a format that ends at 65504.
const BACKWARD: &str = "
@group(0) @binding(0) var<storage, read> scale: array<f32>;
@group(0) @binding(1) var<storage, read> grads: array<f32>;
@group(0) @binding(2) var<storage, read_write> scaled: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&grads)) {
        return;
    }
    let g = grads[id.x] * scale[0];
    scaled[id.x] = select(bitcast<u32>(g), 0x7f800000u, abs(g) > 65504.0);
}
";

#[test]
fn a_backward_pass_binds_the_scale_and_no_host_hears_of_skips() {
    let Some(gpu) = gpu("backward passes that bind the scale", ALL.len()) else { return };
    const STEPS: usize = 24;
    let device = gpu.device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(BACKWARD.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let list = [TensorSpec::f32("w", [130])];
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let mut rng = StdRng::seed_from_u64(56);
    // Rules of matrices take no vector.
    for row in ALL.iter().filter(|row| !default_of(row).has_products()) {
        // Both grow again, until the largest gradient does not bear it.
        let scale = LossScale { init: LossScale::MAX, growth: 2.0, backoff: 0.5, interval: 3 };
        let mut scaled = Optimizer::new(&gpu, &list, Config::from(default_of(row)).wrap(scale)).unwrap();
        let mut plain = Optimizer::new(&gpu, &list, Config::from(default_of(row))).unwrap();
        let params = [(); 2].map(|()| Arena::new(&gpu, &list).unwrap());
        let start = noise(&mut rng, 130);
        params.iter().for_each(|params| params.write("w", &start).unwrap());
        let (grads, output) = (Arena::new(&gpu, &list).unwrap(), create(&gpu, 520, usage));
        let mut values = noise(&mut rng, 130);
        values[7] = 0.75; // The largest: scales from 2^17 on overflow.
        values.iter_mut().for_each(|value| *value = value.clamp(-0.75, 0.75));
        grads.write("w", &values).unwrap();
        let (of_scale, of_grads) = (scaled.loss_scale_buffer().unwrap(), grads.slice("w").unwrap());
        let bound = [of_scale, of_grads, Slice::new(&output, 0, 520)].map(|Slice { buffer, offset, size }| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(size) })
        });
        let entry = |(binding, resource)| wgpu::BindGroupEntry { binding, resource };
        let entries: Vec<_> = (0..3).zip(bound).map(entry).collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group =
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        let polls = gpu.counts().polls;
        let given = [Slice::new(&output, 0, 520)];
        let mut encoder = device.create_command_encoder(&Default::default());
        for _ in 0..STEPS {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(3, 1, 1);
            drop(pass);
            if scaled.needs_look_ahead() {
                scaled.encode_look_ahead(&mut encoder, &params[0]).unwrap();
            }
            scaled.encode(&mut encoder, &params[0], &given).unwrap();
        }
        gpu.queue().submit([encoder.finish()]);
        assert_eq!(gpu.counts().polls, polls);
        scaled.settle_blocking().unwrap();
        let reports = scaled.reports().unwrap();
        let scales: Vec<_> = reports.iter().map(|report| report.scale.log2()).collect();
        let expected: Vec<f64> =
            (0..8).map(|i| f64::from(24 - i)).chain((0..).flat_map(|_| [16.0, 16.0, 16.0, 17.0])).take(STEPS).collect();
        assert_eq!(scales, expected, "{}", row.name);
        let applied = reports.iter().filter(|report| report.applied).count();
        assert_eq!((applied, scaled.t("w")), (12, Ok(12)), "{}", row.name);
        for _ in 0..applied {
            if plain.needs_look_ahead() {
                plain.look_ahead(&params[1]).unwrap();
            }
            plain.step(&params[1], &grads).unwrap();
        }
        let [found, expected] = params.map(|params| params.read_blocking("w").unwrap());
        assert_ne!(found, start, "{}", row.name);
        assert_eq!(found, expected, "{}: scaled by powers of two and back", row.name);
    }
}

#[test]
fn a_report_that_waits_for_the_device_says_nothing_yet() {
    let Some(gpu) = gpu("reports of work that is not submitted", 2) else { return };
    for config in configs() {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[5]), 57);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(twin.optimizer.reports().unwrap(), []);
        twin.grads.write("t0", &[1.0; 5]).unwrap();
        gpu.queue().submit([encoder.finish()]);
        twin.optimizer.settle_blocking().unwrap();
        assert_eq!(twin.optimizer.reports().unwrap().len(), 1);
    }
}
