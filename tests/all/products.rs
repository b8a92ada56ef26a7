//! Rules that take products of matrices: shapes and lanes, singular values, the number of dispatches.

use crate::common::twin::{Parity, Worst, noise, tensors};
use crate::common::{gpu, say};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wgpu_optim::rule::{AnyRule, Product};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Arena, Config, Gpu, Optimizer, TensorSpec, Tuning};

/// Matrices larger than a tile of a product in one dimension or the other, and of one row or column.
const SHAPES: [&[usize]; 9] =
    [&[200, 130], &[130, 261], &[129, 65], &[65, 129], &[1, 700], &[700, 1], &[64, 3, 3, 3], &[33, 33], &[4, 4]];

/// Every case of every rule that takes products.
fn cases() -> Vec<(String, Box<dyn AnyRule>)> {
    let of_row = ALL
        .iter()
        .filter(|row| (row.default)().has_products())
        .flat_map(|row| (row.cases)().into_iter().map(|(case, rule)| (format!("{}/{case}", row.name), rule)));
    of_row.collect()
}

fn shaped() -> Vec<TensorSpec> {
    SHAPES.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("m{i}"), shape)).collect()
}

#[test]
fn every_shape_matches_by_few_lanes_and_by_many() {
    let cases = cases();
    let Some(gpu) = gpu("shapes of products", 2 * cases.len()) else { return };
    assert!(!cases.is_empty(), "no rule takes products");
    for lanes in [8, 256] {
        let tuning = Tuning { lanes, ..gpu.tuning() };
        let gpu = Gpu::with_tuning(gpu.device(), gpu.queue(), tuning).expect("every device has 256 lanes");
        let mut worst = Worst::default();
        for (what, rule) in &cases {
            let config = Config::from(rule.clone());
            worst.join(Parity::new(&gpu, &config, &shaped(), 31).run(what, 2));
        }
        say(&format!("products by {lanes} lanes: worst {} ulp", worst.ulps));
    }
}

/// Singular values of a matrix with so many columns, the largest first: the roots of the eigenvalues of the smaller
/// Gram matrix, by Jacobi's rotations.
fn singular_values(matrix: &[f64], columns: usize) -> Vec<f64> {
    let rows = matrix.len() / columns;
    let at = |i: usize, k: usize| if rows <= columns { matrix[i * columns + k] } else { matrix[k * columns + i] };
    let (size, len) = (rows.min(columns), rows.max(columns));
    let dot = |i: usize, j: usize| (0..len).map(|k| at(i, k) * at(j, k)).sum::<f64>();
    let mut gram: Vec<Vec<f64>> = (0..size).map(|i| (0..size).map(|j| dot(i, j)).collect()).collect();
    for _ in 0..12 {
        for (p, q) in (0..size).flat_map(|p| (p + 1..size).map(move |q| (p, q))) {
            if gram[p][q] == 0.0 {
                continue;
            }
            let theta = (gram[q][q] - gram[p][p]) / (2.0 * gram[p][q]);
            let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
            let (c, s) = (1.0 / t.hypot(1.0), t / t.hypot(1.0));
            for row in &mut gram {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            let [of_p, of_q] = [p, q].map(|row| gram[row].clone());
            gram[p] = of_p.iter().zip(&of_q).map(|(a, b)| c * a - s * b).collect();
            gram[q] = of_p.iter().zip(&of_q).map(|(a, b)| s * a + c * b).collect();
        }
    }
    let mut values: Vec<f64> = (0..size).map(|i| gram[i][i].max(0.0).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// What an iteration makes of a singular value.
fn iterated(rule: &dyn AnyRule, value: f64) -> f64 {
    let mut coefficients = [0.0; 3];
    rule.products().fold(value, |value, product| match product {
        Product::Gram => value,
        Product::Square { alpha, beta } => {
            (coefficients[1], coefficients[2]) = (beta.number(), alpha.number());
            value
        }
        Product::Update { beta, .. } => {
            coefficients[0] = beta.number();
            let square = value * value;
            value * (coefficients[0] + square * (coefficients[1] + square * coefficients[2]))
        }
    })
}

#[test]
fn singular_values_are_those_that_the_coefficients_promise() {
    // These are the rules whose update is the last product alone, times the learning rate.
    let plain = r#"{"lr": 1, "momentum": 0, "adjust_lr": "none", "weight_decay": "none"}"#;
    let fields: serde_json::Map<_, _> = serde_json::from_str(plain).unwrap();
    let rows = ALL.iter().filter(|row| (row.default)().has_products() && !(row.default)().has_lines());
    let presets = rows.flat_map(|row| (row.presets)().into_iter().chain([("default", (row.default)())]));
    let rules: Vec<_> = presets.map(|(_, rule)| rule.with(&fields).unwrap()).collect();
    let Some(gpu) = gpu("singular values", rules.len()) else { return };
    let mut rng = StdRng::seed_from_u64(5);
    let (rows, columns) = (40, 24);
    let random = noise(&mut rng, rows * columns);
    // Of rank 3; of rows whose sizes go from 1e-6 to 1e6; of one row; of nothing.
    let [tall, wide] = [rows, columns].map(|len| noise(&mut rng, 3 * len));
    let of_rank = |i: usize| (0..3).map(|k| tall[i / columns * 3 + k] * wide[i % columns * 3 + k]).sum::<f32>();
    let deficient = (0..rows * columns).map(of_rank).collect();
    let badly_scaled = (0..rows * columns)
        .map(|i| random[i] * 10f32.powf(12.0 * (i / columns) as f32 / (rows - 1) as f32 - 6.0))
        .collect();
    let one_row: Vec<f32> = noise(&mut rng, columns);
    let grads: [(&str, Vec<f32>); 5] = [
        ("random", random.clone()),
        ("deficient", deficient),
        ("badly scaled", badly_scaled),
        ("one row", one_row),
        ("zero", vec![0.0; columns]),
    ];
    let tensors: Vec<_> =
        grads.iter().map(|(name, grad)| TensorSpec::f32(*name, [grad.len() / columns, columns])).collect();
    let mut worst = 0.0f64;
    for rule in &rules {
        let (params, arena) = (Arena::new(&gpu, &tensors).unwrap(), Arena::new(&gpu, &tensors).unwrap());
        let mut optimizer = Optimizer::new(&gpu, &tensors, Config::from(rule.clone())).unwrap();
        for (name, grad) in &grads {
            params.write(name, &vec![0.0; grad.len()]).unwrap();
            arena.write(name, grad).unwrap();
        }
        optimizer.step(&params, &arena).unwrap();
        let safety = rule.number("ns_safety").expect("a number");
        for (name, grad) in &grads {
            let moved: Vec<f64> = params.read_blocking(name).unwrap().into_iter().map(f64::from).collect();
            let grad: Vec<f64> = grad.iter().map(|&g| f64::from(g)).collect();
            let norm = grad.iter().map(|g| g * g).sum::<f64>().sqrt() * safety;
            let start = singular_values(&grad, columns).into_iter().map(|value| value / norm.max(1e-7));
            let mut expected: Vec<f64> = start.map(|value| iterated(&**rule, value).abs()).collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            let found = singular_values(&moved, columns);
            for (found, expected) in found.iter().zip(&expected) {
                worst = worst.max((found - expected).abs());
                // A singular value of the start is known to 1e-8 or so, and the iteration takes it 3.5^5 times as far.
                assert!((found - expected).abs() < 2e-4, "{name}, {rule:?}: {found}, expected {expected}");
            }
        }
    }
    say(&format!("singular values of {} rules: at most {worst:.1e} away", rules.len()));
}

#[test]
fn the_number_of_dispatches_does_not_hang_on_the_number_of_matrices() {
    let cases = cases();
    let Some(gpu) = gpu("dispatches of products", cases.len()) else { return };
    for (what, rule) in cases {
        let dispatches = |count: usize| {
            let mut twin = Parity::new(&gpu, &Config::from(rule.clone()), &tensors(&vec![9000; count]), 3);
            twin.optimizer.plan(&twin.params, &twin.grads).unwrap().dispatches
        };
        assert_eq!([1, 2, 126].map(dispatches), [rule.passes().len(); 3], "{what}");
    }
}

#[test]
fn a_matrix_that_no_page_holds_is_refused() {
    let cases = cases();
    let Some(gpu) = gpu("matrices too large", cases.len()) else { return };
    let most = gpu.device().limits().max_storage_buffer_binding_size.min(gpu.device().limits().max_buffer_size);
    // Three times its elements do not fit, while the elements do.
    let len = (most / 10) as usize;
    for (what, rule) in cases {
        let error = Optimizer::new(&gpu, &[TensorSpec::f32("w", [1, len])], Config::from(rule)).expect_err(&what);
        assert!(error.to_string().starts_with("tensor w: its matrices take "), "{what}: {error}");
    }
}
