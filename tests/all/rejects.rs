//! Every bad input is an error that names field or tensor, value and bound, and nothing has moved then.

use crate::common::twin::{Parity, fitting, tensors};
use crate::common::{default_of, gpu, say_share, share};
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value, json};
use wgpu_optim::proof::check;
use wgpu_optim::rule::{AnyRule, RuleEntry};
use wgpu_optim::rules::ALL;
use wgpu_optim::wgpu::{self, BufferUsages};
use wgpu_optim::{Adagrad, Adam, AdamW, Arena, Buffers, Config, Error, Gpu, Group, NovoGrad, Optimizer, Reference};
use wgpu_optim::{DType, Result, RmsProp, Schedule, Sgd, Slice, TensorSpec, Tuning};
use wgpu_optim::{WeightDecay, required_limits};

fn refused(what: &str, config: Result<Config>, text: &str) {
    match config {
        Ok(config) => panic!("{what}: accepted as {config:?}; expected: {text}"),
        Err(error) => check(what, &error, text),
    }
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).expect("the row holds an object")
}

// The configuration.

#[test]
fn every_rule_refuses_what_it_lists() {
    for row in ALL {
        for reject in (row.rejects)() {
            let what = format!("{} with {}", row.name, reject.json);
            let mut config = object(reject.json);
            config.insert("optimizer".into(), row.name.into());
            refused(&what, Config::from_value(config.into()), reject.error);

            let mut group = object(reject.json);
            group.insert("tensors".into(), json!(["w"]));
            let config = json!({"optimizer": row.name, "groups": [group]});
            refused(&format!("{what}, in a group"), Config::from_value(config), &format!("groups[0].{}", reject.error));
        }
    }
}

/// Every option of every rule, with its default.
fn options() -> impl Iterator<Item = (&'static RuleEntry, String, Value)> {
    ALL.iter().flat_map(|row| default_of(row).to_json().into_iter().map(move |(name, value)| (row, name, value)))
}

#[test]
fn every_option_is_checked_for_type_and_range() {
    for row in ALL {
        let text = "configuration: warmth: unknown field `warmth`, expected one of `lr`...";
        refused(row.name, Config::from_value(json!({"optimizer": row.name, "warmth": 1})), text);
    }
    for (row, name, default) in options() {
        let with = |value: Value| Config::from_value(json!({"optimizer": row.name, &name[..]: value}));
        let what = format!("{name} of {}", row.name);
        for (wrong, kind) in [(json!([]), "sequence"), (Value::Null, "null")] {
            let text = match &name[..] {
                "weight_decay" => format!("weight_decay is {wrong}, must be ..."),
                _ if default.is_array() && kind == "sequence" => format!("{name} is {wrong}, must be ..."),
                _ if default.is_array() => format!("configuration: {name}: ..."),
                _ => format!("configuration: {name}: invalid type: {kind}, expected ..."),
            };
            // An option that is none by default may also be given as none.
            if wrong != default {
                refused(&what, with(wrong), &text);
            }
        }
        // A count is known by its default, or where that is none by what it refuses.
        let takes_whole = || with(json!(1.5)).is_err_and(|error| error.to_string().starts_with("configuration: "));
        let is_count = default.is_u64() || default.is_null() && takes_whole();
        // The bounds of a negative option lie on the other side of 0.
        let side = if default.as_f64().is_some_and(|default| default < 0.0) { -1.0 } else { 1.0 };
        for value in [1e39, 1e300, -1.0].map(|value| side * value) {
            let text = match default {
                _ if is_count => format!("configuration: {name}: invalid type: floating point ..."),
                _ => format!("{name} is {}, must be ...", short(value)),
            };
            if default.is_number() || default.is_null() {
                refused(&what, with(value.into()), &text);
            }
        }
    }
}

/// A number as errors write it.
fn short(value: f64) -> String {
    if value.abs() > 1e9 { format!("{value:e}") } else { value.to_string() }
}

#[test]
fn a_preset_is_read_by_its_old_name() {
    for optimizer in ["adam", "adamw", "rmsprop"] {
        let [old, new] = ["seeds", "course_notes"].map(|preset| {
            Config::from_value(json!({"optimizer": optimizer, "preset": preset})).unwrap().to_json().unwrap()
        });
        assert_eq!(old, new, "{optimizer}");
    }
}

#[test]
fn a_configuration_says_what_is_wrong_with_it() {
    for (json, text) in [
        ("", "configuration: JSON: EOF while parsing a value at line 1 column 0"),
        ("adam", "configuration: JSON: expected value at line 1 column 1"),
        (r#"{"optimizer": "adam",}"#, "configuration: JSON: trailing comma at line 1 column 22"),
        (r#"{"optimizer": "adam", "lr": NaN}"#, "configuration: JSON: expected value at line 1 column 29"),
        (r#"{"optimizer": "adam", "lr": 1e999}"#, "configuration: JSON: number out of range at line 1 column 33"),
        (
            r#"{"optimizer": "adam", "lr": 1e-3, "lr": 1e-2}"#,
            "configuration: JSON: duplicate field `lr` at line 1 column 45",
        ),
        (r#"["adam"]"#, "configuration: JSON: invalid type: sequence, expected a map"),
        ("{}", "configuration: optimizer: is missing"),
        (r#"{"optimizer": 5}"#, "configuration: optimizer: invalid type: integer `5`, expected a string"),
        (r#"{"optimizer": "adam", "preset": "x"}"#, "preset is x, must be one of course_notes, keras, burn for adam"),
        (r#"{"optimizer": "sgd", "preset": "x"}"#, "preset is x, must be left out for sgd"),
        (
            r#"{"optimizer": "sgd", "beta1": 0.9}"#,
            "configuration: beta1: unknown field `beta1`, expected one of `lr`, `momentum`, `dampening`, `nesterov`, \
             `form`, `weight_decay`",
        ),
        (r#"{"optimizer": "adam", "lr": "0.1"}"#, "configuration: lr: invalid type: string \"0.1\", expected f64"),
        (
            r#"{"optimizer": "adam", "maximize": 1}"#,
            "configuration: maximize: invalid type: integer `1`, expected a boolean",
        ),
        (
            r#"{"optimizer": "adam", "amsgrad": true}"#,
            "configuration: amsgrad: invalid type: boolean `true`, expected string or map",
        ),
        (
            r#"{"optimizer": "adam", "amsgrad": "on"}"#,
            "configuration: amsgrad: unknown variant `on`, expected one of `off`, `raw`, `corrected`",
        ),
        // The decay.
        (
            r#"{"optimizer": "adam", "weight_decay": 0.1}"#,
            "weight_decay is 0.1, must be \"none\" or an object of one field, as {\"l2\": 0.01}",
        ),
        (
            r#"{"optimizer": "adam", "weight_decay": "l2"}"#,
            "weight_decay is \"l2\", must be \"none\" or an object of one field, as {\"l2\": 0.01}",
        ),
        (
            r#"{"optimizer": "adam", "weight_decay": {"l2": 0.1, "decoupled": 0.1}}"#,
            "weight_decay is {\"l2\":0.1,\"decoupled\":0.1}, must be \"none\" or an object of one field, as {\"l2\": 0.01}",
        ),
        (
            r#"{"optimizer": "adam", "weight_decay": {"l1": 0.1}}"#,
            "configuration: weight_decay: unknown variant `l1`, expected one of `none`, `l2`, `decoupled`, `independent`, \
             `cautious`, `inside_moment`, `inside`, `proximal`",
        ),
        (
            r#"{"optimizer": "adam", "weight_decay": {"l2": "x"}}"#,
            "configuration: weight_decay.l2: invalid type: string \"x\", expected f64",
        ),
        (
            r#"{"optimizer": "adam", "weight_decay": {"l2": -1}}"#,
            "weight_decay.l2 is -1, must be at least 0 and finite",
        ),
        // Groups.
        (r#"{"optimizer": "adam", "groups": {}}"#, "configuration: groups: invalid type: map, expected a sequence"),
        (
            r#"{"optimizer": "adam", "groups": [3]}"#,
            "configuration: groups[0]: invalid type: integer `3`, expected an object with tensors",
        ),
        (r#"{"optimizer": "adam", "groups": [{"lr": 1}]}"#, "configuration: groups[0]: missing field `tensors`"),
        (
            r#"{"optimizer": "adam", "groups": [{"tensors": "w"}]}"#,
            "configuration: groups[0].tensors: invalid type: string \"w\", expected a sequence",
        ),
        (
            r#"{"optimizer": "adam", "groups": [{"tensors": ["w", 3]}]}"#,
            "configuration: groups[0].tensors[1]: invalid type: integer `3`, expected a string",
        ),
        (
            r#"{"optimizer": "adam", "groups": [{"tensors": ["w"]}, {"tensors": ["b"], "beta1": 1}]}"#,
            "groups[1].beta1 is 1, must be at least 0 and below 1",
        ),
        (
            r#"{"optimizer": "adam", "groups": [{"tensors": ["w"], "weight_decay": {"l2": []}}]}"#,
            "configuration: groups[0].weight_decay.l2: invalid type: sequence, expected f64",
        ),
        (
            r#"{"optimizer": "adam", "groups": [{"tensors": ["w"], "warmth": 1}]}"#,
            "configuration: groups[0].warmth: unknown field `warmth`, expected one of `lr`, `beta1`, `beta2`, `eps`, \
             `eps_placement`, `amsgrad`, `v_per`, `bias_correction`, `update_rms_clip`, `weight_decay`",
        ),
    ] {
        refused(json, Config::from_json(json), text);
    }
    let names = ALL.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    let text = format!("optimizer is adamm, must be one of {names}");
    refused("adamm", Config::from_json(r#"{"optimizer": "adamm"}"#), &text);
}

#[test]
fn fields_around_the_rule_are_refused_outside_their_bounds() {
    let positive = "must be above 0 and finite in f32";
    let scale = "must be a power of two from 2^-24 to 2^24";
    for (fields, text) in [
        (json!({"clip": {"value": 0}}), format!("clip.value is 0, {positive}")),
        (json!({"clip": {"tensor_norm": -1}}), format!("clip.tensor_norm is -1, {positive}")),
        (json!({"clip": {"global_norm": 1e39}}), format!("clip.global_norm is 1e39, {positive}")),
        (json!({"clip": {"sign": 0}}), format!("clip.sign is 0, {positive}")),
        (json!({"clip": {"adaptive": {"clip": 0}}}), format!("clip.adaptive.clip is 0, {positive}")),
        (json!({"clip": {"adaptive": {"eps": 0}}}), format!("clip.adaptive.eps is 0, {positive}")),
        (
            json!({"clip": {"norm": 1}}),
            "configuration: clip: unknown variant `norm`, expected one of `value`, `tensor_norm`, `global_norm`, \
             `adaptive`, `sign`"
                .into(),
        ),
        (
            json!({"clip": {"adaptive": {"norm": 1}}}),
            "configuration: clip.adaptive.norm: unknown field `norm`, expected `clip` or `eps`".into(),
        ),
        (json!({"accumulate": 0}), "accumulate is 0, must be at least 1 and at most 16777216".into()),
        (json!({"accumulate": -1}), "configuration: accumulate: invalid value: integer `-1`, expected u64".into()),
        (
            json!({"skip_nonfinite": 1}),
            "configuration: skip_nonfinite: invalid type: integer `1`, expected a boolean".into(),
        ),
        (json!({"loss_scale": {"init": 3}}), format!("loss_scale.init is 3, {scale}")),
        (json!({"loss_scale": {"init": 33554432}}), format!("loss_scale.init is 33554432, {scale}")),
        (json!({"loss_scale": {"init": 0}}), format!("loss_scale.init is 0, {scale}")),
        (
            json!({"loss_scale": {"growth": 1}}),
            "loss_scale.growth is 1, must be a power of two above 1 and at most 2^24".into(),
        ),
        (
            json!({"loss_scale": {"backoff": 1}}),
            "loss_scale.backoff is 1, must be a power of two below 1 and at least 2^-24".into(),
        ),
        (
            json!({"loss_scale": {"interval": 0}}),
            "loss_scale.interval is 0, must be at least 1 and at most 4294967295".into(),
        ),
        (
            json!({"loss_scale": {"max": 1}}),
            "configuration: loss_scale.max: unknown field `max`, expected one of `init`, `growth`, `backoff`, `interval`"
                .into(),
        ),
        (json!({"ema": {"decay": 1}}), "ema.decay is 1, must be at least 0 and below 1".into()),
        (
            json!({"ema": {"beta": 1}}),
            "configuration: ema.beta: unknown field `beta`, expected `decay` or `debias`".into(),
        ),
        (
            json!({"on_device": ["beta1"]}),
            "on_device[0] is beta1, must be one of lr, weight_decay, eps, momentum, alpha, clip, each once".into(),
        ),
        (
            json!({"on_device": ["lr", "lr"]}),
            "on_device[1] is lr, must be one of lr, weight_decay, eps, momentum, alpha, clip, each once".into(),
        ),
        (json!({"on_device": ["clip"]}), "on_device[0] is clip, must be a number that adam has here".into()),
        (json!({"on_device": ["momentum"]}), "on_device[0] is momentum, must be a number that adam has here".into()),
    ] {
        let mut config = json!({"optimizer": "adam"});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        refused("adam", Config::from_value(config), &text);
        let field = fields.as_object().unwrap().keys().next().unwrap();
        let grouped = json!({"optimizer": "adam", "groups": [{"tensors": ["w"], field: 1}]});
        let text = "belongs to the top level; it is the same for all groups";
        refused("adam", Config::from_value(grouped), &format!("configuration: groups[0].{field}: {text}"));
    }
    for (rule, option, text) in [
        (
            "adafactor",
            "lr",
            "on_device is lr, must be left to the host for adafactor: its numbers are no multiples of it",
        ),
        ("schedule_free", "lr", "on_device is lr, must be left to the host for schedule_free, which carries it"),
        ("asgd", "lr", "on_device is lr, must be left to the host for asgd, which carries it"),
    ] {
        refused(rule, Config::from_value(json!({"optimizer": rule, "on_device": [option]})), text);
    }
}

#[test]
fn numbers_that_are_none_are_refused_in_rust() {
    let tensors = tensors(&[2]);
    for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let text = |field: &str| format!("{field} is {none}, must be ...");
        for row in ALL {
            let mut rule = default_of(row);
            *rule.option("lr").expect("a rate") = none;
            refused(row.name, groups(Config::from(rule), &tensors), &text("lr"));
        }
        let momentum = Sgd { momentum: 0.9, ..Sgd::default() };
        for (field, config) in [
            ("momentum", Config::from(Sgd { momentum: none, ..Sgd::default() })),
            ("dampening", Sgd { dampening: none, ..momentum }.into()),
            ("eps", Adagrad { eps: none, ..Adagrad::default() }.into()),
            ("lr_decay", Adagrad { lr_decay: none, ..Adagrad::default() }.into()),
            ("initial_accumulator", Adagrad { initial_accumulator: none, ..Adagrad::default() }.into()),
            ("alpha", RmsProp { alpha: none, ..RmsProp::default() }.into()),
            ("initial_v", RmsProp { initial_v: none, ..RmsProp::default() }.into()),
            ("beta1", Adam { beta1: none, ..Adam::default() }.into()),
            ("beta2", Adam { beta2: none, ..Adam::default() }.into()),
            ("weight_decay.decoupled", AdamW { weight_decay: WeightDecay::Decoupled(none), ..AdamW::default() }.into()),
            ("eps", NovoGrad { eps: none, ..NovoGrad::default() }.into()),
        ] {
            refused(field, groups(config, &tensors), &text(field));
        }
        let group = Config::from(Adam::default()).group(Group::new(["t0"]).set("lr", none));
        let text = "configuration: groups[0].lr: invalid type: null, expected f64";
        refused("a group's lr", groups(group, &tensors), text);
    }
}

fn groups(config: Config, tensors: &[TensorSpec]) -> Result<Config> {
    config.groups(tensors).map(|_| config)
}

#[test]
fn tensors_and_groups_must_fit() {
    let tensors = ["h.0.w", "h.0.b", "h.1.w"].map(|name| TensorSpec::f32(name, [2]));
    let twice = [&tensors[..], &tensors[1..2]].concat();
    for row in ALL {
        let with = |groups: &[Group]| {
            groups.iter().cloned().fold(Config::from(default_of(row)), |config, group| config.group(group))
        };
        for (config, tensors, text) in [
            (with(&[]), &twice[..], "tensor h.0.b is listed twice, at 1 and 3"),
            (with(&[Group::new(["h.*.w", "h.1"])]), &tensors, "groups[0]: pattern h.1 matches none of the 3 tensors"),
            (
                with(&[Group::new(["h.0.*"]), Group::new(["*.w"])]),
                &tensors,
                "groups[1]: tensor h.0.w is in groups[0] already",
            ),
            (with(&[Group::new([""; 0])]), &tensors, "groups[0]: tensors is empty, must hold at least one name"),
        ] {
            refused(row.name, groups(config.clone(), tensors), text);
            let error = Reference::<f32>::new(&config, tensors).expect_err(text);
            check("the reference", &error, text);
        }
    }
}

#[test]
fn the_reference_refuses_arrays_that_do_not_fit() {
    let array = |len: usize| ArrayD::<f32>::zeros(IxDyn(&[len]));
    let mut reference = Reference::<f32>::new(&Config::from(Sgd::default()), &tensors(&[2, 3])).expect("sound");
    for (params, grads, text) in [
        (vec![2], vec![2, 3], "parameters are 1, expected 2: one a tensor, in the order given at creation"),
        (vec![2, 3], vec![2], "gradients are 1, expected 2: one a tensor, in the order given at creation"),
        (vec![2, 4], vec![2, 3], "parameter of tensor t1 has shape [4], expected shape [3]"),
        (vec![2, 3], vec![1, 3], "gradient of tensor t0 has shape [1], expected shape [2]"),
    ] {
        let mut params: Vec<_> = params.into_iter().map(array).collect();
        let grads: Vec<_> = grads.into_iter().map(|len| Some(array(len))).collect();
        check(text, &reference.step(&mut params, &grads).expect_err(text), text);
        assert_eq!(reference.t("t0"), Ok(0), "{text}");
    }
}

// The GPU.

/// What bad buffers are made of. The arenas hold `t0` of 8 elements at byte 0, `t1` of 3 at 256 and `t2` of 1000 at
/// 512.
#[derive(Clone, Copy)]
struct Given<'a> {
    params: &'a Arena,
    grads: &'a Arena,
    other: &'a Other,
}

/// Arenas and buffers of which none will do.
struct Other {
    fewer: Arena,
    reshaped: Arena,
    reordered: Arena,
    other_gpu: Arena,
    copied: wgpu::Buffer,
    other_device: wgpu::Buffer,
}

const SIZES: [usize; 3] = [8, 3, 1000];

impl Other {
    fn new(gpu: &Gpu, other_device: &wgpu::Device) -> Self {
        let right = tensors(&SIZES);
        let arena = |gpu: &Gpu, tensors: &[TensorSpec]| Arena::new(gpu, tensors).expect("an arena");
        let buffer = |device: &wgpu::Device, usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4512, usage, mapped_at_creation: false })
        };
        Self {
            fewer: arena(gpu, &right[..2]),
            reshaped: arena(gpu, &[right[0].clone(), TensorSpec::f32("t1", [1, 3]), right[2].clone()]),
            reordered: arena(gpu, &[right[1].clone(), right[0].clone(), right[2].clone()]),
            other_gpu: arena(&Gpu::new(gpu.device(), gpu.queue()), &right),
            copied: buffer(gpu.device(), BufferUsages::COPY_DST),
            other_device: buffer(other_device, BufferUsages::STORAGE),
        }
    }
}

fn slices(arena: &Arena) -> Vec<Option<Slice<'_>>> {
    arena.tensors().iter().map(|tensor| Some(arena.slice(&tensor.name).expect("its own"))).collect()
}

/// The arena's slices with one replaced.
fn but<'a>(arena: &'a Arena, tensor: usize, edit: impl FnOnce(Slice<'a>) -> Option<Slice<'a>>) -> Buffers<'a> {
    let mut slices = slices(arena);
    slices[tensor] = slices[tensor].and_then(edit);
    Buffers::Slices(slices)
}

type Bad = for<'a> fn(Given<'a>) -> (Buffers<'a>, Buffers<'a>);

const BUFFERS: [(Bad, &str); 22] = [
    (
        |given| (given.params.into(), (&given.other.fewer).into()),
        "gradients are 2, expected 3: one a tensor, in the order given at creation",
    ),
    (
        |given| ((&given.other.fewer).into(), given.grads.into()),
        "parameters are 2, expected 3: one a tensor, in the order given at creation",
    ),
    (
        |given| (given.params.into(), Buffers::Slices(slices(&given.other.fewer))),
        "gradients are 2, expected 3: one a tensor, in the order given at creation",
    ),
    (
        |given| (given.params.into(), (&given.other.reshaped).into()),
        "gradient of tensor t1 has t1 [1, 3] of f32, expected t1 [3] of f32",
    ),
    (
        |given| ((&given.other.reordered).into(), given.grads.into()),
        "parameter of tensor t0 has t1 [3] of f32, expected t0 [8] of f32",
    ),
    (
        |given| (given.params.into(), but(given.grads, 0, |slice| Some(Slice { size: 28, ..slice }))),
        "gradient of tensor t0 has 28 bytes, expected 32 bytes",
    ),
    (
        |given| (but(given.params, 1, |slice| Some(Slice::all(slice.buffer))), given.grads.into()),
        "parameter of tensor t1 has 4512 bytes, expected 12 bytes",
    ),
    (
        |given| (but(given.params, 0, |slice| Some(Slice { offset: 4496, ..slice })), given.grads.into()),
        "parameter of tensor t0: 32 bytes at 4496 end behind the buffer's 4512",
    ),
    (
        |given| (given.params.into(), but(given.grads, 0, |slice| Some(Slice { offset: u64::MAX - 3, ..slice }))),
        "gradient of tensor t0: 32 bytes at 18446744073709551612 end behind the buffer's 4512",
    ),
    (
        |given| (but(given.params, 0, |slice| Some(Slice { offset: 2, ..slice })), given.grads.into()),
        "parameter of tensor t0: offset is 2, must be a multiple of 4 bytes",
    ),
    (
        |given| (given.params.into(), but(given.grads, 2, |slice| Some(Slice { offset: 511, ..slice }))),
        "gradient of tensor t2: offset is 511, must be a multiple of 4 bytes",
    ),
    (
        |given| {
            (given.params.into(), but(given.grads, 1, |slice| Some(Slice { buffer: &given.other.copied, ..slice })))
        },
        "gradient of tensor t1: buffer usage is BufferUsages(COPY_DST), must contain STORAGE",
    ),
    (
        |given| {
            (but(given.params, 1, |slice| Some(Slice { buffer: &given.other.copied, ..slice })), given.grads.into())
        },
        "parameter of tensor t1: buffer usage is BufferUsages(COPY_DST), must contain STORAGE",
    ),
    (
        |given| (but(given.params, 1, |slice| Some(Slice { offset: 28, ..slice })), given.grads.into()),
        "parameters t0 and t1 overlap: bytes 0..32 and 28..40 of one buffer",
    ),
    (
        |given| (but(given.params, 0, |slice| Some(Slice { offset: 2000, ..slice })), given.grads.into()),
        "parameters t2 and t0 overlap: bytes 512..4512 and 2000..2032 of one buffer",
    ),
    (
        |given| (given.params.into(), but(given.grads, 0, |_| Some(given.params.slice("t0").expect("its own")))),
        "parameter t0 and gradient t0 overlap: bytes 0..32 and 0..32 of one buffer",
    ),
    (
        |given| (but(given.params, 1, |_| Some(given.grads.slice("t1").expect("its own"))), given.grads.into()),
        "parameter t1 and gradient t1 overlap: bytes 256..268 and 256..268 of one buffer",
    ),
    (
        |given| (given.params.into(), given.params.into()),
        "parameter t0 and gradient t0 overlap: bytes 0..32 and 0..32 of one buffer",
    ),
    (
        |given| (but(given.params, 1, |_| None), given.grads.into()),
        "parameter of tensor t1: is missing where the gradient is given",
    ),
    (
        |given| ((&given.other.other_gpu).into(), given.grads.into()),
        "the arena belongs to another Gpu; clone one Gpu for everything on a device",
    ),
    (
        |given| {
            (
                given.params.into(),
                but(given.grads, 0, |slice| Some(Slice { buffer: &given.other.other_device, ..slice })),
            )
        },
        "gradient of tensor t0: its buffer cannot be bound: ...",
    ),
    (
        |given| {
            (
                but(given.params, 2, |slice| Some(Slice { buffer: &given.other.other_device, ..slice })),
                given.grads.into(),
            )
        },
        "parameter of tensor t2: its buffer cannot be bound: ...",
    ),
];

/// Devices of one instance, each with limits of its own.
fn devices<const N: usize>(edits: [fn(&mut wgpu::Limits); N]) -> [Gpu; N] {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("there is one");
    edits.map(|edit| {
        let mut required_limits = required_limits(&adapter);
        edit(&mut required_limits);
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
        Gpu::new(&device, &queue)
    })
}

#[test]
fn buffers_that_do_not_fit_move_nothing() {
    if gpu("rejected buffers", ALL.len() * BUFFERS.len()).is_none() {
        return;
    }
    let [gpu, other_device] = devices([|_| {}, |_| {}]);
    let other = Other::new(&gpu, other_device.device());
    // Rules of matrices take no vector.
    let rows = ALL.iter().filter(|row| !default_of(row).has_products()).enumerate();
    let mut tried = 0;
    for (turn, row) in rows.clone() {
        let mut twin = Parity::new(&gpu, &default_of(row).into(), &tensors(&SIZES), 1).midway(10);
        for (bad, text) in share(BUFFERS.to_vec(), 3, turn) {
            tried += 1;
            let what = |call: &str| format!("{}: {call} of buffers of which {text}", row.name);
            let mut try_each = |name: &str, call: fn(&mut Optimizer, Buffers, Buffers) -> Result<()>| {
                twin.refuses(&what(name), text, |Parity { optimizer, params, grads, .. }| {
                    let (params, grads) = bad(Given { params, grads, other: &other });
                    call(optimizer, params, grads)
                });
            };
            try_each("a step", |optimizer, params, grads| optimizer.step(params, grads));
            try_each("a plan", |optimizer, params, grads| optimizer.plan(params, grads).map(drop));
            try_each("a warm-up", |optimizer, params, grads| optimizer.warm_up(params, grads));
            twin.refuses(&what("an encoding"), text, |Parity { optimizer, params, grads, .. }| {
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                let (params, grads) = bad(Given { params, grads, other: &other });
                let result = optimizer.encode(&mut encoder, params, grads);
                gpu.queue().submit([encoder.finish()]);
                result
            });
        }
        assert_works(row.name, twin);
    }
    say_share("rejected buffers", tried, rows.count() * BUFFERS.len());
}

/// After all refusals a step is as good as before.
fn assert_works(what: &str, mut twin: Parity) {
    let worst = twin.step();
    assert!(worst.ulps <= 8.0, "{what}: a good step after the refused ones: {}", worst.text);
}

#[test]
fn a_part_of_the_parameters_takes_no_whole_gradients() {
    let Some(gpu) = gpu("a part of the parameters", ALL.len()) else { return };
    for row in ALL {
        let mut twin = Parity::new(&gpu, &default_of(row).into(), &tensors(&SIZES), 2).midway(10);
        let text = "parameter of tensor t1: is missing where the gradient is given";
        twin.refuses(row.name, text, |Parity { optimizer, params, grads, .. }| {
            let part = params.without(&["t1"]).expect("known");
            optimizer.step(&part, &*grads)
        });
        let text = "gradients are 1, expected 3: one a tensor, in the order given at creation";
        twin.refuses(row.name, text, |Parity { optimizer, params, .. }| {
            optimizer.step(&params.without(&["t1"]).expect("known"), &[None])
        });
        assert_works(row.name, twin);
    }
}

/// Bad gradients, made of those in f16, of an arena in f32, and of a buffer of 22 bytes.
type BadHalves = for<'a> fn(&'a Arena, &'a Arena, &'a wgpu::Buffer) -> Buffers<'a>;

const BAD_HALVES: [(BadHalves, &str); 6] = [
    (|_, in_f32, _| in_f32.into(), "gradient of tensor t0 has t0 [8] of f32, expected t0 [8] of f16"),
    (|_, in_f32, _| Buffers::Slices(slices(in_f32)), "gradient of tensor t0 has 32 bytes, expected 16 bytes"),
    (
        |grads, _, _| but(grads, 1, |slice| Some(Slice { size: 8, ..slice })),
        "gradient of tensor t1 has 8 bytes, expected 6 bytes",
    ),
    (
        |grads, _, _| but(grads, 1, |slice| Some(Slice { offset: 3, ..slice })),
        "gradient of tensor t1: offset is 3, must be a multiple of 2 bytes",
    ),
    (
        |grads, _, ragged| but(grads, 0, |slice| Some(Slice { buffer: ragged, offset: 8, ..slice })),
        "gradient of tensor t0: 16 bytes at 8 end behind the buffer's 22",
    ),
    (
        |grads, _, ragged| but(grads, 1, |slice| Some(Slice { buffer: ragged, offset: 16, ..slice })),
        "gradient of tensor t1: 6 bytes at 16 end in a word of 4 bytes that the buffer's 22 cut off",
    ),
];

#[test]
fn gradients_in_f16_that_do_not_fit_move_nothing() {
    let Some(gpu) = gpu("rejected gradients in f16", (BAD_HALVES.len() + 2) * ALL.len()) else { return };
    let halves: Vec<_> = tensors(&SIZES).into_iter().map(|tensor| tensor.with_grad_dtype(DType::F16)).collect();
    let in_f32 = Arena::new(&gpu, &halves).expect("an arena");
    let usage = BufferUsages::STORAGE;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 22, usage, mapped_at_creation: false };
    let ragged = gpu.device().create_buffer(&descriptor);
    // Rules of matrices take no vector.
    for row in ALL.iter().filter(|row| !default_of(row).has_products()) {
        let mut twin = Parity::new(&gpu, &default_of(row).into(), &halves, 5).midway(10);
        for (bad, text) in BAD_HALVES {
            twin.refuses(&format!("{}: {text}", row.name), text, |Parity { optimizer, params, grads, .. }| {
                optimizer.step(&*params, bad(grads, &in_f32, &ragged))
            });
        }
        assert_works(row.name, twin);

        // Gradients in f32 that are given in f16.
        let mut twin = Parity::new(&gpu, &default_of(row).into(), &tensors(&SIZES), 5).midway(10);
        let arena = Arena::new(&gpu, &halves.iter().map(TensorSpec::grad_spec).collect::<Vec<_>>()).expect("an arena");
        let text = "gradient of tensor t0 has t0 [8] of f16, expected t0 [8] of f32";
        twin.refuses(row.name, text, |Parity { optimizer, params, .. }| optimizer.step(&*params, &arena));
        let text = "gradient of tensor t0 has 16 bytes, expected 32 bytes";
        twin.refuses(row.name, text, |Parity { optimizer, params, .. }| {
            optimizer.step(&*params, Buffers::Slices(slices(&arena)))
        });
    }
}

type Call = fn(&mut Parity) -> Result<()>;

const CALLS: [(Call, &str); 18] = [
    (|twin| twin.params.read_blocking("x").map(drop), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.params.write("x", &[]), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.params.slice("x").map(drop), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.grads.without(&["t1", "x"]).map(drop), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.params.write("t1", &[1.0; 4]), "values of tensor t1 has 4 elements, expected 3 elements"),
    (|twin| twin.optimizer.t("x").map(drop), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.optimizer.set_t("x", 3), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.optimizer.slots("x").map(drop), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.optimizer.state_blocking("x", "m").map(drop), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.optimizer.set_state("x", "m", &[]), "tensor x is unknown; there are t0, t1, t2"),
    (|twin| twin.optimizer.set_lr(f64::NAN), "lr is NaN, must be at least 0 and finite"),
    (|twin| twin.optimizer.set_lr(-0.5), "lr is -0.5, must be at least 0 and finite"),
    (|twin| twin.optimizer.set("lr", f64::INFINITY), "lr is inf, must be at least 0 and finite"),
    (|twin| twin.optimizer.set("warmth", 1.0), "configuration: warmth: is not an option that may change; those of ..."),
    (|twin| twin.optimizer.set_group(0, "lr", -1.0), "groups[0].lr is -1, must be at least 0 and finite"),
    (|twin| twin.optimizer.set_group(1, "lr", 0.1), "groups[1]: there is no such group; the configuration has 1"),
    (
        |twin| twin.optimizer.set_group(usize::MAX, "lr", 0.1),
        "groups[18446744073709551615]: there is no such group; ...",
    ),
    (|twin| twin.optimizer.set("weight_decay", 0.1), "weight_decay is 0.1, must be left alone where it is none"),
];

/// A group with a rate of its own, where it may have one.
fn group_of_its_own(rule: &dyn AnyRule) -> Group {
    let group = Group::new(["t2"]);
    if rule.model_fields().contains(&"lr") { group.set("maximize", true) } else { group.set("lr", 0.25) }
}

#[test]
fn what_belongs_to_the_model_is_not_set_by_a_group() {
    let mut found = 0;
    for row in ALL {
        let rule = default_of(row);
        for &field in rule.model_fields() {
            found += 1;
            let value = rule.to_json()[field].clone();
            let bound = format!("must be left to the top level: {} has one for all groups", row.name);
            let group = Group::new(["t0"]).set(field, value.clone());
            let error = groups(Config::from(rule.clone()).group(group), &tensors(&[3]));
            refused(row.name, error, &format!("groups[0].{field} is {value}, {bound}"));
            if rule.number(field).is_some_and(|number| number > 0.0) {
                let config =
                    Config::from(rule.clone()).group(Group::new(["t0"]).schedule(field, Schedule::Constant {}));
                let path = if field == "lr" { "schedule".into() } else { format!("schedules.{field}") };
                let text = format!("configuration: groups[0].{path}: {field} is scheduled, {bound}");
                refused(row.name, groups(config, &tensors(&[3])), &text);
            }
        }
    }
    assert!(found > 0, "no rule has fields of the model");
}

#[test]
fn names_numbers_and_lengths_that_do_not_fit_move_nothing() {
    let Some(gpu) = gpu("rejected calls", ALL.len() * CALLS.len()) else { return };
    for row in ALL {
        let no_decay = default_of(row).with(&object(r#"{"weight_decay": "none"}"#)).expect("every rule takes none");
        let config = Config::from(no_decay.clone()).group(group_of_its_own(&*no_decay));
        let mut twin = Parity::new(&gpu, &config, &tensors(&SIZES), 3).midway(10);
        let sets_lr = default_of(row).options().contains(&"lr");
        let one_lr = default_of(row).model_fields().contains(&"lr");
        for (i, (call, text)) in CALLS.into_iter().enumerate() {
            let text = match text.strip_prefix("groups[0].lr is") {
                Some(_) if !sets_lr => "configuration: groups[0].lr: is not an option that may change; those of ...",
                Some(_) if one_lr => "groups[0].lr is -1, must be left to the top level: ...",
                _ => text,
            };
            twin.refuses(&format!("{}, call {i}", row.name), text, call);
        }
        if !sets_lr {
            let text = "configuration: lr: is not an option that may change; those of ...";
            twin.refuses(row.name, text, |twin| twin.optimizer.set_lr(0.1));
        }
        assert_works(row.name, twin);
    }
}

#[test]
fn state_of_another_name_or_length_moves_nothing() {
    let Some(gpu) = gpu("rejected state", ALL.len()) else { return };
    for (row, (case, rule)) in ALL.iter().flat_map(|row| (row.cases)().into_iter().map(move |case| (row, case))) {
        let what = format!("{}/{case}", row.name);
        let mut twin = Parity::new(&gpu, &rule.clone().into(), &tensors(&SIZES), 4).midway(10);
        let slots: Vec<_> = rule.slots().into_iter().filter(|slot| slot.extent.is_kept()).collect();
        let names = slots.iter().map(|slot| slot.name).collect::<Vec<_>>().join(", ");
        let known = if slots.is_empty() { "none" } else { &names };
        let text = format!("tensor t1 has no state slot warmth; it has {known}");
        twin.refuses(&what, &text, |twin| twin.optimizer.state_blocking("t1", "warmth"));
        twin.refuses(&what, &text, |twin| twin.optimizer.set_state("t1", "warmth", &[1.0; 3]));
        for slot in slots {
            // The tensor has 3 elements.
            let (name, expected) = (slot.name, slot.extent.shape(&[3]).iter().product::<usize>());
            for len in [0, expected.saturating_sub(1), expected + 1].into_iter().filter(|len| *len != expected) {
                let text = format!("state {name} of tensor t1 has {len} elements, expected {expected} elements");
                twin.refuses(&what, &text, |twin| twin.optimizer.set_state("t1", name, &vec![1.0; len]));
            }
        }
    }
}

/// A number of the rule that needs other constants or slots when it is 0.
fn chooses_the_variant(rule: &dyn AnyRule) -> Option<String> {
    let numbers = rule.to_json().into_iter().filter(|(_, value)| value.as_f64().is_some_and(|value| value != 0.0));
    numbers.map(|(name, _)| name).filter(|name| rule.options().contains(&&name[..])).find(|name| {
        let zero = rule.with(&Map::from_iter([(name.clone(), 0.0.into())]));
        zero.is_ok_and(|zero| zero.constants() != rule.constants() || zero.slots() != rule.slots())
    })
}

#[test]
fn a_number_that_would_need_another_pipeline_moves_nothing() {
    let Some(gpu) = gpu("numbers that choose a variant", ALL.len()) else { return };
    let mut found = 0;
    for (row, (case, rule)) in ALL.iter().flat_map(|row| (row.cases)().into_iter().map(move |case| (row, case))) {
        let Some(field) = chooses_the_variant(&*rule) else { continue };
        found += 1;
        let what = format!("{}/{case}", row.name);
        let text = format!("{field} is 0, must be a value that needs no other pipeline or state than at creation");
        let config = Config::from(rule.clone()).group(group_of_its_own(&*rule));
        let mut twin = Parity::new(&gpu, &config, &tensors(&SIZES), 5).midway(10);
        twin.refuses(&what, &text, |twin| twin.optimizer.set(&field, 0.0));
        twin.refuses(&what, &format!("groups[0].{text}"), |twin| twin.optimizer.set_group(0, &field, 0.0));
        assert_works(&what, twin);
    }
    assert!(found > 0, "no case of any rule has a number that chooses its variant");
}

#[test]
fn a_look_ahead_is_neither_missing_nor_doubled_nor_unasked() {
    let Some(gpu) = gpu("look-ahead out of turn", ALL.len()) else { return };
    let (mut asked, mut unasked) = (0, 0);
    for (row, (case, rule)) in ALL.iter().flat_map(|row| (row.cases)().into_iter().map(move |case| (row, case))) {
        let what = format!("{}/{case}", row.name);
        let asks = rule.needs_look_ahead();
        let mut twin = Parity::new(&gpu, &rule.into(), &tensors(&SIZES), 6).midway(10);
        let step = |Parity { optimizer, params, grads, .. }: &mut Parity| optimizer.step(&*params, &*grads);
        let look_ahead = |Parity { optimizer, params, .. }: &mut Parity| optimizer.look_ahead(&*params);
        if asks {
            asked += 1;
            let text = "look-ahead: a step without one before it (nesterov look_ahead)";
            twin.refuses(&what, text, step);
            let text = "parameter of tensor t0: offset is 2, must be a multiple of 4 bytes";
            twin.refuses(&what, text, |Parity { optimizer, params, .. }| {
                optimizer.look_ahead(but(params, 0, |slice| Some(Slice { offset: 2, ..slice })))
            });
            look_ahead(&mut twin).expect("the first");
            twin.refuses(&what, "look-ahead: two in a row; the step between them is missing", look_ahead);
            let text = "look-ahead: tensor t1 was in the look-ahead and is not in the step";
            twin.refuses(&what, text, |Parity { optimizer, params, grads, .. }| {
                let part = grads.without(&["t1"]).expect("known");
                optimizer.step(&*params, &part)
            });
            step(&mut twin).expect("after its look-ahead");
        } else {
            unasked += 1;
            twin.refuses(&what, "look-ahead: no option asks for one (nesterov look_ahead)", look_ahead);
        }
    }
    assert!(asked > 0 && unasked > 0);
}

#[test]
fn a_token_is_taken_back_once_and_in_turn() {
    let Some(gpu) = gpu("tokens out of turn", ALL.len()) else { return };
    for row in ALL {
        let new = || Parity::new(&gpu, &default_of(row).into(), &tensors(&SIZES), 7).midway(10);
        let (mut twin, mut stranger) = (new(), new());
        let encode = |Parity { optimizer, params, grads, .. }: &mut Parity| {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            (optimizer.encode(&mut encoder, &*params, &*grads).expect("sound"), encoder)
        };
        let ((first, _), (second, _), (strange, _)) = (encode(&mut twin), encode(&mut twin), encode(&mut stranger));
        assert_eq!(twin.optimizer.t("t0"), Ok(12), "{}", row.name);
        twin.refuses(row.name, "token: belongs to another optimizer", |twin| twin.optimizer.undo(strange));
        let text = "token: is not the latest encoding; take those after it back first";
        twin.refuses(row.name, text, |twin| twin.optimizer.undo(first));
        twin.optimizer.undo(second).expect("the latest");
        twin.refuses(
            row.name,
            "token: its work has run, it was taken back already, or a count of steps was set after it",
            |twin| twin.optimizer.undo(second),
        );
        twin.optimizer.undo(first).expect("the latest now");
        assert_eq!(twin.optimizer.t("t0"), Ok(10), "{}", row.name);
        assert_works(row.name, twin);

        let mut twin = new();
        let (done, encoder) = encode(&mut twin);
        gpu.queue().submit([encoder.finish()]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("it ends");
        twin.refuses(row.name, "token: its work has run", |twin| twin.optimizer.undo(done));
        let (next, _) = encode(&mut twin);
        twin.optimizer.undo(next).expect("the latest");
        twin.refuses(
            row.name,
            "token: its work has run, it was taken back already, or a count of steps was set after it",
            |twin| twin.optimizer.undo(done),
        );
    }
}

#[test]
fn tensors_that_no_buffer_holds_are_refused() {
    if gpu("tensors larger than a page", ALL.len()).is_none() {
        return;
    }
    const SMALL: u64 = 1 << 16;
    let [small] = devices([|limits| limits.max_buffer_size = SMALL]);
    let refused = |tensors: &[TensorSpec], text: &str| check(text, &Arena::new(&small, tensors).expect_err(text), text);
    let page = SMALL as usize / 4;
    refused(
        &[TensorSpec::f32("b", [4]), TensorSpec::f32("w", [page / 4, 5])],
        "tensor w: its values take 81920 bytes, a buffer holds at most 65536",
    );
    refused(
        &[TensorSpec::f32("w", [usize::MAX, 2])],
        "tensor w: its values take 18446744073709551615 bytes, a buffer holds at most 65536",
    );
    refused(&[TensorSpec::f32("w", [2]), TensorSpec::f32("w", [2])], "tensor w is listed twice, at 0 and 1");
    Arena::new(&small, &[TensorSpec::f32("w", [page])]).expect("a tensor of a page fits");
    for (row, (case, rule)) in ALL.iter().flat_map(|row| (row.cases)().into_iter().map(move |case| (row, case))) {
        let what = format!("{}/{case}", row.name);
        for (len, bytes) in [(page + 1, SMALL + 4), (usize::MAX, u64::MAX)] {
            let text = format!("tensor w: its values take {bytes} bytes, a buffer holds at most {SMALL}");
            let config = Config::from(rule.clone());
            let tensors = fitting(&config, &[TensorSpec::f32("w", [len])]);
            let error = Optimizer::new(&small, &tensors, config).expect_err(&what);
            check(&what, &error, &text);
        }
    }
}

#[test]
fn a_rule_for_matrices_takes_no_tensor_without_rows() {
    let of_matrices = ALL.iter().filter_map(|row| default_of(row).for_matrices());
    let mut found = 0;
    for rule in of_matrices {
        found += 1;
        let text = "shape of tensor t0 has [5], expected rows and columns, for this rule";
        refused(rule.name(), groups(Config::from(rule.clone()), &tensors(&[5])), text);
    }
    assert!(found > 0, "no rule has a form for matrices");
}

#[test]
fn a_device_whose_bindings_hold_no_block_moves_nothing() {
    if gpu("bindings smaller than a block", ALL.len()).is_none() {
        return;
    }
    let [small] = devices([|limits| limits.max_storage_buffer_binding_size = 4096]);
    // Rules of matrices take no vector, and work and the scratch of a history are refused before there is an optimizer.
    let steps = |rule: &dyn AnyRule| !rule.has_work() && rule.history().is_none();
    for row in ALL.iter().filter(|row| steps(&*default_of(row))) {
        let text = "the device's max_storage_buffer_binding_size is 4096, needed are ...";
        let mut twin = Parity::new(&small, &default_of(row).into(), &tensors(&SIZES), 8).midway(10);
        twin.refuses(row.name, text, |Parity { optimizer, params, grads, .. }| optimizer.step(&*params, &*grads));
    }
}

#[test]
fn a_model_whose_table_no_buffer_holds_moves_nothing() {
    if gpu("more tensors than the chunk table has room for", 1).is_none() {
        return;
    }
    let [small] = devices([|limits| limits.max_buffer_size = 1 << 16]);
    // An entry has 64 bytes, so 1024 tensors fit, and one more does not.
    for (count, fits) in [(1024, true), (1025, false)] {
        let mut twin = Parity::new(&small, &Config::from(Adam::default()), &tensors(&vec![4; count]), 8);
        let step = |Parity { optimizer, params, grads, .. }: &mut Parity| optimizer.step(&*params, &*grads);
        match fits {
            true => step(&mut twin).expect("its table fits"),
            false => twin.refuses("adam", "the device's max_buffer_size is 65536, needed are ...", step),
        }
    }
}

#[test]
fn a_tuning_outside_its_bounds_is_refused() {
    let Some(gpu) = gpu("a tuning outside its bounds", 3) else { return };
    let right = gpu.tuning();
    for (tuning, text) in [
        (Tuning { lanes: 0, ..right }, "lanes is 0, must be at least 1 and at most ..."),
        (Tuning { lanes: 257, ..right }, "lanes is 257, must be at least 1 and at most ..."),
        (Tuning { chunk_blocks: 3, ..right }, "chunk_blocks is 3, must be 1, 2, 4 or 8"),
    ] {
        check(text, &Gpu::with_tuning(gpu.device(), gpu.queue(), tuning).expect_err(text), text);
    }
}

#[test]
fn an_adapter_of_no_such_name_is_refused_with_those_there_are() {
    let Some(gpu) = gpu("an adapter of no such name", 1) else { return };
    let error = Gpu::request_named_blocking("Abacus 9000").expect_err("there is none");
    check("the name", &error, "no adapter whose name contains \"Abacus 9000\"; found: ...");
    let Error::NoAdapter { found, .. } = error else { panic!("{error:?}") };
    assert!(found.contains(&gpu.adapter_info().name), "{found}");
}
