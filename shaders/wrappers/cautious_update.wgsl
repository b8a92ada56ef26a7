// An element moves only where its update has the sign of its gradient, and those that move do so further, by a factor
// that grows with the number of those that stay (Liang et al. 2024, arXiv 2411.16085, Algorithm 1).
// Twin: src/wrappers/cautious_update.rs

override CAUTIOUS_UPDATE_MEAN: bool = false; // the factor is that of `mean`, else that of `count`

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

// An update that is NaN stays NaN, so that the parameter does not look plausible.
fn cautious_update_update(k: f32, g: f32, u: f32) -> f32 {
    return select(0.0, k * u, cautious_update_is_counted(g, u) || is_nan(u));
}
