//! The landscapes on the GPU: what they look like, and how optimizers go down them.

use std::ops::Range;
use wgpu_optim::{Arena, Config, Gpu, Group, Optimizer, Slice, TensorSpec, wgpu};
use wgpu_optim_pictures::draw::Result;
use wgpu_optim_pictures::kernel::Kernel;

const WGSL: &str = include_str!("landscapes.wgsl");

/// One of the landscapes of `landscapes.wgsl`, in its order.
pub struct Landscape {
    pub name: &'static str,
    /// The part that is shown.
    pub x: Range<f32>,
    pub y: Range<f32>,
    pub start: [f32; 2],
    pub minima: &'static [[f32; 2]],
}

pub const LANDSCAPES: [Landscape; 5] = [
    Landscape { name: "Beale", x: -0.2..4.0, y: -1.2..2.0, start: [1.7, 1.6], minima: &[[3.0, 0.5]] },
    Landscape { name: "long valley", x: -7.0..1.8, y: -2.2..2.2, start: [-6.2, 1.6], minima: &[[0.0, 0.0]] },
    Landscape { name: "saddle", x: -1.6..1.6, y: -1.5..1.5, start: [1.3, 0.005], minima: &[[0.0, 1.0], [0.0, -1.0]] },
    Landscape { name: "Rosenbrock", x: -1.8..1.6, y: -0.8..2.6, start: [-0.5, 1.6], minima: &[[1.0, 1.0]] },
    Landscape {
        name: "ill-conditioned quadratic",
        x: -2.6..1.2,
        y: -1.6..1.6,
        start: [-2.2, 0.9],
        minima: &[[0.0, 0.0]],
    },
];

/// An optimizer's way down: its place before the first step and after each, with the height there.
#[derive(Clone)]
pub struct Path {
    pub lr: f64,
    pub places: Vec<[f32; 2]>,
    pub heights: Vec<f32>,
}

impl Path {
    /// The smaller, the sooner it came down: the mean logarithm of its heights. Infinite where it left the picture, or
    /// leapt over more than a twelfth of it at once.
    fn slowness(&self, landscape: &Landscape) -> f64 {
        let Landscape { x, y, .. } = landscape;
        let inside = |&[a, b]: &[f32; 2]| x.contains(&a) && y.contains(&b);
        let jump = |step: &[[f32; 2]]| {
            let [a, b] = [(step[1][0] - step[0][0]) / (x.end - x.start), (step[1][1] - step[0][1]) / (y.end - y.start)];
            a.hypot(b)
        };
        if !self.places.iter().all(inside) || self.places.windows(2).any(|step| jump(step) > 0.08) {
            return f64::INFINITY;
        }
        self.heights.iter().map(|&height| f64::from(height).max(1e-6).ln()).sum::<f64>() / self.heights.len() as f64
    }
}

/// The heights of points, each with the number of its landscape behind its place.
fn heights(gpu: &Gpu, points: &[[f32; 4]]) -> Result<Vec<f32>> {
    let tensors = [TensorSpec::f32("points", [points.len(), 4])];
    let (places, slopes) = (Arena::new(gpu, &tensors)?, Arena::new(gpu, &tensors)?);
    places.write("points", points.as_flattened())?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    measure(gpu, places.slice("points")?, slopes.slice("points")?).dispatch(&mut encoder, 0, groups(points.len()));
    gpu.queue().submit([encoder.finish()]);
    Ok(slopes.read_blocking("points")?.into_iter().skip(2).step_by(4).collect())
}

fn measure(gpu: &Gpu, points: Slice, slopes: Slice) -> Kernel {
    Kernel::new(gpu, WGSL, "measure", &[&[(0, points), (1, slopes)]])
}

fn groups(points: usize) -> [u32; 2] {
    [points.div_ceil(64) as u32, 1]
}

/// The heights of a landscape on a grid over what is shown of it, row by row from below.
pub fn grid(gpu: &Gpu, landscape: usize, cells: usize) -> Result<Vec<f32>> {
    let Landscape { x, y, .. } = &LANDSCAPES[landscape];
    let at = |range: &Range<f32>, i: usize| range.start + (range.end - range.start) * i as f32 / cells as f32;
    let points = (0..=cells).flat_map(|j| (0..=cells).map(move |i| [at(x, i), at(y, j), landscape as f32, 0.0]));
    heights(gpu, &points.collect::<Vec<_>>())
}

/// The paths of an optimizer down each landscape, each at the one of these learning rates that comes down soonest.
///
/// Every rate on every landscape is a tensor of two elements, and a group of its own for its rate: whatever their
/// number, a step is one dispatch for all gradients, and one for all updates where the rule takes one.
pub fn descend(gpu: &Gpu, config: &Config, rates: &[f64], steps: usize) -> Result<Vec<Path>> {
    let walkers = || (0..LANDSCAPES.len()).flat_map(|landscape| rates.iter().map(move |&lr| (landscape, lr)));
    let len = walkers().count();
    let name = |i: usize| format!("path{i}");
    let tensors: Vec<TensorSpec> = (0..len).map(|i| TensorSpec::f32(name(i), [2])).collect();
    let grouped = walkers()
        .enumerate()
        .fold(config.clone(), |config, (i, (_, lr))| config.group(Group::new([name(i)]).set("lr", lr)));
    let mut optimizer = Optimizer::new(gpu, &tensors, grouped)?;

    let rows = [TensorSpec::f32("rows", [len, 4])];
    let (positions, slopes) = (Arena::new(gpu, &rows)?, Arena::new(gpu, &rows)?);
    let trace = Arena::new(gpu, &[TensorSpec::f32("trace", [steps + 1, len, 4])])?;
    let start = |(landscape, _): (usize, f64)| {
        let [x, y] = LANDSCAPES[landscape].start;
        [x, y, landscape as f32, 0.0]
    };
    positions.write("rows", walkers().map(start).collect::<Vec<_>>().as_flattened())?;
    let (position, slope, traced) = (positions.slice("rows")?, slopes.slice("rows")?, trace.slice("trace")?);
    // Of a row of four numbers, the first two are the tensor.
    let params: Vec<Slice> =
        (0..len).map(|i| Slice::new(position.buffer, position.offset + 16 * i as u64, 8)).collect();
    let grads: Vec<Slice> = (0..len).map(|i| Slice::new(slope.buffer, slope.offset + 16 * i as u64, 8)).collect();
    let gradient = measure(gpu, position, slope);

    for step in 0..=steps {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        // Some rules are judged at other parameters than those from which they go on.
        let judged_elsewhere = optimizer.has_eval() && step > 0;
        if judged_elsewhere {
            optimizer.encode_eval(&mut encoder, &params)?;
        }
        let offset = traced.offset + step as u64 * position.size;
        encoder.copy_buffer_to_buffer(position.buffer, position.offset, traced.buffer, offset, position.size);
        if judged_elsewhere {
            optimizer.encode_train(&mut encoder, &params)?;
        }
        if step < steps {
            if optimizer.needs_look_ahead() {
                optimizer.encode_look_ahead(&mut encoder, &params)?;
            }
            gradient.dispatch(&mut encoder, 0, groups(len));
            optimizer.encode(&mut encoder, &params, &grads)?;
        }
        gpu.queue().submit([encoder.finish()]);
    }

    let trace = trace.read_blocking("trace")?;
    let points: &[[f32; 4]] = bytemuck::cast_slice(&trace);
    let heights = heights(gpu, points)?;
    let path = |(i, (_, lr)): (usize, (usize, f64))| Path {
        lr,
        places: points.iter().skip(i).step_by(len).map(|p| [p[0], p[1]]).collect(),
        heights: heights.iter().skip(i).step_by(len).copied().collect(),
    };
    let paths: Vec<Path> = walkers().enumerate().map(path).collect();
    let best = |(landscape, paths): (&Landscape, &[Path])| {
        let slowness = |path: &&Path| path.slowness(landscape);
        paths.iter().min_by(|a, b| slowness(a).total_cmp(&slowness(b))).cloned().ok_or("no learning rates".into())
    };
    LANDSCAPES.iter().zip(paths.chunks(rates.len())).map(best).collect()
}
