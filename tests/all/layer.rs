//! A Vulkan layer fails the k-th allocation, submit or wait of a short training, for every k: each is an error, and
//! the training goes on or is rebuilt.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{gpu, say};
use ndarray::ArrayD;
use serde_json::json;
use wgpu_optim::wgpu::Backend;
use wgpu_optim::{Arena, Config, Error, Gpu, Optimizer, Reference, Result, TensorSpec};

const TEST: &str = "layer::every_call_that_fails_is_an_error_and_the_training_goes_on";
const STEPS: u64 = 3;

/// Why the child gave up: the device is lost, and must be opened anew.
struct Lost;

/// Calls until it succeeds; what failed must be an error that says so, and the call must go another time.
fn again<T>(what: &str, mut call: impl FnMut() -> Result<T>) -> std::result::Result<T, Lost> {
    match call() {
        Ok(made) => Ok(made),
        Err(Error::DeviceLost(_)) => Err(Lost),
        Err(Error::Wgpu(message)) => {
            println!("told: {what}: {message}");
            Ok(call().unwrap_or_else(|error| panic!("{what}, once more: {error}")))
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The training's parameters, by the reference and by the device.
fn train() -> std::result::Result<(), Lost> {
    let config = || Config::from_value(json!({"optimizer": "adam", "clip": {"global_norm": 1}})).unwrap();
    let tensors = [TensorSpec::f32("w", [3000]), TensorSpec::f32("b", [5])];
    let gpu = again("request", Gpu::request_blocking)?;
    let params = again("params", || Arena::new(&gpu, &tensors))?;
    let grads = again("grads", || Arena::new(&gpu, &tensors))?;
    again("write", || grads.write("w", &[0.5; 3000]))?;
    let mut optimizer = again("optimizer", || Optimizer::new(&gpu, &tensors, config()))?;
    let mut reference = Reference::<f32>::new(&config(), &tensors).unwrap();
    let mut values = tensors.each_ref().map(|tensor| ArrayD::<f32>::zeros(tensor.shape.clone()));
    let of_reference = [Some(ArrayD::from_elem(vec![3000], 0.5)), Some(ArrayD::zeros(vec![5]))];
    for _ in 0..STEPS {
        let known = optimizer.steps();
        let step = again("step", || optimizer.step(&params, &grads));
        if step.is_err() {
            assert_eq!(optimizer.steps(), known, "a step on a lost device counts");
            let calls = [params.read_blocking("w").map(drop), optimizer.step(&params, &grads)];
            assert!(calls.iter().all(|result| matches!(result, Err(Error::DeviceLost(_)))), "{calls:?}");
            return Err(Lost);
        }
        reference.step(&mut values, &of_reference).unwrap();
    }
    again("settle", || optimizer.settle_blocking())?;
    assert_eq!((optimizer.steps(), optimizer.reports().unwrap().len() as u64), (STEPS, STEPS));
    for (tensor, expected) in tensors.iter().zip(&values) {
        let found = again("read", || params.read_blocking(&tensor.name))?;
        assert!(found.iter().eq(expected), "{}: the parameters are not the reference's", tensor.name);
    }
    let saved = again("save", || optimizer.save_blocking())?;
    again("load", || Optimizer::load(&gpu, &tensors, &saved))?;
    Ok(())
}

fn child() {
    // One call fails, so the second training is whole.
    if train().is_err() {
        println!("told: lost");
        assert!(train().is_ok(), "lost again");
    }
}

/// Compiles the layer into a folder, and writes what the Vulkan loader reads of it.
fn build(folder: &Path) -> std::result::Result<(), String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layer/failing.c");
    let library = folder.join("libfailing.so");
    // The loader closes layers with their instance; the count of calls must outlive that.
    let options = ["-shared", "-fPIC", "-Wl,-z,nodelete", "-o"];
    let compiled = Command::new("cc").args(options).args([&library, Path::new(source)]).output();
    match compiled {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return Err(format!("cc: {error}")),
    }
    let manifest = json!({"file_format_version": "1.1.0", "layer": {
        "name": "VK_LAYER_failing", "type": "GLOBAL", "library_path": library, "api_version": "1.3.0",
        "implementation_version": "1", "description": "fails one call"
    }});
    std::fs::write(folder.join("failing.json"), manifest.to_string()).unwrap();
    Ok(())
}

#[test]
fn every_call_that_fails_is_an_error_and_the_training_goes_on() {
    if std::env::var_os("FAIL_KIND").is_some() {
        return child();
    }
    let Some(gpu) = gpu("calls that fail", 3) else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = match gpu.adapter_info().backend {
        Backend::Vulkan => build(folder.path()),
        other => Err(format!("the adapter is one of {other}, not of Vulkan")),
    };
    if let Err(why) = built {
        return say(&format!("skipped: 3 kinds of calls that fail: {why}"));
    }
    let run = |kind: &str, at: usize| -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]).env("FAIL_KIND", kind).env("FAIL_AT", at.to_string());
        command.env("VK_LAYER_PATH", folder.path()).env("VK_INSTANCE_LAYERS", "VK_LAYER_failing").output().unwrap()
    };
    for kind in ["allocate", "submit", "wait"] {
        let mut told = 0;
        for at in 1.. {
            let output = run(kind, at);
            let [out, said] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
            assert!(output.status.success(), "{kind} {at}: {out}\n{said}");
            if !said.contains("layer: ") {
                break;
            }
            told += usize::from(out.contains("told: "));
        }
        say(&format!("calls that fail: {told} of {kind}"));
        assert!(told > 0, "no {kind} failed");
    }
}
