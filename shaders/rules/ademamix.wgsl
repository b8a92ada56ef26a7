// AdEMAMix: Adam with a slow mean of gradients beside the fast one (Pagliardini et al. 2024, Algorithm 1).
// Twin: src/rules/ademamix.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    beta3: f32,
    one_minus_beta3: f32,
    step1: f32, // what m1 is multiplied by
    step2: f32, // what m2 is multiplied by
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
}
struct State { m1: f32, m2: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m1 = ema((*s).m1, g, h.beta1, h.one_minus_beta1);
    let m2 = ema((*s).m2, g, h.beta3, h.one_minus_beta3);
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    (*s).m1 = m1;
    (*s).m2 = m2;
    (*s).v = v;
    return (h.step1 * m1 + h.step2 * m2) / (sqrt(v) * h.correction2 + h.eps);
}
