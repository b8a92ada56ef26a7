//! A rule of your own, outside the crate: its formula in Rust, its twin in WGSL, a training with it on the GPU, and the
//! proof that both files say the same: `cargo run --example your_own_rule`.
//!
//! In a crate of your own, `wgpu-optim` is a dependency, and a dev-dependency with the feature `proof`; `cases`,
//! `rejects` and what calls `wgpu_optim::proof` stand behind `#[cfg(test)]` there.

use wgpu_optim::parts::{Real, ema};
use wgpu_optim::rule::{Carried, Reject, Rule, Slot, above_zero, below_one};
use wgpu_optim::{Arena, Gpu, Optimizer, Result, TensorSpec, WeightDecay, fields, numbers, options, proof};

/// Softsign: a step along a running mean of gradients that is never longer than the learning rate.
///
/// `m = momentum*m + (1-momentum)*g; p -= lr*m/(|m| + eps)`. One slot `m` per element.
#[derive(Clone, Debug, PartialEq)]
struct Softsign {
    /// Learning rate, at least 0: the most that an element moves in a step. Default 1e-2.
    lr: f64,
    /// How much of `m` a step keeps: at least 0 and below 1. Default 0.9.
    momentum: f64,
    /// The mean at which an element moves half as far as it can, above 0 in f32. Default 0.1.
    eps: f64,
    /// Any general kind. Default none.
    weight_decay: WeightDecay,
}

fields!(Softsign: lr, momentum, eps, weight_decay);

impl Default for Softsign {
    fn default() -> Self {
        Self { lr: 1e-2, momentum: 0.9, eps: 0.1, weight_decay: WeightDecay::None }
    }
}

numbers! {
    /// Numbers of a group: the fields of `Hyper` in the shader, in the same order.
    Hyper { lr, momentum, one_minus_momentum, eps }
}
numbers! {
    /// The mean: the field of `State` in the shader.
    State { m }
}

impl Rule for Softsign {
    const NAME: &'static str = "softsign";
    const SUMMARY: &'static str = "a running mean of gradients, bounded by the learning rate";
    const SHADER: &'static str = include_str!("your_own_rule.wgsl");

    type Hyper<F: Real> = Hyper<F>;
    type State<F: Real> = State<F>;
    type Tensor<F: Real> = ();

    options!(lr, momentum, eps; weight_decay);

    fn check(&self) -> Result<()> {
        below_one("momentum", self.momentum)?;
        above_zero("eps", self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::element("m")]
    }

    fn hyper(&self, _t: u64, _carried: &mut Carried) -> Hyper<f64> {
        Hyper { lr: self.lr, momentum: self.momentum, one_minus_momentum: 1.0 - self.momentum, eps: self.eps }
    }

    fn direction<F: Real>(&self, h: &Hyper<F>, _k: &(), _p: F, g: F, s: &mut State<F>) -> F {
        s.m = ema(s.m, g, h.momentum, h.one_minus_momentum);
        h.lr * s.m / (s.m.abs() + h.eps)
    }

    fn cases() -> Vec<(&'static str, Self)> {
        let loud = Self { lr: 0.3, momentum: 0.6, eps: 2.0, weight_decay: WeightDecay::L2(0.2) };
        vec![("default", Self::default()), ("loud", loud)]
    }

    fn rejects() -> Vec<Reject> {
        vec![
            Reject { json: r#"{"momentum": 1}"#, error: "momentum is 1, must be at least 0 and below 1" },
            Reject { json: r#"{"eps": 0}"#, error: "eps is 0, must be above 0 and finite in f32" },
        ]
    }
}

fn main() -> Result<()> {
    let gpu = Gpu::request_blocking()?;

    // The rule is used like any other. Here it finds the least (w - target)^2.
    let target = [2.0f32, -1.0, 0.5];
    let tensors = [TensorSpec::f32("w", [3])];
    let (params, grads) = (Arena::new(&gpu, &tensors)?, Arena::new(&gpu, &tensors)?);
    let mut optimizer = Optimizer::new(&gpu, &tensors, Softsign { lr: 0.05, ..Softsign::default() })?;
    for _ in 0..200 {
        let w = params.read_blocking("w")?;
        let gradient: Vec<f32> = w.iter().zip(target).map(|(w, target)| 2.0 * (w - target)).collect();
        grads.write("w", &gradient)?;
        optimizer.step(&params, &grads)?;
    }
    println!("w after 200 steps: {:.3?}, the target is {target:?}", params.read_blocking("w")?);

    // The harness compares the shader with the formula above, element by element, and tries every refusal.
    let worst = proof::check_rule::<Softsign>(&gpu);
    println!("parity of the GPU and the f32 reference: worst {} ulp", worst.ulps);
    Ok(())
}
