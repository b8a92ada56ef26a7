// A tensor's counts become its factor: one workgroup a tensor.

var<workgroup> count: atomic<u32>;

@compute @workgroup_size(LANES)
fn finish_counts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    let record = load_record(sums.tensor);
    if (is_absent(record) || sums.len == 0u) {
        return;
    }
    var found = 0u;
    for (var i = lane; i < sums.partials; i += LANES) {
        found += load_partial(sums.partial + sums.stride * i).x;
    }
    // Nobody else sets it to 0.
    if (lane == 0u) {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    atomicAdd(&count, found);
    workgroupBarrier();
    if (lane == 0u) {
        let w = load_wrapped(sums.tensor, record);
        store_factor(sums.tensor, wrapped_factor(w, f32(atomicLoad(&count)), f32(sums.len)));
    }
}
