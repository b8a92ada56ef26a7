// Adamax: Adam with the largest gradient, fading, for the root of the mean square (Kingma and Ba 2015, Algorithm 2).
// Twin: src/rules/adamax.rs

override EPS_IN_MAX: bool = true; // eps joins |g| within the maximum; else it joins u in the denominator

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    step: f32, // lr over the bias correction
    eps: f32,
}
struct State { m: f32, u: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let m = ema((*s).m, g, h.beta1, h.one_minus_beta1);
    (*s).m = m;
    let faded = h.beta2 * (*s).u;
    if (EPS_IN_MAX) {
        let u = larger(faded, abs(g) + h.eps);
        (*s).u = u;
        return h.step * m / u;
    }
    let u = larger(faded, abs(g));
    (*s).u = u;
    return h.step * m / (u + h.eps);
}
