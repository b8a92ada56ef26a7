//! `cargo xtask demo | test | bench | pictures`: sees to it that there is a GPU to run on, then runs.

#[cfg(target_os = "linux")]
mod vulkan;

use std::process::{Command, ExitCode, ExitStatus};

const HELP: &str = "\
Sees to it that there is a GPU to run on, then runs:

  cargo xtask demo [ARGS]     train on handwritten digits     cargo run --release --example train_digits -- ARGS
  cargo xtask test [ARGS]     every test                      cargo test --workspace ARGS
  cargo xtask bench [ARGS]    time every optimizer            cargo bench --bench step -- ARGS
  cargo xtask pictures        draw those of docs/pictures     cargo run --release --example NAME -- --out docs/pictures

ARGS may follow a `--`: `cargo xtask bench -- --quick`, `cargo xtask demo -- --help`.

  --no-install    go on without looking for a GPU (Linux only; elsewhere nothing is ever installed)";

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pictures");
/// The examples that draw.
const DRAW: [&str; 5] = ["landscapes", "compare", "decay", "clipping", "schedules"];

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
    /// Calls of cargo, one after the other.
    Run {
        cargo: Vec<Vec<String>>,
        set_up: bool,
    },
}

impl Ask {
    fn run(self) -> Result<ExitCode, String> {
        let (calls, set_up) = match self {
            Ask::Help => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Ask::Run { cargo, set_up } => (cargo, set_up),
        };
        #[cfg(target_os = "linux")]
        if set_up {
            vulkan::set_up()?;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = set_up; // the system brings its own driver
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        for args in calls {
            let status = Command::new(&cargo).args(args).status();
            let status = status.map_err(|e| format!("cargo could not be started: {e}"))?;
            if !status.success() {
                return Ok(exit_code(status));
            }
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
    let (cargo, keep_dashes): (&[&str], _) = match args.next().as_deref() {
        None | Some("help" | "--help" | "-h") => return Ok(Ask::Help),
        Some("demo") => (&["run", "--release", "--example", "train_digits", "--manifest-path", MANIFEST, "--"], false),
        // What follows a `--` is for the test harness, not for cargo.
        Some("test") => (&["test", "--workspace", "--manifest-path", MANIFEST], true),
        Some("bench") => (&["bench", "--bench", "step", "--manifest-path", MANIFEST, "--"], false),
        Some("pictures") => return pictures(args.collect()),
        Some(other) => return Err(format!("`{other}` is none of demo, test, bench, pictures\n\n{HELP}")),
    };
    let mut cargo: Vec<String> = cargo.iter().map(|&arg| arg.into()).collect();
    let (mut set_up, mut dashes) = (true, false);
    for arg in args {
        match arg.as_str() {
            "--no-install" if !dashes => set_up = false,
            "--" if !dashes => {
                dashes = true;
                if keep_dashes {
                    cargo.push(arg);
                }
            }
            _ => cargo.push(arg),
        }
    }
    Ok(Ask::Run { cargo: vec![cargo], set_up })
}

fn pictures(args: Vec<String>) -> Result<Ask, String> {
    if let Some(arg) = args.iter().find(|arg| *arg != "--no-install") {
        return Err(format!("`{arg}`: pictures takes no arguments; the examples {} do", DRAW.join(", ")));
    }
    let draw = |name: &str| {
        ["run", "--release", "--manifest-path", MANIFEST, "--example", name, "--", "--out", PICTURES].map(String::from)
    };
    Ok(Ask::Run { cargo: DRAW.map(|name| draw(name).into()).into(), set_up: args.is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> (String, bool) {
        match parse(line.split_whitespace().map(String::from).collect()) {
            Ok(Ask::Run { cargo, set_up }) => {
                let calls: Vec<_> = cargo.iter().map(|args| args.join(" ")).collect();
                (calls.join("\n").replace(MANIFEST, "M").replace(PICTURES, "P"), set_up)
            }
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn arguments_reach_what_they_are_meant_for() {
        let bench = "bench --bench step --manifest-path M --";
        assert_eq!(asked("bench"), (bench.into(), true));
        assert_eq!(asked("bench -- --json out.json"), (format!("{bench} --json out.json"), true));
        assert_eq!(asked("bench --json out.json"), (format!("{bench} --json out.json"), true));

        let demo = "run --release --example train_digits --manifest-path M --";
        assert_eq!(asked("demo --no-install --epochs 3"), (format!("{demo} --epochs 3"), false));
        assert_eq!(asked("demo -- --no-install"), (format!("{demo} --no-install"), true));

        let test = "test --workspace --manifest-path M";
        assert_eq!(asked("test parity:: -- --nocapture"), (format!("{test} parity:: -- --nocapture"), true));
    }

    #[test]
    fn pictures_are_drawn_by_each_example_in_turn() {
        let (calls, set_up) = asked("pictures");
        let calls: Vec<_> = calls.lines().collect();
        assert_eq!((calls.len(), set_up), (DRAW.len(), true));
        assert_eq!(calls[0], "run --release --manifest-path M --example landscapes -- --out P");
        assert!(!asked("pictures --no-install").1);
    }

    #[test]
    fn help_and_errors() {
        let parse = |line: &str| parse(line.split_whitespace().map(String::from).collect());
        assert_eq!(parse(""), Ok(Ask::Help));
        assert_eq!(parse("--help"), Ok(Ask::Help));
        assert!(parse("deploy").unwrap_err().starts_with("`deploy` is none of demo, test, bench, pictures"));
        assert!(parse("pictures --quick").unwrap_err().starts_with("`--quick`: pictures takes no arguments"));
    }
}
