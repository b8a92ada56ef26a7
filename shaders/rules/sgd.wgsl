// SGD with momentum (Polyak 1964; Sutskever et al. 2013, section 2).
// Twin: src/rules/sgd.rs

override MOMENTUM: bool = false;
override VELOCITY: bool = false; // v holds a step of the parameter, not a sum of gradients
override NESTEROV: u32 = 0u; // 0 off, 1 simplified, 2 look-ahead

struct Hyper { lr: f32, momentum: f32, take: f32 } // take: the weight of a gradient in v
struct State { v: f32 }

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    let v = (*s).v;
    if (!MOMENTUM) {
        return h.lr * g;
    }
    if (VELOCITY) {
        let moved = h.momentum * v - h.lr * g;
        (*s).v = moved;
        switch NESTEROV {
            case 1u: { return h.lr * g - h.momentum * moved; }
            case 2u: { return h.lr * g; }
            default: { return -moved; }
        }
    }
    let buffer = ema(v, g, h.momentum, h.take);
    (*s).v = buffer;
    if (NESTEROV == 1u) {
        return h.lr * ema(buffer, g, h.momentum, h.take);
    }
    return h.lr * buffer;
}

fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p + h.momentum * (*s).v;
}
