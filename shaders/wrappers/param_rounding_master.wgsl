// The state holds the parameters in f32. Steps and moves go on from there, and the parameters are a rounded copy.
// Twin: src/wrappers/param_rounding.rs

fn param_rounding_whole(chunk: Chunk, q: u32) -> vec4<f32> {
    return load_master(chunk, q);
}

fn param_rounding_kept(chunk: Chunk, q: u32, p: vec4<f32>) -> vec4<f32> {
    store_master(chunk, q, p);
    return p;
}
