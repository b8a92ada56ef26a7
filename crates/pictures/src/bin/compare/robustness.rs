//! How much an optimizer minds its learning rate: the network of the demo, trained anew with each.

use crate::data::Data;
use crate::network::Network;
use wgpu_optim::{Config, DType, Gpu, Optimizer, wgpu};
use wgpu_optim_pictures::draw::Result;

const BATCH: usize = 64;
/// How often every training image is seen, always in the same order.
pub const EPOCHS: usize = 3;

/// The network, and the weights that every training starts from.
pub struct Bench {
    gpu: Gpu,
    network: Network,
    start: Vec<Vec<f32>>,
}

impl Bench {
    pub fn new(gpu: &Gpu, data: &Data) -> Result<Bench> {
        let network = Network::new(gpu, data, BATCH, 0, DType::F32)?;
        let start = network.tensors.iter().map(|tensor| network.params.read_blocking(&tensor.name));
        Ok(Bench { gpu: gpu.clone(), start: start.collect::<wgpu_optim::Result<_>>()?, network })
    }

    /// The final test accuracy in percent with each learning rate, which stays as it is throughout.
    pub fn accuracies(&self, config: &Config, rates: &[f64]) -> Result<Vec<f32>> {
        rates.iter().map(|&lr| self.accuracy(config, lr)).collect()
    }

    fn accuracy(&self, config: &Config, lr: f64) -> Result<f32> {
        let network = &self.network;
        for (tensor, values) in network.tensors.iter().zip(&self.start) {
            network.params.write(&tensor.name, values)?;
        }
        let lr = [("lr".to_owned(), lr.into())].into_iter().collect();
        let mut optimizer = Optimizer::new(&self.gpu, &network.tensors, Config::from(config.rule().with(&lr)?))?;
        for _ in 0..EPOCHS {
            let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for batch in &network.batches {
                if optimizer.needs_look_ahead() {
                    optimizer.encode_look_ahead(&mut encoder, &network.params)?;
                }
                network.encode_gradients(&mut encoder, batch);
                optimizer.encode(&mut encoder, &network.params, &network.grads)?;
            }
            self.gpu.queue().submit([encoder.finish()]);
        }
        if optimizer.has_eval() {
            optimizer.eval(&network.params)?;
        }
        Ok(100.0 * network.score()?.test_accuracy)
    }
}
