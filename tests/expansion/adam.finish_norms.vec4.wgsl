// finish_norms / param f32, vec4. Composed by wgpu-optim 0.1.0.

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
@group(0) @binding(6) var<storage, read_write> control: array<u32>;
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

// A word of the step, which the host wrote.
fn load_word(at: u32) -> u32 {
    return clocks[at];
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(clocks[at]);
}

// Whether the tensor has a gradient in this step.
fn is_present(tensor: u32) -> bool {
    return clocks[FIRST_PRESENT + tensor] != ABSENT;
}

fn load_batches() -> f32 {
    return load_number(WORD_BATCHES);
}

// Given the bits of a power of two, returns the bits of one over it, exactly.
fn inverse(scale: u32) -> u32 {
    return 0x7f000000u - scale;
}

// One over the loss scale, which the device keeps.
fn load_unscale() -> f32 {
    return bitcast<f32>(inverse(control[CONTROL_SCALE]));
}

// A partial result of the walk that measures gradients.
fn load_partial(at: u32) -> Node {
    let squares = vec4<u32>(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), scratch[at + 4u]);
}

fn store_partial(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    scratch[at] = squares.x;
    scratch[at + 1u] = squares.y;
    scratch[at + 2u] = squares.z;
    scratch[at + 3u] = squares.w;
    scratch[at + 4u] = node.kind;
}

// The words that stay on the device from one dispatch to the next.

fn load_control(at: u32) -> u32 {
    return control[at];
}

fn store_control(at: u32, word: u32) {
    control[at] = word;
}

fn load_node(at: u32) -> Node {
    let squares = vec4<u32>(control[at], control[at + 1u], control[at + 2u], control[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), control[at + 4u]);
}

fn store_node(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    control[at] = squares.x;
    control[at + 1u] = squares.y;
    control[at + 2u] = squares.z;
    control[at + 3u] = squares.w;
    control[at + 4u] = node.kind;
}

fn load_all() -> Node {
    return load_node(CONTROL_ALL);
}

fn store_all(node: Node) {
    store_node(CONTROL_ALL, node);
}

fn load_option(i: u32) -> f32 {
    return bitcast<f32>(control[clocks[WORD_OPTIONS] + i]);
}

fn load_other(i: u32) -> Node {
    return load_node(CONTROL_OTHERS + 5u * i);
}

fn load_measured(tensor: u32) -> Node {
    return load_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u);
}

fn store_measured(tensor: u32, node: Node) {
    store_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u, node);
}

fn store_record(tensor: u32, record: u32) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor] = record;
}

fn store_factors(tensor: u32, factors: vec2<u32>) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 1u] = factors.x;
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 2u] = factors.y;
}


// What is known of the gradients of a tensor, or of a part of one.
// Twin: `Measured` in src/control.rs

struct Node {
    // Sums of squares: of gradients below 2^32 times 2^15, of the others times 2^-80; the same of parameters. Then 2^30
    // of f32's largest numbers do not overflow.
    squares: vec4<f32>,
    kind: u32, // the worst: 0 none, 1 of 2^63 or more, 2 infinite, 3 NaN
}

fn combine(a: Node, b: Node) -> Node {
    return Node(a.squares + b.squares, max(a.kind, b.kind));
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

// A tensor's gradients measured as a whole: one workgroup a tensor.

@compute @workgroup_size(LANES)
fn finish_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    if (!is_present(row.tensor) || row.len == 0u) {
        return;
    }
    combine_partials(row, lane);
    if (lane == 0u) {
        store_measured(row.tensor, load_partial(row.partial));
    }
}

