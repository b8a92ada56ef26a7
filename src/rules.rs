//! The registry: a `mod` line and an entry in `all!` for each optimizer.

use crate::rule::Row;

mod adafactor;
mod adagrad;
mod adam;
mod novograd;
mod rmsprop;
mod sgd;

/// Re-exports the rules and lists their rows.
macro_rules! all {
    ($($file:ident::$rule:ident),+ $(,)?) => {
        $(pub use $file::$rule;)+

        /// Every optimizer there is. Configuration, tests, bench and the README's table walk over it.
        pub static ALL: &[Row] = &[$(Row::of::<$rule>()),+];
    };
}

all![sgd::Sgd, adagrad::Adagrad, rmsprop::RmsProp, adam::Adam, adam::AdamW, novograd::NovoGrad, adafactor::Adafactor,];

pub use adafactor::AdafactorForm;
pub use adam::{AdamEps, AdamFamily, Amsgrad};
pub use novograd::{Norm, NovoGradInit};

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Row> {
    ALL.iter().find(|row| row.name == name)
}
