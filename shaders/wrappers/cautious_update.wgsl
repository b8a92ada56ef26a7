// Only elements whose update agrees with the gradient move; the others' share goes to them (arXiv 2411.16085).
// Twin: src/wrappers/cautious_update.rs

override CAUTIOUS_UPDATE_MEAN: bool = false; // else by count

// The signs are compared, since the product of both may underflow.
fn cautious_update_is_counted(g: f32, u: f32) -> bool {
    return sign(g) * sign(u) > 0.0;
}

fn cautious_update_factor(count: f32, len: f32) -> f32 {
    if (CAUTIOUS_UPDATE_MEAN) {
        return len / at_least(count, 0.001 * len);
    }
    return len / (count + 1.0);
}

// An update that is NaN stays so: the parameter must not look plausible.
fn cautious_update_update(k: f32, g: f32, u: f32) -> f32 {
    return select(0.0, k * u, cautious_update_is_counted(g, u) || is_nan(u));
}
