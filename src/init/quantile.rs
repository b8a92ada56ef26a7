//! The normal distribution's quantiles, in whole numbers, from a table that the shader binds, too.

use std::sync::LazyLock;

/// What one standard deviation is in [`quantiles`].
pub(super) const UNIT: u32 = 1 << 28;

/// Nodes of an octave of the tail's probability: an octave has 64 segments, each with an end and a middle.
const OCTAVE_NODES: usize = 2 * 64;

/// The table that the shader `fill` binds: node `i` is how many 2^-28 of a standard deviation the normal distribution's
/// tail of probability `(1 + i%128/128) * 2^(i/128 - 33)` lies from the mean, for `i` up to 4096.
///
/// The table is computed with operations that IEEE 754 rounds correctly alone, so it is the same everywhere.
pub fn quantiles() -> &'static [u32] {
    static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let node = |i: usize| {
            let (octave, part) = (i / OCTAVE_NODES, (i % OCTAVE_NODES) as f64 / OCTAVE_NODES as f64);
            (tail_quantile(33 - octave as u32, part) * f64::from(UNIT)).round() as u32
        };
        (0..=32 * OCTAVE_NODES).map(node).collect()
    });
    &TABLE
}

/// How far from the mean the tail of probability `(1 + part) * 2^-octave` starts: Wichura 1988, algorithm AS 241,
/// PPND16, for probabilities above exp(-25); there within 1e-15 of itself.
#[expect(clippy::excessive_precision, reason = "the published digits")]
fn tail_quantile(octave: u32, part: f64) -> f64 {
    const CENTRE: [[f64; 8]; 2] = [
        [
            2.509_080_928_730_122_672_7e3,
            3.343_057_558_358_812_810_5e4,
            6.726_577_092_700_870_085_3e4,
            4.592_195_393_154_987_145_7e4,
            1.373_169_376_550_946_112_5e4,
            1.971_590_950_306_551_442_7e3,
            1.331_416_678_917_843_774_5e2,
            3.387_132_872_796_366_608_0,
        ],
        [
            5.226_495_278_852_854_561_0e3,
            2.872_908_573_572_194_267_4e4,
            3.930_789_580_009_271_061_0e4,
            2.121_379_430_158_659_586_7e4,
            5.394_196_021_424_751_107_7e3,
            6.871_870_074_920_579_083_0e2,
            4.231_333_070_160_091_125_2e1,
            1.0,
        ],
    ];
    const TAIL: [[f64; 8]; 2] = [
        [
            7.745_450_142_783_414_076_40e-4,
            2.272_384_498_926_918_458_33e-2,
            2.417_807_251_774_506_117_70e-1,
            1.270_458_252_452_368_382_58,
            3.647_848_324_763_204_605_04,
            5.769_497_221_460_691_405_50,
            4.630_337_846_156_545_295_90,
            1.423_437_110_749_683_577_34,
        ],
        [
            1.050_750_071_644_416_843_24e-9,
            5.475_938_084_995_344_946_00e-4,
            1.519_866_656_361_645_719_66e-2,
            1.481_039_764_274_800_745_90e-1,
            6.897_673_349_851_000_045_50e-1,
            1.676_384_830_183_803_849_40,
            2.053_191_626_637_758_821_87,
            1.0,
        ],
    ];
    let ratio = |[above, below]: [[f64; 8]; 2], x: f64| {
        let polynomial = |terms: [f64; 8]| terms.into_iter().fold(0.0, |sum, term| sum * x + term);
        polynomial(above) / polynomial(below)
    };
    let from_centre = 0.5 - (1.0 + part) / (1u64 << octave) as f64;
    if from_centre <= 0.425 {
        return from_centre * ratio(CENTRE, 0.180625 - from_centre * from_centre);
    }
    // ln(1+part) is 2*atanh(part/(2+part)), whose argument is at most 1/3.
    let x = part / (2.0 + part);
    let series = (0..20).rev().fold(0.0, |sum, i| sum * x * x + 1.0 / f64::from(2 * i + 1));
    let log = f64::from(octave) * std::f64::consts::LN_2 - 2.0 * x * series;
    ratio(TAIL, log.sqrt() - 1.6)
}

/// The normal distribution's quantile of `(share + 1/2) / 2^32`, in units of 2^-28, rounded to 24 bits. Within a
/// segment it is the parabola through the nodes at both ends and in the middle.
pub(super) fn quantile(share: u32) -> i32 {
    let below = share < 1 << 31;
    let tail = (if below { share } else { !share }) << 1 | 1;
    let zeros = tail.leading_zeros();
    let normalised = tail << zeros;
    let node = ((31 - zeros) << 7) + ((normalised >> 24) & 126);
    let at = normalised << 7;
    let [a, b, c] = [0, 1, 2].map(|i| quantiles()[(node + i) as usize]);
    let high = |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32;
    let bulge = ((a + c) >> 1) - b;
    let exact = (a - high(a - c, at) - high(bulge, high(at, !at) << 2)).max(1);
    let drop = 8 - exact.leading_zeros().min(8);
    let rounded = (((exact + ((1 << drop) >> 1)) >> drop) << drop) as i32;
    if below { -rounded } else { rounded }
}

/// The [`quantile`] in standard deviations.
pub(super) fn deviations(share: u32) -> f64 {
    f64::from(quantile(share)) / f64::from(UNIT)
}

/// How many of the 2^32 shares come before the first that is not `below`.
pub(super) fn shares(below: impl Fn(u32) -> bool) -> u64 {
    let (mut first, mut end) = (0, 1 << 32);
    while first < end {
        let middle = (first + end) / 2;
        if below(middle as u32) { first = middle + 1 } else { end = middle }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::{Draw, Init, Law};
    use crate::tensor::TensorSpec;

    /// Probability that a normal number exceeds `z`, and its density there.
    fn tail(z: f64) -> (f64, f64) {
        let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
        // Abramowitz and Stegun 26.2.11 and 26.2.14.
        let probability = if z < 2.0 {
            let term = |sum: f64, n: i32| 1.0 + sum * z * z / f64::from(2 * n + 1);
            0.5 - density * z * (1..60).rev().fold(1.0, term)
        } else {
            density / (1..400).rev().fold(z, |fraction, n| z + f64::from(n) / fraction)
        };
        (probability, density)
    }

    /// How far `z` is from where the tail of this probability starts.
    fn error(z: f64, probability: f64) -> f64 {
        let mut exact = z;
        for _ in 0..3 {
            let (found, density) = tail(exact);
            exact += (found - probability) / density;
        }
        z - exact
    }

    #[test]
    fn the_table_holds_quantiles() {
        let mut worst = 0.0_f64;
        for octave in 2..=33 {
            for part in (0..OCTAVE_NODES).map(|i| i as f64 / OCTAVE_NODES as f64) {
                let probability = (1.0 + part) / (1u64 << octave) as f64;
                worst = worst.max(error(tail_quantile(octave, part), probability).abs());
            }
        }
        // Found: 4.4e-15.
        assert!(worst < 1e-14, "{worst:e}");
        assert_eq!((quantiles().len(), quantiles()[4096]), (4097, 0));
        assert!(quantiles().is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn draws_are_quantiles_to_rounding() {
        const PER_OCTAVE: u64 = 5000;
        let mut worst = [0.0_f64; 2];
        for octave in 0..31 {
            for i in 0..PER_OCTAVE {
                let share = ((1 << octave) + (i << octave) / PER_OCTAVE) as u32;
                assert_eq!(quantile(share), -quantile(!share), "{share}");
                let z = -deviations(share);
                let error = error(z, (f64::from(share) + 0.5) / (1u64 << 32) as f64).abs();
                let worst = &mut worst[usize::from(z >= 2.0)];
                *worst = worst.max(error);
            }
        }
        // Found: 9.1e-8 and 2.6e-7, of which rounding to 24 bits makes 6e-8 and 2.4e-7.
        assert!(worst[0] < 1e-7 && worst[1] < 3e-7, "{worst:?}");
        let tensor = TensorSpec::f32("w", [1]);
        let truncated = Init::TruncatedNormal { mean: 0.0, std: 1.0, low: -2.0, high: 0.5 }.law(&tensor);
        let Ok(Law::Draw(Draw { first, span, .. })) = truncated else { panic!("{truncated:?}") };
        let around = [first - 1, first, first + span, first + span + 1].map(deviations);
        assert!(around[0] < -2.0 && around[1] >= -2.0 && around[2] <= 0.5 && around[3] > 0.5, "{around:?}");
        // 6.338 is the quantile of 2^-33. No quantile is 0, so no vector of an orthogonal tensor is 0 either.
        assert_eq!([0, u32::MAX, 1 << 31, (1 << 31) - 1].map(quantile), [-1_701_332_608, 1_701_332_608, 1, -1]);
    }
}
