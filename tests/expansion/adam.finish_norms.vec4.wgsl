// finish_norms / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> scratch: array<u32>;
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

// A tensor whose chunks have left partial results, which one workgroup combines.
struct TensorSums {
    tensor: u32, // the tensor's place in the list
    len: u32, // how many elements the tensor has
    partials: u32, // how many partial results there are
    stride: u32, // words from one partial result to the next
    partial: u32, // where the first partial result stands in scratch
    rows: u32, // rows of the tensor's matrix, where its rule takes products
    columns: u32, // columns of that matrix
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> TensorSums {
    if (i >= clocks[DISPATCH_END]) {
        return TensorSums();
    }
    let a = tables[4u * i + 0u];
    let b = tables[4u * i + 1u];
    return TensorSums(
        a.x,
        a.y,
        a.z,
        a.w,
        b.x,
        b.y,
        b.z,
    );
}

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

// The way to a partial result of the walk that measures gradients.

fn load_partial(at: u32) -> Node {
    let squares = vec4<u32>(
        scratch[at + MEASURED_GRADS_SMALL],
        scratch[at + MEASURED_GRADS_LARGE],
        scratch[at + MEASURED_PARAMS_SMALL],
        scratch[at + MEASURED_PARAMS_LARGE],
    );
    return Node(bitcast<vec4<f32>>(squares), scratch[at + MEASURED_KIND]);
}

fn store_partial(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    scratch[at + MEASURED_GRADS_SMALL] = squares.x;
    scratch[at + MEASURED_GRADS_LARGE] = squares.y;
    scratch[at + MEASURED_PARAMS_SMALL] = squares.z;
    scratch[at + MEASURED_PARAMS_LARGE] = squares.w;
    scratch[at + MEASURED_KIND] = node.kind;
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

// Combines a tensor's partial results in a binary tree over their places, and leaves the result in the first one.

fn combine_partials(sums: TensorSums, lane: u32) {
    let count = sums.partials;
    let step = sums.stride;
    for (var stride = 1u; stride < count; stride *= 2u) {
        for (var i = 2u * stride * lane; i + stride < count; i += 2u * stride * LANES) {
            let at = sums.partial + step * i;
            store_partial(at, combine(load_partial(at), load_partial(at + step * stride)));
        }
        storageBarrier();
    }
}

// Combines what was measured of a tensor's chunks, and keeps it in control: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    if (!is_present(sums.tensor) || sums.len == 0u) {
        return;
    }
    combine_partials(sums, lane);
    if (lane == 0u) {
        store_measured(sums.tensor, load_partial(sums.partial));
    }
}

