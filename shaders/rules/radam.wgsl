// RAdam: Adam whose step is scaled by how much is known of the mean square (Liu et al. 2020, Algorithm 2).
// Twin: src/rules/radam.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32,
    correction2: f32, // what the root of v is multiplied by; 0 in a step that does without v
    eps: f32,
}
struct State { m: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    (*s).m = m;
    (*s).v = v;
    if (h.correction2 == 0.0) {
        return h.step * m;
    }
    return h.step * m / (sqrt(v) * h.correction2 + h.eps);
}
