// Adadelta: the gradient in units of the parameter's own steps (Zeiler 2012, Algorithm 1).
// Twin: src/rules/adadelta.rs

struct Hyper { lr: f32, rho: f32, one_minus_rho: f32, eps: f32 }
struct State { s: f32, a: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let squares = ema((*s).s, g * g, h.rho, h.one_minus_rho);
    let d = sqrt((*s).a + h.eps) / sqrt(squares + h.eps) * g;
    (*s).s = squares;
    (*s).a = ema((*s).a, d * d, h.rho, h.one_minus_rho);
    return h.lr * d;
}
