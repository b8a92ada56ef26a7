//! Mixed precision at work: the network of the demo, its gradients in f16, its loss scaled by what the optimizer keeps
//! on the device.

#[path = "../../examples/train_digits/data.rs"]
#[allow(dead_code)] // the reader of MNIST
pub mod data;
#[path = "../../examples/train_digits/network.rs"]
#[allow(dead_code)] // losses of the score
pub mod network;

use crate::common::{gpu, say};
use network::Network;
use wgpu_optim::{AdamW, Config, DType, Gpu, LossScale, NonFinite, Optimizer, StateFormat, StepReport, Storage};

/// What the modules of the demo give.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const EPOCHS: usize = 5;

/// The network after some epochs, its test accuracy, what became of each step, and the scale at the end.
fn train(gpu: &Gpu, grads: DType, scale: Option<LossScale>) -> (Network, f32, Vec<StepReport>, Option<f64>) {
    let mut network = Network::new(gpu, &data::digits().unwrap(), 16, 0, grads).unwrap();
    let config = scale.into_iter().fold(Config::from(AdamW { lr: 0.006, ..AdamW::default() }), Config::wrap);
    let mut optimizer = Optimizer::new(gpu, &network.tensors, config).unwrap();
    if scale.is_some() {
        network.scale_loss(optimizer.loss_scale_buffer().unwrap());
    }
    let mut reports = vec![];
    for epoch in 0..EPOCHS {
        optimizer.set_lr(0.006 * (1.0 - epoch as f64 / EPOCHS as f64)).unwrap();
        network.shuffle();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for batch in &network.batches {
            network.encode_gradients(&mut encoder, batch);
            optimizer.encode(&mut encoder, &network.params, &network.grads).unwrap();
        }
        gpu.queue().submit([encoder.finish()]);
        optimizer.settle_blocking().unwrap();
        reports.extend(optimizer.reports().unwrap());
    }
    let accuracy = network.score().unwrap().test_accuracy;
    let scale = scale.map(|_| optimizer.loss_scale_blocking().unwrap().scale);
    (network, accuracy, reports, scale)
}

#[test]
fn a_scale_that_overflows_comes_down_and_the_network_learns() {
    let Some(gpu) = gpu("mixed precision", 2) else { return };
    let (_, with_f32, reports, _) = train(&gpu, DType::F32, None);
    assert!(reports.iter().all(|report| report.applied));

    let scale = LossScale { init: LossScale::MAX, ..LossScale::default() };
    let (network, with_f16, reports, last) = train(&gpu, DType::F16, Some(scale));
    assert_eq!(reports.len(), EPOCHS * network.batches.len());
    let mut expected = LossScale::MAX;
    for report in &reports {
        assert_eq!(report.scale, expected, "step {}", report.step);
        assert_eq!(report.culprit.as_ref().map(|(_, kind)| *kind), (!report.applied).then_some(NonFinite::Infinite));
        expected *= if report.applied { 1.0 } else { 0.5 };
    }
    assert_eq!(last, Some(expected), "too few steps for the scale to grow");
    let skipped = reports.iter().filter(|report| !report.applied).count();
    let at_first = reports.iter().take_while(|report| !report.applied).count();
    // Measured: 8 skipped, the first of all.
    assert!((4..=12).contains(&skipped) && at_first >= 4, "{skipped} skipped, {at_first} at first");
    for tensor in &network.tensors {
        let values = network.params.read_blocking(&tensor.name).unwrap();
        assert!(values.iter().all(|value| value.is_finite()), "{}", tensor.name);
    }
    // Of 359 images. Measured: 0.983 both.
    assert!(with_f32 > 0.97 && with_f16 > 0.97, "{with_f32} with gradients in f32, {with_f16} in f16");
}

#[test]
fn gradients_in_f16_are_the_rounded_ones() {
    let Some(gpu) = gpu("gradients in f16", 3) else { return };
    let gradients = |format: DType, scale: f64| {
        let data = data::digits().unwrap();
        let mut network = Network::new(&gpu, &data, 16, 0, format).unwrap();
        let scaled = Config::from(AdamW::default()).wrap(LossScale { init: scale, ..LossScale::default() });
        let optimizer = Optimizer::new(&gpu, &network.tensors, scaled).unwrap();
        network.scale_loss(optimizer.loss_scale_buffer().unwrap());
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        network.encode_gradients(&mut encoder, &network.batches[0]);
        gpu.queue().submit([encoder.finish()]);
        let read = |tensor: &wgpu_optim::TensorSpec| network.grads.read_blocking(&tensor.name).unwrap();
        network.tensors.iter().flat_map(read).collect::<Vec<f32>>()
    };
    let exact = gradients(DType::F32, 1.0);
    // 2^24 sends most to infinity; without a scale some are too small for normal numbers of f16.
    for scale in [1.0, 65536.0, LossScale::MAX] {
        let found = gradients(DType::F16, scale);
        assert_eq!(found.len(), exact.len());
        for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
            let wide = exact * scale as f32;
            // Toward zero where the adapter rounds so.
            let nearest = half::f16::from_f32(wide).to_f32();
            let near = (found - wide).abs() <= wide.abs() / 1024.0 + 6e-8;
            let infinite = wide.abs() >= 65520.0;
            assert!(if infinite { *found == nearest } else { near }, "{i}: {found} at {wide}, scale {scale}");
        }
        let infinite = found.iter().filter(|found| found.is_infinite()).count();
        assert_eq!(infinite > 0, scale == LossScale::MAX, "{infinite} infinite with {scale}");
    }
}

/// The mean over the last two epochs' training losses, which hangs less on chance than one.
#[test]
fn coded_state_learns_as_f32_does() {
    let Some(gpu) = gpu("state formats at work", 4) else { return };
    let loss = |storage: Storage| {
        let config = Config::from(AdamW { lr: 0.004, ..AdamW::default() }).wrap(StateFormat::All(storage));
        let mut network = Network::new(&gpu, &data::digits().unwrap(), 32, 0, DType::F32).unwrap();
        let mut optimizer = Optimizer::new(&gpu, &network.tensors, config).unwrap();
        let epochs = (0..6).map(|_| {
            network.shuffle();
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for batch in &network.batches {
                network.encode_gradients(&mut encoder, batch);
                optimizer.encode(&mut encoder, &network.params, &network.grads).unwrap();
            }
            gpu.queue().submit([encoder.finish()]);
            network.score().unwrap().train_loss
        });
        epochs.skip(4).sum::<f32>() / 2.0
    };
    let in_f32 = loss(Storage::F32);
    for (storage, bound) in [(Storage::Bf16, 0.01), (Storage::Q8, 0.01), (Storage::Q4, 0.03)] {
        let found = loss(storage);
        say(&format!("a training with state in {storage}: loss {found}, in f32 {in_f32}"));
        assert!((found / in_f32 - 1.0).abs() < bound, "{storage}: {found}, in f32 {in_f32}");
    }
}
