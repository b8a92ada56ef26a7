// Random numbers from a counter and a key: Philox 4x32-10 (Salmon et al. 2011, Random123).
// Twin: `philox` in src/init/values.rs

// Both functions return the upper 32 bits of the product of b and one of Philox's multipliers, from products of halves.
// The halves of the first multiplier are small enough for the sum of the middle products to stay below 2^32.
fn upper_of_first(b: u32) -> u32 {
    let low = b & 0xffffu;
    let high = b >> 16u;
    let middle = 0xd251u * low + 0x1f53u * high;
    return 0xd251u * high + ((middle + ((0x1f53u * low) >> 16u)) >> 16u);
}

// The second multiplier, 0xcd9e8d57, is 2 * 0x66cf46ab + 1. The sum of its middle products is twice that of the halved
// one's, plus `high`.
fn upper_of_second(b: u32) -> u32 {
    let low = b & 0xffffu;
    let high = b >> 16u;
    let middle = 0x66cfu * low + 0x46abu * high;
    return 0xcd9eu * high + ((middle + ((high + ((0x8d57u * low) >> 16u)) >> 1u)) >> 15u);
}

fn philox_round(c: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    let first = upper_of_first(c.x) ^ c.w ^ key.y;
    let second = upper_of_second(c.z) ^ c.y ^ key.x;
    return vec4<u32>(second, 0xcd9e8d57u * c.z, first, 0xd2511f53u * c.x);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round += 1u) {
        c = philox_round(c, k);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// The numbers of two counters. Each round waits for the one before, so the rounds of both go side by side.
fn philox_of_two(first: vec4<u32>, second: vec4<u32>, key: vec2<u32>) -> array<vec4<u32>, 2> {
    var c = first;
    var d = second;
    var k = key;
    for (var round = 0u; round < 10u; round += 1u) {
        c = philox_round(c, k);
        d = philox_round(d, k);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return array<vec4<u32>, 2>(c, d);
}
