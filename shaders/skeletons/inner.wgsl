// Takes inner products over the elements of a chunk: of the gradient, of its change and of the last movement, with each
// other and with the pairs of the history; of a trial the gradient's product with the direction, and the largest sizes
// of both. One workgroup a chunk.
// Twins: `inner`, `of_grad` and `of_trial` in src/history.rs

// What `leaf_of` needs to see an element as the rule does, and which row it sums up.
struct Eyes { c: Common, w: Wrapped, step: f32, row: u32 }

var<workgroup> pairs: u32;

@compute @workgroup_size(LANES)
fn inner_of_chunk(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    if (is_absent(record) || chunk.len == 0u) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let k = load_tensor(chunk.tensor);
    if (lane == 0u) {
        pairs = u32(k.pairs);
    }
    let rows = rows_with(workgroupUniformLoad(&pairs));
    for (var row = 0u; row < rows; row += 1u) {
        combine_chunk(chunk, Eyes(c, w, k.step, row), lane);
        if (lane == 0u) {
            if (chunk.partial == ABSENT) {
                store_partial(row_of(chunk.tensor, row), nodes[0]);
            } else {
                store_partial(chunk.partial + INNER_WORDS * row, nodes[0]);
            }
        }
        workgroupBarrier();
    }
}

// A leaf is 8 of a block's 256 quads. Eight successive leaves take turns over 64 adjacent quads.
fn leaf_of(chunk: Chunk, eyes: Eyes, leaf: u32) -> Node {
    let first = leaf / 8u * 64u;
    let end = min(first + 64u, quads(chunk.len));
    let zero = hidden_zero(chunk.len);
    var node = Node();
    for (var q = first + leaf % 8u; q < end; q += 8u) {
        let g = load_prepared(chunk, eyes.c, eyes.w, q);
        let change = g - load_g_prev(chunk, q);
        let d = load_d(chunk, q);
        let moved = eyes.step * d;
        var s = moved;
        var y = change;
        if (PROBE) {
            s = d;
        } else if (eyes.row >= BEFORE_PAIRS) {
            s = load_s(chunk, q, eyes.row - BEFORE_PAIRS);
            y = load_y(chunk, q, eyes.row - BEFORE_PAIRS);
        }
        let a = inner(eyes.row, g.x, change.x, moved.x, s.x, y.x, zero);
        var b = inner(eyes.row, g.y, change.y, moved.y, s.y, y.y, zero);
        var f = inner(eyes.row, g.z, change.z, moved.z, s.z, y.z, zero);
        var e = inner(eyes.row, g.w, change.w, moved.w, s.w, y.w, zero);
        if (TAILS) {
            // Padding may hold anything, so the numbers of elements behind the end are replaced.
            if (4u * q + 1u >= chunk.len) {
                b = Node();
            }
            if (4u * q + 2u >= chunk.len) {
                f = Node();
            }
            if (4u * q + 3u >= chunk.len) {
                e = Node();
            }
        }
        node = combine(node, combine(combine(a, b), combine(f, e)));
    }
    return node;
}

// An element's products in a row, as bits that no compiler can trace, so that no product is contracted with the sum.
fn inner(row: u32, g: f32, change: f32, moved: f32, s: f32, y: f32, zero: u32) -> Node {
    if (PROBE) {
        return Node(bitcast<vec4<u32>>(vec4<f32>(s * g, abs(g), abs(s), 0.0)) ^ vec4<u32>(zero), 0u);
    }
    if (row == OF_GRAD) {
        return Node(bitcast<vec4<u32>>(vec4<f32>(g * g, abs(g), 0.0, 0.0)) ^ vec4<u32>(zero), 0u);
    }
    let first = vec4<f32>(s * g, s * change, y * g, y * change);
    return Node(bitcast<vec4<u32>>(first) ^ vec4<u32>(zero), bitcast<u32>(y * moved) ^ zero);
}
