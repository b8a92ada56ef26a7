fn look_ahead(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p;
}
