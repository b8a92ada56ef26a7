// Returns what the last product has at four places of a row of a tile. Behind the row's end there is padding.
fn load_product_four(tile: Tile, down: u32, across: u32) -> vec4<f32> {
    let at = tile.product + down * ((tile.columns + 3u) / 4u * 4u) + across;
    return vec4<f32>(work[at], work[at + 1u], work[at + 2u], work[at + 3u]);
}
