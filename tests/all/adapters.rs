//! Where WGSL leaves an adapter a choice, it does what the table says of it (`proof::MEASURED`).

use crate::common::twin::{Arithmetic, measured, read};
use crate::common::{gpu, say};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wgpu_optim::{Arena, Gpu, TensorSpec, wgpu};

/// Each lane takes three numbers, and gives a product, a sum of a product, a quotient and a root.
const SHADER: &str = "
@group(0) @binding(0) var<storage, read_write> given: array<f32>;
@group(0) @binding(1) var<storage, read_write> found: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = 3u * id.x;
    let a = given[at];
    let b = given[at + 1u];
    let c = given[at + 2u];
    let to = 4u * id.x;
    found[to] = a * b;
    found[to + 1u] = a * b + c;
    found[to + 2u] = a / b;
    found[to + 3u] = sqrt(abs(a));
}
";

/// What the device makes of triples of numbers: 64 at once.
fn run(gpu: &Gpu, triples: &[[f32; 3]]) -> Vec<[f32; 4]> {
    let lanes = triples.len().next_multiple_of(64);
    let list = [TensorSpec::f32("given", [3 * lanes]), TensorSpec::f32("found", [4 * lanes])];
    let arena = Arena::new(gpu, &list).unwrap();
    let mut given = triples.concat();
    given.resize(3 * lanes, 1.0);
    arena.write("given", &given).unwrap();
    let device = gpu.device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(SHADER.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let slices = ["given", "found"].map(|name| arena.slice(name).unwrap());
    let entry = |i: usize| wgpu::BindGroupEntry {
        binding: i as u32,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: slices[i].buffer,
            offset: slices[i].offset,
            size: wgpu::BufferSize::new(slices[i].size),
        }),
    };
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[entry(0), entry(1)],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(lanes as u32 / 64, 1, 1);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
    let found = read(gpu, slices[1]);
    found.chunks_exact(4).take(triples.len()).map(|four| four.try_into().unwrap()).collect()
}

/// Units in the last place of the exact number.
fn ulps(found: f32, exact: f64) -> f64 {
    // What is rounded correctly is off by half a unit at most, and counts as 0.
    if f64::from(found) == exact || found == exact as f32 {
        return 0.0;
    }
    let near = (exact as f32).abs();
    (f64::from(found) - exact).abs() / f64::from(f32::from_bits(near.to_bits() + 1) - near)
}

#[test]
fn arithmetic_is_that_of_the_table() {
    let Some(gpu) = gpu("arithmetic", 1) else { return };
    let step = 1.0 + 1.0 / 4096.0;
    // A product below the smallest normal number, and one that is added to what it rounds to.
    let [small, fused] = run(&gpu, &[[1e-20, 1e-20, 0.0], [step, step, -(1.0 + 1.0 / 2048.0)]])[..] else { panic!() };
    let mut rng = StdRng::seed_from_u64(91);
    let mut number = || rng.random_range(1.0..2.0f32) * 2f32.powi(rng.random_range(-40..40));
    let triples: Vec<[f32; 3]> = (0..1 << 16).map(|_| [number(), number(), number()]).collect();
    let (mut quotient, mut root) = (0.0f64, 0.0f64);
    for (found, [a, b, _]) in run(&gpu, &triples).into_iter().zip(&triples) {
        quotient = quotient.max(ulps(found[2], f64::from(*a) / f64::from(*b)));
        root = root.max(ulps(found[3], f64::from(*a).sqrt()));
    }
    let found = Arithmetic { flushes: small[0] == 0.0, fuses: fused[1] != 0.0, quotient, root };
    let info = gpu.adapter_info();
    say(&format!("arithmetic of {}, {}: {found:?}", info.name, info.backend));
    match measured(&gpu) {
        Some(known) => assert_eq!(found, known, "the table says otherwise of {}", info.name),
        None => say(&format!("skipped: 1 adapter that the table does not have, {}", info.name)),
    }
    assert!(quotient <= 2.5 && root <= 4.5, "WGSL does not allow {found:?}");
}
