fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return old;
}
