// Rprop: a step size for each element, which grows while the gradient keeps its sign (Riedmiller and Braun 1993), and
// no step where the sign turns (Igel and Huesken 2000, iRprop-).
// Twin: src/rules/rprop.rs

struct Hyper { eta_minus: f32, eta_plus: f32, step_min: f32, step_max: f32 }
struct State { prev: f32, step: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    // The signs are multiplied, since g*prev itself may round to 0.
    let turn = sign(g) * sign((*s).prev);
    let factor = select(select(1.0, h.eta_minus, turn < 0.0), h.eta_plus, turn > 0.0);
    let step = within((*s).step * factor, h.step_min, h.step_max);
    let kept = select(g, 0.0, turn < 0.0);
    (*s).prev = kept;
    (*s).step = step;
    return sign(kept) * step;
}
