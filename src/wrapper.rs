//! What a wrapper signs: [`Wrapper`], the typed contract, and [`AnyWrapper`], the same as an object.
//!
//! A wrapper changes what goes into a rule's update or what comes out of it, the same way for every rule. It is a pair
//! of twins, `src/wrappers/NAME.rs` and `shaders/wrappers/NAME.wgsl`, and an entry in the registry `src/wrappers.rs`,
//! whose order is the order in which hooks of one kind run.

use std::any::Any;
use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::Result;
use crate::parts::Real;
use crate::read::{Misread, read};
#[cfg(feature = "proof")]
use crate::rule::Reject;
use crate::rule::{AnyRule, Numbers, Slot};
use crate::storage::Storage;
use crate::tensor::Stored;

pub(crate) mod sealed {
    /// An entry of the registry.
    pub trait Registered {}
}

use sealed::Registered;

/// What a wrapper needs to know of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Micro-batches that make up a step, at least 1.
    pub batches: u64,
    /// Whether the rule moves the parameters ahead of each step.
    pub looks_ahead: bool,
    /// Whether the parameters are stored in 16 bits.
    pub narrow: bool,
    /// Whether any slot of the rule is stored otherwise than in f32.
    pub coded: bool,
}

/// The moment for which a wrapper's numbers are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The tensor's applied steps, this one included.
    pub t: u64,
    /// How many of them the running mean of the parameters holds.
    pub averaged: u64,
    /// How many micro-batches the step has; none for a move outside a step.
    pub batches: Option<u64>,
    /// The seed of random numbers.
    pub seed: u64,
}

/// What the norms walk must measure for a wrapper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Norms and the worst number of the gradients.
    pub grads: bool,
    /// Norms of the parameters, too.
    pub params: bool,
}

/// A number of a wrapper that the device decides in the step, so that no record holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// One over the loss scale.
    Unscale,
    /// The power of two by which a clip multiplies a tensor's gradients first.
    Coarse,
    /// What the clip multiplies them by after that.
    Fine,
}

/// A wrapper: its options, and its mathematics written once for f32 and f64.
///
/// The functions of an element exist in `shaders/wrappers/<name>.wgsl` as well, with the wrapper's name before theirs:
/// `gradient` is `lookahead_gradient` there. A function that the shader's text does not define is a hook that the
/// wrapper does not use, and the twin keeps the default, which changes nothing. CONTRIBUTING.md walks through adding a
/// wrapper.
///
/// Only the wrappers of the registry sign it: the place in the registry decides when a hook runs.
pub trait Wrapper:
    Registered + Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + Sized + 'static
{
    /// The field in JSON, the stem of both files, and what every name in the shader starts with.
    const NAME: &'static str;
    /// One line for tables: what the wrapper does, and its source.
    const SUMMARY: &'static str;
    /// The twin's text.
    const SHADER: &'static str;
    /// The fields of `Numbers` that the device decides. They come last in the struct.
    const DECIDED: &'static [Decided] = &[];
    /// Whether the wrapper's slot lies beside the state, in buffers of its own.
    const SLOT_BESIDE: bool = false;
    /// The names of the moves outside a step that the wrapper makes. The shader's override `MOVE` counts them from
    /// `WRAPPER_MOVES`.
    const MOVES: &'static [&'static str] = &[];

    /// The wrapper's numbers at one `t`, those that the device decides included.
    type Numbers<F: Real>: Numbers<F>;

    /// Refuses options outside their bounds.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    fn check(&self) -> Result<()>;
    /// Refuses rules that the wrapper cannot go around.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and the rule.
    fn check_rule(&self, _rule: &dyn AnyRule) -> Result<()> {
        Ok(())
    }
    /// The options that stand for no wrapper. JSON holds them where the wrapper is off.
    fn off() -> Option<Self> {
        None
    }

    /// Whether the wrapper's hooks run in a step of this setting.
    fn takes_part(&self, _setting: Setting) -> bool {
        true
    }
    /// The slot in which the wrapper keeps one number per element from step to step.
    fn slot(&self, _setting: Setting) -> Option<Slot> {
        None
    }
    /// The format of that slot.
    fn slot_storage(&self) -> Storage {
        Storage::F32
    }
    /// Whether its slot holds what the parameters in memory lack of those that the rule sees. Its text then defines the
    /// hooks `whole` and `kept`.
    fn keeps_params(&self, _setting: Setting) -> bool {
        false
    }
    /// Whether `whole` reads the parameters in memory in any step, not in a tensor's first alone.
    fn reads_copies(&self) -> bool {
        false
    }
    /// The shader's text with these options, where it is not [`SHADER`](Self::SHADER).
    fn shader(&self) -> &'static str {
        Self::SHADER
    }
    /// The shader's `override` constants.
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
    /// The numbers of a tensor's step or of a move outside a step, each of which the host rounds to f32 once. A number
    /// that the device decides is 1 here.
    fn numbers(&self, moment: Moment) -> Self::Numbers<f64>;
    /// The option that a caller's kernel may write on the device under this name.
    fn option(&mut self, _name: &str) -> Option<&mut f64> {
        None
    }
    /// What must be measured of the gradients before each update.
    fn measures(&self) -> Measures {
        Measures::default()
    }
    /// Whether a step may be skipped.
    fn skips(&self) -> bool {
        false
    }
    /// Whether the wrapper counts elements of each tensor before the update lands.
    fn counts(&self) -> bool {
        false
    }
    /// Bytes per element that step `t` of a tensor moves beside the rule's. `first` says whether it is the tensor's
    /// first step.
    fn bytes_per_element(&self, _t: u64, _first: bool) -> u64 {
        0
    }

    /// The raw gradient hook: from the gradient in memory to the one that the rule prepares.
    fn gradient<F: Real>(&self, _n: &Self::Numbers<F>, g: F) -> F {
        g
    }
    /// Whether the parameter must become NaN for this gradient, beside a gradient that is NaN itself.
    fn is_lost<F: Real>(&self, _n: &Self::Numbers<F>, _raw: F) -> bool {
        false
    }
    /// Whether an element counts, given the prepared gradient and what the rule would subtract.
    fn is_counted<F: Real>(&self, _n: &Self::Numbers<F>, _g: F, _u: F) -> bool {
        false
    }
    /// A tensor's factor, from the number of elements that count and the number of all.
    fn factor<F: Real>(&self, _n: &Self::Numbers<F>, _count: F, _len: F) -> F {
        F::one()
    }
    /// The update hook: what is subtracted instead of `u`, before weight decay joins it. `k` is the tensor's factor.
    fn update<F: Real>(&self, _n: &Self::Numbers<F>, _k: F, _g: F, u: F) -> F {
        u
    }
    /// The landed parameter hook: the parameter after the step instead of `after`. `first` says whether it is the
    /// tensor's first step.
    fn landed<F: Real>(&self, _n: &Self::Numbers<F>, _first: bool, _before: F, after: F, _slot: &mut F) -> F {
        after
    }
    /// The stored parameter hook: what is stored of an element's new parameter, behind all other hooks.
    fn stored<F: Real>(&self, _n: &Self::Numbers<F>, _stored: Stored, _element: usize, p: F) -> F {
        p
    }
    /// Random bits by which new numbers of the state are rounded: a word for each of the elements from `4 * quad` on,
    /// of which either slot of a pair takes 16 bits.
    fn chance<F: Real>(&self, _n: &Self::Numbers<F>, _stored: Stored, _pair: usize, _quad: usize) -> Option<[u32; 4]> {
        None
    }
    /// The parameter as the rule sees it, from the one in memory and the slot.
    fn whole<F: Real>(&self, p: F, _slot: F) -> F {
        p
    }
    /// What is to stand in memory of a parameter that the rule has left; the slot takes the rest.
    fn kept<F: Real>(&self, p: F, _slot: &mut F) -> F {
        p
    }
    /// The parameter after the move number `to` of `MOVES`, outside a step.
    fn moved<F: Real>(&self, _to: usize, _n: &Self::Numbers<F>, p: F, _slot: &mut F) -> F {
        p
    }

    /// Options that every proof runs around rules, each with a name.
    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)>;
    /// Options that must be refused: the field's value in JSON, and the error's whole text.
    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject>;
}

/// A wrapper's mathematics over whole tensors: the CPU reference of one precision.
pub trait WrapperKernel<F> {
    /// [`Wrapper::gradient`] of every element.
    fn gradients(&self, numbers: &[F], g: &mut [F]);
    /// Marks the elements for which [`Wrapper::is_lost`] holds.
    fn lose(&self, numbers: &[F], raw: &[F], lost: &mut [bool]);
    /// [`Wrapper::factor`] of a tensor, from its prepared gradients and its update.
    fn factor(&self, numbers: &[F], g: &[F], u: &[F]) -> F;
    /// [`Wrapper::update`] of every element.
    fn updates(&self, numbers: &[F], factor: F, g: &[F], u: &mut [F]);
    /// [`Wrapper::landed`] of every element. The slot is empty where the wrapper has none.
    fn land(&self, numbers: &[F], first: bool, before: &[F], after: &mut [F], slot: &mut [F]);
    /// [`Wrapper::stored`] of every element.
    fn store(&self, numbers: &[F], stored: Stored, params: &mut [F]);
    /// [`Wrapper::chance`] of every four elements of a tensor with this many; none where the wrapper draws none.
    fn chances(&self, numbers: &[F], stored: Stored, pair: usize, len: usize) -> Option<Vec<[u32; 4]>>;
    /// [`Wrapper::whole`] of every element.
    fn whole(&self, params: &mut [F], slot: &[F]);
    /// [`Wrapper::kept`] of every element.
    fn keep(&self, params: &mut [F], slot: &mut [F]);
    /// [`Wrapper::moved`] of every element.
    fn moved(&self, to: usize, numbers: &[F], params: &mut [F], slot: &mut [F]);
}

impl<W: Wrapper, F: Real> WrapperKernel<F> for W {
    fn gradients(&self, numbers: &[F], g: &mut [F]) {
        let n = W::Numbers::<F>::read(numbers);
        g.iter_mut().for_each(|g| *g = self.gradient(&n, *g));
    }
    fn lose(&self, numbers: &[F], raw: &[F], lost: &mut [bool]) {
        let n = W::Numbers::<F>::read(numbers);
        lost.iter_mut().zip(raw).for_each(|(lost, &raw)| *lost |= self.is_lost(&n, raw));
    }
    fn factor(&self, numbers: &[F], g: &[F], u: &[F]) -> F {
        let n = W::Numbers::<F>::read(numbers);
        let count = g.iter().zip(u).filter(|&(&g, &u)| self.is_counted(&n, g, u)).count();
        Wrapper::factor(self, &n, F::of(count as f64), F::of(u.len() as f64))
    }
    fn updates(&self, numbers: &[F], factor: F, g: &[F], u: &mut [F]) {
        let n = W::Numbers::<F>::read(numbers);
        u.iter_mut().zip(g).for_each(|(u, &g)| *u = self.update(&n, factor, g, *u));
    }
    fn land(&self, numbers: &[F], first: bool, before: &[F], after: &mut [F], slot: &mut [F]) {
        let n = W::Numbers::<F>::read(numbers);
        for (i, (after, &before)) in after.iter_mut().zip(before).enumerate() {
            let mut none = F::zero();
            *after = self.landed(&n, first, before, *after, slot.get_mut(i).unwrap_or(&mut none));
        }
    }
    fn store(&self, numbers: &[F], stored: Stored, params: &mut [F]) {
        let n = W::Numbers::<F>::read(numbers);
        params.iter_mut().enumerate().for_each(|(i, p)| *p = self.stored(&n, stored, i, *p));
    }
    fn chances(&self, numbers: &[F], stored: Stored, pair: usize, len: usize) -> Option<Vec<[u32; 4]>> {
        let n = W::Numbers::<F>::read(numbers);
        (0..len.div_ceil(4)).map(|quad| self.chance(&n, stored, pair, quad)).collect()
    }
    fn whole(&self, params: &mut [F], slot: &[F]) {
        params.iter_mut().zip(slot).for_each(|(p, &slot)| *p = Wrapper::whole(self, *p, slot));
    }
    fn keep(&self, params: &mut [F], slot: &mut [F]) {
        params.iter_mut().zip(slot).for_each(|(p, slot)| *p = self.kept(*p, slot));
    }
    fn moved(&self, to: usize, numbers: &[F], params: &mut [F], slot: &mut [F]) {
        let n = W::Numbers::<F>::read(numbers);
        for (i, p) in params.iter_mut().enumerate() {
            let mut none = F::zero();
            *p = Wrapper::moved(self, to, &n, *p, slot.get_mut(i).unwrap_or(&mut none));
        }
    }
}

/// What an object of a wrapper holds of the CPU reference: all of it, or nothing in a build without it.
#[cfg(feature = "reference")]
pub trait WrapperKernels: WrapperKernel<f32> + WrapperKernel<f64> {}
#[cfg(feature = "reference")]
impl<T: WrapperKernel<f32> + WrapperKernel<f64>> WrapperKernels for T {}
/// What an object of a wrapper holds of the CPU reference: all of it, or nothing in a build without it.
#[cfg(not(feature = "reference"))]
pub trait WrapperKernels {}
#[cfg(not(feature = "reference"))]
impl<T> WrapperKernels for T {}

/// A wrapper as an object: what the registry, the config, the reference and the engine know of it.
pub trait AnyWrapper: Any + WrapperKernels + Debug + Send + Sync {
    /// [`Wrapper::NAME`].
    fn name(&self) -> &'static str;
    /// [`Wrapper::shader`].
    fn shader(&self) -> &'static str;
    /// [`Wrapper::DECIDED`].
    fn decided(&self) -> &'static [Decided];
    /// [`Wrapper::SLOT_BESIDE`].
    fn slot_is_beside(&self) -> bool;
    /// [`Wrapper::MOVES`].
    fn moves(&self) -> &'static [&'static str];
    /// The fields of [`Wrapper::Numbers`] in order.
    fn fields(&self) -> &'static [&'static str];
    /// Whether its options are [`Wrapper::off`].
    fn is_off(&self) -> bool;
    /// [`Wrapper::check`].
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field).
    fn check(&self) -> Result<()>;
    /// [`Wrapper::check_rule`].
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field).
    fn check_rule(&self, rule: &dyn AnyRule) -> Result<()>;
    /// [`Wrapper::takes_part`].
    fn takes_part(&self, setting: Setting) -> bool;
    /// [`Wrapper::slot`].
    fn slot(&self, setting: Setting) -> Option<Slot>;
    /// [`Wrapper::slot_storage`].
    fn slot_storage(&self) -> Storage;
    /// [`Wrapper::reads_copies`].
    fn reads_copies(&self) -> bool;
    /// [`Wrapper::keeps_params`].
    fn keeps_params(&self, setting: Setting) -> bool;
    /// [`Wrapper::constants`].
    fn constants(&self) -> Vec<(&'static str, f64)>;
    /// [`Wrapper::numbers`] in the order of [`fields`](Self::fields).
    fn numbers(&self, moment: Moment) -> Vec<f64>;
    /// [`Wrapper::option`].
    fn option(&mut self, name: &str) -> Option<&mut f64>;
    /// [`Wrapper::measures`].
    fn measures(&self) -> Measures;
    /// [`Wrapper::skips`].
    fn skips(&self) -> bool;
    /// [`Wrapper::counts`].
    fn counts(&self) -> bool;
    /// [`Wrapper::bytes_per_element`].
    fn bytes_per_element(&self, t: u64, first: bool) -> u64;
    /// The options in JSON.
    fn to_json(&self) -> Value;
    /// A copy.
    fn boxed(&self) -> Box<dyn AnyWrapper>;
}

impl<W: Wrapper> AnyWrapper for W {
    fn name(&self) -> &'static str {
        W::NAME
    }
    fn shader(&self) -> &'static str {
        Wrapper::shader(self)
    }
    fn decided(&self) -> &'static [Decided] {
        W::DECIDED
    }
    fn slot_is_beside(&self) -> bool {
        W::SLOT_BESIDE
    }
    fn moves(&self) -> &'static [&'static str] {
        W::MOVES
    }
    fn fields(&self) -> &'static [&'static str] {
        <W::Numbers<f64> as Numbers<f64>>::NAMES
    }
    fn is_off(&self) -> bool {
        W::off().is_some_and(|off| off == *self)
    }
    fn check(&self) -> Result<()> {
        Wrapper::check(self)
    }
    fn check_rule(&self, rule: &dyn AnyRule) -> Result<()> {
        Wrapper::check_rule(self, rule)
    }
    fn takes_part(&self, setting: Setting) -> bool {
        Wrapper::takes_part(self, setting)
    }
    fn slot(&self, setting: Setting) -> Option<Slot> {
        Wrapper::slot(self, setting)
    }
    fn slot_storage(&self) -> Storage {
        Wrapper::slot_storage(self)
    }
    fn reads_copies(&self) -> bool {
        Wrapper::reads_copies(self)
    }
    fn keeps_params(&self, setting: Setting) -> bool {
        Wrapper::keeps_params(self, setting)
    }
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Wrapper::constants(self)
    }
    fn numbers(&self, moment: Moment) -> Vec<f64> {
        let mut numbers = vec![0.0; AnyWrapper::fields(self).len()];
        Wrapper::numbers(self, moment).write(&mut numbers);
        numbers
    }
    fn option(&mut self, name: &str) -> Option<&mut f64> {
        Wrapper::option(self, name)
    }
    fn measures(&self) -> Measures {
        Wrapper::measures(self)
    }
    fn skips(&self) -> bool {
        Wrapper::skips(self)
    }
    fn counts(&self) -> bool {
        Wrapper::counts(self)
    }
    fn bytes_per_element(&self, t: u64, first: bool) -> u64 {
        Wrapper::bytes_per_element(self, t, first)
    }
    fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
    fn boxed(&self) -> Box<dyn AnyWrapper> {
        Box::new(self.clone())
    }
}

/// A wrapper that was read from JSON, or what is wrong with the JSON.
pub type Read = std::result::Result<Box<dyn AnyWrapper>, Misread>;

/// Wrappers with a name each.
pub type Named = Vec<(&'static str, Box<dyn AnyWrapper>)>;

/// An entry of the registry: what is known of a wrapper without options.
#[derive(Clone, Copy)]
pub struct WrapperEntry {
    /// [`Wrapper::NAME`].
    pub name: &'static str,
    /// [`Wrapper::SUMMARY`].
    pub summary: &'static str,
    /// [`Wrapper::SHADER`].
    pub shader: &'static str,
    /// [`Wrapper::MOVES`].
    pub moves: &'static [&'static str],
    /// Reads the options from JSON.
    pub read: fn(Value) -> Read,
    /// [`Wrapper::off`] in JSON.
    pub off: fn() -> Option<Value>,
    /// [`Wrapper::cases`].
    #[cfg(feature = "proof")]
    pub cases: fn() -> Named,
    /// [`Wrapper::rejects`].
    #[cfg(feature = "proof")]
    pub rejects: fn() -> Vec<Reject>,
}

impl WrapperEntry {
    /// The entry of a wrapper.
    pub const fn of<W: Wrapper>() -> Self {
        Self {
            name: W::NAME,
            summary: W::SUMMARY,
            shader: W::SHADER,
            moves: W::MOVES,
            read: |value| {
                let wrapper: W = read(&value)?;
                Ok(Box::new(wrapper) as Box<dyn AnyWrapper>)
            },
            off: || W::off().map(|off| AnyWrapper::to_json(&off)),
            #[cfg(feature = "proof")]
            cases: || {
                W::cases().into_iter().map(|(name, case)| (name, Box::new(case) as Box<dyn AnyWrapper>)).collect()
            },
            #[cfg(feature = "proof")]
            rejects: W::rejects,
        }
    }
}

impl Debug for WrapperEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrapperEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<W: Wrapper> From<W> for Box<dyn AnyWrapper> {
    fn from(wrapper: W) -> Self {
        Box::new(wrapper)
    }
}

impl Clone for Box<dyn AnyWrapper> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}
