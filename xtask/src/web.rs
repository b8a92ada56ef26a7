//! `cargo xtask web`: builds the package for pages and the page around it, and serves that on loopback. `cargo xtask
//! burn-web`: the crate for Burn in the browser's types.

use std::path::Path;
use std::process::Command;

/// The folder of the package.
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/wgpu-optim-web");
/// The folder of the page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../web");
/// The manifest of the crate for Burn.
pub(super) const BURN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/wgpu-optim-burn/Cargo.toml");

/// Builds all of it, then serves until it is stopped, unless there is to be no serving.
pub fn run(port: u16, serves: bool) -> Result<(), String> {
    if !Path::new(PACKAGE).join("node_modules").is_dir() {
        call(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]), "Node's npm ci")?;
    }
    let mut build = Command::new("node");
    build.arg("build.mjs");
    call(with_toolchain(&mut build)?, "Node's run of the package's build.mjs")?;
    call(Command::new("node").arg(format!("{PAGE}/build.mjs")), "Node's run of the page's build.mjs")?;
    if serves {
        let folder = format!("{PAGE}/../target/web");
        call(
            Command::new("node").args([&format!("{PAGE}/serve.mjs"), &folder, &port.to_string()]),
            "Node's run of serve.mjs",
        )?;
    }
    Ok(())
}

/// Checks that the crate for Burn compiles for the browser.
pub fn burn() -> Result<(), String> {
    let mut check = Command::new("cargo");
    let args = ["check", "--lib", "--target", "wasm32-unknown-unknown", "-Zbuild-std=std,panic_abort"];
    // Flags that begin with -Z are a nightly toolchain's, or taken with this variable.
    check.args(args).args(["--manifest-path", BURN]).env("RUSTC_BOOTSTRAP", "1");
    call(with_toolchain(&mut check)?, "the check of the crate for Burn")
}

/// Has a command find a toolchain first that has the source of the standard library. The compiler takes the folder that
/// its own library lies in for that of the toolchain, and the cargo that runs this program names its library's folder.
fn with_toolchain(command: &mut Command) -> Result<&mut Command, String> {
    let toolchain = toolchain()?;
    for (name, folder) in [("PATH", "bin"), ("LD_LIBRARY_PATH", "lib")] {
        command.env(name, format!("{toolchain}/{folder}:{}", std::env::var(name).unwrap_or_default()));
    }
    Ok(command)
}

/// A toolchain with the source of the standard library, which is built for the browser.
fn toolchain() -> Result<String, String> {
    let found = Command::new(format!("{PACKAGE}/toolchain")).stderr(std::process::Stdio::inherit()).output();
    let found = found.map_err(|error| format!("{PACKAGE}/toolchain could not be started: {error}"))?;
    if !found.status.success() {
        return Err("there is no toolchain for the browser".into());
    }
    Ok(String::from_utf8_lossy(&found.stdout).trim().into())
}

fn call(command: &mut Command, what: &str) -> Result<(), String> {
    match command.current_dir(PACKAGE).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(error) => Err(format!("{what} could not be started: {error}")),
    }
}
