//! The CPU reference: any rule over ndarray, in f32 (what the shaders must match) or f64 (what both approximate).

use ndarray::ArrayD;

use crate::checkpoint::{Beside, Checkpoint, Values, numbers_of, steps_of};
use crate::clock::Clocks;
use crate::config::{Config, Group};
use crate::control::{Measured, NonFinite};
use crate::error::{Error, Result};
use crate::groups::Groups;
use crate::init::short_stream;
use crate::parts;
use crate::report::{LossScaleState, StepReport};
use crate::rule::{Coded, Extent, Move, Precision, Slot, Start, Step, WrapperStep};
use crate::session::{Session, check_len, session_methods};
use crate::storage::Section;
use crate::tensor::{Stored, TensorSpec};
use crate::wrapper::Decided;
use crate::wrappers::{self, Wrappers};

mod minimize;
mod moves;

/// An optimizer on the CPU, with the semantics of [`Optimizer`](crate::Optimizer); but a look-ahead moves all tensors
/// that need one and are not frozen.
///
/// ```
/// use ndarray::{ArrayD, arr1};
/// use wgpu_optim::{Config, Reference, Sgd, TensorSpec};
///
/// let config = Config::from(Sgd { lr: 0.5, ..Sgd::default() });
/// let mut sgd = Reference::<f64>::new(&config, &[TensorSpec::f32("w", [2])])?;
/// let mut params = [arr1(&[1.0, 2.0]).into_dyn()];
/// sgd.step(&mut params, &[Some(arr1(&[1.0, 0.0]).into_dyn())])?;
/// assert_eq!(params[0], arr1(&[0.5, 2.0]).into_dyn());
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reference<F> {
    session: Session<Clocks>,
    /// For each tensor and each field of the rule's `State`, one number per element, row or column; then the slots of
    /// the wrappers. A slot that is off is empty.
    elements: Vec<Vec<Vec<F>>>,
    /// For each tensor and each of its slots that are stored otherwise than in f32, the steps of the slot's groups.
    steps: Vec<Vec<Vec<u32>>>,
    /// For each tensor, the fields of the rule's `Tensor`.
    numbers: Vec<Vec<F>>,
    /// The fields of the model's `Tensor`, where the rule sums over the model.
    model: Vec<F>,
    scale: LossScaleState,
    attempts: u64,
    report: Option<StepReport>,
    measured: Vec<Measured<F>>,
}

impl<F: Precision> Reference<F> {
    /// Makes a reference with its state at the start.
    ///
    /// # Errors
    /// As [`Config::groups`].
    pub fn new(config: &Config, tensors: &[TensorSpec]) -> Result<Self> {
        let groups = config.groups(tensors)?;
        let (elements, steps, numbers) = Self::start(&groups, tensors, 0)?;
        let clocks = Clocks::new(groups.of());
        Ok(Self {
            elements,
            steps,
            model: Self::start_model(&groups),
            numbers,
            scale: LossScaleState::new(groups.wrappers().loss_scale()),
            attempts: 0,
            report: None,
            measured: vec![Measured::zero(); tensors.len()],
            session: Session::new(tensors, groups, clocks),
        })
    }

    /// As [`Optimizer::save`](crate::Optimizer::save). A reference in f64 saves its slots in f64.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub fn save(&self) -> Result<Checkpoint> {
        let wrappers = self.session.groups.wrappers();
        let of_host = |option: &String| wrappers.option(option).or(self.session.groups.rule(0).number(option));
        let on_device = wrappers.on_device.iter().map(|option| of_host(option).unwrap_or(0.0)).collect();
        let beside = Beside { attempts: self.attempts, scale: self.scale, on_device };
        let mut checkpoint = Checkpoint::of(&self.session, beside, |records| Ok(records.clone()))?;
        for held in checkpoint.slots(&self.session.tensors, &self.session.groups) {
            let name = &self.session.tensors[held.tensor].name;
            let values = match self.coded(held.tensor, held.slot).filter(|_| held.is_steps) {
                Some((n, ..)) => Values::of(numbers_of(&self.steps[held.tensor][n]).map(F::of)),
                None => Values::of(self.state(name, held.slot)?.into_iter()),
            };
            checkpoint.put_state(held, values);
        }
        Ok(checkpoint)
    }

    /// As [`Optimizer::load`](crate::Optimizer::load), from a checkpoint of the same arithmetic: those of optimizers
    /// are in f32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], naming what does not fit.
    pub fn load(tensors: &[TensorSpec], checkpoint: &Checkpoint) -> Result<Self> {
        let mut session = checkpoint.session::<F, Clocks>(tensors, |clocks, _| clocks, |records| records)?;
        session.groups.take_numbers(&checkpoint.on_device())?;
        let (elements, steps, numbers) = Self::start(&session.groups, tensors, 0)?;
        let mut reference = Self {
            elements,
            steps,
            model: Self::start_model(&session.groups),
            numbers,
            scale: checkpoint.scale(),
            attempts: checkpoint.head.attempts,
            report: None,
            measured: vec![Measured::zero(); tensors.len()],
            session,
        };
        let clocks = reference.session.counts.clone();
        for held in checkpoint.slots(tensors, &reference.session.groups) {
            let (i, values) = (held.tensor, checkpoint.state::<F>(&held)?);
            match reference.coded(i, held.slot) {
                Some((n, ..)) if held.is_steps => reference.steps[i][n] = steps_of(values.into_iter().map(F::f64)),
                // They are numbers of the format.
                Some((_, field, _)) => reference.elements[i][field] = values,
                None => reference.set_state(&tensors[i].name, held.slot, &values)?,
            }
        }
        reference.session.counts = clocks;
        Ok(reference)
    }

    /// Makes `elements` and `numbers` for the tensors from this one on, before their first step.
    fn start(groups: &Groups, tensors: &[TensorSpec], from: usize) -> Result<Started<F>> {
        let mut elements = Vec::new();
        let mut steps = Vec::new();
        let mut numbers = Vec::new();
        for (i, tensor) in tensors.iter().enumerate().skip(from) {
            let rule = groups.rule_of(i);
            let slots = groups.slots_of(i);
            let find = |name: &str| slots.iter().find(|slot| slot.name == name);
            let start = |slot: &Slot| match slot.start {
                Start::Value(start) => F::of(start),
                Start::Param => F::zero(),
            };
            let names = rule.names();
            // ndarray counts the elements of a shape without its zeros.
            let bytes = |shape: &[usize]| {
                let dims = shape.iter().filter(|&&dim| dim > 0);
                dims.fold(8, |size: u64, &dim| size.saturating_mul(dim as u64))
            };
            let of_sides = rule.sides().map_or(0, |sides| sides.numbers(&tensor.shape));
            let size_bytes = bytes(&tensor.shape).max(bytes(&[of_sides]));
            let page_bytes = isize::MAX as u64;
            if size_bytes > page_bytes {
                let what = "state slots";
                return Err(Error::TooLarge { tensor: tensor.name.clone(), what, size_bytes, page_bytes });
            }
            let len = |slot: &Slot| slot.extent.shape(&tensor.shape).iter().product();
            let slot = |name: &str| find(name).map_or(vec![], |slot| vec![start(slot); len(slot)]);
            // Behind the rule's slots, every wrapper of the registry has one, perhaps empty, at its place in the
            // registry: there a step finds it.
            let mut fields: Vec<Vec<F>> = names.state.iter().copied().map(slot).collect();
            fields.resize(names.state.len() + wrappers::ALL.len(), vec![]);
            for wrapped in groups.wrappers_of(i).slots(rule) {
                let place = groups.wrappers_of(i).place_of_slot(rule, wrapped.name).expect("the slot of a wrapper");
                fields[names.state.len() + place] = slot(wrapped.name);
            }
            let coded = groups.wrappers_of(i).coded(rule).into_iter();
            let round =
                |(field, section): (usize, Section)| section.storage.round(section.nonnegative, &mut fields[field]);
            steps.push(coded.map(round).collect());
            elements.push(fields);
            let number = |name: &&str| find(name).map_or(F::zero(), start);
            numbers.push(names.tensor.iter().map(number).collect());
        }
        Ok((elements, steps, numbers))
    }

    /// The numbers of the model before the first step.
    fn start_model(groups: &Groups) -> Vec<F> {
        let (rule, slots) = (groups.rule(0), groups.rule(0).slots());
        let start = |name: &&str| match slots.iter().find(|slot| slot.name == *name).map(|slot| slot.start) {
            Some(Start::Value(start)) => F::of(start),
            _ => F::zero(),
        };
        let products = slots.iter().filter(|slot| matches!(slot.extent, Extent::Products(_)));
        let len = products.flat_map(|slot| vec![F::zero(); slot.extent.shape(&[]).iter().product()]);
        rule.names().tensor.iter().map(start).chain(len).collect()
    }

    /// Adds tensors behind those there are, each to the one group with a name or pattern that matches it, or else to
    /// the top level. They start as at creation, at `t = 0`, with the options of now; schedules go on where they are.
    /// State, `t` and what is carried of the others stay. From now on parameters and gradients are those of all.
    ///
    /// # Errors
    /// [`Error::TensorTwice`] for a name that is there already; [`Error::Group`] for a tensor that two groups match;
    /// [`Error::Shape`] for one without the rows and columns that its rule needs; [`Error::TooLarge`]; [`Error::Order`]
    /// between a look-ahead and its step, and in evaluation.
    pub fn add(&mut self, tensors: &[TensorSpec]) -> Result<()> {
        self.grow("add", tensors, |groups, all| groups.add(all))
    }

    /// Adds a group behind those there are, and tensors as [`add`](Self::add) does. The group matches new tensors
    /// alone; options that it leaves out are those that the top level has now.
    ///
    /// # Errors
    /// As [`add`](Self::add), and what is refused of a group at creation: a bad option or schedule, a name or pattern
    /// that matches none of the new tensors.
    pub fn add_group(&mut self, group: Group, tensors: &[TensorSpec]) -> Result<()> {
        let step = self.session.coming_step();
        self.grow("add_group", tensors, |groups, all| groups.add_group(&group, all, step))
    }

    fn grow(
        &mut self,
        what: &'static str,
        tensors: &[TensorSpec],
        assign: impl FnOnce(&mut Groups, &[TensorSpec]) -> Result<()>,
    ) -> Result<()> {
        let (all, groups) = self.session.grown(what, tensors, assign)?;
        let (elements, steps, numbers) = Self::start(&groups, &all, self.session.tensors.len())?;
        self.elements.extend(elements);
        self.steps.extend(steps);
        self.numbers.extend(numbers);
        self.measured.resize(all.len(), Measured::zero());
        self.session.grow(all, groups);
        Ok(())
    }

    /// Takes a step of every tensor that has a gradient, or adds one of the micro-batches of a step.
    ///
    /// # Errors
    /// [`Error::Count`] or [`Error::Shape`] where arrays and tensors disagree, [`Error::Order`].
    pub fn step(&mut self, params: &mut [ArrayD<F>], grads: &[Option<ArrayD<F>>]) -> Result<()> {
        self.session.check_step()?;
        self.take_step(params, grads)
    }

    /// The same, of a step that a line search may be part of.
    fn take_step(&mut self, params: &mut [ArrayD<F>], grads: &[Option<ArrayD<F>>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        self.check("gradients", grads.len(), |i| match &grads[i] {
            Some(grad) => grad.shape().to_vec(),
            None => self.session.tensors[i].shape.clone(),
        })?;
        let taken = |(i, grad): (usize, &Option<ArrayD<F>>)| {
            if self.session.groups.is_frozen(i) {
                return None;
            }
            let zeros = || vec![F::zero(); self.session.tensors[i].len_elements() as usize];
            let given = grad.as_ref().map(|grad| grad.iter().copied().collect::<Vec<F>>());
            given.or_else(|| self.session.groups.rule_of(i).history().map(|_| zeros()))
        };
        let grads: Vec<_> = grads.iter().enumerate().map(taken).collect();
        let batches = self.session.groups.wrappers().batches();
        if batches == 1 {
            return self.whole_step(params, &grads, 1);
        }
        let needs = |i: usize| grads[i].is_some() && self.session.groups.rule_of(i).needs_look_ahead();
        self.session.order.batch((0..grads.len()).any(needs))?;
        let undo = (self.session.batch, self.session.begun.clone(), self.elements.clone());
        self.accumulate(&grads);
        if self.session.batch < batches {
            return Ok(());
        }
        let result = self.step_early(params);
        if result.is_err() {
            (self.session.batch, self.session.begun, self.elements) = undo;
        }
        result
    }

    /// As [`Optimizer::step_early`](crate::Optimizer::step_early).
    ///
    /// # Errors
    /// [`Error::Order`], [`Error::Count`] or [`Error::Shape`].
    pub fn step_early(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        self.session.check_early()?;
        let sums: Vec<Option<Vec<F>>> = (0..params.len())
            .map(|i| self.session.begun[i].then(|| self.elements[i][self.slot_of(i, "accumulate")].clone()))
            .collect();
        self.whole_step(params, &sums, self.session.batch)?;
        self.session.drop_micro_batches();
        Ok(())
    }

    /// Adds up a micro-batch.
    fn accumulate(&mut self, grads: &[Option<Vec<F>>]) {
        let unscale = F::of(1.0 / self.scale.scale);
        let skips = self.session.groups.wrappers().skips();
        for (i, grad) in grads.iter().enumerate() {
            let Some(grad) = grad else { continue };
            let place = self.slot_of(i, "accumulate");
            for (sum, &raw) in self.elements[i][place].iter_mut().zip(grad) {
                let mut g = raw * unscale;
                if skips && NonFinite::of(raw, g) == Some(NonFinite::TooLarge) {
                    // Later gradients could cancel a large number, but not an infinity.
                    g = F::infinity();
                }
                *sum = if self.session.begun[i] { *sum + g } else { g };
            }
            self.session.begun[i] = true;
        }
        self.session.batch += 1;
    }

    /// Where a wrapper's slot of a tensor lies among the tensor's slots.
    fn slot_of(&self, tensor: usize, wrapper: &str) -> usize {
        self.session.groups.rule_of(tensor).names().state.len() + wrappers::place(wrapper)
    }

    /// Takes a step with these gradients, or with these sums of so many micro-batches.
    fn whole_step(&mut self, params: &mut [ArrayD<F>], grads: &[Option<Vec<F>>], batches: u64) -> Result<()> {
        let needs = |i: usize| grads[i].is_some() && self.session.groups.rule_of(i).needs_look_ahead();
        let mut order = self.session.order.clone();
        order.step(self.session.groups.have_move(Move::LookAhead), &self.session.tensors, needs)?;
        let present: Vec<bool> = grads.iter().map(Option::is_some).collect();
        let mut clocks = self.session.counts.clone();
        let records = self.session.groups.step(&mut clocks, Some(&present), batches)?;

        let wrappers = self.session.groups.wrappers().clone();
        let LossScaleState { scale, .. } = self.scale;
        let unscale = if wrappers.batches() == 1 { 1.0 / scale } else { 1.0 };
        let values: Vec<Vec<F>> = params.iter().map(|param| param.iter().copied().collect()).collect();
        let measured: Vec<Measured<F>> = match wrappers.measures() {
            true => (0..grads.len())
                .map(|i| measure(&wrappers, unscale, batches, &values[i], grads[i].as_deref()))
                .collect(),
            false => vec![Measured::zero(); grads.len()],
        };
        let all = parts::list(Measured::zero(), Measured::combine, &measured);
        let skipped = wrappers.skips() && all.kind.is_some();
        let looked = self.session.order.has_looked();
        self.session.order = order;
        if let Some(options) = wrappers.loss_scale() {
            self.scale = self.scale.after(options, skipped);
        }
        self.attempts += 1;
        let name = |i: usize| self.session.tensors[i].name.clone();
        let culprit = measured.iter().position(|measured| measured.kind.is_some());
        self.report = Some(StepReport {
            step: self.attempts,
            applied: !skipped,
            without_gradient: (0..grads.len()).filter(|&i| !present[i]).map(name).collect(),
            norm: wrappers.measures().then(|| all.norm()),
            scale,
            culprit: culprit.and_then(|i| Some((name(i), measured[i].kind?))),
            fault: None,
        });
        self.measured = measured;
        if !skipped {
            self.session.counts = clocks;
        }
        let mut values: Vec<_> = (0..values.len()).map(|i| self.whole(i, &params[i], records.of(i))).collect();
        let mut of_model = Vec::new();
        let stored = self.elements.iter_mut().zip(&mut self.steps).zip(&mut self.numbers);
        for (i, (values, ((elements, steps), numbers))) in values.iter_mut().zip(stored).enumerate() {
            let (Some(grads), Some(record)) = (&grads[i], records.of(i)) else { continue };
            let (tensor, rule) = (&self.session.tensors[i], self.session.groups.rule_of(i));
            let (own, slots) = elements.split_at_mut(rule.names().state.len());
            if !skipped {
                let factors = wrappers.clip().map_or([F::one(); 2], |clip| clip.factors(self.measured[i], all));
                let around = self.session.groups.wrappers_of(i);
                let wrapped = around.with_decided(&record.wrapped, |number| match number {
                    Decided::Unscale => F::of(unscale),
                    Decided::Coarse => factors[0],
                    Decided::Fine => factors[1],
                });
                let setting = around.setting(rule);
                let coded = around.coded(rule).into_iter().zip(steps);
                let coded = coded.map(|((field, section), steps)| Coded { field, section, steps }).collect();
                let mut hooks = Vec::new();
                let mut on = around.iter().zip(wrapped).peekable();
                for (entry, slot) in wrappers::ALL.iter().zip(slots) {
                    let Some((wrapper, numbers)) = on.next_if(|(wrapper, _)| wrapper.name() == entry.name) else {
                        continue;
                    };
                    if wrapper.takes_part(setting) {
                        hooks.push(WrapperStep { wrapper: F::hooks(wrapper), numbers, counts: wrapper.counts(), slot });
                    }
                }
                let step = Step {
                    common: record.common.round(),
                    hyper: &record.hyper,
                    tensor: numbers,
                    params: values,
                    grads,
                    stored: Stored { dtype: tensor.dtype, stream: short_stream(&tensor.name) },
                    lines: self.session.groups.lines_of(i),
                    sides: rule.sides().map_or(vec![], |sides| sides.of(&self.session.tensors[i].shape)),
                    state: own,
                    coded,
                    wrappers: hooks,
                };
                match rule.sums_over_model() {
                    true => of_model.push((i, step)),
                    false => F::kernel(rule).step(step),
                }
            } else if looked && rule.needs_look_ahead() {
                values.copy_from_slice(&slots[wrappers::place("skip_nonfinite")]);
            }
        }
        F::kernel(self.session.groups.rule(0)).step_model(of_model, &mut self.model);
        for (i, (param, mut values)) in params.iter_mut().zip(values).enumerate() {
            let returns = looked && self.session.groups.rule_of(i).needs_look_ahead();
            if grads[i].is_some() && records.of(i).is_some() && (!skipped || returns) {
                self.keep(i, &mut values);
                self.land(i, param, values);
            }
        }
        Ok(())
    }

    /// What became of the last step.
    pub fn report(&self) -> Option<&StepReport> {
        self.report.as_ref()
    }

    /// The norm of a tensor's gradients in the last step, before a clip; 0 where it had none or norms are not measured.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn norm(&self, tensor: &str) -> Result<f64> {
        Ok(self.measured[self.session.find(tensor)?].norm())
    }

    /// The loss scale.
    pub fn loss_scale(&self) -> LossScaleState {
        self.scale
    }

    /// As [`Optimizer::set_loss_scale`](crate::Optimizer::set_loss_scale).
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Field`].
    pub fn set_loss_scale(&mut self, scale: LossScaleState) -> Result<()> {
        self.session.check_scale(scale)?;
        self.scale = scale;
        Ok(())
    }

    /// A state slot, in the tensor's shape; `[]` for one number a tensor or in all, `[.., rows, 1]` for one a row,
    /// `[.., 1, columns]` for one a column, `[rows, 1, ..]` for one an index of the first dimension, and
    /// `[pairs, ..]` and `[2, pairs, pairs]` for a history and its inner products; in one dimension, the matrices of
    /// all sides.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] or [`Error::UnknownSlot`].
    pub fn state(&self, tensor: &str, slot: &str) -> Result<ArrayD<F>> {
        let i = self.session.find(tensor)?;
        let (slot, place) = self.session.groups.find_slot(i, tensor, slot)?;
        let len = slot.extent.shape(&[]).iter().product::<usize>();
        let values = match slot.extent {
            Extent::Tensor => vec![self.numbers[i][place]],
            Extent::Model | Extent::Products(_) => self.model[place..place + len].to_vec(),
            _ => self.elements[i][place].clone(),
        };
        Ok(ArrayD::from_shape_vec(slot.extent.shape(&self.session.tensors[i].shape), values)
            .expect("a slot is as long as its tensor"))
    }

    /// Sets a state slot.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownSlot`] or [`Error::Shape`].
    pub fn set_state(&mut self, tensor: &str, slot: &str, values: &[F]) -> Result<()> {
        let i = self.session.find(tensor)?;
        let (found, place) = self.session.groups.find_slot(i, tensor, slot)?;
        let len = found.extent.shape(&[]).iter().product::<usize>();
        let target = match found.extent {
            Extent::Tensor => &mut self.numbers[i][place..=place],
            Extent::Model | Extent::Products(_) => &mut self.model[place..place + len],
            _ => &mut self.elements[i][place][..],
        };
        check_len(&format!("state {slot}"), tensor, values.len(), target.len())?;
        target.copy_from_slice(values);
        if let Some((n, field, section)) = self.coded(i, slot) {
            self.steps[i][n] = section.storage.round(section.nonnegative, &mut self.elements[i][field]);
        } else if let Some((keeper, _)) = self.session.groups.keeper(i).filter(|(_, kept)| *kept == place) {
            keeper.slot_storage().round(false, &mut self.elements[i][place]);
        }
        self.session.counts.set(i, |clock| clock.take_slot(&found));
        Ok(())
    }

    /// A slot that is stored otherwise than in f32: its place among these, and among all, and what its format is.
    fn coded(&self, i: usize, slot: &str) -> Option<(usize, usize, Section)> {
        let groups = &self.session.groups;
        let mut all = groups.wrappers_of(i).coded(groups.rule_of(i)).into_iter().enumerate();
        all.find(|(_, (_, section))| section.name == slot).map(|(n, (field, section))| (n, field, section))
    }

    fn check(&self, what: &'static str, count: usize, shape: impl Fn(usize) -> Vec<usize>) -> Result<()> {
        if count != self.session.tensors.len() {
            return Err(Error::Count { what, found: count, expected: self.session.tensors.len() });
        }
        for (i, tensor) in self.session.tensors.iter().enumerate() {
            if shape(i) != tensor.shape {
                let (found, expected) = (format!("shape {:?}", shape(i)), format!("shape {:?}", tensor.shape));
                let what = what.trim_end_matches('s').into();
                return Err(Error::Shape { what, tensor: tensor.name.clone(), found, expected });
            }
        }
        Ok(())
    }

    session_methods!();
}

/// Slots before the first step: `elements`, `steps` and `numbers`.
type Started<F> = (Vec<Vec<Vec<F>>>, Vec<Vec<Vec<u32>>>, Vec<Vec<F>>);

/// A tensor's gradients, measured in the tree that the GPU uses.
fn measure<F: Precision>(
    wrappers: &Wrappers,
    unscale: f64,
    batches: u64,
    params: &[F],
    grads: Option<&[F]>,
) -> Measured<F> {
    let Some(grads) = grads else { return Measured::zero() };
    let (unscale, batches) = (F::of(unscale), F::of(batches as f64));
    let with_params = wrappers.measures_params();
    parts::tree(Measured::zero(), Measured::combine, grads.len(), |i| {
        Measured::of(grads[i], grads[i] * unscale / batches, with_params.then(|| params[i]))
    })
}
