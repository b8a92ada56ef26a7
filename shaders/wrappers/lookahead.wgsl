// Slow parameters follow the fast ones, which return to them after every k-th step (Zhang et al. 2019, Algorithm 1).
// Twin: src/wrappers/lookahead.rs

struct LookaheadNumbers {
    pull: f32, // alpha in every k-th step, else 0
}

// A step that is neither the tensor's first nor a k-th neither reads nor writes the slow parameters.
fn lookahead_landed(
    chunk: Chunk, n: LookaheadNumbers, first: bool, q: u32, before: vec4<f32>, after: vec4<f32>,
) -> vec4<f32> {
    if (!first && n.pull == 0.0) {
        return after;
    }
    var slow = before;
    if (!first) {
        slow = load_lookahead_slow(chunk, q);
    }
    var landed = after;
    if (n.pull != 0.0) {
        slow += n.pull * (after - slow);
        landed = slow;
    }
    store_lookahead_slow(chunk, q, slow);
    return landed;
}
