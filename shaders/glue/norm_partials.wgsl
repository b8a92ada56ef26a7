// The way to a partial result of the walk that measures gradients.

fn load_partial(at: u32) -> Node {
    let squares = vec4<u32>(
        scratch[at + MEASURED_GRADS_SMALL],
        scratch[at + MEASURED_GRADS_LARGE],
        scratch[at + MEASURED_PARAMS_SMALL],
        scratch[at + MEASURED_PARAMS_LARGE],
    );
    return Node(bitcast<vec4<f32>>(squares), scratch[at + MEASURED_KIND]);
}

fn store_partial(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    scratch[at + MEASURED_GRADS_SMALL] = squares.x;
    scratch[at + MEASURED_GRADS_LARGE] = squares.y;
    scratch[at + MEASURED_PARAMS_SMALL] = squares.z;
    scratch[at + MEASURED_PARAMS_LARGE] = squares.w;
    scratch[at + MEASURED_KIND] = node.kind;
}
