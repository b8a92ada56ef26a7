//! One training of the network on the CPU reference, and what it comes to.

use super::Result;
use super::network::Network;
use super::record::{Run, Stored};
use ndarray::ArrayD;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use wgpu_optim::{Config, DType, ParamRounding, Reference};

/// Samples a step.
const BATCH: usize = 16;
/// Steps of a training: ten times through the images, five times through the text.
pub const STEPS: u32 = 900;
/// Steps from one test to the next. After each fifth step the parameters of Lookahead are its slow ones.
pub const EVERY: u32 = 5;
/// The mean test loss that counts as reached.
pub const TARGET: f32 = 0.08;
/// Tests at the end of a training that its loss and its unrest are taken from: twice through the images.
const LAST: usize = 36;

/// A network, an optimizer, and the order of the samples.
pub struct Training<'a> {
    network: &'a dyn Network,
    pub optimizer: Reference<f32>,
    pub params: Vec<ArrayD<f32>>,
    /// The format that the parameters are stored in, and that in which the forward pass reads them.
    formats: [DType; 2],
    order: Vec<usize>,
    rng: Xoshiro256PlusPlus,
    seen: usize,
}

impl<'a> Training<'a> {
    /// A training with parameters of the first format, whose first values, in any format, are numbers of bf16. Gradients
    /// are computed from parameters in the second.
    pub fn new(network: &'a dyn Network, config: &Config, seed: u64, formats: [DType; 2]) -> Result<Self> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let tensors: Vec<_> = network.tensors().into_iter().map(|tensor| tensor.with_dtype(formats[0])).collect();
        let values = network.start(&mut rng).into_iter();
        let params = tensors.iter().zip(values).map(|(tensor, values)| {
            let values = values.into_iter().map(|value| ParamRounding::split(value).0);
            ArrayD::from_shape_vec(tensor.shape.clone(), values.collect()).expect("a value for each element")
        });
        let (params, order) = (params.collect(), network.train().collect());
        Ok(Training { network, optimizer: Reference::new(config, &tensors)?, params, formats, order, rng, seen: 0 })
    }

    /// Takes a step with the gradient of the next samples; each time through, these come in another order.
    pub fn step(&mut self) -> Result<()> {
        if self.seen == 0 {
            self.order.shuffle(&mut self.rng);
        }
        let samples = &self.order[self.seen..self.order.len().min(self.seen + BATCH)];
        self.seen = (self.seen + samples.len()) % self.order.len();
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&mut self.params)?;
        }
        let read = match self.formats {
            [_, DType::Bf16] => {
                self.params.iter().map(|param| param.mapv(|value| ParamRounding::split(value).0)).collect()
            }
            _ => self.stored()?,
        };
        let grads = self.network.gradients(&read, samples);
        self.optimizer.step(&mut self.params, &grads)?;
        Ok(())
    }

    /// The parameters as they are stored: together with their remainders where the forward pass reads these, too.
    pub fn stored(&self) -> Result<Vec<ArrayD<f32>>> {
        let mut params = self.params.clone();
        if let [DType::Bf16, DType::F32] = self.formats {
            for (param, tensor) in params.iter_mut().zip(self.optimizer.tensors()) {
                let remainders = self.optimizer.state(&tensor.name, "remainder")?;
                param.zip_mut_with(&remainders, |param, &rest| *param = ParamRounding::whole(*param, rest));
            }
        }
        Ok(params)
    }

    /// The parameters that the rule tests with. The training itself goes on as if nothing had been asked.
    fn tested(&self) -> Result<Vec<ArrayD<f32>>> {
        let mut params = self.params.clone();
        if self.optimizer.has_eval() {
            self.optimizer.clone().eval(&mut params)?;
        }
        Ok(params)
    }
}

/// Trains at one rate, which stays as it is.
pub fn steps_to_loss(network: &dyn Network, name: &str, config: &Config, lr: f64, seed: u64) -> Result<Run> {
    let mut training = Training::new(network, config, seed, [DType::F32; 2])?;
    let (mut steps, mut losses) = (None, Vec::new());
    for step in 1..=STEPS {
        training.step()?;
        if step.is_multiple_of(EVERY) {
            let loss = network.loss(&training.tested()?, network.test());
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
pub fn stored(network: &dyn Network, name: &str, config: &Config, seed: u64, formats: [DType; 2]) -> Result<Stored> {
    let mut training = Training::new(network, config, seed, formats)?;
    for _ in 0..STEPS {
        training.step()?;
    }
    let params = training.stored()?;
    let [train, test] = [network.train(), network.test()].map(|samples| network.loss(&params, samples));
    Ok(Stored { name: name.into(), seed, train, test })
}
