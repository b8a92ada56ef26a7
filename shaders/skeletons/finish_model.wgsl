// Combines the sums of all tensors that take part, and calls `finish` with the numbers of the first of them: one
// workgroup. Where no tensor takes part, nothing changes.
// Twin: `list` in src/parts.rs

const LEAVES: u32 = 256u;

var<workgroup> leaves: array<Node, LEAVES>;
var<workgroup> firsts: array<u32, LEAVES>;

@compute @workgroup_size(LANES)
fn finish_model(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tensors = load_entry(entry_index(group, groups)).tensors;
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var node = Node();
        var first = ABSENT;
        for (var tensor = leaf; tensor < tensors; tensor += LEAVES) {
            if (!is_absent(load_record(tensor))) {
                node = combine(node, load_partial(sums_of(tensor)));
                first = min(first, tensor);
            }
        }
        leaves[leaf] = node;
        firsts[leaf] = first;
    }
    for (var half = LEAVES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < half; i += LANES) {
            leaves[i] = combine(leaves[i], leaves[i + half]);
            firsts[i] = min(firsts[i], firsts[i + half]);
        }
    }
    workgroupBarrier();
    let first = firsts[0];
    if (lane == 0u && first != ABSENT) {
        var k = load_tensor(first);
        finish(load_hyper(load_record(first)), bitcast<vec2<f32>>(leaves[0]), 1.0, &k);
        store_tensor(first, k);
    }
}
