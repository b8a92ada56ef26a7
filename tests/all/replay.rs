//! The tests run the example `replay` as a process: they check its files, its exit codes and what it refuses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::common::example;
use crate::common::twin::bound;
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tempfile::TempDir;

/// The example.
static REPLAY: LazyLock<PathBuf> = LazyLock::new(|| example("replay"));

type Entries = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A folder with a run to replay, which a test may spoil.
struct Run {
    folder: TempDir,
    config: String,
    recording: Entries,
    expected: Entries,
}

impl Run {
    fn of(case: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            config: std::fs::read_to_string(golden(&format!("{case}.json"))).unwrap(),
            recording: read(&golden("recording.safetensors")),
            expected: read(&golden(&format!("{case}.expected.safetensors"))),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the files and replays them.
    fn replay(&self, options: &[&str]) -> Output {
        std::fs::write(self.file("run.json"), &self.config).unwrap();
        write(&self.file("recording.safetensors"), &self.recording);
        write(&self.file("expected.safetensors"), &self.expected);
        self.start(options)
    }

    /// Replays the files as they are.
    fn start(&self, options: &[&str]) -> Output {
        Command::new(&*REPLAY)
            .args(["run.json", "recording.safetensors", "out.safetensors", "--expect", "expected.safetensors"])
            .args(options)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn out(&self) -> Entries {
        read(&self.file("out.safetensors"))
    }
}

#[test]
fn writes_every_step_and_the_last_state() {
    for (options, dtype) in [(&["--on", "cpu"][..], Dtype::F32), (&["--on", "cpu", "--f64"], Dtype::F64)] {
        let run = Run::of("novograd_optax");
        assert_passes(&run.replay(options));
        assert_novograd(&run, dtype);
    }
}

#[test]
fn writes_the_same_from_the_gpu() {
    let Some(_) = crate::common::gpu("replay", 1) else { return };
    let run = Run::of("novograd_optax");
    assert_passes(&run.replay(&["--on", "gpu"]));
    assert_novograd(&run, Dtype::F32);
}

/// A slot of one number an element, one of one number a tensor, also where the tensor is one number.
fn assert_novograd(run: &Run, dtype: Dtype) {
    let out = run.out();
    let of = |key: &str| out.get(key).map(|(dtype, shape, _)| (*dtype, shape.clone()));
    for (tensor, shape) in [("w1", &[17, 33][..]), ("b1", &[33]), ("w2", &[33, 5]), ("b2", &[5]), ("s", &[1])] {
        assert_eq!(of(&format!("param.{tensor}")), Some((dtype, [&[24], shape].concat())));
        assert_eq!(of(&format!("state.{tensor}.m")), Some((dtype, shape.to_vec())));
        assert_eq!(of(&format!("state.{tensor}.v")), Some((dtype, vec![])));
        let t = &out[&format!("state.{tensor}.t")];
        assert_eq!(*t, (Dtype::I64, vec![], 24i64.to_le_bytes().to_vec()));
    }
    assert_eq!(out.len(), 5 * 4);
}

/// A run of which every step is expected, with gradients that are rounded to f16 before they are recorded.
#[test]
fn gradients_in_f16_are_rounded_alike_everywhere() {
    let mut run = Run::of("adamw");
    let recorded = run.recording.clone();
    for (_, (_, _, bytes)) in run.recording.iter_mut().filter(|(key, _)| key.starts_with("grad.")) {
        for number in bytes.chunks_exact_mut(4) {
            let value = f32::from_le_bytes(number.try_into().unwrap());
            number.copy_from_slice(&f16::from_f32(value).to_f32().to_le_bytes());
        }
    }
    assert_ne!(run.recording, recorded);
    run.replay(&["--on", "cpu", "--f64"]);
    run.expected = run.out().into_iter().filter(|(key, _)| key.starts_with("param.")).collect();
    let steps = (1..=24i64).flat_map(i64::to_le_bytes).collect();
    run.expected.insert("steps".into(), (Dtype::I64, vec![24], steps));
    run.recording = recorded;
    assert_passes(&run.replay(&["--on", "cpu", "--grad-format", "f16"]));
    assert_passes(&run.replay(&["--on", "cpu", "--f64", "--grad-format", "f16"]));
    assert_eq!(run.replay(&["--on", "cpu"]).status.code(), Some(1), "gradients in f32 lead elsewhere");
    if crate::common::gpu("replay in f16", 1).is_some() {
        assert_passes(&run.replay(&["--grad-format", "f16"]));
    }
}

#[test]
fn parameters_of_16_bits_are_rounded_alike_everywhere() {
    let run = Run::of("adamw");
    run.replay(&["--on", "cpu"]);
    let in_f32 = run.out();
    let mut seen = vec![];
    for format in ["f16", "bf16", "bf16_stochastic", "bf16_master", "bf16_remainder"] {
        let options = ["--param-format", format, "--grad-format", "bf16"];
        // What f32 makes of the gradients is farther away than the tolerance of f32.
        assert_eq!(run.replay(&[&["--on", "cpu"][..], &options].concat()).status.code(), Some(1));
        let out = run.out();
        let params = |out: &Entries| -> Vec<u8> {
            out.iter().filter(|(key, _)| key.starts_with("param.")).flat_map(|(_, entry)| entry.2.clone()).collect()
        };
        let bytes = params(&out);
        assert_eq!(bytes.len(), params(&in_f32).len());
        // What is written is decoded to f32: of bf16 the lower half is 0.
        let lower = bytes.chunks_exact(4).all(|number| number[..2] == [0, 0]);
        assert_eq!(lower, format != "f16");
        if crate::common::gpu("replay in 16 bits", 1).is_some_and(|gpu| bound(&gpu) == 0.0) {
            assert_eq!(run.replay(&options).status.code(), Some(1));
            assert!(run.out() == out, "{format}: the GPU writes other bits than the CPU");
        }
        seen.push(bytes);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[1] != seen[3]);
}

#[test]
fn tensors_of_any_rank_and_of_no_element() {
    let mut run = Run::of("sgd_momentum");
    run.recording.retain(|key, _| key.ends_with(".s"));
    run.expected.retain(|key, _| key.ends_with(".s") || key == "steps");
    for (prefix, shape) in [("param", vec![]), ("grad", vec![24])] {
        run.recording.get_mut(&format!("{prefix}.s")).unwrap().1 = shape;
    }
    for prefix in ["param", "f32"] {
        run.expected.get_mut(&format!("{prefix}.s")).unwrap().1 = vec![6];
    }
    run.recording.insert("param.none".into(), (Dtype::F32, vec![0, 3], vec![]));
    run.recording.insert("grad.none".into(), (Dtype::F32, vec![24, 0, 3], vec![]));
    assert_passes(&run.replay(&["--on", "cpu"]));
    assert_eq!(run.out()["param.s"].1, [24]);
    assert_eq!(run.out()["param.none"].1, [24, 0, 3]);
}

#[test]
fn exits_1_outside_the_tolerance() {
    let mut run = Run::of("sgd_momentum");
    run.expected = read(&golden("sgd_plain.expected.safetensors"));
    let output = run.replay(&["--on", "cpu"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.lines().filter(|row| row.ends_with("FAIL")).count(), 5, "{table}");
}

#[test]
fn one_element_out_of_tolerance_is_found() {
    let mut run = Run::of("sgd_momentum");
    run.expected.remove("f32.w1");
    let (_, _, bytes) = run.expected.get_mut("param.w1").unwrap();
    let last = bytes.len() - 8;
    let value = f64::from_le_bytes(bytes[last..].try_into().unwrap());
    bytes[last..].copy_from_slice(&(value + 1e-4).to_le_bytes());
    let output = run.replay(&["--on", "cpu"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let row = table.lines().find(|row| row.ends_with("FAIL")).unwrap();
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["w1", "561", "24"], "{table}");
}

#[test]
fn refuses_bad_recordings() {
    let mut run = Run::of("adam");
    run.recording.remove("grad.b1");
    assert_refused(run.replay(&[]), &["recording.safetensors", "tensor b1", "[33]", "lacks its gradient"]);

    let mut run = Run::of("adam");
    run.recording.remove("param.b1");
    assert_refused(run.replay(&[]), &["tensor b1", "lacks its param.b1"]);

    let mut run = Run::of("adam");
    run.recording.get_mut("grad.w1").unwrap().1 = vec![24, 33, 17];
    assert_refused(run.replay(&[]), &["tensor w1", "[17, 33]", "[24, 33, 17]"]);

    let mut run = Run::of("adam");
    let (_, shape, bytes) = run.recording.get_mut("grad.w2").unwrap();
    shape[0] = 23;
    bytes.truncate(23 * 33 * 5 * 4);
    assert_refused(run.replay(&[]), &["tensor w2", "[23, 33, 5]", "23 steps", "[24, 33]", "24 steps"]);

    let mut run = Run::of("adam");
    let (dtype, shape, _) = run.recording.get_mut("param.w2").unwrap();
    *dtype = Dtype::I32;
    assert_eq!(shape, &[33, 5]);
    assert_refused(run.replay(&[]), &["param.w2 is I32, must be F32"]);

    let mut run = Run::of("adam");
    run.recording.insert("momentum.w1".into(), (Dtype::F32, vec![0], vec![]));
    assert_refused(run.replay(&[]), &["momentum.w1 is unknown"]);

    let mut run = Run::of("adam");
    run.recording.clear();
    assert_refused(run.replay(&[]), &["there is no tensor"]);
}

#[test]
fn refuses_files_that_are_no_recordings() {
    let run = Run::of("adam");
    run.replay(&["--on", "cpu"]);
    let recording = std::fs::read(run.file("recording.safetensors")).unwrap();
    for len in [0, 7, 100, recording.len() - 1] {
        std::fs::write(run.file("recording.safetensors"), &recording[..len]).unwrap();
        assert_refused(run.start(&[]), &["recording.safetensors: cut short, or no safetensors file"]);
    }
    std::fs::write(run.file("recording.safetensors"), "step,loss\n1,0.5\n").unwrap();
    assert_refused(run.start(&[]), &["recording.safetensors: cut short, or no safetensors file"]);
    std::fs::remove_file(run.file("recording.safetensors")).unwrap();
    assert_refused(run.start(&[]), &["recording.safetensors: No such file"]);
}

#[test]
fn refuses_expectations_that_a_replay_does_not_meet() {
    let mut run = Run::of("adam");
    let other = run.expected["param.w1"].clone();
    run.expected.insert("param.w3".into(), other);
    assert_refused(run.replay(&[]), &["expected.safetensors", "tensor w3"]);

    let mut run = Run::of("adam");
    run.recording.remove("param.w2");
    run.recording.remove("grad.w2");
    assert_refused(run.replay(&[]), &["tensor w2 is expected"]);

    for step in [0i64, 25, -1] {
        let mut run = Run::of("adam");
        run.expected.get_mut("steps").unwrap().2[..8].copy_from_slice(&step.to_le_bytes());
        assert_refused(run.replay(&[]), &[&format!("steps has {step}"), "1 to 24"]);
    }

    let mut run = Run::of("adam");
    run.expected.remove("steps");
    assert_refused(run.replay(&[]), &["steps is missing"]);

    let mut run = Run::of("adam");
    run.expected.retain(|key, _| key == "steps");
    assert_refused(run.replay(&[]), &["nothing is expected"]);

    let mut run = Run::of("adam");
    let own = run.expected["f32.w1"].clone();
    run.expected.insert("param.w1".into(), own);
    assert_refused(run.replay(&[]), &["param.w1 is F32, must be F64"]);

    let mut run = Run::of("adam");
    run.expected.get_mut("param.w1").unwrap().1 = vec![6, 33, 17];
    assert_refused(run.replay(&[]), &["tensor w1", "[6, 33, 17]", "[6, 17, 33]"]);

    let mut run = Run::of("adam");
    run.expected.remove("param.b1");
    assert_refused(run.replay(&[]), &["f32.b1", "no param.b1"]);
}

#[test]
fn refuses_bad_configurations() {
    for (config, fragments) in [
        (r#"{"optimizer": "adam", "lrr": 0.1}"#, &["run.json", "lrr"][..]),
        (r#"{"optimizer": "adam", "lr_per_steps": [0.1]}"#, &["lr_per_steps"]),
        (r#"{"optimizer": "adam", "lr_per_step": [0.1, 0.2]}"#, &["lr_per_step", "2 rates", "24 steps"]),
        (r#"{"optimizer": "adam", "lr_per_step": 0.1}"#, &["lr_per_step", "0.1"]),
        (r#"{"optimizer": "adam", "lr_per_step": ["fast"]}"#, &["lr_per_step", "fast"]),
        (r#"{"optimizer": "adam", "lr_per_step": [], "schedule": {"constant": {}}}"#, &["lr_per_step", "schedule"]),
        (r#"{"optimizer": "adam""#, &["run.json", "EOF"]),
        ("[]", &["run.json"]),
        ("", &["run.json", "EOF"]),
    ] {
        let mut run = Run::of("adam");
        run.config = config.to_string();
        assert_refused(run.replay(&["--on", "cpu"]), fragments);
    }

    let mut run = Run::of("adam");
    let rates = [vec!["0.1"; 23], vec!["-0.1"]].concat().join(", ");
    run.config = format!(r#"{{"optimizer": "adam", "lr_per_step": [{rates}]}}"#);
    assert_refused(run.replay(&["--on", "cpu"]), &["lr_per_step[23]", "-0.1"]);
}

#[test]
fn refuses_options_that_would_do_nothing() {
    let run = Run::of("adam");
    assert_refused(run.replay(&["--f64"]), &["--f64", "--on cpu"]);
    assert_refused(run.replay(&["--on", "cpu", "--adapter", "llvmpipe"]), &["--adapter", "--on gpu"]);
    for option in ["--param-format", "--grad-format", "--state-format"] {
        assert_refused(run.replay(&[option, "f8"]), &[option, "f8", "f32"]);
        assert_passes(&run.replay(&["--on", "cpu", option, "f32"]));
    }
    assert_refused(run.replay(&["--adapter", "no such adapter"]), &["no such adapter"]);
}

fn assert_passes(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Exit code 2, an error with all of `fragments`, and no panic.
fn assert_refused(output: Output, fragments: &[&str]) {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    for fragment in fragments {
        assert!(error.contains(fragment), "{fragment} is not in: {error}");
    }
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn read(path: &Path) -> Entries {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(key, view): (&str, TensorView)| {
        (key.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    file.iter().map(entry).collect()
}

fn write(path: &Path, entries: &Entries) {
    let views = entries
        .iter()
        .map(|(key, (dtype, shape, bytes))| (key, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}
