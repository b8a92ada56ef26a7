// adafactor / finish_lines / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// Adafactor: gradients over a root mean square, of which matrices keep rows and columns alone (Shazeer and Stern 2018,
// Algorithms 4 and 5).
// Twin: src/rules/adafactor.rs

override FACTORED: bool = false; // the tensor has rank 2 or more, and row and col in place of v
override POINTWISE: bool = false; // the same, but each of its matrices is a single element

struct Hyper {
    keep: f32, // the weights of the old number
    take: f32, // and of the new one in a running mean
    rate: f32, // the relative step
    eps1: f32,
    floor: f32, // the square of eps1, but at least f32's least normal number
    eps2: f32, // the least root mean square of parameters that steps are relative to
    d: f32, // the largest root mean square of an update
}
struct State { v: f32, row: f32, col: f32 }
struct Tensor { scale: f32 } // what normalised gradients are multiplied by

fn measure_line(h: Hyper, g: f32) -> f32 {
    return g * g;
}

fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return ema(old, sum / len, h.keep, h.take);
}

fn finish_row(h: Hyper, row: f32, mean: f32) -> f32 {
    return row / at_least(mean, h.eps1);
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    // The square of what direction multiplies by the scale, computed without the root: arithmetic bounds this walk.
    return vec2<f32>(g * g / at_least(square(h, g, s), h.floor), p * p);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    let step = at_least(sqrt(sums.y / len), h.eps2) * h.rate;
    (*k).scale = step / at_least(sqrt(sums.x / len) / h.d, 1.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.scale * g / sqrt(at_least(square(h, g, s), h.floor));
}

// Returns the mean square of the gradient, and advances what the element has of its own.
fn square(h: Hyper, g: f32, s: ptr<function, State>) -> f32 {
    if (POINTWISE) {
        let row = ema((*s).row, g * g, h.keep, h.take);
        let col = ema((*s).col, g * g, h.keep, h.take);
        (*s).row = row;
        (*s).col = col;
        return row / at_least(row, h.eps1) * col;
    }
    if (FACTORED) {
        return (*s).row * (*s).col;
    }
    let v = ema((*s).v, g * g, h.keep, h.take);
    (*s).v = v;
    return v;
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
@group(0) @binding(5) var<storage, read_write> lines: array<f32>;
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

// All rows of a matrix, or some of its columns, which one workgroup finishes.
struct LinesOfMatrix {
    tensor: u32, // the tensor's place in the list
    len: u32, // how many rows or columns the workgroup finishes
    are_columns: u32, // 0 for rows, 1 for columns
    shares: u32, // how many tiles have a share in each line
    stride: u32, // words from one tile's shares to the next tile's
    share: u32, // where the first tile's shares stand in scratch
    numbers: u32, // where the lines' numbers stand in the bound lines
    seen_rows: u32, // where what elements see of the rows stands in the bound lines
    rows: u32, // rows of the matrix
    columns: u32, // columns of the matrix
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> LinesOfMatrix {
    if (i >= clocks[DISPATCH_END]) {
        return LinesOfMatrix();
    }
    let a = tables[4u * i + 0u];
    let b = tables[4u * i + 1u];
    let c = tables[4u * i + 2u];
    return LinesOfMatrix(
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
    );
}

// Returns x / by, where the quotient is small. A processor divides several floats at once, but integers one by one, and
// the inverse is the same for all elements of a chunk.
fn divide(x: u32, by: u32) -> u32 {
    var quotient = u32(i32(f32(i32(x)) * (1.0 / f32(i32(by)))));
    quotient -= select(0u, 1u, quotient * by > x);
    quotient += select(0u, 1u, x - quotient * by >= by);
    return quotient;
}

// The numbers of rows and columns stand in a buffer of their own.
fn load_line(at: u32) -> f32 {
    return lines[at];
}

fn store_line(at: u32, number: f32) {
    lines[at] = number;
}

// What a tile adds to the sum over a row or column that reaches into other tiles.
fn load_share(at: u32) -> f32 {
    return bitcast<f32>(scratch[at]);
}

fn store_share(at: u32, sum: f32) {
    scratch[at] = bitcast<u32>(sum);
}


// Adds up the shares that tiles have in each line of a large matrix, and calls `finish_line` with the sum. One
// workgroup takes all rows of a matrix and, since it knows their mean, calls `finish_row` too; others take some columns
// each.
// Twin: src/lines.rs

const LEAVES: u32 = 256u;

var<workgroup> leaves: array<f32, LEAVES>;

@compute @workgroup_size(LANES)
fn finish_lines(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let run = load_entry(entry_index(group, groups));
    let record = load_record(run.tensor);
    if (is_absent(record) || run.len == 0u) {
        return;
    }
    let h = load_hyper(record);
    let are_rows = run.are_columns == 0u;
    let len = f32(select(run.rows, run.columns, are_rows));
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var sum = 0.0;
        for (var i = leaf; i < run.len; i += LEAVES) {
            let number = finish_line(h, add_up_shares(run, i), len, load_line(run.numbers + i));
            store_line(run.numbers + i, number);
            sum += number;
        }
        leaves[leaf] = sum;
    }
    if (!are_rows) {
        return;
    }
    for (var half = LEAVES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < half; i += LANES) {
            leaves[i] += leaves[i + half];
        }
    }
    workgroupBarrier();
    let mean = leaves[0] / f32(run.rows);
    // Each lane reads only rows that it has stored itself.
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        for (var i = leaf; i < run.len; i += LEAVES) {
            store_line(run.seen_rows + i, finish_row(h, load_line(run.numbers + i), mean));
        }
    }
}

// Adds up sixteen shares at a time, then the sums of the sixteens.
fn add_up_shares(run: LinesOfMatrix, line: u32) -> f32 {
    let count = run.shares;
    let stride = run.stride;
    var sum = 0.0;
    for (var n = 0u; n < count; n += 16u) {
        var part = 0.0;
        for (var i = n; i < min(n + 16u, count); i += 1u) {
            part += load_share(run.share + i * stride + line);
        }
        sum += part;
    }
    return sum;
}

