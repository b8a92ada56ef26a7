//! A kernel of the caller's writes options on the device.

use crate::common::twin::{Parity, fitting, noise, tensors, ulps};
use crate::common::{gpu, say};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wgpu_optim::proof::check;
use wgpu_optim::rules::ALL;
use wgpu_optim::{Arena, Config, Gpu, Optimizer, TensorSpec, WeightDecay, wgpu};

const OPTIONS: [&str; 5] = ["lr", "weight_decay", "eps", "momentum", "alpha"];

/// Numbers that f32 holds, so that host and device mean the same.
const VALUES: [[f32; 3]; 5] =
    [[0.03125, 0.5, 0.0], [0.25, 0.0, 0.03125], [0.125, 1e-3, 1e-6], [0.75, 0.25, 0.5], [0.5, 0.875, 0.25]];

/// Measured: 16, where RMSProp has 1 - 0.99 from an `alpha` of f32, of which the host knows more digits; 7 elsewhere.
const ULPS: f64 = 20.0;

fn config(value: Value) -> Config {
    Config::from_value(value).expect("a sound configuration")
}

/// Writes options from the host.
fn write(gpu: &Gpu, optimizer: &Optimizer, values: &[f32]) {
    let slice = optimizer.on_device().expect("options on the device");
    assert_eq!(slice.size, 4 * values.len() as u64);
    gpu.queue().write_buffer(slice.buffer, slice.offset, bytemuck::cast_slice(values));
}

/// Writes options by a kernel: these numbers, times two, of which the host has halves.
fn write_by_kernel(gpu: &Gpu, optimizer: &Optimizer, values: &[f32]) {
    let slice = optimizer.on_device().expect("options on the device");
    let numbers: Vec<String> =
        values.iter().map(|value| format!("bitcast<f32>({}u)", (value / 2.0).to_bits())).collect();
    let text = format!(
        "@group(0) @binding(0) var<storage, read_write> options: array<f32>;
        @compute @workgroup_size(1) fn main(@builtin(workgroup_id) group: vec3<u32>) {{
            var numbers = array<f32, {}>({});
            options[group.x] = 2.0 * numbers[group.x];
        }}",
        values.len(),
        numbers.join(", ")
    );
    let device = gpu.device();
    let source = wgpu::ShaderSource::Wgsl(text.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer: slice.buffer,
        offset: slice.offset,
        size: wgpu::BufferSize::new(slice.size),
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(values.len() as u32, 1, 1);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
}

/// Two optimizers with the same parameters: one takes options on the device, of the other the host sets them.
struct Pair {
    tensors: Vec<TensorSpec>,
    device: Optimizer,
    host: Optimizer,
    params: [Arena; 2],
    grads: Arena,
    rng: StdRng,
    /// The largest that each parameter was: what differs then differs later.
    peaks: Vec<f32>,
}

impl Pair {
    fn new(gpu: &Gpu, host: &Config, on_device: &[&str], tensors: &[TensorSpec]) -> Self {
        let arena = || Arena::new(gpu, tensors).expect("an arena");
        let mut rng = StdRng::seed_from_u64(71);
        let params = [arena(), arena()];
        for tensor in tensors {
            let values = noise(&mut rng, tensor.len_elements() as usize);
            params.iter().for_each(|arena| arena.write(&tensor.name, &values).expect("as many values"));
        }
        let device =
            Optimizer::new(gpu, tensors, host.clone().on_device(on_device.iter().copied())).expect("an optimizer");
        let host = Optimizer::new(gpu, tensors, host.clone()).expect("an optimizer");
        Self { tensors: tensors.to_vec(), device, host, params, grads: arena(), rng, peaks: vec![] }
    }

    /// A step of both, the worst difference of the parameters, and how far they have moved.
    fn step(&mut self) -> (f64, f64) {
        let of_all = |arena: &Arena| {
            let each = self.tensors.iter().map(|tensor| arena.read_blocking(&tensor.name).expect("a readback"));
            each.collect::<Vec<_>>().concat()
        };
        let before = of_all(&self.params[1]);
        for (optimizer, params) in [&mut self.device, &mut self.host].into_iter().zip(&self.params) {
            if optimizer.needs_look_ahead() {
                optimizer.look_ahead(params).expect("a look-ahead");
            }
        }
        for tensor in &self.tensors {
            let grads = noise(&mut self.rng, tensor.len_elements() as usize);
            self.grads.write(&tensor.name, &grads).expect("as many values");
        }
        self.device.step(&self.params[0], &self.grads).expect("a step");
        self.host.step(&self.params[1], &self.grads).expect("a step");
        let [found, expected] = self.params.each_ref().map(of_all);
        self.peaks.resize(before.len(), 0.0);
        self.peaks.iter_mut().zip(&before).for_each(|(peak, p)| *peak = peak.max(p.abs()));
        let worst = (0..before.len()).map(|i| ulps(found[i], expected[i], self.peaks[i])).fold(0.0, f64::max);
        let moved =
            before.iter().zip(&expected).map(|(before, after)| f64::from((after - before).abs())).fold(0.0, f64::max);
        (worst, moved)
    }
}

fn values(option: &str) -> [f32; 3] {
    VALUES[OPTIONS.iter().position(|known| *known == option).expect("an option")]
}

#[test]
fn what_the_device_writes_counts_as_what_the_host_sets() {
    let cases: Vec<_> =
        ALL.iter().flat_map(|row| (row.cases)().into_iter().map(|(c, rule)| (row.name, c, rule))).collect();
    let Some(gpu) = gpu("options on the device", 5 * cases.len()) else { return };
    let list = [TensorSpec::f32("b", [1030]), TensorSpec::f32("w", [5, 7])];
    let (mut taken, mut refused, mut all_worst) = (0, 0, 0.0f64);
    let mut without_effect = Vec::new();
    for (name, case, rule) in &cases {
        let mut config = Config::from(rule.clone());
        let list = fitting(&config, &list);
        // Newton and Schulz's iteration takes a rounding of the momentum 3.4^5 times as far. Measured: at most 82.
        let most = if rule.has_products() { 128.0 } else { ULPS };
        if rule.number("weight_decay").is_none() && config.groups(&list).is_ok() {
            // With a decay, where there may be one.
            for decay in [WeightDecay::Decoupled(0.1), WeightDecay::Inside(0.1), WeightDecay::InsideMoment(0.1)] {
                let json = serde_json::to_value(decay).unwrap();
                let fields = json!({ "weight_decay": json });
                if let Ok(rule) = rule.with(fields.as_object().unwrap()) {
                    config = Config::from(rule);
                    break;
                }
            }
        }
        for option in OPTIONS.into_iter().filter(|option| config.rule().number(option).is_some()) {
            let what = format!("{option} of {name}/{case}");
            if let Err(error) = config.clone().on_device([option]).groups(&list) {
                let start = format!("on_device is {option}, must be left to the host for {name}");
                let texts = [
                    ": its numbers are no multiples of it",
                    ", which carries it",
                    ": pipeline or state follow from it",
                ];
                assert!(texts.iter().any(|end| error.to_string() == format!("{start}{end}")), "{what}: {error}");
                refused += 1;
                continue;
            }
            taken += 1;
            let mut pair = Pair::new(&gpu, &config, &[option], &list);
            let mut movements = Vec::new();
            let configured = pair.step();
            assert!(configured.0 <= most, "{what}, as configured: {} ulp", configured.0);
            for (i, value) in values(option).into_iter().enumerate() {
                if pair.host.set(option, value.into()).is_err() {
                    continue;
                }
                match i {
                    1 => write_by_kernel(&gpu, &pair.device, &[value]),
                    _ => write(&gpu, &pair.device, &[value]),
                }
                let (worst, moved) = pair.step();
                assert!(worst <= most, "{what} = {value}: {worst} ulp");
                all_worst = all_worst.max(worst);
                movements.push(moved);
            }
            assert!(movements.len() >= 2, "{what}: {movements:?}");
            // No norm here is below the eps that rules with products divide by at least.
            if option == "eps" && rule.has_products() {
                continue;
            }
            // It is not the configured number that both take.
            let mut still = Pair::new(&gpu, &config, &[option], &list);
            for tensor in &list {
                // Some rules use none of eps in their first steps.
                still.device.set_t(&tensor.name, 1000).unwrap();
                still.host.set_t(&tensor.name, 1000).unwrap();
            }
            still.step();
            write(&gpu, &still.device, &values(option)[..1]);
            still.step();
            if still.step().0 <= ULPS {
                without_effect.push(what);
            }
        }
    }
    say(&format!("on_device: {taken} options taken, {refused} refused, worst {all_worst} ulp"));
    assert!(taken > 100 && refused > 5, "{taken} taken, {refused} refused");
    // There the ratio that it is in has reached its bound, and the rate is an estimate that starts at 1e-6.
    assert_eq!(without_effect, ["eps of lars/larc_at_most", "weight_decay of prodigy/default"]);
}

#[test]
fn two_options_groups_and_schedules() {
    let Some(gpu) = gpu("options on the device together", 5) else { return };
    let list = tensors(&[1030, 5, 9]);
    let base = json!({
        "optimizer": "sgd", "lr": 0.5, "momentum": 0.5, "weight_decay": {"decoupled": 0.25},
        "groups": [
            {"tensors": ["t1"], "lr": 1.5, "weight_decay": {"l2": 0.125}}, {"tensors": ["t2"], "momentum": 0.75}
        ]
    });
    let mut scheduled = base.clone();
    scheduled["schedule"] = json!({"linear": {"total": 4}});
    scheduled["schedules"] = json!({"momentum": {"step": {"every": 2, "gamma": 0.5}}});
    for value in [base, scheduled] {
        let mut pair = Pair::new(&gpu, &config(value), &["weight_decay", "lr", "momentum"], &list);
        for (i, [decay, lr, momentum]) in
            [[0.25, 0.5, 0.5], [0.5, 0.125, 0.25], [0.0, 0.75, 0.625], [0.0625, 0.0, 0.25], [0.75, 0.25, 0.5]]
                .into_iter()
                .enumerate()
        {
            match i % 2 {
                0 => write(&gpu, &pair.device, &[decay, lr, momentum]),
                _ => write_by_kernel(&gpu, &pair.device, &[decay, lr, momentum]),
            }
            pair.host.set("weight_decay", decay.into()).unwrap();
            pair.host.set("lr", lr.into()).unwrap();
            pair.host.set("momentum", momentum.into()).unwrap();
            let (worst, _) = pair.step();
            assert!(worst <= ULPS, "step {i}: {worst} ulp");
        }
    }
    // A group keeps its own rate where the top level's was 0.
    let value = json!({"optimizer": "sgd", "lr": 0, "groups": [{"tensors": ["t1"], "lr": 0.5}]});
    let mut pair = Pair::new(&gpu, &config(value), &["lr"], &list);
    write(&gpu, &pair.device, &[0.25]);
    pair.host.set("lr", 0.25).unwrap();
    assert_eq!(pair.step().0, 0.0);
}

#[test]
fn the_limit_of_a_clip_may_be_written() {
    let kinds = [
        json!({"value": 0.75}),
        json!({"tensor_norm": 4.0}),
        json!({"global_norm": 4.0}),
        json!({"adaptive": {"clip": 0.5}}),
        json!({"sign": 4.0}),
    ];
    let Some(gpu) = gpu("limits on the device", kinds.len()) else { return };
    let list = tensors(&[1030, 5]);
    for clip in kinds {
        let (kind, _) = clip.as_object().unwrap().iter().next().unwrap();
        for limit in [0.125f32, 8.0, 1e6] {
            let of_limit = match &kind[..] {
                "adaptive" => json!({"adaptive": {"clip": limit}}),
                _ => json!({ kind: limit }),
            };
            let host = |clip: &Value| config(json!({"optimizer": "adam", "lr": 0.125, "clip": clip}));
            let mut pair = Pair::new(&gpu, &host(&clip), &["clip", "lr"], &list);
            pair.host = Optimizer::new(&gpu, &list, host(&of_limit)).unwrap();
            write_by_kernel(&gpu, &pair.device, &[limit, 0.125]);
            let (worst, _) = pair.step();
            assert!(worst <= ULPS, "{kind} of {limit}: {worst} ulp");
        }
    }
}

#[test]
fn what_is_written_is_taken_as_it_is() {
    let Some(gpu) = gpu("bad numbers on the device", 4) else { return };
    let list = tensors(&[5]);
    for bad in [f32::NAN, f32::INFINITY] {
        for clip in [false, true] {
            let mut value = json!({"optimizer": "sgd", "lr": 1});
            if clip {
                value["clip"] = json!({"global_norm": 1});
            }
            let option = if clip { "clip" } else { "lr" };
            let mut optimizer = Optimizer::new(&gpu, &list, config(value).on_device([option])).unwrap();
            let [params, grads] = [(); 2].map(|()| Arena::new(&gpu, &list).unwrap());
            grads.write("t0", &[3.0, -4.0, 0.0, 0.0, 0.0]).unwrap();
            write(&gpu, &optimizer, &[bad]);
            optimizer.step(&params, &grads).unwrap();
            let found = params.read_blocking("t0").unwrap();
            match (bad.is_nan(), clip) {
                // An infinite limit is none.
                (false, true) => assert_eq!(found, [-3.0, 4.0, 0.0, 0.0, 0.0]),
                (false, false) => assert_eq!(found[..2], [f32::NEG_INFINITY, f32::INFINITY]),
                (true, _) => assert!(found[..2].iter().all(|p| p.is_nan()), "{option}: {found:?}"),
            }
        }
    }
}

#[test]
fn the_host_leaves_alone_what_the_device_writes() {
    let Some(gpu) = gpu("options of the device", 7) else { return };
    let value = json!({
        "optimizer": "adam", "lr": 0.1, "on_device": ["lr", "eps"], "groups": [{"tensors": ["t1"], "lr": 0.3}]
    });
    let mut twin = Parity::new(&gpu, &config(value), &tensors(&[3, 5]), 72);
    let left = |field: &str, value: &str| format!("{field} is {value}, must be left to the device, which writes it");
    twin.refuses("set_lr", &left("lr", "0.2"), |t| t.optimizer.set_lr(0.2));
    twin.refuses("set", &left("lr", "0.2"), |t| t.optimizer.set("lr", 0.2));
    twin.refuses("set", &left("eps", "0.5"), |t| t.optimizer.set("eps", 0.5));
    twin.refuses("set_group", &left("groups[0].lr", "0.2"), |t| t.optimizer.set_group(0, "lr", 0.2));
    twin.refuses("set_group", &left("groups[0].eps", "0.5"), |t| t.optimizer.set_group(0, "eps", 0.5));
    assert_eq!(twin.reference.set_lr(0.2).unwrap_err().to_string(), left("lr", "0.2"));
    twin.optimizer.set("beta1", 0.5).unwrap();

    let mut plain = Parity::new(&gpu, &config(json!({"optimizer": "sgd"})), &tensors(&[3]), 72);
    let text = "configuration: on_device: is not set; the host has all options";
    plain.refuses("no options", text, |t| t.optimizer.on_device().map(|slice| slice.size));
}

#[test]
fn options_that_cannot_be_on_the_device_are_refused() {
    let known = "one of lr, weight_decay, eps, momentum, alpha, clip, each once";
    for (value, text) in [
        (json!({"on_device": ["beta1"]}), format!("on_device[0] is beta1, must be {known}")),
        (json!({"on_device": ["lr", "lr"]}), format!("on_device[1] is lr, must be {known}")),
        (json!({"on_device": ["clip"]}), "on_device[0] is clip, must be a number that sgd has here".into()),
        (json!({"on_device": ["lr", "eps"]}), "on_device[1] is eps, must be a number that sgd has here".into()),
        (
            json!({"on_device": ["weight_decay"]}),
            "on_device[0] is weight_decay, must be a number that sgd has here".into(),
        ),
        (
            json!({"on_device": ["momentum"]}),
            "on_device is momentum, must be left to the host for sgd: pipeline or state follow from it".into(),
        ),
        (
            json!({"on_device": ["lr"], "optimizer": "rprop"}),
            "on_device is lr, must be left to the host for rprop: pipeline or state follow from it".into(),
        ),
    ] {
        let mut all = json!({"optimizer": "sgd"});
        all.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        check(&text, &Config::from_value(all).expect_err(&text), &text);
    }
}
