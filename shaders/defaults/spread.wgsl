fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return g;
}
