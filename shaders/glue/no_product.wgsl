// The rule has no products.
fn load_product_four(tile: Tile, down: u32, across: u32) -> vec4<f32> {
    return vec4<f32>();
}
