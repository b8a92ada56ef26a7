// Codes of 4 bits.
// Twin: `Codes` in src/storage.rs

const SHIFTS_Q4 = vec4<u32>(0u, 4u, 8u, 12u);

fn unpack_q4(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> SHIFTS_Q4) & vec4<u32>(0xfu);
}

fn pack_q4(codes: vec4<u32>) -> u32 {
    let shifted = codes << SHIFTS_Q4;
    return shifted.x | shifted.y | shifted.z | shifted.w;
}
