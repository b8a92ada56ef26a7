//! The host layer: devices, buffers, pipelines, dispatches, readback. The only floor that names wgpu.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result, refuse};

mod arena;
mod best;
mod bind;
mod binder;
mod buffers;
mod engine;
mod init;
mod limits;
mod loss;
mod pipelines;
mod report;
mod ring;
mod sizes;
mod slices;
mod state;
mod transfer;
mod variants;

pub use arena::{Arena, ArenaSubset};
pub use best::BestParams;
pub(crate) use bind::{Bound, Part, Work};
pub(crate) use buffers::Grads;
pub use buffers::{Buffers, Slice};
pub(crate) use engine::Engine;
use loss::Loss;
use pipelines::Pipelines;
pub(crate) use report::{News, Receipt, Reports};
pub(crate) use ring::Slot;
pub(crate) use sizes::Sizes;
pub(crate) use transfer::parts_of;

/// Bindings of 2^31 bytes and more are silently wrong on some devices of wgpu 30 (wgpu issues 10305 and 9206).
const BINDING_BYTES_MAX: u64 = (1 << 31) - 256;

/// The largest size of a page's buffer: a shader counts a tensor's elements in 32 bits.
fn page_bytes(limits: &wgpu::Limits) -> u64 {
    limits.max_buffer_size.min((4 << 32) - 16) / 16 * 16
}

/// Milliseconds that a wait takes at most, unless the caller sets others.
const DEADLINE_MS: u64 = 60_000;

/// A device and its queue, shared by arenas and optimizers. Cloning is cheap. Use clones of one `Gpu` for everything on
/// a device, since it caches the pipelines, and gives arenas the numbers by which optimizers know them.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    tuning: Tuning,
    pipelines: Mutex<Pipelines>,
    init: OnceLock<init::Tools>,
    counts: [AtomicU64; 4],
    loss: Loss,
    /// Milliseconds that a wait takes at most.
    deadline: AtomicU64,
    #[cfg(not(target_arch = "wasm32"))]
    staged: transfer::Staged,
    #[cfg(target_arch = "wasm32")]
    late: Late,
}

/// What wgpu says of objects that were made: an error, or nothing.
#[cfg(target_arch = "wasm32")]
type Answer = std::pin::Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

/// Closes error scopes. Each answers with the error that it caught, perhaps later.
fn close_scopes([first, second, third]: [wgpu::ErrorScopeGuard; 3]) -> [impl Future<Output = Option<wgpu::Error>>; 3] {
    // The scope that was opened last must be closed first.
    [third.pop(), second.pop(), first.pop()]
}

/// Answers that a browser has not given yet.
#[cfg(target_arch = "wasm32")]
#[derive(Default)]
struct Late(Mutex<Vec<Answer>>);

#[cfg(target_arch = "wasm32")]
impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

/// How the crate cuts up and checks its work. No choice changes a bit of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Lanes of a workgroup, at most 256 and the device's `max_compute_invocations_per_workgroup`. Where the state is
    /// stored by groups, each of eight lanes stores groups by itself, and more lanes share each group.
    pub lanes: u32,
    /// Blocks of 1024 elements that a workgroup takes: 1, 2, 4 or 8.
    pub chunk_blocks: u32,
    /// Whether wgpu adds its run-time checks of bounds to every shader. They cost time, and hide an overrun rather than
    /// prevent it. Without them, indices stay in bounds because the host has checked all lengths.
    pub shader_checks: bool,
    /// The most bytes that one dispatch reads and writes. The default takes about 100 ms, since a system may reset a
    /// device that is busy for two seconds.
    pub dispatch_bytes: u64,
    /// How many placements of parameters and gradients the optimizer keeps bound for each kind of work, at least 1.
    /// These keep their buffers alive.
    pub placements: u32,
}

impl Tuning {
    /// The choice that was fastest on this kind of adapter.
    ///
    /// Software Vulkan runs eight lanes at once, and each eight to the end of the shader. With 256 lanes it jumps 4 KiB
    /// from one vector of four to the next, and Adam over 16.8 M elements took 1.6 to 1.8 times as long as with 8. No
    /// real GPU has been measured. WebGPU allows 256 lanes at most, and 4 blocks give a large GPU twice as many
    /// workgroups as 8.
    pub fn of(adapter: &wgpu::AdapterInfo) -> Self {
        let gpu = Self { lanes: 256, chunk_blocks: 4, shader_checks: false, dispatch_bytes: 16 << 30, placements: 2 };
        match adapter.device_type {
            wgpu::DeviceType::Cpu => Self { lanes: 8, chunk_blocks: 8, dispatch_bytes: 256 << 20, ..gpu },
            wgpu::DeviceType::DiscreteGpu => gpu,
            _ => Self { dispatch_bytes: 2 << 30, ..gpu },
        }
    }

    fn lanes_max(limits: &wgpu::Limits) -> u32 {
        limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x).min(256)
    }

    fn check(self, limits: &wgpu::Limits) -> Result<()> {
        let most = Self::lanes_max(limits);
        if self.lanes == 0 || self.lanes > most {
            return refuse("lanes", self.lanes, format!("at least 1 and at most {most}"));
        }
        if ![1, 2, 4, 8].contains(&self.chunk_blocks) {
            return refuse("chunk_blocks", self.chunk_blocks, "1, 2, 4 or 8");
        }
        if self.dispatch_bytes == 0 {
            return refuse("dispatch_bytes", self.dispatch_bytes, "at least 1");
        }
        if self.placements == 0 {
            return refuse("placements", self.placements, "at least 1");
        }
        Ok(())
    }
}

/// Objects that the crate has made on a device so far, and how often it has polled it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Buffers, those of readbacks included.
    pub buffers: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Compute pipelines.
    pub pipelines: u64,
    /// Polls of the device. Only what reads back polls, and what takes back a step of which wgpu has told nothing yet.
    pub polls: u64,
}

/// What [`Counts`] counts.
#[derive(Clone, Copy)]
enum Made {
    Buffer,
    BindGroup,
    Pipeline,
    Poll,
}

/// The limits to ask an adapter for: WebGPU's defaults where it has them, and its largest buffers and bindings.
pub fn required_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let has = adapter.limits();
    wgpu::Limits {
        max_buffer_size: has.max_buffer_size,
        max_storage_buffer_binding_size: has.max_storage_buffer_binding_size.min(BINDING_BYTES_MAX),
        ..wgpu::Limits::default().or_worse_values_from(&has)
    }
}

impl Gpu {
    /// Wraps a device of the caller's. Installs no handlers on it: see [`watch`](Self::watch) for the loss of the
    /// device.
    ///
    /// Keep to one `wgpu::Instance`: wgpu does not tell devices of two instances apart, so that it would bind a buffer
    /// of the other device without an error.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let tuning = Tuning::of(&device.adapter_info());
        let tuning = Tuning { lanes: tuning.lanes.min(Tuning::lanes_max(&device.limits())), ..tuning };
        Self::build(device.clone(), queue.clone(), tuning)
    }

    /// As [`new`](Self::new), but cuts work up as `tuning` says, not as [`Tuning::of`] the adapter would.
    ///
    /// # Errors
    /// [`Error::Field`] for a number outside its bound.
    pub fn with_tuning(device: &wgpu::Device, queue: &wgpu::Queue, tuning: Tuning) -> Result<Self> {
        tuning.check(&device.limits())?;
        Ok(Self::build(device.clone(), queue.clone(), tuning))
    }

    fn build(device: wgpu::Device, queue: wgpu::Queue, tuning: Tuning) -> Self {
        let (pipelines, init, counts) = Default::default();
        let (loss, deadline) = (Loss::new(&device), AtomicU64::new(DEADLINE_MS));
        Self(Arc::new(Inner {
            loss,
            deadline,
            device,
            queue,
            tuning,
            pipelines,
            init,
            counts,
            #[cfg(not(target_arch = "wasm32"))]
            staged: Default::default(),
            #[cfg(target_arch = "wasm32")]
            late: Late::default(),
        }))
    }

    /// Opens the most powerful adapter that wgpu finds, with [`required_limits`]. The environment variable
    /// `WGPU_BACKEND` narrows the search.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], or [`Error::Wgpu`] where the device is refused.
    pub async fn request() -> Result<Self> {
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        match instance().request_adapter(&options).await {
            Ok(adapter) => Self::open(&adapter).await,
            Err(error) => Err(Error::NoAdapter { wanted: String::new(), found: error.to_string() }),
        }
    }

    /// Opens the first adapter whose name or backend contains `name`, whatever the case.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] with all names there are, or [`Error::Wgpu`].
    pub async fn request_named(name: &str) -> Result<Self> {
        let adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
        let label = |adapter: &wgpu::Adapter| {
            let info = adapter.get_info();
            format!("{} ({})", info.name, info.backend)
        };
        let wanted = name.to_ascii_lowercase();
        if let Some(adapter) = adapters.iter().find(|adapter| label(adapter).to_ascii_lowercase().contains(&wanted)) {
            return Self::open(adapter).await;
        }
        let found = adapters.iter().map(label).collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "none".into() } else { found };
        Err(Error::NoAdapter { wanted: format!(" whose name contains {name:?}"), found })
    }

    /// [`request`](Self::request), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request_blocking() -> Result<Self> {
        pollster::block_on(Self::request())
    }

    /// [`request_named`](Self::request_named), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request_named_blocking(name: &str) -> Result<Self> {
        pollster::block_on(Self::request_named(name))
    }

    async fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgpu-optim"),
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            required_limits: required_limits(adapter),
            ..Default::default()
        };
        let (device, queue) =
            adapter.request_device(&descriptor).await.map_err(|error| Error::Wgpu(error.to_string()))?;
        let gpu = Self::new(&device, &queue);
        gpu.watch();
        Ok(gpu)
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// The adapter's name, backend and driver.
    pub fn adapter_info(&self) -> wgpu::AdapterInfo {
        self.device().adapter_info()
    }

    /// How work on this device is cut up.
    pub fn tuning(&self) -> Tuning {
        self.0.tuning
    }

    /// Objects made and polls so far, over all clones.
    pub fn counts(&self) -> Counts {
        let count = |i: usize| self.0.counts[i].load(Ordering::Relaxed);
        let [buffers, bind_groups, pipelines, polls] = [0, 1, 2, 3].map(count);
        Counts { buffers, bind_groups, pipelines, polls }
    }

    fn count(&self, made: Made) {
        self.0.counts[made as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn pipelines(&self) -> MutexGuard<'_, Pipelines> {
        self.0.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest size of a page's buffer.
    fn page_bytes(&self) -> u64 {
        page_bytes(&self.device().limits())
    }

    fn create_buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.count(Made::Buffer);
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// Opens an error scope for every kind of error.
    fn open_scopes(&self) -> [wgpu::ErrorScopeGuard; 3] {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        filters.map(|filter| self.device().push_error_scope(filter))
    }

    /// Runs `create`, waits for wgpu's answer, and returns the error where there is one.
    async fn scoped<T>(&self, create: impl FnOnce() -> T) -> Result<T> {
        let made = self.caught(create).await;
        // What was made on a lost device is nothing, and no error says so.
        self.check_alive()?;
        made
    }

    /// As [`scoped`](Self::scoped), for what has other ways to learn of a lost device.
    async fn caught<T>(&self, create: impl FnOnce() -> T) -> Result<T> {
        let (made, answers) = {
            let scopes = self.open_scopes();
            (create(), close_scopes(scopes))
        };
        for answer in answers {
            if let Some(error) = answer.await {
                return Err(Error::Wgpu(error.to_string()));
            }
        }
        Ok(made)
    }

    /// As [`scoped`](Self::scoped), but without waiting. Natively wgpu answers at once. In a browser it answers later:
    /// there the next call returns the error.
    fn scoped_now<T>(&self, create: impl FnOnce() -> T) -> Result<T> {
        let made = self.caught_now(create);
        self.check_alive()?;
        made
    }

    /// As [`scoped_now`](Self::scoped_now), for what has other ways to learn of a lost device.
    fn caught_now<T>(&self, create: impl FnOnce() -> T) -> Result<T> {
        #[cfg(not(target_arch = "wasm32"))]
        return pollster::block_on(self.caught(create));
        #[cfg(target_arch = "wasm32")]
        {
            self.late_error()?;
            let scopes = self.open_scopes();
            let made = create();
            let answers = close_scopes(scopes).into_iter().map(|answer| Box::pin(answer) as Answer);
            self.0.late.0.lock().unwrap_or_else(PoisonError::into_inner).extend(answers);
            Ok(made)
        }
    }

    /// Returns an error that wgpu has told of since the call that it belongs to.
    pub(crate) fn late_error(&self) -> Result<()> {
        #[cfg(target_arch = "wasm32")]
        {
            let mut late = self.0.late.0.lock().unwrap_or_else(PoisonError::into_inner);
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            let mut found = None;
            late.retain_mut(|answer| match answer.as_mut().poll(context) {
                std::task::Poll::Ready(error) => {
                    found = found.take().or(error);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if let Some(error) = found {
                return Err(Error::Wgpu(error.to_string()));
            }
        }
        Ok(())
    }

    /// Polls the device. A lost device makes wgpu 30 panic here.
    fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        self.count(Made::Poll);
        match catch_unwind(AssertUnwindSafe(|| self.device().poll(poll))) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => Err(self.late()),
            Ok(Err(error)) => Err(Error::Wgpu(error.to_string())),
            Err(panic) => {
                Err(self.lost(panic.downcast_ref::<String>().map_or("a poll panicked", |message| &message[..])))
            }
        }
    }

    /// Lets wgpu call back for all that it knows of. Waits for nothing.
    pub(crate) fn poll_once(&self) -> Result<()> {
        self.poll(wgpu::PollType::Poll)
    }

    /// Waits until the device has done what was submitted.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(self.deadline()) })
    }

    /// How long a wait for the device takes at most: 60 s, unless it was [set](Self::set_deadline).
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.0.deadline.load(Ordering::Relaxed))
    }

    /// Sets how long each wait for the device takes at most, in whole milliseconds, for all clones. A wait that takes
    /// longer ends with [`Error::Deadline`] and changes nothing. In a browser, which gives no such choice, waits have
    /// no deadline.
    ///
    /// # Errors
    /// [`Error::Field`] for less than a millisecond.
    pub fn set_deadline(&self, deadline: Duration) -> Result<()> {
        let milliseconds = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 {
            return refuse("deadline", format!("{deadline:?}"), "at least 1 ms");
        }
        self.0.deadline.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    fn late(&self) -> Error {
        Error::Deadline { seconds: self.deadline().as_secs_f64() }
    }

    /// An encoder.
    pub(crate) fn encoder(&self) -> Result<wgpu::CommandEncoder> {
        self.caught_now(|| self.device().create_command_encoder(&Default::default()))
    }

    /// Submits what an encoder holds. Natively wgpu says at once whether it refuses; in a browser the report of what
    /// was encoded tells.
    pub(crate) fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<()> {
        if cfg!(target_arch = "wasm32") {
            self.queue().submit([encoder.finish()]);
            return Ok(());
        }
        self.caught_now(|| self.queue().submit([encoder.finish()])).map(|_| ())
    }

    /// Writes bytes into ranges of a buffer, before any work that is not yet submitted. A range is its first byte and
    /// its bytes.
    fn write(&self, buffer: &wgpu::Buffer, pieces: &[Piece], bytes: &[u8]) {
        let starts = pieces.iter().scan(0, |from, (_, size)| {
            *from += size;
            Some(*from - size)
        });
        self.copy(buffer, bytes, pieces.iter().zip(starts).map(|(&(to, size), from)| (from, to, size)));
    }

    /// Writes the start of these bytes into each range of a buffer.
    fn fill(&self, buffer: &wgpu::Buffer, pieces: &[Piece], bytes: &[u8]) {
        self.copy(buffer, bytes, pieces.iter().map(|&(to, size)| (0, to, size)));
    }

    /// Copies these bytes from one staging buffer. Each copy is its first byte there, its first byte in the target, and
    /// its bytes.
    fn copy(&self, buffer: &wgpu::Buffer, bytes: &[u8], copies: impl Iterator<Item = (u64, u64, u64)>) {
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let staging = self.create_buffer("wgpu-optim/staging", bytes.len() as u64, usage);
        self.queue().write_buffer(&staging, 0, bytes);
        let mut encoder = self.device().create_command_encoder(&Default::default());
        for (from, to, size) in copies {
            encoder.copy_buffer_to_buffer(&staging, from, buffer, to, size);
        }
        self.queue().submit([encoder.finish()]);
    }

    /// Reads ranges of a buffer, once all submitted work is done. A range is its first byte and its bytes. With `wait`
    /// the thread sleeps until then, else the future is polled.
    #[cfg_attr(target_arch = "wasm32", expect(unused_variables, reason = "nothing can wait in a browser"))]
    async fn read(&self, buffer: &wgpu::Buffer, pieces: &[Piece], wait: bool) -> Result<Vec<u8>> {
        let size = pieces.iter().map(|(_, size)| size).sum();
        if size == 0 {
            return Ok(Vec::new());
        }
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        let staging = self
            .scoped(|| {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                let staging = self.create_buffer("wgpu-optim/readback", size, usage);
                let mut encoder = self.device().create_command_encoder(&Default::default());
                let mut to = 0;
                for &(from, size) in pieces {
                    encoder.copy_buffer_to_buffer(buffer, from, &staging, to, size);
                    to += size;
                }
                self.queue().submit([encoder.finish()]);
                staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
                    // The receiver is gone where the read was dropped.
                    let _ = sender.send(result);
                });
                staging
            })
            .await?;
        #[cfg(not(target_arch = "wasm32"))]
        let started = std::time::Instant::now();
        #[cfg(not(target_arch = "wasm32"))]
        if wait {
            self.wait()?;
        }
        let mut received = Box::pin(receiver.receive());
        let result = std::future::poll_fn(|context| {
            if let std::task::Poll::Ready(result) = received.as_mut().poll(context) {
                return std::task::Poll::Ready(Ok(result));
            }
            #[cfg(not(target_arch = "wasm32"))]
            {
                // Callbacks of a lost device never come; polling it says so.
                if let Err(error) = self.poll_once() {
                    return std::task::Poll::Ready(Err(error));
                }
                if started.elapsed() > self.deadline() {
                    return std::task::Poll::Ready(Err(self.late()));
                }
                std::thread::yield_now();
                context.waker().wake_by_ref();
            }
            std::task::Poll::Pending
        })
        .await?;
        match result {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(self.lost(&error.to_string())),
            None => return Err(self.lost("a readback was dropped")),
        }
        let view = staging.slice(..).get_mapped_range().map_err(|error| self.lost(&error.to_string()))?;
        Ok(view.to_vec())
    }
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

/// A part of a buffer: its first byte and its bytes.
type Piece = (u64, u64);

/// Bytes as f32, whatever their alignment.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}
