// Partial results of a rule's sums.
// Twin: `Combine` in src/parts.rs

alias Node = vec2<u32>;

// Two partial results of a sums pass as one.
fn combine(a: Node, b: Node) -> Node {
    if (BIT_MAX) {
        return max(a & vec2<u32>(0x7fffffffu), b & vec2<u32>(0x7fffffffu));
    }
    return bitcast<vec2<u32>>(bitcast<vec2<f32>>(a) + bitcast<vec2<f32>>(b));
}
