//! WebGPU's own objects, as far as they are called here.

use js_sys::{Array, ArrayBuffer, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `GPUDevice`.
    #[wasm_bindgen(typescript_type = "GPUDevice")]
    #[derive(Clone, Debug, PartialEq)]
    pub type GPUDevice;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn limits(this: &GPUDevice) -> Object;
    #[wasm_bindgen(method, getter, js_name = adapterInfo)]
    pub(crate) fn adapter_info(this: &GPUDevice) -> JsValue;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn lost(this: &GPUDevice) -> Promise;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn queue(this: &GPUDevice) -> GPUQueue;
    #[wasm_bindgen(method, js_name = createBuffer)]
    pub(crate) fn create_buffer(this: &GPUDevice, descriptor: &Object) -> GPUBuffer;
    #[wasm_bindgen(method, js_name = createShaderModule)]
    pub(crate) fn create_shader_module(this: &GPUDevice, descriptor: &Object) -> Object;
    #[wasm_bindgen(method, js_name = createBindGroupLayout)]
    pub(crate) fn create_bind_group_layout(this: &GPUDevice, descriptor: &Object) -> Object;
    #[wasm_bindgen(method, js_name = createPipelineLayout)]
    pub(crate) fn create_pipeline_layout(this: &GPUDevice, descriptor: &Object) -> Object;
    #[wasm_bindgen(method, js_name = createComputePipeline)]
    pub(crate) fn create_compute_pipeline(this: &GPUDevice, descriptor: &Object) -> Object;
    #[wasm_bindgen(method, js_name = createBindGroup)]
    pub(crate) fn create_bind_group(this: &GPUDevice, descriptor: &Object) -> Object;
    #[wasm_bindgen(method, js_name = createCommandEncoder)]
    pub(crate) fn create_command_encoder(this: &GPUDevice) -> GPUCommandEncoder;
    #[wasm_bindgen(method, js_name = pushErrorScope)]
    pub(crate) fn push_error_scope(this: &GPUDevice, filter: &str);
    #[wasm_bindgen(method, js_name = popErrorScope)]
    pub(crate) fn pop_error_scope(this: &GPUDevice) -> Promise;

    /// `GPUQueue`.
    #[derive(Clone, Debug)]
    pub(crate) type GPUQueue;
    #[wasm_bindgen(method, js_name = writeBuffer)]
    pub(crate) fn write_buffer(this: &GPUQueue, buffer: &GPUBuffer, offset: f64, bytes: &[u8]);
    #[wasm_bindgen(method)]
    pub(crate) fn submit(this: &GPUQueue, buffers: &Array);
    #[wasm_bindgen(method, js_name = onSubmittedWorkDone)]
    pub(crate) fn on_submitted_work_done(this: &GPUQueue) -> Promise;

    /// `GPUBuffer`.
    #[wasm_bindgen(typescript_type = "GPUBuffer")]
    #[derive(Clone, Debug, PartialEq)]
    pub type GPUBuffer;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn size(this: &GPUBuffer) -> f64;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn usage(this: &GPUBuffer) -> u32;
    #[wasm_bindgen(method, js_name = mapAsync)]
    pub(crate) fn map_async(this: &GPUBuffer, mode: u32) -> Promise;
    #[wasm_bindgen(method, catch, js_name = getMappedRange)]
    pub(crate) fn get_mapped_range(this: &GPUBuffer) -> Result<ArrayBuffer, JsValue>;
    #[wasm_bindgen(method)]
    pub(crate) fn unmap(this: &GPUBuffer);
    #[wasm_bindgen(method)]
    pub(crate) fn destroy(this: &GPUBuffer);

    /// `GPUCommandEncoder`.
    #[wasm_bindgen(typescript_type = "GPUCommandEncoder")]
    #[derive(Clone, Debug)]
    pub type GPUCommandEncoder;
    #[wasm_bindgen(method, js_name = beginComputePass)]
    pub(crate) fn begin_compute_pass(this: &GPUCommandEncoder) -> GPUComputePassEncoder;
    #[wasm_bindgen(method, js_name = copyBufferToBuffer)]
    pub(crate) fn copy_buffer_to_buffer(
        this: &GPUCommandEncoder,
        from: &GPUBuffer,
        start: f64,
        to: &GPUBuffer,
        place: f64,
        size: f64,
    );
    #[wasm_bindgen(method, js_name = clearBuffer)]
    pub(crate) fn clear_buffer(this: &GPUCommandEncoder, buffer: &GPUBuffer, offset: f64, size: f64);
    #[wasm_bindgen(method)]
    pub(crate) fn finish(this: &GPUCommandEncoder) -> Object;

    /// `GPUComputePassEncoder`.
    #[derive(Debug)]
    pub(crate) type GPUComputePassEncoder;
    #[wasm_bindgen(method, js_name = setPipeline)]
    pub(crate) fn set_pipeline(this: &GPUComputePassEncoder, pipeline: &Object);
    #[wasm_bindgen(method, js_name = setBindGroup)]
    pub(crate) fn set_bind_group(
        this: &GPUComputePassEncoder,
        index: u32,
        group: &Object,
        offsets: &[u32],
        first: u32,
        count: u32,
    );
    #[wasm_bindgen(method, js_name = dispatchWorkgroups)]
    pub(crate) fn dispatch_workgroups(this: &GPUComputePassEncoder, x: u32, y: u32, z: u32);
    #[wasm_bindgen(method)]
    pub(crate) fn end(this: &GPUComputePassEncoder);

    /// `GPU`.
    pub(crate) type GPU;
    #[wasm_bindgen(method, js_name = requestAdapter)]
    pub(crate) fn request_adapter(this: &GPU, options: &Object) -> Promise;

    /// `GPUAdapter`.
    #[derive(Clone, Debug)]
    pub(crate) type GPUAdapter;
    #[wasm_bindgen(method, getter, js_name = limits)]
    pub(crate) fn adapter_limits(this: &GPUAdapter) -> Object;
    #[wasm_bindgen(method, getter, js_name = info)]
    pub(crate) fn adapter_info_of(this: &GPUAdapter) -> JsValue;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn features(this: &GPUAdapter) -> js_sys::Set;
    #[wasm_bindgen(method, js_name = requestDevice)]
    pub(crate) fn request_device(this: &GPUAdapter, descriptor: &Object) -> Promise;
}

/// An object with these properties.
pub(crate) fn object(properties: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    for (name, value) in properties {
        // Setting a property of a plain object throws nothing.
        let _ = Reflect::set(&object, &JsValue::from_str(name), value);
    }
    object
}

/// A property; `undefined` where there is none.
pub(crate) fn property(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED)
}

/// What an error of JavaScript says.
pub(crate) fn message(error: &JsValue) -> String {
    property(error, "message").as_string().or_else(|| error.as_string()).unwrap_or_else(|| format!("{error:?}"))
}
