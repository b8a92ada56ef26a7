// soap / bases / param f32, vec4. Composed by wgpu-optim 0.2.0.

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

// SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024).
// Twin: src/rules/soap.rs

struct Hyper {
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    gram_beta: f32,
    one_minus_gram_beta: f32,
    eps: f32,
    renewal: f32, // 0 where the bases stay, 1 where they become eigenvectors, 2 where they become the factors of QR
}
struct State {
    m: f32,
    v: f32,
    x: f32, // the update
    turned: f32, // the gradient in the bases
    gram: f32, // nothing of an element: the slots of the sides
    basis: f32,
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return ema(s.m, g, h.beta1, h.one_minus_beta1);
}

fn gram(h: Hyper, sum: f32, old: f32) -> f32 {
    return ema(old, sum, h.gram_beta, h.one_minus_gram_beta);
}

fn weigh(h: Hyper, x: f32, g: f32, s: State) -> f32 {
    return x / (sqrt(new_v(h, g, s.v)) + h.eps);
}

fn new_v(h: Hyper, g: f32, old: f32) -> f32 {
    return ema(old, g * g, h.beta2, h.one_minus_beta2);
}

fn renewal(h: Hyper) -> f32 {
    return h.renewal;
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    (*s).m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    (*s).v = new_v(h, (*s).turned, (*s).v);
    return h.lr * (*s).x;
}

// WGSL has no empty struct, so the numbers of a rule that has none are one field that nobody reads.
struct Tensor { unused: f32 }

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    return vec2<f32>(0.0, 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
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

const PART_COPY: u32 = 0u;
const PART_PAIRS: u32 = 1u;
const PART_BLOCKS: u32 = 2u;
const PART_VECTORS: u32 = 3u;
const PART_SCALE: u32 = 4u;
const PART_REFLECTIONS: u32 = 5u;

// Some numbers that belong to a side of a tensor, or a side: what one workgroup of a walk over sides makes. Places are in the bound work buffer.
struct SideTile {
    tensor: u32, // the tensor's place in the list
    len: u32, // how many numbers the workgroup makes
    first: u32, // how many numbers of the result come before them; of new bases, which tile or pair of blocks it is
    second: u32, // of new bases, the pair whose columns the workgroup turns
    part: u32, // of new bases, what the workgroup does
    size: u32, // the side's size
    inner: u32, // elements from one index of the side to the next
    products: u32, // how many products the sum of a Gram matrix has
    source: u32, // where the walk reads
    to: u32, // where the result starts
    matrix: u32, // where the basis starts; of the power iteration, where the Gram matrix starts
    notes: u32, // where the notes on a new basis start
}

// Entry `i` of the table. Behind the last one of the dispatch are empty ones.
fn load_entry(i: u32) -> SideTile {
    if (i >= clocks[DISPATCH_END]) {
        return SideTile();
    }
    let a = tables[4u * i + 0u];
    let b = tables[4u * i + 1u];
    let c = tables[4u * i + 2u];
    return SideTile(
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
        bitcast<f32>(clocks[record + 13u]),
    );
}


const RUN: u32 = 32u; // numbers that are added up one after the other: a multiple of four

// The number as a compiler sees it that cannot contract a product with the sum that it goes into.
fn hidden(number: f32, zero: u32) -> f32 {
    return bitcast<f32>(bitcast<u32>(number) ^ zero);
}

// How bases are renewed, as the rule says.
const BY_EIGENVECTORS: f32 = 1.0;
const BY_POWER: f32 = 2.0;

// New bases of the sides of all tensors, where the rule renews them: the eigenvectors of the Gram matrix, or what a
// step of the power iteration makes of the old basis. A workgroup has a part in one tile of a matrix, or of a pair of
// its blocks. Dispatches repeat in rounds, which workgroups count, since a round needs all results of the one before.
// Twins: `eigenvectors` and `orthogonal` in src/sides.rs

const EPSILON: f32 = 1.1920929e-7; // from 1 to the next number
const SWEEPS: u32 = 20u; // of rotations at most
const EDGE: u32 = 32u; // rows and columns of a tile
const HALF: u32 = EDGE / 2u; // columns of a block, of which two meet in a tile
const AREA: u32 = EDGE * EDGE;

var<workgroup> count: f32; // one that all lanes need
var<workgroup> tile: array<f32, AREA>;
var<workgroup> turned: array<f32, AREA>; // the eigenvectors of a tile, or a product
var<workgroup> leaves: array<f32, AREA>; // numbers that sums over rows are added up into; rotations
var<workgroup> factors: array<f32, EDGE>; // of reflections; which rows have rotated
var<workgroup> pairs: array<vec2<u32>, HALF>; // columns of a tile that rotate with each other
var<workgroup> divisor: f32;

@compute @workgroup_size(LANES)
fn bases(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let side = load_entry(entry_index(group, groups));
    let record = load_record(side.tensor);
    if (side.len == 0u || is_absent(record)) {
        return;
    }
    let how = renewal(load_hyper(record));
    let zero = hidden_zero(side.len);
    if (how == BY_EIGENVECTORS) {
        if (side.part == PART_COPY) {
            copy_columns(side, lane);
        } else if (side.part == PART_PAIRS) {
            rotate_pair(side, lane, zero);
        } else if (side.part == PART_BLOCKS || side.part == PART_VECTORS) {
            turn_tile(side, lane, zero);
        }
    } else if (how == BY_POWER) {
        if (side.part == PART_SCALE) {
            scale_columns(side, lane, zero);
        } else if (side.part == PART_REFLECTIONS) {
            take_reflections(side, lane, zero);
        }
    }
}

fn tiles(side: SideTile) -> u32 {
    return (side.size + EDGE - 1u) / EDGE;
}

// Where a tile of notes stands: the eigenvectors of a pair.
fn at_turn(side: SideTile, pair: u32) -> u32 {
    return side.notes + pair * AREA;
}

// Where a count of a tile stands: how many rounds of reflections are left; or how many rounds of rotations were left
// when the pair has rotated last, 0 where it has not in this sweep.
fn at_count(side: SideTile, which: u32) -> u32 {
    return side.notes + tiles(side) * AREA + which;
}

// How many rounds are left to the pairs.
fn at_left_to_pairs(side: SideTile) -> u32 {
    return at_count(side, tiles(side));
}

// How many rounds are left to the other tiles. They follow the pairs.
fn at_left_to_tiles(side: SideTile) -> u32 {
    return at_count(side, tiles(side)) + 1u;
}

// Where the bound stands of elements that no rotation makes 0.
fn at_bound(side: SideTile) -> u32 {
    return at_count(side, tiles(side)) + 2u;
}

// Returns a count that lane 0 has.
fn shared_count(own: f32, lane: u32) -> u32 {
    if (lane == 0u) {
        count = own;
    }
    return u32(workgroupUniformLoad(&count));
}

// Starts rotations: copies some columns of the Gram matrix to the draft, which will become diagonal.
fn copy_columns(side: SideTile, lane: u32) {
    for (var i = lane; i < side.size * EDGE; i += LANES) {
        let row = i / EDGE;
        let column = side.first * EDGE + i % EDGE;
        if (column < side.size) {
            let at = row * side.size + column;
            work[side.to + at] = work[side.source + at];
            work[side.matrix + at] = select(0.0, 1.0, row == column);
        }
    }
    if (side.first + lane == 0u) {
        var trace = 0.0;
        for (var i = 0u; i < side.size; i += 1u) {
            trace += work[side.source + i * side.size + i];
        }
        work[at_bound(side)] = EPSILON * trace / f32(side.size);
        work[at_left_to_pairs(side)] = f32(SWEEPS * rounds(side));
    }
}

// The two players of a pair in a round of a tournament, in which every player meets every other one once. With an odd
// number of players one sits the round out: it is its own partner.
fn pair_of(pair: u32, round: u32, players: u32) -> vec2<u32> {
    let others = players + players % 2u - 1u;
    let p = (round + pair) % others;
    var q = others;
    if (pair > 0u) {
        q = (round + others - pair) % others;
    }
    let first = min(p, q);
    return vec2<u32>(first, select(first, max(p, q), max(p, q) < players));
}

// Rounds in which all blocks meet once.
fn rounds(side: SideTile) -> u32 {
    return 2u * tiles(side) - 1u;
}

// The blocks of a pair, in a round behind which so many are left.
fn blocks_of(side: SideTile, pair: u32, left: u32) -> vec2<u32> {
    return pair_of(pair, (SWEEPS * rounds(side) - left) % rounds(side), (side.size + HALF - 1u) / HALF);
}

// The column of the matrix that stands in a column of a pair's tile; where there is none, the matrix's size or more.
fn column_of(side: SideTile, blocks: vec2<u32>, i: u32) -> u32 {
    if (i < HALF) {
        return blocks.x * HALF + i;
    }
    return select(blocks.y * HALF + i - HALF, side.size, blocks.x == blocks.y);
}

// Makes a sweep of rotations in the tile where the rows and the columns of a pair meet. Notes the eigenvectors.
fn rotate_pair(side: SideTile, lane: u32, zero: u32) {
    let left = shared_count(work[at_left_to_pairs(side)], lane);
    if (side.first + lane == 0u) {
        work[at_left_to_tiles(side)] = f32(left);
    }
    if (left == 0u) {
        return;
    }
    let blocks = blocks_of(side, side.first, left);
    for (var i = lane; i < AREA; i += LANES) {
        let row = column_of(side, blocks, i / EDGE);
        let column = column_of(side, blocks, i % EDGE);
        var number = 0.0;
        if (max(row, column) < side.size) {
            number = work[side.to + row * side.size + column];
        }
        tile[i] = number;
        turned[i] = select(0.0, 1.0, i / EDGE == i % EDGE);
    }
    let bound = work[at_bound(side)];
    workgroupBarrier();
    for (var inner = 0u; inner < EDGE - 1u; inner += 1u) {
        for (var pair = lane; pair < HALF; pair += LANES) {
            find_rotation(pair, inner, bound, zero);
        }
        workgroupBarrier();
        for (var i = lane; i < HALF * HALF; i += LANES) {
            if (i / HALF <= i % HALF) {
                rotate_block(i / HALF, i % HALF, zero);
            }
        }
        for (var i = lane; i < EDGE * HALF; i += LANES) {
            rotate_vectors(i / HALF, i % HALF, zero);
        }
        workgroupBarrier();
    }
    for (var i = lane; i < AREA; i += LANES) {
        let row = column_of(side, blocks, i / EDGE);
        let column = column_of(side, blocks, i % EDGE);
        if (max(row, column) < side.size) {
            work[side.to + row * side.size + column] = tile[i];
        }
        work[at_turn(side, side.first) + i] = turned[i];
    }
    for (var row = lane; row < EDGE; row += LANES) {
        var rotates = false;
        for (var column = 0u; column < EDGE; column += 1u) {
            rotates = rotates || turned[row * EDGE + column] != select(0.0, 1.0, row == column);
        }
        factors[row] = f32(rotates);
    }
    workgroupBarrier();
    if (lane == 0u) {
        var rows = 0.0;
        for (var row = 0u; row < EDGE; row += 1u) {
            rows += factors[row];
        }
        if (rows > 0.0 || left % rounds(side) == 0u) {
            work[at_count(side, side.first)] = select(0.0, f32(left), rows > 0.0);
        }
    }
}

// Keeps the rotation that makes an element of a pair 0: its sine, and the tangent of half its angle.
fn find_rotation(pair: u32, round: u32, bound: f32, zero: u32) {
    let at = pair_of(pair, round, EDGE);
    let off = tile[at.x * EDGE + at.y];
    var sine = 0.0;
    var half_tangent = 0.0;
    if (abs(off) > bound) {
        let first = tile[at.x * EDGE + at.x];
        let tau = (tile[at.y * EDGE + at.y] - first) / (off + off);
        let size = 1.0 / (abs(tau) + sqrt(1.0 + hidden(tau * tau, zero)));
        let tangent = select(size, -size, tau < 0.0);
        let cosine = 1.0 / sqrt(1.0 + hidden(tangent * tangent, zero));
        sine = tangent * cosine;
        half_tangent = sine / (1.0 + cosine);
    }
    pairs[pair] = at;
    leaves[2u * pair] = sine;
    leaves[2u * pair + 1u] = half_tangent;
}

fn rotation_of(pair: u32) -> vec2<f32> {
    return vec2<f32>(leaves[2u * pair], leaves[2u * pair + 1u]);
}

// Returns two numbers rotated. A cosine that was rounded would let columns grow from rotation to rotation.
fn rotated(by: vec2<f32>, numbers: vec2<f32>, zero: u32) -> vec2<f32> {
    let x = numbers.y + hidden(by.y * numbers.x, zero);
    let y = numbers.x - hidden(by.y * numbers.y, zero);
    return vec2<f32>(numbers.x - hidden(by.x * x, zero), numbers.y + hidden(by.x * y, zero));
}

// Rotates the rows of one pair and the columns of another where they meet, and where their mirror images do. Of a pair
// with itself the corner is stored last, in both places.
fn rotate_block(i: u32, j: u32, zero: u32) {
    let down = pairs[i];
    let across = pairs[j];
    let rows = rotation_of(i);
    let columns = rotation_of(j);
    let top = down.x * EDGE;
    let below = down.y * EDGE;
    let a = rotated(columns, vec2<f32>(tile[top + across.x], tile[top + across.y]), zero);
    let b = rotated(columns, vec2<f32>(tile[below + across.x], tile[below + across.y]), zero);
    let left = rotated(rows, vec2<f32>(a.x, b.x), zero);
    let right = rotated(rows, vec2<f32>(a.y, b.y), zero);
    var corner = left.y;
    if (i == j && rows.x != 0.0) {
        corner = 0.0;
    }
    store_twice(down.x, across.x, left.x);
    store_twice(down.x, across.y, right.x);
    store_twice(down.y, across.x, corner);
    store_twice(down.y, across.y, right.y);
}

fn store_twice(row: u32, column: u32, number: f32) {
    tile[row * EDGE + column] = number;
    tile[column * EDGE + row] = number;
}

fn rotate_vectors(row: u32, pair: u32, zero: u32) {
    let at = row * EDGE + pairs[pair];
    let numbers = rotated(rotation_of(pair), vec2<f32>(turned[at.x], turned[at.y]), zero);
    turned[at.x] = numbers.x;
    turned[at.y] = numbers.y;
}

// Turns the tile where the rows of one pair and the columns of another meet, and its mirror image; or the columns of a
// pair in some rows of the basis. What no pair has rotated in this round stays.
fn turn_tile(side: SideTile, lane: u32, zero: u32) {
    let left = shared_count(work[at_left_to_tiles(side)], lane);
    if (left == 0u) {
        return;
    }
    let is_block = side.part == PART_BLOCKS;
    if (!is_block && side.first + side.second + lane == 0u) {
        work[at_left_to_pairs(side)] = f32(left_behind(side, left));
    }
    let rows_rotate = is_block && work[at_count(side, side.first)] == f32(left);
    let columns_rotate = work[at_count(side, side.second)] == f32(left);
    if (shared_count(f32(rows_rotate || columns_rotate), lane) == 0u) {
        return;
    }
    let down = blocks_of(side, side.first, left);
    let across = blocks_of(side, side.second, left);
    let matrix = select(side.matrix, side.to, is_block);
    for (var i = lane; i < AREA; i += LANES) {
        let at = at_tile(side, down, across, i);
        var number = 0.0;
        if (at < side.size * side.size) {
            number = work[matrix + at];
        }
        tile[i] = number;
    }
    workgroupBarrier();
    for (var i = lane; i < AREA; i += LANES) {
        let by = at_turn(side, side.second) + i % EDGE;
        var sum = 0.0;
        for (var k = 0u; k < EDGE; k += 1u) {
            sum += hidden(tile[i / EDGE * EDGE + k] * work[by + k * EDGE], zero);
        }
        turned[i] = sum;
    }
    workgroupBarrier();
    for (var i = lane; i < AREA; i += LANES) {
        let at = at_tile(side, down, across, i);
        if (at < side.size * side.size && is_block) {
            let by = at_turn(side, side.first) + i / EDGE;
            var sum = 0.0;
            for (var k = 0u; k < EDGE; k += 1u) {
                sum += hidden(work[by + k * EDGE] * turned[k * EDGE + i % EDGE], zero);
            }
            work[matrix + at] = sum;
            work[matrix + at % side.size * side.size + at / side.size] = sum;
        } else if (at < side.size * side.size) {
            work[matrix + at] = turned[i];
        }
    }
}

// The place of a tile's element in its matrix; where there is none, behind the end.
fn at_tile(side: SideTile, down: vec2<u32>, across: vec2<u32>, i: u32) -> u32 {
    var row = side.first * EDGE + i / EDGE;
    if (side.part == PART_BLOCKS) {
        row = column_of(side, down, i / EDGE);
    }
    let column = column_of(side, across, i % EDGE);
    return select(row * side.size + column, side.size * side.size, max(row, column) >= side.size);
}

// How many rounds are left behind this one: none behind a sweep without rotations.
fn left_behind(side: SideTile, left: u32) -> u32 {
    if ((left - 1u) % rounds(side) != 0u) {
        return left - 1u;
    }
    for (var pair = 0u; pair < tiles(side); pair += 1u) {
        if (work[at_count(side, pair)] != 0.0) {
            return left - 1u;
        }
    }
    return 0u;
}

// Starts reflections: notes the products of some columns of the draft with those of the old basis, and divides each
// column by its largest number: squares of small numbers would vanish.
fn scale_columns(side: SideTile, lane: u32, zero: u32) {
    for (var column = side.first * EDGE + lane; column < min(side.first * EDGE + EDGE, side.size); column += LANES) {
        var along = 0.0;
        var most = 0.0;
        for (var i = column; i < side.size * side.size; i += side.size) {
            let number = work[side.to + i];
            along += hidden(work[side.matrix + i] * number, zero);
            if (abs(number) > most) {
                most = abs(number);
            }
        }
        work[side.notes + column] = along;
        if (most > 0.0) {
            for (var i = column; i < side.size * side.size; i += side.size) {
                work[side.to + i] /= most;
            }
        }
    }
    if (lane == 0u) {
        work[at_count(side, side.first)] = f32(2u * tiles(side) + 1u);
    }
}

// Takes a tile of columns through a round. In the first one they get their places. Then each tile in turn finds its
// reflections, and those behind it take them. Then the tiles of the basis take them, from the last tile's on.
fn take_reflections(side: SideTile, lane: u32, zero: u32) {
    let left = shared_count(work[at_count(side, side.first)], lane);
    if (left == 0u) {
        return;
    }
    if (lane == 0u) {
        work[at_count(side, side.first)] = f32(left - 1u);
    }
    let width = tiles(side);
    if (left > 2u * width) {
        order_columns(side, lane);
    } else if (left > width) {
        let giver = 2u * width - left;
        if (side.first >= giver && giver > 0u) {
            for (var i = 0u; i < EDGE; i += 1u) {
                reflect(side, side.to, (giver - 1u) * EDGE + i, lane, zero);
            }
        }
        if (side.first == giver) {
            reflect_draft(side, lane, zero);
        }
    } else {
        let giver = left - 1u;
        if (side.first == giver) {
            start_columns(side, lane);
        }
        if (side.first >= giver) {
            for (var i = EDGE; i > 0u; i -= 1u) {
                reflect(side, side.matrix, giver * EDGE + i - 1u, lane, zero);
            }
        }
    }
}

// Notes the order in which the columns are taken: that of their products, largest first.
fn order_columns(side: SideTile, lane: u32) {
    for (var column = side.first * EDGE + lane; column < min(side.first * EDGE + EDGE, side.size); column += LANES) {
        let own = height(work[side.notes + column]);
        var rank = 0u;
        for (var other = 0u; other < side.size; other += 1u) {
            let another = height(work[side.notes + other]);
            rank += u32(another > own || (another == own && other < column));
        }
        work[at_order(side, rank)] = f32(column);
    }
}

// A whole number that is larger for a larger number. NaN has a place as well, so no two columns share one.
fn height(number: f32) -> u32 {
    let bits = bitcast<u32>(number);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// Where the column that is taken at this place of the order stands.
fn at_order(side: SideTile, place: u32) -> u32 {
    return side.notes + side.size + place;
}

fn column_at(side: SideTile, place: u32) -> u32 {
    return u32(work[at_order(side, place)]);
}

// Where a reflection's factor stands.
fn at_tau(side: SideTile, pivot: u32) -> u32 {
    return side.notes + 2u * side.size + pivot;
}

// Householder's reflections of the columns of a tile. Each leaves its mirror in its column, below the pivot.
fn reflect_draft(side: SideTile, lane: u32, zero: u32) {
    for (var pivot = side.first * EDGE; pivot < min(side.first * EDGE + EDGE, side.size); pivot += 1u) {
        let column = side.to + column_at(side, pivot);
        for (var leaf = lane; leaf < EDGE; leaf += LANES) {
            var sum = 0.0;
            for (var row = pivot + 1u + leaf; row < side.size; row += EDGE) {
                let number = work[column + row * side.size];
                sum += hidden(number * number, zero);
            }
            leaves[leaf] = sum;
        }
        workgroupBarrier();
        if (lane == 0u) {
            find_reflection(side, pivot, column, zero);
        }
        workgroupBarrier();
        storageBarrier();
        if (work[at_tau(side, pivot)] != 0.0) {
            for (var row = pivot + 1u + lane; row < side.size; row += LANES) {
                work[column + row * side.size] /= divisor;
            }
        }
        storageBarrier();
        reflect(side, side.to, pivot, lane, zero);
    }
}

// Notes the factor of a reflection, which is 0 where there is nothing below the pivot.
fn find_reflection(side: SideTile, pivot: u32, column: u32, zero: u32) {
    var below = 0.0;
    for (var leaf = 0u; leaf < EDGE; leaf += 1u) {
        below += leaves[leaf];
    }
    var tau = 0.0;
    if (below != 0.0) {
        let head = work[column + pivot * side.size];
        let length = sqrt(hidden(head * head, zero) + below);
        let new_head = select(-length, length, head < 0.0);
        tau = (new_head - head) / new_head;
        divisor = head - new_head;
    }
    work[at_tau(side, pivot)] = tau;
}

// The column at a tile's place, where a reflection changes it, else the matrix's size. In the draft it changes the
// columns behind the pivot, in the basis also the pivot's own.
fn reached(side: SideTile, matrix: u32, pivot: u32, i: u32) -> u32 {
    let place = side.first * EDGE + i;
    if (place >= side.size || place < pivot + u32(matrix == side.to)) {
        return side.size;
    }
    return select(column_at(side, place), side.size, work[at_tau(side, pivot)] == 0.0);
}

// Reflects the columns of a tile of a matrix. The mirror counts below the pivot, where it has 1. A lane takes four rows
// of a column at once.
fn reflect(side: SideTile, matrix: u32, pivot: u32, lane: u32, zero: u32) {
    let mirror = side.to + column_at(side, min(pivot, side.size - 1u));
    for (var i = lane; i < AREA / 4u; i += LANES) {
        let column = reached(side, matrix, pivot, i % EDGE);
        var sums = vec4<f32>();
        if (column < side.size) {
            for (var row = pivot + 1u + 4u * (i / EDGE); row < side.size; row += EDGE) {
                sums += vec4<f32>(
                    product_in_row(side, mirror, matrix + column, row, zero),
                    product_in_row(side, mirror, matrix + column, row + 1u, zero),
                    product_in_row(side, mirror, matrix + column, row + 2u, zero),
                    product_in_row(side, mirror, matrix + column, row + 3u, zero),
                );
            }
        }
        for (var j = 0u; j < 4u; j += 1u) {
            leaves[(4u * (i / EDGE) + j) * EDGE + i % EDGE] = sums[j];
        }
    }
    workgroupBarrier();
    for (var i = lane; i < EDGE; i += LANES) {
        let column = reached(side, matrix, pivot, i);
        if (column < side.size) {
            let at = matrix + pivot * side.size + column;
            let head = work[at];
            var dot = head;
            for (var leaf = i; leaf < AREA; leaf += EDGE) {
                dot += leaves[leaf];
            }
            let factor = hidden(work[at_tau(side, pivot)] * dot, zero);
            factors[i] = factor;
            work[at] = head - factor;
        }
    }
    workgroupBarrier();
    for (var i = lane; i < AREA / 4u; i += LANES) {
        let column = reached(side, matrix, pivot, i % EDGE);
        if (column < side.size) {
            for (var row = pivot + 1u + 4u * (i / EDGE); row < side.size; row += EDGE) {
                reflect_row(side, mirror, matrix + column, row, factors[i % EDGE], zero);
                reflect_row(side, mirror, matrix + column, row + 1u, factors[i % EDGE], zero);
                reflect_row(side, mirror, matrix + column, row + 2u, factors[i % EDGE], zero);
                reflect_row(side, mirror, matrix + column, row + 3u, factors[i % EDGE], zero);
            }
        }
    }
    workgroupBarrier();
    storageBarrier();
}

// Multiplies mirror and column in a row, if there is such a row.
fn product_in_row(side: SideTile, mirror: u32, column: u32, row: u32, zero: u32) -> f32 {
    if (row >= side.size) {
        return 0.0;
    }
    return hidden(work[mirror + row * side.size] * work[column + row * side.size], zero);
}

fn reflect_row(side: SideTile, mirror: u32, column: u32, row: u32, factor: f32, zero: u32) {
    if (row < side.size) {
        work[column + row * side.size] -= hidden(factor * work[mirror + row * side.size], zero);
    }
}

// Starts the columns of a tile of the new basis.
fn start_columns(side: SideTile, lane: u32) {
    for (var i = lane; i < side.size * EDGE; i += LANES) {
        let place = side.first * EDGE + i % EDGE;
        if (place < side.size) {
            let at = i / EDGE * side.size + column_at(side, place);
            work[side.matrix + at] = select(0.0, 1.0, i / EDGE == place);
        }
    }
    storageBarrier();
}

