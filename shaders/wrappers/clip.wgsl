// Gradients that are too large become smaller (Pascanu et al. 2013, Algorithm 1; Brock et al. 2021, section 4).
// Twin: src/wrappers/clip.rs

const CLIP_VALUE: u32 = 1u;
const CLIP_TENSOR_NORM: u32 = 2u;
const CLIP_GLOBAL_NORM: u32 = 3u;
const CLIP_ADAPTIVE: u32 = 4u;
const CLIP_SIGN: u32 = 5u;

override CLIP_KIND: u32 = CLIP_VALUE;

struct ClipNumbers {
    limit: f32, // by value: the largest number that stays; by sign: what a number becomes, apart from its sign
    coarse: f32, // by a norm: the power of two that gradients are multiplied by first, to bring a large norm near 1
    fine: f32, // by a norm: what they are multiplied by then; by sign: 1 where the clip acts, else 0
}

fn clip_gradient(n: ClipNumbers, g: f32) -> f32 {
    if (CLIP_KIND == CLIP_VALUE) {
        // Not clamp, which may drop a NaN. Comparisons alone may, too: Mesa's compiler for GL makes min and max of
        // them.
        let clipped = select(select(g, -n.limit, g < -n.limit), n.limit, g > n.limit);
        return select(clipped, g, is_nan(g));
    }
    if (CLIP_KIND == CLIP_SIGN) {
        return select(g, n.limit * sign(g), n.fine != 0.0);
    }
    return g * n.coarse * n.fine;
}

// Where a norm is infinite, the clip makes 0 of every gradient but the infinite ones, whose parameters become NaN so
// that they do not look plausible. Where a norm is NaN, every parameter becomes NaN.
fn clip_is_lost(n: ClipNumbers, raw: u32) -> bool {
    let by_norm = CLIP_KIND != CLIP_VALUE && CLIP_KIND != CLIP_SIGN;
    return by_norm && ((raw & 0x7fffffffu) > 0x7f7fffffu || is_nan(n.fine));
}

// Whether the norm over all gradients decides, not that of each tensor.
fn clip_takes_all() -> bool {
    return CLIP_KIND == CLIP_GLOBAL_NORM || CLIP_KIND == CLIP_SIGN;
}

// Returns `coarse` and `fine` of a tensor, as bits. `root` and `of_params` each hold a norm and the power of two that
// it was multiplied by. `worst` is the worst kind of number among the gradients: 2 for infinity, 3 for NaN.
fn clip_factors(root: vec2<f32>, of_params: vec2<f32>, worst: u32, limit: f32, eps: f32) -> vec2<u32> {
    let one = bitcast<u32>(1.0);
    if (CLIP_KIND == CLIP_VALUE) {
        return vec2<u32>(one, one);
    }
    if (CLIP_KIND == CLIP_SIGN) {
        let exceeds = worst == 2u || (worst != 3u && root.x > limit * root.y);
        return vec2<u32>(one, select(0u, one, exceeds));
    }
    if (worst >= 2u) {
        return vec2<u32>(one, select(0u, 0x7fc00000u, worst == 3u));
    }
    var bound = limit;
    var size = root.x + 1e-6;
    if (CLIP_KIND == CLIP_ADAPTIVE) {
        bound = limit * at_least(of_params.x / of_params.y, eps);
        size = at_least(root.x, 1e-6);
    }
    // A limit that is NaN reaches every element. No comparison may decide that: a compiler may turn it round.
    if (is_nan(bound)) {
        return vec2<u32>(one, 0x7fc00000u);
    }
    if (root.y == 1.0) {
        let ratio = bound / size;
        return vec2<u32>(one, select(bitcast<u32>(ratio), one, ratio >= 1.0));
    }
    if (bound * root.y >= root.x) {
        return vec2<u32>(one, one);
    }
    return vec2<u32>(bitcast<u32>(root.y), bitcast<u32>(bound / root.x));
}
