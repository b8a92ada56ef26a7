//! What the tests share.
#![allow(dead_code, reason = "each test uses a part")]

pub mod still;
pub mod twin;

use std::io::Write;

use wgpu_optim::{Error, Gpu};

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

/// Prints a line that the test harness does not capture.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr is open");
}
