//! The recorded runs of PyTorch and optax in `tests/golden/`, on the CPU reference and on the GPU.

#[path = "../../examples/replay/recording.rs"]
#[expect(dead_code, reason = "the example writes files, too")]
mod recording;
#[path = "../../examples/replay/run.rs"]
mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use recording::{Comparison, Expected, Number, Recording, Replayed, Result, Tolerance};
use run::Run;

const CASES: usize = 66;

/// The reference in f64 against results in f64: two roundings of the largest parameter a step. Measured: at most 0.63
/// of it.
const F64: Tolerance = Tolerance { own: 0.0, rounding: f64::EPSILON, moved: 1e-14 };

/// Cases whose source is less exact, and by how much of what the parameters moved. PyTorch keeps ASGD's `eta` and
/// NAdam's product in f32: a transcription that does so, too, is within 6e-15 of its parameters. RAdam's sources take
/// `1 - beta2^t` as a difference. Measured: at most 0.82 of it.
const F64_MOVED: [(&str, f64); 6] = [
    ("asgd", 2e-7),
    ("nadam", 2e-7),
    ("nadam_decoupled", 2e-7),
    ("radam", 3e-12),
    ("radam_decoupled", 3e-12),
    ("radam_outside", 3e-12),
];

#[test]
fn files_have_their_checksums() {
    let sums = std::fs::read_to_string(golden("SHA256SUMS")).unwrap();
    let sums = sums.lines().map(|line| line.split_once("  ").unwrap()).collect::<Vec<_>>();
    for (sum, file) in &sums {
        let found = Sha256::digest(std::fs::read(golden(file)).unwrap());
        let found = found.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(found, *sum, "{file}");
    }
    let listed = sums.iter().map(|(_, file)| file.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(
        files().filter(|file| file.ends_with(".json") || file.ends_with(".safetensors")).collect::<BTreeSet<_>>(),
        listed
    );
}

#[test]
fn every_case_names_its_source() {
    let table = std::fs::read_to_string(golden("README.md")).unwrap();
    for case in cases() {
        let bytes = std::fs::read(golden(&format!("{case}.expected.safetensors"))).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let source = &header.metadata().as_ref().unwrap()["source"];
        assert!(table.contains(&format!("\n| {case} | {source} |\n")), "{case}: {source}");
    }
}

#[test]
fn all_cases_are_here() {
    assert_eq!(cases().len(), CASES);
}

#[test]
fn cpu_in_f32() {
    replay_all("CPU f32", |_| Tolerance::F32, Run::on_cpu::<f32>);
}

#[test]
fn cpu_in_f64() {
    let tolerance = |case: &str| match F64_MOVED.iter().find(|(name, _)| *name == case) {
        Some(&(_, moved)) => Tolerance { moved, ..F64 },
        None => F64,
    };
    replay_all("CPU f64", tolerance, Run::on_cpu::<f64>);
}

#[test]
fn gpu() {
    let Some(gpu) = crate::common::gpu("golden", CASES) else { return };
    replay_all("GPU", |_| Tolerance::F32, |run, recording| run.on_gpu(&gpu, recording));
}

/// Replays every case; fails with all that is outside the tolerance.
fn replay_all<F: Number>(
    on: &str,
    tolerance: impl Fn(&str) -> Tolerance,
    replay: impl Fn(&Run, &Recording) -> Result<Replayed<F>>,
) {
    let recording = Recording::read(&golden("recording.safetensors")).unwrap();
    let mut failures = Vec::new();
    for case in cases() {
        let run = Run::read(&golden(&format!("{case}.json")), &recording).unwrap();
        let expected = Expected::read(&golden(&format!("{case}.expected.safetensors")), &recording).unwrap();
        let replayed = replay(&run, &recording).unwrap_or_else(|error| panic!("{case} on {on}: {error}"));
        let comparisons = expected.compare(&recording, &replayed, tolerance(&case), run.config.takes_signs());
        let largest = comparisons.iter().map(Comparison::share).fold(0.0, f64::max);
        println!("{case} on {on}: {:.3} of the bound", largest);
        for c in comparisons.iter().filter(|c| !c.passes()) {
            failures.push(format!(
                "{case}: {}, step {}: error {:.3e}, bound {:.3e}, {} of {} elements outside",
                c.tensor, c.step, c.error, c.bound, c.outside, c.elements
            ));
        }
    }
    assert!(failures.is_empty(), "on {on}:\n{}", failures.join("\n"));
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn files() -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(golden("")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

fn cases() -> BTreeSet<String> {
    // `tests/all/schedules.rs` reads the schedules.
    let cases = files().filter_map(|file| file.strip_suffix(".json").map(String::from));
    cases.filter(|case| case != "schedules").collect()
}
