//! L-BFGS on functions whose minimum is known, and where its history must be left as it is.

use ndarray::{ArrayD, arr1};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wgpu_optim::{Arena, Config, Gpu, Lbfgs, Optimizer, Reference, TensorSpec};

use crate::common::{gpu, say};

/// A quadratic `x.A.x/2` with eigenvalues from `1/condition` to 1, geometrically apart, in a random basis.
struct Quadratic {
    a: Vec<Vec<f64>>,
}

impl Quadratic {
    fn new(n: usize, condition: f64, rng: &mut StdRng) -> Self {
        let mut basis: Vec<Vec<f64>> = Vec::new();
        while basis.len() < n {
            let mut vector: Vec<f64> = (0..n).map(|_| rng.random_range(-1.0..1.0)).collect();
            for _ in 0..2 {
                for other in &basis {
                    let along = dot(&vector, other);
                    vector.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
                }
            }
            let norm = dot(&vector, &vector).sqrt();
            basis.push(vector.into_iter().map(|x| x / norm).collect());
        }
        let value = |k: usize| condition.powf(k as f64 / (n - 1) as f64 - 1.0);
        let entry = |i: usize, j: usize| (0..n).map(|k| value(k) * basis[k][i] * basis[k][j]).sum();
        Self { a: (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect() }
    }

    fn grad(&self, x: &[f32]) -> Vec<f32> {
        let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        self.a.iter().map(|row| dot(row, &x) as f32).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// Steps until the largest gradient is below 1e-5 of the first one's.
fn steps_to_rest(gpu: &Gpu, quadratic: &Quadratic, start: &[f32], most: usize) -> Option<usize> {
    // Two tensors, which are one vector.
    let split = start.len() / 3;
    let tensors = [TensorSpec::f32("a", [split]), TensorSpec::f32("b", [start.len() - split])];
    let [params, grads] = [(); 2].map(|()| Arena::new(gpu, &tensors).unwrap());
    let write = |arena: &Arena, values: &[f32]| {
        arena.write("a", &values[..split]).unwrap();
        arena.write("b", &values[split..]).unwrap();
    };
    let mut lbfgs = Optimizer::new(gpu, &tensors, Lbfgs::default()).unwrap();
    write(&params, start);
    let first = largest(&quadratic.grad(start));
    for step in 0..=most {
        let x = [params.read_blocking("a").unwrap(), params.read_blocking("b").unwrap()].concat();
        let grad = quadratic.grad(&x);
        if largest(&grad) < 1e-5 * first {
            return Some(step);
        }
        write(&grads, &grad);
        lbfgs.step(&params, &grads).unwrap();
    }
    None
}

#[test]
fn quadratics_come_to_rest_within_five_steps_a_dimension() {
    let Some(gpu) = gpu("quadratics", 9) else { return };
    for n in [5, 10, 20] {
        for condition in [10.0, 100.0, 1000.0] {
            let mut rng = StdRng::seed_from_u64(n as u64);
            let mut worst = 0;
            for _ in 0..5 {
                let quadratic = Quadratic::new(n, condition, &mut rng);
                let start: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0..1.0)).collect();
                let steps = steps_to_rest(&gpu, &quadratic, &start, 5 * n);
                worst = worst.max(steps.unwrap_or_else(|| panic!("{n} dimensions, condition {condition}: no rest")));
            }
            say(&format!("L-BFGS, {n} dimensions, condition {condition}: at rest after at most {worst} steps"));
        }
    }
}

#[test]
fn a_step_without_any_gradient_changes_nothing() {
    let Some(gpu) = gpu("gradients of 0", 1) else { return };
    let tensors = [TensorSpec::f32("a", [3]), TensorSpec::f32("b", [5])];
    let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &tensors).unwrap());
    let mut lbfgs = Optimizer::new(&gpu, &tensors, Lbfgs { lr: 0.5, history_size: 4, ..Lbfgs::default() }).unwrap();
    let slots = ["g_prev", "d", "s", "y", "scale", "step", "pairs", "next", "started", "slope", "products"];
    let read = |lbfgs: &Optimizer| {
        let state = slots.map(|slot| ["a", "b"].map(|tensor| lbfgs.state_blocking(tensor, slot).unwrap()));
        (state, ["a", "b"].map(|tensor| params.read_blocking(tensor).unwrap()))
    };
    params.write("a", &[1.0, -2.0, 3.0]).unwrap();
    for (step, a) in [[1.0, -2.0, 3.0], [0.4, -1.5, 2.0], [0.0; 3], [0.1, 0.2, -0.3]].into_iter().enumerate() {
        grads.write("a", &a).unwrap();
        let before = read(&lbfgs);
        lbfgs.step(&params, &grads).unwrap();
        assert_eq!(read(&lbfgs) == before, step == 2, "step {step}");
    }
    assert_eq!(read(&lbfgs).0[6], [[2.0], [2.0]], "two pairs");
}

#[test]
fn a_missing_gradient_counts_as_zero() {
    let Some(gpu) = gpu("missing gradients", 1) else { return };
    let tensors = [TensorSpec::f32("a", [3]), TensorSpec::f32("b", [1030])];
    let config = Config::from(Lbfgs { lr: 0.5, history_size: 2, ..Lbfgs::default() });
    let [mut without, mut with_zeros] = [(); 2].map(|()| Optimizer::new(&gpu, &tensors, config.clone()).unwrap());
    let mut reference = Reference::<f32>::new(&config, &tensors).unwrap();
    let [p, q, grads] = [(); 3].map(|()| Arena::new(&gpu, &tensors).unwrap());
    let mut values: Vec<ArrayD<f32>> = tensors.iter().map(|t| ArrayD::zeros(t.shape.clone())).collect();
    let mut rng = StdRng::seed_from_u64(3);
    for step in 0..4 {
        let a: Vec<f32> = (0..3).map(|_| rng.random_range(-1.0..1.0)).collect();
        let b: Vec<f32> = (0..1030).map(|_| if step == 2 { 0.0 } else { rng.random_range(-1.0..1.0) }).collect();
        grads.write("a", &a).unwrap();
        grads.write("b", &b).unwrap();
        with_zeros.step(&q, &grads).unwrap();
        let given = [Some(arr1(&a).into_dyn()), (step != 2).then(|| arr1(&b).into_dyn())];
        reference.step(&mut values, &given).unwrap();
        match step {
            2 => without.step(&p, &grads.without(&["b"]).unwrap()).unwrap(),
            _ => without.step(&p, &grads).unwrap(),
        }
        for (tensor, values) in tensors.iter().zip(&values) {
            let [found, expected] = [&p, &q].map(|arena| arena.read_blocking(&tensor.name).unwrap());
            assert_eq!(found, expected, "step {step}, {}", tensor.name);
            assert_eq!(found, values.as_slice().unwrap(), "step {step}, {}", tensor.name);
        }
    }
    let moved = p.read_blocking("b").unwrap();
    assert!(moved.iter().all(|&x| x != 0.0), "the tensor moves along the history");
}

#[test]
fn dispatches_do_not_grow_with_the_history_or_the_tensors() {
    let Some(gpu) = gpu("dispatches of a history", 4) else { return };
    for (history_size, count) in [(1, 1), (10, 3), (100, 1), (10, 50)] {
        let tensors: Vec<_> = (0..count).map(|i| TensorSpec::f32(format!("t{i}"), [131, 70])).collect();
        let lbfgs = Optimizer::new(&gpu, &tensors, Lbfgs { history_size, ..Lbfgs::default() });
        let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &tensors).unwrap());
        let plan = lbfgs.unwrap().plan(&params, &grads).unwrap();
        assert_eq!((plan.passes, plan.dispatches), (5, 5), "{history_size} pairs, {count} tensors");
    }
}
