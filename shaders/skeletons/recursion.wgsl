// Combines the inner products of all tensors, makes the coefficients of the direction of them, and calls `finish` with
// the numbers of the first tensor that takes part: one workgroup. Where no tensor takes part, nothing changes. Of a
// trial it only combines what the trial shows.
// Twin: `recursion` in src/history.rs

const CURVATURE_MIN: f32 = 1e-10; // a pair that is kept has more

var<workgroup> present: atomic<u32>;
var<workgroup> first: u32;
var<workgroup> pairs: u32;
var<workgroup> next: u32;
var<workgroup> newest: u32;
var<workgroup> scale: f32;

@compute @workgroup_size(LANES)
fn recursion(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let model = load_entry(entry_index(group, groups));
    let zero = hidden_zero(model.len);
    if (lane == 0u) {
        atomicStore(&present, ABSENT);
    }
    workgroupBarrier();
    for (var tensor = lane; tensor < model.tensors; tensor += LANES) {
        if (!is_absent(load_record(tensor))) {
            atomicMin(&present, tensor);
        }
    }
    workgroupBarrier();
    if (lane == 0u) {
        first = atomicLoad(&present);
    }
    if (workgroupUniformLoad(&first) == ABSENT) {
        return;
    }
    add_up(model.tensors, lane);
    if (PROBE) {
        if (lane == 0u) {
            keep_trial();
        }
    } else {
        make_coefficients(lane, zero);
    }
    storageBarrier();
    clear_rows(model.tensors, lane);
}

// Makes the coefficients of the direction, and calls `finish`.
fn make_coefficients(lane: u32, zero: u32) {
    if (lane == 0u) {
        decide();
    }
    workgroupBarrier();
    gather(lane);
    storageBarrier();
    let count = workgroupUniformLoad(&pairs);
    for (var age = count; age > 0u; age -= 1u) {
        let pair = pair_at(age - 1u, count, next);
        let factor = load_number(at_along_moved(pair)) / load_number(at_moved_change(pair, pair));
        for (var i = lane; i < count; i += LANES) {
            let other = pair_at(i, count, next);
            if (i + 1u < age) {
                add_to(at_along_moved(other), -factor, load_number(at_moved_change(other, pair)), zero);
            }
            add_to(at_along_change(other), -factor, load_number(at_changes(other, pair)), zero);
        }
        if (lane == 0u) {
            add_to(at_along_change(HISTORY), -factor, load_number(at_change_grad(pair)), zero);
            store_number(at_change_factor(pair), factor);
        }
        storageBarrier();
    }
    for (var i = lane; i <= count; i += LANES) {
        let at = at_along_change(select(pair_at(i, count, next), HISTORY, i == count));
        store_number(at, scale * load_number(at));
    }
    storageBarrier();
    for (var age = 0u; age < count; age += 1u) {
        let pair = pair_at(age, count, next);
        let along = load_number(at_along_change(pair)) / load_number(at_moved_change(pair, pair));
        let factor = load_number(at_change_factor(pair)) - along;
        for (var i = lane; i < count; i += LANES) {
            let other = pair_at(i, count, next);
            if (i > age) {
                add_to(at_along_change(other), factor, load_number(at_moved_change(pair, other)), zero);
            }
        }
        if (lane == 0u) {
            add_to(at_along_change(HISTORY), factor, load_number(at_moved_grad(pair)), zero);
            store_number(at_moved_factor(pair), factor);
        }
        storageBarrier();
    }
    if (lane == 0u) {
        conclude();
    }
}

// A tensor that sits the next step or trial out, or has no elements, adds zeros to it.
fn clear_rows(tensors: u32, lane: u32) {
    let rows = BEFORE_PAIRS + HISTORY;
    for (var i = lane; i < rows * tensors; i += LANES) {
        store_partial(row_of(i / rows, i % rows), Node());
    }
}

// Keeps what a trial shows for the host.
fn keep_trial() {
    var k = load_tensor(first);
    let row = row_of(0u, OF_GRAD);
    k.along = load_number(row + INNER_MOVED_GRAD);
    k.grad_max = load_number(row + INNER_MOVED_CHANGE);
    k.direction_max = load_number(row + INNER_CHANGE_GRAD);
    store_tensor(first, k);
}

// Adds the rows of all tensors up in a binary tree over the tensors, into those of the first.
fn add_up(tensors: u32, lane: u32) {
    let rows = rows_with(u32(load_tensor(0u).pairs));
    for (var stride = 1u; stride < tensors; stride *= 2u) {
        let nodes = (tensors + stride - 1u) / (2u * stride);
        for (var i = lane; i < rows * nodes; i += LANES) {
            let tensor = 2u * stride * (i / rows);
            let at = row_of(tensor, i % rows);
            let other = row_of(tensor + stride, i % rows);
            store_partial(at, combine(load_partial(at), load_partial(other)));
        }
        storageBarrier();
    }
}

// Decides whether the newest pair is kept, and where.
fn decide() {
    var k = load_tensor(first);
    let of_grad = row_of(0u, OF_GRAD);
    let size = load_number(of_grad + INNER_MOVED_CHANGE);
    let row = row_of(0u, OF_NEWEST);
    let curvature = load_number(row + INNER_MOVED_CHANGE);
    k.updates = select(1.0, 0.0, size == 0.0);
    k.last = k.step;
    k.kept = 0.0;
    newest = HISTORY;
    if (k.updates != 0.0 && k.started != 0.0 && curvature > CURVATURE_MIN) {
        k.kept = 1.0;
        k.scale = curvature / load_number(row + INNER_CHANGE_CHANGE);
        newest = u32(k.next);
        k.next = f32((newest + 1u) % HISTORY);
        k.pairs = smaller(k.pairs + 1.0, f32(HISTORY));
    }
    pairs = u32(k.pairs);
    next = u32(k.next);
    scale = k.scale;
    store_tensor(first, k);
}

// Puts the products with the newest pair among those of the other pairs, and takes those with the gradient.
fn gather(lane: u32) {
    for (var pair = lane; pair < pairs; pair += LANES) {
        var row = row_of(0u, BEFORE_PAIRS + pair);
        if (pair == newest) {
            row = row_of(0u, OF_NEWEST);
            store_number(at_moved_change(pair, pair), load_number(row + INNER_MOVED_CHANGE));
            store_number(at_changes(pair, pair), load_number(row + INNER_CHANGE_CHANGE));
        } else if (newest < HISTORY) {
            store_number(at_moved_change(pair, newest), load_number(row + INNER_MOVED_CHANGE));
            store_number(at_moved_change(newest, pair), load_number(row + INNER_CHANGE_MOVED));
            store_number(at_changes(pair, newest), load_number(row + INNER_CHANGE_CHANGE));
            store_number(at_changes(newest, pair), load_number(row + INNER_CHANGE_CHANGE));
        }
        let moved = load_number(row + INNER_MOVED_GRAD);
        let change = load_number(row + INNER_CHANGE_GRAD);
        store_number(at_moved_grad(pair), moved);
        store_number(at_change_grad(pair), change);
        store_number(at_along_moved(pair), -moved);
        store_number(at_along_change(pair), -change);
    }
    if (lane == 0u) {
        let of_grad = row_of(0u, OF_GRAD);
        store_number(at_along_change(HISTORY), -load_number(of_grad + INNER_MOVED_GRAD));
    }
}

// Adds a product to a number, rounded twice.
fn add_to(at: u32, factor: f32, number: f32, zero: u32) {
    let product = bitcast<f32>(bitcast<u32>(factor * number) ^ zero);
    store_number(at, load_number(at) + product);
}

// Hands the length of a first step, or 1, and the direction's product with the gradient to the rule.
fn conclude() {
    var k = load_tensor(first);
    if (k.updates == 0.0) {
        k.moves = 0.0;
    } else {
        let of_grad = row_of(0u, OF_GRAD);
        let size = load_number(of_grad + INNER_MOVED_CHANGE);
        // In PyTorch, too, a size that is NaN leaves a length of 1.
        let length = select(1.0, 1.0 / size, k.started == 0.0 && 1.0 / size < 1.0);
        finish(load_hyper(load_record(first)), vec2<f32>(length, load_number(at_along_change(HISTORY))), 1.0, &k);
        k.started = 1.0;
    }
    store_tensor(first, k);
}
