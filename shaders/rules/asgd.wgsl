// ASGD: descent with a fading rate and a pull towards 0, and beside it the average of the parameters (Polyak and
// Juditsky 1992).
// Twin: src/rules/asgd.rs

struct Hyper {
    eta: f32, // the rate of this step
    lambd: f32, // the pull towards 0
    mu: f32, // the weight of the new parameter in the average
}
struct State { ax: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return h.eta * (h.lambd * p + g);
}

fn land(h: Hyper, k: Tensor, p: f32, u: f32, s: ptr<function, State>) -> f32 {
    let landed = p - u;
    let ax = (*s).ax;
    (*s).ax = select(ax + h.mu * (landed - ax), landed, h.mu == 1.0);
    return landed;
}
