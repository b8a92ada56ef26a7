//! Times a step of Burn's AdamW against steps of ours in the same run, from gradients that are there to parameters that
//! are: `cargo xtask bench --burn`.

use std::time::{Duration, Instant};

use burn::backend::Wgpu;
use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Distribution, Tensor};
use wgpu_optim::{AdamW, Clip, Config, LossScale, SkipNonfinite};
use wgpu_optim_burn::{Fused, PerTensor};

const LR: f64 = 1e-3;
const TENSORS: usize = 128;
/// Rounds of a run that are not counted: pipelines are made in them.
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
        wait(device);
        grads
    }
}

fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

/// Waits for all work that Burn knows of.
fn wait(device: &Device) {
    device.sync().expect("a device that works");
}

/// What the host spends on a step, and the time until the device is done, in ms.
#[derive(Clone, Copy)]
struct Times {
    host: f64,
    done: f64,
}

/// A way to step a model.
struct Way<'a> {
    name: &'static str,
    step: Box<dyn FnMut(GradientsParams) + 'a>,
}

fn ms(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Each way steps a model of its own once a round, in turn.
fn run(shape: [usize; 2], rounds: usize, device: &Device, setup: &WgpuSetup) -> Vec<(&'static str, Vec<Times>)> {
    let start = Many::new(shape, device);
    let of_burn = |mut optim: ModuleOptimizer| {
        let mut model = Some(start.clone());
        Box::new(move |grads| model = model.take().map(|model| optim.step(LR, model, grads))) as Box<dyn FnMut(_)>
    };
    let of_ours = |config: Config| {
        let (mut optim, mut model) = (Fused::new(setup, config), start.clone());
        Box::new(move |grads| optim.step(LR, &mut model, grads).expect("a step")) as Box<dyn FnMut(_)>
    };
    // Parameters are views of one allocation after a step, so this one steps those of the start again and again.
    let mut apart = Fused::new(setup, AdamW::burn());
    let from_apart = Box::new(|grads| apart.step(LR, &mut start.clone(), grads).expect("a step"));
    let all = Config::from(AdamW::burn())
        .wrap(Clip::GlobalNorm(1.0))
        .wrap(SkipNonfinite(true))
        .wrap(LossScale { init: 1.0, ..LossScale::default() });
    let per_tensor = PerTensor::new(setup, AdamW::burn()).expect("an optimizer");
    let mut ways = [
        Way { name: "Burn's AdamW", step: of_burn(AdamWConfig::new().init()) },
        Way { name: "ours", step: of_ours(AdamW::burn().into()) },
        Way { name: "ours, a buffer a parameter", step: from_apart },
        Way { name: "ours, global clip, skip, loss scale", step: of_ours(all) },
        Way { name: "ours, a tensor at a time by Burn's trait", step: of_burn(per_tensor.into()) },
    ];
    let mut times = ways.each_ref().map(|way| (way.name, vec![]));
    for round in 0..WARM_UP + rounds {
        for (way, (_, times)) in ways.iter_mut().zip(&mut times) {
            let grads = start.grads(device);
            let begin = Instant::now();
            (way.step)(grads);
            let host = ms(begin.elapsed());
            wait(device);
            if round >= WARM_UP {
                times.push(Times { host, done: ms(begin.elapsed()) });
            }
        }
    }
    times.into()
}

/// The time of a question to each of Burn's threads that a step asks, in microseconds.
fn trips(device: &Device) -> Vec<(&'static str, f64)> {
    let mut trips = vec![];
    let tensor = Tensor::<1>::ones([1], &device.clone().without_autodiff());
    wait(device);
    let time = |question: &dyn Fn()| {
        let once = |_| {
            let begin = Instant::now();
            question();
            1e3 * ms(begin.elapsed())
        };
        median((0..1000).map(once))
    };
    let primitive = || tensor.clone().try_into_primitive::<Wgpu>().expect("a tensor of wgpu");
    #[cfg(feature = "fusion")]
    let primitive = || {
        let lazy = primitive();
        lazy.client.clone().resolve_tensor_float::<burn::backend::wgpu::CubeBackend>(lazy)
    };
    #[cfg(feature = "fusion")]
    trips.push(("fusion", time(&|| drop(primitive()))));
    let client = primitive().client;
    trips.push(("CubeCL", time(&|| client.exclusive(|| ()).expect("an answer"))));
    trips
}

fn main() {
    let number = |name: &str, default: usize| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name);
        arguments.nth(1).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
    };
    let (runs, rounds) = (number("--runs", 5), number("--rounds", 10));
    let (device, setup) = Device::wgpu_options().init_with_setup().expect("a device");
    let device = device.autodiff();
    let info = setup.adapter.get_info();
    println!("{} ({}), Burn's fusion {}", info.name, info.backend, if cfg!(feature = "fusion") { "on" } else { "off" });
    for (thread, us) in trips(&device) {
        println!("a round trip to the thread of {thread}: {us:.0} us; a step of ours makes one");
    }
    println!("{TENSORS} tensors, medians of {runs} runs of {rounds} rounds; ms, and ratios within a round");
    for shape in [[256, 128], [8, 17]] {
        let all: Vec<_> = (0..runs).map(|_| run(shape, rounds, &device, &setup)).collect();
        println!("\n{} elements", TENSORS * shape[0] * shape[1]);
        println!("{:42} {:>8} {:>8} {:>10} {:>13}", "", "host", "done", "of Burn's", "of ours plain");
        for way in 0..all[0].len() {
            let times = |pick: fn(&Times) -> f64| median(all.iter().map(|run| median(run[way].1.iter().map(pick))));
            let ratio = |to: usize| {
                let of_run = |run: &Vec<(_, Vec<Times>)>| {
                    median(run[way].1.iter().zip(&run[to].1).map(|(one, other)| one.done / other.done))
                };
                median(all.iter().map(of_run))
            };
            let (host, done) = (times(|times| times.host), times(|times| times.done));
            println!("{:42} {host:8.2} {done:8.2} {:10.2} {:13.2}", all[0][way].0, ratio(0), ratio(1));
        }
    }
}
