// A tensor's counts become its factor: one workgroup a tensor.

var<workgroup> count: atomic<u32>;

@compute @workgroup_size(LANES)
fn finish_counts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (is_absent(record) || row.len == 0u) {
        return;
    }
    var found = 0u;
    for (var i = lane; i < row.param; i += LANES) {
        found += load_partial(row.partial + row.grad * i).x;
    }
    atomicAdd(&count, found);
    workgroupBarrier();
    if (lane == 0u) {
        let w = load_wrapped(row.tensor, record);
        store_factor(row.tensor, wrapped_factor(w, f32(atomicLoad(&count)), f32(row.len)));
    }
}
