//! Checkpoints as files: streamed, checked, versioned; damaged ones; a training that is killed while it saves.

use crate::common::memory::peak_bytes;
use crate::common::{example, gpu, say};
use ndarray::ArrayD;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use wgpu_optim::{Arena, Checkpoint, Config, DType, Error, Gpu, Optimizer, Reference, TensorSpec, wgpu};

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// A training that has something of all kinds, and its file.
fn sample(folder: &std::path::Path) -> (Vec<TensorSpec>, Checkpoint, std::path::PathBuf) {
    let list = vec![TensorSpec::f32("w", [3, 5]), TensorSpec::f32("none", [0]), TensorSpec::f32("b.1", [2])];
    let value = json!({"optimizer": "adafactor", "accumulate": 2, "loss_scale": {"init": 8}, "ema": {"decay": 0.5},
        "schedule": {"plateau": {"factor": 0.5, "patience": 0}}, "groups": [{"tensors": ["b*"], "lr": 0.25}]});
    let mut reference = Reference::<f32>::new(&config(value), &list).unwrap();
    let mut params: Vec<_> = list.iter().map(|tensor| ArrayD::from_elem(tensor.shape.clone(), 0.5)).collect();
    for _ in 0..3 {
        let grads: Vec<_> = params.iter().cloned().map(Some).collect();
        reference.step(&mut params, &grads).unwrap();
    }
    reference.feed(1.0).unwrap();
    let mut checkpoint = reference.save().unwrap();
    for (tensor, values) in list.iter().zip(&params) {
        checkpoint.put_param(&tensor.name, values.as_slice().unwrap()).unwrap();
    }
    let path = folder.join("checkpoint.safetensors");
    checkpoint.save_to(&path).unwrap();
    (list, checkpoint, path)
}

#[test]
fn a_file_is_what_was_saved_and_other_programs_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let (list, checkpoint, path) = sample(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    assert_eq!(file.tensor("param.w").unwrap().shape(), [3, 5]);
    assert_eq!(file.tensor("state.w.row").unwrap().shape(), [3, 1]);
    assert_eq!(file.tensor("state.b.1.v").unwrap().shape(), [2]);
    let loaded = Checkpoint::load_from(&path).unwrap();
    assert_eq!(loaded.to_bytes(), Ok(bytes.clone()), "every number and text");
    assert_eq!(checkpoint.to_bytes(), Ok(bytes.clone()));
    assert_eq!(loaded.param("w").unwrap(), checkpoint.param("w").unwrap());
    Reference::<f32>::load(&list, &loaded).unwrap();

    // The file that was there before stays beside it, and nothing else.
    loaded.save_to(&path).unwrap();
    loaded.save_to(&path).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["checkpoint.previous.safetensors", "checkpoint.safetensors"]);
    assert_eq!(std::fs::read(Checkpoint::previous(&path)).unwrap(), bytes);
    let error = checkpoint.save_to(folder.path().join("missing/a")).unwrap_err().to_string();
    assert!(error.contains("missing/a: "), "{error}");
    // A folder in its place stays where it is.
    let mine = folder.path().join("run/mine");
    std::fs::create_dir(folder.path().join("run")).unwrap();
    std::fs::write(&mine, "mine").unwrap();
    std::fs::create_dir(folder.path().join("b.previous.safetensors")).unwrap();
    for name in ["run", "run/", "run/..", "b.safetensors"] {
        let error = checkpoint.save_to(folder.path().join(name)).unwrap_err().to_string();
        assert!(error.ends_with(": is a folder, must be a file"), "{error}");
    }
    assert!(mine.exists());
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (list, _, path) = sample(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged");
    let load = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        Checkpoint::load_from(&damaged).and_then(|checkpoint| Reference::<f32>::load(&list, &checkpoint))
    };
    let refused = |bytes: &[u8], text: &str| {
        let error = load(bytes).unwrap_err().to_string();
        assert!(error.contains(text), "{error}, expected {text}");
    };
    load(&bytes).unwrap();
    for part in 0..64 {
        refused(&bytes[..bytes.len() * part / 64], "is cut short: ");
    }
    refused(&[&bytes[..], &[0]].concat(), "bytes of values, expected");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for bit in 0..8 * bytes.len() {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // White space behind the header says nothing.
        let blank = bit / 8 < header && bytes[bit / 8..header].iter().all(|&byte| byte == b' ');
        let loaded = Checkpoint::from_bytes(&changed).and_then(|loaded| Reference::<f32>::load(&list, &loaded));
        assert!(loaded.is_err() || blank, "bit {bit} of a header of {header} bytes");
    }
    let with_header = |from: &str, to: &str| {
        let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        let text = text.replacen(from, to, 1);
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[header..]].concat()
    };
    refused(
        &with_header("checkpoint/2", "checkpoint/3"),
        "format: is wgpu-optim.checkpoint/3, must be wgpu-optim.checkpoint/2 or an earlier version",
    );
    refused(&with_header("checkpoint/2", "checkpoint/1"), "version: is 2, expected 1, that of the format");
    refused(&with_header("\"param.none\":{", "\"param.w\":{"), "param.w is there twice");
    refused(&with_header("\"state.w.row\":{", "\"state.w.other\":{"), "state.w.other: has another checksum");
    refused(&with_header("\"data_offsets\":[0,", "\"data_offsets\":[4,"), "expected from 0 on");
    let huge = "\"data_offsets\":[0,9223372036854775808]";
    refused(&with_header("\"data_offsets\":[0,8]", huge), "is cut short: ends at byte 9223372036854775808");
    let huge = [&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat();
    refused(&huge, "header: is 18446744073709551615 bytes long, must be at most 100000000");
}

/// The names of values in a file.
fn names(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let mut names: Vec<_> =
        safetensors::SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(String::from).collect();
    names.sort();
    names
}

#[test]
fn what_is_streamed_is_what_is_saved_in_memory() {
    let Some(gpu) = gpu("checkpoints that are streamed", 3) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let list = [
        TensorSpec::f32("w", [3, 700]),
        TensorSpec::f32("none", [0]),
        TensorSpec::f32("half", [3]).with_dtype(DType::F16),
        TensorSpec::f32("long", [(5 << 20) / 4 + 3]),
    ];
    for value in [
        json!({"optimizer": "adafactor", "accumulate": 2, "ema": {"decay": 0.5}}),
        json!({"optimizer": "prodigy", "loss_scale": {"init": 8}}),
        json!({"optimizer": "lbfgs", "history_size": 3}),
    ] {
        let what = value.to_string();
        let params = Arena::new(&gpu, &list).unwrap();
        let grads = Arena::new(&gpu, &list.each_ref().map(TensorSpec::grad_spec)).unwrap();
        let mut optimizer = Optimizer::new(&gpu, &list, config(value)).unwrap();
        for step in 0..3 {
            for (i, tensor) in list.iter().enumerate() {
                let values: Vec<f32> =
                    (0..tensor.len_elements()).map(|n| ((n as usize + i + step) % 7) as f32).collect();
                grads.write(&tensor.name, &values).unwrap();
            }
            optimizer.step(&params, &grads).unwrap();
        }
        let mut told = vec![];
        optimizer.save_to_blocking(&path, &params, |done, all| told.push((done, all))).unwrap();
        let mut checkpoint = optimizer.save_blocking().unwrap();
        for tensor in &list {
            checkpoint.put_param(&tensor.name, &params.read_blocking(&tensor.name).unwrap()).unwrap();
        }
        let [streamed, saved] = [Checkpoint::load_from(&path), Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap())];
        assert!(streamed.unwrap().to_bytes() == saved.unwrap().to_bytes(), "{what}");
        let all = told[0].1;
        assert!(told.windows(2).all(|two| two[0].0 < two[1].0) && told.last() == Some(&(all, all)), "{what}: {told:?}");

        // What is the whole model's is there once.
        let of_model = names(&path).into_iter().filter(|name| name.starts_with("optimizer."));
        assert_eq!(of_model.count() > 0, !what.contains("adafactor"), "{what}");

        let (loaded, refused) = Checkpoint::load_latest(&path, |_, _| ()).unwrap();
        assert_eq!(refused, None);
        let mut second = Optimizer::load(&gpu, &list, &loaded).unwrap();
        let copy = Arena::new(&gpu, &list).unwrap();
        second.load_params(&loaded, &copy).unwrap();
        optimizer.step(&params, &grads).unwrap();
        second.step(&copy, &grads).unwrap();
        for tensor in &list {
            let [first, second] = [&params, &copy].map(|arena| arena.read_blocking(&tensor.name).unwrap());
            assert!(
                first.iter().map(|p| p.to_bits()).eq(second.iter().map(|p| p.to_bits())),
                "{what}: {}",
                tensor.name
            );
        }
        let [first, second] =
            [&mut optimizer, &mut second].map(|optimizer| optimizer.save_blocking().unwrap().to_bytes());
        assert!(first == second, "{what}");
    }
    // A checkpoint without parameters writes none.
    let plain = Optimizer::new(&gpu, &list, config(json!({"optimizer": "sgd"}))).unwrap();
    let bare = Reference::<f32>::new(&config(json!({"optimizer": "sgd"})), &list).unwrap().save().unwrap();
    let error = plain.load_params(&bare, &Arena::new(&gpu, &list).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "checkpoint: param.w: is missing");
}

#[test]
fn a_file_is_saved_and_loaded_in_parts() {
    let Some(gpu) = gpu("the memory of a checkpoint", 3) else { return };
    // 192 MiB of values, whatever their format on the device.
    let list = [TensorSpec::f32("first", [4096, 2048]), TensorSpec::f32("second", [8 << 20])];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &list).unwrap());
    let counts = gpu.adapter_info().backend != wgpu::Backend::Gl;
    for format in ["f32", "bf16", "q8"] {
        let value = json!({"optimizer": "adam", "state_format": format});
        let mut optimizer = Optimizer::new(&gpu, &list, config(value)).unwrap();
        optimizer.step(&params, &grads).unwrap();
        optimizer.settle_blocking().unwrap();

        let saving = || optimizer.save_to_blocking(&path, &params, |_, _| ());
        let (saved, host, device) = peaks(&gpu, saving);
        saved.unwrap();
        let of = |host: u64, device: u64| format!("{host} bytes of the host's memory and {device} of the device's");
        say(&format!("checkpoint of 192 MiB, state in {format}: saving takes {}", of(host, device)));
        assert!(host + device < 64 << 20, "{format}: {host} and {device}");
        assert!(host >= 4 << 20, "counted: {host}");
        assert!(!counts || device >= 4 << 20, "counted: {device}");

        drop(optimizer);
        let (loaded, host, device) = peaks(&gpu, || Checkpoint::load_from(&path).unwrap());
        assert!(host < 16 << 20 && device == 0, "{format}: {host} and {device}");
        let (second, host, device) = peaks(&gpu, || {
            let second = Optimizer::load(&gpu, &list, &loaded).unwrap();
            second.load_params(&loaded, &params).unwrap();
            second
        });
        let staged = if counts { device - second.memory().total() } else { 0 };
        say(&format!("state in {format}: loading takes {}", of(host, staged)));
        assert!(host + staged < 64 << 20, "{format}: {host} and {staged}");
        assert!(host >= 4 << 20, "counted: {host}");
        assert!(!counts || staged >= 4 << 20, "counted: {staged}");
    }
    // So it is where the caller writes tensor by tensor: 256 MiB here.
    let values = vec![0.5; 8 << 20];
    let write = || (0..8).try_for_each(|i| params.write(&list[i % 2].name, &values));
    let (written, _, staged) = peaks(&gpu, write);
    written.unwrap();
    say(&format!("writing 256 MiB to an arena takes {staged} bytes of the device's memory"));
    assert!(staged < 64 << 20, "{staged}");
    assert!(!counts || staged >= 4 << 20, "counted: {staged}");
    if !counts {
        say("skipped: 7 counts of memory that a checkpoint takes: wgpu counts no bytes over GL");
    }
}

/// The most bytes of the host's and of the device's memory that this takes beyond those that were taken before. A
/// thread reads what wgpu counts, over and over.
fn peaks<T>(gpu: &Gpu, run: impl FnOnce() -> T) -> (T, u64, u64) {
    let on_device = || gpu.device().get_internal_counters().hal.buffer_memory.read() as u64;
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let (before, most, is_done) = (on_device(), AtomicU64::new(0), AtomicBool::new(false));
    let (made, host) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                most.fetch_max(on_device().saturating_sub(before), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let made = peak_bytes(run);
        is_done.store(true, Ordering::Relaxed);
        made
    });
    (made, host, most.into_inner())
}

#[test]
fn a_file_that_changes_once_it_was_checked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (list, _, path) = sample(folder.path());
    let loaded = Checkpoint::load_from(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Reference::<f32>::load(&list, &loaded).unwrap_err().to_string();
    assert_eq!(error, "checkpoint: file: has changed since it was checked");
}

#[test]
fn the_file_before_is_loaded_where_the_first_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (_, checkpoint, path) = sample(folder.path());
    let latest = || Checkpoint::load_latest(&path, |_, _| ());
    let bytes = std::fs::read(&path).unwrap();
    checkpoint.save_to(&path).unwrap();
    assert_eq!(latest().unwrap().1, None);
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let (loaded, refused) = latest().unwrap();
    assert_eq!(loaded.to_bytes(), Ok(bytes));
    let text = refused.unwrap().to_string();
    assert!(text.starts_with(&path.display().to_string()) && text.contains("is cut short"), "{text}");
    std::fs::remove_file(Checkpoint::previous(&path)).unwrap();
    let error = latest().unwrap_err();
    assert!(matches!(&error, Error::File { .. }) && error.to_string().contains("is cut short"), "{error}");
}

#[test]
fn the_demo_says_that_it_goes_on_from_the_file_before() {
    if gpu("a demo that is resumed", 1).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let demo = example("train_digits");
    let run = || {
        let options = ["--epochs", "2", "--batch", "256", "--resume", "--save", "run"];
        let output = Command::new(&demo).args(options).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert!(!run().contains("resumed"));
    let path = folder.path().join("run/checkpoint.safetensors");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let said = run();
    assert!(said.contains("resumed    from the checkpoint before: ") && said.contains("is cut short"), "{said}");
    assert!(std::fs::read(&path).unwrap() == whole, "other bits");
}

/// The file as version 1 had it, in which each tensor has what is the whole model's.
fn of_version_1(bytes: &[u8], tensors: &[TensorSpec]) -> Vec<u8> {
    let (len, metadata) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    let data = &bytes[8 + len..];
    let text = metadata.metadata().as_ref().unwrap();
    let mut sums: serde_json::Map<String, Value> = serde_json::from_str(&text["crc32c"]).unwrap();
    let mut values = vec![];
    for (name, info) in metadata.tensors() {
        let of = &data[info.data_offsets.0..info.data_offsets.1];
        match name.strip_prefix("optimizer.") {
            None => values.push((name, info.shape.clone(), of)),
            Some(slot) => {
                let sum = sums.remove(&name).unwrap();
                for tensor in tensors {
                    let name = format!("state.{}.{slot}", tensor.name);
                    sums.insert(name.clone(), sum.clone());
                    values.push((name, info.shape.clone(), of));
                }
            }
        }
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    let training = text["training"].replacen("{\"version\":2", "{\"version\":1", 1);
    let sums = Value::from(sums).to_string();
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(format!("{training}{sums}").as_bytes());
    let metadata = json!({"format": "wgpu-optim.checkpoint/1", "training": training, "crc32c": sums,
        "crc32c_of_metadata": format!("{sum:08x}")});
    header.insert("__metadata__".into(), metadata);
    for (name, shape, of) in &values {
        let to = end + of.len();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [end, to]}));
        end = to;
    }
    let header = Value::from(header).to_string();
    let mut file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    values.iter().for_each(|(.., of)| file.extend(*of));
    file
}

#[test]
fn a_file_of_version_1_is_read() {
    let list = [TensorSpec::f32("w", [40]), TensorSpec::f32("b", [3])];
    for value in [json!({"optimizer": "lbfgs", "history_size": 10}), json!({"optimizer": "prodigy"})] {
        let mut first = Reference::<f32>::new(&config(value), &list).unwrap();
        let mut params: Vec<_> = list.iter().map(|tensor| ArrayD::from_elem(tensor.shape.clone(), 0.5f32)).collect();
        let step = |reference: &mut Reference<f32>, params: &mut Vec<ArrayD<f32>>| {
            let grads: Vec<_> = params.iter().map(|values| Some(values.mapv(|p| 2.0 * p - 0.3))).collect();
            reference.step(params, &grads).unwrap();
        };
        (0..3).for_each(|_| step(&mut first, &mut params));
        let bytes = first.save().unwrap().to_bytes().unwrap();
        let old = of_version_1(&bytes, &list);
        let checkpoint = Checkpoint::from_bytes(&old).unwrap();
        let mut second = Reference::<f32>::load(&list, &checkpoint).unwrap();
        assert_eq!(second.save().unwrap().to_bytes(), Ok(bytes));
        // As it was read it is written again.
        let again = Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap()).unwrap();
        Reference::<f32>::load(&list, &again).unwrap();
        let mut copy = params.clone();
        step(&mut first, &mut params);
        step(&mut second, &mut copy);
        assert_eq!(params, copy);
    }
}

/// Compiles what kills a program at one of its system calls; or says why there is none.
fn killer(folder: &Path) -> Result<PathBuf, String> {
    if !cfg!(target_os = "linux") {
        return Err("it traces a process as Linux does".into());
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/killer/killer.c");
    let killer = folder.join("killer");
    match Command::new("cc").args(["-O1", "-o"]).args([&killer, Path::new(source)]).output() {
        Err(error) => return Err(format!("there is no C compiler: {error}")),
        Ok(output) if !output.status.success() => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Ok(_) => {}
    }
    match Command::new(&killer).args(["0", "/bin/true"]).output().unwrap().status.success() {
        true => Ok(killer),
        false => Err("no process may trace another".into()),
    }
}

/// How many trainings are killed, at calls drawn from a seed that is printed. `KILL_SEED` repeats one.
const KILLS: u64 = 30;

#[test]
fn a_training_that_is_killed_and_resumed_ends_with_the_same_bits() {
    if gpu("trainings that are killed", 1).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let killer = match killer(folder.path()) {
        Ok(killer) => killer,
        Err(why) => return say(&format!("skipped: {KILLS} trainings that are killed: {why}")),
    };
    let demo = example("train_digits");
    // The exit code, and how many calls there were.
    let run = |name: &str, at: u64| {
        let ended = Command::new(&killer)
            .arg(at.to_string())
            .arg(&demo)
            .args(["--epochs", "4", "--batch", "256", "--resume", "--save", name])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let calls = said.lines().last().and_then(|line| line.strip_suffix(" calls")?.parse().ok());
        (ended.status.code(), calls.unwrap_or_else(|| panic!("{said}")))
    };
    let file = |name: &str| std::fs::read(folder.path().join(name).join("checkpoint.safetensors")).unwrap();
    let (code, all): (_, u64) = run("whole", 0);
    assert_eq!(code, Some(0));
    let (whole, before) = (file("whole"), run("whole", 0).1);
    assert!(before < all, "{before} calls without an epoch, {all} with four");

    let drawn = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var("KILL_SEED").map_or(drawn, |seed| seed.parse().expect("KILL_SEED is a number"));
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let (mut trainings, mut killed) = (0, 0);
    while killed < KILLS {
        trainings += 1;
        let name = format!("training {trainings}");
        loop {
            // Every other one comes once the device is there and something is loaded.
            let at = if killed % 2 == 0 { rng.random_range(before..=all) } else { rng.random_range(1..=all) };
            match run(&name, if killed < KILLS { at } else { 0 }).0 {
                Some(0) => break,
                Some(137) => killed += 1,
                code => panic!("seed {seed}: exit code {code:?}"),
            }
        }
        assert!(file(&name) == whole, "seed {seed}, {name}");
    }
    say(&format!("{killed} kills in {trainings} trainings at calls 1 to {all}, seed {seed}: the same bits"));
}
