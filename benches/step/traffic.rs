//! The same-traffic kernel: the bytes of a rule without its arithmetic, in the fastest walk there is
//! for them. What share of its speed a rule reaches says what tables and arithmetic cost.

use wgpu_optim::backend::Formats;
use wgpu_optim::backend::traffic::{Touch, measured, of_rule, state_bytes, step_bytes};
use wgpu_optim::rule::{AnyRule, Product};
use wgpu_optim::{Config, DType, Gpu, TensorSpec, Wrappers, wgpu};

use crate::Result;
use crate::clock::{Clock, Patience, Work, median};

/// What one step moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub elements: u64,
    pub slots: u32,
    /// Passes before the update, each of which leaves a number a workgroup.
    pub sums: Vec<Touch>,
    pub update: Touch,
}

impl Load {
    /// The loads of a configuration over these tensors: one for each form of its rules that moves other bytes.
    pub fn of_tensors(config: &Config, tensors: &[TensorSpec]) -> Result<Vec<Load>> {
        if tensors.iter().any(|tensor| tensor.dtype != DType::F32) {
            return Ok(vec![Load::of_halves(config, tensors)?]);
        }
        let groups = config.groups(tensors)?;
        let mut loads: Vec<Load> = vec![];
        for (i, tensor) in tensors.iter().enumerate() {
            let load = Load::of(groups.rule_of(i), groups.wrappers_of(i), tensor.len_elements());
            match loads.iter_mut().find(|known| Load { elements: load.elements, ..(*known).clone() } == load) {
                Some(known) => known.elements += load.elements,
                None => loads.push(load),
            }
        }
        loads.retain(|load| load.elements > 0);
        Ok(loads)
    }

    /// The load of a rule with one pass where parameters and gradients are of 16 bits. An element of it has the bytes of
    /// two of these and, in whole words, those of their state; there are as many as have the bytes of the step.
    fn of_halves(config: &Config, tensors: &[TensorSpec]) -> Result<Load> {
        let groups = config.groups(tensors)?;
        let (mut elements, mut state, mut bytes) = (0, 0, 0);
        for (i, tensor) in tensors.iter().enumerate() {
            let (rule, around, len) = (groups.rule_of(i), groups.wrappers_of(i), tensor.len_elements());
            elements += len;
            state += state_bytes(rule, around, len);
            bytes += step_bytes(rule, around, tensor.formats(), len, 2, false);
        }
        let slots = (state as f64 / (2 * elements) as f64).round() as u32;
        let update = Touch { param: true, grad: true, read: slots, lands: true, written: slots };
        let elements = bytes.div_ceil(update.bytes(Formats::default()));
        Ok(Load { elements, slots, sums: vec![], update })
    }

    /// The load of a rule over so many elements, perhaps with a mean of the parameters, or with gradients measured.
    pub fn of(rule: &dyn AnyRule, around: &Wrappers, elements: u64) -> Load {
        let slots = rule.slots().iter().map(|slot| slot.extent.of_element()).sum::<usize>() as u32;
        let mean = u32::from(around.ema().is_some());
        let mut sums: Vec<_> = measured(around).into_iter().chain(of_rule(rule, around.counts())).collect();
        let update = sums.pop().expect("the last walk is the update");
        let update = Touch { read: update.read + mean, written: update.written + mean, ..update };
        Load { elements, slots: slots + mean, sums, update }
    }

    pub fn bytes(&self) -> u64 {
        let touches = self.sums.iter().chain([&self.update]);
        self.elements * touches.map(|touch| touch.bytes(Formats::default())).sum::<u64>()
    }
}

/// The second rule beside one that takes matrices alone.
pub const OTHERS: &str = "adamw";

/// The operations of a step's products of matrices: a multiplication and an addition count as two.
pub fn product_flops(rule: &dyn AnyRule, tensors: &[TensorSpec]) -> f64 {
    let of_matrix = |tensor: &TensorSpec| {
        let (rows, all) = (tensor.shape[0] as f64, tensor.len_elements() as f64);
        let (short, long) = (rows.min(all / rows), rows.max(all / rows));
        let of = |product| match product {
            Product::Gram | Product::Update { .. } => 2.0 * short * short * long,
            Product::Square { .. } => 2.0 * short * short * short,
        };
        rule.products().map(of).sum::<f64>()
    };
    tensors.iter().filter(|tensor| tensor.shape.len() >= 2).map(of_matrix).sum()
}

/// A walk over the elements: an entry point of `traffic.wgsl`, its lanes, and the elements of a workgroup.
struct Walk {
    entry: &'static str,
    lanes: u32,
    elements: u64,
}

const BLOCK: u64 = 1024;
// Eight lanes are for software GPUs, which run eight at once, each eight to their end: with more of them in a
// workgroup, and a long way to go for each, they jump about in memory.
const UPDATES: [Walk; 4] = [
    Walk { entry: "flat", lanes: 64, elements: 256 },
    Walk { entry: "flat", lanes: 256, elements: BLOCK },
    Walk { entry: "blocks", lanes: 256, elements: 8 * BLOCK },
    Walk { entry: "blocks", lanes: 8, elements: 8 * BLOCK },
];
const SUMS: [Walk; 2] =
    [Walk { entry: "sum", lanes: 256, elements: 8 * BLOCK }, Walk { entry: "sum", lanes: 8, elements: 8 * BLOCK }];

/// A load with its buffers, ready to run.
pub struct Traffic {
    pub load: Load,
    windows: Vec<Window>,
    /// In the order of the passes.
    kernels: Vec<Kernel>,
}

/// The buffers for as many elements as can be bound at once.
struct Window {
    bindings: wgpu::BindGroup,
    elements: u64,
}

struct Kernel {
    pipeline: wgpu::ComputePipeline,
    walk: &'static Walk,
}

impl Traffic {
    /// Makes a load ready with the fastest walks, each of which is tried on what can be bound at once.
    pub fn new(gpu: &Gpu, load: Load, clock: &mut Clock, patience: Patience) -> Result<Traffic> {
        let layout = layout(gpu.device());
        let windows = windows(gpu.device(), &layout, &load);
        let mut fastest = |walks: &'static [Walk], touch: Touch| -> Result<Kernel> {
            let new = |walk| Kernel::new(gpu, &layout, walk, load.slots, touch);
            let mut kernels: Vec<_> = walks.iter().map(new).collect();
            let mut runs: Vec<_> = kernels.iter().map(|kernel| kernel.work(&windows[..1])).collect();
            let mut works: Vec<Work> = runs.iter_mut().map(|run| run as Work).collect();
            let times = clock.times(&mut works, patience)?;
            let time = |k: usize| median(times.iter().map(|round| round[k]));
            let best = (0..walks.len()).min_by(|&a, &b| time(a).total_cmp(&time(b))).expect("there are walks");
            drop(runs);
            Ok(kernels.swap_remove(best))
        };
        let mut kernels = vec![];
        for &touch in &load.sums {
            kernels.push(fastest(&SUMS, touch)?);
        }
        kernels.push(fastest(&UPDATES, load.update)?);
        Ok(Traffic { load, windows, kernels })
    }

    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.kernels.iter().for_each(|kernel| kernel.encode(encoder, &self.windows));
    }

    /// The walk of each pass that was the fastest.
    pub fn walks(&self) -> Vec<String> {
        self.kernels.iter().map(|Kernel { walk, .. }| format!("{} {}", walk.entry, walk.lanes)).collect()
    }
}

impl Kernel {
    fn new(gpu: &Gpu, layout: &wgpu::BindGroupLayout, walk: &'static Walk, slots: u32, touch: Touch) -> Kernel {
        let device = gpu.device();
        let source = wgpu::ShaderSource::Wgsl(include_str!("traffic.wgsl").into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: None, source };
        // SAFETY: every index is below an array's length: the guards in the text, and `windows`.
        // Rules run without bounds checks too, and the yardstick must not be the shorter one.
        let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("traffic"),
            layout: Some(&device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(layout)],
                immediate_size: 0,
            })),
            module: &module,
            entry_point: Some(walk.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[
                    ("SLOTS", slots.into()),
                    ("PARAM", touch.param.into()),
                    ("GRAD", touch.grad.into()),
                    ("READ", touch.read.into()),
                    ("LANDS", touch.lands.into()),
                    ("WRITTEN", touch.written.into()),
                    ("LANES", walk.lanes.into()),
                    ("STEPS", (walk.elements / 4) as f64 / f64::from(walk.lanes)),
                ],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Kernel { pipeline, walk }
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, windows: &[Window]) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        for window in windows {
            let groups = window.elements.div_ceil(self.walk.elements) as u32;
            let rows = groups.div_ceil(65_535);
            pass.set_bind_group(0, &window.bindings, &[]);
            pass.dispatch_workgroups(groups.div_ceil(rows), rows, 1);
        }
    }

    fn work<'a>(&'a self, windows: &'a [Window]) -> impl FnMut(&mut wgpu::CommandEncoder) -> Result<()> + 'a {
        move |encoder| {
            self.encode(encoder, windows);
            Ok(())
        }
    }
}

fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |binding, read_only| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries = [entry(0, false), entry(1, true), entry(2, false), entry(3, false)];
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

fn windows(device: &wgpu::Device, layout: &wgpu::BindGroupLayout, load: &Load) -> Vec<Window> {
    let limits = device.limits();
    let size = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let slots = u64::from(load.slots);
    let most = size / (4 * slots.max(1)) / BLOCK * BLOCK;
    let starts = (0..load.elements).step_by(most as usize);
    starts
        .map(|start| {
            let elements = most.min(load.elements - start);
            let buffer = |words: u64| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("traffic"),
                    size: (4 * words).next_multiple_of(16).max(16),
                    usage: wgpu::BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            };
            // The state ends with a whole block: `blocks` finds the second slot of the last block behind
            // the first one's 1024 elements, however few of them there are.
            let state = elements.next_multiple_of(BLOCK) * slots;
            let buffers = [elements, elements, state, elements.div_ceil(SUMS[0].elements)].map(buffer);
            let entries: [_; 4] = std::array::from_fn(|b| wgpu::BindGroupEntry {
                binding: b as u32,
                resource: buffers[b].as_entire_binding(),
            });
            let bindings =
                device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
            Window { bindings, elements }
        })
        .collect()
}
