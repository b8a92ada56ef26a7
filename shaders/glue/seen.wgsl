// Loads what four elements of a chunk see of their rows and columns.
fn load_lines(chunk: Chunk, q: u32, rows: ptr<function, vec4<f32>>, columns: ptr<function, vec4<f32>>) {
    let across = chunk.left + 4u * q;
    let down = divide(across, chunk.columns);
    let matrix = divide(chunk.top + down, chunk.rows);
    let column = across - down * chunk.columns;
    var at = vec4<u32>(
        chunk.seen_rows + down,
        chunk.column_numbers + matrix * chunk.columns,
        column,
        chunk.top + down - matrix * chunk.rows,
    );
    if (CROSSINGS) {
        let a = load_crossing(at);
        at = next_crossing(chunk, at, 4u * q + 1u);
        let b = load_crossing(at);
        at = next_crossing(chunk, at, 4u * q + 2u);
        let d = load_crossing(at);
        at = next_crossing(chunk, at, 4u * q + 3u);
        let e = load_crossing(at);
        *rows = vec4<f32>(a.x, b.x, d.x, e.x);
        *columns = vec4<f32>(a.y, b.y, d.y, e.y);
    } else {
        *rows = vec4<f32>(load_line(at.x));
        if (COLUMNS) {
            let first = at.y + column;
            *columns = vec4<f32>(load_line(first), load_line(first + 1u), load_line(first + 2u), load_line(first + 3u));
        }
    }
}

// Returns the numbers of an element's row and column. `at` holds where the row's number and the first column's number
// lie among the numbers of lines, then the element's column and row in its matrix.
fn load_crossing(at: vec4<u32>) -> vec2<f32> {
    var column = 0.0;
    if (COLUMNS) {
        column = load_line(at.y + at.z);
    }
    return vec2<f32>(load_line(at.x), column);
}

// Returns the places of the next element, number `i` of the chunk; behind the chunk's end, those of the last element.
fn next_crossing(chunk: Chunk, at: vec4<u32>, i: u32) -> vec4<u32> {
    let next = at + vec4<u32>(0u, 0u, 1u, 0u);
    let below = vec4<u32>(at.x + 1u, at.y, 0u, at.w + 1u);
    let behind = vec4<u32>(at.x + 1u, at.y + chunk.columns, 0u, 0u);
    let moved_down = select(below, behind, at.w + 1u == chunk.rows);
    return select(at, select(next, moved_down, next.z == chunk.columns), i < chunk.len);
}
