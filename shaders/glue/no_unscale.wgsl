// The device keeps no loss scale here, so gradients are not divided by one.
fn load_unscale() -> f32 {
    return 1.0;
}
