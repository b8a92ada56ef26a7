fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p;
}
