// Updates every element: one workgroup a chunk.

@compute @workgroup_size(LANES)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    if (is_absent(record)) {
        if (RESTORES && record == UNDONE) {
            restore(chunk, lane);
        } else if (COPIES && chunk.out_page != ABSENT) {
            copy(chunk, lane);
        }
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let factor = load_factor(chunk.tensor);
    let h = load_hyper(record);
    let k = load_tensor(chunk.tensor);
    let end = quads(chunk.len);
    let numbers = NumbersOfChunk(c, w, factor, h, k, lane);
    for (var first = 0u; first < end; first += STRETCH * LANES) {
        let start = first + STRETCH * lane;
        if (STRETCH > 1u && start < end) {
            load_steps(chunk, start);
        }
        if (STRETCH == 1u) {
            visit(chunk, numbers, start, false);
        } else {
            for (var n = 0u; n < STRETCH; n += 2u) {
                visit(chunk, numbers, start + n, false);
                visit(chunk, numbers, start + n + 1u, true);
            }
        }
        if (STRETCH > 1u && start < end) {
            store_group(chunk, w, start);
        }
    }
}

// What the update of an element depends on beside the element.
struct NumbersOfChunk { c: Common, w: Wrapped, factor: f32, h: Hyper, k: Tensor, lane: u32 }

// Updates four elements. Those of a group that a lane holds come in twos.
fn visit(chunk: Chunk, numbers: NumbersOfChunk, q: u32, is_second: bool) {
    let c = numbers.c;
    let w = numbers.w;
    let factor = numbers.factor;
    let h = numbers.h;
    let k = numbers.k;
    var s0: State;
    var s1: State;
    var s2: State;
    var s3: State;
    if (q < quads(chunk.len)) {
        let p = load_whole(chunk, c.first != 0.0, q);
        let g = load_grad(chunk, q);
        load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
        let updated = vec4<f32>(
            update(c, w, factor, h, k, p.x, g.x, &s0),
            update(c, w, factor, h, k, p.y, g.y, &s1),
            update(c, w, factor, h, k, p.z, g.z, &s2),
            update(c, w, factor, h, k, p.w, g.w, &s3),
        );
        let landed = wrapped_landed(chunk, w, c.first != 0.0, q, p, updated);
        store_param(chunk, q, p, wrapped_stored(chunk, w, q, wrapped_kept(chunk, q, landed)));
    }
    store_state(chunk, w, numbers.lane, q, is_second, s0, s1, s2, s3);
}

// One element's update: the new parameter.
fn update(
    c: Common, w: Wrapped, factor: f32, h: Hyper, k: Tensor, p: f32, raw: f32, s: ptr<function, State>,
) -> f32 {
    let g = prepare(c, w, p, raw);
    var u = wrapped_update(w, factor, g, direction(h, k, p, g, s));
    // Decay and update are added before they meet p: forming 1 - lr*d in f32 costs the replay tolerance.
    if (CAUTIOUS) {
        u += select(c.decay, c.decay + c.cautious, sign(u) == sign(p)) * decay_rate(h, k) * p;
    } else if (DECAY) {
        u += c.decay * decay_rate(h, k) * p;
    }
    let landed = land(h, k, p, u, s);
    // min, max and sign may drop a NaN, and the parameter would look plausible. So the bits of a lost gradient replace
    // it.
    let bits = bitcast<u32>(raw);
    return select(landed, bitcast<f32>(bits | 0x7fc00000u), wrapped_is_lost(w, bits));
}

// Puts the parameters back to where they stood before the look-ahead.
fn restore(chunk: Chunk, lane: u32) {
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(chunk, q);
        store_param(chunk, q, p, wrapped_kept(chunk, q, wrapped_skipped(chunk, q, p)));
    }
}

// Takes the parameters to where new ones were to go.
fn copy(chunk: Chunk, lane: u32) {
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(chunk, q);
        store_param(chunk, q, p, p);
    }
}
