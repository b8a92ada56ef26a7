//! `cargo xtask demo | test | bench | soak | pictures` makes sure that there is a GPU to run on, then builds and runs;
//! `cargo xtask steps-to-loss` runs on the CPU, `cargo xtask web` builds a page and serves it, and
//! `cargo xtask burn-web` checks the crate for Burn.

mod adapters;
#[cfg(target_os = "linux")]
mod vulkan;
mod web;

use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use adapters::Which;

const HELP: &str = "\
Sees to it that there is a GPU to run on, builds, runs, and says how long each took:

  cargo xtask demo [ARGS]     train on handwritten digits     cargo run --example train_digits -- ARGS
  cargo xtask test [ARGS]     every test                      cargo test --workspace ARGS
  cargo xtask bench [ARGS]    time every optimizer            cargo bench --bench step -- ARGS
  cargo xtask bench --burn    time it against Burn's AdamW    the bench of crates/wgpu-optim-burn
  cargo xtask soak            100 000 steps, memory watched   cargo test --test all -- --test-threads=1 soak::
  cargo xtask steps-to-loss   rules and formats compared      cargo run --release --example steps_to_loss -- ARGS
  cargo xtask pictures        draw those of docs/pictures     each program of crates/pictures
  cargo xtask web [PORT]      optimizers at work in a page    builds target/web, serves it on loopback, port 8000
  cargo xtask burn-web        Burn's crate for the browser    cargo check --target wasm32-unknown-unknown

ARGS may follow a `--`: `cargo xtask bench -- --quick`, `cargo xtask demo -- --help`. `cargo xtask test parity::` runs
the tests of one module of tests/all. `cargo xtask test --all-adapters -- parity:: clip::` runs those of tests/all on
Vulkan, on GL and on SwiftShader, as far as they are there, and prints which passed where; --other-adapters leaves out
the first, which all tests run on.

  --thorough      `test` tries every case; without it long tests take a share, and a line says how many they left out
  --no-serve      `web` builds the page alone
  --no-fusion     `bench --burn` times Burn without its fusion
  --no-install    go on without looking for a GPU (Linux only; elsewhere nothing is ever installed)";

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pictures");
/// The workspace of the programs that draw.
const DRAWING: [&str; 2] = ["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/pictures/Cargo.toml")];
/// The workspace of the crate for Burn, and the profile in which host code is optimised.
const BURN: [&str; 4] = ["--manifest-path", web::BURN, "--profile", "timed"];
/// The programs of the workspace that draws, each of which draws some of the pictures.
const DRAW: [&str; 8] = ["landscapes", "compare", "decay", "clipping", "schedules", "fit", "memory", "steps"];

fn main() -> ExitCode {
    match parse(std::env::args().skip(1).collect()).and_then(|ask| ask.run()) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Ask {
    Help,
    /// Calls of cargo, one after the other, each with the name of its stage.
    Run {
        stages: Vec<(&'static str, Vec<String>)>,
        set_up: bool,
    },
    /// The page, built and perhaps served.
    Web {
        port: u16,
        serves: bool,
    },
    /// The crate for Burn, checked for the browser.
    BurnWeb,
    /// The integration tests on several adapters: the call of cargo, and what is for the test harness.
    Adapters {
        which: Which,
        cargo: Vec<String>,
        harness: Vec<String>,
        set_up: bool,
    },
}

impl Ask {
    fn run(self) -> Result<ExitCode, String> {
        let (stages, set_up, adapters) = match self {
            Ask::Help => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Ask::BurnWeb => return web::burn().map(|()| ExitCode::SUCCESS),
            Ask::Web { port, serves } => return web::run(port, serves).map(|()| ExitCode::SUCCESS),
            Ask::Run { stages, set_up } => (stages, set_up, None),
            Ask::Adapters { which, cargo, harness, set_up } => {
                let build = [&cargo[..], &["--no-run".into()]].concat();
                (vec![("the build", build)], set_up, Some((which, cargo, harness)))
            }
        };
        #[cfg(target_os = "linux")]
        if set_up {
            vulkan::set_up()?;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = set_up; // the system brings its own driver
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        for (stage, args) in stages {
            let start = Instant::now();
            let status = Command::new(&cargo).args(args).status();
            let status = status.map_err(|e| format!("cargo could not be started: {e}"))?;
            eprintln!("xtask: {stage} took {:.0} s", start.elapsed().as_secs_f64());
            if !status.success() {
                return Ok(exit_code(status));
            }
        }
        if let Some((which, cargo, harness)) = adapters {
            return Ok(if adapters::run(&which, &cargo, &harness)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A child's exit code as ours; one that was killed counts as failed.
fn exit_code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1)))
}

fn parse(args: Vec<String>) -> Result<Ask, String> {
    let mut args = args.into_iter();
    let (build, run): (&[&str], &[&str]) = match args.next().as_deref() {
        None | Some("help" | "--help" | "-h") => return Ok(Ask::Help),
        Some("demo") => (&["build", "--example", "train_digits"], &["run", "--quiet", "--example", "train_digits"]),
        Some("test") => return Ok(test(args)),
        Some("bench") if args.as_slice().iter().any(|arg| arg == "--burn") => return Ok(bench_burn(args)),
        Some("bench") => (&["bench", "--no-run", "--bench", "step"], &["bench", "--quiet", "--bench", "step"]),
        Some("steps-to-loss") => return Ok(steps_to_loss(args)),
        Some("soak") => return soak(args.collect()),
        Some("pictures") => return pictures(args.collect()),
        Some("web") => return web(args.collect()),
        Some("burn-web") => match args.next() {
            None => return Ok(Ask::BurnWeb),
            Some(arg) => return Err(format!("`{arg}`: burn-web takes no arguments")),
        },
        Some(other) => {
            return Err(format!(
                "`{other}` is none of demo, test, bench, steps-to-loss, soak, pictures, web, burn-web\n\n{HELP}"
            ));
        }
    };
    let (own, rest, set_up) = split(args);
    let run = [&call(run, &[]), &["--".into()][..], &own, &rest].concat();
    Ok(Ask::Run { stages: vec![("the build", call(build, &[])), ("the run", run)], set_up })
}

/// The bench against Burn's own optimizer, with fusion, as Burn has it, unless it is switched off.
fn bench_burn(args: impl Iterator<Item = String>) -> Ask {
    let (mut own, rest, set_up) = split(args.filter(|arg| arg != "--burn"));
    let all = own.len();
    own.retain(|arg| arg != "--no-fusion");
    let features: &[&str] = if own.len() == all { &[] } else { &["--no-default-features"] };
    let of = |words: &[&str]| [words, &BURN, features].concat().into_iter().map(String::from).collect::<Vec<_>>();
    let build = of(&["bench", "--no-run", "--bench", "step"]);
    let run = [&of(&["bench", "--quiet", "--bench", "step"]), &["--".into()][..], &own, &rest].concat();
    Ask::Run { stages: vec![("the build", build), ("the run", run)], set_up }
}

/// The arguments before a first `--` and those behind it; and whether to look for a GPU, which `--no-install` before it
/// forbids.
fn split(args: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>, bool) {
    let mut own: Vec<String> = args.collect();
    let rest = match own.iter().position(|arg| arg == "--") {
        Some(dashes) => own.split_off(dashes).split_off(1),
        None => vec![],
    };
    let all = own.len();
    own.retain(|arg| arg != "--no-install");
    let set_up = own.len() == all;
    (own, rest, set_up)
}

/// A call of cargo on this workspace, with more arguments.
fn call(args: &[&str], more: &[String]) -> Vec<String> {
    let words = args.iter().chain(&["--manifest-path", MANIFEST]).map(|&arg| arg.into());
    words.chain(more.iter().cloned()).collect()
}

/// The trainings of docs/steps-to-loss.md. They run on the CPU and need no GPU.
fn steps_to_loss(args: impl Iterator<Item = String>) -> Ask {
    let (own, rest, _) = split(args);
    let example = |verb: &[&str]| call(&[verb, &["--release", "--example", "steps_to_loss"]].concat(), &[]);
    let run = [&example(&["run", "--quiet"]), &["--".into()][..], &own, &rest].concat();
    Ask::Run { stages: vec![("the build", example(&["build"])), ("the run", run)], set_up: false }
}

/// What stands before a `--` is for cargo, what is behind it for the test harness.
fn test(args: impl Iterator<Item = String>) -> Ask {
    let (mut own, rest, set_up) = split(args);
    let mut takes = |arg: &str| own.iter().position(|own| own == arg).map(|at| own.remove(at)).is_some();
    let thorough: &[&str] = if takes("--thorough") { &["--config", "env.THOROUGH=\"1\""] } else { &[] };
    for (arg, which) in [("--all-adapters", Which::All), ("--other-adapters", Which::Others)] {
        if takes(arg) {
            let cargo = call(&[thorough, &["test", "--test", "all"]].concat(), &own);
            return Ask::Adapters { which, cargo, harness: rest, set_up };
        }
    }
    let mut run = call(&[thorough, &["test", "--workspace"]].concat(), &own);
    if !rest.is_empty() {
        run.extend(["--".into()].into_iter().chain(rest));
    }
    let mut stages = vec![("the run", run)];
    // Cargo takes `--no-run` once, and not for the tests in docs.
    if !own.iter().any(|arg| ["--no-run", "--doc", "--help", "-h"].contains(&&arg[..])) {
        stages.insert(0, ("the build", call(&[thorough, &["test", "--workspace", "--no-run"]].concat(), &own)));
    }
    Ask::Run { stages, set_up }
}

/// The tests that soak, alone, so that the host's memory is theirs; with steps of one's own: `cargo xtask soak 2000`.
fn soak(args: Vec<String>) -> Result<Ask, String> {
    let (own, _, set_up) = split(args.into_iter());
    let steps = own.first().map_or("100000", |steps| steps);
    if steps.parse::<u32>().is_err() || own.len() > 1 {
        return Err(format!("`{}`: soak takes how many steps there are to be", own.join(" ")));
    }
    let env = format!("env.SOAK_STEPS=\"{steps}\"");
    let set = ["--config".to_string(), env];
    let build = [&set[..], &call(&["test", "--test", "all", "--no-run"], &[])].concat();
    let more = ["--", "--test-threads=1", "soak::"].map(String::from);
    let run = [&set[..], &call(&["test", "--test", "all"], &more)].concat();
    Ok(Ask::Run { stages: vec![("the build", build), ("the run", run)], set_up })
}

fn web(args: Vec<String>) -> Result<Ask, String> {
    let (mut port, mut serves) = (8000, true);
    for arg in args {
        match arg.parse() {
            Ok(own) => port = own,
            Err(_) if arg == "--no-serve" => serves = false,
            Err(_) => return Err(format!("`{arg}`: web takes a port from 0 to 65535, or --no-serve")),
        }
    }
    Ok(Ask::Web { port, serves })
}

fn pictures(args: Vec<String>) -> Result<Ask, String> {
    if let Some(arg) = args.iter().find(|arg| *arg != "--no-install") {
        return Err(format!("`{arg}`: pictures takes no arguments; the programs {} do", DRAW.join(", ")));
    }
    let of = |words: &[&str], name: &[&str]| [words, &DRAWING, name].concat().into_iter().map(String::from).collect();
    let draw = |name| (name, of(&["run", "--quiet", "--release"], &["--bin", name, "--", "--out", PICTURES]));
    let stages = [("the build", of(&["build", "--release"], &[]))].into_iter().chain(DRAW.map(draw));
    Ok(Ask::Run { stages: stages.collect(), set_up: args.is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> (String, bool) {
        match parse(line.split_whitespace().map(String::from).collect()) {
            Ok(Ask::Run { stages, set_up }) => {
                let calls: Vec<_> = stages.iter().map(|(stage, args)| format!("{stage}: {}", args.join(" "))).collect();
                let calls = calls.join("\n").replace(&DRAWING.join(" "), "D").replace(&BURN.join(" "), "B");
                (calls.replace(MANIFEST, "M").replace(PICTURES, "P"), set_up)
            }
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn arguments_reach_what_they_are_meant_for() {
        let bench = "the build: bench --no-run --bench step --manifest-path M\n\
                     the run: bench --quiet --bench step --manifest-path M --";
        assert_eq!(asked("bench"), (bench.into(), true));
        assert_eq!(asked("bench -- --json out.json"), (format!("{bench} --json out.json"), true));
        assert_eq!(asked("bench --json out.json"), (format!("{bench} --json out.json"), true));

        let burn = |features| {
            format!(
                "the build: bench --no-run --bench step B{features}\nthe run: bench --quiet --bench step B{features} --"
            )
        };
        assert_eq!(asked("bench --burn"), (burn(""), true));
        assert_eq!(asked("bench --no-fusion --burn -- --runs 2"), (burn(" --no-default-features") + " --runs 2", true));

        let demo = "the build: build --example train_digits --manifest-path M\n\
                    the run: run --quiet --example train_digits --manifest-path M --";
        assert_eq!(asked("demo --no-install --epochs 3"), (format!("{demo} --epochs 3"), false));
        assert_eq!(asked("demo -- --no-install"), (format!("{demo} --no-install"), true));

        let test = "test --workspace --manifest-path M";
        let build = "test --workspace --no-run --manifest-path M";
        assert_eq!(
            asked("test parity:: -- --nocapture"),
            (format!("the build: {build} parity::\nthe run: {test} parity:: -- --nocapture"), true)
        );
        assert_eq!(asked("test --doc"), (format!("the run: {test} --doc"), true));
        let all = "--config env.THOROUGH=\"1\"";
        assert_eq!(asked("test --thorough"), (format!("the build: {all} {build}\nthe run: {all} {test}"), true));
        let all = parse("test --all-adapters --release -- parity::".split(' ').map(String::from).collect());
        let cargo = call(&["test", "--test", "all"], &["--release".into()]);
        assert_eq!(all, Ok(Ask::Adapters { which: Which::All, cargo, harness: vec!["parity::".into()], set_up: true }));
        assert_eq!(asked("test --no-install"), (format!("the build: {build}\nthe run: {test}"), false));
    }

    #[test]
    fn pictures_are_drawn_by_each_program_in_turn() {
        let (calls, set_up) = asked("pictures");
        let calls: Vec<_> = calls.lines().collect();
        assert_eq!((calls.len(), set_up), (1 + DRAW.len(), true));
        assert_eq!(
            calls[..2],
            ["the build: build --release D", "landscapes: run --quiet --release D --bin landscapes -- --out P"]
        );
        assert!(!asked("pictures --no-install").1);
    }

    #[test]
    fn steps_to_loss_runs_without_a_gpu() {
        let (calls, set_up) = asked("steps-to-loss --formats");
        let run = "the run: run --quiet --release --example steps_to_loss --manifest-path M -- --formats";
        assert_eq!((calls.lines().nth(1), set_up), (Some(run), false));
    }

    #[test]
    fn soak_takes_steps() {
        let (calls, set_up) = asked("soak 2000 --no-install");
        let run =
            "the run: --config env.SOAK_STEPS=\"2000\" test --test all --manifest-path M -- --test-threads=1 soak::";
        assert_eq!((calls.lines().nth(1), set_up), (Some(run), false));
        assert!(parse(vec!["soak".into(), "long".into()]).unwrap_err().contains("`long`"));
    }

    #[test]
    fn web_takes_a_port_or_builds_alone() {
        let asked = |line: &str| parse(line.split_whitespace().map(String::from).collect());
        assert_eq!(asked("web"), Ok(Ask::Web { port: 8000, serves: true }));
        assert_eq!(asked("web 8080"), Ok(Ask::Web { port: 8080, serves: true }));
        assert_eq!(asked("web --no-serve"), Ok(Ask::Web { port: 8000, serves: false }));
        assert!(asked("web 65536").unwrap_err().starts_with("`65536`: web takes a port from 0 to 65535"));
    }

    #[test]
    fn help_and_errors() {
        let parse = |line: &str| parse(line.split_whitespace().map(String::from).collect());
        assert_eq!(parse(""), Ok(Ask::Help));
        assert_eq!(parse("--help"), Ok(Ask::Help));
        assert!(
            parse("deploy")
                .unwrap_err()
                .starts_with("`deploy` is none of demo, test, bench, steps-to-loss, soak, pictures, web, burn-web")
        );
        assert_eq!(parse("burn-web"), Ok(Ask::BurnWeb));
        assert!(parse("burn-web 8000").unwrap_err().starts_with("`8000`: burn-web takes no arguments"));
        assert!(parse("pictures --quick").unwrap_err().starts_with("`--quick`: pictures takes no arguments"));
    }
}
