// Adds `measure_line` up over rows and columns: one workgroup a tile. A tile holds small matrices whole, and the
// workgroup finishes their lines, a lane those of a whole matrix where it has a strip of rows and a vector of four
// columns at most; of a large matrix the workgroup leaves the tile's shares to `finish_lines`.
// Twin: src/lines.rs

const SMALL: u32 = 2048u; // elements of matrices that a tile holds whole
const NUMBERS: u32 = 2048u;
const STRIP: u32 = 8u; // rows

// `of_rows` has the sums over four elements of a row: for each four from left to right, one number a row of the tile.
// `of_columns` has the sums over the rows of a strip: for each strip from top to bottom, one number a column of the
// tile.
var<workgroup> of_rows: array<f32, NUMBERS>;
var<workgroup> of_columns: array<f32, NUMBERS>;

@compute @workgroup_size(LANES)
fn lines_of_tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = load_entry(entry_index(group, groups));
    let record = load_record(tile.tensor);
    if (is_absent(record) || tile.len == 0u) {
        return;
    }
    let c = load_common(record);
    let w = load_wrapped(tile.tensor, record);
    let h = load_hyper(record);
    let width = tile.width;
    let fours = (width + 3u) / 4u;
    let all_rows = divide(tile.len, width);
    let small = tile.rows <= SMALL && tile.columns <= SMALL && tile.rows * tile.columns <= SMALL;
    let high = select(all_rows, tile.rows, small);
    let matrices = divide(all_rows, high);
    if (small && width <= 4u && high <= STRIP) {
        for (var matrix = lane; matrix < matrices; matrix += LANES) {
            take_matrix(tile, c, w, h, matrix);
        }
        return;
    }
    let strips = (high + STRIP - 1u) / STRIP;
    for (var task = lane; task < matrices * strips * fours; task += LANES) {
        let strip = divide(task, fours);
        let four = task - strip * fours;
        let matrix = divide(strip, strips);
        let first = matrix * high + (strip - matrix * strips) * STRIP;
        let end = min(first + STRIP, (matrix + 1u) * high);
        let across = 4u * four;
        var sums = vec4<f32>();
        for (var down = first; down < end; down += 1u) {
            let numbers = measure_four(tile, c, w, h, down, across, width - across);
            of_rows[four * all_rows + down] = (numbers.x + numbers.y) + (numbers.z + numbers.w);
            sums += numbers;
        }
        if (COLUMNS) {
            let at = strip * width + across;
            of_columns[at] = sums.x;
            if (!CROSSINGS || across + 1u < width) {
                of_columns[at + 1u] = sums.y;
            }
            if (!CROSSINGS || across + 2u < width) {
                of_columns[at + 2u] = sums.z;
            }
            if (!CROSSINGS || across + 3u < width) {
                of_columns[at + 3u] = sums.w;
            }
        }
    }
    workgroupBarrier();

    for (var i = lane; i < all_rows; i += LANES) {
        var sum = 0.0;
        for (var n = 0u; n < fours; n += 16u) {
            var part = 0.0;
            for (var four = n; four < min(n + 16u, fours); four += 1u) {
                part += of_rows[four * all_rows + i];
            }
            sum += part;
        }
        leave(h, small, tile.row_sums + i, sum, tile.columns);
    }
    for (var i = lane; COLUMNS && i < matrices * width; i += LANES) {
        let matrix = divide(i, width);
        let first = matrix * strips * width + i - matrix * width;
        var sum = 0.0;
        for (var n = 0u; n < strips; n += 16u) {
            var part = 0.0;
            for (var strip = n; strip < min(n + 16u, strips); strip += 1u) {
                part += of_columns[first + strip * width];
            }
            sum += part;
        }
        leave(h, small, tile.column_sums + i, sum, tile.rows);
    }
    if (!small) {
        return;
    }
    storageBarrier();
    for (var first = lane * high; first < all_rows; first += LANES * high) {
        var sum = 0.0;
        for (var n = 0u; n < high; n += 16u) {
            var part = 0.0;
            for (var i = n; i < min(n + 16u, high); i += 1u) {
                part += load_line(tile.row_sums + first + i);
            }
            sum += part;
        }
        let mean = sum / f32(high);
        for (var i = first; i < first + high; i += 1u) {
            store_line(tile.seen_rows + i, finish_row(h, load_line(tile.row_sums + i), mean));
        }
    }
}

// Finishes the lines of a matrix of a strip of rows and a vector of four columns at most. No other lane sees its sums.
fn take_matrix(tile: Tile, c: Common, w: Wrapped, h: Hyper, matrix: u32) {
    let first = matrix * tile.rows;
    let end = first + tile.rows;
    var sums = vec4<f32>();
    for (var down = first; down < end; down += 1u) {
        let numbers = measure_four(tile, c, w, h, down, 0u, tile.columns);
        let sum = (numbers.x + numbers.y) + (numbers.z + numbers.w);
        leave(h, true, tile.row_sums + down, sum, tile.columns);
        sums += numbers;
    }
    if (COLUMNS) {
        let at = tile.column_sums + matrix * tile.columns;
        leave(h, true, at, sums.x, tile.rows);
        if (!CROSSINGS || tile.columns > 1u) {
            leave(h, true, at + 1u, sums.y, tile.rows);
        }
        if (!CROSSINGS || tile.columns > 2u) {
            leave(h, true, at + 2u, sums.z, tile.rows);
        }
        if (!CROSSINGS || tile.columns > 3u) {
            leave(h, true, at + 3u, sums.w, tile.rows);
        }
    }
    var sum = 0.0;
    for (var i = first; i < end; i += 1u) {
        sum += load_line(tile.row_sums + i);
    }
    let mean = sum / f32(tile.rows);
    for (var i = first; i < end; i += 1u) {
        store_line(tile.seen_rows + i, finish_row(h, load_line(tile.row_sums + i), mean));
    }
}

// What `measure_line` makes of `count` elements of a row, four at most; behind them it is 0.
fn measure_four(tile: Tile, c: Common, w: Wrapped, h: Hyper, down: u32, across: u32, count: u32) -> vec4<f32> {
    let at = down * tile.columns + across;
    var g: vec4<f32>;
    if (PRODUCT) {
        g = load_product_four(tile, down, across);
    } else {
        var p: vec4<f32>;
        if (L2) {
            p = load_param_four(tile, at, count);
        }
        let raw = load_grad_four(tile, at, count);
        g = vec4<f32>(
            prepare(c, w, p.x, raw.x),
            prepare(c, w, p.y, raw.y),
            prepare(c, w, p.z, raw.z),
            prepare(c, w, p.w, raw.w),
        );
    }
    let measured = vec4<f32>(
        measure_line(h, g.x),
        measure_line(h, g.y),
        measure_line(h, g.z),
        measure_line(h, g.w),
    );
    let numbers = bitcast<vec4<f32>>(bitcast<vec4<u32>>(measured) ^ vec4<u32>(hidden_zero(tile.len)));
    if (CROSSINGS) {
        return select(vec4<f32>(), numbers, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
    }
    return numbers;
}

// Finishes a line of a small matrix with the sum over it; of a large one, stores the sum over the part in the tile.
fn leave(h: Hyper, small: bool, at: u32, sum: f32, len: u32) {
    if (small) {
        store_line(at, finish_line(h, sum, f32(len), load_line(at)));
    } else {
        store_share(at, sum);
    }
}
