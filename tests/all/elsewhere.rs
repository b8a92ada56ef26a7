//! Trainings that go on elsewhere: with tensors of odd names and shapes or in another order, in another process, on
//! another adapter.

use crate::common::run::{Run, list, resumed};
use crate::common::twin::{fitting, measured};
use crate::common::{gpu, say, say_share, share};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use wgpu_optim::rules::ALL;
use wgpu_optim::{Checkpoint, Config, Gpu, Optimizer, TensorSpec, wgpu};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Names that hold what the names in a file are made of, and much else.
fn oddly_named() -> Vec<TensorSpec> {
    let names = [
        "w",
        "w.m",
        "w.m.v",
        "state.w.m",
        "state.w",
        "param.w",
        "steps.w.v",
        "optimizer.d",
        "d",
        "__metadata__",
        "",
        " ",
        "*",
        "w*",
        "{}",
        "\"q\"",
        "a/b\\c",
        "../../etc",
        "\0\n\t",
        "日本語 ✓",
    ];
    names.into_iter().enumerate().map(|(i, name)| TensorSpec::f32(name, [2 + i, 3])).collect()
}

/// A scalar, tensors without elements, and those of many or thin dimensions.
fn oddly_shaped() -> Vec<TensorSpec> {
    let shapes: [&[usize]; 10] =
        [&[], &[0], &[1], &[0, 3], &[3, 0], &[2, 0, 5], &[1, 7], &[7, 1], &[33, 9], &[2, 1, 3, 2, 2]];
    shapes.into_iter().enumerate().map(|(i, shape)| TensorSpec::f32(format!("t{i}"), shape)).collect()
}

#[test]
fn odd_names_and_shapes_of_every_rule() {
    let Some(gpu) = gpu("odd names and shapes", 2 * ALL.len()) else { return };
    let lists = [oddly_named(), oddly_shaped()];
    let coded = json!({"state_format": "q8", "min_elements": 0, "skip_nonfinite": true, "ema": {"decay": 0.5}});
    let all: Vec<_> = ALL.iter().flat_map(|row| lists.each_ref().map(|list| (row, list))).collect();
    let (tried, all) = (share(all.clone(), 5, 0), all.len());
    say_share("odd names and shapes", tried.len(), all);
    for (turn, (row, list)) in tried.into_iter().enumerate() {
        let mut value = serde_json::to_value(Config::from((row.default)())).unwrap();
        if turn % 2 == 1 {
            value.as_object_mut().unwrap().extend(coded.as_object().unwrap().clone());
        }
        let rule = Config::from((row.default)());
        // Some rules have no format but f32, and some take matrices alone.
        let config = Config::from_value(value).unwrap_or(rule);
        let needs_rows = config.rule().has_products();
        let list: Vec<_> = fitting(&config, list).into_iter().filter(|t| !needs_rows || t.shape.len() > 1).collect();
        let before = |run: &mut Run| run.steps(2);
        let after = |run: &mut Run| {
            if run.optimizer.has_eval() {
                run.optimizer.eval(&run.params).unwrap();
                run.optimizer.train(&run.params).unwrap();
            }
            run.steps(2);
        };
        resumed(&gpu, row.name, config.clone(), &list, before, after);
        resumed(&gpu, row.name, config, &list, |_| (), after);
    }
    for rule in ["adamw", "prodigy", "lbfgs"] {
        let value = json!({"optimizer": rule, "ema": {}, "loss_scale": {"init": 8}});
        resumed(&gpu, "no tensors", config(value), &[], |run| run.steps(2), |run| run.steps(2));
    }
}

#[test]
fn tensors_in_another_order() {
    let Some(gpu) = gpu("tensors in another order", 3) else { return };
    for value in [
        json!({"optimizer": "prodigy"}),
        json!({"optimizer": "adafactor", "accumulate": 2, "groups": [{"tensors": ["w"], "lr": 0.5}]}),
        json!({"optimizer": "schedule_free", "skip_nonfinite": true}),
    ] {
        let what = value.to_string();
        let mut first = Run::new(&gpu, config(value), &list());
        first.steps(1);
        first.step_without(&["w"]);
        if first.optimizer.has_eval() {
            first.optimizer.eval(&first.params).unwrap();
        }
        let checkpoint = Checkpoint::from_bytes(&first.state()).unwrap();
        let turned: Vec<_> = list().into_iter().rev().collect();
        let mut second = Run::of(&gpu, Optimizer::load(&gpu, &turned, &checkpoint).unwrap(), &turned);
        second.optimizer.load_params(&checkpoint, &second.params).unwrap();
        second.taken = first.taken;
        // Sums over tensors add up in another order, so that steps need not have the same bits.
        let back = Checkpoint::from_bytes(&second.state()).unwrap();
        let third = Run::of(&gpu, Optimizer::load(&gpu, &list(), &back).unwrap(), &list());
        third.optimizer.load_params(&back, &third.params).unwrap();
        let mut third = Run { taken: first.taken, ..third };
        for run in [&mut first, &mut third] {
            if run.optimizer.has_eval() {
                run.optimizer.train(&run.params).unwrap();
            }
            run.steps(2);
        }
        assert!(first.state() == third.state(), "{what}");
        second.optimizer.has_eval().then(|| second.optimizer.train(&second.params).unwrap());
        second.steps(2);
        for tensor in list() {
            let [a, b] = [&first, &second].map(|run| run.params.read_blocking(&tensor.name).unwrap());
            let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= 1e-5, "{what}: {} differs by {far}", tensor.name);
        }
    }
}

/// Where the child finds the files, and leaves others beside them.
const FOLDER: &str = "GO_ON_IN";

/// Goes on from each file in the folder.
fn go_on(gpu: &Gpu, folder: &Path) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in files.collect::<Vec<_>>() {
        let checkpoint = Checkpoint::load_from(&path).unwrap();
        let coming = list_of(checkpoint.optimizer());
        let run = Run::of(gpu, Optimizer::load(gpu, &coming, &checkpoint).unwrap(), &coming);
        run.optimizer.load_params(&checkpoint, &run.params).unwrap();
        let mut run = Run { taken: 3, ..run };
        run.steps(2);
        run.optimizer.save_to_blocking(path.with_extension("end"), &run.params, |_, _| ()).unwrap();
    }
}

fn list_of(rule: &str) -> Vec<TensorSpec> {
    let row = ALL.iter().find(|row| row.name == rule).expect("a rule of the registry");
    fitting(&Config::from((row.default)()), &list())
}

#[test]
fn every_rule_goes_on_in_another_process() {
    let Some(gpu) = gpu("trainings that go on in another process", ALL.len()) else { return };
    if let Some(folder) = std::env::var_os(FOLDER) {
        return go_on(&gpu, Path::new(&folder));
    }
    let around = [
        json!({}),
        json!({"skip_nonfinite": true, "ema": {"decay": 0.5}, "lookahead": {"k": 2}, "clip": {"global_norm": 1}}),
        json!({"state_format": "q8", "min_elements": 0, "loss_scale": {"init": 8, "interval": 1}}),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut runs = Vec::new();
    for (turn, row) in ALL.iter().enumerate() {
        let mut value = serde_json::to_value(Config::from((row.default)())).unwrap();
        value.as_object_mut().unwrap().extend(around[turn % 3].as_object().unwrap().clone());
        let config = Config::from_value(value).unwrap_or(Config::from((row.default)()));
        let mut run = Run::new(&gpu, config, &list_of(row.name));
        run.steps(2);
        let path = folder.path().join(row.name).with_extension("safetensors");
        run.optimizer.save_to_blocking(&path, &run.params, |_, _| ()).unwrap();
        runs.push((path, run));
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "elsewhere::every_rule_goes_on_in_another_process"]).env(FOLDER, folder.path());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for (path, mut run) in runs {
        run.steps(2);
        let end = Checkpoint::load_from(path.with_extension("end")).unwrap();
        assert!(end.to_bytes().unwrap() == run.state(), "{}", path.display());
    }
}

#[test]
fn a_training_goes_on_on_each_other_adapter() {
    let Some(gpu) = gpu("trainings that change the adapter", 3) else { return };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let info = |gpu: &Gpu| (gpu.adapter_info().name, gpu.adapter_info().backend);
    let mut others = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    others.retain(|adapter| (adapter.get_info().name, adapter.get_info().backend) != info(&gpu));
    if others.is_empty() {
        return say("skipped: 3 trainings that change the adapter: there is no other");
    }
    for adapter in others {
        let required_limits = wgpu_optim::required_limits(&adapter);
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let other = Gpu::new(&device, &queue);
        for value in [
            json!({"optimizer": "adamw", "accumulate": 2, "loss_scale": {"init": 8, "interval": 1}}),
            json!({"optimizer": "lamb", "ema": {"decay": 0.5}, "lookahead": {"k": 2}, "clip": {"global_norm": 1}}),
            json!({"optimizer": "nadam", "state_format": "q8", "min_elements": 0, "skip_nonfinite": true}),
        ] {
            let what = format!("{value} on {:?}", info(&other));
            let mut first = Run::new(&gpu, config(value), &list());
            first.steps(3);
            let checkpoint = Checkpoint::from_bytes(&first.state()).unwrap();
            let second = Run::of(&other, Optimizer::load(&other, &list(), &checkpoint).unwrap(), &list());
            second.optimizer.load_params(&checkpoint, &second.params).unwrap();
            let mut second = Run { taken: first.taken, ..second };
            first.steps(3);
            second.steps(3);
            if measured(&gpu).is_some() && measured(&gpu) == measured(&other) {
                assert!(first.state() == second.state(), "{what}");
            }
            for tensor in list() {
                let [a, b] = [&first, &second].map(|run| run.params.read_blocking(&tensor.name).unwrap());
                let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far <= 1e-5, "{what}: {} differs by {far}", tensor.name);
            }
        }
        say(&format!("checkpoints: trainings go from {:?} to {:?}", info(&gpu), info(&other)));
    }
}
