// The gradient as the rule sees it: behind the wrappers' hooks, after maximize and L2 decay.
// Twin: `prepare` in src/rule/kernel.rs

fn prepare(c: Common, w: Wrapped, p: f32, raw: f32) -> f32 {
    var g = wrapped_gradient(w, raw);
    if (MAXIMIZE) {
        g *= c.sign;
    }
    if (L2) {
        g += c.l2 * p;
    }
    return g;
}
