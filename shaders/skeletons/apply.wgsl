// The update of every element: one workgroup a row.

@compute @workgroup_size(LANES)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (RESTORES && record == UNDONE) {
        restore(row, lane);
    }
    if (is_absent(record)) {
        return;
    }
    let c = load_common(row.tensor, record);
    let h = load_hyper(record);
    let k = load_tensor(row.tensor);
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(row, q);
        let g = load_grad(row, q);
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(row, c, q, p, &s0, &s1, &s2, &s3);
        var updated = vec4<f32>(
            update(c, h, k, p.x, g.x, &s0),
            update(c, h, k, p.y, g.y, &s1),
            update(c, h, k, p.z, g.z, &s2),
            update(c, h, k, p.w, g.w, &s3),
        );
        if (LOOKAHEAD) {
            updated = pull_back(row, c, q, p, updated);
        }
        if (EMA != 0u) {
            average(row, c, q, p, updated);
        }
        store_param(row, q, p, updated);
        store_state(row, q, s0, s1, s2, s3);
    }
}

// One element's update: the new parameter.
fn update(c: Common, h: Hyper, k: Tensor, p: f32, raw: f32, s: ptr<function, State>) -> f32 {
    let g = prepare(c, p, raw);
    var u = direction(h, k, p, g, s);
    // Decay and update are added before they meet p: forming 1 - lr*d in f32 costs the replay tolerance.
    if (CAUTIOUS) {
        u += select(c.decay, c.decay + c.cautious, sign(u) == sign(p)) * p;
    } else if (DECAY) {
        u += c.decay * p;
    }
    let landed = land(h, k, p, u, s);
    // min, max and sign drop a NaN; the parameter must not look plausible then.
    let bits = bitcast<u32>(raw);
    // What an infinite norm makes 0 of is lost where it is infinite.
    let most = select(0x7f800000u, 0x7f7fffffu, CLIP == 2u);
    let lost = (bits & 0x7fffffffu) > most || (CLIP == 2u && is_nan(c.fine));
    return select(landed, bitcast<f32>(bits | 0x7fc00000u), lost);
}

// Lookahead (Zhang et al. 2019, Algorithm 1). Reads and writes the slow parameters only where it must.
fn pull_back(row: Row, c: Common, q: u32, before: vec4<f32>, after: vec4<f32>) -> vec4<f32> {
    if (c.first == 0.0 && c.pull == 0.0) {
        return after;
    }
    var slow = before;
    if (c.first == 0.0) {
        slow = load_slow(row, q);
    }
    var landed = after;
    if (c.pull != 0.0) {
        slow += c.pull * (after - slow);
        landed = slow;
    }
    store_slow(row, q, slow);
    return landed;
}

// The running mean of the parameters. In a tensor's first step it is not read where it starts as the parameter.
fn average(row: Row, c: Common, q: u32, before: vec4<f32>, after: vec4<f32>) {
    var mean = before;
    if (EMA == 2u || c.first == 0.0) {
        mean = load_mean(row, q);
    }
    store_mean(row, q, c.ema * mean + c.one_minus_ema * after);
}

// Back to where the parameters stood before the look-ahead.
fn restore(row: Row, lane: u32) {
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        store_param(row, q, load_param(row, q), load_before(row, q));
    }
}
