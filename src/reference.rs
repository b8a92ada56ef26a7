//! The CPU reference: any rule over ndarray, in f32 (what the shaders must match) or f64 (what both approximate).

use ndarray::ArrayD;

use crate::clock::{Clocks, LookedAhead};
use crate::config::{Config, Groups};
use crate::error::{Error, Result};
use crate::format::Tensor;
use crate::rule::{AnyRule, Extent, Precision, Step};

/// An optimizer on the CPU, with the semantics of [`Optimizer`](crate::Optimizer).
///
/// ```
/// use ndarray::{ArrayD, arr1};
/// use wgpu_optim::{Config, Reference, Sgd, Tensor};
///
/// let config = Config::from(Sgd { lr: 0.5, ..Sgd::default() });
/// let mut sgd = Reference::<f64>::new(&config, &[Tensor::f32("w", [2])])?;
/// let mut params = [arr1(&[1.0, 2.0]).into_dyn()];
/// sgd.step(&mut params, &[Some(arr1(&[1.0, 0.0]).into_dyn())])?;
/// assert_eq!(params[0], arr1(&[0.5, 2.0]).into_dyn());
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reference<F> {
    tensors: Vec<Tensor>,
    groups: Groups,
    clocks: Clocks,
    looked_ahead: LookedAhead,
    /// Per tensor and field of the rule's `State`; a slot that is off is empty.
    elements: Vec<Vec<Vec<F>>>,
    /// Per tensor, the fields of the rule's `Tensor`.
    numbers: Vec<Vec<F>>,
}

impl<F: Precision> Reference<F> {
    /// A reference with its state at the start.
    ///
    /// # Errors
    /// As [`Config::groups`].
    pub fn new(config: &Config, tensors: &[Tensor]) -> Result<Self> {
        let groups = config.groups(tensors)?;
        let mut elements = Vec::new();
        let mut numbers = Vec::new();
        for (i, tensor) in tensors.iter().enumerate() {
            let rule = groups.rule_of(i);
            let slots = rule.slots();
            let start = |name: &str, extent| {
                slots.iter().find(|slot| slot.name == name && slot.extent == extent).map(|slot| F::of(slot.start))
            };
            let names = rule.names();
            // ndarray counts a shape without its zeros.
            let dims = tensor.shape.iter().filter(|&&dim| dim > 0);
            let size_bytes = dims.fold(8, |size: u64, &dim| size.saturating_mul(dim as u64));
            let page_bytes = isize::MAX as u64;
            if size_bytes > page_bytes {
                let what = "state slots";
                return Err(Error::TooLarge { tensor: tensor.name.clone(), what, size_bytes, page_bytes });
            }
            let len = tensor.len_elements() as usize;
            elements.push(
                names
                    .state
                    .iter()
                    .map(|name| start(name, Extent::Element).map_or(vec![], |start| vec![start; len]))
                    .collect(),
            );
            let number = |name: &&str| start(name, Extent::Tensor).unwrap_or(F::zero());
            numbers.push(names.tensor.iter().map(number).collect());
        }
        let clocks = Clocks::new(groups.of());
        let looked_ahead = LookedAhead::default();
        Ok(Self { tensors: tensors.to_vec(), groups, clocks, looked_ahead, elements, numbers })
    }

    /// One step of every tensor that has a gradient.
    ///
    /// # Errors
    /// [`Error::Count`] or [`Error::Shape`] where arrays and tensors disagree, [`Error::LookAhead`].
    pub fn step(&mut self, params: &mut [ArrayD<F>], grads: &[Option<ArrayD<F>>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        self.check("gradients", grads.len(), |i| match &grads[i] {
            Some(grad) => grad.shape().to_vec(),
            None => self.tensors[i].shape.clone(),
        })?;
        let needs = |i: usize| grads[i].is_some() && self.groups.rule_of(i).needs_look_ahead();
        self.looked_ahead.take(&self.tensors, needs)?;
        let present: Vec<bool> = grads.iter().map(Option::is_some).collect();
        self.clocks.advance(Some(&present));
        for (i, param) in params.iter_mut().enumerate() {
            let Some(grad) = &grads[i] else { continue };
            let hyper = self.hyper(i, self.clocks.t(i));
            let mut values: Vec<F> = param.iter().copied().collect();
            let grads: Vec<F> = grad.iter().copied().collect();
            F::kernel(self.groups.rule_of(i)).step(Step {
                common: self.groups.common(self.groups.of()[i]).round(),
                hyper: &hyper,
                tensor: &mut self.numbers[i],
                params: &mut values,
                grads: &grads,
                state: &mut self.elements[i],
            });
            param.iter_mut().zip(values).for_each(|(place, value)| *place = value);
        }
        Ok(())
    }

    /// Moves every parameter to where the coming step's gradient is to be computed.
    ///
    /// # Errors
    /// [`Error::LookAhead`] where no option asks for it or one is pending; [`Error::Count`], [`Error::Shape`].
    pub fn look_ahead(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        let moved = (0..params.len()).map(|i| self.groups.rule_of(i).needs_look_ahead()).collect();
        self.looked_ahead.look(self.groups.need_look_ahead(), moved)?;
        for (i, param) in params.iter_mut().enumerate() {
            let rule = self.groups.rule_of(i);
            if !rule.needs_look_ahead() {
                continue;
            }
            let mut values: Vec<F> = param.iter().copied().collect();
            let hyper = self.hyper(i, self.clocks.t(i) + 1);
            F::kernel(rule).look_ahead(&hyper, &mut values, &self.elements[i]);
            param.iter_mut().zip(values).for_each(|(place, value)| *place = value);
        }
        Ok(())
    }

    /// Whether each step needs a look-ahead before it.
    pub fn needs_look_ahead(&self) -> bool {
        self.groups.need_look_ahead()
    }

    /// As [`Optimizer::set_lr`](crate::Optimizer::set_lr).
    ///
    /// # Errors
    /// [`Error::Field`].
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.groups.set_lr(lr)
    }

    /// As [`Optimizer::set`](crate::Optimizer::set).
    ///
    /// # Errors
    /// [`Error::Field`] or [`Error::Config`].
    pub fn set(&mut self, field: &str, value: f64) -> Result<()> {
        self.groups.set(field, value)
    }

    /// As [`Optimizer::set_group`](crate::Optimizer::set_group).
    ///
    /// # Errors
    /// [`Error::Group`], [`Error::Field`] or [`Error::Config`].
    pub fn set_group(&mut self, group: usize, field: &str, value: f64) -> Result<()> {
        self.groups.set_group(group, field, value)
    }

    /// Applied steps of a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn t(&self, tensor: &str) -> Result<u64> {
        Ok(self.clocks.t(find(&self.tensors, tensor)?))
    }

    /// Sets the count of applied steps of a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn set_t(&mut self, tensor: &str, t: u64) -> Result<()> {
        self.clocks.set_t(find(&self.tensors, tensor)?, t);
        Ok(())
    }

    /// The names of a tensor's state slots.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn slots(&self, tensor: &str) -> Result<Vec<&'static str>> {
        let rule = self.groups.rule_of(find(&self.tensors, tensor)?);
        Ok(rule.slots().iter().map(|slot| slot.name).collect())
    }

    /// A state slot, in the tensor's shape; `[]` for one number a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] or [`Error::UnknownSlot`].
    pub fn state(&self, tensor: &str, slot: &str) -> Result<ArrayD<F>> {
        let i = find(&self.tensors, tensor)?;
        let (extent, place) = find_slot(self.groups.rule_of(i), tensor, slot)?;
        let (shape, values) = match extent {
            Extent::Element => (self.tensors[i].shape.clone(), self.elements[i][place].clone()),
            Extent::Tensor => (vec![], vec![self.numbers[i][place]]),
        };
        Ok(ArrayD::from_shape_vec(shape, values).expect("a slot is as long as its tensor"))
    }

    /// Sets a state slot.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownSlot`] or [`Error::Shape`].
    pub fn set_state(&mut self, tensor: &str, slot: &str, values: &[F]) -> Result<()> {
        let i = find(&self.tensors, tensor)?;
        let (extent, place) = find_slot(self.groups.rule_of(i), tensor, slot)?;
        let target = match extent {
            Extent::Element => &mut self.elements[i][place][..],
            Extent::Tensor => &mut self.numbers[i][place..=place],
        };
        check_len(&format!("state {slot}"), tensor, values.len(), target.len())?;
        target.copy_from_slice(values);
        Ok(())
    }

    fn hyper(&self, tensor: usize, t: u64) -> Vec<f64> {
        let mut numbers = Vec::new();
        self.groups.rule_of(tensor).hyper(t, &mut numbers);
        numbers
    }

    fn check(&self, what: &'static str, count: usize, shape: impl Fn(usize) -> Vec<usize>) -> Result<()> {
        if count != self.tensors.len() {
            return Err(Error::Count { what, found: count, expected: self.tensors.len() });
        }
        for (i, tensor) in self.tensors.iter().enumerate() {
            if shape(i) != tensor.shape {
                let (found, expected) = (format!("shape {:?}", shape(i)), format!("shape {:?}", tensor.shape));
                let what = what.trim_end_matches('s').into();
                return Err(Error::Shape { what, tensor: tensor.name.clone(), found, expected });
            }
        }
        Ok(())
    }
}

/// The place of a tensor in the list.
pub(crate) fn find(tensors: &[Tensor], name: &str) -> Result<usize> {
    tensors.iter().position(|tensor| tensor.name == name).ok_or_else(|| Error::UnknownTensor {
        tensor: name.into(),
        known: tensors.iter().map(|tensor| &tensor.name[..]).collect::<Vec<_>>().join(", "),
    })
}

/// A slot's extent, and its place among the fields of the rule's struct.
pub(crate) fn find_slot(rule: &dyn AnyRule, tensor: &str, name: &str) -> Result<(Extent, usize)> {
    let slots = rule.slots();
    let Some(slot) = slots.iter().find(|slot| slot.name == name) else {
        let known = if slots.is_empty() {
            "none".into()
        } else {
            slots.iter().map(|slot| slot.name).collect::<Vec<_>>().join(", ")
        };
        return Err(Error::UnknownSlot { tensor: tensor.into(), slot: name.into(), known });
    };
    let fields = match slot.extent {
        Extent::Element => rule.names().state,
        Extent::Tensor => rule.names().tensor,
    };
    let place = fields.iter().position(|field| *field == name);
    Ok((slot.extent, place.expect("a slot is a field of the rule's struct")))
}

/// Refuses a number of values other than expected.
pub(crate) fn check_len(what: &str, tensor: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (format!("{found} elements"), format!("{expected} elements"));
    Err(Error::Shape { what: what.into(), tensor: tensor.into(), found, expected })
}
