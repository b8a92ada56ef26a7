//! Prints a composed shader, and on stderr the constants that its pipeline gets from the rule:
//! `cargo run --example print_wgsl -- adam apply vec4 --config '{"amsgrad": "raw"}'`.

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde_json::{Map, Value};
use wgpu_optim::backend::{Access, Formats};
use wgpu_optim::rules::ALL;
use wgpu_optim::shader::{Skeleton, Values, compose};
use wgpu_optim::{Config, DType};

const ACCESSES: [Access; 2] = [Access::Vec4, Access::Scalar];

/// Prints a composed shader
#[derive(Parser)]
struct Options {
    /// The optimizer
    #[arg(value_parser = PossibleValuesParser::new(ALL.iter().map(|row| row.name)))]
    rule: String,
    /// The walk over the tensors
    #[arg(value_parser = PossibleValuesParser::new(Skeleton::ALL.map(Skeleton::name)))]
    skeleton: String,
    /// How parameters and gradients are read
    #[arg(value_parser = PossibleValuesParser::new(ACCESSES.map(Access::name)))]
    access: String,
    /// How gradients are stored
    #[arg(default_value = "f32", value_parser = PossibleValuesParser::new(DType::ALL.map(DType::name)))]
    grad_format: String,
    /// How parameters are stored
    #[arg(default_value = "f32", value_parser = PossibleValuesParser::new(DType::ALL.map(DType::name)))]
    param_format: String,
    /// Options that differ from the defaults, as JSON, those of wrappers included: they add slots and constants
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    config: Map<String, Value>,
}

fn object(json: &str) -> serde_json::Result<Map<String, Value>> {
    serde_json::from_str(json)
}

fn main() {
    let Options { rule, skeleton, access, grad_format, param_format, mut config } = Options::parse();
    config.insert("optimizer".into(), rule.into());
    let config = Config::from_value(config.into())
        .unwrap_or_else(|error| Options::command().error(ErrorKind::ValueValidation, error).exit());
    let skeleton = Skeleton::ALL.into_iter().find(|known| known.name() == skeleton).expect("one of those offered");
    let access = ACCESSES.into_iter().find(|known| known.name() == access).expect("one of those offered");
    let find = |name: &str| DType::find(name).expect("one of those offered");
    let formats = Formats { param: find(&param_format), grad: find(&grad_format) };
    print!("{}", compose(config.rule(), config.wrappers(), skeleton, Values::apart(access, formats)));
    for (name, value) in config.rule().constants() {
        eprintln!("{name} = {value}");
    }
}
