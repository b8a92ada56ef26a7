// A tensor's gradients measured as a whole: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    if (!is_present(row.tensor) || row.len == 0u) {
        return;
    }
    combine_partials(row, lane);
    if (lane == 0u) {
        store_measured(row.tensor, load_partial(row.partial));
    }
}
