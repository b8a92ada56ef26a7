// Returns x / by, where the quotient is small. A processor divides several floats at once, but integers one by one, and
// the inverse is the same for all elements of a chunk.
fn divide(x: u32, by: u32) -> u32 {
    var quotient = u32(i32(f32(i32(x)) * (1.0 / f32(i32(by)))));
    quotient -= select(0u, 1u, quotient * by > x);
    quotient += select(0u, 1u, x - quotient * by >= by);
    return quotient;
}
