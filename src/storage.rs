//! The registry of the formats in which state is stored, and where a block of state holds which numbers. Twins:
//! `shaders/storage/`. Rules and wrappers know nothing of it: a rule sees f32.
//!
//! A step computes new numbers in f32, updates the parameters by them, and stores them rounded by chance: to one of
//! both neighbours in the format, up with the probability of the distance from the lower one. So slow means move on
//! average, however small their steps are. What a caller sets is rounded to the nearest.
//!
//! The formats by groups have a code for each number and a step for each group of 32 elements. A code `c` stands for
//! `c * c * step`, so steps between codes are fine where numbers are small. The step is the least number of bf16 with
//! which the largest code reaches the group's largest number: its 8 bits times the 16 of `c * c` are exact in f32.

use serde::{Deserialize, Serialize};

use crate::codecs::DType;
use crate::parts::Real;

/// Elements that share a step.
pub const GROUP: usize = 32;

/// Lanes that hold a group, four elements each.
pub const GROUP_LANES: u32 = 8;

/// The most lanes of a workgroup that shares the largest numbers of groups.
pub const LANES_MOST: u32 = 256;

/// The format in which the numbers of a state slot are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Storage {
    /// IEEE single precision, 4 bytes.
    #[default]
    F32,
    /// The upper half of f32, 2 bytes.
    Bf16,
    /// A code of 8 bits, and a step for each group of 32 elements.
    Q8,
    /// A code of 4 bits, and a step for each group of 32 elements.
    Q4,
    /// A whole number from -32768 to 32767, 2 bytes: what rounding took from a parameter, never a mean.
    #[serde(skip)]
    I16,
}

/// What is known of a format.
struct Format {
    storage: Storage,
    name: &'static str,
    /// Words of four elements; of a group, where numbers are stored by groups.
    room: Room,
    /// Bits of a code, where numbers are stored by groups.
    code_bits: Option<u32>,
    shaders: &'static [&'static str],
}

const GROUPS: &str = include_str!("../shaders/storage/groups.wgsl");

/// Every format, in the order of [`Storage`].
static ALL: [Format; 5] = [
    Format { storage: Storage::F32, name: "f32", room: Room::quads(4), code_bits: None, shaders: &[] },
    Format {
        storage: Storage::Bf16,
        name: "bf16",
        room: Room::quads(2),
        code_bits: None,
        shaders: &[include_str!("../shaders/codecs/halves.wgsl"), include_str!("../shaders/codecs/bf16.wgsl")],
    },
    Format {
        storage: Storage::Q8,
        name: "q8",
        room: Room::groups(8),
        code_bits: Some(8),
        shaders: &[GROUPS, include_str!("../shaders/storage/q8.wgsl")],
    },
    Format {
        storage: Storage::Q4,
        name: "q4",
        room: Room::groups(4),
        code_bits: Some(4),
        shaders: &[GROUPS, include_str!("../shaders/storage/q4.wgsl")],
    },
    Format {
        storage: Storage::I16,
        name: "i16",
        room: Room::quads(2),
        code_bits: None,
        shaders: &[include_str!("../shaders/codecs/halves.wgsl"), include_str!("../shaders/storage/i16.wgsl")],
    },
];

/// The codes of a slot: numbers with signs, or numbers that are never negative, which need no bit for a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    bits: u32,
    signed: bool,
}

impl Storage {
    /// Every format that a rule's slot may have.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Q8, Self::Q4];

    fn format(self) -> &'static Format {
        &ALL[self as usize]
    }

    /// Bytes of a number, in a format without groups.
    pub(crate) fn element_bytes(self) -> u64 {
        self.format().room.of_quad
    }

    /// The name in JSON and errors.
    pub fn name(self) -> &'static str {
        self.format().name
    }

    /// The format of this name.
    pub fn find(name: &str) -> Option<Self> {
        let has_name = |format: &&Format| format.name == name && Self::ALL.contains(&format.storage);
        ALL.iter().find(has_name).map(|format| format.storage)
    }

    /// The texts of the twin.
    pub(crate) fn shaders(self) -> &'static [&'static str] {
        self.format().shaders
    }

    /// The codes of a slot, where numbers are stored by groups.
    pub fn codes(self, nonnegative: bool) -> Option<Codes> {
        self.format().code_bits.map(|bits| Codes { bits, signed: !nonnegative })
    }

    /// All numbers of a tensor's slot as the format holds them, each rounded to the nearest. Returns the steps of the
    /// groups, where there are any.
    pub fn round<F: Real>(self, nonnegative: bool, numbers: &mut [F]) -> Vec<u32> {
        match self.codes(nonnegative) {
            Some(codes) => codes.round(numbers, Codes::nearest),
            None if self == Self::F32 => vec![],
            None => {
                numbers.iter_mut().for_each(|number| *number = F::of(self.decode(self.encode(number.f64())).into()));
                vec![]
            }
        }
    }

    /// The bits of a number rounded to the nearest, in a format without groups.
    fn encode(self, number: f64) -> u32 {
        match self {
            Self::Bf16 => (DType::Bf16.round(number) as f32).to_bits() >> 16,
            // What is no number becomes 0.
            Self::I16 => u32::from(number.round_ties_even() as i16 as u16),
            _ => (number as f32).to_bits(),
        }
    }

    /// The number of such bits.
    fn decode(self, bits: u32) -> f32 {
        match self {
            Self::Bf16 => of_bf16(bits & 0xffff),
            Self::I16 => f32::from(bits as i16),
            _ => f32::from_bits(bits),
        }
    }

    /// A number rounded to the nearest, in a format without groups.
    pub(crate) fn round_one(self, number: f64) -> f64 {
        let mut numbers = [number];
        self.round(false, &mut numbers);
        numbers[0]
    }

    /// The same, each rounded by chance: `random` gives 16 bits for an element.
    pub fn dither<F: Real>(self, nonnegative: bool, numbers: &mut [F], random: impl Fn(usize) -> u32) -> Vec<u32> {
        match self.codes(nonnegative) {
            None if self == Self::F32 => vec![],
            None => {
                let dither =
                    |(i, number): (usize, &mut F)| *number = F::of(DType::Bf16.dither(number.f64(), random(i)));
                numbers.iter_mut().enumerate().for_each(dither);
                vec![]
            }
            Some(codes) => {
                let mut element = 0;
                codes.round(numbers, |codes, number, step| {
                    element += 1;
                    codes.by_chance(number, step, random(element - 1))
                })
            }
        }
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The least step that there is but 0: f32's smallest normal number.
const LEAST: u32 = 0x0080;

/// The step of a group with a number that is not finite, of which no number can be read.
const LOST: u32 = 0x7fc0;

fn of_bf16(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

impl Codes {
    /// The bits of each code.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// The bit of the sign; 0 where there are no signs.
    pub fn sign(self) -> u32 {
        if self.signed { 1 << (self.bits - 1) } else { 0 }
    }

    /// The largest magnitude of a code.
    pub fn most(self) -> u32 {
        (1 << (self.bits - u32::from(self.signed))) - 1
    }

    /// The step of a group of these numbers, as the bits of bf16. Twin: `step_of`.
    pub fn step(self, group: &[f32]) -> u32 {
        let largest = group.iter().map(|number| number.abs().to_bits()).max().unwrap_or(0);
        let squared = (self.most() * self.most()) as f32;
        match largest {
            0 => 0,
            0x7f80_0000.. => LOST,
            _ => {
                let near = f32::from_bits(largest) * (1.0 / squared);
                let step = ((near.to_bits() + 0xffff) >> 16).max(LEAST);
                step + u32::from(squared * of_bf16(step) < f32::from_bits(largest))
            }
        }
    }

    /// The number of a code. Twins: `decode_q8`, `decode_q4`.
    pub fn decode(self, code: u32, step: u32) -> f32 {
        if step >= 0x7f80 {
            return f32::NAN;
        }
        let magnitude = code & self.most();
        let number = (magnitude * magnitude) as f32 * of_bf16(step);
        if self.signed && code > self.most() { -number } else { number }
    }

    /// The code below a number or at it, the number's distance from it, and the way to the next code. Twin: `below`.
    fn below(self, number: f32, step: u32) -> (u32, f32, f32) {
        let (number, step) = (number.abs(), of_bf16(step.max(LEAST)));
        let at = |code: u32| (code * code) as f32 * step;
        // A root may be off by one, and the largest code may lie beyond f32.
        let most = self.most() - u32::from(at(self.most()).is_infinite());
        let mut code = ((number * (1.0 / step)).sqrt() as u32).min(most);
        code -= u32::from(at(code) > number);
        code += u32::from(code < most && at(code + 1) <= number);
        (code, number - at(code), if code < most { (2 * code + 1) as f32 * step } else { f32::INFINITY })
    }

    /// The code with the sign of a number. What is positive and never negative has no code 0.
    fn signed(self, magnitude: u32, number: f32) -> u32 {
        match self.signed {
            true => magnitude | (self.sign() * (number.to_bits() >> 31)),
            false => magnitude.max(u32::from(number.to_bits() != 0)),
        }
    }

    /// The code whose number is nearest, of two that are equally near the lower one.
    pub fn nearest(self, number: f32, step: u32) -> u32 {
        if step == LOST {
            return 0;
        }
        let (code, distance, gap) = self.below(number, step);
        self.signed(code + u32::from(distance > gap - distance), number)
    }

    /// One of both neighbours, by 16 random bits. Twins: `encode_q8`, `encode_q4`.
    pub fn by_chance(self, number: f32, step: u32, random: u32) -> u32 {
        if step == LOST {
            return 0;
        }
        let (code, distance, gap) = self.below(number, step);
        let chance = ((random & 0xffff) as f32 + 0.5) * (1.0 / 65536.0);
        self.signed(code + u32::from(distance > gap * chance), number)
    }

    fn round<F: Real>(self, numbers: &mut [F], mut encode: impl FnMut(Self, f32, u32) -> u32) -> Vec<u32> {
        let mut steps = Vec::new();
        for group in numbers.chunks_mut(GROUP) {
            let narrow: Vec<f32> = group.iter().map(|number| number.f64() as f32).collect();
            let step = self.step(&narrow);
            for (number, narrow) in group.iter_mut().zip(narrow) {
                *number = F::of(f64::from(self.decode(encode(self, narrow, step), step)));
            }
            steps.push(step);
        }
        steps
    }

    /// The steps of a tensor's groups.
    pub fn steps(self, numbers: &[f32]) -> Vec<u32> {
        numbers.chunks(GROUP).map(|group| self.step(group)).collect()
    }
}

/// Words that numbers take in a block: so many for every four elements, and for every group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Room {
    /// Words of four elements.
    pub of_quad: u64,
    /// Words of a group.
    pub of_group: u64,
}

impl Room {
    /// Of numbers that take so many words for every four elements.
    pub const fn quads(of_quad: u64) -> Self {
        Self { of_quad, of_group: 0 }
    }

    const fn groups(of_group: u64) -> Self {
        Self { of_quad: 0, of_group }
    }

    const fn and(self, other: Self) -> Self {
        Self { of_quad: self.of_quad + other.of_quad, of_group: self.of_group + other.of_group }
    }

    /// Of so many numbers in f32 for every element.
    pub const fn of_f32(numbers: u64) -> Self {
        Self::quads(4 * numbers)
    }

    /// Whether there are no numbers.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Words of so many elements, which start a block: whole vectors of four, and whole groups. The sum saturates.
    pub fn words(self, len: u64) -> u64 {
        let (quads, groups) = (len.div_ceil(4), len.div_ceil(GROUP as u64));
        self.of_quad.saturating_mul(quads).saturating_add(self.of_group.saturating_mul(groups))
    }

    /// Bytes of so many elements in a page, where state starts at multiples of 16.
    pub fn bytes(self, len: u64) -> u64 {
        self.words(len).saturating_mul(4).checked_next_multiple_of(16).unwrap_or(u64::MAX)
    }

    /// Bytes of so many elements without the padding of the last vector of four.
    pub fn exact_bytes(self, len: u64) -> u64 {
        self.of_quad * len + 4 * self.of_group * len.div_ceil(GROUP as u64)
    }
}

/// A slot in the blocks of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The slot.
    pub name: &'static str,
    /// Numbers of each element.
    pub numbers: u64,
    /// Whether they are never negative.
    pub nonnegative: bool,
    /// Their format.
    pub storage: Storage,
}

impl Section {
    fn room(&self) -> Room {
        let Room { of_quad, of_group } = self.storage.format().room;
        Room { of_quad: self.numbers * of_quad, of_group: self.numbers * of_group }
    }

    /// Its codes, where it is stored by groups.
    pub fn codes(&self) -> Option<Codes> {
        self.storage.codes(self.nonnegative)
    }

    /// Words of its numbers of so many elements, which start a block.
    pub fn words(&self, len: u64) -> u64 {
        self.room().words(len)
    }

    /// The words of the numbers of a block's elements, rounded to the nearest; by groups with these steps.
    pub fn encode(&self, numbers: &[f32], steps: &[u32]) -> Vec<u32> {
        let bits = 32 * self.words(GROUP as u64) as usize / GROUP;
        let mut words = vec![0; self.words(numbers.len() as u64) as usize];
        for (i, &number) in numbers.iter().enumerate() {
            let code = match self.codes() {
                Some(codes) => codes.nearest(number, steps[i / GROUP]),
                None => self.storage.encode(number.into()),
            };
            words[i * bits / 32] |= code << (i * bits % 32);
        }
        words
    }

    /// The numbers of a block's elements.
    pub fn decode(&self, words: &[u32], steps: &[u32], len: usize) -> Vec<f32> {
        let bits = 32 * self.words(GROUP as u64) as usize / GROUP;
        let number = |i: usize| {
            let code = words[i * bits / 32] >> (i * bits % 32);
            match self.codes() {
                Some(codes) => codes.decode(code & ((1 << bits) - 1), steps[i / GROUP]),
                None => self.storage.decode(code),
            }
        };
        (0..len).map(number).collect()
    }
}

/// Where the steps of a slot's groups lie: a word of each group, which holds those of two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// What stands before the words.
    pub before: Room,
    /// Whether the step is the upper half.
    pub is_upper: bool,
    /// The slot that has the other half.
    pub partner: Option<usize>,
}

/// How a block of state holds the numbers of its elements: slot behind slot, then the steps of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The slots.
    pub sections: Vec<Section>,
}

impl Layout {
    /// Whether any slot is stored otherwise than in f32.
    pub fn is_coded(&self) -> bool {
        self.sections.iter().any(|section| section.storage != Storage::F32)
    }

    /// Whether any slot is stored by groups.
    pub fn is_grouped(&self) -> bool {
        self.sections.iter().any(|section| section.codes().is_some())
    }

    /// A slot's place among the sections.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.name == name)
    }

    /// What stands before a slot in a block.
    pub fn before(&self, slot: usize) -> Room {
        self.sections[..slot].iter().map(Section::room).fold(Room::default(), Room::and)
    }

    /// The slots that are stored by groups.
    pub fn grouped(&self) -> impl Iterator<Item = usize> {
        (0..self.sections.len()).filter(|&slot| self.sections[slot].codes().is_some())
    }

    /// Where the steps of a slot's groups lie.
    pub fn steps(&self, slot: usize) -> Option<Steps> {
        let grouped: Vec<usize> = self.grouped().collect();
        let place = grouped.iter().position(|&grouped| grouped == slot)?;
        let before = self.before(self.sections.len()).and(Room::groups(place as u64 / 2));
        let partner = grouped.get(place ^ 1).copied();
        Some(Steps { before, is_upper: place % 2 == 1, partner })
    }

    /// What a block takes in all.
    pub fn room(&self) -> Room {
        self.before(self.sections.len()).and(Room::groups(self.grouped().count().div_ceil(2) as u64))
    }

    /// Words of the elements of the array that is bound: four where all is in f32, two with 16 bits, else one.
    pub fn width(&self) -> u64 {
        match (self.is_coded(), self.is_grouped()) {
            (false, _) => 4,
            (true, false) => 2,
            (true, true) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_CODES: [Codes; 4] = [
        Codes { bits: 8, signed: true },
        Codes { bits: 8, signed: false },
        Codes { bits: 4, signed: true },
        Codes { bits: 4, signed: false },
    ];

    /// Numbers over every decade, subnormal ones included.
    fn decades() -> impl Iterator<Item = f32> {
        (-44..39).flat_map(|decade| [1.0, 1.7, 2.6, 3.3, 9.99].map(|x| (x * 10f64.powi(decade)) as f32))
    }

    #[test]
    fn each_format_has_its_place() {
        for storage in Storage::ALL {
            assert_eq!((storage.format().storage, Storage::find(storage.name())), (storage, Some(storage)));
        }
    }

    #[test]
    fn the_nearest_code_is_that_of_a_search() {
        for codes in ALL_CODES {
            for largest in decades().filter(|number| number.is_finite() && *number > 0.0) {
                let step = codes.step(&[largest, -largest / 3.0]);
                let all: Vec<f64> = (0..1 << codes.bits).map(|code| codes.decode(code, step).into()).collect();
                let least = if codes.signed { 0 } else { 1 };
                for part in 0..1000 {
                    let magnitude = largest * ((part as f32 + 0.37) / 1000.0).powi(3);
                    for number in [magnitude, -magnitude].into_iter().take(if codes.signed { 2 } else { 1 }) {
                        if number == 0.0 {
                            continue;
                        }
                        let distance = |number: f64| move |found: &f64| (found - number).abs();
                        let found = codes.decode(codes.nearest(number, step), step);
                        let nearest = all[least..].iter().map(distance(number.into())).fold(f64::MAX, f64::min);
                        assert_eq!(
                            distance(number.into())(&found.into()),
                            nearest,
                            "{codes:?} {number:e} of {largest:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_step_is_the_least_that_reaches_the_largest_number() {
        for codes in ALL_CODES {
            let squared = f64::from(codes.most() * codes.most());
            for largest in decades().filter(|number| number.is_finite() && *number > 0.0) {
                let step = codes.step(&[0.0, largest]);
                assert!(squared * f64::from(of_bf16(step)) >= largest.into(), "{codes:?} of {largest:e}");
                let less = squared * f64::from(of_bf16(step - 1));
                assert!(step == LEAST || less < largest.into(), "{codes:?} of {largest:e}");
            }
            assert_eq!((codes.step(&[0.0; 32]), codes.step(&[])), (0, 0));
            for lost in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let step = codes.step(&[1.0, lost]);
                assert!(codes.decode(codes.by_chance(1.0, step, 7), step).is_nan());
            }
        }
    }

    #[test]
    fn rounding_by_chance_is_right_on_average_and_takes_a_neighbour() {
        const DRAWS: u32 = 1 << 17;
        for codes in ALL_CODES {
            for largest in [1e-30f32, 3e-8, 1.0, 77.7, f32::MAX] {
                let step = codes.step(&[largest]);
                for part in [1.0, 0.9, 0.31, 0.05, 1.1e-3, 3.1e-4] {
                    let number = largest * part;
                    let below_codes = codes.decode(1, step) > number;
                    // Odd multiples of the golden ratio lie at even distances, in their upper 16 bits, too.
                    let draws = (0..DRAWS).map(|i| {
                        let code = codes.by_chance(number, step, i.wrapping_mul(0x9e37_79b1) >> 16);
                        f64::from(codes.decode(code, step))
                    });
                    let mean = draws.clone().sum::<f64>() / f64::from(DRAWS);
                    let (low, high) = draws.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
                    assert!(high.is_finite() && high > 0.0, "{codes:?} {number:e}");
                    if below_codes && !codes.signed {
                        assert_eq!((low, high), (codes.decode(1, step).into(), codes.decode(1, step).into()));
                        continue;
                    }
                    // The largest numbers of f32 may lie between its last code and one beyond.
                    let last = codes.most() - u32::from(codes.decode(codes.most(), step).is_infinite());
                    let expected = f64::from(number).min(codes.decode(last, step).into());
                    let gap = high - low;
                    let bound = 3e-5 * expected.max(gap);
                    assert!((mean - expected).abs() <= bound, "{codes:?} {number:e}: {mean:e} of {expected:e}");
                    let root = (expected / f64::from(of_bf16(step))).sqrt();
                    assert!(gap <= f64::from(of_bf16(step)) * (2.0 * root + 1.01), "{codes:?} {number:e}");
                }
            }
        }
    }

    #[test]
    fn numbers_of_a_format_keep_their_code() {
        for codes in ALL_CODES {
            for step in [0x0080, 0x2000, 0x3f80, 0x3fab, 0x6000] {
                for code in 0..1 << codes.bits {
                    let number = codes.decode(code, step);
                    assert_eq!(codes.nearest(number, step), code, "{codes:?} {step:x}");
                    assert_eq!(codes.by_chance(number, step, code * 7919), code, "{codes:?} {step:x}");
                }
            }
        }
    }

    #[test]
    fn what_is_positive_stays_so() {
        for storage in [Storage::Q8, Storage::Q4] {
            let mut numbers: Vec<f32> = decades().filter(|number| number.is_finite()).collect();
            numbers.push(0.0);
            let zeros: Vec<bool> = numbers.iter().map(|&number| number == 0.0).collect();
            storage.dither(true, &mut numbers, |i| i as u32 * 0x9e37);
            assert!(numbers.iter().map(|&number| number == 0.0).eq(zeros), "{storage}: {numbers:?}");
        }
    }
}
