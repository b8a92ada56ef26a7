//! Times what a step costs the host: `encode` of parameters and gradients that stay where they are, and of gradients
//! that lie elsewhere in each step, within pages that the optimizer has met.
//!
//! `cargo bench --bench encode`

use std::time::Instant;

use wgpu_optim::wgpu::{BufferDescriptor, BufferUsages};
use wgpu_optim::{Adam, Gpu, Optimizer, Result, Slice, TensorSpec};

const ROUNDS: usize = 300;
const PLACES: u64 = 7;

fn main() -> Result<()> {
    let gpu = Gpu::request_blocking()?;
    println!("{}", gpu.adapter_info().name);
    println!("{:>8} {:>10} {:>10} {:>6}", "tensors", "unmoved us", "moved us", "ratio");
    for count in [128, 1000] {
        // Both are measured in turns, so that a noisy machine disturbs both.
        let [unmoved, moved] = medians(&gpu, count)?;
        println!("{count:>8} {unmoved:>10.1} {moved:>10.1} {:>6.2}", moved / unmoved);
    }
    Ok(())
}

/// Median microseconds of `encode` where gradients stay, and where they move.
fn medians(gpu: &Gpu, count: u64) -> Result<[f64; 2]> {
    const BYTES: u64 = 256;
    let tensors: Vec<_> = (0..count).map(|i| TensorSpec::f32(format!("t{i}"), [64])).collect();
    let page = |size| {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        gpu.device().create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (params, grads) = (page(BYTES * count), page(BYTES * (count + PLACES)));
    let slices = |from: u64| (from..from + count).map(|i| Slice::new(&grads, BYTES * i, BYTES)).collect::<Vec<_>>();
    let params: Vec<_> = (0..count).map(|i| Slice::new(&params, BYTES * i, BYTES)).collect();
    let places: Vec<_> = (0..PLACES).map(slices).collect();
    let mut optimizers =
        [Optimizer::new(gpu, &tensors, Adam::default())?, Optimizer::new(gpu, &tensors, Adam::default())?];
    let mut times = [vec![], vec![]];
    for round in 0..ROUNDS {
        for (i, optimizer) in optimizers.iter_mut().enumerate() {
            let place = if i == 0 { 0 } else { round % PLACES as usize };
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            let start = Instant::now();
            let step = optimizer.encode(&mut encoder, &params, &places[place])?;
            times[i].push(start.elapsed().as_secs_f64() * 1e6);
            drop(encoder);
            optimizer.undo(step)?;
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}
