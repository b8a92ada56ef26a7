// Combines the partial results of a tensor's chunks and calls `finish`: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    let record = load_record(sums.tensor);
    if (is_absent(record) || sums.len == 0u) {
        return;
    }
    combine_partials(sums, lane);
    if (lane == 0u) {
        finish_with(sums.tensor, record, sums.len, sums.rows, sums.columns, load_partial(sums.partial));
    }
}
