// Makes vectors orthonormal by modified Gram-Schmidt, a pivot at a time, and puts them into their tensor.
// Twin: `Orthogonal` in src/init/values.rs

override LANES: u32 = 256u;

const LEAVES: u32 = 64u; // a sum has so many, however many lanes there are

struct Record {
    start: u32, // the first vector's or element's word in `values`
    count: u32, // vectors, a workgroup each; in `place` elements, a lane each
    width: u32, // elements of a vector
    gain: f32, // the length that `normalise` gives to vectors
    // Only `place` reads the rest:
    element: u32, // the first element's number in the tensor
    columns: u32, // the tensor is a matrix of so many
    tall: u32, // 1 where the vectors are its columns
    origin: u32, // the first word of the first vector in `source`
    vector: u32, // the number of that vector
    vectors: u32, // how many vectors `source` holds
}

@group(0) @binding(0) var<storage, read> record: Record;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;

var<workgroup> leaves: array<vec2<f32>, LEAVES>;

// Returns the sum of the leaves to every lane.
fn sum(lane: u32) -> vec2<f32> {
    for (var half = LEAVES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < half; i += LANES) {
            leaves[i] += leaves[i + half];
        }
    }
    workgroupBarrier();
    return leaves[0];
}

// Takes from each vector its part along the pivot, which is `source`.
@compute @workgroup_size(LANES)
fn project(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let vector = group.y * groups.x + group.x;
    if (vector >= record.count) {
        return;
    }
    let start = record.start + vector * record.width;
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var products = vec2<f32>(0.0, 0.0);
        for (var i = leaf; i < record.width; i += LEAVES) {
            products += source[i] * vec2<f32>(values[start + i], source[i]);
        }
        leaves[leaf] = products;
    }
    let products = sum(lane);
    let share = products.x / products.y;
    for (var i = lane; i < record.width; i += LANES) {
        values[start + i] -= share * source[i];
    }
}

// Gives each vector the length `gain`.
@compute @workgroup_size(LANES)
fn normalise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let vector = group.y * groups.x + group.x;
    if (vector >= record.count) {
        return;
    }
    let start = record.start + vector * record.width;
    for (var leaf = lane; leaf < LEAVES; leaf += LANES) {
        var squares = vec2<f32>(0.0, 0.0);
        for (var i = leaf; i < record.width; i += LEAVES) {
            squares.x += values[start + i] * values[start + i];
        }
        leaves[leaf] = squares;
    }
    let length = sqrt(sum(lane).x);
    for (var i = lane; i < record.width; i += LANES) {
        values[start + i] = values[start + i] / length * record.gain;
    }
}

// Copies those elements of the tensor that come from the vectors in `source`.
@compute @workgroup_size(LANES)
fn place(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * LANES + lane;
    if (i >= record.count) {
        return;
    }
    let row = (record.element + i) / record.columns;
    let column = (record.element + i) % record.columns;
    let vector = select(row, column, record.tall == 1u) - record.vector;
    let at = select(column, row, record.tall == 1u);
    if (vector < record.vectors) {
        values[record.start + i] = source[record.origin + vector * record.width + at];
    }
}
