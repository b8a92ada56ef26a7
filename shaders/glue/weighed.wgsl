// Puts four numbers in the place of what was spread. Numbers of elements behind the chunk's end go to padding.
fn store_weighed(chunk: Chunk, q: u32, numbers: vec4<f32>) {
    for (var i = 0u; i < 4u; i += 1u) {
        work[chunk.start + 4u * q + i] = numbers[i];
    }
}
