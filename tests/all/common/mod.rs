//! What the tests share.

pub mod memory;
pub mod run;

pub use wgpu_optim::proof::{self as twin, read};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use wgpu_optim::rule::{AnyRule, Pass, Renewal, RuleEntry, Turning};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Error, Gpu, TensorSpec, wgpu};

/// The first adapter. Without one `cases` cases of `what` are skipped, which one line says even where the test harness
/// captures output; with `REQUIRE_GPU=1` that fails.
pub fn gpu(what: &str, cases: usize) -> Option<Gpu> {
    match Gpu::request_blocking() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var("REQUIRE_GPU").as_deref() != Ok("1") => {
            say(&format!("skipped: {cases} cases of {what}: no adapter"));
            None
        }
        Err(error) => panic!("{cases} cases of {what}: {error}"),
    }
}

/// One in `of` of these cases, and all of them in `cargo xtask test --thorough`. Which ones, `turn` says: where it grows
/// by 1 from list to list, so many lists hold each place once.
pub fn share<T>(cases: Vec<T>, of: usize, turn: usize) -> Vec<T> {
    let of = if is_thorough() { 1 } else { of.clamp(1, cases.len().max(1)) };
    cases.into_iter().enumerate().filter(|(place, _)| place % of == turn % of).map(|(_, case)| case).collect()
}

fn is_thorough() -> bool {
    std::env::var_os("THOROUGH").is_some()
}

/// A rule's entry, and one of its cases: its name and the rule.
type Case = (&'static RuleEntry, &'static str, Box<dyn AnyRule>);

/// The cases of all rules, one in `of` of them, and how many there are.
pub fn share_of_cases(of: usize) -> (Vec<Case>, usize) {
    let cases = |row: &'static RuleEntry| (row.cases)().into_iter().map(move |(case, rule)| (row, case, rule));
    let all: Vec<_> = ALL.iter().flat_map(cases).collect();
    let count = all.len();
    (share(all, of, 0), count)
}

/// Counts the cases that [`share`] left out.
pub fn say_share(what: &str, tried: usize, all: usize) {
    if tried < all {
        say(&format!("skipped: {} of {all} cases of {what}: `cargo xtask test --thorough` tries all", all - tried));
    }
}

/// A rule for tests that take one of each: its case of that name, which may have less state, or the default options.
pub fn default_of(row: &RuleEntry) -> Box<dyn AnyRule> {
    let case = |(case, rule): (&str, Box<dyn AnyRule>)| (case == "default").then_some(rule);
    (row.cases)().into_iter().find_map(case).unwrap_or_else(row.default)
}

/// Another device on the adapter of that one, with limits changed.
pub fn device(gpu: &Gpu, change: impl Fn(&mut wgpu::Limits)) -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let info = gpu.adapter_info();
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let same = |adapter: &wgpu::Adapter| {
        let other = adapter.get_info();
        (other.name, other.backend) == (info.name.clone(), info.backend)
    };
    let adapter = adapters.into_iter().find(same).expect("the adapter is there still");
    let mut required_limits = wgpu_optim::required_limits(&adapter);
    change(&mut required_limits);
    pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor { required_limits, ..Default::default() }))
        .unwrap()
}

/// Prints a line that the test harness does not capture.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr is open");
}

/// A buffer of so many bytes.
pub fn create(gpu: &Gpu, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// An example of the profile that these tests are built in. `cargo test` builds it beside them; where only the tests
/// were built, it is absent or older than its sources, and cargo builds it in the same profile.
pub fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("the path of the test binary");
    let profile = tests.parent().and_then(Path::parent).expect("target/PROFILE/deps/all-HASH");
    let beside = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let sources = ["src", "shaders", &format!("examples/{name}")];
    if modified(&beside).is_some_and(|built| sources.iter().all(|folder| built > newest(folder))) {
        return beside;
    }
    let profile = match profile.file_name().and_then(|name| name.to_str()).expect("a name of letters") {
        "debug" => "dev",
        name => name,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", name, "--message-format", "json", "--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let messages = String::from_utf8(built.stdout).unwrap();
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&built.stderr)))
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|data| data.modified()).ok()
}

/// When the file of this folder that was changed last was changed.
fn newest(folder: &str) -> SystemTime {
    fn walk(path: &Path) -> Option<SystemTime> {
        if !path.is_dir() {
            return modified(path);
        }
        std::fs::read_dir(path).unwrap().filter_map(|entry| walk(&entry.unwrap().path())).max()
    }
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder with files")
}

/// How a rule renews bases in the step at this `t`.
pub fn renewal_at(rule: &dyn AnyRule, t: u64) -> Option<Renewal> {
    let mut hyper = vec![];
    rule.hyper(t, &mut rule.carried(t), &mut hyper);
    rule.renewal(&hyper)
}

/// How many dispatches a step at this `t` takes, where one takes all entries: one a pass, and one more for each side
/// that tensors are turned along. The largest side says how many rounds a renewal has.
pub fn dispatches_of(rule: &dyn AnyRule, tensors: &[TensorSpec], t: u64) -> usize {
    let Some(sides) = rule.sides() else { return rule.passes().len() };
    let sides: Vec<_> = tensors.iter().map(|tensor| sides.of(&tensor.shape)).collect();
    let most = sides.iter().map(Vec::len).max().unwrap_or(0);
    let is_here = |pass: &&Pass| match pass {
        Pass::Bases | Pass::Turn(Turning::Power) => false,
        _ => most > 0 || !pass.is_over_sides(),
    };
    let of_every_step = rule.passes().iter().filter(is_here).count() + 2 * most.saturating_sub(1);
    let largest = sides.iter().flatten().max_by_key(|side| side.size);
    let of_renewal = largest.zip(renewal_at(rule, t)).map_or(0, |(side, renewal)| {
        let rounds = side.rounds(renewal) as usize;
        match renewal {
            Renewal::Eigenvectors => 1 + 2 * rounds,
            Renewal::Power => 1 + 1 + rounds,
        }
    });
    of_every_step + of_renewal
}
