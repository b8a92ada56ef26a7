//! The documents say what is: the README's table of optimizers is the registry's, every link leads somewhere, and every
//! file is on ARCHITECTURE.md's map.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wgpu_optim::rule::{Extent, Row, Slot};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Config, WeightDecay};

const BEGIN: &str = "<!-- optimizers: begin -->\n";
const END: &str = "<!-- optimizers: end -->";

const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "shaders/README.md",
    "examples/data/README.md",
    "tests/golden/README.md",
];

#[test]
fn the_table_of_optimizers_is_the_registrys() {
    let readme = read("README.md");
    let (head, rest) = readme.split_once(BEGIN).expect("README.md has the line <!-- optimizers: begin -->");
    let (found, tail) = rest.split_once(END).expect("README.md has the line <!-- optimizers: end -->");
    let expected = table();
    if std::env::var("UPDATE").as_deref() == Ok("1") {
        std::fs::write(root("README.md"), format!("{head}{BEGIN}{expected}{END}{tail}")).unwrap();
        return;
    }
    assert!(
        found == expected,
        "README.md's table of optimizers is not the registry's; `UPDATE=1 cargo xtask test readme::` writes it:\n{expected}"
    );
}

#[test]
fn configurations_in_the_readme_are_sound() {
    let readme = read("README.md");
    let blocks: Vec<_> = readme.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 1, "README.md has blocks of JSON");
    for block in blocks {
        Config::from_json(block).unwrap_or_else(|error| panic!("{error}, in README.md's\n{block}"));
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for document in DOCUMENTS {
        let text = prose(&read(document));
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default());
        for target in targets.filter(|target| !target.contains("://")) {
            count += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => root(document),
                path => root(document).with_file_name("").join(path),
            };
            let exists = file.exists();
            if !exists || (!heading.is_empty() && !headings(&file).contains(heading)) {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(count > 10, "only {count} links found: has their form changed?");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_file_is_on_the_map() {
    let map = read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    for folder in ["src", "shaders", "tests", "examples", "benches", "xtask/src"] {
        for file in files(&root(folder)) {
            let name = file.strip_prefix(root("")).unwrap().to_str().unwrap().replace('\\', "/");
            let source = [".rs", ".wgsl"].iter().any(|end| name.ends_with(end));
            // Rules and their composed texts are named by their folders, so that a new one needs no line there.
            let named = ["/rules/", "/expansion/"].iter().any(|folder| name.contains(folder));
            if source && !named && !map.contains(&format!("`{name}`")) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md's map lacks:\n{}", missing.join("\n"));
}

#[test]
fn the_walk_through_shows_the_files_as_they_are() {
    let text = read("CONTRIBUTING.md");
    for (language, file) in [("wgsl", "shaders/rules/signum.wgsl"), ("rust,ignore", "src/rules/signum.rs")] {
        assert!(text.contains(&format!("\n```{language}\n{}```\n", read(file))), "CONTRIBUTING.md's listing of {file}");
    }
}

fn table() -> String {
    let general = WeightDecay::GENERAL.join("`, `");
    let rows: String = ALL.iter().map(line).collect();
    format!(
        "| `\"optimizer\"` | update and source | state | bytes | passes | same numbers as | presets | weight decay |\n\
         |---|---|---|---|---|---|---|---|\n\
         {rows}\n\
         General weight decay: `{general}`.\n"
    )
}

fn line(row: &Row) -> String {
    let default = (row.default)();
    let cases: Vec<_> = (row.cases)().into_iter().map(|(_, rule)| rule).collect();
    let for_matrices: Vec<_> = std::iter::once(&default).chain(&cases).filter_map(|rule| rule.for_matrices()).collect();
    let all = || std::iter::once(&default).chain(&cases).chain(&for_matrices);
    let presets: Vec<_> = (row.presets)().iter().map(|(name, _)| format!("`{name}`")).collect();
    let decays =
        if row.decays == WeightDecay::GENERAL { "general".into() } else { format!("`{}`", row.decays.join("`, `")) };
    let cells = [
        format!("`{}`", row.name),
        row.summary.into(),
        state(&default.slots(), all().flat_map(|rule| rule.slots())),
        range(all().map(|rule| rule.bytes_per_element() as usize)),
        range(all().map(|rule| rule.passes().len())),
        sources(row.name),
        presets.join(", "),
        decays,
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// The libraries whose recorded runs of this optimizer `tests/all/golden.rs` repeats. Where no library has a case's formula,
/// its record is the formula itself in f64.
fn sources(name: &str) -> String {
    let table = read("tests/golden/README.md");
    let cases = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let mut libraries = BTreeSet::new();
    for (case, source) in cases.filter(|(case, _)| root(&format!("tests/golden/{case}.json")).exists()) {
        let config: serde_json::Value = serde_json::from_str(&read(&format!("tests/golden/{case}.json"))).unwrap();
        if config["optimizer"] == name {
            let library = if source.contains("transcription") { "its formula in f64" } else { source };
            libraries.insert(library.split('+').next().expect("one part at least").to_string());
        }
    }
    libraries.into_iter().collect::<Vec<_>>().join(", ")
}

/// The slots of the default options, then those that other options add.
fn state(default: &[Slot], all: impl Iterator<Item = Slot>) -> String {
    let text = |slot: &Slot| match slot.extent {
        Extent::Element => format!("`{}`", slot.name),
        Extent::Tensor => format!("`{}` (one a tensor)", slot.name),
        Extent::Row => format!("`{}` (one a row)", slot.name),
        Extent::Column => format!("`{}` (one a column)", slot.name),
    };
    let mut names: Vec<String> = default.iter().map(text).collect();
    let base = names.len();
    for slot in all {
        if !names.contains(&text(&slot)) {
            names.push(text(&slot));
        }
    }
    let (default, added) = names.split_at(base);
    let default = if default.is_empty() { "none".into() } else { default.join(", ") };
    if added.is_empty() { default } else { format!("{default} (+ {})", added.join(", ")) }
}

fn range(numbers: impl Iterator<Item = usize>) -> String {
    let numbers: BTreeSet<usize> = numbers.collect();
    match (numbers.first(), numbers.last()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (Some(only), _) => only.to_string(),
        _ => unreachable!("the default options are one"),
    }
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchors of a document's headings.
fn headings(file: &Path) -> BTreeSet<String> {
    let text = prose(&std::fs::read_to_string(file).unwrap());
    let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let keep = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    titles.map(|title| title.to_lowercase().chars().filter(keep).collect::<String>().replace(' ', "-")).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn read(document: &str) -> String {
    std::fs::read_to_string(root(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}
