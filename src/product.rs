//! Products of matrices: the iteration that a rule may run on a tensor as one matrix, and where its parts lie in the
//! work buffer. The GPU adds products up in the order of [`multiply`], whatever its tiles are.
//!
//! Twin: `shaders/skeletons/product.wgsl`.

use crate::lines::Lines;
use crate::parts::Real;

/// How many products are added up one after the other, before their sum joins the sums of the runs before it.
const RUN: usize = 32;

/// A coefficient, compared by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coefficient(u64);

impl Coefficient {
    /// The number.
    pub fn number(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Coefficient {
    fn from(number: f64) -> Self {
        Self(number.to_bits())
    }
}

impl std::fmt::Debug for Coefficient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number().fmt(f)
    }
}

/// One product of the iteration `A = X*X^T; X <- k1*X + (k2*A + k3*A*A)*X`. `X` has the tensor's rows and columns, or
/// those of its transpose where it has more rows than columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// `A = X*X^T`.
    Gram,
    /// `B = alpha*A*A + beta*A`.
    Square {
        /// `k3`.
        alpha: Coefficient,
        /// `k2`.
        beta: Coefficient,
    },
    /// `X <- B*X + beta*X`. `X` has two places and moves from one to the other.
    Update {
        /// `k1`.
        beta: Coefficient,
        /// Whether `X` lies at the second place, and goes to the first.
        is_second: bool,
    },
}

impl Product {
    /// Which of the three it is.
    pub fn kind(self) -> usize {
        match self {
            Self::Gram => 0,
            Self::Square { .. } => 1,
            Self::Update { .. } => 2,
        }
    }

    /// The products of an iteration with these coefficients `[k1, k2, k3]`, a triple a step. `X` ends at the first
    /// place.
    pub fn iteration(steps: Vec<[f64; 3]>) -> impl Iterator<Item = Self> {
        let count = steps.len();
        steps.into_iter().enumerate().flat_map(move |(i, step)| {
            let [k1, k2, k3] = step.map(Coefficient::from);
            let is_second = (count - i) % 2 == 1;
            [Self::Gram, Self::Square { alpha: k3, beta: k2 }, Self::Update { beta: k1, is_second }]
        })
    }
}

/// Where the parts of a tensor's iteration lie, in words from the tensor's first one in the work buffer. Rows and
/// columns of every part are padded with zeros to a multiple of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Rows of `X`: the smaller number of rows and columns of the tensor.
    pub rows: u64,
    /// Columns of `X`.
    pub columns: u64,
    /// Whether `X` is the tensor's transpose.
    pub is_turned: bool,
}

impl Frame {
    /// The layout of a tensor with these lines.
    pub fn of(lines: &Lines) -> Self {
        let (rows, columns) = (lines.rows.min(lines.columns), lines.rows.max(lines.columns));
        Self { rows, columns, is_turned: lines.rows > lines.columns }
    }

    fn sizes(&self) -> [u64; 2] {
        let padded = |size: u64| size.checked_next_multiple_of(4).unwrap_or(u64::MAX);
        [padded(self.rows).saturating_mul(padded(self.columns)), padded(self.rows).saturating_mul(padded(self.rows))]
    }

    /// The two places of `X`.
    pub fn x(&self) -> [u64; 2] {
        [0, self.sizes()[0]]
    }

    /// The place of `X^T`.
    pub fn x_turned(&self) -> u64 {
        2 * self.sizes()[0]
    }

    /// The place of `A`.
    pub fn gram(&self) -> u64 {
        3 * self.sizes()[0]
    }

    /// The place of `B`.
    pub fn square(&self) -> u64 {
        self.gram() + self.sizes()[1]
    }

    /// How many words all parts have; the sum saturates.
    pub fn words(&self) -> u64 {
        let [x, gram] = self.sizes();
        x.saturating_mul(3).saturating_add(gram.saturating_mul(2))
    }
}

/// `P^T*Q`, where both have so many rows. Each element is a sum over these rows, from the first to the last.
pub fn multiply<F: Real>(p: &[F], q: &[F], rows: usize) -> Vec<F> {
    let [high, wide] = [p, q].map(|matrix| matrix.len() / rows);
    let mut sums = vec![F::zero(); high * wide];
    let mut run = vec![F::zero(); wide];
    for (i, sums) in sums.chunks_mut(wide).enumerate() {
        for first in (0..rows).step_by(RUN) {
            run.fill(F::zero());
            for k in first..rows.min(first + RUN) {
                let factor = p[k * high + i];
                run.iter_mut().zip(&q[k * wide..]).for_each(|(sum, &q)| *sum += factor * q);
            }
            sums.iter_mut().zip(&run).for_each(|(sum, &run)| *sum += run);
        }
    }
    sums
}

/// A matrix with so many columns, transposed.
pub fn transpose<F: Real>(matrix: &[F], columns: usize) -> Vec<F> {
    let rows = matrix.len() / columns;
    (0..matrix.len()).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

/// An iteration on the CPU.
#[derive(Clone, Debug)]
pub struct Iteration<F> {
    x: Vec<F>,
    gram: Vec<F>,
    square: Vec<F>,
}

impl<F> Default for Iteration<F> {
    fn default() -> Self {
        Self { x: vec![], gram: vec![], square: vec![] }
    }
}

impl<F: Real> Iteration<F> {
    /// Starts the iteration at these numbers of a tensor's elements.
    pub fn start(lines: &Lines, elements: Vec<F>) -> Self {
        let x = if Frame::of(lines).is_turned { transpose(&elements, lines.columns as usize) } else { elements };
        Self { x, gram: vec![], square: vec![] }
    }

    /// Makes one product.
    pub fn take(&mut self, lines: &Lines, product: Product) {
        let [rows, columns] = [Frame::of(lines).rows, Frame::of(lines).columns].map(|size| size as usize);
        let joined = |mut sums: Vec<F>, alpha: F, beta: Coefficient, others: &[F]| {
            let beta = F::of(beta.number());
            sums.iter_mut().zip(others).for_each(|(sum, &other)| *sum = alpha * *sum + beta * other);
            sums
        };
        match product {
            Product::Gram => {
                let turned = transpose(&self.x, columns);
                self.gram = multiply(&turned, &turned, columns);
            }
            Product::Square { alpha, beta } => {
                let sums = multiply(&self.gram, &self.gram, rows);
                self.square = joined(sums, F::of(alpha.number()), beta, &self.gram);
            }
            Product::Update { beta, .. } => {
                self.x = joined(multiply(&self.square, &self.x, rows), F::one(), beta, &self.x);
            }
        }
    }

    /// The numbers that the iteration has come to, for each of the tensor's elements.
    pub fn elements(&self, lines: &Lines) -> Vec<F> {
        if Frame::of(lines).is_turned { transpose(&self.x, lines.rows as usize) } else { self.x.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::TensorSpec;

    #[test]
    fn an_iteration_makes_rows_or_columns_orthonormal() {
        // Coefficients of Newton and Schulz's iteration, which converges for singular values up to the root of 3.
        let steps = vec![[1.5, -0.5, 0.0]; 60];
        for shape in [[3, 5], [5, 3], [4, 4], [1, 7], [6, 1]] {
            let lines = Lines::leading(&TensorSpec::f32("w", shape)).unwrap();
            let elements: Vec<f64> = (0..shape[0] * shape[1]).map(|i| ((i * i + 1) as f64).sin() / 4.0).collect();
            let mut iteration = Iteration::start(&lines, elements);
            Product::iteration(steps.clone()).for_each(|product| iteration.take(&lines, product));
            let found = iteration.elements(&lines);
            let turned = if shape[0] > shape[1] { found } else { transpose(&found, shape[1]) };
            let gram = multiply(&turned, &turned, shape[0].max(shape[1]));
            let size = shape[0].min(shape[1]);
            for (i, found) in gram.into_iter().enumerate() {
                let expected = if i / size == i % size { 1.0 } else { 0.0 };
                assert!((found - expected).abs() < 1e-12, "{shape:?}, element {i}: {found}");
            }
        }
    }

    #[test]
    fn an_iteration_ends_at_the_first_place() {
        for steps in 1..4 {
            let places: Vec<_> = Product::iteration(vec![[1.0; 3]; steps])
                .filter_map(
                    |product| if let Product::Update { is_second, .. } = product { Some(is_second) } else { None },
                )
                .collect();
            assert_eq!((places.len(), places.last()), (steps, Some(&true)));
            assert!(places.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn parts_of_a_frame_stand_one_behind_the_other() {
        let frame = Frame::of(&Lines::leading(&TensorSpec::f32("w", [7, 3])).unwrap());
        assert_eq!(frame, Frame { rows: 3, columns: 7, is_turned: true });
        assert_eq!((frame.x(), frame.x_turned(), frame.gram(), frame.square()), ([0, 32], 64, 96, 112));
        assert_eq!(frame.words(), 128);
    }
}
