//! Numbers as text, as the crate of this name writes them, without its tables of 10 kB.
//!
//! The digits are the standard library's, which the package has in any case: both are the fewest that give the number
//! back, and among these the closest. Where two are equally close, the crate of this name takes the even one and the
//! standard library the larger one.

use std::fmt::{Display, LowerExp, Write};
use std::ops::RangeInclusive;

/// Room for the text of a number.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    bytes: [u8; 24],
    len: usize,
}

impl Buffer {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "the interface of another crate")]
    pub fn new() -> Self {
        Self { bytes: [0; 24], len: 0 }
    }

    /// Writes a number, which may be infinite or NaN.
    pub fn format<F: Float>(&mut self, number: F) -> &str {
        match number.to_f64() {
            f64::INFINITY => "inf",
            f64::NEG_INFINITY => "-inf",
            wide if wide.is_nan() => "NaN",
            _ => self.format_finite(number),
        }
    }

    /// Writes a number that is finite: with a point, or with an exponent where that is outside [`Float::FIXED`].
    pub fn format_finite<F: Float>(&mut self, number: F) -> &str {
        self.put(format_args!("{number:e}"));
        let exponent = self.text().find('e').map_or(0, |at| at + 1);
        let is_at_least_zero = self.bytes[exponent] != b'-';
        let fixed = self.text()[exponent..].parse().is_ok_and(|exponent| F::FIXED.contains(&exponent));
        if fixed {
            self.put(format_args!("{number}"));
            if !self.text().contains('.') {
                self.write_str(".0").expect(FITS);
            }
        } else if is_at_least_zero {
            self.bytes.copy_within(exponent..self.len, exponent + 1);
            self.bytes[exponent] = b'+';
            self.len += 1;
        }
        self.text()
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.len = 0;
        self.write_fmt(text).expect(FITS);
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("only texts are written")
    }
}

const FITS: &str = "no number has a longer text";

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// A number that can be written.
pub trait Float: Copy + Display + LowerExp {
    /// The decimal exponents of numbers that are written without an exponent.
    const FIXED: RangeInclusive<i32>;
    /// The same number in f64.
    fn to_f64(self) -> f64;
}

impl Float for f32 {
    const FIXED: RangeInclusive<i32> = -6..=12;
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Float for f64 {
    const FIXED: RangeInclusive<i32> = -5..=15;
    fn to_f64(self) -> f64 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_crate_of_this_name() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1e-5, "0.00001"),
            (1.25e-6, "1.25e-6"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::MIN, "-1.7976931348623157e+308"),
            (-1.2345678901234568e-5, "-0.000012345678901234568"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(Buffer::new().format(number), text);
        }
        for (number, text) in [(1e12f32, "1000000000000.0"), (1e13, "1e+13"), (1e-6, "0.000001"), (1e-7, "1e-7")] {
            assert_eq!(Buffer::new().format(number), text);
        }
    }

    #[test]
    fn every_text_gives_its_number_back() {
        let mut bits = 1u64;
        for _ in 0..1_000_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (double, single) = (f64::from_bits(bits), f32::from_bits((bits >> 32) as u32));
            if double.is_finite() {
                assert_eq!(Buffer::new().format_finite(double).parse().map(f64::to_bits), Ok(bits));
            }
            if single.is_finite() {
                assert_eq!(Buffer::new().format_finite(single).parse().map(f32::to_bits), Ok(single.to_bits()));
            }
        }
    }
}
