// novograd / apply / param f32, grad f32, vec4. Composed by wgpu-optim 0.1.0.

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

fn load_slow(row: Row, q: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn store_slow(row: Row, q: u32, numbers: vec4<f32>) {
}

fn load_mean(row: Row, q: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn store_mean(row: Row, q: u32, numbers: vec4<f32>) {
}

fn load_before(row: Row, q: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn store_before(row: Row, q: u32, numbers: vec4<f32>) {
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

// The update of every element: one workgroup a row.

@compute @workgroup_size(LANES)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (RESTORES && record == UNDONE) {
        restore(row, lane);
    }
    if (is_absent(record)) {
        return;
    }
    let c = load_common(row.tensor, record);
    let h = load_hyper(record);
    let k = load_tensor(row.tensor);
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        let p = load_param(row, q);
        let g = load_grad(row, q);
        var s0: State;
        var s1: State;
        var s2: State;
        var s3: State;
        load_state(row, c, q, p, &s0, &s1, &s2, &s3);
        var updated = vec4<f32>(
            update(c, h, k, p.x, g.x, &s0),
            update(c, h, k, p.y, g.y, &s1),
            update(c, h, k, p.z, g.z, &s2),
            update(c, h, k, p.w, g.w, &s3),
        );
        if (LOOKAHEAD) {
            updated = pull_back(row, c, q, p, updated);
        }
        if (EMA != 0u) {
            average(row, c, q, p, updated);
        }
        store_param(row, q, p, updated);
        store_state(row, q, s0, s1, s2, s3);
    }
}

// One element's update: the new parameter.
fn update(c: Common, h: Hyper, k: Tensor, p: f32, raw: f32, s: ptr<function, State>) -> f32 {
    let g = prepare(c, p, raw);
    var u = direction(h, k, p, g, s);
    // Decay and update are added before they meet p: forming 1 - lr*d in f32 costs the replay tolerance.
    if (CAUTIOUS) {
        u += select(c.decay, c.decay + c.cautious, sign(u) == sign(p)) * p;
    } else if (DECAY) {
        u += c.decay * p;
    }
    let landed = land(h, k, p, u, s);
    // min, max and sign drop a NaN; the parameter must not look plausible then.
    let bits = bitcast<u32>(raw);
    // What an infinite norm makes 0 of is lost where it is infinite.
    let most = select(0x7f800000u, 0x7f7fffffu, CLIP == 2u);
    let lost = (bits & 0x7fffffffu) > most || (CLIP == 2u && is_nan(c.fine));
    return select(landed, bitcast<f32>(bits | 0x7fc00000u), lost);
}

// Lookahead (Zhang et al. 2019, Algorithm 1). Reads and writes the slow parameters only where it must.
fn pull_back(row: Row, c: Common, q: u32, before: vec4<f32>, after: vec4<f32>) -> vec4<f32> {
    if (c.first == 0.0 && c.pull == 0.0) {
        return after;
    }
    var slow = before;
    if (c.first == 0.0) {
        slow = load_slow(row, q);
    }
    var landed = after;
    if (c.pull != 0.0) {
        slow += c.pull * (after - slow);
        landed = slow;
    }
    store_slow(row, q, slow);
    return landed;
}

// The running mean of the parameters. In a tensor's first step it is not read where it starts as the parameter.
fn average(row: Row, c: Common, q: u32, before: vec4<f32>, after: vec4<f32>) {
    var mean = before;
    if (EMA == 2u || c.first == 0.0) {
        mean = load_mean(row, q);
    }
    store_mean(row, q, c.ema * mean + c.one_minus_ema * after);
}

// Back to where the parameters stood before the look-ahead.
fn restore(row: Row, lane: u32) {
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        store_param(row, q, load_param(row, q), load_before(row, q));
    }
}

