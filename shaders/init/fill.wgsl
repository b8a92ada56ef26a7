// Draws values one by one: a whole number of at most 24 bits, times a scale, plus a base. A lane draws four.
// Twin: `Draw` in src/init/values.rs

override LANES: u32 = 256u;

const CONSTANT: u32 = 0u;
const UNIFORM: u32 = 1u;

struct Record {
    key: vec2<u32>,
    stream: vec2<u32>,
    quad: u32, // the first element's number in its tensor, over 4
    start: u32, // the first element's word in `values`
    len: u32, // elements
    kind: u32, // CONSTANT or UNIFORM, else normal
    first: u32, // the first of the normal distribution's 2^32 equal shares that may be drawn
    span: u32, // the last one is first + span
    zero: u32, // always 0
    scale: f32,
    base: u32, // bits of an f32
    low: f32, // the least value
    high: f32, // the largest value
}

@group(0) @binding(0) var<storage, read> record: Record;
@group(0) @binding(1) var<storage, read> quantiles: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<u32>;

@compute @workgroup_size(LANES)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = (group.y * groups.x + group.x) * LANES + lane;
    if (q >= (record.len + 3u) / 4u) {
        return;
    }
    var bits = philox(vec4<u32>(record.quad + q, 0u, record.stream), record.key);
    let count = min(4u, record.len - 4u * q);
    for (var i = 0u; i < count; i += 1u) {
        values[record.start + 4u * q + i] = value(bits[i]);
    }
}

fn value(bits: u32) -> u32 {
    if (record.kind == CONSTANT) {
        return record.base;
    }
    var draw = i32(bits >> 8u);
    if (record.kind != UNIFORM) {
        // first + bits * (span + 1) / 2^32
        let carry = select(0u, 1u, bits * record.span + bits < bits);
        draw = quantile(record.first + mul_hi(bits, record.span) + carry);
    }
    // The product's bits meet a zero that no compiler knows; otherwise a compiler could fuse multiplication and
    // addition, which would round once instead of twice.
    let product = bitcast<f32>(bitcast<u32>(f32(draw) * record.scale) ^ record.zero);
    return bitcast<u32>(clamp(product + bitcast<f32>(record.base), record.low, record.high));
}

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

// Returns the normal distribution's quantile of (share + 1/2) / 2^32, in units of 2^-28, rounded to 24 bits.
fn quantile(share: u32) -> i32 {
    let below = share < 0x80000000u;
    // The tail's probability, in units of 2^-33. Each octave of it has 64 segments, with a node at the ends and at the
    // middle of each.
    let tail = (select(~share, share, below) << 1u) | 1u;
    let zeros = countLeadingZeros(tail);
    let normalised = tail << zeros;
    let node = ((31u - zeros) << 7u) + ((normalised >> 24u) & 126u);
    let at = normalised << 7u; // the place in the segment, in units of 2^-32
    let a = quantiles[node];
    let c = quantiles[node + 2u];
    let bulge = ((a + c) >> 1u) - quantiles[node + 1u];
    let exact = max(1u, a - mul_hi(a - c, at) - mul_hi(bulge, mul_hi(at, ~at) << 2u));
    let drop = 8u - min(8u, countLeadingZeros(exact));
    let rounded = i32(((exact + ((1u << drop) >> 1u)) >> drop) << drop);
    return select(rounded, -rounded, below);
}
