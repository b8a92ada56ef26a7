// muon / product / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// Muon: momentum whose matrix is made orthogonal by Newton and Schulz's iteration (Jordan et al. 2024).
// Twin: src/rules/muon.rs

override NESTEROV: bool = true;
override ADJUST: u32 = 0u; // how the rate follows the shape: 0 original, 1 as AdamW, 2 spectral, 3 not at all

struct Hyper { lr: f32, momentum: f32, one_minus_momentum: f32, safety: f32, eps: f32 }
struct State { m: f32, x: f32 } // the momentum, and what the iteration makes of it
struct Tensor {
    norm: f32, // what the matrix is divided by before the iteration
    factor: f32, // what lr is multiplied by for the shape
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

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return h.lr * k.factor * (*s).x;
}

// Returns the momentum; with NESTEROV, the momentum as the same gradient would move it once more.
fn update_of(h: Hyper, g: f32, s: State) -> f32 {
    if (NESTEROV) {
        return ema(s.m, g, h.momentum, h.one_minus_momentum);
    }
    return s.m;
}

fn measure_product(h: Hyper, k: Tensor, s: State) -> vec2<f32> {
    return vec2<f32>(0.0, 0.0);
}

fn finish_product(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {}

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

@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> work: array<vec4<f32>>;
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

// A tile of a product of matrices, which one workgroup makes. Places and strides count vectors of four in the bound work buffer.
struct MatrixTile {
    tensor: u32, // the tensor's place in the list
    len: u32, // rows of both factors: how many products a sum has
    p: u32, // where the first factor's columns start
    p_stride: u32, // from one of its rows to the next
    q: u32, // where the second factor's columns start
    q_stride: u32, // from one of its rows to the next
    d: u32, // where what is added to the product starts
    c: u32, // where the result starts
    c_stride: u32, // from one of its rows to the next
    turned: u32, // where the result's transpose starts
    turned_stride: u32, // from one of its rows to the next
    rows: u32, // rows of the tile
    columns: u32, // columns of the tile
    second: u32, // from the first place of the matrix to its second
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> MatrixTile {
    if (i >= clocks[DISPATCH_END]) {
        return MatrixTile();
    }
    let a = tables[4u * i + 0u];
    let b = tables[4u * i + 1u];
    let c = tables[4u * i + 2u];
    let d = tables[4u * i + 3u];
    return MatrixTile(
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
    );
}


// One product for the matrices of all tensors, C = ALPHA*P^T*Q + BETA*D: one workgroup a tile of C. Both factors are
// read row by row, a row for each number that a sum adds up, so a lane reads vectors of four that lie side by side.
// Twin: src/product.rs

override ALPHA: f32 = 1.0;
override BETA: f32 = 0.0; // 0 where there is no D
override TURNS: bool = false; // C is stored transposed, too
override IS_SECOND: bool = false; // Q and D lie at the second of two places, and C goes to the first

const RUN: u32 = 32u; // numbers that are added up one after the other
const HIGH: u32 = 8u; // rows that a lane takes at a time, of one vector of four columns
const WIDE: u32 = 16u; // vectors of four columns of a tile

@compute @workgroup_size(LANES)
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var tile = load_entry(entry_index(group, groups));
    if (tile.len == 0u || is_absent(load_record(tile.tensor))) {
        return;
    }
    if (IS_SECOND) {
        tile.q += tile.second;
        tile.d += tile.second;
    } else {
        tile.c += tile.second;
    }
    // Where lanes are few, all of them take the same rows.
    var first = 0u;
    if (LANES > WIDE) {
        first = lane / WIDE;
    }
    let zero = hidden_zero(tile.len);
    let high = (tile.rows + HIGH - 1u) / HIGH;
    for (var down = first; down < high; down += max(LANES / WIDE, 1u)) {
        for (var across = lane % WIDE; across < quads(tile.columns); across += min(LANES, WIDE)) {
            multiply_part(tile, down, across, zero);
        }
    }
}

// Makes eight rows and four columns of a tile.
fn multiply_part(tile: MatrixTile, down: u32, across: u32, zero: u32) {
    let above = 2u * down;
    // Below the last row of C no second vector of factors may be.
    let below = min(above + 1u, quads(tile.rows) - 1u);
    var sums: array<vec4<f32>, HIGH>;
    for (var start = 0u; start < tile.len; start += RUN) {
        // Set to zero by name: SwiftShader under Chromium kept what the last round of the loop left here.
        var run = array<vec4<f32>, HIGH>();
        for (var k = start; k < min(start + RUN, tile.len); k += 1u) {
            let row = tile.p + k * tile.p_stride;
            let a = work[row + above];
            let b = work[row + below];
            let q = work[tile.q + k * tile.q_stride + across];
            run[0] += hidden(a.x * q, zero);
            run[1] += hidden(a.y * q, zero);
            run[2] += hidden(a.z * q, zero);
            run[3] += hidden(a.w * q, zero);
            run[4] += hidden(b.x * q, zero);
            run[5] += hidden(b.y * q, zero);
            run[6] += hidden(b.z * q, zero);
            run[7] += hidden(b.w * q, zero);
        }
        for (var i = 0u; i < HIGH; i += 1u) {
            sums[i] += run[i];
        }
    }
    // Padding stays 0, even where a number is NaN.
    let is_inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.columns - 4u * across);
    let rows = min(HIGH, tile.rows - HIGH * down);
    for (var i = 0u; i < HIGH; i += 1u) {
        let place = (HIGH * down + i) * tile.c_stride + across;
        var sum = hidden(ALPHA * sums[i], zero);
        if (BETA != 0.0 && i < rows) {
            sum += hidden(BETA * work[tile.d + place], zero);
        }
        sums[i] = select(vec4<f32>(), sum, is_inside & vec4<bool>(i < rows));
        if (i < rows) {
            work[tile.c + place] = sums[i];
        }
    }
    if (TURNS) {
        for (var i = 0u; i < min(4u, tile.columns - 4u * across); i += 1u) {
            let place = tile.turned + (4u * across + i) * tile.turned_stride + above;
            work[place] = vec4<f32>(sums[0][i], sums[1][i], sums[2][i], sums[3][i]);
            if (rows > 4u) {
                work[place + 1u] = vec4<f32>(sums[4][i], sums[5][i], sums[6][i], sums[7][i]);
            }
        }
    }
}

// The numbers as a compiler sees them that cannot contract a product with the sum that it goes into.
fn hidden(numbers: vec4<f32>, zero: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(numbers) ^ vec4<u32>(zero));
}

