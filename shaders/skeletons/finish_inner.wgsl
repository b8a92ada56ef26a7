// Combines the inner products of a tensor's chunks, row by row, in a binary tree over the chunks: one workgroup a
// tensor.

@compute @workgroup_size(LANES)
fn finish_inner(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    if (is_absent(load_record(sums.tensor)) || sums.len == 0u) {
        return;
    }
    let rows = rows_with(u32(load_tensor(sums.tensor).pairs));
    let count = sums.partials;
    for (var stride = 1u; stride < count; stride *= 2u) {
        let pairs = (count + stride - 1u) / (2u * stride);
        for (var i = lane; i < rows * pairs; i += LANES) {
            let at = sums.partial + INNER_WORDS * (i % rows) + sums.stride * (2u * stride * (i / rows));
            store_partial(at, combine(load_partial(at), load_partial(at + sums.stride * stride)));
        }
        storageBarrier();
    }
    for (var row = lane; row < rows; row += LANES) {
        let first = sums.partial + INNER_WORDS * row;
        store_partial(row_of(sums.tensor, row), load_partial(first));
    }
}
