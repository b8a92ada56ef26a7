// novograd / sums / param f32, grad f32, vec4. Composed by wgpu-optim 0.1.0.

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

@group(0) @binding(0) var<storage, read_write> params: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> grads: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> states: array<vec4<u32>>;
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

fn load_param(row: Row, q: u32) -> vec4<f32> {
    return decode_f32(params[row.param / 4u + q]);
}

fn store_param(row: Row, q: u32, old: vec4<f32>, p: vec4<f32>) {
    var stored = p;
    if (TAILS) {
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(row.len - 4u * q));
    }
    params[row.param / 4u + q] = encode_f32(stored);
}

fn state_place(row: Row, q: u32) -> Place {
    return Place(row.state + q, 0u);
}

fn load_state(row: Row, c: Common, q: u32, p: vec4<f32>, s0: ptr<function, State>, s1: ptr<function, State>, s2: ptr<function, State>, s3: ptr<function, State>) {
    let at = state_place(row, q);
    let m = decode_f32(states[at.first + 0u * at.span]);
    (*s0).m = m.x;
    (*s1).m = m.y;
    (*s2).m = m.z;
    (*s3).m = m.w;
}

fn store_state(row: Row, q: u32, s0: State, s1: State, s2: State, s3: State) {
    let at = state_place(row, q);
    states[at.first + 0u * at.span] = encode_f32(vec4<f32>(s0.m, s1.m, s2.m, s3.m));
}

fn load_grad(row: Row, q: u32) -> vec4<f32> {
    return decode_f32(grads[row.grad / 4u + q]);
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

// What is seen of the elements of a row, combined over each of its blocks and then over the row. A block has 32 leaves;
// the tree is that of `parts::tree` in src/parts.rs, whatever the row's length.

const LEAVES: u32 = 256u; // of eight blocks
const NODES: u32 = 64u; // of eight blocks, each of four leaves

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> nodes: array<Node, NODES>;

// Leaves it in the first of the nodes, for lane 0.
fn combine_row(row: Row, eyes: Eyes, lane: u32) {
    // Of a block's 32 leaves, 16 are added to the others and 8 of these to the rest: within a lane where lanes are few.
    if (LANES <= NODES) {
        for (var node = lane; node < NODES; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            // In the order of memory.
            let a = leaf_of(row, eyes, leaf);
            let b = leaf_of(row, eyes, leaf + 8u);
            let d = leaf_of(row, eyes, leaf + 16u);
            let e = leaf_of(row, eyes, leaf + 24u);
            nodes[node] = combine(combine(a, d), combine(b, e));
        }
    } else {
        for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
            leaves[leaf] = leaf_of(row, eyes, leaf);
        }
        workgroupBarrier();
        for (var node = lane; node < NODES; node += LANES) {
            let leaf = node / 8u * 32u + node % 8u;
            let even = combine(leaves[leaf], leaves[leaf + 16u]);
            let odd = combine(leaves[leaf + 8u], leaves[leaf + 24u]);
            nodes[node] = combine(even, odd);
        }
    }
    for (var stride = 4u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < NODES / 8u * stride; i += LANES) {
            let node = i / stride * 8u + i % stride;
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
    for (var stride = 8u; stride < NODES; stride *= 2u) {
        workgroupBarrier();
        for (var node = 2u * stride * lane; node < NODES; node += 2u * stride * LANES) {
            nodes[node] = combine(nodes[node], nodes[node + stride]);
        }
    }
}

// `measure` combined over a row: one partial a row.

// What a leaf is seen with.
struct Eyes { c: Common, h: Hyper, k: Tensor }

@compute @workgroup_size(LANES)
fn sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (is_absent(record) || row.len == 0u) {
        return;
    }
    combine_row(row, Eyes(load_common(row.tensor, record), load_hyper(record), load_tensor(row.tensor)), lane);
    if (lane == 0u) {
        store_partial(row.partial, nodes[0]);
    }
}

// 8 of a block's 256 quads. Eight leaves in a row read 64 adjacent quads.
fn leaf_of(row: Row, eyes: Eyes, leaf: u32) -> Node {
    let c = eyes.c;
    let h = eyes.h;
    let k = eyes.k;
    let first = leaf / 8u * 64u;
    let end = min(first + 64u, quads(row));
    let zero = hidden_zero(row);
    var node = Node(0u, 0u);
    for (var q = first + leaf % 8u; q < end; q += 8u) {
        var p: vec4<f32>;
        if (SUM_PARAM || L2) {
            p = load_param(row, q);
        }
        var g: vec4<f32>;
        if (SUM_GRAD) {
            let raw = load_grad(row, q);
            g = vec4<f32>(
                prepare(c, p.x, raw.x),
                prepare(c, p.y, raw.y),
                prepare(c, p.z, raw.z),
                prepare(c, p.w, raw.w),
            );
        }
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        if (SUM_STATE) {
            load_state(row, c, q, p, &s0, &s1, &s2, &s3);
        }
        let a = hidden(measure(h, k, p.x, g.x, &s0), zero);
        var b = hidden(measure(h, k, p.y, g.y, &s1), zero);
        var d = hidden(measure(h, k, p.z, g.z, &s2), zero);
        var e = hidden(measure(h, k, p.w, g.w, &s3), zero);
        if (SUM_STORES) {
            store_state(row, q, s0, s1, s2, s3);
        }
        if (TAILS) {
            // Padding may hold anything, so what lies behind the end is dropped as bits.
            let none = Node(0u, 0u);
            b = select(none, b, 4u * q + 1u < row.len);
            d = select(none, d, 4u * q + 2u < row.len);
            e = select(none, e, 4u * q + 3u < row.len);
        }
        node = combine(node, combine(combine(a, b), combine(d, e)));
    }
    return node;
}

// The numbers as bits that no compiler can trace, so that no product is contracted with the sum.
fn hidden(numbers: vec2<f32>, zero: u32) -> Node {
    let bits = bitcast<vec2<u32>>(numbers);
    return Node(bits.x ^ zero, select(0u, bits.y ^ zero, SUM_PAIR));
}

