// The gradients of a micro-batch added to those before it. The sums are bound as parameters are.

@compute @workgroup_size(LANES)
fn accumulate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let batch = load_batch(row.tensor);
    if (batch == ABSENT) {
        return;
    }
    let unscale = load_unscale();
    let zero = hidden_zero(row);
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        var g = bitcast<vec4<f32>>(load_grad_words(row, q));
        if (UNSCALE) {
            g *= unscale;
        }
        if (SKIPS) {
            // What follows may cancel a number that is too large for a step, but not infinity.
            let bits = bitcast<vec4<u32>>(g) ^ vec4<u32>(zero);
            let size = bits & vec4<u32>(0x7fffffffu);
            let too_large = (size >= vec4<u32>(0x5f000000u)) & (size < vec4<u32>(0x7f800000u));
            g = bitcast<vec4<f32>>(select(bits, vec4<u32>(0x7f800000u), too_large));
        }
        let old = load_param(row, q);
        if (batch > 0u) {
            g += old;
        }
        store_param(row, q, old, g);
    }
}
