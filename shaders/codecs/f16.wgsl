// f16, 16 bits an element.
// Twin: `f16` of the crate `half`, in src/codecs.rs

// Four halves as words of f32: all of them exactly, on every device (`unpack2x16float` may flush the subnormal ones).
// Infinities and NaN stay so by their bits.
fn widen_f16(halves: vec4<u32>) -> vec4<u32> {
    let magnitude = halves & vec4<u32>(0x7fffu);
    let shifted = magnitude << vec4<u32>(13u);
    // The exponents' biases are 112 apart. What is subnormal here is normal in f32: a multiple of 2^-24.
    let normal = shifted + vec4<u32>(112u << 23u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(vec4<i32>(magnitude)) * 0x1p-24f);
    let finite = select(normal, subnormal, magnitude < vec4<u32>(0x0400u));
    let wide = select(finite, shifted | vec4<u32>(0x7f800000u), magnitude >= vec4<u32>(0x7c00u));
    return wide | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u));
}

// Four words of f32 as halves, rounded to the nearest, ties to even. Integers alone do it, so that all devices agree
// (`pack2x16float` may round either way, and flush).
fn narrow_f16(words: vec4<u32>) -> vec4<u32> {
    let magnitude = words & vec4<u32>(0x7fffffffu);
    // A carry out of the mantissa is the next exponent, and out of the last exponent is infinity.
    let rebased = magnitude - vec4<u32>(112u << 23u);
    let normal = (rebased + vec4<u32>(0x0fffu) + ((rebased >> vec4<u32>(13u)) & vec4<u32>(1u))) >> vec4<u32>(13u);
    // A subnormal half is the mantissa, its leading 1 included, counted in 2^-24. Shifted by 25 nothing is left of it.
    let mantissa = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let shift = clamp(vec4<u32>(126u) - (magnitude >> vec4<u32>(23u)), vec4<u32>(1u), vec4<u32>(25u));
    let below_half = (vec4<u32>(1u) << (shift - vec4<u32>(1u))) - vec4<u32>(1u);
    let subnormal = (mantissa + below_half + ((mantissa >> shift) & vec4<u32>(1u))) >> shift;
    let finite = min(select(normal, subnormal, magnitude < vec4<u32>(113u << 23u)), vec4<u32>(0x7c00u));
    let nan = vec4<u32>(0x7e00u) | ((magnitude >> vec4<u32>(13u)) & vec4<u32>(0x03ffu));
    let half = select(finite, nan, magnitude > vec4<u32>(0x7f800000u));
    return half | ((words >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

// The same, each rounded up with the probability of its distance from the lower neighbour: random bits are added where
// bits are lost. What is finite stays so.
fn dither_f16(words: vec4<u32>, random: vec4<u32>) -> vec4<u32> {
    let magnitude = words & vec4<u32>(0x7fffffffu);
    let normal = (magnitude - vec4<u32>(112u << 23u) + (random & vec4<u32>(0x1fffu))) >> vec4<u32>(13u);
    let mantissa = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let shift = vec4<u32>(126u) - min(magnitude >> vec4<u32>(23u), vec4<u32>(126u));
    let near = min(shift, vec4<u32>(31u));
    let subnormal = (mantissa + (random & ((vec4<u32>(1u) << near) - vec4<u32>(1u)))) >> near;
    // Of smaller numbers nothing is left but the chance of 2^-24.
    let far = min(max(shift, vec4<u32>(32u)) - vec4<u32>(32u), vec4<u32>(31u));
    let least = select(vec4<u32>(), vec4<u32>(1u), random < (mantissa >> far));
    let small = select(subnormal, least, shift >= vec4<u32>(32u));
    let lifted = min(select(normal, small, magnitude < vec4<u32>(113u << 23u)), vec4<u32>(0x7bffu));
    let half = lifted | ((words >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
    return select(half, narrow_f16(words), magnitude >= vec4<u32>(0x7f800000u));
}

fn decode_f16(halves: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(widen_f16(halves));
}

fn encode_f16(numbers: vec4<f32>) -> vec4<u32> {
    return narrow_f16(bitcast<vec4<u32>>(numbers));
}
