// Loads what four elements of a chunk see of their rows and columns.
fn load_lines(row: Row, q: u32, rows: ptr<function, vec4<f32>>, columns: ptr<function, vec4<f32>>) {
    let across = row.left + 4u * q;
    let down = divide(across, row.columns);
    let matrix = divide(row.top + down, row.rows);
    let column = across - down * row.columns;
    var at = vec4<u32>(row.seen + down, row.lines + matrix * row.columns, column, row.top + down - matrix * row.rows);
    if (CROSSINGS) {
        let a = load_crossing(at);
        at = next_crossing(row, at, 4u * q + 1u);
        let b = load_crossing(at);
        at = next_crossing(row, at, 4u * q + 2u);
        let d = load_crossing(at);
        at = next_crossing(row, at, 4u * q + 3u);
        let e = load_crossing(at);
        *rows = vec4<f32>(a.x, b.x, d.x, e.x);
        *columns = vec4<f32>(a.y, b.y, d.y, e.y);
    } else {
        let first = at.y + column;
        *rows = vec4<f32>(load_line(at.x));
        *columns = vec4<f32>(load_line(first), load_line(first + 1u), load_line(first + 2u), load_line(first + 3u));
    }
}

// Where an element's row and its matrix's columns are, and the element's column and row in the matrix.
fn load_crossing(at: vec4<u32>) -> vec2<f32> {
    return vec2<f32>(load_line(at.x), load_line(at.y + at.z));
}

// The same of the next element, `i`; behind the end the last stays.
fn next_crossing(row: Row, at: vec4<u32>, i: u32) -> vec4<u32> {
    let next = at + vec4<u32>(0u, 0u, 1u, 0u);
    let below = vec4<u32>(at.x + 1u, at.y, 0u, at.w + 1u);
    let behind = vec4<u32>(at.x + 1u, at.y + row.columns, 0u, 0u);
    let moved_down = select(below, behind, at.w + 1u == row.rows);
    return select(at, select(next, moved_down, next.z == row.columns), i < row.len);
}
