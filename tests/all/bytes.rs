//! What a step moves and how often it walks: the table of the plan, rule by rule.

use crate::common::gpu;
use serde_json::{Value, json};
use wgpu_optim::{Arena, Config, DType, Optimizer, TensorSpec, rules};

/// A rule's default options, or those of one of its cases: bytes of a parameter, passes.
const TABLE: [(&str, &str, u64, usize); 30] = [
    ("sgd", "", 12, 1),
    ("sgd", "momentum", 20, 1),
    ("adagrad", "", 20, 1),
    ("adadelta", "", 28, 1),
    ("rmsprop", "", 20, 1),
    ("rmsprop", "momentum", 28, 1),
    ("rmsprop", "centered", 36, 1),
    ("adam", "", 28, 1),
    ("adam", "amsgrad", 36, 1),
    ("adamw", "", 28, 1),
    ("adamax", "", 28, 1),
    ("nadam", "", 28, 1),
    ("radam", "", 28, 1),
    ("novograd", "", 24, 3),
    ("lion", "", 20, 1),
    ("signum", "", 20, 1),
    ("signum", "plain", 12, 1),
    ("lamb", "", 40, 3),
    ("lars", "", 28, 3),
    ("adan", "", 44, 1),
    ("adabelief", "", 28, 1),
    ("yogi", "", 28, 1),
    ("adopt", "", 28, 1),
    ("ademamix", "", 36, 1),
    ("asgd", "", 20, 1),
    ("rprop", "", 28, 1),
    ("schedule_free", "", 28, 1),
    ("adafactor", "", 24, 5),
    ("novograd", "linf", 24, 3),
    ("sgd", "average_nesterov", 20, 1),
];

#[test]
fn bytes_and_passes_are_those_of_the_table() {
    let Some(gpu) = gpu("bytes and passes", TABLE.len()) else { return };
    let missing: Vec<_> =
        rules::ALL.iter().map(|row| row.name).filter(|name| !TABLE.iter().any(|r| r.0 == *name)).collect();
    assert!(missing.is_empty(), "the table lacks {missing:?}");
    let tensors = [TensorSpec::f32("w", [300, 70]), TensorSpec::f32("k", [8, 5, 3, 3])];
    let elements: u64 = tensors.iter().map(TensorSpec::len_elements).sum();
    for (name, case, bytes, passes) in TABLE {
        let row = rules::find(name).unwrap_or_else(|| panic!("there is no rule {name}"));
        let of_case = || (row.cases)().into_iter().find(|(known, _)| *known == case);
        let rule = if case.is_empty() { (row.default)() } else { of_case().expect(case).1 };
        let [params, grads] = [Arena::new(&gpu, &tensors), Arena::new(&gpu, &tensors)].map(Result::unwrap);
        let mut optimizer = Optimizer::new(&gpu, &tensors, Config::from(rule)).unwrap();
        let report = optimizer.plan(&params, &grads).unwrap();
        let found = (report.bytes, report.passes, report.windows, report.dispatches);
        assert_eq!(found, (bytes * elements, passes, 1, passes), "{name} {case}: bytes, passes, windows, dispatches");
    }
}

#[test]
fn a_gradient_in_f16_is_two_bytes_each_time_it_is_read() {
    // Of a parameter whose gradient is in f16.
    let table = [("sgd", 10), ("adam", 26), ("novograd", 20), ("lars", 24), ("lamb", 38), ("adafactor", 18)];
    let Some(gpu) = gpu("bytes of f16", table.len()) else { return };
    let tensors = [TensorSpec::f32("w", [300, 70]).with_grad_dtype(DType::F16), TensorSpec::f32("k", [8, 5, 3, 3])];
    for (name, bytes) in table {
        let whole = TABLE.iter().find(|row| row.0 == name && row.1.is_empty()).expect(name).2;
        let params = Arena::new(&gpu, &tensors).unwrap();
        let grads = Arena::new(&gpu, &tensors.each_ref().map(TensorSpec::grad_spec)).unwrap();
        let mut optimizer =
            Optimizer::new(&gpu, &tensors, Config::from((rules::find(name).expect(name).default)())).unwrap();
        let report = optimizer.plan(&params, &grads).unwrap();
        assert_eq!((report.bytes, report.windows), (bytes * 300 * 70 + whole * 360, 2), "{name}");
    }
}

#[test]
fn below_rank_2_a_factored_rule_has_a_number_an_element() {
    let Some(gpu) = gpu("bytes below rank 2", 1) else { return };
    let tensors = [TensorSpec::f32("b", [1000])];
    let arena = Arena::new(&gpu, &tensors).unwrap();
    let grads = Arena::new(&gpu, &tensors).unwrap();
    let mut optimizer =
        Optimizer::new(&gpu, &tensors, Config::from_json(r#"{"optimizer": "adafactor"}"#).unwrap()).unwrap();
    assert_eq!(optimizer.plan(&arena, &grads).unwrap().bytes, 32 * 1000);
}

/// Bytes of a parameter, passes: of Adam with 28 and SGD with 12, and what is round them.
#[test]
fn what_is_round_a_rule_moves_what_it_must() {
    let table: [(&str, Value, u64, usize); 15] = [
        ("adam", json!({"clip": {"value": 1}, "on_device": ["lr"]}), 28, 1),
        // One read of the gradients; what is unscaled and checked is what is measured.
        ("adam", json!({"clip": {"global_norm": 1}, "loss_scale": {}, "skip_nonfinite": true}), 32, 2),
        ("adam", json!({"clip": {"global_norm": 1}}), 32, 2),
        ("adam", json!({"clip": {"tensor_norm": 1}}), 32, 2),
        ("adam", json!({"clip": {"sign": 1}}), 32, 2),
        ("adam", json!({"loss_scale": {}}), 32, 2),
        ("adam", json!({"norms": true}), 32, 2),
        // The parameters, too.
        ("adam", json!({"clip": {"adaptive": {}}}), 36, 2),
        // In the first step the mean is not read; with debias it is.
        ("adam", json!({"ema": {}}), 32, 1),
        ("adam", json!({"ema": {"debias": true}}), 36, 1),
        // A gradient and a sum read, a sum written; the step reads the sum.
        ("sgd", json!({"accumulate": 2}), 12 + 12, 2),
        ("sgd", json!({"accumulate": 2, "clip": {"global_norm": 1}}), 16 + 12, 3),
        ("sgd", json!({"ema": {}, "lookahead": {}}), 20, 1),
        ("novograd", json!({"clip": {"global_norm": 1}}), 28, 4),
        ("sgd", json!({"clip": {"global_norm": 1}, "ema": {}}), 20, 2),
    ];
    let Some(gpu) = gpu("bytes round rules", table.len()) else { return };
    let tensors = [TensorSpec::f32("w", [300, 70]), TensorSpec::f32("b", [1001])];
    let elements: u64 = tensors.iter().map(TensorSpec::len_elements).sum();
    for (name, fields, bytes, passes) in table {
        let mut value = json!({"optimizer": name});
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let config = Config::from_value(value).unwrap();
        let [params, grads] = [Arena::new(&gpu, &tensors), Arena::new(&gpu, &tensors)].map(Result::unwrap);
        let mut optimizer = Optimizer::new(&gpu, &tensors, config).unwrap();
        let report = optimizer.plan(&params, &grads).unwrap();
        assert_eq!((report.bytes, report.passes), (bytes * elements, passes), "{name}, {fields}");
    }
    // From the second step on the mean is read and written.
    let [params, grads] = [Arena::new(&gpu, &tensors), Arena::new(&gpu, &tensors)].map(Result::unwrap);
    let mut optimizer =
        Optimizer::new(&gpu, &tensors, Config::from_value(json!({"optimizer": "adam", "ema": {}})).unwrap()).unwrap();
    optimizer.step(&params, &grads).unwrap();
    assert_eq!(optimizer.plan(&params, &grads).unwrap().bytes, 36 * elements);
}
