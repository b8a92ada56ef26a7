// Where the tensor's numbers stand in this step, as `decide` left it, or why the tensor has none.
fn load_record(tensor: u32) -> u32 {
    return control[of_tensor(tensor) + TENSOR_RECORD];
}
