// The shares that tiles have in a line added up, and `finish_line`: one workgroup for all rows of a matrix, which then
// see their mean, and one for some of its columns.
// Twin: src/lines.rs

const LEAVES: u32 = 256u;

var<workgroup> leaves: array<f32, LEAVES>;

@compute @workgroup_size(LANES)
fn finish_lines(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = load_row(row_index(group, groups));
    let record = load_record(row.tensor);
    if (is_absent(record) || row.len == 0u) {
        return;
    }
    let h = load_hyper(record);
    let are_rows = row.top == 0u;
    let len = f32(select(row.rows, row.columns, are_rows));
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var sum = 0.0;
        for (var i = leaf; i < row.len; i += LEAVES) {
            let number = finish_line(h, add_up_shares(row, i), len, load_line(row.lines + i));
            store_line(row.lines + i, number);
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
    let mean = leaves[0] / f32(row.rows);
    // A lane has stored the rows that it reads.
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        for (var i = leaf; i < row.len; i += LEAVES) {
            store_line(row.seen + i, finish_row(h, load_line(row.lines + i), mean));
        }
    }
}

// Sixteen by sixteen, then these.
fn add_up_shares(row: Row, line: u32) -> f32 {
    let count = row.param;
    let step = row.grad;
    var sum = 0.0;
    for (var n = 0u; n < count; n += 16u) {
        var part = 0.0;
        for (var i = n; i < min(n + 16u, count); i += 1u) {
            part += load_share(row.partial + i * step + line);
        }
        sum += part;
    }
    return sum;
}
