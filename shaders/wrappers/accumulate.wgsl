// The gradient of a step is the mean of several micro-batches. Their sum is made by the walk `accumulate`.
// Twin: src/wrappers/accumulate.rs

struct AccumulateNumbers {
    batches: f32,
}

fn accumulate_gradient(n: AccumulateNumbers, g: f32) -> f32 {
    return g / n.batches;
}
