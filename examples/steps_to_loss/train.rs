//! One training of the network on the CPU reference, and what it comes to.

use super::Result;
use super::network::Network;
use super::record::{Run, Stored};
use super::start;
use ndarray::ArrayD;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use wgpu_optim::{Config, DType, ParamRounding, Reference};

/// Images a step.
const BATCH: usize = 16;
/// Steps of a training: ten times through the images.
pub const STEPS: u32 = 900;
/// Steps from one test to the next. After each fifth step the parameters of Lookahead are its slow ones.
pub const EVERY: u32 = 5;
/// The mean test loss that counts as reached.
pub const TARGET: f32 = 0.08;
/// Tests at the end of a training that its loss and its unrest are taken from: twice through the images.
const LAST: usize = 36;

/// A network, an optimizer, and the order of the images.
pub struct Training<'a> {
    network: &'a Network,
    pub optimizer: Reference<f32>,
    pub params: [ArrayD<f32>; 4],
    /// The format that gradients are computed from, where it is not that of the parameters.
    forward: DType,
    order: Vec<usize>,
    rng: Xoshiro256PlusPlus,
    seen: usize,
}

impl<'a> Training<'a> {
    /// A training with parameters of the format `params`, whose first values, in any format, are numbers of bf16.
    /// Gradients are computed from parameters that are rounded to the format `forward`.
    pub fn new(network: &'a Network, config: &Config, seed: u64, [params, forward]: [DType; 2]) -> Result<Self> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let tensors = start::tensors(network.inputs).map(|tensor| tensor.with_dtype(params));
        let mut values = start::values(network.inputs, &mut rng).into_iter();
        let params = tensors.each_ref().map(|tensor| {
            let values = values.next().unwrap_or_default().into_iter().map(|value| ParamRounding::split(value).0);
            ArrayD::from_shape_vec(tensor.shape.clone(), values.collect()).expect("a value for each element")
        });
        let (optimizer, order) = (Reference::new(config, &tensors)?, (0..network.train).collect());
        Ok(Training { network, optimizer, params, forward, order, rng, seen: 0 })
    }

    /// Takes a step with the gradient of the next images; each time through, these come in another order.
    pub fn step(&mut self) -> Result<()> {
        if self.seen == 0 {
            self.order.shuffle(&mut self.rng);
        }
        let images = &self.order[self.seen..self.order.len().min(self.seen + BATCH)];
        self.seen = (self.seen + images.len()) % self.order.len();
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&mut self.params)?;
        }
        let grads = match self.forward {
            DType::Bf16 => {
                let rounded = self.params.each_ref().map(|param| param.mapv(|value| ParamRounding::split(value).0));
                self.network.gradients(&rounded, images)
            }
            _ => self.network.gradients(&self.params, images),
        };
        self.optimizer.step(&mut self.params, &grads)?;
        Ok(())
    }

    /// The parameters that the rule tests with. The training itself goes on as if nothing had been asked.
    fn tested(&self) -> Result<[ArrayD<f32>; 4]> {
        let mut params = self.params.clone();
        if self.optimizer.has_eval() {
            self.optimizer.clone().eval(&mut params)?;
        }
        Ok(params)
    }
}

/// Trains at one rate, which stays as it is.
pub fn steps_to_loss(network: &Network, name: &str, config: &Config, lr: f64, seed: u64) -> Result<Run> {
    let mut training = Training::new(network, config, seed, [DType::F32; 2])?;
    let (mut steps, mut losses) = (None, Vec::new());
    for step in 1..=STEPS {
        training.step()?;
        if step.is_multiple_of(EVERY) {
            let loss = network.test_loss(&training.tested()?);
            if loss <= TARGET {
                steps = steps.or(Some(step));
            }
            losses.push(loss);
            if !loss.is_finite() {
                break;
            }
        }
    }
    let last = &losses[losses.len().saturating_sub(LAST)..];
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let jumps: Vec<f32> = last.windows(2).map(|pair| (pair[1] - pair[0]) * (pair[1] - pair[0])).collect();
    Ok(Run { name: name.into(), lr, seed, steps, loss: mean(last), unrest: mean(&jumps).sqrt() })
}

/// Trains with parameters and state stored in some way, at a rate that falls in a straight line to 0.
pub fn stored(network: &Network, name: &str, config: &Config, seed: u64, formats: [DType; 2]) -> Result<Stored> {
    let mut training = Training::new(network, config, seed, formats)?;
    for _ in 0..STEPS {
        training.step()?;
    }
    let (train, test) = (network.train_loss(&training.params), network.test_loss(&training.params));
    Ok(Stored { name: name.into(), seed, train, test })
}
