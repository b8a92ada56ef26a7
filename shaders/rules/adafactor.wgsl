// Adafactor: gradients over a root mean square that is kept by rows and columns (Shazeer and Stern 2018, Algorithms 4
// and 5).
// Twin: src/rules/adafactor.rs

override FACTORED: bool = false; // a tensor of rank 2 or more

struct Hyper {
    keep: f32,
    take: f32,
    rate: f32,
    eps1: f32,
    floor: f32, // its square, and at least f32's least normal number
    eps2: f32,
    d: f32,
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
    // Without the root: a walk of sums that is bound by arithmetic.
    return vec2<f32>(g * g / at_least(square(h, g, s), h.floor), p * p);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    let step = at_least(sqrt(sums.y / len), h.eps2) * h.rate;
    (*k).scale = step / at_least(sqrt(sums.x / len) / h.d, 1.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.scale * g / sqrt(at_least(square(h, g, s), h.floor));
}

// The mean square of the gradient.
fn square(h: Hyper, g: f32, s: ptr<function, State>) -> f32 {
    if (FACTORED) {
        return (*s).row * (*s).col;
    }
    let v = ema((*s).v, g * g, h.keep, h.take);
    (*s).v = v;
    return v;
}
