//! naga writes every shader text in every language that wgpu uses. No GPU is needed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};

/// Parses and validates a module.
pub fn parse(what: &str, text: &str) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{what}: naga cannot parse it: {}", error.emit_to_string(text)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{what}: not valid: {}", error.emit_to_string(text)));
    (module, info)
}

/// The module in each language, as the crate's pipelines ask for it: no run-time checks, no zeroed workgroup memory.
pub fn write_all(module: &Module, info: &ModuleInfo, entry: &str) -> [(&'static str, Result<(), String>); 4] {
    let stage = ShaderStage::Compute;
    let entry_point = Some((stage, entry.to_string()));
    let spirv = || {
        let options = spv::Options {
            force_loop_bounding: false,
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            ..Default::default()
        };
        let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry.into() };
        spv::write_vec(module, info, &options, Some(&pipeline)).map(drop).map_err(|error| error.to_string())
    };
    let msl = || {
        let options = msl::Options {
            lang_version: (2, 0),
            force_loop_bounding: false,
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        };
        let pipeline = msl::PipelineOptions { entry_point: entry_point.clone(), ..Default::default() };
        let (_, written) = msl::write_string(module, info, &options, &pipeline).map_err(|error| error.to_string())?;
        written.entry_point_names.into_iter().try_for_each(|name| name.map(drop).map_err(|error| error.to_string()))
    };
    let hlsl = || {
        let options = hlsl::Options {
            special_constants_binding: Some(hlsl::BindTarget { space: 2, ..Default::default() }),
            force_loop_bounding: false,
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        };
        let pipeline = hlsl::PipelineOptions { entry_point: entry_point.clone() };
        let mut text = String::new();
        let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
        let written = writer.write(module, info, None).map_err(|error| error.to_string())?;
        written.entry_point_names.into_iter().try_for_each(|name| name.map(drop).map_err(|error| error.to_string()))
    };
    let glsl = || {
        let options = glsl::Options {
            version: glsl::Version::new_gles(310),
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        };
        let pipeline = glsl::PipelineOptions { shader_stage: stage, entry_point: entry.into(), multiview: None };
        let mut text = String::new();
        glsl::Writer::new(&mut text, module, info, &options, &pipeline, BoundsCheckPolicies::default())
            .and_then(|mut writer| writer.write())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    // Some of what naga cannot write makes it panic.
    let guard = |write: &dyn Fn() -> Result<(), String>| {
        catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| Err("naga panicked; its message is above".into()))
    };
    [("SPIR-V", guard(&spirv)), ("MSL", guard(&msl)), ("HLSL", guard(&hlsl)), ("GLSL ES 3.10", guard(&glsl))]
}
