// NorMuon: Muon whose rows are divided by their root mean square so far (Li et al. 2025).
// Twin: src/rules/normuon.rs

override NESTEROV: bool = true;
override ADJUST: u32 = 0u; // how the rate follows the shape: 0 original, 1 as AdamW, 2 spectral, 3 not at all
override MATCH_RMS: bool = false; // the update's root mean square is 0.2; else its norm is that before the division

struct Hyper {
    lr: f32,
    momentum: f32,
    one_minus_momentum: f32,
    beta2: f32,
    one_minus_beta2: f32,
    safety: f32,
    eps: f32,
    eps_row: f32,
}
struct State { m: f32, v: f32, x: f32 } // the momentum, the row's mean square, and what the iteration makes of m
struct Tensor {
    norm: f32, // what the matrix is divided by before the iteration
    factor: f32, // what lr is multiplied by for the shape
    scale: f32, // what the divided rows are multiplied by
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    (*s).m = ema((*s).m, g, h.momentum, h.one_minus_momentum);
    let u = update_of(h, g, *s);
    return vec2<f32>(u * u, 0.0);
}

fn of_shape(h: Hyper, rows: f32, columns: f32, k: ptr<function, Tensor>) {
    (*k).factor = 1.0;
    if (ADJUST == 0u) {
        (*k).factor = sqrt(at_least(rows / columns, 1.0));
    } else if (ADJUST == 1u) {
        (*k).factor = 0.2 * sqrt(at_least(rows, columns));
    } else if (ADJUST == 2u) {
        (*k).factor = sqrt(rows / columns);
    }
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).norm = at_least(h.safety * sqrt(sums.x), h.eps);
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return update_of(h, g, s) / k.norm;
}

fn measure_line(h: Hyper, g: f32) -> f32 {
    return g * g;
}

fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return ema(old, sum / len, h.beta2, h.one_minus_beta2);
}

fn measure_product(h: Hyper, k: Tensor, s: State) -> vec2<f32> {
    let n = normalised(h, s);
    return vec2<f32>(s.x * s.x, n * n);
}

fn finish_product(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    var size = (*k).factor * sqrt(sums.x);
    if (MATCH_RMS) {
        size = 0.2 * sqrt(len);
    }
    (*k).scale = size / (sqrt(sums.y) + h.eps_row);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return h.lr * k.scale * normalised(h, *s);
}

// Returns an element over the root mean square of its row.
fn normalised(h: Hyper, s: State) -> f32 {
    return s.x / (sqrt(s.v) + h.eps_row);
}

// Returns the momentum; with NESTEROV, the momentum as the same gradient would move it once more.
fn update_of(h: Hyper, g: f32, s: State) -> f32 {
    if (NESTEROV) {
        return ema(s.m, g, h.momentum, h.one_minus_momentum);
    }
    return s.m;
}
