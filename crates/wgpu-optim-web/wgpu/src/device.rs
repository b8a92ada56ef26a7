//! A device that JavaScript owns, its queue, and what is made on it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use js_sys::{Array, Object};
use wasm_bindgen::prelude::*;

use crate::js::{GPUDevice, GPUQueue, message, object, property};
use crate::*;

/// A device. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Device(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    js: GPUDevice,
    queue: GPUQueue,
    limits: Limits,
    info: AdapterInfo,
    news: News,
}

/// Who is told of the loss of a device.
type OnLost = Box<dyn Fn(DeviceLostReason, String)>;

/// What the browser told of a device since it was taken in.
#[derive(Default)]
struct News {
    /// Why the device was lost.
    lost: RefCell<Option<String>>,
    /// Who is told of it.
    on_lost: RefCell<Option<OnLost>>,
    /// What the last submit that failed says.
    refused: RefCell<Option<String>>,
    /// Answers that have not come.
    awaited: Cell<u32>,
}

/// The layout of a bind group.
#[derive(Clone, Debug)]
pub struct BindGroupLayout(Object);

/// The layout of a pipeline.
#[derive(Clone, Debug)]
pub struct PipelineLayout(Object);

/// A shader.
#[derive(Clone, Debug)]
pub struct ShaderModule(Object);

/// A compute pipeline.
#[derive(Clone, Debug)]
pub struct ComputePipeline(pub(crate) Object);

/// Buffers as a shader sees them. It keeps them.
#[derive(Clone, Debug)]
pub struct BindGroup(pub(crate) Rc<(Object, Vec<Buffer>)>);

fn label(text: Option<&str>) -> (&'static str, JsValue) {
    ("label", text.map_or(JsValue::UNDEFINED, JsValue::from_str))
}

impl Device {
    /// A device that JavaScript owns. Wgpu has no such call.
    pub fn of(js: GPUDevice) -> Self {
        let (queue, limits) = (js.queue(), Limits::of(&js.limits()));
        let info = AdapterInfo::of(&js.adapter_info());
        let (lost, news) = (js.lost(), News::default());
        let device = Self(Rc::new(Inner { js, queue, limits, info, news }));
        let weak = Rc::downgrade(&device.0);
        wasm_bindgen_futures::spawn_local(async move {
            let info = wait(lost).await;
            if let (Ok(info), Some(inner)) = (info, weak.upgrade()) {
                let reason = property(&info, "reason").as_string().unwrap_or_default();
                *inner.news.lost.borrow_mut() = Some(format!("{} ({reason})", message(&info)));
                if let Some(tell) = &*inner.news.on_lost.borrow() {
                    let destroyed = reason == "destroyed";
                    let reason = if destroyed { DeviceLostReason::Destroyed } else { DeviceLostReason::Unknown };
                    tell(reason, message(&info));
                }
            }
        });
        device
    }

    /// JavaScript's object.
    pub fn js(&self) -> &GPUDevice {
        &self.0.js
    }

    /// Its queue.
    pub fn queue(&self) -> Queue {
        Queue(self.clone())
    }

    /// Why it was lost, once it was.
    pub fn lost(&self) -> Option<String> {
        self.0.news.lost.borrow().clone()
    }

    /// Sets who is told when it is lost, in place of who was told before.
    pub fn set_device_lost_callback(&self, tell: impl Fn(DeviceLostReason, String) + Send + 'static) {
        *self.0.news.on_lost.borrow_mut() = Some(Box::new(tell));
    }

    /// What the browser said of a submit that it refused, once.
    pub fn take_refused(&self) -> Option<String> {
        self.0.news.refused.take()
    }

    /// Answers of the browser that have not come: of submits, and of buffers to be mapped.
    pub fn awaited(&self) -> u32 {
        self.0.news.awaited.get()
    }

    /// Calls a function with what a promise comes to.
    fn then(&self, promise: js_sys::Promise, tell: impl FnOnce(Result<JsValue, Error>) + 'static) {
        let device = self.clone();
        device.0.news.awaited.update(|awaited| awaited + 1);
        wasm_bindgen_futures::spawn_local(async move {
            let came = wait(promise).await;
            device.0.news.awaited.update(|awaited| awaited - 1);
            tell(came);
        });
    }

    /// What it holds at most.
    pub fn limits(&self) -> Limits {
        self.0.limits.clone()
    }

    /// What its adapter says of itself.
    pub fn adapter_info(&self) -> AdapterInfo {
        self.0.info.clone()
    }

    /// Makes a buffer, which is destroyed with its last clone.
    pub fn create_buffer(&self, descriptor: &BufferDescriptor) -> Buffer {
        let BufferDescriptor { size, usage, mapped_at_creation, .. } = *descriptor;
        let buffer = self.0.js.create_buffer(&object(&[
            label(descriptor.label),
            ("size", (size as f64).into()),
            ("usage", usage.bits().into()),
            ("mappedAtCreation", mapped_at_creation.into()),
        ]));
        Buffer::owned(buffer)
    }

    /// Makes a shader.
    pub fn create_shader_module(&self, descriptor: ShaderModuleDescriptor) -> ShaderModule {
        let ShaderSource::Wgsl(text) = &descriptor.source;
        ShaderModule(self.0.js.create_shader_module(&object(&[label(descriptor.label), ("code", text[..].into())])))
    }

    /// Makes a shader. The browser makes its own checks of it.
    ///
    /// # Safety
    /// None is needed here; wgpu's method is unsafe.
    pub unsafe fn create_shader_module_trusted(
        &self,
        descriptor: ShaderModuleDescriptor,
        _: ShaderRuntimeChecks,
    ) -> ShaderModule {
        self.create_shader_module(descriptor)
    }

    /// Makes the layout of a bind group.
    pub fn create_bind_group_layout(&self, descriptor: &BindGroupLayoutDescriptor) -> BindGroupLayout {
        let entry = |entry: &BindGroupLayoutEntry| {
            let BindingType::Buffer { ty: BufferBindingType::Storage { read_only }, has_dynamic_offset, .. } = entry.ty;
            let kind = if read_only { "read-only-storage" } else { "storage" };
            let buffer = object(&[("type", kind.into()), ("hasDynamicOffset", has_dynamic_offset.into())]);
            object(&[
                ("binding", entry.binding.into()),
                ("visibility", entry.visibility.bits().into()),
                ("buffer", buffer.into()),
            ])
        };
        let entries: Array = descriptor.entries.iter().map(entry).collect();
        let descriptor = object(&[label(descriptor.label), ("entries", entries.into())]);
        BindGroupLayout(self.0.js.create_bind_group_layout(&descriptor))
    }

    /// Makes the layout of a pipeline.
    pub fn create_pipeline_layout(&self, descriptor: &PipelineLayoutDescriptor) -> PipelineLayout {
        let layout = |layout: &Option<&BindGroupLayout>| layout.map_or(JsValue::NULL, |layout| (&layout.0).into());
        let layouts: Array = descriptor.bind_group_layouts.iter().map(layout).collect();
        let descriptor = object(&[label(descriptor.label), ("bindGroupLayouts", layouts.into())]);
        PipelineLayout(self.0.js.create_pipeline_layout(&descriptor))
    }

    /// Makes a compute pipeline.
    pub fn create_compute_pipeline(&self, descriptor: &ComputePipelineDescriptor) -> ComputePipeline {
        let constants: Vec<_> =
            descriptor.compilation_options.constants.iter().map(|&(name, value)| (name, value.into())).collect();
        let compute = object(&[
            ("module", (&descriptor.module.0).into()),
            ("entryPoint", descriptor.entry_point.map_or(JsValue::UNDEFINED, JsValue::from_str)),
            ("constants", object(&constants).into()),
        ]);
        let layout = descriptor.layout.map_or("auto".into(), |layout| (&layout.0).into());
        let descriptor = object(&[label(descriptor.label), ("layout", layout), ("compute", compute.into())]);
        ComputePipeline(self.0.js.create_compute_pipeline(&descriptor))
    }

    /// Makes a bind group.
    pub fn create_bind_group(&self, descriptor: &BindGroupDescriptor) -> BindGroup {
        let entry = |entry: &BindGroupEntry| {
            let BindingResource::Buffer(BufferBinding { buffer, offset, size }) = &entry.resource;
            let size = size.map_or(JsValue::UNDEFINED, |size| (size.get() as f64).into());
            let resource =
                object(&[("buffer", buffer.js().into()), ("offset", (*offset as f64).into()), ("size", size)]);
            object(&[("binding", entry.binding.into()), ("resource", resource.into())])
        };
        let entries: Array = descriptor.entries.iter().map(entry).collect();
        let buffer = |entry: &BindGroupEntry| {
            let BindingResource::Buffer(binding) = &entry.resource;
            binding.buffer.clone()
        };
        let buffers = descriptor.entries.iter().map(buffer).collect();
        let layout = (&descriptor.layout.0).into();
        let descriptor = object(&[label(descriptor.label), ("layout", layout), ("entries", entries.into())]);
        BindGroup(Rc::new((self.0.js.create_bind_group(&descriptor), buffers)))
    }

    /// Makes an encoder.
    pub fn create_command_encoder(&self, _: &CommandEncoderDescriptor) -> CommandEncoder {
        CommandEncoder::of(self.0.js.create_command_encoder())
    }

    /// Catches errors from here on.
    pub fn push_error_scope(&self, filter: ErrorFilter) -> ErrorScopeGuard {
        self.0.js.push_error_scope(match filter {
            ErrorFilter::OutOfMemory => "out-of-memory",
            ErrorFilter::Validation => "validation",
            ErrorFilter::Internal => "internal",
        });
        ErrorScopeGuard(Some(self.clone()))
    }

    /// Does nothing: a browser polls by itself.
    pub fn poll(&self, _: PollType) -> Result<(), PollError> {
        Ok(())
    }
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("News").field("lost", &self.lost).field("refused", &self.refused).finish_non_exhaustive()
    }
}

/// Why a device was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceLostReason {
    /// The browser says no reason.
    Unknown,
    /// Somebody destroyed it.
    Destroyed,
}

/// Why a poll failed, which it does not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollError {
    /// It took too long.
    Timeout,
    /// It was for a submit that there was not.
    WrongSubmissionIndex(u64, u64),
}

impl std::fmt::Display for PollError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// A scope that catches errors, until it is popped.
#[derive(Debug)]
pub struct ErrorScopeGuard(Option<Device>);

impl ErrorScopeGuard {
    /// Closes the scope. It answers with its error, perhaps later.
    pub fn pop(mut self) -> impl Future<Output = Option<Error>> + use<> {
        let device = self.0.take().expect("a guard has its device until it is popped");
        let promise = device.0.js.pop_error_scope();
        async move {
            // A device that is lost answers with nothing, or refuses to answer.
            let error = wait(promise).await.ok()?;
            (!error.is_null()).then(|| Error::of(&error))
        }
    }
}

impl Drop for ErrorScopeGuard {
    fn drop(&mut self) {
        if let Some(device) = &self.0 {
            // Nobody asks for the answer.
            let _ = device.0.js.pop_error_scope();
        }
    }
}

/// The queue of a device.
#[derive(Clone, Debug)]
pub struct Queue(Device);

impl Queue {
    /// Writes bytes before any work that is not yet submitted.
    pub fn write_buffer(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) {
        self.0.0.queue.write_buffer(buffer.js(), offset as f64, bytes);
    }

    /// Submits command buffers. What the browser refuses of them [`Device::take_refused`] tells.
    pub fn submit(&self, buffers: impl IntoIterator<Item = CommandBuffer>) -> SubmissionIndex {
        let scope = self.0.push_error_scope(ErrorFilter::Validation);
        let (objects, pending): (Vec<_>, Vec<_>) = buffers.into_iter().map(CommandBuffer::into_parts).unzip();
        self.0.0.queue.submit(&objects.into_iter().collect());
        let (answer, device) = (scope.pop(), self.0.clone());
        wasm_bindgen_futures::spawn_local(async move {
            if let Some(error) = answer.await {
                *device.0.news.refused.borrow_mut() = Some(error.to_string());
            }
        });
        pending.into_iter().for_each(|pending| self.follow(pending));
        SubmissionIndex
    }

    /// Calls what waits for commands that were submitted just now, once they are done.
    pub fn follow(&self, pending: Pending) {
        let Pending { done, maps, kept } = pending;
        if !done.is_empty() {
            self.0.then(self.0.0.queue.on_submitted_work_done(), |came| {
                // Of a lost device nobody learns what it has done.
                if came.is_ok() {
                    done.into_iter().for_each(|done| done());
                }
            });
        }
        for (buffer, tell) in maps {
            self.0.then(buffer.map_promise(), move |came| {
                drop(buffer);
                tell(came.map(|_| ()));
            });
        }
        drop(kept);
    }

    /// Waits until the work that is submitted is done and the browser has answered all that is awaited of it.
    pub async fn idle(&self) -> Result<(), Error> {
        loop {
            wait(self.0.0.queue.on_submitted_work_done()).await?;
            if self.0.awaited() == 0 || self.0.lost().is_some() {
                return Ok(());
            }
        }
    }
}
