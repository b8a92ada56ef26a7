// Combines `measure` over the elements of a chunk: one partial result a chunk. A tensor of one chunk is finished here.

// The numbers that `leaf_of` needs to see an element as the rule does.
struct Eyes { c: Common, w: Wrapped, h: Hyper, k: Tensor, lane: u32 }

@compute @workgroup_size(LANES)
fn sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    combine_chunks(group, groups, lane);
}

fn is_taken(chunk: Chunk) -> bool {
    return chunk.len > 0u && !is_absent(load_record(chunk.tensor));
}

fn eyes_of(chunk: Chunk, lane: u32) -> Eyes {
    let record = load_record(chunk.tensor);
    let w = load_wrapped(chunk.tensor, record);
    return Eyes(load_common(record), w, load_hyper(record), load_tensor(chunk.tensor), lane);
}

fn leave(chunk: Chunk, node: Node) {
    if (chunk.partial == ABSENT) {
        finish_with(chunk.tensor, load_record(chunk.tensor), chunk.len, chunk.rows, chunk.columns, node);
    } else {
        store_partial(chunk.partial, node);
    }
}

// A leaf is 8 of a block's 256 quads. Eight successive leaves take turns over 64 adjacent quads.
fn leaf_of(chunk: Chunk, eyes: Eyes, leaf: u32) -> Node {
    let first = leaf / 8u * 64u;
    let end = quads(chunk.len);
    if (STRETCH > 1u) {
        return leaf_of_groups(chunk, eyes, first, end);
    }
    var node = Node(0u, 0u);
    // All lanes take as many turns, since those that share a group of the state meet in each.
    let turns = min((end + 7u) / 8u, 8u);
    for (var n = 0u; n < turns; n += 1u) {
        let q = first + leaf % 8u + 8u * n;
        let quad = quad_of(chunk, eyes, q, false);
        if (q < end) {
            node = combine(node, quad);
        }
    }
    return node;
}

var<workgroup> seen: array<Node, 64>;

// The same where eight lanes hold a group of the state each: a lane looks at the quads of its group, which belong to
// one leaf each, and then combines those of its leaf in their order.
fn leaf_of_groups(chunk: Chunk, eyes: Eyes, first: u32, end: u32) -> Node {
    let start = first + STRETCH * eyes.lane;
    if (start < end) {
        load_steps(chunk, start);
    }
    for (var n = 0u; n < STRETCH; n += 2u) {
        let at = STRETCH * eyes.lane + n;
        seen[at] = quad_of(chunk, eyes, start + n, false);
        seen[at + 1u] = quad_of(chunk, eyes, start + n + 1u, true);
    }
    if (start < end) {
        store_group(chunk, eyes.w, start);
    }
    workgroupBarrier();
    var node = Node(0u, 0u);
    for (var n = 0u; n < 8u; n += 1u) {
        let at = STRETCH * n + eyes.lane;
        if (first + at < end) {
            node = combine(node, seen[at]);
        }
    }
    workgroupBarrier();
    return node;
}

// What the rule measures of four elements, combined.
fn quad_of(chunk: Chunk, eyes: Eyes, q: u32, is_second: bool) -> Node {
    let c = eyes.c;
    let w = eyes.w;
    let h = eyes.h;
    let k = eyes.k;
    let zero = hidden_zero(chunk.len);
    var node = Node(0u, 0u);
    var s0: State;
    var s1: State;
    var s2: State;
    var s3: State;
    if (q < quads(chunk.len)) {
        var p: vec4<f32>;
        if (SUM_PARAM || (L2 && SUM_GRAD)) {
            p = load_whole(chunk, c.first != 0.0, q);
        }
        var g: vec4<f32>;
        if (SUM_GRAD) {
            let raw = load_grad(chunk, q);
            g = vec4<f32>(
                prepare(c, w, p.x, raw.x),
                prepare(c, w, p.y, raw.y),
                prepare(c, w, p.z, raw.z),
                prepare(c, w, p.w, raw.w),
            );
        }
        if (SUM_STATE) {
            load_state(chunk, c, q, p, &s0, &s1, &s2, &s3);
        }
        let a = hidden(measure_one(h, k, p.x, g.x, &s0), zero);
        var b = hidden(measure_one(h, k, p.y, g.y, &s1), zero);
        var d = hidden(measure_one(h, k, p.z, g.z, &s2), zero);
        var e = hidden(measure_one(h, k, p.w, g.w, &s3), zero);
        if (TAILS) {
            // Padding may hold anything, so the numbers of elements behind the end are replaced as bits.
            let none = Node(0u, 0u);
            b = select(none, b, 4u * q + 1u < chunk.len);
            d = select(none, d, 4u * q + 2u < chunk.len);
            e = select(none, e, 4u * q + 3u < chunk.len);
        }
        node = combine(combine(a, b), combine(d, e));
    }
    if (SUM_STORES) {
        store_state(chunk, w, eyes.lane, q, is_second, s0, s1, s2, s3);
    }
    return node;
}

// The numbers as bits that no compiler can trace, so that no product is contracted with the sum.
fn hidden(numbers: vec2<f32>, zero: u32) -> Node {
    let bits = bitcast<vec2<u32>>(numbers);
    return Node(bits.x ^ zero, select(0u, bits.y ^ zero, SUM_PAIR));
}

fn measure_one(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    if (PRODUCT) {
        return measure_product(h, k, *s);
    }
    return measure(h, k, p, g, s);
}
