// The parameters are moved outside a step: ahead of the gradients, to evaluation, back to training, along the
// direction, or as a wrapper says.

@compute @workgroup_size(LANES)
fn move_all(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    if (is_absent(record)) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let h = load_hyper(record);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let p = load_whole(chunk, c.first != 0.0, q);
        var stands: vec4<f32>;
        if (MOVE > ALONG_DIRECTION) {
            stands = wrapped_moved(chunk, w, q, p);
        } else {
            var s0: State;
            var s1: State;
            var s2: State;
            var s3: State;
            load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
            if (MOVE == TO_LOOK_AHEAD) {
                wrapped_looked_ahead(chunk, q, p);
            }
            stands = vec4<f32>(
                moved(h, p.x, &s0),
                moved(h, p.y, &s1),
                moved(h, p.z, &s2),
                moved(h, p.w, &s3),
            );
        }
        if (!READS) {
            stands = wrapped_kept(chunk, q, stands);
        }
        store_param(chunk, q, p, stands);
    }
}
