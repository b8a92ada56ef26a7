// What a workgroup of a walk of sums or norms combines: a chunk, or several short ones. The walk says which chunks it
// takes (`is_taken`), what it must know of one (`eyes_of`), and what becomes of the result (`leave`).
// Twin: `Window::walked` in src/plan/place.rs

const SIDE_BY_SIDE: u32 = 8u; // short chunks

fn combine_chunks(group: vec3<u32>, groups: vec3<u32>, lane: u32) {
    if (SHORT) {
        combine_short(clocks[DISPATCH_FIRST] + SIDE_BY_SIDE * (group.y * groups.x + group.x), lane);
        return;
    }
    let chunk = load_entry(entry_index(group, groups));
    if (!is_taken(chunk)) {
        return;
    }
    combine_chunk(chunk, eyes_of(chunk, lane), lane);
    if (lane == 0u) {
        leave(chunk, nodes[0]);
    }
}

// Takes several chunks side by side, none of which fills more than the first eight leaves. So the lanes wait for each
// other once for all of them.
fn combine_short(first: u32, lane: u32) {
    for (var n = 0u; n < NODES; n += LANES) {
        let i = n + lane;
        var chunk = load_entry(first + i / 8u);
        var eyes = Eyes();
        if (i < NODES && is_taken(chunk)) {
            eyes = eyes_of(chunk, lane);
        } else {
            chunk.len = 0u;
        }
        let leaf = leaf_of(chunk, eyes, i % 8u);
        if (i < NODES) {
            nodes[i] = leaf;
        }
    }
    workgroupBarrier();
    for (var i = lane; i < SIDE_BY_SIDE; i += LANES) {
        let chunk = load_entry(first + i);
        if (is_taken(chunk)) {
            let at = 8u * i;
            let even = combine(combine(nodes[at], nodes[at + 4u]), combine(nodes[at + 2u], nodes[at + 6u]));
            let odd = combine(combine(nodes[at + 1u], nodes[at + 5u]), combine(nodes[at + 3u], nodes[at + 7u]));
            leave(chunk, combine(even, odd));
        }
    }
}
