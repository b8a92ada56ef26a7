//! The registry: a `mod` line and an entry in `all!` for each optimizer.

use crate::rule::RuleEntry;

mod adabelief;
mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adam_atan2;
mod adamax;
mod adan;
mod ademamix;
mod adopt;
mod asgd;
mod lamb;
mod laprop;
mod lars;
mod lbfgs;
mod lion;
mod mars;
mod muon;
mod nadam;
mod normuon;
mod novograd;
mod prodigy;
mod radam;
mod rmsprop;
mod rprop;
mod schedule_free;
mod schedule_free_sgd;
mod sgd;
mod signum;
mod soap;
mod yogi;

/// Re-exports the rules and lists their rows.
macro_rules! all {
    ($($file:ident::$rule:ident),+ $(,)?) => {
        $(pub use $file::$rule;)+

        /// Every optimizer there is. Configuration, tests, bench and the README's table walk over it.
        pub static ALL: &[RuleEntry] = &[$(RuleEntry::of::<$rule>()),+];
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
    lamb::Lamb,
    lars::Lars,
    adan::Adan,
    adabelief::AdaBelief,
    yogi::Yogi,
    adopt::Adopt,
    ademamix::AdEmaMix,
    laprop::LaProp,
    adam_atan2::AdamAtan2,
    mars::Mars,
    asgd::Asgd,
    rprop::Rprop,
    adafactor::Adafactor,
    schedule_free::ScheduleFree,
    schedule_free_sgd::ScheduleFreeSgd,
    prodigy::Prodigy,
    muon::Muon,
    normuon::NorMuon,
    soap::Soap,
    lbfgs::Lbfgs,
];

pub use adafactor::AdafactorForm;
pub use adam::{AdamEps, AdamFamily, Amsgrad, VPer};
pub use adamax::AdamaxEps;
pub use lamb::LambAdapt;
pub use lars::LarsRatio;
pub use normuon::UpdateScale;
pub use novograd::{Norm, NovoGradInit};
pub use radam::{RAdamEps, Unrectified};

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static RuleEntry> {
    ALL.iter().find(|entry| entry.name == name)
}
