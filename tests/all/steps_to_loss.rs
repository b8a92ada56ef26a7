//! docs/steps-to-loss.md: its tables are those of the records, rows of the records repeat to the bit, and the network's
//! gradient is that of its loss.

#[path = "../../examples/steps_to_loss/network.rs"]
mod network;
#[path = "../../examples/steps_to_loss/record.rs"]
#[allow(dead_code)] // records are read, not written
mod record;
#[path = "../../examples/steps_to_loss/study.rs"]
#[allow(dead_code)] // all trainings at once
mod study;
#[path = "../../examples/steps_to_loss/tables.rs"]
mod tables;
#[path = "../../examples/steps_to_loss/train.rs"]
mod train;

use super::mixed::{data, network::start};
use network::Network;
use record::{Run, Sample, Stored};
use std::path::Path;
use train::Training;
use wgpu_optim::{DType, ParamRounding};

/// What the modules of the example give.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn text(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn runs() -> Vec<Run> {
    record::read(&text("benches/record/steps-to-loss.csv")).unwrap()
}

fn stored() -> Vec<Stored> {
    record::read(&text("benches/record/formats-training.csv")).unwrap()
}

fn network() -> Network {
    Network::new(&data::digits().unwrap())
}

#[test]
fn the_tables_are_those_of_the_records() {
    let document = text("docs/steps-to-loss.md");
    let tables = tables::all(&runs(), &stored()).unwrap();
    assert!(tables::put(&document, &tables).unwrap() == document, "`cargo xtask steps-to-loss --tables` writes them");
}

/// Every training that the tables are of is in the records, once.
#[test]
fn the_records_are_whole() {
    let runs = runs();
    let mut expected = Vec::new();
    for entry in study::entries().unwrap() {
        let best = record::best(&runs, &entry.name).unwrap();
        for lr in study::rates() {
            let seeds = record::SEEDS.filter(|_| entry.every_rate || lr == best);
            expected.extend([record::TUNED_ON].into_iter().chain(seeds).map(|seed| (entry.name.clone(), lr, seed)));
        }
    }
    let sorted = |mut of: Vec<(String, f64, u64)>| {
        of.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        of
    };
    let found = runs.into_iter().map(|run| (run.name, run.lr, run.seed)).collect();
    assert_eq!(sorted(found), sorted(expected));

    let storages = study::storages().unwrap();
    let expected = storages.iter().flat_map(|storage| study::STORED_SEEDS.map(|seed| (storage.name.clone(), seed)));
    let found = stored().into_iter().map(|stored| (stored.name, stored.seed));
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn two_seeds_of_the_first_rule_repeat_to_the_bit() {
    let (network, runs) = (network(), runs());
    let entry = &study::entries().unwrap()[0];
    let lr = record::best(&runs, &entry.name).unwrap();
    for seed in [1, 2] {
        let recorded = runs.iter().find(|run| run.name == entry.name && run.lr == lr && run.seed == seed).unwrap();
        assert_eq!(study::run(&network, entry, lr, seed).unwrap(), *recorded);
    }
}

#[test]
fn a_seed_in_8_bits_repeats_to_the_bit() {
    let storages = study::storages().unwrap();
    let storage = storages.iter().find(|storage| storage.name == "state in q8").unwrap();
    let recorded = stored().into_iter().find(|stored| stored.name == storage.name && stored.seed == 1).unwrap();
    assert_eq!(study::store(&network(), storage, 1).unwrap(), recorded);
}

/// A parameter in bf16 and its remainder are at every step the f32 of a training whose forward pass reads bf16.
#[test]
fn a_remainder_trains_as_f32() {
    let (network, storages) = (network(), study::storages().unwrap());
    let training = |name: &str| {
        let storage = storages.iter().find(|storage| storage.name == name).unwrap();
        Training::new(&network, &storage.config().unwrap(), 1, storage.formats().unwrap()).unwrap()
    };
    let mut whole = training("f32 whose forward pass reads bf16");
    let mut split = training("bf16 and remainder");
    for step in 1..=60 {
        whole.step().unwrap();
        split.step().unwrap();
        for (i, tensor) in start::tensors(network.inputs).iter().enumerate() {
            let remainder = split.optimizer.state(&tensor.name, "remainder").unwrap();
            let together = split.params[i].iter().zip(&remainder);
            let together: Vec<_> =
                together.map(|(&param, &rest)| ParamRounding::whole(param, rest).to_bits()).collect();
            let expected: Vec<_> = whole.params[i].iter().map(|param| param.to_bits()).collect();
            assert!(together == expected, "{}, step {step}", tensor.name);
        }
    }
    assert!(whole.params[0] != split.params[0], "no remainder is other than 0");
}

/// The loss along the gradient and against it, against the gradient.
#[test]
fn gradients_are_those_of_the_loss() {
    let network = network();
    let config = study::storages().unwrap()[0].config().unwrap();
    let mut params = Training::new(&network, &config, 3, [DType::F32; 2]).unwrap().params;
    let all: Vec<usize> = (0..network.train).collect();
    let grads = network.gradients(&params, &all).map(Option::unwrap);
    for (i, grad) in grads.iter().enumerate() {
        let squares: f32 = grad.iter().map(|g| g * g).sum();
        let move_by = 0.01 / squares.sqrt();
        let at = params[i].clone();
        let [ahead, behind] = [move_by, -move_by].map(|move_by| {
            params[i] = &at + &(grad * move_by);
            network.train_loss(&params)
        });
        params[i] = at;
        let slope = (ahead - behind) / (2.0 * move_by);
        // Measured: within 0.0008.
        assert!((slope / squares - 1.0).abs() < 0.005, "tensor {i}: {slope}, expected {squares}");
    }
}

/// The p-values are computed in thirty digits from the density of Student's distribution.
#[test]
fn the_test_of_means_is_welchs() {
    let [a, b] = [&[3.0, 4.0, 1.0, 2.1][..], &[490.2, 340.0, 433.9]].map(Sample::of);
    assert!((tables::welch(a, b).unwrap() - 0.010751561149784488).abs() < 1e-10);
    assert!((tables::welch(b, a).unwrap() - 0.010751561149784488).abs() < 1e-10);
    let [a, b] = [
        &[27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4][..],
        &[27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5, 24.4],
    ]
    .map(Sample::of);
    assert!((tables::welch(a, b).unwrap() - 0.0080719381721948).abs() < 1e-10);
}
