//! A compute shader and the buffers that it works on.

use wgpu_optim::{Gpu, Slice, wgpu};

pub struct Kernel {
    pipeline: wgpu::ComputePipeline,
    groups: Vec<wgpu::BindGroup>,
}

impl Kernel {
    /// Makes a kernel of an entry point of some WGSL text. Each of `groups` is a set of buffers, of which a dispatch
    /// chooses one.
    pub fn new(gpu: &Gpu, wgsl: &str, entry: &str, groups: &[&[(u32, Slice)]]) -> Kernel {
        let device = gpu.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(entry),
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        });
        let layout = pipeline.get_bind_group_layout(0);
        let group = |buffers: &&[(u32, Slice)]| {
            let entries: Vec<_> = buffers
                .iter()
                .map(|(binding, slice)| wgpu::BindGroupEntry {
                    binding: *binding,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: slice.buffer,
                        offset: slice.offset,
                        size: wgpu::BufferSize::new(slice.size),
                    }),
                })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(entry),
                layout: &layout,
                entries: &entries,
            })
        };
        let groups = groups.iter().map(group).collect();
        Kernel { groups, pipeline }
    }

    pub fn dispatch(&self, encoder: &mut wgpu::CommandEncoder, group: usize, workgroups: [u32; 2]) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.groups[group], &[]);
        pass.dispatch_workgroups(workgroups[0], workgroups[1], 1);
    }
}
