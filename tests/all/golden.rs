//! The CPU reference and the GPU repeat the runs that PyTorch and optax recorded in `tests/golden/`.

#[path = "../../examples/replay/recording.rs"]
#[expect(dead_code, reason = "the example writes files, too")]
pub(crate) mod recording;
#[path = "../../examples/replay/run.rs"]
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use recording::{Comparison, Expected, Number, Recording, Replayed, Result, Tolerance};
use run::Run;

/// The reference in f64 against results in f64: two roundings of the largest parameter a step. Measured: at most 0.63
/// of it. Where README.md lists a source as less exact, the bound on what moved is the one that it says.
const F64: Tolerance = Tolerance { own: 0.0, of_bases: 0.0, rounding: f64::EPSILON, moved: 1e-14 };

#[test]
fn files_have_their_checksums() {
    let sums = sums();
    for (file, sum) in &sums {
        let found = Sha256::digest(std::fs::read(golden(file)).unwrap());
        let found = found.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(found, *sum, "{file}");
    }
    let here = files("").into_iter().filter(|file| file.ends_with(".json") || file.ends_with(".safetensors"));
    assert_eq!(here.collect::<BTreeSet<_>>(), sums.into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn every_case_names_its_source() {
    let readme = std::fs::read_to_string(golden("README.md")).unwrap();
    for case in cases() {
        let bytes = std::fs::read(golden(&format!("{case}.expected.safetensors"))).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let source = &header.metadata().as_ref().unwrap()["source"];
        assert!(readme.contains(&format!("\n| {case} | {source} |\n")), "{case}: {source}");
    }
    for (case, _) in less_exact() {
        assert!(cases().contains(&case), "README.md says that {case} is less exact: there is no such case");
    }
}

#[test]
fn cpu_in_f32() {
    replay_all("CPU f32", |_| Tolerance::F32, Run::on_cpu::<f32>);
}

#[test]
fn cpu_in_f64() {
    let less_exact = less_exact();
    let tolerance = |case: &str| Tolerance { moved: less_exact.get(case).copied().unwrap_or(F64.moved), ..F64 };
    replay_all("CPU f64", tolerance, Run::on_cpu::<f64>);
}

#[test]
fn gpu() {
    let Some(gpu) = crate::common::gpu("golden", cases().len()) else { return };
    replay_all("GPU", |_| Tolerance::F32, |run, recording| run.on_gpu(&gpu, recording));
}

/// Replays every case; fails with all that is outside the tolerance.
fn replay_all<F: Number>(
    on: &str,
    tolerance: impl Fn(&str) -> Tolerance,
    replay: impl Fn(&Run, &Recording) -> Result<Replayed<F>>,
) {
    let mut recordings = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases() {
        let folder = case.rsplit_once('/').map_or("", |(folder, _)| folder);
        let recording = recordings
            .entry(folder.to_string())
            .or_insert_with(|| Recording::read(&golden(folder).join("recording.safetensors")).unwrap());
        let run = Run::read(&golden(&format!("{case}.json")), recording).unwrap();
        let expected = Expected::read(&golden(&format!("{case}.expected.safetensors")), recording).unwrap();
        let replayed = replay(&run, recording).unwrap_or_else(|error| panic!("{case} on {on}: {error}"));
        let comparisons = expected.compare(recording, &replayed, tolerance(&case), &run.config);
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

/// Paths of all files in a folder of the golden ones, and below.
fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(golden(folder)).unwrap().map(|entry| entry.unwrap());
    let paths = entries.flat_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if entry.file_type().unwrap().is_dir() { files(&path) } else { vec![path] }
    });
    paths.collect()
}

/// Files and their checksums.
fn sums() -> BTreeMap<String, String> {
    let sums = std::fs::read_to_string(golden("SHA256SUMS")).unwrap();
    let lines = sums.lines().map(|line| line.split_once("  ").expect("a sum, two spaces, a file"));
    lines.map(|(sum, file)| (file.to_string(), sum.to_string())).collect()
}

/// The cases that SHA256SUMS lists, each by its path without `.json`. In a folder they are of the recording there.
fn cases() -> BTreeSet<String> {
    // `tests/all/schedules.rs` reads the schedules.
    let cases = sums().into_keys().filter_map(|file| file.strip_suffix(".json").map(String::from));
    let cases: BTreeSet<_> = cases.filter(|case| case != "schedules").collect();
    assert!(cases.len() > 1, "SHA256SUMS lists no cases");
    cases
}

/// Cases whose source is less exact than f64, and by how much of what the parameters moved: README.md lists them.
fn less_exact() -> BTreeMap<String, f64> {
    let readme = std::fs::read_to_string(golden("README.md")).unwrap();
    let (_, list) = readme.split_once("## Less exact sources\n").expect("README.md has the heading");
    let lines = list.lines().filter_map(|line| line.strip_prefix("* `")?.split_once("`: "));
    lines.map(|(case, rest)| (case.into(), rest.split(',').next().unwrap().parse().expect(case))).collect()
}
