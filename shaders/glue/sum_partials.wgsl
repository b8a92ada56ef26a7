// The way to a partial result of a rule's sums: two numbers, as bits.

fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at + SUM_FIRST], scratch[at + SUM_SECOND]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at + SUM_FIRST] = numbers.x;
    scratch[at + SUM_SECOND] = numbers.y;
}
