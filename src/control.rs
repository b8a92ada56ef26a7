//! What is measured of gradients before a step, and what a clip makes of it: norms that do not overflow, the kinds of
//! numbers that no step can use, and the factors that gradients are multiplied by.
//!
//! Twins: `shaders/skeletons/norms.wgsl`, `shaders/skeletons/decide.wgsl`.

use crate::parts::Real;
#[cfg(feature = "gpu")]
use crate::words::measured;

/// What is wrong with a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NonFinite {
    /// A number of 2^63 or more, whose square f32 does not hold.
    TooLarge = 1,
    /// Infinity.
    Infinite = 2,
    /// NaN.
    NaN = 3,
}

impl NonFinite {
    /// What is wrong with a gradient, given as it lies in memory, and unscaled and averaged.
    pub fn of<F: Real>(raw: F, g: F) -> Option<Self> {
        if raw.is_nan() || g.is_nan() {
            Some(Self::NaN)
        } else if raw.is_infinite() {
            Some(Self::Infinite)
        } else if g.abs() >= F::of(TOO_LARGE) {
            Some(Self::TooLarge)
        } else {
            None
        }
    }

    /// From the shader's number, which is 0 for a gradient that a step can use.
    pub fn read(number: u32) -> Option<Self> {
        [None, Some(Self::TooLarge), Some(Self::Infinite), Some(Self::NaN)][number.min(3) as usize]
    }
}

/// 2^63.
pub const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

/// Gradients below 2^32 are multiplied by this before they are squared.
const SMALL: f64 = 32_768.0; // 2^15

/// Larger gradients are multiplied by this, 2^-80. Then no sum of 2^30 squares overflows, and the square of 2^-78 does
/// not underflow.
const LARGE: f64 = 8.271_806_125_530_277e-25;

/// 2^-95. The sum of small squares is multiplied by this twice where it is added to the sum of large ones.
const BETWEEN: f64 = 2.524_354_896_707_238e-29;

/// Sums of squares in f32 that hold 2^30 times the square of f32's largest number: of those below 2^32, in units of
/// 2^-30, and of the others, in units of 2^160.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Squares<F> {
    /// The sum over numbers below 2^32.
    pub small: F,
    /// The sum over the other numbers.
    pub large: F,
}

impl<F: Real> Squares<F> {
    fn of(x: F) -> Self {
        if !x.is_finite() {
            Self { small: F::zero(), large: F::zero() }
        } else if x.abs() < F::of(4_294_967_296.0) {
            let x = x * F::of(SMALL);
            Self { small: x * x, large: F::zero() }
        } else {
            let x = x * F::of(LARGE);
            Self { small: F::zero(), large: x * x }
        }
    }

    fn combine(self, other: Self) -> Self {
        Self { small: self.small + other.small, large: self.large + other.large }
    }

    /// The norm multiplied by a power of two, and that power.
    pub(crate) fn root(self) -> (F, F) {
        if self.large == F::zero() {
            (self.small.sqrt() * F::of(1.0 / SMALL), F::one())
        } else {
            ((self.large + self.small * F::of(BETWEEN) * F::of(BETWEEN)).sqrt(), F::of(LARGE))
        }
    }

    /// The norm in f64.
    pub fn norm(self) -> f64 {
        let (small, large) = (1.0 / (SMALL * SMALL), 1.0 / (LARGE * LARGE));
        (self.small.f64() * small + self.large.f64() * large).sqrt()
    }
}

/// What is known of a tensor's gradients, or of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured<F> {
    /// Sums of squares of the gradients.
    pub grads: Squares<F>,
    /// Sums of squares of the parameters, where the clip asks for them.
    pub params: Squares<F>,
    /// The worst kind of gradient found.
    pub kind: Option<NonFinite>,
}

impl<F: Real> Measured<F> {
    /// What is known where there are no gradients.
    pub fn zero() -> Self {
        let none = Squares { small: F::zero(), large: F::zero() };
        Self { grads: none, params: none, kind: None }
    }

    /// What is known of one element: a gradient as it lies in memory, unscaled and averaged, and its parameter.
    pub fn of(raw: F, g: F, p: Option<F>) -> Self {
        let params = p.map_or(Self::zero().params, Squares::of);
        Self { grads: Squares::of(g), params, kind: NonFinite::of(raw, g) }
    }

    /// From the words of the table [`measured`].
    #[cfg(feature = "gpu")]
    pub fn read(words: &[u32]) -> Self {
        let number = |at: usize| F::of(f32::from_bits(words[at]).into());
        Self {
            grads: Squares { small: number(measured::GRADS_SMALL), large: number(measured::GRADS_LARGE) },
            params: Squares { small: number(measured::PARAMS_SMALL), large: number(measured::PARAMS_LARGE) },
            kind: NonFinite::read(words[measured::KIND]),
        }
    }

    /// What is known of the elements of both.
    pub fn combine(self, other: Self) -> Self {
        Self {
            grads: self.grads.combine(other.grads),
            params: self.params.combine(other.params),
            kind: self.kind.max(other.kind),
        }
    }

    /// The gradients' norm in f64; NaN or infinity where they hold one.
    pub fn norm(self) -> f64 {
        match self.kind {
            Some(NonFinite::NaN) => f64::NAN,
            Some(NonFinite::Infinite) => f64::INFINITY,
            _ => self.grads.norm(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 2^30 equal numbers, by the tree.
    fn of_many(x: f32) -> f64 {
        (0..30).fold(Measured::of(x, x, None), |sum, _| sum.combine(sum)).norm()
    }

    #[test]
    fn sums_of_two_to_the_30_squares_neither_overflow_nor_vanish() {
        // 2^-78 is the smallest number whose square, in its unit, is no subnormal.
        let smallest = 2.0f32.powi(-78);
        for x in [f32::MAX, -f32::MAX, 4_294_967_296.0, 4_294_967_040.0, 1.0, 1e-10, smallest] {
            let expected = f64::from(x.abs()) * 32_768.0;
            let found = of_many(x);
            // The number times a power of two is exact, its square is rounded once, sums of equal numbers are exact.
            assert!((found / expected - 1.0).abs() < 1e-7, "{x:e}: {found:e}, expected {expected:e}");
        }
        let mixed = Measured::of(f32::MAX, f32::MAX, None).combine(Measured::of(1.0, 1.0, None));
        assert_eq!(mixed.grads, Squares { small: 2.0f32.powi(30), large: 2.0f32.powi(96) * (1.0 - 2.0f32.powi(-23)) });
    }
}
