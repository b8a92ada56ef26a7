// lbfgs / finish_inner / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// L-BFGS: the direction of a quasi-Newton method from the last pairs of movements and changes of the gradient (Liu and
// Nocedal 1989). The walks over the history are those of the skeleton.
// Twin: src/rules/lbfgs.rs

override HISTORY: u32 = 100u; // pairs that are kept at most

struct Hyper { lr: f32 }
struct State { g_prev: f32, d: f32, s: f32, y: f32 }
struct Tensor {
    scale: f32, // of the inverse of the Hessian before the first pair
    step: f32, // what the direction is multiplied by
    last: f32, // the same of the step before this one
    pairs: f32,
    next: f32, // the place of the next pair
    started: f32, // 1 behind the first step, else 0
    kept: f32, // 1 where this step's pair is kept, else 0
    updates: f32, // 0 where all gradients are 0, else 1
    moves: f32, // 0 where the parameters stay, else 1
    slope: f32, // the product of gradient and direction
    along: f32, // the product of a trial's gradient and the direction
    grad_max: f32, // the size of the largest element of a trial's gradient
    direction_max: f32, // the same of the direction
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).step = sums.x * h.lr;
    (*k).slope = sums.y;
    (*k).moves = select(1.0, 0.0, sums.y > 0.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return select(-(k.step * (*s).d), 0.0, k.moves == 0.0);
}

// A trial goes from where the direction was made.
fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p + h.lr * (*s).d;
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    return vec2<f32>(0.0, 0.0);
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return g;
}

fn measure_product(h: Hyper, k: Tensor, s: State) -> vec2<f32> {
    return vec2<f32>(0.0, 0.0);
}

fn finish_product(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {}

fn of_shape(h: Hyper, rows: f32, columns: f32, k: ptr<function, Tensor>) {}

fn decay_rate(h: Hyper, k: Tensor) -> f32 {
    return 1.0;
}

fn land(h: Hyper, k: Tensor, p: f32, u: f32, s: ptr<function, State>) -> f32 {
    return p - u;
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

const INNER_MOVED_GRAD: u32 = 0u; // f32: of the movement with the gradient; in the first row, of the gradient with itself.
const INNER_MOVED_CHANGE: u32 = 1u; // f32: of the movement with the last change of the gradient; in the first row, the gradient's sizes added up.
const INNER_CHANGE_GRAD: u32 = 2u; // f32: of the change with the gradient.
const INNER_CHANGE_CHANGE: u32 = 3u; // f32: of the change with the last change of the gradient.
const INNER_CHANGE_MOVED: u32 = 4u; // f32: of the change with the last movement.
const INNER_WORDS: u32 = 5u;

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

// Returns where the tensor's record stands, as the host wrote it, or ABSENT or UNDONE where the tensor has none in this
// step.
fn load_record(tensor: u32) -> u32 {
    let words = clocks[DISPATCH_STEP];
    let record = clocks[words + tensor];
    return select(words + record, record, record >= UNDONE);
}

fn load_common(record: u32) -> Common {
    return Common(
        bitcast<f32>(clocks[record + 0u]),
        bitcast<f32>(clocks[record + 1u]),
        bitcast<f32>(clocks[record + 2u]),
        bitcast<f32>(clocks[record + 3u]),
        bitcast<f32>(clocks[record + 4u]),
    );
}

fn load_hyper(record: u32) -> Hyper {
    return Hyper(
        bitcast<f32>(clocks[record + 5u]),
    );
}

fn load_tensor(tensor: u32) -> Tensor {
    return Tensor(
        bitcast<f32>(scratch[0u]),
        bitcast<f32>(scratch[1u]),
        bitcast<f32>(scratch[2u]),
        bitcast<f32>(scratch[3u]),
        bitcast<f32>(scratch[4u]),
        bitcast<f32>(scratch[5u]),
        bitcast<f32>(scratch[6u]),
        bitcast<f32>(scratch[7u]),
        bitcast<f32>(scratch[8u]),
        bitcast<f32>(scratch[9u]),
        bitcast<f32>(scratch[10u]),
        bitcast<f32>(scratch[11u]),
        bitcast<f32>(scratch[12u]),
    );
}

fn load_factor(tensor: u32) -> f32 {
    return 1.0;
}

fn store_tensor(tensor: u32, k: Tensor) {
    scratch[0u] = bitcast<u32>(k.scale);
    scratch[1u] = bitcast<u32>(k.step);
    scratch[2u] = bitcast<u32>(k.last);
    scratch[3u] = bitcast<u32>(k.pairs);
    scratch[4u] = bitcast<u32>(k.next);
    scratch[5u] = bitcast<u32>(k.started);
    scratch[6u] = bitcast<u32>(k.kept);
    scratch[7u] = bitcast<u32>(k.updates);
    scratch[8u] = bitcast<u32>(k.moves);
    scratch[9u] = bitcast<u32>(k.slope);
    scratch[10u] = bitcast<u32>(k.along);
    scratch[11u] = bitcast<u32>(k.grad_max);
    scratch[12u] = bitcast<u32>(k.direction_max);
}

// Where the sums of a tensor stand.
fn sums_of(tensor: u32) -> u32 {
    return 20614u + TENSOR_NUMBERS * tensor + 0u;
}

// The way to the inner products of one row of a history, as bits.

fn load_partial(at: u32) -> Node {
    let first = vec4<u32>(
        scratch[at + INNER_MOVED_GRAD],
        scratch[at + INNER_MOVED_CHANGE],
        scratch[at + INNER_CHANGE_GRAD],
        scratch[at + INNER_CHANGE_CHANGE],
    );
    return Node(first, scratch[at + INNER_CHANGE_MOVED]);
}

fn store_partial(at: u32, node: Node) {
    scratch[at + INNER_MOVED_GRAD] = node.first.x;
    scratch[at + INNER_MOVED_CHANGE] = node.first.y;
    scratch[at + INNER_CHANGE_GRAD] = node.first.z;
    scratch[at + INNER_CHANGE_CHANGE] = node.first.w;
    scratch[at + INNER_CHANGE_MOVED] = node.last;
}

// Where a row of a tensor's inner products stands.
fn row_of(tensor: u32, row: u32) -> u32 {
    return sums_of(tensor) + INNER_WORDS * row;
}

// What the walks over a history combine: the inner products of one row, as bits.
// Twin: `Inner` in src/history.rs

// The rows before those of pairs.
const OF_GRAD: u32 = 0u;
const OF_NEWEST: u32 = 1u;
const BEFORE_PAIRS: u32 = 2u;

// The rows where there are so many pairs. A trial has one.
fn rows_with(pairs: u32) -> u32 {
    return select(BEFORE_PAIRS + pairs, 1u, PROBE);
}

struct Node { first: vec4<u32>, last: u32 }

// Makes one partial result of two.
fn combine(a: Node, b: Node) -> Node {
    if (PROBE) {
        let sizes = max(a.first.yz, b.first.yz);
        let slope = bitcast<f32>(a.first.x) + bitcast<f32>(b.first.x);
        return Node(vec4<u32>(bitcast<u32>(slope), sizes, 0u), 0u);
    }
    let first = bitcast<vec4<f32>>(a.first) + bitcast<vec4<f32>>(b.first);
    return Node(bitcast<vec4<u32>>(first), bitcast<u32>(bitcast<f32>(a.last) + bitcast<f32>(b.last)));
}

// Combines the inner products of a tensor's chunks, row by row, in a binary tree over the chunks: one workgroup a
// tensor.

@compute @workgroup_size(LANES)
fn finish_inner(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    if (is_absent(load_record(sums.tensor)) || sums.len == 0u) {
        return;
    }
    let rows = rows_with(u32(load_tensor(sums.tensor).pairs));
    let count = sums.partials;
    for (var stride = 1u; stride < count; stride *= 2u) {
        let pairs = (count + stride - 1u) / (2u * stride);
        for (var i = lane; i < rows * pairs; i += LANES) {
            let at = sums.partial + INNER_WORDS * (i % rows) + sums.stride * (2u * stride * (i / rows));
            store_partial(at, combine(load_partial(at), load_partial(at + sums.stride * stride)));
        }
        storageBarrier();
    }
    for (var row = lane; row < rows; row += LANES) {
        let first = sums.partial + INNER_WORDS * row;
        store_partial(row_of(sums.tensor, row), load_partial(first));
    }
}

