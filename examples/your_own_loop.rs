//! A training loop with its own device, buffers and command encoder, to which the optimizer only adds its step:
//! AdamW finds three weights by least squares.

use std::error::Error;
use wgpu_optim::wgpu::{self, BufferUsages, util::DeviceExt};
use wgpu_optim::{AdamW, Gpu, Optimizer, Slice, TensorSpec, WeightDecay};

const GRADIENT: &str = "
    struct Out { grad: vec3f, @align(16) loss: f32 }
    @group(0) @binding(0) var<storage> samples: array<vec4f>; // x, and in the last place y
    @group(0) @binding(1) var<storage> w: vec3f;
    @group(0) @binding(2) var<storage, read_write> out: Out;

    @compute @workgroup_size(1)
    fn gradient() {
        out = Out();
        let n = f32(arrayLength(&samples));
        for (var i = 0u; i < arrayLength(&samples); i++) {
            let error = dot(w, samples[i].xyz) - samples[i].w;
            out.grad += 2.0 * error * samples[i].xyz / n;
            out.loss += error * error / n;
        }
    }
";

fn main() -> Result<(), Box<dyn Error>> {
    // What the application owns: nothing in it knows of the optimizer.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;
    let truth = [2.0, -1.0, 0.5];
    let samples: Vec<[f32; 4]> = (0..256)
        .map(|i| [1.1, 2.3, 3.7].map(|frequency| (frequency * i as f32).sin()))
        .map(|[a, b, c]| [a, b, c, truth[0] * a + truth[1] * b + truth[2] * c])
        .collect();
    let buffer = |words: &[f32]| {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        let contents = bytemuck::cast_slice(words);
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
    };
    let buffers = [buffer(samples.as_flattened()), buffer(&[0.0; 4]), buffer(&[0.0; 8])];
    let [_, weights, out] = &buffers;
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(GRADIENT.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let entry = |i: u32| wgpu::BindGroupEntry { binding: i, resource: buffers[i as usize].as_entire_binding() };
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[0, 1, 2].map(entry),
    });

    // The optimizer works in those buffers where they lie. Decay would end short of the least squares.
    let gpu = Gpu::new(&device, &queue);
    let rule = AdamW { lr: 0.05, weight_decay: WeightDecay::None, ..AdamW::default() };
    let mut optimizer = Optimizer::new(&gpu, &[TensorSpec::f32("w", [3])], rule)?;
    let params = [Slice::new(weights, 0, 12)];
    let grads = [Slice::new(out, 0, 12)];

    for step in 0..=300 {
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        optimizer.encode(&mut encoder, &params, &grads)?;
        queue.submit([encoder.finish()]);
        if step % 50 == 0 {
            println!("step {step:>3}  loss {:.6}", read(&device, &queue, out)?[4]);
        }
    }
    println!("found {:.4?}", &read(&device, &queue, weights)?[..3]);
    println!("true  {truth:.4?}");
    Ok(())
}

fn read(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Result<Vec<f32>, Box<dyn Error>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    wgpu::util::DownloadBuffer::read_buffer(device, queue, &buffer.slice(..), move |bytes| drop(sender.send(bytes)));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    Ok(bytemuck::pod_collect_to_vec(&receiver.recv()??))
}
