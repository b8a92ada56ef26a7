// Calls `finish` with the sums over a whole tensor.

fn finish_with(tensor: u32, record: u32, len: u32, rows: u32, columns: u32, sums: Node) {
    var k = load_tensor(tensor);
    let h = load_hyper(record);
    let numbers = bitcast<vec2<f32>>(sums);
    if (PRODUCT) {
        finish_product(h, numbers, f32(len), &k);
    } else {
        of_shape(h, f32(rows), f32(columns), &k);
        finish(h, numbers, f32(len), &k);
    }
    store_tensor(tensor, k);
}
