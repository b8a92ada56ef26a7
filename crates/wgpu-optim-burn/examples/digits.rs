//! A training as Burn's book has it, with Burn's AdamW and with ours: five lines differ, the curves do not.
//!
//!     cargo run --example digits -- --plot digits.svg

mod common;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use wgpu_optim::AdamW; // 1
use wgpu_optim_burn::Fused; // 2

use common::{Curve, Result, draw, plot_path};

const EPOCHS: usize = 8;
const BATCH: usize = 50;
/// Digits to learn from; the others, by other writers, test.
const TRAINED: usize = 1500;

#[derive(Module, Debug)]
struct Network {
    hidden: Linear,
    output: Linear,
    activation: Relu,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(64, 128).init(device),
            output: LinearConfig::new(128, 10).init(device),
            activation: Relu::new(),
        }
    }

    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        self.output.forward(self.activation.forward(self.hidden.forward(images)))
    }
}

/// Images of 8 x 8 pixels and their labels.
struct Digits {
    pixels: Vec<f32>,
    labels: Vec<i32>,
}

impl Digits {
    fn read() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/digits.csv");
        let (mut pixels, mut labels) = (vec![], vec![]);
        for line in std::fs::read_to_string(path)?.lines().skip(1) {
            let mut numbers = line.split(',').map(str::parse::<f32>).collect::<std::result::Result<Vec<_>, _>>()?;
            labels.push(numbers.pop().ok_or("an empty line")? as i32);
            pixels.extend(numbers.into_iter().map(|pixel| pixel / 16.0));
        }
        Ok(Self { pixels, labels })
    }

    fn batch(&self, range: std::ops::Range<usize>, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
        let pixels = TensorData::new(self.pixels[64 * range.start..64 * range.end].to_vec(), [range.len(), 64]);
        let labels = TensorData::new(self.labels[range.clone()].to_vec(), [range.len()]);
        (Tensor::from_data(pixels, device), Tensor::from_data(labels, device))
    }
}

/// The mean loss of training batches and the share of test images that are named rightly, for each epoch.
type Scores = Vec<(f64, f64)>;

fn with_burn(mut model: Network, digits: &Digits, device: &Device) -> Result<Scores> {
    let mut optim = AdamWConfig::new().init();
    let mut scores = vec![];
    for _ in 0..EPOCHS {
        let mut total = 0.0;
        for start in (0..TRAINED).step_by(BATCH) {
            let (images, labels) = digits.batch(start..start + BATCH, device);
            let loss = CrossEntropyLossConfig::new().init(device).forward(model.forward(images), labels);
            total += loss.clone().into_scalar::<f32>();
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model = optim.step(1e-3, model, grads);
        }
        scores.push((mean(total), accuracy(&model, digits, device)));
    }
    Ok(scores)
}

fn with_ours(
    mut model: Network,
    digits: &Digits,
    device: &Device,
    setup: &burn::tensor::wgpu::WgpuSetup,
) -> Result<Scores> {
    let mut optim = Fused::new(setup, AdamW::burn()); // 3
    let mut scores = vec![];
    for _ in 0..EPOCHS {
        let mut total = 0.0;
        for start in (0..TRAINED).step_by(BATCH) {
            let (images, labels) = digits.batch(start..start + BATCH, device);
            let loss = CrossEntropyLossConfig::new().init(device).forward(model.forward(images), labels);
            total += loss.clone().into_scalar::<f32>();
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            optim.step(1e-3, &mut model, grads)?; // 4
        }
        scores.push((mean(total), accuracy(&model, digits, device)));
    }
    Ok(scores)
}

fn mean(total: f32) -> f64 {
    f64::from(total) / (TRAINED / BATCH) as f64
}

fn accuracy(model: &Network, digits: &Digits, device: &Device) -> f64 {
    let range = TRAINED..digits.labels.len();
    let count = range.len() as f64;
    let (images, labels) = digits.batch(range, device);
    let named = model.forward(images).argmax(1).squeeze_dim::<1>(1);
    f64::from(named.equal(labels).int().sum().into_scalar::<i32>()) / count
}

fn main() -> Result<()> {
    let (device, setup) = Device::wgpu_options().init_with_setup()?; // 5, for Device::default()
    let device = device.autodiff();
    device.seed(1);
    let digits = Digits::read()?;
    let start = Network::new(&device);
    let scores = [
        ("Burn's AdamW", with_burn(start.clone(), &digits, &device)?),
        ("wgpu-optim's AdamW", with_ours(start, &digits, &device, &setup)?),
    ];
    println!("epoch   loss: Burn      ours   accuracy: Burn      ours");
    for (epoch, (burn, ours)) in scores[0].1.iter().zip(&scores[1].1).enumerate() {
        println!("{:5} {:12.5} {:9.5} {:16.4} {:9.4}", epoch + 1, burn.0, ours.0, burn.1, ours.1);
    }
    let Some(path) = plot_path() else { return Ok(()) };
    let curves = |number: fn(&(f64, f64)) -> f64| {
        let curve = |(name, scores): &(&'static str, Scores)| -> Curve {
            (name, scores.iter().enumerate().map(|(epoch, score)| ((epoch + 1) as f64, number(score))).collect())
        };
        scores.iter().map(curve).collect::<Vec<_>>()
    };
    let (losses, accuracies) = (curves(|score| score.0), curves(|score| 100.0 * score.1));
    let panels = [("epoch", "training loss", &losses[..]), ("epoch", "test accuracy (%)", &accuracies[..])];
    draw(&path, "Handwritten digits, the same start and batches", &panels)
}
