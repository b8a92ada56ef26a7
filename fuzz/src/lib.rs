//! Fuzz targets for what the crate reads: see [`entries`].

pub mod entries;

#[path = "../../examples/replay/recording.rs"]
#[expect(dead_code, unused_imports, reason = "the example writes files, too")]
mod recording;
