//! Records of optimizers, between Burn's and ours in the middle of a training.

use burn::module::ParamGroup;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, LambConfig, LionConfig, ModuleOptimizer,
    MuonConfig, OptimizerRecord, RmsPropConfig, SgdConfig,
};
use burn::tensor::Device;
use wgpu_optim::{
    Adafactor, Adagrad, Adam, AdamW, Adan, Amsgrad, Config, Ema, Lamb, Lion, LossScale, Muon, NovoGrad, RmsProp, Sgd,
    WeightDecay,
};
use wgpu_optim_burn::{Error, Fused};

use super::{LR, Mlp, adamw, device, largest, values};

/// Steps with one optimizer before the other takes over, and steps after that.
const HALF: usize = 5;

/// An optimizer of both, and by how much the parameters may differ after ten steps of 0.01.
struct Pair {
    name: &'static str,
    burn: fn() -> ModuleOptimizer,
    ours: Config,
    tolerance: f32,
}

fn pairs() -> Vec<Pair> {
    let pair = |name, burn, ours: Config, tolerance| Pair { name, burn, ours, tolerance };
    let (lr, eps) = (LR, 1e-5);
    vec![
        pair("adam", || AdamConfig::new().init(), Adam { lr, ..Adam::burn() }.into(), 1e-6),
        pair(
            "adam, amsgrad",
            || AdamConfig::new().with_amsgrad(true).init(),
            Adam { lr, amsgrad: Amsgrad::Raw, ..Adam::burn() }.into(),
            1e-6,
        ),
        pair("adamw", || AdamWConfig::new().init(), adamw().into(), 1e-6),
        pair("sgd", || SgdConfig::new().init(), Sgd { lr, ..Sgd::default() }.into(), 1e-7),
        pair(
            "sgd, momentum",
            || {
                let momentum = MomentumConfig { momentum: 0.9, dampening: 0.1, nesterov: false };
                SgdConfig::new().with_momentum(Some(momentum)).init()
            },
            Sgd { lr, momentum: 0.9, dampening: 0.1, ..Sgd::default() }.into(),
            1e-7,
        ),
        pair(
            "rmsprop",
            || RmsPropConfig::new().with_momentum(0.0).init(),
            RmsProp { lr, eps, ..RmsProp::default() }.into(),
            // A root near eps makes much of a rounding of the gradient: measured 6.5e-6, where parameters moved 0.3.
            5e-5,
        ),
        pair(
            "rmsprop, centered, momentum",
            || RmsPropConfig::new().with_centered(true).init(),
            RmsProp { lr, eps, centered: true, momentum: 0.9, ..RmsProp::default() }.into(),
            // The variance is a difference of two means that nearly cancel: measured 2.7e-5, where parameters moved 1.8.
            1e-4,
        ),
        pair(
            "adagrad",
            || AdaGradConfig::new().with_lr_decay(0.1).init(),
            Adagrad { lr, eps, lr_decay: 0.1, ..Adagrad::default() }.into(),
            1e-6,
        ),
        pair("lion", || LionConfig::new().init(), Lion { lr, ..Lion::default() }.into(), 1e-6),
        pair("lamb", || LambConfig::new().init(), Lamb { lr, ..Lamb::default() }.into(), 1e-6),
        pair("adan", || AdanConfig::new().init(), Adan { lr, ..Adan::default() }.into(), 1e-6),
        pair("adafactor", || AdafactorConfig::new().init(), Adafactor { lr, ..Adafactor::default() }.into(), 1e-6),
        pair(
            "muon, adamw for vectors",
            || {
                let weights = ParamGroup::from_regex("weight$").expect("a pattern");
                ModuleOptimizer::from(AdamWConfig::new().build()).with_group(weights, MuonConfig::new().build(), None)
            },
            Config::from(Muon { lr, weight_decay: WeightDecay::None, ..Muon::default() }).others(adamw()),
            1e-4,
        ),
    ]
}

fn burn_steps(optimizer: &mut ModuleOptimizer, mut model: Mlp, from: usize, device: &Device) -> Mlp {
    for step in from..from + HALF {
        let grads = model.grads(step, device);
        model = optimizer.step(LR, model, grads);
    }
    model
}

fn our_steps(optimizer: &mut Fused, model: &mut Mlp, from: usize, device: &Device) {
    for step in from..from + HALF {
        let grads = model.grads(step, device);
        optimizer.step(LR, model, grads).expect("a step");
    }
}

/// The same record again, by way of its bytes.
fn stored(record: OptimizerRecord) -> OptimizerRecord {
    OptimizerRecord::from_bytes(record.into_bytes().expect("bytes")).expect("a record")
}

#[test]
fn each_goes_on_from_the_others_record() {
    let (_turn, device, setup) = device();
    device.seed(7);
    for Pair { name, burn, ours, tolerance } in pairs() {
        let start = Mlp::new(&device);
        let mut whole = burn();
        let half = burn_steps(&mut whole, start.clone(), 0, &device);
        let expected = values(&burn_steps(&mut whole, half, HALF, &device));

        let mut first = burn();
        let mut model = burn_steps(&mut first, start.clone(), 0, &device);
        let mut second = Fused::new(&setup, ours.clone());
        second.load_record(stored(first.to_record())).expect("a record");
        our_steps(&mut second, &mut model, HALF, &device);
        let to_us = largest(&values(&model), &expected);

        let mut first = Fused::new(&setup, ours);
        let mut model = start.clone();
        our_steps(&mut first, &mut model, 0, &device);
        let mut second = burn().load_record(stored(first.to_record().expect("a record")));
        let to_burn = largest(&values(&burn_steps(&mut second, model, HALF, &device)), &expected);

        let way = largest(&expected, &values(&start));
        eprintln!("{name}: to us {to_us:.1e}, to Burn {to_burn:.1e}, of {way:.1e}");
        assert!(to_us < tolerance && to_burn < tolerance, "{name}: {to_us:e}, {to_burn:e}, may be {tolerance:e}");
        assert!(way > 100.0 * tolerance, "{name} moves by {way:e} only");
    }
}

#[test]
fn state_that_burn_does_not_have_goes_along() {
    let (_turn, device, setup) = device();
    let rules = [
        Config::from(NovoGrad { lr: LR, ..NovoGrad::default() }),
        Config::from(adamw()).wrap(Ema { decay: 0.5, debias: true }),
        Config::from(adamw()).wrap(LossScale { init: 4.0, interval: 3, ..LossScale::default() }),
    ];
    for config in rules {
        let mut model = Mlp::new(&device);
        let mut first = Fused::new(&setup, config.clone());
        our_steps(&mut first, &mut model, 0, &device);
        let mut second = Fused::new(&setup, config.clone());
        second.load_record(stored(first.to_record().expect("a record"))).expect("a record");
        let mut copy = model.clone();
        our_steps(&mut first, &mut model, HALF, &device);
        our_steps(&mut second, &mut copy, HALF, &device);
        assert_eq!(values(&model), values(&copy), "{config:?}");
        let [one, other] = [first, second].map(|mut fused| {
            let optimizer = fused.optimizer().expect("it knows the model");
            optimizer.settle_blocking().expect("steps in order");
            let slots = optimizer.slots("first.weight").expect("a tensor");
            let state = |slot| optimizer.state_blocking("first.weight", slot).expect("a slot");
            (slots.into_iter().map(state).collect::<Vec<_>>(), optimizer.t("first.weight").ok(), optimizer.steps())
        });
        assert!(one == other && one.1 == Some(2 * HALF as u64), "{config:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut lion = LionConfig::new().init();
    let after = burn_steps(&mut lion, model.clone(), 0, &device);
    drop(after);
    let mut fused = Fused::new(&setup, adamw());
    assert_eq!(
        fused.to_record().expect_err("no model").to_string(),
        "the optimizer knows no model; prepare or a step tells it"
    );
    our_steps(&mut fused, &mut model, 0, &device);
    let (mut twin, mut copy) = (Fused::new(&setup, adamw()), model.clone());
    twin.load_record(fused.to_record().expect("a record")).expect("a record");

    let error = fused.load_record(lion.to_record()).expect_err("another rule");
    let bias = "has the fields momentum; adamw has momentum.moment_1, momentum.moment_2";
    assert!(error.to_string().ends_with(bias) && matches!(error, Error::Record { .. }), "{error}");

    let mut novograd = Fused::new(&setup, NovoGrad { lr: LR, ..NovoGrad::default() });
    our_steps(&mut novograd, &mut model.clone(), 0, &device);
    let error = fused.load_record(novograd.to_record().expect("a record")).expect_err("another rule");
    assert!(error.to_string().ends_with("is the state of novograd, the optimizer's rule is adamw"), "{error}");

    let mut other = Fused::new(&setup, adamw());
    our_steps(&mut other, &mut Mlp::new(&device), 0, &device);
    let of_other = other.to_record().expect("a record");
    let error = fused.load_record(of_other).expect_err("another model");
    assert!(error.to_string().ends_with("which the model does not have"), "{error}");

    // The state is as it was.
    our_steps(&mut fused, &mut model, HALF, &device);
    our_steps(&mut twin, &mut copy, HALF, &device);
    assert_eq!(values(&model), values(&copy));
}

#[test]
fn a_record_waits_for_its_model() {
    let (_turn, device, setup) = device();
    let mut model = Mlp::new(&device);
    let mut burn = LionConfig::new().init();
    model = burn_steps(&mut burn, model, 0, &device);
    let mut fused = Fused::new(&setup, AdamW { lr: LR, ..AdamW::burn() });
    fused.load_record(burn.to_record()).expect("the model is not known yet");
    let before = values(&model);
    for _ in 0..2 {
        let grads = model.grads(0, &device);
        let error = fused.step(LR, &mut model, grads).expect_err("another rule");
        assert!(error.to_string().contains("adamw has"), "{error}");
        assert!(fused.prepare(&model).is_err());
    }
    assert_eq!(values(&model), before);
}
