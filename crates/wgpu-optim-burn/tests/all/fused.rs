//! Steps of a whole module: against Burn's own optimizer, groups, and what must be refused.

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Tensor, TensorData};
use wgpu_optim::{Clip, Config, Ema, Group, SkipNonfinite};
use wgpu_optim_burn::{Error, Fused};

use super::{LR, Mlp, adamw, device, largest, values};

#[test]
fn numbers_are_those_of_burns_adamw() {
    let (_turn, device, setup) = device();
    let mut ours = Mlp::new(&device);
    let mut theirs = ours.clone();
    let start = values(&ours);
    let mut fused = Fused::new(&setup, adamw());
    let mut burn: ModuleOptimizer = AdamWConfig::new().init();
    for step in 0..20 {
        // Both take the gradients of one model.
        let [for_us, for_burn] = [(); 2].map(|()| theirs.grads(step, &device));
        fused.step(LR, &mut ours, for_us).expect("a step");
        theirs = burn.step(LR, theirs, for_burn);
    }
    let (difference, way) = (largest(&values(&ours), &values(&theirs)), largest(&start, &values(&ours)));
    eprintln!("after 20 steps of Burn's AdamW and ours: largest difference {difference:e}, way {way:e}");
    assert!(difference < 2e-6 && way > 0.05, "{difference:e}");
}

#[test]
fn clones_and_earlier_graphs_stay_as_they_were() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut fused = Fused::new(&setup, adamw());
    let grads = model.grads(0, &device);
    fused.step(LR, &mut model, grads).expect("a step");
    let (best, before) = (model.clone(), values(&model));
    let batch = Tensor::from_data(TensorData::new(vec![0.5f32; 16], [1, 16]), &device);
    let graph = model.forward(batch.clone()).sum();
    let expected = GradientsParams::from_grads(model.forward(batch).sum().backward(), &model);
    let expected = expected.get::<2>(model.first.weight.id).expect("a gradient").into_data();
    for step in 1..4 {
        let grads = model.grads(step, &device);
        fused.step(LR, &mut model, grads).expect("a step");
    }
    assert_eq!(values(&best), before);
    assert!(largest(&values(&model), &before) > 0.01, "the model itself has moved");
    let found = GradientsParams::from_grads(graph.backward(), &best);
    let found = found.get::<2>(best.first.weight.id).expect("a gradient").into_data();
    assert_eq!(found.try_to_vec::<f32>().ok(), expected.try_to_vec::<f32>().ok());
}

#[test]
fn groups_and_wrappers_know_parameters_by_their_paths() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let group = Group::new(["second.*"]).set("lr", 0.0).set("weight_decay", "none");
    let config = Config::from(adamw()).group(group).wrap(Clip::GlobalNorm(1.0)).wrap(SkipNonfinite(true));
    let mut fused = Fused::new(&setup, config.wrap(Ema { decay: 0.5, debias: false }));
    let start = values(&model);
    for step in 0..2 {
        let grads = model.grads(step, &device);
        fused.step(LR, &mut model, grads).expect("a step");
    }
    let found = values(&model);
    assert!(largest(&found[..2], &start[..2]) > 0.01 && found[2..] == start[2..], "the second layer has no rate");
    // A step that is skipped leaves the numbers, in memory of their own.
    let mut grads = model.grads(2, &device);
    let id = model.first.bias.as_ref().expect("a bias").id;
    let bad = grads.remove::<1>(id).expect("a gradient").mul_scalar(f32::INFINITY);
    grads.register(id, bad);
    fused.step(LR, &mut model, grads).expect("a step");
    assert_eq!(values(&model), found);
    let optimizer = fused.optimizer().expect("made by the first step");
    optimizer.settle_blocking().expect("steps in order");
    assert_eq!(optimizer.t("first.weight").expect("a known tensor"), 2);
}

#[test]
fn what_has_no_gradient_is_left_alone() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut fused = Fused::new(&setup, adamw());
    let start = values(&model);
    let mut grads = model.grads(0, &device);
    grads.remove::<2>(model.second.weight.id).expect("a gradient");
    fused.step(LR, &mut model, grads).expect("a step");
    let found = values(&model);
    assert_eq!(found[2], start[2]);
    assert!(found[0] != start[0] && found[3] != start[3]);
}

#[test]
fn another_model_and_bad_options_are_refused_and_move_nothing() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut fused = Fused::new(&setup, adamw());
    let grads = model.grads(0, &device);
    fused.step(LR, &mut model, grads).expect("a step");
    let mut other = Mlp::new(&device);
    let before = values(&other);
    let grads = other.grads(0, &device);
    let error = fused.step(LR, &mut other, grads).expect_err("another model");
    assert!(matches!(error, Error::Model { .. }), "{error}");
    assert!(error.to_string().starts_with("the model has first.weight of shape [16, 33], id"), "{error}");
    assert_eq!(values(&other), before);
    let before = values(&model);
    let grads = model.grads(1, &device);
    let error = fused.step(-1.0, &mut model, grads).expect_err("a rate below 0");
    assert_eq!(error.to_string(), "lr is -1, must be at least 0 and finite");
    assert_eq!(values(&model), before);
    let mut fused = Fused::new(&setup, Config::from(adamw()).group(Group::new(["third.*"])));
    let grads = model.grads(1, &device);
    let error = fused.step(LR, &mut model, grads).expect_err("a group of nothing");
    assert!(error.to_string().contains("third.*"), "{error}");
    assert_eq!(values(&model), before);
}
