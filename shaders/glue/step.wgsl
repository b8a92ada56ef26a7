// A word of the step, which the host wrote.
fn load_word(at: u32) -> u32 {
    return clocks[at];
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(clocks[at]);
}

// Whether the tensor has a gradient in this step.
fn is_present(tensor: u32) -> bool {
    return clocks[STEP_WORDS + tensor] != ABSENT;
}

fn load_batches() -> f32 {
    return load_number(STEP_BATCHES);
}
