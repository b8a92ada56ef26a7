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
        var k = load_tensor(sums.tensor);
        let h = load_hyper(record);
        let numbers = bitcast<vec2<f32>>(load_partial(sums.partial));
        if (PRODUCT) {
            finish_product(h, numbers, f32(sums.len), &k);
        } else {
            of_shape(h, f32(sums.rows), f32(sums.columns), &k);
            finish(h, numbers, f32(sums.len), &k);
        }
        store_tensor(sums.tensor, k);
    }
}
