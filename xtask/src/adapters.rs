//! The integration tests on every adapter at hand, and a matrix of what passed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A way to an adapter.
struct Adapter {
    name: &'static str,
    /// What the Vulkan loader or wgpu reads in the environment.
    env: &'static [(&'static str, &'static str)],
    /// A file without which there is none, and the package that brings it.
    needs: Option<(&'static str, &'static str)>,
}

const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

/// The tests differ between these in threads, in what is in flight, and in what WGSL leaves to a device.
const ADAPTERS: [Adapter; 3] = [
    Adapter { name: "Vulkan", env: &[("WGPU_BACKEND", "vulkan")], needs: None },
    Adapter { name: "GL", env: &[("WGPU_BACKEND", "gl")], needs: None },
    Adapter {
        name: "SwiftShader",
        env: &[("WGPU_BACKEND", "vulkan"), ("VK_DRIVER_FILES", SWIFTSHADER)],
        needs: Some((SWIFTSHADER, "Debian's package chromium")),
    },
];

/// The test that says on which adapter it runs.
const NAMED: &str = "engine::the_adapter_is_named";

/// Whether each test passed.
type Outcomes = BTreeMap<String, bool>;

/// Which adapters are asked for.
#[derive(Debug, PartialEq)]
pub enum Which {
    All,
    /// Those that the tests do not run on by themselves.
    Others,
}

/// Runs the integration tests on each adapter there is, prints the matrix, and says whether all passed. The arguments
/// go to the test harness.
pub fn run(which: &Which, cargo: &[String], harness: &[String]) -> Result<bool, String> {
    let mut columns = Vec::new();
    for adapter in ADAPTERS.iter().skip(usize::from(*which == Which::Others)) {
        let found = match adapter.needs.filter(|(file, _)| !Path::new(file).exists()) {
            Some((_, package)) => Err(format!("{package} is not installed")),
            None => adapter.label(cargo)?.ok_or_else(|| "no adapter".into()),
        };
        match found {
            Ok(label) => {
                let start = Instant::now();
                let outcomes = adapter.test(cargo, harness)?;
                eprintln!("xtask: {} ({label}) took {:.0} s", adapter.name, start.elapsed().as_secs_f64());
                columns.push((adapter.name, outcomes));
            }
            Err(why) => eprintln!("skipped: 1 adapter, {}: {why}", adapter.name),
        }
    }
    print!("{}", matrix(&columns));
    let ran = *which == Which::Others || columns.iter().any(|(_, outcomes)| !outcomes.is_empty());
    Ok(ran && columns.iter().all(|(_, outcomes)| outcomes.values().all(|passed| *passed)))
}

impl Adapter {
    fn command(&self, cargo: &[String]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(cargo).env_remove("VK_DRIVER_FILES").envs(self.env.iter().copied());
        command
    }

    /// The adapter's own name, where there is one.
    fn label(&self, cargo: &[String]) -> Result<Option<String>, String> {
        let mut command = self.command(cargo);
        command.args(["--", "--exact", NAMED]).env_remove("REQUIRE_GPU");
        let output = command.output().map_err(|error| format!("cargo could not be started: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(said.lines().find_map(|line| line.strip_prefix("adapter: ")).map(String::from))
    }

    fn test(&self, cargo: &[String], harness: &[String]) -> Result<Outcomes, String> {
        let mut command = self.command(cargo);
        command.arg("--").args(harness).env("REQUIRE_GPU", "1").stderr(Stdio::inherit());
        let output = command.output().map_err(|error| format!("cargo could not be started: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let outcomes = outcomes(&text);
        if !output.status.success() {
            print!("{text}");
        }
        match outcomes.is_empty() && !output.status.success() {
            true => Err(format!("the tests did not run on {}: {}", self.name, output.status)),
            false => Ok(outcomes),
        }
    }
}

/// What the test harness says of each test: `test clip::by_hand ... ok`.
fn outcomes(text: &str) -> Outcomes {
    let outcome = |line: &str| {
        let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
        Some((
            name.to_string(),
            match outcome {
                "ok" => true,
                "FAILED" => false,
                _ => return None,
            },
        ))
    };
    text.lines().filter_map(outcome).collect()
}

/// Tests that passed of those that ran, a row a module and a column an adapter; then those that failed, by name.
fn matrix(columns: &[(&str, Outcomes)]) -> String {
    let mut modules: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    let mut failed = String::new();
    for (column, (adapter, outcomes)) in columns.iter().enumerate() {
        for (test, passed) in outcomes {
            let module = test.split("::").next().unwrap_or(test);
            let counts = &mut modules.entry(module).or_insert_with(|| vec![(0, 0); columns.len()])[column];
            counts.0 += usize::from(*passed);
            counts.1 += 1;
            if !passed {
                failed += &format!("failed on {adapter}: {test}\n");
            }
        }
    }
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        format!("{name:<16}{cells}\n")
    };
    let mut text = row("", columns.iter().map(|(adapter, _)| adapter.to_string()).collect());
    for (module, counts) in modules {
        text += &row(module, counts.iter().map(|(passed, all)| format!("{passed} of {all}")).collect());
    }
    text + &failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_counts_by_module_and_names_what_failed() {
        let text = "\nrunning 3 tests\ntest clip::by_hand ... ok\ntest clip::nan ... FAILED\ntest ema::swap ... ok\n";
        let found = matrix(&[("Vulkan", outcomes("test clip::by_hand ... ok\n")), ("GL", outcomes(text))]);
        let expected = [
            "                        Vulkan            GL",
            "clip                    1 of 1        1 of 2",
            "ema                     0 of 0        1 of 1",
            "failed on GL: clip::nan\n",
        ];
        assert_eq!(found, expected.join("\n"));
    }
}
