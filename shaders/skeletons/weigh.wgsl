// Weighs the elements of tensors in the bases of their sides: one workgroup a chunk.

@compute @workgroup_size(LANES)
fn weigh_chunk(
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
    let h = load_hyper(record);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(chunk, c, q, vec4<f32>(), &s0, &s1, &s2, &s3);
        let x = load_turned(chunk, q, 0u);
        let g = load_turned(chunk, q, chunk.turned);
        store_weighed(chunk, q, vec4<f32>(
            weigh(h, x.x, g.x, s0),
            weigh(h, x.y, g.y, s1),
            weigh(h, x.z, g.z, s2),
            weigh(h, x.w, g.w, s3),
        ));
    }
}
