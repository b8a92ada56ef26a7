// Returns four elements in the bases, so many words behind what was spread. Behind the chunk's end there is padding.
fn load_turned(chunk: Chunk, q: u32, behind: u32) -> vec4<f32> {
    let at = chunk.start + behind + 4u * q;
    return vec4<f32>(work[at], work[at + 1u], work[at + 2u], work[at + 3u]);
}

// Puts four numbers in the place of what was spread. Numbers of elements behind the chunk's end go to padding.
fn store_weighed(chunk: Chunk, q: u32, numbers: vec4<f32>) {
    for (var i = 0u; i < 4u; i += 1u) {
        work[chunk.start + 4u * q + i] = numbers[i];
    }
}
