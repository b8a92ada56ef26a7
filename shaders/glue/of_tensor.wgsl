// Returns where the words of a tensor start in `control`.
fn of_tensor(tensor: u32) -> u32 {
    return CONTROL_WORDS + TENSOR_WORDS * tensor;
}
