// Yogi: Adam, with a second moment that moves by the gradient's square (Zaheer et al. 2018, Algorithm 2).
// Twin: src/rules/yogi.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step: f32, // lr over the first bias correction
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
}
struct State { m: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let square = g * g;
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let v = (*s).v - h.one_minus_beta2 * sign((*s).v - square) * square;
    (*s).m = m;
    (*s).v = v;
    return h.step * m / (sqrt(v) * h.correction2 + h.eps);
}
