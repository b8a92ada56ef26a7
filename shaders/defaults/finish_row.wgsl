fn finish_row(h: Hyper, row: f32, mean: f32) -> f32 {
    return row;
}
