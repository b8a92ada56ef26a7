//! Trainings on the device that are saved and loaded: each must go on with the bits, and end in the state, of one that
//! was not stopped.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wgpu_optim::{Arena, Checkpoint, Config, Gpu, Optimizer, Reference, Result, TensorSpec};

/// An optimizer and what it trains. Gradients follow from the count of steps alone.
pub struct Run {
    pub gpu: Gpu,
    pub optimizer: Optimizer,
    pub params: Arena,
    pub grads: Arena,
    pub taken: u64,
}

impl Run {
    pub fn new(gpu: &Gpu, config: impl Into<Config>, tensors: &[TensorSpec]) -> Self {
        let optimizer = Optimizer::new(gpu, tensors, config).expect("an optimizer");
        let mut run = Self::of(gpu, optimizer, tensors);
        for tensor in tensors {
            run.params.write(&tensor.name, &noise(tensor, 0)).unwrap();
        }
        run.taken = 1;
        run
    }

    pub fn of(gpu: &Gpu, optimizer: Optimizer, tensors: &[TensorSpec]) -> Self {
        let params = Arena::new(gpu, tensors).unwrap();
        let grads = Arena::new(gpu, &tensors.iter().map(TensorSpec::grad_spec).collect::<Vec<_>>()).unwrap();
        Self { gpu: gpu.clone(), optimizer, params, grads, taken: 0 }
    }

    /// Writes the gradients of the coming step.
    pub fn fill(&mut self, factor: f32) {
        for tensor in self.grads.tensors() {
            let values: Vec<f32> = noise(tensor, self.taken).into_iter().map(|value| factor * value).collect();
            self.grads.write(&tensor.name, &values).unwrap();
        }
        self.taken += 1;
    }

    pub fn step_without(&mut self, absent: &[&str]) {
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&self.params).unwrap();
        }
        self.fill(1.0);
        self.optimizer.step(&self.params, &self.grads.without(absent).unwrap()).unwrap();
    }

    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step_without(&[]));
    }

    /// A step that is skipped.
    pub fn bad_step(&mut self) {
        self.fill(f32::INFINITY);
        self.optimizer.step(&self.params, &self.grads).unwrap();
    }

    /// New tensors, in arenas of all tensors.
    pub fn grow(&mut self, tensors: &[TensorSpec], join: impl FnOnce(&mut Optimizer, &[TensorSpec]) -> Result<()>) {
        let all = [self.params.tensors(), tensors].concat();
        join(&mut self.optimizer, tensors).unwrap();
        let params = Arena::new(&self.gpu, &all).unwrap();
        for tensor in self.params.tensors() {
            params.write(&tensor.name, &self.params.read_blocking(&tensor.name).unwrap()).unwrap();
        }
        tensors.iter().for_each(|tensor| params.write(&tensor.name, &noise(tensor, 0)).unwrap());
        (self.params, self.grads) = (params, Arena::new(&self.gpu, &all).unwrap());
    }

    /// All that the training is.
    pub fn state(&mut self) -> Vec<u8> {
        let mut checkpoint = self.optimizer.save_blocking().expect("a checkpoint");
        for tensor in self.params.tensors() {
            checkpoint.put_param(&tensor.name, &self.params.read_blocking(&tensor.name).unwrap()).unwrap();
        }
        checkpoint.to_bytes().unwrap()
    }
}

pub fn noise(tensor: &TensorSpec, seed: u64) -> Vec<f32> {
    let of_name = tensor.name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(131).wrapping_add(byte.into()));
    let mut rng = StdRng::seed_from_u64(of_name);
    let value = |_| rng.random_range(-1.0..1.0f32);
    (0..tensor.len_elements()).map(value).map(|value| tensor.dtype.round(value.into()) as f32).collect()
}

pub fn list() -> Vec<TensorSpec> {
    vec![
        TensorSpec::f32("w", [5, 7]),
        TensorSpec::f32("b", [3]),
        TensorSpec::f32("none", [0]),
        TensorSpec::f32("long", [1030]),
    ]
}

/// Trains with `before`, then on with `after`; saved and loaded between the two in each of three ways, it ends in the
/// same state.
pub fn resumed(
    gpu: &Gpu,
    what: &str,
    config: impl Into<Config>,
    tensors: &[TensorSpec],
    before: impl FnOnce(&mut Run),
    after: impl Fn(&mut Run),
) {
    resumed_with(gpu, what, config, tensors, before, after, |checkpoint| checkpoint);
}

pub fn resumed_with(
    gpu: &Gpu,
    what: &str,
    config: impl Into<Config>,
    tensors: &[TensorSpec],
    before: impl FnOnce(&mut Run),
    after: impl Fn(&mut Run),
    given: impl Fn(Checkpoint) -> Checkpoint,
) {
    let mut first = Run::new(gpu, config, tensors);
    before(&mut first);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    first.optimizer.save_to_blocking(&path, &first.params, |_, _| ()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let list = first.params.tensors().to_vec();
    let mut others = Vec::new();
    let load = || given(Checkpoint::load_from(&path).unwrap());
    for by_reference in [false, true] {
        let mut checkpoint = load();
        let params = list.iter().map(|tensor| (tensor.name.clone(), checkpoint.param(&tensor.name).unwrap()));
        let params: Vec<_> = params.collect();
        if by_reference {
            let reference = Reference::<f32>::load(&list, &checkpoint).unwrap_or_else(|e| panic!("{what}: {e}"));
            checkpoint = given(reference.save().unwrap());
            params.iter().for_each(|(name, values)| checkpoint.put_param(name, values).unwrap());
        }
        let optimizer = Optimizer::load(gpu, &list, &checkpoint).unwrap_or_else(|error| panic!("{what}: {error}"));
        let run = Run::of(gpu, optimizer, &list);
        run.optimizer.load_params(&checkpoint, &run.params).unwrap();
        others.push(Run { taken: first.taken, ..run });
    }
    // Loaded, saved and loaded again.
    let again = given(Checkpoint::from_bytes(&others[0].state()).unwrap());
    let run = Run::of(gpu, Optimizer::load(gpu, &list, &again).unwrap(), &list);
    run.optimizer.load_params(&again, &run.params).unwrap();
    others.push(Run { taken: first.taken, ..run });

    after(&mut first);
    let expected = first.state();
    for (way, mut other) in ["by a file", "by the reference", "twice"].into_iter().zip(others) {
        after(&mut other);
        if other.state() != expected {
            let parsed = |bytes: &[u8]| {
                let (_, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
                header.metadata().as_ref().unwrap()["training"].clone()
            };
            panic!("{what}, {way}:\n{}\n{}", parsed(&other.state()), parsed(&expected));
        }
    }
}
