//! Times the products of Muon's iteration against CubeCL's products of the same matrices, through Burn:
//! `cargo bench --profile timed --bench product`. On software it times the smaller list alone, for minutes.

#[path = "../../../benches/step/shapes.rs"]
mod shapes;

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use wgpu_optim::wgpu::{DeviceType, PollType};
use wgpu_optim::{Arena, Gpu, Muon, Optimizer, Result, TensorSpec};

/// Iterations that are timed: those of the longer of two steps that the shorter one lacks.
const ITERATIONS: u64 = 4;

/// Seconds of the iterations of all matrices, as part of a step.
fn of_muon(gpu: &Gpu, [short, long]: [&mut Optimizer; 2], params: &Arena, grads: &Arena) -> Result<f64> {
    let time = |optimizer: &mut Optimizer| {
        let begin = Instant::now();
        optimizer.step(params, grads)?;
        gpu.device().poll(PollType::wait_indefinitely()).expect("a device that works");
        Result::Ok(begin.elapsed().as_secs_f64())
    };
    Ok(-time(short)? + time(long)?)
}

/// Seconds of the same products by CubeCL, a matrix at a time.
fn of_cubecl(device: &Device, matrices: &[Tensor<2>]) -> f64 {
    let wait = || device.sync().expect("a device that works");
    wait();
    let begin = Instant::now();
    for _ in 0..ITERATIONS {
        for x in matrices {
            let gram = x.clone().matmul(x.clone().transpose());
            let _update = gram.clone().matmul(gram).matmul(x.clone());
        }
    }
    wait();
    begin.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A list of the bench's tensors as matrices, of those that are some.
fn matrices(list: &str) -> Vec<[usize; 2]> {
    let list = shapes::LISTS.iter().find(|known| known.name == list).expect("a list of the bench");
    let is_matrix = |shape: &Vec<usize>| shape.len() > 1;
    let shapes = (list.shapes)().into_iter().map(|(_, shape)| shape).filter(is_matrix);
    shapes.map(|shape| [shape[0], shape[1..].iter().product()]).collect()
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--runs").skip(1);
    let runs: usize = arguments.next().map_or(5, |text| text.parse().expect("--runs takes a number"));
    let (device, setup) = Device::wgpu_options().init_with_setup().expect("a device");
    let gpu = Gpu::new(&setup.device, &setup.queue);
    let info = setup.adapter.get_info();
    println!("{} ({}): products of Muon's iteration, medians of {runs} runs", info.name, info.backend);
    println!("{:24} {:>14} {:>16} {:>6}", "matrices", "ours GFLOP/s", "CubeCL GFLOP/s", "ratio");
    let mut lists = vec![("one of 768 x 3072", vec![[768, 3072]])];
    if info.device_type != DeviceType::Cpu {
        lists.push(("the bench's convs126", matrices("convs126")));
    }
    for (name, shapes) in lists {
        let specs = shapes.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("t{i}"), shape));
        let specs: Vec<_> = specs.collect();
        let arena = || {
            let arena = Arena::new(&gpu, &specs)?;
            for spec in &specs {
                let values: Vec<f32> = (0..spec.len_elements()).map(|i| (i as f32 * 0.7).sin()).collect();
                arena.write(&spec.name, &values)?;
            }
            Result::Ok(arena)
        };
        let (params, grads) = (arena()?, arena()?);
        let of_steps = |ns_steps| Optimizer::new(&gpu, &specs, Muon { ns_steps, ..Muon::default() });
        let (mut short, mut long) = (of_steps(1)?, of_steps(1 + ITERATIONS)?);
        let random = |&shape: &[usize; 2]| Tensor::random(shape, Distribution::Normal(0.0, 0.1), &device);
        let matrices: Vec<Tensor<2>> = shapes.iter().map(random).collect();
        let mut seconds = [vec![], vec![]];
        // Pipelines are made, and CubeCL tries its kernels, in a run that does not count.
        for run in 0..=runs {
            let ours = of_muon(&gpu, [&mut short, &mut long], &params, &grads)?;
            let theirs = of_cubecl(&device, &matrices);
            if run > 0 {
                seconds[0].push(ours);
                seconds[1].push(theirs);
            }
        }
        let flops = shapes.iter().map(|[rows, columns]| (4 * rows * rows * columns + 2 * rows * rows * rows) as f64);
        let giga = ITERATIONS as f64 * flops.sum::<f64>() / 1e9;
        let ratio = median(seconds[0].iter().zip(&seconds[1]).map(|(ours, theirs)| theirs / ours).collect());
        let [ours, theirs] = seconds.map(|seconds| giga / median(seconds));
        println!("{name:24} {ours:14.1} {theirs:16.1} {ratio:6.2}");
    }
    Ok(())
}
