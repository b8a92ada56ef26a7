//! Initialisers: the GPU has the CPU's bits, values follow their distributions, orthogonal tensors are orthogonal, and
//! no other byte changes.

use crate::common::{create, device, gpu, read};
use crate::languages::{parse, write_all};
use naga::ShaderStage;
use naga::back::pipeline_constants::process_overrides;
use serde_json::json;
use wgpu_optim::init::{FILL, ORTHOGONAL, pack, philox, stream};
use wgpu_optim::proof::check;
use wgpu_optim::wgpu::{self, BufferUsages};
use wgpu_optim::{Arena, DType, Fan, Fans, Gpu, Init, Slice, TensorSpec, Tuning, WeightLayout};

/// Every initialiser whose values have the same bits everywhere.
fn drawn() -> Vec<Init> {
    [
        json!("zeros"),
        json!({"constant": -0.1}),
        json!({"constant": 1e-40}),
        json!({"uniform": {"low": 0, "high": 1}}),
        json!({"uniform": {"low": -0.3, "high": 0.7}}),
        json!({"uniform": {"low": 1e-20, "high": 1e20}}),
        json!({"uniform": {"low": 1, "high": 1.0000002}}),
        json!({"normal": {"std": 1}}),
        json!({"normal": {"mean": 0.1, "std": 0.02}}),
        json!({"truncated_normal": {"std": 0.02}}),
        json!({"truncated_normal": {"mean": -3, "std": 1, "low": 0.5, "high": 40}}),
        json!("glorot_uniform"),
        json!({"glorot_normal": {"gain": 1.7}}),
        json!({"he_uniform": {"layout": "in_out"}}),
        json!({"he_normal": {"mode": "fan_out"}}),
        json!("lecun_normal"),
    ]
    .map(|json| Init::from_value(json).unwrap())
    .into()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A device that binds 64 KiB and runs 49 workgroups in a dispatch.
fn tiny(gpu: &Gpu) -> Gpu {
    let (device, queue) = device(gpu, |limits| {
        limits.max_storage_buffer_binding_size = 64 << 10;
        limits.max_compute_workgroups_per_dimension = 7;
    });
    Gpu::new(&device, &queue)
}

/// The values that the GPU gives a tensor in an arena between two others.
fn on(gpu: &Gpu, tensor: &TensorSpec, init: &Init, seed: u64) -> Vec<f32> {
    let around = ["before", "behind"].map(|name| TensorSpec::f32(name, [3]));
    let arena = Arena::new(gpu, &[around[0].clone(), tensor.clone(), around[1].clone()]).unwrap();
    arena.init(&tensor.name, init, seed).unwrap();
    for TensorSpec { name, .. } in &around {
        assert_eq!(arena.read_blocking(name).unwrap(), [0.0; 3], "{name} has changed");
    }
    arena.read_blocking(&tensor.name).unwrap()
}

#[test]
fn philox_gives_the_published_numbers() {
    // These are the known answers of Random123, examples/kat_vectors: philox4x32 10.
    let rows = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for ([a, b, c, d], key, expected) in rows {
        assert_eq!(philox([[a, b], [c, d]], key), expected);
    }
    // These are FNV-1a's published values.
    assert_eq!(
        [stream(""), stream("a"), stream("foobar")],
        [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]
    );
}

#[test]
fn the_gpu_has_the_cpus_bits() {
    let inits = drawn();
    let shapes: [&[usize]; 8] = [&[1, 1], &[3, 1], &[5, 1], &[0, 4], &[2, 2, 1], &[1023, 1], &[33, 31, 3], &[300, 401]];
    let Some(gpu) = gpu("initialisers' bits", inits.len() * shapes.len()) else { return };
    let tiny = tiny(&gpu);
    for init in &inits {
        for (i, shape) in shapes.iter().enumerate() {
            let tensor = TensorSpec::f32(format!("layer{i}"), *shape);
            let seed = 0x1234_5678_9abc_def0 + i as u64;
            let expected = bits(&init.fill(&tensor, seed).unwrap());
            assert_eq!(expected.len() as u64, tensor.len_elements());
            for gpu in [&gpu, &tiny] {
                assert!(bits(&on(gpu, &tensor, init, seed)) == expected, "{init:?}, {shape:?}");
            }
        }
    }
}

#[test]
fn the_ends_of_the_table_are_reached() {
    let Some(gpu) = gpu("ends of the table", 4) else { return };
    // Seeds with which an element has the bits 0, 0xffffffff, 0x80000000 and 0x7fffffff; values in 2^-28.
    for (seed, element, expected) in
        [(367_257_344, 0, -1_701_332_608), (533_660_349, 3, 1_701_332_608), (673_258_251, 0, 1), (2_314_899_881, 1, -1)]
    {
        let (tensor, normal) = (TensorSpec::f32("w", [4]), Init::Normal { mean: 0.0, std: 1.0 });
        let expected = expected as f32 / (1 << 28) as f32;
        assert_eq!(normal.fill(&tensor, seed).unwrap()[element], expected);
        assert_eq!(on(&gpu, &tensor, &normal, seed)[element], expected);
    }
}

#[test]
fn cuts_change_no_bit() {
    let Some(gpu) = gpu("cuts of initialisers", 6) else { return };
    let (device, queue) = device(&gpu, |_| {});
    let normal = Init::Normal { mean: 0.5, std: 2.0 };
    // With one lane the first has more than 65535 workgroups.
    for (lanes, len) in [(1, 300_001), (7, 10_001), (100, 10_001), (256, 10_001)] {
        let tuning = Tuning { lanes, chunk_blocks: 1, shader_checks: false, ..gpu.tuning() };
        let other = Gpu::with_tuning(&device, &queue, tuning).unwrap();
        let tensor = TensorSpec::f32("w", [len]);
        assert!(bits(&on(&other, &tensor, &normal, 3)) == bits(&normal.fill(&tensor, 3).unwrap()), "{tuning:?}");
        let square = TensorSpec::f32("w", [40, 70]);
        let orthogonal = Init::Orthogonal { gain: 1.0 };
        assert!(bits(&on(&other, &square, &orthogonal, 3)) == bits(&on(&gpu, &square, &orthogonal, 3)), "{tuning:?}");
    }
}

/// In 16 bits the values are those in f32, rounded to the nearest, whatever the cuts, and no byte beside them changes.
#[test]
fn tensors_of_16_bits_hold_the_rounded_values() {
    const CANARY: u8 = 0xa5;
    let inits = [Init::Normal { mean: 0.0, std: 1.0 }, Init::Constant(0.1), Init::Orthogonal { gain: 2.0 }];
    let shapes = [[1, 1], [1, 2], [1, 3], [5, 1], [0, 7], [131, 141], [160, 121]];
    let Some(gpu) = gpu("initialisers of 16 bits", 4 * inits.len() * shapes.len()) else { return };
    let tiny = tiny(&gpu);
    for (gpu, dtype) in [&gpu, &tiny].into_iter().flat_map(|gpu| [(gpu, DType::F16), (gpu, DType::Bf16)]) {
        for (init, shape) in inits.iter().flat_map(|init| shapes.map(|shape| (init, shape))) {
            let tensor = TensorSpec::f32("w", shape);
            let values = on(gpu, &tensor, init, 5);
            let narrow = tensor.with_dtype(dtype);
            assert!(
                bits(&on(gpu, &narrow, init, 5)) == bits(&dtype.decode(&dtype.encode(&values))),
                "{init:?} {shape:?}"
            );
            let (first, size) = (12, narrow.size_bytes());
            let mut expected = vec![CANARY; (first + size + 4).next_multiple_of(4) as usize];
            let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
            let buffer = create(gpu, expected.len() as u64, usage);
            gpu.queue().write_buffer(&buffer, 0, &expected);
            gpu.init(&narrow, Slice::new(&buffer, first, size), init, 5).unwrap();
            expected[first as usize..][..size as usize].copy_from_slice(&dtype.encode(&values));
            let found: Vec<u8> = bytemuck::pod_collect_to_vec(&read(gpu, Slice::all(&buffer)));
            assert!(found == expected, "{init:?}, {shape:?} in {dtype}");
        }
    }
}

#[test]
fn a_slice_is_filled_and_its_neighbours_live() {
    const CANARY: u32 = 0xdead_beef;
    let inits = [Init::Normal { mean: 0.0, std: 1.0 }, Init::Constant(0.5), Init::Orthogonal { gain: 2.0 }];
    let cases: [([usize; 2], usize); 7] =
        [([1, 1], 0), ([1, 3], 1), ([1, 5], 63), ([1, 5], 64), ([0, 7], 9), ([130, 140], 3), ([160, 120], 65)];
    let Some(gpu) = gpu("initialisers of slices", 2 * inits.len() * cases.len()) else { return };
    let tiny = tiny(&gpu);
    for gpu in [&gpu, &tiny] {
        for (init, (shape, first)) in inits.iter().flat_map(|init| cases.map(|case| (init, case))) {
            let tensor = TensorSpec::f32("w", shape);
            let len = shape[0] * shape[1];
            let size = 4 * (first + len + 2) as u64;
            let create = |usage| {
                gpu.device().create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let buffer = create(BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST);
            gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&vec![CANARY; first + len + 2]));
            gpu.init(&tensor, Slice::new(&buffer, 4 * first as u64, 4 * len as u64), init, 5).unwrap();
            let staging = create(BufferUsages::MAP_READ | BufferUsages::COPY_DST);
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&buffer, 0, &staging, 0, size);
            gpu.queue().submit([encoder.finish()]);
            staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
            gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let found: Vec<u32> = bytemuck::pod_collect_to_vec(&staging.slice(..).get_mapped_range().unwrap());
            let mut expected = vec![CANARY; first + len + 2];
            expected[first..first + len].copy_from_slice(&bits(&on(gpu, &tensor, init, 5)));
            assert!(found == expected, "{init:?}, {shape:?} at {first}");
        }
    }
}

#[test]
fn the_second_tensor_makes_no_pipeline() {
    let Some(gpu) = gpu("counts of initialisers", 1) else { return };
    let arena = Arena::new(&gpu, &[TensorSpec::f32("w", [4, 4])]).unwrap();
    arena.init("w", &Init::Zeros, 1).unwrap();
    let before = gpu.counts();
    arena.init("w", &Init::RELU_BIAS, 1).unwrap();
    let after = gpu.counts();
    assert_eq!(
        (after.pipelines, after.bind_groups, after.buffers),
        (before.pipelines, before.bind_groups + 2, before.buffers + 1)
    );
    assert_eq!(arena.read_blocking("w").unwrap(), [0.1; 16]);
}

// Distributions: on the CPU, whose bits the GPU has.

const SAMPLES: usize = 1 << 20;

fn sample(init: &Init, name: &str, seed: u64) -> Vec<f64> {
    let values = init.fill(&TensorSpec::f32(name, [SAMPLES / 1024, 1024]), seed).unwrap();
    values.into_iter().map(f64::from).collect()
}

/// The mean of powers of the distance from the mean: mean, variance, fourth.
fn moments(values: &[f64]) -> (f64, f64, f64) {
    let mean_of = |f: &dyn Fn(f64) -> f64| values.iter().map(|&x| f(x)).sum::<f64>() / values.len() as f64;
    let mean = mean_of(&|x| x);
    (mean, mean_of(&|x| (x - mean).powi(2)), mean_of(&|x| (x - mean).powi(4)))
}

/// The normal distribution function: Abramowitz and Stegun 26.2.11, to 1e-15.
fn phi(z: f64) -> f64 {
    let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    0.5 + density * z * (1..200).rev().fold(1.0, |sum, n| 1.0 + sum * z * z / f64::from(2 * n + 1))
}

/// Mean, variance and kurtosis within four of their standard errors, and the distance of Kolmogorov and Smirnov within
/// its 0.1 % bound.
fn follows(what: &str, values: &[f64], mean: f64, variance: f64, kurtosis: f64, cdf: impl Fn(f64) -> f64) {
    let n = values.len() as f64;
    let (found_mean, found_variance, fourth) = moments(values);
    let mean_error = (found_mean - mean) / (variance / n).sqrt();
    let variance_error = (found_variance / variance - 1.0) / ((kurtosis - 1.0) / n).sqrt();
    // Of a normal sample: sqrt(24/n); of one with lighter tails less.
    let kurtosis_error = (fourth / found_variance.powi(2) - kurtosis) / (24.0 / n).sqrt();
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let steps = sorted.iter().enumerate().map(|(i, &x)| {
        let share = cdf(x);
        (share - i as f64 / n).abs().max(((i + 1) as f64 / n - share).abs())
    });
    let distance = steps.fold(0.0, f64::max) * n.sqrt();
    let all = format!(
        "{what}: mean {mean_error:.2}, variance {variance_error:.2}, kurtosis {kurtosis_error:.2}, {distance:.2}"
    );
    assert!([mean_error, variance_error, kurtosis_error].iter().all(|error| error.abs() < 4.0), "{all}");
    assert!(distance < 1.95, "{all}");
}

#[test]
fn values_follow_their_distributions() {
    for seed in [1, u64::MAX] {
        let values = sample(&Init::Uniform { low: -0.5, high: 1.5 }, "u", seed);
        follows("uniform", &values, 0.5, 1.0 / 3.0, 1.8, |x| (x + 0.5) / 2.0);
        // Two steps of f32: half of the sums would round to the upper bound, which is excluded.
        let narrow = sample(&Init::Uniform { low: 1.0, high: 1.0 + 2.0_f64.powi(-22) }, "u", seed);
        assert!(narrow.iter().all(|&x| x == 1.0 || x == 1.0 + 2.0_f64.powi(-23)));
        let values = sample(&Init::Normal { mean: 3.0, std: 0.5 }, "n", seed);
        follows("normal", &values, 3.0, 0.25, 3.0, |x| phi((x - 3.0) / 0.5));
        let values = sample(&Init::TruncatedNormal { mean: 0.0, std: 1.0, low: -2.0, high: 2.0 }, "t", seed);
        // The normal distribution's moments within 2 of its mean.
        let inside = 2.0 * phi(2.0) - 1.0;
        let edge = 2.0 * 2.0 * (-2.0_f64).exp() / std::f64::consts::TAU.sqrt() / inside;
        let variance = 1.0 - edge;
        assert!((variance.sqrt() - 0.8796).abs() < 1e-4);
        let kurtosis = (3.0 * variance - 4.0 * edge) / variance.powi(2);
        follows("truncated", &values, 0.0, variance, kurtosis, |x| (phi(x) - phi(-2.0)) / inside);
        assert!(values.iter().all(|x| x.abs() <= 2.0));
        let tail = Init::TruncatedNormal { mean: 1.0, std: 2.0, low: 1.0, high: 2.5 };
        assert!(sample(&tail, "t", seed).iter().all(|x| (3.0..=6.0).contains(x)));
    }
}

#[test]
fn fans_are_counted_as_documented() {
    let fans = |mode, layout| Fans { mode, layout, ..Fans::default() };
    let tensor = |shape: &[usize]| TensorSpec::f32("w", shape);
    let conv = tensor(&[32, 16, 3, 3]);
    let keras = tensor(&[3, 3, 16, 32]);
    let spread = |init: Init, tensor: &TensorSpec| {
        let values: Vec<f64> = init.fill(tensor, 9).unwrap().into_iter().map(f64::from).collect();
        (moments(&values).1.sqrt(), values.iter().fold(0.0, |most: f64, x| most.max(x.abs())))
    };
    let n = 32.0 * 16.0 * 9.0_f64;
    let (out_in, in_out) = (WeightLayout::OutIn, WeightLayout::InOut);
    for (mode, layout, tensor, fan) in [
        (Fan::In, out_in, &conv, 144.0),
        (Fan::Out, out_in, &conv, 288.0),
        (Fan::In, in_out, &keras, 144.0),
        (Fan::Out, in_out, &keras, 288.0),
        (Fan::In, in_out, &conv, 3.0 * 512.0),
    ] {
        for (init, variance) in [
            (Init::HeNormal(fans(mode, layout)), 2.0 / fan),
            (Init::LecunNormal(fans(mode, layout)), 1.0 / fan),
            (Init::LecunNormal(Fans { gain: 0.5, ..fans(mode, layout) }), 0.25 / fan),
        ] {
            let error = (spread(init.clone(), tensor).0 / f64::sqrt(variance) - 1.0) * (2.0 * n).sqrt();
            assert!(error.abs() < 4.0, "{init:?}: {error}");
        }
        let (_, most) = spread(Init::HeUniform(fans(mode, layout)), tensor);
        // The largest of n uniform magnitudes is within 20/n of its bound but for exp(-20).
        let limit = (6.0_f64 / fan).sqrt();
        assert!((limit * (1.0 - 20.0 / n)..=limit * 1.000_000_1).contains(&most), "{most}, {limit}");
    }
    let both = Fans { gain: 2.0, ..Fans::default() };
    let limit = 2.0 * (6.0_f64 / (144.0 + 288.0)).sqrt();
    let (_, most) = spread(Init::GlorotUniform(both.clone()), &conv);
    assert!((limit * (1.0 - 20.0 / n)..=limit * 1.000_000_1).contains(&most), "{most}, {limit}");
    let (std, _) = spread(Init::GlorotNormal(both), &conv);
    assert!(((std / (limit / 3.0_f64.sqrt()) - 1.0) * (2.0 * n).sqrt()).abs() < 4.0, "{std}");
}

#[test]
fn tensors_seeds_and_neighbours_are_independent() {
    let normal = Init::Normal { mean: 0.0, std: 1.0 };
    let base = sample(&normal, "w1", 1);
    let correlation = |a: &[f64], b: &[f64]| {
        let n = a.len().min(b.len());
        a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / (n as f64).sqrt()
    };
    let mut all: Vec<(String, f64)> = Vec::new();
    for (name, seed) in [("w2", 1), ("W1", 1), ("w1", 2), ("w1", 0), ("w1", 1 << 32), ("", 1), ("w1.", 1)] {
        let other = sample(&normal, name, seed);
        all.push((format!("{name} {seed}"), correlation(&base, &other)));
        // A shift by one tensor's elements would be a shared stream.
        all.push((format!("{name} {seed}, shifted"), correlation(&base[1..], &other)));
        all.push((format!("{name} {seed}, squares"), {
            let square = |values: &[f64]| values.iter().map(|x| (x * x - 1.0) / 2.0_f64.sqrt()).collect::<Vec<_>>();
            correlation(&square(&base), &square(&other))
        }));
    }
    for lag in [1, 2, 3, 4, 5, 8, 1024] {
        all.push((format!("lag {lag}"), correlation(&base, &base[lag..])));
    }
    // Standard normal each: one of 28 beyond 4.5 has a probability of 2e-4.
    for (what, correlation) in all {
        assert!(correlation.abs() < 4.5, "{what}: {correlation}");
    }
}

// Orthogonal.

/// The vectors of a tensor: its rows, or its columns where there are more rows.
fn vectors(values: &[f32], rows: usize) -> Vec<Vec<f64>> {
    let columns = values.len() / rows;
    let at = |row: usize, column: usize| f64::from(values[row * columns + column]);
    if rows <= columns {
        (0..rows).map(|row| (0..columns).map(|column| at(row, column)).collect()).collect()
    } else {
        (0..columns).map(|column| (0..rows).map(|row| at(row, column)).collect()).collect()
    }
}

/// The largest element of `Q Q^T - gain^2 I`, over `gain^2`.
fn departure(values: &[f32], rows: usize, gain: f64) -> f64 {
    let vectors = vectors(values, rows);
    let mut worst = 0.0_f64;
    for (i, a) in vectors.iter().enumerate() {
        for (j, b) in vectors.iter().enumerate().take(i + 1) {
            let product = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / (gain * gain);
            let error = (product - f64::from(i == j)).abs();
            // A NaN is the worst.
            worst = if error <= worst { worst } else { error };
        }
    }
    worst
}

#[test]
fn orthogonal_tensors_are() {
    let shapes: [&[usize]; 13] = [
        &[1, 1],
        &[1, 5],
        &[5, 1],
        &[2, 2],
        &[3, 7],
        &[64, 64],
        &[100, 256],
        &[256, 100],
        &[256, 256],
        &[150, 130],
        &[16, 8, 3, 3],
        &[100, 4, 3, 3],
        &[0, 4],
    ];
    let Some(gpu) = gpu("orthogonal tensors", 2 * shapes.len()) else { return };
    let tiny = tiny(&gpu);
    for (shape, gain) in shapes.iter().flat_map(|shape| [(shape, 1.0), (shape, 1.5)]) {
        let init = Init::Orthogonal { gain };
        let tensor = TensorSpec::f32("w", *shape);
        let expected = init.fill(&tensor, 8).unwrap();
        let rows = shape[0].max(1);
        let exact = departure(&expected, rows, gain);
        let mut all = Vec::new();
        for gpu in [&gpu, &tiny] {
            let found = on(gpu, &tensor, &init, 8);
            let orthogonal = departure(&found, rows, gain);
            let distance = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            // Found: 7.8e-8 on the CPU, where the last step rounds to f32, and 2.1e-7 on software Vulkan.
            assert!(exact < 2e-7 && orthogonal < 1e-5, "{shape:?}: {exact:e} on the CPU, {orthogonal:e} on the GPU");
            // Found: 1.1e-6, in squares: their last vectors are what is left of nearly dependent ones.
            assert!(distance < 1e-4, "{shape:?}: {distance:e}");
            all.push(bits(&found));
        }
        assert!(all[0] == all[1], "{shape:?}: windows change bits");
    }
}

#[test]
fn orthogonal_tensors_have_no_direction() {
    let init = Init::Orthogonal { gain: 1.0 };
    // Entries of random orthogonal matrices of 4 have mean 0 and variance 1/4, and the traces' variance is 1.
    let squares: Vec<_> = (0..4000).map(|seed| init.fill(&TensorSpec::f32("w", [4, 4]), seed).unwrap()).collect();
    for i in 0..16 {
        let (mean, variance, _) = moments(&squares.iter().map(|values| f64::from(values[i])).collect::<Vec<_>>());
        assert!(mean.abs() < 4.0 * 0.5 / 4000_f64.sqrt(), "element {i}: {mean}");
        // The fourth moment of an entry is 3/(4*6).
        let error = (0.125_f64 - 0.0625).sqrt() / 4000_f64.sqrt();
        assert!((variance - 0.25).abs() < 4.0 * error, "element {i}: {variance}");
    }
    let traces = squares.iter().map(|values| (0..4).map(|i| f64::from(values[5 * i])).sum());
    let (_, variance, _) = moments(&traces.collect::<Vec<_>>());
    assert!((variance - 1.0).abs() < 4.0 * (2.0 / 4000_f64).sqrt(), "{variance}");
}

// Configuration and refusals.

#[test]
fn json_is_read_and_written() {
    for init in drawn().into_iter().chain([Init::Orthogonal { gain: 0.5 }]) {
        let text = serde_json::to_string(&init).unwrap();
        assert_eq!(Init::from_json(&text).unwrap(), init);
        assert_eq!(serde_json::from_str::<Init>(&text).unwrap(), init);
    }
    let written = serde_json::to_value(Init::HeNormal(Fans::default())).unwrap();
    assert_eq!(written, json!({"he_normal": {"gain": 1.0, "mode": "fan_in", "layout": "out_in"}}));
    assert_eq!(Init::from_json("\"orthogonal\"").unwrap(), Init::Orthogonal { gain: 1.0 });
    let truncated = Init::TruncatedNormal { mean: 0.0, std: 1.0, low: -2.0, high: 2.0 };
    assert_eq!(Init::from_json(r#"{"truncated_normal": {"std": 1}}"#).unwrap(), truncated);
}

#[test]
fn bad_json_is_refused() {
    for (json, text) in [
        ("{", "configuration: JSON: EOF while parsing an object at line 1 column 1"),
        ("7", "configuration: .: invalid type: integer `7`, expected string or map"),
        ("\"xavier\"", "configuration: .: unknown variant `xavier`, expected one of `zeros`, `constant`..."),
        ("\"normal\"", "configuration: normal: missing field `std`"),
        ("\"constant\"", "configuration: constant: invalid type: map, expected f64"),
        (r#"{"constant": "x"}"#, "configuration: constant: invalid type: string \"x\", expected f64"),
        (r#"{"normal": {"std": null}}"#, "configuration: normal.std: invalid type: null, expected f64"),
        (
            r#"{"normal": {"std": 1, "sd": 2}}"#,
            "configuration: normal.sd: unknown field `sd`, expected `mean` or `std`",
        ),
        (r#"{"he_normal": {"fan": 1}}"#, "configuration: he_normal.fan: unknown field `fan`, expected one of..."),
        (
            r#"{"he_normal": {"mode": "in"}}"#,
            "configuration: he_normal.mode: unknown variant `in`, expected `fan_in` or...",
        ),
        (r#"{"zeros": {}}"#, "configuration: zeros: invalid type: map, expected unit"),
    ] {
        check(json, &Init::from_json(json).unwrap_err(), text);
    }
}

#[test]
fn bad_numbers_and_tensors_are_refused() {
    let number = "must be 0, or of a magnitude of at least 1e-20 and at most 1e20";
    let scale = "must be at least 1e-20 and at most 1e20";
    let fans = |gain, mode| Fans { gain, mode, ..Fans::default() };
    let rows: Vec<(Init, &[usize], String)> = vec![
        (Init::Constant(f64::NAN), &[3], "constant of tensor w is NaN, must be finite in f32".into()),
        (Init::Constant(1e39), &[3], "constant of tensor w is 1e39, must be finite in f32".into()),
        (Init::Uniform { low: 1e-21, high: 1.0 }, &[3], format!("uniform.low of tensor w is 1e-21, {number}")),
        (Init::Uniform { low: 0.0, high: f64::INFINITY }, &[3], format!("uniform.high of tensor w is inf, {number}")),
        (
            Init::Uniform { low: 1.0, high: 1.0 },
            &[3],
            "uniform.high of tensor w is 1, must be above low, which is 1, also in f32".into(),
        ),
        (
            Init::Uniform { low: 1.0, high: 1.000_000_01 },
            &[3],
            "uniform.high of tensor w is 1.00000001, must be above low, which is 1, also in f32".into(),
        ),
        (Init::Normal { mean: f64::NAN, std: 1.0 }, &[3], format!("normal.mean of tensor w is NaN, {number}")),
        (Init::Normal { mean: 0.0, std: 0.0 }, &[3], format!("normal.std of tensor w is 0, {scale}")),
        (Init::Normal { mean: 0.0, std: 1e21 }, &[3], format!("normal.std of tensor w is 1e21, {scale}")),
        (
            Init::TruncatedNormal { mean: 0.0, std: -1.0, low: -2.0, high: 2.0 },
            &[3],
            format!("truncated_normal.std of tensor w is -1, {scale}"),
        ),
        (
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: f64::NEG_INFINITY, high: 2.0 },
            &[3],
            "truncated_normal.low of tensor w is -inf, must be finite".into(),
        ),
        (
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 2.0, high: -2.0 },
            &[3],
            "truncated_normal.high of tensor w is -2, must be so far above low, which is 2, that 1/256 of the \
             distribution lies between them"
                .into(),
        ),
        (
            Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 2.7, high: 9.0 },
            &[3],
            "truncated_normal.high of tensor w is 9, must be so far above low, which is 2.7, that 1/256 of the \
             distribution lies between them"
                .into(),
        ),
        (
            Init::GlorotNormal(fans(1.0, Fan::Out)),
            &[3, 3],
            "glorot_normal.mode of tensor w is fan_out, must be left out, since both fans count".into(),
        ),
        (Init::GlorotUniform(fans(-1.0, Fan::In)), &[3, 3], format!("glorot_uniform.gain of tensor w is -1, {scale}")),
        (Init::LecunNormal(fans(f64::NAN, Fan::In)), &[3, 3], format!("lecun_normal.gain of tensor w is NaN, {scale}")),
        (Init::Orthogonal { gain: 0.0 }, &[3, 3], format!("orthogonal.gain of tensor w is 0, {scale}")),
        (
            Init::GlorotUniform(Fans::default()),
            &[128],
            "glorot_uniform of tensor w has shape [128], expected at least 2 dimensions".into(),
        ),
        (
            Init::HeUniform(Fans::default()),
            &[],
            "he_uniform of tensor w has shape [], expected at least 2 dimensions".into(),
        ),
        (
            Init::Orthogonal { gain: 1.0 },
            &[7],
            "orthogonal of tensor w has shape [7], expected at least 2 dimensions".into(),
        ),
    ];
    let gpu = gpu("refused initialisers", rows.len());
    for (init, shape, text) in rows {
        let tensor = TensorSpec::f32("w", shape);
        check(&format!("{init:?}"), &init.fill(&tensor, 1).unwrap_err(), &text);
        let Some(gpu) = &gpu else { continue };
        let arena = Arena::new(gpu, &[tensor]).unwrap();
        check(&format!("{init:?}"), &arena.init("w", &init, 1).unwrap_err(), &text);
    }
    let huge = TensorSpec::f32("w", [usize::MAX, 2]);
    let text = "tensor w: its values take 18446744073709551615 bytes, a buffer holds at most 9223372036854775807";
    check("huge", &Init::Zeros.fill(&huge, 1).unwrap_err(), text);
    check("no targets", &Init::mean_target(&[]).unwrap_err(), "the number of targets is 0, must be at least 1");
    check("NaN", &Init::mean_target(&[f32::NAN]).unwrap_err(), "the targets' mean is NaN, must be finite");
    assert_eq!(Init::mean_target(&[1.0, 2.0, 6.0]).unwrap(), Init::Constant(3.0));
}

#[test]
fn bad_slices_are_refused_and_nothing_is_written() {
    let Some(gpu) = gpu("refused slices", 6) else { return };
    let tensor = TensorSpec::f32("w", [2, 2]);
    let create = |gpu: &Gpu, size, usage| {
        gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let buffer = create(&gpu, 32, BufferUsages::STORAGE);
    let bare = create(&gpu, 32, BufferUsages::COPY_DST);
    let gone = create(&gpu, 32, BufferUsages::STORAGE);
    gone.destroy();
    let init = |slice| gpu.init(&tensor, slice, &Init::Zeros, 1).unwrap_err();
    for (slice, text) in [
        (Slice::new(&buffer, 0, 12), "parameter of tensor w has 12 bytes, expected 16 bytes"),
        (Slice::new(&buffer, 20, 16), "parameter of tensor w: 16 bytes at 20 end behind the buffer's 32"),
        (
            Slice::new(&buffer, u64::MAX, 16),
            "parameter of tensor w: 16 bytes at 18446744073709551615 end behind the...",
        ),
        (Slice::new(&buffer, 2, 16), "parameter of tensor w: offset is 2, must be a multiple of 4 bytes"),
        (
            Slice::new(&bare, 0, 16),
            "parameter of tensor w: buffer usage is BufferUsages(COPY_DST), must contain STORAGE",
        ),
        (Slice::new(&gone, 0, 16), "parameter of tensor w: its buffer cannot be bound: wgpu: Validation Error..."),
    ] {
        check(text, &init(slice), text);
    }
    let arena = Arena::new(&gpu, &[tensor]).unwrap();
    check("no such tensor", &arena.init("v", &Init::Zeros, 1).unwrap_err(), "tensor v is unknown; there are w");
    // After an error the next call works.
    arena.init("w", &Init::Constant(1.0), 1).unwrap();
    assert_eq!(arena.read_blocking("w").unwrap(), [1.0; 4]);
}

#[test]
fn a_device_that_binds_too_little_is_refused() {
    let Some(gpu) = gpu("small devices", 2) else { return };
    let small = |bytes| {
        let (device, queue) = device(&gpu, |limits| limits.max_storage_buffer_binding_size = bytes);
        Gpu::new(&device, &queue)
    };
    let arena = Arena::new(&small(16_384), &[TensorSpec::f32("w", [2, 2])]).unwrap();
    let text = "the device's max_storage_buffer_binding_size is 16384, needed are 16388";
    check("the table", &arena.init("w", &Init::Zeros, 1).unwrap_err(), text);
    let arena = Arena::new(&small(20_000), &[TensorSpec::f32("w", [2, 5000])]).unwrap();
    let text = "the device's max_storage_buffer_binding_size is 20000, needed are 20256";
    check("a vector", &arena.init("w", &Init::Orthogonal { gain: 1.0 }, 1).unwrap_err(), text);
    arena.init("w", &Init::Normal { mean: 0.0, std: 1.0 }, 1).unwrap();
}

#[test]
fn shaders_are_written_in_every_language() {
    let packs = [DType::F16, DType::Bf16].map(pack);
    let all = [(FILL, &["fill"][..]), (ORTHOGONAL, &["project", "normalise", "place"])];
    for (text, entries) in all.into_iter().chain(packs.iter().map(|text| (&text[..], &["pack"][..]))) {
        let (module, info) = parse(entries[0], text);
        assert_eq!(module.entry_points.len(), entries.len());
        for entry in entries {
            for lanes in [1.0, 8.0, 256.0] {
                let constants = [("LANES".to_string(), lanes)].into_iter().collect();
                let point = Some((ShaderStage::Compute, *entry));
                let (module, info) = process_overrides(&module, &info, point, &constants).unwrap();
                for (language, result) in write_all(&module, &info, entry) {
                    result.unwrap_or_else(|error| panic!("{entry}, {lanes} lanes, in {language}: {error}"));
                }
            }
        }
    }
}
