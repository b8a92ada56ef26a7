// ADOPT: momentum of gradients over the root of the mean square of those before them (Taniguchi et al. 2024,
// Algorithm 1).
// Twin: src/rules/adopt.rs

struct Hyper {
    lr: f32, // 0 at the first step
    keep1: f32, // the weights of the old m
    take1: f32, // and of x in it: 1 and 0 at the first step
    keep2: f32, // the weights of the old v
    take2: f32, // and of the gradient's square in it: 0 and 1 at the first step
    eps: f32,
    x_max: f32, // the largest |x|
}
struct State { m: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let x = within(g / larger(sqrt((*s).v), h.eps), -h.x_max, h.x_max);
    let m = ema((*s).m, x, h.keep1, h.take1);
    (*s).m = m;
    (*s).v = ema((*s).v, g * g, h.keep2, h.take2);
    return h.lr * m;
}
