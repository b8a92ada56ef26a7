// lbfgs / recall / param f32, grad f32, vec4. Composed by wgpu-optim 0.2.0.

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

@group(0) @binding(0) var<storage, read_write> params: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> grads: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> states: array<vec4<u32>>;
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

const ROW_PARAM: u32 = 0u; // Elements before the tensor's parameters, modulo 2^32: the page need not hold the tensor's first.
const ROW_GRAD: u32 = 1u; // Elements before its gradients, likewise.
const ROW_WORDS: u32 = 2u;

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

// Hooks of wrappers, in the order in which they run.

struct Wrapped {
    unused: f32,
}

fn load_wrapped(tensor: u32, record: u32) -> Wrapped {
    return Wrapped(
        0.0,
    );
}

fn wrapped_gradient(w: Wrapped, raw: f32) -> f32 {
    var g = raw;
    return g;
}

// The parameters as the rule sees them.
fn load_whole(chunk: Chunk, first: bool, q: u32) -> vec4<f32> {
    return load_param(chunk, q);
}

fn load_param(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_f32(params[chunk.param / 4u + q]);
}

fn load_grad(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_f32(grads[chunk.grad / 4u + q]);
}

fn state_place(chunk: Chunk, q: u32) -> Place {
    let inside = q % BLOCK_QUADS;
    return Place(chunk.state + 202u * q - 201u * inside, min(BLOCK_QUADS, quads(chunk.len) - (q - inside)));
}

fn load_g_prev(chunk: Chunk, q: u32) -> vec4<f32> {
    let at = state_place(chunk, q);
    return decode_f32(states[at.first + 0u * at.span]);
}

fn store_g_prev(chunk: Chunk, q: u32, numbers: vec4<f32>) {
    let at = state_place(chunk, q);
    let words = encode_f32(numbers);
    states[at.first + 0u * at.span] = words;
}

fn load_d(chunk: Chunk, q: u32) -> vec4<f32> {
    let at = state_place(chunk, q);
    return decode_f32(states[at.first + 1u * at.span]);
}

fn store_d(chunk: Chunk, q: u32, numbers: vec4<f32>) {
    let at = state_place(chunk, q);
    let words = encode_f32(numbers);
    states[at.first + 1u * at.span] = words;
}

fn load_s(chunk: Chunk, q: u32, pair: u32) -> vec4<f32> {
    let at = state_place(chunk, q);
    return decode_f32(states[at.first + (2u + pair) * at.span]);
}

fn store_s(chunk: Chunk, q: u32, pair: u32, numbers: vec4<f32>) {
    let at = state_place(chunk, q);
    let words = encode_f32(numbers);
    states[at.first + (2u + pair) * at.span] = words;
}

fn load_y(chunk: Chunk, q: u32, pair: u32) -> vec4<f32> {
    let at = state_place(chunk, q);
    return decode_f32(states[at.first + (102u + pair) * at.span]);
}

fn store_y(chunk: Chunk, q: u32, pair: u32, numbers: vec4<f32>) {
    let at = state_place(chunk, q);
    let words = encode_f32(numbers);
    states[at.first + (102u + pair) * at.span] = words;
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

// The gradient as the rule sees it: behind the wrappers' hooks, after maximize and L2 decay.
// Twin: `prepare` in src/rule/kernel.rs

fn prepare(c: Common, w: Wrapped, p: f32, raw: f32) -> f32 {
    var g = wrapped_gradient(w, raw);
    if (MAXIMIZE) {
        g *= c.sign;
    }
    if (L2) {
        g += c.l2 * p;
    }
    return g;
}

// Four elements' gradients as the rule sees them.
fn load_prepared(chunk: Chunk, c: Common, w: Wrapped, q: u32) -> vec4<f32> {
    var p: vec4<f32>;
    if (L2) {
        p = load_whole(chunk, c.first != 0.0, q);
    }
    let raw = load_grad(chunk, q);
    return vec4<f32>(
        prepare(c, w, p.x, raw.x),
        prepare(c, w, p.y, raw.y),
        prepare(c, w, p.z, raw.z),
        prepare(c, w, p.w, raw.w),
    );
}

// Makes the direction of every element of the gradient and the pairs of the history, and keeps the newest pair: one
// workgroup a chunk.
// Twin: `recall` in src/history.rs

@compute @workgroup_size(LANES)
fn recall_chunk(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    let k = load_tensor(chunk.tensor);
    if (is_absent(record) || k.updates == 0.0) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let zero = vec4<u32>(hidden_zero(chunk.len));
    let pairs = u32(k.pairs);
    let next = u32(k.next);
    let newest = select(HISTORY, pair_at(pairs - 1u, pairs, next), k.kept != 0.0);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let g = load_prepared(chunk, c, w, q);
        let change = g - load_g_prev(chunk, q);
        let moved = k.last * load_d(chunk, q);
        if (newest < HISTORY) {
            store_s(chunk, q, newest, moved);
            store_y(chunk, q, newest, change);
        }
        var d = -g;
        for (var age = pairs; age > 0u; age -= 1u) {
            let pair = pair_at(age - 1u, pairs, next);
            let y = load_y(chunk, q, pair);
            d -= rounded(load_number(at_change_factor(pair)) * y, zero);
        }
        d = rounded(k.scale * d, zero);
        for (var age = 0u; age < pairs; age += 1u) {
            let pair = pair_at(age, pairs, next);
            let s = load_s(chunk, q, pair);
            d += rounded(load_number(at_moved_factor(pair)) * s, zero);
        }
        store_d(chunk, q, d);
        store_g_prev(chunk, q, g);
    }
}

// Products that no compiler contracts with the sum that they go into.
fn rounded(products: vec4<f32>, zero: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(products) ^ zero);
}

