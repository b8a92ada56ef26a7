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
    // A step that runs behind one that was encoded later does nothing. One that never ran is missed by nobody: it has
    // changed no state of a clock, as if it had been skipped.
    let is_ordered = load_word(STEP_SKIPS) != 0u;
    let is_late = is_ordered && i32(load_word(STEP_SEQUENCE) - load_control(CONTROL_SEQUENCE)) <= 0;
    if ((stages & STAGE_MEASURE) != 0u) {
        measure_all(tensors, lane);
    }
    storageBarrier();
    workgroupBarrier();
    if ((stages & STAGE_DECIDE) != 0u && lane == 0u && !is_late) {
        decide_on_step();
    }
    storageBarrier();
    workgroupBarrier();
    if ((stages & STAGE_SELECT) == 0u) {
        return;
    }
    let len = load_word(STEP_RECORD_LEN);
    let records = load_word(STEP_RECORDS);
    let classes = load_word(STEP_CLASSES);
    for (var i = lane; i < load_word(STEP_CLASSES_COUNT) * len; i += LANES) {
        let class_words = classes + i / len * CLASS_WORDS;
        let record = record_of(class_words, load_word(class_words + CLASS_TENSOR));
        if (record != ABSENT && !is_late) {
            store_control(records + i, bitcast<u32>(number(record, i % len, len)));
        }
    }
    // From here on states change.
    storageBarrier();
    workgroupBarrier();
    let advances = (stages & STAGE_ADVANCE) != 0u;
    let is_skipped = advances && load_control(CONTROL_SKIPPED) != 0u;
    let of_all = factors_of(load_all());
    for (var tensor = lane; tensor < tensors; tensor += LANES) {
        let class_index = load_word(load_word(STEP_CLASS_OF) + tensor);
        let class_words = classes + class_index * CLASS_WORDS;
        if (is_late || class_index == ABSENT || record_of(class_words, tensor) == ABSENT) {
            store_record(tensor, ABSENT);
        } else {
            store_record(tensor, select(records + class_index * len, UNDONE, is_skipped));
        }
        if (advances && !is_late && is_present(tensor)) {
            if (wrapped_takes_all()) {
                store_factors(tensor, of_all);
            } else {
                store_factors(tensor, factors_of(load_measured(tensor)));
            }
        }
        if (advances && !is_late && !is_skipped && class_index != ABSENT) {
            let state = state_of(class_words, tensor);
            if (state != ABSENT) {
                store_state(tensor, load_word(state + STATE_APPLIED));
            }
        }
    }
    if (lane == 0u && is_late) {
        store_control(CONTROL_SKIPPED, OUT_OF_TURN);
    }
    if (lane == 0u && !is_late) {
        store_control(CONTROL_SEQUENCE, load_word(STEP_SEQUENCE));
        if (advances) {
            store_control(load_word(STEP_NORMS) + NORMS_ALL, norm_bits(load_all()));
        } else {
            store_control(CONTROL_SKIPPED, 0u); // a move is never skipped
        }
    }
}

// Where the words of the state stand that a tensor's clock is in, or ABSENT where the class does not know it.
fn state_of(class_words: u32, tensor: u32) -> u32 {
    let place = load_state(tensor) - load_word(class_words + CLASS_FIRST);
    if (place >= load_word(class_words + CLASS_STATES)) {
        return ABSENT;
    }
    return load_word(class_words + CLASS_TABLE) + place * STATE_WORDS;
}

// Where the numbers of that state stand, or ABSENT.
fn record_of(class_words: u32, tensor: u32) -> u32 {
    let state = state_of(class_words, tensor);
    if (state == ABSENT) {
        return ABSENT;
    }
    return load_word(state + STATE_RECORD);
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

// Returns what the measured gradients are multiplied by, as bits: first a power of two, then another number.
fn factors_of(measured: Node) -> vec2<u32> {
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

// Returns number `i` of the record that starts at `first`, of `len` words. It is a polynomial in the options that are
// written on the device, of the first degree in each; the coefficients of a term stand behind those of the term before.
fn number(first: u32, i: u32, len: u32) -> f32 {
    let options = load_word(STEP_OPTIONS_COUNT);
    let terms = 1u << options;
    var sum = load_number(first + i);
    for (var term = 1u; term < terms; term += 1u) {
        var product = load_number(first + term * len + i);
        // An option that is infinite must not be multiplied by a coefficient of 0. NaN is none: hence the bits.
        if ((bitcast<u32>(product) & 0x7fffffffu) != 0u) {
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
