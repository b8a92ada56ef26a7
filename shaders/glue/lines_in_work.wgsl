// The numbers of rows stand in the buffer `work`, behind the matrices of their tensor.
fn load_line(at: u32) -> f32 {
    return work[at];
}

fn store_line(at: u32, number: f32) {
    work[at] = number;
}
