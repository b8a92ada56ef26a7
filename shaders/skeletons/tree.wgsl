// What is seen of the elements of a row, combined over each of its blocks and then over the row. A block has 32 leaves;
// the tree is that of `parts::tree` in src/parts.rs, whatever the row's length.

const LEAVES: u32 = 256u; // of eight blocks
const NODES: u32 = 64u; // of eight blocks, each of four leaves

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> nodes: array<Node, NODES>;

// Leaves it in the first of the nodes, for lane 0.
fn combine_row(row: Row, eyes: Eyes, lane: u32) {
    // Of a block's 32 leaves, 16 are added to the others and 8 of these to the rest: within a lane where lanes are few.
    if (LANES <= NODES) {
        for (var node = lane; node < NODES; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            // In the order of memory.
            let a = leaf_of(row, eyes, leaf);
            let b = leaf_of(row, eyes, leaf + 8u);
            let d = leaf_of(row, eyes, leaf + 16u);
            let e = leaf_of(row, eyes, leaf + 24u);
            nodes[node] = combine(combine(a, d), combine(b, e));
        }
    } else {
        for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
            leaves[leaf] = leaf_of(row, eyes, leaf);
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
}
