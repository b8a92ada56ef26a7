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

/// Rows and columns of a tile of the matrices that new bases are worked out on.
pub(crate) const EDGE: usize = 32;

/// Columns of a block: two of them meet in a tile.
const HALF: usize = EDGE / 2;

/// Elements of a slice at most. A lane multiplies two slices with each other, and Mesa's llvmpipe ends the loops of a
/// lane after 65535 rounds in all.
const SLICE: u64 = 1 << 17;

/// How many numbers a sum over the rows of a column is added up into, before these are added up.
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
    /// How many tiles lie side by side in its matrices.
    pub fn tiles(self) -> u64 {
        self.size.div_ceil(EDGE as u64)
    }

    /// How often a renewal repeats its dispatches: rounds of rotations, in which all pairs of blocks meet 20 times; or
    /// one round that orders the columns, one a tile that finds reflections, and one a tile that makes the basis.
    pub fn rounds(self, renewal: Renewal) -> u64 {
        match renewal {
            Renewal::Eigenvectors => SWEEPS as u64 * (2 * self.tiles() - 1),
            Renewal::Power => 2 * self.tiles() + 1,
        }
    }

    /// Refuses a side whose Gram matrix has longer sums than every device ends.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), which names the tensor.
    pub fn check(self, tensor: &str) -> Result<()> {
        let slice = self.len / self.size;
        if slice > SLICE {
            return refuse(
                format!("elements of a slice of tensor {tensor} across a side of {}", self.size),
                slice,
                format!("at most {SLICE}; max_precondition_dim leaves such a side out"),
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

/// How a step renews bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renewal {
    /// They become the eigenvectors of the Gram matrices.
    Eigenvectors,
    /// They take a step of the power iteration.
    Power,
}

impl Renewal {
    /// What [`Rule::renewal`](crate::rule::Rule::renewal) means.
    pub fn of(number: f64) -> Option<Self> {
        match number {
            1.0 => Some(Self::Eigenvectors),
            2.0 => Some(Self::Power),
            _ => None,
        }
    }
}

/// Where the parts of a tensor with sides lie, in words from the tensor's first one in the work buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Words of the tensor's elements.
    elements: u64,
    /// Words of the matrices of all sides.
    matrices: u64,
    /// Words of the notes on all sides.
    notes: u64,
}

impl Parts {
    /// The parts of a tensor with so many elements and these sides.
    pub fn of(len: u64, sides: &[Side]) -> Self {
        Self {
            elements: len.checked_next_multiple_of(4).unwrap_or(u64::MAX),
            matrices: sides.iter().map(|side| side.size.saturating_mul(side.size)).fold(0, u64::saturating_add),
            notes: sides.iter().map(|side| Self::notes_of(*side)).fold(0, u64::saturating_add),
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

    /// The place of the notes on all sides.
    pub fn notes(&self) -> u64 {
        self.drafts() + self.matrices
    }

    /// Words of the notes on a side: a tile and a number for each tile's width, and three numbers.
    pub fn notes_of(side: Side) -> u64 {
        side.tiles().saturating_mul((EDGE * EDGE) as u64 + 1).saturating_add(3)
    }

    /// How many words all parts have; the sum saturates.
    pub fn words(&self) -> u64 {
        let matrices = self.matrices.saturating_mul(3).saturating_add(self.notes);
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

/// The two players of a pair in a round of a tournament, in which every player meets every other one once. With an odd
/// number of players one sits the round out: it is its own partner.
fn pair_of(pair: usize, round: usize, players: usize) -> [usize; 2] {
    let others = players + players % 2 - 1;
    let p = (round + pair) % others;
    let q = if pair == 0 { others } else { (round + others - pair) % others };
    let first = p.min(q);
    [first, if p.max(q) < players { p.max(q) } else { first }]
}

/// The eigenvectors of a symmetric matrix, as columns, by Jacobi's rotations. The columns come in no order.
///
/// In each round the columns of the matrix are grouped in pairs of blocks, so that after a sweep of rounds every block
/// has met every other one. A sweep of rotations in the tile where a pair's rows and columns meet gives an orthogonal
/// matrix, which then turns these rows and columns everywhere.
pub fn eigenvectors<F: Real>(matrix: &[F], size: usize) -> Vec<F> {
    let mut a = matrix.to_vec();
    let mut vectors = identity(size);
    let trace = (0..size).fold(F::zero(), |sum, i| sum + a[i * size + i]);
    let bound = F::epsilon() * trace / F::of(size as f64);
    let (tiles, blocks) = (size.div_ceil(EDGE), size.div_ceil(HALF));
    for _ in 0..SWEEPS {
        let mut rotates = false;
        for round in 0..2 * tiles - 1 {
            let pairs: Vec<_> = (0..tiles).map(|pair| columns_of(pair_of(pair, round, blocks), size)).collect();
            let mut turns = Vec::with_capacity(tiles);
            for columns in &pairs {
                let (mut tile, mut turn) = (load_tile(&a, columns, columns, size), identity(EDGE));
                sweep(&mut tile, &mut turn, bound);
                store_tile(&mut a, columns, columns, size, &tile);
                turns.push(Some(turn).filter(|turn| *turn != identity(EDGE)));
            }
            rotates |= turns.iter().any(Option::is_some);
            for (i, rows) in pairs.iter().enumerate() {
                for (j, columns) in pairs.iter().enumerate().skip(i + 1) {
                    if turns[i].is_none() && turns[j].is_none() {
                        continue;
                    }
                    let [above, beside] = [i, j].map(|pair| turns[pair].clone().unwrap_or_else(|| identity(EDGE)));
                    let turned = times(&load_tile(&a, rows, columns, size), &beside, false);
                    let turned = times(&above, &turned, true);
                    store_tile(&mut a, rows, columns, size, &turned);
                    let mirrored: Vec<F> = (0..EDGE * EDGE).map(|i| turned[i % EDGE * EDGE + i / EDGE]).collect();
                    store_tile(&mut a, columns, rows, size, &mirrored);
                }
            }
            for first in (0..size).step_by(EDGE) {
                let rows: [usize; EDGE] = std::array::from_fn(|i| (first + i).min(size));
                for (columns, turn) in pairs.iter().zip(&turns) {
                    if let Some(turn) = turn {
                        let turned = times(&load_tile(&vectors, &rows, columns, size), turn, false);
                        store_tile(&mut vectors, &rows, columns, size, &turned);
                    }
                }
            }
        }
        if !rotates {
            break;
        }
    }
    vectors
}

fn identity<F: Real>(size: usize) -> Vec<F> {
    (0..size * size).map(|i| F::of(f64::from(i / size == i % size))).collect()
}

/// The columns of a matrix in the blocks of a pair. Where there is none, it is `size`.
fn columns_of([first, second]: [usize; 2], size: usize) -> [usize; EDGE] {
    std::array::from_fn(|i| match i / HALF {
        0 => (first * HALF + i).min(size),
        _ if first == second => size,
        _ => (second * HALF + i % HALF).min(size),
    })
}

/// A tile, which is 0 where the matrix has no such row or column.
fn load_tile<F: Real>(matrix: &[F], rows: &[usize; EDGE], columns: &[usize; EDGE], size: usize) -> Vec<F> {
    let number = |(row, column): (usize, usize)| match row < size && column < size {
        true => matrix[row * size + column],
        false => F::zero(),
    };
    (0..EDGE * EDGE).map(|i| number((rows[i / EDGE], columns[i % EDGE]))).collect()
}

fn store_tile<F: Real>(matrix: &mut [F], rows: &[usize; EDGE], columns: &[usize; EDGE], size: usize, tile: &[F]) {
    for (i, &number) in tile.iter().enumerate() {
        let (row, column) = (rows[i / EDGE], columns[i % EDGE]);
        if row < size && column < size {
            matrix[row * size + column] = number;
        }
    }
}

/// The product of two tiles, of which the first may be transposed.
fn times<F: Real>(a: &[F], b: &[F], transposes: bool) -> Vec<F> {
    let one = |i: usize| {
        let (row, column) = (i / EDGE, i % EDGE);
        (0..EDGE).fold(F::zero(), |sum, k| {
            let factor = if transposes { a[k * EDGE + row] } else { a[row * EDGE + k] };
            sum + factor * b[k * EDGE + column]
        })
    };
    (0..EDGE * EDGE).map(one).collect()
}

/// A sweep of rotations over all pairs of columns of a symmetric tile, all pairs of a round at once. Each makes an
/// element 0 that is larger than the bound.
fn sweep<F: Real>(tile: &mut [F], vectors: &mut [F], bound: F) {
    for round in 0..EDGE - 1 {
        let of_pair = |pair: usize| {
            let [p, q] = pair_of(pair, round, EDGE);
            let off = tile[p * EDGE + q];
            let is_large = off.abs() > bound;
            if !is_large {
                return ([p, q], [F::zero(); 2]);
            }
            let tau = (tile[q * EDGE + q] - tile[p * EDGE + p]) / (off + off);
            let size = F::one() / (tau.abs() + (F::one() + tau * tau).sqrt());
            let tangent = if tau < F::zero() { -size } else { size };
            let cosine = F::one() / (F::one() + tangent * tangent).sqrt();
            let sine = tangent * cosine;
            ([p, q], [sine, sine / (F::one() + cosine)])
        };
        let turns: Vec<_> = (0..HALF).map(of_pair).collect();
        for (i, &([p, q], rows)) in turns.iter().enumerate() {
            for (j, &([r, s], columns)) in turns.iter().enumerate().skip(i) {
                let [top, below] = [p, q].map(|row| rotated(columns, [tile[row * EDGE + r], tile[row * EDGE + s]]));
                let [left, right] = [0, 1].map(|column| rotated(rows, [top[column], below[column]]));
                let mut block = [[left[0], right[0]], [left[1], right[1]]];
                if i == j && rows[0] != F::zero() {
                    block[1][0] = F::zero();
                }
                for (row, numbers) in [p, q].into_iter().zip(block) {
                    for (column, number) in [r, s].into_iter().zip(numbers) {
                        tile[row * EDGE + column] = number;
                        tile[column * EDGE + row] = number;
                    }
                }
            }
        }
        for row in vectors.chunks_mut(EDGE) {
            for &([p, q], turn) in &turns {
                [row[p], row[q]] = rotated(turn, [row[p], row[q]]);
            }
        }
    }
}

/// A rotation of two numbers, by its sine and the tangent of half its angle. A cosine that was rounded would let
/// columns grow from rotation to rotation.
fn rotated<F: Real>([sine, tangent]: [F; 2], [x, y]: [F; 2]) -> [F; 2] {
    [x - sine * (y + tangent * x), y + sine * (x - tangent * y)]
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
    let mut leaves = [F::zero(); LEAVES];
    (pivot + 1..size).for_each(|row| leaves[(row - pivot - 1) % LEAVES] += mirror[row] * matrix[row * size + column]);
    let factor = tau * leaves.into_iter().fold(head, |sum, leaf| sum + leaf);
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
    fn rounds_grow_with_the_tiles() {
        let rounds = |size| [Renewal::Eigenvectors, Renewal::Power].map(|how| Side::of_matrix(size).rounds(how));
        assert_eq!([1, 32, 33, 96, 97].map(rounds), [[20, 3], [20, 3], [60, 5], [100, 7], [140, 9]]);
        assert_eq!([0.0, 1.0, 2.0].map(Renewal::of), [None, Some(Renewal::Eigenvectors), Some(Renewal::Power)]);
    }

    #[test]
    fn parts_stand_one_behind_the_other() {
        let parts = Parts::of(30, &Sides { most: 4, of_vectors: false }.of(&[2, 5, 3]));
        assert_eq!((parts.places(), parts.span(), parts.grams(), parts.bases()), ([0, 64], 32, 128, 141));
        assert_eq!((parts.drafts(), parts.notes(), parts.words()), (154, 167, 167 + 2 * 1028));
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
        for size in [1, 2, 3, 8, 16, 17, 33, 50, 64, 65] {
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
