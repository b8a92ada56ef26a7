//! The engine: limits, slices, canaries, steps in flight, clocks, counts. No formula matters here, so three
//! configurations stand for all: one with state per element, one with sums, one with lookahead alone. Where cuts
//! matter, a fourth joins them, with rows and columns.

use crate::common::twin::{Parity, all_tensors, bound, noise, tensors};
use crate::common::{device, gpu, say};
use half::f16;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use wgpu_optim::wgpu;
use wgpu_optim::{
    Adafactor, Arena, Buffers, Config, DType, Gpu, Group, Optimizer, Sgd, Slice, TensorSpec, Tuning, WeightDecay,
};

/// State, sums, and slots around a rule that has none.
fn configs() -> [Config; 3] {
    [
        json!({"optimizer": "adamw", "lr": 0.05}),
        json!({"optimizer": "novograd", "lr": 0.05}),
        json!({"optimizer": "sgd", "lr": 0.05, "lookahead": {"k": 2}}),
    ]
    .map(|value| Config::from_value(value).unwrap())
}

/// A device with the least that is supported: 64 KiB bindings, and 7 workgroups a dimension.
fn tiny(gpu: &Gpu) -> Gpu {
    let (device, queue) = device(gpu, |limits| {
        limits.max_storage_buffer_binding_size = 64 << 10;
        limits.max_buffer_size = 256 << 10;
        limits.max_compute_workgroups_per_dimension = 7;
        limits.min_storage_buffer_offset_alignment = 256;
    });
    Gpu::new(&device, &queue)
}

/// Makes the three configurations above, and one whose state has rows and columns.
fn all_configs() -> impl Iterator<Item = Config> {
    configs().into_iter().chain([Config::from(Adafactor::default())])
}

/// Returns all parameters and state slots, as bits, after two steps from the midst of a training.
fn outcome(gpu: &Gpu, config: &Config, tensors: &[TensorSpec]) -> (Vec<Vec<u32>>, Parity) {
    let mut twin = Parity::new(gpu, config, tensors, 11).midway(5);
    for _ in 0..2 {
        let worst = twin.step();
        assert!(worst.ulps <= bound(gpu), "{}", worst.text);
    }
    let mut bits = Vec::new();
    for tensor in &twin.tensors {
        bits.push(twin.params.read_blocking(&tensor.name).unwrap());
        for slot in twin.optimizer.slots(&tensor.name).unwrap() {
            bits.push(twin.optimizer.state_blocking(&tensor.name, slot).unwrap());
        }
    }
    (bits.into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect(), twin)
}

/// `cargo xtask test --all-adapters` reads the line.
#[test]
fn the_adapter_is_named() {
    let Some(gpu) = gpu("names", 1) else { return };
    let info = gpu.adapter_info();
    assert!(!info.name.is_empty());
    say(&format!("adapter: {}, {}", info.name, info.backend));
}

#[test]
fn tiny_limits_change_the_dispatches_and_no_bit() {
    let Some(gpu) = gpu("tiny limits", 3) else { return };
    let tiny = tiny(&gpu);
    let mixed = |(i, tensor): (usize, TensorSpec)| if i % 2 == 0 { tensor.with_grad_dtype(DType::F16) } else { tensor };
    let lists = [all_tensors(), all_tensors().into_iter().enumerate().map(mixed).collect()];
    for (config, formats) in all_configs().flat_map(|config| [(config.clone(), 1), (config, 2)]) {
        let (expected, mut whole) = outcome(&gpu, &config, &lists[formats - 1]);
        let (found, mut tiled) = outcome(&tiny, &config, &lists[formats - 1]);
        let one = whole.optimizer.plan(&whole.params, &whole.grads).unwrap();
        let many = tiled.optimizer.plan(&tiled.params, &tiled.grads).unwrap();
        assert_eq!(one.windows, formats * one.variants);
        assert!(many.windows > 5 && many.dispatches > 2 * one.dispatches, "{many:?}");
        assert_eq!(found, expected, "{}", config.name());
    }
}

#[test]
fn tuning_and_shader_checks_change_no_bit() {
    let numbers = [(1, 1, false), (8, 8, true), (64, 2, false), (256, 4, false), (256, 8, true), (100, 1, false)];
    let Some(gpu) = gpu("tunings", 3 * numbers.len()) else { return };
    let tunings = numbers.map(|(lanes, chunk_blocks, shader_checks)| {
        // With the fewest bytes, each chunk takes a dispatch of its own.
        let dispatch_bytes = if lanes == 64 { 1 } else { gpu.tuning().dispatch_bytes };
        Tuning { lanes, chunk_blocks, shader_checks, dispatch_bytes, ..gpu.tuning() }
    });
    let (device, queue) = device(&gpu, |_| {});
    for config in all_configs() {
        let expected = outcome(&gpu, &config, &all_tensors()).0;
        for &tuning in &tunings {
            let other = Gpu::with_tuning(&device, &queue, tuning).unwrap();
            assert_eq!(outcome(&other, &config, &all_tensors()).0, expected, "{tuning:?}, {}", config.name());
        }
    }
    let wrong = |lanes, chunk_blocks| {
        let tuning = Tuning { lanes, chunk_blocks, shader_checks: false, ..gpu.tuning() };
        Gpu::with_tuning(&device, &queue, tuning).unwrap_err().to_string()
    };
    assert_eq!(wrong(257, 8), "lanes is 257, must be at least 1 and at most 256");
    assert_eq!(wrong(8, 3), "chunk_blocks is 3, must be 1, 2, 4 or 8");
    let wrong = |tuning| Gpu::with_tuning(&device, &queue, tuning).unwrap_err().to_string();
    let none = Tuning { dispatch_bytes: 0, ..gpu.tuning() };
    assert_eq!(wrong(none), "dispatch_bytes is 0, must be at least 1");
    assert_eq!(wrong(Tuning { placements: 0, ..gpu.tuning() }), "placements is 0, must be at least 1");
}

#[test]
fn more_than_65535_workgroups_and_a_thousand_tensors_are_one_dispatch() {
    let Some(gpu) = gpu("70 000 tensors", 1) else { return };
    let tensors = tensors(&[1; 70_000]);
    let mut optimizer = Optimizer::new(&gpu, &tensors, configs()[0].clone()).unwrap();
    let (params, grads) = (Arena::new(&gpu, &tensors).unwrap(), Arena::new(&gpu, &tensors).unwrap());
    for i in (0..70_000).step_by(997) {
        grads.write(&format!("t{i}"), &[1.0]).unwrap();
    }
    let report = optimizer.plan(&params, &grads).unwrap();
    assert_eq!((report.windows, report.dispatches), (1, 1));
    optimizer.step(&params, &grads).unwrap();
    let page = read(&gpu, params.slice("t0").unwrap().buffer);
    for i in 0..70_000 {
        // The first step of Adam is lr times the gradient's sign.
        let expected = if i % 997 == 0 { -0.05 } else { 0.0 };
        assert!((page[64 * i] - expected).abs() < 1e-6, "t{i}: {}", page[64 * i]);
    }
}

/// Reads a whole buffer as f32.
fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Vec<f32> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let staging = create(gpu, buffer.size(), usage);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    gpu.queue().submit([encoder.finish()]);
    staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    bytemuck::pod_collect_to_vec(&staging.slice(..).get_mapped_range().unwrap())
}

fn create(gpu: &Gpu, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// A buffer of the caller's that holds these words.
fn buffer_of(gpu: &Gpu, words: &[f32]) -> wgpu::Buffer {
    use wgpu::BufferUsages as Usage;
    let buffer = create(gpu, 4 * words.len() as u64, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST);
    gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(words));
    buffer
}

/// Tensors in one buffer, from these first elements on; everything else holds a canary.
fn canaries(gpu: &Gpu, config: &Config, lens: &[usize], starts: &[usize], tail: usize, scalar: &[usize]) {
    const CANARY: u32 = 0xdead_beef;
    let tensors = tensors(lens);
    let mut rng = StdRng::seed_from_u64(12);
    let values: Vec<_> = lens.iter().map(|&len| noise(&mut rng, len)).collect();
    let grads: Vec<_> = lens.iter().map(|&len| noise(&mut rng, len)).collect();
    let end = starts.last().unwrap() + lens.last().unwrap() + tail;
    let lay_out = |values: &[Vec<f32>], rest: f32| {
        let mut words = vec![rest; end];
        for (start, values) in starts.iter().zip(values) {
            words[*start..start + values.len()].copy_from_slice(values);
        }
        words
    };
    let params = buffer_of(gpu, &lay_out(&values, f32::from_bits(CANARY)));
    let gradients = buffer_of(gpu, &lay_out(&grads, f32::NAN));
    let slices = |buffer| -> Vec<Slice> {
        let each = starts.iter().zip(lens);
        each.map(|(&start, &len)| Slice::new(buffer, 4 * start as u64, 4 * len as u64)).collect()
    };
    let mut optimizer = Optimizer::new(gpu, &tensors, config.clone()).unwrap();
    let report = optimizer.plan(&slices(&params), &slices(&gradients)).unwrap();
    let names: Vec<_> = scalar.iter().map(|i| format!("t{i}")).collect();
    assert_eq!(report.scalar_tensors, names, "{lens:?} at {starts:?}");
    let (arena, arena_grads) = (Arena::new(gpu, &tensors).unwrap(), Arena::new(gpu, &tensors).unwrap());
    let mut expected = Optimizer::new(gpu, &tensors, config.clone()).unwrap();
    for (tensor, (values, grads)) in tensors.iter().zip(values.iter().zip(&grads)) {
        arena.write(&tensor.name, values).unwrap();
        arena_grads.write(&tensor.name, grads).unwrap();
    }
    for _ in 0..2 {
        optimizer.step(&slices(&params), &slices(&gradients)).unwrap();
        expected.step(&arena, &arena_grads).unwrap();
    }
    let found = read(gpu, &params);
    let mut owned = vec![false; end];
    for (tensor, &start) in tensors.iter().zip(starts) {
        let values = arena.read_blocking(&tensor.name).unwrap();
        let len = values.len();
        let same = found[start..start + len].iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{} of {}", tensor.name, config.name());
        owned[start..start + len].fill(true);
    }
    for (i, word) in found.iter().enumerate().filter(|(i, _)| !owned[*i]) {
        assert_eq!(word.to_bits(), CANARY, "word {i} of {lens:?} at {starts:?}");
    }
}

#[test]
fn foreign_slices_give_the_arenas_bits_and_canaries_live() {
    let Some(gpu) = gpu("canaries", 10) else { return };
    for config in configs() {
        // Each on its own words of 16 bytes, NaN or canaries in every padding.
        canaries(&gpu, &config, &[5, 3, 1024, 0, 9001, 2], &[64, 72, 128, 1152, 1152, 10_160], 30, &[]);
        // Live neighbours right behind a tensor of three: the first shares its last word, the others start off 16
        // bytes.
        canaries(&gpu, &config, &[3, 3, 2050, 7], &[4, 7, 10, 2060], 0, &[0, 1, 2, 3]);
        // The last bytes of the buffer are no whole word.
        canaries(&gpu, &config, &[8, 7], &[0, 8], 0, &[1]);
        // Odd offsets on both sides of a block and of a chunk.
        canaries(&gpu, &config, &[1025, 8193], &[1, 1027], 2, &[0, 1]);
        canaries(&gpu, &config, &[1], &[0], 0, &[0]);
    }
}

/// Gradients in f16 in one buffer that is NaN elsewhere, from these first halves on.
fn halves(gpu: &Gpu, config: &Config, lens: &[usize], starts: &[usize], end: usize, scalar: &[usize]) {
    let tensors: Vec<_> = tensors(lens).into_iter().map(|tensor| tensor.with_grad_dtype(DType::F16)).collect();
    let of_grads: Vec<_> = tensors.iter().map(TensorSpec::grad_spec).collect();
    let mut rng = StdRng::seed_from_u64(26);
    let arenas = [(); 2].map(|()| Arena::new(gpu, &tensors).unwrap());
    let arena_grads = Arena::new(gpu, &of_grads).unwrap();
    let mut words = vec![[0xff; 2]; end];
    for ((tensor, &start), &len) in tensors.iter().zip(starts).zip(lens) {
        let (values, grads) = (noise(&mut rng, len), noise(&mut rng, len));
        arenas.iter().for_each(|arena| arena.write(&tensor.name, &values).unwrap());
        arena_grads.write(&tensor.name, &grads).unwrap();
        let place = words[start..].iter_mut().zip(&grads);
        place.for_each(|(word, &grad)| *word = f16::from_f32(grad).to_le_bytes());
    }
    let buffer = buffer_of(gpu, &bytemuck::pod_collect_to_vec::<u8, f32>(words.as_flattened()));
    let each = starts.iter().zip(lens);
    let slices: Vec<_> = each.map(|(&at, &len)| Slice::new(&buffer, 2 * at as u64, 2 * len as u64)).collect();
    let mut optimizers = [(); 2].map(|()| Optimizer::new(gpu, &tensors, config.clone()).unwrap());
    let [found, expected] = &mut optimizers;
    let names: Vec<_> = scalar.iter().map(|i| format!("t{i}")).collect();
    assert_eq!(found.plan(&arenas[0], &slices).unwrap().scalar_tensors, names, "{lens:?} at {starts:?}");
    for _ in 0..2 {
        found.step(&arenas[0], &slices).unwrap();
        expected.step(&arenas[1], &arena_grads).unwrap();
    }
    for tensor in &tensors {
        let [found, expected] = arenas.each_ref().map(|arena| arena.read_blocking(&tensor.name).unwrap());
        assert!(expected.iter().all(|value| value.is_finite()));
        assert_eq!(found, expected, "{} of {lens:?} at {starts:?}, {}", tensor.name, config.name());
    }
}

#[test]
fn slices_of_halves_give_the_arenas_bits_whatever_lies_beside_them() {
    let Some(gpu) = gpu("slices in f16", 12) else { return };
    for config in all_configs() {
        // At 8 bytes each, with a last word of four that is the buffer's.
        halves(&gpu, &config, &[5, 3, 1024, 0, 9001, 2], &[4, 12, 16, 1040, 1040, 10_044], 10_048, &[]);
        // The first at 4 bytes; the last four of the last end behind the buffer, its last word with it.
        halves(&gpu, &config, &[7, 1025, 8193, 1], &[2, 12, 1040, 9236], 9238, &[0, 3]);
        halves(&gpu, &config, &[3, 4], &[0, 6], 10, &[1]);
    }
}

#[test]
fn every_half_reaches_a_step_as_it_is() {
    let Some(gpu) = gpu("all halves", 3) else { return };
    let tensors = [TensorSpec::f32("w", [1 << 16]).with_grad_dtype(DType::F16)];
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let values: Vec<f32> = halves.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect();
    let grads = Arena::new(&gpu, &[tensors[0].grad_spec()]).unwrap();
    assert_eq!(grads.size_bytes(), 2 << 16);
    grads.write("w", &values).unwrap();
    let shifted = buffer_of(&gpu, &vec![f32::NAN; (1 << 15) + 1]);
    gpu.queue().write_buffer(&shifted, 4, bytemuck::cast_slice(&halves));
    let same = |found: &[f32], expected: &[f32], what: &str| {
        for (bits, (found, expected)) in found.iter().zip(expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{what}, half {bits:#06x}: {found:e}, expected {expected:e}");
        }
    };
    same(&grads.read_blocking("w").unwrap(), &values, "read back");
    let negative: Vec<f32> = values.iter().map(|value| -value).collect();
    for (buffers, scalar) in [((&grads).into(), 0), (Buffers::from(&[Slice::new(&shifted, 4, 2 << 16)]), 1)] {
        let params = Arena::new(&gpu, &tensors).unwrap();
        // -0 - g is -g to the sign of a zero.
        params.write("w", &vec![-0.0; 1 << 16]).unwrap();
        let mut sgd = Optimizer::new(&gpu, &tensors, Sgd { lr: 1.0, ..Sgd::default() }).unwrap();
        assert_eq!(sgd.plan(&params, buffers.clone()).unwrap().scalar_tensors.len(), scalar);
        sgd.step(&params, buffers).unwrap();
        same(&params.read_blocking("w").unwrap(), &negative, "a step");
    }
}

#[test]
fn an_arena_of_halves_rounds_to_the_nearest_and_packs_two_in_a_word() {
    let Some(gpu) = gpu("an arena in f16", 1) else { return };
    let tensors =
        [3, 0, 1, 12].map(|len| TensorSpec::f32(format!("t{len}"), [len]).with_grad_dtype(DType::F16).grad_spec());
    let arena = Arena::new(&gpu, &tensors).unwrap();
    assert_eq!(arena.size_bytes(), 2 * 256 + 24);
    assert_eq!(arena.slice("t3").unwrap().size, 6);
    let least = 2.0f32.powi(-24);
    let (values, rounded): (Vec<f32>, Vec<f32>) = [
        (1.0 + 2.0f32.powi(-11), 1.0),                         // ties to even
        (1.0 + 3.0 * 2.0f32.powi(-11), 1.0 + 2.0f32.powi(-9)), // the other way
        (1.0 + 1.01 * 2.0f32.powi(-11), 1.0 + 2.0f32.powi(-10)),
        (65_519.0, 65_504.0),
        (65_520.0, f32::INFINITY),
        (-1e30, f32::NEG_INFINITY),
        (least, least),
        (0.5 * least, 0.0),
        (0.51 * least, least),
        (-0.1 * least, -0.0),
        (1023.4 * least, 1023.0 * least), // subnormal
        (0.1, 0.099_975_586),
    ]
    .into_iter()
    .unzip();
    arena.write("t12", &values).unwrap();
    arena.write("t3", &values[..3]).unwrap();
    arena.write("t1", &values[11..]).unwrap();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (name, expected) in [("t12", &rounded[..]), ("t3", &rounded[..3]), ("t1", &rounded[11..]), ("t0", &[])] {
        assert_eq!(bits(&arena.read_blocking(name).unwrap()), bits(expected), "{name}");
    }
}

#[test]
fn a_nan_half_makes_its_parameter_nan() {
    let Some(gpu) = gpu("NaN in f16", 3) else { return };
    let tensors = [TensorSpec::f32("w", [7]).with_grad_dtype(DType::F16)];
    for config in configs() {
        let params = Arena::new(&gpu, &tensors).unwrap();
        let grads = Arena::new(&gpu, &[tensors[0].grad_spec()]).unwrap();
        grads.write("w", &[1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0]).unwrap();
        let mut optimizer = Optimizer::new(&gpu, &tensors, config.clone()).unwrap();
        optimizer.step(&params, &grads).unwrap();
        assert!(params.read_blocking("w").unwrap()[2].is_nan(), "{}", config.name());
    }
}

#[test]
fn a_thousand_steps_in_one_submit_equal_a_thousand_submits() {
    let Some(gpu) = gpu("steps in flight", 2) else { return };
    for config in configs() {
        let tensors = tensors(&[700, 3]);
        let mut twins = [Parity::new(&gpu, &config, &tensors, 13), Parity::new(&gpu, &config, &tensors, 13)];
        for twin in &mut twins {
            twin.grads.write("t0", &noise(&mut StdRng::seed_from_u64(14), 700)).unwrap();
            twin.grads.write("t1", &[1.0, -2.0, 0.5]).unwrap();
        }
        let [one, many] = &mut twins;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for step in 0..1000 {
            let lr = 0.1 / (1.0 + f64::from(step));
            one.optimizer.set_lr(lr).unwrap();
            one.optimizer.encode(&mut encoder, &one.params, &one.grads).unwrap();
            many.optimizer.set_lr(lr).unwrap();
            many.optimizer.step(&many.params, &many.grads).unwrap();
        }
        gpu.queue().submit([encoder.finish()]);
        for tensor in ["t0", "t1"] {
            let [a, b] = [&one, &many].map(|twin| twin.params.read_blocking(tensor).unwrap());
            assert_eq!(a, b, "{tensor} of {}", config.name());
        }
        assert_eq!(one.optimizer.t("t0").unwrap(), 1000);
        // The slots of steps that are done are used again.
        let steps = one.optimizer.memory().steps;
        for _ in 0..1000 {
            one.optimizer.step(&one.params, &one.grads).unwrap();
            gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        }
        assert_eq!(one.optimizer.memory().steps, steps);
    }
}

#[test]
fn a_forgotten_step_leaves_no_trace() {
    let Some(gpu) = gpu("forgotten steps", 2) else { return };
    for config in configs() {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[700, 3]), 15);
        twin.step();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let first = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
        let part = twin.grads.without(&["t1"]).unwrap();
        let second = twin.optimizer.encode(&mut encoder, &twin.params, &part).unwrap();
        drop(part);
        drop(encoder);
        assert_eq!([twin.optimizer.t("t0").unwrap(), twin.optimizer.t("t1").unwrap()], [3, 2]);
        twin.optimizer.undo(second).unwrap();
        twin.optimizer.undo(first).unwrap();
        assert_eq!([twin.optimizer.t("t0").unwrap(), twin.optimizer.t("t1").unwrap()], [1, 1]);
        for _ in 0..2 {
            let worst = twin.step();
            assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        }
    }
}

#[test]
fn an_encoding_given_up_without_a_word_keeps_no_memory_of_later_ones() {
    let Some(gpu) = gpu("dropped encoders", 1) else { return };
    let mut twin = Parity::new(&gpu, &configs()[0], &tensors(&[700, 3]), 23);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let lost = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    assert!(twin.optimizer.undo(lost).unwrap_err().to_string().contains("is there still"));
    let buffer = encoder.finish();
    assert!(twin.optimizer.undo(lost).is_err(), "its command buffer could be submitted yet");
    drop(buffer);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let sent = twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).unwrap();
    gpu.queue().submit([encoder.finish()]);
    // This must hold whether the device is done or not.
    assert!(twin.optimizer.undo(sent).is_err());
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    assert!(twin.optimizer.undo(sent).is_err());
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    assert_eq!(twin.optimizer.undo(lost), Ok(()), "it was taken back when the next one was encoded");
    let text = twin.optimizer.undo(sent).unwrap_err().to_string();
    assert!(text.contains("its work has run"), "{text}");
    assert_eq!(twin.optimizer.t("t0").unwrap(), 2);
}

#[test]
fn a_parameter_that_sits_out_keeps_its_bytes_beside_one_that_does_not() {
    let Some(gpu) = gpu("absent neighbours", 1) else { return };
    let config = &configs()[0];
    let list = tensors(&[5, 5]);
    let words = noise(&mut StdRng::seed_from_u64(24), 12);
    let (params, grads) = (buffer_of(&gpu, &words), buffer_of(&gpu, &[1.0; 12]));
    let of = |buffer, first: u64| Slice::new(buffer, 4 * first, 20);
    let mut optimizer = Optimizer::new(&gpu, &list, config.clone()).unwrap();
    // The second starts within the last 16 bytes of the first.
    optimizer.step(&[Some(of(&params, 0)), None], &[Some(of(&grads, 0)), None]).unwrap();
    assert_eq!(read(&gpu, &params)[5..], words[5..]);
    assert_ne!(read(&gpu, &params)[..5], words[..5]);
    // The bytes of a parameter that takes no part may be another tensor's gradient.
    let mut optimizer = Optimizer::new(&gpu, &list, config.clone()).unwrap();
    let shared = [Some(of(&params, 0)), Some(of(&grads, 0))];
    optimizer.step(&shared, &[None, Some(of(&params, 0))]).unwrap();
}

#[test]
fn interleaved_buffers_share_a_window() {
    let Some(gpu) = gpu("interleaved buffers", 1) else { return };
    let list = tensors(&[16; 20]);
    let buffers = [(); 4].map(|()| buffer_of(&gpu, &[0.0; 320]));
    let slices = |of: [usize; 2]| -> Vec<Slice> {
        (0..20).map(|i| Slice::new(&buffers[of[i % 2]], 64 * i as u64, 64)).collect()
    };
    let mut optimizer = Optimizer::new(&gpu, &list, configs()[0].clone()).unwrap();
    let report = optimizer.plan(&slices([0, 1]), &slices([2, 3])).unwrap();
    assert_eq!((report.windows, report.dispatches), (1, 1));
    optimizer.step(&slices([0, 1]), &slices([2, 3])).unwrap();
    let tables = optimizer.memory().tables;
    optimizer.release_buffers();
    assert!(tables > 0 && optimizer.memory().tables == 0);
    optimizer.step(&slices([0, 1]), &slices([2, 3])).unwrap();
}

#[test]
fn a_record_too_large_for_the_device_leaves_the_optimizer_usable() {
    let Some(gpu) = gpu("records beyond a binding", 1) else { return };
    let tiny = tiny(&gpu);
    let mut twin = Parity::new(&tiny, &configs()[0], &tensors(&[1; 1500]), 25);
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
    for i in 0..1500 {
        twin.optimizer.set_t(&format!("t{i}"), i).unwrap();
    }
    let error = twin.optimizer.step(&twin.params, &twin.grads).unwrap_err().to_string();
    assert!(error.starts_with("the device's max_storage_buffer_binding_size is 65536, needed are"), "{error}");
    for i in 0..1500 {
        twin.optimizer.set_t(&format!("t{i}"), 1).unwrap();
    }
    twin.optimizer.step(&twin.params, &twin.grads).unwrap();
}

#[test]
fn a_tensor_without_a_gradient_is_touched_by_nothing() {
    let Some(gpu) = gpu("missing gradients", 2) else { return };
    for config in configs() {
        let mut twin = Parity::new(&gpu, &config, &tensors(&[700, 3, 1030]), 16);
        let patterns: [&[&str]; 6] = [&[], &["t1"], &["t0", "t2"], &[], &["t0", "t1", "t2"], &["t2"]];
        for absent in patterns {
            let worst = twin.step_without(absent);
            assert!(worst.ulps <= bound(&gpu), "{} without {absent:?}: {}", config.name(), worst.text);
        }
        assert_eq!(["t0", "t1", "t2"].map(|name| twin.optimizer.t(name).unwrap()), [4, 4, 3]);
    }
}

#[test]
fn slices_may_lack_a_gradient_too() {
    let Some(gpu) = gpu("missing slices", 2) else { return };
    for config in configs() {
        let list = tensors(&[700, 3]);
        let twin = Parity::new(&gpu, &config, &list, 17);
        let mut optimizer = Optimizer::new(&gpu, &list, config.clone()).unwrap();
        let params = ["t0", "t1"].map(|name| twin.params.slice(name).unwrap());
        let grads = [Some(twin.grads.slice("t0").unwrap()), None];
        let before = twin.params.read_blocking("t1").unwrap();
        twin.grads.write("t1", &[1.0, 1.0, 1.0]).unwrap();
        optimizer.step(&params, &grads).unwrap();
        assert_eq!(twin.params.read_blocking("t1").unwrap(), before, "no gradient, no decay");
        optimizer.step(&params, Buffers::from(&twin.grads)).unwrap();
        assert_eq!([optimizer.t("t0").unwrap(), optimizer.t("t1").unwrap()], [2, 1]);
    }
}

#[test]
fn options_change_between_steps_without_making_anything() {
    let Some(gpu) = gpu("options between steps", 1) else { return };
    let config = Config::from_json(
        r#"{"optimizer": "adamw", "lr": 0.1, "groups": [
        {"tensors": ["t1"], "lr": 0.01, "beta1": 0.5}, {"tensors": ["t2"], "weight_decay": {"l2": 0.3}}]}"#,
    );
    let mut twin = Parity::new(&gpu, &config.unwrap(), &tensors(&[700, 3, 40]), 18);
    let check = |twin: &mut Parity| {
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    };
    check(&mut twin);
    macro_rules! both {
        ($call:ident($($argument:expr),*)) => {
            twin.optimizer.$call($($argument),*).unwrap();
            twin.reference.$call($($argument),*).unwrap();
            check(&mut twin);
        };
    }
    let counts = gpu.counts();
    let readbacks = |counts: wgpu_optim::Counts| (counts.bind_groups, counts.pipelines);
    both!(set_lr(0.02));
    both!(set("beta1", 0.7));
    both!(set("weight_decay", 0.5));
    both!(set("eps", 0.1));
    both!(set_group(1, "weight_decay", 0.05));
    both!(set_group(0, "lr", 0.3));
    both!(set_lr(0.04));
    both!(set_group(0, "beta1", 0.6));
    both!(set("beta1", 0.8));
    both!(set_t("t1", 4_294_967_297));
    assert_eq!(readbacks(gpu.counts()), readbacks(counts));
}

#[test]
fn groups_of_other_pipelines_take_a_dispatch_each() {
    let Some(gpu) = gpu("variants", 1) else { return };
    let momentum = |tensor: &str, momentum: f64| Group::new([tensor]).set("momentum", momentum);
    let config = Config::from_json(r#"{"optimizer": "sgd", "lr": 0.1, "momentum": 0.9}"#).unwrap();
    let config = config.group(momentum("t1", 0.5)).group(momentum("t3", 0.0)).group(momentum("t4", 0.0));
    let mut twin = Parity::new(&gpu, &config, &tensors(&[10, 2000, 5, 30, 4]), 19);
    for _ in 0..3 {
        let worst = twin.step();
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
    }
    let report = twin.optimizer.plan(&twin.params, &twin.grads).unwrap();
    assert_eq!((report.variants, report.windows, report.dispatches), (2, 2, 2));
    assert_eq!(twin.optimizer.slots("t3").unwrap().len(), 0);
    assert_eq!(report.bytes, 4 * (5 * (10 + 2000 + 5) + 3 * (30 + 4)));
}

#[test]
fn matrices_take_passes_over_lines_and_fewer_bytes() {
    let Some(gpu) = gpu("rows and columns", 1) else { return };
    let shaped = [("w", &[40, 100][..]), ("conv", &[8, 5, 3, 3]), ("b", &[1000]), ("s", &[])];
    let tensors = shaped.map(|(name, shape)| TensorSpec::f32(name, shape));
    let plan = |tensors: &[TensorSpec], decay: WeightDecay| {
        let mut twin =
            Parity::new(&gpu, &Adafactor { weight_decay: decay, ..Adafactor::default() }.into(), tensors, 24);
        let memory = twin.optimizer.memory();
        (twin.optimizer.plan(&twin.params, &twin.grads).unwrap(), memory)
    };
    let (report, memory) = plan(&tensors, WeightDecay::None);
    // Nothing has more than a chunk, so neither variant has sums to finish.
    assert_eq!((report.passes, report.variants, report.windows, report.dispatches), (5, 2, 2, (5 - 1) + (3 - 1)));
    assert_eq!(report.bytes, 24 * (4000 + 360) + 32 * (1000 + 1));
    // A matrix of one tile from left to right and from top to bottom; rows and columns of small ones leave no shares.
    assert_eq!(report.line_bytes, 4 * (5 * 40 + 4 * 100 + 2 * (40 + 100)) + 4 * 40 * (5 * 3 + 4 * 3));
    assert_eq!(memory.state, 4 * (40 + 100 + 40 * (3 + 3) + 1000 + 4));
    let (report, _) = plan(&tensors[..1], WeightDecay::None);
    assert_eq!((report.passes, report.windows, report.dispatches, report.bytes), (5, 1, 5 - 1, 24 * 4000));
    let (report, _) = plan(&tensors[2..], WeightDecay::None);
    assert_eq!((report.passes, report.windows, report.dispatches, report.bytes), (3, 1, 3 - 1, 32 * 1001));
    // With an L2 penalty the gradient is made of the parameter, too.
    assert_eq!(plan(&tensors[..1], WeightDecay::L2(0.1)).0.bytes, 28 * 4000);
    assert_eq!(plan(&tensors[2..], WeightDecay::L2(0.1)).0.bytes, 32 * 1001);
    // Row and column of a single element are numbers of the element.
    let single = [TensorSpec::f32("w", [6000, 1, 1])];
    let (report, memory) = plan(&single, WeightDecay::None);
    assert_eq!((report.passes, report.windows, report.dispatches, report.bytes), (3, 1, 3 - 1, 44 * 6000));
    assert_eq!((report.line_bytes, memory.state), (0, 8 * 6000));
    Optimizer::new(&tiny(&gpu), &single, Adafactor::default()).unwrap();
    let error = Optimizer::new(&tiny(&gpu), &[TensorSpec::f32("w", [4000, 2, 1])], Adafactor::default()).unwrap_err();
    assert!(
        error.to_string().ends_with("its rows and columns take 80512 bytes, a buffer holds at most 65536"),
        "{error}"
    );
}

#[test]
fn walks_that_see_lines_take_a_page_of_each_arena_at_a_time() {
    let Some(gpu) = gpu("pages of arenas", 1) else { return };
    // A page holds one of these tensors.
    let tensors = [0, 1, 2, 3].map(|i| TensorSpec::f32(format!("w{i}"), [120, 128]));
    let mut twin = Parity::new(&tiny(&gpu), &Adafactor::default().into(), &tensors, 25);
    let windows = twin.optimizer.plan(&twin.params, &twin.grads).unwrap().windows;
    assert_eq!(windows, tensors.len());
    let [params, grads] = [&twin.params, &twin.grads]
        .map(|arena| tensors.iter().map(|tensor| arena.slice(&tensor.name).unwrap()).collect::<Vec<_>>());
    let windows = twin.optimizer.plan(&params, &grads).unwrap().windows;
    assert!(windows < tensors.len(), "{windows} windows of slices");
}

#[test]
fn a_group_that_does_not_look_ahead_may_sit_out() {
    let Some(gpu) = gpu("look-ahead in groups", 1) else { return };
    let config = Config::from_json(
        r#"{"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "form": "velocity", "nesterov": "look_ahead",
            "groups": [{"tensors": ["t1"], "nesterov": "off"}]}"#,
    );
    let mut twin = Parity::new(&gpu, &config.unwrap(), &tensors(&[10, 2000, 5]), 22);
    for absent in [&[][..], &["t1"], &[]] {
        let worst = twin.step_without(absent);
        assert!(worst.ulps <= bound(&gpu), "without {absent:?}: {}", worst.text);
    }
}

#[test]
fn nothing_to_step_is_no_error() {
    let Some(gpu) = gpu("empty models", 2) else { return };
    for config in configs() {
        for sizes in [&[][..], &[0, 0]] {
            let mut twin = Parity::new(&gpu, &config, &tensors(sizes), 20);
            twin.step();
            let report = twin.optimizer.plan(&twin.params, &twin.grads).unwrap();
            assert_eq!((report.dispatches, report.bytes), (0, 0));
            assert_eq!(twin.optimizer.memory().state, 0);
        }
    }
}

#[test]
fn memory_is_what_it_says() {
    let Some(gpu) = gpu("memory", 2) else { return };
    for (config, slots) in configs().into_iter().zip([2, 1]) {
        let sizes = [1_000_000, 5, 1023, 9_000_001];
        let tensors = tensors(&sizes);
        let before = allocated(&gpu);
        let mut optimizer = Optimizer::new(&gpu, &tensors, config.clone()).unwrap();
        let memory = optimizer.memory();
        let padded: usize = sizes.iter().map(|size| size.next_multiple_of(4)).sum();
        assert_eq!(memory.state, (4 * slots * padded) as u64);
        match gpu.adapter_info().backend {
            wgpu::Backend::Gl => say("skipped: 1 case of memory: wgpu counts no bytes over GL"),
            _ => assert_eq!(allocated(&gpu) - before, memory.total(), "{}: wgpu's own count", config.name()),
        }
        let (params, grads) = (Arena::new(&gpu, &tensors).unwrap(), Arena::new(&gpu, &tensors).unwrap());
        optimizer.step(&params, &grads).unwrap();
        let memory = optimizer.memory();
        let rest = memory.total() - memory.state;
        assert!(rest * 100 < memory.state, "{}: {rest} bytes beside {} of state", config.name(), memory.state);
    }
}

/// Bytes of buffers that live on the device, as wgpu counts them.
fn allocated(gpu: &Gpu) -> u64 {
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    gpu.device().get_internal_counters().hal.buffer_memory.read() as u64
}

#[test]
fn state_comes_back_as_it_was_set() {
    let Some(gpu) = gpu("state", 2) else { return };
    for config in configs() {
        let mut twin = Parity::new(&gpu, &config, &all_tensors(), 21);
        for tensor in twin.tensors.clone() {
            for slot in twin.optimizer.slots(&tensor.name).unwrap() {
                let len = twin.reference.state(&tensor.name, slot).unwrap().len();
                let values: Vec<f32> = (0..len).map(|i| i as f32 + 0.5).collect();
                twin.optimizer.set_state(&tensor.name, slot, &values).unwrap();
                let found = pollster::block_on(twin.optimizer.state(&tensor.name, slot)).unwrap();
                assert_eq!(found, values, "{slot} of {}", tensor.name);
            }
        }
    }
}

#[test]
fn an_arena_spills_over_pages_and_reads_back() {
    let Some(gpu) = gpu("pages", 1) else { return };
    let tiny = tiny(&gpu);
    let tensors = [TensorSpec::f32("a", [40_000]), TensorSpec::f32("b", [200, 200]), TensorSpec::f32("c", [])];
    let arena = Arena::new(&tiny, &tensors).unwrap();
    let values: Vec<f32> = (0..40_000).map(|i| i as f32).collect();
    arena.write("b", &values).unwrap();
    arena.write("c", &[7.0]).unwrap();
    assert_ne!(arena.slice("a").unwrap().buffer, arena.slice("b").unwrap().buffer);
    assert_eq!(pollster::block_on(arena.read("b")).unwrap(), values);
    assert_eq!(arena.read_blocking("a").unwrap(), vec![0.0; 40_000]);
    assert_eq!(arena.read_blocking("c").unwrap(), [7.0]);
    assert_eq!(arena.size_bytes(), 4 * 40_000 + 4 * 40_000 + 16);
}
