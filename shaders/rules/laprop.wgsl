// LaProp: momentum of the gradient over the root of its mean square (Ziyin et al. 2020, Algorithm 1).
// Twin: src/rules/laprop.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32, // lr over the first bias correction
    scale: f32, // what the gradient is multiplied by
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
}
struct State { m: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    let x = h.scale * g / (sqrt(v) * h.correction2 + h.eps);
    let m = ema((*s).m, x, h.beta1, h.one_minus_beta1);
    (*s).m = m;
    (*s).v = v;
    return h.step * m;
}
