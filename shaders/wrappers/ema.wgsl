// A running mean of the parameters (Kingma and Ba 2015, section 7.2).
// Twin: src/wrappers/ema.rs

override EMA_DEBIAS: bool = false;

const EMA_SWAP: u32 = 0u;

struct EmaNumbers {
    keep: f32, // the weight of the old mean in the new one
    take: f32, // the weight of the parameter in it
    correction: f32, // what the mean is divided by where it is read
}

// A mean starts as the parameter before a tensor's first step, so that step does not read the slot; with EMA_DEBIAS the
// mean starts as 0, which the slot holds.
fn ema_landed(chunk: Chunk, n: EmaNumbers, first: bool, q: u32, before: vec4<f32>, after: vec4<f32>) -> vec4<f32> {
    var mean = before;
    if (EMA_DEBIAS || !first) {
        mean = load_ema(chunk, q);
    }
    store_ema(chunk, q, n.keep * mean + n.take * after);
    return after;
}

// A swap exchanges the mean and the parameters. Any other move returns the mean as it is read, and leaves the slot.
fn ema_moved(chunk: Chunk, n: EmaNumbers, to: u32, q: u32, p: vec4<f32>) -> vec4<f32> {
    let mean = load_ema(chunk, q);
    if (to == EMA_SWAP) {
        store_ema(chunk, q, p);
        return mean;
    }
    return mean / n.correction;
}
