// adam / apply / param bf16, grad f16, vec4. Composed by wgpu-optim 0.2.0.

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

// Elements of 16 bits in words of 32, two in each, the first in the lower half.

fn halves_of(words: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}

fn words_of_halves(halves: vec4<u32>) -> vec2<u32> {
    return halves.xz | (halves.yw << vec2<u32>(16u));
}

// Of each word the half of element i.
fn pick_halves(words: vec4<u32>, i: vec4<u32>) -> vec4<u32> {
    return (words >> (16u * (i % vec4<u32>(2u)))) & vec4<u32>(0xffffu);
}

// f16, 16 bits an element.
// Twin: `f16` of the crate `half`, in src/codecs.rs

// Four halves as words of f32: all of them exactly, on every device (`unpack2x16float` may flush the subnormal ones).
// Infinities and NaN stay so by their bits.
fn widen_f16(halves: vec4<u32>) -> vec4<u32> {
    let magnitude = halves & vec4<u32>(0x7fffu);
    let shifted = magnitude << vec4<u32>(13u);
    // The exponents' biases are 112 apart. What is subnormal here is normal in f32: a multiple of 2^-24.
    let normal = shifted + vec4<u32>(112u << 23u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(vec4<i32>(magnitude)) * 0x1p-24f);
    let finite = select(normal, subnormal, magnitude < vec4<u32>(0x0400u));
    let wide = select(finite, shifted | vec4<u32>(0x7f800000u), magnitude >= vec4<u32>(0x7c00u));
    return wide | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u));
}

// Four words of f32 as halves, rounded to the nearest, ties to even. Integers alone do it, so that all devices agree
// (`pack2x16float` may round either way, and flush).
fn narrow_f16(words: vec4<u32>) -> vec4<u32> {
    let magnitude = words & vec4<u32>(0x7fffffffu);
    // A carry out of the mantissa is the next exponent, and out of the last exponent is infinity.
    let rebased = magnitude - vec4<u32>(112u << 23u);
    let normal = (rebased + vec4<u32>(0x0fffu) + ((rebased >> vec4<u32>(13u)) & vec4<u32>(1u))) >> vec4<u32>(13u);
    // A subnormal half is the mantissa, its leading 1 included, counted in 2^-24. Shifted by 25 nothing is left of it.
    let mantissa = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let shift = clamp(vec4<u32>(126u) - (magnitude >> vec4<u32>(23u)), vec4<u32>(1u), vec4<u32>(25u));
    let below_half = (vec4<u32>(1u) << (shift - vec4<u32>(1u))) - vec4<u32>(1u);
    let subnormal = (mantissa + below_half + ((mantissa >> shift) & vec4<u32>(1u))) >> shift;
    let finite = min(select(normal, subnormal, magnitude < vec4<u32>(113u << 23u)), vec4<u32>(0x7c00u));
    let nan = vec4<u32>(0x7e00u) | ((magnitude >> vec4<u32>(13u)) & vec4<u32>(0x03ffu));
    let half = select(finite, nan, magnitude > vec4<u32>(0x7f800000u));
    return half | ((words >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

// The same, each rounded up with the probability of its distance from the lower neighbour: random bits are added where
// bits are lost. What is finite stays so.
fn dither_f16(words: vec4<u32>, random: vec4<u32>) -> vec4<u32> {
    let magnitude = words & vec4<u32>(0x7fffffffu);
    let normal = (magnitude - vec4<u32>(112u << 23u) + (random & vec4<u32>(0x1fffu))) >> vec4<u32>(13u);
    let mantissa = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let shift = vec4<u32>(126u) - min(magnitude >> vec4<u32>(23u), vec4<u32>(126u));
    let near = min(shift, vec4<u32>(31u));
    let subnormal = (mantissa + (random & ((vec4<u32>(1u) << near) - vec4<u32>(1u)))) >> near;
    // Of smaller numbers nothing is left but the chance of 2^-24.
    let far = min(max(shift, vec4<u32>(32u)) - vec4<u32>(32u), vec4<u32>(31u));
    let least = select(vec4<u32>(), vec4<u32>(1u), random < (mantissa >> far));
    let small = select(subnormal, least, shift >= vec4<u32>(32u));
    let lifted = min(select(normal, small, magnitude < vec4<u32>(113u << 23u)), vec4<u32>(0x7bffu));
    let half = lifted | ((words >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
    return select(half, narrow_f16(words), magnitude >= vec4<u32>(0x7f800000u));
}

fn decode_f16(halves: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(widen_f16(halves));
}

fn encode_f16(numbers: vec4<f32>) -> vec4<u32> {
    return narrow_f16(bitcast<vec4<u32>>(numbers));
}

// bf16, 16 bits an element: the upper half of f32.
// Twin: `bf16` of the crate `half`, in src/codecs.rs

fn widen_bf16(halves: vec4<u32>) -> vec4<u32> {
    return halves << vec4<u32>(16u);
}

// Four words of f32 as halves, rounded to the nearest, ties to even. A carry out of the last exponent is infinity.
fn narrow_bf16(words: vec4<u32>) -> vec4<u32> {
    let upper = words >> vec4<u32>(16u);
    let rounded = (words + vec4<u32>(0x7fffu) + (upper & vec4<u32>(1u))) >> vec4<u32>(16u);
    let is_nan = (words & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return select(rounded, upper | vec4<u32>(0x0040u), is_nan);
}

// The same, each rounded up with the probability of its distance from the lower neighbour: random bits are added where
// bits are lost. What is finite stays so.
fn dither_bf16(words: vec4<u32>, random: vec4<u32>) -> vec4<u32> {
    let magnitude = words & vec4<u32>(0x7fffffffu);
    let lifted = min(magnitude + (random & vec4<u32>(0xffffu)), max(magnitude, vec4<u32>(0x7f7fffffu)));
    let half = (lifted | (words & vec4<u32>(0x80000000u))) >> vec4<u32>(16u);
    return select(half, half | vec4<u32>(0x0040u), magnitude > vec4<u32>(0x7f800000u));
}

fn decode_bf16(halves: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(widen_bf16(halves));
}

fn encode_bf16(numbers: vec4<f32>) -> vec4<u32> {
    return narrow_bf16(bitcast<vec4<u32>>(numbers));
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

@group(0) @binding(0) var<storage, read_write> params: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> grads: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> states: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
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

fn wrapped_update(w: Wrapped, k: f32, g: f32, of_rule: f32) -> f32 {
    var u = of_rule;
    return u;
}

fn wrapped_is_lost(w: Wrapped, raw: u32) -> bool {
    var is_lost = (raw & 0x7fffffffu) > 0x7f800000u;
    return is_lost;
}

fn wrapped_landed(
    chunk: Chunk, w: Wrapped, first: bool, q: u32, before: vec4<f32>, after: vec4<f32>,
) -> vec4<f32> {
    var landed = after;
    return landed;
}

// The parameters as the rule sees them.
fn load_whole(chunk: Chunk, first: bool, q: u32) -> vec4<f32> {
    return load_param(chunk, q);
}

// Keeps the parameters as the rule sees them, and returns what is to stand in memory.
fn wrapped_kept(chunk: Chunk, q: u32, p: vec4<f32>) -> vec4<f32> {
    var copy = p;
    return copy;
}

fn wrapped_stored(chunk: Chunk, w: Wrapped, q: u32, landed: vec4<f32>) -> vec4<f32> {
    var stored = landed;
    return stored;
}

fn wrapped_chance(chunk: Chunk, w: Wrapped, q: u32, pair: u32) -> vec4<u32> {
    var random: vec4<u32>;
    return random;
}

fn wrapped_chances(chunk: Chunk, w: Wrapped, q: u32, pair: u32) -> array<vec4<u32>, 2> {
    var random: array<vec4<u32>, 2>;
    return random;
}

fn wrapped_skipped(chunk: Chunk, q: u32, stands: vec4<f32>) -> vec4<f32> {
    var p = stands;
    return p;
}

// Whether a skipped step moves parameters.
const RESTORES: bool = false;

fn load_param(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_bf16(halves_of(params[chunk.param / 4u + q]));
}

fn store_param(chunk: Chunk, q: u32, old: vec4<f32>, p: vec4<f32>) {
    let i = chunk.out / 4u + q;
    var halves = encode_bf16(p);
    if (TAILS && chunk.len - 4u * q < 4u) {
        let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q);
        halves = select(halves_of(params[i]), halves, inside);
    }
    params[i] = words_of_halves(halves);
}

fn state_place(chunk: Chunk, q: u32) -> Place {
    let inside = q % BLOCK_QUADS;
    return Place(chunk.state + 2u * q - 1u * inside, min(BLOCK_QUADS, quads(chunk.len) - (q - inside)));
}


fn load_steps(chunk: Chunk, q: u32) {
}

fn load_state(chunk: Chunk, c: Common, q: u32, p: vec4<f32>, s0: ptr<function, State>, s1: ptr<function, State>, s2: ptr<function, State>, s3: ptr<function, State>) {
    let at = state_place(chunk, q);
    let m = decode_f32(states[at.first + 0u * at.span]);
    (*s0).m = m.x;
    (*s1).m = m.y;
    (*s2).m = m.z;
    (*s3).m = m.w;
    let v = decode_f32(states[at.first + 1u * at.span]);
    (*s0).v = v.x;
    (*s1).v = v.y;
    (*s2).v = v.z;
    (*s3).v = v.w;
}

// Stores four elements' state. All lanes come here together, those behind the chunk's end too.
fn store_state(chunk: Chunk, w: Wrapped, lane: u32, q: u32, is_second: bool, s0: State, s1: State, s2: State, s3: State) {
    if (q >= quads(chunk.len)) {
        return;
    }
    let at = state_place(chunk, q);
    let m_words = encode_f32(vec4<f32>(s0.m, s1.m, s2.m, s3.m));
    states[at.first + 0u * at.span] = m_words;
    let v_words = encode_f32(vec4<f32>(s0.v, s1.v, s2.v, s3.v));
    states[at.first + 1u * at.span] = v_words;
}

fn store_group(chunk: Chunk, w: Wrapped, q: u32) {
}

fn load_grad(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_f16(halves_of(grads[chunk.grad / 4u + q]));
}

fn load_tensor(tensor: u32) -> Tensor {
    return Tensor(0.0);
}

fn load_factor(tensor: u32) -> f32 {
    return 1.0;
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

// Updates every element: one workgroup a chunk.

@compute @workgroup_size(LANES)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    if (is_absent(record)) {
        if (RESTORES && record == UNDONE) {
            restore(chunk, lane);
        } else if (COPIES && chunk.out_page != ABSENT) {
            copy(chunk, lane);
        }
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(chunk.tensor, record);
    let factor = load_factor(chunk.tensor);
    let h = load_hyper(record);
    let k = load_tensor(chunk.tensor);
    let end = quads(chunk.len);
    let numbers = NumbersOfChunk(c, w, factor, h, k, lane);
    for (var first = 0u; first < end; first += STRETCH * LANES) {
        let start = first + STRETCH * lane;
        if (STRETCH > 1u && start < end) {
            load_steps(chunk, start);
        }
        if (STRETCH == 1u) {
            visit(chunk, numbers, start, false);
        } else {
            for (var n = 0u; n < STRETCH; n += 2u) {
                visit(chunk, numbers, start + n, false);
                visit(chunk, numbers, start + n + 1u, true);
            }
        }
        if (STRETCH > 1u && start < end) {
            store_group(chunk, w, start);
        }
    }
}

// What the update of an element depends on beside the element.
struct NumbersOfChunk { c: Common, w: Wrapped, factor: f32, h: Hyper, k: Tensor, lane: u32 }

// Updates four elements. Those of a group that a lane holds come in twos.
fn visit(chunk: Chunk, numbers: NumbersOfChunk, q: u32, is_second: bool) {
    let c = numbers.c;
    let w = numbers.w;
    let factor = numbers.factor;
    let h = numbers.h;
    let k = numbers.k;
    var s0: State;
    var s1: State;
    var s2: State;
    var s3: State;
    if (q < quads(chunk.len)) {
        let p = load_whole(chunk, c.first != 0.0, q);
        let g = load_grad(chunk, q);
        load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
        let updated = vec4<f32>(
            update(c, w, factor, h, k, p.x, g.x, &s0),
            update(c, w, factor, h, k, p.y, g.y, &s1),
            update(c, w, factor, h, k, p.z, g.z, &s2),
            update(c, w, factor, h, k, p.w, g.w, &s3),
        );
        let landed = wrapped_landed(chunk, w, c.first != 0.0, q, p, updated);
        store_param(chunk, q, p, wrapped_stored(chunk, w, q, wrapped_kept(chunk, q, landed)));
    }
    store_state(chunk, w, numbers.lane, q, is_second, s0, s1, s2, s3);
}

// One element's update: the new parameter.
fn update(
    c: Common, w: Wrapped, factor: f32, h: Hyper, k: Tensor, p: f32, raw: f32, s: ptr<function, State>,
) -> f32 {
    let g = prepare(c, w, p, raw);
    var u = wrapped_update(w, factor, g, direction(h, k, p, g, s));
    // Decay and update are added before they meet p: forming 1 - lr*d in f32 costs the replay tolerance.
    if (CAUTIOUS) {
        u += select(c.decay, c.decay + c.cautious, sign(u) == sign(p)) * decay_rate(h, k) * p;
    } else if (DECAY) {
        u += c.decay * decay_rate(h, k) * p;
    }
    let landed = land(h, k, p, u, s);
    // min, max and sign may drop a NaN, and the parameter would look plausible. So the bits of a lost gradient replace
    // it.
    let bits = bitcast<u32>(raw);
    return select(landed, bitcast<f32>(bits | 0x7fc00000u), wrapped_is_lost(w, bits));
}

// Puts the parameters back to where they stood before the look-ahead.
fn restore(chunk: Chunk, lane: u32) {
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(chunk, q);
        store_param(chunk, q, p, wrapped_kept(chunk, q, wrapped_skipped(chunk, q, p)));
    }
}

// Takes the parameters to where new ones were to go.
fn copy(chunk: Chunk, lane: u32) {
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(chunk, q);
        store_param(chunk, q, p, p);
    }
}

