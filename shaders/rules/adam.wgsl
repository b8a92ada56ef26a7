// Adam and AdamW (Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; AMSGrad: Reddi et al. 2018,
// Algorithm 2).
// Twin: src/rules/adam.rs

override EPS_INSIDE: bool = false;
override AMSGRAD: u32 = 0u; // 0 off, 1 raw, 2 corrected

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step: f32, // lr over the first bias correction
    correction2: f32, // what v or its root is multiplied by
    eps: f32,
}
struct State { m: f32, v: f32, vmax: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    var v = ema((*s).v, g * g, h.beta2, h.one_minus_beta2);
    (*s).m = m;
    (*s).v = v;
    if (AMSGRAD == 2u) {
        v = max((*s).vmax, v * h.correction2);
        (*s).vmax = v;
        if (EPS_INSIDE) {
            return h.step * m / sqrt(v + h.eps);
        }
        return h.step * m / (sqrt(v) + h.eps);
    }
    if (AMSGRAD == 1u) {
        v = max((*s).vmax, v);
        (*s).vmax = v;
    }
    if (EPS_INSIDE) {
        return h.step * m / sqrt(v * h.correction2 + h.eps);
    }
    return h.step * m / (sqrt(v) * h.correction2 + h.eps);
}
