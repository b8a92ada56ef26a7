// Returns four elements in the bases, so many words behind what was spread. Behind the chunk's end there is padding.
fn load_turned(chunk: Chunk, q: u32, behind: u32) -> vec4<f32> {
    let at = chunk.start + behind + 4u * q;
    return vec4<f32>(work[at], work[at + 1u], work[at + 2u], work[at + 3u]);
}
