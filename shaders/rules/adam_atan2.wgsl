// Adam with the angle of its moments for their quotient, so that no eps is needed (Everett et al. 2024).
// Twin: src/rules/adam_atan2.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32, // lr times a
    correction1: f32, // what m is multiplied by
    correction2: f32, // what the root of v is multiplied by: b over the root of the second bias correction
}
struct State { m: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    (*s).m = m;
    (*s).v = v;
    return h.step * angle(h.correction1 * m, h.correction2 * sqrt(v));
}
