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
        load_state(row, c, q, p, &s0, &s1, &s2, &s3);
        var updated = vec4<f32>(
            update(c, h, k, p.x, g.x, &s0),
            update(c, h, k, p.y, g.y, &s1),
            update(c, h, k, p.z, g.z, &s2),
            update(c, h, k, p.w, g.w, &s3),
        );
        if (LOOKAHEAD) {
            updated = pull_back(row, c, q, p, updated);
        }
        store_param(row, q, p, updated);
        store_state(row, q, s0, s1, s2, s3);
    }
}

// Lookahead (Zhang et al. 2019, Algorithm 1). Reads and writes the slow parameters only where it must.
fn pull_back(row: Row, c: Common, q: u32, before: vec4<f32>, after: vec4<f32>) -> vec4<f32> {
    if (c.first == 0.0 && c.pull == 0.0) {
        return after;
    }
    var slow = before;
    if (c.first == 0.0) {
        slow = load_slow(row, q);
    }
    var landed = after;
    if (c.pull != 0.0) {
        slow += c.pull * (after - slow);
        landed = slow;
    }
    store_slow(row, q, slow);
    return landed;
}
