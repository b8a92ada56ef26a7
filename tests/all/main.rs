//! The integration tests, a module each, in one binary: wgpu is linked once.
//!
//! `cargo xtask test parity::` runs those of one module. Tests run beside each other in one process, so none may change
//! what the process shares: no environment variable, no working directory. A test that needs a process of its own
//! starts one, as `replay` does. Counts of what was made belong to a `Gpu` or its device, and each test asks for its
//! own.

#[cfg(feature = "gpu")]
mod common;
mod languages;

#[cfg(feature = "gpu")]
mod accumulate;
#[cfg(feature = "gpu")]
mod adapters;
#[cfg(feature = "gpu")]
mod around;
mod bench_lists;
#[cfg(feature = "gpu")]
mod bytes;
#[cfg(feature = "gpu")]
mod checkpoint;
#[cfg(feature = "gpu")]
mod checkpoint_file;
#[cfg(feature = "gpu")]
mod clip;
mod early_stopping;
#[cfg(feature = "gpu")]
mod elsewhere;
#[cfg(feature = "gpu")]
mod ema;
#[cfg(feature = "gpu")]
mod engine;
mod expansion;
#[cfg(feature = "gpu")]
mod faults;
#[cfg(feature = "gpu")]
mod formats;
mod fuzz;
#[cfg(feature = "gpu")]
mod golden;
#[cfg(feature = "gpu")]
mod groups;
#[cfg(feature = "gpu")]
mod hostile;
#[cfg(feature = "gpu")]
mod init;
#[cfg(feature = "gpu")]
mod joint;
#[cfg(all(feature = "gpu", unix))]
mod layer;
#[cfg(feature = "gpu")]
mod lbfgs;
#[cfg(feature = "gpu")]
mod line_search;
mod memory;
#[cfg(feature = "gpu")]
mod mixed;
#[cfg(feature = "gpu")]
mod on_device;
#[cfg(feature = "gpu")]
mod parity;
mod pictures;
#[cfg(feature = "gpu")]
mod placements;
#[cfg(feature = "gpu")]
mod planner;
#[cfg(feature = "gpu")]
mod products;
#[cfg(feature = "gpu")]
mod properties;
mod readme;
#[cfg(feature = "gpu")]
mod rejects;
#[cfg(feature = "gpu")]
mod replay;
#[cfg(feature = "gpu")]
mod reports;
#[cfg(feature = "gpu")]
mod resume;
mod schedules;
#[cfg(feature = "gpu")]
mod sensitivity;
#[cfg(feature = "gpu")]
mod short;
#[cfg(feature = "gpu")]
mod sides;
mod skips;
#[cfg(feature = "gpu")]
mod soak;
#[cfg(feature = "gpu")]
mod state_formats;
#[cfg(feature = "gpu")]
mod steps_to_loss;
mod tidy;
