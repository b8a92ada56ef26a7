// State that is stored by groups: a code for each number, and a step for each group of 32 elements. A code `c` stands
// for `c * c * step`; where numbers have signs, the bit above the magnitude is the sign.
// Twin: `Codes` in src/storage.rs

const LOST: u32 = 0x7fc0u; // the step of a group with a number that is not finite
const LEAST: u32 = 0x0080u; // the least step but 0
const GROUP_LANES: u32 = 8u; // lanes that hold a group, four elements each, or vectors of four of a lane that holds one

// The bits in bf16 of the step that numbers of this largest magnitude need, by its bits. A larger one needs at least
// the same.
fn step_of(largest: u32, most: u32, inverse: f32) -> u32 {
    let near = bitcast<u32>(bitcast<f32>(largest) * inverse);
    let step = max((near + 0xffffu) >> 16u, LEAST);
    let reach = f32(most * most) * bitcast<f32>(step << 16u);
    let finite = select(0u, step + select(0u, 1u, reach < bitcast<f32>(largest)), largest != 0u);
    return select(finite, LOST, largest >= 0x7f800000u);
}

fn decode_codes(codes: vec4<u32>, most: u32, step: u32) -> vec4<f32> {
    let magnitudes = floats(codes & vec4<u32>(most));
    let numbers = bitcast<vec4<u32>>(magnitudes * magnitudes * bitcast<f32>(step << 16u));
    let signed = numbers | select(vec4<u32>(), vec4<u32>(0x80000000u), codes > vec4<u32>(most));
    return bitcast<vec4<f32>>(select(signed, vec4<u32>(0x7fc00000u), vec4<bool>(step >= 0x7f80u)));
}

// Small whole numbers as floats. Processors turn numbers with signs into floats in one instruction.
fn floats(numbers: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(numbers));
}

// What the numbers of a group and its codes have to do with each other.
struct Scale {
    step: f32,
    inverse: f32, // a little more than 1 over the step
    reach: f32, // the number of the last code: the largest, or the one before where f32 does not hold it
}

fn scale_of(bits: u32, most: f32) -> Scale {
    let step = bitcast<f32>(max(bits, LEAST) << 16u);
    let last = most * most * step;
    let before = (most - 1.0) * (most - 1.0) * step;
    return Scale(step, 1.00001 / step, select(last, before, bitcast<u32>(last) >= 0x7f800000u));
}

// The codes of four numbers of a group, each one of both neighbours, by 16 random bits each. `sign` is the bit of the
// sign, or 0 where numbers are never negative: then what is positive has no code 0.
fn encode_codes(numbers: vec4<f32>, scale: Scale, sign: u32, random: vec4<u32>) -> vec4<u32> {
    let magnitude = min(abs(numbers), vec4<f32>(scale.reach));
    // The root is a little too large, whatever a device makes of it, so its code is right or one too large. Squares of
    // codes are exact in f32, as is all that follows but what the gap is multiplied by chance.
    let near = floor(sqrt(magnitude * scale.inverse));
    let near_square = near * near * scale.step;
    let is_above = near_square > magnitude;
    let below = near - select(vec4<f32>(), vec4<f32>(1.0), is_above);
    let gap = below * (2.0 * scale.step) + vec4<f32>(scale.step);
    let distance = magnitude - (near_square - select(vec4<f32>(), gap, is_above));
    // The bits behind a 1 make it a number from 1 to 2. What is left is half a unit more than they count.
    let bits = ((random & vec4<u32>(0xffffu)) << vec4<u32>(7u)) | vec4<u32>(0x3f800000u);
    let chance = bitcast<vec4<f32>>(bits) - vec4<f32>(0x1.ffffp-1f);
    let codes = below + select(vec4<f32>(), vec4<f32>(1.0), distance > gap * chance);
    let whole = bitcast<vec4<u32>>(vec4<i32>(codes));
    let words = bitcast<vec4<u32>>(numbers);
    let positive = max(whole, min(words, vec4<u32>(1u)));
    let signed = whole | select(vec4<u32>(), vec4<u32>(sign), words >= vec4<u32>(0x80000000u));
    return select(signed, positive, sign == 0u);
}

// Four numbers of a chunk, with 0 for what lies behind its end. Where all four do, they are 0 already.
fn inside_of(chunk: Chunk, q: u32, numbers: vec4<f32>) -> vec4<f32> {
    if (!TAILS) {
        return numbers;
    }
    let is_inside = vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len);
    return select(vec4<f32>(), numbers, is_inside);
}

// The bits of the largest magnitude.
fn largest_of(numbers: vec4<f32>) -> u32 {
    let magnitudes = bitcast<vec4<u32>>(numbers) & vec4<u32>(0x7fffffffu);
    return max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
}

// The numbers of a group that one lane holds, with two vectors of four replaced, the first at an even place. All
// indices are constants, since software Vulkan keeps an array with others in memory, and reads and writes the number of
// each lane there by itself.
fn with_two(
    group: array<vec4<f32>, GROUP_LANES>, n: u32, first: vec4<f32>, second: vec4<f32>,
) -> array<vec4<f32>, GROUP_LANES> {
    return array<vec4<f32>, GROUP_LANES>(
        select(group[0], first, n == 0u),
        select(group[1], second, n == 0u),
        select(group[2], first, n == 2u),
        select(group[3], second, n == 2u),
        select(group[4], first, n == 4u),
        select(group[5], second, n == 4u),
        select(group[6], first, n == 6u),
        select(group[7], second, n == 6u),
    );
}

fn two_of(group: array<vec4<f32>, GROUP_LANES>, n: u32) -> array<vec4<f32>, 2> {
    var first = group[0];
    var second = group[1];
    first = select(first, group[2], n == 2u);
    second = select(second, group[3], n == 2u);
    first = select(first, group[4], n == 4u);
    second = select(second, group[5], n == 4u);
    first = select(first, group[6], n == 6u);
    second = select(second, group[7], n == 6u);
    return array<vec4<f32>, 2>(first, second);
}
