//! What the programs that draw `docs/pictures` share. Each program is a file or a folder of `src/bin`.

pub mod contour;
pub mod draw;
pub mod kernel;
pub mod optimizers;
