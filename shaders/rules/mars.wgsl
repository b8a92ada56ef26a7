// MARS: Adam of a gradient to which its change is added, clipped by its tensor's norm (Yuan et al. 2024, Algorithm 2).
// Twin: src/rules/mars.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    change: f32, // what the gradient's change is multiplied by
    step: f32, // lr over the first bias correction; where eps is not corrected, times the root of the second one
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
}
struct State { m: f32, v: f32, g_prev: f32 }
struct Tensor { scale: f32 } // what changed gradients are multiplied by

fn changed(h: Hyper, g: f32, g_prev: f32) -> f32 {
    return g + h.change * (g - g_prev);
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    let x = changed(h, g, (*s).g_prev);
    return vec2<f32>(x * x, 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).scale = 1.0 / at_least(sqrt(sums.x), 1.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let x = k.scale * changed(h, g, (*s).g_prev);
    let m = ema((*s).m, x, h.beta1, h.one_minus_beta1);
    let v = ema((*s).v, x * x, h.beta2, h.one_minus_beta2);
    (*s).m = m;
    (*s).v = v;
    (*s).g_prev = g;
    return h.step * m / (sqrt(v) * h.correction2 + h.eps);
}
