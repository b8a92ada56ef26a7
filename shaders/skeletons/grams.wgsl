// The Gram matrices of the sides of all tensors: one workgroup some elements of a matrix.
// Twin: `gram` in src/sides.rs

@compute @workgroup_size(LANES)
fn grams(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = load_entry(entry_index(group, groups));
    let record = load_record(tile.tensor);
    if (tile.len == 0u || is_absent(record)) {
        return;
    }
    let h = load_hyper(record);
    let zero = hidden_zero(tile.len);
    for (var i = tile.first + lane; i < tile.first + tile.len; i += LANES) {
        let sum = product_of_slices(tile, i / tile.size, i % tile.size, zero);
        work[tile.to + i] = gram(h, sum, work[tile.to + i]);
    }
}

// Multiplies two slices of the gradient.
fn product_of_slices(tile: SideTile, a: u32, b: u32, zero: u32) -> f32 {
    var sum = 0.0;
    for (var first = 0u; first < tile.products; first += RUN) {
        var run = 0.0;
        for (var k = first; k < min(first + RUN, tile.products); k += 4u) {
            run = with_product(tile, a, b, k, run, zero);
            run = with_product(tile, a, b, k + 1u, run, zero);
            run = with_product(tile, a, b, k + 2u, run, zero);
            run = with_product(tile, a, b, k + 3u, run, zero);
        }
        sum += run;
    }
    return sum;
}

// Adds the product of two slices' elements at this place, if there is one. A slice consists of lines of elements that
// lie side by side.
fn with_product(tile: SideTile, a: u32, b: u32, k: u32, run: f32, zero: u32) -> f32 {
    if (k >= tile.products) {
        return run;
    }
    let within = k % tile.inner;
    let at = tile.source + (k - within) * tile.size + within;
    return run + hidden(work[at + a * tile.inner] * work[at + b * tile.inner], zero);
}
