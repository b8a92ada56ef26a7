//! A small transformer that learns the letters of a play of Shakespeare's, with AdamW, with NovoGrad, and read through
//! a running mean of AdamW's parameters.
//!
//!     cargo run --example text -- --plot text.svg

mod common;

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Int, Tensor, TensorData};
use wgpu_optim::{AdamW, Clip, Config, Ema, Group, NovoGrad, Schedule};
use wgpu_optim_burn::Fused;

use common::{Curve, Result, draw, plot_path};

const WIDTH: usize = 32;
const WINDOW: usize = 32;
const BATCH: usize = 8;
const STEPS: usize = 60;
/// Steps from one look at the held-out text to the next.
const EVERY: usize = 6;

#[derive(Module, Debug)]
struct Network {
    letters: Embedding,
    places: Embedding,
    blocks: TransformerEncoder,
    output: Linear,
}

impl Network {
    fn new(letters: usize, device: &Device) -> Self {
        let blocks = TransformerEncoderConfig::new(WIDTH, 4 * WIDTH, 4, 1).with_dropout(0.0).with_norm_first(true);
        Self {
            letters: EmbeddingConfig::new(letters, WIDTH).init(device),
            places: EmbeddingConfig::new(WINDOW, WIDTH).init(device),
            blocks: blocks.init(device),
            output: LinearConfig::new(WIDTH, letters).init(device),
        }
    }

    /// The mean cross-entropy of each next letter.
    fn loss(&self, (letters, next): (Tensor<2, Int>, Tensor<1, Int>), device: &Device) -> Tensor<1> {
        let [batch, window] = letters.dims();
        let places = Tensor::<1, Int>::arange(0..window as i64, device).unsqueeze::<2>().repeat_dim(0, batch);
        let x = self.letters.forward(letters) + self.places.forward(places);
        let mask = generate_autoregressive_mask(batch, window, device);
        let x = self.blocks.forward(TransformerEncoderInput::new(x).mask_attn(mask));
        let guesses = self.output.forward(x).flatten::<2>(0, 1);
        CrossEntropyLossConfig::new().init(device).forward(guesses, next)
    }
}

/// The text as numbers of letters; the last tenth is held out.
struct Text {
    letters: Vec<char>,
    trained: Vec<i32>,
    held_out: Vec<i32>,
}

impl Text {
    fn read() -> Self {
        let text = include_str!("data/coriolanus.txt");
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters.dedup();
        let number = |letter| letters.binary_search(&letter).expect("a letter of this text") as i32;
        let mut trained: Vec<i32> = text.chars().map(number).collect();
        let held_out = trained.split_off(trained.len() * 9 / 10);
        Self { letters, trained, held_out }
    }

    /// Windows of a text, and the letter after each place of them.
    fn batch(text: &[i32], starts: &[usize], device: &Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
        let from = |shift: usize| {
            starts.iter().flat_map(|&start| text[start + shift..][..WINDOW].to_vec()).collect::<Vec<i32>>()
        };
        let shape = [starts.len(), WINDOW];
        let letters = Tensor::from_data(TensorData::new(from(0), shape), device);
        (letters, Tensor::from_data(TensorData::new(from(1), [starts.len() * WINDOW]), device))
    }

    fn held_out_loss(&self, model: &Network, device: &Device) -> f64 {
        let starts: Vec<usize> = (0..self.held_out.len() - WINDOW).step_by(WINDOW).take(16).collect();
        let batch = Self::batch(&self.held_out, &starts, device);
        f64::from(model.loss(batch, device).into_scalar::<f32>())
    }
}

/// The loss of the held-out text along a training, and of the running mean where there is one.
fn train(
    name: &str,
    start: &Network,
    text: &Text,
    config: Config,
    setup: &WgpuSetup,
    device: &Device,
) -> Result<[Vec<(f64, f64)>; 2]> {
    let mut model = start.clone();
    let (lr, has_mean) = (config.lr(), config.wrappers().ema().is_some());
    let mut optim = Fused::new(setup, config);
    let (mut losses, mut means) = (vec![(0.0, text.held_out_loss(&model, device))], vec![]);
    // Every training sees the same windows.
    let mut random = 1u64;
    for step in 1..=STEPS {
        let starts: [usize; BATCH] = std::array::from_fn(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % (text.trained.len() - WINDOW)
        });
        let loss = model.loss(Text::batch(&text.trained, &starts, device), device);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        optim.step(lr, &mut model, grads)?;
        if step % EVERY == 0 {
            let loss = text.held_out_loss(&model, device);
            println!("{name}, {step} steps: loss {loss:.3}");
            losses.push((step as f64, loss));
            if has_mean {
                means.push((step as f64, text.held_out_loss(&optim.ema(&model)?, device)));
            }
        }
    }
    Ok([losses, means])
}

fn main() -> Result<()> {
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let device = device.autodiff();
    let text = Text::read();
    let [trained, held_out] = [&text.trained, &text.held_out].map(Vec::len);
    println!("{trained} letters to learn from, {held_out} held out, {} kinds", text.letters.len());
    device.seed(1);
    let start = Network::new(text.letters.len(), &device);
    let then = Box::new(Schedule::Cosine { total: STEPS as u64, end: 0.1 });
    let lr = Schedule::Warmup { steps: 6, start: 0.1, then };
    let adamw = Config::from(AdamW { lr: 1e-2, ..AdamW::default() })
        .group(Group::new(["*.bias", "*.gamma", "*.beta"]).set("weight_decay", "none"))
        .wrap(Clip::GlobalNorm(1.0))
        .wrap(Ema { decay: 0.9, debias: true })
        .schedule("lr", lr.clone());
    let novograd = Config::from(NovoGrad { lr: 2e-2, ..NovoGrad::default() }).schedule("lr", lr);
    let [of_adamw, of_mean] = train("AdamW", &start, &text, adamw, &setup, &device)?;
    let [of_novograd, _] = train("NovoGrad", &start, &text, novograd, &setup, &device)?;
    let curves: [Curve; 3] = [("AdamW", of_adamw), ("AdamW's mean", of_mean), ("NovoGrad", of_novograd)];
    for (name, losses) in &curves {
        println!("{name}: loss {:.3} of the held-out text in the end", losses[losses.len() - 1].1);
    }
    let Some(path) = plot_path() else { return Ok(()) };
    draw(&path, "Letters of a play, held-out text", &[("step", "cross-entropy", &curves[..])])
}
