//! What a training asks of a network.

use ndarray::ArrayD;
use rand::rngs::Xoshiro256PlusPlus;
use std::ops::Range;
use wgpu_optim::TensorSpec;

/// A network with the samples that it learns and those that it is tested on. Every sum has a fixed order, and exponential
/// and logarithm are a library's own, so that every machine computes the same bits.
pub trait Network: Sync {
    /// The tensors of its parameters, in f32.
    fn tensors(&self) -> Vec<TensorSpec>;

    /// The first values of each tensor.
    fn start(&self, rng: &mut Xoshiro256PlusPlus) -> Vec<Vec<f32>>;

    /// The samples that train.
    fn train(&self) -> Range<usize>;

    /// The samples that test.
    fn test(&self) -> Range<usize>;

    /// The mean loss of some samples, with these parameters.
    fn loss(&self, params: &[ArrayD<f32>], samples: Range<usize>) -> f32;

    /// The gradient of the mean loss of some samples, for each tensor.
    fn gradients(&self, params: &[ArrayD<f32>], samples: &[usize]) -> Vec<Option<ArrayD<f32>>>;
}
