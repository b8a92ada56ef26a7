// The words that stay on the device from one dispatch to the next.

fn load_control(at: u32) -> u32 {
    return control[at];
}

fn store_control(at: u32, word: u32) {
    control[at] = word;
}

fn load_node(at: u32) -> Node {
    let squares = vec4<u32>(control[at], control[at + 1u], control[at + 2u], control[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), control[at + 4u]);
}

fn store_node(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    control[at] = squares.x;
    control[at + 1u] = squares.y;
    control[at + 2u] = squares.z;
    control[at + 3u] = squares.w;
    control[at + 4u] = node.kind;
}

fn load_all() -> Node {
    return load_node(CONTROL_ALL);
}

fn store_all(node: Node) {
    store_node(CONTROL_ALL, node);
}

fn load_option(i: u32) -> f32 {
    return bitcast<f32>(control[clocks[WORD_OPTIONS] + i]);
}

fn load_other(i: u32) -> Node {
    return load_node(CONTROL_OTHERS + 5u * i);
}

fn load_measured(tensor: u32) -> Node {
    return load_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u);
}

fn store_measured(tensor: u32, node: Node) {
    store_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u, node);
}

fn store_record(tensor: u32, record: u32) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor] = record;
}

fn store_factors(tensor: u32, factors: vec2<u32>) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 1u] = factors.x;
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 2u] = factors.y;
}
