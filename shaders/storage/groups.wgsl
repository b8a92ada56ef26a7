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

// The codes of four numbers of a group, each one of both neighbours, by 16 random bits each. `sign` is the bit of the
// sign, or 0 where numbers are never negative: then what is positive has no code 0.
fn encode_codes(numbers: vec4<f32>, most: f32, sign: u32, bits: u32, random: vec4<u32>) -> vec4<u32> {
    let step = bitcast<f32>(max(bits, LEAST) << 16u);
    let reach = bitcast<u32>(most * most * step);
    let last = vec4<f32>(most - select(0.0, 1.0, reach >= 0x7f800000u));
    let magnitude = abs(numbers);
    // The root is a little too large, whatever a device makes of it, so its code is right or one too large. Squares of
    // codes are exact in f32, as is all that follows but the chance.
    var codes = min(floor(sqrt(magnitude * (1.00001 / step))), last);
    codes -= select(vec4<f32>(), vec4<f32>(1.0), codes * codes * step > magnitude);
    let distance = magnitude - codes * codes * step;
    let chance = (floats(random & vec4<u32>(0xffffu)) + vec4<f32>(0.5)) * 0x1p-16f;
    let gap = (2.0 * codes + vec4<f32>(1.0)) * step;
    codes += select(vec4<f32>(), vec4<f32>(1.0), (codes < last) & (distance > gap * chance));
    let whole = bitcast<vec4<u32>>(vec4<i32>(codes));
    let words = bitcast<vec4<u32>>(numbers);
    let positive = max(whole, select(vec4<u32>(), vec4<u32>(1u), words != vec4<u32>()));
    let signed = whole | select(vec4<u32>(), vec4<u32>(sign), words >= vec4<u32>(0x80000000u));
    return select(select(signed, positive, sign == 0u), vec4<u32>(), vec4<bool>(bits == LOST));
}

// Four numbers of a chunk, with 0 for what lies behind its end.
fn inside_of(chunk: Chunk, q: u32, numbers: vec4<f32>) -> vec4<f32> {
    let is_inside = vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len);
    return select(vec4<f32>(), numbers, is_inside);
}

// The bits of the largest magnitude.
fn largest_of(numbers: vec4<f32>) -> u32 {
    let magnitudes = bitcast<vec4<u32>>(numbers) & vec4<u32>(0x7fffffffu);
    return max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
}

// The numbers of a group that one lane holds, with four of them replaced. All indices are constants, since software
// Vulkan keeps an array with others in memory, and reads and writes the number of each lane there by itself.
fn with_four(group: array<vec4<f32>, GROUP_LANES>, n: u32, numbers: vec4<f32>) -> array<vec4<f32>, GROUP_LANES> {
    return array<vec4<f32>, GROUP_LANES>(
        select(group[0], numbers, n == 0u),
        select(group[1], numbers, n == 1u),
        select(group[2], numbers, n == 2u),
        select(group[3], numbers, n == 3u),
        select(group[4], numbers, n == 4u),
        select(group[5], numbers, n == 5u),
        select(group[6], numbers, n == 6u),
        select(group[7], numbers, n == 7u),
    );
}

fn four_of(group: array<vec4<f32>, GROUP_LANES>, n: u32) -> vec4<f32> {
    var numbers = group[0];
    numbers = select(numbers, group[1], n == 1u);
    numbers = select(numbers, group[2], n == 2u);
    numbers = select(numbers, group[3], n == 3u);
    numbers = select(numbers, group[4], n == 4u);
    numbers = select(numbers, group[5], n == 5u);
    numbers = select(numbers, group[6], n == 6u);
    numbers = select(numbers, group[7], n == 7u);
    return numbers;
}
