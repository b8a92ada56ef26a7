//! What is reported, and about which machine.

use std::process::Command;

use serde::Serialize;
use wgpu_optim::Gpu;

/// One run of the bench: the JSON that `--json` writes.
#[derive(Serialize)]
pub struct Report {
    pub adapter: String,
    pub driver: String,
    pub cpu: String,
    pub commit: String,
    pub command: String,
    pub clock: &'static str,
    /// The version and device of PyTorch, where it is timed beside.
    pub torch: Option<String>,
    pub rows: Vec<Row>,
}

/// One rule on one list of tensors. Times are nanoseconds of one step; medians.
#[derive(Serialize)]
pub struct Row {
    pub rule: String,
    /// The bytes of parameter, gradient and state.
    pub formats: &'static str,
    pub shapes: &'static str,
    pub elements: u64,
    /// The bytes that a step reads and writes of each element.
    pub bytes_per_element: f64,
    pub tensors: usize,
    pub time_ns_median: f64,
    /// Of the bytes that the rule has to move.
    pub gb_per_s: f64,
    /// Operations of products of matrices by the nanosecond, of a rule that takes some.
    pub gflop_per_s: Option<f64>,
    /// The same-traffic kernel's time over the rule's, each pair timed in turn.
    pub share_of_same_traffic: f64,
    pub same_traffic_ns_median: f64,
    /// The walks that the kernel took: entry points and lanes.
    pub same_traffic_walks: Vec<String>,
    /// The processor's time of `encode` with the buffers of the step before.
    pub encode_ns_median: f64,
    pub dispatches: usize,
    /// The time of PyTorch's optimizer, where it was asked for and there is one.
    pub torch_ns_median: Option<f64>,
}

impl Report {
    pub fn new(gpu: &Gpu, clock: &'static str, torch: Option<String>) -> Report {
        let info = gpu.adapter_info();
        let arguments = std::env::args().skip(1).filter(|arg| arg != "--bench").map(|arg| format!(" {arg}"));
        Report {
            adapter: format!("{} ({})", info.name, info.backend),
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            cpu: cpu(),
            commit: output("git", &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]),
            command: format!("cargo xtask bench --{}", arguments.collect::<String>()),
            clock,
            torch,
            rows: vec![],
        }
    }

    pub fn head(&self) -> String {
        let Report { adapter, driver, cpu, clock, torch, .. } = self;
        let (beside, column) = match torch {
            Some(name) => (format!("; PyTorch {name}"), "  torch ms"),
            None => Default::default(),
        };
        format!("{adapter}, {driver}; {cpu}; by {clock}{beside}\n\n{}{column}", Row::HEAD)
    }
}

impl Row {
    const HEAD: &str = "shapes       rule                      elements  bytes  tensors  step ms    GB/s   share  \
                        traffic ms  encode us  dispatches  GFLOP/s";

    pub fn line(&self) -> String {
        format!(
            "{:<12} {:<22} {:>11}  {:>5.1}  {:>7}  {:>7.3}  {:>6.2}  {:>6.3}  {:>10.3}  {:>9.1}  {:>10}  {:>7}  {}",
            self.shapes,
            self.rule,
            self.elements,
            self.bytes_per_element,
            self.tensors,
            self.time_ns_median / 1e6,
            self.gb_per_s,
            self.share_of_same_traffic,
            self.same_traffic_ns_median / 1e6,
            self.encode_ns_median / 1e3,
            self.dispatches,
            self.gflop_per_s.map_or(String::new(), |rate| format!("{rate:.1}")),
            self.torch_ns_median.map_or(String::new(), |ns| format!("{:>8.3}", ns / 1e6)),
        )
        .trim_end()
        .into()
    }
}

/// The processor's name and how many threads the bench may use.
fn cpu() -> String {
    let name = match std::env::consts::OS {
        "linux" => {
            let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("model name"));
            line.and_then(|line| line.split(':').nth(1)).unwrap_or_default().trim().into()
        }
        "macos" => output("sysctl", &["-n", "machdep.cpu.brand_string"]),
        _ => std::env::var("PROCESSOR_IDENTIFIER").unwrap_or_default(),
    };
    let name = if name.is_empty() { std::env::consts::ARCH.into() } else { name };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {threads} threads")
}

/// What a program prints, or nothing where it fails.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().into()).unwrap_or_default()
}
