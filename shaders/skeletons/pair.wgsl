// What the walks over a rule's sums combine: two numbers, as bits.
// Twin: `Combine` in src/parts.rs

alias Node = vec2<u32>;

// Makes one partial result of two.
fn combine(a: Node, b: Node) -> Node {
    if (BIT_MAX) {
        return max(a & vec2<u32>(0x7fffffffu), b & vec2<u32>(0x7fffffffu));
    }
    return bitcast<vec2<u32>>(bitcast<vec2<f32>>(a) + bitcast<vec2<f32>>(b));
}
