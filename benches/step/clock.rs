//! Times of work on the GPU: its own timestamps where it has truthful ones, the wall clock elsewhere.

use std::time::{Duration, Instant};

use wgpu_optim::{Gpu, wgpu};

use crate::Result;

/// Encodes one run of what is timed.
pub type Work<'a> = &'a mut dyn FnMut(&mut wgpu::CommandEncoder) -> Result<()>;

/// How long to measure: until the time is up, but never fewer rounds than `least`.
#[derive(Clone, Copy)]
pub struct Patience {
    pub time: Duration,
    pub least: usize,
}

pub struct Clock {
    gpu: Gpu,
    stamps: Option<Stamps>,
    /// Rounds in flight at once. A GPU of its own lowers its clock rate when it is left waiting; a
    /// software one shares the processor with the encoding, which would then be measured too.
    batch: u32,
}

/// Two timestamps for each run in flight.
struct Stamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

/// The most runs in flight at once, of all works together.
const RUNS: u32 = 64;
/// The wall clock counts the submission too, so it measures runs of at least this many nanoseconds together.
const WALL_NS: f64 = 5e6;

impl Clock {
    pub fn new(gpu: &Gpu) -> Clock {
        let device = gpu.device();
        let stamps = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| {
            let buffer = |usage| {
                let size = u64::from(2 * RUNS) * 8;
                device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
            };
            Stamps {
                queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: None,
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * RUNS,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readable: buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            }
        });
        let software = gpu.adapter_info().device_type == wgpu::DeviceType::Cpu;
        Clock { gpu: gpu.clone(), stamps, batch: if software { 1 } else { 16 } }
    }

    /// Keeps the timestamps only if they account for most of the time that `work` takes, and for no more.
    pub fn check(&mut self, work: Work) -> Result<()> {
        let rounds = self.batch;
        let mut shares = vec![];
        for _ in 0..5 {
            let start = Instant::now();
            let Some(times) = self.stamped(&mut [&mut *work], rounds)? else { return Ok(()) };
            shares.push(times.iter().flatten().sum::<f64>() / start.elapsed().as_nanos() as f64);
        }
        if !(0.5..=1.01).contains(&median(shares)) {
            self.stamps = None;
        }
        Ok(())
    }

    pub fn name(&self) -> &'static str {
        if self.stamps.is_some() { "GPU timestamps" } else { "wall clock" }
    }

    /// Nanoseconds of each round of each work, the works in turn: `times[round][work]`.
    pub fn times(&mut self, works: &mut [Work], patience: Patience) -> Result<Vec<Vec<f64>>> {
        self.round(works)?; // the first use, in which buffers are zeroed and pages come in, does not count
        let mut times = vec![];
        let start = Instant::now();
        while times.len() < patience.least || start.elapsed() < patience.time {
            times.extend(self.round(works)?);
        }
        Ok(times)
    }

    fn round(&mut self, works: &mut [Work]) -> Result<Vec<Vec<f64>>> {
        let rounds = self.batch.min(RUNS / works.len() as u32);
        match self.stamped(works, rounds)? {
            Some(times) => Ok(times),
            None => Ok(vec![works.iter_mut().map(|work| self.wall(&mut **work)).collect::<Result<_>>()?]),
        }
    }

    /// Returns none where the device has no timestamps.
    fn stamped(&self, works: &mut [Work], rounds: u32) -> Result<Option<Vec<Vec<f64>>>> {
        let Some(Stamps { queries, resolved, readable }) = &self.stamps else { return Ok(None) };
        let mut query = 0;
        for _ in 0..rounds {
            for work in works.iter_mut() {
                let mut encoder = self.encoder();
                stamp(&mut encoder, queries, query);
                work(&mut encoder)?;
                stamp(&mut encoder, queries, query + 1);
                self.gpu.queue().submit([encoder.finish()]);
                query += 2;
            }
        }
        let mut encoder = self.encoder();
        let bytes = u64::from(query) * 8;
        encoder.resolve_query_set(queries, 0..query, resolved, 0);
        encoder.copy_buffer_to_buffer(resolved, 0, readable, 0, bytes);
        self.gpu.queue().submit([encoder.finish()]);
        readable.map_async(wgpu::MapMode::Read, 0..bytes, |_| {});
        self.wait()?;
        let stamps: Vec<u64> = bytemuck::cast_slice(&readable.get_mapped_range(0..bytes)?).to_vec();
        readable.unmap();
        let period = f64::from(self.gpu.queue().get_timestamp_period());
        let runs: Vec<f64> = stamps.chunks(2).map(|s| s[1].wrapping_sub(s[0]) as f64 * period).collect();
        Ok(Some(runs.chunks(works.len()).map(<[f64]>::to_vec).collect()))
    }

    /// Nanoseconds of one run, the mean of as many in one submission as make the submission negligible.
    fn wall(&self, work: Work) -> Result<f64> {
        let mut runs = 1;
        loop {
            let mut encoder = self.encoder();
            for _ in 0..runs {
                work(&mut encoder)?;
            }
            let commands = encoder.finish();
            let start = Instant::now();
            self.gpu.queue().submit([commands]);
            self.wait()?;
            let ns = start.elapsed().as_nanos() as f64;
            if ns >= WALL_NS || runs >= RUNS {
                return Ok(ns / f64::from(runs));
            }
            runs = (f64::from(runs) * WALL_NS / ns * 1.2).ceil().min(f64::from(RUNS)) as u32;
        }
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device().create_command_encoder(&Default::default())
    }

    fn wait(&self) -> Result<()> {
        self.gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    }
}

/// Writes a timestamp when all work before it is done. It is that of an empty pass, since portable wgpu has timestamps
/// at passes alone.
fn stamp(encoder: &mut wgpu::CommandEncoder, query_set: &wgpu::QuerySet, query: u32) {
    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
        label: None,
        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(query),
            end_of_pass_write_index: None,
        }),
    });
}

/// The median: the middle value, or the mean of the two middle ones; NaN where there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}
