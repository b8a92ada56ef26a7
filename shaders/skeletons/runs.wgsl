const RUN: u32 = 32u; // numbers that are added up one after the other: a multiple of four

// The number as a compiler sees it that cannot contract a product with the sum that it goes into.
fn hidden(number: f32, zero: u32) -> f32 {
    return bitcast<f32>(bitcast<u32>(number) ^ zero);
}

// How bases are renewed, as the rule says.
const BY_EIGENVECTORS: f32 = 1.0;
const BY_POWER: f32 = 2.0;
