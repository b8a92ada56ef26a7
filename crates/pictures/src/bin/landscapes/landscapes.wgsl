// Heights and slopes of the landscapes, one point a lane. Each landscape's lowest height is 0.

@group(0) @binding(0) var<storage> points: array<vec4f>; // x, y, and the number of the landscape
@group(0) @binding(1) var<storage, read_write> slopes: array<vec4f>; // the height's derivatives, then the height

fn slope(landscape: u32, x: f32, y: f32) -> vec3f {
    switch landscape {
        case 0u: { // Beale
            let a = 1.5 - x + x * y;
            let b = 2.25 - x + x * y * y;
            let c = 2.625 - x + x * y * y * y;
            let dx = a * (y - 1.0) + b * (y * y - 1.0) + c * (y * y * y - 1.0);
            let dy = x * (a + 2.0 * b * y + 3.0 * c * y * y);
            return vec3f(2.0 * dx, 2.0 * dy, a * a + b * b + c * c);
        }
        case 1u: { // long valley: a parabola across, a straight slope along, round at the lowest point
            let root = sqrt(0.25 + x * x);
            return vec3f(0.3 * x / root, 8.0 * y, 0.3 * (root - 0.5) + 4.0 * y * y);
        }
        case 2u: { // saddle between two minima
            let well = y * y - 1.0;
            return vec3f(x, y * well, 0.5 * x * x + 0.25 * well * well);
        }
        case 3u: { // Rosenbrock
            let bend = y - x * x;
            return vec3f(2.0 * (x - 1.0) - 400.0 * x * bend, 200.0 * bend, (1.0 - x) * (1.0 - x) + 100.0 * bend * bend);
        }
        default: { // quadratic of condition 50, turned by 30 degrees
            let turn = mat2x2f(0.8660254, -0.5, 0.5, 0.8660254);
            let across = turn * vec2f(x, y) * vec2f(1.0, 50.0);
            let p = turn * vec2f(x, y);
            return vec3f(across * turn, 0.5 * dot(p, across)); // v * M is the transpose of M times v
        }
    }
}

@compute @workgroup_size(64)
fn measure(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&points) {
        let p = points[id.x];
        slopes[id.x] = vec4f(slope(u32(p.z), p.x, p.y), 0.0);
    }
}
