// Adafactor: gradients over a root mean square, of which matrices keep rows and columns alone (Shazeer and Stern 2018,
// Algorithms 4 and 5).
// Twin: src/rules/adafactor.rs

override FACTORED: bool = false; // the tensor has rank 2 or more, and row and col in place of v
override POINTWISE: bool = false; // the same, but each of its matrices is a single element

struct Hyper {
    keep: f32, // the weights of the old number
    take: f32, // and of the new one in a running mean
    rate: f32, // the relative step
    eps1: f32,
    floor: f32, // the square of eps1, but at least f32's least normal number
    eps2: f32, // the least root mean square of parameters that steps are relative to
    d: f32, // the largest root mean square of an update
}
struct State { v: f32, row: f32, col: f32 }
struct Tensor { scale: f32 } // what normalised gradients are multiplied by

fn measure_line(h: Hyper, g: f32) -> f32 {
    return g * g;
}

fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return ema(old, sum / len, h.keep, h.take);
}

fn finish_row(h: Hyper, row: f32, mean: f32) -> f32 {
    return row / at_least(mean, h.eps1);
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    // The square of what direction multiplies by the scale, computed without the root: arithmetic bounds this walk.
    return vec2<f32>(g * g / at_least(square(h, g, s), h.floor), p * p);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    let step = at_least(sqrt(sums.y / len), h.eps2) * h.rate;
    (*k).scale = step / at_least(sqrt(sums.x / len) / h.d, 1.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.scale * g / sqrt(at_least(square(h, g, s), h.floor));
}

// Returns the mean square of the gradient, and advances what the element has of its own.
fn square(h: Hyper, g: f32, s: ptr<function, State>) -> f32 {
    if (POINTWISE) {
        let row = ema((*s).row, g * g, h.keep, h.take);
        let col = ema((*s).col, g * g, h.keep, h.take);
        (*s).row = row;
        (*s).col = col;
        return row / at_least(row, h.eps1) * col;
    }
    if (FACTORED) {
        return (*s).row * (*s).col;
    }
    let v = ema((*s).v, g * g, h.keep, h.take);
    (*s).v = v;
    return v;
}
