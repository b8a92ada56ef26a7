// Measures the gradients as they lie in memory, unscaled and averaged: one partial result a chunk. What is measured of
// a tensor of one chunk goes to control at once.

// The numbers that `leaf_of` divides gradients by.
struct Eyes { unscale: f32, batches: f32 }

@compute @workgroup_size(LANES)
fn norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    combine_chunks(group, groups, lane);
}

fn is_taken(chunk: Chunk) -> bool {
    return chunk.len > 0u && is_present(chunk.tensor);
}

fn eyes_of(chunk: Chunk, lane: u32) -> Eyes {
    return Eyes(load_unscale(), load_batches());
}

fn leave(chunk: Chunk, node: Node) {
    if (chunk.partial == ABSENT) {
        store_measured(chunk.tensor, node);
    } else {
        store_partial(chunk.partial, node);
    }
}

// A leaf is 8 of a block's 256 quads. Eight successive leaves take turns over 64 adjacent quads. Nearly every leaf
// holds only numbers below 2^32, whose squares one sum holds; a leaf that does not is read again by `large_leaf_of`.
fn leaf_of(chunk: Chunk, eyes: Eyes, leaf: u32) -> Node {
    let first = leaf / 8u * 64u + leaf % 8u;
    let end = min(leaf / 8u * 64u + 64u, quads(chunk.len));
    let zero = vec4<u32>(hidden_zero(chunk.len));
    let unit = 32768.0 * select(1.0, eyes.unscale, UNSCALE); // both are powers of two
    var of_grads = 0.0;
    var of_params = 0.0;
    for (var q = first; q < end; q += 8u) {
        var g = bitcast<vec4<f32>>(words_of(chunk, q)) * unit;
        if (MEAN) {
            g /= eyes.batches;
        }
        of_grads += sum_of(g * g, zero);
        if (NORM_PARAM) {
            let p = param_of(chunk, q) * 32768.0;
            of_params += sum_of(p * p, zero);
        }
    }
    // In these units the square of 2^32 is 2^94, and the square of a number that is not finite is not finite either.
    let sizes = bitcast<vec2<u32>>(vec2<f32>(of_grads, of_params)) & SIZE.xy;
    if (max(sizes.x, sizes.y) < 0x6e800000u) {
        return Node(vec4<f32>(of_grads, 0.0, of_params, 0.0), 0u);
    }
    return large_leaf_of(chunk, eyes, first, end);
}

const SIZE = vec4<u32>(0x7fffffffu);

fn words_of(chunk: Chunk, q: u32) -> vec4<u32> {
    let words = load_grad_words(chunk, q);
    if (TAILS) {
        // Padding may hold anything.
        return select(vec4<u32>(), words, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }
    return words;
}

fn param_of(chunk: Chunk, q: u32) -> vec4<f32> {
    let p = load_param(chunk, q);
    if (TAILS) {
        return select(vec4<f32>(), p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }
    return p;
}

// The squares go through bits that no compiler can trace, so that none contracts a square with the sum.
fn sum_of(squares: vec4<f32>, zero: vec4<u32>) -> f32 {
    let a = bitcast<vec4<f32>>(bitcast<vec4<u32>>(squares) ^ zero);
    return (a.x + a.y) + (a.z + a.w);
}

fn large_leaf_of(chunk: Chunk, eyes: Eyes, first: u32, end: u32) -> Node {
    let zero = vec4<u32>(hidden_zero(chunk.len));
    var node = Node();
    for (var q = first; q < end; q += 8u) {
        let words = words_of(chunk, q);
        var g = bitcast<vec4<f32>>(words);
        if (UNSCALE) {
            g *= eyes.unscale;
        }
        if (MEAN) {
            g /= eyes.batches;
        }
        // The kinds are found by bits, since a compiler may take it that no float is NaN.
        let raw = words & SIZE;
        let bits = (bitcast<vec4<u32>>(g) ^ zero) & SIZE;
        let kinds = vec4<u32>(bits >= vec4<u32>(0x5f000000u)) + vec4<u32>(raw >= vec4<u32>(0x7f800000u))
            + vec4<u32>(raw > vec4<u32>(0x7f800000u));
        var squares = vec4<f32>(squares_of(g, bits, zero), 0.0, 0.0);
        if (NORM_PARAM) {
            let p = param_of(chunk, q);
            squares = vec4<f32>(squares.xy, squares_of(p, (bitcast<vec4<u32>>(p) ^ zero) & SIZE, zero));
        }
        node = combine(node, Node(squares, max(max(kinds.x, kinds.y), max(kinds.z, kinds.w))));
    }
    return node;
}

// The two sums of squares of four numbers, given their bits without the sign. A number that is not finite adds nothing
// to them; its kind tells of it.
fn squares_of(x: vec4<f32>, bits: vec4<u32>, zero: vec4<u32>) -> vec2<f32> {
    let is_large = bits >= vec4<u32>(0x4f800000u);
    let is_finite = bits < vec4<u32>(0x7f800000u);
    let small = select(x * 32768.0, vec4<f32>(), is_large);
    let large = select(vec4<f32>(), x * bitcast<f32>(0x17800000u), is_large & is_finite);
    return vec2<f32>(sum_of(small * small, zero), sum_of(large * large, zero));
}
