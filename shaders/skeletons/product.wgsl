// One product for the matrices of all tensors, C = ALPHA*P^T*Q + BETA*D: one workgroup a tile of C. Both factors are
// read row by row, a row for each number that a sum adds up, so a lane reads vectors of four that lie side by side.
// Twin: src/product.rs

override ALPHA: f32 = 1.0;
override BETA: f32 = 0.0; // 0 where there is no D
override TURNS: bool = false; // C is stored transposed, too
override IS_SECOND: bool = false; // Q and D lie at the second of two places, and C goes to the first

const RUN: u32 = 32u; // numbers that are added up one after the other
const HIGH: u32 = 8u; // rows that a lane takes at a time, of one vector of four columns
const WIDE: u32 = 16u; // vectors of four columns of a tile

@compute @workgroup_size(LANES)
fn multiply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var tile = load_entry(entry_index(group, groups));
    if (tile.len == 0u || is_absent(load_record(tile.tensor))) {
        return;
    }
    if (IS_SECOND) {
        tile.q += tile.second;
        tile.d += tile.second;
    } else {
        tile.c += tile.second;
    }
    // Where lanes are few, all of them take the same rows.
    var first = 0u;
    if (LANES > WIDE) {
        first = lane / WIDE;
    }
    let zero = hidden_zero(tile.len);
    let high = (tile.rows + HIGH - 1u) / HIGH;
    for (var down = first; down < high; down += max(LANES / WIDE, 1u)) {
        for (var across = lane % WIDE; across < quads(tile.columns); across += min(LANES, WIDE)) {
            multiply_part(tile, down, across, zero);
        }
    }
}

// Makes eight rows and four columns of a tile.
fn multiply_part(tile: MatrixTile, down: u32, across: u32, zero: u32) {
    let above = 2u * down;
    // Below the last row of C no second vector of factors may be.
    let below = min(above + 1u, quads(tile.rows) - 1u);
    var sums: array<vec4<f32>, HIGH>;
    for (var start = 0u; start < tile.len; start += RUN) {
        // Set to zero by name: SwiftShader under Chromium kept what the last round of the loop left here.
        var run = array<vec4<f32>, HIGH>();
        for (var k = start; k < min(start + RUN, tile.len); k += 1u) {
            let row = tile.p + k * tile.p_stride;
            let a = work[row + above];
            let b = work[row + below];
            let q = work[tile.q + k * tile.q_stride + across];
            run[0] += hidden(a.x * q, zero);
            run[1] += hidden(a.y * q, zero);
            run[2] += hidden(a.z * q, zero);
            run[3] += hidden(a.w * q, zero);
            run[4] += hidden(b.x * q, zero);
            run[5] += hidden(b.y * q, zero);
            run[6] += hidden(b.z * q, zero);
            run[7] += hidden(b.w * q, zero);
        }
        for (var i = 0u; i < HIGH; i += 1u) {
            sums[i] += run[i];
        }
    }
    // Padding stays 0, even where a number is NaN.
    let is_inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.columns - 4u * across);
    let rows = min(HIGH, tile.rows - HIGH * down);
    for (var i = 0u; i < HIGH; i += 1u) {
        let place = (HIGH * down + i) * tile.c_stride + across;
        var sum = hidden(ALPHA * sums[i], zero);
        if (BETA != 0.0 && i < rows) {
            sum += hidden(BETA * work[tile.d + place], zero);
        }
        sums[i] = select(vec4<f32>(), sum, is_inside & vec4<bool>(i < rows));
        if (i < rows) {
            work[tile.c + place] = sums[i];
        }
    }
    if (TURNS) {
        for (var i = 0u; i < min(4u, tile.columns - 4u * across); i += 1u) {
            let place = tile.turned + (4u * across + i) * tile.turned_stride + above;
            work[place] = vec4<f32>(sums[0][i], sums[1][i], sums[2][i], sums[3][i]);
            if (rows > 4u) {
                work[place + 1u] = vec4<f32>(sums[4][i], sums[5][i], sums[6][i], sums[7][i]);
            }
        }
    }
}

// The numbers as a compiler sees them that cannot contract a product with the sum that it goes into.
fn hidden(numbers: vec4<f32>, zero: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(numbers) ^ vec4<u32>(zero));
}
