//! A checkpoint: all that a training is between two calls, so that another one goes on with the same bits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Clocks, Order};
use crate::error::{Error, Result};
use crate::groups::{Bits, Given, Groups, Records, SavedGroups, SavedRecords};
use crate::parts::Real;
use crate::report::LossScaleState;
use crate::rule::{Extent, Move, Rule, RuleEntry};
use crate::schedule::Schedule;
use crate::session::{Counts, Session};
use crate::storage::{GROUP, Storage};
use crate::tensor::TensorSpec;
use crate::wrappers::{Ema, LossScale, Moving};

mod bytes;
#[cfg(not(target_arch = "wasm32"))]
mod file;
mod values;

#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
pub(crate) use bytes::Line;
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
pub(crate) use file::Saving;
#[cfg(feature = "gpu")]
use values::Reader;
pub(crate) use values::Values;
use values::{Entry, Number};

/// The version of the format that this crate writes, and the latest that it reads. In version 1 each tensor had what is
/// the whole model's.
const VERSION: u32 = 2;

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
    on_device: Vec<Bits>,
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

/// A slot as a checkpoint holds it.
pub(crate) struct Held {
    /// Its name in a file.
    pub(crate) name: String,
    /// A tensor that has the slot.
    pub(crate) tensor: usize,
    pub(crate) slot: &'static str,
    pub(crate) shape: Vec<usize>,
    /// Whether these are the steps of the slot's groups. They come right behind the slot.
    pub(crate) is_steps: bool,
}

/// What a training is beside its session and the values of tensors.
pub(crate) struct Beside {
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

    /// The values that [`put_param`](Self::put_param) laid there, or that a file holds.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the checkpoint holds none, or its file has changed since it was loaded.
    pub fn param(&self, tensor: &str) -> Result<Vec<f32>> {
        match self.values.get(&param_name(tensor)) {
            Some(Entry { values, .. }) => values.all(),
            None => Err(wrong(param_name(tensor), "is missing")),
        }
    }

    /// The rule's name.
    pub fn optimizer(&self) -> &str {
        &self.head.groups.optimizer
    }

    /// The number of steps that were taken, those that were skipped included: how far the training is in its data.
    pub fn attempts(&self) -> u64 {
        self.head.attempts
    }

    /// The version of this crate that made the checkpoint.
    pub fn crate_version(&self) -> &str {
        &self.head.crate_version
    }

    /// Makes a checkpoint of a training, which does not have its slots yet.
    pub(crate) fn of<C: Counts>(
        session: &Session<C>,
        beside: Beside,
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
            attempts: beside.attempts,
            micro_batches: *batch,
            scale: Bits(beside.scale.scale),
            good: beside.scale.good,
            on_device: beside.on_device.into_iter().map(Bits).collect(),
            looked: looked.is_some(),
            moved: moved.transpose()?,
        };
        Ok(Self { head, values: BTreeMap::new(), given: Given::default() })
    }

    /// The slots of a training, as this checkpoint holds them: what is the whole model's is there once.
    pub(crate) fn slots(&self, tensors: &[TensorSpec], groups: &Groups) -> Vec<Held> {
        let (mut slots, mut of_model) = (Vec::new(), BTreeSet::new());
        for (tensor, spec) in tensors.iter().enumerate() {
            for slot in groups.slots_of(tensor) {
                let shape = slot.extent.shape(&spec.shape);
                let name = match slot.extent {
                    Extent::Model | Extent::Products(_) if self.head.version > 1 => {
                        if !of_model.insert(slot.name) {
                            continue;
                        }
                        format!("optimizer.{}", slot.name)
                    }
                    _ => format!("state.{}.{}", spec.name, slot.name),
                };
                slots.push(Held { name, tensor, slot: slot.name, shape, is_steps: false });
                let layout = groups.wrappers_of(tensor).layout(groups.rule_of(tensor));
                let section = layout.find(slot.name).map(|place| &layout.sections[place]);
                let count = (spec.len_elements() as usize).div_ceil(GROUP);
                if section.is_some_and(|section| section.codes().is_some()) && count > 0 {
                    let name = format!("steps.{}.{}", spec.name, slot.name);
                    slots.push(Held { name, tensor, slot: slot.name, shape: vec![count], is_steps: true });
                }
            }
        }
        slots
    }

    /// Puts the values of a state slot.
    pub(crate) fn put_state(&mut self, held: Held, values: Values) {
        self.values.insert(held.name, Entry { shape: held.shape, values });
    }

    /// The values of a state slot, which [`session`](Self::session) has checked.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where they lie in a file that has changed since it was loaded.
    pub(crate) fn state<F: Real>(&self, held: &Held) -> Result<Vec<F>> {
        self.entry(held).values.all()
    }

    /// Takes the values of a state slot in parts.
    #[cfg(feature = "gpu")]
    pub(crate) fn reader(&self, held: &Held) -> Reader<'_> {
        self.entry(held).values.reader()
    }

    fn entry(&self, held: &Held) -> &Entry {
        self.values.get(&held.name).expect("all slots are checked")
    }

    /// Takes the values of a parameter in parts, as f32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or is no parameter in f32 of this shape.
    #[cfg(feature = "gpu")]
    pub(crate) fn param_reader(&self, tensor: &TensorSpec) -> Result<Reader<'_>> {
        let name = param_name(&tensor.name);
        let Some(Entry { shape, values }) = self.values.get(&name) else { return Err(wrong(name, "is missing")) };
        check_param(name, shape, values, tensor)?;
        Ok(values.reader())
    }

    /// The numbers of the options that the device writes, in the order of the configuration.
    pub(crate) fn on_device(&self) -> Vec<f64> {
        self.head.on_device.iter().map(|bits| bits.0).collect()
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
        let number = Number::of::<F>();
        let slots = self.slots(tensors, groups);
        for Held { name, shape: expected, .. } in &slots {
            let Some(Entry { shape, values }) = self.values.get(name) else { return Err(wrong(name, "is missing")) };
            if values.number() != number {
                return Err(wrong(name, format!("is {}, expected {}", values.number().text(), number.text())));
            }
            if shape != expected {
                return Err(wrong(name, format!("has shape {shape:?}, expected {expected:?}")));
            }
        }
        self.check_coded::<F>(tensors, groups, &slots)?;
        let mut known: BTreeSet<String> = slots.into_iter().map(|held| held.name).collect();
        for tensor in tensors {
            let name = param_name(&tensor.name);
            if let Some(Entry { shape, values }) = self.values.get(&name) {
                check_param(name.clone(), shape, values, tensor)?;
            }
            known.insert(name);
        }
        match self.values.keys().find(|name| !known.contains(*name)) {
            Some(extra) => Err(wrong(extra, "is no slot of these tensors")),
            None => Ok(()),
        }
    }

    /// Refuses values of a slot that its format does not hold, and steps of groups that are none.
    fn check_coded<F: Real>(&self, tensors: &[TensorSpec], groups: &Groups, slots: &[Held]) -> Result<()> {
        for (n, held) in slots.iter().enumerate().filter(|(_, held)| !held.is_steps) {
            let layout = groups.wrappers_of(held.tensor).layout(groups.rule_of(held.tensor));
            let Some(section) = layout.find(held.slot).map(|place| &layout.sections[place]) else { continue };
            if section.storage == Storage::F32 || tensors[held.tensor].len_elements() == 0 {
                continue;
            }
            let refused = |at: usize, value: f64| {
                let message = format!("holds {value} at {at}, which is no number of {} here", section.storage);
                Err(wrong(held.name.clone(), message))
            };
            let codes = section.codes();
            let steps = match codes {
                Some(_) => self.steps_of_groups::<F>(&slots[n + 1])?,
                None => vec![],
            };
            let mut at = 0;
            self.entry(held).values.each_part(|part: Vec<F>| {
                for value in part.into_iter().map(Real::f64) {
                    let is_sound = match codes {
                        Some(codes) => {
                            let step = steps[at / GROUP];
                            f64::from(codes.decode(codes.nearest(value as f32, step), step)) == value
                        }
                        None => section.storage.round_one(value) == value || value.is_nan(),
                    };
                    if !is_sound {
                        return refused(at, value);
                    }
                    at += 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The steps of a slot's groups as the bits of bf16.
    fn steps_of_groups<F: Real>(&self, held: &Held) -> Result<Vec<u32>> {
        let steps: Vec<f64> = self.state::<F>(held)?.into_iter().map(Real::f64).collect();
        for (group, &step) in steps.iter().enumerate() {
            let bits = (step as f32).to_bits();
            let is_sound = step.is_finite() && step >= 0.0 && f64::from(f32::from_bits(bits & 0xffff_0000)) == step;
            if !is_sound {
                let message = format!("is {step} for group {group}, must be a finite number of bf16, at least 0");
                return Err(wrong(held.name.clone(), message));
            }
        }
        Ok(steps_of(steps.into_iter()))
    }

    /// Refuses counts and numbers that no training has.
    fn check_numbers(&self, groups: &Groups) -> Result<()> {
        let head = &self.head;
        // No training comes this far, and further counting stays in bounds.
        if head.attempts >= 1 << 63 {
            return Err(wrong("attempts", format!("is {}, must be below 2^63", head.attempts)));
        }
        for saved in &head.tensors {
            if let Some(value) = saved.carried.iter().find(|bits| !bits.0.is_finite() || bits.0 < 0.0) {
                let what = format!("carried of tensor {}", saved.name);
                return Err(wrong(what, format!("is {}, must be at least 0 and finite", value.0)));
            }
            if let Some(from) = saved.averaged_from.filter(|&from| from > saved.t) {
                let what = format!("averaged_from of tensor {}", saved.name);
                return Err(wrong(what, format!("is {from}, must be at most its t, {}", saved.t)));
            }
        }
        let (found, expected) = (head.on_device.len(), groups.wrappers().on_device.len());
        if found != expected {
            return Err(wrong("on_device", format!("holds {found} numbers, expected {expected}")));
        }
        let batches = groups.wrappers().batches();
        if head.micro_batches >= batches.max(1) {
            let message = format!("is {}, must be below accumulate, {batches}", head.micro_batches);
            return Err(wrong("micro_batches", message));
        }
        match groups.wrappers().loss_scale() {
            Some(options) => {
                LossScale::check_scale("scale", head.scale.0)?;
                if u64::from(head.good) >= options.interval {
                    let message = format!("is {}, must be below loss_scale.interval, {}", head.good, options.interval);
                    return Err(wrong("good", message));
                }
            }
            None if self.scale() != LossScaleState::new(None) => {
                let message = format!("are {} and {}, without a loss scale", head.scale.0, head.good);
                return Err(wrong("scale and good", message));
            }
            None => {}
        }
        if head.looked && !groups.have_move(Move::LookAhead) {
            return Err(wrong("looked", "no rule looks ahead"));
        }
        Ok(())
    }
}

pub(crate) fn param_name(tensor: &str) -> String {
    format!("param.{tensor}")
}

/// Refuses a parameter of another shape, or whose values are not laid there as f32, which holds those of all formats.
fn check_param(name: String, shape: &[usize], values: &Values, tensor: &TensorSpec) -> Result<()> {
    match shape == tensor.shape && values.number() == Number::F32 {
        true => Ok(()),
        false => {
            let message = format!("is {} {shape:?}, expected f32 {:?}", values.number().text(), tensor.shape);
            Err(wrong(name, message))
        }
    }
}

/// Steps of groups as numbers, from the bits of bf16.
pub(crate) fn numbers_of(steps: &[u32]) -> impl Iterator<Item = f64> {
    steps.iter().map(|&step| f64::from(f32::from_bits(step << 16)))
}

/// Steps of groups as the bits of bf16.
pub(crate) fn steps_of(numbers: impl Iterator<Item = f64>) -> Vec<u32> {
    numbers.map(|number| (number as f32).to_bits() >> 16).collect()
}

fn wrong(what: impl Into<String>, message: impl ToString) -> Error {
    Error::Checkpoint { what: what.into(), message: message.to_string() }
}
