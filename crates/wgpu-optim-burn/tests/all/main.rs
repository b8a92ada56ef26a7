//! Models of Burn, stepped by this crate. What the tests share stands here.

mod clones;
mod fused;
mod per_tensor;
mod records;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::wgpu::{MemoryConfiguration, WgpuSetup};
use burn::tensor::{Device, Tensor, TensorData};
use wgpu_optim::AdamW;

const LR: f64 = 1e-2;

#[derive(Module, Debug)]
struct Mlp {
    first: Linear,
    second: Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        Self { first: LinearConfig::new(16, 33).init(device), second: LinearConfig::new(33, 5).init(device) }
    }

    fn forward(&self, batch: Tensor<2>) -> Tensor<2> {
        self.second.forward(relu(self.first.forward(batch)))
    }

    /// The gradients of a loss that depends on the step.
    fn grads(&self, step: usize, device: &Device) -> GradientsParams {
        let values: Vec<f32> = (0..8 * 16).map(|i| ((i * 37 + step * 11) % 101) as f32 / 50.0 - 1.0).collect();
        let batch = Tensor::from_data(TensorData::new(values, [8, 16]), device);
        GradientsParams::from_grads((self.forward(batch) - 0.5).powi_scalar(2).mean().backward(), self)
    }
}

#[derive(Default)]
struct Values(Vec<Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data().try_to_vec().expect("numbers in f32"));
    }
}

/// All parameters: weight and bias of the first layer, weight and bias of the second.
fn values<M: Module>(model: &M) -> Vec<Vec<f32>> {
    let mut values = Values::default();
    model.visit(&mut values);
    values.0
}

fn largest(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// With this variable Burn's device gives every allocation a buffer of its own.
const EXCLUSIVE: &str = "EXCLUSIVE_PAGES";

/// Burn makes its default device once in a process, so the tests take turns on it.
fn device() -> (MutexGuard<'static, ()>, Device, WgpuSetup) {
    static MADE: OnceLock<(Device, WgpuSetup)> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (device, setup) = MADE.get_or_init(|| {
        let options = Device::wgpu_options();
        let options = match std::env::var_os(EXCLUSIVE) {
            Some(_) => options.memory_config(MemoryConfiguration::ExclusivePages),
            None => options,
        };
        options.init_with_setup().expect("a device")
    });
    (turn, device.clone().autodiff(), setup.clone())
}

fn adamw() -> AdamW {
    AdamW { lr: LR, ..AdamW::burn() }
}
