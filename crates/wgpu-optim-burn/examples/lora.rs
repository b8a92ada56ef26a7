//! Adapters of low rank beside frozen layers: 200 tensors of 128 elements, with one norm over all gradients,
//! a loss scale, and steps that are skipped where a gradient is not finite.
//!
//!     cargo run --example lora -- --plot lora.svg

mod common;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Distribution, Tensor};
use wgpu_optim::{AdamW, Clip, Config, LossScale, SkipNonfinite};
use wgpu_optim_burn::Fused;

use common::{Result, draw, plot_path};

const LAYERS: usize = 100;
const WIDTH: usize = 32;
const RANK: usize = 4;
const STEPS: usize = 60;
/// Batches, which come round again.
const BATCHES: usize = 4;
/// The step whose gradients are spoilt.
const SPOILT: usize = 30;

/// A layer `x + tanh(x*W + x*A*B)/8`, whose `W` is frozen.
#[derive(Module, Debug)]
struct Layer {
    frozen: Linear,
    down: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Network {
    layers: Vec<Layer>,
}

impl Network {
    fn new(device: &Device) -> Self {
        let layer = |_| Layer {
            frozen: LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(device).no_grad(),
            down: parameter(Tensor::random([WIDTH, RANK], Distribution::Normal(0.0, 0.2), device)),
            up: parameter(Tensor::zeros([RANK, WIDTH], device)),
        };
        Self { layers: (0..LAYERS).map(layer).collect() }
    }

    /// The same frozen layers with other adapters: what is to be learned.
    fn teacher(&self, device: &Device) -> Self {
        let mut teacher = self.clone();
        for layer in &mut teacher.layers {
            layer.up = parameter(Tensor::random([RANK, WIDTH], Distribution::Normal(0.0, 0.2), device));
        }
        teacher
    }

    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for Layer { frozen, down, up } in &self.layers {
            let adapted = x.clone().matmul(down.val()).matmul(up.val());
            x = x.clone() + tanh(frozen.forward(x) + adapted).mul_scalar(0.125);
        }
        x
    }
}

fn parameter(tensor: Tensor<2>) -> Param<Tensor<2>> {
    Param::from_tensor(tensor.require_grad())
}

fn main() -> Result<()> {
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let device = device.autodiff();
    device.seed(1);
    let mut model = Network::new(&device);
    let teacher = model.teacher(&device);
    let config = Config::from(AdamW::burn())
        .wrap(Clip::GlobalNorm(0.5))
        .wrap(LossScale { init: 1024.0, interval: 20, ..LossScale::default() })
        .wrap(SkipNonfinite(true));
    let mut optim = Fused::new(&setup, config);
    optim.prepare(&model)?;
    let batch = |_| {
        let x = Tensor::<2>::random([16, WIDTH], Distribution::Default, &device);
        (x.clone(), teacher.forward(x).detach())
    };
    let batches: Vec<_> = (0..BATCHES).map(batch).collect();
    let (mut losses, mut scales) = (vec![], vec![]);
    for step in 0..STEPS {
        let (x, target) = batches[step % BATCHES].clone();
        let loss = (model.forward(x) - target).powi_scalar(2).mean();
        let scale = optim.loss_scale(&device)?;
        // What overflows in a format of 16 bits is infinite in all of its gradients.
        let spoilt = if step == SPOILT { f32::INFINITY } else { 1.0 };
        let scaled = loss.clone() * scale.clone() * spoilt;
        let grads = GradientsParams::from_grads(scaled.backward(), &model);
        optim.step(1e-2, &mut model, grads)?;
        losses.push((step as f64, f64::from(loss.into_scalar::<f32>()).log10()));
        scales.push((step as f64, f64::from(scale.into_scalar::<f32>()).log2()));
    }
    let optimizer = optim.optimizer().ok_or("the optimizer knows the model")?;
    let (tensors, elements) = (optimizer.tensors().len(), 2 * LAYERS * WIDTH * RANK);
    optimizer.settle_blocking()?;
    println!("{tensors} parameters, of which {} with {elements} elements train", 2 * LAYERS);
    println!("{STEPS} steps, {} of them applied", optimizer.steps());
    println!("log10 of the loss: {:.2} at first, {:.2} in the end", losses[0].1, losses[STEPS - 1].1);
    let Some(path) = plot_path() else { return Ok(()) };
    let (loss, scale) = ([("loss", losses)], [("scale", scales)]);
    let panels = [("step", "log10 of the loss", &loss[..]), ("step", "log2 of the loss scale", &scale[..])];
    draw(&path, "200 tensors, clipped together; step 30 overflows", &panels)
}
