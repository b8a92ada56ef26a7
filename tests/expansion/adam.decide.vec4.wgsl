// decide / param f32, vec4. Composed by wgpu-optim 0.1.0.

// Shared vocabulary of the rules: pure functions of numbers.
// Twin: src/parts.rs

// Both weights come from the host: 1 - f32(0.999) is off by 1.3e-5.
fn ema(old: f32, new_value: f32, keep: f32, take: f32) -> f32 {
    return keep * old + take * new_value;
}

// On the bits: naga writes x != x as an ordered compare, which is false for NaN.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Not max, which may drop a NaN.
fn at_least(x: f32, bound: f32) -> f32 {
    return select(x, bound, x < bound);
}

// What every walk does round a rule, once for all rules.
// Twin: `Common` and `prepare` in src/rule.rs

// On where any group of the dispatch needs it; a group that does not has the number that changes nothing.
override MAXIMIZE: bool = false;
override L2: bool = false;
override DECAY: bool = false;
override CAUTIOUS: bool = false;
override LOOKAHEAD: bool = false;
override UNSCALE: bool = false; // gradients are those of a loss that was scaled
override MEAN: bool = false; // gradients are sums of micro-batches
override CLIP: u32 = 0u; // 0 off, 1 by value, 2 by a norm, 3 by sign
override EMA: u32 = 0u; // a mean of the parameters: 0 off, 1 starts as the parameter, 2 starts at 0
override RESTORES: bool = false; // a skipped step undoes its look-ahead
override SKIPS: bool = false; // of micro-batches: one that no step can use stays so
override NORM_PARAM: bool = false; // norms of the parameters, too

// Of a pass of sums: takes the largest absolute value, by its bits; what `measure` is given; whether it stores state.
override BIT_MAX: bool = false;
override SUM_PAIR: bool = true; // the second number counts
override SUM_PARAM: bool = false;
override SUM_GRAD: bool = true;
override SUM_STATE: bool = false;
override SUM_STORES: bool = false;

// Outside a step: 0 to the look-ahead, 1 to evaluation, 2 back to training, 3 swap with the mean, 4 read the mean.
override MOVE: u32 = 0u;

// On where a row ends within a vector of four. What lies behind the end may be another's or anything: it stays as it
// was, and is in no sum.
override TAILS: bool = true;

// On where matrices have a number of columns that is no multiple of four: four elements may lie in several rows.
override CROSSINGS: bool = true;

// Of a workgroup. A processor runs them eight by eight, each eight to their end, and wants one eight.
override LANES: u32 = 256u;

const BLOCK_QUADS: u32 = 256u; // a block is 1024 elements
const ABSENT: u32 = 0xffffffffu; // for a record: no gradient in this step, or the step is skipped
const UNDONE: u32 = 0xfffffffeu; // the step is skipped, and its look-ahead undone

struct Common {
    direction: f32,
    l2: f32,
    decay: f32,
    cautious: f32,
    first: f32, // 1 where slots that start as the parameter take it
    pull: f32, // lookahead's alpha in every k-th step
    ema: f32,
    one_minus_ema: f32,
    ema_correction: f32, // the mean of the parameters is read divided by it
    batches: f32,
    limit: f32, // of a clip by value or sign
    unscale: f32, // one over the loss scale
    coarse: f32, // what a clip by norm multiplies by: a power of two,
    fine: f32, // and the rest; by sign, 1 where it clips
}

// One row of the table: a chunk; in walks over lines a tile, or lines of a matrix. One without elements does nothing.
struct Row {
    tensor: u32,
    len: u32, // elements, or lines in `finish_lines`
    param: u32, // offsets into the bound windows: elements (in `finish` and `finish_lines`, the number of partials),
    grad: u32, // elements (in `finish`, from a partial to the next, in `finish_lines` from a share to the line's next),
    state: u32, // vectors of four (in `lines`, the width of the tile),
    partial: u32, // words: partials; in `lines` the rows, or the shares in them
    lines: u32, // words: the first matrix's columns; in `lines` the columns, or their shares; in `finish_lines` lines
    seen: u32, // words: what is seen of the first element's row
    rows: u32, // of a matrix
    columns: u32,
    top: u32, // the first element's place in its matrix (in `finish_lines` 0 for rows, 1 for columns)
    left: u32,
}

// Vectors of four in the bound window of state: an element's first slot, and from one slot to the next.
struct Place { first: u32, span: u32 }

fn row_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

fn quads(row: Row) -> u32 {
    return (row.len + 3u) / 4u;
}

// 0, which no compiler knows. A product that goes straight into a sum may be contracted with it (Mesa's llvmpipe does
// that to some); one whose bits have met this is not, so that no switch of a skeleton changes a bit.
fn hidden_zero(row: Row) -> u32 {
    return row.len >> 31u;
}

// The gradient as the rule sees it.
fn prepare(c: Common, p: f32, raw: f32) -> f32 {
    var g = raw;
    if (UNSCALE) {
        g *= c.unscale;
    }
    if (MEAN) {
        g /= c.batches;
    }
    if (CLIP == 1u) {
        // Not clamp, which may drop a NaN.
        g = select(select(g, -c.limit, g < -c.limit), c.limit, g > c.limit);
    }
    if (CLIP == 2u) {
        g = g * c.coarse * c.fine;
    }
    if (CLIP == 3u && c.fine != 0.0) {
        g = c.limit * sign(g);
    }
    if (MAXIMIZE) {
        g *= c.direction;
    }
    if (L2) {
        g += c.l2 * p;
    }
    return g;
}

// A record that no walk but `apply` looks at.
fn is_absent(record: u32) -> bool {
    return record >= UNDONE;
}

// Glue: bindings, and the way between them and the rule's structs.

@group(0) @binding(6) var<storage, read_write> control: array<u32>;
@group(1) @binding(0) var<storage, read> clocks: array<u32>;

const WORD_TENSORS: u32 = 0u;
const WORD_STAGES: u32 = 1u;
const WORD_WORLDS: u32 = 2u;
const WORD_RECORDS: u32 = 3u;
const WORD_RECORD_LEN: u32 = 4u;
const WORD_NORMS: u32 = 5u;
const WORD_BEFORE: u32 = 6u;
const WORD_AFTER: u32 = 7u;
const WORD_CLIP: u32 = 8u;
const WORD_CLIP_LIMIT: u32 = 9u;
const WORD_CLIP_EPS: u32 = 10u;
const WORD_CLIP_OPTION: u32 = 11u;
const WORD_SKIPS: u32 = 12u;
const WORD_INTERVAL: u32 = 13u;
const WORD_GROWTH: u32 = 14u;
const WORD_BACKOFF: u32 = 15u;
const WORD_BATCHES: u32 = 16u;
const WORD_OPTIONS: u32 = 17u;
const WORD_OPTIONS_COUNT: u32 = 18u;
const WORD_OTHERS: u32 = 19u;
const CONTROL_SCALE: u32 = 0u;
const CONTROL_UNSCALE: u32 = 1u;
const CONTROL_GOOD: u32 = 2u;
const CONTROL_SKIPPED: u32 = 3u;
const CONTROL_SCALE_USED: u32 = 4u;
const CONTROL_ALL: u32 = 5u;
const CONTROL_SEQUENCE: u32 = 10u;
const CONTROL_WORLD: u32 = 11u;
const CONTROL_CULPRIT: u32 = 12u;
const CONTROL_CULPRIT_KIND: u32 = 13u;
const CONTROL_OTHERS: u32 = 32u;
const STAGE_MEASURE: u32 = 1u;
const STAGE_DECIDE: u32 = 2u;
const STAGE_SELECT: u32 = 4u;
const STAGE_ADVANCE: u32 = 8u;
const FIRST_TENSOR: u32 = 64u;
const TENSOR_WORDS: u32 = 8u;
const FIRST_PRESENT: u32 = 20u;

// A word of the step, which the host wrote.
fn load_word(at: u32) -> u32 {
    return clocks[at];
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(clocks[at]);
}

// Whether the tensor has a gradient in this step.
fn is_present(tensor: u32) -> bool {
    return clocks[FIRST_PRESENT + tensor] != ABSENT;
}

fn load_batches() -> f32 {
    return load_number(WORD_BATCHES);
}

// Given the bits of a power of two, returns the bits of one over it, exactly.
fn inverse(scale: u32) -> u32 {
    return 0x7f000000u - scale;
}

// One over the loss scale, which the device keeps.
fn load_unscale() -> f32 {
    return bitcast<f32>(inverse(control[CONTROL_SCALE]));
}

// The words that stay on the device from one dispatch to the next.

fn load_control(at: u32) -> u32 {
    return control[at];
}

fn store_control(at: u32, word: u32) {
    control[at] = word;
}

fn load_node(at: u32) -> Node {
    let squares = vec4<u32>(control[at], control[at + 1u], control[at + 2u], control[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), control[at + 4u]);
}

fn store_node(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    control[at] = squares.x;
    control[at + 1u] = squares.y;
    control[at + 2u] = squares.z;
    control[at + 3u] = squares.w;
    control[at + 4u] = node.kind;
}

fn load_all() -> Node {
    return load_node(CONTROL_ALL);
}

fn store_all(node: Node) {
    store_node(CONTROL_ALL, node);
}

fn load_option(i: u32) -> f32 {
    return bitcast<f32>(control[clocks[WORD_OPTIONS] + i]);
}

fn load_other(i: u32) -> Node {
    return load_node(CONTROL_OTHERS + 5u * i);
}

fn load_measured(tensor: u32) -> Node {
    return load_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u);
}

fn store_measured(tensor: u32, node: Node) {
    store_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u, node);
}

fn store_record(tensor: u32, record: u32) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor] = record;
}

fn store_factors(tensor: u32, factors: vec2<u32>) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 1u] = factors.x;
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 2u] = factors.y;
}


// What is known of the gradients of a tensor, or of a part of one.
// Twin: `Measured` in src/control.rs

struct Node {
    // Sums of squares: of gradients below 2^32 times 2^15, of the others times 2^-80; the same of parameters. Then 2^30
    // of f32's largest numbers do not overflow.
    squares: vec4<f32>,
    kind: u32, // the worst: 0 none, 1 of 2^63 or more, 2 infinite, 3 NaN
}

fn combine(a: Node, b: Node) -> Node {
    return Node(a.squares + b.squares, max(a.kind, b.kind));
}

// What is decided before a step, by one workgroup: whether it is skipped, what its gradients are multiplied by, the
// loss scale, and which numbers it has. Words of the step come from the host, words of control stay from step to step.
// Twins: src/control.rs (decisions), src/course.rs (words)

const CLIP_TENSOR: u32 = 1u;
const CLIP_GLOBAL: u32 = 2u;
const CLIP_ADAPTIVE: u32 = 3u;
const CLIP_SIGN: u32 = 4u;

const LEAVES: u32 = 256u;

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> culprits: array<u32, LEAVES>;

@compute @workgroup_size(LANES)
fn decide_step(@builtin(local_invocation_index) lane: u32) {
    let tensors = load_word(WORD_TENSORS);
    let stages = load_word(WORD_STAGES);
    // Encoders that run in another order than they were encoded in, or one that is missing: nothing fits any more, and
    // nothing that comes later either.
    let is_lost = load_control(CONTROL_SEQUENCE) != load_word(WORD_BEFORE);
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
        // Its block may not be there.
        for (var tensor = lane; tensor < tensors; tensor += LANES) {
            store_record(tensor, ABSENT);
        }
        if (lane == 0u) {
            store_control(CONTROL_SKIPPED, 2u);
            store_control(CONTROL_SEQUENCE, ABSENT);
        }
        return;
    }
    let advances = (stages & STAGE_ADVANCE) != 0u;
    let is_skipped = advances && load_control(CONTROL_SKIPPED) != 0u;
    let block = load_word(load_word(WORD_WORLDS) + world);
    let clocks = load_word(block + 2u);
    let clock_of = load_word(block + 3u);
    let len = load_word(WORD_RECORD_LEN);
    let records = load_word(WORD_RECORDS);
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
        store_control(records + i, bitcast<u32>(number(block + 4u, i, len)));
    }
    if (lane == 0u && advances) {
        store_control(load_word(WORD_NORMS), norm_bits(load_all()));
        store_control(CONTROL_WORLD, load_word(block + select(0u, 1u, is_skipped)));
        store_control(CONTROL_SEQUENCE, load_word(WORD_AFTER));
    }
}

// The gradients of all tensors as one, and the norm of each.
fn measure_all(tensors: u32, lane: u32) {
    let norms = load_word(WORD_NORMS);
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
            store_control(norms + 1u + tensor, norm_bits(measured));
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
    // Those of other optimizers that share the decision.
    for (var i = 0u; i < load_word(WORD_OTHERS); i += 1u) {
        all = combine(all, load_other(i));
    }
    store_all(all);
    let is_skipped = load_word(WORD_SKIPS) != 0u && all.kind != 0u;
    let scale = load_control(CONTROL_SCALE);
    store_control(CONTROL_SCALE_USED, scale);
    store_control(CONTROL_UNSCALE, inverse(scale));
    store_control(CONTROL_SKIPPED, u32(is_skipped));
    let interval = load_word(WORD_INTERVAL);
    if (interval > 0u) {
        let good = load_control(CONTROL_GOOD) + 1u;
        let number = bitcast<f32>(scale);
        if (is_skipped) {
            let smaller = number * load_number(WORD_BACKOFF);
            store_control(CONTROL_SCALE, bitcast<u32>(max(smaller, bitcast<f32>(0x33800000u)))); // 2^-24
            store_control(CONTROL_GOOD, 0u);
        } else if (good >= interval) {
            let larger = number * load_number(WORD_GROWTH);
            store_control(CONTROL_SCALE, bitcast<u32>(min(larger, 16777216.0)));
            store_control(CONTROL_GOOD, 0u);
        } else {
            store_control(CONTROL_GOOD, good);
        }
    }
}

// Of a norm: the root of its squares, and the power of two that this was multiplied by.
fn root_of(squares: vec2<f32>) -> vec2<f32> {
    if (squares.y == 0.0) {
        return vec2<f32>(sqrt(squares.x) * bitcast<f32>(0x38000000u), 1.0); // 2^-15
    }
    let between = bitcast<f32>(0x10000000u); // 2^-95
    // The bits meet a 0 that no compiler knows: one that multiplies the constants first, as Mesa's, finds 2^-190, 0.
    let half_way = bitcast<u32>(squares.x * between) ^ (load_word(WORD_TENSORS) >> 31u);
    return vec2<f32>(sqrt(squares.y + bitcast<f32>(half_way) * between), bitcast<f32>(0x17800000u)); // 2^-80
}

fn norm_bits(measured: Node) -> u32 {
    let root = root_of(measured.squares.xy);
    let bits = bitcast<u32>(root.x / root.y);
    let not_finite = select(0x7f800000u, 0x7fc00000u, measured.kind == 3u);
    return select(bits, not_finite, measured.kind >= 2u);
}

// What gradients are multiplied by: a power of two, and the rest.
fn factors_of(tensor: Node) -> vec2<u32> {
    let clip = load_word(WORD_CLIP);
    var measured = tensor;
    if (clip == CLIP_GLOBAL || clip == CLIP_SIGN) {
        measured = load_all();
    }
    let one = bitcast<u32>(1.0);
    if (clip == 0u) {
        return vec2<u32>(one, one);
    }
    let root = root_of(measured.squares.xy);
    let limit = load_limit();
    if (clip == CLIP_SIGN) {
        let exceeds = measured.kind == 2u || (measured.kind != 3u && root.x > limit * root.y);
        return vec2<u32>(one, select(0u, one, exceeds));
    }
    if (measured.kind >= 2u) {
        return vec2<u32>(one, select(0u, 0x7fc00000u, measured.kind == 3u));
    }
    var bound = limit;
    var size = root.x + 1e-6;
    if (clip == CLIP_ADAPTIVE) {
        let of_params = root_of(measured.squares.zw);
        bound = limit * at_least(of_params.x / of_params.y, load_number(WORD_CLIP_EPS));
        size = at_least(root.x, 1e-6);
    }
    if (root.y == 1.0) {
        let ratio = bound / size;
        return vec2<u32>(one, select(bitcast<u32>(ratio), one, ratio >= 1.0));
    }
    if (bound * root.y >= root.x) {
        return vec2<u32>(one, one);
    }
    return vec2<u32>(bitcast<u32>(root.y), bitcast<u32>(bound / root.x));
}

fn load_limit() -> f32 {
    let option = load_word(WORD_CLIP_OPTION);
    if (option == ABSENT) {
        return load_number(WORD_CLIP_LIMIT);
    }
    return load_option(option);
}

// Number `i` of the records: a polynomial in the options that are written on the device, of the first degree in each.
fn number(first: u32, i: u32, len: u32) -> f32 {
    let options = load_word(WORD_OPTIONS_COUNT);
    let terms = 1u << options;
    var sum = load_number(first + i / len * len * terms + i % len);
    for (var term = 1u; term < terms; term += 1u) {
        var product = load_number(first + (i / len * terms + term) * len + i % len);
        // What is absent from the polynomial must not meet an infinite option.
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

