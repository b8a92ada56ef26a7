// Random numbers from a counter and a key: Philox 4x32-10 (Salmon et al. 2011, Random123).
// Twin: `philox` in src/init/values.rs

// Returns the upper 32 bits of a product, computed from four products of halves.
fn mul_hi(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return a1 * b1 + (middle >> 16u) + (other >> 16u);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round += 1u) {
        let x = vec2<u32>(mul_hi(0xd2511f53u, c.x), 0xd2511f53u * c.x);
        let y = vec2<u32>(mul_hi(0xcd9e8d57u, c.z), 0xcd9e8d57u * c.z);
        c = vec4<u32>(y.x ^ c.y ^ k.x, y.y, x.x ^ c.w ^ k.y, x.y);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}
