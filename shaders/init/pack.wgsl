// Rounds values to a format of 16 bits, two in a word. A lane takes four; `narrowed` is the format's.
// Twin: `DType::encode` in src/codecs.rs

override LANES: u32 = 256u;

struct Record {
    origin: u32, // the first value's word in `source`
    start: u32, // the first word in `values`
    len: u32, // values
}

@group(0) @binding(0) var<storage, read> record: Record;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<u32>;

@compute @workgroup_size(LANES)
fn pack(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = 4u * ((group.y * groups.x + group.x) * LANES + lane);
    if (first >= record.len) {
        return;
    }
    let i = record.origin + min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(record.len - 1u));
    var words = words_of_halves(narrowed(vec4<u32>(source[i.x], source[i.y], source[i.z], source[i.w])));
    let at = record.start + first / 2u;
    let count = min(4u, record.len - first);
    for (var n = 0u; 2u * n < count; n += 1u) {
        if (2u * n + 1u == count) {
            // The upper half of the last word is not the tensor's.
            words[n] = (words[n] & 0xffffu) | (values[at + n] & 0xffff0000u);
        }
        values[at + n] = words[n];
    }
}
