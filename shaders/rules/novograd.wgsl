// NovoGrad: gradients over the running norm of their layer (Ginsburg et al. 2019, Algorithm 1).
// Twin: src/rules/novograd.rs

override EPS_INSIDE: bool = false; // eps stands under the root
override LINF: bool = false; // the norm is the largest absolute value, which the twin's `Sums` combines

struct Hyper {
    step: f32,
    beta1: f32,
    take1: f32, // the weight of the normalised gradient in m
    keep2: f32, // 0 in a first step that takes the norm whole
    take2: f32,
    correction2: f32, // what v is multiplied by
    eps: f32,
    inside_moment: f32, // the decay, which joins the normalised gradient
}
struct State { m: f32 }
struct Tensor {
    v: f32, // the running square of the norm
    scale: f32, // what gradients are multiplied by
}

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    if (LINF) {
        return vec2<f32>(g, 0.0);
    }
    return vec2<f32>(g * g, 0.0);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    var n = sums.x;
    if (LINF) {
        n = n * n;
    }
    let v = ema((*k).v, n, h.keep2, h.take2);
    (*k).v = v;
    if (EPS_INSIDE) {
        (*k).scale = 1.0 / sqrt(v * h.correction2 + h.eps);
    } else {
        (*k).scale = 1.0 / (sqrt(v * h.correction2) + h.eps);
    }
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let x = g * k.scale + h.inside_moment * p;
    let m = ema((*s).m, x, h.beta1, h.take1);
    (*s).m = m;
    return h.step * m;
}
