// prodigy / finish_sums / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// Prodigy: Adam whose step follows an estimate of the distance to the solution (Mishchenko and Defazio 2023, Algorithm
// 4).
// Twin: src/rules/prodigy.rs

override BIAS_CORRECTION: bool = false;
override SAFEGUARD: bool = false; // the weights of gradients in s leave the learning rate out

struct Hyper {
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    beta3: f32,
    eps: f32,
    d0: f32,
    d_coef: f32,
    growth_rate: f32,
}
struct State { m: f32, v: f32, s: f32, p0: f32 }
struct Tensor {
    d: f32, // the estimate
    d_max: f32, // the largest estimate so far
    num: f32, // its numerator
    bc1: f32, // 1 - beta1^k after k steps
    bc2: f32, // 1 - beta2^k
    rate: f32, // what lr is multiplied by in this step
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    let scaled = k.d * g;
    var weight = k.d / h.d0;
    if (SAFEGUARD) {
        weight *= k.d;
    } else {
        weight *= rate_of(h, k) * h.lr;
    }
    (*s).m = ema((*s).m, scaled, h.beta1, h.one_minus_beta1);
    (*s).v = ema((*s).v, scaled * scaled, h.beta2, h.one_minus_beta2);
    let sum = ema((*s).s, g, h.beta3, weight);
    (*s).s = sum;
    return vec2<f32>(g * ((*s).p0 - p), abs(sum));
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    let d = (*k).d;
    let rate = rate_of(h, *k);
    (*k).rate = select(rate, 0.0, sums.y == 0.0);
    if (sums.y == 0.0) {
        return;
    }
    let num = ema((*k).num, sums.x, h.beta3, d / h.d0 * (rate * h.lr));
    var hat = h.d_coef * num / sums.y;
    if (is_nan(hat)) {
        hat = 0.0; // no estimate: max may give either of its operands where one is NaN
    }
    let d_max = larger((*k).d_max, hat);
    let reached = select(d, larger(d, hat), d == h.d0);
    (*k).num = num;
    (*k).d_max = d_max;
    (*k).d = smaller(d_max, reached * h.growth_rate);
    if (BIAS_CORRECTION) {
        (*k).bc1 = ema((*k).bc1, 1.0, h.beta1, h.one_minus_beta1);
        (*k).bc2 = ema((*k).bc2, 1.0, h.beta2, h.one_minus_beta2);
    }
}

fn decay_rate(h: Hyper, k: Tensor) -> f32 {
    return k.rate;
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.rate * h.lr * (*s).m / (sqrt((*s).v) + k.d * h.eps);
}

// Returns what lr is multiplied by: the estimate, and the bias corrections of the step that is being made.
fn rate_of(h: Hyper, k: Tensor) -> f32 {
    if (!BIAS_CORRECTION) {
        return k.d;
    }
    let bc1 = ema(k.bc1, 1.0, h.beta1, h.one_minus_beta1);
    let bc2 = ema(k.bc2, 1.0, h.beta2, h.one_minus_beta2);
    return k.d * sqrt(bc2) / bc1;
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return g;
}

fn measure_product(h: Hyper, k: Tensor, s: State) -> vec2<f32> {
    return vec2<f32>(0.0, 0.0);
}

fn finish_product(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {}

fn of_shape(h: Hyper, rows: f32, columns: f32, k: ptr<function, Tensor>) {}

fn land(h: Hyper, k: Tensor, p: f32, u: f32, s: ptr<function, State>) -> f32 {
    return p - u;
}

fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p;
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

const SUM_FIRST: u32 = 0u; // f32: the first number of `measure`, combined.
const SUM_SECOND: u32 = 1u; // f32: the second number of `measure`, combined.
const SUM_WORDS: u32 = 2u;

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
        bitcast<f32>(clocks[record + 6u]),
        bitcast<f32>(clocks[record + 7u]),
        bitcast<f32>(clocks[record + 8u]),
        bitcast<f32>(clocks[record + 9u]),
        bitcast<f32>(clocks[record + 10u]),
        bitcast<f32>(clocks[record + 11u]),
        bitcast<f32>(clocks[record + 12u]),
        bitcast<f32>(clocks[record + 13u]),
        bitcast<f32>(clocks[record + 14u]),
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
    );
}

fn load_factor(tensor: u32) -> f32 {
    return 1.0;
}

fn store_tensor(tensor: u32, k: Tensor) {
    scratch[0u] = bitcast<u32>(k.d);
    scratch[1u] = bitcast<u32>(k.d_max);
    scratch[2u] = bitcast<u32>(k.num);
    scratch[3u] = bitcast<u32>(k.bc1);
    scratch[4u] = bitcast<u32>(k.bc2);
    scratch[5u] = bitcast<u32>(k.rate);
}

// Where the sums of a tensor stand.
fn sums_of(tensor: u32) -> u32 {
    return 6u + TENSOR_NUMBERS * tensor + 0u;
}

// The way to a partial result of a rule's sums: two numbers, as bits.

fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at + SUM_FIRST], scratch[at + SUM_SECOND]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at + SUM_FIRST] = numbers.x;
    scratch[at + SUM_SECOND] = numbers.y;
}

// What the walks over a rule's sums combine: two numbers, as bits.
// Twin: `Combine` in src/parts.rs

alias Node = vec2<u32>;

// Makes one partial result of two.
fn combine(a: Node, b: Node) -> Node {
    if (BIT_MAX) {
        return max(a & vec2<u32>(0x7fffffffu), b & vec2<u32>(0x7fffffffu));
    }
    return bitcast<vec2<u32>>(bitcast<vec2<f32>>(a) + bitcast<vec2<f32>>(b));
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

// Keeps the sums over a whole tensor for `finish_model`.

fn finish_with(tensor: u32, record: u32, len: u32, rows: u32, columns: u32, sums: Node) {
    store_partial(sums_of(tensor), sums);
}

// Combines the partial results of a tensor's chunks and keeps them for `finish_model`: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    let record = load_record(sums.tensor);
    if (is_absent(record) || sums.len == 0u) {
        return;
    }
    combine_partials(sums, lane);
    if (lane == 0u) {
        finish_with(sums.tensor, record, sums.len, sums.rows, sums.columns, load_partial(sums.partial));
    }
}

