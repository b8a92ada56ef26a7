// AdaGrad: the step shrinks with the sum of squares so far (Duchi et al. 2011, section 1.1).
// Twin: src/rules/adagrad.rs

override EPS_INSIDE: bool = false; // eps stands under the root

struct Hyper { clr: f32, eps: f32 } // clr: the learning rate as it has decayed
struct State { s: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let sum = (*s).s + g * g;
    (*s).s = sum;
    if (EPS_INSIDE) {
        return h.clr * g / sqrt(sum + h.eps);
    }
    return h.clr * g / (sqrt(sum) + h.eps);
}
