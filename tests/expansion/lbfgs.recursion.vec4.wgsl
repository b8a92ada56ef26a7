// lbfgs / recursion / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// All tensors whose sums one workgroup combines.
struct ModelSums {
    tensor: u32, // a place in the list of tensors, which the walk does not use
    len: u32, // 1, since there is something to combine
    tensors: u32, // how many tensors may have sums
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> ModelSums {
    if (i >= clocks[DISPATCH_END]) {
        return ModelSums();
    }
    let a = tables[4u * i + 0u];
    return ModelSums(
        a.x,
        a.y,
        a.z,
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

const MEMORY: u32 = 13u; // words before the history's

// Where the numbers of a history stand in scratch, behind the rule's numbers of the model. A pair is known by its place
// in the history, which is a ring.

// Of the movement of one pair with the change of another.
fn at_moved_change(moved: u32, change: u32) -> u32 {
    return MEMORY + HISTORY * moved + change;
}

// Of the changes of two pairs.
fn at_changes(a: u32, b: u32) -> u32 {
    return MEMORY + HISTORY * (HISTORY + a) + b;
}

// Of a pair's change in the direction, subtracted.
fn at_change_factor(pair: u32) -> u32 {
    return MEMORY + 2u * HISTORY * HISTORY + pair;
}

// Of a pair's movement in the direction.
fn at_moved_factor(pair: u32) -> u32 {
    return at_change_factor(HISTORY + pair);
}

// Of a pair's movement with what the direction is so far.
fn at_along_moved(pair: u32) -> u32 {
    return at_change_factor(2u * HISTORY + pair);
}

// Of a pair's change with what the direction is so far; behind all pairs, of the gradient.
fn at_along_change(pair: u32) -> u32 {
    return at_change_factor(3u * HISTORY + pair);
}

// Of a pair's movement with the gradient.
fn at_moved_grad(pair: u32) -> u32 {
    return at_change_factor(4u * HISTORY + 1u + pair);
}

// Of a pair's change with the gradient.
fn at_change_grad(pair: u32) -> u32 {
    return at_change_factor(5u * HISTORY + 1u + pair);
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(scratch[at]);
}

fn store_number(at: u32, number: f32) {
    scratch[at] = bitcast<u32>(number);
}

// The place in the ring of the pair that `age` pairs are older than, where there are `pairs` pairs.
fn pair_at(age: u32, pairs: u32, next: u32) -> u32 {
    return (next + HISTORY - pairs + age) % HISTORY;
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

// Combines the inner products of all tensors, makes the coefficients of the direction of them, and calls `finish` with
// the numbers of the first tensor that takes part: one workgroup. Where no tensor takes part, nothing changes. Of a
// trial it only combines what the trial shows.
// Twin: `recursion` in src/history.rs

const CURVATURE_MIN: f32 = 1e-10; // a pair that is kept has more

var<workgroup> present: atomic<u32>;
var<workgroup> first: u32;
var<workgroup> pairs: u32;
var<workgroup> next: u32;
var<workgroup> newest: u32;
var<workgroup> scale: f32;

@compute @workgroup_size(LANES)
fn recursion(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let model = load_entry(entry_index(group, groups));
    let zero = hidden_zero(model.len);
    if (lane == 0u) {
        atomicStore(&present, ABSENT);
    }
    workgroupBarrier();
    for (var tensor = lane; tensor < model.tensors; tensor += LANES) {
        if (!is_absent(load_record(tensor))) {
            atomicMin(&present, tensor);
        }
    }
    workgroupBarrier();
    if (lane == 0u) {
        first = atomicLoad(&present);
    }
    if (workgroupUniformLoad(&first) == ABSENT) {
        return;
    }
    add_up(model.tensors, lane);
    if (PROBE) {
        if (lane == 0u) {
            keep_trial();
        }
    } else {
        make_coefficients(lane, zero);
    }
    storageBarrier();
    clear_rows(model.tensors, lane);
}

// Makes the coefficients of the direction, and calls `finish`.
fn make_coefficients(lane: u32, zero: u32) {
    if (lane == 0u) {
        decide();
    }
    workgroupBarrier();
    gather(lane);
    storageBarrier();
    let count = workgroupUniformLoad(&pairs);
    for (var age = count; age > 0u; age -= 1u) {
        let pair = pair_at(age - 1u, count, next);
        let factor = load_number(at_along_moved(pair)) / load_number(at_moved_change(pair, pair));
        for (var i = lane; i < count; i += LANES) {
            let other = pair_at(i, count, next);
            if (i + 1u < age) {
                add_to(at_along_moved(other), -factor, load_number(at_moved_change(other, pair)), zero);
            }
            add_to(at_along_change(other), -factor, load_number(at_changes(other, pair)), zero);
        }
        if (lane == 0u) {
            add_to(at_along_change(HISTORY), -factor, load_number(at_change_grad(pair)), zero);
            store_number(at_change_factor(pair), factor);
        }
        storageBarrier();
    }
    for (var i = lane; i <= count; i += LANES) {
        let at = at_along_change(select(pair_at(i, count, next), HISTORY, i == count));
        store_number(at, scale * load_number(at));
    }
    storageBarrier();
    for (var age = 0u; age < count; age += 1u) {
        let pair = pair_at(age, count, next);
        let along = load_number(at_along_change(pair)) / load_number(at_moved_change(pair, pair));
        let factor = load_number(at_change_factor(pair)) - along;
        for (var i = lane; i < count; i += LANES) {
            let other = pair_at(i, count, next);
            if (i > age) {
                add_to(at_along_change(other), factor, load_number(at_moved_change(pair, other)), zero);
            }
        }
        if (lane == 0u) {
            add_to(at_along_change(HISTORY), factor, load_number(at_moved_grad(pair)), zero);
            store_number(at_moved_factor(pair), factor);
        }
        storageBarrier();
    }
    if (lane == 0u) {
        conclude();
    }
}

// A tensor that sits the next step or trial out, or has no elements, adds zeros to it.
fn clear_rows(tensors: u32, lane: u32) {
    let rows = BEFORE_PAIRS + HISTORY;
    for (var i = lane; i < rows * tensors; i += LANES) {
        store_partial(row_of(i / rows, i % rows), Node());
    }
}

// Keeps what a trial shows for the host.
fn keep_trial() {
    var k = load_tensor(first);
    let row = row_of(0u, OF_GRAD);
    k.along = load_number(row + INNER_MOVED_GRAD);
    k.grad_max = load_number(row + INNER_MOVED_CHANGE);
    k.direction_max = load_number(row + INNER_CHANGE_GRAD);
    store_tensor(first, k);
}

// Adds the rows of all tensors up in a binary tree over the tensors, into those of the first.
fn add_up(tensors: u32, lane: u32) {
    let rows = rows_with(u32(load_tensor(0u).pairs));
    for (var stride = 1u; stride < tensors; stride *= 2u) {
        let nodes = (tensors + stride - 1u) / (2u * stride);
        for (var i = lane; i < rows * nodes; i += LANES) {
            let tensor = 2u * stride * (i / rows);
            let at = row_of(tensor, i % rows);
            let other = row_of(tensor + stride, i % rows);
            store_partial(at, combine(load_partial(at), load_partial(other)));
        }
        storageBarrier();
    }
}

// Decides whether the newest pair is kept, and where.
fn decide() {
    var k = load_tensor(first);
    let of_grad = row_of(0u, OF_GRAD);
    let size = load_number(of_grad + INNER_MOVED_CHANGE);
    let row = row_of(0u, OF_NEWEST);
    let curvature = load_number(row + INNER_MOVED_CHANGE);
    k.updates = select(1.0, 0.0, size == 0.0);
    k.last = k.step;
    k.kept = 0.0;
    newest = HISTORY;
    if (k.updates != 0.0 && k.started != 0.0 && curvature > CURVATURE_MIN) {
        k.kept = 1.0;
        k.scale = curvature / load_number(row + INNER_CHANGE_CHANGE);
        newest = u32(k.next);
        k.next = f32((newest + 1u) % HISTORY);
        k.pairs = smaller(k.pairs + 1.0, f32(HISTORY));
    }
    pairs = u32(k.pairs);
    next = u32(k.next);
    scale = k.scale;
    store_tensor(first, k);
}

// Puts the products with the newest pair among those of the other pairs, and takes those with the gradient.
fn gather(lane: u32) {
    for (var pair = lane; pair < pairs; pair += LANES) {
        var row = row_of(0u, BEFORE_PAIRS + pair);
        if (pair == newest) {
            row = row_of(0u, OF_NEWEST);
            store_number(at_moved_change(pair, pair), load_number(row + INNER_MOVED_CHANGE));
            store_number(at_changes(pair, pair), load_number(row + INNER_CHANGE_CHANGE));
        } else if (newest < HISTORY) {
            store_number(at_moved_change(pair, newest), load_number(row + INNER_MOVED_CHANGE));
            store_number(at_moved_change(newest, pair), load_number(row + INNER_CHANGE_MOVED));
            store_number(at_changes(pair, newest), load_number(row + INNER_CHANGE_CHANGE));
            store_number(at_changes(newest, pair), load_number(row + INNER_CHANGE_CHANGE));
        }
        let moved = load_number(row + INNER_MOVED_GRAD);
        let change = load_number(row + INNER_CHANGE_GRAD);
        store_number(at_moved_grad(pair), moved);
        store_number(at_change_grad(pair), change);
        store_number(at_along_moved(pair), -moved);
        store_number(at_along_change(pair), -change);
    }
    if (lane == 0u) {
        let of_grad = row_of(0u, OF_GRAD);
        store_number(at_along_change(HISTORY), -load_number(of_grad + INNER_MOVED_GRAD));
    }
}

// Adds a product to a number, rounded twice.
fn add_to(at: u32, factor: f32, number: f32, zero: u32) {
    let product = bitcast<f32>(bitcast<u32>(factor * number) ^ zero);
    store_number(at, load_number(at) + product);
}

// Hands the length of a first step, or 1, and the direction's product with the gradient to the rule.
fn conclude() {
    var k = load_tensor(first);
    if (k.updates == 0.0) {
        k.moves = 0.0;
    } else {
        let of_grad = row_of(0u, OF_GRAD);
        let size = load_number(of_grad + INNER_MOVED_CHANGE);
        // In PyTorch, too, a size that is NaN leaves a length of 1.
        let length = select(1.0, 1.0 / size, k.started == 0.0 && 1.0 / size < 1.0);
        finish(load_hyper(load_record(first)), vec2<f32>(length, load_number(at_along_change(HISTORY))), 1.0, &k);
        k.started = 1.0;
    }
    store_tensor(first, k);
}

