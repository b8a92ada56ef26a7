// What the walks over a history combine: the inner products of one row, as bits.
// Twin: `Inner` in src/history.rs

// The rows before those of pairs.
const OF_GRAD: u32 = 0u;
const OF_NEWEST: u32 = 1u;
const BEFORE_PAIRS: u32 = 2u;

struct Node { first: vec4<u32>, last: u32 }

// Makes one partial result of two.
fn combine(a: Node, b: Node) -> Node {
    let first = bitcast<vec4<f32>>(a.first) + bitcast<vec4<f32>>(b.first);
    return Node(bitcast<vec4<u32>>(first), bitcast<u32>(bitcast<f32>(a.last) + bitcast<f32>(b.last)));
}
