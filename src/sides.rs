//! The sides of a tensor: its dimensions, each with a running Gram matrix and an orthonormal basis, into which a rule
//! turns the tensor. Here are the sums, Jacobi's rotations and Householder's reflections on the CPU, in the order of
//! the GPU, and where the parts of a tensor lie in the work buffer.
//!
//! Twins: `shaders/skeletons/grams.wgsl`, `shaders/skeletons/turn.wgsl`, `shaders/skeletons/bases.wgsl`.

use crate::error::{Result, refuse};
use crate::parts::Real;

/// How many products are added up one after the other, before their sum joins the sums of the runs before it.
const RUN: usize = 32;

/// How often Jacobi's rotations go over all pairs of a matrix at most. About ten times is enough for f32.
const SWEEPS: usize = 20;

/// Bytes that one workgroup reads and writes in a dispatch at most. More of them would take a large GPU a second, and
/// need more rounds of loops than Mesa's llvmpipe grants a lane: 65535 in all.
const WORKGROUP_BYTES: u64 = 256 << 20;

/// Elements of a slice at most: a lane multiplies two slices with each other, within the same bounds.
const SLICE: u64 = 1 << 17;

/// How many numbers the squares of a column are added up into, before these are added up.
const LEAVES: usize = 32;

/// Which dimensions of a tensor are sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sides {
    /// The largest size of a side.
    pub most: usize,
    /// Whether the dimension of a vector may be one.
    pub of_vectors: bool,
}

impl Sides {
    /// The sides of a tensor of this shape, in the order of its dimensions. A tensor without elements has none.
    pub fn of(self, shape: &[usize]) -> Vec<Side> {
        if shape.contains(&0) || shape.len() < 2 && !self.of_vectors {
            return vec![];
        }
        let times = |a: u64, &b: &usize| a.saturating_mul(b as u64);
        let len = shape.iter().fold(1, times);
        let mut before = 1;
        let mut sides = Vec::new();
        for size in shape {
            before = times(before, size);
            if *size <= self.most {
                sides.push(Side { size: *size as u64, inner: len / before, len });
            }
        }
        sides
    }

    /// How many numbers the matrices of all sides have; the sum saturates.
    pub fn numbers(self, shape: &[usize]) -> usize {
        usize::try_from(Parts::of(0, &self.of(shape)).matrices()).unwrap_or(usize::MAX)
    }
}

/// A dimension that has a Gram matrix and a basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its size: rows and columns of its matrices.
    pub size: u64,
    /// Elements of the tensor from one index to the next.
    pub inner: u64,
    /// Elements of the tensor.
    pub len: u64,
}

impl Side {
    /// Bytes that a sweep of rotations reads and writes: in each round all elements of two matrices.
    fn sweep_bytes(size: u64) -> u64 {
        size.saturating_pow(3).saturating_mul(2 * 2 * 4)
    }

    /// The largest side of which a dispatch that moves so many bytes makes a sweep.
    pub fn most(dispatch_bytes: u64) -> u64 {
        let bytes = dispatch_bytes.min(WORKGROUP_BYTES);
        (1..).take_while(|&size| Self::sweep_bytes(size) <= bytes).count() as u64
    }

    /// The sweeps that each dispatch makes which moves so many bytes: how many come before, and how many there are.
    pub fn sweeps(self, dispatch_bytes: u64) -> impl Iterator<Item = [u64; 2]> {
        let (all, bytes) = (SWEEPS as u64, dispatch_bytes.min(WORKGROUP_BYTES));
        let most = (bytes / Self::sweep_bytes(self.size)).clamp(1, all);
        (0..all).step_by(most as usize).map(move |first| [first, most.min(all - first)])
    }

    /// Refuses a side that is too large for a dispatch that moves so many bytes.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), which names the tensor.
    pub fn check(self, tensor: &str, dispatch_bytes: u64) -> Result<()> {
        let (most, slice) = (Self::most(dispatch_bytes), self.len / self.size);
        if self.size > most {
            let bound = format!("at most {most} on this device; max_precondition_dim leaves larger ones out");
            return refuse(format!("a side of tensor {tensor}"), self.size, bound);
        }
        if slice > SLICE {
            let bound = format!("at most {SLICE}");
            return refuse(
                format!("elements of a slice of tensor {tensor} across a side of {}", self.size),
                slice,
                bound,
            );
        }
        Ok(())
    }

    /// A square matrix as a tensor with one side, its rows.
    pub fn of_matrix(size: u64) -> Self {
        Self { size, inner: size, len: size * size }
    }
}

/// Where a turn leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turning {
    /// The gradient and what the rule spread, into the bases of all sides.
    Into,
    /// What the rule made there, back.
    Back,
    /// Each basis, by its Gram matrix: a step of the power iteration.
    Power,
}

impl Turning {
    /// Its place among the lists of a plan.
    pub fn kind(self) -> usize {
        self as usize
    }
}

/// Where the parts of a tensor with sides lie, in words from the tensor's first one in the work buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Words of the tensor's elements.
    elements: u64,
    /// Words of the matrices of all sides.
    matrices: u64,
    /// The sizes of all sides together.
    sizes: u64,
}

impl Parts {
    /// The parts of a tensor with so many elements and these sides.
    pub fn of(len: u64, sides: &[Side]) -> Self {
        Self {
            elements: len.checked_next_multiple_of(4).unwrap_or(u64::MAX),
            matrices: sides.iter().map(|side| side.size.saturating_mul(side.size)).fold(0, u64::saturating_add),
            sizes: sides.iter().map(|side| side.size).fold(0, u64::saturating_add),
        }
    }

    /// The two places of the elements: what turns goes from one to the other. What the rule spread stands
    /// [`span`](Self::span) words behind the gradient.
    pub fn places(&self) -> [u64; 2] {
        [0, 2 * self.elements]
    }

    /// Words from the gradient to what the rule spread.
    pub fn span(&self) -> u64 {
        self.elements
    }

    /// How many elements the matrices of one kind have.
    pub fn matrices(&self) -> u64 {
        self.matrices
    }

    /// The place of the Gram matrices, one side's behind the other's. The bases stand behind them.
    pub fn grams(&self) -> u64 {
        4 * self.elements
    }

    /// The place of the bases.
    pub fn bases(&self) -> u64 {
        self.grams() + self.matrices
    }

    /// The place of the matrices on which new bases are worked out.
    pub fn drafts(&self) -> u64 {
        self.bases() + self.matrices
    }

    /// The place of three numbers for each column of them.
    pub fn notes(&self) -> u64 {
        self.drafts() + self.matrices
    }

    /// How many words all parts have; the sum saturates.
    pub fn words(&self) -> u64 {
        let matrices = self.matrices.saturating_mul(3).saturating_add(self.sizes.saturating_mul(3));
        self.elements.saturating_mul(4).saturating_add(matrices)
    }
}

/// Adds `count` products up: those of a run one after the other, then the runs.
fn add_up<F: Real>(count: usize, product: impl Fn(usize) -> F) -> F {
    let run = |first: usize| (first..count.min(first + RUN)).fold(F::zero(), |sum, k| sum + product(k));
    (0..count).step_by(RUN).fold(F::zero(), |sum, first| sum + run(first))
}

/// The products of a side's slices with each other, over all other dimensions.
pub fn gram<F: Real>(side: Side, elements: &[F]) -> Vec<F> {
    let [size, inner] = [side.size, side.inner].map(|number| number as usize);
    let at = |slice: usize, k: usize| elements[(k / inner * size + slice) * inner + k % inner];
    let sum = |i: usize| add_up(elements.len() / size, |k| at(i / size, k) * at(i % size, k));
    (0..size * size).map(sum).collect()
}

/// Applies a matrix along a side, or the matrix's transpose.
pub fn turn<F: Real>(side: Side, elements: &[F], matrix: &[F], transposes: bool) -> Vec<F> {
    let [size, inner] = [side.size, side.inner].map(|number| number as usize);
    let one = |i: usize| {
        let (line, within) = (i / inner, i % inner);
        let (outer, index) = (line / size, line % size);
        add_up(size, |k| {
            let factor = if transposes { matrix[k * size + index] } else { matrix[index * size + k] };
            factor * elements[(outer * size + k) * inner + within]
        })
    };
    (0..elements.len()).map(one).collect()
}

/// The two columns of a pair in a round of a tournament, in which every column meets every other one once. With an odd
/// number of columns one sits the round out: it is its own partner.
fn pair_of(pair: usize, round: usize, size: usize) -> [usize; 2] {
    let others = size + size % 2 - 1;
    let p = (round + pair) % others;
    let q = if pair == 0 { others } else { (round + others - pair) % others };
    let first = p.min(q);
    [first, if p.max(q) < size { p.max(q) } else { first }]
}

/// The eigenvectors of a symmetric matrix, as columns, by Jacobi's rotations. The columns come in no order.
pub fn eigenvectors<F: Real>(matrix: &[F], size: usize) -> Vec<F> {
    let mut a = matrix.to_vec();
    let mut vectors: Vec<F> = (0..size * size).map(|i| F::of(f64::from(i / size == i % size))).collect();
    let trace = (0..size).fold(F::zero(), |sum, i| sum + a[i * size + i]);
    let bound = F::epsilon() * trace / F::of(size as f64);
    let pairs = size.div_ceil(2);
    for _ in 0..SWEEPS {
        let mut rotates = false;
        for round in 0..2 * pairs - 1 {
            let of_pair = |pair: usize| {
                let [p, q] = pair_of(pair, round, size);
                let off = a[p * size + q];
                let is_large = p != q && off.abs() > bound;
                if !is_large {
                    return ([p, q], [F::one(), F::zero()]);
                }
                let tau = (a[q * size + q] - a[p * size + p]) / (off + off);
                let size = F::one() / (tau.abs() + (F::one() + tau * tau).sqrt());
                let tangent = if tau < F::zero() { -size } else { size };
                let cosine = F::one() / (F::one() + tangent * tangent).sqrt();
                ([p, q], [cosine, tangent * cosine])
            };
            let turns: Vec<_> = (0..pairs).map(of_pair).collect();
            rotates |= turns.iter().any(|(_, [_, sine])| *sine != F::zero());
            for (i, &([p, q], rows)) in turns.iter().enumerate() {
                for (j, &([r, s], columns)) in turns.iter().enumerate().skip(i) {
                    let [top, below] = [p, q].map(|row| rotated(columns, [a[row * size + r], a[row * size + s]]));
                    let [left, right] = [0, 1].map(|column| rotated(rows, [top[column], below[column]]));
                    let mut block = [[left[0], right[0]], [left[1], right[1]]];
                    if i == j && rows[1] != F::zero() {
                        block[1][0] = F::zero();
                    }
                    for (row, numbers) in [p, q].into_iter().zip(block) {
                        for (column, number) in [r, s].into_iter().zip(numbers) {
                            a[row * size + column] = number;
                            a[column * size + row] = number;
                        }
                    }
                }
            }
            for row in vectors.chunks_mut(size) {
                for &([p, q], turn) in turns.iter().filter(|([p, q], _)| p != q) {
                    [row[p], row[q]] = rotated(turn, [row[p], row[q]]);
                }
            }
        }
        if !rotates {
            break;
        }
    }
    vectors
}

/// A rotation, by its cosine and sine, of two numbers.
fn rotated<F: Real>([cosine, sine]: [F; 2], [x, y]: [F; 2]) -> [F; 2] {
    [cosine * x - sine * y, sine * x + cosine * y]
}

/// The orthogonal factor of the QR decomposition of `draft`, by Householder's reflections. The columns are taken in the
/// order of their products with those of the old `basis`, largest first, and keep their places.
pub fn orthogonal<F: Real>(mut draft: Vec<F>, basis: &[F], size: usize) -> Vec<F> {
    let mut along = Vec::with_capacity(size);
    for column in 0..size {
        let places = || (0..size).map(|row| row * size + column);
        along.push(places().fold(F::zero(), |sum, at| sum + basis[at] * draft[at]));
        // Squares of small numbers would vanish, and the length of a column does not matter.
        let most = places().fold(F::zero(), |most, at| if draft[at].abs() > most { draft[at].abs() } else { most });
        if most > F::zero() {
            places().for_each(|at| draft[at] /= most);
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| along[b].f64().total_cmp(&along[a].f64()));
    let mut taus = vec![F::zero(); size];
    for (pivot, &column) in order.iter().enumerate() {
        let mut leaves = [F::zero(); LEAVES];
        for row in pivot + 1..size {
            let number = draft[row * size + column];
            leaves[(row - pivot - 1) % LEAVES] += number * number;
        }
        let below = leaves.into_iter().fold(F::zero(), |sum, leaf| sum + leaf);
        if below == F::zero() {
            continue;
        }
        let head = draft[pivot * size + column];
        let length = (head * head + below).sqrt();
        let new = if head < F::zero() { length } else { -length };
        taus[pivot] = (new - head) / new;
        (pivot + 1..size).for_each(|row| draft[row * size + column] /= head - new);
        let mirror: Vec<F> = (0..size).map(|row| draft[row * size + column]).collect();
        order[pivot + 1..].iter().for_each(|&other| reflect(&mut draft, other, pivot, &mirror, taus[pivot]));
    }
    let mut new = vec![F::zero(); size * size];
    for (last, &column) in order.iter().enumerate() {
        new[last * size + column] = F::one();
        for pivot in (0..=last).rev().filter(|&pivot| taus[pivot] != F::zero()) {
            let mirror: Vec<F> = (0..size).map(|row| draft[row * size + order[pivot]]).collect();
            reflect(&mut new, column, pivot, &mirror, taus[pivot]);
        }
    }
    new
}

/// Reflects a column of a matrix. The mirror counts below the pivot, where it has 1.
fn reflect<F: Real>(matrix: &mut [F], column: usize, pivot: usize, mirror: &[F], tau: F) {
    let size = mirror.len();
    let head = matrix[pivot * size + column];
    let dot = (pivot + 1..size).fold(head, |sum, row| sum + mirror[row] * matrix[row * size + column]);
    let factor = tau * dot;
    matrix[pivot * size + column] = head - factor;
    (pivot + 1..size).for_each(|row| matrix[row * size + column] -= factor * mirror[row]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * i + 1) as f64).sin()).collect()
    }

    fn rows(size: usize) -> Side {
        Side::of_matrix(size as u64)
    }

    fn worst(found: &[f64], expected: impl Fn(usize) -> f64) -> f64 {
        found.iter().enumerate().map(|(i, found)| (found - expected(i)).abs()).fold(0.0, f64::max)
    }

    fn is_identity(matrix: &[f64], size: usize) -> bool {
        worst(matrix, |i| f64::from(i / size == i % size)) < 1e-12
    }

    #[test]
    fn every_dimension_up_to_the_largest_size_is_a_side() {
        let of = |most, of_vectors, shape: &[usize]| {
            Sides { most, of_vectors }.of(shape).iter().map(|side| [side.size, side.inner]).collect::<Vec<_>>()
        };
        assert_eq!(of(4, false, &[2, 5, 3]), [[2, 15], [3, 1]]);
        assert_eq!(of(5, false, &[2, 5, 3]), [[2, 15], [5, 3], [3, 1]]);
        for (of_vectors, count) in [(false, 0), (true, 1)] {
            assert_eq!(of(9, of_vectors, &[7]).len(), count);
        }
        assert!(of(9, true, &[]).is_empty() && of(9, true, &[0]).is_empty() && of(9, false, &[3, 0]).is_empty());
        assert_eq!(Sides { most: 4, of_vectors: false }.numbers(&[2, 5, 3]), 4 + 9);
    }

    #[test]
    fn dispatches_make_all_sweeps() {
        let sweeps = |size, bytes| Side::of_matrix(size).sweeps(bytes).collect::<Vec<_>>();
        assert_eq!(sweeps(2, u64::MAX), [[0, 20]]);
        assert_eq!(sweeps(10, 16_000), (0..20).map(|first| [first, 1]).collect::<Vec<_>>());
        assert_eq!(sweeps(10, 7 * 16_000), [[0, 7], [7, 7], [14, 6]]);
        assert_eq!([15, 16, 127, 128, 16_000, u64::MAX].map(Side::most), [0, 1, 1, 2, 10, 256]);
    }

    #[test]
    fn parts_stand_one_behind_the_other() {
        let parts = Parts::of(30, &Sides { most: 4, of_vectors: false }.of(&[2, 5, 3]));
        assert_eq!((parts.places(), parts.span(), parts.grams(), parts.bases()), ([0, 64], 32, 128, 141));
        assert_eq!((parts.drafts(), parts.notes(), parts.words()), (154, 167, 182));
    }

    #[test]
    fn a_gram_matrix_is_that_of_the_slices() {
        let (shape, elements) = ([2, 5, 3], numbers(30));
        let sides = Sides { most: 9, of_vectors: false }.of(&shape);
        for (dim, &side) in sides.iter().enumerate() {
            let index = |i: usize| [i / 15, i / 3 % 5, i % 3];
            let expected = |i: usize, j: usize| -> f64 {
                let pairs = (0..30).flat_map(|a| (0..30).map(move |b| (a, b)));
                let is_here = |a: usize, b: usize| {
                    let (a, b) = (index(a), index(b));
                    a[dim] == i && b[dim] == j && (0..3).all(|other| other == dim || a[other] == b[other])
                };
                pairs.filter(|&(a, b)| is_here(a, b)).map(|(a, b)| elements[a] * elements[b]).sum()
            };
            let found = gram(side, &elements);
            assert!(worst(&found, |i| expected(i / shape[dim], i % shape[dim])) < 1e-12, "dimension {dim}");
        }
    }

    #[test]
    fn a_turn_and_its_way_back_cancel() {
        let elements = numbers(30);
        for side in (Sides { most: 9, of_vectors: false }).of(&[2, 5, 3]) {
            let basis = eigenvectors(&gram(side, &elements), side.size as usize);
            let turned = turn(side, &elements, &basis, true);
            assert!(worst(&turned, |i| elements[i]) > 0.1);
            assert!(worst(&turn(side, &turned, &basis, false), |i| elements[i]) < 1e-12);
        }
    }

    #[test]
    fn columns_meet_each_other_once() {
        for size in 1..10usize {
            let pairs = size.div_ceil(2);
            let mut met = vec![0; size * size];
            for round in 0..2 * pairs - 1 {
                let mut seen = vec![false; size];
                for [p, q] in (0..pairs).map(|pair| pair_of(pair, round, size)) {
                    assert!(!seen[p] && !seen[q], "{size}: {p} and {q} in round {round}");
                    (seen[p], seen[q]) = (true, true);
                    met[p * size + q] += usize::from(p != q);
                }
            }
            assert!((0..size * size).all(|i| met[i] == usize::from(i / size < i % size)), "{size}: {met:?}");
        }
    }

    #[test]
    fn eigenvectors_make_a_matrix_diagonal() {
        for size in [1, 2, 3, 8, 33] {
            // A Gram matrix of too few slices has a null space.
            for len in [size * size, size * (size / 2).max(1)] {
                let side = Side { size: size as u64, inner: (len / size) as u64, len: len as u64 };
                let matrix = gram(side, &numbers(len));
                let vectors = eigenvectors(&matrix, size);
                assert!(is_identity(&gram(rows(size), &vectors), size), "{size}");
                let turned = turn(rows(size), &matrix, &vectors, true);
                let there = turn(Side { inner: 1, ..rows(size) }, &turned, &vectors, true);
                let trace: f64 = (0..size).map(|i| matrix[i * size + i]).sum();
                let off = worst(&there, |i| if i / size == i % size { there[i] } else { 0.0 });
                assert!(off <= 1e-13 * trace, "{size} of {len}: {off}");
            }
        }
        assert!(is_identity(&eigenvectors(&[0.0; 9], 3), 3));
        assert!(is_identity(&eigenvectors(&[f64::NAN; 9], 3), 3));
    }

    #[test]
    fn the_orthogonal_factor_spans_what_the_columns_do_in_their_order() {
        for size in [1, 2, 5, 33] {
            let (draft, basis) = (numbers(size * size), numbers(size * size + 7)[7..].to_vec());
            let found = orthogonal(draft.clone(), &basis, size);
            assert!(is_identity(&gram(rows(size), &found), size), "{size}");
            let along =
                |column: usize| -> f64 { (0..size).map(|k| basis[k * size + column] * draft[k * size + column]).sum() };
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| along(b).total_cmp(&along(a)));
            // A column of the draft has nothing of those that come behind it.
            for (i, &column) in order.iter().enumerate() {
                for &behind in &order[i + 1..] {
                    let dot: f64 = (0..size).map(|k| found[k * size + behind] * draft[k * size + column]).sum();
                    assert!(dot.abs() < 1e-12, "{size}: {column} before {behind}: {dot}");
                }
            }
        }
        assert!(is_identity(&orthogonal(vec![0.0; 9], &[0.0; 9], 3), 3), "nothing at all");
        let tiny: Vec<f64> = numbers(9).into_iter().map(|x| 1e-200 * x).collect();
        assert!(is_identity(&gram(rows(3), &orthogonal(tiny, &numbers(9), 3)), 3), "squares that vanish");
    }
}
