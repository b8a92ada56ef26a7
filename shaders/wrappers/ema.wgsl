// A running mean of the parameters (Kingma and Ba 2015, section 7.2).
// Twin: src/wrappers/ema.rs

override EMA_DEBIAS: bool = false;

const EMA_SWAP: u32 = 0u;

struct EmaNumbers {
    keep: f32,
    take: f32,
    correction: f32, // the mean is read divided by it
}

// In a tensor's first step a mean that starts as the parameter is not read.
fn ema_landed(chunk: Chunk, n: EmaNumbers, first: bool, q: u32, before: vec4<f32>, after: vec4<f32>) -> vec4<f32> {
    var mean = before;
    if (EMA_DEBIAS || !first) {
        mean = load_ema(chunk, q);
    }
    store_ema(chunk, q, n.keep * mean + n.take * after);
    return after;
}

// A swap puts the mean where the parameters are and keeps these in its place; another move reads the mean.
fn ema_moved(chunk: Chunk, n: EmaNumbers, to: u32, q: u32, p: vec4<f32>) -> vec4<f32> {
    let mean = load_ema(chunk, q);
    if (to == EMA_SWAP) {
        store_ema(chunk, q, p);
        return mean;
    }
    return mean / n.correction;
}
