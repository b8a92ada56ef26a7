// Elements of 16 bits in words of 32, two in each, the first in the lower half.

fn halves_of(words: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}

fn words_of_halves(halves: vec4<u32>) -> vec2<u32> {
    return halves.xz | (halves.yw << vec2<u32>(16u));
}

// Of each word the half of element i.
fn pick_halves(words: vec4<u32>, i: vec4<u32>) -> vec4<u32> {
    return (words >> (16u * (i % vec4<u32>(2u)))) & vec4<u32>(0xffffu);
}
