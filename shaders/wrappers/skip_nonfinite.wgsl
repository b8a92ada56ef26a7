// A step that is skipped moves the parameters back to where they stood before the look-ahead, which keeps them here.
// Twin: src/wrappers/skip_nonfinite.rs

fn skip_nonfinite_looked_ahead(chunk: Chunk, q: u32, before: vec4<f32>) {
    store_before_look_ahead(chunk, q, before);
}

fn skip_nonfinite_skipped(chunk: Chunk, q: u32) -> vec4<f32> {
    return load_before_look_ahead(chunk, q);
}
