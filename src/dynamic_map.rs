//! The format in which bitsandbytes keeps optimizer state of 8 bits, read and written on the host.

use crate::error::{Result, refuse};

/// Numbers of 8 bits as bitsandbytes stores them, for exchange with its checkpoints: each block of 256 numbers has a
/// scale, its largest magnitude, and each number a code, whose place in a map of 256 numbers says what share of the
/// scale it is (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"; the map is of Dettmers 2015,
/// "8-Bit Approximations for Parallelism in Deep Learning").
///
/// bitsandbytes keeps first moments with the signed map and second moments with the unsigned one. Of Adam `state1` and
/// `state2` are the codes of `m` and `v`, `absmax1` and `absmax2` the scales.
///
/// ```
/// use wgpu_optim::DynamicMap;
///
/// let map = DynamicMap::signed();
/// let m = [0.5, -0.02, 0.0, 3e-5];
/// let coded = map.encode(&m)?;
/// assert_eq!((coded.codes.len(), &coded.scales[..]), (4, &[0.5][..]));
/// let decoded = map.decode(&coded.codes, &coded.scales)?;
/// assert_eq!((decoded[0], decoded[2]), (0.5, 0.0));
/// assert!((decoded[1] - m[1]).abs() < 0.07 * m[1].abs());
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicMap {
    /// In rising order.
    numbers: [f32; 256],
}

/// Numbers that are coded block by block.
#[derive(Clone, Debug, PartialEq)]
pub struct Blockwise {
    /// Of each number.
    pub codes: Vec<u8>,
    /// Of each block of [`DynamicMap::BLOCK`] numbers, the last of which may be shorter.
    pub scales: Vec<f32>,
}

impl DynamicMap {
    /// How many numbers share a scale.
    pub const BLOCK: usize = 256;

    /// The map of numbers with signs: those of 7 decades, twice as many in each as in the one below, beside 0 and 1.
    /// It lacks -1: a block whose largest number is negative has it as -0.993 of the scale.
    pub fn signed() -> Self {
        Self::new(true)
    }

    /// The map of numbers that are never negative. It has twice as many in each decade.
    pub fn unsigned() -> Self {
        Self::new(false)
    }

    /// The numbers of a decade are the middles of equal parts of 0.1 to 1, times a power of ten: with signs one part
    /// each in the lowest decade, without signs two.
    fn new(signed: bool) -> Self {
        let mut numbers = vec![0.0, 1.0];
        for decade in 0..7 {
            let parts = 1 << (decade + u32::from(!signed));
            for part in 0..parts {
                let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
                let number = (middle * 10f64.powi(decade as i32 - 6)) as f32;
                numbers.push(number);
                numbers.extend(signed.then_some(-number));
            }
        }
        numbers.sort_by(f32::total_cmp);
        Self { numbers: numbers.try_into().expect("2 numbers and those of 7 decades are 256") }
    }

    /// The number that each code stands for, in rising order. They are within one unit in the last place of those that
    /// bitsandbytes computes and stores as `qmap1` and `qmap2`.
    pub fn numbers(&self) -> &[f32; 256] {
        &self.numbers
    }

    fn is_signed(&self) -> bool {
        self.numbers[0] < 0.0
    }

    /// The scales of the blocks, and for each number the code that is nearest to its share of the scale; of two that
    /// are equally near, the lower one. In the unsigned map a positive number never has the code of 0, since a second
    /// moment of 0 divides by eps alone: bitsandbytes gives it to shares below 1.6e-7.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) for a number that is not finite, or is negative in the unsigned map.
    pub fn encode(&self, numbers: &[f32]) -> Result<Blockwise> {
        let bound = if self.is_signed() { "finite" } else { "finite and at least 0" };
        let fits = |number: f32| number.is_finite() && (self.is_signed() || number >= 0.0);
        if let Some(place) = numbers.iter().position(|&number| !fits(number)) {
            return refuse(format!("numbers[{place}]"), numbers[place], bound);
        }
        let mut scales = Vec::with_capacity(numbers.len().div_ceil(Self::BLOCK));
        let mut codes = Vec::with_capacity(numbers.len());
        for block in numbers.chunks(Self::BLOCK) {
            let scale = block.iter().fold(0.0, |scale: f32, number| scale.max(number.abs()));
            scales.push(scale);
            // In a block of zeros every share is 0.
            let whole = if scale == 0.0 { 1.0 } else { f64::from(scale) };
            codes.extend(block.iter().map(|&number| self.nearest(f64::from(number) / whole)));
        }
        Ok(Blockwise { codes, scales })
    }

    /// The code of a share of the scale.
    fn nearest(&self, share: f64) -> u8 {
        let above = self.numbers.partition_point(|&number| f64::from(number) < share).clamp(1, 255);
        let [below_by, above_by] = [above - 1, above].map(|code| (share - f64::from(self.numbers[code])).abs());
        let code = above - usize::from(below_by <= above_by);
        let least = usize::from(!self.is_signed() && share > 0.0);
        code.max(least) as u8
    }

    /// The numbers of these codes: the map's, times the scale of the block.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) unless each block has a scale that is finite and at least 0.
    pub fn decode(&self, codes: &[u8], scales: &[f32]) -> Result<Vec<f32>> {
        let blocks = codes.len().div_ceil(Self::BLOCK);
        if scales.len() != blocks {
            let bound = format!("{blocks}, one for each {} of {} codes", Self::BLOCK, codes.len());
            return refuse("scales.len()", scales.len(), bound);
        }
        if let Some(place) = scales.iter().position(|scale| !(scale.is_finite() && *scale >= 0.0)) {
            return refuse(format!("scales[{place}]"), scales[place], "finite and at least 0");
        }
        let blocks = codes.chunks(Self::BLOCK).zip(scales);
        Ok(blocks
            .flat_map(|(block, scale)| block.iter().map(move |&code| self.numbers[usize::from(code)] * scale))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps() -> [DynamicMap; 2] {
        [DynamicMap::signed(), DynamicMap::unsigned()]
    }

    #[test]
    fn the_maps_are_the_published_ones() {
        let [signed, unsigned] = maps().map(|map| map.numbers);
        let printed = |numbers: &[f32]| numbers.iter().map(|number| format!("{number:.4e}")).collect::<Vec<_>>();
        assert_eq!(signed.iter().filter(|&&number| number < 0.0).count(), 127);
        // As bitsandbytes 0.50 prints them.
        assert_eq!(printed(&signed[..3]), ["-9.9297e-1", "-9.7891e-1", "-9.6484e-1"]);
        assert_eq!(printed(&signed[126..130]), ["-5.5000e-7", "0.0000e0", "5.5000e-7", "3.2500e-6"]);
        assert_eq!(printed(&signed[254..]), ["9.9297e-1", "1.0000e0"]);
        assert_eq!(printed(&unsigned[..4]), ["0.0000e0", "3.2500e-7", "7.7500e-7", "2.1250e-6"]);
        assert_eq!(printed(&unsigned[253..]), ["9.8945e-1", "9.9648e-1", "1.0000e0"]);
        for numbers in [signed, unsigned] {
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "no number twice");
        }
    }

    /// Numbers of a block over every decade, its largest among them.
    fn block(largest: f32, signed: bool) -> Vec<f32> {
        let share = |i: i32| 10f32.powf(-9.0 * (i as f32 / 254.0));
        let sign = |i: i32| if signed && i % 3 == 1 { -1.0 } else { 1.0 };
        (0..255).map(|i| largest * sign(i) * share(i)).chain([0.0]).collect()
    }

    #[test]
    fn the_nearest_code_is_that_of_a_search() {
        for map in maps() {
            for largest in [1e-44f32, 1e-30, 7.3e-9, 1.0, 3e38] {
                let numbers = block(largest, map.is_signed());
                let coded = map.encode(&numbers).unwrap();
                assert_eq!(coded.scales, [largest]);
                for (&number, &code) in numbers.iter().zip(&coded.codes) {
                    let share = f64::from(number) / f64::from(largest);
                    let away = |code: usize| (share - f64::from(map.numbers[code])).abs();
                    let least = usize::from(!map.is_signed() && number > 0.0);
                    let nearest = (least..256).min_by(|&a, &b| away(a).total_cmp(&away(b))).unwrap();
                    assert_eq!(usize::from(code), nearest, "{number:e} of {largest:e}");
                }
            }
        }
    }

    #[test]
    fn codes_come_back() {
        for map in maps() {
            let codes: Vec<u8> = (0..=255).chain((0..=255).rev()).chain([255, 3, 9]).collect();
            let scales = vec![1.0, 0.37, 1e-20];
            let numbers = map.decode(&codes, &scales).unwrap();
            assert_eq!(map.encode(&numbers).unwrap(), Blockwise { codes, scales });
        }
    }

    #[test]
    fn errors_are_those_of_the_published_decades() {
        let bounds = [[0.062, 0.11, 0.18, 0.275, 0.465, 0.71], [0.033, 0.062, 0.11, 0.18, 0.275, 0.465]];
        for (map, bounds) in maps().iter().zip(bounds) {
            for (decade, bound) in (0..).zip(bounds) {
                let most = 10f64.powi(-decade);
                let shares = (1..=2000).map(|i| most * (0.1 + 0.9 * f64::from(i) / 2000.0));
                let off = |share: f64| (f64::from(map.numbers[usize::from(map.nearest(share))]) / share - 1.0).abs();
                let worst = shares.map(off).fold(0.0, f64::max);
                assert!(worst < bound + 0.005 && worst > 0.8 * bound, "{worst} in decade {decade}, known {bound}");
            }
        }
    }

    #[test]
    fn blocks_have_their_own_scales() {
        for map in maps() {
            // A block of zeros, one with an outlier, and a short one.
            let mut numbers = vec![0.0; 256];
            numbers.extend(vec![1e-3; 255]);
            numbers.push(1e3);
            numbers.extend([2.0, 2.0]);
            let coded = map.encode(&numbers).unwrap();
            assert_eq!(coded.scales, [0.0, 1e3, 2.0]);
            let decoded = map.decode(&coded.codes, &coded.scales).unwrap();
            assert!(decoded[..256].iter().all(|&number| number == 0.0));
            assert!(decoded[256..511].iter().all(|number| (number / 1e-3 - 1.0).abs() < 0.5));
            assert_eq!(decoded[511..], [1e3, 2.0, 2.0]);
            assert_eq!(map.encode(&[]).unwrap(), Blockwise { codes: vec![], scales: vec![] });
        }
        // There is no -1.
        let map = DynamicMap::signed();
        let coded = map.encode(&[-1.0]).unwrap();
        assert_eq!((map.decode(&coded.codes, &coded.scales).unwrap()[0], coded.codes[0]), (map.numbers[0], 0));
        // What is positive stays so, in the smallest block, too.
        assert!(DynamicMap::unsigned().encode(&[1.0, 1e-30, 1e-45]).unwrap().codes.iter().all(|&code| code > 0));
    }

    #[test]
    fn what_has_no_code_is_refused() {
        let [signed, unsigned] = maps();
        let text = |found: Result<Vec<f32>>| found.unwrap_err().to_string();
        let encoded = |map: &DynamicMap, numbers: &[f32]| map.encode(numbers).unwrap_err().to_string();
        assert_eq!(encoded(&signed, &[1.0, f32::NAN]), "numbers[1] is NaN, must be finite");
        assert_eq!(encoded(&unsigned, &[f32::INFINITY]), "numbers[0] is inf, must be finite and at least 0");
        assert_eq!(encoded(&unsigned, &[-0.5]), "numbers[0] is -0.5, must be finite and at least 0");
        assert_eq!(
            text(signed.decode(&[0; 257], &[1.0])),
            "scales.len() is 1, must be 2, one for each 256 of 257 codes"
        );
        assert_eq!(text(signed.decode(&[0], &[f32::NAN])), "scales[0] is NaN, must be finite and at least 0");
        assert_eq!(text(signed.decode(&[0], &[-1.0])), "scales[0] is -1, must be finite and at least 0");
    }
}
