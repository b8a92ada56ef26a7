// Schedule-free SGD: plain steps, and a running mean of the points they reach (Defazio et al. 2024, equations 1 to 3).
// Twin: src/rules/schedule_free_sgd.rs

struct Hyper {
    inside: f32, // the decay, which joins x
    c: f32, // the share of its distance to z that the parameter goes towards z
    step_y: f32, // the parameter loses step_y*x
    step_z: f32, // z loses step_z*x
    evaluation: f32, // the same share where the parameter moves to be evaluated
    training: f32, // and where it moves back to be trained
}
struct State { z: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let z = (*s).z;
    let x = g + h.inside * p;
    (*s).z = z - h.step_z * x;
    return h.c * (p - z) + h.step_y * x;
}

fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    let part = select(h.training, h.evaluation, MOVE == 1u);
    return p + part * ((*s).z - p);
}
