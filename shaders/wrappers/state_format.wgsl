// How the numbers of the state are stored: the chance by which they are rounded.
// Twin: src/wrappers/state_format.rs

// The key of the step in three parts, of 22, 22 and 20 bits, which f32 holds.
struct StateFormatNumbers {
    low: f32,
    middle: f32,
    high: f32,
}

fn state_format_key(n: StateFormatNumbers) -> vec2<u32> {
    let middle = u32(n.middle);
    return vec2<u32>(u32(n.low) | (middle << 22u), (middle >> 10u) | (u32(n.high) << 12u));
}

// Random bits for four elements: a word for each, 16 bits of it for either slot of a pair.
fn state_format_chance(n: StateFormatNumbers, chunk: Chunk, q: u32, pair: u32) -> vec4<u32> {
    return philox(vec4<u32>(chunk.first / 4u + q, 0u, chunk.stream, 1u + pair), state_format_key(n));
}

// The same for two successive vectors of four, which a processor can work on at once.
fn state_format_chances(n: StateFormatNumbers, chunk: Chunk, q: u32, pair: u32) -> array<vec4<u32>, 2> {
    let first = vec4<u32>(chunk.first / 4u + q, 0u, chunk.stream, 1u + pair);
    return philox_of_two(first, first + vec4<u32>(1u, 0u, 0u, 0u), state_format_key(n));
}
