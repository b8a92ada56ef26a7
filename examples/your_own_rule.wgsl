// Softsign: a step along a running mean of gradients that is never longer than the learning rate.
// Twin: examples/your_own_rule.rs

struct Hyper { lr: f32, momentum: f32, one_minus_momentum: f32, eps: f32 }
struct State { m: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.momentum, h.one_minus_momentum);
    (*s).m = m;
    return h.lr * m / (abs(m) + h.eps);
}
