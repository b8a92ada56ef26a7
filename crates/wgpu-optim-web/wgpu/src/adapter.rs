//! Adapters, and what they and their devices are and hold.

use std::fmt;

use js_sys::{Object, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::js::{GPU, GPUAdapter, GPUDevice, object, property};
use crate::{Device, Error, Features, Queue};

macro_rules! limits {
    ($($field:ident: $type:ty = $default:expr, $name:literal;)*) => {
        /// What a device holds at most, as far as an optimizer asks.
        #[allow(missing_docs, reason = "the names are WebGPU's")]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Limits {
            $(pub $field: $type,)*
        }

        impl Default for Limits {
            /// What every device of WebGPU holds.
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Limits {
            /// The lesser of both.
            #[must_use]
            pub fn or_worse_values_from(self, other: &Self) -> Self {
                Self { $($field: self.$field.min(other.$field),)* }
            }

            pub(crate) fn of(limits: &JsValue) -> Self {
                Self { $($field: property(limits, $name).as_f64().map_or($default, |most| most as $type),)* }
            }

            fn object(&self) -> Object {
                object(&[$(($name, JsValue::from_f64(self.$field as f64)),)*])
            }
        }
    };
}

limits! {
    max_buffer_size: u64 = 256 << 20, "maxBufferSize";
    max_storage_buffer_binding_size: u64 = 128 << 20, "maxStorageBufferBindingSize";
    max_storage_buffers_per_shader_stage: u32 = 8, "maxStorageBuffersPerShaderStage";
    max_dynamic_storage_buffers_per_pipeline_layout: u32 = 4, "maxDynamicStorageBuffersPerPipelineLayout";
    max_compute_invocations_per_workgroup: u32 = 256, "maxComputeInvocationsPerWorkgroup";
    max_compute_workgroup_size_x: u32 = 256, "maxComputeWorkgroupSizeX";
    max_compute_workgroups_per_dimension: u32 = 65535, "maxComputeWorkgroupsPerDimension";
}

/// What a device runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// The browser does not say.
    Other,
    /// A card of its own.
    DiscreteGpu,
    /// Software.
    Cpu,
}

/// The interface below, which here is always the browser's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// WebGPU.
    BrowserWebGpu,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("webgpu")
    }
}

/// The interfaces to be searched, of which there is one.
#[derive(Clone, Copy, Debug)]
pub struct Backends;

impl Backends {
    /// That one.
    pub fn all() -> Self {
        Self
    }
}

/// What an adapter says of itself.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// Vendor, architecture and description, as far as the browser tells them.
    pub name: String,
    /// What it runs on.
    pub device_type: DeviceType,
    /// The interface below.
    pub backend: Backend,
}

impl AdapterInfo {
    pub(crate) fn of(info: &JsValue) -> Self {
        let text = |name: &str| property(info, name).as_string().filter(|text| !text.is_empty());
        let names: Vec<_> = ["vendor", "architecture", "device", "description"].into_iter().filter_map(text).collect();
        let name = if names.is_empty() { "an adapter without a name".into() } else { names.join(" ") };
        let is_software = property(info, "isFallbackAdapter").is_truthy()
            || ["swiftshader", "llvmpipe", "software"].iter().any(|word| name.to_ascii_lowercase().contains(word));
        let device_type = if is_software { DeviceType::Cpu } else { DeviceType::Other };
        Self { name, device_type, backend: Backend::BrowserWebGpu }
    }
}

/// How to begin.
#[derive(Clone, Copy, Debug)]
pub struct InstanceDescriptor;

impl InstanceDescriptor {
    /// There is one way in a browser.
    pub fn new_without_display_handle_from_env() -> Self {
        Self
    }
}

/// The page's WebGPU.
#[derive(Clone, Copy, Debug)]
pub struct Instance;

/// Which adapter is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub enum PowerPreference {
    /// Any.
    #[default]
    None,
    /// The fastest.
    HighPerformance,
}

/// Which adapter is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestAdapterOptions {
    /// By its power.
    pub power_preference: PowerPreference,
    /// Whether it must be software.
    pub force_fallback_adapter: bool,
}

impl Instance {
    /// The page's WebGPU.
    pub fn new(_: InstanceDescriptor) -> Self {
        Self
    }

    /// An adapter, where there is one.
    pub async fn request_adapter(&self, options: &RequestAdapterOptions) -> Result<Adapter, Error> {
        let gpu = property(&property(&js_sys::global(), "navigator"), "gpu");
        if gpu.is_undefined() {
            let why = "no WebGPU here: this browser has none, or the page is not served by https or from localhost";
            return Err(Error(why.into()));
        }
        let mut wanted = vec![("forceFallbackAdapter", options.force_fallback_adapter.into())];
        if let PowerPreference::HighPerformance = options.power_preference {
            wanted.push(("powerPreference", "high-performance".into()));
        }
        let adapter = wait(gpu.unchecked_ref::<GPU>().request_adapter(&object(&wanted))).await?;
        match adapter.is_null() {
            true => Err(Error("WebGPU is there, and this browser has no adapter for it".into())),
            false => Ok(Adapter(adapter.unchecked_into())),
        }
    }

    /// The adapter of a browser, which lists no others.
    pub async fn enumerate_adapters(&self, _: Backends) -> Vec<Adapter> {
        self.request_adapter(&RequestAdapterOptions::default()).await.into_iter().collect()
    }
}

/// A device to be made.
#[derive(Clone, Debug, Default)]
pub struct DeviceDescriptor<'a> {
    /// Its label.
    pub label: Option<&'a str>,
    /// What it must do.
    pub required_features: Features,
    /// What it must hold.
    pub required_limits: Limits,
    /// How a browser spends memory, which it decides itself.
    pub memory_hints: (),
}

/// `GPUAdapter`.
#[derive(Clone, Debug)]
pub struct Adapter(GPUAdapter);

impl Adapter {
    /// What it holds at most.
    pub fn limits(&self) -> Limits {
        Limits::of(&self.0.adapter_limits())
    }

    /// What it says of itself.
    pub fn get_info(&self) -> AdapterInfo {
        AdapterInfo::of(&self.0.adapter_info_of())
    }

    /// What it may do.
    pub fn features(&self) -> Features {
        match self.0.features().has(&"timestamp-query".into()) {
            true => Features::TIMESTAMP_QUERY,
            false => Features::empty(),
        }
    }

    /// A device of it.
    pub async fn request_device(&self, wanted: &DeviceDescriptor<'_>) -> Result<(Device, Queue), Error> {
        let features: js_sys::Array =
            wanted.required_features.iter().map(|_| JsValue::from_str("timestamp-query")).collect();
        let label = wanted.label.map_or(JsValue::UNDEFINED, JsValue::from_str);
        let limits = wanted.required_limits.object();
        let descriptor = [("label", label), ("requiredFeatures", features.into()), ("requiredLimits", limits.into())];
        let device = wait(self.0.request_device(&object(&descriptor))).await?;
        let device = Device::of(device.unchecked_into::<GPUDevice>());
        let queue = device.queue();
        Ok((device, queue))
    }
}

/// What a promise comes to.
pub(crate) async fn wait(promise: Promise) -> Result<JsValue, Error> {
    JsFuture::from(promise).await.map_err(|error| Error::of(&error))
}
