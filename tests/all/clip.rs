//! Clips make large gradients smaller: the tests run them around every rule, at the ends of f32, and against f64.

use crate::common::twin::{Parity, bound, flushes, noise, tensors};
use crate::common::{default_of, gpu, say, say_share, share};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Clip, Config, DType, Sgd, TensorSpec};

fn clip(value: Value) -> Clip {
    serde_json::from_value(value).expect("a clip")
}

/// Makes one clip of each kind. Some gradients of [`loud`] exceed its bound, others do not.
fn clips() -> [Clip; 5] {
    [
        json!({"value": 0.75}),
        json!({"tensor_norm": 4.0}),
        json!({"global_norm": 30.0}),
        json!({"adaptive": {"clip": 0.5, "eps": 1e-3}}),
        json!({"sign": 30.0}),
    ]
    .map(clip)
}

/// Makes tensors that end at and beside the ends of vectors, blocks and chunks, matrices, and an empty tensor.
fn some_tensors() -> Vec<TensorSpec> {
    let flat = [0, 1, 3, 5, 1024, 1025, 8195].map(|len| TensorSpec::f32(format!("t{len}"), [len]));
    let shaped: [&[usize]; 3] = [&[5, 7], &[2, 35, 68], &[4, 300]];
    flat.into_iter()
        .chain(shaped.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("m{i}"), shape)))
        .collect()
}

/// Noise for every tensor, times `all`; of every other tensor times 1e-3 more.
fn loud(twin: &mut Parity, all: f32) -> Vec<Vec<f32>> {
    let lens: Vec<_> = twin.tensors.iter().map(|tensor| tensor.len_elements() as usize).collect();
    let times = |(i, len): (usize, usize)| {
        let factor = if i % 2 == 0 { all } else { all * 1e-3 };
        noise(&mut twin.rng, len).into_iter().map(|x| x * factor).collect()
    };
    lens.into_iter().enumerate().map(times).collect()
}

fn norm(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    match largest {
        0.0 => 0.0,
        _ => values.iter().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt() * largest,
    }
}

/// What becomes of gradients, in f64: the formulas of the documentation. `present` are those in the step.
fn clipped(clip: Clip, params: &[Vec<f32>], grads: &[Vec<f32>], present: &[bool]) -> Vec<Vec<f64>> {
    let wide = |values: &Vec<f32>| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (params, grads): (Vec<_>, Vec<_>) = (params.iter().map(wide).collect(), grads.iter().map(wide).collect());
    let all: Vec<f64> =
        grads.iter().zip(present).filter(|(_, present)| **present).flat_map(|(g, _)| g.clone()).collect();
    let all = norm(&all);
    let of = |(p, g): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
        let each = |f: &dyn Fn(f64) -> f64| g.iter().map(|&g| f(g)).collect();
        let (of_params, of_grads) = (norm(p), norm(g));
        match clip {
            Clip::Value(c) => each(&|g| g.clamp(-c, c)),
            Clip::TensorNorm(c) => each(&|x| x * (c / (of_grads + 1e-6)).min(1.0)),
            Clip::GlobalNorm(c) => each(&|x| x * (c / (all + 1e-6)).min(1.0)),
            Clip::Adaptive(a) => each(&|x| x * (a.clip * of_params.max(a.eps) / of_grads.max(1e-6)).min(1.0)),
            Clip::Sign(c) if all > c => each(&|g| if g == 0.0 { 0.0 } else { c * g.signum() }),
            Clip::Sign(_) => g.clone(),
        }
    };
    params.iter().zip(&grads).map(of).collect()
}

#[test]
fn every_clip_matches_the_reference_around_every_rule() {
    let Some(gpu) = gpu("clips", 5 * ALL.len()) else { return };
    let tensors = some_tensors();
    // Some gradients times 1e-30 are no normal numbers. Where they are flushed their signs are 0, and so is what rules
    // add up of their squares.
    let small = if flushes(&gpu) { 1e-10 } else { 1e-30 };
    let mut tried = 0;
    for (turn, row) in ALL.iter().enumerate() {
        for clip in share(clips().into_iter().collect(), 2, turn) {
            tried += 1;
            let what = format!("{} clipped by {}", row.name, clip.kind());
            let mut twin = Parity::new(&gpu, &Config::from(default_of(row)).wrap(clip), &tensors, 31);
            let mut branches = [false; 2];
            for factor in [1e-2, 1.0, 1e30, small, 0.0] {
                let grads = loud(&mut twin, factor);
                let params: Vec<Vec<f32>> = twin.values.iter().map(|p| p.iter().copied().collect()).collect();
                let after = clipped(clip, &params, &grads, &[true; 10]);
                for (before, after) in grads.iter().flatten().zip(after.iter().flatten()).filter(|(g, _)| **g != 0.0) {
                    branches[usize::from(f64::from(*before) != *after)] = true;
                }
                let worst = twin.step_with(grads, &[]);
                assert!(worst.ulps <= bound(&gpu), "{what}, times {factor}: {} ulp: {}", worst.ulps, worst.text);
            }
            assert_eq!(branches, [true; 2], "{what}: some are clipped, others are not");
        }
        say(&format!("clips around {}: as the reference", row.name));
    }
    say_share("clips around rules", tried, clips().len() * ALL.len());
}

#[test]
fn what_is_not_finite_matches_the_reference_around_every_rule() {
    let Some(gpu) = gpu("clips of what is not finite", 10 * ALL.len()) else { return };
    let tensors = tensors(&[5, 1030, 9]);
    for row in ALL {
        for clip in clips() {
            for bad in [f32::NAN, f32::INFINITY] {
                let what = format!("{} clipped by {} with {bad}", row.name, clip.kind());
                let mut twin = Parity::new(&gpu, &Config::from(default_of(row)).wrap(clip), &tensors, 32);
                let mut grads = loud(&mut twin, 1.0);
                grads[1][1027] = bad;
                twin.give(grads, &[]);
                // Whether a rule's state keeps a NaN is up to the rule, but parameters must show it.
                for (tensor, expected) in tensors.iter().zip(&twin.values) {
                    let found = twin.params.read_blocking(&tensor.name).unwrap();
                    let same =
                        |(found, expected): (&f32, &f32)| found == expected || (found.is_nan() && expected.is_nan());
                    let i = found.iter().zip(expected).position(|pair| !same(pair));
                    assert_eq!(i, None, "{what}: {} of {}", i.map_or(0.0, |i| found[i]), tensor.name);
                }
            }
        }
    }
}

/// What a step of SGD with rate 1 leaves of these parameters.
fn landed(
    gpu: &wgpu_optim::Gpu,
    clip: Clip,
    tensors: &[TensorSpec],
    params: &[Vec<f32>],
    grads: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let mut twin = Parity::new(gpu, &Config::from(Sgd { lr: 1.0, ..Sgd::default() }).wrap(clip), tensors, 33);
    for ((tensor, params), values) in tensors.iter().zip(params).zip(&mut twin.values) {
        twin.params.write(&tensor.name, params).unwrap();
        values.iter_mut().zip(params).for_each(|(place, &p)| *place = p);
    }
    let before = twin.snapshot();
    twin.give(grads.to_vec(), &[]);
    let worst = twin.compare(&before);
    assert!(worst.ulps <= bound(gpu), "{clip:?}: {} ulp: {}", worst.ulps, worst.text);
    tensors.iter().map(|tensor| twin.params.read_blocking(&tensor.name).unwrap()).collect()
}

#[test]
fn a_step_of_sgd_is_that_of_f64() {
    type Values = fn(usize) -> f32;
    let lists: [(&str, Values); 7] = [
        ("ones", |_| 1.0),
        ("of many sizes", |i| (i as f32 - 300.0) * 2.0f32.powi(i as i32 % 17 - 8)),
        ("1e30", |i| if i % 3 == 0 { 1e30 } else { -2e29 }),
        ("the largest", |i| if i % 2 == 0 { f32::MAX } else { f32::MIN }),
        ("either side of 2^32", |i| [4_294_967_296.0, 4_294_967_000.0, 1.0][i % 3]),
        ("tiny", |i| 1e-30 * i as f32),
        ("zero", |_| 0.0),
    ];
    let Some(gpu) = gpu("clips against f64", 15 * lists.len()) else { return };
    for format in [DType::F32, DType::F16] {
        let tensors: Vec<_> =
            tensors(&[3, 1030, 5000]).into_iter().map(|tensor| tensor.with_grad_dtype(format)).collect();
        let mut rng = StdRng::seed_from_u64(34);
        let params: Vec<_> = [3, 1030, 5000].map(|len| noise(&mut rng, len)).into();
        // f16 reaches to 65504.
        for (name, grad) in lists.iter().take(if format == DType::F16 { 2 } else { 7 }) {
            let of = |len: usize| {
                (0..len)
                    .map(grad)
                    .map(|g| if format == DType::F16 { half::f16::from_f32(g.clamp(-6e4, 6e4)).to_f32() } else { g })
            };
            let grads: Vec<Vec<f32>> = [3, 1030, 5000].map(|len| of(len).collect()).into();
            for (clip, limit) in clips().into_iter().flat_map(|clip| [(clip, 1.0), (clip, 1e-3), (clip, 1e34)]) {
                let clip = match clip {
                    Clip::Value(c) => Clip::Value(c * limit),
                    Clip::TensorNorm(c) => Clip::TensorNorm(c * limit),
                    Clip::GlobalNorm(c) => Clip::GlobalNorm(c * limit),
                    Clip::Adaptive(mut a) => {
                        a.clip *= limit;
                        Clip::Adaptive(a)
                    }
                    Clip::Sign(c) => Clip::Sign(c * limit),
                };
                let found = landed(&gpu, clip, &tensors, &params, &grads);
                let expected = clipped(clip, &params, &grads, &[true; 3]);
                let each = found.iter().flatten().zip(params.iter().flatten()).zip(expected.iter().flatten());
                for (i, ((&found, &p), &g)) in each.enumerate() {
                    let p = f64::from(p);
                    if (p - g).abs() > f64::from(f32::MAX) {
                        continue;
                    }
                    // Measured: 2.4e-7, the error of a sum over 5000, its root, a quotient and two products.
                    let bound = 6e-7 * p.abs().max(g.abs()) + 1e-44;
                    let error = (f64::from(found) - (p - g)).abs();
                    assert!(error <= bound, "{name}, {clip:?}, element {i}: {found:e}, expected {:e}", p - g);
                }
            }
        }
    }
}

#[test]
fn a_limit_that_is_hit_exactly_changes_nothing() {
    let Some(gpu) = gpu("limits hit exactly", 7) else { return };
    let list = tensors(&[2]);
    let step = |clip: Value, grads: [f32; 2]| {
        landed(&gpu, self::clip(clip), &list, &[vec![0.0; 2]], &[grads.to_vec()]).remove(0)
    };
    assert_eq!(step(json!({"value": 3}), [3.0, -3.0]), [-3.0, 3.0]);
    assert_eq!(step(json!({"value": 3}), [3.0000002, -4.0]), [-3.0, 3.0]);
    // 3-4-5: the norm is 5 without a rounding, and only what is above it counts.
    assert_eq!(step(json!({"sign": 5}), [3.0, -4.0]), [-3.0, 4.0]);
    assert_eq!(step(json!({"sign": 4.9999995}), [3.0, -4.0]), [-4.9999995, 4.9999995]);
    assert_eq!(step(json!({"sign": 4}), [0.0, 4.5]), [0.0, -4.0], "the sign of 0 is 0");
    // The 1e-6 in the norm's denominator is below half a unit of 40 in f32, and above half a unit of 0.5.
    assert_eq!(step(json!({"global_norm": 40}), [24.0, -32.0]), [-24.0, 32.0]);
    let shorter = step(json!({"tensor_norm": 0.5}), [0.3, -0.4]);
    assert!((shorter[0] / -0.3 - (1.0 - 2e-6)).abs() < 2e-7 && shorter[0] != -0.3, "{shorter:?}");
}

#[test]
fn a_norm_that_is_not_finite_is_plain_to_see() {
    let Some(gpu) = gpu("norms that are not finite", 10) else { return };
    let list = tensors(&[2, 3]);
    let step = |clip: Clip, bad: f32| {
        landed(&gpu, clip, &list, &[vec![1.0, 2.0], vec![3.0, 4.0, 5.0]], &[vec![bad, 0.5], vec![0.5, 0.0, -0.5]])
            .concat()
    };
    let text = |values: Vec<f32>| values.iter().map(|x| x.to_string()).collect::<Vec<_>>().join(" ");
    for (clip, nan, infinite) in [
        (json!({"value": 9}), "NaN 1.5 2.5 4 5.5", "-8 1.5 2.5 4 5.5"),
        (json!({"tensor_norm": 9}), "NaN NaN 2.5 4 5.5", "NaN 2 2.5 4 5.5"),
        (json!({"global_norm": 9}), "NaN NaN NaN NaN NaN", "NaN 2 3 4 5"),
        (json!({"adaptive": {"clip": 9}}), "NaN NaN 2.5 4 5.5", "NaN 2 2.5 4 5.5"),
        // NaN exceeds nothing.
        (json!({"sign": 9}), "NaN 1.5 2.5 4 5.5", "-8 -7 -6 4 14"),
    ] {
        let clip = self::clip(clip);
        assert_eq!(text(step(clip, f32::NAN)), nan, "{clip:?} of NaN");
        assert_eq!(text(step(clip, f32::INFINITY)), infinite, "{clip:?} of infinity");
    }
}

#[test]
fn the_global_norm_is_over_groups_and_over_what_takes_part() {
    let Some(gpu) = gpu("the global norm", 4) else { return };
    let config = json!({
        "optimizer": "sgd", "lr": 1, "clip": {"global_norm": 1},
        "groups": [{"tensors": ["t1"], "lr": 2}, {"tensors": ["t2"], "momentum": 0.5}]
    });
    let list = tensors(&[1, 1, 1, 1]);
    let mut twin = Parity::new(&gpu, &Config::from_value(config).unwrap(), &list, 35);
    let grads = vec![vec![2.0], vec![4.0], vec![5.0], vec![6.0]];
    let moved = |twin: &mut Parity, absent: &[&str]| {
        let before: Vec<f32> = twin.values.iter().map(|p| p[[0]]).collect();
        let worst = twin.step_with(grads.clone(), absent);
        assert!(worst.ulps <= bound(&gpu), "{}", worst.text);
        let after = list.iter().map(|tensor| twin.params.read_blocking(&tensor.name).unwrap()[0]);
        before.iter().zip(after).map(|(before, after)| f64::from(before - after)).collect::<Vec<_>>()
    };
    let check = |found: Vec<f64>, expected: [f64; 4]| {
        for (found, expected) in found.iter().zip(expected) {
            // Parameters are below 8, with 2^-21 between them.
            assert!((found - expected).abs() < 2e-6, "{found} of {expected}");
        }
    };
    // 2^2 + 4^2 + 5^2 + 6^2 = 9^2; the momentum of t2 starts at the first gradient.
    check(moved(&mut twin, &[]), [2.0 / 9.0, 2.0 * 4.0 / 9.0, 5.0 / 9.0, 6.0 / 9.0]);
    let norms = twin.optimizer.norms_blocking().unwrap();
    assert_eq!((norms.all, norms.tensors), (9.0, vec![2.0, 4.0, 5.0, 6.0]));
    // 2^2 + 5^2 + 6^2 = 65, 2^2 + 4^2 + 6^2 = 56.
    let root = 65.0f64.sqrt();
    check(moved(&mut twin, &["t1"]), [2.0 / root, 0.0, 0.5 * 5.0 / 9.0 + 5.0 / root, 6.0 / root]);
    assert_eq!(twin.optimizer.norms_blocking().unwrap().tensors, [2.0, 0.0, 5.0, 6.0]);
    twin.optimizer.freeze("t2").unwrap();
    twin.reference.freeze("t2").unwrap();
    let root = 56.0f64.sqrt();
    check(moved(&mut twin, &[]), [2.0 / root, 2.0 * 4.0 / root, 0.0, 6.0 / root]);
    check(moved(&mut twin, &["t0", "t1", "t3"]), [0.0; 4]);
}
