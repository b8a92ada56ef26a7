//! The registry: a `mod` line and an entry in `all!` for each optimizer.

use crate::rule::Row;

mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod asgd;
mod lion;
mod nadam;
mod novograd;
mod radam;
mod rmsprop;
mod rprop;
mod sgd;
mod signum;

/// Re-exports the rules and lists their rows.
macro_rules! all {
    ($($file:ident::$rule:ident),+ $(,)?) => {
        $(pub use $file::$rule;)+

        /// Every optimizer there is. Configuration, tests, bench and the README's table walk over it.
        pub static ALL: &[Row] = &[$(Row::of::<$rule>()),+];
    };
}

all![
    sgd::Sgd,
    adagrad::Adagrad,
    adadelta::Adadelta,
    rmsprop::RmsProp,
    adam::Adam,
    adam::AdamW,
    adamax::Adamax,
    nadam::NAdam,
    radam::RAdam,
    novograd::NovoGrad,
    lion::Lion,
    signum::Signum,
    asgd::Asgd,
    rprop::Rprop,
];

pub use adam::{AdamEps, AdamFamily, Amsgrad};
pub use adamax::AdamaxEps;
pub use novograd::{Norm, NovoGradInit};
pub use radam::{RAdamEps, Unrectified};

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Row> {
    ALL.iter().find(|row| row.name == name)
}
