// The walks move the bytes of a pass and compute nothing of it: they add up what they read, and write the sum back.
// All numbers are integers, so that none turns into a denormal, with which some processors are slow.

override SLOTS: u32; // how many numbers of state an element has
override PARAM: bool; // these say what is read: the parameter, the gradient, and how many slots
override GRAD: bool;
override READ: u32;
override LANDS: bool; // these say what is written: the parameter, and how many slots
override WRITTEN: u32;
override LANES: u32 = 256;
override STEPS: u32 = 8; // vec4s that a lane of `blocks` or `sum` walks

@group(0) @binding(0) var<storage, read_write> param: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> grad: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> state: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> sums: array<u32>;

const BLOCK: u32 = 256; // vec4s

// `i` is a vec4's place in `param` and `grad`; its slots are at `at`, `at + stride`, ...
fn visit(i: u32, at: u32, stride: u32) -> vec4<u32> {
    var sum = vec4<u32>();
    if PARAM {
        sum += param[i];
    }
    if GRAD {
        sum += grad[i];
    }
    for (var s = 0u; s < READ; s++) {
        sum += state[at + s * stride];
    }
    if LANDS {
        param[i] = sum;
    }
    for (var s = 0u; s < WRITTEN; s++) {
        state[at + s * stride] = sum;
    }
    return sum;
}

// A vec4 a lane, each slot a region of its own.
@compute @workgroup_size(LANES)
fn flat(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let len = arrayLength(&param);
    let i = (group.y * groups.x + group.x) * LANES + lane;
    if i < len {
        visit(i, i, len);
    }
}

// Eight blocks a workgroup, all slots of a block side by side.
@compute @workgroup_size(LANES)
fn blocks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let len = arrayLength(&param);
    let first = (group.y * groups.x + group.x) * STEPS * LANES + lane;
    for (var step = 0u; step < STEPS; step++) {
        let i = first + step * LANES;
        if i < len {
            visit(i, i / BLOCK * BLOCK * SLOTS + i % BLOCK, BLOCK);
        }
    }
}

var<workgroup> lanes: array<u32, LANES>;

// As `blocks`, and writes a number a workgroup, as a pass that measures a norm does.
@compute @workgroup_size(LANES)
fn sum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let len = arrayLength(&grad);
    let row = group.y * groups.x + group.x;
    var total = vec4<u32>();
    for (var step = 0u; step < STEPS; step++) {
        let i = (row * STEPS + step) * LANES + lane;
        if i < len {
            total += visit(i, i / BLOCK * BLOCK * SLOTS + i % BLOCK, BLOCK);
        }
    }
    lanes[lane] = total.x + total.y + total.z + total.w;
    for (var stride = LANES / 2; stride > 0; stride /= 2) {
        workgroupBarrier();
        if lane < stride {
            lanes[lane] += lanes[lane + stride];
        }
    }
    if lane == 0 && row < arrayLength(&sums) {
        sums[row] = lanes[0];
    }
}
