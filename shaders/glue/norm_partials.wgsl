// A partial result of the walk that measures gradients.
fn load_partial(at: u32) -> Node {
    let squares = vec4<u32>(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), scratch[at + 4u]);
}

fn store_partial(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    scratch[at] = squares.x;
    scratch[at + 1u] = squares.y;
    scratch[at + 2u] = squares.z;
    scratch[at + 3u] = squares.w;
    scratch[at + 4u] = node.kind;
}
