// LAMB: Adam's update, made as long as the parameters of its tensor (You et al. 2020, Algorithm 2).
// Twin: src/rules/lamb.rs

struct Hyper {
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    correction1: f32, // what m is multiplied by
    correction2: f32, // what the root of v is multiplied by
    eps: f32,
    inside: f32, // the decay, which joins the update before its norm is taken
    trust_min: f32, // the bounds of the ratio of the norms; both are 1 where the tensor is not scaled
    trust_max: f32,
}
struct State { m: f32, v: f32 }
struct Tensor { rate: f32 } // what updates are multiplied by: lr times the ratio of the norms

fn adam(h: Hyper, p: f32, m: f32, v: f32) -> f32 {
    return h.correction1 * m / (sqrt(v) * h.correction2 + h.eps) + h.inside * p;
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    let v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    (*s).m = m;
    (*s).v = v;
    let u = adam(h, p, m, v);
    return vec2<f32>(p * p, u * u);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    var ratio = 1.0;
    if (sums.x > 0.0 && sums.y > 0.0) {
        ratio = sqrt(sums.x) / sqrt(sums.y);
    }
    // A NaN in a norm, or in the ratio of two infinite ones, reaches the whole tensor.
    let lost = sums.x + sums.y + ratio;
    if (sums.x > 0.0 && sums.y > 0.0) {
        ratio = within(ratio, h.trust_min, h.trust_max);
    }
    (*k).rate = select(h.lr * ratio, lost, is_nan(lost));
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.rate * adam(h, p, (*s).m, (*s).v);
}
