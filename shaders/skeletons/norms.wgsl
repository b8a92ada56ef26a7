// Gradients measured, before anything is done with them: one partial a row.

// What a leaf is seen with.
struct Eyes { unscale: f32, batches: f32 }

@compute @workgroup_size(LANES)
fn norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    if (!is_present(row.tensor) || row.len == 0u) {
        return;
    }
    combine_row(row, Eyes(load_unscale(), load_batches()), lane);
    if (lane == 0u) {
        store_partial(row.partial, nodes[0]);
    }
}

// 8 of a block's 256 quads. Eight leaves in a row read 64 adjacent quads.
fn leaf_of(row: Row, eyes: Eyes, leaf: u32) -> Node {
    let first = leaf / 8u * 64u;
    let end = min(first + 64u, quads(row));
    let zero = hidden_zero(row);
    var node = Node();
    for (var q = first + leaf % 8u; q < end; q += 8u) {
        var words = load_grad_words(row, q);
        var p: vec4<f32>;
        if (NORM_PARAM) {
            p = load_param(row, q);
        }
        if (TAILS) {
            // Padding may hold anything.
            let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(row.len - 4u * q);
            words = select(vec4<u32>(), words, inside);
            p = select(vec4<f32>(), p, inside);
        }
        var g = bitcast<vec4<f32>>(words);
        if (UNSCALE) {
            g *= eyes.unscale;
        }
        if (MEAN) {
            g /= eyes.batches;
        }
        // The bits decide: comparisons of floats may take it that there is no NaN.
        let raw = words & vec4<u32>(0x7fffffffu);
        let bits = (bitcast<vec4<u32>>(g) ^ vec4<u32>(zero)) & vec4<u32>(0x7fffffffu);
        let kinds = vec4<u32>(bits >= vec4<u32>(0x5f000000u)) + vec4<u32>(raw >= vec4<u32>(0x7f800000u))
            + vec4<u32>(raw > vec4<u32>(0x7f800000u));
        var squares = vec4<f32>(squares_of(g, bits, zero), 0.0, 0.0);
        if (NORM_PARAM) {
            let of_params = (bitcast<vec4<u32>>(p) ^ vec4<u32>(zero)) & vec4<u32>(0x7fffffffu);
            squares = vec4<f32>(squares.xy, squares_of(p, of_params, zero));
        }
        node = combine(node, Node(squares, max(max(kinds.x, kinds.y), max(kinds.z, kinds.w))));
    }
    return node;
}

// Of four numbers, given their bits without the sign. Those that are not finite count nothing: the kind tells of them.
fn squares_of(x: vec4<f32>, bits: vec4<u32>, zero: u32) -> vec2<f32> {
    let is_large = bits >= vec4<u32>(0x4f800000u);
    let is_finite = bits < vec4<u32>(0x7f800000u);
    let small = select(x * 32768.0, vec4<f32>(), is_large);
    let large = select(vec4<f32>(), x * bitcast<f32>(0x17800000u), is_large & is_finite);
    // Hidden, so that no square is contracted with a sum.
    let a = bitcast<vec4<f32>>(bitcast<vec4<u32>>(small * small) ^ vec4<u32>(zero));
    let b = bitcast<vec4<f32>>(bitcast<vec4<u32>>(large * large) ^ vec4<u32>(zero));
    return vec2<f32>((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
}
