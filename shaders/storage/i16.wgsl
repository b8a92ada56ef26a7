// Whole numbers of 16 bits with a sign.
// Twin: `Storage::I16` in src/storage.rs

fn decode_i16(halves: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(halves << vec4<u32>(16u)) >> vec4<u32>(16u));
}

fn encode_i16(numbers: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(vec4<i32>(numbers)) & vec4<u32>(0xffffu);
}
