// Keeps the sums over a whole tensor for `finish_model`.

fn finish_with(tensor: u32, record: u32, len: u32, rows: u32, columns: u32, sums: Node) {
    store_partial(sums_of(tensor), sums);
}
