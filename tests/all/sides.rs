//! Rules that turn tensors into bases: shapes and lanes, what the bases are, the number of dispatches, refusals.

use std::time::Duration;

use crate::common::twin::{Parity, Worst, noise};
use crate::common::{dispatches_of, gpu, renewal_at, say};
use ndarray::{Array2, ArrayD, arr1};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wgpu_optim::rule::{AnyRule, Renewal};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Adam, AdamEps, Arena, Config, Gpu, Optimizer, Reference, SkipNonfinite, Soap, TensorSpec, Tuning};

/// Sides of one, of odd and even sizes, and beside dimensions that are none.
const SHAPES: [&[usize]; 9] = [&[1, 7], &[33, 5], &[12, 40], &[40, 12], &[8, 3, 3, 3], &[2, 1, 5], &[11], &[], &[0, 4]];

/// Every case of every rule with sides.
fn cases() -> Vec<(String, Box<dyn AnyRule>)> {
    let of_row = ALL
        .iter()
        .filter(|row| (row.default)().sides().is_some())
        .flat_map(|row| (row.cases)().into_iter().map(|(case, rule)| (format!("{}/{case}", row.name), rule)));
    of_row.collect()
}

#[test]
fn every_shape_matches_by_few_lanes_and_by_many() {
    let cases = cases();
    let Some(gpu) = gpu("shapes with sides", 2 * cases.len()) else { return };
    // The smaller dispatches have a tile each.
    let few_bytes = 1 << 16;
    assert!(!cases.is_empty(), "no rule has sides");
    let tensors: Vec<_> =
        SHAPES.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("m{i}"), shape)).collect();
    for (lanes, dispatch_bytes) in [(8, gpu.tuning().dispatch_bytes), (256, few_bytes)] {
        let tuning = Tuning { lanes, dispatch_bytes, ..gpu.tuning() };
        let gpu = Gpu::with_tuning(gpu.device(), gpu.queue(), tuning).expect("every device has 256 lanes");
        let mut worst = Worst::default();
        for (what, rule) in &cases {
            worst.join(Parity::new(&gpu, &Config::from(rule.clone()), &tensors, 31).run(what, 12));
        }
        say(&format!("sides by {lanes} lanes: worst {} ulp", worst.ulps));
    }
}

/// Of three columns one basis has a null space, which hangs on every rounding.
#[test]
fn large_sides_match() {
    let Some(gpu) = gpu("large sides", 1) else { return };
    // SwiftShader takes a minute for the largest of them where others keep its cores busy.
    gpu.set_deadline(Duration::from_secs(600)).expect("a deadline");
    let rule = Soap { precondition_frequency: 1, ..Soap::default() };
    let mut worst = Worst::default();
    for (shapes, steps) in [(vec![vec![2, 33, 64], vec![97, 17]], 3), (vec![vec![257, 3]], 2)] {
        let tensors: Vec<_> =
            shapes.into_iter().enumerate().map(|(i, shape)| TensorSpec::f32(format!("m{i}"), shape)).collect();
        worst.join(Parity::new(&gpu, &rule.clone().into(), &tensors, 32).run("large sides", steps));
    }
    say(&format!("sides of up to 257: worst {} ulp", worst.ulps));
}

/// The largest difference of the products of a matrix's columns from those of orthonormal ones.
fn skew(matrix: &[f32], size: usize) -> f64 {
    let at = |row: usize, column: usize| f64::from(matrix[row * size + column]);
    let dot = |a: usize, b: usize| (0..size).map(|row| at(row, a) * at(row, b)).sum::<f64>();
    let pairs = (0..size).flat_map(|a| (0..size).map(move |b| (a, b)));
    pairs.map(|(a, b)| (dot(a, b) - f64::from(a == b)).abs()).fold(0.0, f64::max)
}

#[test]
fn bases_stay_orthonormal_whatever_the_gradients() {
    let size = 24;
    let Some(gpu) = gpu("orthonormal bases", 5) else { return };
    let mut rng = StdRng::seed_from_u64(5);
    let random = noise(&mut rng, size * size);
    let [tall, wide] = [(); 2].map(|()| noise(&mut rng, 3 * size));
    let of_rank = |i: usize| (0..3).map(|k| tall[i / size * 3 + k] * wide[i % size * 3 + k]).sum::<f32>();
    let row_of = |i: usize| 10f32.powf(12.0 * (i / size) as f32 / (size - 1) as f32 - 6.0);
    let grads: [(&str, Vec<f32>); 5] = [
        ("random", random.clone()),
        ("deficient", (0..size * size).map(of_rank).collect()),
        ("badly scaled", (0..size * size).map(|i| random[i] * row_of(i)).collect()),
        ("tiny", random.iter().map(|number| 1e-9 * number).collect()),
        ("zero", vec![0.0; size * size]),
    ];
    let tensors = grads.clone().map(|(name, _)| TensorSpec::f32(name, [size, size]));
    let rule = Soap { precondition_frequency: 2, ..Soap::default() };
    let mut soap = Optimizer::new(&gpu, &tensors, Config::from(rule)).unwrap();
    let [params, arena] = [(); 2].map(|()| Arena::new(&gpu, &tensors).unwrap());
    let mut worst = 0.0f64;
    for step in 1..=5 {
        for (name, grad) in &grads {
            let factor = if step % 2 == 0 { -0.7 } else { 1.0 };
            arena.write(name, &grad.iter().map(|number| factor * number).collect::<Vec<_>>()).unwrap();
        }
        soap.step(&params, &arena).unwrap();
        for (name, _) in &grads {
            let bases = soap.state_blocking(name, "basis").unwrap();
            for basis in bases.chunks(size * size) {
                worst = worst.max(skew(basis, size));
                assert!(skew(basis, size) < 1e-5, "{name}, step {step}: {}", skew(basis, size));
            }
        }
    }
    assert!(params.read_blocking("zero").unwrap().iter().all(|&p| p == 0.0));
    say(&format!("bases of {} tensors: at most {worst:.1e} from orthonormal", grads.len()));
}

#[test]
fn a_first_basis_makes_the_gram_matrix_diagonal() {
    let sizes = [40, 130];
    let Some(gpu) = gpu("eigenvectors", sizes.len()) else { return };
    for size in sizes {
        let tensors = [TensorSpec::f32("w", [size, size + 10])];
        let rule = Soap { max_precondition_dim: size, ..Soap::default() };
        let mut soap = Optimizer::new(&gpu, &tensors, Config::from(rule)).unwrap();
        let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &tensors).unwrap());
        grads.write("w", &noise(&mut StdRng::seed_from_u64(6), (size + 10) * size)).unwrap();
        soap.step(&params, &grads).unwrap();
        assert!(params.read_blocking("w").unwrap().iter().all(|&p| p == 0.0), "the first step moves nothing");
        let [gram, basis] = ["gram", "basis"].map(|slot| {
            let numbers = soap.state_blocking("w", slot).unwrap().into_iter().map(f64::from).collect();
            Array2::from_shape_vec([size, size], numbers).unwrap()
        });
        let skew = (basis.t().dot(&basis) - Array2::<f64>::eye(size)).mapv(f64::abs);
        let skew = skew.iter().copied().fold(0.0, f64::max);
        assert!(skew < 2e-5, "{size}: {skew} from orthonormal");
        let turned = basis.t().dot(&gram).dot(&basis);
        let trace = gram.diag().sum();
        for ((row, column), number) in turned.indexed_iter() {
            assert!(row == column || number.abs() < 1e-6 * trace, "{size}: row {row}, column {column}: {number}");
        }
        let again = basis.dot(&Array2::from_diag(&turned.diag())).dot(&basis.t());
        let off = (again - &gram).mapv(f64::abs).iter().copied().fold(0.0, f64::max);
        assert!(off < 1e-6 * trace, "{size}: from its eigenvalues the matrix differs by {off} of {trace}");
    }
}

/// Steps that may be the first one, encoded before anything is known of the ones before them.
#[test]
fn first_steps_that_are_skipped_leave_the_next_one_the_first() {
    let Some(gpu) = gpu("first steps that are skipped", 1) else { return };
    let tensors = [TensorSpec::f32("w", [33, 40]), TensorSpec::f32("b", [3])];
    let rule = Soap { precondition_frequency: 1, ..Soap::default() };
    let config = Config::from(rule).wrap(SkipNonfinite(true));
    let mut rng = StdRng::seed_from_u64(7);
    let steps: Vec<_> = (0..4).map(|_| [noise(&mut rng, 33 * 40), noise(&mut rng, 3)]).collect();
    let run = |bad: &[usize], together: bool| {
        let mut soap = Optimizer::new(&gpu, &tensors, config.clone()).unwrap();
        let params = Arena::new(&gpu, &tensors).unwrap();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut of_step = vec![];
        for (i, [w, b]) in steps.iter().enumerate() {
            let grads = Arena::new(&gpu, &tensors).unwrap();
            let b = if bad.contains(&i) { &[f32::NAN; 3] } else { &b[..] };
            grads.write("w", w).unwrap();
            grads.write("b", b).unwrap();
            if together {
                soap.encode(&mut encoder, &params, &grads).unwrap();
            } else if !bad.contains(&i) {
                soap.step(&params, &grads).unwrap();
            }
            of_step.push(grads);
        }
        gpu.queue().submit([encoder.finish()]);
        soap.settle_blocking().unwrap();
        let state = ["m", "v", "gram", "basis"].map(|slot| soap.state_blocking("w", slot).unwrap());
        (params.read_blocking("w").unwrap(), state, soap.t("w").unwrap())
    };
    for bad in [&[][..], &[0], &[0, 1], &[1], &[0, 2]] {
        let (one_by_one, together) = (run(bad, false), run(bad, true));
        assert_eq!(one_by_one.2, 4 - bad.len() as u64);
        assert!(one_by_one == together, "skipped {bad:?}");
    }
}

#[test]
fn a_first_step_is_taken_back_and_saved_like_any_other() {
    let Some(gpu) = gpu("first steps, taken back and saved", 1) else { return };
    let tensors = [TensorSpec::f32("w", [40, 70])];
    let rule = Soap { precondition_frequency: 1, ..Soap::default() };
    let params = || Arena::new(&gpu, &tensors).unwrap();
    let grads: Vec<_> = (0..3).map(|_| params()).collect();
    let mut rng = StdRng::seed_from_u64(8);
    grads.iter().for_each(|grads| grads.write("w", &noise(&mut rng, 2800)).unwrap());
    let (whole, parts) = (params(), params());
    let [mut once, mut saved] = [(); 2].map(|()| Optimizer::new(&gpu, &tensors, Config::from(rule.clone())).unwrap());
    grads.iter().for_each(|grads| once.step(&whole, grads).unwrap());
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let first = saved.encode(&mut encoder, &parts, &grads[1]).unwrap();
    drop(encoder);
    saved.undo(first).unwrap();
    saved.step(&parts, &grads[0]).unwrap();
    let checkpoint = saved.save_blocking().unwrap();
    let mut loaded = Optimizer::load(&gpu, &tensors, &checkpoint).unwrap();
    grads[1..].iter().for_each(|grads| loaded.step(&parts, grads).unwrap());
    for slot in ["gram", "basis"] {
        assert!(loaded.state_blocking("w", slot).unwrap() == once.state_blocking("w", slot).unwrap(), "{slot}");
    }
    let found = parts.read_blocking("w").unwrap();
    assert!(found == whole.read_blocking("w").unwrap() && found[0] != 0.0, "parameters");
}

#[test]
fn without_a_side_the_steps_are_those_of_adam_a_step_late() {
    let soap = Soap { lr: 0.01, beta1: 0.9, beta2: 0.99, ..Soap::default() };
    let adam = Adam { lr: 0.01, beta1: 0.9, beta2: 0.99, eps_placement: AdamEps::Hat, ..Adam::default() };
    let tensors = [TensorSpec::f32("b", [3])];
    let mut soap = Reference::<f64>::new(&Config::from(soap), &tensors).unwrap();
    let mut adam = Reference::<f64>::new(&Config::from(adam), &tensors).unwrap();
    let start = || -> [ArrayD<f64>; 1] { [arr1(&[1.0, -2.0, 3.0]).into_dyn()] };
    let [mut of_soap, mut of_adam] = [start(), start()];
    for step in 0..6 {
        let grads = [Some(arr1(&[0.1 * f64::from(step), 0.5, -1.0]).into_dyn())];
        soap.step(&mut of_soap, &grads).unwrap();
        if step > 0 {
            adam.step(&mut of_adam, &grads).unwrap();
        }
        let off = (&of_soap[0] - &of_adam[0]).mapv(f64::abs).sum();
        assert!(off < 1e-14, "step {step}: {off}");
    }
    assert!(of_soap[0][0] != 1.0, "the parameters move");
}

#[test]
fn the_number_of_dispatches_does_not_hang_on_the_number_of_tensors() {
    let cases = cases();
    let Some(gpu) = gpu("dispatches of sides", 3 * cases.len()) else { return };
    for (what, rule) in cases {
        for renewal in [None, Some(Renewal::Eigenvectors), Some(Renewal::Power)] {
            let dispatches = |count: usize| {
                let tensors: Vec<_> = (0..count).map(|i| TensorSpec::f32(format!("w{i}"), [40, 7])).collect();
                let mut twin = Parity::new(&gpu, &Config::from(rule.clone()), &tensors, 3);
                let t = (0..99).find(|&t| renewal_at(&*rule, t + 1) == renewal)?;
                tensors.iter().for_each(|tensor| twin.optimizer.set_t(&tensor.name, t).unwrap());
                let found = twin.optimizer.plan(&twin.params, &twin.grads).unwrap().dispatches;
                assert_eq!(found, dispatches_of(&*rule, &tensors, t + 1), "{what}: {count} tensors, {renewal:?}");
                Some(found)
            };
            let [one, two, many] = [1, 2, 126].map(dispatches);
            assert!(one == two && two == many, "{what}: {renewal:?}: {one:?}, {two:?}, {many:?}");
        }
    }
}

#[test]
fn the_plan_says_what_a_large_side_takes() {
    let Some(gpu) = gpu("plans of large sides", 1) else { return };
    let tensors = [TensorSpec::f32("w", [64, 1024])];
    let mut soap = Optimizer::new(&gpu, &tensors, Soap::default()).unwrap();
    let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &tensors).unwrap());
    let mut extra = |t| {
        soap.set_t("w", t).unwrap();
        soap.plan(&params, &grads).unwrap().dispatches
    };
    let of_every_step = extra(1);
    let (sweeps, tiles) = (20, 32);
    assert!(extra(0) >= of_every_step + 2 * sweeps * (2 * tiles - 1), "{} and {of_every_step}", extra(0));
    assert!(extra(10) >= of_every_step + 2 * tiles, "{} and {of_every_step}", extra(10));
}

#[test]
fn a_side_that_no_page_holds_is_refused() {
    let Some(gpu) = gpu("sides too large", 1) else { return };
    let rule = Soap { max_precondition_dim: 1 << 40, ..Soap::default() };
    let error = Optimizer::new(&gpu, &[TensorSpec::f32("w", [100_000, 1])], Config::from(rule.clone())).unwrap_err();
    assert!(error.to_string().starts_with("tensor w: its matrices take 120014416636 bytes"), "{error}");
    let slice = "elements of a slice of tensor w across a side of 2 is 131073, must be at most 131072; \
                 max_precondition_dim leaves such a side out";
    let tall = Soap { max_precondition_dim: 2, ..Soap::default() };
    let error = Optimizer::new(&gpu, &[TensorSpec::f32("w", [131_073, 2])], Config::from(tall)).unwrap_err();
    assert_eq!(error.to_string(), slice);
    let absurd = [TensorSpec::f32("w", [1, 1 << 38])];
    assert!(Optimizer::new(&gpu, &absurd, Config::from(rule.clone())).is_err());
    let error = Reference::<f32>::new(&Config::from(rule), &absurd).unwrap_err();
    assert!(error.to_string().starts_with("tensor w: its state slots take "), "{error}");
}
