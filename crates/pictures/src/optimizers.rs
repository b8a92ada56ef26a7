//! Which optimizers a picture shows: any of the registry, by name.

use crate::draw::Result;
use wgpu_optim::{Config, rules};

/// Names that stand for a rule with other options than its defaults.
const VARIANTS: [(&str, &str); 2] = [
    ("momentum", r#"{"optimizer": "sgd", "momentum": 0.9}"#),
    ("nesterov", r#"{"optimizer": "sgd", "momentum": 0.9, "nesterov": "simplified"}"#),
];

/// An optimizer and its name in the picture.
pub struct Contestant {
    pub name: String,
    pub config: Config,
}

/// The optimizers of these names, where `all` names every one; the usual ones where no name is given. None of them
/// decays its weights, since the minimum would then not be where the picture says.
pub fn pick(names: &[String], usual: &[&str]) -> Result<Vec<Contestant>> {
    let known: Vec<&str> = rules::ALL.iter().map(|row| row.name).chain(VARIANTS.map(|(name, _)| name)).collect();
    let names: Vec<&str> = match names {
        [] => usual.iter().copied().filter(|name| known.contains(name)).collect(),
        [all] if all == "all" => known.clone(),
        names => names.iter().map(String::as_str).collect(),
    };
    let contestant = |name: &str| {
        let config = match VARIANTS.iter().find(|(variant, _)| *variant == name) {
            Some((_, json)) => Config::from_json(json)?,
            None if known.contains(&name) => Config::from_value(serde_json::json!({ "optimizer": name }))?,
            None => return Err(format!("--optimizers: {name} is none of all, {}", known.join(", ")).into()),
        };
        let no_decay = [("weight_decay".to_owned(), "none".into())].into_iter().collect();
        let config = config.rule().with(&no_decay).map_or(config, Config::from);
        Ok(Contestant { name: name.into(), config })
    };
    names.into_iter().map(contestant).collect()
}

/// Learning rates from `10^low` to `10^high`, so many a decade.
pub fn rates(low: i32, high: i32, a_decade: i32) -> Vec<f64> {
    (low * a_decade..=high * a_decade).map(|i| 10f64.powf(f64::from(i) / f64::from(a_decade))).collect()
}
