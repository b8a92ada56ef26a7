// The mean squared error of three bell curves on a slope, and its gradient: one workgroup.

const PEAKS: u32 = 3u;
const NUMBERS: u32 = 11u; // height, middle and width of each peak, then where the slope begins and how steep it is
const LANES: u32 = 64u;

struct Out { grad: array<f32, NUMBERS>, loss: f32 }

@group(0) @binding(0) var<storage> samples: array<vec2<f32>>;
@group(0) @binding(1) var<storage> model: array<f32, NUMBERS>;
@group(0) @binding(2) var<storage, read_write> out: Out;

var<workgroup> parts: array<Out, LANES>;

@compute @workgroup_size(LANES)
fn loss_and_gradient(@builtin(local_invocation_index) lane: u32) {
    let count = arrayLength(&samples);
    var part = Out();
    for (var i = lane; i < count; i += LANES) {
        let x = samples[i].x;
        var y = model[9] + model[10] * x;
        for (var peak = 0u; peak < PEAKS; peak += 1u) {
            let away = (x - model[3u * peak + 1u]) / model[3u * peak + 2u];
            y += model[3u * peak] * exp(-0.5 * away * away);
        }
        let error = y - samples[i].y;
        let slope = 2.0 * error / f32(count);
        part.loss += error * error / f32(count);
        for (var peak = 0u; peak < PEAKS; peak += 1u) {
            let height = model[3u * peak];
            let width = model[3u * peak + 2u];
            let away = (x - model[3u * peak + 1u]) / width;
            let bell = exp(-0.5 * away * away);
            part.grad[3u * peak] += slope * bell;
            part.grad[3u * peak + 1u] += slope * height * bell * away / width;
            part.grad[3u * peak + 2u] += slope * height * bell * away * away / width;
        }
        part.grad[9] += slope;
        part.grad[10] += slope * x;
    }
    parts[lane] = part;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            for (var i = 0u; i < NUMBERS; i += 1u) {
                parts[lane].grad[i] += parts[lane + half].grad[i];
            }
            parts[lane].loss += parts[lane + half].loss;
        }
    }
    if (lane == 0u) {
        out = parts[0];
    }
}
