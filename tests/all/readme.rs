//! The documents say what is: the README's table of optimizers is the registry's, the crate's page is the README, every
//! link leads somewhere, every file is on ARCHITECTURE.md's map, and the package is small.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wgpu_optim::backend::traffic;
use wgpu_optim::rule::{Extent, RuleEntry, Slot};
use wgpu_optim::rules::ALL;

const BEGIN: &str = "<!-- optimizers: begin -->\n";
const END: &str = "<!-- optimizers: end -->";

/// The most lines of the README, and the most bytes of the package.
const README_LINES: usize = 250;
const PACKAGE_BYTES: u64 = 600_000;

/// The crate's page: the README as rustdoc shows it, pictures included.
const CRATE_PAGE: &str = "src/crate_page.md";

/// Where docs.rs shows a file of the package.
const SOURCE: &str = "https://docs.rs/crate/wgpu-optim/latest/source";

const DOCUMENTS: [&str; 11] = [
    "README.md",
    "docs/benchmarks.md",
    "docs/commands.md",
    "docs/pictures.md",
    "docs/steps-to-loss.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "shaders/README.md",
    "examples/data/README.md",
    "tests/golden/README.md",
];

#[test]
fn the_table_of_optimizers_and_the_crates_page_are_up_to_date() {
    let readme = read("README.md");
    let (head, rest) = readme.split_once(BEGIN).expect("README.md has the line <!-- optimizers: begin -->");
    let (found, tail) = rest.split_once(END).expect("README.md has the line <!-- optimizers: end -->");
    let expected = table();
    let page = crate_page(&format!("{head}{BEGIN}{expected}{END}{tail}"));
    if std::env::var("UPDATE").as_deref() == Ok("1") {
        std::fs::write(root("README.md"), format!("{head}{BEGIN}{expected}{END}{tail}")).unwrap();
        std::fs::write(root(CRATE_PAGE), page).unwrap();
        return;
    }
    assert!(
        found == expected,
        "README.md's table of optimizers is not the registry's; `UPDATE=1 cargo xtask test readme::` writes it:\n{expected}"
    );
    assert!(
        read(CRATE_PAGE) == page,
        "{CRATE_PAGE} is not README.md as rustdoc is to show it; `UPDATE=1 cargo xtask test readme::` writes it"
    );
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines, more than {README_LINES}; docs/ and src/guide/ have room"
    );
}

/// Cargo packs the crate as it would to publish it, without building it. The package has what its users need to read
/// and to build, and is small.
#[test]
fn the_package_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO"))
        .args(["package", "--package", "wgpu-optim", "--no-verify", "--allow-dirty", "--offline", "--target-dir"])
        .arg(folder.path())
        .current_dir(root(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo package:\n{}", String::from_utf8_lossy(&output.stderr));
    let packages = files(&folder.path().join("package"));
    let package = packages.iter().find(|file| file.extension().is_some_and(|end| end == "crate"));
    let bytes = package.expect("cargo writes one file that ends in .crate").metadata().unwrap().len();
    assert!(
        bytes <= PACKAGE_BYTES,
        "the package has {bytes} bytes, more than {PACKAGE_BYTES}: see `include` in Cargo.toml"
    );
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
fn the_readme_names_every_page_of_the_guide() {
    let readme = read("README.md");
    let pages = files(&root("src/guide"));
    let names = pages.iter().filter_map(|file| file.file_name()?.to_str()).filter(|name| name.ends_with(".rs"));
    let missing: Vec<_> = names.filter(|name| !readme.contains(&format!("](src/guide/{name})"))).collect();
    assert!(pages.len() > 10 && missing.is_empty(), "README.md lacks these pages of the guide: {missing:?}");
}

#[test]
fn every_file_is_on_the_map() {
    let map = read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    for folder in ["src", "shaders", "tests", "examples", "benches", "xtask/src", "crates/pictures/src"] {
        for file in files(&root(folder)) {
            let name = file.strip_prefix(root("")).unwrap().to_str().unwrap().replace('\\', "/");
            let source = [".rs", ".wgsl"].iter().any(|end| name.ends_with(end));
            // Rules, wrappers, composed texts and pages of the guide are named by their folders, and the tests of a
            // module by the module, so that a new one needs no line.
            let named = ["/rules/", "/wrappers/", "/expansion/", "/guide/"].iter().any(|folder| name.contains(folder))
                || (name.starts_with("src/") && name.ends_with("/tests.rs"));
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
    let rows: String = ALL.iter().map(line).collect();
    format!(
        "| `\"optimizer\"` | update and source | state | bytes | same numbers as |\n\
         |---|---|---|---|---|\n\
         {rows}"
    )
}

fn line(row: &RuleEntry) -> String {
    let default = (row.default)();
    let cases: Vec<_> = (row.cases)().into_iter().map(|(_, rule)| rule).collect();
    let forms: Vec<_> = std::iter::once(&default).chain(&cases).flat_map(|rule| rule.forms()).collect();
    let all = || std::iter::once(&default).chain(&cases).chain(&forms);
    // Slots of single elements are rows and columns, too.
    let is_line = |slot: &Slot| forms.iter().flat_map(kept).any(|line| line.name == slot.name && line.extent.is_line());
    let kept_by_all = || all().flat_map(kept).filter(|slot| slot.extent.is_line() || !is_line(slot));
    let bytes = range(all().map(|rule| traffic::rule_bytes(&**rule) as usize));
    let passes = range(all().map(|rule| rule.passes().len()));
    let cells = [
        format!("`{}`", row.name),
        row.summary.into(),
        state(&kept(&default), kept_by_all()),
        if passes == "1" { bytes } else { format!("{bytes} in {passes} passes") },
        sources(row.name),
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// The libraries whose recorded runs of this optimizer `tests/all/golden.rs` repeats. Where no library has a case's
/// formula, its record is the formula itself in f64.
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

/// The slots that live from step to step.
#[allow(clippy::borrowed_box, reason = "rules come in boxes")]
fn kept(rule: &Box<dyn wgpu_optim::rule::AnyRule>) -> Vec<Slot> {
    rule.slots().into_iter().filter(|slot| slot.extent.is_kept()).collect()
}

/// The slots that there are with the default options, and in brackets those that other options add.
fn state(default: &[Slot], all: impl Iterator<Item = Slot>) -> String {
    let of_what = |slot: &Slot| match slot.extent {
        Extent::Element => "",
        Extent::Tensor => "one a tensor: ",
        Extent::Product | Extent::Turned => unreachable!("no state"),
        Extent::History(_) => "one a pair: ",
        Extent::Products(_) => "two for each two pairs: ",
        Extent::Sides(_) => "a matrix for each side: ",
        Extent::Model => "one in all: ",
        Extent::Row => "one a row: ",
        Extent::Column => "one a column: ",
        Extent::Leading => "one a row of the first dimension: ",
    };
    let list = |slots: &[Slot]| {
        let same = slots.chunk_by(|a, b| of_what(a) == of_what(b));
        let names = |same: &[Slot]| same.iter().map(|slot| format!("`{}`", slot.name)).collect::<Vec<_>>().join(", ");
        same.map(|same| of_what(&same[0]).to_string() + &names(same)).collect::<Vec<_>>().join("; ")
    };
    let mut added: Vec<Slot> = Vec::new();
    for slot in all {
        let is = |other: &Slot| (other.name, of_what(other)) == (slot.name, of_what(&slot));
        if !default.iter().chain(&added).any(is) {
            added.push(slot);
        }
    }
    let default = if default.is_empty() { "none".into() } else { list(default) };
    if added.is_empty() { default } else { format!("{default} (+ {})", list(&added)) }
}

fn range(numbers: impl Iterator<Item = usize>) -> String {
    let numbers: BTreeSet<usize> = numbers.collect();
    match (numbers.first(), numbers.last()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (Some(only), _) => only.to_string(),
        _ => unreachable!("the default options are one"),
    }
}

/// The README as rustdoc is to show it. Pictures are part of the page, so that it needs no network; pages of the guide
/// are modules; links to other files of the package lead to docs.rs, and files that the package lacks have no link.
fn crate_page(readme: &str) -> String {
    let manifest = read("Cargo.toml");
    let (_, include) = manifest.split_once("\ninclude = [").expect("Cargo.toml lists what the package includes");
    let include: Vec<_> = include.split_once(']').expect("a list").0.split('"').skip(1).step_by(2).collect();
    let packed = |path: &str| include.iter().any(|entry| format!("/{path}").starts_with(entry.trim_end_matches('*')));
    let mut page = String::new();
    let mut rest = readme;
    while let Some((before, after)) = rest.split_once("](") {
        let (target, after) = after.split_once(')').expect("a link ends");
        rest = after;
        let open = before.rfind('[').expect("a link starts");
        let (text, label) = (&before[..open], &before[open + 1..]);
        let module = target.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs"));
        page += text;
        page += &match (text.ends_with('!'), module) {
            (true, _) => format!("[{label}]({})", data_uri(target)),
            (_, Some(module)) => format!("[{label}](crate::{})", module.replace('/', "::")),
            _ if target.starts_with('#') || target.contains("://") => format!("[{label}]({target})"),
            _ if packed(target) => format!("[{label}]({SOURCE}/{target})"),
            _ => label.to_string(),
        };
    }
    page += rest;
    let comment = |line: &&str| !line.starts_with("<!--");
    page.lines().filter(comment).map(|line| line.to_string() + "\n").collect()
}

/// A `data:` address that holds the picture itself.
fn data_uri(picture: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let kind = if picture.ends_with(".svg") { "svg+xml" } else { "png" };
    let bytes = std::fs::read(root(picture)).unwrap_or_else(|error| panic!("{picture}: {error}"));
    let mut text = format!("data:image/{kind};base64,");
    for three in bytes.chunks(3) {
        let word = three.iter().enumerate().fold(0, |word, (i, &byte)| word | u32::from(byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize % 64] as char;
            text.push(if i <= three.len() { digit } else { '=' });
        }
    }
    text
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
