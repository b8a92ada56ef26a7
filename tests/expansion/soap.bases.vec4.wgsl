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
// Twin: `Common` in src/rule/kernel.rs

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
// the whole shader, so one eight a workgroup is fastest there.
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

// Some numbers that belong to a side of a tensor, or a side: what one workgroup of a walk over sides makes. Places are in the bound work buffer.
struct SideTile {
    tensor: u32, // the tensor's place in the list
    len: u32, // how many numbers the workgroup makes
    first: u32, // how many numbers of the result come before them; of a basis, how many sweeps come before the dispatch
    sweeps: u32, // how many sweeps the dispatch makes
    size: u32, // the side's size
    inner: u32, // elements from one index of the side to the next
    products: u32, // how many products the sum of a Gram matrix has
    source: u32, // where the walk reads
    to: u32, // where the result starts
    matrix: u32, // where the basis starts; of the power iteration, where the Gram matrix starts
    notes: u32, // where three numbers for each column of the basis start
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
// step of the power iteration makes of the old basis. One workgroup a side. Large sides take several dispatches for
// their eigenvectors, each with some of the sweeps.
// Twins: `eigenvectors` and `orthogonal` in src/sides.rs

const EPSILON: f32 = 1.1920929e-7; // from 1 to the next number
const LEAVES: u32 = 32u; // numbers that the squares of a column are added up into

var<workgroup> rotations: atomic<u32>; // 0 where nothing has rotated; it starts as anything
var<workgroup> goes_on: u32;
var<workgroup> bound: f32;
var<workgroup> leaves: array<f32, LEAVES>;
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
        take_eigenvectors(side, lane, zero);
    } else if (how == BY_POWER && side.first == 0u) {
        scale_columns(side, lane, zero);
        order_columns(side, lane);
        reflect_draft(side, lane, zero);
        collect_reflections(side, lane, zero);
    }
}

// Jacobi's rotations, all pairs of a round at once. The draft becomes diagonal. A sweep without rotations is the last.
fn take_eigenvectors(side: SideTile, lane: u32, zero: u32) {
    if (side.first == 0u) {
        for (var i = lane; i < side.len; i += LANES) {
            work[side.to + i] = work[side.source + i];
            work[side.matrix + i] = select(0.0, 1.0, i / side.size == i % side.size);
        }
    }
    if (lane == 0u) {
        var trace = 0.0;
        for (var i = 0u; i < side.size; i += 1u) {
            trace += work[side.source + i * side.size + i];
        }
        bound = EPSILON * trace / f32(side.size);
    }
    storageBarrier();
    let pairs = (side.size + 1u) / 2u;
    for (var sweep = 0u; sweep < side.sweeps; sweep += 1u) {
        if (lane == 0u) {
            goes_on = u32(side.first + sweep == 0u || work[at_last_note(side)] != 0.0);
        }
        if (workgroupUniformLoad(&goes_on) == 0u) {
            return;
        }
        for (var round = 0u; round < 2u * pairs - 1u; round += 1u) {
            for (var pair = lane; pair < pairs; pair += LANES) {
                find_rotation(side, pair, round, zero);
            }
            storageBarrier();
            for (var i = lane; i < pairs * pairs; i += LANES) {
                if (i / pairs <= i % pairs) {
                    rotate_block(side, i / pairs, i % pairs, round, zero);
                }
            }
            for (var i = lane; i < side.size * pairs; i += LANES) {
                rotate_vectors(side, i / pairs, i % pairs, round, zero);
            }
            storageBarrier();
        }
        workgroupBarrier();
        if (lane == 0u) {
            work[at_last_note(side)] = f32(atomicExchange(&rotations, 0u));
        }
    }
}

// Where a sweep, perhaps of the next dispatch, finds whether the last one has rotated anything. No pair notes anything
// there.
fn at_last_note(side: SideTile) -> u32 {
    return side.notes + 3u * side.size - 1u;
}

// The two columns of a pair in a round of a tournament, in which every column meets every other one once. With an odd
// number of columns one sits the round out: it is its own partner.
fn pair_of(side: SideTile, pair: u32, round: u32) -> vec2<u32> {
    let others = side.size + side.size % 2u - 1u;
    let p = (round + pair) % others;
    var q = others;
    if (pair > 0u) {
        q = (round + others - pair) % others;
    }
    let first = min(p, q);
    return vec2<u32>(first, select(first, max(p, q), max(p, q) < side.size));
}

// Notes the cosine and the sine of the rotation that makes an element of a pair 0.
fn find_rotation(side: SideTile, pair: u32, round: u32, zero: u32) {
    let at = pair_of(side, pair, round);
    let off = work[side.to + at.x * side.size + at.y];
    var cosine = 1.0;
    var sine = 0.0;
    if (at.x != at.y && abs(off) > bound) {
        let first = work[side.to + at.x * side.size + at.x];
        let tau = (work[side.to + at.y * side.size + at.y] - first) / (off + off);
        let size = 1.0 / (abs(tau) + sqrt(1.0 + hidden(tau * tau, zero)));
        let tangent = select(size, -size, tau < 0.0);
        cosine = 1.0 / sqrt(1.0 + hidden(tangent * tangent, zero));
        sine = tangent * cosine;
        if (sine != 0.0) {
            atomicOr(&rotations, 1u);
        }
    }
    work[side.notes + 2u * pair] = cosine;
    work[side.notes + 2u * pair + 1u] = sine;
}

fn rotation_of(side: SideTile, pair: u32) -> vec2<f32> {
    return vec2<f32>(work[side.notes + 2u * pair], work[side.notes + 2u * pair + 1u]);
}

// Returns two numbers rotated, by the cosine and the sine in `by`.
fn rotated(by: vec2<f32>, numbers: vec2<f32>, zero: u32) -> vec2<f32> {
    return vec2<f32>(
        hidden(by.x * numbers.x, zero) - hidden(by.y * numbers.y, zero),
        hidden(by.y * numbers.x, zero) + hidden(by.x * numbers.y, zero),
    );
}

// Rotates the rows of one pair and the columns of another where they meet, and where their mirror images do. Of a pair
// with itself the corner is stored last, in both places.
fn rotate_block(side: SideTile, i: u32, j: u32, round: u32, zero: u32) {
    let down = pair_of(side, i, round);
    let across = pair_of(side, j, round);
    let rows = rotation_of(side, i);
    let columns = rotation_of(side, j);
    let top = side.to + down.x * side.size;
    let below = side.to + down.y * side.size;
    let a = rotated(columns, vec2<f32>(work[top + across.x], work[top + across.y]), zero);
    let b = rotated(columns, vec2<f32>(work[below + across.x], work[below + across.y]), zero);
    let left = rotated(rows, vec2<f32>(a.x, b.x), zero);
    let right = rotated(rows, vec2<f32>(a.y, b.y), zero);
    var corner = left.y;
    if (i == j && rows.y != 0.0) {
        corner = 0.0;
    }
    store_twice(side, down.x, across.x, left.x);
    store_twice(side, down.x, across.y, right.x);
    store_twice(side, down.y, across.x, corner);
    store_twice(side, down.y, across.y, right.y);
}

fn store_twice(side: SideTile, row: u32, column: u32, number: f32) {
    work[side.to + row * side.size + column] = number;
    work[side.to + column * side.size + row] = number;
}

fn rotate_vectors(side: SideTile, row: u32, pair: u32, round: u32, zero: u32) {
    let at = side.matrix + row * side.size + pair_of(side, pair, round);
    if (at.x != at.y) {
        let numbers = rotated(rotation_of(side, pair), vec2<f32>(work[at.x], work[at.y]), zero);
        work[at.x] = numbers.x;
        work[at.y] = numbers.y;
    }
}

// Notes the products of the columns of the draft with those of the old basis, and divides each column by its largest
// number: squares of small numbers would vanish.
fn scale_columns(side: SideTile, lane: u32, zero: u32) {
    for (var column = lane; column < side.size; column += LANES) {
        var along = 0.0;
        var most = 0.0;
        for (var i = column; i < side.len; i += side.size) {
            let number = work[side.to + i];
            along += hidden(work[side.matrix + i] * number, zero);
            if (abs(number) > most) {
                most = abs(number);
            }
        }
        work[side.notes + column] = along;
        if (most > 0.0) {
            for (var i = column; i < side.len; i += side.size) {
                work[side.to + i] /= most;
            }
        }
    }
    storageBarrier();
}

// Notes the order in which the columns are taken: that of their products, largest first.
fn order_columns(side: SideTile, lane: u32) {
    for (var column = lane; column < side.size; column += LANES) {
        let own = height(work[side.notes + column]);
        var rank = 0u;
        for (var other = 0u; other < side.size; other += 1u) {
            let another = height(work[side.notes + other]);
            rank += u32(another > own || (another == own && other < column));
        }
        work[at_order(side, rank)] = f32(column);
    }
    storageBarrier();
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

// Householder's reflections of the draft. Each leaves its mirror in its column, below the pivot.
fn reflect_draft(side: SideTile, lane: u32, zero: u32) {
    for (var pivot = 0u; pivot < side.size; pivot += 1u) {
        let column = column_at(side, pivot);
        for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
            var sum = 0.0;
            for (var row = pivot + 1u + leaf; row < side.size; row += LEAVES) {
                let number = work[side.to + row * side.size + column];
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
        let tau = work[at_tau(side, pivot)];
        if (tau != 0.0) {
            for (var row = pivot + 1u + lane; row < side.size; row += LANES) {
                work[side.to + row * side.size + column] /= divisor;
            }
        }
        storageBarrier();
        if (tau != 0.0) {
            for (var place = pivot + 1u + lane; place < side.size; place += LANES) {
                reflect(side, side.to, column_at(side, place), pivot, tau, zero);
            }
        }
        storageBarrier();
    }
}

// Notes the factor of a reflection, which is 0 where there is nothing below the pivot.
fn find_reflection(side: SideTile, pivot: u32, column: u32, zero: u32) {
    var below = 0.0;
    for (var leaf = 0u; leaf < LEAVES; leaf += 1u) {
        below += leaves[leaf];
    }
    var tau = 0.0;
    if (below != 0.0) {
        let head = work[side.to + pivot * side.size + column];
        let length = sqrt(hidden(head * head, zero) + below);
        let new_head = select(-length, length, head < 0.0);
        tau = (new_head - head) / new_head;
        divisor = head - new_head;
    }
    work[at_tau(side, pivot)] = tau;
}

// Reflects a column of a matrix. The mirror counts below the pivot, where it has 1.
fn reflect(side: SideTile, matrix: u32, column: u32, pivot: u32, tau: f32, zero: u32) {
    let mirror = side.to + column_at(side, pivot);
    let first = matrix + column;
    let head = work[first + pivot * side.size];
    var dot = head;
    for (var row = pivot + 1u; row < side.size; row += 4u) {
        dot = with_row(side, mirror, first, row, dot, zero);
        dot = with_row(side, mirror, first, row + 1u, dot, zero);
        dot = with_row(side, mirror, first, row + 2u, dot, zero);
        dot = with_row(side, mirror, first, row + 3u, dot, zero);
    }
    let factor = hidden(tau * dot, zero);
    work[first + pivot * side.size] = head - factor;
    for (var row = pivot + 1u; row < side.size; row += 4u) {
        reflect_row(side, mirror, first, row, factor, zero);
        reflect_row(side, mirror, first, row + 1u, factor, zero);
        reflect_row(side, mirror, first, row + 2u, factor, zero);
        reflect_row(side, mirror, first, row + 3u, factor, zero);
    }
}

// Adds the product of mirror and column in a row, if there is such a row.
fn with_row(side: SideTile, mirror: u32, first: u32, row: u32, dot: f32, zero: u32) -> f32 {
    if (row >= side.size) {
        return dot;
    }
    return dot + hidden(work[mirror + row * side.size] * work[first + row * side.size], zero);
}

fn reflect_row(side: SideTile, mirror: u32, first: u32, row: u32, factor: f32, zero: u32) {
    if (row < side.size) {
        work[first + row * side.size] -= hidden(factor * work[mirror + row * side.size], zero);
    }
}

// Makes the new basis of the reflections, the last one first.
fn collect_reflections(side: SideTile, lane: u32, zero: u32) {
    for (var place = lane; place < side.size; place += LANES) {
        let column = column_at(side, place);
        for (var row = 0u; row < side.size; row += 1u) {
            work[side.matrix + row * side.size + column] = select(0.0, 1.0, row == place);
        }
        for (var pivot = place + 1u; pivot > 0u; pivot -= 1u) {
            let tau = work[at_tau(side, pivot - 1u)];
            if (tau != 0.0) {
                reflect(side, side.matrix, column, pivot - 1u, tau, zero);
            }
        }
    }
}

