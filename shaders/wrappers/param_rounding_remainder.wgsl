// A parameter in memory is the upper half of an f32, rounded, and the state holds the rest: how many units of the f32's
// last place the rounding took away. Steps and moves go on from both together.
// Twin: src/wrappers/param_rounding.rs

fn param_rounding_whole(chunk: Chunk, q: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<i32>>(load_param(chunk, q)) + vec4<i32>(load_remainder(chunk, q)));
}

// Halfway the upper half is rounded away from zero: a remainder of 16 bits has one sign there.
fn param_rounding_kept(chunk: Chunk, q: u32, p: vec4<f32>) -> vec4<f32> {
    let words = bitcast<vec4<u32>>(p);
    let is_nan = (words & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    let upper = select((words + vec4<u32>(0x8000u)) & vec4<u32>(0xffff0000u), words, is_nan);
    store_remainder(chunk, q, vec4<f32>(bitcast<vec4<i32>>(words - upper)));
    return bitcast<vec4<f32>>(upper);
}
