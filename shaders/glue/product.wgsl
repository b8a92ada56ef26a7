// Returns the number of words from one row of a matrix in `work` to the next.
fn padded(columns: u32) -> u32 {
    return (columns + 3u) / 4u * 4u;
}

// Returns the rows of four elements of a chunk, and leaves their columns in `columns`. Elements behind the chunk's end
// have the places of its last element.
fn rows_of(chunk: Chunk, q: u32, columns: ptr<function, vec4<u32>>) -> vec4<u32> {
    let i = min(vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(chunk.len - 1u)) + vec4<u32>(chunk.left);
    let down = vec4<u32>(
        divide(i.x, chunk.columns),
        divide(i.y, chunk.columns),
        divide(i.z, chunk.columns),
        divide(i.w, chunk.columns),
    );
    *columns = i - down * chunk.columns;
    return down + vec4<u32>(chunk.top);
}

// Returns what the last product has at the places of four elements.
fn load_product(chunk: Chunk, q: u32) -> vec4<f32> {
    var columns: vec4<u32>;
    let rows = rows_of(chunk, q, &columns);
    let at = vec4<u32>(chunk.product) + rows * padded(chunk.columns) + columns;
    return vec4<f32>(work[at.x], work[at.y], work[at.z], work[at.w]);
}

// Puts four numbers into the matrix `X` from which products start, and into its transpose; the gradient `g` is not
// needed again. Numbers of elements behind the chunk's end are dropped.
fn store_spread(chunk: Chunk, q: u32, numbers: vec4<f32>, g: vec4<f32>) {
    var columns: vec4<u32>;
    let rows = rows_of(chunk, q, &columns);
    let at = vec4<u32>(chunk.start) + rows * padded(chunk.columns) + columns;
    let turned = vec4<u32>(chunk.turned) + columns * padded(chunk.rows) + rows;
    for (var i = 0u; i < min(4u, chunk.len - 4u * q); i += 1u) {
        work[at[i]] = numbers[i];
        work[turned[i]] = numbers[i];
    }
}
