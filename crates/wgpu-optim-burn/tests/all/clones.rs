//! Whatever holds a parameter keeps its numbers, wherever the parameter came from and in any pool of memory.

use std::process::Command;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Tensor, TensorData};
use wgpu_optim_burn::Fused;

use super::{EXCLUSIVE, LR, Mlp, adamw, device, largest, values};

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
    assert_eq!(fused.copies(), 0, "nothing is copied, clones or not");
}

/// Steps of both optimizers from this model on, each with the gradients of Burn's. Returns how often ours copied.
fn goes_as_with_burn(model: Mlp) -> u64 {
    let (_turn, device, setup) = device();
    let (kept, before) = (model.clone(), values(&model));
    let (mut ours, mut theirs) = (model.clone(), model);
    let mut fused = Fused::new(&setup, adamw());
    let mut burn: ModuleOptimizer = AdamWConfig::new().init();
    for step in 0..3 {
        let [for_us, for_burn] = [(); 2].map(|()| theirs.grads(step, &device));
        fused.step(LR, &mut ours, for_us).expect("a step");
        theirs = burn.step(LR, theirs, for_burn);
    }
    let difference = largest(&values(&ours), &values(&theirs));
    assert!(difference < 1e-6, "{difference:e}");
    assert!(largest(&values(&ours), &before) > 0.01, "the model has moved");
    assert_eq!(values(&kept), before);
    fused.copies()
}

fn fresh() -> Mlp {
    let (_turn, device, _setup) = device();
    Mlp::new(&device)
}

#[test]
fn parameters_of_a_loaded_record_are_stepped_in_shared_pages() {
    let model = fresh();
    let record = model.clone().into_record();
    let loaded = fresh().load_record(record);
    assert_eq!(values(&loaded), values(&model));
    assert_eq!(goes_as_with_burn(loaded), 0);
}

#[test]
fn parameters_from_tensors_and_after_steps_of_burn_are_stepped() {
    let mut model = fresh();
    {
        let (_turn, device, _setup) = device();
        let weight = Tensor::from_data(TensorData::new(vec![0.1f32; 33 * 5], [33, 5]), &device).require_grad();
        model.second = Linear { weight: Param::from_tensor(weight), ..model.second };
        let grads = model.grads(9, &device);
        model = AdamWConfig::new().init().step(LR, model, grads);
    }
    assert_eq!(goes_as_with_burn(model), 0);
}

#[test]
fn a_transposed_parameter_is_copied_once() {
    let mut model = fresh();
    {
        let (_turn, device, _setup) = device();
        let weight = LinearConfig::new(33, 16).init(&device).weight.val().inner().transpose();
        let weight = Tensor::from_inner(weight).require_grad();
        model.first = Linear { weight: Param::from_tensor(weight), ..model.first };
    }
    assert_eq!(goes_as_with_burn(model), 1);
}

#[test]
fn all_tests_pass_where_each_allocation_has_a_buffer() {
    if std::env::var_os(EXCLUSIVE).is_some() {
        return; // This is that run.
    }
    let program = std::env::current_exe().expect("the tests' own path");
    let output = Command::new(program).env(EXCLUSIVE, "1").output().expect("a run of the tests");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test clones::clones_and_earlier_graphs_stay_as_they_were ... ok"), "{text}");
}

#[test]
fn memory_is_flat_over_many_steps() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut fused = Fused::new(&setup, adamw());
    let mut reserved = Vec::new();
    for step in 0..2000 {
        let grads = model.grads(step, &device);
        fused.step(LR, &mut model, grads).expect("a step");
        if step % 500 == 499 {
            let _numbers = values(&model);
            let report = setup.device.generate_allocator_report().expect("the backend counts its memory");
            reserved.push(report.total_allocated_bytes);
        }
    }
    eprintln!("bytes allocated after each 500 steps: {reserved:?}");
    // Less than the parameters of two steps.
    assert!(reserved[1..].iter().all(|&bytes| bytes < reserved[0] + 4096), "{reserved:?}");
}
