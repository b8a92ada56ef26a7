// AdaBelief: Adam, with the gradient's distance from its running mean under the root (Zhuang et al. 2020, Algorithm 2).
// Twin: src/rules/adabelief.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32, // lr over the first bias correction
    correction2: f32, // what the root of s is multiplied by
    eps: f32,
    eps_root: f32,
}
struct State { m: f32, s: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let surprise = g - m;
    // The terms stand in this order, since Mesa's compiler reorders (a + b) + eps_root: the bits would then differ from
    // those of the f32 reference.
    let mean = h.beta2 * (*s).s + (h.one_minus_beta2 * (surprise * surprise) + h.eps_root);
    (*s).m = m;
    (*s).s = mean;
    return h.step * m / (sqrt(mean) * h.correction2 + h.eps);
}
