// A wrapper counts elements of a chunk by what the rule is about to subtract: one workgroup a chunk, one count a chunk.
// The count of a tensor of one chunk becomes the tensor's factor at once. The update comes later; nothing of an element
// is stored.

var<workgroup> count: atomic<u32>;

@compute @workgroup_size(LANES)
fn counts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    if (is_absent(record) || chunk.len == 0u) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let h = load_hyper(record);
    let k = load_tensor(chunk.tensor);
    var found = 0u;
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let p = load_whole(chunk, c.first != 0.0, q);
        let g = load_grad(chunk, q);
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
        let is_counted = vec4<bool>(
            counts_one(c, w, h, k, p.x, g.x, &s0),
            counts_one(c, w, h, k, p.y, g.y, &s1),
            counts_one(c, w, h, k, p.z, g.z, &s2),
            counts_one(c, w, h, k, p.w, g.w, &s3),
        );
        // What lies behind the end counts for nothing.
        let is_inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q);
        let ones = select(vec4<u32>(), vec4<u32>(1u), is_counted & is_inside);
        found += (ones.x + ones.y) + (ones.z + ones.w);
    }
    // Nobody else sets it to 0.
    if (lane == 0u) {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    atomicAdd(&count, found);
    workgroupBarrier();
    if (lane == 0u) {
        if (chunk.partial == ABSENT) {
            store_factor(chunk.tensor, wrapped_factor(w, f32(atomicLoad(&count)), f32(chunk.len)));
        } else {
            store_partial(chunk.partial, vec2<u32>(atomicLoad(&count), 0u));
        }
    }
}

// Whether one element counts.
fn counts_one(
    c: Common, w: Wrapped, h: Hyper, k: Tensor, p: f32, raw: f32, s: ptr<function, State>,
) -> bool {
    let g = prepare(c, w, p, raw);
    return wrapped_is_counted(w, g, direction(h, k, p, g, s));
}
