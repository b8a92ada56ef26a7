// Returns 0 for a tensor's first micro-batch, 1 for a later one, and ABSENT for a tensor that this one leaves out.
fn load_batch(tensor: u32) -> u32 {
    return clocks[clocks[DISPATCH_STEP] + tensor];
}
