//! Logistic regression of the digits on the GPU, for many models at once.

use crate::data::Data;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use std::time::Instant;
use wgpu_optim::{Arena, Config, Gpu, Group, Optimizer, Slice, TensorSpec, wgpu};
use wgpu_optim_pictures::draw::Result;
use wgpu_optim_pictures::kernel::Kernel;

const WGSL: &str = include_str!("softmax.wgsl");

// As in softmax.wgsl.
const INPUTS: usize = 64;
const CLASSES: usize = 10;
const WEIGHTS: usize = (INPUTS + 1) * CLASSES;
const STRIDE: usize = 652;

pub const BATCH: usize = 128;
/// Iterations from one measurement of the loss to the next.
pub const EVERY: usize = 8;

/// What one model has come to.
#[derive(Clone, Copy)]
pub struct Score {
    /// Mean cross-entropy of all training images.
    pub loss: f32,
    /// Of the test images, from 0 to 1.
    pub accuracy: f32,
}

/// Models with the same first weights, each a tensor of 65 x 10: the last row holds the biases.
pub struct Models {
    gpu: Gpu,
    /// The first weights of all.
    start: Vec<f32>,
    tensors: Vec<TensorSpec>,
    params: Arena,
    grads: Arena,
    means: [Arena; 2],
    forward: Kernel,
    backward: Kernel,
    average: [Kernel; 2],
    /// Images of each range: the batches, all that train, all that test.
    counts: Vec<usize>,
}

impl Models {
    pub fn new(gpu: &Gpu, data: &Data, models: usize) -> Result<Models> {
        let batches = data.train / BATCH;
        let mut ranges: Vec<[u32; 2]> = (0..batches).map(|i| [(i * BATCH) as u32, BATCH as u32]).collect();
        ranges.push([0, data.train as u32]);
        ranges.push([data.train as u32, (data.labels.len() - data.train) as u32]);
        let counts = ranges.iter().map(|range| range[1] as usize).collect();
        let arena = |name: &str, len: usize| Arena::new(gpu, &[TensorSpec::f32(name, [len])]);

        // Each tensor of an arena starts on 256 bytes, where any adapter lets a binding start.
        let names: Vec<String> = (0..ranges.len()).map(|i| format!("range{i}")).collect();
        let places =
            Arena::new(gpu, &names.iter().map(|name| TensorSpec::f32(name.as_str(), [2])).collect::<Vec<_>>())?;
        for (name, range) in names.iter().zip(ranges) {
            places.write(name, &range.map(f32::from_bits))?;
        }
        let images = arena("images", data.labels.len() * (INPUTS + 1))?;
        let image = |(pixels, &label): (&[u8], &u8)| {
            let ink = pixels.iter().map(|&pixel| f32::from(pixel) / f32::from(data.ink) * 2.0 - 1.0);
            ink.chain([f32::from(label)]).collect::<Vec<_>>()
        };
        let numbers: Vec<f32> = data.pixels.chunks_exact(INPUTS).zip(&data.labels).flat_map(image).collect();
        images.write("images", &numbers)?;

        let [params, grads] = [arena("all", models * STRIDE)?, arena("all", models * STRIDE)?];
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
        let bound = (3.0 / INPUTS as f32).sqrt();
        let mut weights: Vec<f32> = (0..WEIGHTS - CLASSES).map(|_| rng.random_range(-bound..bound)).collect();
        weights.resize(STRIDE, 0.0);
        let start = weights.repeat(models);
        params.write("all", &start)?;
        let residuals = arena("residuals", models * data.train * CLASSES)?;
        let outcomes = arena("outcomes", models * data.train * 2)?;
        let means = [arena("means", 2 * models)?, arena("means", 2 * models)?];

        let ranges = names.iter().map(|name| places.slice(name)).collect::<wgpu_optim::Result<Vec<_>>>()?;
        let kernel = |entry: &str, buffers: &[(u32, Slice)]| {
            let groups: Vec<Vec<_>> = ranges.iter().map(|&range| [&[(0, range)], buffers].concat()).collect();
            let groups: Vec<&[_]> = groups.iter().map(Vec::as_slice).collect();
            Kernel::new(gpu, WGSL, entry, &groups)
        };
        let (images, residuals) = ((1, images.slice("images")?), (4, residuals.slice("residuals")?));
        let outcomes = (5, outcomes.slice("outcomes")?);
        let average =
            |means: &Arena| Ok::<_, wgpu_optim::Error>(kernel("average", &[outcomes, (6, means.slice("means")?)]));
        Ok(Models {
            forward: kernel("forward", &[images, (2, params.slice("all")?), residuals, outcomes]),
            backward: kernel("backward", &[images, (3, grads.slice("all")?), residuals]),
            average: [average(&means[0])?, average(&means[1])?],
            gpu: gpu.clone(),
            start,
            tensors: (0..models).map(|i| TensorSpec::f32(format!("model{i}"), [INPUTS + 1, CLASSES])).collect(),
            params,
            grads,
            means,
            counts,
        })
    }

    /// Each model's tensor in the buffer of all.
    fn slices<'a>(&self, arena: &'a Arena) -> Result<Vec<Slice<'a>>> {
        let all = arena.slice("all")?;
        let slice = |i: usize| Slice::new(all.buffer, all.offset + 4 * (i * STRIDE) as u64, 4 * WEIGHTS as u64);
        Ok((0..self.tensors.len()).map(slice).collect())
    }

    fn encode_forward(&self, encoder: &mut wgpu::CommandEncoder, range: usize) {
        self.forward.dispatch(encoder, range, [self.counts[range].div_ceil(64) as u32, self.tensors.len() as u32]);
    }

    /// So many iterations from the `first` on, submitted.
    fn train(&self, optimizer: &mut Optimizer, first: usize, iterations: usize) -> Result<()> {
        let (params, grads) = (self.slices(&self.params)?, self.slices(&self.grads)?);
        let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for i in first..first + iterations {
            if optimizer.needs_look_ahead() {
                optimizer.encode_look_ahead(&mut encoder, &params)?;
            }
            let batch = i % (self.counts.len() - 2);
            self.encode_forward(&mut encoder, batch);
            self.backward.dispatch(&mut encoder, batch, [WEIGHTS.div_ceil(64) as u32, self.tensors.len() as u32]);
            optimizer.encode(&mut encoder, &params, &grads)?;
        }
        self.gpu.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Every model's score, measured where its rule wants it measured.
    fn score(&self, optimizer: &mut Optimizer, trained: bool) -> Result<Vec<Score>> {
        let params = self.slices(&self.params)?;
        let elsewhere = optimizer.has_eval() && trained;
        if elsewhere {
            optimizer.eval(&params)?;
        }
        let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (range, average) in (self.counts.len() - 2..).zip(&self.average) {
            self.encode_forward(&mut encoder, range);
            average.dispatch(&mut encoder, range, [self.tensors.len().div_ceil(64) as u32, 1]);
        }
        self.gpu.queue().submit([encoder.finish()]);
        if elsewhere {
            optimizer.train(&params)?;
        }
        let [train, test] = [self.means[0].read_blocking("means")?, self.means[1].read_blocking("means")?];
        let score = |(train, test): (&[f32], &[f32])| Score { loss: train[0], accuracy: test[1] };
        Ok(train.chunks_exact(2).zip(test.chunks_exact(2)).map(score).collect())
    }
}

/// Trains a model for each learning rate, all side by side: the scores of each, every [`EVERY`] iterations.
pub fn train(models: &Models, config: &Config, rates: &[f64], iterations: usize) -> Result<Vec<Vec<Score>>> {
    models.params.write("all", &models.start)?;
    let group = |(i, &lr): (usize, &f64)| Group::new([format!("model{i}")]).set("lr", lr);
    let grouped = rates.iter().enumerate().map(group).fold(config.clone(), Config::group);
    let mut optimizer = Optimizer::new(&models.gpu, &models.tensors, grouped)?;
    let mut scores = vec![models.score(&mut optimizer, false)?];
    for first in (0..iterations).step_by(EVERY) {
        models.train(&mut optimizer, first, EVERY)?;
        scores.push(models.score(&mut optimizer, true)?);
    }
    Ok((0..rates.len()).map(|model| scores.iter().map(|scores| scores[model]).collect()).collect())
}

/// Milliseconds of one iteration, gradient and step, of one model alone with each optimizer: the medians of stretches
/// of [`EVERY`], in turns, so that what else the machine does befalls all of them.
pub fn iteration_ms(gpu: &Gpu, data: &Data, configs: &[Config]) -> Result<Vec<f64>> {
    const TURNS: usize = 21;
    let models = Models::new(gpu, data, 1)?; // of one model for all: what its weights are does not matter here
    let mut lanes = Vec::new();
    for config in configs {
        let mut optimizer = Optimizer::new(gpu, &models.tensors, config.clone())?;
        models.train(&mut optimizer, 0, EVERY)?; // makes what later steps find
        lanes.push((optimizer, Vec::new()));
    }
    for turn in 1..=TURNS {
        for (optimizer, times) in &mut lanes {
            gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
            let start = Instant::now();
            models.train(optimizer, turn * EVERY, EVERY)?;
            gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
            times.push(1e3 * start.elapsed().as_secs_f64() / EVERY as f64);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(lanes.into_iter().map(|(_, times)| median(times)).collect())
}
