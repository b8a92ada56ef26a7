//! A checkpoint: all that a training is between two calls, so that another one goes on with the same bits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Clocks, Order};
use crate::error::{Error, Result};
use crate::groups::{Bits, Given, Groups, Records, SavedGroups, SavedRecords};
use crate::parts::Real;
use crate::report::LossScaleState;
use crate::rule::{Move, Rule, RuleEntry};
use crate::schedule::Schedule;
use crate::session::{Counts, Session};
use crate::storage::GROUP;
use crate::tensor::TensorSpec;
use crate::wrappers::{Ema, LossScale, Moving};

mod bytes;
#[cfg(not(target_arch = "wasm32"))]
mod file;

/// The version of the format that this crate writes, and the latest that it reads.
const VERSION: u32 = 1;

/// All that a training is between two calls: the rule, every option of this moment, groups and frozen tensors, every
/// state slot, counts, plateaus, the loss scale, micro-batches that wait for their step, and where the parameters
/// stand. `Optimizer` and [`Reference`](crate::Reference) save a checkpoint, and each loads what the other saved.
///
/// Parameters belong to the caller. [`put_param`](Self::put_param) lays them beside the rest.
///
/// ```
/// use ndarray::arr1;
/// use wgpu_optim::{Adam, Config, Reference, TensorSpec};
///
/// let tensors = [TensorSpec::f32("w", [2])];
/// let mut first = Reference::<f32>::new(&Config::from(Adam::default()), &tensors)?;
/// let mut params = [arr1(&[1.0, -2.0]).into_dyn()];
/// let grads = [Some(arr1(&[0.5, 0.25]).into_dyn())];
/// first.step(&mut params, &grads)?;
///
/// let mut second = Reference::<f32>::load(&tensors, &first.save()?)?;
/// let mut copy = params.clone();
/// first.step(&mut params, &grads)?;
/// second.step(&mut copy, &grads)?;
/// assert_eq!(params, copy);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(crate) head: Head,
    /// By their names in a file.
    values: BTreeMap<String, Entry>,
    given: Given,
}

/// What is not the values of tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    version: u32,
    crate_version: String,
    groups: SavedGroups,
    tensors: Vec<SavedTensor>,
    steps: u64,
    /// Steps that were taken, the skipped ones included.
    pub(crate) attempts: u64,
    micro_batches: u64,
    scale: Bits,
    good: u32,
    /// The numbers of the options that the device writes.
    pub(crate) on_device: Vec<Bits>,
    looked: bool,
    moved: Option<(Stand, SavedRecords)>,
}

/// Where the parameters stand, if not where they are trained.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stand {
    Evaluation,
    Swapped,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTensor {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    group: usize,
    frozen: bool,
    t: u64,
    carried: [Bits; 2],
    started: bool,
    averaged_from: Option<u64>,
    /// Whether the tensor has had a gradient in one of the micro-batches.
    begun: bool,
    /// Whether the tensor was in the look-ahead whose step has not come yet.
    looked: bool,
}

impl SavedTensor {
    /// How many elements the tensor has; none where no memory could hold them.
    fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
    }
}

/// A parameter or a slot.
#[derive(Clone, Debug)]
struct Entry {
    shape: Vec<usize>,
    values: Values,
}

/// Values of a tensor, in the precision that they were saved from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Values {
    /// Takes over values in the precision that they have.
    pub(crate) fn of<F: Real>(values: impl Iterator<Item = F>) -> Self {
        match size_of::<F>() {
            4 => Self::F32(values.map(|value| value.f64() as f32).collect()),
            _ => Self::F64(values.map(Real::f64).collect()),
        }
    }

    /// The values, if `F` is the number type that they were saved from.
    pub(crate) fn get<F: Real>(&self) -> Option<Vec<F>> {
        match self {
            Self::F32(values) => (size_of::<F>() == 4).then(|| values.iter().map(|&v| F::of(f64::from(v))).collect()),
            Self::F64(values) => (size_of::<F>() == 8).then(|| values.iter().map(|&value| F::of(value)).collect()),
        }
    }

    fn numbers(&self) -> Box<dyn Iterator<Item = f64> + '_> {
        match self {
            Self::F32(values) => Box::new(values.iter().map(|&value| f64::from(value))),
            Self::F64(values) => Box::new(values.iter().copied()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F64(values) => bytemuck::cast_slice(values),
        }
    }

    /// The values that these bytes hold; none where they are no whole number of values, or of another format.
    fn parse(dtype: &str, bytes: &[u8]) -> Option<Self> {
        match dtype {
            "F32" if bytes.len().is_multiple_of(4) => Some(Self::F32(bytemuck::pod_collect_to_vec(bytes))),
            "F64" if bytes.len().is_multiple_of(8) => Some(Self::F64(bytemuck::pod_collect_to_vec(bytes))),
            _ => None,
        }
    }
}

/// What a training is beside its session and the values of tensors.
pub(crate) struct Around {
    pub(crate) attempts: u64,
    pub(crate) scale: LossScaleState,
    pub(crate) on_device: Vec<f64>,
}

impl Checkpoint {
    /// Hands over a rule from outside the crate. The checkpoint holds its [`NAME`](Rule::NAME) and its options.
    #[must_use]
    pub fn rule<R: Rule>(mut self) -> Self {
        self.given.rules.push(RuleEntry::of::<R>());
        self
    }

    /// Hands over the closure that was given this name with [`Schedule::named`].
    #[must_use]
    pub fn schedule(mut self, name: &str, factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        self.given.schedules.push((name.into(), Schedule::named(name, factor)));
        self
    }

    /// Lays a parameter's values beside the rest.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], or [`Error::Shape`] for another number of values.
    pub fn put_param(&mut self, tensor: &str, values: &[f32]) -> Result<()> {
        let Some(saved) = self.head.tensors.iter().find(|saved| saved.name == tensor) else {
            let known = self.head.tensors.iter().map(|saved| &saved.name[..]).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownTensor { tensor: tensor.into(), known });
        };
        crate::session::check_len("parameter", tensor, values.len(), saved.len().unwrap_or(usize::MAX))?;
        let entry = Entry { shape: saved.shape.clone(), values: Values::F32(values.to_vec()) };
        self.values.insert(param_name(tensor), entry);
        Ok(())
    }

    /// The values that [`put_param`](Self::put_param) laid there.
    pub fn param(&self, tensor: &str) -> Option<&[f32]> {
        match self.values.get(&param_name(tensor)) {
            Some(Entry { values: Values::F32(values), .. }) => Some(values),
            _ => None,
        }
    }

    /// The rule's name.
    pub fn optimizer(&self) -> &str {
        &self.head.groups.optimizer
    }

    /// The version of this crate that made the checkpoint.
    pub fn crate_version(&self) -> &str {
        &self.head.crate_version
    }

    /// Makes a checkpoint of a training, which does not have its slots yet.
    pub(crate) fn of<C: Counts>(
        session: &Session<C>,
        around: Around,
        records: impl Fn(&C::Numbers) -> Result<Records>,
    ) -> Result<Self> {
        let Session { tensors, groups, order, counts, batch, begun } = session;
        let looked = order.looked();
        let save = |(i, tensor): (usize, &TensorSpec)| {
            let Clock { group: _, t, carried, started, averaged_from } = *counts.hoped().clock(i);
            SavedTensor {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                dtype: tensor.dtype.name().into(),
                group: groups.of()[i],
                frozen: groups.is_frozen(i),
                t,
                carried: carried.map(Bits),
                started,
                averaged_from,
                begun: begun[i],
                looked: looked.is_some_and(|looked| looked[i]),
            }
        };
        let moved = order.evaluating().map(|(moving, numbers)| {
            let stand = match moving {
                Moving::Rule(_) => Stand::Evaluation,
                Moving::Wrapper(..) => Stand::Swapped,
            };
            Ok((stand, records(numbers)?.save()))
        });
        let head = Head {
            version: VERSION,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            groups: groups.save()?,
            tensors: tensors.iter().enumerate().map(save).collect(),
            steps: counts.hoped().steps,
            attempts: around.attempts,
            micro_batches: *batch,
            scale: Bits(around.scale.scale),
            good: around.scale.good,
            on_device: around.on_device.into_iter().map(Bits).collect(),
            looked: looked.is_some(),
            moved: moved.transpose()?,
        };
        Ok(Self { head, values: BTreeMap::new(), given: Given::default() })
    }

    /// Puts the values of a state slot.
    pub(crate) fn put_state(&mut self, tensor: &str, slot: &str, shape: Vec<usize>, values: Values) {
        self.values.insert(state_name(tensor, slot), Entry { shape, values });
    }

    /// Puts the steps of a slot's groups, in the precision of the slot. A slot without groups has none.
    pub(crate) fn put_steps<F: Real>(&mut self, tensor: &str, slot: &str, steps: &[u32]) {
        if !steps.is_empty() {
            let numbers = steps.iter().map(|&step| F::of(f64::from(f32::from_bits(step << 16))));
            let entry = Entry { shape: vec![steps.len()], values: Values::of(numbers) };
            self.values.insert(steps_name(tensor, slot), entry);
        }
    }

    /// The steps of a slot's groups, which [`session`](Self::session) has checked.
    pub(crate) fn steps(&self, tensor: &str, slot: &str) -> Option<Vec<u32>> {
        let entry = self.values.get(&steps_name(tensor, slot))?;
        Some(entry.values.numbers().map(|step| (step as f32).to_bits() >> 16).collect())
    }

    /// The values of a state slot, which [`session`](Self::session) has checked.
    pub(crate) fn state<F: Real>(&self, tensor: &str, slot: &str) -> Vec<F> {
        self.values.get(&state_name(tensor, slot)).and_then(|entry| entry.values.get()).expect("all slots are checked")
    }

    /// The loss scale.
    pub(crate) fn scale(&self) -> LossScaleState {
        LossScaleState { scale: self.head.scale.0, good: self.head.good }
    }

    /// Makes the training of these tensors again, whose slots are numbers of type `F`. Everything in the checkpoint is
    /// checked.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], naming what does not fit; those of options.
    pub(crate) fn session<F: Real, C: Counts>(
        &self,
        tensors: &[TensorSpec],
        counts: impl FnOnce(Clocks, &Groups) -> C,
        numbers: impl Fn(Records) -> C::Numbers,
    ) -> Result<Session<C>> {
        let head = &self.head;
        if head.version > VERSION {
            return Err(wrong("version", format!("is {}, must be at most {VERSION}", head.version)));
        }
        TensorSpec::check_names(tensors)?;
        let places = self.places(tensors)?;
        let saved = || places.iter().map(|&place| &head.tensors[place]);
        let of: Vec<usize> = saved().map(|saved| saved.group).collect();
        let frozen = saved().map(|saved| saved.frozen).collect();
        let groups = Groups::load(&head.groups, &self.given, tensors, of, frozen)?;
        self.check_values::<F>(tensors, &groups)?;
        self.check_numbers(&groups)?;
        let clock = |saved: &SavedTensor| Clock {
            group: saved.group,
            t: saved.t,
            carried: saved.carried.map(|bits| bits.0),
            started: saved.started,
            averaged_from: saved.averaged_from,
        };
        let clocks = Clocks::of_each(saved().map(clock).collect(), head.steps);
        let load = |(stand, records): &(Stand, SavedRecords)| {
            let (moving, is_there) = match stand {
                Stand::Evaluation => (Moving::Rule(Move::Evaluation), groups.have_move(Move::Evaluation)),
                Stand::Swapped => (Moving::Wrapper("ema", Ema::SWAP), groups.wrappers().ema().is_some()),
            };
            match is_there {
                true => Ok((moving, numbers(Records::load(records, &groups, &places)?))),
                false => Err(wrong("moved", "no rule or wrapper makes this move")),
            }
        };
        let order = Order::resumed(
            head.looked.then(|| saved().map(|saved| saved.looked).collect()),
            head.moved.as_ref().map(load).transpose()?,
        );
        let begun = saved().map(|saved| saved.begun).collect();
        let counts = counts(clocks, &groups);
        Ok(Session { tensors: tensors.to_vec(), groups, order, counts, batch: head.micro_batches, begun })
    }

    /// Where each tensor stands in the checkpoint.
    fn places(&self, tensors: &[TensorSpec]) -> Result<Vec<usize>> {
        let find = |tensor: &TensorSpec| {
            let what = || format!("tensor {}", tensor.name);
            let Some(place) = self.head.tensors.iter().position(|saved| saved.name == tensor.name) else {
                return Err(wrong(what(), "is missing"));
            };
            let saved = &self.head.tensors[place];
            if saved.shape != tensor.shape {
                return Err(wrong(what(), format!("has shape {:?}, expected {:?}", saved.shape, tensor.shape)));
            }
            if saved.dtype != tensor.dtype.name() {
                return Err(wrong(what(), format!("is {}, expected {}", saved.dtype, tensor.dtype)));
            }
            Ok(place)
        };
        let places = tensors.iter().map(find).collect::<Result<Vec<_>>>()?;
        match (0..self.head.tensors.len()).find(|place| !places.contains(place)) {
            Some(extra) => Err(wrong(format!("tensor {}", self.head.tensors[extra].name), "is not among those given")),
            None => Ok(places),
        }
    }

    /// Refuses slots that are missing, have another length or number type, or belong to no tensor.
    fn check_values<F: Real>(&self, tensors: &[TensorSpec], groups: &Groups) -> Result<()> {
        let expected = if size_of::<F>() == 4 { "f32" } else { "f64" };
        let mut count = 0;
        for (i, tensor) in tensors.iter().enumerate() {
            for slot in groups.slots_of(i) {
                let name = state_name(&tensor.name, slot.name);
                let Some(Entry { shape, values }) = self.values.get(&name) else {
                    return Err(wrong(name, "is missing"));
                };
                if values.dtype() != expected {
                    return Err(wrong(name, format!("is {}, expected {expected}", values.dtype())));
                }
                let expected = slot.extent.shape(&tensor.shape);
                if *shape != expected {
                    return Err(wrong(name, format!("has shape {shape:?}, expected {expected:?}")));
                }
                count += 1;
                count += self.check_coded(i, tensor, slot.name, groups)?;
            }
            let param = param_name(&tensor.name);
            if let Some(Entry { shape, values }) = self.values.get(&param) {
                // Whatever the format, a parameter's values are laid there as f32, which holds them all.
                if *shape != tensor.shape || values.dtype() != "f32" {
                    let message = format!("is {} {shape:?}, expected f32 {:?}", values.dtype(), tensor.shape);
                    return Err(wrong(param, message));
                }
                count += 1;
            }
        }
        if count == self.values.len() {
            return Ok(());
        }
        let known = |name: &str| {
            let of = |(i, tensor): (usize, &TensorSpec)| {
                let slots = || groups.slots_of(i).into_iter();
                let steps = slots().map(|slot| steps_name(&tensor.name, slot.name));
                slots()
                    .map(|slot| state_name(&tensor.name, slot.name))
                    .chain(steps)
                    .chain([param_name(&tensor.name)])
                    .any(|known| known == name)
            };
            tensors.iter().enumerate().any(of)
        };
        match self.values.keys().find(|name| !known(name)) {
            Some(extra) => Err(wrong(extra, "is no slot of these tensors")),
            None => Ok(()),
        }
    }

    /// Refuses values of a slot that its format does not hold, and steps of groups that are none. Returns how many
    /// entries belong to them.
    fn check_coded(&self, i: usize, tensor: &TensorSpec, slot: &str, groups: &Groups) -> Result<usize> {
        let layout = groups.wrappers_of(i).layout(groups.rule_of(i));
        let Some(section) = layout.find(slot).map(|place| &layout.sections[place]) else { return Ok(0) };
        let values = &self.values[&state_name(&tensor.name, slot)].values;
        let entry = self.values.get(&steps_name(&tensor.name, slot));
        let Some(codes) = section.codes() else {
            let mut numbers = values.numbers().enumerate();
            return match numbers.find(|&(_, value)| section.storage.round_one(value) != value && !value.is_nan()) {
                Some((at, value)) => {
                    let message = format!("holds {value} at {at}, which is no number of {}", section.storage);
                    Err(wrong(state_name(&tensor.name, slot), message))
                }
                None => Ok(0),
            };
        };
        let name = steps_name(&tensor.name, slot);
        let count = values.len().div_ceil(GROUP);
        let Some(entry) = entry else {
            return if count == 0 { Ok(0) } else { Err(wrong(name, "is missing")) };
        };
        if entry.values.len() != count {
            return Err(wrong(name, format!("has {} steps, expected {count}", entry.values.len())));
        }
        for (group, step) in entry.values.numbers().enumerate() {
            if !(step.is_finite()
                && step >= 0.0
                && f64::from(f32::from_bits((step as f32).to_bits() & 0xffff_0000)) == step)
            {
                return Err(wrong(
                    name,
                    format!("is {step} for group {group}, must be a finite number of bf16, at least 0"),
                ));
            }
            let step = (step as f32).to_bits() >> 16;
            for (at, value) in values.numbers().enumerate().skip(group * GROUP).take(GROUP) {
                if f64::from(codes.decode(codes.nearest(value as f32, step), step)) != value {
                    let message = format!("holds {value} at {at}, which is no number of {} here", section.storage);
                    return Err(wrong(state_name(&tensor.name, slot), message));
                }
            }
        }
        Ok(1)
    }

    /// Refuses counts and numbers that no training has.
    fn check_numbers(&self, groups: &Groups) -> Result<()> {
        let head = &self.head;
        for saved in &head.tensors {
            if let Some(value) = saved.carried.iter().find(|bits| !bits.0.is_finite() || bits.0 < 0.0) {
                let what = format!("carried of tensor {}", saved.name);
                return Err(wrong(what, format!("is {}, must be at least 0 and finite", value.0)));
            }
        }
        let batches = groups.wrappers().batches();
        if head.micro_batches >= batches.max(1) {
            let message = format!("is {}, must be below accumulate, {batches}", head.micro_batches);
            return Err(wrong("micro_batches", message));
        }
        if let Some(options) = groups.wrappers().loss_scale() {
            LossScale::check_scale("scale", head.scale.0)?;
            if u64::from(head.good) >= options.interval {
                let message = format!("is {}, must be below loss_scale.interval, {}", head.good, options.interval);
                return Err(wrong("good", message));
            }
        }
        if head.looked && !groups.have_move(Move::LookAhead) {
            return Err(wrong("looked", "no rule looks ahead"));
        }
        Ok(())
    }
}

fn param_name(tensor: &str) -> String {
    format!("param.{tensor}")
}

fn state_name(tensor: &str, slot: &str) -> String {
    format!("state.{tensor}.{slot}")
}

fn steps_name(tensor: &str, slot: &str) -> String {
    format!("steps.{tensor}.{slot}")
}

fn wrong(what: impl Into<String>, message: impl ToString) -> Error {
    Error::Checkpoint { what: what.into(), message: message.to_string() }
}
