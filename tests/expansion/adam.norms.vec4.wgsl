// norms / param f32, grad f32, vec4. Composed by wgpu-optim 0.2.0.

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

// f32, a word of 32 bits an element.

fn decode_f32(words: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(words);
}

fn encode_f32(numbers: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(numbers);
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

@group(0) @binding(1) var<storage, read> grads: array<vec4<u32>>;
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

const ROW_PARAM: u32 = 0u; // Elements before the tensor's parameters, modulo 2^32: the page need not hold the tensor's first.
const ROW_GRAD: u32 = 1u; // Elements before its gradients, likewise.
const ROW_WORDS: u32 = 2u;

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

// Adjacent elements of a tensor, which one workgroup takes.
struct Chunk {
    tensor: u32, // the tensor's place in the list
    len: u32, // how many elements the chunk has
    piece: u32, // the piece of the tensor that the chunk belongs to
    first: u32, // elements of the tensor before the first
    state: u32, // how many vectors of four of the bound state come before the chunk
    partial: u32, // where the chunk's partial result stands in scratch, `ABSENT` where it is the tensor's only chunk
    column_numbers: u32, // where the columns of the first element's matrix stand in the bound lines
    seen_rows: u32, // where what elements see of the first element's row stands in the bound lines
    rows: u32, // rows of a matrix
    columns: u32, // columns of a matrix
    top: u32, // the first element's row in its matrix
    left: u32, // the first element's column in its matrix
    product: u32, // where the last product of the tensor's matrix stands in the bound work buffer, or what is back from the bases
    start: u32, // where the first product finds that matrix, or where the tensor stands in the bases
    turned: u32, // where the first product finds its transpose; with bases, words from the spread to the gradient
    stream: u32, // the tensor's stream of random numbers
    param: u32, // Elements before the tensor's parameters, modulo 2^32: the page need not hold the tensor's first.
    grad: u32, // Elements before its gradients, likewise.
    out: u32, // Elements before the place that its new parameters go to, likewise.
    param_page: u32, // The page of the parameters.
    grad_page: u32, // The page of the gradients.
    out_page: u32, // The page that the new parameters go to, `ABSENT` for a tensor that is not in this step.
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> Chunk {
    if (i >= clocks[DISPATCH_END]) {
        return Chunk();
    }
    let a = tables[4u * i + 0u];
    let b = tables[4u * i + 1u];
    let c = tables[4u * i + 2u];
    let d = tables[4u * i + 3u];
    let row = clocks[DISPATCH_ROWS] + ROW_WORDS * a.z;
    return Chunk(
        a.x,
        a.y,
        a.z,
        a.w,
        b.x,
        b.y,
        b.z,
        b.w,
        c.x,
        c.y,
        c.z,
        c.w,
        d.x,
        d.y,
        d.z,
        d.w,
        clocks[row + ROW_PARAM] + a.w,
        clocks[row + ROW_GRAD] + a.w,
        clocks[row + ROW_PARAM] + a.w,
        0u,
        0u,
        0u,
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

fn load_param(chunk: Chunk, q: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn load_grad_words(chunk: Chunk, q: u32) -> vec4<u32> {
    return (grads[chunk.grad / 4u + q]);
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

// Combines what `leaf_of` saw of a chunk's elements over each block, and then over the chunk. A block has 32 leaves.
// The tree is that of `parts::tree` in src/parts.rs, however long the chunk is.

const LEAVES: u32 = 256u; // of eight blocks
const NODES: u32 = 64u; // of eight blocks, each of four leaves
const QUADS_OF_BLOCK: u32 = 256u;
const QUADS_OF_EIGHT: u32 = 64u; // of eight leaves

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> nodes: array<Node, NODES>;

// Leaves the result in the first of the nodes, where lane 0 may read it.
fn combine_chunk(chunk: Chunk, eyes: Eyes, lane: u32) {
    // Blocks that the chunk lacks would add zeros, which change no sum.
    let blocks = (quads(chunk.len) + QUADS_OF_BLOCK - 1u) / QUADS_OF_BLOCK;
    let live = blocks * 8u;
    // The first two levels of the tree make 8 nodes of a block's 32 leaves. Where lanes are few, one lane makes a node
    // of its four leaves itself.
    if (LANES <= NODES) {
        // All lanes come to each leaf together, as those that share a group of the state must.
        for (var first = 0u; first < live; first += LANES) {
            let node = first + lane;
            let leaf = node / 8u * 32u + node % 8u;
            // The leaves are read in the order in which they lie in memory.
            let a = leaf_of(chunk, eyes, leaf);
            var all = a;
            // In a chunk that fills no more than the first eight leaves, the others hold zeros, which change no sum.
            if (quads(chunk.len) > QUADS_OF_EIGHT) {
                let b = leaf_of(chunk, eyes, leaf + 8u);
                let d = leaf_of(chunk, eyes, leaf + 16u);
                let e = leaf_of(chunk, eyes, leaf + 24u);
                all = combine(combine(a, d), combine(b, e));
            }
            if (node < NODES) {
                nodes[node] = all;
            }
        }
    } else {
        for (var first = 0u; first < 4u * live; first += LANES) {
            let leaf = first + lane;
            let node = leaf_of(chunk, eyes, leaf);
            if (leaf < LEAVES) {
                leaves[leaf] = node;
            }
        }
        workgroupBarrier();
        for (var node = lane; node < live; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            let even = combine(leaves[leaf], leaves[leaf + 16u]);
            let odd = combine(leaves[leaf + 8u], leaves[leaf + 24u]);
            nodes[node] = combine(even, odd);
        }
    }
    for (var stride = 4u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < blocks * stride; i += LANES) {
            let node = i / stride * 8u + i % stride;
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
    for (var stride = 8u; stride < live; stride *= 2u) {
        workgroupBarrier();
        for (var node = 2u * stride * lane; node + stride < live; node += 2u * stride * LANES) {
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
}

// What a workgroup of a walk of sums or norms combines: a chunk, or several short ones. The walk says which chunks it
// takes (`is_taken`), what it must know of one (`eyes_of`), and what becomes of the result (`leave`).
// Twin: `Window::walked` in src/plan/place.rs

const SIDE_BY_SIDE: u32 = 8u; // short chunks

fn combine_chunks(group: vec3<u32>, groups: vec3<u32>, lane: u32) {
    if (SHORT) {
        combine_short(clocks[DISPATCH_FIRST] + SIDE_BY_SIDE * (group.y * groups.x + group.x), lane);
        return;
    }
    let chunk = load_entry(entry_index(group, groups));
    if (!is_taken(chunk)) {
        return;
    }
    combine_chunk(chunk, eyes_of(chunk, lane), lane);
    if (lane == 0u) {
        leave(chunk, nodes[0]);
    }
}

// Takes several chunks side by side, none of which fills more than the first eight leaves. So the lanes wait for each
// other once for all of them.
fn combine_short(first: u32, lane: u32) {
    for (var n = 0u; n < NODES; n += LANES) {
        let i = n + lane;
        var chunk = load_entry(first + i / 8u);
        var eyes = Eyes();
        if (i < NODES && is_taken(chunk)) {
            eyes = eyes_of(chunk, lane);
        } else {
            chunk.len = 0u;
        }
        let leaf = leaf_of(chunk, eyes, i % 8u);
        if (i < NODES) {
            nodes[i] = leaf;
        }
    }
    workgroupBarrier();
    for (var i = lane; i < SIDE_BY_SIDE; i += LANES) {
        let chunk = load_entry(first + i);
        if (is_taken(chunk)) {
            let at = 8u * i;
            let even = combine(combine(nodes[at], nodes[at + 4u]), combine(nodes[at + 2u], nodes[at + 6u]));
            let odd = combine(combine(nodes[at + 1u], nodes[at + 5u]), combine(nodes[at + 3u], nodes[at + 7u]));
            leave(chunk, combine(even, odd));
        }
    }
}

// Measures the gradients as they lie in memory, unscaled and averaged: one partial result a chunk. What is measured of
// a tensor of one chunk goes to control at once.

// The numbers that `leaf_of` divides gradients by.
struct Eyes { unscale: f32, batches: f32 }

@compute @workgroup_size(LANES)
fn norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    combine_chunks(group, groups, lane);
}

fn is_taken(chunk: Chunk) -> bool {
    return chunk.len > 0u && is_present(chunk.tensor);
}

fn eyes_of(chunk: Chunk, lane: u32) -> Eyes {
    return Eyes(load_unscale(), load_batches());
}

fn leave(chunk: Chunk, node: Node) {
    if (chunk.partial == ABSENT) {
        store_measured(chunk.tensor, node);
    } else {
        store_partial(chunk.partial, node);
    }
}

// A leaf is 8 of a block's 256 quads. Eight successive leaves take turns over 64 adjacent quads. Nearly every leaf
// holds only numbers below 2^32, whose squares one sum holds; a leaf that does not is read again by `large_leaf_of`.
fn leaf_of(chunk: Chunk, eyes: Eyes, leaf: u32) -> Node {
    let first = leaf / 8u * 64u + leaf % 8u;
    let end = min(leaf / 8u * 64u + 64u, quads(chunk.len));
    let zero = vec4<u32>(hidden_zero(chunk.len));
    let unit = 32768.0 * select(1.0, eyes.unscale, UNSCALE); // both are powers of two
    var of_grads = 0.0;
    var of_params = 0.0;
    for (var q = first; q < end; q += 8u) {
        var g = bitcast<vec4<f32>>(words_of(chunk, q)) * unit;
        if (MEAN) {
            g /= eyes.batches;
        }
        of_grads += sum_of(g * g, zero);
        if (NORM_PARAM) {
            let p = param_of(chunk, q) * 32768.0;
            of_params += sum_of(p * p, zero);
        }
    }
    // In these units the square of 2^32 is 2^94, and the square of a number that is not finite is not finite either.
    let sizes = bitcast<vec2<u32>>(vec2<f32>(of_grads, of_params)) & SIZE.xy;
    if (max(sizes.x, sizes.y) < 0x6e800000u) {
        return Node(vec4<f32>(of_grads, 0.0, of_params, 0.0), 0u);
    }
    return large_leaf_of(chunk, eyes, first, end);
}

const SIZE = vec4<u32>(0x7fffffffu);

fn words_of(chunk: Chunk, q: u32) -> vec4<u32> {
    let words = load_grad_words(chunk, q);
    if (TAILS) {
        // Padding may hold anything.
        return select(vec4<u32>(), words, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }
    return words;
}

fn param_of(chunk: Chunk, q: u32) -> vec4<f32> {
    let p = load_param(chunk, q);
    if (TAILS) {
        return select(vec4<f32>(), p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }
    return p;
}

// The squares go through bits that no compiler can trace, so that none contracts a square with the sum.
fn sum_of(squares: vec4<f32>, zero: vec4<u32>) -> f32 {
    let a = bitcast<vec4<f32>>(bitcast<vec4<u32>>(squares) ^ zero);
    return (a.x + a.y) + (a.z + a.w);
}

fn large_leaf_of(chunk: Chunk, eyes: Eyes, first: u32, end: u32) -> Node {
    let zero = vec4<u32>(hidden_zero(chunk.len));
    var node = Node();
    for (var q = first; q < end; q += 8u) {
        let words = words_of(chunk, q);
        var g = bitcast<vec4<f32>>(words);
        if (UNSCALE) {
            g *= eyes.unscale;
        }
        if (MEAN) {
            g /= eyes.batches;
        }
        // The kinds are found by bits, since a compiler may take it that no float is NaN.
        let raw = words & SIZE;
        let bits = (bitcast<vec4<u32>>(g) ^ zero) & SIZE;
        let kinds = vec4<u32>(bits >= vec4<u32>(0x5f000000u)) + vec4<u32>(raw >= vec4<u32>(0x7f800000u))
            + vec4<u32>(raw > vec4<u32>(0x7f800000u));
        var squares = vec4<f32>(squares_of(g, bits, zero), 0.0, 0.0);
        if (NORM_PARAM) {
            let p = param_of(chunk, q);
            squares = vec4<f32>(squares.xy, squares_of(p, (bitcast<vec4<u32>>(p) ^ zero) & SIZE, zero));
        }
        node = combine(node, Node(squares, max(max(kinds.x, kinds.y), max(kinds.z, kinds.w))));
    }
    return node;
}

// The two sums of squares of four numbers, given their bits without the sign. A number that is not finite adds nothing
// to them; its kind tells of it.
fn squares_of(x: vec4<f32>, bits: vec4<u32>, zero: vec4<u32>) -> vec2<f32> {
    let is_large = bits >= vec4<u32>(0x4f800000u);
    let is_finite = bits < vec4<u32>(0x7f800000u);
    let small = select(x * 32768.0, vec4<f32>(), is_large);
    let large = select(vec4<f32>(), x * bitcast<f32>(0x17800000u), is_large & is_finite);
    return vec2<f32>(sum_of(small * small, zero), sum_of(large * large, zero));
}

