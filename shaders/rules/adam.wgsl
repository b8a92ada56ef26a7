// Adam and AdamW (Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; AMSGrad: Reddi et al. 2018,
// Algorithm 2; clipped updates: Wortsman et al. 2023, Algorithm 2; a mean square a row: Zhang et al. 2024, section 2).
// Twin: src/rules/adam.rs

override EPS_INSIDE: bool = false; // eps stands under the root
override AMSGRAD: u32 = 0u; // 0 off, 1 raw, 2 corrected
override RMS_CLIP: bool = false; // the rate of a tensor falls where its update is large
override ROWS: bool = false; // all elements of a row share one v

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32, // lr over the first bias correction
    correction2: f32, // what v (EPS_INSIDE, or AMSGRAD 2), else its root, is multiplied by
    eps: f32,
    correction_v: f32, // what v is multiplied by where the update is measured
    eps_squared: f32,
    rms: f32, // the root mean square of g over the root of v, above which the rate falls
}
struct State { m: f32, v: f32, vmax: f32 }
struct Tensor { scale: f32 } // what the rate is multiplied by

fn measure_line(h: Hyper, g: f32) -> f32 {
    return g * g;
}

fn finish_line(h: Hyper, sum: f32, len: f32, old: f32) -> f32 {
    return ema(old, sum / len, h.beta2, h.one_minus_beta2);
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    let v = square(h, g, (*s).v);
    return vec2<f32>(g * g / at_least(v * h.correction_v, h.eps_squared), 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).scale = 1.0 / at_least(sqrt(sums.x / len) / h.rms, 1.0);
}

fn decay_rate(h: Hyper, k: Tensor) -> f32 {
    return select(1.0, k.scale, RMS_CLIP);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    var v = square(h, g, (*s).v);
    (*s).m = m;
    (*s).v = v;
    if (AMSGRAD == 2u) {
        v = larger((*s).vmax, v * h.correction2);
        (*s).vmax = v;
        if (EPS_INSIDE) {
            return h.step * m / sqrt(v + h.eps);
        }
        return h.step * m / (sqrt(v) + h.eps);
    }
    if (AMSGRAD == 1u) {
        v = larger((*s).vmax, v);
        (*s).vmax = v;
    }
    var step = h.step;
    if (RMS_CLIP) {
        step *= k.scale;
    }
    if (EPS_INSIDE) {
        return step * m / sqrt(v * h.correction2 + h.eps);
    }
    return step * m / (sqrt(v) * h.correction2 + h.eps);
}

// Returns the mean square of the gradient. A row's v comes from finish_line, so it has this step's gradients already.
fn square(h: Hyper, g: f32, v: f32) -> f32 {
    if (ROWS) {
        return v;
    }
    return ema(v, g * g, h.beta2, h.one_minus_beta2);
}
