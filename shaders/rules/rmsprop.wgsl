// RMSProp: the gradient over the root of its mean square (Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013,
// section 4.2).
// Twin: src/rules/rmsprop.rs

override CENTERED: bool = false; // the square of the mean is subtracted from the mean square
override EPS_INSIDE: bool = false; // eps stands under the root
override MOMENTUM: bool = false;
override VELOCITY: bool = false; // b holds a step of the parameter, not a sum of quotients
override NESTEROV: u32 = 0u; // 0 off, 1 simplified, 2 look-ahead

struct Hyper { lr: f32, alpha: f32, one_minus_alpha: f32, eps: f32, momentum: f32 }
struct State { v: f32, a: f32, b: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    var w = ema((*s).v, g * g, h.alpha, h.one_minus_alpha);
    (*s).v = w;
    if (CENTERED) {
        let a = ema((*s).a, g, h.alpha, h.one_minus_alpha);
        (*s).a = a;
        w = larger(w - a * a, 0.0);
    }
    var q: f32;
    if (EPS_INSIDE) {
        q = g / sqrt(w + h.eps);
    } else {
        q = g / (sqrt(w) + h.eps);
    }
    if (!MOMENTUM) {
        return h.lr * q;
    }
    let b = (*s).b;
    if (VELOCITY) {
        let moved = h.momentum * b - h.lr * q;
        (*s).b = moved;
        switch NESTEROV {
            case 1u: { return h.lr * q - h.momentum * moved; }
            case 2u: { return h.lr * q; }
            default: { return -moved; }
        }
    }
    let buffer = h.momentum * b + q;
    (*s).b = buffer;
    if (NESTEROV == 1u) {
        return h.lr * (q + h.momentum * buffer);
    }
    return h.lr * buffer;
}

fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p + h.momentum * (*s).b;
}
