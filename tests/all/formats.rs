//! Storage formats of 16 bits: every rounding on the device, every length with live neighbours, and what is refused.

use std::collections::BTreeMap;

use crate::common::twin::{Parity, check, fitting, noise, tensors};
use crate::common::{create, default_of, device, gpu, read, say, say_share, share};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use wgpu_optim::rules::ALL;
use wgpu_optim::{
    AdamW, Arena, BestParams, Config, DType, EarlyStopping, Ema, Gpu, Group, Optimizer, ParamRounding, Reference, Sgd,
    SkipNonfinite, Slice, TensorSpec, Verdict, wgpu,
};

const NARROW: [DType; 2] = [DType::F16, DType::Bf16];

fn sgd() -> Config {
    Config::from(Sgd { lr: 1.0, ..Sgd::default() })
}

/// A buffer that holds these bytes, whole words of them.
fn buffer_of(gpu: &Gpu, bytes: &[u8]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = create(gpu, bytes.len() as u64, usage);
    gpu.queue().write_buffer(&buffer, 0, bytes);
    buffer
}

fn bytes_of(gpu: &Gpu, buffer: &wgpu::Buffer) -> Vec<u8> {
    bytemuck::pod_collect_to_vec(&read(gpu, Slice::all(buffer)))
}

/// The numbers of a format, those halfway between two of them, and the neighbours of these in f32; infinities and NaN.
fn around_all(dtype: DType) -> Vec<f32> {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let numbers = dtype.decode(&all);
    let half_way = |pair: &[f32]| {
        let half = (f64::from(pair[0]) + f64::from(pair[1])) / 2.0;
        [half as f32, (half as f32).next_down(), (half as f32).next_up()]
    };
    let beside = numbers.windows(2).filter(|pair| pair.iter().all(|x| x.is_finite())).flat_map(half_way);
    let ends = [65_519.996, 65_520.0, 65_536.0, f32::MAX, 3.389_531_3e38, 3.396_177_8e38, 1e-30];
    let mut all: Vec<f32> = numbers.iter().copied().chain(beside).chain(ends).chain(ends.map(|x| -x)).collect();
    // A device may flush what is subnormal in f32.
    all.retain(|x| !x.is_subnormal());
    all
}

#[test]
fn a_step_rounds_every_number_as_the_cpu_does() {
    let Some(gpu) = gpu("roundings", 4) else { return };
    for (dtype, scalar) in NARROW.into_iter().flat_map(|dtype| [(dtype, false), (dtype, true)]) {
        let values = around_all(dtype);
        let tensor = TensorSpec::f32("w", [values.len()]).with_dtype(dtype);
        let params = Arena::new(&gpu, std::slice::from_ref(&tensor)).unwrap();
        params.write("w", &vec![-0.0; values.len()]).unwrap();
        // -0 - g is -g to the sign of a zero.
        let grads: Vec<f32> = values.iter().map(|value| -value).collect();
        let lead = if scalar { vec![0.0] } else { vec![] };
        let buffer = buffer_of(&gpu, bytemuck::cast_slice(&[&lead[..], &grads, &[0.0; 4]].concat()));
        let slices = [Slice::new(&buffer, 4 * lead.len() as u64, 4 * values.len() as u64)];
        let mut optimizer = Optimizer::new(&gpu, &[tensor], sgd()).unwrap();
        assert_eq!(optimizer.plan(&params, &slices).unwrap().scalar_tensors.len(), usize::from(scalar));
        optimizer.step(&params, &slices).unwrap();
        let found = params.read_blocking("w").unwrap();
        let expected = dtype.decode(&dtype.encode(&values));
        for ((value, found), expected) in values.iter().zip(found).zip(expected) {
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{value:e} in {dtype}: {found:e}, expected {expected:e}");
        }
    }
}

/// Parameters after `steps` steps of noise with stochastic rounding, and the gradients' format that of parameters.
fn rounded_by_chance(gpu: &Gpu, list: &[TensorSpec], seed: u64, steps: usize, first: &Bits) -> Bits {
    let of_grads: Vec<_> = list.iter().map(TensorSpec::grad_spec).collect();
    let (params, grads) = (Arena::new(gpu, list).unwrap(), Arena::new(gpu, &of_grads).unwrap());
    let config = Config::from(AdamW::default()).wrap(ParamRounding::Stochastic).seed(seed);
    let mut optimizer = Optimizer::new(gpu, list, config).unwrap();
    for tensor in list {
        params.write(&tensor.name, &first[&tensor.name]).unwrap();
        let rng = &mut StdRng::seed_from_u64(tensor.name.len() as u64);
        grads.write(&tensor.name, &noise(rng, tensor.len_elements() as usize)).unwrap();
    }
    (0..steps).for_each(|_| optimizer.step(&params, &grads).unwrap());
    list.iter().map(|t| (t.name.clone(), params.read_blocking(&t.name).unwrap())).collect()
}

/// Numbers of tensors by name.
type Bits = BTreeMap<String, Vec<f32>>;

#[test]
fn chance_hangs_on_seed_name_element_and_step_alone() {
    let Some(gpu) = gpu("stochastic rounding", 2) else { return };
    let (device, queue) = device(&gpu, |limits| {
        limits.max_storage_buffer_binding_size = 64 << 10;
        limits.max_compute_workgroups_per_dimension = 7;
    });
    let tiny = Gpu::new(&device, &queue);
    for dtype in NARROW {
        let list: Vec<_> = [("a", 30_001), ("bb", 7), ("ccc", 1030), ("dddd", 30_001)]
            .map(|(name, len)| TensorSpec::f32(name, [len]).with_dtype(dtype).with_grad_dtype(dtype))
            .into();
        let first: Bits = list.iter().map(|t| (t.name.clone(), vec![1.0; t.len_elements() as usize])).collect();
        let all = rounded_by_chance(&gpu, &list, 5, 3, &first);
        // Each alone, all in another order, and cut into small pieces.
        for tensor in &list {
            let alone = rounded_by_chance(&gpu, std::slice::from_ref(tensor), 5, 3, &first);
            assert!(alone[&tensor.name] == all[&tensor.name], "{dtype} {} alone", tensor.name);
        }
        let turned: Vec<_> = list.iter().rev().cloned().collect();
        assert!(rounded_by_chance(&gpu, &turned, 5, 3, &first) == all, "{dtype} in another order");
        assert!(rounded_by_chance(&tiny, &list, 5, 3, &first) == all, "{dtype} in small pieces");
        let other = rounded_by_chance(&gpu, &list, 6, 3, &first);
        assert!(other["a"] != all["a"] && other["bb"].len() == 7, "{dtype}: the seed changes nothing");
        let same = all["a"].iter().zip(&all["dddd"]).filter(|(a, d)| a == d).count();
        assert!(same < 30_001, "{dtype}: tensors share their chance");
    }
}

/// An update of a tenth of the distance between two numbers moves a tenth of the elements, and in the next step others.
#[test]
fn small_updates_count_on_average() {
    let Some(gpu) = gpu("small updates", 4) else { return };
    for dtype in NARROW {
        let gap = if dtype == DType::F16 { 2f32.powi(-10) } else { 2f32.powi(-7) };
        let list = [TensorSpec::f32("w", [100_000]).with_dtype(dtype)];
        let config = sgd().wrap(ParamRounding::Stochastic).wrap(SkipNonfinite(true));
        let (params, grads) = (Arena::new(&gpu, &list).unwrap(), Arena::new(&gpu, &[list[0].grad_spec()]).unwrap());
        params.write("w", &[1.0; 100_000]).unwrap();
        let mut optimizer = Optimizer::new(&gpu, &list, config.clone()).unwrap();
        let mut reference = Reference::<f32>::new(&config, &list).unwrap();
        let mut values = [ndarray::ArrayD::from_elem(vec![100_000], 1.0f32)];
        for step in 1..=20 {
            // A skipped step changes nothing, and takes no chance.
            let bad = step % 5 == 0;
            let grad = vec![if bad { f32::NAN } else { -0.1 * gap }; 100_000];
            grads.write("w", &grad).unwrap();
            optimizer.step(&params, &grads).unwrap();
            let grad = ndarray::ArrayD::from_shape_vec(vec![100_000], grad).unwrap();
            reference.step(&mut values, &[Some(grad)]).unwrap();
            let found = params.read_blocking("w").unwrap();
            assert!(values[0].iter().eq(&found), "{dtype}: the GPU rounds otherwise than the CPU in step {step}");
            let mean = found.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
            let applied = f64::from(step - step / 5);
            let expected = 1.0 + 0.1 * applied * f64::from(gap);
            // Five standard deviations of the mean of as many draws.
            let bound = 5.0 * f64::from(gap) * (0.09 * applied / 1e5).sqrt();
            assert!((mean - expected).abs() < bound, "{dtype} in step {step}: {mean}, expected {expected}");
        }
        // Rounded to the nearest, no element moves.
        grads.write("w", &vec![-0.1 * gap; 100_000]).unwrap();
        params.write("w", &[1.0; 100_000]).unwrap();
        Optimizer::new(&gpu, &list, sgd()).unwrap().step(&params, &grads).unwrap();
        assert!(params.read_blocking("w").unwrap().iter().all(|&x| x == 1.0));
    }
}

#[test]
fn a_master_trains_as_f32_does() {
    trains_as_f32_does(ParamRounding::Master, "master", NARROW);
}

#[test]
fn a_remainder_trains_as_f32_does() {
    trains_as_f32_does(ParamRounding::Remainder, "remainder", [DType::Bf16; 2]);
}

/// The parameters in f32 that those in memory and a slot stand for, and what must stand in memory.
fn whole_of(kind: ParamRounding, format: DType, params: &[f32], slot: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
    if kind == ParamRounding::Master {
        let copies = format.decode(&format.encode(&slot));
        return (slot, copies);
    }
    let whole: Vec<f32> = params.iter().zip(slot).map(|(&p, rest)| ParamRounding::whole(p, rest)).collect();
    let copies = whole.iter().map(|&p| ParamRounding::split(p).0).collect();
    (whole, copies)
}

/// Every number that a training in f32 has is there, and the parameters are its rounded copies: around every rule, with
/// steps that are skipped, Lookahead, a mean that is swapped, and moves.
fn trains_as_f32_does(kind: ParamRounding, slot: &str, formats: [DType; 2]) {
    let wraps = [
        json!({}),
        json!({"skip_nonfinite": true, "lookahead": {"k": 2}, "ema": {"decay": 0.75}}),
        json!({"accumulate": 2, "clip": {"global_norm": 1}}),
    ];
    let Some(gpu) = gpu(slot, wraps.len() * ALL.len()) else { return };
    let (mut trained, mut refused) = (0, vec![]);
    let all: Vec<_> = ALL.iter().flat_map(|row| wraps.iter().map(move |wrap| (row, wrap))).collect();
    let tried = share(all.clone(), 2, 0);
    say_share(slot, tried.len(), all.len());
    for &(row, wrap) in &tried {
        let mut value = json!({"optimizer": row.name});
        value.as_object_mut().unwrap().extend(wrap.as_object().unwrap().clone());
        let Ok(config) = Config::from_value(value) else {
            refused.push(row.name);
            continue;
        };
        let what = format!("{} in {wrap}", row.name);
        let in_f32 = fitting(&config, &tensors(&[5, 1030, 9001, 1]));
        let narrow: Vec<_> =
            in_f32.iter().zip([0, 1, 1, 0]).map(|(tensor, n)| tensor.clone().with_dtype(formats[n])).collect();
        let kept = config.clone().wrap(kind);
        let [mut whole, mut copies] =
            [(&config, &in_f32), (&kept, &narrow)].map(|(config, list)| Parity::new(&gpu, config, list, 4));
        // Both start where the copies do.
        for (tensor, values) in in_f32.iter().zip(&copies.values) {
            let values: Vec<f32> = values.iter().copied().collect();
            whole.params.write(&tensor.name, &values).unwrap();
        }
        whole.values = copies.values.clone();
        for step in 0..6 {
            let culprit = step == 3 && config.wrappers().skips();
            for twin in [&mut whole, &mut copies] {
                let worst = twin.step_changed(&[], |i, grads| {
                    if culprit && i == 1 {
                        grads[7] = f32::NAN;
                    }
                });
                assert_eq!(worst.ulps, 0.0, "{what}, step {step}: {}", worst.text);
                // Behind the last micro-batch of a step.
                if step == 5 && twin.optimizer.has_eval() {
                    assert_eq!(twin.evaluate().ulps, 0.0, "{what}");
                }
                if step == 4 && config.wrappers().ema().is_some() {
                    assert_eq!(twin.swap().ulps, 0.0, "{what}");
                }
            }
            if step == 4 && config.wrappers().ema().is_some() {
                // What `swap` copies out stands where parameters do.
                for (tensor, i) in narrow.iter().zip(0..) {
                    let params = copies.params.read_blocking(&tensor.name).unwrap();
                    let kept = copies.optimizer.state_blocking(&tensor.name, slot).unwrap();
                    let (values, _) = whole_of(kind, tensor.dtype, &params, kept);
                    whole.params.write(&tensor.name, &values).unwrap();
                    whole.values[i].iter_mut().zip(&values).for_each(|(place, &value)| *place = value);
                }
            }
            for (tensor, narrow) in in_f32.iter().zip(&narrow) {
                let expected = whole.params.read_blocking(&tensor.name).unwrap();
                let found = copies.params.read_blocking(&tensor.name).unwrap();
                let started = copies.optimizer.t(&tensor.name).unwrap() > 0;
                if started && !(step == 4 && config.wrappers().ema().is_some()) {
                    let kept = copies.optimizer.state_blocking(&tensor.name, slot).unwrap();
                    let (values, rounded) = whole_of(kind, narrow.dtype, &found, kept);
                    assert!(values == expected, "{what}, step {step}: the {slot} of {} is another", tensor.name);
                    assert!(found == rounded, "{what}, step {step}: {} is no rounded copy", tensor.name);
                }
            }
        }
        trained += 1;
    }
    say(&format!("{slot}: {trained} trainings as in f32; refused: {refused:?}"));
    assert!(3 * trained > 2 * tried.len());
}

#[test]
fn a_master_is_counted_saved_and_taken_over() {
    let Some(gpu) = gpu("a master from place to place", 1) else { return };
    let list =
        [TensorSpec::f32("w", [1030]).with_dtype(DType::Bf16).with_grad_dtype(DType::Bf16), TensorSpec::f32("b", [7])];
    let config = Config::from(AdamW::default()).wrap(ParamRounding::Master);
    let mut twin = Parity::new(&gpu, &config, &list, 3);
    let slots = twin.optimizer.slots("w").unwrap();
    assert_eq!((slots, twin.optimizer.slots("b").unwrap()), (vec!["m", "v", "master"], vec!["m", "v"]));
    // In the first step the parameters themselves are read.
    let bytes = |twin: &mut Parity| twin.optimizer.plan(&twin.params, &twin.grads).unwrap().bytes;
    assert_eq!(bytes(&mut twin), 26 * 1030 + 28 * 7);
    twin.step();
    assert_eq!(bytes(&mut twin), 28 * 1030 + 28 * 7);
    // Growth, and a checkpoint, change nothing of it.
    let master = twin.optimizer.state_blocking("w", "master").unwrap();
    let more = [TensorSpec::f32("x", [3]).with_dtype(DType::F16)];
    twin.optimizer.add_blocking(&more).unwrap();
    assert!(twin.optimizer.state_blocking("w", "master").unwrap() == master);
    let all = [&list[..], &more].concat();
    let saved = twin.optimizer.save_blocking().unwrap();
    let loaded = Optimizer::load(&gpu, &all, &saved).unwrap();
    assert!(loaded.state_blocking("w", "master").unwrap() == master);
    let mut reference = Reference::<f32>::load(&all, &saved).unwrap();
    let values: Vec<f32> = reference.state("w", "master").unwrap().iter().copied().collect();
    assert!(values == master);
    assert!(reference.set_state("w", "master", &master[1..]).is_err());
}

/// Numbers of every upper half, with the lower halves around which a rounding turns.
#[test]
fn a_step_splits_every_number_as_the_cpu_does() {
    let Some(gpu) = gpu("numbers in two halves", 1) else { return };
    let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let bits = (0..=u16::MAX).flat_map(|upper| lower.map(|lower| u32::from(upper) << 16 | lower));
    let mut values: Vec<f32> = bits.map(f32::from_bits).collect();
    // A device may flush what is subnormal in f32.
    values.retain(|x| !x.is_subnormal());
    let list = [TensorSpec::f32("w", [values.len()]).with_dtype(DType::Bf16)];
    let mut twin = Parity::new(&gpu, &sgd().wrap(ParamRounding::Remainder), &list, 1);
    twin.params.write("w", &vec![-0.0; values.len()]).unwrap();
    twin.values[0].fill(-0.0);
    let worst = twin.step_with(vec![values.iter().map(|value| -value).collect()], &[]);
    assert_eq!(worst.ulps, 0.0, "{}", worst.text);
    let found = twin.params.read_blocking("w").unwrap();
    let kept = twin.optimizer.state_blocking("w", "remainder").unwrap();
    let expected = twin.reference.state("w", "remainder").unwrap();
    assert!(kept.iter().eq(&expected), "the GPU keeps another remainder than the CPU");
    for ((value, found), rest) in values.into_iter().zip(found).zip(kept) {
        let whole = ParamRounding::whole(found, rest);
        assert!(whole.to_bits() == value.to_bits() || whole.is_nan() && value.is_nan(), "{value:e}: {found:e}, {rest}");
        assert!(found.is_nan() == value.is_nan() && (-32768.0..=32767.0).contains(&rest), "{value:e}: {found:e}");
        let nearest = DType::Bf16.round(value.into()) as f32;
        let is_half_way = rest == -32768.0;
        assert!(found == nearest || is_half_way || value.is_nan(), "{value:e}: {found:e}, the nearest is {nearest:e}");
    }
}

#[test]
fn a_remainder_is_counted_saved_and_taken_over() {
    let Some(gpu) = gpu("a remainder from place to place", 1) else { return };
    let of = |len: usize| TensorSpec::f32("w", [len]).with_dtype(DType::Bf16).with_grad_dtype(DType::Bf16);
    let list = [of(1031), TensorSpec::f32("b", [7])];
    let config = Config::from(AdamW::default()).wrap(ParamRounding::Remainder);
    let mut twin = Parity::new(&gpu, &config, &list, 3);
    let slots = twin.optimizer.slots("w").unwrap();
    assert_eq!((slots, twin.optimizer.slots("b").unwrap()), (vec!["m", "v", "remainder"], vec!["m", "v"]));
    // Two numbers in f32 and one of two bytes, each block on whole vectors of four.
    assert_eq!(twin.optimizer.memory().state, (10 * 1024 + 10 * 8) + 8 * 8);
    let bytes = |twin: &mut Parity| twin.optimizer.plan(&twin.params, &twin.grads).unwrap().bytes;
    assert_eq!(bytes(&mut twin), 24 * 1031 + 28 * 7);
    assert_eq!(twin.step().ulps, 0.0);
    assert_eq!(bytes(&mut twin), 26 * 1031 + 28 * 7);
    let kept = twin.optimizer.state_blocking("w", "remainder").unwrap();
    assert!(kept.iter().any(|&rest| rest > 0.0) && kept.iter().any(|&rest| rest < 0.0));
    let more = [TensorSpec::f32("x", [3]).with_dtype(DType::Bf16)];
    twin.optimizer.add_blocking(&more).unwrap();
    assert!(twin.optimizer.state_blocking("w", "remainder").unwrap() == kept);
    let f16 = [TensorSpec::f32("y", [3]).with_dtype(DType::F16)];
    let text = "param_rounding of tensor y is remainder, must be another kind for parameters in f16; bf16 alone is the half of \
         an f32";
    check("an f16 tensor", &twin.optimizer.add_blocking(&f16).unwrap_err(), text);
    let all = [&list[..], &more].concat();
    let saved = twin.optimizer.save_blocking().unwrap();
    let mut loaded = Optimizer::load(&gpu, &all, &saved).unwrap();
    assert!(loaded.state_blocking("w", "remainder").unwrap() == kept);
    let mut reference = Reference::<f32>::load(&all, &saved).unwrap();
    assert!(reference.state("w", "remainder").unwrap().iter().eq(&kept));
    // What is set is rounded to what the slot holds, on both.
    let odd: Vec<f32> = (0..1031).map(|i| [0.5, 1.5, 40_000.0, -40_000.0, f32::NAN][i % 5]).collect();
    loaded.set_state("w", "remainder", &odd).unwrap();
    reference.set_state("w", "remainder", &odd).unwrap();
    let found = loaded.state_blocking("w", "remainder").unwrap();
    assert_eq!(found[..5], [0.0, 2.0, 32_767.0, -32_768.0, 0.0]);
    assert!(reference.state("w", "remainder").unwrap().iter().eq(&found));
}

#[test]
fn groups_round_each_their_own_way() {
    let Some(gpu) = gpu("roundings by group", 4) else { return };
    let list: Vec<_> = tensors(&[1030, 1030, 1030, 1030]).into_iter().map(|t| t.with_dtype(DType::Bf16)).collect();
    let in_f32 = TensorSpec::f32("f", [5]);
    let all = [&list[..], &[in_f32]].concat();
    let config = json!({"optimizer": "adamw", "lr": 0.01, "seed": 3, "groups": [
        {"tensors": ["t1"], "param_rounding": "stochastic"},
        {"tensors": ["t2", "f"], "param_rounding": "master", "lr": 0.02},
        {"tensors": ["t3"], "param_rounding": "remainder"},
    ]});
    let config = Config::from_value(config).unwrap();
    let written = Config::from_json(&config.to_json().unwrap()).unwrap();
    let mut twin = Parity::new(&gpu, &written, &all, 5);
    for _ in 0..4 {
        let worst = twin.step();
        assert_eq!(worst.ulps, 0.0, "{}", worst.text);
    }
    let slots = |name: &str| twin.optimizer.slots(name).unwrap()[2..].to_vec();
    assert_eq!(["t0", "t1", "t2", "t3", "f"].map(slots), [vec![], vec![], vec!["master"], vec!["remainder"], vec![]]);
    // Each as where the whole model is rounded so.
    for (name, kind) in [("t1", ParamRounding::Stochastic), ("t2", ParamRounding::Master)] {
        let alone = Config::from(AdamW { lr: if name == "t1" { 0.01 } else { 0.02 }, ..AdamW::default() });
        let alone = alone.wrap(kind).seed(if name == "t1" { 3 } else { 0 });
        let mut other = Parity::new(&gpu, &alone, &all, 5);
        (0..4).for_each(|_| drop(other.step()));
        let found = [&twin, &other].map(|twin| twin.params.read_blocking(name).unwrap());
        assert!(found[0] == found[1], "{name} in a group is rounded otherwise");
    }
    // A checkpoint knows the groups' kinds.
    let saved = twin.optimizer.save_blocking().unwrap();
    let loaded = Optimizer::load(&gpu, &all, &saved).unwrap();
    assert_eq!(loaded.slots("t3").unwrap(), vec!["m", "v", "remainder"]);
    let kept = |optimizer: &Optimizer| optimizer.state_blocking("t3", "remainder").unwrap();
    assert!(kept(&loaded) == kept(&twin.optimizer));
    // A group that joins may have its own kind, where there is any.
    let more = [TensorSpec::f32("n", [9]).with_dtype(DType::Bf16)];
    let group = Group::new(["n"]).set("param_rounding", "remainder");
    let mut grown = loaded;
    grown.add_group_blocking(group.clone(), &more).unwrap();
    assert_eq!(grown.slots("n").unwrap(), vec!["m", "v", "remainder"]);
    let mut plain = Optimizer::new(&gpu, &list, AdamW::default()).unwrap();
    let text = "groups[0].param_rounding is remainder, must be nearest where no tensor of the optimizer was rounded \
                otherwise before";
    check("a first kind", &plain.add_group_blocking(group, &more).unwrap_err(), text);
}

#[test]
fn a_group_has_its_own_seed() {
    let Some(gpu) = gpu("seeds by group", 3) else { return };
    let list: Vec<_> = tensors(&[1030, 1030, 1030]).into_iter().map(|t| t.with_dtype(DType::Bf16)).collect();
    let whole = |seed: u64| json!({"optimizer": "adamw", "param_rounding": "stochastic", "state_format": "q8", "min_elements": 0, "seed": seed});
    let mut value = whole(3);
    value["groups"] = json!([{"tensors": ["t1"], "seed": 0}, {"tensors": ["t2"], "seed": 1u64 << 40}]);
    let config = Config::from_value(value).unwrap();
    let written = Config::from_json(&config.to_json().unwrap()).unwrap();
    let mut twin = Parity::new(&gpu, &written, &list, 5);
    (0..3).for_each(|_| assert_eq!(twin.step().ulps, 0.0));
    let saved = twin.optimizer.save_blocking().unwrap();
    let mut loaded = Optimizer::load(&gpu, &list, &saved).unwrap();
    let before = Arena::new(&gpu, &list).unwrap();
    for tensor in &list {
        before.write(&tensor.name, &twin.params.read_blocking(&tensor.name).unwrap()).unwrap();
    }
    assert_eq!(twin.step().ulps, 0.0);
    loaded.step(&before, &twin.grads).unwrap();
    // Each as where the whole model has its seed, and a checkpoint keeps the seeds.
    for (name, seed) in [("t0", 3), ("t1", 0), ("t2", 1 << 40)] {
        let mut other = Parity::new(&gpu, &Config::from_value(whole(seed)).unwrap(), &list, 5);
        (0..4).for_each(|_| drop(other.step()));
        let found = twin.params.read_blocking(name).unwrap();
        assert!(found == other.params.read_blocking(name).unwrap(), "{name} draws by another seed");
        let kept = [&twin.optimizer, &other.optimizer].map(|it| it.state_blocking(name, "m").unwrap());
        assert!(kept[0] == kept[1], "the state of {name} draws by another seed");
        assert!(found == before.read_blocking(name).unwrap(), "{name} draws by another seed behind a checkpoint");
    }
}

#[test]
fn roundings_that_would_do_nothing_are_refused() {
    let list = tensors(&[3]);
    for kind in ["stochastic", "master", "remainder"] {
        let value = json!({"optimizer": "sgd", "groups": [{"tensors": ["t0"], "param_rounding": kind}]});
        let text = format!("groups[0].param_rounding is {kind}, must be left out where every parameter is in f32");
        check(kind, &Config::from_value(value).unwrap().groups(&list).unwrap_err(), &text);
    }
    let narrow = [list[0].clone().with_dtype(DType::F16)];
    let text = "param_rounding of tensor t0 is remainder, must be another kind for parameters in f16; bf16 alone is the \
                half of an f32";
    check("f16", &sgd().wrap(ParamRounding::Remainder).groups(&narrow).unwrap_err(), text);
    let kinds = [
        (ParamRounding::Stochastic, "stochastic"),
        (ParamRounding::Master, "master"),
        (ParamRounding::Remainder, "remainder"),
    ];
    for (kind, name) in kinds {
        let text = format!("param_rounding is {name}, must be left out where every parameter is in f32");
        check(name, &sgd().wrap(kind).groups(&list).unwrap_err(), &text);
        check(name, &Reference::<f32>::new(&sgd().wrap(kind), &list).unwrap_err(), &text);
    }
    let seed = |value| Config::from_value(value).unwrap_err();
    let text = "seed is 3, must be left out unless param_rounding is stochastic or state_format is not f32";
    check("a seed", &seed(json!({"optimizer": "sgd", "seed": 3})), text);
    check("a seed", &seed(json!({"optimizer": "sgd", "seed": 3, "param_rounding": "master"})), text);
    let of_group = json!({"optimizer": "adamw", "state_format": "q8", "groups": [
        {"tensors": ["w"], "state_format": "f32", "seed": 3}]});
    check("a seed of a group", &seed(of_group), &format!("groups[0].{text}"));
    // No tensor that draws is left to the top level.
    let all = json!({"optimizer": "adamw", "seed": 3, "groups": [{"tensors": ["w"], "param_rounding": "master"}]});
    check("a seed", &seed(all), text);
    let group = json!({"optimizer": "sgd", "groups": [{"tensors": ["w"], "param_rounding": "up"}]});
    let text = "configuration: groups[0].param_rounding: unknown variant `up`, expected one of `nearest`, \
                `stochastic`, `master`, `remainder`";
    check("a group", &seed(group), text);
    let matrix = [TensorSpec::f32("w", [8, 8]).with_dtype(DType::F16)];
    let config = json!({"optimizer": "adafactor", "weight_decay": {"l2": 0.1}, "param_rounding": "master"});
    let text =
        "weight_decay of tensor w is l2, must be another kind where a master is kept and the rule has rows and columns";
    check("a penalty", &Config::from_value(config).unwrap().groups(&matrix).unwrap_err(), text);
}

#[test]
fn a_step_by_chance_takes_a_neighbour_of_every_number() {
    let Some(gpu) = gpu("roundings by chance", 2) else { return };
    for dtype in NARROW {
        let values = around_all(dtype);
        let list = [TensorSpec::f32("w", [values.len()]).with_dtype(dtype)];
        let config = sgd().wrap(ParamRounding::Stochastic).seed(u64::MAX);
        let mut twin = Parity::new(&gpu, &config, &list, 1);
        twin.params.write("w", &vec![-0.0; values.len()]).unwrap();
        twin.values[0].fill(-0.0);
        let worst = twin.step_with(vec![values.iter().map(|value| -value).collect()], &[]);
        assert_eq!(worst.ulps, 0.0, "{}", worst.text);
        let found = twin.params.read_blocking("w").unwrap();
        let largest = dtype.decode(&dtype.encode(&[if dtype == DType::F16 { 65_504.0 } else { 3.389_531_3e38 }]))[0];
        for (&value, &found) in values.iter().zip(&found) {
            if value.is_nan() {
                assert!(found.is_nan(), "{dtype}");
                continue;
            }
            assert_eq!(found.is_infinite(), value.is_infinite(), "{value:e} in {dtype}: {found:e}");
            if dtype.round(value.into()) == f64::from(value) {
                assert_eq!(found.to_bits(), value.to_bits(), "{dtype}");
            } else {
                // Neither neighbour is farther than one step of the format.
                let gap = (value.abs() * if dtype == DType::F16 { 2f32.powi(-10) } else { 2f32.powi(-7) }).max(6e-8);
                let gap = if dtype == DType::F16 { gap } else { gap.min(value.abs() * 0.01) };
                let is_near = (found - value.clamp(-largest, largest)).abs() <= gap;
                assert!(is_near, "{value:e} in {dtype}: {found:e}");
            }
        }
    }
}

/// One tensor behind the other, each on the first word that is free, with words of the caller's between them: its
/// parameters in one buffer, gradients in another whose tensors start in the middle of words. The bits are those of
/// arenas, and no other byte changes.
fn beside_each_other(gpu: &Gpu, config: &Config, lens: &[usize], param: DType, grad: DType, out_of_place: bool) {
    let list: Vec<_> = tensors(lens).into_iter().map(|t| t.with_dtype(param).with_grad_dtype(grad)).collect();
    let of_grads: Vec<_> = list.iter().map(TensorSpec::grad_spec).collect();
    let rng = &mut StdRng::seed_from_u64(3);
    let arenas = [Arena::new(gpu, &list).unwrap(), Arena::new(gpu, &of_grads).unwrap()];
    // Bytes that no format reads as a number by chance.
    const CANARY: u8 = 0xa5;
    let (mut params, mut grads) = (vec![], vec![CANARY; 2]);
    let (mut of_params, mut of_gradients) = (vec![], vec![]);
    for (i, tensor) in list.iter().enumerate() {
        let values = noise(rng, lens[i]);
        arenas[0].write(&tensor.name, &values).unwrap();
        params.resize(params.len().next_multiple_of(4) + 4 * (i % 2), CANARY);
        of_params.push((params.len() as u64, tensor.size_bytes()));
        params.extend(param.encode(&values));
        let values = noise(rng, lens[i]);
        arenas[1].write(&tensor.name, &values).unwrap();
        grads.resize(grads.len().next_multiple_of(grad.size_bytes() as usize), CANARY);
        of_gradients.push((grads.len() as u64, tensor.grad_size_bytes()));
        grads.extend(grad.encode(&values));
    }
    for bytes in [&mut params, &mut grads] {
        bytes.resize(bytes.len().next_multiple_of(4), CANARY);
    }
    let behind = vec![CANARY; params.len()];
    let [param_buffer, grad_buffer] = [&params, &grads].map(|bytes| buffer_of(gpu, bytes));
    let out_buffer = buffer_of(gpu, &behind);
    fn slices<'a>(buffer: &'a wgpu::Buffer, places: &[(u64, u64)]) -> Vec<Slice<'a>> {
        places.iter().map(|&(offset, size)| Slice::new(buffer, offset, size)).collect()
    }
    let given = [slices(&param_buffer, &of_params), slices(&grad_buffer, &of_gradients)];
    let outs = slices(&out_buffer, &of_params);
    let mut optimizers = [(); 2].map(|()| Optimizer::new(gpu, &list, config.clone()).unwrap());
    optimizers[0].step(&arenas[0], &arenas[1]).unwrap();
    let (found, before) = if out_of_place {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        optimizers[1].encode_into(&mut encoder, &given[0], &given[1], &outs).unwrap();
        gpu.queue().submit([encoder.finish()]);
        assert!(bytes_of(gpu, &param_buffer) == params, "a step out of place writes its input");
        (bytes_of(gpu, &out_buffer), behind)
    } else {
        optimizers[1].step(&given[0], &given[1]).unwrap();
        (bytes_of(gpu, &param_buffer), params)
    };
    let mut expected = before;
    for (tensor, &(offset, size)) in list.iter().zip(&of_params) {
        let values = arenas[0].read_blocking(&tensor.name).unwrap();
        expected[offset as usize..][..size as usize].copy_from_slice(&param.encode(&values));
    }
    let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    assert_eq!(differs, None, "the first byte that differs, of {lens:?} in {param} and {grad}, {}", config.name());
    assert!(bytes_of(gpu, &grad_buffer) == grads, "gradients changed");
}

#[test]
fn every_length_leaves_its_neighbours_alone() {
    let lens: Vec<usize> = (1..=130).collect();
    let Some(gpu) = gpu("lengths", 10) else { return };
    for param in DType::ALL {
        for grad in DType::ALL {
            for out_of_place in [false, true] {
                beside_each_other(&gpu, &AdamW::default().into(), &lens, param, grad, out_of_place);
            }
        }
    }
    let remainder = Config::from(AdamW::default()).wrap(ParamRounding::Remainder);
    for out_of_place in [false, true] {
        beside_each_other(&gpu, &remainder, &lens, DType::Bf16, DType::F16, out_of_place);
    }
    for row in ALL.iter().filter(|row| !default_of(row).has_products()) {
        beside_each_other(&gpu, &default_of(row).into(), &lens, DType::Bf16, DType::Bf16, false);
        // Around blocks and chunks.
        beside_each_other(&gpu, &default_of(row).into(), &[1023, 1025, 8193, 3, 4097], DType::F16, DType::Bf16, false);
    }
}

#[test]
fn a_word_belongs_to_one_tensor() {
    let Some(gpu) = gpu("halves of words", 4) else { return };
    let buffer = buffer_of(&gpu, &[0; 64]);
    let other = buffer_of(&gpu, &[0; 64]);
    let list: Vec<_> =
        tensors(&[3, 4]).into_iter().map(|t| t.with_dtype(DType::Bf16).with_grad_dtype(DType::F16)).collect();
    let slice = |buffer, offset, len: u64| Slice::new(buffer, offset, 2 * len);
    let apart = [slice(&other, 0, 3), slice(&other, 8, 4)];
    let step = |params: [Slice; 2], grads: [Slice; 2]| {
        Optimizer::new(&gpu, &list, sgd()).unwrap().step(&params, &grads).map_err(|error| error.to_string())
    };
    let inside = |params, grads| step(params, grads).unwrap_err();
    // A gradient in the other half of a parameter's last word.
    assert_eq!(
        inside([slice(&buffer, 0, 3), slice(&buffer, 16, 4)], [slice(&buffer, 6, 3), slice(&other, 8, 4)]),
        "parameter t0 and gradient t0 share a word of 4 bytes that a step writes: bytes 0..6 and 6..12"
    );
    assert_eq!(
        step([slice(&buffer, 0, 3), slice(&buffer, 16, 4)], [slice(&buffer, 8, 3), slice(&other, 8, 4)]),
        Ok(())
    );
    // Two gradients in one word are read alone.
    assert_eq!(step([slice(&buffer, 0, 3), slice(&buffer, 8, 4)], [slice(&other, 2, 3), slice(&other, 8, 4)]), Ok(()));
    assert_eq!(
        inside([slice(&buffer, 0, 3), slice(&buffer, 6, 4)], apart),
        "parameter of tensor t1: offset is 6, must be a multiple of 4 bytes"
    );
    let odd = [slice(&other, 0, 3), slice(&other, 7, 4)];
    assert_eq!(
        inside([slice(&buffer, 0, 3), slice(&buffer, 8, 4)], odd),
        "gradient of tensor t1: offset is 7, must be a multiple of 2 bytes"
    );
    // Clearing goes by words.
    let mut optimizer = Optimizer::new(&gpu, &list, sgd()).unwrap();
    optimizer.clear_grads(true);
    let grads = [slice(&other, 2, 3), slice(&other, 8, 4)];
    check(
        "cleared",
        &optimizer.step(&[slice(&buffer, 0, 3), slice(&buffer, 8, 4)], &grads).unwrap_err(),
        "gradient of tensor t0: offset is 2, must be a multiple of 4 bytes to be cleared",
    );
}

#[test]
fn what_a_format_cannot_do_is_refused_by_name() {
    let Some(gpu) = gpu("refusals of formats", 3) else { return };
    for dtype in NARROW {
        let list = [TensorSpec::f32("b", [3]), TensorSpec::f32("w", [4]).with_dtype(dtype)];
        let arena = Arena::new(&gpu, &list).unwrap();
        arena.write("w", &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut twin = Parity::new(&gpu, &sgd().wrap(Ema::default()), &list, 1);
        let text =
            format!("format of parameter w is {dtype}, must be f32 to swap in place; ema_into copies the mean out");
        twin.refuses("a swap", &text, |twin| twin.optimizer.swap_ema(&twin.params));
        check("a swap on the CPU", &twin.reference.swap_ema(&mut twin.values).unwrap_err(), &text);
        // What is given in another format.
        let in_f32 = Arena::new(&gpu, &tensors(&[3, 4])).unwrap();
        let others: Vec<_> = tensors(&[3, 4]).into_iter().map(|tensor| tensor.with_dtype(dtype)).collect();
        let mut optimizer = Optimizer::new(&gpu, &others, sgd()).unwrap();
        let text = format!("parameter of tensor t0 has t0 [3] of f32, expected t0 [3] of {dtype}");
        check("an arena", &optimizer.step(&in_f32, &in_f32).unwrap_err(), &text);
        let slices = [in_f32.slice("t0").unwrap(), in_f32.slice("t1").unwrap()];
        let text = "parameter of tensor t0 has 12 bytes, expected 6 bytes";
        check("a slice", &optimizer.step(&slices, &in_f32).unwrap_err(), text);
    }
}

#[test]
fn the_best_parameters_come_back_bit_by_bit() {
    let Some(gpu) = gpu("a snapshot of 16 bits", 2) else { return };
    for dtype in NARROW {
        let list: Vec<_> = tensors(&[7, 1, 1030]).into_iter().map(|tensor| tensor.with_dtype(dtype)).collect();
        let params = Arena::new(&gpu, &list).unwrap();
        let fill = |seed| {
            let rng = &mut StdRng::seed_from_u64(seed);
            list.iter().for_each(|t| params.write(&t.name, &noise(rng, t.len_elements() as usize)).unwrap());
        };
        let all = || list.iter().map(|t| params.read_blocking(&t.name).unwrap()).collect::<Vec<_>>();
        let mut best = BestParams::new(&gpu, &list, EarlyStopping::default()).unwrap();
        fill(1);
        let before = all();
        assert_eq!(best.feed(1.0, &params).unwrap(), Verdict::Improved);
        fill(2);
        assert!(all() != before);
        best.restore(&params).unwrap();
        assert_eq!(all(), before);
    }
}

#[test]
fn tensors_of_one_combination_of_formats_are_one_dispatch() {
    let Some(gpu) = gpu("dispatches of formats", 4) else { return };
    let (narrow, wide) = ((DType::Bf16, DType::Bf16), (DType::F32, DType::F32));
    for (pairs, state, dispatches) in [
        (vec![narrow], json!({}), 1),
        (vec![(DType::Bf16, DType::F16), wide], json!({}), 2),
        // Every fourth tensor has coded state.
        (vec![narrow], json!({"state_format": "q8", "min_elements": 8}), 2),
        (vec![narrow, wide], json!({"state_format": {"m": "q8", "v": "bf16"}, "min_elements": 8}), 3),
    ] {
        let of = |(i, tensor): (usize, TensorSpec)| {
            let (param, grad) = pairs[i % pairs.len()];
            tensor.with_dtype(param).with_grad_dtype(grad)
        };
        let lens: Vec<usize> = (0..40).map(|i| if i % 4 == 0 { 10 } else { 5 }).collect();
        let list: Vec<_> = tensors(&lens).into_iter().enumerate().map(of).collect();
        let mut config = json!({"optimizer": "adamw"});
        config.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        let mut twin = Parity::new(&gpu, &Config::from_value(config).unwrap(), &list, 3);
        let plan = twin.optimizer.plan(&twin.params, &twin.grads).unwrap();
        assert_eq!(plan.dispatches, dispatches, "{pairs:?} {state}");
        if state == json!({}) {
            // Two parameters, a gradient, and two slots read and written.
            let bytes = |t: &TensorSpec| (2 * t.dtype.size_bytes() + t.grad_dtype.size_bytes() + 16) * t.len_elements();
            assert_eq!(plan.bytes, list.iter().map(bytes).sum::<u64>(), "{pairs:?}");
        }
        assert_eq!(twin.step().ulps, 0.0, "{pairs:?} {state}");
    }
}

/// The loss of a softmax regression with these weights, and its gradient.
fn softmax_loss(points: &[[f64; 8]], weights: &ndarray::ArrayD<f32>) -> (f64, ndarray::ArrayD<f32>) {
    let (mut loss, mut grad) = (0.0, vec![0.0; 32]);
    for (n, point) in points.iter().enumerate() {
        let logit = |class: usize| (0..8).map(|i| f64::from(weights[[i, class]]) * point[i]).sum::<f64>();
        let shares: Vec<f64> = (0..4).map(|class| logit(class).exp()).collect();
        let sum: f64 = shares.iter().sum();
        loss -= (shares[n % 4] / sum).ln() / points.len() as f64;
        for (class, share) in shares.iter().enumerate() {
            let error = (share / sum - f64::from(u8::from(class == n % 4))) / points.len() as f64;
            (0..8).for_each(|i| grad[4 * i + class] += error * point[i]);
        }
    }
    let grad = grad.into_iter().map(|number| number as f32).collect();
    (loss, ndarray::ArrayD::from_shape_vec(vec![8, 4], grad).unwrap())
}

/// Steps far below the distance between two numbers of bf16, of which rounding to the nearest keeps none: what keeps
/// the precision reaches the loss of f32, over five seeds.
#[test]
fn trainings_in_bf16_reach_the_loss_of_f32() {
    for seed in 0..5u32 {
        // Multiples of the golden ratio lie evenly.
        let at = |n: usize| 2.0 * ((n as f64 * 0.618_033_988_749_894_9 + f64::from(seed) * 0.37) % 1.0) - 1.0;
        let points: Vec<[f64; 8]> =
            (0..64).map(|n| std::array::from_fn(|i| 0.5 * at(100 * (n % 4) + i) + at(1000 + 8 * n + i))).collect();
        let train = |dtype: DType, kind: ParamRounding| {
            let list = [TensorSpec::f32("w", [8, 4]).with_dtype(dtype)];
            let config = Config::from(AdamW { lr: 1e-3, ..AdamW::default() }).wrap(kind);
            let mut optimizer = Reference::<f32>::new(&config, &list).unwrap();
            let mut params = [ndarray::ArrayD::from_elem(vec![8, 4], 1.0)];
            for _ in 0..2000 {
                let (_, grad) = softmax_loss(&points, &params[0]);
                optimizer.step(&mut params, &[Some(grad)]).unwrap();
            }
            softmax_loss(&points, &params[0]).0
        };
        let in_f32 = train(DType::F32, ParamRounding::Nearest);
        let off = |kind| (train(DType::Bf16, kind) / in_f32 - 1.0).abs();
        let [nearest, stochastic, master, remainder] =
            [ParamRounding::Nearest, ParamRounding::Stochastic, ParamRounding::Master, ParamRounding::Remainder]
                .map(off);
        say(&format!(
            "seed {seed}: loss {in_f32:.4}; off by {nearest:.4}, {stochastic:.4}, {master:.4}, {remainder:.4}"
        ));
        assert!(
            stochastic < 0.01 && master < 0.01 && remainder < 0.01,
            "seed {seed}: {stochastic} {master} {remainder}"
        );
        assert!(nearest > 0.02, "seed {seed}: {nearest}");
    }
}
