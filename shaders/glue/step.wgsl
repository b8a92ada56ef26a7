// Returns a word of the step, which the host wrote.
fn load_word(at: u32) -> u32 {
    return clocks[clocks[DISPATCH_STEP] + at];
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(load_word(at));
}

// Whether the tensor has a gradient in this step.
fn is_present(tensor: u32) -> bool {
    return load_word(STEP_WORDS + tensor) != ABSENT;
}

fn load_batches() -> f32 {
    return load_number(STEP_BATCHES);
}
