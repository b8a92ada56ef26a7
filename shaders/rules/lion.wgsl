// Lion: the sign of a mean of gradient and momentum (Chen et al. 2023, Algorithm 2).
// Twin: src/rules/lion.rs

struct Hyper { lr: f32, beta1: f32, one_minus_beta1: f32, beta2: f32, one_minus_beta2: f32 }
struct State { m: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = (*s).m;
    (*s).m = ema(m, g, h.beta2, h.one_minus_beta2);
    return h.lr * sign(ema(m, g, h.beta1, h.one_minus_beta1));
}
