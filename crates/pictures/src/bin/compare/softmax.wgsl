// Logistic regression with ten classes, for many models at once: each differs in its weights alone.
//
// Every sum has a fixed order, so a run repeats to the bit.

const inputs = 64u;
const classes = 10u;
const weights = 650u;      // of a model: 64 rows of ten, then the biases
const stride = 652u;       // from one model's weights to the next: 16 bytes apart

struct Range {
    first: u32,
    count: u32,
}

@group(0) @binding(0) var<storage> range: Range;
@group(0) @binding(1) var<storage> images: array<f32>; // 64 pixels an image, then its label
@group(0) @binding(2) var<storage> params: array<f32>;
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;
@group(0) @binding(4) var<storage, read_write> residuals: array<f32>; // ten for each image of the range and model
@group(0) @binding(5) var<storage, read_write> outcomes: array<vec2f>; // loss, and 1 if correct
@group(0) @binding(6) var<storage, read_write> means: array<vec2f>; // of each model

fn place(slot: u32, model: u32) -> u32 {
    return model * range.count + slot;
}

// One lane an image, one row of workgroups a model.
@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= range.count {
        return;
    }
    let image = (range.first + id.x) * (inputs + 1u);
    let w = id.y * stride;
    var logits: array<f32, classes>;
    for (var k = 0u; k < classes; k++) {
        logits[k] = params[w + inputs * classes + k];
    }
    for (var i = 0u; i < inputs; i++) {
        let x = images[image + i];
        for (var k = 0u; k < classes; k++) {
            logits[k] += x * params[w + i * classes + k];
        }
    }
    var best = 0u;
    for (var k = 1u; k < classes; k++) {
        best = select(best, k, logits[k] > logits[best]);
    }
    let top = logits[best];
    var total = 0.0;
    for (var k = 0u; k < classes; k++) {
        total += exp(logits[k] - top);
    }
    let truth = u32(images[image + inputs]);
    let here = place(id.x, id.y);
    outcomes[here] = vec2f(log(total) + top - logits[truth], f32(best == truth));
    for (var k = 0u; k < classes; k++) {
        residuals[here * classes + k] = (exp(logits[k] - top) / total - f32(k == truth)) / f32(range.count);
    }
}

// One lane a weight.
@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= weights {
        return;
    }
    let row = id.x / classes;
    var sum = 0.0;
    for (var slot = 0u; slot < range.count; slot++) {
        let x = select(images[(range.first + slot) * (inputs + 1u) + row], 1.0, row == inputs);
        sum += x * residuals[place(slot, id.y) * classes + id.x % classes];
    }
    grads[id.y * stride + id.x] = sum;
}

// One lane a model.
@compute @workgroup_size(64)
fn average(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= arrayLength(&means) {
        return;
    }
    var sum = vec2f();
    for (var slot = 0u; slot < range.count; slot++) {
        sum += outcomes[place(slot, id.x)];
    }
    means[id.x] = sum / f32(range.count);
}
