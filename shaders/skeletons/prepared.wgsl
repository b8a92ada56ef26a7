// Four elements' gradients as the rule sees them.
fn load_prepared(chunk: Chunk, c: Common, w: Wrapped, q: u32) -> vec4<f32> {
    var p: vec4<f32>;
    if (L2) {
        p = load_whole(chunk, c.first != 0.0, q);
    }
    let raw = load_grad(chunk, q);
    return vec4<f32>(
        prepare(c, w, p.x, raw.x),
        prepare(c, w, p.y, raw.y),
        prepare(c, w, p.z, raw.z),
        prepare(c, w, p.w, raw.w),
    );
}
