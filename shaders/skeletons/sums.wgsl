// `measure` combined over each block of a row and, where the row has several, over the row: one partial a row.
// A block has 32 leaves; the tree is that of `parts::tree` in src/parts.rs, whatever the row's length.

const LEAVES: u32 = 256u; // of eight blocks
const NODES: u32 = 64u; // of eight blocks, each of four leaves

var<workgroup> leaves: array<vec2<u32>, LEAVES>;
var<workgroup> nodes: array<vec2<u32>, NODES>;

@compute @workgroup_size(LANES)
fn sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (record == ABSENT || row.len == 0u) {
        return;
    }
    let c = load_common(record);
    let h = load_hyper(record);
    let k = load_tensor(row.tensor);
    // Of a block's 32 leaves, 16 are added to the others and 8 of these to the rest: within a lane where lanes are few.
    if (LANES <= NODES) {
        for (var node = lane; node < NODES; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            // In the order of memory.
            let a = sum_leaf(row, c, h, k, leaf);
            let b = sum_leaf(row, c, h, k, leaf + 8u);
            let d = sum_leaf(row, c, h, k, leaf + 16u);
            let e = sum_leaf(row, c, h, k, leaf + 24u);
            nodes[node] = combine(combine(a, d), combine(b, e));
        }
    } else {
        for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
            leaves[leaf] = sum_leaf(row, c, h, k, leaf);
        }
        workgroupBarrier();
        for (var node = lane; node < NODES; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            let even = combine(leaves[leaf], leaves[leaf + 16u]);
            let odd = combine(leaves[leaf + 8u], leaves[leaf + 24u]);
            nodes[node] = combine(even, odd);
        }
    }
    for (var stride = 4u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < NODES / 8u * stride; i += LANES) {
            let node = i / stride * 8u + i % stride;
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
    for (var stride = 8u; stride < NODES; stride *= 2u) {
        workgroupBarrier();
        for (var node = 2u * stride * lane; node < NODES; node += 2u * stride * LANES) {
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
    if (lane == 0u) {
        store_partial(row.partial, nodes[0]);
    }
}

// 8 of a block's 256 quads. Eight leaves in a row read 64 adjacent quads.
fn sum_leaf(row: Row, c: Common, h: Hyper, k: Tensor, leaf: u32) -> vec2<u32> {
    let first = leaf / 8u * 64u;
    let end = min(first + 64u, quads(row));
    let zero = hidden_zero(row);
    var node = vec2<u32>(0u, 0u);
    for (var q = first + leaf % 8u; q < end; q += 8u) {
        var p: vec4<f32>;
        if (SUM_PARAM || L2) {
            p = load_param(row, q);
        }
        var g: vec4<f32>;
        if (SUM_GRAD) {
            let raw = load_grad(row, q);
            g = vec4<f32>(
                prepare(c, p.x, raw.x),
                prepare(c, p.y, raw.y),
                prepare(c, p.z, raw.z),
                prepare(c, p.w, raw.w),
            );
        }
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        if (SUM_STATE) {
            load_state(row, c, q, p, &s0, &s1, &s2, &s3);
        }
        let a = hidden(measure(h, k, p.x, g.x, &s0), zero);
        var b = hidden(measure(h, k, p.y, g.y, &s1), zero);
        var d = hidden(measure(h, k, p.z, g.z, &s2), zero);
        var e = hidden(measure(h, k, p.w, g.w, &s3), zero);
        if (SUM_STORES) {
            store_state(row, q, s0, s1, s2, s3);
        }
        if (TAILS) {
            // Padding may hold anything, so what lies behind the end is dropped as bits.
            let none = vec2<u32>(0u, 0u);
            b = select(none, b, 4u * q + 1u < row.len);
            d = select(none, d, 4u * q + 2u < row.len);
            e = select(none, e, 4u * q + 3u < row.len);
        }
        node = combine(node, combine(combine(a, b), combine(d, e)));
    }
    return node;
}

// The numbers as bits that no compiler can trace, so that no product is contracted with the sum.
fn hidden(numbers: vec2<f32>, zero: u32) -> vec2<u32> {
    let bits = bitcast<vec2<u32>>(numbers);
    return vec2<u32>(bits.x ^ zero, select(0u, bits.y ^ zero, SUM_PAIR));
}
