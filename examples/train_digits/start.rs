//! The tensors of the network, and the weights that a training starts from.

use rand::{RngExt, rngs::Xoshiro256PlusPlus};
use wgpu_optim::TensorSpec;

// These constants are those of mlp.wgsl.
pub const HIDDEN: usize = 128;
pub const CLASSES: usize = 10;

/// Weights and biases of both layers, for images of so many pixels.
pub fn tensors(inputs: usize) -> [TensorSpec; 4] {
    [
        TensorSpec::f32("w1", [inputs, HIDDEN]),
        TensorSpec::f32("b1", [HIDDEN]),
        TensorSpec::f32("w2", [HIDDEN, CLASSES]),
        TensorSpec::f32("b2", [CLASSES]),
    ]
}

/// The first values of each tensor. Weights are uniform, with the variance 2/n that He et al. 2015 derive for ReLUs,
/// and 1/n before the softmax. Biases are 0.
pub fn values(inputs: usize, rng: &mut Xoshiro256PlusPlus) -> [Vec<f32>; 4] {
    let mut weights = |fan_in: usize, len: usize, gain: f32| {
        let bound = (3.0 * gain / fan_in as f32).sqrt();
        (0..len).map(|_| rng.random_range(-bound..bound)).collect()
    };
    let (w1, w2) = (weights(inputs, inputs * HIDDEN, 2.0), weights(HIDDEN, HIDDEN * CLASSES, 1.0));
    [w1, vec![0.0; HIDDEN], w2, vec![0.0; CLASSES]]
}
