// Applies a matrix along a side of each tensor: one workgroup some elements of the result.
// Twin: `turn` in src/sides.rs

override BACK: bool = false; // the matrix itself is applied, else its transpose
override POWER: bool = false; // what is turned are the bases, where they are renewed by a power iteration

@compute @workgroup_size(LANES)
fn turn(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = load_entry(entry_index(group, groups));
    let record = load_record(tile.tensor);
    if (tile.len == 0u || is_absent(record)) {
        return;
    }
    if (POWER && renewal(load_hyper(record)) != BY_POWER) {
        return;
    }
    let zero = hidden_zero(tile.len);
    for (var i = tile.first + lane; i < tile.first + tile.len; i += LANES) {
        let line = i / tile.inner;
        let index = line % tile.size;
        let source = tile.source + (line - index) * tile.inner + i % tile.inner;
        work[tile.to + i] = turned(tile, index, source, zero);
    }
}

// Multiplies a row of the matrix, or a column, by the elements of a line that starts here.
fn turned(tile: SideTile, index: u32, source: u32, zero: u32) -> f32 {
    var at = tile.matrix + index;
    var stride = tile.size;
    if (BACK) {
        at = tile.matrix + index * tile.size;
        stride = 1u;
    }
    var sum = 0.0;
    for (var first = 0u; first < tile.size; first += RUN) {
        var run = 0.0;
        for (var k = first; k < min(first + RUN, tile.size); k += 1u) {
            run += hidden(work[at + k * stride] * work[source + k * tile.inner], zero);
        }
        sum += run;
    }
    return sum;
}
