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
