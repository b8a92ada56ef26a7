// The rule takes no products, so there is nothing to load.
fn load_product_four(tile: Tile, down: u32, across: u32) -> vec4<f32> {
    return vec4<f32>();
}
