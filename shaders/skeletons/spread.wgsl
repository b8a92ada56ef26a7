// Spreads the elements of a tensor into the matrix that products or turns start from: one workgroup a chunk.

@compute @workgroup_size(LANES)
fn spread_chunk(
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
    let h = load_hyper(record);
    let k = load_tensor(chunk.tensor);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        var p: vec4<f32>;
        if (L2) {
            p = load_whole(chunk, c.first != 0.0, q);
        }
        let raw = load_grad(chunk, q);
        let g = vec4<f32>(
            prepare(c, w, p.x, raw.x),
            prepare(c, w, p.y, raw.y),
            prepare(c, w, p.z, raw.z),
            prepare(c, w, p.w, raw.w),
        );
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
        let numbers = vec4<f32>(
            spread(h, k, g.x, s0),
            spread(h, k, g.y, s1),
            spread(h, k, g.z, s2),
            spread(h, k, g.w, s3),
        );
        store_spread(chunk, q, numbers, g);
    }
}
