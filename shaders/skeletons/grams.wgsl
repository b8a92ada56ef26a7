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

// Multiplies two slices of the gradient. A slice consists of runs of elements that lie side by side.
fn product_of_slices(tile: SideTile, a: u32, b: u32, zero: u32) -> f32 {
    var sum = 0.0;
    var within = 0u;
    var start = tile.source;
    for (var first = 0u; first < tile.products; first += RUN) {
        var run = 0.0;
        for (var k = first; k < min(first + RUN, tile.products); k += 1u) {
            run += hidden(work[start + a * tile.inner + within] * work[start + b * tile.inner + within], zero);
            within += 1u;
            if (within == tile.inner) {
                within = 0u;
                start += tile.size * tile.inner;
            }
        }
        sum += run;
    }
    return sum;
}
