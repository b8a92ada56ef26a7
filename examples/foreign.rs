//! An optimizer on memory that it did not lay out. A program of your own may keep everything in one buffer, as ggml
//! does, or in a pool of pages that tensors share, with gradients elsewhere in each step. The results are the same to
//! the bit.
//!
//! `cargo run --example foreign`

use wgpu_optim::wgpu::{Buffer, BufferDescriptor, BufferUsages};
use wgpu_optim::{AdamW, Arena, Gpu, Optimizer, Result, Slice, TensorSpec};

const STEPS: usize = 3;

fn main() -> Result<()> {
    let gpu = Gpu::request_blocking()?;
    let tensors = [("embed", vec![500, 64]), ("w1", vec![64, 64]), ("b1", vec![64]), ("head", vec![64, 500])]
        .map(|(name, shape)| TensorSpec::f32(name, shape));
    let expected = in_arenas(&gpu, &tensors)?;

    // One buffer holds a parameter, its gradient, the next parameter, and so on.
    let one = pages(&gpu, 1, 1 << 20);
    let mut used = 0;
    let mut room = |tensor: &TensorSpec| {
        used += tensor.size_bytes().next_multiple_of(256);
        Slice::new(&one[0], used - tensor.size_bytes().next_multiple_of(256), tensor.size_bytes())
    };
    let (params, grads): (Vec<_>, Vec<_>) = tensors.iter().map(|tensor| (room(tensor), room(tensor))).unzip();
    let found = train(&gpu, &tensors, &params, |_| grads.clone())?;
    println!("one buffer: {}", verdict(&found, &expected));

    // A pool of three pages, in which each step's gradients lie elsewhere.
    let pool = pages(&gpu, 3, 1 << 20);
    let place = |page: usize, from: u64| -> Vec<Slice> {
        let starts = tensors.iter().scan(from, |next, tensor| {
            *next += tensor.size_bytes().next_multiple_of(256);
            Some(*next - tensor.size_bytes().next_multiple_of(256))
        });
        tensors.iter().zip(starts).map(|(t, at)| Slice::new(&pool[page], at, t.size_bytes())).collect()
    };
    let params = place(0, 0);
    let found = train(&gpu, &tensors, &params, |step| place(1 + step % 2, 4096 * step as u64))?;
    println!("a pool:     {}", verdict(&found, &expected));
    Ok(())
}

/// Makes buffers of so many bytes.
fn pages(gpu: &Gpu, count: usize, size: u64) -> Vec<Buffer> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let one = || BufferDescriptor { label: Some("pool"), size, usage, mapped_at_creation: false };
    (0..count).map(|_| gpu.device().create_buffer(&one())).collect()
}

/// The gradient of a step; a program of your own has its backward pass write it.
fn gradient(tensor: &TensorSpec, step: usize) -> Vec<f32> {
    (0..tensor.len_elements()).map(|i| ((i * 37 + step as u64 * 11) % 101) as f32 / 50.0 - 1.0).collect()
}

/// Returns the parameters after some steps from zero, with everything in slices of the caller's.
fn train<'a>(
    gpu: &Gpu,
    tensors: &[TensorSpec],
    params: &[Slice<'a>],
    grads_of: impl Fn(usize) -> Vec<Slice<'a>>,
) -> Result<Vec<f32>> {
    let mut optimizer = Optimizer::new(gpu, tensors, AdamW::default())?;
    for step in 0..STEPS {
        let grads = grads_of(step);
        for (tensor, slice) in tensors.iter().zip(&grads) {
            gpu.queue().write_buffer(slice.buffer, slice.offset, bytemuck::cast_slice(&gradient(tensor, step)));
        }
        optimizer.step(params, &grads)?;
    }
    println!("{} dispatch", optimizer.plan(params, &grads_of(STEPS - 1))?.dispatches);
    Ok(params.iter().flat_map(|&slice| wgpu_optim::proof::read(gpu, slice)).collect())
}

/// Returns the parameters after the same steps, with everything in arenas of the crate.
fn in_arenas(gpu: &Gpu, tensors: &[TensorSpec]) -> Result<Vec<f32>> {
    let (params, grads) = (Arena::new(gpu, tensors)?, Arena::new(gpu, tensors)?);
    let mut optimizer = Optimizer::new(gpu, tensors, AdamW::default())?;
    for step in 0..STEPS {
        for tensor in tensors {
            grads.write(&tensor.name, &gradient(tensor, step))?;
        }
        optimizer.step(&params, &grads)?;
    }
    let values: Result<Vec<_>> = tensors.iter().map(|tensor| params.read_blocking(&tensor.name)).collect();
    Ok(values?.concat())
}

fn verdict(found: &[f32], expected: &[f32]) -> &'static str {
    if found == expected { "the same bits as in arenas" } else { "other bits than in arenas" }
}
