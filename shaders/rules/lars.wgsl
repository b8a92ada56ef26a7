// LARS: momentum of gradients that are scaled by the norms of their tensor (You, Gitman and Ginsburg 2017,
// Algorithm 1).
// Twin: src/rules/lars.rs

override MOMENTUM: bool = false;
override NESTEROV: bool = false;
override SEPARATE: bool = false; // p's norm is divided by the sum of the norms of gradient and decay

struct Hyper {
    step: f32, // what the buffer is multiplied by on its way to the parameter
    momentum: f32,
    inside: f32, // the decay, which joins the gradient
    eps: f32,
    trust: f32, // what the ratio of the norms is multiplied by
    alone: f32, // the scale where a norm is 0, so that there is no ratio
    scale_max: f32,
}
struct State { b: f32 }
struct Tensor { scale: f32 } // what gradient and decay are multiplied by

fn measure(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> vec2<f32> {
    if (SEPARATE) {
        return vec2<f32>(p * p, g * g);
    }
    let c = g + h.inside * p;
    return vec2<f32>(p * p, c * c);
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    var scale = h.alone;
    if (sums.x > 0.0 && sums.y > 0.0) {
        let norm = sqrt(sums.x);
        var denominator = sqrt(sums.y);
        if (SEPARATE) {
            denominator += h.inside * norm;
        }
        scale = h.trust * norm / (denominator + h.eps);
    }
    // A NaN in a norm reaches the whole tensor.
    let both = sums.x + sums.y;
    (*k).scale = select(smaller(scale, h.scale_max), both, is_nan(both));
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let c = g + h.inside * p;
    if (!MOMENTUM) {
        return k.scale * c;
    }
    let b = ema((*s).b, c, h.momentum, k.scale);
    (*s).b = b;
    if (NESTEROV) {
        return h.step * ema(b, c, h.momentum, k.scale);
    }
    return h.step * b;
}
