// novograd / finish / param f32, vec4. Composed by wgpu-optim 0.1.0.

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

// NovoGrad: gradients over the running norm of their layer (Ginsburg et al. 2019, Algorithm 1).
// Twin: src/rules/novograd.rs

override EPS_INSIDE: bool = false;
override LINF: bool = false;

struct Hyper {
    step: f32,
    beta1: f32,
    take1: f32,
    keep2: f32, // the first step may take the norm whole
    take2: f32,
    correction2: f32,
    eps: f32,
    inside_moment: f32,
}
struct State { m: f32 }
struct Tensor { v: f32, scale: f32 } // scale: what gradients are multiplied by

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    if (LINF) {
        return vec2<f32>(g, 0.0);
    }
    return vec2<f32>(g * g, 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    var n = sums.x;
    if (LINF) {
        n = n * n;
    }
    let v = ema((*k).v, n, h.keep2, h.take2);
    (*k).v = v;
    if (EPS_INSIDE) {
        (*k).scale = 1.0 / sqrt(v * h.correction2 + h.eps);
    } else {
        (*k).scale = 1.0 / (sqrt(v * h.correction2) + h.eps);
    }
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let x = g * k.scale + h.inside_moment * p;
    let m = ema((*s).m, x, h.beta1, h.take1);
    (*s).m = m;
    return h.step * m;
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

@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> scratch: array<u32>;
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
        bitcast<f32>(clocks[record + 21u]),
    );
}

fn load_tensor(tensor: u32) -> Tensor {
    return Tensor(
        bitcast<f32>(scratch[2u * tensor + 0u]),
        bitcast<f32>(scratch[2u * tensor + 1u]),
    );
}

fn store_tensor(tensor: u32, k: Tensor) {
    scratch[2u * tensor + 0u] = bitcast<u32>(k.v);
    scratch[2u * tensor + 1u] = bitcast<u32>(k.scale);
}

// A partial result of a rule's sums: two numbers as bits.
fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at], scratch[at + 1u]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at] = numbers.x;
    scratch[at + 1u] = numbers.y;
}

// Partial results of a rule's sums.
// Twin: `Combine` in src/parts.rs

alias Node = vec2<u32>;

// Two partial results of a sums pass as one.
fn combine(a: Node, b: Node) -> Node {
    if (BIT_MAX) {
        return max(a & vec2<u32>(0x7fffffffu), b & vec2<u32>(0x7fffffffu));
    }
    return bitcast<vec2<u32>>(bitcast<vec2<f32>>(a) + bitcast<vec2<f32>>(b));
}

// A tensor's partials combined in a binary tree over their index. Leaves it in the first.

fn combine_partials(row: Row, lane: u32) {
    let count = row.param;
    let step = row.grad;
    for (var stride = 1u; stride < count; stride *= 2u) {
        for (var i = 2u * stride * lane; i + stride < count; i += 2u * stride * LANES) {
            let at = row.partial + step * i;
            store_partial(at, combine(load_partial(at), load_partial(at + step * stride)));
        }
        storageBarrier();
    }
}

// `finish` of a tensor's combined partials: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (is_absent(record) || row.len == 0u) {
        return;
    }
    combine_partials(row, lane);
    if (lane == 0u) {
        var k = load_tensor(row.tensor);
        finish(load_hyper(record), bitcast<vec2<f32>>(load_partial(row.partial)), f32(row.len), &k);
        store_tensor(row.tensor, k);
    }
}

