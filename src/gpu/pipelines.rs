//! Compute pipelines and their layouts, made once for each thing that makes them differ.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;

use super::{Gpu, Made};
use crate::rule::AnyRule;
use crate::rules;
use crate::shader::{self, Binding, Skeleton, Values};
use crate::tensor::Formats;
use crate::wrappers::Wrappers;

/// What makes two pipelines differ: the text, the constants' bits, and whether wgpu trusts the text.
type Key = (String, Vec<(&'static str, u64)>, bool);

/// Pipelines that wgpu has not accepted yet.
pub(super) type Fresh = HashMap<Key, wgpu::ComputePipeline>;

/// A composed shader with its constants.
pub(super) struct Shader<'a> {
    pub(super) rule: &'a dyn AnyRule,
    pub(super) wrappers: &'a Wrappers,
    pub(super) constants: Vec<(&'static str, f64)>,
    pub(super) skeleton: Skeleton,
    pub(super) values: Values,
}

/// Every pipeline that was made on a device.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    pipelines: Fresh,
    layouts: HashMap<Vec<Binding>, wgpu::BindGroupLayout>,
}

impl Pipelines {
    /// Returns the pipeline of a rule's walk, and makes it into `fresh` where there is none yet. The caller holds an
    /// error scope open, and [keeps](Self::keep) `fresh` if the scope has no error: wgpu returns an invalid pipeline
    /// like any other.
    pub(super) fn get(&mut self, fresh: &mut Fresh, gpu: &Gpu, shader: &Shader) -> wgpu::ComputePipeline {
        let &Shader { rule, wrappers, ref constants, skeleton, values } = shader;
        let text = shader::compose(rule, wrappers, skeleton, values);
        #[cfg(feature = "proof")]
        let text = rule.revise(text);
        let trusted = rules::ALL.iter().any(|row| (row.types)().contains(&(rule as &dyn Any).type_id()));
        let key = (text, constants.iter().map(|&(name, value)| (name, value.to_bits())).collect(), trusted);
        if let Some(pipeline) = self.pipelines.get(&key).or(fresh.get(&key)) {
            return pipeline.clone();
        }
        let of = if skeleton.knows_no_rule() { "any" } else { rule.name() };
        let Formats { param, grad } = values.formats;
        let label = format!("wgpu-optim/{of}/{param}-{grad}-{}/{}", values.access.name(), skeleton.name());
        let module = module(gpu, &label, &key.0, trusted);
        let bindings = shader::bindings(rule, wrappers, skeleton, values.pages);
        let groups = [0, 1].map(|group| of_group(&bindings, group));
        let groups = groups.iter().filter(|group| !group.is_empty());
        let layouts: Vec<_> = groups.map(|group| self.layout(gpu, group)).collect();
        let layout = gpu.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &layouts.iter().map(Some).collect::<Vec<_>>(),
            immediate_size: 0,
        });
        gpu.count(Made::Pipeline);
        let pipeline = gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(skeleton.entry()),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants,
                // Every lane writes its node of workgroup memory before any lane reads one, so wgpu need not zero it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        fresh.insert(key, pipeline.clone());
        pipeline
    }

    /// Keeps pipelines that wgpu has accepted.
    pub(super) fn keep(&mut self, fresh: Fresh) {
        self.pipelines.extend(fresh);
    }

    /// The layout of these bindings, all of one group.
    pub(super) fn layout(&mut self, gpu: &Gpu, bindings: &[Binding]) -> wgpu::BindGroupLayout {
        self.layouts
            .entry(bindings.to_vec())
            .or_insert_with(|| {
                let entries: Vec<_> = bindings
                    .iter()
                    .map(|binding| wgpu::BindGroupLayoutEntry {
                        binding: binding.place().1,
                        visibility: wgpu::ShaderStages::COMPUTE,
                        ty: wgpu::BindingType::Buffer {
                            ty: wgpu::BufferBindingType::Storage { read_only: !binding.writable() },
                            has_dynamic_offset: binding.dynamic(),
                            min_binding_size: None,
                        },
                        count: None,
                    })
                    .collect();
                gpu.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label: Some("wgpu-optim"),
                    entries: &entries,
                })
            })
            .clone()
    }
}

/// The bindings of one bind group.
pub(super) fn of_group(bindings: &[Binding], group: u32) -> Vec<Binding> {
    bindings.iter().copied().filter(|binding| binding.place().0 == group).collect()
}

fn module(gpu: &Gpu, label: &str, text: &str, trusted: bool) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(text)) };
    if gpu.tuning().shader_checks || !trusted {
        return gpu.device().create_shader_module(descriptor);
    }
    // SAFETY: the text is the crate's own, since only rules of the registry come here. Every index comes from an entry
    // of the table, and `plan` writes only entries that lie within their window; loops end at the entry's length. Those
    // of the decision come from the step's words; the number of a state is compared with how many the step has.
    // `tests/all/engine.rs` runs both forms.
    unsafe { gpu.device().create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
