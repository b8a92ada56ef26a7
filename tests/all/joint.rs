//! Several optimizers step together: they share one norm and one decision.

use crate::common::twin::{noise, tensors};
use crate::common::{default_of, device, gpu};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wgpu_optim::proof::check;
use wgpu_optim::rule::AnyRule;
use wgpu_optim::rules::ALL;
use wgpu_optim::{
    Arena, Clip, Config, EncodedStep, Gpu, NonFinite, Optimizer, Result, SkipNonfinite, TensorSpec, Together,
    encode_together,
};

/// An optimizer with its buffers.
struct One {
    optimizer: Optimizer,
    params: Arena,
    grads: Arena,
}

impl One {
    fn new(gpu: &Gpu, config: &Config, tensors: &[TensorSpec]) -> Self {
        let arena = || Arena::new(gpu, tensors).expect("an arena");
        Self {
            optimizer: Optimizer::new(gpu, tensors, config.clone()).expect("an optimizer"),
            params: arena(),
            grads: arena(),
        }
    }

    fn of(gpu: &Gpu, value: Value, sizes: &[usize]) -> Self {
        Self::new(gpu, &Config::from_value(value).expect("a sound configuration"), &tensors(sizes))
    }

    /// Reads parameters and state as bits.
    fn bits(&self, tensor: &str) -> Vec<Vec<u32>> {
        let slots = self.optimizer.slots(tensor).expect("a known tensor");
        let state = slots.into_iter().map(|slot| self.optimizer.state_blocking(tensor, slot).expect("a readback"));
        let all = [self.params.read_blocking(tensor).expect("a readback")].into_iter().chain(state);
        all.map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
    }

    fn all_bits(&self) -> Vec<Vec<Vec<u32>>> {
        self.optimizer.tensors().iter().map(|tensor| self.bits(&tensor.name)).collect()
    }

    fn write(&self, tensor: &str, grads: &[f32]) {
        self.grads.write(tensor, grads).expect("as many values as elements");
    }
}

fn encode(gpu: &Gpu, all: &mut [One]) -> Result<(wgpu_optim::wgpu::CommandEncoder, Vec<EncodedStep>)> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut steps: Vec<_> =
        all.iter_mut().map(|One { optimizer, params, grads }| Together::new(optimizer, &*params, &*grads)).collect();
    let tokens = encode_together(&mut encoder, &mut steps)?;
    Ok((encoder, tokens))
}

fn step(gpu: &Gpu, all: &mut [One]) {
    let (encoder, tokens) = encode(gpu, all).expect("a joint step");
    assert_eq!(tokens.len(), all.len());
    gpu.queue().submit([encoder.finish()]);
}

/// What each optimizer has, of the tensors of one that has all: so that both add up in one order.
const SPLITS: [&[&[usize]]; 3] = [&[&[0], &[1]], &[&[0, 2], &[1, 3]], &[&[0], &[2], &[1]]];

#[test]
fn together_they_step_as_one() {
    let Some(gpu) = gpu("joint steps", 3 * ALL.len()) else { return };
    // Rules that know rows, columns and sides find some.
    let shapes: [&[usize]; 4] = [&[103, 10], &[5], &[3], &[35, 20]];
    let all = shapes.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("t{i}"), shape));
    let all: Vec<_> = all.collect();
    // A rule that sums over the model does so over each optimizer's own tensors.
    // Rules of matrices take no vector.
    let alone = |rule: &dyn AnyRule| rule.sums_over_model() || rule.has_products();
    let rules = ALL.iter().filter(|row| !alone(&*default_of(row)));
    for (row, split) in rules.flat_map(|row| SPLITS.map(|split| (row, split))) {
        let config = Config::from(default_of(row)).wrap(Clip::GlobalNorm(12.0)).wrap(SkipNonfinite(true));
        let count = split.iter().map(|part| part.len()).sum();
        let list = &all[..count];
        let mut whole = One::new(&gpu, &config, list);
        let of = |part: &&[usize]| One::new(&gpu, &config, &part.iter().map(|&i| list[i].clone()).collect::<Vec<_>>());
        let mut parts: Vec<_> = split.iter().map(of).collect();
        let place = |i: usize| split.iter().position(|part| part.contains(&i)).expect("a part");
        let mut rng = StdRng::seed_from_u64(61);
        for (i, tensor) in list.iter().enumerate() {
            let values = noise(&mut rng, tensor.len_elements() as usize);
            whole.params.write(&tensor.name, &values).unwrap();
            parts[place(i)].params.write(&tensor.name, &values).unwrap();
        }
        // In the second step nothing is clipped, the third is skipped.
        for (factor, last) in [(1.0, 1.0), (1e-3, 1.0), (1.0, f32::NAN), (1e12, 1.0)] {
            for (i, tensor) in list.iter().enumerate() {
                let mut values: Vec<f32> =
                    noise(&mut rng, tensor.len_elements() as usize).into_iter().map(|g| g * factor).collect();
                *values.last_mut().unwrap() *= if i == 1 { last } else { 1.0 };
                whole.write(&tensor.name, &values);
                parts[place(i)].write(&tensor.name, &values);
            }
            whole.optimizer.step(&whole.params, &whole.grads).unwrap();
            step(&gpu, &mut parts);
            for (i, tensor) in list.iter().enumerate() {
                let (found, expected) = (parts[place(i)].bits(&tensor.name), whole.bits(&tensor.name));
                assert!(found == expected, "{} of {split:?}, times {factor}: {}", row.name, tensor.name);
            }
        }
        whole.optimizer.settle_blocking().unwrap();
        for part in &mut parts {
            part.optimizer.settle_blocking().unwrap();
            assert_eq!((part.optimizer.steps(), part.optimizer.t("t0").unwrap_or(3)), (3, 3));
        }
        let norms = |one: &mut One| {
            let reports = one.optimizer.reports().unwrap();
            reports.iter().map(|report| format!("{:?} {}", report.norm, report.applied)).collect::<Vec<_>>()
        };
        let expected = norms(&mut whole);
        parts.iter_mut().for_each(|part| assert_eq!(norms(part), expected));
    }
}

#[test]
fn other_rules_share_a_norm_and_a_scale() {
    let Some(gpu) = gpu("joint steps of other rules", 1) else { return };
    let around = json!({
        "lr": 1, "clip": {"global_norm": 1}, "loss_scale": {"init": 1024, "interval": 2}, "norms": true
    });
    let with = |fields: Value| {
        let mut value = around.clone();
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        value
    };
    let mut all = [
        One::of(&gpu, with(json!({"optimizer": "sgd"})), &[2]),
        One::of(&gpu, with(json!({"optimizer": "sgd", "clip": {"tensor_norm": 1}})), &[1]),
        One::of(&gpu, with(json!({"optimizer": "signum", "clip": {"sign": 6.5}})), &[1, 1]),
    ];
    all[0].optimizer.clear_grads(true);
    let scale = |all: &[One]| all.iter().map(|one| one.optimizer.loss_scale_blocking().unwrap()).collect::<Vec<_>>();
    let write = |all: &[One], times: f32, bad: f32| {
        all[0].write("t0", &[2.0 * times, 4.0 * times]);
        all[1].write("t0", &[5.0 * times + bad]);
        all[2].write("t0", &[6.0 * times]);
        all[2].write("t1", &[0.0]);
    };
    // 2^2 + 4^2 + 5^2 + 6^2 = 9^2, which no optimizer's own norm is.
    write(&all, 1024.0, 0.0);
    step(&gpu, &mut all);
    let params = |all: &[One]| all.iter().map(|one| one.params.read_blocking("t0").unwrap()).collect::<Vec<_>>();
    let after = params(&all);
    // Measured: 1.3e-7, the 1e-6 of the norm included.
    let near = |found: f32, expected: f64| assert!((f64::from(found) / expected - 1.0).abs() < 3e-7, "{found}");
    near(after[0][0], -2.0 / (9.0 + 1e-6));
    near(after[0][1], -4.0 / (9.0 + 1e-6));
    near(after[1][0], -5.0 / (5.0 + 1e-6));
    assert_eq!(after[2][0], -1.0, "the sign of the sign");
    assert_eq!(all[0].grads.read_blocking("t0").unwrap(), [0.0; 2], "cleared once read");
    assert_eq!(all[1].grads.read_blocking("t0").unwrap(), [5.0 * 1024.0]);
    assert_eq!(scale(&all)[0].good, 1);
    assert!(scale(&all).iter().all(|of_one| *of_one == scale(&all)[0]));

    // One bad gradient skips all, and all go on with half the scale.
    let before: Vec<_> = all.iter().map(One::all_bits).collect();
    write(&all, 1024.0, f32::INFINITY);
    step(&gpu, &mut all);
    assert!(all.iter().map(One::all_bits).collect::<Vec<_>>() == before);
    assert!(scale(&all).iter().all(|of_one| (of_one.scale, of_one.good) == (512.0, 0)), "{:?}", scale(&all));
    for (times, expected) in [(512.0, (512.0, 1)), (512.0, (1024.0, 0)), (1024.0, (1024.0, 1))] {
        let before = params(&all);
        write(&all, times, 0.0);
        step(&gpu, &mut all);
        assert!(scale(&all).iter().all(|of_one| (of_one.scale, of_one.good) == expected), "{:?}", scale(&all));
        let moved = f64::from(params(&all)[1][0] - before[1][0]);
        assert!((moved + 1.0).abs() < 2e-6, "unscaled by what the loss had: {moved}");
    }

    let mut reports = Vec::new();
    for one in &mut all {
        one.optimizer.settle_blocking().unwrap();
        reports.push(one.optimizer.reports().unwrap());
        assert_eq!((one.optimizer.steps(), one.optimizer.t("t0")), (4, Ok(4)));
    }
    for (i, of_one) in reports.iter().enumerate() {
        let found: Vec<_> = of_one.iter().map(|report| (report.step, report.applied, report.scale)).collect();
        let expected = [(1, true, 1024.0), (2, false, 1024.0), (3, true, 512.0), (4, true, 512.0), (5, true, 1024.0)];
        assert_eq!(found, expected);
        assert_eq!((of_one[0].norm, of_one[1].norm), (Some(9.0), Some(f64::INFINITY)));
        let culprit = (i == 1).then_some(("t0".to_string(), NonFinite::Infinite));
        assert_eq!(of_one[1].culprit, culprit, "a culprit is the optimizer's own");
    }
    assert_eq!(all[0].optimizer.norms_blocking().unwrap().tensors, [20.0f64.sqrt()], "own norms of own tensors");
}

#[test]
fn the_shared_norm_takes_in_every_size() {
    let Some(gpu) = gpu("joint norms of all sizes", 1) else { return };
    let value = json!({"optimizer": "sgd", "lr": 1, "clip": {"global_norm": 1}});
    let mut all = [(); 7].map(|()| One::of(&gpu, value.clone(), &[3]));
    for (i, one) in all.iter().enumerate() {
        let size = [1e30, 2e30, 1.0, 0.0, 4.0e9, 1e-30, -2e30][i];
        one.write("t0", &[size, 0.0, -size]);
    }
    step(&gpu, &mut all);
    let norm = 18.0f64.sqrt() * 1e30;
    for (i, share) in [1e30, 2e30, 1.0, 0.0, 4.0e9, 1e-30, -2e30].into_iter().enumerate() {
        let found = f64::from(all[i].params.read_blocking("t0").unwrap()[2]);
        // Measured: 1.6e-7; the smallest are below f32's normal numbers.
        assert!((found - share / norm).abs() <= 4e-7 * (share / norm).abs() + 1e-38, "{i}: {found:e}");
    }
}

#[test]
fn steps_that_do_not_fit_together_are_refused() {
    let Some(gpu) = gpu("refused joint steps", 8) else { return };
    let clipped = || json!({"optimizer": "sgd", "clip": {"global_norm": 1}});
    let one = |fields: Value| {
        let mut value = clipped();
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        One::of(&gpu, value, &[3])
    };
    let cases: Vec<(Vec<One>, &str)> = vec![
        (vec![], "optimizers that step together are 0, expected 1: ..."),
        ((0..8).map(|_| one(json!({}))).collect(), "optimizers that step together are 8, expected 7: ..."),
        (
            vec![one(json!({})), one(json!({"clip": {"value": 1}}))],
            "configuration: norms: are not measured; optimizers that step together need them",
        ),
        (
            vec![one(json!({})), one(json!({"accumulate": 2}))],
            "configuration: accumulate: must be 1 where optimizers step together",
        ),
        (
            vec![one(json!({})), one(json!({"skip_nonfinite": true}))],
            "configuration: loss_scale: and skip_nonfinite must be the same where optimizers step together",
        ),
        (
            vec![one(json!({"loss_scale": {}})), one(json!({"loss_scale": {"interval": 5}}))],
            "configuration: loss_scale: and skip_nonfinite must be the same where optimizers step together",
        ),
        (
            vec![one(json!({})), one(json!({"momentum": 0.5, "form": "velocity", "nesterov": "look_ahead"}))],
            "look-ahead: a step without one before it (nesterov look_ahead)",
        ),
    ];
    for (mut all, text) in cases {
        let before: Vec<_> = all.iter().map(One::all_bits).collect();
        all.iter().for_each(|one| one.write("t0", &[1.0; 3]));
        match encode(&gpu, &mut all) {
            Ok(_) => panic!("accepted; expected: {text}"),
            Err(error) => check(text, &error, text),
        }
        for (one, before) in all.iter_mut().zip(before) {
            assert_eq!((one.all_bits(), one.optimizer.steps()), (before, 0), "{text}");
            one.optimizer.settle_blocking().unwrap();
            assert_eq!(one.optimizer.reports().unwrap(), [], "{text}");
        }
        // Each steps alone as if nothing had been.
        if let [first, ..] = &mut all[..] {
            first.optimizer.step(&first.params, &first.grads).unwrap();
            assert_ne!(first.params.read_blocking("t0").unwrap(), [0.0; 3]);
        }
    }
    let (device, queue) = device(&gpu, |_| {});
    let mut all = [One::of(&gpu, clipped(), &[3]), One::of(&Gpu::new(&device, &queue), clipped(), &[3])];
    let text = "an optimizer belongs to another Gpu; clone one Gpu for everything on a device";
    check(text, &encode(&gpu, &mut all).map(|_| ()).unwrap_err(), text);
}

#[test]
fn a_forgotten_joint_step_leaves_no_trace() {
    let Some(gpu) = gpu("forgotten joint steps", 2) else { return };
    for skips in [false, true] {
        let value = json!({"optimizer": "adam", "lr": 0.1, "clip": {"global_norm": 1}, "skip_nonfinite": skips});
        let outcome = |forgets: bool| {
            let mut all = [[3, 5], [700, 2]].map(|sizes| One::of(&gpu, value.clone(), &sizes));
            let mut rng = StdRng::seed_from_u64(62);
            for _ in 0..3 {
                for one in &all {
                    one.optimizer.tensors().iter().for_each(|tensor| {
                        one.write(&tensor.name, &noise(&mut rng, tensor.len_elements() as usize));
                    });
                }
                if forgets {
                    let (encoder, tokens) = encode(&gpu, &mut all).unwrap();
                    drop(encoder);
                    for (one, token) in all.iter_mut().zip(tokens) {
                        one.optimizer.undo(token).unwrap();
                    }
                }
                // Two in one encoder.
                let (mut encoder, _) = encode(&gpu, &mut all).unwrap();
                let mut steps: Vec<_> =
                    all.iter_mut().map(|one| Together::new(&mut one.optimizer, &one.params, &one.grads)).collect();
                encode_together(&mut encoder, &mut steps).unwrap();
                gpu.queue().submit([encoder.finish()]);
            }
            all.map(|mut one| {
                one.optimizer.settle_blocking().unwrap();
                (one.all_bits(), one.optimizer.steps(), one.optimizer.reports().unwrap().len())
            })
        };
        let (plain, forgotten) = (outcome(false), outcome(true));
        assert!(plain == forgotten, "skip_nonfinite {skips}");
        assert_eq!((plain[0].1, plain[0].2), (6, 6));
    }
}

#[test]
fn the_first_one_s_scale_is_that_of_all() {
    let Some(gpu) = gpu("a joint loss scale", 1) else { return };
    let config = || json!({"optimizer": "sgd", "lr": 1, "loss_scale": {"init": 4}});
    let mut all = [(); 2].map(|()| One::of(&gpu, config(), &[1]));
    all[0].optimizer.set_loss_scale(wgpu_optim::LossScaleState { scale: 8.0, good: 3 }).unwrap();
    [24.0, 32.0].into_iter().zip(&all).for_each(|(grad, one)| one.write("t0", &[grad]));
    step(&gpu, &mut all);
    assert_eq!(all[0].optimizer.norms_blocking().unwrap().all, 5.0);
    for (one, expected) in all.iter().zip([-3.0, -4.0]) {
        assert_eq!(one.params.read_blocking("t0").unwrap(), [expected]);
        assert_eq!(one.optimizer.loss_scale_blocking().unwrap(), wgpu_optim::LossScaleState { scale: 8.0, good: 4 });
    }
}

#[test]
fn one_without_tensors_may_come_first() {
    let Some(gpu) = gpu("a joint step of nothing", 1) else { return };
    let config = || json!({"optimizer": "sgd", "lr": 1, "loss_scale": {"init": 4}});
    let mut all = [&[][..], &[2]].map(|sizes| One::of(&gpu, config(), sizes));
    all[1].write("t0", &[4.0, f32::NAN]);
    step(&gpu, &mut all);
    assert_eq!(all[1].params.read_blocking("t0").unwrap(), [0.0; 2]);
    all[1].write("t0", &[4.0, 2.0]);
    step(&gpu, &mut all);
    assert_eq!(all[1].params.read_blocking("t0").unwrap(), [-2.0, -1.0], "at half the scale");
}
