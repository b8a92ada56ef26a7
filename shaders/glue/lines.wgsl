// The numbers of rows and columns stand in a buffer of their own.
fn load_line(at: u32) -> f32 {
    return lines[at];
}

fn store_line(at: u32, number: f32) {
    lines[at] = number;
}
