// normuon / sums / param f32, grad f32, vec4. Composed by wgpu-optim 0.2.0.

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

// NorMuon: Muon whose rows are divided by their root mean square so far (Li et al. 2025).
// Twin: src/rules/normuon.rs

override NESTEROV: bool = true;
override ADJUST: u32 = 0u; // how the rate follows the shape: 0 original, 1 as AdamW, 2 spectral, 3 not at all
override MATCH_RMS: bool = false; // the update's root mean square is 0.2; else its norm is that before the division

struct Hyper {
    lr: f32,
    momentum: f32,
    one_minus_momentum: f32,
    beta2: f32,
    one_minus_beta2: f32,
    safety: f32,
    eps: f32,
    eps_row: f32,
}
struct State { m: f32, v: f32, x: f32 } // the momentum, the row's mean square, and what the iteration makes of m
struct Tensor {
    norm: f32, // what the matrix is divided by before the iteration
    factor: f32, // what lr is multiplied by for the shape
    scale: f32, // what the divided rows are multiplied by
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    (*s).m = ema((*s).m, g, h.momentum, h.one_minus_momentum);
    let u = update_of(h, g, *s);
    return vec2<f32>(u * u, 0.0);
}

fn of_shape(h: Hyper, rows: f32, columns: f32, k: ptr<function, Tensor>) {
    (*k).factor = 1.0;
    if (ADJUST == 0u) {
        (*k).factor = sqrt(at_least(rows / columns, 1.0));
    } else if (ADJUST == 1u) {
        (*k).factor = 0.2 * sqrt(at_least(rows, columns));
    } else if (ADJUST == 2u) {
        (*k).factor = sqrt(rows / columns);
    }
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).norm = at_least(h.safety * sqrt(sums.x), h.eps);
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return update_of(h, g, s) / k.norm;
}

fn measure_line(h: Hyper, g: f32) -> f32 {
    return g * g;
}

fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return ema(old, sum / len, h.beta2, h.one_minus_beta2);
}

fn measure_product(h: Hyper, k: Tensor, s: State) -> vec2<f32> {
    let n = normalised(h, s);
    return vec2<f32>(s.x * s.x, n * n);
}

fn finish_product(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    var size = (*k).factor * sqrt(sums.x);
    if (MATCH_RMS) {
        size = 0.2 * sqrt(len);
    }
    (*k).scale = size / (sqrt(sums.y) + h.eps_row);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return h.lr * k.scale * normalised(h, *s);
}

// Returns an element over the root mean square of its row.
fn normalised(h: Hyper, s: State) -> f32 {
    return s.x / (sqrt(s.v) + h.eps_row);
}

// Returns the momentum; with NESTEROV, the momentum as the same gradient would move it once more.
fn update_of(h: Hyper, g: f32, s: State) -> f32 {
    if (NESTEROV) {
        return ema(s.m, g, h.momentum, h.one_minus_momentum);
    }
    return s.m;
}

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

@group(0) @binding(0) var<storage, read_write> params: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> grads: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> states: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> scratch: array<u32>;
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

const SUM_FIRST: u32 = 0u; // f32: the first number of `measure`, combined.
const SUM_SECOND: u32 = 1u; // f32: the second number of `measure`, combined.
const SUM_WORDS: u32 = 2u;

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

fn wrapped_chance(chunk: Chunk, w: Wrapped, q: u32, pair: u32) -> vec4<u32> {
    var random: vec4<u32>;
    return random;
}

fn wrapped_chances(chunk: Chunk, w: Wrapped, q: u32, pair: u32) -> array<vec4<u32>, 2> {
    var random: array<vec4<u32>, 2>;
    return random;
}

fn load_param(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_f32(params[chunk.param / 4u + q]);
}

fn store_param(chunk: Chunk, q: u32, old: vec4<f32>, p: vec4<f32>) {
    var stored = p;
    if (TAILS) {
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }
    params[chunk.out / 4u + q] = encode_f32(stored);
}

fn state_place(chunk: Chunk, q: u32) -> Place {
    return Place(chunk.state + q, 0u);
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
    var rows: vec4<f32>;
    var columns: vec4<f32>;
    load_lines(chunk, q, &rows, &columns);
    (*s0).v = rows.x;
    (*s1).v = rows.y;
    (*s2).v = rows.z;
    (*s3).v = rows.w;
    if (PRODUCT) {
        let x = load_product(chunk, q);
        (*s0).x = x.x;
        (*s1).x = x.y;
        (*s2).x = x.z;
        (*s3).x = x.w;
    }
}

// Stores four elements' state. All lanes come here together, those behind the chunk's end too.
fn store_state(chunk: Chunk, w: Wrapped, lane: u32, q: u32, is_second: bool, s0: State, s1: State, s2: State, s3: State) {
    if (q >= quads(chunk.len)) {
        return;
    }
    let at = state_place(chunk, q);
    let m_words = encode_f32(vec4<f32>(s0.m, s1.m, s2.m, s3.m));
    states[at.first + 0u * at.span] = m_words;
}

fn store_group(chunk: Chunk, w: Wrapped, q: u32) {
}

fn load_grad(chunk: Chunk, q: u32) -> vec4<f32> {
    return decode_f32(grads[chunk.grad / 4u + q]);
}

// Returns x / by, where the quotient is small. A processor divides several floats at once, but integers one by one, and
// the inverse is the same for all elements of a chunk.
fn divide(x: u32, by: u32) -> u32 {
    var quotient = u32(i32(f32(i32(x)) * (1.0 / f32(i32(by)))));
    quotient -= select(0u, 1u, quotient * by > x);
    quotient += select(0u, 1u, x - quotient * by >= by);
    return quotient;
}

// Returns the number of words from one row of a matrix in `work` to the next.
fn padded(columns: u32) -> u32 {
    return (columns + 3u) / 4u * 4u;
}

// Returns the rows of four elements of a chunk, and leaves their columns in `columns`. Elements behind the chunk's end
// have the places of its last element.
fn rows_of(chunk: Chunk, q: u32, columns: ptr<function, vec4<u32>>) -> vec4<u32> {
    let i = min(vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(chunk.len - 1u)) + vec4<u32>(chunk.left);
    let down = vec4<u32>(
        divide(i.x, chunk.columns),
        divide(i.y, chunk.columns),
        divide(i.z, chunk.columns),
        divide(i.w, chunk.columns),
    );
    *columns = i - down * chunk.columns;
    return down + vec4<u32>(chunk.top);
}

// Returns what the last product has at the places of four elements.
fn load_product(chunk: Chunk, q: u32) -> vec4<f32> {
    var columns: vec4<u32>;
    let rows = rows_of(chunk, q, &columns);
    let at = vec4<u32>(chunk.product) + rows * padded(chunk.columns) + columns;
    return vec4<f32>(work[at.x], work[at.y], work[at.z], work[at.w]);
}

// Puts four numbers into the matrix `X` from which products start, and into its transpose; the gradient `g` is not
// needed again. Numbers of elements behind the chunk's end are dropped.
fn store_spread(chunk: Chunk, q: u32, numbers: vec4<f32>, g: vec4<f32>) {
    var columns: vec4<u32>;
    let rows = rows_of(chunk, q, &columns);
    let at = vec4<u32>(chunk.start) + rows * padded(chunk.columns) + columns;
    let turned = vec4<u32>(chunk.turned) + columns * padded(chunk.rows) + rows;
    for (var i = 0u; i < min(4u, chunk.len - 4u * q); i += 1u) {
        work[at[i]] = numbers[i];
        work[turned[i]] = numbers[i];
    }
}

// The numbers of rows stand in the buffer `work`, behind the matrices of their tensor.
fn load_line(at: u32) -> f32 {
    return work[at];
}

fn store_line(at: u32, number: f32) {
    work[at] = number;
}

// Loads what four elements of a chunk see of their rows and columns.
fn load_lines(chunk: Chunk, q: u32, rows: ptr<function, vec4<f32>>, columns: ptr<function, vec4<f32>>) {
    let across = chunk.left + 4u * q;
    let down = divide(across, chunk.columns);
    let matrix = divide(chunk.top + down, chunk.rows);
    let column = across - down * chunk.columns;
    var at = vec4<u32>(
        chunk.seen_rows + down,
        chunk.column_numbers + matrix * chunk.columns,
        column,
        chunk.top + down - matrix * chunk.rows,
    );
    if (CROSSINGS) {
        let a = load_crossing(at);
        at = next_crossing(chunk, at, 4u * q + 1u);
        let b = load_crossing(at);
        at = next_crossing(chunk, at, 4u * q + 2u);
        let d = load_crossing(at);
        at = next_crossing(chunk, at, 4u * q + 3u);
        let e = load_crossing(at);
        *rows = vec4<f32>(a.x, b.x, d.x, e.x);
        *columns = vec4<f32>(a.y, b.y, d.y, e.y);
    } else {
        *rows = vec4<f32>(load_line(at.x));
        if (COLUMNS) {
            let first = at.y + column;
            *columns = vec4<f32>(load_line(first), load_line(first + 1u), load_line(first + 2u), load_line(first + 3u));
        }
    }
}

// Returns the numbers of an element's row and column. `at` holds where the row's number and the first column's number
// lie among the numbers of lines, then the element's column and row in its matrix.
fn load_crossing(at: vec4<u32>) -> vec2<f32> {
    var column = 0.0;
    if (COLUMNS) {
        column = load_line(at.y + at.z);
    }
    return vec2<f32>(load_line(at.x), column);
}

// Returns the places of the next element, number `i` of the chunk; behind the chunk's end, those of the last element.
fn next_crossing(chunk: Chunk, at: vec4<u32>, i: u32) -> vec4<u32> {
    let next = at + vec4<u32>(0u, 0u, 1u, 0u);
    let below = vec4<u32>(at.x + 1u, at.y, 0u, at.w + 1u);
    let behind = vec4<u32>(at.x + 1u, at.y + chunk.columns, 0u, 0u);
    let moved_down = select(below, behind, at.w + 1u == chunk.rows);
    return select(at, select(next, moved_down, next.z == chunk.columns), i < chunk.len);
}

fn load_tensor(tensor: u32) -> Tensor {
    return Tensor(
        bitcast<f32>(scratch[TENSOR_NUMBERS * tensor + 0u]),
        bitcast<f32>(scratch[TENSOR_NUMBERS * tensor + 1u]),
        bitcast<f32>(scratch[TENSOR_NUMBERS * tensor + 2u]),
    );
}

fn load_factor(tensor: u32) -> f32 {
    return 1.0;
}

fn store_tensor(tensor: u32, k: Tensor) {
    scratch[TENSOR_NUMBERS * tensor + 0u] = bitcast<u32>(k.norm);
    scratch[TENSOR_NUMBERS * tensor + 1u] = bitcast<u32>(k.factor);
    scratch[TENSOR_NUMBERS * tensor + 2u] = bitcast<u32>(k.scale);
}

// The way to a partial result of a rule's sums: two numbers, as bits.

fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at + SUM_FIRST], scratch[at + SUM_SECOND]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at + SUM_FIRST] = numbers.x;
    scratch[at + SUM_SECOND] = numbers.y;
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

// Calls `finish` with the sums over a whole tensor.

fn finish_with(tensor: u32, record: u32, len: u32, rows: u32, columns: u32, sums: Node) {
    var k = load_tensor(tensor);
    let h = load_hyper(record);
    let numbers = bitcast<vec2<f32>>(sums);
    if (PRODUCT) {
        finish_product(h, numbers, f32(len), &k);
    } else {
        of_shape(h, f32(rows), f32(columns), &k);
        finish(h, numbers, f32(len), &k);
    }
    store_tensor(tensor, k);
}

// Combines `measure` over the elements of a chunk: one partial result a chunk. A tensor of one chunk is finished here.

// The numbers that `leaf_of` needs to see an element as the rule does.
struct Eyes { c: Common, w: Wrapped, h: Hyper, k: Tensor, lane: u32 }

@compute @workgroup_size(LANES)
fn sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    combine_chunks(group, groups, lane);
}

fn is_taken(chunk: Chunk) -> bool {
    return chunk.len > 0u && !is_absent(load_record(chunk.tensor));
}

fn eyes_of(chunk: Chunk, lane: u32) -> Eyes {
    let record = load_record(chunk.tensor);
    let w = load_wrapped(chunk.tensor, record);
    return Eyes(load_common(record), w, load_hyper(record), load_tensor(chunk.tensor), lane);
}

fn leave(chunk: Chunk, node: Node) {
    if (chunk.partial == ABSENT) {
        finish_with(chunk.tensor, load_record(chunk.tensor), chunk.len, chunk.rows, chunk.columns, node);
    } else {
        store_partial(chunk.partial, node);
    }
}

// A leaf is 8 of a block's 256 quads. Eight successive leaves take turns over 64 adjacent quads.
fn leaf_of(chunk: Chunk, eyes: Eyes, leaf: u32) -> Node {
    let first = leaf / 8u * 64u;
    let end = quads(chunk.len);
    if (STRETCH > 1u) {
        return leaf_of_groups(chunk, eyes, first, end);
    }
    var node = Node(0u, 0u);
    // All lanes take as many turns, since those that share a group of the state meet in each.
    let turns = min((end + 7u) / 8u, 8u);
    for (var n = 0u; n < turns; n += 1u) {
        let q = first + leaf % 8u + 8u * n;
        let quad = quad_of(chunk, eyes, q, false);
        if (q < end) {
            node = combine(node, quad);
        }
    }
    return node;
}

var<workgroup> seen: array<Node, 64>;

// The same where eight lanes hold a group of the state each: a lane looks at the quads of its group, which belong to
// one leaf each, and then combines those of its leaf in their order.
fn leaf_of_groups(chunk: Chunk, eyes: Eyes, first: u32, end: u32) -> Node {
    let start = first + STRETCH * eyes.lane;
    if (start < end) {
        load_steps(chunk, start);
    }
    for (var n = 0u; n < STRETCH; n += 2u) {
        let at = STRETCH * eyes.lane + n;
        seen[at] = quad_of(chunk, eyes, start + n, false);
        seen[at + 1u] = quad_of(chunk, eyes, start + n + 1u, true);
    }
    if (start < end) {
        store_group(chunk, eyes.w, start);
    }
    workgroupBarrier();
    var node = Node(0u, 0u);
    for (var n = 0u; n < 8u; n += 1u) {
        let at = STRETCH * n + eyes.lane;
        if (first + at < end) {
            node = combine(node, seen[at]);
        }
    }
    workgroupBarrier();
    return node;
}

// What the rule measures of four elements, combined.
fn quad_of(chunk: Chunk, eyes: Eyes, q: u32, is_second: bool) -> Node {
    let c = eyes.c;
    let w = eyes.w;
    let h = eyes.h;
    let k = eyes.k;
    let zero = hidden_zero(chunk.len);
    var node = Node(0u, 0u);
    var s0: State;
    var s1: State;
    var s2: State;
    var s3: State;
    if (q < quads(chunk.len)) {
        var p: vec4<f32>;
        if (SUM_PARAM || (L2 && SUM_GRAD)) {
            p = load_whole(chunk, c.first != 0.0, q);
        }
        var g: vec4<f32>;
        if (SUM_GRAD) {
            let raw = load_grad(chunk, q);
            g = vec4<f32>(
                prepare(c, w, p.x, raw.x),
                prepare(c, w, p.y, raw.y),
                prepare(c, w, p.z, raw.z),
                prepare(c, w, p.w, raw.w),
            );
        }
        if (SUM_STATE) {
            load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
        }
        let a = hidden(measure_one(h, k, p.x, g.x, &s0), zero);
        var b = hidden(measure_one(h, k, p.y, g.y, &s1), zero);
        var d = hidden(measure_one(h, k, p.z, g.z, &s2), zero);
        var e = hidden(measure_one(h, k, p.w, g.w, &s3), zero);
        if (TAILS) {
            // Padding may hold anything, so the numbers of elements behind the end are replaced as bits.
            let none = Node(0u, 0u);
            b = select(none, b, 4u * q + 1u < chunk.len);
            d = select(none, d, 4u * q + 2u < chunk.len);
            e = select(none, e, 4u * q + 3u < chunk.len);
        }
        node = combine(combine(a, b), combine(d, e));
    }
    if (SUM_STORES) {
        store_state(chunk, w, eyes.lane, q, is_second, s0, s1, s2, s3);
    }
    return node;
}

// The numbers as bits that no compiler can trace, so that no product is contracted with the sum.
fn hidden(numbers: vec2<f32>, zero: u32) -> Node {
    let bits = bitcast<vec2<u32>>(numbers);
    return Node(bits.x ^ zero, select(0u, bits.y ^ zero, SUM_PAIR));
}

fn measure_one(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    if (PRODUCT) {
        return measure_product(h, k, *s);
    }
    return measure(h, k, p, g, s);
}

