// New parameters are rounded to one of their two neighbours by chance, the likelier the nearer.
// Twin: src/wrappers/param_rounding.rs

fn param_rounding_stored(chunk: Chunk, n: ParamRoundingNumbers, q: u32, p: vec4<f32>) -> vec4<f32> {
    let middle = u32(n.middle);
    let key = vec2<u32>(u32(n.low) | (middle << 22u), (middle >> 10u) | (u32(n.high) << 12u));
    return dithered(p, philox(vec4<u32>(chunk.first / 4u + q, 0u, chunk.stream, 0u), key));
}
