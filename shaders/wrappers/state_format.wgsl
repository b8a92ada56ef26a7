// How the numbers of the state are stored: the chance by which they are rounded.
// Twin: src/wrappers/state_format.rs

// The key of the step in three parts, of 22, 22 and 20 bits, which f32 holds.
struct StateFormatNumbers {
    low: f32,
    middle: f32,
    high: f32,
}

// Random bits for four elements: a word for each, 16 bits of it for either slot of a pair.
fn state_format_chance(n: StateFormatNumbers, chunk: Chunk, q: u32, pair: u32) -> vec4<u32> {
    let middle = u32(n.middle);
    let key = vec2<u32>(u32(n.low) | (middle << 22u), (middle >> 10u) | (u32(n.high) << 12u));
    return philox(vec4<u32>(chunk.first / 4u + q, 0u, chunk.stream, 1u + pair), key);
}
