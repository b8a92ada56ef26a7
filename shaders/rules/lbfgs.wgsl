// L-BFGS: the direction of a quasi-Newton method from the last pairs of movements and changes of the gradient (Liu and
// Nocedal 1989). The walks over the history are those of the skeleton.
// Twin: src/rules/lbfgs.rs

override HISTORY: u32 = 100u; // pairs that are kept at most

struct Hyper { lr: f32 }
struct State { g_prev: f32, d: f32, s: f32, y: f32 }
struct Tensor {
    scale: f32, // of the inverse of the Hessian before the first pair
    step: f32, // what the direction is multiplied by
    last: f32, // the same of the step before this one
    pairs: f32,
    next: f32, // the place of the next pair
    started: f32, // 1 behind the first step, else 0
    kept: f32, // 1 where this step's pair is kept, else 0
    updates: f32, // 0 where all gradients are 0, else 1
    moves: f32, // 0 where the parameters stay, else 1
    slope: f32, // the product of gradient and direction
    along: f32, // the product of a trial's gradient and the direction
    grad_max: f32, // the size of the largest element of a trial's gradient
    direction_max: f32, // the same of the direction
}

fn finish(h: Hyper, sums: vec2<f32>, len: f32, k: ptr<function, Tensor>) {
    (*k).step = sums.x * h.lr;
    (*k).slope = sums.y;
    (*k).moves = select(1.0, 0.0, sums.y > 0.0);
}

fn direction(h: Hyper, k: Tensor, p: f32, g: f32, s: ptr<function, State>) -> f32 {
    return select(-(k.step * (*s).d), 0.0, k.moves == 0.0);
}

// A trial goes from where the direction was made.
fn moved(h: Hyper, p: f32, s: ptr<function, State>) -> f32 {
    return p + h.lr * (*s).d;
}
