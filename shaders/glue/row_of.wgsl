// Where a row of a tensor's inner products stands.
fn row_of(tensor: u32, row: u32) -> u32 {
    return sums_of(tensor) + INNER_WORDS * row;
}
