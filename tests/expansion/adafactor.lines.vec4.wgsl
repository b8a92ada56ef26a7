// adafactor / lines / param f32, grad f32, vec4. Composed by wgpu-optim 0.2.0.

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

@group(0) @binding(0) var<storage, read_write> params: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> grads: array<vec4<u32>>;
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

const ROW_PARAM: u32 = 0u; // Elements before the tensor's parameters, modulo 2^32: the page need not hold the tensor's first.
const ROW_GRAD: u32 = 1u; // Elements before its gradients, likewise.
const ROW_WORDS: u32 = 2u;

// A rectangle of a matrix, or several whole matrices where these are small. One workgroup takes it.
struct Tile {
    tensor: u32, // the tensor's place in the list
    len: u32, // how many elements the tile has
    piece: u32, // the piece of the tensor that the tile belongs to
    first: u32, // elements of the tensor before the first
    width: u32, // how many elements of a row lie in the tile
    row_sums: u32, // where the sums over rows go: to the bound lines where matrices are small, else as shares to scratch
    column_sums: u32, // where the sums over columns go, likewise
    seen_rows: u32, // where what elements see of the rows stands in the bound lines, where matrices are small
    rows: u32, // rows of a matrix
    columns: u32, // columns of a matrix
    product: u32, // where the last product has the first element's place in the bound work buffer
    param: u32, // Elements before the tensor's parameters, modulo 2^32: the page need not hold the tensor's first.
    grad: u32, // Elements before its gradients, likewise.
    out: u32, // Elements before the place that its new parameters go to, likewise.
    param_page: u32, // The page of the parameters.
    grad_page: u32, // The page of the gradients.
    out_page: u32, // The page that the new parameters go to, `ABSENT` for a tensor that is not in this step.
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> Tile {
    if (i >= clocks[DISPATCH_END]) {
        return Tile();
    }
    let a = tables[4u * i + 0u];
    let b = tables[4u * i + 1u];
    let c = tables[4u * i + 2u];
    let row = clocks[DISPATCH_ROWS] + ROW_WORDS * a.z;
    return Tile(
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

fn load_param_four(tile: Tile, at: u32, count: u32) -> vec4<f32> {
    if (!CROSSINGS) {
        return decode_f32(params[(tile.param + at) / 4u]);
    }
    let i = tile.param + vec4<u32>(at) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return decode_f32(vec4<u32>(params[i.x / 4u][i.x % 4u], params[i.y / 4u][i.y % 4u], params[i.z / 4u][i.z % 4u], params[i.w / 4u][i.w % 4u]));
}

fn load_grad_four(tile: Tile, at: u32, count: u32) -> vec4<f32> {
    if (!CROSSINGS) {
        return decode_f32(grads[(tile.grad + at) / 4u]);
    }
    let i = tile.grad + vec4<u32>(at) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return decode_f32(vec4<u32>(grads[i.x / 4u][i.x % 4u], grads[i.y / 4u][i.y % 4u], grads[i.z / 4u][i.z % 4u], grads[i.w / 4u][i.w % 4u]));
}

// Returns x / by, where the quotient is small. A processor divides several floats at once, but integers one by one, and
// the inverse is the same for all elements of a chunk.
fn divide(x: u32, by: u32) -> u32 {
    var quotient = u32(i32(f32(i32(x)) * (1.0 / f32(i32(by)))));
    quotient -= select(0u, 1u, quotient * by > x);
    quotient += select(0u, 1u, x - quotient * by >= by);
    return quotient;
}

// The rule takes no products, so there is nothing to load.
fn load_product_four(tile: Tile, down: u32, across: u32) -> vec4<f32> {
    return vec4<f32>();
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

// Adds `measure_line` up over rows and columns: one workgroup a tile. A tile holds small matrices whole, and the
// workgroup finishes their lines, a lane those of a whole matrix where it has a strip of rows and a vector of four
// columns at most; of a large matrix the workgroup leaves the tile's shares to `finish_lines`.
// Twin: src/lines.rs

const SMALL: u32 = 2048u; // elements of matrices that a tile holds whole
const NUMBERS: u32 = 2048u;
const STRIP: u32 = 8u; // rows

// `of_rows` has the sums over four elements of a row: for each four from left to right, one number a row of the tile.
// `of_columns` has the sums over the rows of a strip: for each strip from top to bottom, one number a column of the
// tile.
var<workgroup> of_rows: array<f32, NUMBERS>;
var<workgroup> of_columns: array<f32, NUMBERS>;

@compute @workgroup_size(LANES)
fn lines_of_tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = load_entry(entry_index(group, groups));
    let record = load_record(tile.tensor);
    if (is_absent(record) || tile.len == 0u) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(tile.tensor, record);
    let h = load_hyper(record);
    let width = tile.width;
    let fours = (width + 3u) / 4u;
    let all_rows = divide(tile.len, width);
    let small = tile.rows <= SMALL && tile.columns <= SMALL && tile.rows * tile.columns <= SMALL;
    let high = select(all_rows, tile.rows, small);
    let matrices = divide(all_rows, high);
    if (small && width <= 4u && high <= STRIP) {
        for (var matrix = lane; matrix < matrices; matrix += LANES) {
            take_matrix(tile, c, w, h, matrix);
        }
        return;
    }
    let strips = (high + STRIP - 1u) / STRIP;
    for (var task = lane; task < matrices * strips * fours; task += LANES) {
        let strip = divide(task, fours);
        let four = task - strip * fours;
        let matrix = divide(strip, strips);
        let first = matrix * high + (strip - matrix * strips) * STRIP;
        let end = min(first + STRIP, (matrix + 1u) * high);
        let across = 4u * four;
        var sums = vec4<f32>();
        for (var down = first; down < end; down += 1u) {
            let numbers = measure_four(tile, c, w, h, down, across, width - across);
            of_rows[four * all_rows + down] = (numbers.x + numbers.y) + (numbers.z + numbers.w);
            sums += numbers;
        }
        if (COLUMNS) {
            let at = strip * width + across;
            of_columns[at] = sums.x;
            if (!CROSSINGS || across + 1u < width) {
                of_columns[at + 1u] = sums.y;
            }
            if (!CROSSINGS || across + 2u < width) {
                of_columns[at + 2u] = sums.z;
            }
            if (!CROSSINGS || across + 3u < width) {
                of_columns[at + 3u] = sums.w;
            }
        }
    }
    workgroupBarrier();

    for (var i = lane; i < all_rows; i += LANES) {
        var sum = 0.0;
        for (var n = 0u; n < fours; n += 16u) {
            var part = 0.0;
            for (var four = n; four < min(n + 16u, fours); four += 1u) {
                part += of_rows[four * all_rows + i];
            }
            sum += part;
        }
        leave(h, small, tile.row_sums + i, sum, tile.columns);
    }
    for (var i = lane; COLUMNS && i < matrices * width; i += LANES) {
        let matrix = divide(i, width);
        let first = matrix * strips * width + i - matrix * width;
        var sum = 0.0;
        for (var n = 0u; n < strips; n += 16u) {
            var part = 0.0;
            for (var strip = n; strip < min(n + 16u, strips); strip += 1u) {
                part += of_columns[first + strip * width];
            }
            sum += part;
        }
        leave(h, small, tile.column_sums + i, sum, tile.rows);
    }
    if (!small) {
        return;
    }
    storageBarrier();
    for (var first = lane * high; first < all_rows; first += LANES * high) {
        var sum = 0.0;
        for (var n = 0u; n < high; n += 16u) {
            var part = 0.0;
            for (var i = n; i < min(n + 16u, high); i += 1u) {
                part += load_line(tile.row_sums + first + i);
            }
            sum += part;
        }
        let mean = sum / f32(high);
        for (var i = first; i < first + high; i += 1u) {
            store_line(tile.seen_rows + i, finish_row(h, load_line(tile.row_sums + i), mean));
        }
    }
}

// Finishes the lines of a matrix of a strip of rows and a vector of four columns at most. No other lane sees its sums.
fn take_matrix(tile: Tile, c: Common, w: Wrapped, h: Hyper, matrix: u32) {
    let first = matrix * tile.rows;
    let end = first + tile.rows;
    var sums = vec4<f32>();
    for (var down = first; down < end; down += 1u) {
        let numbers = measure_four(tile, c, w, h, down, 0u, tile.columns);
        let sum = (numbers.x + numbers.y) + (numbers.z + numbers.w);
        leave(h, true, tile.row_sums + down, sum, tile.columns);
        sums += numbers;
    }
    if (COLUMNS) {
        let at = tile.column_sums + matrix * tile.columns;
        leave(h, true, at, sums.x, tile.rows);
        if (!CROSSINGS || tile.columns > 1u) {
            leave(h, true, at + 1u, sums.y, tile.rows);
        }
        if (!CROSSINGS || tile.columns > 2u) {
            leave(h, true, at + 2u, sums.z, tile.rows);
        }
        if (!CROSSINGS || tile.columns > 3u) {
            leave(h, true, at + 3u, sums.w, tile.rows);
        }
    }
    var sum = 0.0;
    for (var i = first; i < end; i += 1u) {
        sum += load_line(tile.row_sums + i);
    }
    let mean = sum / f32(tile.rows);
    for (var i = first; i < end; i += 1u) {
        store_line(tile.seen_rows + i, finish_row(h, load_line(tile.row_sums + i), mean));
    }
}

// What `measure_line` makes of `count` elements of a row, four at most; behind them it is 0.
fn measure_four(tile: Tile, c: Common, w: Wrapped, h: Hyper, down: u32, across: u32, count: u32) -> vec4<f32> {
    let at = down * tile.columns + across;
    var g: vec4<f32>;
    if (PRODUCT) {
        g = load_product_four(tile, down, across);
    } else {
        var p: vec4<f32>;
        if (L2) {
            p = load_param_four(tile, at, count);
        }
        let raw = load_grad_four(tile, at, count);
        g = vec4<f32>(
            prepare(c, w, p.x, raw.x),
            prepare(c, w, p.y, raw.y),
            prepare(c, w, p.z, raw.z),
            prepare(c, w, p.w, raw.w),
        );
    }
    let measured = vec4<f32>(
        measure_line(h, g.x),
        measure_line(h, g.y),
        measure_line(h, g.z),
        measure_line(h, g.w),
    );
    let numbers = bitcast<vec4<f32>>(bitcast<vec4<u32>>(measured) ^ vec4<u32>(hidden_zero(tile.len)));
    if (CROSSINGS) {
        return select(vec4<f32>(), numbers, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
    }
    return numbers;
}

// Finishes a line of a small matrix with the sum over it; of a large one, stores the sum over the part in the tile.
fn leave(h: Hyper, small: bool, at: u32, sum: f32, len: u32) {
    if (small) {
        store_line(at, finish_line(h, sum, f32(len), load_line(at)));
    } else {
        store_share(at, sum);
    }
}

