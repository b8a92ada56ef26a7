// `finish` of a tensor's combined partials: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (is_absent(record) || row.len == 0u) {
        return;
    }
    combine_partials(row, lane);
    if (lane == 0u) {
        var k = load_tensor(row.tensor);
        finish(load_hyper(record), bitcast<vec2<f32>>(load_partial(row.partial)), f32(row.len), &k);
        store_tensor(row.tensor, k);
    }
}
