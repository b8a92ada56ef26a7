// The update of every element: one workgroup a row.

@compute @workgroup_size(LANES)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (record == ABSENT) {
        return;
    }
    let c = load_common(record);
    let h = load_hyper(record);
    let k = load_tensor(row.tensor);
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(row, q);
        let g = load_grad(row, q);
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(row, q, &s0, &s1, &s2, &s3);
        let updated = vec4<f32>(
            update(c, h, k, p.x, g.x, &s0),
            update(c, h, k, p.y, g.y, &s1),
            update(c, h, k, p.z, g.z, &s2),
            update(c, h, k, p.w, g.w, &s3),
        );
        store_param(row, q, p, updated);
        store_state(row, q, s0, s1, s2, s3);
    }
}
