//! The network on the GPU: its parameters, its gradients, and the kernels of `mlp.wgsl` between them.

use super::{Result, data::Data};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use start::{CLASSES, HIDDEN};
use wgpu_optim::{
    Arena, DType, Gpu, Slice, TensorSpec,
    wgpu::{self, BufferUsages, util::DeviceExt},
};

#[path = "start.rs"] // whoever takes this file by its path takes that one, too
pub mod start;

const TRACE_WORDS: usize = 2 * HIDDEN + CLASSES;
/// Bytes from one range to the next: every adapter accepts a multiple of 256 as a uniform buffer's dynamic offset.
const RANGE_STRIDE: u32 = 256;

/// A multilayer perceptron, the images it learns, and the order in which it sees them.
pub struct Network {
    gpu: Gpu,
    /// The tensors of `params`; `grads` holds their gradients.
    pub tensors: [TensorSpec; 4],
    /// What the optimizer steps.
    pub params: Arena,
    /// What [`Network::encode_gradients`] fills.
    pub grads: Arena,
    totals: Arena,
    order: wgpu::Buffer,
    train_order: Vec<u32>,
    rng: Xoshiro256PlusPlus,
    /// The batches of an epoch.
    pub batches: Vec<Range>,
    test_parts: Vec<Range>,
    whole: [Range; 2],
    sample: Kernel,
    gradients: Kernel,
    tally: Kernel,
    gradient_groups: u32,
    scale_layout: wgpu::BindGroupLayout,
    scale: wgpu::BindGroup,
}

/// A range of the order of images: where its description for the shader lies, and its length.
pub struct Range {
    offset: u32,
    count: u32,
}

/// Means over the training images, each seen before its batch's step, and over the test images after the epoch.
pub struct Score {
    pub train_loss: f32,
    pub train_accuracy: f32,
    pub test_loss: f32,
    pub test_accuracy: f32,
}

impl Network {
    /// Uploads the images and draws the first weights from `seed`. The gradients are of the format `grads`.
    pub fn new(gpu: &Gpu, data: &Data, batch: usize, seed: u64, grads: DType) -> Result<Network> {
        let (device, inputs) = (gpu.device(), data.inputs);
        let (len, train) = (data.labels.len(), data.train);
        let batch = batch.min(train);
        let limits = device.limits();
        let groups = u64::from(limits.max_compute_workgroups_per_dimension);
        let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let gradient_groups = inputs.div_ceil(4) + 1 + CLASSES / 2 + 1;
        let words = image_words(data);
        for (what, need, most) in [
            ("--batch in workgroups", batch, groups),
            ("an image's pixels in workgroups", gradient_groups, groups),
            ("the images in bytes", 4 * words.len(), bytes),
            ("--batch in bytes", 4 * TRACE_WORDS * batch, bytes),
        ] {
            if need as u64 > most {
                return Err(format!("{what}: {need}, this adapter takes at most {most}").into());
            }
        }

        let tensors = start::tensors(inputs).map(|tensor| tensor.with_grad_dtype(grads));
        let half_grads = f64::from(u8::from(grads == DType::F16));
        let params = Arena::new(gpu, &tensors)?;
        let grads = Arena::new(gpu, &tensors.each_ref().map(TensorSpec::grad_spec))?;
        let totals = Arena::new(gpu, &[TensorSpec::f32("totals", [2, 2])])?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        for (tensor, values) in tensors.iter().zip(start::values(inputs, &mut rng)) {
            params.write(&tensor.name, &values)?;
        }

        let images = upload(gpu, "images", &words, BufferUsages::STORAGE);
        let order = upload(gpu, "order", &(0..len as u32).collect::<Vec<_>>(), BufferUsages::STORAGE);
        let traces = storage(gpu, "traces", 4 * TRACE_WORDS * batch);
        let outcomes = storage(gpu, "outcomes", 8 * len);

        let mut table = Vec::new();
        let mut range = |first: usize, count: usize, train: u32| {
            let offset = 4 * table.len() as u32;
            table.extend([first as u32, count as u32, train]);
            table.resize(table.len() + RANGE_STRIDE as usize / 4 - 3, 0);
            Range { offset, count: count as u32 }
        };
        let batches = (0..train).step_by(batch).map(|i| range(i, batch.min(train - i), 1)).collect();
        let part = 1024;
        let test_parts = (train..len).step_by(part).map(|i| range(i, part.min(len - i), 0)).collect();
        let whole = [range(train, len - train, 0), range(0, train, 1)];
        let ranges = upload(gpu, "ranges", &table, BufferUsages::UNIFORM);

        let module = device.create_shader_module(wgpu::include_wgsl!("mlp.wgsl"));
        let constants =
            [("inputs", inputs as f64), ("pixel_scale", 2.0 / f64::from(data.ink)), ("half_grads", half_grads)];
        let scale_layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("loss scale"),
            entries: &[layout_entry(0, wgpu::BufferBindingType::Storage { read_only: true })],
        });
        let unscaled = upload(gpu, "loss scale", &[1f32.to_bits()], BufferUsages::STORAGE);
        let kernel = |entry: &str, reads: &[(u32, Slice)], writes: &[(u32, Slice)]| {
            let scale = (entry == "gradients").then_some(&scale_layout);
            Kernel::new(gpu, &module, entry, &constants, &ranges, reads, writes, scale)
        };
        let [images, order_all, traces, outcomes] = [&images, &order, &traces, &outcomes].map(Slice::all);
        Ok(Network {
            sample: kernel(
                "sample",
                &[
                    (1, images),
                    (2, order_all),
                    (6, params.slice("w1")?),
                    (7, params.slice("b1")?),
                    (8, params.slice("w2")?),
                    (9, params.slice("b2")?),
                ],
                &[(3, traces), (4, outcomes)],
            ),
            gradients: kernel(
                "gradients",
                &[(1, images), (2, order_all)],
                &[
                    (3, traces),
                    (10, grads.slice("w1")?),
                    (11, grads.slice("b1")?),
                    (12, grads.slice("w2")?),
                    (13, grads.slice("b2")?),
                ],
            ),
            tally: kernel("tally", &[], &[(4, outcomes), (5, totals.slice("totals")?)]),
            scale: bind_scale(gpu, &scale_layout, Slice::all(&unscaled)),
            scale_layout,
            gpu: gpu.clone(),
            tensors,
            params,
            grads,
            totals,
            order,
            train_order: (0..train as u32).collect(),
            rng,
            batches,
            test_parts,
            whole,
            gradient_groups: gradient_groups as u32,
        })
    }

    /// From now on multiplies the loss by the f32 that stands at this place on the device.
    pub fn scale_loss(&mut self, scale: Slice) {
        self.scale = bind_scale(&self.gpu, &self.scale_layout, scale);
    }

    /// Takes up the order of images where a training was after so many steps, and returns how many epochs these were.
    pub fn resume(&mut self, steps: u64) -> Result<u32> {
        let batches = self.batches.len() as u64;
        if !steps.is_multiple_of(batches) {
            return Err(format!("--resume: {steps} steps are no whole epochs of {batches}: another --batch").into());
        }
        (0..steps / batches).for_each(|_| self.train_order.shuffle(&mut self.rng));
        Ok(u32::try_from(steps / batches)?)
    }

    /// Uploads a new permutation of the training images; it counts from the next submit.
    pub fn shuffle(&mut self) {
        self.train_order.shuffle(&mut self.rng);
        self.gpu.queue().write_buffer(&self.order, 0, bytemuck::cast_slice(&self.train_order));
    }

    /// Goes forward and backward through one batch of `self.batches`, which fills `grads` with the mean gradient, times
    /// the loss scale.
    pub fn encode_gradients(&self, encoder: &mut wgpu::CommandEncoder, batch: &Range) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.sample.dispatch(&mut pass, batch, batch.count);
        pass.set_bind_group(1, &self.scale, &[]);
        self.gradients.dispatch(&mut pass, batch, self.gradient_groups);
    }

    /// Tests the network and reads back the epoch's score: sixteen bytes, all that an epoch takes from the GPU.
    pub fn score(&self) -> Result<Score> {
        let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for part in &self.test_parts {
                self.sample.dispatch(&mut pass, part, part.count);
            }
            for whole in &self.whole {
                self.tally.dispatch(&mut pass, whole, 1);
            }
        }
        self.gpu.queue().submit([encoder.finish()]);
        let totals = self.totals.read_blocking("totals")?;
        let [test, train] = self.whole.each_ref().map(|whole| whole.count as f32);
        Ok(Score {
            train_loss: totals[2] / train,
            train_accuracy: totals[3] / train,
            test_loss: totals[0] / test,
            test_accuracy: totals[1] / test,
        })
    }
}

/// The words of the images: for each its pixels, four a word, then its label.
fn image_words(data: &Data) -> Vec<u32> {
    let images = data.pixels.chunks_exact(data.inputs).zip(&data.labels);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
    images.flat_map(|(pixels, &label)| pixels.chunks(4).map(word).chain([u32::from(label)])).collect()
}

fn upload(gpu: &Gpu, label: &str, words: &[u32], usage: BufferUsages) -> wgpu::Buffer {
    gpu.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some(label),
        contents: bytemuck::cast_slice(words),
        usage: usage | BufferUsages::COPY_DST,
    })
}

fn storage(gpu: &Gpu, label: &str, size_bytes: usize) -> wgpu::Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: size_bytes as u64,
        usage: BufferUsages::STORAGE,
        mapped_at_creation: false,
    })
}

fn bind_scale(gpu: &Gpu, layout: &wgpu::BindGroupLayout, scale: Slice) -> wgpu::BindGroup {
    gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("loss scale"),
        layout,
        entries: &[bound(0, scale)],
    })
}

fn layout_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    let has_dynamic_offset = ty == wgpu::BufferBindingType::Uniform;
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    }
}

fn bound(binding: u32, slice: Slice<'_>) -> wgpu::BindGroupEntry<'_> {
    let size = wgpu::BufferSize::new(slice.size);
    let buffer = wgpu::BufferBinding { buffer: slice.buffer, offset: slice.offset, size };
    wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(buffer) }
}

/// An entry point of `mlp.wgsl` with its buffers.
struct Kernel {
    pipeline: wgpu::ComputePipeline,
    buffers: wgpu::BindGroup,
}

impl Kernel {
    /// `reads` and `writes`: the binding in `mlp.wgsl`, and what to bind there. `more` is the layout of a second group,
    /// which the caller sets before a dispatch.
    #[allow(clippy::too_many_arguments)] // each of another type
    fn new(
        gpu: &Gpu,
        module: &wgpu::ShaderModule,
        entry: &str,
        constants: &[(&str, f64)],
        ranges: &wgpu::Buffer,
        reads: &[(u32, Slice)],
        writes: &[(u32, Slice)],
        more: Option<&wgpu::BindGroupLayout>,
    ) -> Kernel {
        let device = gpu.device();
        let range = Slice::new(ranges, 0, 16);
        let ty = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let bindings = std::iter::once((0, range, wgpu::BufferBindingType::Uniform))
            .chain(reads.iter().map(|&(binding, slice)| (binding, slice, ty(true))))
            .chain(writes.iter().map(|&(binding, slice)| (binding, slice, ty(false))));
        let (layout_entries, entries): (Vec<_>, Vec<_>) =
            bindings.map(|(binding, slice, ty)| (layout_entry(binding, ty), bound(binding, slice))).unzip();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(entry),
            entries: &layout_entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(entry),
            bind_group_layouts: &[Some(&layout), more][..1 + usize::from(more.is_some())],
            immediate_size: 0,
        });
        Kernel {
            pipeline: device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(&pipeline_layout),
                module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions { constants, ..Default::default() },
                cache: None,
            }),
            buffers: device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(entry),
                layout: &layout,
                entries: &entries,
            }),
        }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass, range: &Range, workgroups: u32) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.buffers, &[range.offset]);
        pass.dispatch_workgroups(workgroups, 1, 1);
    }
}
