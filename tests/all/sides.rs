//! Rules that turn tensors into bases: shapes and lanes, what the bases are, the number of dispatches, refusals.

use crate::common::twin::{Parity, Worst, noise};
use crate::common::{gpu, say};
use ndarray::{ArrayD, arr1};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wgpu_optim::rule::{AnyRule, Rule};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Adam, AdamEps, Arena, Config, Gpu, Optimizer, Reference, Soap, TensorSpec, Tuning};

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
    // The smaller dispatches have a sweep of the largest side each.
    let few_bytes = 16 * 40 * 40 * 40;
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

#[test]
fn the_largest_sides_match() {
    let Some(gpu) = gpu("the largest sides", 1) else { return };
    let tensors = [TensorSpec::f32("w", [256, 3]), TensorSpec::f32("x", [2, 255, 2])];
    let rule = Soap { precondition_frequency: 1, max_precondition_dim: 256, ..Soap::default() };
    let mut twin = Parity::new(&gpu, &rule.into(), &tensors, 32);
    let dispatches = twin.optimizer.plan(&twin.params, &twin.grads).unwrap().dispatches;
    assert!(
        dispatches >= Rule::passes(&Soap::default()).len() + 2 + 19,
        "a sweep of the largest side is a dispatch: {dispatches}"
    );
    let worst = twin.run("sides of 256", 3);
    say(&format!("sides of 256: worst {} ulp", worst.ulps));
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
    let size = 40;
    let Some(gpu) = gpu("eigenvectors", 1) else { return };
    let tensors = [TensorSpec::f32("w", [size, 50])];
    let mut soap = Optimizer::new(&gpu, &tensors, Config::from(Soap::default())).unwrap();
    let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &tensors).unwrap());
    grads.write("w", &noise(&mut StdRng::seed_from_u64(6), 50 * size)).unwrap();
    soap.step(&params, &grads).unwrap();
    assert!(params.read_blocking("w").unwrap().iter().all(|&p| p == 0.0), "the first step moves nothing");
    let [gram, basis] = ["gram", "basis"].map(|slot| soap.state_blocking("w", slot).unwrap());
    let number = |matrix: &[f32], row: usize, column: usize| f64::from(matrix[row * size + column]);
    let trace: f64 = (0..size).map(|i| number(&gram, i, i)).sum();
    for column in 0..size {
        let image: Vec<f64> =
            (0..size).map(|row| (0..size).map(|k| number(&gram, row, k) * number(&basis, k, column)).sum()).collect();
        let value: f64 = (0..size).map(|row| image[row] * number(&basis, row, column)).sum();
        for (row, image) in image.iter().enumerate() {
            let off = (image - value * number(&basis, row, column)).abs();
            assert!(off < 1e-5 * trace, "column {column}, row {row}: {off} of {trace}");
        }
    }
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
    let Some(gpu) = gpu("dispatches of sides", cases.len()) else { return };
    for (what, rule) in cases {
        let dispatches = |count: usize| {
            let tensors: Vec<_> = (0..count).map(|i| TensorSpec::f32(format!("w{i}"), [6, 7])).collect();
            let mut twin = Parity::new(&gpu, &Config::from(rule.clone()), &tensors, 3);
            twin.optimizer.plan(&twin.params, &twin.grads).unwrap().dispatches
        };
        // Both turns of a step take a dispatch for each of two sides.
        assert_eq!([1, 2, 126].map(dispatches), [rule.passes().len() + 2; 3], "{what}");
    }
}

#[test]
fn a_side_that_no_page_holds_is_refused() {
    let Some(gpu) = gpu("sides too large", 1) else { return };
    let rule = Soap { max_precondition_dim: 1 << 40, ..Soap::default() };
    let error = Optimizer::new(&gpu, &[TensorSpec::f32("w", [100_000, 1])], Config::from(rule.clone())).unwrap_err();
    assert!(error.to_string().starts_with("tensor w: its matrices take 120002800024 bytes"), "{error}");
    let refused = |gpu: &Gpu, shape: [usize; 2], expected: &str| {
        let error = Optimizer::new(gpu, &[TensorSpec::f32("w", shape)], Config::from(rule.clone())).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let most = |most| format!("at most {most} on this device; max_precondition_dim leaves larger ones out");
    refused(&gpu, [257, 1], &format!("a side of tensor w is 257, must be {}", most(256)));
    let tuning = Tuning { dispatch_bytes: 16_000, ..gpu.tuning() };
    let small = Gpu::with_tuning(gpu.device(), gpu.queue(), tuning).expect("as many bytes as anyone likes");
    refused(&small, [1, 11], &format!("a side of tensor w is 11, must be {}", most(10)));
    let slice = "elements of a slice of tensor w across a side of 2 is 131073, must be at most 131072";
    let tall = Soap { max_precondition_dim: 2, ..Soap::default() };
    let error = Optimizer::new(&gpu, &[TensorSpec::f32("w", [131_073, 2])], Config::from(tall)).unwrap_err();
    assert_eq!(error.to_string(), slice);
    let absurd = [TensorSpec::f32("w", [1, 1 << 38])];
    assert!(Optimizer::new(&gpu, &absurd, Config::from(rule.clone())).is_err());
    let error = Reference::<f32>::new(&Config::from(rule), &absurd).unwrap_err();
    assert!(error.to_string().starts_with("tensor w: its state slots take "), "{error}");
}
