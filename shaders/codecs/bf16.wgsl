// bf16, 16 bits an element: the upper half of f32.
// Twin: `bf16` of the crate `half`, in src/codecs.rs

fn widen_bf16(halves: vec4<u32>) -> vec4<u32> {
    return halves << vec4<u32>(16u);
}

// Four words of f32 as halves, rounded to the nearest, ties to even. A carry out of the last exponent is infinity.
fn narrow_bf16(words: vec4<u32>) -> vec4<u32> {
    let upper = words >> vec4<u32>(16u);
    let rounded = (words + vec4<u32>(0x7fffu) + (upper & vec4<u32>(1u))) >> vec4<u32>(16u);
    let is_nan = (words & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return select(rounded, upper | vec4<u32>(0x0040u), is_nan);
}

// The same, each rounded up with the probability of its distance from the lower neighbour: random bits are added where
// bits are lost. What is finite stays so.
fn dither_bf16(words: vec4<u32>, random: vec4<u32>) -> vec4<u32> {
    let magnitude = words & vec4<u32>(0x7fffffffu);
    let lifted = min(magnitude + (random & vec4<u32>(0xffffu)), max(magnitude, vec4<u32>(0x7f7fffffu)));
    let half = (lifted | (words & vec4<u32>(0x80000000u))) >> vec4<u32>(16u);
    return select(half, half | vec4<u32>(0x0040u), magnitude > vec4<u32>(0x7f800000u));
}

fn decode_bf16(halves: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(widen_bf16(halves));
}

fn encode_bf16(numbers: vec4<f32>) -> vec4<u32> {
    return narrow_bf16(bitcast<vec4<u32>>(numbers));
}
