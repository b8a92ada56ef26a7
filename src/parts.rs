//! Pure functions of numbers, which every rule may call.
//!
//! Twin: `shaders/parts.wgsl`. `sign` has WGSL's meaning: `sign(0)` is 0. `larger`, `smaller` and `within` keep a NaN
//! on every device, where WGSL's `max`, `min` and `clamp` may do so or not.

use crate::tensor::BLOCK;

/// The arithmetic of the reference: f32, as on the GPU, or f64.
pub trait Real: ndarray::NdFloat {
    /// The number, rounded once.
    fn of(value: f64) -> Self;
    /// The number in f64, exact.
    fn f64(self) -> f64;
    /// The angle of the point `(x, y)` with `x` at least 0, from -pi/2 to pi/2; 0 for the origin.
    fn angle(y: Self, x: Self) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn f64(self) -> f64 {
        f64::from(self)
    }
    fn angle(y: Self, x: Self) -> Self {
        angle(y, x)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn f64(self) -> f64 {
        self
    }
    fn angle(y: Self, x: Self) -> Self {
        y.atan2(x)
    }
}

/// [`Real::angle`] in f32, by the operations of the shader, which uses no built-in `atan`: WGSL allows for it an error
/// of 4096 units in the last place. A polynomial (Cephes, `atanf`: within 2e-8) gives the arctangent of a number up to
/// `tan(pi/8)`, and other angles follow from that.
fn angle(y: f32, x: f32) -> f32 {
    let size = y.abs();
    if size == 0.0 {
        return y;
    }
    let is_steep = size > x;
    let ratio = if is_steep { x / size } else { size / x };
    let is_wide = ratio > 0.414_213_57;
    let t = if is_wide { (ratio - 1.0) / (ratio + 1.0) } else { ratio };
    let z = t * t;
    let tail = ((0.080_537_45 * z - 0.138_776_85) * z + 0.199_777_11) * z - 0.333_329_5;
    let near = tail * z * t + t;
    let part = if is_wide { near + std::f32::consts::FRAC_PI_4 } else { near };
    let angle = if is_steep { std::f32::consts::FRAC_PI_2 - part } else { part };
    if y < 0.0 { -angle } else { angle }
}

/// A step of a running mean: `keep * old + take * new`. The host computes both weights: `1 - f32(0.999)` is off by
/// 1.3e-5.
pub fn ema<F: Real>(old: F, new: F, keep: F, take: F) -> F {
    keep * old + take * new
}

/// The sign of a number: -1, 0 or 1. The sign of NaN is 0.
pub fn sign<F: Real>(x: F) -> F {
    if x > F::zero() {
        F::one()
    } else if x < F::zero() {
        -F::one()
    } else {
        F::zero()
    }
}

/// The larger of two numbers. Where one is NaN, so is the result.
pub fn larger<F: Real>(a: F, b: F) -> F {
    if a.is_nan() || b.is_nan() { a + b } else { a.max(b) }
}

/// The smaller of two numbers. Where one is NaN, so is the result.
pub fn smaller<F: Real>(a: F, b: F) -> F {
    if a.is_nan() || b.is_nan() { a + b } else { a.min(b) }
}

/// `x` within `low` and `high`, of which `low` is not the larger one. NaN stays NaN.
pub fn within<F: Real>(x: F, low: F, high: F) -> F {
    if x.is_nan() { x } else { x.max(low).min(high) }
}

/// `1 - beta^t`: a rule divides by it, after `t` steps, a running mean that started at 0. The result has no
/// cancellation, for any `t` from 1. Only the host computes it.
pub fn correction(beta: f64, t: u64) -> f64 {
    -(t as f64 * beta.ln()).exp_m1()
}

/// `(from+1)^s + ... + to^s`, term by term at first, then by Euler and Maclaurin's formula. Only the host computes it.
pub fn sum_of_powers(from: u64, to: u64, s: f64) -> f64 {
    let middle = to.min(from.max(1000));
    let head: f64 = (from + 1..=middle).map(|n| (n as f64).powf(s)).sum();
    let whole = |n: u64| {
        let n = n as f64;
        let third = s * (s - 1.0) * (s - 2.0) * n.powf(s - 3.0);
        n.powf(s + 1.0) / (s + 1.0) + n.powf(s) / 2.0 + s * n.powf(s - 1.0) / 12.0 - third / 720.0
    };
    if middle < to { head + (whole(to) - whole(middle)) } else { head }
}

/// The number, or the bound where the number is below the bound. NaN stays NaN.
pub fn at_least<F: Real>(x: F, bound: F) -> F {
    if x < bound { bound } else { x }
}

/// How two partial results of a sums pass become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// The sum.
    Add,
    /// The maximum of the absolute values, compared by their bits: so a NaN is larger than any number.
    BitMax,
}

impl Combine {
    /// Makes one partial result of two.
    pub fn of<F: Real>(self, a: [F; 2], b: [F; 2]) -> [F; 2] {
        let one = |a: F, b: F| match self {
            Self::Add => a + b,
            Self::BitMax if a.is_nan() || b.is_nan() => F::nan(),
            Self::BitMax => a.abs().max(b.abs()),
        };
        [one(a[0], b[0]), one(a[1], b[1])]
    }
}

/// Combines `value(0..len)` in the tree that the GPU uses, so that f32 rounds alike; `zero` changes nothing.
///
/// A block has 1024 elements, which are 256 quads. Leaf `j` of a block's 32 adds up the eight quads `q, q+8, ..., q+56`
/// from `q = j/8*64 + j%8`, and each quad is `(a+b)+(c+d)`. Then each of the first 16 leaves takes the leaf 16 places
/// behind it, each of the first 8 the one 8 places behind it, and so on. A binary tree over the blocks' indices joins
/// the blocks.
pub fn tree<T: Copy>(zero: T, combine: impl Fn(T, T) -> T, len: usize, mut value: impl FnMut(usize) -> T) -> T {
    let mut nodes: Vec<T> = (0..len)
        .step_by(BLOCK)
        .map(|first| {
            let mut at = |i: usize| if first + i < len { value(first + i) } else { zero };
            let mut lanes = [zero; 32];
            for (j, lane) in lanes.iter_mut().enumerate() {
                for quad in (j / 8 * 64 + j % 8..).step_by(8).take(8) {
                    let [a, b, c, d] = std::array::from_fn(|i| at(4 * quad + i));
                    *lane = combine(*lane, combine(combine(a, b), combine(c, d)));
                }
            }
            for half in [16, 8, 4, 2, 1] {
                for j in 0..half {
                    lanes[j] = combine(lanes[j], lanes[j + half]);
                }
            }
            lanes[0]
        })
        .collect();
    while nodes.len() > 1 {
        nodes = nodes.chunks(2).map(|pair| if let [a, b] = *pair { combine(a, b) } else { pair[0] }).collect();
    }
    nodes.first().copied().unwrap_or(zero)
}

/// How many leaves [`list`] has.
const LEAVES: usize = 256;

/// Combines a list of numbers of tensors in the order of the GPU. Leaf `j` of 256 takes the numbers `j`, `j + 256`, and
/// so on. Then each of the first 128 leaves takes the leaf 128 places behind it, and so on down to one.
pub fn list<T: Copy>(zero: T, combine: impl Fn(T, T) -> T, values: &[T]) -> T {
    let mut leaves = [zero; LEAVES];
    for (i, &value) in values.iter().enumerate() {
        leaves[i % LEAVES] = combine(leaves[i % LEAVES], value);
    }
    let mut half = LEAVES / 2;
    while half > 0 {
        for i in 0..half {
            leaves[i] = combine(leaves[i], leaves[i + half]);
        }
        half /= 2;
    }
    leaves[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_is_exact_at_both_ends() {
        assert_eq!((correction(0.0, 1), correction(0.0, u64::MAX)), (1.0, 1.0));
        assert_eq!(correction(0.999, u64::MAX), 1.0);
        // 0.999 itself is off by up to 6e-17.
        assert!((correction(0.999, 1) / 0.001 - 1.0).abs() < 1e-13);
        assert!((correction(0.5, 2) - 0.75).abs() < 1e-15);
    }
}
