//! wgpu-optim for pages: [`Optimizer`] over the page's own `GPUDevice`, `GPUBuffer`s and encoders.
//!
//! Everything that happens between a call and the GPU is wgpu-optim's own code. What stands here takes JavaScript's
//! values in and hands values and errors out.

// While a call waits, others are refused with a text (`Shared::lock`); none panics.
#![expect(clippy::await_holding_refcell_ref)]

mod device;
mod given;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use js_sys::{Array, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wgpu_optim::wgpu::{CommandEncoder, GPUBuffer, GPUCommandEncoder, GPUDevice, Pending};
use wgpu_optim::{Checkpoint, Config, Error, Gpu, Init, NonFinite, Slice, StepReport};

use device::Lease;
use given::{Given, Kind};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.d.ts");

type Result<T, E = JsError> = std::result::Result<T, E>;

/// The encodings of one optimizer whose work is not known to be done, at most.
const IN_FLIGHT_MAX: u32 = 512;

fn thrown(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// An optimizer on the GPU: its state, its counts, and the encoding of its steps. It works on buffers of yours and
/// copies none of them.
///
/// While a promise of `warmUp`, `state`, `lossScale`, `norm` or `save` is pending, other calls throw an `Error`.
#[wasm_bindgen]
pub struct Optimizer(Rc<Shared>);

/// What an optimizer and its encoded steps hold together.
struct Shared {
    /// Nothing once the optimizer is destroyed.
    inner: RefCell<Option<Inner>>,
    in_flight: Rc<Cell<u32>>,
}

struct Inner {
    lease: Lease,
    optimizer: wgpu_optim::Optimizer,
}

impl Shared {
    /// The optimizer, to be used now.
    fn lock(&self) -> Result<RefMut<'_, Inner>> {
        let Ok(inner) = self.inner.try_borrow_mut() else {
            return Err(thrown("the optimizer is busy: await the promise that is pending first"));
        };
        let Ok(inner) = RefMut::filter_map(inner, Option::as_mut) else {
            return Err(thrown("the optimizer was destroyed"));
        };
        inner.lease.check()?;
        Ok(inner)
    }

    fn encode(&self, encoder: &mut CommandEncoder, work: Work) -> Result<wgpu_optim::EncodedStep> {
        if self.in_flight.get() >= IN_FLIGHT_MAX {
            return Err(thrown(format!(
                "{IN_FLIGHT_MAX} steps are on their way: the browser tells of steps that are done only between tasks. \
                 Await settle() every hundred steps or so"
            )));
        }
        let Inner { optimizer, .. } = &mut *self.lock()?;
        let step = match work {
            Work::Step(params, grads) => {
                let params = Given::new(&params, Kind::Param, optimizer.tensors())?;
                let grads = Given::new(&grads, Kind::Grad, optimizer.tensors())?;
                optimizer.encode(encoder, &params.slices(), &grads.slices())
            }
            Work::Early(params) => {
                let params = Given::new(&params, Kind::Param, optimizer.tensors())?;
                optimizer.encode_early(encoder, &params.slices())
            }
            Work::Move(to, params) => {
                let params = Given::new(&params, Kind::Param, optimizer.tensors())?;
                let params = &params.slices();
                match &to[..] {
                    "lookAhead" => optimizer.encode_look_ahead(encoder, params),
                    "eval" => optimizer.encode_eval(encoder, params),
                    "train" => optimizer.encode_train(encoder, params),
                    "swapEma" => optimizer.encode_swap_ema(encoder, params),
                    "emaInto" => optimizer.encode_ema_into(encoder, params),
                    _ => {
                        return Err(thrown(format!(
                            "move is {to:?}, must be lookAhead, eval, train, swapEma or emaInto"
                        )));
                    }
                }
            }
        };
        let step = step.map_err(thrown)?;
        let flight = Flight::new(&self.in_flight);
        encoder.on_submitted_work_done(move || drop(flight));
        Ok(step)
    }

    /// Encodes into an encoder of its own, and submits it.
    fn submit(&self, work: Work) -> Result<()> {
        let gpu = self.lock()?.lease.gpu().clone();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        self.encode(&mut encoder, work)?;
        gpu.queue().submit([encoder.finish()]);
        Ok(())
    }
}

/// What is encoded.
enum Work {
    Step(Array, Array),
    Early(Array),
    Move(String, Array),
}

/// Counts an encoding until it is done or dropped.
struct Flight(Rc<Cell<u32>>);

impl Flight {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.update(|count| count + 1);
        Self(count.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.update(|count| count - 1);
    }
}

#[wasm_bindgen]
impl Optimizer {
    /// An optimizer for these tensors on your device, its state at the start.
    ///
    /// Rejects where an option, a group or the list of tensors is bad, or where the device does not hold the state.
    pub async fn create(
        device: GPUDevice,
        #[wasm_bindgen(unchecked_param_type = "Tensor[]")] tensors: Array,
        #[wasm_bindgen(unchecked_param_type = "Config")] config: Object,
    ) -> Result<Optimizer> {
        let tensors = given::tensors(&tensors)?;
        let config = Config::from_json(&given::json("config", &config)?).map_err(thrown)?;
        Self::build(device, |gpu| wgpu_optim::Optimizer::new(gpu, &tensors, config)).await
    }

    /// An optimizer that goes on where the one that saved these bytes stood. The tensors may come in another order.
    ///
    /// Rejects where the bytes are no whole checkpoint, or one of other tensors.
    pub async fn load(
        device: GPUDevice,
        #[wasm_bindgen(unchecked_param_type = "Tensor[]")] tensors: Array,
        bytes: Uint8Array,
    ) -> Result<Optimizer> {
        let tensors = given::tensors(&tensors)?;
        let checkpoint = Checkpoint::from_bytes(&bytes.to_vec()).map_err(thrown)?;
        Self::build(device, |gpu| wgpu_optim::Optimizer::load(gpu, &tensors, &checkpoint)).await
    }

    async fn build(
        device: GPUDevice,
        make: impl FnOnce(&Gpu) -> wgpu_optim::Result<wgpu_optim::Optimizer>,
    ) -> Result<Self> {
        if !device.is_instance_of::<GPUDevice>() {
            return Err(thrown(format!("device is {}, must be a GPUDevice", given::text(&device))));
        }
        let lease = Lease::new(device);
        lease.check()?;
        let mut optimizer = make(lease.gpu()).map_err(thrown)?;
        optimizer.settle().await.map_err(|error| lease.cause(error))?;
        let inner = RefCell::new(Some(Inner { lease, optimizer }));
        Ok(Self(Rc::new(Shared { inner, in_flight: Rc::default() })))
    }

    /// Encodes one step, which updates every tensor that has a gradient, and submits it.
    ///
    /// Throws where buffers do not fit the tensors or cannot be bound; the state is untouched then.
    pub fn step(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Slice[]")] params: Array,
        #[wasm_bindgen(unchecked_param_type = "(Slice | null)[]")] grads: Array,
    ) -> Result<()> {
        self.0.submit(Work::Step(params, grads))
    }

    /// Encodes one step into your encoder. Tell what became of it by the step's `submitted` or `undo`.
    pub fn encode(
        &self,
        encoder: GPUCommandEncoder,
        #[wasm_bindgen(unchecked_param_type = "Slice[]")] params: Array,
        #[wasm_bindgen(unchecked_param_type = "(Slice | null)[]")] grads: Array,
    ) -> Result<EncodedStep> {
        self.encoded(encoder, Work::Step(params, grads))
    }

    /// Moves the parameters, and submits that: to where the coming step's gradients are to be computed (`lookAhead`,
    /// where `needsLookAhead` is true), to where the model is evaluated and back (`eval`, `train`, where `hasEval` is
    /// true), swapped with their running mean and back (`swapEma`), or copies that mean into them (`emaInto`).
    #[wasm_bindgen(js_name = "move")]
    pub fn move_params(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Move")] to: String,
        #[wasm_bindgen(unchecked_param_type = "(Slice | null)[]")] params: Array,
    ) -> Result<()> {
        self.0.submit(Work::Move(to, params))
    }

    /// Encodes a move of the parameters into your encoder.
    #[wasm_bindgen(js_name = encodeMove)]
    pub fn encode_move(
        &self,
        encoder: GPUCommandEncoder,
        #[wasm_bindgen(unchecked_param_type = "Move")] to: String,
        #[wasm_bindgen(unchecked_param_type = "(Slice | null)[]")] params: Array,
    ) -> Result<EncodedStep> {
        self.encoded(encoder, Work::Move(to, params))
    }

    /// Takes the step of the micro-batches there are before all have come, as where an epoch ends.
    #[wasm_bindgen(js_name = stepEarly)]
    pub fn step_early(&self, #[wasm_bindgen(unchecked_param_type = "Slice[]")] params: Array) -> Result<()> {
        self.0.submit(Work::Early(params))
    }

    /// Leaves out the micro-batches since the last step.
    #[wasm_bindgen(js_name = dropMicroBatches)]
    pub fn drop_micro_batches(&self) -> Result<()> {
        self.0.lock()?.optimizer.drop_micro_batches();
        Ok(())
    }

    fn encoded(&self, encoder: GPUCommandEncoder, work: Work) -> Result<EncodedStep> {
        if !encoder.is_instance_of::<GPUCommandEncoder>() {
            return Err(thrown(format!("encoder is {}, must be a GPUCommandEncoder", given::text(&encoder))));
        }
        let mut encoder = CommandEncoder::of(encoder);
        let step = self.0.encode(&mut encoder, work)?;
        Ok(EncodedStep { shared: self.0.clone(), step, pending: RefCell::new(Some(encoder.into_pending())) })
    }

    /// Makes all that steps with these buffers need, and waits until it is compiled, so that the first step is as fast
    /// as the second. Rejects where the browser refuses the buffers.
    #[wasm_bindgen(js_name = warmUp)]
    pub async fn warm_up(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Slice[]")] params: Array,
        #[wasm_bindgen(unchecked_param_type = "(Slice | null)[]")] grads: Array,
    ) -> Result<()> {
        let Inner { lease, optimizer } = &mut *self.0.lock()?;
        let params = Given::new(&params, Kind::Param, optimizer.tensors())?;
        let grads = Given::new(&grads, Kind::Grad, optimizer.tensors())?;
        lease.check_buffers(&[&params, &grads], optimizer.tensors()).await?;
        optimizer.warm_up(&params.slices(), &grads.slices()).map_err(thrown)?;
        optimizer.settle().await.map_err(|error| lease.cause(error))
    }

    /// Waits until all submitted work is done, so that its reports are there.
    pub async fn settle(&self) -> Result<()> {
        let queue = self.0.lock()?.lease.gpu().queue().clone();
        queue.idle().await.map_err(thrown)?;
        self.0.lock().map(|_| ())
    }

    /// What became of steps, the oldest first: of those whose news has come, each once. The last 1024 are kept.
    #[wasm_bindgen(unchecked_return_type = "StepReport[]")]
    pub fn reports(&self) -> Result<Array> {
        let reports = self.0.lock()?.optimizer.reports().map_err(thrown)?;
        Ok(reports.iter().map(report).collect())
    }

    /// Whether the coming step needs the move `lookAhead` before its gradients are computed.
    #[wasm_bindgen(getter, js_name = needsLookAhead)]
    pub fn needs_look_ahead(&self) -> Result<bool> {
        Ok(self.0.lock()?.optimizer.needs_look_ahead())
    }

    /// Whether the model is to be evaluated elsewhere than its parameters are trained: see `move`.
    #[wasm_bindgen(getter, js_name = hasEval)]
    pub fn has_eval(&self) -> Result<bool> {
        Ok(self.0.lock()?.optimizer.has_eval())
    }

    /// The micro-batches since the last step.
    #[wasm_bindgen(getter, js_name = microBatches)]
    pub fn micro_batches(&self) -> Result<f64> {
        Ok(self.0.lock()?.optimizer.micro_batches() as f64)
    }

    /// Steps that were applied, as far as is known.
    #[wasm_bindgen(getter)]
    pub fn steps(&self) -> Result<f64> {
        Ok(self.0.lock()?.optimizer.steps() as f64)
    }

    /// Applied steps of a tensor.
    pub fn t(&self, tensor: &str) -> Result<f64> {
        Ok(self.0.lock()?.optimizer.t(tensor).map_err(thrown)? as f64)
    }

    /// Sets an option by its name in the configuration, from the next step on.
    pub fn set(&self, option: &str, value: f64) -> Result<()> {
        self.0.lock()?.optimizer.set(option, value).map_err(thrown)
    }

    /// Sets an option of one group, counted as in the configuration's `groups`.
    #[wasm_bindgen(js_name = setGroup)]
    pub fn set_group(&self, group: usize, option: &str, value: f64) -> Result<()> {
        self.0.lock()?.optimizer.set_group(group, option, value).map_err(thrown)
    }

    /// An option in the coming step, its schedule included.
    pub fn value(&self, option: &str) -> Result<f64> {
        self.0.lock()?.optimizer.value(option).map_err(thrown)
    }

    /// Feeds a metric to every schedule that has a plateau.
    pub fn feed(&self, metric: f64) -> Result<()> {
        self.0.lock()?.optimizer.feed(metric).map_err(thrown)
    }

    /// Freezes every tensor that a name or `*` pattern matches: each step treats it as one without a gradient.
    pub fn freeze(&self, pattern: &str) -> Result<()> {
        self.0.lock()?.optimizer.freeze(pattern).map_err(thrown)
    }

    /// Lets frozen tensors take part again.
    pub fn unfreeze(&self, pattern: &str) -> Result<()> {
        self.0.lock()?.optimizer.unfreeze(pattern).map_err(thrown)
    }

    /// Sets whether each step clears the gradients once it has read them. Their buffers need `COPY_DST`.
    #[wasm_bindgen(js_name = clearGrads)]
    pub fn clear_grads(&self, clears: bool) -> Result<()> {
        self.0.lock()?.optimizer.clear_grads(clears);
        Ok(())
    }

    /// The names of a tensor's state slots.
    pub fn slots(&self, tensor: &str) -> Result<Vec<String>> {
        let slots = self.0.lock()?.optimizer.slots(tensor).map_err(thrown)?;
        Ok(slots.into_iter().map(String::from).collect())
    }

    /// The values of a state slot, once all submitted work is done.
    pub async fn state(&self, tensor: String, slot: String) -> Result<Vec<f32>> {
        let Inner { lease, optimizer } = &mut *self.0.lock()?;
        optimizer.state(&tensor, &slot).await.map_err(|error| lease.cause(error))
    }

    /// Sets the values of a state slot.
    #[wasm_bindgen(js_name = setState)]
    pub fn set_state(&self, tensor: &str, slot: &str, values: &[f32]) -> Result<()> {
        self.0.lock()?.optimizer.set_state(tensor, slot, values).map_err(thrown)
    }

    /// The loss scale, once all submitted work is done.
    #[wasm_bindgen(js_name = lossScale)]
    pub async fn loss_scale(&self) -> Result<f64> {
        let Inner { lease, optimizer } = &mut *self.0.lock()?;
        let scale = optimizer.loss_scale().await.map_err(|error| lease.cause(error))?;
        Ok(scale.scale)
    }

    /// The norm of all gradients of the last step, before a clip, once all submitted work is done.
    pub async fn norm(&self) -> Result<f64> {
        let Inner { lease, optimizer } = &mut *self.0.lock()?;
        let norms = optimizer.norms().await.map_err(|error| lease.cause(error))?;
        Ok(norms.all)
    }

    /// The loss scale on the device, one f32, for your backward pass to bind: what it multiplies the loss by.
    #[wasm_bindgen(getter, js_name = lossScaleBuffer, unchecked_return_type = "BoundSlice")]
    pub fn loss_scale_buffer(&self) -> Result<Object> {
        Ok(slice(self.0.lock()?.optimizer.loss_scale_buffer().map_err(thrown)?))
    }

    /// The norms of the last step's gradients on the device, for your kernels to bind: f32, of all, then of each.
    #[wasm_bindgen(getter, js_name = normsBuffer, unchecked_return_type = "BoundSlice")]
    pub fn norms_buffer(&self) -> Result<Object> {
        Ok(slice(self.0.lock()?.optimizer.norms_buffer().map_err(thrown)?))
    }

    /// The options that a kernel of yours writes (`on_device`), f32 in the order of the configuration.
    #[wasm_bindgen(getter, js_name = onDevice, unchecked_return_type = "BoundSlice")]
    pub fn on_device(&self) -> Result<Object> {
        Ok(slice(self.0.lock()?.optimizer.on_device().map_err(thrown)?))
    }

    /// Fills a parameter with initial values on the GPU, the same on every device: `"zeros"`, `{he_normal: {}}` and the
    /// like, as in the configuration of initialisers.
    pub fn init(
        &self,
        tensor: &str,
        #[wasm_bindgen(unchecked_param_type = "Slice")] param: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string | object")] init: JsValue,
        seed: f64,
    ) -> Result<()> {
        let Inner { lease, optimizer } = &*self.0.lock()?;
        let init = Init::from_json(&given::json("init", &init)?).map_err(thrown)?;
        let Some(spec) = optimizer.tensors().iter().find(|spec| spec.name == tensor) else {
            let known = optimizer.tensors().iter().map(|spec| &spec.name[..]).collect::<Vec<_>>().join(", ");
            return Err(thrown(Error::UnknownTensor { tensor: tensor.into(), known }));
        };
        if seed.fract() != 0.0 || !(0.0..=9_007_199_254_740_991.0).contains(&seed) {
            return Err(thrown(format!("seed is {seed}, must be a whole number from 0 to 2^53 - 1")));
        }
        let given = Given::new(&Array::of1(&param), Kind::Param, std::slice::from_ref(spec))?;
        let slice = given.slices()[0].ok_or_else(|| thrown(format!("parameter {tensor} is missing")))?;
        lease.gpu().init(spec, slice, &init, seed as u64).map_err(thrown)
    }

    /// All that the training is, as the bytes of a safetensors file, once all submitted work is done. The parameters
    /// are yours to save.
    pub async fn save(&self) -> Result<Uint8Array> {
        let Inner { lease, optimizer } = &mut *self.0.lock()?;
        let checkpoint = optimizer.save().await.map_err(|error| lease.cause(error))?;
        Ok(Uint8Array::from(&checkpoint.to_bytes().map_err(thrown)?[..]))
    }

    /// Bytes of the device's memory that it holds now.
    #[wasm_bindgen(getter, js_name = memoryBytes)]
    pub fn memory_bytes(&self) -> Result<f64> {
        Ok(self.0.lock()?.optimizer.memory().total() as f64)
    }

    /// Destroys its buffers. Every later call throws. Your device and buffers stay as they are.
    pub fn destroy(&self) -> Result<()> {
        match self.0.inner.try_borrow_mut() {
            Ok(mut inner) => *inner = None,
            Err(_) => return Err(thrown("the optimizer is busy: await the promise that is pending first")),
        }
        Ok(())
    }

    /// The names of all optimizers.
    pub fn rules() -> Vec<String> {
        wgpu_optim::rules::ALL.iter().map(|entry| entry.name.to_string()).collect()
    }

    /// The options of an optimizer that `set` changes, each with the value that it has where nothing is said.
    #[wasm_bindgen(unchecked_return_type = "Record<string, number>")]
    pub fn options(rule: &str) -> Result<Object> {
        let config = Config::from_value([("optimizer", rule)].into_iter().collect()).map_err(thrown)?;
        let rule = config.rule();
        let numbers = rule.options().iter().filter_map(|&name| Some((name, rule.number(name)?.into())));
        Ok(object(&numbers.collect::<Vec<_>>()))
    }
}

/// A step or a move in an encoder of yours.
#[wasm_bindgen]
pub struct EncodedStep {
    shared: Rc<Shared>,
    step: wgpu_optim::EncodedStep,
    pending: RefCell<Option<Pending>>,
}

#[wasm_bindgen]
impl EncodedStep {
    /// To be called after the submit of the encoder's commands, in the order of the submits.
    pub fn submitted(&self) -> Result<()> {
        let inner = self.shared.lock()?;
        let Some(pending) = self.pending.take() else {
            return Err(thrown("the encoded step was told of already: it is submitted, or taken back"));
        };
        inner.lease.gpu().queue().follow(pending);
        Ok(())
    }

    /// Takes the step back, where its encoder was dropped. The latest one goes first.
    pub fn undo(&self) -> Result<()> {
        let mut inner = self.shared.lock()?;
        // What was submitted is not taken back, and says so.
        drop(self.pending.take());
        inner.optimizer.undo(self.step).map_err(thrown)
    }
}

fn slice(slice: Slice) -> Object {
    let buffer: &GPUBuffer = slice.buffer.js();
    object(&[("buffer", buffer.into()), ("offset", (slice.offset as f64).into()), ("size", (slice.size as f64).into())])
}

fn report(report: &StepReport) -> Object {
    let culprit = report.culprit.as_ref().map_or(JsValue::NULL, |(tensor, kind)| {
        let kind = match kind {
            NonFinite::NaN => "nan",
            NonFinite::Infinite => "infinite",
            NonFinite::TooLarge => "tooLarge",
        };
        object(&[("tensor", tensor[..].into()), ("kind", kind.into())]).into()
    });
    object(&[
        ("step", (report.step as f64).into()),
        ("applied", report.applied.into()),
        ("withoutGradient", report.without_gradient.iter().map(JsValue::from).collect::<Array>().into()),
        ("norm", report.norm.map_or(JsValue::NULL, JsValue::from)),
        ("scale", report.scale.into()),
        ("culprit", culprit),
    ])
}

/// An object with these properties.
fn object(properties: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    for (name, value) in properties {
        // Setting a property of a plain object throws nothing.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object
}
