//! Random bits and what is made of them: how the CPU makes an initialiser's values from seed, name and place.

use crate::init::quantile::{UNIT, quantile};

/// Where a tensor's values come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Law {
    /// Each value comes from random bits of its own.
    Draw(Draw),
    /// The values depend on each other.
    Orthogonal(Orthogonal),
}

/// The distribution that a value is drawn from. The shader knows each by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Constant,
    Uniform,
    Normal,
}

/// How a value is made from 32 random bits. Twin: `shaders/init/fill.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Draw {
    pub(crate) distribution: Distribution,
    /// The first of the normal distribution's 2^32 equal shares that may be drawn, and how many more may be.
    pub(crate) first: u32,
    pub(crate) span: u32,
    pub(crate) scale: f32,
    pub(crate) base: f32,
    /// The least and the largest value.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Draw {
    pub(super) fn constant(value: f64) -> Self {
        let base = value as f32;
        Self { distribution: Distribution::Constant, first: 0, span: u32::MAX, scale: 0.0, base, low: base, high: base }
    }

    pub(super) fn uniform(low: f64, high: f64) -> Self {
        // The sum turns -0 into 0.
        let (low, high) = (low as f32 + 0.0, high as f32 + 0.0);
        let scale = (f64::from(high) - f64::from(low)) as f32 / (1 << 24) as f32;
        // Rounding could reach `high`, so values stay below it.
        Self { distribution: Distribution::Uniform, scale, low, high: high.next_down(), ..Self::constant(low.into()) }
    }

    pub(crate) fn normal(mean: f64, std: f64) -> Self {
        let scale = std as f32 / UNIT as f32;
        let base = mean + 0.0;
        Self { distribution: Distribution::Normal, scale, low: f32::MIN, high: f32::MAX, ..Self::constant(base) }
    }

    fn value(&self, bits: u32) -> f32 {
        let draw = match self.distribution {
            Distribution::Constant => return self.base,
            Distribution::Uniform => (bits >> 8) as i32,
            Distribution::Normal => {
                let within = u64::from(bits) * (u64::from(self.span) + 1);
                quantile(self.first + (within >> 32) as u32)
            }
        };
        (draw as f32 * self.scale + self.base).clamp(self.low, self.high)
    }

    pub(super) fn fill(&self, len: u64, seed: u64, stream: u64) -> Vec<f32> {
        let quads = (0..len.div_ceil(4)).map(|quad| philox([halves(quad), halves(stream)], halves(seed)));
        let mut values: Vec<_> = quads.flatten().map(|bits| self.value(bits)).collect();
        values.truncate(len as usize);
        values
    }
}

/// Orthonormal rows, or columns, of a matrix. Twin: `shaders/init/orthogonal.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Orthogonal {
    /// How many vectors, and the elements of each.
    pub(crate) vectors: u64,
    pub(crate) width: u64,
    /// Columns of the matrix.
    pub(crate) columns: u64,
    /// Whether the vectors are its columns.
    pub(crate) tall: bool,
    pub(crate) gain: f32,
}

impl Orthogonal {
    /// The draw that gives the elements of all vectors before they are made orthogonal, one vector behind the other.
    pub(crate) fn draw(&self) -> Draw {
        Draw::normal(0.0, 1.0)
    }

    pub(super) fn fill(&self, len: u64, seed: u64, stream: u64) -> Vec<f32> {
        if len == 0 {
            return Vec::new();
        }
        let (width, columns) = (self.width as usize, self.columns as usize);
        let drawn = self.draw().fill(len, seed, stream);
        let mut vectors: Vec<Vec<f64>> = drawn.chunks(width).map(|v| v.iter().map(|&x| x.into()).collect()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for _ in 0..2 {
            for i in 0..vectors.len() {
                let (done, later) = vectors.split_at_mut(i + 1);
                let pivot = &done[i];
                let square = dot(pivot, pivot);
                for vector in later {
                    let share = dot(pivot, vector) / square;
                    vector.iter_mut().zip(pivot).for_each(|(x, pivot)| *x -= share * pivot);
                }
            }
        }
        let lengths: Vec<f64> = vectors.iter().map(|v| dot(v, v).sqrt()).collect();
        let value = |element: usize| {
            let (row, column) = (element / columns, element % columns);
            let (vector, at) = if self.tall { (column, row) } else { (row, column) };
            (vectors[vector][at] / lengths[vector] * f64::from(self.gain)) as f32
        };
        (0..len as usize).map(value).collect()
    }
}

/// The two words of a number, the lower one first.
pub(crate) fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// The stream of a tensor's random numbers: FNV-1a of its name, 64 bits.
pub fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The stream in one word, for a counter with room for no more.
pub fn short_stream(name: &str) -> u32 {
    let [low, high] = halves(stream(name));
    low ^ high
}

/// The key of step `t`, in three parts of 22, 22 and 20 bits, which f32 holds.
pub(crate) fn key_parts(t: u64, seed: u64) -> [f64; 3] {
    let [a, b, ..] = philox([halves(t), [0; 2]], halves(seed));
    let part = |bits: u32, first: u32, len: u32| f64::from((bits >> first) & ((1 << len) - 1));
    [part(a, 0, 22), part(a, 22, 10) + 1024.0 * part(b, 0, 12), part(b, 12, 20)]
}

/// The key of these parts.
pub(crate) fn key_of(parts: [f64; 3]) -> [u32; 2] {
    let [low, middle, high] = parts.map(|part| part as u32);
    [low | middle << 22, middle >> 10 | high << 12]
}

/// Philox 4x32-10: 128 random bits of a counter and a key. Salmon et al. 2011, "Parallel random numbers: as easy as 1,
/// 2, 3".
///
/// For a tensor's elements `4q` to `4q+3` the counter is `q`, then the [`stream`], and the key is the seed; the lower
/// word of each comes first.
pub fn philox(counter: [[u32; 2]; 2], key: [u32; 2]) -> [u32; 4] {
    let ([[mut a, mut b], [mut c, mut d]], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let [x_low, x_high] = halves(u64::from(a) * 0xd251_1f53);
        let [y_low, y_high] = halves(u64::from(c) * 0xcd9e_8d57);
        [a, b, c, d] = [y_high ^ b ^ k, y_low, x_high ^ d ^ l, x_low];
        (k, l) = (k.wrapping_add(0x9e37_79b9), l.wrapping_add(0xbb67_ae85));
    }
    [a, b, c, d]
}
