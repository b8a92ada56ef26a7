// Adds up the shares that tiles have in each line of a large matrix, and calls `finish_line` with the sum. One
// workgroup takes all rows of a matrix and, since it knows their mean, calls `finish_row` too; others take some columns
// each.
// Twin: src/lines.rs

const LEAVES: u32 = 256u;

var<workgroup> leaves: array<f32, LEAVES>;

@compute @workgroup_size(LANES)
fn finish_lines(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let run = load_entry(entry_index(group, groups));
    let record = load_record(run.tensor);
    if (is_absent(record) || run.len == 0u) {
        return;
    }
    let h = load_hyper(record);
    let are_rows = run.are_columns == 0u;
    let len = f32(select(run.rows, run.columns, are_rows));
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var sum = 0.0;
        for (var i = leaf; i < run.len; i += LEAVES) {
            let number = finish_line(h, add_up_shares(run, i), len, load_line(run.numbers + i));
            store_line(run.numbers + i, number);
            sum += number;
        }
        leaves[leaf] = sum;
    }
    if (!are_rows) {
        return;
    }
    for (var half = LEAVES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < half; i += LANES) {
            leaves[i] += leaves[i + half];
        }
    }
    workgroupBarrier();
    let mean = leaves[0] / f32(run.rows);
    // Each lane reads only rows that it has stored itself.
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        for (var i = leaf; i < run.len; i += LEAVES) {
            store_line(run.seen_rows + i, finish_row(h, load_line(run.numbers + i), mean));
        }
    }
}

// Adds up sixteen shares at a time, then the sums of the sixteens.
fn add_up_shares(run: LinesOfMatrix, line: u32) -> f32 {
    let count = run.shares;
    let stride = run.stride;
    var sum = 0.0;
    for (var n = 0u; n < count; n += 16u) {
        var part = 0.0;
        for (var i = n; i < min(n + 16u, count); i += 1u) {
            part += load_share(run.share + i * stride + line);
        }
        sum += part;
    }
    return sum;
}
