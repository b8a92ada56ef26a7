// Decides before a step, with one workgroup: whether the step is skipped, what its gradients are multiplied by, what
// becomes of the loss scale, and which numbers the step has. The host wrote the words of the step; the words of control
// stay on the device from step to step.
// Twins: src/control.rs (decisions), src/course.rs (words)

const LEAVES: u32 = 256u;

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> culprits: array<u32, LEAVES>;

@compute @workgroup_size(LANES)
fn decide_step(@builtin(local_invocation_index) lane: u32) {
    let tensors = load_word(STEP_TENSORS);
    let stages = load_word(STEP_STAGES);
    // Where encoders run in another order than they were encoded in, or one is missing, this step does not fit what is
    // on the device, nor does any later one.
    let is_lost = load_control(CONTROL_SEQUENCE) != load_word(STEP_BEFORE);
    let world = load_control(CONTROL_WORLD);
    if ((stages & STAGE_MEASURE) != 0u) {
        measure_all(tensors, lane);
    }
    storageBarrier();
    workgroupBarrier();
    if ((stages & STAGE_DECIDE) != 0u && lane == 0u && !is_lost) {
        decide_on_step();
    }
    storageBarrier();
    workgroupBarrier();
    if ((stages & STAGE_SELECT) == 0u) {
        return;
    }
    if (is_lost) {
        // The step may have no words of the world that is true, so it looks at none.
        for (var tensor = lane; tensor < tensors; tensor += LANES) {
            store_record(tensor, ABSENT);
        }
        if (lane == 0u) {
            store_control(CONTROL_SKIPPED, OUT_OF_TURN);
            store_control(CONTROL_SEQUENCE, ABSENT);
        }
        return;
    }
    let advances = (stages & STAGE_ADVANCE) != 0u;
    let is_skipped = advances && load_control(CONTROL_SKIPPED) != 0u;
    let block = load_word(load_word(STEP_WORLDS) + world);
    let clocks = load_word(block + WORLD_CLOCKS);
    let clock_of = load_word(block + WORLD_CLOCK_OF);
    let len = load_word(STEP_RECORD_LEN);
    let records = load_word(STEP_RECORDS);
    for (var tensor = lane; tensor < tensors; tensor += LANES) {
        let clock = load_word(clock_of + tensor);
        var record = records + clock * len;
        if (is_skipped) {
            record = UNDONE;
        }
        if (clock == ABSENT) {
            record = ABSENT;
        }
        store_record(tensor, record);
        if (advances && is_present(tensor)) {
            store_factors(tensor, factors_of(load_measured(tensor)));
        }
    }
    for (var i = lane; i < clocks * len; i += LANES) {
        store_control(records + i, bitcast<u32>(number(block + WORLD_WORDS, i, len)));
    }
    if (lane == 0u && advances) {
        store_control(load_word(STEP_NORMS) + NORMS_ALL, norm_bits(load_all()));
        store_control(CONTROL_WORLD, load_word(block + select(WORLD_APPLIED, WORLD_SKIPPED, is_skipped)));
        store_control(CONTROL_SEQUENCE, load_word(STEP_AFTER));
    }
}

// Combines what was measured of the tensors, and stores the norm of each.
fn measure_all(tensors: u32, lane: u32) {
    let norms = load_word(STEP_NORMS);
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var node = Node();
        var culprit = ABSENT;
        for (var tensor = leaf; tensor < tensors; tensor += LEAVES) {
            var measured = Node();
            if (is_present(tensor)) {
                measured = load_measured(tensor);
            } else {
                store_measured(tensor, measured);
            }
            if (measured.kind > 0u) {
                culprit = min(culprit, tensor);
            }
            node = combine(node, measured);
            store_control(norms + NORMS_WORDS + tensor, norm_bits(measured));
        }
        leaves[leaf] = node;
        culprits[leaf] = culprit;
    }
    for (var half = LEAVES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < half; i += LANES) {
            leaves[i] = combine(leaves[i], leaves[i + half]);
            culprits[i] = min(culprits[i], culprits[i + half]);
        }
    }
    workgroupBarrier();
    if (lane == 0u) {
        let all = leaves[0];
        store_all(all);
        var kind = 0u;
        if (culprits[0] < tensors) {
            kind = load_measured(culprits[0]).kind;
        }
        store_control(CONTROL_CULPRIT, culprits[0]);
        store_control(CONTROL_CULPRIT_KIND, kind);
    }
}

fn decide_on_step() {
    var all = load_all();
    // Other optimizers that share the decision have left here what they measured.
    for (var i = 0u; i < load_word(STEP_OTHERS); i += 1u) {
        all = combine(all, load_other(i));
    }
    store_all(all);
    let is_skipped = load_word(STEP_SKIPS) != 0u && all.kind != 0u;
    let scale = load_control(CONTROL_SCALE);
    store_control(CONTROL_SCALE_USED, scale);
    store_control(CONTROL_UNSCALE, inverse(scale));
    store_control(CONTROL_SKIPPED, u32(is_skipped));
    let next = wrapped_after(
        bitcast<f32>(scale),
        load_control(CONTROL_GOOD),
        is_skipped,
        load_number(STEP_GROWTH),
        load_number(STEP_BACKOFF),
        load_word(STEP_INTERVAL),
    );
    store_control(CONTROL_SCALE, next.x);
    store_control(CONTROL_GOOD, next.y);
}

// Returns the norm that two sums of squares stand for, multiplied by a power of two, and that power.
fn root_of(squares: vec2<f32>) -> vec2<f32> {
    if (squares.y == 0.0) {
        return vec2<f32>(sqrt(squares.x) * bitcast<f32>(0x38000000u), 1.0); // 2^-15
    }
    let between = bitcast<f32>(0x10000000u); // 2^-95
    // A compiler that multiplied the two constants first, as Mesa's does, would find 2^-190, which is 0 in f32. It
    // cannot here, since the bits of the first product are combined with a 0 that no compiler knows.
    let half_way = bitcast<u32>(squares.x * between) ^ (load_word(STEP_TENSORS) >> 31u);
    return vec2<f32>(sqrt(squares.y + bitcast<f32>(half_way) * between), bitcast<f32>(0x17800000u)); // 2^-80
}

fn norm_bits(measured: Node) -> u32 {
    let root = root_of(measured.squares.xy);
    let bits = bitcast<u32>(root.x / root.y);
    let not_finite = select(0x7f800000u, 0x7fc00000u, measured.kind == 3u);
    return select(bits, not_finite, measured.kind >= 2u);
}

// Returns what a tensor's gradients are multiplied by, as bits: first a power of two, then another number.
fn factors_of(tensor: Node) -> vec2<u32> {
    var measured = tensor;
    if (wrapped_takes_all()) {
        measured = load_all();
    }
    let root = root_of(measured.squares.xy);
    let of_params = root_of(measured.squares.zw);
    return wrapped_factors(root, of_params, measured.kind, load_limit(), load_number(STEP_CLIP_EPS));
}

fn load_limit() -> f32 {
    let option = load_word(STEP_CLIP_OPTION);
    if (option == ABSENT) {
        return load_number(STEP_CLIP_LIMIT);
    }
    return load_option(option);
}

// Returns number `i` of the records. It is a polynomial in the options that are written on the device, of the first
// degree in each; `first` is where its coefficients start.
fn number(first: u32, i: u32, len: u32) -> f32 {
    let options = load_word(STEP_OPTIONS_COUNT);
    let terms = 1u << options;
    var sum = load_number(first + i / len * len * terms + i % len);
    for (var term = 1u; term < terms; term += 1u) {
        var product = load_number(first + (i / len * terms + term) * len + i % len);
        // An option that is infinite must not be multiplied by a coefficient of 0.
        if (product != 0.0) {
            for (var option = 0u; option < options; option += 1u) {
                if ((term & (1u << option)) != 0u) {
                    product *= load_option(option);
                }
            }
            sum += product;
        }
    }
    return sum;
}
