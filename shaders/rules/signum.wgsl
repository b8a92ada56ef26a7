// Signum: the sign of a running mean of gradients (Bernstein et al. 2018, Algorithm 2).
// Twin: src/rules/signum.rs

override MOMENTUM: bool = false;

struct Hyper { lr: f32, momentum: f32, one_minus_momentum: f32 }
struct State { m: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    if (!MOMENTUM) {
        return h.lr * sign(g);
    }
    let m = ema((*s).m, g, h.momentum, h.one_minus_momentum);
    (*s).m = m;
    return h.lr * sign(m);
}
