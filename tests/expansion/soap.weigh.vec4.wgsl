// soap / weigh / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024).
// Twin: src/rules/soap.rs

struct Hyper {
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    gram_beta: f32,
    one_minus_gram_beta: f32,
    eps: f32,
    renewal: f32, // 0 where the bases stay, 1 where they become eigenvectors, 2 where they become the factors of QR
}
struct State {
    m: f32,
    v: f32,
    x: f32, // the update
    turned: f32, // the gradient in the bases
    gram: f32, // nothing of an element: the slots of the sides
    basis: f32,
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return ema(s.m, g, h.beta1, h.one_minus_beta1);
}

fn gram(h: Hyper, sum: f32, old: f32) -> f32 {
    return ema(old, sum, h.gram_beta, h.one_minus_gram_beta);
}

fn weigh(h: Hyper, x: f32, g: f32, s: State) -> f32 {
    return x / (sqrt(new_v(h, g, s.v)) + h.eps);
}

fn new_v(h: Hyper, g: f32, old: f32) -> f32 {
    return ema(old, g * g, h.beta2, h.one_minus_beta2);
}

fn renewal(h: Hyper) -> f32 {
    return h.renewal;
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    (*s).m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    (*s).v = new_v(h, (*s).turned, (*s).v);
    return h.lr * (*s).x;
}

// WGSL has no empty struct, so the numbers of a rule that has none are one field that nobody reads.
struct Tensor { unused: f32 }

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    return vec2<f32>(0.0, 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
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

@group(0) @binding(2) var<storage, read_write> states: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> work: array<f32>;
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
    );
}

fn state_place(chunk: Chunk, q: u32) -> Place {
    let inside = q % BLOCK_QUADS;
    return Place(chunk.state + 2u * q - 1u * inside, min(BLOCK_QUADS, quads(chunk.len) - (q - inside)));
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

// Puts four numbers in the place of what was spread. Numbers of elements behind the chunk's end go to padding.
fn store_weighed(chunk: Chunk, q: u32, numbers: vec4<f32>) {
    for (var i = 0u; i < 4u; i += 1u) {
        work[chunk.start + 4u * q + i] = numbers[i];
    }
}

// Returns four elements in the bases, so many words behind what was spread. Behind the chunk's end there is padding.
fn load_turned(chunk: Chunk, q: u32, behind: u32) -> vec4<f32> {
    let at = chunk.start + behind + 4u * q;
    return vec4<f32>(work[at], work[at + 1u], work[at + 2u], work[at + 3u]);
}


// Weighs the elements of tensors in the bases of their sides: one workgroup a chunk.

@compute @workgroup_size(LANES)
fn weigh_chunk(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let chunk = load_entry(entry_index(group, groups));
    let record = load_record(chunk.tensor);
    if (is_absent(record) || chunk.len == 0u) {
        return;
    }
    let c = load_common(record);
    let h = load_hyper(record);
    let end = quads(chunk.len);
    for (var q = lane; q < end; q += LANES) {
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(chunk, c, q, vec4<f32>(), &s0, &s1, &s2, &s3);
        let x = load_turned(chunk, q, 0u);
        let g = load_turned(chunk, q, chunk.turned);
        store_weighed(chunk, q, vec4<f32>(
            weigh(h, x.x, g.x, s0),
            weigh(h, x.y, g.y, s1),
            weigh(h, x.z, g.z, s2),
            weigh(h, x.w, g.w, s3),
        ));
    }
}

