// The gradient of a step is the mean of several micro-batches' gradients, which the walk `accumulate` has added up.
// Twin: src/wrappers/accumulate.rs

struct AccumulateNumbers {
    batches: f32, // how many micro-batches the step has
}

fn accumulate_gradient(n: AccumulateNumbers, g: f32) -> f32 {
    return g / n.batches;
}
