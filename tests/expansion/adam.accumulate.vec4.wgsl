// accumulate / param f32, grad f32, vec4. Composed by wgpu-optim 0.1.0.

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
@group(0) @binding(6) var<storage, read> control: array<u32>;
@group(1) @binding(0) var<storage, read> clocks: array<u32>;

fn load_row(i: u32) -> Row {
    let a = tables[3u * i];
    let b = tables[3u * i + 1u];
    let c = tables[3u * i + 2u];
    return Row(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w);
}

const WORD_TENSORS: u32 = 0u;
const WORD_STAGES: u32 = 1u;
const WORD_WORLDS: u32 = 2u;
const WORD_RECORDS: u32 = 3u;
const WORD_RECORD_LEN: u32 = 4u;
const WORD_NORMS: u32 = 5u;
const WORD_BEFORE: u32 = 6u;
const WORD_AFTER: u32 = 7u;
const WORD_CLIP: u32 = 8u;
const WORD_CLIP_LIMIT: u32 = 9u;
const WORD_CLIP_EPS: u32 = 10u;
const WORD_CLIP_OPTION: u32 = 11u;
const WORD_SKIPS: u32 = 12u;
const WORD_INTERVAL: u32 = 13u;
const WORD_GROWTH: u32 = 14u;
const WORD_BACKOFF: u32 = 15u;
const WORD_BATCHES: u32 = 16u;
const WORD_OPTIONS: u32 = 17u;
const WORD_OPTIONS_COUNT: u32 = 18u;
const WORD_OTHERS: u32 = 19u;
const CONTROL_SCALE: u32 = 0u;
const CONTROL_UNSCALE: u32 = 1u;
const CONTROL_GOOD: u32 = 2u;
const CONTROL_SKIPPED: u32 = 3u;
const CONTROL_SCALE_USED: u32 = 4u;
const CONTROL_ALL: u32 = 5u;
const CONTROL_SEQUENCE: u32 = 10u;
const CONTROL_WORLD: u32 = 11u;
const CONTROL_CULPRIT: u32 = 12u;
const CONTROL_CULPRIT_KIND: u32 = 13u;
const CONTROL_OTHERS: u32 = 32u;
const STAGE_MEASURE: u32 = 1u;
const STAGE_DECIDE: u32 = 2u;
const STAGE_SELECT: u32 = 4u;
const STAGE_ADVANCE: u32 = 8u;
const FIRST_TENSOR: u32 = 64u;
const TENSOR_WORDS: u32 = 8u;
const FIRST_PRESENT: u32 = 20u;

// Returns 0 for a tensor's first micro-batch, 1 for a later one, and ABSENT for a tensor that this one leaves out.
fn load_batch(tensor: u32) -> u32 {
    return clocks[tensor];
}

// Given the bits of a power of two, returns the bits of one over it, exactly.
fn inverse(scale: u32) -> u32 {
    return 0x7f000000u - scale;
}

// One over the loss scale, which the device keeps.
fn load_unscale() -> f32 {
    return bitcast<f32>(inverse(control[CONTROL_SCALE]));
}

fn load_param(row: Row, q: u32) -> vec4<f32> {
    return decode_f32(params[row.param / 4u + q]);
}

fn load_grad_words(row: Row, q: u32) -> vec4<u32> {
    return (grads[row.grad / 4u + q]);
}

fn store_param(row: Row, q: u32, old: vec4<f32>, p: vec4<f32>) {
    var stored = p;
    if (TAILS) {
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(row.len - 4u * q));
    }
    params[row.param / 4u + q] = encode_f32(stored);
}


// The gradients of a micro-batch added to those before it. The sums are bound as parameters are.

@compute @workgroup_size(LANES)
fn accumulate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let batch = load_batch(row.tensor);
    if (batch == ABSENT) {
        return;
    }
    let unscale = load_unscale();
    let zero = hidden_zero(row);
    let end = quads(row);
    for (var q = lane; q < end; q += LANES) {
        var g = bitcast<vec4<f32>>(load_grad_words(row, q));
        if (UNSCALE) {
            g *= unscale;
        }
        if (SKIPS) {
            // What follows may cancel a number that is too large for a step, but not infinity.
            let bits = bitcast<vec4<u32>>(g) ^ vec4<u32>(zero);
            let size = bits & vec4<u32>(0x7fffffffu);
            let too_large = (size >= vec4<u32>(0x5f000000u)) & (size < vec4<u32>(0x7f800000u));
            g = bitcast<vec4<f32>>(select(bits, vec4<u32>(0x7f800000u), too_large));
        }
        let old = load_param(row, q);
        if (batch > 0u) {
            g += old;
        }
        store_param(row, q, old, g);
    }
}

