// Returns the first two of four words where `i` is even, and the last two where it is odd.
fn pair_of(words: vec4<u32>, i: u32) -> vec2<u32> {
    return select(words.xy, words.zw, i % 2u == 1u);
}
