// Adds the gradients of a micro-batch to the sums of those before it, one workgroup a chunk. The sums are bound where
// other walks bind parameters.

@compute @workgroup_size(LANES)
fn accumulate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let batch = load_batch(chunk.tensor);
    if (batch == ABSENT) {
        return;
    }
    let unscale = load_unscale();
    let zero = hidden_zero(chunk.len);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        var g = bitcast<vec4<f32>>(load_grad_words(chunk, q));
        if (UNSCALE) {
            g *= unscale;
        }
        if (SKIPS) {
            // A later micro-batch could cancel a number that is too large for a step, and the step would not be
            // skipped. Infinity stays whatever is added to it.
            let bits = bitcast<vec4<u32>>(g) ^ vec4<u32>(zero);
            let size = bits & vec4<u32>(0x7fffffffu);
            let too_large = (size >= vec4<u32>(0x5f000000u)) & (size < vec4<u32>(0x7f800000u));
            g = bitcast<vec4<f32>>(select(bits, vec4<u32>(0x7f800000u), too_large));
        }
        let old = load_param(chunk, q);
        if (batch > 0u) {
            g += old;
        }
        store_param(chunk, q, old, g);
    }
}
