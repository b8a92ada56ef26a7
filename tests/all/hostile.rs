//! Bytes that nobody sound has written: checkpoints, recordings and configurations, cut short, with bits flipped, and
//! with each of their values replaced. Each is an error or is trained on; none panics, and memory stays bounded by the
//! bytes. `fuzz/` calls the same functions with bytes of its own making.

#[path = "../../fuzz/src/entries.rs"]
#[expect(dead_code, reason = "a fuzzer has no training to spoil")]
mod entries;

use super::golden::recording;
use crate::common::memory::peak_bytes;
use crate::common::say;
use ndarray::ArrayD;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Config, Reference, TensorSpec, wrappers};

/// What went through an entry point.
#[derive(Default)]
struct Outcomes {
    taken: Vec<String>,
    refused: usize,
    panicked: Vec<String>,
    /// The most memory beyond the bytes' share, and what took it.
    most: (u64, String),
}

impl Outcomes {
    fn note(&mut self, what: impl Fn() -> String, bytes: &[u8], entry: impl Fn(&[u8]) -> Result<(), String>) {
        let (outcome, peak) = peak_bytes(|| catch_unwind(AssertUnwindSafe(|| entry(bytes))));
        // A JSON value may be two bytes and takes 72 at most.
        let beyond = peak.saturating_sub(64 * bytes.len() as u64);
        match outcome {
            Ok(Ok(())) => self.taken.push(what()),
            Ok(Err(error)) => {
                assert!(!error.is_empty(), "{}: an error without text", what());
                self.refused += 1;
            }
            Err(_) => self.panicked.push(what()),
        }
        if beyond > self.most.0 {
            self.most = (beyond, what());
        }
    }

    /// `most`: bytes that the trainings here may take, whatever their input is.
    fn check(self, what: &str, most: u64) {
        let Self { taken, refused, panicked, most: (beyond, who) } = self;
        let count = taken.len();
        say(&format!("hostile {what}: {refused} refused, {count} trained on, {beyond} bytes of memory beside"));
        assert!(
            panicked.is_empty(),
            "{} of {what} panicked: {:#?}",
            panicked.len(),
            &panicked[..panicked.len().min(9)]
        );
        assert!(beyond <= most, "{what}: {who} takes {beyond} bytes");
        assert!(refused > 0 && count > 0, "{what}: {refused} refused, {count} taken");
        // Where there are numbers, these are none. A name may be anything, and a ratio to a rate of 0 is none.
        let is_no_number = |taken: &&String| {
            let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0].map(|bad| format!("{:016x}", bad.to_bits()));
            let name_or_ratio = ["/crate_version", "/tensors/", "/ratio"];
            let is_name = |part: &str| taken.contains(part) && !taken.contains("carried");
            bad.iter().any(|bad| taken.contains(bad)) && !name_or_ratio.into_iter().any(is_name)
        };
        let numbers: Vec<_> = taken.iter().filter(is_no_number).collect();
        assert!(numbers.is_empty(), "{what}: taken for numbers: {numbers:#?}");
    }
}

/// Each value in this one, replaced by others, removed, or repeated: what was done, and the whole.
fn spoilt(whole: &Value, mut take: impl FnMut(String, Value)) {
    let mut paths = vec![];
    fn walk(value: &Value, path: String, paths: &mut Vec<String>) {
        paths.push(path.clone());
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                walk(value, format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), paths);
            }),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, value)| walk(value, format!("{path}/{i}"), paths))
            }
            _ => {}
        }
    }
    walk(whole, String::new(), &mut paths);
    let bits = |number: f64| json!(format!("{:016x}", number.to_bits()));
    let others = [
        json!(null),
        json!(true),
        json!(""),
        json!("w"),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(1e308),
        json!(-1e308),
        json!(1e-320),
        json!(4_294_967_295u64),
        json!(4_294_967_296u64),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(u64::MAX - 1),
        json!([]),
        json!({}),
        json!([0, 1]),
        bits(f64::NAN),
        bits(f64::INFINITY),
        bits(f64::NEG_INFINITY),
        bits(-1.0),
        bits(1e308),
        bits(1e-320),
    ];
    for path in &paths {
        for other in &others {
            let mut changed = whole.clone();
            *changed.pointer_mut(path).expect("a path of it") = other.clone();
            take(format!("{path} = {other}"), changed);
        }
        let Some((parent, last)) = path.rsplit_once('/') else { continue };
        let mut changed = whole.clone();
        match changed.pointer_mut(parent) {
            Some(Value::Object(fields)) => {
                fields.shift_remove(&last.replace("~1", "/").replace("~0", "~"));
            }
            Some(Value::Array(list)) => {
                list.remove(last.parse().expect("an index"));
            }
            _ => {}
        }
        take(format!("{path} removed"), changed);
        let mut changed = whole.clone();
        if let Some(Value::Array(list)) = changed.pointer_mut(parent) {
            let again = list[last.parse::<usize>().expect("an index")].clone();
            list.push(again);
            take(format!("{path} twice"), changed);
        }
    }
}

/// Trainings that have something of all kinds.
fn configs() -> Vec<Value> {
    vec![
        json!({"optimizer": "adamw", "accumulate": 2, "clip": {"global_norm": 1}, "loss_scale": {"init": 8},
            "ema": {"decay": 0.5, "debias": true}, "lookahead": {"k": 2},
            "schedules": {"beta1": {"cosine": {"total": 9, "end": 0.5}}},
            "groups": [{"tensors": ["b*"], "lr": 0.25, "schedule": {"plateau": {"factor": 0.5, "patience": 0}}}]}),
        json!({"optimizer": "adafactor", "skip_nonfinite": true,
            "schedule": {"warmup": {"steps": 2, "then": {"exponential": {"gamma": 0.9}}}}}),
        json!({"optimizer": "lbfgs", "history_size": 2}),
        json!({"optimizer": "prodigy"}),
        json!({"optimizer": "schedule_free", "schedule": {"linear": {"total": 8}}}),
        json!({"optimizer": "asgd"}),
        json!({"optimizer": "nadam", "schedule": {"one_cycle": {"total": 9}}}),
        json!({"optimizer": "muon", "others": {"optimizer": "sgd", "momentum": 0.5}}),
    ]
}

/// A training's file, and the text of its metadata.
fn saved(config: &Value, evaluated: bool) -> Option<(Vec<u8>, Value)> {
    let list = entries::tensors();
    let config = Config::from_value(config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"));
    let mut reference = Reference::<f32>::new(&config, &list).ok()?;
    let filled = |tensor: &TensorSpec| ArrayD::from_elem(tensor.shape.clone(), 0.5f32);
    let mut params = list.each_ref().map(filled);
    for _ in 0..3 {
        reference.step(&mut params, &list.each_ref().map(|tensor| Some(filled(tensor)))).unwrap();
    }
    if evaluated {
        reference.eval(&mut params).ok()?;
    }
    let bytes = reference.save().unwrap().to_bytes().unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let training = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["training"]).unwrap();
    Some((bytes, training))
}

/// The header of a safetensors file and what is behind it; and a file of such parts.
fn apart(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8..].split_at(len)
}

fn together(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// Truncated, with each bit of the header flipped, each value of the header replaced, its names repeated.
fn spoil_file(bytes: &[u8], outcomes: &mut Outcomes, entry: impl Fn(&[u8]) -> Result<(), String>) {
    let (header, data) = apart(bytes);
    for part in 0..64 {
        outcomes.note(|| format!("cut at {part}/64"), &bytes[..bytes.len() * part / 64], &entry);
    }
    for bit in 0..8 * (8 + header.len()) {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        outcomes.note(|| format!("bit {bit}"), &changed, &entry);
    }
    let parsed: Value = serde_json::from_slice(header).unwrap();
    spoilt(&parsed, |what, header| {
        outcomes.note(|| what.clone(), &together(header.to_string().as_bytes(), data), &entry);
    });
    // What is said twice, which a JSON value cannot hold.
    let text = str::from_utf8(header).unwrap().trim_end();
    for (name, value) in parsed.as_object().unwrap() {
        let twice = format!("{},{}:{value}}}", &text[..text.len() - 1], json!(name));
        outcomes.note(
            || format!("{name} twice"),
            &together(twice.as_bytes(), data),
            |bytes| {
                let error = entry(bytes).expect_err("a name that is there twice");
                Err(error)
            },
        );
    }
    // Values that overlap, leave a gap, or end behind the end.
    for (name, _) in parsed.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        for range in [[0, 0], [0, 4], [4, 0], [0, u64::MAX], [u64::MAX - 3, u64::MAX], [1 << 40, (1 << 40) + 4]] {
            let mut changed = parsed.clone();
            changed[name]["data_offsets"] = json!(range);
            outcomes.note(|| format!("{name} at {range:?}"), &together(changed.to_string().as_bytes(), data), &entry);
        }
    }
    // A header of nothing but opened brackets, one of many values, and one that is longer than the file says.
    for text in ["[".repeat(50_000), format!("{{\"w\":[{}0]}}", "0,".repeat(50_000))] {
        outcomes.note(|| text[..20].into(), &together(text.as_bytes(), data), &entry);
    }
}

#[test]
fn files_of_checkpoints() {
    let mut outcomes = Outcomes::default();
    for (i, config) in configs().iter().enumerate() {
        let Some((bytes, _)) = saved(config, false) else { panic!("{config}") };
        outcomes.note(|| format!("{config}, sound"), &bytes, entries::checkpoint);
        if i < 3 {
            spoil_file(&bytes, &mut outcomes, entries::checkpoint);
        }
    }
    outcomes.check("files of checkpoints", 1 << 20);
}

#[test]
fn trainings_in_sound_files() {
    let mut outcomes = Outcomes::default();
    for config in configs() {
        for evaluated in [false, true] {
            let Some((bytes, training)) = saved(&config, evaluated) else { continue };
            let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let values: Vec<_> =
                metadata.tensors().iter().map(|(name, info)| (name.clone(), info.shape.clone())).collect();
            spoilt(&training, |what, training| {
                let bytes = entries::file(&training.to_string(), &values);
                outcomes.note(|| format!("{config}: {what}"), &bytes, entries::checkpoint);
            });
        }
    }
    outcomes.check("trainings", 1 << 20);
}

#[test]
fn recordings() {
    let list = [("param.w", vec![2, 3]), ("grad.w", vec![4, 2, 3]), ("param.b", vec![0]), ("grad.b", vec![4, 0])];
    let views = list.iter().map(|(name, shape)| {
        let bytes: Vec<u8> = 0.5f32.to_le_bytes().repeat(shape.iter().product());
        (*name, shape.clone(), bytes)
    });
    let views: Vec<_> = views.collect();
    let view = |(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap())
    };
    let of = views.iter().map(|(name, shape, bytes)| view((*name, shape.clone(), &bytes[..])));
    let bytes = safetensors::serialize(of, None).unwrap();
    let mut outcomes = Outcomes::default();
    spoil_file(&bytes, &mut outcomes, entries::recording);
    // Steps without elements cost nothing in the file.
    let many = json!({"param.w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        "grad.w": {"dtype": "F32", "shape": [1u64 << 60, 0], "data_offsets": [0, 0]}});
    outcomes.note(
        || "many steps".into(),
        &together(many.to_string().as_bytes(), &[]),
        |bytes| {
            let error = entries::recording(bytes).expect_err("2^60 steps");
            assert!(error.contains("more steps than the file has bytes"), "{error}");
            Err(error)
        },
    );
    outcomes.check("recordings", 1 << 20);
}

#[test]
fn configurations() {
    let mut outcomes = Outcomes::default();
    let of_rules = ALL.iter().flat_map(|row| (row.cases)()).map(|(_, rule)| serde_json::to_value(Config::from(rule)));
    let cases = wrappers::ALL.iter().flat_map(|row| (row.cases)());
    let of_wrappers = cases.map(|(_, wrapper)| Ok(json!({"optimizer": "adam", wrapper.name(): wrapper.to_json()})));
    for config in of_rules.chain(of_wrappers).map(Result::unwrap).chain(configs()) {
        // A history may be long, whatever the length of its option.
        let is_long = |value: &Value| value["history_size"].as_u64().is_some_and(|size| size > 50);
        spoilt(&config, |what, value| {
            if !is_long(&value) {
                outcomes.note(|| format!("{config}: {what}"), value.to_string().as_bytes(), entries::config);
            }
        });
    }
    outcomes.check("configurations", 1 << 20);
}
