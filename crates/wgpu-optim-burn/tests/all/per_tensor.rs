//! Burn's trait, which steps a tensor at a time.

use burn::optim::{AdamWConfig, ModuleOptimizer};
use wgpu_optim::{Clip, Config, Group, NovoGrad};
use wgpu_optim_burn::PerTensor;

use super::{LR, Mlp, adamw, device, largest, values};

#[test]
fn a_module_optimizer_of_burn_takes_it() {
    let (_turn, device, setup) = device();
    let mut ours = Mlp::new(&device);
    let mut theirs = ours.clone();
    let (kept, before) = (ours.clone(), values(&ours));
    let mut per_tensor = ModuleOptimizer::from(PerTensor::new(&setup, adamw()).expect("an optimizer"));
    let mut burn: ModuleOptimizer = AdamWConfig::new().init();
    for step in 0..4 {
        let [for_us, for_burn] = [(); 2].map(|()| theirs.grads(step, &device));
        ours = per_tensor.step(LR, ours, for_us);
        theirs = burn.step(LR, theirs, for_burn);
    }
    let difference = largest(&values(&ours), &values(&theirs));
    assert!(difference < 1e-6, "{difference:e}");
    assert_eq!(values(&kept), before);
    // A clone of the optimizer goes on from where it was made.
    let two_steps = |mut optimizer: ModuleOptimizer, mut model: Mlp| {
        for step in 4..6 {
            let grads = model.grads(step, &device);
            model = optimizer.step(LR, model, grads);
        }
        values(&model)
    };
    assert_eq!(two_steps(per_tensor.clone(), ours.clone()), two_steps(per_tensor, ours));
}

#[test]
fn records_go_between_it_and_burn() {
    let (_turn, device, setup) = device();
    let start = Mlp::new(&device);
    let steps = |optimizer: &mut ModuleOptimizer, mut model: Mlp, from: usize| {
        for step in from..from + 3 {
            let grads = model.grads(step, &device);
            model = optimizer.step(LR, model, grads);
        }
        model
    };
    let ours = |config: Config| ModuleOptimizer::from(PerTensor::new(&setup, config).expect("an optimizer"));
    let burn = || AdamWConfig::new().init();
    let mut whole = burn();
    let half = steps(&mut whole, start.clone(), 0);
    let expected = values(&steps(&mut whole, half, 3));
    let mut first = ours(adamw().into());
    let half = steps(&mut first, start.clone(), 0);
    let record = first.to_record();
    let to_burn = steps(&mut burn().load_record(record), half.clone(), 3);
    let to_us = steps(&mut ours(adamw().into()).load_record(first.to_record()), half, 3);
    for model in [to_burn, to_us] {
        let difference = largest(&values(&model), &expected);
        assert!(difference < 1e-6, "{difference:e}");
    }
    // A rule that Burn does not have keeps all of its state, too.
    let novograd = || ours(NovoGrad { lr: LR, ..NovoGrad::default() }.into());
    let mut whole = novograd();
    let half = steps(&mut whole, start, 0);
    let mut second = novograd().load_record(whole.to_record());
    assert_eq!(values(&steps(&mut second, half.clone(), 3)), values(&steps(&mut whole, half, 3)));
}

#[test]
fn groups_are_refused_since_tensors_have_no_names() {
    let (_turn, _device, setup) = device();
    let config = Config::from(adamw()).wrap(Clip::GlobalNorm(1.0));
    assert!(PerTensor::new(&setup, config.clone()).is_ok());
    let error = PerTensor::new(&setup, config.group(Group::new(["*.bias"]))).expect_err("no such name");
    assert!(error.to_string().contains("*.bias"), "{error}");
}
