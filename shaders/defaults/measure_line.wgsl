fn measure_line(h: Hyper, g: f32) -> f32 {
    return 0.0;
}
