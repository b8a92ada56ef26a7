// Returns what has come back from the bases at the places of four elements.
fn load_product(chunk: Chunk, q: u32) -> vec4<f32> {
    let at = chunk.product + 4u * q;
    return vec4<f32>(work[at], work[at + 1u], work[at + 2u], work[at + 3u]);
}

// Puts four numbers and the gradient where turns start. Those of elements behind the chunk's end go to padding.
fn store_spread(chunk: Chunk, q: u32, numbers: vec4<f32>, g: vec4<f32>) {
    for (var i = 0u; i < 4u; i += 1u) {
        let at = chunk.product + 4u * q + i;
        work[at] = numbers[i];
        work[at + chunk.turned] = g[i];
    }
}
