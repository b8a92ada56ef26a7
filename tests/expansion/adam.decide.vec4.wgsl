// decide / param f32, vec4. Composed by wgpu-optim 0.2.0.

// Pure functions of numbers, which every rule may call.
// Twin: src/parts.rs

// A step of a running mean. The host computes both weights: 1 - f32(0.999) is off by 1.3e-5.
fn ema(old: f32, new_value: f32, keep: f32, take: f32) -> f32 {
    return keep * old + take * new_value;
}

// The function tests the bits, since naga writes x != x as an ordered comparison, which is false for NaN.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Of two numbers. Where one is NaN, so is the result: what the built-in max and min return then, each device decides.
fn larger(a: f32, b: f32) -> f32 {
    return select(max(a, b), a + b, is_nan(a) || is_nan(b));
}

fn smaller(a: f32, b: f32) -> f32 {
    return select(min(a, b), a + b, is_nan(a) || is_nan(b));
}

// Returns x within the bounds. NaN stays NaN.
fn within(x: f32, low: f32, high: f32) -> f32 {
    return select(clamp(x, low, high), x, is_nan(x));
}

// Returns x, or the bound where x is below it. The built-in max may drop a NaN. A comparison alone may, too, since
// Mesa's compiler for GL makes a max of it.
fn at_least(x: f32, bound: f32) -> f32 {
    return select(select(x, bound, x < bound), x, is_nan(x));
}

// Returns the angle of the point (x, y), where x is at least 0: from -pi/2 to pi/2, and 0 for the origin. It uses no
// built-in atan, for which WGSL allows an error of 4096 units in the last place.
fn angle(y: f32, x: f32) -> f32 {
    let size = abs(y);
    if (size == 0.0) {
        return y;
    }
    let is_steep = size > x;
    let ratio = select(size, x, is_steep) / select(x, size, is_steep);
    let is_wide = ratio > 0.41421357;
    var t = ratio;
    if (is_wide) {
        t = (ratio - 1.0) / (ratio + 1.0);
    }
    let z = t * t;
    let tail = ((0.08053745 * z - 0.13877685) * z + 0.19977711) * z - 0.3333295;
    let near = tail * z * t + t;
    let part = select(near, near + 0.7853982, is_wide);
    let part_of_quarter = select(part, 1.5707964 - part, is_steep);
    return select(part_of_quarter, -part_of_quarter, y < 0.0);
}

// The caller multiplies the loss by a scale, so this divides gradients by it (Micikevicius et al. 2018, section 3.2).
// Twin: src/wrappers/loss_scale.rs

struct LossScaleNumbers {
    unscale: f32, // one over the scale, a power of two
}

fn loss_scale_gradient(n: LossScaleNumbers, g: f32) -> f32 {
    return g * n.unscale;
}

// Returns the bits of the scale after a step, and for how many good steps it has stood. It stays within 2^-24 and 2^24.
fn loss_scale_after(
    scale: f32, good: u32, is_skipped: bool, growth: f32, backoff: f32, interval: u32,
) -> vec2<u32> {
    if (is_skipped) {
        return vec2<u32>(bitcast<u32>(max(scale * backoff, bitcast<f32>(0x33800000u))), 0u);
    }
    if (good + 1u >= interval) {
        return vec2<u32>(bitcast<u32>(min(scale * growth, 16777216.0)), 0u);
    }
    return vec2<u32>(bitcast<u32>(scale), good + 1u);
}

// Gradients that are too large become smaller (Pascanu et al. 2013, Algorithm 1; Brock et al. 2021, section 4).
// Twin: src/wrappers/clip.rs

const CLIP_VALUE: u32 = 1u;
const CLIP_TENSOR_NORM: u32 = 2u;
const CLIP_GLOBAL_NORM: u32 = 3u;
const CLIP_ADAPTIVE: u32 = 4u;
const CLIP_SIGN: u32 = 5u;

override CLIP_KIND: u32 = CLIP_VALUE;

struct ClipNumbers {
    limit: f32, // by value: the largest number that stays; by sign: what a number becomes, apart from its sign
    coarse: f32, // by a norm: the power of two that gradients are multiplied by first, to bring a large norm near 1
    fine: f32, // by a norm: what they are multiplied by then; by sign: 1 where the clip acts, else 0
}

fn clip_gradient(n: ClipNumbers, g: f32) -> f32 {
    if (CLIP_KIND == CLIP_VALUE) {
        // Not clamp, which may drop a NaN. Comparisons alone may, too: Mesa's compiler for GL makes min and max of
        // them.
        let clipped = select(select(g, -n.limit, g < -n.limit), n.limit, g > n.limit);
        return select(clipped, g, is_nan(g));
    }
    if (CLIP_KIND == CLIP_SIGN) {
        return select(g, n.limit * sign(g), n.fine != 0.0);
    }
    return g * n.coarse * n.fine;
}

// Where a norm is infinite, the clip makes 0 of every gradient but the infinite ones, whose parameters become NaN so
// that they do not look plausible. Where a norm is NaN, every parameter becomes NaN.
fn clip_is_lost(n: ClipNumbers, raw: u32) -> bool {
    let by_norm = CLIP_KIND != CLIP_VALUE && CLIP_KIND != CLIP_SIGN;
    return by_norm && ((raw & 0x7fffffffu) > 0x7f7fffffu || is_nan(n.fine));
}

// Whether the norm over all gradients decides, not that of each tensor.
fn clip_takes_all() -> bool {
    return CLIP_KIND == CLIP_GLOBAL_NORM || CLIP_KIND == CLIP_SIGN;
}

// Returns `coarse` and `fine` of a tensor, as bits. `root` and `of_params` each hold a norm and the power of two that
// it was multiplied by. `worst` is the worst kind of number among the gradients: 2 for infinity, 3 for NaN.
fn clip_factors(root: vec2<f32>, of_params: vec2<f32>, worst: u32, limit: f32, eps: f32) -> vec2<u32> {
    let one = bitcast<u32>(1.0);
    if (CLIP_KIND == CLIP_VALUE) {
        return vec2<u32>(one, one);
    }
    if (CLIP_KIND == CLIP_SIGN) {
        let exceeds = worst == 2u || (worst != 3u && root.x > limit * root.y);
        return vec2<u32>(one, select(0u, one, exceeds));
    }
    if (worst >= 2u) {
        return vec2<u32>(one, select(0u, 0x7fc00000u, worst == 3u));
    }
    var bound = limit;
    var size = root.x + 1e-6;
    if (CLIP_KIND == CLIP_ADAPTIVE) {
        bound = limit * at_least(of_params.x / of_params.y, eps);
        size = at_least(root.x, 1e-6);
    }
    // A limit that is NaN reaches every element. No comparison may decide that: a compiler may turn it round.
    if (is_nan(bound)) {
        return vec2<u32>(one, 0x7fc00000u);
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

// What every walk does around a rule, whatever the rule.
// Twin: `Common` in src/rule/step.rs

// Each switch is on where any group of the dispatch needs it. A group that does not need it has the number that changes
// nothing.
override MAXIMIZE: bool = false;
override L2: bool = false;
override DECAY: bool = false;
override CAUTIOUS: bool = false;
override UNSCALE: bool = false; // gradients are those of a loss that was scaled
override MEAN: bool = false; // gradients are sums of micro-batches
override SKIPS: bool = false; // `accumulate` keeps a gradient that no step can use recognisable in the sum
override NORM_PARAM: bool = false; // `norms` measures the parameters too

// These say what a walk of sums does.
override BIT_MAX: bool = false; // it takes the largest absolute value, by its bits, and adds nothing up
override SUM_PAIR: bool = true; // the second number of `measure` counts
override SUM_PARAM: bool = false; // `measure` is given the parameter
override SUM_GRAD: bool = true; // `measure` is given the gradient
override SUM_STATE: bool = false; // `measure` is given the state
override SUM_STORES: bool = false; // the state that `measure` leaves is stored

override SHORT: bool = false; // a workgroup of a walk of sums or norms takes several short chunks

override PROBE: bool = false; // a walk over a history looks at the gradient of a trial alone

override PRODUCT: bool = false; // the walk comes behind products and sees what the last one has

// Where a move outside a step leads: 0 to the look-ahead, 1 to evaluation, 2 back to training, 3 along the direction;
// higher ones are those of wrappers.
override MOVE: u32 = 0u;
// On where a move writes something else than the parameters to what is bound in their place.
override READS: bool = false;
const TO_LOOK_AHEAD: u32 = 0u;
const ALONG_DIRECTION: u32 = 3u;

// On where a chunk or tile ends within a vector of four. The words behind the end may belong to another tensor or hold
// anything: a walk leaves them as they were, and adds them to no sum.
override TAILS: bool = true;

// On where the columns of a matrix are not a multiple of four in number, so that four elements may lie in several rows.
override CROSSINGS: bool = true;
override COLUMNS: bool = true; // the rule keeps numbers of columns

// On where the new parameters go elsewhere than the old ones. A step that is skipped copies the old ones there.
override COPIES: bool = false;

// Lanes of a workgroup. A GPU takes 256. A processor that runs shaders in software takes eight lanes at a time through
// the whole shader, so workgroups of eight lanes are fastest there.
override LANES: u32 = 256u;

// Vectors of four that a lane takes one behind the other: one, so that lanes lie side by side, or those of a group of
// the state, which the lane then stores by itself.
override STRETCH: u32 = 1u;

// How many numbers each tensor has in scratch.
override TENSOR_NUMBERS: u32 = 0u;

struct Common {
    sign: f32, // -1 to ascend, else 1
    l2: f32,
    decay: f32,
    cautious: f32,
    first: f32, // 1 where slots that start as the parameter take it
}

// Vectors of four in the bound window of state: an element's first slot, and from one slot to the next.
struct Place { first: u32, span: u32 }

// The place of a workgroup's entry in the table.
fn entry_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return clocks[DISPATCH_FIRST] + group.y * groups.x + group.x;
}

// How many vectors of four hold so many elements.
fn quads(len: u32) -> u32 {
    return (len + 3u) / 4u;
}

// Returns 0 for every length that there is, which no compiler knows. A compiler may contract a product with the sum
// that it goes straight into, as Mesa's llvmpipe does with some, and rounds otherwise then. It cannot where the
// product's bits are combined with this number before, so no switch of a skeleton changes a bit.
fn hidden_zero(len: u32) -> u32 {
    return len >> 31u;
}

// Whether the tensor takes no part in this step. `apply` looks at UNDONE before.
fn is_absent(record: u32) -> bool {
    return record >= UNDONE;
}

// Glue: bindings, and the way between them and the rule's structs.

@group(0) @binding(6) var<storage, read_write> control: array<u32>;
@group(1) @binding(0) var<storage, read> clocks: array<u32>;

const BLOCK_QUADS: u32 = 256u; // vectors of four in a block
const ABSENT: u32 = 0xffffffffu; // for a record: the tensor is not in this step
const UNDONE: u32 = 0xfffffffeu; // the step is skipped, and its look-ahead undone
const OUT_OF_TURN: u32 = 2u; // for a step that is skipped

const DISPATCH_FIRST: u32 = 0u; // The first entry of the table.
const DISPATCH_END: u32 = 1u; // The entry behind the last one.
const DISPATCH_ROWS: u32 = 2u; // Where the row of piece 0 would stand, counted from this dispatch's words, modulo 2^32.
const DISPATCH_STEP: u32 = 3u; // Where the words of the step stand, counted from this dispatch's words.
const DISPATCH_WORDS: u32 = 4u;

const CONTROL_SCALE: u32 = 0u; // f32: what the coming loss is multiplied by. The caller may bind it, so it is the first word.
const CONTROL_UNSCALE: u32 = 1u; // f32: one over the loss scale of the step's gradients.
const CONTROL_GOOD: u32 = 2u; // How many good steps there have been since the loss scale changed last.
const CONTROL_SKIPPED: u32 = 3u; // 0 where the step is applied, 1 where it is skipped, `OUT_OF_TURN` where it ran behind a later one.
const CONTROL_SCALE_USED: u32 = 4u; // f32: the loss scale of the step's gradients.
const CONTROL_ALL: u32 = 5u; // What was measured of all gradients together.
const CONTROL_SEQUENCE: u32 = 10u; // The number of the step or move that ran last.
const CONTROL_CULPRIT: u32 = 11u; // The first tensor whose gradient no step can use, or `ABSENT`.
const CONTROL_CULPRIT_KIND: u32 = 12u; // The worst kind of number in that gradient.
const CONTROL_OTHERS: u32 = 13u; // What was measured of all gradients of each other optimizer that shares the decision.
const CONTROL_WORDS: u32 = 43u;

const TENSOR_RECORD: u32 = 0u; // Where the tensor's record starts in control, or `ABSENT`, or `UNDONE`.
const TENSOR_COARSE: u32 = 1u; // f32: a clip multiplies the tensor's gradients by this power of two first,
const TENSOR_FINE: u32 = 2u; // f32: and by this number after that.
const TENSOR_STATE: u32 = 3u; // Which of the states that the host reckons with the tensor's clock is in.
const TENSOR_MEASURED: u32 = 4u; // What was measured of the tensor's gradients.
const TENSOR_WORDS: u32 = 9u;

const STEP_TENSORS: u32 = 0u; // How many tensors there are.
const STEP_STAGES: u32 = 1u; // What the walk `decide` does: bits of `stage`.
const STEP_CLASS_OF: u32 = 2u; // Where the step says which class each tensor is in: one word a tensor, `ABSENT` for a tensor that sits out.
const STEP_CLASSES: u32 = 3u; // Where the words of the classes stand in the step.
const STEP_CLASSES_COUNT: u32 = 4u; // How many classes there are.
const STEP_RECORDS: u32 = 5u; // Where records stand in control.
const STEP_RECORD_LEN: u32 = 6u; // How many words a record has.
const STEP_NORMS: u32 = 7u; // Where norms stand in control.
const STEP_SEQUENCE: u32 = 8u; // The number of this step or move. Numbers grow in the order of encoding.
const STEP_CLIP_LIMIT: u32 = 9u; // f32: the clip's limit.
const STEP_CLIP_EPS: u32 = 10u; // f32: the least norm that an adaptive clip takes parameters to have.
const STEP_CLIP_OPTION: u32 = 11u; // Which of the options that the device writes is the clip's limit, or `ABSENT`.
const STEP_SKIPS: u32 = 12u; // Whether a step may be skipped.
const STEP_INTERVAL: u32 = 13u; // After how many good steps the loss scale grows; 0 without loss scale.
const STEP_GROWTH: u32 = 14u; // f32: what the loss scale grows by.
const STEP_BACKOFF: u32 = 15u; // f32: what the loss scale shrinks by.
const STEP_BATCHES: u32 = 16u; // f32: how many micro-batches the step has.
const STEP_OPTIONS: u32 = 17u; // Where the options that the device writes stand in control.
const STEP_OPTIONS_COUNT: u32 = 18u; // How many such options there are.
const STEP_OTHERS: u32 = 19u; // How many other optimizers share the decision.
const STEP_WORDS: u32 = 20u;

const MEASURED_GRADS_SMALL: u32 = 0u; // f32: the sum of squares of the gradients below 2^32.
const MEASURED_GRADS_LARGE: u32 = 1u; // f32: the sum of squares of the other gradients.
const MEASURED_PARAMS_SMALL: u32 = 2u; // f32: the sum of squares of the parameters below 2^32.
const MEASURED_PARAMS_LARGE: u32 = 3u; // f32: the sum of squares of the other parameters.
const MEASURED_KIND: u32 = 4u; // The worst kind of gradient: 0 where all are fit for use, else a number of `NonFinite`.
const MEASURED_WORDS: u32 = 5u;

const NORMS_ALL: u32 = 0u; // f32: the norm of all gradients.
const NORMS_WORDS: u32 = 1u;

const CLASS_TENSOR: u32 = 0u; // The first tensor of the class.
const CLASS_FIRST: u32 = 1u; // The number of the first state in the class's table.
const CLASS_STATES: u32 = 2u; // How many states the table has.
const CLASS_TABLE: u32 = 3u; // Where the table stands in the step: `state::LEN` words for each number from `FIRST` on.
const CLASS_WORDS: u32 = 4u;

const STATE_RECORD: u32 = 0u; // Where the numbers of the record stand in the step, or `ABSENT` where the class sits out.
const STATE_APPLIED: u32 = 1u; // The number of the state that follows where the step is applied.
const STATE_WORDS: u32 = 2u;

const STAGE_MEASURE: u32 = 1u;
const STAGE_DECIDE: u32 = 2u;
const STAGE_SELECT: u32 = 4u;
const STAGE_ADVANCE: u32 = 8u;

// Returns a word of the step, which the host wrote.
fn load_word(at: u32) -> u32 {
    return clocks[clocks[DISPATCH_STEP] + at];
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(load_word(at));
}

// Whether the tensor has a gradient in this step.
fn is_present(tensor: u32) -> bool {
    return load_word(STEP_WORDS + tensor) != ABSENT;
}

fn load_batches() -> f32 {
    return load_number(STEP_BATCHES);
}

// Given the bits of a power of two, returns the bits of one over it, exactly.
fn inverse(scale: u32) -> u32 {
    return 0x7f000000u - scale;
}

// One over the loss scale, which the device keeps.
fn load_unscale() -> f32 {
    return bitcast<f32>(inverse(control[CONTROL_SCALE]));
}

// Returns where the words of a tensor start in `control`.
fn of_tensor(tensor: u32) -> u32 {
    return CONTROL_WORDS + TENSOR_WORDS * tensor;
}

// The way to the words that stay on the device from one dispatch to the next.

fn load_control(at: u32) -> u32 {
    return control[at];
}

fn store_control(at: u32, word: u32) {
    control[at] = word;
}

fn load_node(at: u32) -> Node {
    let squares = vec4<u32>(
        control[at + MEASURED_GRADS_SMALL],
        control[at + MEASURED_GRADS_LARGE],
        control[at + MEASURED_PARAMS_SMALL],
        control[at + MEASURED_PARAMS_LARGE],
    );
    return Node(bitcast<vec4<f32>>(squares), control[at + MEASURED_KIND]);
}

fn store_node(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    control[at + MEASURED_GRADS_SMALL] = squares.x;
    control[at + MEASURED_GRADS_LARGE] = squares.y;
    control[at + MEASURED_PARAMS_SMALL] = squares.z;
    control[at + MEASURED_PARAMS_LARGE] = squares.w;
    control[at + MEASURED_KIND] = node.kind;
}

fn load_all() -> Node {
    return load_node(CONTROL_ALL);
}

fn store_all(node: Node) {
    store_node(CONTROL_ALL, node);
}

// Returns option `i` of those that the device writes.
fn load_option(i: u32) -> f32 {
    return bitcast<f32>(control[load_word(STEP_OPTIONS) + i]);
}

// Returns what another optimizer of the step, number `i`, has measured of all its gradients.
fn load_other(i: u32) -> Node {
    return load_node(CONTROL_OTHERS + MEASURED_WORDS * i);
}

fn load_measured(tensor: u32) -> Node {
    return load_node(of_tensor(tensor) + TENSOR_MEASURED);
}

fn store_measured(tensor: u32, node: Node) {
    store_node(of_tensor(tensor) + TENSOR_MEASURED, node);
}

fn store_record(tensor: u32, record: u32) {
    control[of_tensor(tensor) + TENSOR_RECORD] = record;
}

fn store_factors(tensor: u32, factors: vec2<u32>) {
    control[of_tensor(tensor) + TENSOR_COARSE] = factors.x;
    control[of_tensor(tensor) + TENSOR_FINE] = factors.y;
}

// The number of the state that the tensor's clock is in.
fn load_state(tensor: u32) -> u32 {
    return control[of_tensor(tensor) + TENSOR_STATE];
}

fn store_state(tensor: u32, state: u32) {
    control[of_tensor(tensor) + TENSOR_STATE] = state;
}

// Hooks of wrappers, in the order in which they run.

fn wrapped_takes_all() -> bool {
    var all = false;
    all |= clip_takes_all();
    return all;
}

fn wrapped_factors(
    root: vec2<f32>, of_params: vec2<f32>, worst: u32, limit: f32, eps: f32,
) -> vec2<u32> {
    var factors = vec2<u32>(bitcast<u32>(1.0));
    factors = clip_factors(root, of_params, worst, limit, eps);
    return factors;
}

fn wrapped_after(
    scale: f32, good: u32, is_skipped: bool, growth: f32, backoff: f32, interval: u32,
) -> vec2<u32> {
    var next = vec2<u32>(bitcast<u32>(scale), good);
    next = loss_scale_after(scale, good, is_skipped, growth, backoff, interval);
    return next;
}


// What the walks over gradients combine: what is known of the gradients of a tensor, or of a part of one.
// Twin: `Measured` in src/control.rs

struct Node {
    // Four sums of squares. The first is of gradients below 2^32, each multiplied by 2^15; the second is of the others,
    // each multiplied by 2^-80. The third and fourth are the same of parameters. So the squares of 2^30 of f32's
    // largest numbers do not overflow.
    squares: vec4<f32>,
    kind: u32, // the worst: 0 none, 1 of 2^63 or more, 2 infinite, 3 NaN
}

fn combine(a: Node, b: Node) -> Node {
    return Node(a.squares + b.squares, max(a.kind, b.kind));
}

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

