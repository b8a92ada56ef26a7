//! Burn's records of the state of optimizers: what a parameter's state is called there, read and written.

use std::collections::BTreeMap;

use burn::module::ParamId;
use burn::optim::OptimizerRecord;
use burn::store::RecordError;
use burn::tensor::{Bytes, DType};
use burn_pack::{Reader, Scalar, Tensor, Writer};
use wgpu_optim::rule::AnyRule;
use wgpu_optim::{LossScaleState, Optimizer};

use crate::{Error, Result};

/// Where Burn keeps the rank of a parameter.
pub(crate) const RANK: &str = "__rank";

/// The slot of the running mean of a parameter.
const EMA: &str = "ema";

/// What begins the names of state that Burn's optimizers do not have. They pass over it.
pub(crate) const OWN: &str = "wgpu_optim.";

/// The state of a parameter under Burn's names, without the parameter's id before them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) scalars: BTreeMap<String, Scalar>,
}

/// A whole record: the state of each parameter by its id, and what belongs to all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) states: BTreeMap<u64, State>,
    scalars: BTreeMap<String, Scalar>,
    /// The parameters' paths by their ids, and names of rules.
    texts: BTreeMap<String, String>,
}

/// How Burn keeps the state of a rule.
struct Kept {
    /// A slot, its field in Burn's record, and what its numbers are multiplied by there.
    slots: Vec<(&'static str, &'static str, f32)>,
    /// The field of the count of steps.
    time: Option<&'static str>,
}

/// How Burn keeps the state of this rule; nothing where Burn does not have the rule, or not in this form.
fn kept(rule: &dyn AnyRule) -> Option<Kept> {
    let options = rule.to_json();
    let is = |option: &str, value: &str| options.get(option).and_then(|found| found.as_str()) == Some(value);
    let number = |option: &str| options.get(option).and_then(|found| found.as_f64()).unwrap_or_default();
    let kept = |slots: &[(&'static str, &'static str)], time| {
        Some(Kept { slots: slots.iter().map(|&(slot, field)| (slot, field, 1.0)).collect(), time })
    };
    match rule.name() {
        "adam" | "adamw" if is("v_per", "element") && !is("amsgrad", "corrected") => {
            let moments = [("m", "momentum.moment_1"), ("v", "momentum.moment_2"), ("vmax", "momentum.max_moment_2")];
            kept(&moments[..if is("amsgrad", "raw") { 3 } else { 2 }], Some("momentum.time"))
        }
        "sgd" if is("form", "accumulate") => {
            kept(if number("momentum") == 0.0 { &[] } else { &[("v", "momentum.velocity")] }, None)
        }
        "rmsprop" if is("form", "accumulate") => {
            let slots = [("v", "square_avg.square_avg"), ("a", "centered.grad_avg"), ("b", "momentum.buf")];
            let has = |slot: &str| rule.slots().iter().any(|known| known.name == slot);
            kept(&slots.into_iter().filter(|(slot, _)| has(slot)).collect::<Vec<_>>(), None)
        }
        "adagrad" => kept(&[("s", "lr_decay.sum")], Some("lr_decay.time")),
        "lion" => kept(&[("m", "momentum")], None),
        "lamb" => kept(&[("m", "moment_1"), ("v", "moment_2")], Some("time")),
        "adafactor" => {
            let is_matrix = rule.slots().iter().any(|slot| slot.name == "row");
            let of_matrix = [("row", "second_moment"), ("col", "column_second_moment")];
            kept(if is_matrix { &of_matrix } else { &[("v", "second_moment")] }, Some("time"))
        }
        "adan" => Some(Kept {
            slots: vec![
                ("m", "momentum.exp_avg", 1.0),
                ("n", "momentum.exp_avg_sq", 1.0),
                ("d", "momentum.exp_avg_diff", 1.0),
                ("g_prev", "momentum.neg_pre_grad", -1.0),
            ],
            time: Some("momentum.time"),
        }),
        // Burn adds gradients up, ours is their weighted mean.
        "muon" => {
            let sum = 1.0 / (1.0 - number("momentum"));
            Some(Kept { slots: vec![("m", "momentum.velocity", sum as f32)], time: None })
        }
        _ => None,
    }
}

/// The fields that follow from others, which Burn keeps beside them.
fn derived(rule: &str) -> &'static [&'static str] {
    if rule == "rmsprop" { &["centered.avg"] } else { &[] }
}

/// Whether the state of one rule is that of the other.
fn same_state(one: &str, other: &str) -> bool {
    one == other || [one, other].iter().all(|rule| matches!(*rule, "adam" | "adamw"))
}

impl State {
    /// The state of a parameter, once all steps are done.
    pub(crate) async fn of(optimizer: &Optimizer, name: &str) -> Result<Self> {
        let rule = optimizer.rule(name)?;
        let shape = optimizer.tensors().iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone());
        let shape = shape.unwrap_or_default();
        let Kept { slots, time } = kept(rule).unwrap_or(Kept { slots: vec![], time: None });
        let mut state = Self::default();
        for slot in optimizer.slots(name)? {
            let values = optimizer.state(name, slot).await?;
            let extent = rule.slots().into_iter().find(|own| own.name == slot).map(|own| own.extent);
            let of_burn = slots.iter().find(|(known, ..)| *known == slot);
            let (field, shape, values) = match of_burn {
                Some((_, field, factor)) => {
                    let values = values.into_iter().map(|value| value * factor).collect();
                    (field.to_string(), extent.map_or(shape.clone(), |extent| extent.shape(&shape)), values)
                }
                None => (format!("{OWN}{slot}"), vec![values.len()], values),
            };
            state.tensors.insert(field, (shape, values));
        }
        if rule.name() == "rmsprop" && !slots.is_empty() {
            let values = |field: &str| state.tensors.get(field).map(|(_, values)| values);
            let squares = values("square_avg.square_avg").cloned().unwrap_or_default();
            let variance = match values("centered.grad_avg") {
                Some(means) => squares.iter().zip(means).map(|(square, mean)| square - mean * mean).collect(),
                None => squares,
            };
            state.tensors.insert("centered.avg".into(), (shape.clone(), variance));
        }
        let t = Scalar::from(optimizer.t(name)?);
        state.scalars.insert(time.map_or(format!("{OWN}t"), String::from), t);
        state.scalars.insert(RANK.into(), Scalar::from(shape.len()));
        for (i, number) in optimizer.carried(name)?.into_iter().enumerate() {
            state.scalars.insert(format!("{OWN}carried.{i}"), Scalar::from(number));
        }
        if optimizer.slots(name)?.contains(&EMA) {
            state.scalars.insert(format!("{OWN}averaged"), Scalar::from(optimizer.averaged(name)?));
        }
        Ok(state)
    }

    /// Gives the state to a parameter of an optimizer that has made no step.
    ///
    /// # Errors
    /// [`Error::Record`] where the state is that of another rule or shape.
    pub(crate) fn put(&self, optimizer: &mut Optimizer, name: &str) -> Result<()> {
        let refuse = |message: String| Err(Error::Record { name: name.into(), message });
        let rule = optimizer.rule(name)?;
        let (rule_name, slots) = (rule.name(), rule.slots());
        let Kept { slots: of_burn, time } = kept(rule).unwrap_or(Kept { slots: vec![], time: None });
        let shape = optimizer.tensors().iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone());
        let shape = shape.unwrap_or_default();
        let own = |slot: &str| format!("{OWN}{slot}");
        // What the rule keeps must be there. What wrappers keep may be missing, as in a record of Burn's.
        let known = optimizer.slots(name)?.into_iter().map(|slot| match of_burn.iter().find(|(of, ..)| *of == slot) {
            Some((_, field, factor)) => (slot, field.to_string(), *factor),
            None => (slot, own(slot), 1.0),
        });
        let known: Vec<(&str, String, f32)> = known.collect();
        let is_of_rule = |slot: &str| slots.iter().any(|of| of.name == slot);
        let needed = || known.iter().filter(|(slot, ..)| is_of_rule(slot)).map(|(_, field, _)| &field[..]);
        let is_known = |field: &str| known.iter().any(|(_, of, _)| of == field) || derived(rule_name).contains(&field);
        let list = |fields: Vec<&str>| if fields.is_empty() { "none".into() } else { fields.join(", ") };
        let complete = needed().all(|field| self.tensors.contains_key(field));
        if !complete || !self.tensors.keys().all(|field| is_known(field)) {
            let (found, expected) = (list(self.tensors.keys().map(String::as_str).collect()), list(needed().collect()));
            return refuse(format!("has the fields {found}; {rule_name} has {expected}"));
        }
        let scalar = |field: &str| self.scalars.get(field).copied();
        let count = |field: &str| scalar(field).map(u64::try_from).transpose();
        let t = match (count(time.unwrap_or(&own("t"))), time) {
            (Ok(Some(t)), _) => t,
            // Burn counts no steps of this rule.
            (Ok(None), None) => 1,
            (Ok(None), Some(field)) => return refuse(format!("has no {field}, which {rule_name} needs")),
            (Err(error), _) => return refuse(format!("counts its steps wrongly: {error}")),
        };
        let mut all = Vec::new();
        for (slot, field, factor) in &known {
            let Some((found, values)) = self.tensors.get(field) else { continue };
            let extent = slots.iter().find(|own| own.name == *slot).map(|own| own.extent);
            let expected = extent.filter(|_| !field.starts_with(OWN)).map(|extent| extent.shape(&shape));
            if expected.as_ref().is_some_and(|expected| expected != found) {
                return refuse(format!("{field} has shape {found:?}, expected {:?}", expected.unwrap_or_default()));
            }
            all.push((*slot, values.iter().map(|value| value / factor).collect::<Vec<_>>()));
        }
        optimizer.set_t(name, t)?;
        for (slot, values) in all {
            optimizer.set_state(name, slot, &values)?;
        }
        let mut carried = optimizer.carried(name)?;
        for (i, number) in carried.iter_mut().enumerate() {
            if let Some(saved) = scalar(&own(&format!("carried.{i}"))).and_then(|saved| f64::try_from(saved).ok()) {
                *number = saved;
            }
        }
        optimizer.set_carried(name, carried)?;
        if let (true, Ok(Some(averaged))) = (optimizer.slots(name)?.contains(&EMA), count(&own("averaged"))) {
            optimizer.set_averaged(name, averaged)?;
        }
        Ok(())
    }
}

impl Record {
    /// The state of all parameters that have made a step.
    pub(crate) async fn of(optimizer: &mut Optimizer, ids: &[ParamId]) -> Result<Self> {
        if optimizer.micro_batches() > 0 {
            return Err(Error::Order { message: "micro-batches wait for their step, which a record cannot hold" });
        }
        optimizer.settle().await?;
        let mut record = Self::default();
        for (tensor, id) in optimizer.tensors().iter().zip(ids) {
            let name = &tensor.name;
            if optimizer.t(name)? > 0 {
                record.states.insert(id.val(), State::of(optimizer, name).await?);
                record.texts.insert(id.val().to_string(), name.clone());
                record.texts.insert(format!("{OWN}rule.{}", id.val()), optimizer.rule(name)?.name().into());
            }
        }
        record.scalars.insert(format!("{OWN}steps"), Scalar::from(optimizer.steps()));
        if optimizer.loss_scale_buffer().is_ok() {
            let LossScaleState { scale, good } = optimizer.loss_scale().await?;
            record.scalars.insert(format!("{OWN}loss_scale"), Scalar::from(scale));
            record.scalars.insert(format!("{OWN}good"), Scalar::from(good));
        }
        Ok(record)
    }

    /// Gives the record to an optimizer that has made no step.
    ///
    /// # Errors
    /// [`Error::Record`], naming the parameter that the model does not have, or whose state is that of another rule.
    pub(crate) fn put(&self, optimizer: &mut Optimizer, ids: &[ParamId]) -> Result<()> {
        let names: BTreeMap<u64, String> =
            ids.iter().map(|id| id.val()).zip(optimizer.tensors().iter().map(|tensor| tensor.name.clone())).collect();
        let mut steps = 0;
        for (id, state) in &self.states {
            let Some(name) = names.get(id) else {
                let name = self.texts.get(&id.to_string()).cloned().unwrap_or_else(|| format!("id {id}"));
                let message = format!("is of a parameter with id {id}, which the model does not have");
                return Err(Error::Record { name, message });
            };
            let rule = optimizer.rule(name)?.name();
            if let Some(saved) = self.texts.get(&format!("{OWN}rule.{id}")).filter(|saved| !same_state(saved, rule)) {
                let message = format!("is the state of {saved}, the optimizer's rule is {rule}");
                return Err(Error::Record { name: name.clone(), message });
            }
            state.put(optimizer, name)?;
            steps = steps.max(optimizer.t(name)?);
        }
        let scalar = |name: &str| self.scalars.get(&format!("{OWN}{name}")).copied();
        optimizer.set_steps(scalar("steps").and_then(|steps| steps.try_into().ok()).unwrap_or(steps))?;
        let scale = scalar("loss_scale").and_then(|scale| f64::try_from(scale).ok());
        let good = scalar("good").and_then(|good| u32::try_from(good).ok());
        if let (Some(scale), Some(good), true) = (scale, good, optimizer.loss_scale_buffer().is_ok()) {
            optimizer.set_loss_scale(LossScaleState { scale, good })?;
        }
        Ok(())
    }

    /// Reads Burn's record.
    pub(crate) fn read(record: OptimizerRecord) -> Result<Self> {
        let reader = Reader::from_bytes(record.into_bytes()?).map_err(RecordError::from)?;
        let mut read = Self { texts: reader.metadata().clone(), ..Self::default() };
        for (name, scalar) in reader.scalars() {
            match split(name) {
                Some((id, field)) => drop(read.states.entry(id).or_default().scalars.insert(field.into(), *scalar)),
                None => drop(read.scalars.insert(name.clone(), *scalar)),
            }
        }
        for tensor in reader.into_tensors().map_err(RecordError::from)? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(RecordError::from)?;
            let Some((id, field)) = split(&name) else {
                return Err(Error::Record { name, message: "is the state of no single parameter".into() });
            };
            if dtype != DType::F32 {
                return Err(Error::Record { name, message: format!("is stored as {dtype:?}, must be F32") });
            }
            let values = bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            let shape = shape.iter().copied().collect();
            read.states.entry(id).or_default().tensors.insert(field.into(), (shape, values.collect()));
        }
        Ok(read)
    }

    /// Writes Burn's record.
    pub(crate) fn write(self) -> Result<OptimizerRecord> {
        let (mut tensors, mut scalars) = (Vec::new(), self.scalars);
        for (id, state) in self.states {
            for (field, (shape, values)) in state.tensors {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let bytes = Bytes::from_bytes_vec(bytes);
                tensors.push(Tensor::new(format!("{id}.{field}"), DType::F32, shape, Some(id), bytes));
            }
            scalars.extend(state.scalars.into_iter().map(|(field, scalar)| (format!("{id}.{field}"), scalar)));
        }
        let mut writer = Writer::new(tensors);
        for (name, scalar) in scalars {
            writer = writer.with_scalar(&name, scalar);
        }
        for (name, text) in self.texts {
            writer = writer.with_metadata(&name, &text);
        }
        Ok(OptimizerRecord::from_bytes(writer.into_bytes().map_err(RecordError::from)?)?)
    }
}

/// The id and the field of a name in a record.
fn split(name: &str) -> Option<(u64, &str)> {
    let (id, field) = name.split_once('.')?;
    Some((id.parse().ok()?, field))
}
