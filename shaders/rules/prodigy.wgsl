// Prodigy: Adam whose step follows an estimate of the distance to the solution (Mishchenko and Defazio 2023, Algorithm
// 4).
// Twin: src/rules/prodigy.rs

override BIAS_CORRECTION: bool = false;
override SAFEGUARD: bool = false; // the weights of gradients in s leave the learning rate out

struct Hyper {
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    beta3: f32,
    eps: f32,
    d0: f32,
    d_coef: f32,
    growth_rate: f32,
}
struct State { m: f32, v: f32, s: f32, p0: f32 }
struct Tensor {
    d: f32, // the estimate
    d_max: f32, // the largest estimate so far
    num: f32, // its numerator
    bc1: f32, // 1 - beta1^k after k steps
    bc2: f32, // 1 - beta2^k
    rate: f32, // what lr is multiplied by in this step
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    let scaled = k.d * g;
    var weight = k.d / h.d0;
    if (SAFEGUARD) {
        weight *= k.d;
    } else {
        weight *= rate_of(h, k) * h.lr;
    }
    (*s).m = ema((*s).m, scaled, h.beta1, h.one_minus_beta1);
    (*s).v = ema((*s).v, scaled * scaled, h.beta2, h.one_minus_beta2);
    let sum = ema((*s).s, g, h.beta3, weight);
    (*s).s = sum;
    return vec2<f32>(g * ((*s).p0 - p), abs(sum));
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    let d = (*k).d;
    let rate = rate_of(h, *k);
    (*k).rate = select(rate, 0.0, sums.y == 0.0);
    if (sums.y == 0.0) {
        return;
    }
    let num = ema((*k).num, sums.x, h.beta3, d / h.d0 * (rate * h.lr));
    var hat = h.d_coef * num / sums.y;
    if (is_nan(hat)) {
        hat = 0.0; // no estimate: max may give either of its operands where one is NaN
    }
    let d_max = larger((*k).d_max, hat);
    let reached = select(d, larger(d, hat), d == h.d0);
    (*k).num = num;
    (*k).d_max = d_max;
    (*k).d = smaller(d_max, reached * h.growth_rate);
    if (BIAS_CORRECTION) {
        (*k).bc1 = ema((*k).bc1, 1.0, h.beta1, h.one_minus_beta1);
        (*k).bc2 = ema((*k).bc2, 1.0, h.beta2, h.one_minus_beta2);
    }
}

fn decay_rate(h: Hyper, k: Tensor) -> f32 {
    return k.rate;
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return k.rate * h.lr * (*s).m / (sqrt((*s).v) + k.d * h.eps);
}

// Returns what lr is multiplied by: the estimate, and the bias corrections of the step that is being made.
fn rate_of(h: Hyper, k: Tensor) -> f32 {
    if (!BIAS_CORRECTION) {
        return k.d;
    }
    let bc1 = ema(k.bc1, 1.0, h.beta1, h.one_minus_beta1);
    let bc2 = ema(k.bc2, 1.0, h.beta2, h.one_minus_beta2);
    return k.d * sqrt(bc2) / bc1;
}
