//! The house keeps its shape: what may use what, where things are named, how files look.
//!
//! Each check is a function from the files to what is wrong with them, so that the last test can show it breaches.

use std::collections::BTreeSet;
use std::path::Path;

/// Modules from the ground up. A module uses those of lower floors, and of its own only [`NEIGHBOURS`].
const FLOORS: [&[&str]; 12] = [
    &[
        "error",
        "codecs",
        "tensor",
        "words",
        "words/*",
        "parts",
        "lines",
        "product",
        "sides",
        "history",
        "line_search",
        "decay",
        "storage",
        "dynamic_map",
        "read",
        "fields",
    ],
    &["rule", "rule/*", "wrapper", "options", "schedule", "schedule/*", "init", "init/*"],
    &["control"],
    &["wrappers", "wrappers/*"],
    &["rules", "rules/*", "plan", "plan/*", "clock", "report", "early_stopping", "traffic"],
    &["groups", "groups/*", "shader", "shader/*"],
    &["config", "course", "session"],
    &["checkpoint", "checkpoint/*"],
    &["reference", "reference/*", "gpu", "gpu/*"],
    &["optimizer", "optimizer/*"],
    &["joint", "proof"],
    &["lib", "backend", "guide", "guide/*"],
];

/// Who uses whom on one floor, and which items; none listed means all.
const NEIGHBOURS: &[(&str, &str, &[&str])] = &[
    ("checkpoint/*", "checkpoint", &[]),
    ("rule", "rule/*", &[]),
    ("rule/*", "rule", &[]),
    ("rule/*", "wrapper", &["AnyWrapper", "WrapperKernel"]),
    ("wrapper", "rule", &[]),
    ("wrappers", "wrappers/*", &[]),
    ("tensor", "error", &[]),
    ("tensor", "codecs", &["DType"]),
    ("read", "error", &[]),
    ("fields", "read", &[]),
    ("words", "tensor", &["ALIGNMENT"]),
    ("words", "words/*", &[]),
    ("words/*", "words", &[]),
    ("words/*", "tensor", &["BLOCK"]),
    ("parts", "tensor", &["BLOCK"]),
    ("lines", "tensor", &["TensorSpec"]),
    ("lines", "parts", &["Real"]),
    ("product", "parts", &["Real"]),
    ("product", "lines", &["Lines"]),
    ("product", "tensor", &["TensorSpec"]),
    ("sides", "parts", &["Real"]),
    ("sides", "error", &[]),
    ("history", "parts", &["Combine", "Real", "smaller"]),
    ("line_search", "error", &[]),
    ("storage", "codecs", &["DType"]),
    ("dynamic_map", "error", &[]),
    ("storage", "parts", &["Real"]),
    ("plan", "plan/*", &[]),
    ("plan/*", "plan", &[]),
    ("plan/*", "plan/*", &[]),
    ("schedule", "schedule/*", &[]),
    ("schedule/*", "schedule", &[]),
    ("init", "init/*", &[]),
    ("init/*", "init", &["quantile"]),
    ("options", "rule", &["Carried"]),
    ("shader", "shader/*", &[]),
    ("shader/*", "shader", &[]),
    ("shader/*", "shader/*", &[]),
    ("gpu/*", "gpu", &[]),
    ("gpu/*", "gpu/*", &[]),
    ("reference", "reference/*", &[]),
    ("reference/*", "reference", &[]),
    ("groups", "groups/*", &[]),
    ("groups/*", "groups", &[]),
    ("optimizer", "optimizer/*", &[]),
    ("optimizer/*", "optimizer", &[]),
    ("optimizer/*", "optimizer/*", &[]),
];

/// Modules that may name wgpu: the rest must build without it.
const NAMES_WGPU: [&str; 6] = ["gpu", "gpu/*", "optimizer", "optimizer/*", "joint", "proof"];

/// Tests that walk over the registry: a new optimizer changes none of them.
const WALKS: [&str; 6] = ["bytes", "expansion", "golden", "parity", "properties", "sensitivity"];

const COLUMNS: usize = 120;

/// A text file of the repository, its path with `/` from the root.
struct File {
    path: String,
    text: String,
}

impl File {
    /// Its module in the house, where it is part of the library. A module's tests may have a file of their own.
    fn module(&self) -> Option<&str> {
        let module = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        if module.ends_with("/tests") {
            return None;
        }
        Some(match module.split_once('/') {
            Some(("rule", _)) => "rule/*",
            Some(("rules", _)) => "rules/*",
            Some(("wrappers", _)) => "wrappers/*",
            Some(("schedule", _)) => "schedule/*",
            Some(("words", _)) => "words/*",
            Some(("init", _)) => "init/*",
            Some(("groups", _)) => "groups/*",
            Some(("checkpoint", _)) => "checkpoint/*",
            Some(("gpu", _)) => "gpu/*",
            Some(("reference", _)) => "reference/*",
            Some(("shader", _)) => "shader/*",
            Some(("optimizer", _)) => "optimizer/*",
            Some(("plan", _)) => "plan/*",
            Some(("guide", _)) => "guide/*",
            _ => module,
        })
    }

    /// The text without comments and without its test module, line by line.
    fn code(&self) -> String {
        let text = self.text.split("#[cfg(test)]\nmod ").next().expect("at least one part");
        text.lines().map(|line| line.split("//").next().expect("at least one part").to_string() + "\n").collect()
    }

    fn at(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// What is wrong in lines of code.
    fn lines_with(&self, wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
        self.code().lines().enumerate().filter_map(|(i, line)| Some(self.at(i + 1, wrong(line)?))).collect()
    }
}

fn repository() -> Vec<File> {
    fn walk(folder: &Path, path: &str, files: &mut Vec<File>) {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable")) {
            let name = entry.file_name().into_string().expect("a name of letters");
            if name == ".git" {
                continue; // a file in a worktree of git: it names a folder of this machine
            }
            let inner = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            if entry.file_type().expect("a type").is_dir() {
                if name == ".ci" || !(name.starts_with('.') || ["target", "node_modules"].contains(&&name[..])) {
                    walk(&entry.path(), &inner, files);
                }
            } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
                files.push(File { path: inner, text });
            }
        }
    }
    let mut files = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Fails with the rule, its reason, and each place that breaks it.
fn hold(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n\n{rule}\n\n  {}\n", breaches.join("\n  "));
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in the line, not as part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(i, _)| {
        let longer_before = word.starts_with(is_word) && line[..i].ends_with(is_word);
        let longer_behind = word.ends_with(is_word) && line[i + word.len()..].starts_with(is_word);
        !longer_before && !longer_behind
    })
}

/// Every path into the crate in a file's code: line, module, items.
fn uses(file: &File) -> Vec<(usize, String, Vec<String>)> {
    let code = file.code();
    let folder = file.path.strip_prefix("src/").and_then(|path| path.split_once('/')).map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (i, _) in code.match_indices(start) {
            let line = code[..i].matches('\n').count() + 1;
            let path = &code[i + start.len()..];
            let word = |text: &str| text.chars().take_while(|&c| is_word(c)).collect::<String>();
            // `super` is the folder's module: the library has no deeper ones.
            let (module, rest) = match start {
                "super::" => (folder.to_string(), path),
                _ => (word(path), path[word(path).len()..].trim_start_matches("::")),
            };
            let items = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().expect("at least one part").split(',').map(word_of).collect(),
                None => vec![word(rest)],
            };
            found.push((line, module, items));
        }
    }
    found
}

fn word_of(text: &str) -> String {
    text.trim().chars().take_while(|&c| is_word(c)).collect()
}

fn floors(files: &[File]) -> Vec<String> {
    let floor = |module: &str| FLOORS.iter().position(|modules| modules.contains(&module));
    let mut breaches = Vec::new();
    for file in files {
        let Some(from) = file.module() else { continue };
        let Some(own) = floor(from) else {
            breaches
                .push(file.at(1, "stands on no floor: add it to FLOORS in tests/all/tidy.rs and to ARCHITECTURE.md"));
            continue;
        };
        for (line, to, items) in uses(file) {
            let neighbours = || {
                NEIGHBOURS.iter().any(|(a, b, allowed)| {
                    (*a, *b) == (from, &to[..])
                        && (allowed.is_empty() || items.iter().all(|item| allowed.contains(&&item[..])))
                })
            };
            match floor(&to) {
                _ if to == from => {}
                None => breaches.push(file.at(line, format!("`{to}` is no module: name the module that defines it"))),
                Some(other) if other < own || (other == own && neighbours()) => {}
                Some(other) => breaches.push(
                    file.at(line, format!("{from} (floor {own}) uses {to}::{{{}}} (floor {other})", items.join(", "))),
                ),
            }
        }
    }
    breaches
}

#[test]
fn modules_use_lower_floors_only() {
    hold(
        "Modules stand on floors (FLOORS in tests/all/tidy.rs) and use what is below them: so each can be read, tested and \
         changed knowing only what it stands on. Rules never use rules; shader, plan and clock never use rules.\n\
         Move what both need to a lower floor, or pass it in as an argument.",
        floors(&repository()),
    );
}

fn re_exports(files: &[File]) -> Vec<String> {
    let starts = ["mod ", "pub mod ", "pub use ", "#[", "#!["];
    files
        .iter()
        .filter(|file| file.path == "src/lib.rs" || file.path.starts_with("src/guide"))
        .filter(|file| file.path.ends_with(".rs"))
        .flat_map(|file| {
            file.lines_with(|line| {
                let fine = line.trim().is_empty() || starts.iter().any(|start| line.starts_with(start));
                (!fine).then(|| line.trim().to_string())
            })
        })
        .collect()
}

#[test]
fn lib_only_re_exports() {
    hold(
        "src/lib.rs is the list of what the crate offers: `mod` and `pub use`, one a line, no code, so that it is read \
         at a glance; src/guide.rs and src/guide/ are text.\nMove the code to the module it belongs to.",
        re_exports(&repository()),
    );
}

fn wgpu_named(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| file.module().is_some_and(|module| !NAMES_WGPU.contains(&module)))
        .flat_map(|file| file.lines_with(|line| has_word(line, "wgpu::").then(|| line.trim().to_string())))
        .collect()
}

#[test]
fn only_the_host_layer_names_wgpu() {
    hold(
        "Only src/gpu.rs, src/gpu/, src/optimizer.rs, src/optimizer/, src/joint.rs and src/proof.rs name wgpu: the \
         texts, the plans and the reference must build \
         without it (`--no-default-features`).\nPass plain numbers in, as `plan::Bounds` does.",
        wgpu_named(&repository()),
    );
}

fn twins(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| &file.text[..]);
    let stem = |path: &str| {
        let rust = path.strip_prefix("src/rules/").and_then(|name| name.strip_suffix(".rs"));
        let shader = || path.strip_prefix("shaders/rules/").and_then(|name| name.strip_suffix(".wgsl"));
        rust.or_else(shader).map(str::to_string)
    };
    let stems: BTreeSet<_> = files.iter().filter_map(|file| stem(&file.path)).collect();
    let mut breaches = Vec::new();
    for stem in stems {
        let (rust, shader) = (format!("src/rules/{stem}.rs"), format!("shaders/rules/{stem}.wgsl"));
        let header = |path: &str, comment: &str, name: &str| match text(path) {
            None => Some(format!("{path} is missing")),
            Some(text) => {
                let named = text.lines().take_while(|line| line.starts_with(comment)).any(|line| line.contains(name));
                (!named).then(|| format!("{path}: no line `{comment} {name}` at the top"))
            }
        };
        breaches.extend(header(&rust, "//!", &format!("Twin: `{shader}`")));
        breaches.extend(header(&shader, "//", &format!("Twin: {rust}")));
    }
    breaches
}

#[test]
fn every_rule_has_its_twin() {
    hold(
        "An optimizer is a pair of twins with one stem, src/rules/NAME.rs and shaders/rules/NAME.wgsl; each names the \
         other at its top, so that a reader of one finds the other.\nAdd the file, or the line.",
        twins(&repository()),
    );
}

/// Types and JSON names of the optimizers, from the registry's text.
fn optimizers(files: &[File]) -> Vec<String> {
    let registry = files.iter().find(|file| file.path == "src/rules.rs").map_or("", |file| &file.text);
    let list = registry.split_once("all![").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let types = list.split(',').filter_map(|entry| Some(entry.trim().split_once("::")?.1.to_string()));
    types.chain(wgpu_optim::rules::ALL.iter().map(|entry| format!("\"{}\"", entry.name))).collect()
}

fn optimizers_named(files: &[File]) -> Vec<String> {
    let names = optimizers(files);
    let walks = |path: &str| {
        let test = path.strip_prefix("tests/all/").and_then(|name| name.strip_suffix(".rs"));
        let demo = path.starts_with("examples/train_digits/") && path.ends_with(".rs");
        demo || test.is_some_and(|name| WALKS.contains(&name) || name.starts_with("common/"))
    };
    files
        .iter()
        .filter(|file| match file.module() {
            Some(module) => !module.starts_with("rules"),
            None => walks(&file.path),
        })
        .flat_map(|file| {
            file.lines_with(|line| {
                let name = names.iter().find(|name| has_word(line, name))?;
                Some(format!("names {name}"))
            })
        })
        .collect()
}

#[test]
fn the_registry_alone_names_optimizers() {
    assert!(optimizers(&repository()).len() >= 2 * wgpu_optim::rules::ALL.len(), "the registry's list was not found");
    hold(
        "Outside src/rules.rs and src/rules/, neither the library nor the demo nor a test that walks over the registry \
         names an optimizer: adding one is two files and two lines.\nAsk the entry or the rule for what differs (src/rule.rs), or \
         add a case to the rule.",
        optimizers_named(&repository()),
    );
}

/// Files of `tests/all/` that its `main.rs` does not name.
fn tests_left_out(files: &[File]) -> Vec<String> {
    let main = files.iter().find(|file| file.path == "tests/all/main.rs").map_or("", |file| &file.text);
    let stem = |file: &File| Some(file.path.strip_prefix("tests/all/")?.strip_suffix(".rs")?.to_string());
    files
        .iter()
        .filter_map(|file| Some((file, stem(file)?)))
        .filter(|(_, stem)| stem != "main" && !stem.contains('/') && !main.contains(&format!("\nmod {stem};\n")))
        .map(|(file, stem)| file.at(1, format!("is compiled only with a line `mod {stem};` in tests/all/main.rs")))
        .collect()
}

#[test]
fn every_test_runs() {
    hold(
        "The integration tests are one binary, and tests/all/main.rs lists its modules: a file that it does not name is \
         never compiled, and no test of it runs.\nAdd the line.",
        tests_left_out(&repository()),
    );
}

/// What stands between brackets, up to the first comma or the closing bracket, behind each of these openings.
fn first_arguments<'a>(line: &'a str, openings: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for opening in openings {
        for (i, _) in line.match_indices(opening).filter(|(i, _)| !line[..*i].ends_with(is_word)) {
            let rest = &line[i + opening.len()..];
            let mut depth = 0;
            let ends = |c: char| {
                depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
                depth < 0 || (depth == 0 && c == ',')
            };
            found.push(&rest[..rest.find(ends).unwrap_or(rest.len())]);
        }
    }
    found
}

/// Offsets written as numbers, where words that host and shader share are read, written or copied.
fn literal_offsets(files: &[File]) -> Vec<String> {
    const IN_RUST: [&str; 6] = ["read_control(", "write_control(", "of_control(", "control[", "clocks[", "tables["];
    const IN_WGSL: [&str; 13] = [
        "control[",
        "clocks[",
        "scratch[",
        "tables[",
        "load_word(",
        "load_number(",
        "load_control(",
        "store_control(",
        "load_option(",
        "load_node(",
        "store_node(",
        "load_partial(",
        "store_partial(",
    ];
    let is_number = |text: &str| {
        let mut starts = text.match_indices(|c: char| c.is_ascii_digit());
        starts.any(|(i, _)| !text[..i].ends_with(|c: char| is_word(c) || c == '{'))
    };
    let of_tensor = |line: &str| {
        line.match_indices("of_tensor(").any(|(i, _)| {
            let behind = line[i..].split_once(')').map_or("", |(_, behind)| behind);
            behind.trim_start().strip_prefix('+').is_some_and(|term| term.trim_start().starts_with(char::is_numeric))
        })
    };
    files
        .iter()
        .filter(|file| {
            let is_shared = ["shaders/skeletons/", "shaders/glue/"].iter().any(|folder| file.path.starts_with(folder));
            is_shared || (file.module().is_some() && !file.path.starts_with("src/words"))
        })
        .flat_map(|file| {
            let openings: &[&str] = if file.path.ends_with(".rs") { &IN_RUST } else { &IN_WGSL };
            file.lines_with(|line| {
                let found = first_arguments(line, openings).into_iter().any(is_number) || of_tensor(line);
                found.then(|| line.trim().to_string())
            })
        })
        .collect()
}

#[test]
fn no_offset_of_a_shared_word_is_a_number() {
    hold(
        "Words that the host and the shaders share have names in src/words.rs, from which the constants of both sides \
         come: a word that moves then moves on both.\nName the word there, and use the name.",
        literal_offsets(&repository()),
    );
}

fn unfinished(files: &[File]) -> Vec<String> {
    let words = [".unwrap()", "todo!", "unimplemented!", "dbg!", "println!", "eprintln!"];
    files
        .iter()
        .filter(|file| file.module().is_some())
        .flat_map(|file| {
            file.lines_with(|line| words.iter().find(|&&word| has_word(line, word)).map(|word| word.to_string()))
        })
        .collect()
}

#[test]
fn the_library_neither_unwraps_nor_prints() {
    hold(
        "A user's input never panics, and a library does not print. Return an `Error` that names field, value and bound; \
         where a value is always there, `expect` says why.",
        unfinished(&repository()),
    );
}

fn long_lines(files: &[File]) -> Vec<String> {
    files
        .iter()
        .filter(|file| {
            let folders = ["src/", "shaders/"].iter().any(|folder| file.path.starts_with(folder));
            folders && !file.path.ends_with(".md")
        })
        .flat_map(|file| {
            let columns = file.text.lines().map(|line| line.chars().count()).enumerate();
            columns.filter(|(_, len)| *len > COLUMNS).map(|(i, len)| file.at(i + 1, format!("{len} columns")))
        })
        .collect()
}

#[test]
fn lines_fit_in_120_columns() {
    hold(
        "Lines have at most 120 columns, comments and shaders too, which rustfmt does not touch: two files fit side by \
         side.\nBreak the line.",
        long_lines(&repository()),
    );
}

fn machine_paths(files: &[File]) -> Vec<String> {
    let roots = ["home", "root", "Users", "work", "mnt"].map(|folder| format!("/{folder}/"));
    let starts = |line: &str, root: &str| line.match_indices(root).any(|(i, _)| !line[..i].ends_with(is_path));
    fn is_path(c: char) -> bool {
        is_word(c) || ".-}*)".contains(c)
    }
    let mut breaches = Vec::new();
    for file in files {
        for (i, line) in file.text.lines().enumerate() {
            let root = roots.iter().find(|root| starts(line, root));
            breaches.extend(root.map(|root| file.at(i + 1, format!("a path that starts with {root}"))));
        }
    }
    breaches
}

#[test]
fn no_file_knows_a_machine() {
    hold(
        "Files name no folder of the machine they were written on: it is not there on the reader's.\nUse a path from the \
         repository's root, `env!(\"CARGO_MANIFEST_DIR\")`, or an argument.",
        machine_paths(&repository()),
    );
}

#[test]
fn every_check_notices_a_breach() {
    type Check = fn(&[File]) -> Vec<String>;
    let sound = "//! A rule. Twin: `shaders/rules/lion.wgsl`.\n\nuse crate::rule::Rule;\n";
    let breaches: [(Check, &str, &str, &str); 28] = [
        (floors, "src/parts.rs", "use crate::rule::Rule;", "parts (floor 0) uses rule::{Rule} (floor 1)"),
        (floors, "src/rules/lion.rs", "use crate::rules::Sgd;", "rules/* (floor 4) uses rules::{Sgd} (floor 4)"),
        (floors, "src/rules/lion.rs", "use super::sgd::Sgd;", "rules/* (floor 4) uses rules::{sgd} (floor 4)"),
        (floors, "src/plan.rs", "use crate::rules;", "plan (floor 4) uses rules::{} (floor 4)"),
        (floors, "src/gpu/ring.rs", "use crate::reference::{\n    find,\n    Reference,\n};", "{find, Reference, }"),
        (floors, "src/config.rs", "let x = crate::gpu::Gpu::new();", "config (floor 6) uses gpu::{Gpu} (floor 8)"),
        (floors, "src/config.rs", "use crate::Sgd;", "`Sgd` is no module"),
        (floors, "src/extra.rs", "", "stands on no floor"),
        (re_exports, "src/lib.rs", "fn main() {}", "fn main() {}"),
        (re_exports, "src/guide/ema.rs", "fn main() {}", "fn main() {}"),
        (wgpu_named, "src/plan.rs", "fn f(l: &wgpu::Limits) {}", "plan.rs:1: fn f"),
        (twins, "src/rules/lion.rs", sound, "shaders/rules/lion.wgsl is missing"),
        (twins, "shaders/rules/lion.wgsl", "// Twin: src/rules/lion.rs", "src/rules/lion.rs is missing"),
        (optimizers_named, "src/config.rs", "if name == \"adam\" {}", "names \"adam\""),
        (optimizers_named, "tests/all/parity.rs", "let rule = Adam::default();", "names Adam"),
        (optimizers_named, "tests/all/common/twin.rs", "match rule { Sgd { .. } => {} }", "names Sgd"),
        (tests_left_out, "tests/all/extra.rs", "#[test]", "with a line `mod extra;`"),
        (literal_offsets, "src/optimizer.rs", "engine.read_control(0, words, wait)", "read_control(0, words"),
        (literal_offsets, "src/optimizer.rs", "norm(Layout::of_tensor(i) + 3)", "+ 3"),
        (literal_offsets, "src/shader/glue.rs", "format!(\"bitcast<f32>(control[1u])\")", "control[1u]"),
        (literal_offsets, "shaders/skeletons/decide.wgsl", "let clocks = load_word(block + 2u);", "block + 2u"),
        (literal_offsets, "shaders/glue/control.wgsl", "control[at + 4u] = node.kind;", "at + 4u"),
        (unfinished, "src/gpu/ring.rs", "let x = y.unwrap();", ".unwrap()"),
        (unfinished, "src/plan.rs", "println!(\"here\");", "println!"),
        (long_lines, "shaders/parts.wgsl", &"x".repeat(121), "121 columns"),
        (machine_paths, "README.md", concat!("cd /ro", "ot/wgpu-optim"), "README.md:1: a path"),
        (machine_paths, "tests/a.rs", concat!("read(\"/ho", "me/me/x\")"), "a.rs:1: a path"),
        (machine_paths, ".ci/run", concat!("cp /wo", "rk/x ."), "run:1: a path"),
    ];
    for (check, path, text, message) in breaches {
        let registry = File { path: "src/rules.rs".into(), text: "all![adam::Adam, sgd::Sgd];".into() };
        let broken = check(&[registry, File { path: path.into(), text: text.into() }]);
        assert!(broken.len() == 1 && broken[0].contains(message), "{path} with {text:?}: {broken:#?}");
    }
    let fine = [
        ("src/rules/lion.rs", sound),
        ("shaders/rules/lion.wgsl", "// The sign of a momentum.\n// Twin: src/rules/lion.rs"),
        ("src/plan.rs", "/// As wgpu::Limits of Adam: see crate::gpu.\n#[cfg(test)]\nmod tests { x.unwrap(); }"),
        ("src/gpu/ring.rs", "use super::Gpu;\nuse crate::session::find;\nfn f(x: wgpu::Buffer) { x.unwrap_or(y); }"),
        (
            "shaders/skeletons/decide.wgsl",
            "store_control(CONTROL_GOOD, 0u); load_word(load_word(STEP_CLASS_OF) + tensor)",
        ),
        ("README.md", concat!("https://example.org/ho", "me/x and ../ro", "ot/x")),
    ]
    .map(|(path, text)| File { path: path.into(), text: text.into() });
    let checks: [Check; 10] = [
        floors,
        re_exports,
        wgpu_named,
        twins,
        optimizers_named,
        tests_left_out,
        literal_offsets,
        unfinished,
        long_lines,
        machine_paths,
    ];
    for check in checks {
        assert_eq!(check(&fine), Vec::<String>::new());
    }
}
