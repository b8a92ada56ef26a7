//! Times a step of Burn's AdamW against one of ours in the same run, from gradients that are there to parameters that
//! are: `cargo xtask bench --burn`.

use std::time::{Duration, Instant};

use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Tensor};
use wgpu_optim::{AdamW, Clip, Config, LossScale, SkipNonfinite};
use wgpu_optim_burn::{Fused, PerTensor};

const LR: f64 = 1e-3;
const TENSORS: usize = 128;
/// Rounds that are not counted: pipelines are made in them.
const WARM_UP: usize = 3;

#[derive(Module, Debug)]
struct Many {
    weights: Vec<Param<Tensor<2>>>,
}

impl Many {
    fn new(shape: [usize; 2], device: &Device) -> Self {
        let weight = || Param::from_tensor(random(shape, device).require_grad());
        Self { weights: (0..TENSORS).map(|_| weight()).collect() }
    }

    /// A gradient for each tensor, which is there when this returns.
    fn grads(&self, device: &Device) -> GradientsParams {
        let inner = device.clone().without_autodiff();
        let mut grads = GradientsParams::new();
        for weight in &self.weights {
            grads.register(weight.id, random(weight.val().dims(), &inner));
        }
        device.sync().expect("the gradients");
        grads
    }
}

fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

/// A way to step: what the host spends, and the time until the device is done.
struct Way<'a> {
    name: &'static str,
    step: Box<dyn FnMut(GradientsParams) + 'a>,
    model: Many,
    times: Vec<(Duration, Duration)>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let number = |name: &str, default: usize| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name);
        arguments.nth(1).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
    };
    let rounds = number("--rounds", 20);
    let (device, setup) = Device::wgpu_options().init_with_setup().expect("a device");
    let device = device.autodiff();
    println!("{TENSORS} tensors, AdamW, medians of {rounds} rounds in which each way steps once; ms");
    println!("fusion is {}", if cfg!(feature = "fusion") { "on" } else { "off" });
    for shape in [[256, 128], [8, 17]] {
        println!("\n{} elements", TENSORS * shape[0] * shape[1]);
        println!("{:44} {:>8} {:>8} {:>14} {:>14}", "", "host", "done", "of Burn's", "of ours plain");
        let all = |config: Config| {
            config
                .wrap(Clip::GlobalNorm(1.0))
                .wrap(SkipNonfinite(true))
                .wrap(LossScale { init: 1.0, ..LossScale::default() })
        };
        let start = Many::new(shape, &device);
        let of_burn = |mut optim: ModuleOptimizer| {
            let mut model = Some(start.clone());
            Box::new(move |grads| model = model.take().map(|model| optim.step(LR, model, grads))) as Box<dyn FnMut(_)>
        };
        let of_ours = |config: Config| {
            let (mut optim, mut model) = (Fused::new(&setup, config), start.clone());
            Box::new(move |grads| optim.step(LR, &mut model, grads).expect("a step")) as Box<dyn FnMut(_)>
        };
        let per_tensor = PerTensor::new(&setup, AdamW::burn()).expect("an optimizer");
        let way = |name, step| Way { name, step, model: start.clone(), times: vec![] };
        let mut ways = [
            way("Burn's AdamW", of_burn(AdamWConfig::new().init())),
            way("ours", of_ours(AdamW::burn().into())),
            way("ours, global clip, skip, loss scale", of_ours(all(AdamW::burn().into()))),
            way("ours, a tensor at a time by Burn's trait", of_burn(per_tensor.into())),
        ];
        for round in 0..WARM_UP + rounds {
            for way in &mut ways {
                let grads = way.model.grads(&device);
                let start = Instant::now();
                (way.step)(grads);
                let host = start.elapsed();
                device.sync().expect("the step");
                setup.device.poll(wgpu_optim::wgpu::PollType::wait_indefinitely()).expect("the step");
                if round >= WARM_UP {
                    way.times.push((host, start.elapsed()));
                }
            }
        }
        let done = |way: usize| ways[way].times.iter().map(|(_, done)| done.as_secs_f64());
        for (i, way) in ways.iter().enumerate() {
            let host = median(way.times.iter().map(|(host, _)| 1e3 * host.as_secs_f64()).collect());
            let ratio = |to: usize| median(done(i).zip(done(to)).map(|(one, other)| one / other).collect());
            let total = median(done(i).map(|done| 1e3 * done).collect());
            println!("{:44} {host:8.2} {total:8.2} {:14.2} {:14.2}", way.name, ratio(0), ratio(1));
        }
    }
}
