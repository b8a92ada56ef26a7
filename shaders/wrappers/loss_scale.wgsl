// The caller multiplies the loss by a scale, so this divides gradients by it (Micikevicius et al. 2018, section 3.2).
// Twin: src/wrappers/loss_scale.rs

struct LossScaleNumbers {
    unscale: f32, // one over the scale, a power of two
}

fn loss_scale_gradient(n: LossScaleNumbers, g: f32) -> f32 {
    return g * n.unscale;
}

// Returns the bits of the scale after a step, and for how many good steps it has stood. It stays within 2^-24 and 2^24.
fn loss_scale_after(
    scale: f32, good: u32, is_skipped: bool, growth: f32, backoff: f32, interval: u32,
) -> vec2<u32> {
    if (is_skipped) {
        return vec2<u32>(bitcast<u32>(max(scale * backoff, bitcast<f32>(0x33800000u))), 0u);
    }
    if (good + 1u >= interval) {
        return vec2<u32>(bitcast<u32>(min(scale * growth, 16777216.0)), 0u);
    }
    return vec2<u32>(bitcast<u32>(scale), good + 1u);
}
