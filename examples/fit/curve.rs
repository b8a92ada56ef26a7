//! A spectrum of three peaks, and what is fitted to it: a loss and its gradient on the GPU.

use std::error::Error;
use wgpu_optim::wgpu::{self, BufferUsages, util::DeviceExt};
use wgpu_optim::{Config, Gpu, Minimum, Optimizer, Slice, TensorSpec};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Height, middle and width of each peak, then where the slope begins and how steep it is.
pub type Model = [f32; 11];

/// The bytes of a model, behind which the loss stands.
const MODEL_BYTES: u64 = size_of::<Model>() as u64;

/// What the samples were made of.
const TRUTH: Model = [1.0, 0.25, 0.04, 0.6, 0.42, 0.07, 0.8, 0.75, 0.05, 0.2, 0.3];
/// What a fit starts from: peaks near those that an eye sees.
const START: Model = [0.8, 0.2, 0.08, 0.8, 0.5, 0.08, 0.8, 0.8, 0.08, 0.0, 0.0];
/// How far the samples lie from the truth at most.
const NOISE: f32 = 0.02;

/// The height of a model's curve.
pub fn height(model: &Model, x: f32) -> f32 {
    let bell = |peak: &[f32]| peak[0] * (-0.5 * ((x - peak[1]) / peak[2]).powi(2)).exp();
    model[9] + model[10] * x + model[..9].chunks(3).map(bell).sum::<f32>()
}

/// Places and heights of what was measured.
pub fn samples() -> Vec<[f32; 2]> {
    // Steps of the golden ratio are spread evenly, and their order looks random.
    let noise = |i: usize| NOISE * (2.0 * (0.618_034 * (i * i) as f32).fract() - 1.0);
    let at = |i: usize| i as f32 / 255.0;
    (0..256).map(|i| [at(i), height(&TRUTH, at(i)) + noise(i)]).collect()
}

/// What a fit came to: the loss of every evaluation, and the model.
pub struct Fit {
    pub losses: Vec<f32>,
    pub model: Model,
}

/// The samples on the GPU, and the kernel.
pub struct Spectrum {
    gpu: Gpu,
    pipeline: wgpu::ComputePipeline,
    samples: wgpu::Buffer,
}

impl Spectrum {
    pub fn new(gpu: &Gpu) -> Self {
        let device = gpu.device();
        let module = device.create_shader_module(wgpu::include_wgsl!("curve.wgsl"));
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("loss and gradient"),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        Self { gpu: gpu.clone(), pipeline, samples: buffer(gpu, samples().as_flattened()) }
    }

    /// Fits with line searches until there is a reason to stop.
    pub fn search(&self, config: impl Into<Config>, most: usize) -> Result<(Fit, Minimum)> {
        let mut run = Run::new(self, config, most)?;
        let Run { optimizer, model, out, losses, group, .. } = &mut run;
        let (params, grads) = ([Slice::all(model)], [Slice::new(out, 0, MODEL_BYTES)]);
        let loss = Slice::new(out, MODEL_BYTES, 4);
        let mut evaluations = 0;
        let found = optimizer.minimize_blocking(&params, &grads, loss, |encoder| {
            encode(encoder, &self.pipeline, group, out, losses, evaluations);
            evaluations += 1;
        })?;
        Ok((run.read(found.evaluations)?, found))
    }

    /// Fits with so many steps, each from one evaluation.
    pub fn descend(&self, config: impl Into<Config>, steps: usize) -> Result<Fit> {
        let mut run = Run::new(self, config, steps)?;
        let (params, grads) = ([Slice::all(&run.model)], [Slice::new(&run.out, 0, MODEL_BYTES)]);
        for step in 0..steps {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            encode(&mut encoder, &self.pipeline, &run.group, &run.out, &run.losses, step);
            run.optimizer.encode(&mut encoder, &params, &grads)?;
            self.gpu.queue().submit([encoder.finish()]);
        }
        run.read(steps)
    }
}

/// Encodes one evaluation, whose loss joins the list of all.
fn encode(
    encoder: &mut wgpu::CommandEncoder,
    pipeline: &wgpu::ComputePipeline,
    group: &wgpu::BindGroup,
    out: &wgpu::Buffer,
    losses: &wgpu::Buffer,
    evaluation: usize,
) {
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(out, MODEL_BYTES, losses, 4 * evaluation as u64, 4);
}

/// An optimizer and the buffers of one fit.
struct Run {
    gpu: Gpu,
    optimizer: Optimizer,
    model: wgpu::Buffer,
    /// The gradient, then the loss.
    out: wgpu::Buffer,
    losses: wgpu::Buffer,
    group: wgpu::BindGroup,
}

impl Run {
    fn new(Spectrum { gpu, pipeline, samples }: &Spectrum, config: impl Into<Config>, most: usize) -> Result<Self> {
        let [model, out] = [&START[..], &[0.0; 12]].map(|values| buffer(gpu, values));
        let buffers = [samples, &model, &out];
        let entry = |i: usize| wgpu::BindGroupEntry { binding: i as u32, resource: buffers[i].as_entire_binding() };
        let layout = pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &[0, 1, 2].map(entry) };
        let group = gpu.device().create_bind_group(&descriptor);
        let optimizer = Optimizer::new(gpu, &[TensorSpec::f32("model", [START.len()])], config)?;
        Ok(Self { gpu: gpu.clone(), optimizer, losses: buffer(gpu, &vec![0.0; most]), model, out, group })
    }

    fn read(&self, evaluations: usize) -> Result<Fit> {
        let model = read(&self.gpu, &self.model)?;
        let losses = read(&self.gpu, &self.losses)?[..evaluations].to_vec();
        Ok(Fit { losses, model: model.try_into().map_err(|_| "a model of another length")? })
    }
}

fn buffer(gpu: &Gpu, values: &[f32]) -> wgpu::Buffer {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let contents = bytemuck::cast_slice(values);
    gpu.device().create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
}

fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Result<Vec<f32>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let read = move |bytes| drop(sender.send(bytes));
    wgpu::util::DownloadBuffer::read_buffer(gpu.device(), gpu.queue(), &buffer.slice(..), read);
    gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
    Ok(bytemuck::pod_collect_to_vec(&receiver.recv()??))
}
