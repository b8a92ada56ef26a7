// The parameters moved to where the gradients are to be computed. Outside a step.

@compute @workgroup_size(LANES)
fn look_ahead_all(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (record == ABSENT) {
        return;
    }
    let h = load_hyper(record);
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(row, q);
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(row, q, &s0, &s1, &s2, &s3);
        store_param(row, q, p, vec4<f32>(
            look_ahead(h, p.x, &s0),
            look_ahead(h, p.y, &s1),
            look_ahead(h, p.z, &s2),
            look_ahead(h, p.w, &s3),
        ));
    }
}
