// NAdam: Adam with Nesterov's momentum, whose weight grows from step to step (Dozat 2016).
// Twin: src/rules/nadam.rs

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step_g: f32, // what the gradient is multiplied by
    step_m: f32, // what m is multiplied by
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
}
struct State { m: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    (*s).m = m;
    (*s).v = v;
    return (h.step_g * g + h.step_m * m) / (sqrt(v) * h.correction2 + h.eps);
}
