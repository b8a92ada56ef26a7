// Returns where the tensor's record stands, as `decide` left it, or ABSENT or UNDONE where the tensor has none in this
// step.
fn load_record(tensor: u32) -> u32 {
    return control[of_tensor(tensor) + TENSOR_RECORD];
}
