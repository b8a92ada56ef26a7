// adam / finish_counts / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// Adam and AdamW (Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; AMSGrad: Reddi et al. 2018,
// Algorithm 2; clipped updates: Wortsman et al. 2023, Algorithm 2; a mean square a row: Zhang et al. 2024, section 2).
// Twin: src/rules/adam.rs

override EPS_INSIDE: bool = false; // eps stands under the root
override AMSGRAD: u32 = 0u; // 0 off, 1 raw, 2 corrected
override RMS_CLIP: bool = false; // the rate of a tensor falls where its update is large
override ROWS: bool = false; // all elements of a row share one v

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32, // lr over the first bias correction
    correction2: f32, // what v (EPS_INSIDE, or AMSGRAD 2), else its root, is multiplied by
    eps: f32,
    correction_v: f32, // what v is multiplied by where the update is measured
    eps_squared: f32,
    rms: f32, // the root mean square of g over the root of v, above which the rate falls
}
struct State { m: f32, v: f32, vmax: f32 }
struct Tensor { scale: f32 } // what the rate is multiplied by

fn measure_line(h: Hyper, g: f32) -> f32 {
    return g * g;
}

fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return ema(old, sum / len, h.beta2, h.one_minus_beta2);
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    let v = square(h, g, (*s).v);
    return vec2<f32>(g * g / at_least(v * h.correction_v, h.eps_squared), 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).scale = 1.0 / at_least(sqrt(sums.x / len) / h.rms, 1.0);
}

fn decay_rate(h: Hyper, k: Tensor) -> f32 {
    return select(1.0, k.scale, RMS_CLIP);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    var v = square(h, g, (*s).v);
    (*s).m = m;
    (*s).v = v;
    if (AMSGRAD == 2u) {
        v = larger((*s).vmax, v * h.correction2);
        (*s).vmax = v;
        if (EPS_INSIDE) {
            return h.step * m / sqrt(v + h.eps);
        }
        return h.step * m / (sqrt(v) + h.eps);
    }
    if (AMSGRAD == 1u) {
        v = larger((*s).vmax, v);
        (*s).vmax = v;
    }
    var step = h.step;
    if (RMS_CLIP) {
        step *= k.scale;
    }
    if (EPS_INSIDE) {
        return step * m / sqrt(v * h.correction2 + h.eps);
    }
    return step * m / (sqrt(v) * h.correction2 + h.eps);
}

// Returns the mean square of the gradient. A row's v comes from finish_line, so it has this step's gradients already.
fn square(h: Hyper, g: f32, v: f32) -> f32 {
    if (ROWS) {
        return v;
    }
    return ema(v, g * g, h.beta2, h.one_minus_beta2);
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

// An element moves only where its update has the sign of its gradient, and those that move do so further, by a factor
// that grows with the number of those that stay (Liang et al. 2024, arXiv 2411.16085, Algorithm 1).
// Twin: src/wrappers/cautious_update.rs

override CAUTIOUS_UPDATE_MEAN: bool = false; // the factor is that of `mean`, else that of `count`

// The signs are compared, since the product of both may underflow.
fn cautious_update_is_counted(g: f32, u: f32) -> bool {
    return sign(g) * sign(u) > 0.0;
}

fn cautious_update_factor(count: f32, len: f32) -> f32 {
    if (CAUTIOUS_UPDATE_MEAN) {
        return len / at_least(count, 0.001 * len);
    }
    return len / (count + 1.0);
}

// An update that is NaN stays NaN, so that the parameter does not look plausible.
fn cautious_update_update(k: f32, g: f32, u: f32) -> f32 {
    return select(0.0, k * u, cautious_update_is_counted(g, u) || is_nan(u));
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
@group(0) @binding(6) var<storage, read> control: array<u32>;
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

// Returns where the words of a tensor start in `control`.
fn of_tensor(tensor: u32) -> u32 {
    return CONTROL_WORDS + TENSOR_WORDS * tensor;
}

// Returns where the tensor's record stands, as `decide` left it, or ABSENT or UNDONE where the tensor has none in this
// step.
fn load_record(tensor: u32) -> u32 {
    return control[of_tensor(tensor) + TENSOR_RECORD];
}

fn load_common(record: u32) -> Common {
    return Common(
        bitcast<f32>(control[record + 0u]),
        bitcast<f32>(control[record + 1u]),
        bitcast<f32>(control[record + 2u]),
        bitcast<f32>(control[record + 3u]),
        bitcast<f32>(control[record + 4u]),
    );
}

fn load_hyper(record: u32) -> Hyper {
    return Hyper(
        bitcast<f32>(control[record + 17u]),
        bitcast<f32>(control[record + 18u]),
        bitcast<f32>(control[record + 19u]),
        bitcast<f32>(control[record + 20u]),
        bitcast<f32>(control[record + 21u]),
        bitcast<f32>(control[record + 22u]),
        bitcast<f32>(control[record + 23u]),
        bitcast<f32>(control[record + 24u]),
        bitcast<f32>(control[record + 25u]),
        bitcast<f32>(control[record + 26u]),
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

fn wrapped_factor(w: Wrapped, count: f32, len: f32) -> f32 {
    var factor = 1.0;
    factor = cautious_update_factor(count, len);
    return factor;
}

fn load_tensor(tensor: u32) -> Tensor {
    return Tensor(0.0);
}

fn load_factor(tensor: u32) -> f32 {
    return bitcast<f32>(scratch[TENSOR_NUMBERS * tensor + 0u]);
}

fn store_factor(tensor: u32, factor: f32) {
    scratch[TENSOR_NUMBERS * tensor + 0u] = bitcast<u32>(factor);
}

fn store_tensor(tensor: u32, k: Tensor) {
}

// The way to a partial result of a rule's sums: two numbers, as bits.

fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at + SUM_FIRST], scratch[at + SUM_SECOND]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at + SUM_FIRST] = numbers.x;
    scratch[at + SUM_SECOND] = numbers.y;
}

// A tensor's counts become its factor: one workgroup a tensor.

var<workgroup> count: atomic<u32>;

@compute @workgroup_size(LANES)
fn finish_counts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sums = load_entry(entry_index(group, groups));
    let record = load_record(sums.tensor);
    if (is_absent(record) || sums.len == 0u) {
        return;
    }
    var found = 0u;
    for (var i = lane; i < sums.partials; i += LANES) {
        found += load_partial(sums.partial + sums.stride * i).x;
    }
    // Nobody else sets it to 0.
    if (lane == 0u) {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    atomicAdd(&count, found);
    workgroupBarrier();
    if (lane == 0u) {
        let w = load_wrapped(sums.tensor, record);
        store_factor(sums.tensor, wrapped_factor(w, f32(atomicLoad(&count)), f32(sums.len)));
    }
}

