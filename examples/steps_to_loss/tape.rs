//! Derivatives of what is computed with matrices: a tape notes each operation, and is then read backwards. Each method
//! has a formula and, in its closure, what the derivative by its result adds to those by its arguments.

use libm::{expf, logf};
use ndarray::{Array2, ArrayView2, Axis, Zip, concatenate, s};
use std::cell::RefCell;
use std::ops::Add;
use std::rc::Rc;

pub type Matrix = Array2<f32>;

/// Adds to the derivatives by earlier matrices, from that by a matrix.
type Back = Box<dyn Fn(&Matrix, &mut [Matrix])>;

/// Matrices in the order in which they were computed.
#[derive(Default)]
pub struct Tape(RefCell<Vec<(Rc<Matrix>, Back)>>);

/// A matrix on a tape.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    tape: &'t Tape,
    at: usize,
}

impl Tape {
    /// A matrix that nothing computes.
    pub fn var(&self, value: Matrix) -> Var<'_> {
        self.push(value, |_, _| ())
    }

    fn push(&self, value: Matrix, back: impl Fn(&Matrix, &mut [Matrix]) + 'static) -> Var<'_> {
        let mut noted = self.0.borrow_mut();
        noted.push((Rc::new(value), Box::new(back)));
        Var { tape: self, at: noted.len() - 1 }
    }
}

impl<'t> Var<'t> {
    pub fn value(self) -> Rc<Matrix> {
        self.tape.0.borrow()[self.at].0.clone()
    }

    /// The derivatives of this matrix's sum by each matrix of the tape up to it, in their order.
    pub fn derivatives(self) -> Vec<Matrix> {
        let noted = self.tape.0.borrow();
        let mut all: Vec<_> = noted[..=self.at].iter().map(|(value, _)| Matrix::zeros(value.raw_dim())).collect();
        all[self.at].fill(1.0);
        for (i, (_, back)) in noted[..=self.at].iter().enumerate().rev() {
            let (earlier, own) = all.split_at_mut(i);
            back(&own[0], earlier);
        }
        all
    }

    /// The product of two matrices.
    pub fn times(self, other: Var<'t>) -> Var<'t> {
        let (a, b, i, j) = (self.value(), other.value(), self.at, other.at);
        self.tape.push(product(a.view(), b.view()), move |back, to| {
            to[i] += &product(back.view(), b.t());
            to[j] += &product(a.t(), back.view());
        })
    }

    pub fn transposed(self) -> Var<'t> {
        let i = self.at;
        self.tape.push(self.value().t().as_standard_layout().into_owned(), move |back, to| to[i] += &back.t())
    }

    /// The rows with these numbers, one below the other.
    pub fn rows(self, numbers: &[usize]) -> Var<'t> {
        let (numbers, i) = (numbers.to_vec(), self.at);
        self.tape.push(self.value().select(Axis(0), &numbers), move |back, to| {
            for (&number, row) in numbers.iter().zip(back.rows()) {
                to[i].row_mut(number).scaled_add(1.0, &row);
            }
        })
    }

    /// So many columns, from one of them on.
    pub fn columns(self, first: usize, count: usize) -> Var<'t> {
        let (columns, i) = (s![.., first..first + count], self.at);
        self.tape.push(self.value().slice(columns).to_owned(), move |back, to| {
            to[i].slice_mut(columns).scaled_add(1.0, back)
        })
    }

    /// Matrices side by side.
    pub fn beside(parts: &[Var<'t>]) -> Var<'t> {
        let (values, at): (Vec<_>, Vec<_>) = parts.iter().map(|part| (part.value(), part.at)).unzip();
        let views: Vec<_> = values.iter().map(|value| value.view()).collect();
        let all = concatenate(Axis(1), &views).expect("as many rows");
        parts[0].tape.push(all, move |back, to| {
            let mut first = 0;
            for &i in &at {
                let count = to[i].ncols();
                to[i] += &back.slice(s![.., first..first + count]);
                first += count;
            }
        })
    }

    pub fn scaled(self, factor: f32) -> Var<'t> {
        let i = self.at;
        self.tape.push(&*self.value() * factor, move |back, to| to[i].scaled_add(factor, back))
    }

    pub fn relu(self) -> Var<'t> {
        let (x, i) = (self.value(), self.at);
        self.tape.push(x.mapv(|x| x.max(0.0)), move |back, to| {
            Zip::from(&mut to[i]).and(back).and(&*x).for_each(|to, &back, &x| *to += if x > 0.0 { back } else { 0.0 });
        })
    }

    /// Each row over its root mean square (Zhang and Sennrich 2019).
    pub fn norm(self) -> Var<'t> {
        let (x, i) = (self.value(), self.at);
        let count = x.ncols() as f32;
        let size = row_sums(&(&*x * &*x)).mapv(|sum| (sum / count + 1e-5).sqrt());
        let y = &*x / &size;
        self.tape.push(y.clone(), move |back, to| {
            let along = row_sums(&(&y * back)) / count;
            to[i] += &((back - &y * &along) / &size);
        })
    }

    /// The softmax of each row over the columns up to its own number; 0 in the others.
    pub fn causal_softmax(self) -> Var<'t> {
        let (mut x, i) = ((*self.value()).clone(), self.at);
        x.indexed_iter_mut().filter(|((row, column), _)| column > row).for_each(|(_, x)| *x = f32::NEG_INFINITY);
        let y = log_softmax(&x).mapv(expf);
        self.tape.push(y.clone(), move |back, to| to[i] += &(&y * &(back - &row_sums(&(&y * back)))))
    }

    /// The mean over the rows of minus the logarithm of the softmax in a column each, as a matrix of one element.
    pub fn cross_entropy(self, columns: &[usize]) -> Var<'t> {
        let (logs, i) = (log_softmax(&self.value()), self.at);
        let (columns, count) = (columns.to_vec(), columns.len() as f32);
        let sum: f32 = columns.iter().zip(logs.rows()).map(|(&column, row)| row[column]).sum();
        self.tape.push(Matrix::from_elem((1, 1), -sum / count), move |back, to| {
            let mut shares = logs.mapv(expf);
            shares.rows_mut().into_iter().zip(&columns).for_each(|(mut row, &column)| row[column] -= 1.0);
            to[i].scaled_add(back[(0, 0)] / count, &shares);
        })
    }
}

impl<'t> Add for Var<'t> {
    type Output = Var<'t>;

    fn add(self, other: Var<'t>) -> Var<'t> {
        let (i, j) = (self.at, other.at);
        self.tape.push(&*self.value() + &*other.value(), move |back, to| {
            to[i] += back;
            to[j] += back;
        })
    }
}

/// The product of two matrices. Each element is summed in order, where the order of ndarray's own depends on the machine.
fn product(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Matrix {
    let b = b.as_standard_layout();
    let mut product = Matrix::zeros((a.nrows(), b.ncols()));
    for (mut sums, factors) in product.rows_mut().into_iter().zip(a.rows()) {
        for (&factor, terms) in factors.iter().zip(b.rows()) {
            sums.scaled_add(factor, &terms);
        }
    }
    product
}

/// The sum of each row, as a column.
fn row_sums(of: &Matrix) -> Matrix {
    of.sum_axis(Axis(1)).insert_axis(Axis(1))
}

/// The logarithm of the softmax of each row.
fn log_softmax(x: &Matrix) -> Matrix {
    let top = x.map_axis(Axis(1), |row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let below = x - &top.insert_axis(Axis(1));
    let logs = row_sums(&below.mapv(expf)).mapv(logf);
    below - &logs
}
