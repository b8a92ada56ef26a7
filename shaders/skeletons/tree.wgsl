// Combines what `leaf_of` saw of a chunk's elements over each block, and then over the chunk. A block has 32 leaves.
// The tree is that of `parts::tree` in src/parts.rs, however long the chunk is.

const LEAVES: u32 = 256u; // of eight blocks
const NODES: u32 = 64u; // of eight blocks, each of four leaves
const QUADS_OF_BLOCK: u32 = 256u;
const QUADS_OF_EIGHT: u32 = 64u; // of eight leaves

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> nodes: array<Node, NODES>;

// Leaves the result in the first of the nodes, where lane 0 may read it.
fn combine_chunk(chunk: Chunk, eyes: Eyes, lane: u32) {
    // Blocks that the chunk lacks would add zeros, which change no sum.
    let blocks = (quads(chunk.len) + QUADS_OF_BLOCK - 1u) / QUADS_OF_BLOCK;
    let live = blocks * 8u;
    // The first two levels of the tree make 8 nodes of a block's 32 leaves. Where lanes are few, one lane makes a node
    // of its four leaves itself.
    if (LANES <= NODES) {
        // All lanes come to each leaf together, as those that share a group of the state must.
        for (var first = 0u; first < live; first += LANES) {
            let node = first + lane;
            let leaf = node / 8u * 32u + node % 8u;
            // The leaves are read in the order in which they lie in memory.
            let a = leaf_of(chunk, eyes, leaf);
            var all = a;
            // In a chunk that fills no more than the first eight leaves, the others hold zeros, which change no sum.
            if (quads(chunk.len) > QUADS_OF_EIGHT) {
                let b = leaf_of(chunk, eyes, leaf + 8u);
                let d = leaf_of(chunk, eyes, leaf + 16u);
                let e = leaf_of(chunk, eyes, leaf + 24u);
                all = combine(combine(a, d), combine(b, e));
            }
            if (node < NODES) {
                nodes[node] = all;
            }
        }
    } else {
        for (var first = 0u; first < 4u * live; first += LANES) {
            let leaf = first + lane;
            let node = leaf_of(chunk, eyes, leaf);
            if (leaf < LEAVES) {
                leaves[leaf] = node;
            }
        }
        workgroupBarrier();
        for (var node = lane; node < live; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            let even = combine(leaves[leaf], leaves[leaf + 16u]);
            let odd = combine(leaves[leaf + 8u], leaves[leaf + 24u]);
            nodes[node] = combine(even, odd);
        }
    }
    for (var stride = 4u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < blocks * stride; i += LANES) {
            let node = i / stride * 8u + i % stride;
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
    for (var stride = 8u; stride < live; stride *= 2u) {
        workgroupBarrier();
        for (var node = 2u * stride * lane; node + stride < live; node += 2u * stride * LANES) {
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
}
