// The rule has no products.
fn store_spread(chunk: Chunk, q: u32, numbers: vec4<f32>) {
}
