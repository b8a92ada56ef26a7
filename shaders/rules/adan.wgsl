// Adan: running means of the gradient, of its change, and of the square of both together (Xie et al. 2022,
// Algorithm 1).
// Twin: src/rules/adan.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    take2: f32, // the weight of the gradient's change in d; 0 at the first step
    ahead: f32, // how much of the change is added to g; 0 at the first step
    beta3: f32,
    one_minus_beta3: f32,
    step_m: f32, // what m is multiplied by
    step_d: f32, // what d is multiplied by
    correction3: f32, // what n is multiplied by
    eps: f32,
    eps_root: f32,
    proximal: f32, // the share of p that the decay subtracts
}
struct State { m: f32, d: f32, n: f32, g_prev: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let y = g - (*s).g_prev;
    let ahead = g + h.ahead * y;
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let d = ema((*s).d, y, h.beta2, h.take2);
    let n = ema((*s).n, ahead * ahead, h.beta3, h.one_minus_beta3);
    (*s).m = m;
    (*s).d = d;
    (*s).n = n;
    (*s).g_prev = g;
    let root = sqrt(n * h.correction3 + h.eps_root);
    return (h.step_m * m + h.step_d * d) / (root + h.eps) + h.proximal * p;
}
