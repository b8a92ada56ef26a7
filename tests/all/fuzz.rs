//! Random sequences of steps, bad steps, undone steps, frozen and added tensors, rates, moves, saves and loads run on
//! the optimizer and on the reference, and both have the same bits. Gradients lie elsewhere in each step.

use crate::common::{create, twin};

use ndarray::ArrayD;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use wgpu_optim::wgpu::{Buffer, BufferUsages};
use wgpu_optim::{Arena, Config, DType, Error, Gpu, Group, Optimizer, Reference, Slice, TensorSpec};

/// How many random moves one configuration makes.
const MOVES: usize = 120;

/// How many tensors an optimizer has at most.
const TENSORS: usize = 6;

/// Bytes of a buffer of gradients: room for those of all tensors.
const PAGE_BYTES: u64 = 1 << 17;

/// Rules and wrappers that keep different things from step to step.
fn configs() -> Vec<serde_json::Value> {
    let scale = json!({"init": 1024, "interval": 3});
    let schedule = json!({"exponential": {"gamma": 0.97}});
    vec![
        json!({"optimizer": "adamw", "loss_scale": scale, "clip": {"global_norm": 2}, "schedule": schedule,
            "ema": {"decay": 0.9}, "lookahead": {"k": 3, "alpha": 0.4}}),
        json!({"optimizer": "sgd", "momentum": 0.8, "form": "velocity", "nesterov": "look_ahead",
            "skip_nonfinite": true, "ema": {"decay": 0.5}}),
        json!({"optimizer": "nadam", "skip_nonfinite": true, "clip": {"tensor_norm": 0.7}, "schedule": schedule}),
        json!({"optimizer": "schedule_free", "loss_scale": scale, "warmup_steps": 5}),
        json!({"optimizer": "adafactor", "skip_nonfinite": true, "accumulate": 3, "clip": {"adaptive": {"clip": 0.1}}}),
        json!({"optimizer": "novograd", "loss_scale": scale, "accumulate": 2, "ema": {"decay": 0.9}}),
        json!({"optimizer": "asgd", "skip_nonfinite": true, "clip": {"sign": 3}, "schedules": {"alpha": schedule}}),
        json!({"optimizer": "lamb", "ema": {"decay": 0.8}, "norms": true}),
        json!({"optimizer": "yogi", "lookahead": {"k": 2, "alpha": 0.5}}),
        json!({"optimizer": "lamb", "cautious_update": "count", "loss_scale": scale, "accumulate": 2,
            "ema": {"decay": 0.9}, "lookahead": {"k": 3, "alpha": 0.4}}),
        json!({"optimizer": "sgd", "momentum": 0.8, "form": "velocity", "nesterov": "look_ahead",
            "cautious_update": "mean", "skip_nonfinite": true}),
        json!({"optimizer": "adafactor", "cautious_update": "mean", "clip": {"global_norm": 2}}),
        json!({"optimizer": "adamw", "update_rms_clip": 0.5, "cautious_update": "count", "skip_nonfinite": true,
            "schedule": schedule}),
        json!({"optimizer": "mars", "gamma": 0.3, "skip_nonfinite": true, "accumulate": 2, "ema": {"decay": 0.9}}),
        json!({"optimizer": "schedule_free_sgd", "lr": 0.1, "loss_scale": scale, "warmup_steps": 3}),
        json!({"optimizer": "adamw", "v_per": "row", "skip_nonfinite": true, "accumulate": 2}),
        json!({"optimizer": "prodigy", "loss_scale": scale, "ema": {"decay": 0.9}, "lookahead": {"k": 2}}),
        json!({"optimizer": "muon", "others": {"optimizer": "adamw", "lr": 0.01}, "skip_nonfinite": true,
            "clip": {"global_norm": 2}, "ema": {"decay": 0.9}}),
        json!({"optimizer": "normuon", "others": {"optimizer": "lion"}, "loss_scale": scale, "accumulate": 2,
            "lookahead": {"k": 3, "alpha": 0.4}}),
        json!({"optimizer": "lbfgs", "history_size": 3, "lr": 0.3, "loss_scale": scale, "accumulate": 2,
            "ema": {"decay": 0.9}}),
        json!({"optimizer": "lbfgs", "history_size": 2, "lr": 0.2, "param_rounding": "master", "skip_nonfinite": true,
            "clip": {"global_norm": 2}, "lookahead": {"k": 2}, "weight_decay": {"l2": 0.1}, "schedule": schedule}),
        json!({"optimizer": "soap", "max_precondition_dim": 64, "precondition_1d": true, "precondition_frequency": 2,
            "skip_nonfinite": true, "clip": {"global_norm": 2}, "ema": {"decay": 0.9}, "lookahead": {"k": 2}}),
        json!({"optimizer": "soap", "max_precondition_dim": 10, "precondition_frequency": 1, "loss_scale": scale,
            "accumulate": 2, "state_format": "q8", "min_elements": 0, "param_rounding": "remainder"}),
        json!({"optimizer": "adamw", "param_rounding": "master", "loss_scale": scale, "ema": {"decay": 0.9},
            "lookahead": {"k": 3, "alpha": 0.4}}),
        json!({"optimizer": "sgd", "momentum": 0.8, "form": "velocity", "nesterov": "look_ahead",
            "param_rounding": "master", "skip_nonfinite": true, "ema": {"decay": 0.5}}),
        json!({"optimizer": "schedule_free", "param_rounding": "stochastic", "seed": 7, "loss_scale": scale}),
        json!({"optimizer": "adamw", "param_rounding": "remainder", "loss_scale": scale, "ema": {"decay": 0.9},
            "lookahead": {"k": 3, "alpha": 0.4}, "accumulate": 2}),
        json!({"optimizer": "nadam", "param_rounding": "remainder", "cautious_update": "mean",
            "groups": [{"tensors": ["b*"], "param_rounding": "stochastic"}]}),
        json!({"optimizer": "adamw", "state_format": "q8", "min_elements": 6, "seed": 3, "loss_scale": scale,
            "ema": {"decay": 0.9}, "lookahead": {"k": 3, "alpha": 0.4}}),
        json!({"optimizer": "lamb", "state_format": {"m": "bf16", "v": "q4"}, "min_elements": 0, "skip_nonfinite": true,
            "accumulate": 2, "param_rounding": "master"}),
        json!({"optimizer": "yogi", "state_format": "bf16", "min_elements": 0, "skip_nonfinite": true,
            "schedule": schedule}),
    ]
}

/// How tensors are stored: in 16 bits where the configuration says how these are rounded.
fn format_of(config: &serde_json::Value) -> DType {
    if config.get("param_rounding").is_some() { DType::Bf16 } else { DType::F32 }
}

struct Fuzz {
    gpu: Gpu,
    rng: StdRng,
    tensors: Vec<TensorSpec>,
    optimizer: Optimizer,
    reference: Reference<f32>,
    /// Each tensor's parameters, and where a step out of place puts new ones.
    arenas: Vec<[Arena; 2]>,
    /// Gradients lie elsewhere in each step, in one of two buffers: which, and the first byte.
    pages: [Buffer; 2],
    places: Vec<(usize, u64)>,
    /// Whether the rate is the model's, so that no group has one.
    one_rate: bool,
    /// Steps out of place.
    out_of_place: usize,
    values: Vec<ArrayD<f32>>,
    done: Vec<String>,
}

/// How many moves of each kind there were, over all configurations.
#[derive(Debug, Default)]
struct Counts {
    applied: usize,
    skipped: usize,
    forgotten: usize,
    added: usize,
    swapped: usize,
    saved: usize,
    out_of_place: usize,
}

impl Fuzz {
    fn new(gpu: &Gpu, config: &serde_json::Value, seed: u64) -> Self {
        let format = format_of(config);
        let tensors = [TensorSpec::f32("w0", [7, 300]), TensorSpec::f32("b0", [5])]
            .map(|tensor| tensor.with_dtype(format).with_grad_dtype(format));
        let config = Config::from_value(config.clone()).expect("a good configuration");
        let mut fuzz = Self {
            gpu: gpu.clone(),
            rng: StdRng::seed_from_u64(seed),
            optimizer: Optimizer::new(gpu, &tensors, config.clone()).expect("an optimizer"),
            reference: Reference::new(&config, &tensors).expect("a reference"),
            one_rate: config.rule().model_fields().contains(&"lr"),
            out_of_place: 0,
            tensors: vec![],
            arenas: vec![],
            pages: [(); 2].map(|()| create(gpu, PAGE_BYTES, BufferUsages::STORAGE | BufferUsages::COPY_DST)),
            places: vec![],
            values: vec![],
            done: vec![],
        };
        fuzz.hold(&tensors);
        fuzz
    }

    fn hold(&mut self, tensors: &[TensorSpec]) {
        for tensor in tensors {
            let list = std::slice::from_ref(tensor);
            let arenas = [(); 2].map(|()| Arena::new(&self.gpu, list).expect("an arena"));
            let values = twin::noise(&mut self.rng, tensor.len_elements() as usize);
            let values = tensor.dtype.decode(&tensor.dtype.encode(&values));
            arenas[0].write(&tensor.name, &values).expect("as many values as elements");
            self.values.push(ArrayD::from_shape_vec(tensor.shape.clone(), values).expect("as many values"));
            self.arenas.push(arenas);
            self.tensors.push(tensor.clone());
        }
    }

    fn chance(&mut self, of: u32) -> bool {
        self.rng.random_range(0..of) == 0
    }

    /// Makes the gradients of a step. Some tensors may have none, and one gradient may be such that no step can use it.
    fn grads(&mut self) -> Vec<Option<ArrayD<f32>>> {
        let absences = !self.optimizer.needs_look_ahead() && self.chance(3);
        let bad = self.chance(3);
        let mut grads = Vec::new();
        let mut used = [0, 0];
        self.places.clear();
        for i in 0..self.tensors.len() {
            let mut values = twin::noise(&mut self.rng, self.values[i].len());
            if bad && self.chance(2) {
                let at = self.rng.random_range(0..values.len());
                values[at] = [f32::NAN, f32::INFINITY, -1e30][self.rng.random_range(0..3)];
            }
            let format = self.tensors[i].grad_dtype;
            let mut bytes = format.encode(&values);
            let values = format.decode(&bytes);
            bytes.resize(bytes.len().next_multiple_of(4), 0xff);
            // Few places are such that the vec4 kernel cannot read them.
            let gap = if self.chance(8) { 4 } else { 16 * self.rng.random_range(0..8) };
            let page = self.rng.random_range(0..2);
            let at = used[page] + gap;
            used[page] = (at + bytes.len() as u64).next_multiple_of(16);
            self.gpu.queue().write_buffer(&self.pages[page], at, &bytes);
            self.places.push((page, at));
            let array = ArrayD::from_shape_vec(self.tensors[i].shape.clone(), values).expect("as many values");
            grads.push((!absences || !self.chance(2)).then_some(array));
        }
        grads
    }

    /// Encodes a step of the optimizer, with its look-ahead. Gives the tokens, the latest last.
    fn encode(
        &mut self,
        encoder: &mut wgpu_optim::wgpu::CommandEncoder,
        grads: &[Option<ArrayD<f32>>],
        out_of_place: bool,
    ) -> Vec<wgpu_optim::EncodedStep> {
        let slices = |which: usize| -> Vec<Option<Slice>> {
            let slice = |i: usize| self.arenas[i][which].slice(&self.tensors[i].name).expect("its own tensor");
            (0..self.tensors.len()).map(|i| Some(slice(i))).collect()
        };
        let grad = |(i, &(page, at)): (usize, &(usize, u64))| {
            grads[i].is_some().then(|| Slice::new(&self.pages[page], at, self.tensors[i].grad_size_bytes()))
        };
        let (params, grads) = (slices(0), self.places.iter().enumerate().map(grad).collect::<Vec<_>>());
        let mut tokens = Vec::new();
        if self.optimizer.needs_look_ahead() {
            tokens.push(self.optimizer.encode_look_ahead(encoder, &params).expect("a look-ahead"));
        }
        let elsewhere = match out_of_place.then(|| self.optimizer.encode_into(encoder, &params, &grads, &slices(1))) {
            // Some rules leave a device with eight bindings none for the outputs.
            None | Some(Err(Error::Limit { .. })) => false,
            Some(token) => {
                tokens.push(token.expect("a step"));
                true
            }
        };
        if !elsewhere {
            tokens.push(self.optimizer.encode(encoder, &params, &grads).expect("a step"));
        } else if self.optimizer.micro_batches() == 0 {
            // A micro-batch that is not the last one of its step writes no parameters.
            self.arenas.iter_mut().for_each(|arenas| arenas.swap(0, 1));
            self.out_of_place += 1;
        }
        tokens
    }

    fn follow(&mut self, grads: &[Option<ArrayD<f32>>]) {
        if self.reference.needs_look_ahead() {
            self.reference.look_ahead(&mut self.values).expect("a look-ahead");
        }
        self.reference.step(&mut self.values, grads).expect("a step");
    }

    /// Makes one of the moves that a training may make; between micro-batches, or where it makes no sense, a step.
    fn act(&mut self, i: usize, counts: &mut Counts) {
        let params = |fuzz: &Self| -> Vec<Slice<'static>> {
            // The arenas live as long as the test.
            let slice = |(arenas, tensor): (&[Arena; 2], &TensorSpec)| {
                let slice = arenas[0].slice(&tensor.name).expect("its own tensor");
                let buffer: &'static _ = Box::leak(Box::new(slice.buffer.clone()));
                Slice::new(buffer, slice.offset, slice.size)
            };
            fuzz.arenas.iter().zip(&fuzz.tensors).map(slice).collect()
        };
        let between = self.reference.clone().freeze("*").is_ok();
        match self.rng.random_range(0..16) {
            0 if between => {
                let name = self.tensors[self.rng.random_range(0..self.tensors.len())].name.clone();
                let frozen = self.optimizer.frozen(&name).expect("a known tensor");
                self.done.push(format!("freeze {name}: {}", !frozen));
                if frozen {
                    self.optimizer.unfreeze(&name).expect("a known tensor");
                    self.reference.unfreeze(&name).expect("a known tensor");
                } else {
                    self.optimizer.freeze(&name).expect("a known tensor");
                    self.reference.freeze(&name).expect("a known tensor");
                }
            }
            1 if between && self.tensors.len() < TENSORS => {
                let format = self.tensors[0].dtype;
                let tensor = TensorSpec::f32(format!("x{i}"), [self.rng.random_range(1..2000), 3]);
                let tensor = tensor.with_dtype(format).with_grad_dtype(format);
                self.done.push(format!("add {tensor:?}"));
                let list = [tensor];
                if !self.one_rate && self.chance(2) {
                    let group = Group::new([&list[0].name[..]]).set("lr", 0.03);
                    self.optimizer.add_group_blocking(group.clone(), &list).expect("a good group");
                    self.reference.add_group(group, &list).expect("a good group");
                } else {
                    self.optimizer.add_blocking(&list).expect("a good tensor");
                    self.reference.add(&list).expect("a good tensor");
                }
                self.hold(&list);
                counts.added += 1;
            }
            2 => {
                let lr = self.rng.random_range(0.001..0.1);
                self.done.push(format!("lr {lr}"));
                self.optimizer.set_lr(lr).expect("a good rate");
                self.reference.set_lr(lr).expect("a good rate");
            }
            3 if between && self.reference.clone().swap_ema(&mut self.values.clone()).is_ok() => {
                self.done.push("swap".into());
                let list = params(self);
                self.optimizer.swap_ema(&list).expect("a swap");
                self.reference.swap_ema(&mut self.values).expect("a swap");
                self.compare();
                self.optimizer.swap_ema(&list).expect("a swap back");
                self.reference.swap_ema(&mut self.values).expect("a swap back");
                counts.swapped += 1;
            }
            4 if between && self.optimizer.has_eval() => {
                self.done.push("evaluation".into());
                let list = params(self);
                self.optimizer.eval(&list).expect("evaluation");
                self.reference.eval(&mut self.values).expect("evaluation");
                self.compare();
                self.optimizer.train(&list).expect("training");
                self.reference.train(&mut self.values).expect("training");
            }
            5 | 6 => {
                let grads = self.grads();
                let mut tokens = Vec::new();
                let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
                for _ in 0..self.rng.random_range(1..4) {
                    tokens.extend(self.encode(&mut encoder, &grads, false));
                }
                self.done.push(format!("forget {}", tokens.len()));
                drop(encoder);
                for token in tokens.into_iter().rev() {
                    self.optimizer.undo(token).expect("the latest");
                }
                counts.forgotten += 1;
            }
            7 => {
                let to_host = self.chance(2);
                self.done.push(format!("save and load, to the reference too: {to_host}"));
                let checkpoint = self.optimizer.save_blocking().expect("a checkpoint");
                self.count_reports(counts);
                self.optimizer = Optimizer::load(&self.gpu, &self.tensors, &checkpoint).expect("an optimizer");
                let checkpoint = if to_host { checkpoint } else { self.reference.save().expect("a checkpoint") };
                self.reference = Reference::load(&self.tensors, &checkpoint).expect("a reference");
                counts.saved += 1;
            }
            _ => {
                let grads = self.grads();
                let steps = self.rng.random_range(1..4);
                let out_of_place = self.chance(2);
                let given: Vec<_> = grads.iter().map(Option::is_some).collect();
                self.done.push(format!("{steps} steps with {given:?}, out of place: {out_of_place}"));
                let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
                for _ in 0..steps {
                    self.encode(&mut encoder, &grads, out_of_place);
                    self.follow(&grads);
                }
                self.gpu.queue().submit([encoder.finish()]);
            }
        }
    }

    fn count_reports(&mut self, counts: &mut Counts) {
        for report in self.optimizer.reports().expect("the device works") {
            counts.applied += usize::from(report.applied);
            counts.skipped += usize::from(!report.applied);
        }
    }

    /// Parameters, all state, and what is counted.
    fn compare(&mut self) {
        let context = |what: &str, fuzz: &Self| format!("{what} after {:#?}", fuzz.done);
        for (i, tensor) in self.tensors.iter().enumerate() {
            let found = self.arenas[i][0].read_blocking(&tensor.name).expect("a readback");
            same(&self.gpu, &found, &self.values[i], || context(&tensor.name, self));
            for slot in self.optimizer.slots(&tensor.name).expect("a known tensor") {
                let found = self.optimizer.state_blocking(&tensor.name, slot).expect("a readback");
                let expected = self.reference.state(&tensor.name, slot).expect("a known slot");
                // What this slot holds between a step and the next look-ahead, or micro-batch, has no meaning.
                if slot != "before_look_ahead" && slot != "accumulated" {
                    same(&self.gpu, &found, &expected, || context(&format!("{slot} of {}", tensor.name), self));
                }
            }
        }
    }

    fn compare_counts(&mut self) {
        self.optimizer.settle_blocking().expect("the device works");
        for tensor in &self.tensors {
            let (found, expected) = (self.optimizer.t(&tensor.name), self.reference.t(&tensor.name));
            assert_eq!(found, expected, "t of {} after {:#?}", tensor.name, self.done);
            let (found, expected) = (self.optimizer.carried(&tensor.name), self.reference.carried(&tensor.name));
            assert_eq!(found, expected, "carried of {} after {:#?}", tensor.name, self.done);
        }
        assert_eq!(self.optimizer.steps(), self.reference.steps(), "after {:#?}", self.done);
        if self.optimizer.loss_scale_buffer().is_ok() {
            assert_eq!(self.optimizer.loss_scale_blocking().expect("a readback"), self.reference.loss_scale());
        }
    }
}

fn same(gpu: &Gpu, found: &[f32], expected: &ArrayD<f32>, context: impl Fn() -> String) {
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let ulps = twin::ulps(found, expected, expected);
        assert!(ulps <= 1000.0 * twin::bound(gpu), "[{i}] is {found:e}, expected {expected:e}: {}", context());
    }
}

#[test]
fn random_trainings_are_those_of_the_reference() {
    let configs = configs();
    let Some(gpu) = crate::common::gpu("random trainings", configs.len()) else { return };
    let mut counts = Counts::default();
    for (seed, config) in configs.iter().enumerate() {
        let mut fuzz = Fuzz::new(&gpu, config, seed as u64);
        fuzz.done.push(config.to_string());
        for i in 0..MOVES {
            fuzz.act(i, &mut counts);
            if i % 8 == 7 {
                fuzz.compare();
            }
            if i % 24 == 23 {
                fuzz.compare_counts();
            }
        }
        fuzz.compare_counts();
        fuzz.count_reports(&mut counts);
        counts.out_of_place += fuzz.out_of_place;
    }
    println!("{counts:?}");
    let Counts { applied, skipped, forgotten, added, swapped, saved, out_of_place } = counts;
    assert!(
        applied > 300
            && skipped > 100
            && forgotten > 50
            && added > 9
            && swapped > 9
            && saved > 50
            && out_of_place > 100,
        "too little was tried"
    );
}
