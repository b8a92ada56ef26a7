// A tensor's partials combined in a binary tree over their index, then `finish`: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (record == ABSENT || row.len == 0u) {
        return;
    }
    let count = row.param;
    for (var stride = 1u; stride < count; stride *= 2u) {
        for (var i = 2u * stride * lane; i + stride < count; i += 2u * stride * LANES) {
            let at = row.partial + 2u * i;
            store_partial(at, combine(load_partial(at), load_partial(at + 2u * stride)));
        }
        storageBarrier();
    }
    if (lane == 0u) {
        var k = load_tensor(row.tensor);
        finish(load_hyper(record), bitcast<vec2<f32>>(load_partial(row.partial)), f32(row.len), &k);
        store_tensor(row.tensor, k);
    }
}
