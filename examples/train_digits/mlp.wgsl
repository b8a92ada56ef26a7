// A multilayer perceptron: inputs - 128 ReLUs - 10 classes, softmax, cross-entropy.
//
// `sample` takes one image a workgroup through the network and back, `gradients` then adds up the batch, one parameter
// a lane. Every sum has a fixed order and there are no float atomics, so a run repeats to the bit.
//
// Of a loss that is scaled, every derivative is scaled. `sample` computes in f32, which needs no scale, and binds the
// eight buffers that any adapter allows already; so `gradients` multiplies by it, before it rounds to f16.

const hidden = 128u;
const classes = 10u;
override inputs: u32;       // pixels of an image
override pixel_scale: f32;  // 2 / ink
override half_grads: bool;  // gradients in f16, two a word, the even one in the lower half; else in f32

// A stretch of `order`: a batch, some test images, or all images of one kind.
struct Range {
    first: u32,
    count: u32,
    train: u32, // 1: leave a trace for the gradients; 0: only look
}

// What one image of the batch leaves for the gradients; `_back` is the loss's derivative, already divided by the batch.
struct Trace {
    hidden: array<f32, hidden>,
    hidden_back: array<f32, hidden>,
    logits_back: array<f32, classes>,
}

@group(0) @binding(0) var<uniform> range: Range;
@group(0) @binding(1) var<storage> images: array<u32>; // each: its pixels, four bytes a word, then a word for its label
@group(0) @binding(2) var<storage> order: array<u32>; // numbers of images: the epoch's permutation, then the test images
@group(0) @binding(3) var<storage, read_write> traces: array<Trace>;
@group(0) @binding(4) var<storage, read_write> outcomes: array<vec2f>; // per place in `order`: loss, and 1 if correct
@group(0) @binding(5) var<storage, read_write> totals: array<vec2f, 2>; // sums of outcomes: test, train
@group(0) @binding(6) var<storage> w1: array<f32>; // [inputs, hidden]
@group(0) @binding(7) var<storage> b1: array<f32>;
@group(0) @binding(8) var<storage> w2: array<f32>; // [hidden, classes]
@group(0) @binding(9) var<storage> b2: array<f32>;
@group(0) @binding(10) var<storage, read_write> w1_grad: array<u32>;
@group(0) @binding(11) var<storage, read_write> b1_grad: array<u32>;
@group(0) @binding(12) var<storage, read_write> w2_grad: array<u32>;
@group(0) @binding(13) var<storage, read_write> b2_grad: array<u32>;
@group(1) @binding(0) var<storage> loss_scale: f32;

fn image_words() -> u32 {
    return (inputs + 3u) / 4u + 1u;
}

// The pixels 4i to 4i+3: -1 is paper, 1 is ink. Behind the last one of an image they mean nothing.
fn pixels(image: u32, i: u32) -> vec4f {
    return vec4f(unpack4xU8(images[image * image_words() + i])) * pixel_scale - 1.0;
}

fn label(image: u32) -> u32 {
    return images[(image + 1u) * image_words() - 1u];
}

var<workgroup> h: array<f32, hidden>;
var<workgroup> logits: array<f32, classes>;

// One workgroup an image, one lane a hidden unit.
@compute @workgroup_size(hidden)
fn sample(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let slot = group.x;
    let image = order[range.first + slot];

    var sum = b1[lane];
    for (var i = 0u; i < inputs; i += 4u) {
        let x = pixels(image, i / 4u);
        for (var c = 0u; c < min(4u, inputs - i); c++) {
            sum += x[c] * w1[(i + c) * hidden + lane];
        }
    }
    h[lane] = max(sum, 0.0);
    workgroupBarrier();

    if lane < classes {
        var logit = b2[lane];
        for (var j = 0u; j < hidden; j++) {
            logit += h[j] * w2[j * classes + lane];
        }
        logits[lane] = logit;
    }
    workgroupBarrier();

    var best = 0u;
    for (var k = 1u; k < classes; k++) {
        best = select(best, k, logits[k] > logits[best]);
    }
    let top = logits[best];
    var total = 0.0;
    for (var k = 0u; k < classes; k++) {
        total += exp(logits[k] - top);
    }
    let truth = label(image);
    if lane == 0u {
        outcomes[range.first + slot] = vec2f(log(total) + top - logits[truth], f32(best == truth));
    }
    if range.train == 0u {
        return;
    }

    var back = 0.0;
    for (var k = 0u; k < classes; k++) {
        let logit_back = (exp(logits[k] - top) / total - f32(k == truth)) / f32(range.count);
        back += logit_back * w2[lane * classes + k];
        if lane == k {
            traces[slot].logits_back[k] = logit_back;
        }
    }
    traces[slot].hidden[lane] = h[lane];
    traces[slot].hidden_back[lane] = select(0.0, back, h[lane] > 0.0);
}

// The bits of x in f16. What pack2x16float makes of a number beyond f16 is not defined; here it is infinity.
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    if size >= 0x477ff000u { // 65520, the first that would round to 65536
        return ((bits >> 16u) & 0x8000u) | select(0x7c00u, 0x7e00u, size > 0x7f800000u);
    }
    return pack2x16float(vec2f(x, 0.0));
}

fn two_halves(x: vec2f) -> u32 {
    return half_bits(x.x) | (half_bits(x.y) << 16u);
}

// The word of a lane and its neighbour, two halves. All lanes call it together.
fn shared_word(lane: u32, x: f32) -> u32 {
    workgroupBarrier();
    h[lane] = x;
    workgroupBarrier();
    return two_halves(vec2f(h[lane & ~1u], h[lane | 1u]));
}

// One workgroup for every four rows of w1, one for b1, one for each two columns of w2, one for b2.
@compute @workgroup_size(hidden)
fn gradients(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let quads = (inputs + 3u) / 4u;
    let row = group.x;
    var sum = 0.0;
    if row < quads {
        var four = vec4f();
        for (var s = 0u; s < range.count; s++) {
            four += pixels(order[range.first + s], row) * traces[s].hidden_back[lane];
        }
        four *= loss_scale;
        for (var i = 4u * row; i < min(4u * row + 4u, inputs); i++) {
            let place = i * hidden + lane;
            if !half_grads {
                w1_grad[place] = bitcast<u32>(four[i % 4u]);
            } else {
                let word = shared_word(lane, four[i % 4u]);
                if lane % 2u == 0u {
                    w1_grad[place / 2u] = word;
                }
            }
        }
    } else if row == quads {
        for (var s = 0u; s < range.count; s++) {
            sum += traces[s].hidden_back[lane];
        }
        sum *= loss_scale;
        if !half_grads {
            b1_grad[lane] = bitcast<u32>(sum);
        } else {
            let word = shared_word(lane, sum);
            if lane % 2u == 0u {
                b1_grad[lane / 2u] = word;
            }
        }
    } else if row <= quads + classes / 2u {
        let k = 2u * (row - quads - 1u);
        var two = vec2f();
        for (var s = 0u; s < range.count; s++) {
            two += traces[s].hidden[lane] * vec2f(traces[s].logits_back[k], traces[s].logits_back[k + 1u]);
        }
        two *= loss_scale;
        let place = lane * classes + k;
        if !half_grads {
            w2_grad[place] = bitcast<u32>(two.x);
            w2_grad[place + 1u] = bitcast<u32>(two.y);
        } else {
            w2_grad[place / 2u] = two_halves(two);
        }
    } else {
        for (var s = 0u; s < range.count; s++) {
            sum += traces[s].logits_back[min(lane, classes - 1u)];
        }
        sum *= loss_scale;
        if !half_grads {
            if lane < classes {
                b2_grad[lane] = bitcast<u32>(sum);
            }
        } else {
            let word = shared_word(lane, sum);
            if lane < classes && lane % 2u == 0u {
                b2_grad[lane / 2u] = word;
            }
        }
    }
}

const tally_lanes = 256u;
var<workgroup> sums: array<vec2f, tally_lanes>;

// One workgroup adds up the outcomes of a range.
@compute @workgroup_size(tally_lanes)
fn tally(@builtin(local_invocation_index) lane: u32) {
    var sum = vec2f();
    for (var i = lane; i < range.count; i += tally_lanes) {
        sum += outcomes[range.first + i];
    }
    sums[lane] = sum;
    for (var half = tally_lanes / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] += sums[lane + half];
        }
    }
    if lane == 0u {
        totals[range.train] = sums[0];
    }
}
