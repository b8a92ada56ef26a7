//! The registry of storage formats: what the bits of an element stand for. Twins: `shaders/codecs/`. Nothing else of
//! the library names a format, but for f32, in which all arithmetic is.

use half::{bf16, f16};

/// Storage format of a tensor's elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision, 4 bytes.
    #[default]
    F32,
    /// IEEE half precision, 2 bytes, two in a word.
    F16,
    /// The upper half of f32 ("brain float"), 2 bytes, two in a word.
    Bf16,
}

/// What is known of a format. To round is to take the nearest number that the format has, of two that are equally near
/// the one with an even last bit; what is too large becomes infinite.
struct Codec {
    dtype: DType,
    name: &'static str,
    size_bytes: u64,
    shader: &'static str,
    /// The number that these bits stand for.
    decode: fn(u32) -> f32,
    /// The bits of a number, rounded.
    encode: fn(f32) -> u32,
    /// The bits of a finite number, rounded by chance: from the bits of its magnitude, and random bits.
    dither: fn(u32, u32) -> u32,
}

/// Every format, in the order of [`DType`].
static ALL: [Codec; 3] = [
    Codec {
        dtype: DType::F32,
        name: "f32",
        size_bytes: 4,
        shader: include_str!("../shaders/codecs/f32.wgsl"),
        decode: f32::from_bits,
        encode: f32::to_bits,
        dither: |magnitude, _| magnitude,
    },
    Codec {
        dtype: DType::F16,
        name: "f16",
        size_bytes: 2,
        shader: include_str!("../shaders/codecs/f16.wgsl"),
        decode: |bits| f16::from_bits(bits as u16).to_f32(),
        encode: |number| f16::from_f32(number).to_bits().into(),
        dither: dither_f16,
    },
    Codec {
        dtype: DType::Bf16,
        name: "bf16",
        size_bytes: 2,
        shader: include_str!("../shaders/codecs/bf16.wgsl"),
        decode: |bits| bf16::from_bits(bits as u16).to_f32(),
        encode: |number| bf16::from_f32(number).to_bits().into(),
        dither: |magnitude, random| (magnitude.saturating_add(random & 0xffff) >> 16).min(0x7f7f),
    },
];

fn dither_f16(magnitude: u32, random: u32) -> u32 {
    let mantissa = (magnitude & 0x007f_ffff) | 0x0080_0000;
    let lifted = match magnitude >> 23 {
        // Normal in f16, too: the exponents' biases are 112 apart.
        113.. => (magnitude - (112 << 23) + (random & 0x1fff)) >> 13,
        exponent => match 126 - exponent {
            shift @ ..32 => (mantissa + (random & ((1 << shift) - 1))) >> shift,
            shift => u32::from(random < mantissa >> (shift - 32).min(31)),
        },
    };
    lifted.min(0x7bff)
}

impl DType {
    /// Every format there is.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    fn codec(self) -> &'static Codec {
        &ALL[self as usize]
    }

    /// Bytes of one element.
    pub fn size_bytes(self) -> u64 {
        self.codec().size_bytes
    }

    /// The name in JSON, labels and errors.
    pub fn name(self) -> &'static str {
        self.codec().name
    }

    /// The format of this name.
    pub fn find(name: &str) -> Option<Self> {
        ALL.iter().find(|codec| codec.name == name).map(|codec| codec.dtype)
    }

    /// The twin's text.
    pub fn shader(self) -> &'static str {
        self.codec().shader
    }

    /// Bytes of four elements, which an invocation reads and writes at once.
    pub fn quad_bytes(self) -> u64 {
        4 * self.size_bytes()
    }

    /// Whether elements are of 16 bits, two in a word.
    pub(crate) fn is_narrow(self) -> bool {
        self.size_bytes() == 2
    }

    /// A number as the format holds it, by way of f32: the nearest that it has, of two that are equally near the one
    /// with an even last bit. In 16 bits what is too large becomes infinite. f32 stands for whatever the arithmetic is
    /// in, and leaves the number alone.
    ///
    /// ```
    /// use wgpu_optim::DType;
    ///
    /// assert_eq!(DType::Bf16.round(1.0 + 1.0 / 256.0), 1.0);
    /// assert_eq!(DType::F16.round(65_520.0), f64::INFINITY);
    /// ```
    pub fn round(self, number: f64) -> f64 {
        let Codec { decode, encode, .. } = self.codec();
        if self.is_narrow() { f64::from(decode(encode(number as f32))) } else { number }
    }

    /// A number rounded to one of its two neighbours in the format, by way of f32: up with the probability of its
    /// distance from the lower one. What is finite stays so, and what is not stays as it is.
    pub(crate) fn dither(self, number: f64, random: u32) -> f64 {
        let Codec { decode, dither, .. } = self.codec();
        let narrow = number as f32;
        if !self.is_narrow() || !narrow.is_finite() {
            return self.round(number);
        }
        let bits = dither(narrow.abs().to_bits(), random);
        f64::from(decode(bits).copysign(narrow))
    }

    /// The bytes of these numbers, each rounded as [`round`](Self::round) does.
    pub fn encode(self, numbers: &[f32]) -> Vec<u8> {
        let Codec { size_bytes, encode, .. } = self.codec();
        numbers.iter().flat_map(|&number| encode(number).to_le_bytes().into_iter().take(*size_bytes as usize)).collect()
    }

    /// The numbers that these bytes stand for. Bytes behind the last whole element are left out.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let Codec { size_bytes, decode, .. } = self.codec();
        let bits = |bytes: &[u8]| bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        bytes.chunks_exact(*size_bytes as usize).map(|bytes| decode(bits(bytes))).collect()
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_place() {
        for dtype in DType::ALL {
            assert_eq!((dtype.codec().dtype, DType::find(dtype.name())), (dtype, Some(dtype)));
        }
        assert_eq!(DType::ALL.len(), ALL.len());
    }

    #[test]
    fn bytes_and_numbers_are_two_ways_of_one_thing() {
        for dtype in [DType::F16, DType::Bf16] {
            for bits in 0..=u16::MAX {
                let numbers = dtype.decode(&[&bits.to_le_bytes()[..], &[7]].concat());
                assert_eq!(numbers.len(), 1);
                let back = dtype.encode(&numbers);
                let quiet = if dtype == DType::F16 { 0x0200 } else { 0x0040 };
                let expected = if numbers[0].is_nan() { bits | quiet } else { bits };
                assert_eq!(back, expected.to_le_bytes(), "{dtype} {bits:#06x}");
            }
        }
        assert_eq!(DType::F32.encode(&[1.5]), 1.5f32.to_le_bytes());
        assert_eq!(DType::F32.decode(&1.5f32.to_le_bytes()), [1.5]);
    }

    #[test]
    fn rounding_by_chance_is_right_on_average() {
        let ends = [65_504.0, 65_519.0, 70_000.0, 3.39e38, f32::MAX, 2.0f32.powi(-24), 1e-6, 3.1e-8, 1e-10, 1.0, 0.1];
        for (dtype, largest) in [(DType::F16, 65_504.0), (DType::Bf16, f64::from(bf16::MAX))] {
            for value in ends.into_iter().chain(ends.map(|x| -x)).map(f64::from) {
                // Multiples of an odd number by the golden ratio lie at even distances, in their lower bits, too.
                const DRAWS: u32 = 1 << 20;
                let draws = (0..DRAWS).map(|i| dtype.dither(value, i.wrapping_mul(0x9e37_79b1)));
                let mean = draws.clone().sum::<f64>() / f64::from(DRAWS);
                let expected = value.clamp(-largest, largest);
                // A few draws of f16's least number may be missing.
                let bound = 3e-5 * expected.abs() + 8.0 * 2f64.powi(-24) / f64::from(DRAWS);
                assert!((mean - expected).abs() <= bound, "{dtype} of {value:e}: {mean:e}");
                let (low, high) = draws.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
                assert!(low <= expected && expected <= high && low.is_finite() && high.is_finite());
                if dtype.round(value) == value {
                    assert_eq!((low, high), (value, value), "{dtype}: a number of the format changes");
                }
            }
            assert_eq!(dtype.dither(f64::INFINITY, 7), f64::INFINITY);
            assert!(dtype.dither(f64::NAN, 7).is_nan() && dtype.dither(-0.0, 7).is_sign_negative());
        }
        assert_eq!(DType::F32.dither(0.1, 7), 0.1);
    }

    /// Of every number halfway between two neighbours, and of its own neighbours in f32.
    #[test]
    fn rounding_takes_the_nearest_and_ties_to_even() {
        for (dtype, infinity, limit) in [(DType::F16, 0x7c00u32, 65_536.0), (DType::Bf16, 0x7f80, 2f64.powi(128))] {
            let number = |bits: u32| match bits {
                // What comes behind the largest number, where there were one.
                _ if bits == infinity => limit,
                _ => f64::from((dtype.codec().decode)(bits)),
            };
            for bits in 0..infinity {
                let (low, high) = (number(bits), number(bits + 1));
                let half = (low + high) / 2.0;
                // Every such number is one of f32, but for one below the smallest of bf16.
                let (below, above) = (f64::from((half as f32).next_down()), f64::from((half as f32).next_up()));
                let even = if bits % 2 == 0 { bits } else { bits + 1 };
                for (value, expected) in [(low, bits), (half, even), (below, bits), (above, bits + 1)] {
                    if value > f64::from(f32::MAX) {
                        continue;
                    }
                    for sign in [1.0, -1.0] {
                        let found = (dtype.codec().encode)((sign * value) as f32);
                        let expected = expected | if sign < 0.0 { 0x8000 } else { 0 };
                        assert_eq!(found, expected, "{dtype} of {:e}", sign * value);
                        let rounded = dtype.round(sign * value);
                        assert_eq!(rounded, f64::from((dtype.codec().decode)(found)), "{dtype} of {:e}", sign * value);
                    }
                }
            }
        }
    }
}
