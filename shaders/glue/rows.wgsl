// The way to the inner products of one row of a history, as bits.

fn load_partial(at: u32) -> Node {
    let first = vec4<u32>(
        scratch[at + INNER_MOVED_GRAD],
        scratch[at + INNER_MOVED_CHANGE],
        scratch[at + INNER_CHANGE_GRAD],
        scratch[at + INNER_CHANGE_CHANGE],
    );
    return Node(first, scratch[at + INNER_CHANGE_MOVED]);
}

fn store_partial(at: u32, node: Node) {
    scratch[at + INNER_MOVED_GRAD] = node.first.x;
    scratch[at + INNER_MOVED_CHANGE] = node.first.y;
    scratch[at + INNER_CHANGE_GRAD] = node.first.z;
    scratch[at + INNER_CHANGE_CHANGE] = node.first.w;
    scratch[at + INNER_CHANGE_MOVED] = node.last;
}
