//! Steps of a whole module: against Burn's own optimizer, groups, and what must be refused.

use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::tensor::{Device, DeviceKind, Tensor};
use wgpu_optim::{Clip, Config, Ema, Group, LossScale, SkipNonfinite};
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
fn a_model_is_stepped_on_another_thread_than_the_one_it_was_made_on() {
    let (_turn, device, setup) = device();
    let steps = |mut model: Mlp| {
        let mut fused = Fused::new(&setup, adamw());
        for step in 0..3 {
            let grads = model.grads(step, &device);
            fused.step(LR, &mut model, grads).expect("a step");
        }
        values(&model)
    };
    let model = Mlp::new(&device);
    let (twin, start) = (model.clone(), values(&model));
    let there = std::thread::scope(|scope| scope.spawn(|| steps(twin)).join().expect("steps"));
    let here = steps(model);
    assert_eq!(there, here);
    assert!(largest(&here, &start) > 0.01, "the model has moved");
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
fn the_mean_of_the_parameters_is_a_model_of_its_own() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut fused = Fused::new(&setup, Config::from(adamw()).wrap(Ema { decay: 0.5, debias: false }));
    for step in 0..3 {
        let mut grads = model.grads(step, &device);
        grads.remove::<2>(model.second.weight.id).expect("a gradient");
        fused.step(LR, &mut model, grads).expect("a step");
    }
    let before = values(&model);
    let mean = values(&fused.ema(&model).expect("a mean"));
    assert_eq!(values(&model), before);
    let optimizer = fused.optimizer().expect("made by the first step");
    assert_eq!(mean[0], optimizer.state_blocking("first.weight", "ema").expect("a slot"));
    assert!(mean[0] != before[0]);
    assert_eq!(mean[2], before[2], "the second weight has made no step");
    let mut without = Fused::new(&setup, adamw());
    assert!(without.ema(&model).err().is_some_and(|error| error.to_string().contains("ema")));
}

#[test]
fn the_loss_scale_is_a_tensor() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let scaled = Config::from(adamw()).wrap(LossScale { init: 8.0, ..LossScale::default() });
    let mut fused = Fused::new(&setup, scaled.wrap(SkipNonfinite(true)));
    assert!(matches!(fused.loss_scale(&device), Err(Error::Order { .. })));
    fused.prepare(&model).expect("a model");
    for expected in [8.0, 4.0] {
        let scale = fused.loss_scale(&device).expect("a scale");
        assert_eq!(scale.into_scalar::<f32>(), expected);
        let mut grads = model.grads(0, &device);
        let bias = model.first.bias.as_ref().expect("a bias").id;
        let bad = grads.remove::<1>(bias).expect("a gradient").mul_scalar(f32::INFINITY);
        grads.register(bias, bad);
        fused.step(LR, &mut model, grads).expect("a step");
    }
    assert!(Fused::new(&setup, adamw()).loss_scale(&device).is_err());
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

#[test]
fn tied_parameters_are_refused_and_both_are_named() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    model.second.weight = model.first.weight.clone();
    let error = Fused::new(&setup, adamw()).prepare(&model).expect_err("one parameter twice");
    assert!(error.to_string().starts_with("parameter second.weight: is tied to first.weight"), "{error}");
}

#[test]
fn tensors_that_cannot_be_stepped_are_refused_by_name_and_move_nothing() {
    let (_turn, device, setup) = device();
    // The same adapter as another device, which has its own memory.
    let elsewhere = Device::wgpu(DeviceKind::Cpu);
    let mut model = Mlp::new(&device);
    let (weight, before) = (model.second.weight.clone(), values(&model));
    let mut fused = Fused::new(&setup, adamw());
    let mut step = |model: &mut Mlp, change: &dyn Fn(Tensor<2>) -> Tensor<2>| {
        let mut grads = model.grads(0, &device);
        let grad = grads.remove::<2>(weight.id).expect("a gradient");
        grads.register(weight.id, change(grad));
        fused.step(LR, model, grads).expect_err("a gradient that is refused").to_string()
    };
    let error = step(&mut model, &|grad| grad.to_device(&elsewhere));
    assert!(error.starts_with("gradient second.weight: is on Wgpu(WgpuDevice { kind: Cpu"), "{error}");
    assert!(error.contains(", must be where parameter first.weight is, on Wgpu"), "{error}");
    let error = step(&mut model, &Tensor::from_inner);
    assert_eq!(error, "gradient second.weight: is not a plain tensor of Burn's wgpu backend");
    assert_eq!(values(&model), before);
}

#[cfg(feature = "fusion")]
#[test]
fn a_gradient_that_fusion_could_not_make_is_an_error_and_moves_nothing() {
    use burn::backend::Wgpu;
    use burn_cubecl::fusion::FusionCubeRuntime;
    use burn_fusion::custom::{CustomOpIr, HandleContainer, Operation, OperationIr, StreamId, TensorIr};
    use burn_fusion::{ExecutionError, FusionRuntime};

    #[derive(Debug)]
    struct Fails;

    impl Operation<FusionCubeRuntime> for Fails {
        fn execute(
            &self,
            _handles: &mut HandleContainer<<FusionCubeRuntime as FusionRuntime>::FusionHandle>,
        ) -> Result<(), ExecutionError> {
            Err(ExecutionError::generic("it fails on purpose"))
        }
    }

    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut fused = Fused::new(&setup, adamw());
    let mut grads = model.grads(0, &device);
    let id = model.second.weight.id;
    let good = grads.remove::<2>(id).expect("a gradient");
    let lazy = good.clone().try_into_primitive::<Wgpu>().expect("a tensor of wgpu");
    let output = TensorIr::uninit(lazy.client.create_empty_handle(), lazy.shape.clone(), lazy.dtype);
    let operation = OperationIr::Custom(CustomOpIr::new("fails", &[], &[output]));
    let bad = lazy.client.register(StreamId::current(), operation, Fails).pop().expect("an output");
    grads.register(id, Tensor::<2>::from_primitive::<Wgpu>(bad));
    let before = values(&model);
    let error = fused.step(LR, &mut model, grads).expect_err("a gradient that is not there");
    let message = "parameter first.weight: an operation that makes one of the step's tensors has failed";
    assert_eq!(error.to_string(), message);
    assert_eq!(values(&model), before);
    // The next step is none the worse for it.
    let grads = model.grads(0, &device);
    fused.step(LR, &mut model, grads).expect("a step");
    assert_eq!(fused.optimizer().expect("made by the first step").steps(), 1);
}
