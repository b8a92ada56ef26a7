// A partial result of a rule's sums: two numbers as bits.
fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at], scratch[at + 1u]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at] = numbers.x;
    scratch[at + 1u] = numbers.y;
}
