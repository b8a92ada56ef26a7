//! Linux: a machine without a Vulkan device gets Mesa's software one.

use std::path::Path;
use std::process::{Command, Stdio};

const INSTALL: [&str; 2] =
    ["apt-get update", "apt-get install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers"];

/// Returns once there is a Vulkan device, or with the reason why there is none and what to do.
pub fn set_up() -> Result<(), String> {
    if device() {
        return Ok(());
    }
    let means =
        Means { apt: on_path("apt-get"), root: says("id", &["-u"]) == "0", sudo: succeeds("sudo", &["-n", "true"]) };
    for line in means.commands()? {
        eprintln!("No Vulkan device here. Installing Mesa's software Vulkan: {line}");
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        let done = command.args(words).status().map_err(|e| format!("`{line}` could not be started: {e}"))?;
        if !done.success() {
            return Err(format!("`{line}` failed: {done}"));
        }
    }
    match device() {
        true => Ok(()),
        false => Err("Mesa's software Vulkan is installed, yet the Vulkan loader finds no device.".into()),
    }
}

/// Whether the Vulkan loader is there and finds a device. A driver's manifest alone says nothing: the
/// package that brings the software driver brings those of absent hardware too.
fn device() -> bool {
    // SAFETY: the system's Vulkan loader, which any Vulkan program loads, and an instance that
    // asks for nothing and is destroyed after its last use.
    unsafe {
        let Ok(entry) = ash::Entry::load() else { return false };
        let Ok(instance) = entry.create_instance(&Default::default(), None) else { return false };
        let found = instance.enumerate_physical_devices().is_ok_and(|devices| !devices.is_empty());
        instance.destroy_instance(None);
        found
    }
}

/// What this user may do on this machine.
struct Means {
    apt: bool,
    root: bool,
    /// `sudo` asks for no password.
    sudo: bool,
}

impl Means {
    /// The commands that install the driver, or what to tell a user who may not run them.
    fn commands(&self) -> Result<Vec<String>, String> {
        let sudo = |line| format!("sudo {line}");
        match self {
            Means { apt: true, root: true, .. } => Ok(INSTALL.map(String::from).into()),
            Means { apt: true, sudo: true, .. } => Ok(INSTALL.map(|line| format!("sudo -n {line}")).into()),
            Means { apt: true, .. } => Err(format!(
                "No Vulkan device here, and this user may not install one. Run\n\n  {}\n\nor go on without: --no-install",
                INSTALL.map(sudo).join(" && ")
            )),
            Means { apt: false, .. } => {
                Err("No Vulkan device here, and no apt to install one with. Install the Vulkan \
                 loader and Mesa's software driver (Fedora: `dnf install vulkan-loader mesa-vulkan-drivers`; Arch: \
                 `pacman -S vulkan-icd-loader vulkan-swrast`), or go on without: --no-install"
                    .into())
            }
        }
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}

fn says(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|out| String::from_utf8_lossy(&out.stdout).trim().into()).unwrap_or_default()
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let quiet =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_installs_plainly_others_by_sudo() {
        let commands = Means { apt: true, root: true, sudo: false }.commands().unwrap();
        assert_eq!(commands, INSTALL);
        let commands = Means { apt: true, root: false, sudo: true }.commands().unwrap();
        assert!(commands.iter().all(|line| line.starts_with("sudo -n apt-get ")), "{commands:?}");
    }

    #[test]
    fn who_may_not_is_told_the_command() {
        let told = Means { apt: true, root: false, sudo: false }.commands().unwrap_err();
        let command =
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers";
        assert!(told.contains(command), "{told}");
        let told = Means { apt: false, root: true, sudo: true }.commands().unwrap_err();
        assert!(told.contains("no apt") && !told.contains("apt-get"), "{told}");
    }
}
