//! Tensors as matrices: rows, columns, and the tiles in which the GPU sums them. The sizes of tiles are constants of
//! the format, so no choice of lanes, chunk or window changes a bit.
//!
//! Twins: `shaders/skeletons/lines.wgsl`, `shaders/skeletons/finish_lines.wgsl`.

use crate::parts::Real;
use crate::tensor::TensorSpec;

/// The most elements that a matrix may have for a tile to hold it whole.
const SMALL: u64 = 2048;

/// Numbers that each of the shader's two arrays holds. In the first array a number stands for four elements of one row
/// of the tile, in the second for one strip of one column.
const NUMBERS: u64 = 2048;

/// About the most elements that may lie between a tile's first and last one: a binding must hold all of them.
const REACH: u64 = 1 << 22;

/// Rows of a strip: the shader adds up so many numbers of a column one after the other.
const STRIP: usize = 8;

/// A tensor as matrices, side by side in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// How many matrices there are: the product of the other dimensions.
    pub matrices: u64,
    /// Rows of a matrix.
    pub rows: u64,
    /// Columns of a matrix.
    pub columns: u64,
    /// Whether columns have numbers as rows do.
    pub has_columns: bool,
}

impl Lines {
    /// The matrices of a tensor's last two dimensions. A tensor below rank 2, or one without elements, has none.
    pub fn of(tensor: &TensorSpec) -> Option<Self> {
        let [.., rows, columns] = tensor.shape[..] else { return None };
        let (rows, columns, len) = (rows as u64, columns as u64, tensor.len_elements());
        (len > 0).then(|| Self { matrices: len / rows.saturating_mul(columns), rows, columns, has_columns: true })
    }

    /// The tensor as one matrix, whose rows are the indices of the first dimension, and whose columns have no numbers.
    /// A tensor below rank 2, or one without elements, has none.
    pub fn leading(tensor: &TensorSpec) -> Option<Self> {
        Self::of(tensor).map(|_| {
            let rows = tensor.shape[0] as u64;
            Self { matrices: 1, rows, columns: tensor.len_elements() / rows, has_columns: false }
        })
    }

    /// Whether each matrix is a single element.
    pub fn is_pointwise(&self) -> bool {
        [self.rows, self.columns] == [1, 1]
    }

    /// How many rows all matrices have together, and how many columns have numbers; saturating.
    pub fn counts(&self) -> [u64; 2] {
        let columns = if self.has_columns { self.columns } else { 0 };
        [self.rows, columns].map(|lines| self.matrices.saturating_mul(lines))
    }

    /// Words that the numbers of rows and columns take, saturating: one a row, one a column, and one a row for what its
    /// elements see of it.
    pub fn words(&self) -> u64 {
        let [rows, columns] = self.counts();
        rows.saturating_mul(2).saturating_add(columns)
    }

    /// Whether a tile holds a whole matrix, or several.
    pub fn is_small(&self) -> bool {
        self.rows.saturating_mul(self.columns) <= SMALL
    }

    /// How many small matrices a tile holds. Where it holds several, their elements are a multiple of 4 together.
    pub fn matrices_of_tile(&self) -> u64 {
        let fitting = SMALL / (self.rows * self.columns);
        if fitting < 4 { 1 } else { fitting / 4 * 4 }
    }

    /// Rows and columns of a tile; a tile at a matrix's edge has fewer.
    pub fn tile(&self) -> [u64; 2] {
        if self.is_small() {
            return [self.rows, self.columns];
        }
        let high = self.rows.min(32).min((REACH / self.columns).max(1));
        let wide = self.columns.min(NUMBERS / high * 4).min(NUMBERS);
        let all = wide == self.columns;
        [if all { self.rows.min(NUMBERS / wide.div_ceil(4)) } else { high }, wide]
    }

    /// Tiles of a matrix: from top to bottom, and from left to right.
    pub fn tiles(&self) -> [u64; 2] {
        let [high, wide] = self.tile();
        [self.rows.div_ceil(high), self.columns.div_ceil(wide)]
    }

    /// Elements from the first to the last of a tile.
    pub fn reach(&self) -> u64 {
        let [high, wide] = self.tile();
        if self.is_small() { SMALL } else { (high - 1) * self.columns + wide }
    }

    /// Words in which a matrix's tiles leave their shares of its rows' sums, and of its columns' sums. A small matrix
    /// needs none.
    pub fn shares(&self) -> [u64; 2] {
        let [down, across] = self.tiles();
        let columns = if self.has_columns { self.columns } else { 0 };
        if self.is_small() { [0, 0] } else { [across.saturating_mul(self.rows), down.saturating_mul(columns)] }
    }

    /// An element's row among all of them.
    pub fn row_of(&self, i: usize) -> usize {
        i / self.columns as usize
    }

    /// An element's column among all of them.
    pub fn column_of(&self, i: usize) -> usize {
        let columns = self.columns as usize;
        self.row_of(i) / self.rows as usize * columns + i % columns
    }

    /// `value` summed over each row, and over each column that has a number, in the order of the GPU: within tiles,
    /// then over tiles.
    pub fn sums<F: Real>(&self, value: impl Fn(usize) -> F) -> [Vec<F>; 2] {
        let [high, wide] = self.tile().map(|lines| lines as usize);
        let (rows, columns) = (self.rows as usize, self.columns as usize);
        let [all_rows, all_columns] = self.counts().map(|lines| lines as usize);
        let row = |row: usize| {
            add_up(columns.div_ceil(wide), |tile| {
                let (first, end) = (tile * wide, columns.min((tile + 1) * wide));
                let within = |i: usize| if i < end { value(row * columns + i) } else { F::zero() };
                add_up((end - first).div_ceil(4), |four| {
                    let [a, b, c, d] = std::array::from_fn(|i| within(first + 4 * four + i));
                    (a + b) + (c + d)
                })
            })
        };
        let column = |column: usize| {
            let top = column / columns * rows * columns + column % columns;
            add_up(rows.div_ceil(high), |tile| {
                let (first, end) = (tile * high, rows.min((tile + 1) * high));
                add_up((end - first).div_ceil(STRIP), |strip| {
                    let first = first + strip * STRIP;
                    (first..end.min(first + STRIP)).fold(F::zero(), |sum, i| sum + value(top + i * columns))
                })
            })
        };
        [(0..all_rows).map(row).collect(), (0..all_columns).map(column).collect()]
    }

    /// The mean of the numbers of a matrix's rows, in the order of the GPU.
    pub fn mean<F: Real>(&self, rows: &[F]) -> F {
        let len = F::of(self.rows as f64);
        if self.is_small() {
            return add_up(rows.len(), |i| rows[i]) / len;
        }
        let mut leaves = [F::zero(); 256];
        for (i, &row) in rows.iter().enumerate() {
            leaves[i % 256] += row;
        }
        for half in [128, 64, 32, 16, 8, 4, 2, 1] {
            for i in 0..half {
                let other = leaves[i + half];
                leaves[i] += other;
            }
        }
        leaves[0] / len
    }
}

/// Numbers added up: sixteen by sixteen, then these.
fn add_up<F: Real>(count: usize, value: impl Fn(usize) -> F) -> F {
    let part = |first| (first..count.min(first + 16)).fold(F::zero(), |sum, i| sum + value(i));
    (0..count).step_by(16).fold(F::zero(), |sum, first| sum + part(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(shape: &[usize]) -> Lines {
        Lines::of(&TensorSpec::f32("w", shape)).unwrap()
    }

    #[test]
    fn a_tensor_has_lines_from_rank_two_on() {
        for shape in [&[][..], &[5], &[0, 5], &[5, 0], &[3, 0, 4]] {
            assert_eq!(Lines::of(&TensorSpec::f32("w", shape)), None, "{shape:?}");
        }
        assert_eq!(lines(&[7, 1]), Lines { matrices: 1, rows: 7, columns: 1, has_columns: true });
        assert_eq!(lines(&[2, 3, 4, 5]), Lines { matrices: 6, rows: 4, columns: 5, has_columns: true });
        assert_eq!(lines(&[2, 3, 4, 5]).words(), 6 * (4 + 5 + 4));
        let leading = |shape: &[usize]| Lines::leading(&TensorSpec::f32("w", shape));
        assert_eq!(leading(&[5]), None);
        let found = leading(&[2, 3, 4, 5]).unwrap();
        assert_eq!(found, Lines { matrices: 1, rows: 2, columns: 60, has_columns: false });
        assert_eq!((found.words(), found.counts(), found.sums(|_| 1.0)), (4, [2, 0], [vec![60.0; 2], vec![]]));
    }

    #[test]
    fn a_tile_holds_no_more_than_its_elements_and_lies_close() {
        for rows in [1, 2, 3, 5, 31, 32, 33, 100, 2048, 2049, 50_257, 10_000_000] {
            for columns in [1, 2, 3, 4, 9, 63, 64, 65, 768, 2049, 128_256, 3_000_000, 100_000_000] {
                let lines = Lines { matrices: 1, rows, columns, has_columns: true };
                let [high, wide] = lines.tile();
                assert!(high >= 1 && wide >= 1, "{lines:?}: {high} x {wide}");
                assert!(high * wide.div_ceil(4) <= NUMBERS, "{lines:?}: {high} x {wide}");
                assert!(high.div_ceil(STRIP as u64) * wide <= NUMBERS, "{lines:?}: {high} x {wide}");
                assert!(high <= rows && wide <= columns, "{lines:?}: {high} x {wide}");
                assert!(lines.reach() <= REACH + REACH / 8, "{lines:?}: {high} x {wide}");
                assert!(wide == columns || wide % 4 == 0, "{lines:?}: {high} x {wide}");
            }
        }
        assert_eq!(lines(&[4096, 4096]).tile(), [32, 256]);
        assert_eq!(lines(&[3, 5000]).tile(), [3, 2048]);
        assert_eq!(lines(&[5000, 3]).tile(), [2048, 3]);
        assert_eq!(lines(&[1, 5000]).tile(), [1, 2048]);
        assert_eq!(lines(&[9, 3, 3]).matrices_of_tile(), 224);
    }

    #[test]
    fn sums_and_means_are_those_of_the_matrices() {
        for shape in [&[2, 3][..], &[3, 2, 2], &[2, 90, 70], &[2, 1, 3000], &[3000, 1]] {
            let lines = lines(shape);
            let len = shape.iter().product::<usize>();
            let [rows, columns] = lines.sums(|i| i as f64);
            let mut expected = lines.counts().map(|count| vec![0.0; count as usize]);
            for i in 0..len {
                expected[0][lines.row_of(i)] += i as f64;
                expected[1][lines.column_of(i)] += i as f64;
            }
            assert_eq!([&rows, &columns], [&expected[0], &expected[1]], "{shape:?}");
            let matrix = &rows[..lines.rows as usize];
            assert_eq!(lines.mean(matrix), matrix.iter().sum::<f64>() / lines.rows as f64, "{shape:?}");
        }
    }
}
