// Schedule-free AdamW: plain steps of Adam, and a running mean of the points they reach (Defazio et al. 2024,
// Algorithm 1).
// Twin: src/rules/schedule_free.rs

struct Hyper {
    beta2: f32,
    one_minus_beta2: f32,
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
    inside: f32, // the decay, which joins x
    c: f32, // the share of its distance to z that the parameter goes towards z
    step_y: f32, // the parameter loses step_y*x
    step_z: f32, // z loses step_z*x
    evaluation: f32, // the same share where the parameter moves to be evaluated
    training: f32, // and where it moves back to be trained
}
struct State { z: f32, v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let z = (*s).z;
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    let x = g / (sqrt(v) * h.correction2 + h.eps) + h.inside * p;
    (*s).v = v;
    (*s).z = z - h.step_z * x;
    return h.c * (p - z) + h.step_y * x;
}

fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    let part = select(h.training, h.evaluation, MOVE == 1u);
    return p + part * ((*s).z - p);
}
