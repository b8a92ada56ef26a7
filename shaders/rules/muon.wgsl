// Muon: momentum whose matrix is made orthogonal by Newton and Schulz's iteration (Jordan et al. 2024).
// Twin: src/rules/muon.rs

override NESTEROV: bool = true;
override ADJUST: u32 = 0u; // how the rate follows the shape: 0 original, 1 as AdamW, 2 spectral, 3 not at all

struct Hyper { lr: f32, momentum: f32, one_minus_momentum: f32, safety: f32, eps: f32 }
struct State { m: f32, x: f32 } // the momentum, and what the iteration makes of it
struct Tensor {
    norm: f32, // what the matrix is divided by before the iteration
    factor: f32, // what lr is multiplied by for the shape
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

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return h.lr * k.factor * (*s).x;
}

// Returns the momentum; with NESTEROV, the momentum as the same gradient would move it once more.
fn update_of(h: Hyper, g: f32, s: State) -> f32 {
    if (NESTEROV) {
        return ema(s.m, g, h.momentum, h.one_minus_momentum);
    }
    return s.m;
}
