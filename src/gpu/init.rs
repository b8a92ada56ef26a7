//! Initialisers on the device: windows of a slice, the dispatches over them, and what all of them share.

use std::sync::OnceLock;

use super::{Arena, BINDING_BYTES_MAX, Gpu, Made, Slice};
use crate::codecs::DType;
use crate::error::{Error, Result};
use crate::init::{self, Draw, Init, Law, Orthogonal, halves};
use crate::session::find;
use crate::tensor::{ALIGNMENT, TensorSpec};

/// Words from one dispatch's record to the next: bindings start on 256 bytes.
const RECORD_WORDS: usize = ALIGNMENT as usize / 4;

/// How many dispatches and copies one submit holds at most: drivers reset a device that is busy for too long.
const SUBMIT_STEPS: usize = 256;

impl Arena {
    /// Sets a tensor's values, on the GPU, after all work that was submitted before. Nothing is read back.
    ///
    /// The same seed, name, shape and initialiser give the same values; other names give other ones.
    ///
    /// ```no_run
    /// use wgpu_optim::{Arena, Fans, Gpu, Init, TensorSpec};
    ///
    /// let gpu = Gpu::request_blocking()?;
    /// let params = Arena::new(&gpu, &[TensorSpec::f32("w", [128, 784]), TensorSpec::f32("b", [128])])?;
    /// params.init("w", &Init::HeNormal(Fans::default()), 42)?;
    /// params.init("b", &Init::RELU_BIAS, 42)?;
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; as [`Gpu::init`].
    pub fn init(&self, name: &str, init: &Init, seed: u64) -> Result<()> {
        let tensor = find(self.tensors(), name)?;
        self.gpu().init(&self.tensors()[tensor], self.slice_at(tensor), init, seed)
    }
}

impl Gpu {
    /// Sets a tensor's values in any buffer of this device's with `STORAGE` usage, as [`Arena::init`]. Bytes outside
    /// the slice keep their values.
    ///
    /// # Errors
    /// [`Error::Field`] or [`Error::Shape`] as [`Init::fill`]; [`Error::Shape`] or [`Error::Slice`] for a slice that
    /// does not fit the tensor or cannot be bound; [`Error::TooLarge`] for 2^32 elements or more; [`Error::Limit`]
    /// where the device binds less than the table of quantiles, or an orthogonal vector, takes; [`Error::Wgpu`].
    pub fn init(&self, tensor: &TensorSpec, slice: Slice, init: &Init, seed: u64) -> Result<()> {
        let law = init.law(tensor)?;
        slice.check("parameter", tensor, wgpu::BufferUsages::STORAGE)?;
        let (size_bytes, page_bytes) = (slice.size, self.page_bytes());
        if size_bytes > page_bytes {
            return Err(Error::TooLarge { tensor: tensor.name.clone(), what: "values", size_bytes, page_bytes });
        }
        if size_bytes == 0 {
            return Ok(());
        }
        let mut work = Work::new(self, tensor, seed)?;
        let words = Words { buffer: slice.buffer.clone(), first: slice.offset / 4, len: slice.size.div_ceil(4) };
        let target = Target { words, len: tensor.len_elements(), dtype: tensor.dtype };
        // Here wgpu refuses a buffer of another device, or a destroyed one.
        let quantiles = Words::all(&work.tools.quantiles);
        self.scoped_now(|| work.bind(&quantiles, &quantiles, &target.words.part(0, 1))).map_err(|error| {
            let message = format!("its buffer cannot be bound: {error}");
            Error::Slice { what: "parameter", tensor: tensor.name.clone(), message }
        })?;
        match law {
            Law::Draw(draw) => self.scoped_now(|| {
                work.draw(&target, &draw);
                work.submit();
            }),
            Law::Orthogonal(orthogonal) => {
                work.check_vectors(&orthogonal)?;
                self.scoped_now(|| {
                    work.orthogonal(&target, &orthogonal);
                    work.submit();
                })
            }
        }
    }
}

/// The elements that are to be set.
struct Target {
    words: Words,
    len: u64,
    dtype: DType,
}

/// Words of a buffer.
#[derive(Clone)]
struct Words {
    buffer: wgpu::Buffer,
    first: u64,
    len: u64,
}

impl Words {
    fn all(buffer: &wgpu::Buffer) -> Self {
        Self { buffer: buffer.clone(), first: 0, len: buffer.size() / 4 }
    }

    fn part(&self, first: u64, len: u64) -> Self {
        Self { buffer: self.buffer.clone(), first: self.first + first, len }
    }

    /// The place of the first word in the binding, which starts on 256 bytes.
    fn start(&self) -> u32 {
        (self.first % RECORD_WORDS as u64) as u32
    }

    fn binding(&self) -> wgpu::BufferBinding<'_> {
        let start = u64::from(self.start());
        let size = wgpu::BufferSize::new(4 * (start + self.len));
        wgpu::BufferBinding { buffer: &self.buffer, offset: 4 * (self.first - start), size }
    }
}

/// The entry points.
#[derive(Clone, Copy)]
enum Kernel {
    Fill,
    Project,
    Normalise,
    Place,
    /// Values rounded to a format of 16 bits.
    Pack(DType),
}

/// What initialisers share on a device.
#[derive(Debug)]
pub(super) struct Tools {
    layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    /// Of `fill`, `project`, `normalise` and `place`.
    pipelines: [wgpu::ComputePipeline; 4],
    /// Of `pack`, one for each format that was asked for.
    packs: [OnceLock<wgpu::ComputePipeline>; DType::ALL.len()],
    quantiles: wgpu::Buffer,
}

impl Tools {
    /// Makes the pipelines. The caller holds an error scope open.
    fn new(gpu: &Gpu) -> Self {
        let entry = |(binding, read_only)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let label = Some("wgpu-optim/init");
        let entries = [(0, true), (1, true), (2, false)].map(entry);
        let layout =
            gpu.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = gpu.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let [fill, orthogonal] = [init::FILL, init::ORTHOGONAL].map(|text| module(gpu, text));
        let entries = [(&fill, "fill"), (&orthogonal, "project"), (&orthogonal, "normalise"), (&orthogonal, "place")];
        let pipelines = entries.map(|(module, entry)| pipeline(gpu, &pipeline_layout, module, entry));
        let words = init::quantiles();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let quantiles = gpu.create_buffer("wgpu-optim/quantiles", 4 * words.len() as u64, usage);
        gpu.queue().write_buffer(&quantiles, 0, bytemuck::cast_slice(words));
        Self { layout, pipeline_layout, pipelines, packs: Default::default(), quantiles }
    }

    /// A kernel's pipeline. The caller holds an error scope open.
    fn pipeline(&self, gpu: &Gpu, kernel: Kernel) -> &wgpu::ComputePipeline {
        match kernel {
            Kernel::Fill => &self.pipelines[0],
            Kernel::Project => &self.pipelines[1],
            Kernel::Normalise => &self.pipelines[2],
            Kernel::Place => &self.pipelines[3],
            Kernel::Pack(dtype) => self.packs[dtype as usize]
                .get_or_init(|| pipeline(gpu, &self.pipeline_layout, &module(gpu, &init::pack(dtype)), "pack")),
        }
    }
}

fn module(gpu: &Gpu, text: &str) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(text.into());
    gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("wgpu-optim/init"), source })
}

fn pipeline(
    gpu: &Gpu,
    layout: &wgpu::PipelineLayout,
    module: &wgpu::ShaderModule,
    entry_point: &str,
) -> wgpu::ComputePipeline {
    gpu.count(Made::Pipeline);
    gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&format!("wgpu-optim/init/{entry_point}")),
        layout: Some(layout),
        module,
        entry_point: Some(entry_point),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[("LANES", gpu.tuning().lanes.into())],
            ..Default::default()
        },
        cache: None,
    })
}

/// A dispatch, or a copy that must come between two.
enum Step {
    Copy { from: Words, to: wgpu::Buffer },
    Call { kernel: Kernel, source: Words, values: Words, record: Vec<u32>, groups: u64 },
}

/// What fills one tensor, in order.
struct Work<'a> {
    gpu: &'a Gpu,
    tools: &'a Tools,
    /// The key of the random numbers.
    key: [u32; 2],
    stream: [u32; 2],
    binding_bytes: u64,
    /// Workgroups of a dimension.
    side: u64,
    /// The most elements of a dispatch. It is a power of two, so that each dispatch starts at a multiple of the four
    /// elements that Philox makes at once.
    window: u64,
    steps: Vec<Step>,
}

impl<'a> Work<'a> {
    fn new(gpu: &'a Gpu, tensor: &TensorSpec, seed: u64) -> Result<Self> {
        let limits = gpu.device().limits();
        let binding_bytes = limits.max_storage_buffer_binding_size.min(BINDING_BYTES_MAX);
        let needed = 4 * init::quantiles().len() as u64;
        if binding_bytes < needed {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { limit, found: binding_bytes, needed });
        }
        let tools = match gpu.0.init.get() {
            Some(tools) => tools,
            None => {
                let made = gpu.scoped_now(|| Tools::new(gpu))?;
                gpu.0.init.get_or_init(|| made)
            }
        };
        let side = u64::from(limits.max_compute_workgroups_per_dimension);
        let most = ((binding_bytes - ALIGNMENT) / 4).min(u64::from(gpu.tuning().lanes) * side * side);
        Ok(Self {
            gpu,
            tools,
            key: halves(seed),
            stream: halves(init::stream(&tensor.name)),
            binding_bytes,
            side,
            window: 1 << most.ilog2(),
            steps: Vec::new(),
        })
    }

    fn call(&mut self, kernel: Kernel, source: &Words, values: &Words, record: &[u32], groups: u64) {
        let (source, values) = (source.clone(), values.clone());
        self.steps.push(Step::Call { kernel, source, values, record: record.to_vec(), groups });
    }

    /// Workgroups where each lane takes one element.
    fn groups(&self, lanes: u64) -> u64 {
        lanes.div_ceil(self.gpu.tuning().lanes.into())
    }

    fn draw(&mut self, target: &Target, draw: &Draw) {
        let wide = target.dtype.is_narrow().then(|| self.scratch(target.len.min(self.window)));
        for (first, len) in cut(target.len, self.window) {
            match &wide {
                Some(wide) => {
                    self.fill(&wide.part(0, len), first, draw);
                    self.pack(wide, target, first, len);
                }
                None => self.fill(&target.words.part(first, len), first, draw),
            }
        }
    }

    /// Draws values from a tensor's element `first` on.
    fn fill(&mut self, values: &Words, first: u64, draw: &Draw) {
        let quantiles = Words::all(&self.tools.quantiles);
        let [base, scale, low, high] = [draw.base, draw.scale, draw.low, draw.high].map(f32::to_bits);
        let ([key0, key1], [stream0, stream1]) = (self.key, self.stream);
        let record = [
            [key0, key1, stream0, stream1],
            [(first / 4) as u32, values.start(), values.len as u32, draw.distribution as u32],
            [draw.first, draw.span, 0, scale],
            [base, low, high, 0],
        ];
        let groups = self.groups(values.len.div_ceil(4));
        self.call(Kernel::Fill, &quantiles, values, record.as_flattened(), groups);
    }

    /// A buffer of so many values in f32. To be called within an error scope.
    fn scratch(&self, len: u64) -> Words {
        use wgpu::BufferUsages as Usage;
        Words::all(&self.gpu.create_buffer("wgpu-optim/vectors", 4 * len, Usage::STORAGE | Usage::COPY_SRC))
    }

    /// Rounds values to a target of 16 bits, from its element `first` on.
    fn pack(&mut self, values: &Words, target: &Target, first: u64, len: u64) {
        let to = target.words.part(first / 2, len.div_ceil(2));
        let record = [values.start(), to.start(), len as u32];
        self.call(Kernel::Pack(target.dtype), &values.part(0, len), &to, &record, self.groups(len.div_ceil(4)));
    }

    /// Refuses a vector that cannot be bound.
    fn check_vectors(&self, orthogonal: &Orthogonal) -> Result<()> {
        let (limit, needed) = ("max_storage_buffer_binding_size", 4 * orthogonal.width + ALIGNMENT);
        if self.binding_bytes < needed {
            return Err(Error::Limit { limit, found: self.binding_bytes, needed });
        }
        Ok(())
    }

    fn orthogonal(&mut self, target: &Target, orthogonal: &Orthogonal) {
        let Orthogonal { vectors: count, width, columns, tall, gain } = *orthogonal;
        use wgpu::BufferUsages as Usage;
        let vectors = self.scratch(target.len);
        let wide = if target.dtype.is_narrow() { self.scratch(target.len) } else { target.words.clone() };
        let pivot = self.gpu.create_buffer("wgpu-optim/pivot", 4 * width, Usage::STORAGE | Usage::COPY_DST);
        let pivot = Words::all(&pivot);
        let most = ((self.binding_bytes - ALIGNMENT) / (4 * width)).min(self.side * self.side);
        for (first, len) in cut(target.len, self.window) {
            self.fill(&vectors.part(first, len), first, &orthogonal.draw());
        }
        for i in (0..count).chain(0..count) {
            self.steps.push(Step::Copy { from: vectors.part(i * width, width), to: pivot.buffer.clone() });
            for (first, len) in cut(count - i - 1, most) {
                let values = vectors.part((i + 1 + first) * width, len * width);
                let record = [values.start(), len as u32, width as u32];
                self.call(Kernel::Project, &pivot, &values, &record, len);
            }
        }
        for (vector, len) in cut(count, most) {
            let source = vectors.part(vector * width, len * width);
            let record = [source.start(), len as u32, width as u32, gain.to_bits()];
            self.call(Kernel::Normalise, &pivot, &source, &record, len);
            for (element, elements) in cut(target.len, self.window) {
                let values = wide.part(element, elements);
                let record = [
                    [values.start(), elements as u32, width as u32, 0, element as u32],
                    [columns as u32, tall.into(), source.start(), vector as u32, len as u32],
                ];
                self.call(Kernel::Place, &source, &values, record.as_flattened(), self.groups(elements));
            }
        }
        for (first, len) in cut(target.len, self.window).filter(|_| target.dtype.is_narrow()) {
            self.pack(&wide.part(first, len), target, first, len);
        }
    }

    fn bind(&self, record: &Words, source: &Words, values: &Words) -> wgpu::BindGroup {
        self.gpu.count(Made::BindGroup);
        let entries = [(0, record), (1, source), (2, values)].map(|(binding, words)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(words.binding()),
        });
        let (label, layout) = (Some("wgpu-optim/init"), &self.tools.layout);
        self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries })
    }

    /// Submits all steps. To be called within an error scope.
    fn submit(self) {
        let mut words = Vec::new();
        for step in &self.steps {
            let Step::Call { record, .. } = step else { continue };
            words.extend(record);
            words.resize(words.len().next_multiple_of(RECORD_WORDS), 0);
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let records = self.gpu.create_buffer("wgpu-optim/records", 4 * words.len() as u64, usage);
        self.gpu.queue().write_buffer(&records, 0, bytemuck::cast_slice(&words));
        let mut record = Words::all(&records).part(0, RECORD_WORDS as u64);
        for steps in self.steps.chunks(SUBMIT_STEPS) {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            for step in steps {
                let (kernel, source, values, groups) = match step {
                    Step::Copy { from, to } => {
                        encoder.copy_buffer_to_buffer(&from.buffer, 4 * from.first, to, 0, 4 * from.len);
                        continue;
                    }
                    Step::Call { kernel, source, values, groups, .. } => (*kernel, source, values, *groups),
                };
                let group = self.bind(&record, source, values);
                let y = groups.div_ceil(self.side);
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(self.tools.pipeline(self.gpu, kernel));
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(groups.div_ceil(y) as u32, y as u32, 1);
                record = record.part(RECORD_WORDS as u64, record.len);
            }
            self.gpu.queue().submit([encoder.finish()]);
        }
    }
}

/// Cuts a length into runs of at most `most`, and gives each one's start and length.
fn cut(len: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..len).step_by(most as usize).map(move |first| (first, most.min(len - first)))
}
