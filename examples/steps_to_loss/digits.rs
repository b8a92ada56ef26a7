//! The demo's network on the CPU, in f32. Twin: examples/train_digits/mlp.wgsl

use super::data::Data;
use super::network::Network;
use super::start::{self, CLASSES, HIDDEN};
use libm::{expf, logf};
use ndarray::ArrayD;
use rand::rngs::Xoshiro256PlusPlus;
use std::ops::Range;
use wgpu_optim::TensorSpec;

/// The images that the network learns, and those that it is tested on.
pub struct Digits {
    /// How many pixels an image has.
    inputs: usize,
    /// How many images train; those behind them test.
    train: usize,
    /// From -1, which is paper, to 1.
    pixels: Vec<f32>,
    labels: Vec<usize>,
}

/// What an image makes of a network.
struct Outcome {
    hidden: [f32; HIDDEN],
    /// The loss's derivative by each logit.
    back: [f32; CLASSES],
    loss: f32,
}

impl Digits {
    pub fn new(data: &Data) -> Digits {
        let scale = 2.0 / f32::from(data.ink);
        Digits {
            inputs: data.inputs,
            train: data.train,
            pixels: data.pixels.iter().map(|&pixel| f32::from(pixel) * scale - 1.0).collect(),
            labels: data.labels.iter().map(|&label| label.into()).collect(),
        }
    }

    fn pixels(&self, image: usize) -> &[f32] {
        &self.pixels[image * self.inputs..][..self.inputs]
    }

    fn forward(&self, [w1, b1, w2, b2]: &[&[f32]; 4], image: usize) -> Outcome {
        let mut hidden = [0.0; HIDDEN];
        hidden.copy_from_slice(b1);
        for (&x, row) in self.pixels(image).iter().zip(w1.chunks_exact(HIDDEN)) {
            add(&mut hidden, x, row);
        }
        hidden.iter_mut().for_each(|h| *h = h.max(0.0));
        let mut logits = [0.0; CLASSES];
        logits.copy_from_slice(b2);
        for (&h, row) in hidden.iter().zip(w2.chunks_exact(CLASSES)) {
            add(&mut logits, h, row);
        }
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut back = logits.map(|logit| expf(logit - top));
        let total = back.iter().sum::<f32>();
        let truth = self.labels[image];
        back.iter_mut().for_each(|share| *share /= total);
        back[truth] -= 1.0;
        Outcome { hidden, back, loss: logf(total) + top - logits[truth] }
    }
}

impl Network for Digits {
    fn tensors(&self) -> Vec<TensorSpec> {
        start::tensors(self.inputs).into()
    }

    fn start(&self, rng: &mut Xoshiro256PlusPlus) -> Vec<Vec<f32>> {
        start::values(self.inputs, rng).into()
    }

    fn train(&self) -> Range<usize> {
        0..self.train
    }

    fn test(&self) -> Range<usize> {
        self.train..self.labels.len()
    }

    fn loss(&self, params: &[ArrayD<f32>], images: Range<usize>) -> f32 {
        let (params, count) = (slices(params), images.len() as f32);
        images.map(|image| self.forward(&params, image).loss).sum::<f32>() / count
    }

    fn gradients(&self, params: &[ArrayD<f32>], images: &[usize]) -> Vec<Option<ArrayD<f32>>> {
        let values = slices(params);
        let mut sums = values.map(|values| vec![0.0; values.len()]);
        let [of_w1, of_b1, of_w2, of_b2] = &mut sums;
        for &image in images {
            let Outcome { hidden, mut back, .. } = self.forward(&values, image);
            back.iter_mut().for_each(|back| *back /= images.len() as f32);
            let mut hidden_back = [0.0; HIDDEN];
            let rows = values[2].chunks_exact(CLASSES).zip(of_w2.chunks_exact_mut(CLASSES));
            for ((&h, back_of_h), (row, of_row)) in hidden.iter().zip(&mut hidden_back).zip(rows) {
                add(of_row, h, &back);
                if h > 0.0 {
                    *back_of_h = row.iter().zip(&back).map(|(w, back)| w * back).sum();
                }
            }
            add(of_b2, 1.0, &back);
            add(of_b1, 1.0, &hidden_back);
            for (&x, of_row) in self.pixels(image).iter().zip(of_w1.chunks_exact_mut(HIDDEN)) {
                add(of_row, x, &hidden_back);
            }
        }
        params.iter().zip(sums).map(|(param, sum)| ArrayD::from_shape_vec(param.raw_dim(), sum).ok()).collect()
    }
}

fn slices(params: &[ArrayD<f32>]) -> [&[f32]; 4] {
    std::array::from_fn(|i| params[i].as_slice().expect("elements in order"))
}

fn add(sums: &mut [f32], factor: f32, terms: &[f32]) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += factor * term);
}
