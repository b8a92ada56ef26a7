fn decay_rate(h: Hyper, k: Tensor) -> f32 {
    return 1.0;
}
