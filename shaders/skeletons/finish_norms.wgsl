// Combines what was measured of a tensor's chunks, and keeps it in control: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    if (!is_present(sums.tensor) || sums.len == 0u) {
        return;
    }
    combine_partials(sums, lane);
    if (lane == 0u) {
        store_measured(sums.tensor, load_partial(sums.partial));
    }
}
