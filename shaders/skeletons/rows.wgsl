// What the walks over a history combine: the inner products of one row, as bits.
// Twin: `Inner` in src/history.rs

// The rows before those of pairs.
const OF_GRAD: u32 = 0u;
const OF_NEWEST: u32 = 1u;
const BEFORE_PAIRS: u32 = 2u;

// The rows where there are so many pairs. A trial has one.
fn rows_with(pairs: u32) -> u32 {
    return select(BEFORE_PAIRS + pairs, 1u, PROBE);
}

struct Node { first: vec4<u32>, last: u32 }

// Makes one partial result of two.
fn combine(a: Node, b: Node) -> Node {
    if (PROBE) {
        let sizes = max(a.first.yz, b.first.yz);
        let slope = bitcast<f32>(a.first.x) + bitcast<f32>(b.first.x);
        return Node(vec4<u32>(bitcast<u32>(slope), sizes, 0u), 0u);
    }
    let first = bitcast<vec4<f32>>(a.first) + bitcast<vec4<f32>>(b.first);
    return Node(bitcast<vec4<u32>>(first), bitcast<u32>(bitcast<f32>(a.last) + bitcast<f32>(b.last)));
}
