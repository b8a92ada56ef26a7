// SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024).
// Twin: src/rules/soap.rs

struct Hyper {
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    gram_beta: f32,
    one_minus_gram_beta: f32,
    eps: f32,
    renewal: f32, // 0 where the bases stay, 1 where they become eigenvectors, 2 where they become the factors of QR
}
struct State {
    m: f32,
    v: f32,
    x: f32, // the update
    turned: f32, // the gradient in the bases
    gram: f32, // nothing of an element: the slots of the sides
    basis: f32,
}

fn spread(h: Hyper, k: Tensor, g: f32, s: State) -> f32 {
    return ema(s.m, g, h.beta1, h.one_minus_beta1);
}

fn gram(h: Hyper, sum: f32, old: f32) -> f32 {
    return ema(old, sum, h.gram_beta, h.one_minus_gram_beta);
}

fn weigh(h: Hyper, x: f32, g: f32, s: State) -> f32 {
    return x / (sqrt(new_v(h, g, s.v)) + h.eps);
}

fn new_v(h: Hyper, g: f32, old: f32) -> f32 {
    return ema(old, g * g, h.beta2, h.one_minus_beta2);
}

fn renewal(h: Hyper) -> f32 {
    return h.renewal;
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    (*s).m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    (*s).v = new_v(h, (*s).turned, (*s).v);
    return h.lr * (*s).x;
}
