// Makes the direction of every element of the gradient and the pairs of the history, and keeps the newest pair: one
// workgroup a chunk.
// Twin: `recall` in src/history.rs

@compute @workgroup_size(LANES)
fn recall_chunk(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    let k = load_tensor(chunk.tensor);
    if (is_absent(record) || k.updates == 0.0) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let zero = vec4<u32>(hidden_zero(chunk.len));
    let pairs = u32(k.pairs);
    let next = u32(k.next);
    let newest = select(HISTORY, pair_at(pairs - 1u, pairs, next), k.kept != 0.0);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let g = load_prepared(chunk, c, w, q);
        let change = g - load_g_prev(chunk, q);
        let moved = k.last * load_d(chunk, q);
        if (newest < HISTORY) {
            store_s(chunk, q, newest, moved);
            store_y(chunk, q, newest, change);
        }
        var d = -g;
        for (var age = pairs; age > 0u; age -= 1u) {
            let pair = pair_at(age - 1u, pairs, next);
            let y = load_y(chunk, q, pair);
            d -= rounded(load_number(at_change_factor(pair)) * y, zero);
        }
        d = rounded(k.scale * d, zero);
        for (var age = 0u; age < pairs; age += 1u) {
            let pair = pair_at(age, pairs, next);
            let s = load_s(chunk, q, pair);
            d += rounded(load_number(at_moved_factor(pair)) * s, zero);
        }
        store_d(chunk, q, d);
        store_g_prev(chunk, q, g);
    }
}

// Products that no compiler contracts with the sum that they go into.
fn rounded(products: vec4<f32>, zero: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(products) ^ zero);
}
