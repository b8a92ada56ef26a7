// adafactor / lines / param f32, grad f32, vec4. Composed by wgpu-optim 0.1.0.

// Shared vocabulary of the rules: pure functions of numbers.
// Twin: src/parts.rs

// Both weights come from the host: 1 - f32(0.999) is off by 1.3e-5.
fn ema(old: f32, new_value: f32, keep: f32, take: f32) -> f32 {
    return keep * old + take * new_value;
}

// On the bits: naga writes x != x as an ordered compare, which is false for NaN.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Not max, which may drop a NaN.
fn at_least(x: f32, bound: f32) -> f32 {
    return select(x, bound, x < bound);
}

// f32 in words of 32 bits.

fn decode_f32(words: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(words);
}

fn encode_f32(numbers: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(numbers);
}

// Adafactor: gradients over a root mean square that is kept by rows and columns (Shazeer and Stern 2018, Algorithms 4
// and 5).
// Twin: src/rules/adafactor.rs

override FACTORED: bool = false; // a tensor of rank 2 or more

struct Hyper {
    keep: f32,
    take: f32,
    rate: f32,
    eps1: f32,
    floor: f32, // its square, and at least f32's least normal number
    eps2: f32,
    d: f32,
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
    // Without the root: a walk of sums that is bound by arithmetic.
    return vec2<f32>(g * g / at_least(square(h, g, s), h.floor), p * p);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    let step = at_least(sqrt(sums.y / len), h.eps2) * h.rate;
    (*k).scale = step / at_least(sqrt(sums.x / len) / h.d, 1.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.scale * g / sqrt(at_least(square(h, g, s), h.floor));
}

// The mean square of the gradient.
fn square(h: Hyper, g: f32, s: ptr<function, State>) -> f32 {
    if (FACTORED) {
        return (*s).row * (*s).col;
    }
    let v = ema((*s).v, g * g, h.keep, h.take);
    (*s).v = v;
    return v;
}

fn land(h: Hyper, k: Tensor, p: f32, u: f32, s: ptr<function, State>) -> f32 {
    return p - u;
}

fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p;
}

// What every walk does round a rule, once for all rules.
// Twin: `Common` and `prepare` in src/rule.rs

// On where any group of the dispatch needs it; a group that does not has the number that changes nothing.
override MAXIMIZE: bool = false;
override L2: bool = false;
override DECAY: bool = false;
override CAUTIOUS: bool = false;
override LOOKAHEAD: bool = false;
override UNSCALE: bool = false; // gradients are those of a loss that was scaled
override MEAN: bool = false; // gradients are sums of micro-batches
override CLIP: u32 = 0u; // 0 off, 1 by value, 2 by a norm, 3 by sign
override EMA: u32 = 0u; // a mean of the parameters: 0 off, 1 starts as the parameter, 2 starts at 0
override RESTORES: bool = false; // a skipped step undoes its look-ahead
override SKIPS: bool = false; // of micro-batches: one that no step can use stays so
override NORM_PARAM: bool = false; // norms of the parameters, too

// Of a pass of sums: takes the largest absolute value, by its bits; what `measure` is given; whether it stores state.
override BIT_MAX: bool = false;
override SUM_PAIR: bool = true; // the second number counts
override SUM_PARAM: bool = false;
override SUM_GRAD: bool = true;
override SUM_STATE: bool = false;
override SUM_STORES: bool = false;

// Outside a step: 0 to the look-ahead, 1 to evaluation, 2 back to training, 3 swap with the mean, 4 read the mean.
override MOVE: u32 = 0u;

// On where a row ends within a vector of four. What lies behind the end may be another's or anything: it stays as it
// was, and is in no sum.
override TAILS: bool = true;

// On where matrices have a number of columns that is no multiple of four: four elements may lie in several rows.
override CROSSINGS: bool = true;

// Of a workgroup. A processor runs them eight by eight, each eight to their end, and wants one eight.
override LANES: u32 = 256u;

const BLOCK_QUADS: u32 = 256u; // a block is 1024 elements
const ABSENT: u32 = 0xffffffffu; // for a record: no gradient in this step, or the step is skipped
const UNDONE: u32 = 0xfffffffeu; // the step is skipped, and its look-ahead undone

struct Common {
    direction: f32,
    l2: f32,
    decay: f32,
    cautious: f32,
    first: f32, // 1 where slots that start as the parameter take it
    pull: f32, // lookahead's alpha in every k-th step
    ema: f32,
    one_minus_ema: f32,
    ema_correction: f32, // the mean of the parameters is read divided by it
    batches: f32,
    limit: f32, // of a clip by value or sign
    unscale: f32, // one over the loss scale
    coarse: f32, // what a clip by norm multiplies by: a power of two,
    fine: f32, // and the rest; by sign, 1 where it clips
}

// One row of the table: a chunk; in walks over lines a tile, or lines of a matrix. One without elements does nothing.
struct Row {
    tensor: u32,
    len: u32, // elements, or lines in `finish_lines`
    param: u32, // offsets into the bound windows: elements (in `finish` and `finish_lines`, the number of partials),
    grad: u32, // elements (in `finish`, from a partial to the next, in `finish_lines` from a share to the line's next),
    state: u32, // vectors of four (in `lines`, the width of the tile),
    partial: u32, // words: partials; in `lines` the rows, or the shares in them
    lines: u32, // words: the first matrix's columns; in `lines` the columns, or their shares; in `finish_lines` lines
    seen: u32, // words: what is seen of the first element's row
    rows: u32, // of a matrix
    columns: u32,
    top: u32, // the first element's place in its matrix (in `finish_lines` 0 for rows, 1 for columns)
    left: u32,
}

// Vectors of four in the bound window of state: an element's first slot, and from one slot to the next.
struct Place { first: u32, span: u32 }

fn row_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

fn quads(row: Row) -> u32 {
    return (row.len + 3u) / 4u;
}

// 0, which no compiler knows. A product that goes straight into a sum may be contracted with it (Mesa's llvmpipe does
// that to some); one whose bits have met this is not, so that no switch of a skeleton changes a bit.
fn hidden_zero(row: Row) -> u32 {
    return row.len >> 31u;
}

// The gradient as the rule sees it.
fn prepare(c: Common, p: f32, raw: f32) -> f32 {
    var g = raw;
    if (UNSCALE) {
        g *= c.unscale;
    }
    if (MEAN) {
        g /= c.batches;
    }
    if (CLIP == 1u) {
        // Not clamp, which may drop a NaN.
        g = select(select(g, -c.limit, g < -c.limit), c.limit, g > c.limit);
    }
    if (CLIP == 2u) {
        g = g * c.coarse * c.fine;
    }
    if (CLIP == 3u && c.fine != 0.0) {
        g = c.limit * sign(g);
    }
    if (MAXIMIZE) {
        g *= c.direction;
    }
    if (L2) {
        g += c.l2 * p;
    }
    return g;
}

// A record that no walk but `apply` looks at.
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

fn load_row(i: u32) -> Row {
    let a = tables[3u * i];
    let b = tables[3u * i + 1u];
    let c = tables[3u * i + 2u];
    return Row(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w);
}

// Where the tensor's numbers stand in this step, or why it has none.
fn load_record(tensor: u32) -> u32 {
    return clocks[tensor];
}

fn load_common(tensor: u32, record: u32) -> Common {
    return Common(
        bitcast<f32>(clocks[record + 0u]),
        bitcast<f32>(clocks[record + 1u]),
        bitcast<f32>(clocks[record + 2u]),
        bitcast<f32>(clocks[record + 3u]),
        bitcast<f32>(clocks[record + 4u]),
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

fn load_hyper(record: u32) -> Hyper {
    return Hyper(
        bitcast<f32>(clocks[record + 14u]),
        bitcast<f32>(clocks[record + 15u]),
        bitcast<f32>(clocks[record + 16u]),
        bitcast<f32>(clocks[record + 17u]),
        bitcast<f32>(clocks[record + 18u]),
        bitcast<f32>(clocks[record + 19u]),
        bitcast<f32>(clocks[record + 20u]),
    );
}

fn load_param_four(row: Row, at: u32, count: u32) -> vec4<f32> {
    if (!CROSSINGS) {
        return decode_f32(params[(row.param + at) / 4u]);
    }
    let i = row.param + vec4<u32>(at) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return decode_f32(vec4<u32>(params[i.x / 4u][i.x % 4u], params[i.y / 4u][i.y % 4u], params[i.z / 4u][i.z % 4u], params[i.w / 4u][i.w % 4u]));
}

fn load_grad_four(row: Row, at: u32, count: u32) -> vec4<f32> {
    if (!CROSSINGS) {
        return decode_f32(grads[(row.grad + at) / 4u]);
    }
    let i = row.grad + vec4<u32>(at) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return decode_f32(vec4<u32>(grads[i.x / 4u][i.x % 4u], grads[i.y / 4u][i.y % 4u], grads[i.z / 4u][i.z % 4u], grads[i.w / 4u][i.w % 4u]));
}

// x / by where the quotient is small: processors divide floats side by side, integers one by one.
fn divide(x: u32, by: u32) -> u32 {
    var quotient = u32(i32(f32(i32(x)) / f32(i32(by))));
    quotient -= select(0u, 1u, quotient * by > x);
    quotient += select(0u, 1u, x - quotient * by >= by);
    return quotient;
}

fn load_line(at: u32) -> f32 {
    return lines[at];
}

fn store_line(at: u32, number: f32) {
    lines[at] = number;
}

// A tile's share in the sum over a row or column that other tiles share.
fn load_share(at: u32) -> f32 {
    return bitcast<f32>(scratch[at]);
}

fn store_share(at: u32, sum: f32) {
    scratch[at] = bitcast<u32>(sum);
}


// `measure_line` added up over rows and columns: one workgroup a tile. Small matrices lie in a tile whole, and are
// finished; tiles of others leave shares to `finish_lines`.
// Twin: src/lines.rs

const SMALL: u32 = 2048u; // elements of matrices that a tile holds whole
const NUMBERS: u32 = 2048u;
const STRIP: u32 = 8u; // rows

// Over four elements of a row: by column, then by row. Over the rows of a strip: by strip, then by column.
var<workgroup> of_rows: array<f32, NUMBERS>;
var<workgroup> of_columns: array<f32, NUMBERS>;

@compute @workgroup_size(LANES)
fn lines_of_tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (is_absent(record) || row.len == 0u) {
        return;
    }
    let c = load_common(row.tensor, record);
    let h = load_hyper(record);
    let width = row.state;
    let fours = (width + 3u) / 4u;
    let all_rows = divide(row.len, width);
    let small = row.rows <= SMALL && row.columns <= SMALL && row.rows * row.columns <= SMALL;
    let high = select(all_rows, row.rows, small);
    let matrices = divide(all_rows, high);
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
            let numbers = measure_four(row, c, h, down * row.columns + across, width - across);
            of_rows[four * all_rows + down] = (numbers.x + numbers.y) + (numbers.z + numbers.w);
            sums += numbers;
        }
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
        leave(h, small, row.partial + i, sum, row.columns);
    }
    for (var i = lane; i < matrices * width; i += LANES) {
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
        leave(h, small, row.lines + i, sum, row.rows);
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
                part += load_line(row.partial + first + i);
            }
            sum += part;
        }
        let mean = sum / f32(high);
        for (var i = first; i < first + high; i += 1u) {
            store_line(row.seen + i, finish_row(h, load_line(row.partial + i), mean));
        }
    }
}

// Of `count` elements of a row, four at most; 0 beyond.
fn measure_four(row: Row, c: Common, h: Hyper, at: u32, count: u32) -> vec4<f32> {
    var p: vec4<f32>;
    if (L2) {
        p = load_param_four(row, at, count);
    }
    let g = load_grad_four(row, at, count);
    let measured = vec4<f32>(
        measure_line(h, prepare(c, p.x, g.x)),
        measure_line(h, prepare(c, p.y, g.y)),
        measure_line(h, prepare(c, p.z, g.z)),
        measure_line(h, prepare(c, p.w, g.w)),
    );
    let numbers = bitcast<vec4<f32>>(bitcast<vec4<u32>>(measured) ^ vec4<u32>(hidden_zero(row)));
    if (CROSSINGS) {
        return select(vec4<f32>(), numbers, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
    }
    return numbers;
}

// The sum over a line, or over what of it lies in the tile.
fn leave(h: Hyper, small: bool, at: u32, sum: f32, len: u32) {
    if (small) {
        store_line(at, finish_line(h, sum, f32(len), load_line(at)));
    } else {
        store_share(at, sum);
    }
}

