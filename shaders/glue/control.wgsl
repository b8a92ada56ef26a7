// The way to the words that stay on the device from one dispatch to the next.

fn load_control(at: u32) -> u32 {
    return control[at];
}

fn store_control(at: u32, word: u32) {
    control[at] = word;
}

fn load_node(at: u32) -> Node {
    let squares = vec4<u32>(
        control[at + MEASURED_GRADS_SMALL],
        control[at + MEASURED_GRADS_LARGE],
        control[at + MEASURED_PARAMS_SMALL],
        control[at + MEASURED_PARAMS_LARGE],
    );
    return Node(bitcast<vec4<f32>>(squares), control[at + MEASURED_KIND]);
}

fn store_node(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    control[at + MEASURED_GRADS_SMALL] = squares.x;
    control[at + MEASURED_GRADS_LARGE] = squares.y;
    control[at + MEASURED_PARAMS_SMALL] = squares.z;
    control[at + MEASURED_PARAMS_LARGE] = squares.w;
    control[at + MEASURED_KIND] = node.kind;
}

fn load_all() -> Node {
    return load_node(CONTROL_ALL);
}

fn store_all(node: Node) {
    store_node(CONTROL_ALL, node);
}

// Returns option `i` of those that the device writes.
fn load_option(i: u32) -> f32 {
    return bitcast<f32>(control[load_word(STEP_OPTIONS) + i]);
}

// Returns what another optimizer of the step, number `i`, has measured of all its gradients.
fn load_other(i: u32) -> Node {
    return load_node(CONTROL_OTHERS + MEASURED_WORDS * i);
}

fn load_measured(tensor: u32) -> Node {
    return load_node(of_tensor(tensor) + TENSOR_MEASURED);
}

fn store_measured(tensor: u32, node: Node) {
    store_node(of_tensor(tensor) + TENSOR_MEASURED, node);
}

fn store_record(tensor: u32, record: u32) {
    control[of_tensor(tensor) + TENSOR_RECORD] = record;
}

fn store_factors(tensor: u32, factors: vec2<u32>) {
    control[of_tensor(tensor) + TENSOR_COARSE] = factors.x;
    control[of_tensor(tensor) + TENSOR_FINE] = factors.y;
}

// The number of the state that the tensor's clock is in.
fn load_state(tensor: u32) -> u32 {
    return control[of_tensor(tensor) + TENSOR_STATE];
}

fn store_state(tensor: u32, state: u32) {
    control[of_tensor(tensor) + TENSOR_STATE] = state;
}
