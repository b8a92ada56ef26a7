// f16 in words of 32 bits, two in each, the first in the lower half. Walks read f16 and never write it.
// Twin: `to_f32` of the crate `half`

// Returns the words in f32 of four halves. Every finite half keeps its value on every device, where `unpack2x16float`
// may flush subnormal ones. Infinities and NaN stay what they are by their bits.
fn widen_f16(words: vec2<u32>) -> vec4<u32> {
    let halves = vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
    let magnitude = halves & vec4<u32>(0x7fffu);
    let shifted = magnitude << vec4<u32>(13u);
    // The exponents' biases are 112 apart. What is subnormal here is normal in f32: a multiple of 2^-24.
    let normal = shifted + vec4<u32>(112u << 23u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(vec4<i32>(magnitude)) * 0x1p-24f);
    let finite = select(normal, subnormal, magnitude < vec4<u32>(0x0400u));
    let wide = select(finite, shifted | vec4<u32>(0x7f800000u), magnitude >= vec4<u32>(0x7c00u));
    return wide | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u));
}

fn decode_f16(words: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(widen_f16(words));
}

// Takes the half of element i out of each word, and packs the four halves into two words.
fn pick_f16(words: vec4<u32>, i: vec4<u32>) -> vec2<u32> {
    let halves = (words >> (16u * (i % vec4<u32>(2u)))) & vec4<u32>(0xffffu);
    return halves.xz | (halves.yw << vec2<u32>(16u));
}
