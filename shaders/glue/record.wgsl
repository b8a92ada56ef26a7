// Where the tensor's numbers stand among the words, as the host wrote it, or why the tensor has none in this step.
fn load_record(tensor: u32) -> u32 {
    let words = clocks[DISPATCH_STEP];
    let record = clocks[words + tensor];
    return select(words + record, record, record >= UNDONE);
}
