// accumulate / param f32, grad f32, vec4. Composed by wgpu-optim 0.2.0.

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

@group(0) @binding(0) var<storage, read_write> params: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> grads: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
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

// Returns 0 for a tensor's first micro-batch, 1 for a later one, and ABSENT for a tensor that this one leaves out.
fn load_batch(tensor: u32) -> u32 {
    return clocks[clocks[DISPATCH_STEP] + tensor];
}

// Given the bits of a power of two, returns the bits of one over it, exactly.
fn inverse(scale: u32) -> u32 {
    return 0x7f000000u - scale;
}

// One over the loss scale, which the device keeps.
fn load_unscale() -> f32 {
    return bitcast<f32>(inverse(control[CONTROL_SCALE]));
}

fn load_param(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_f32(params[chunk.param / 4u + q]);
}

fn load_grad_words(chunk: Chunk, q: u32) -> vec4<u32> {
    return (grads[chunk.grad / 4u + q]);
}

fn store_param(chunk: Chunk, q: u32, old: vec4<f32>, p: vec4<f32>) {
    var stored = p;
    if (TAILS) {
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }
    params[chunk.out / 4u + q] = encode_f32(stored);
}


// Adds the gradients of a micro-batch to the sums of those before it, one workgroup a chunk. The sums are bound where
// other walks bind parameters.

@compute @workgroup_size(LANES)
fn accumulate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let batch = load_batch(chunk.tensor);
    if (batch == ABSENT) {
        return;
    }
    let unscale = load_unscale();
    let zero = hidden_zero(chunk.len);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        var g = bitcast<vec4<f32>>(load_grad_words(chunk, q));
        if (UNSCALE) {
            g *= unscale;
        }
        if (SKIPS) {
            // A later micro-batch could cancel a number that is too large for a step, and the step would not be
            // skipped. Infinity stays whatever is added to it.
            let bits = bitcast<vec4<u32>>(g) ^ vec4<u32>(zero);
            let size = bits & vec4<u32>(0x7fffffffu);
            let too_large = (size >= vec4<u32>(0x5f000000u)) & (size < vec4<u32>(0x7f800000u));
            g = bitcast<vec4<f32>>(select(bits, vec4<u32>(0x7f800000u), too_large));
        }
        let old = load_param(chunk, q);
        if (batch > 0u) {
            g += old;
        }
        store_param(chunk, q, old, g);
    }
}

