// Codes of 8 bits.
// Twin: `Codes` in src/storage.rs

const SHIFTS_Q8 = vec4<u32>(0u, 8u, 16u, 24u);

fn unpack_q8(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> SHIFTS_Q8) & vec4<u32>(0xffu);
}

fn pack_q8(codes: vec4<u32>) -> u32 {
    let shifted = codes << SHIFTS_Q8;
    return shifted.x | shifted.y | shifted.z | shifted.w;
}
