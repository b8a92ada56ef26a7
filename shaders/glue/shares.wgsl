// What a tile adds to the sum over a row or column that reaches into other tiles.
fn load_share(at: u32) -> f32 {
    return bitcast<f32>(scratch[at]);
}

fn store_share(at: u32, sum: f32) {
    scratch[at] = bitcast<u32>(sum);
}
