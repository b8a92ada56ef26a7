//! The registry of wrappers, in the order in which their hooks run, and those that an optimizer has.

use std::any::Any;

use crate::codecs::DType;
use crate::error::Result;
use crate::parts::Real;
use crate::rule::{AnyRule, Extent, Move, Slot, Start};
use crate::storage::{Layout, Section, Storage};
use crate::wrapper::{AnyWrapper, Decided, Moment, Setting, Wrapper, WrapperEntry, sealed::Registered};

mod accumulate;
mod cautious_update;
mod clip;
mod ema;
mod lookahead;
mod loss_scale;
mod param_rounding;
mod skip_nonfinite;
mod state_format;

/// Re-exports the wrappers and lists their entries.
macro_rules! all {
    ($($file:ident::$wrapper:ident),+ $(,)?) => {
        $(pub use $file::$wrapper;)+
        $(impl Registered for $wrapper {})+

        /// Every wrapper there is, in the order in which hooks of one kind run.
        pub static ALL: &[WrapperEntry] = &[$(WrapperEntry::of::<$wrapper>()),+];
    };
}

all![
    loss_scale::LossScale,
    accumulate::Accumulate,
    clip::Clip,
    cautious_update::CautiousUpdate,
    lookahead::Lookahead,
    ema::Ema,
    skip_nonfinite::SkipNonfinite,
    param_rounding::ParamRounding,
    state_format::StateFormat,
];

pub use clip::AdaptiveClip;

/// A move of the parameters outside a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moving {
    /// A move that the rule makes.
    Rule(Move),
    /// A move that the wrapper of this name makes: its number in [`MOVES`](crate::wrapper::Wrapper::MOVES), from 0.
    Wrapper(&'static str, usize),
}

impl Moving {
    /// `MOVE` counts the moves of rules first, and then those of wrappers.
    const OF_RULES: usize = 4;

    /// The shader's `MOVE`.
    pub fn number(self) -> usize {
        match self {
            Self::Rule(to) => to as usize,
            Self::Wrapper(name, to) => Self::first_of(name) + to,
        }
    }

    /// Whether it leaves the parameters where they are, and writes something else to what is bound in their place.
    pub fn reads(self) -> bool {
        let moves = |name| ALL.iter().find(|entry| entry.name == name).map_or(&[][..], |entry| entry.moves);
        matches!(self, Self::Wrapper(name, to) if moves(name).get(to) == Some(&"read"))
    }

    /// The number of a wrapper's first move.
    pub(crate) fn first_of(wrapper: &str) -> usize {
        let before = ALL.iter().take_while(|entry| entry.name != wrapper);
        Self::OF_RULES + before.map(|entry| entry.moves.len()).sum::<usize>()
    }
}

/// What an optimizer does beside its rule, the same for all groups: the wrappers that are on, and what the device
/// measures and takes from the caller's kernels.
#[derive(Clone, Debug, Default)]
pub struct Wrappers {
    /// The wrappers that are on, in the order of the registry.
    list: Vec<Box<dyn AnyWrapper>>,
    /// Whether norms of the gradients are measured even where nothing needs them. Default false.
    pub norms: bool,
    /// Options whose numbers a kernel of the caller's writes.
    pub on_device: Vec<String>,
    /// The seed of random numbers. Default 0.
    pub seed: u64,
    /// Tensors of fewer elements keep their state in f32; 4096 where none is given.
    pub min_elements: Option<u64>,
    /// Whether they are around tensors whose parameters are of 16 bits.
    narrow: bool,
    /// The formats of the state of the tensors that they are around.
    formats: StateFormat,
}

/// Why a slot of a rule keeps f32, where it does.
pub(crate) fn keeps_f32(rule: &dyn AnyRule, slot: &Slot) -> Option<&'static str> {
    match slot {
        _ if rule.history().is_some() => Some("belongs to a history"),
        Slot { extent: Extent::Element, start: Start::Param, .. } => Some("holds parameters"),
        Slot { extent: Extent::Element, name, .. } => {
            // A number of a line is in f32 where the line is a single element, too.
            let has_line =
                |form: Box<dyn AnyRule>| form.slots().iter().any(|other| other.name == *name && other.extent.is_line());
            let is_line = rule.for_pointwise().and(rule.for_matrices()).is_some_and(has_line);
            is_line.then_some("has no number for each element")
        }
        _ => Some("has no number for each element"),
    }
}

/// A wrapper's place in the registry.
pub(crate) fn place(name: &str) -> usize {
    ALL.iter().position(|entry| entry.name == name).expect("the name of a wrapper")
}

/// The fields of a wrapper's numbers that stand in a record.
pub(crate) fn recorded(wrapper: &dyn AnyWrapper) -> &'static [&'static str] {
    let fields = wrapper.fields();
    &fields[..fields.len() - wrapper.decided().len()]
}

impl Wrappers {
    /// These wrappers with one more, which replaces one of the same kind. One that is [off](Wrapper::off) only removes
    /// it.
    #[must_use]
    pub fn with(mut self, wrapper: impl Into<Box<dyn AnyWrapper>>) -> Self {
        let wrapper = wrapper.into();
        self.list.retain(|other| other.name() != wrapper.name());
        if !wrapper.is_off() {
            let at = self.list.partition_point(|other| place(other.name()) < place(wrapper.name()));
            self.list.insert(at, wrapper);
        }
        self
    }

    /// These wrappers without the one of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.list.retain(|wrapper| wrapper.name() != name);
        self
    }

    /// These wrappers with [`SkipNonfinite`] added where another wrapper skips steps: a skipped step must take back its
    /// look-ahead.
    #[must_use]
    pub fn completed(&self) -> Self {
        let is_whole = !self.skips() || self.get::<SkipNonfinite>().is_some();
        if is_whole { self.clone() } else { self.clone().with(SkipNonfinite(true)) }
    }

    /// The same around tensors whose parameters are in this format, and that are large enough for the formats of the
    /// state.
    #[must_use]
    pub fn of_format(&self, dtype: DType) -> Self {
        let formats = self.get::<StateFormat>().cloned().unwrap_or_default();
        Self { narrow: dtype.is_narrow(), formats, ..self.clone() }
    }

    /// Whether both are around tensors with the same formats.
    pub(crate) fn same_formats(&self, other: &Self) -> bool {
        (self.narrow, self.rounding(), &self.formats) == (other.narrow, other.rounding(), &other.formats)
    }

    /// These wrappers with one of this kind whose options a group may replace, where any group has its own.
    #[must_use]
    pub(crate) fn with_default<W: Wrapper + Default>(mut self, is_wanted: bool) -> Self {
        if is_wanted && self.get::<W>().is_none() {
            let at = self.list.partition_point(|other| place(other.name()) < place(W::NAME));
            self.list.insert(at, Box::new(W::default()));
        }
        self
    }

    /// How parameters of 16 bits are rounded; to the nearest where these are around others.
    pub(crate) fn rounding(&self) -> ParamRounding {
        self.get().copied().filter(|_| self.narrow).unwrap_or_default()
    }

    /// The same around tensors whose parameters are rounded so.
    #[must_use]
    pub(crate) fn of_rounding(mut self, rounding: ParamRounding) -> Self {
        let own = self.list.iter_mut().find(|wrapper| wrapper.name() == ParamRounding::NAME);
        own.into_iter().for_each(|own| *own = Box::new(rounding));
        self
    }

    /// The same around tensors whose state has these formats.
    #[must_use]
    pub(crate) fn of_state(&self, formats: StateFormat) -> Self {
        Self { formats, ..self.clone() }
    }

    /// How the blocks of state of the tensors that these are around hold the slots: the rule's, then the wrappers'.
    pub fn layout(&self, rule: &dyn AnyRule) -> Layout {
        let section = |(slot, storage): (Slot, Storage)| Section {
            name: slot.name,
            numbers: slot.extent.of_element() as u64,
            nonnegative: slot.nonnegative,
            storage,
        };
        let own = rule.slots().into_iter().map(|slot| (slot, self.storage_of(rule, &slot)));
        let setting = self.setting(rule);
        let in_blocks = self.iter().filter(|wrapper| !wrapper.slot_is_beside());
        let of_wrappers =
            in_blocks.filter_map(|wrapper| wrapper.slot(setting).map(|slot| (slot, wrapper.slot_storage())));
        let all = own.chain(of_wrappers);
        Layout { sections: all.filter(|(slot, _)| slot.extent.of_element() > 0).map(section).collect() }
    }

    /// The format of a rule's slot.
    fn storage_of(&self, rule: &dyn AnyRule, slot: &Slot) -> Storage {
        if keeps_f32(rule, slot).is_some() { Storage::F32 } else { self.formats.of(slot.name) }
    }

    /// The slots of a rule that are stored otherwise than in f32, each with its place among the fields of the rule's
    /// `State`, in the order of a block.
    pub(crate) fn coded(&self, rule: &dyn AnyRule) -> Vec<(usize, Section)> {
        let fields = rule.names().state;
        let coded = self.layout(rule).sections.into_iter().filter(|section| section.storage != Storage::F32);
        coded.filter_map(|section| Some((fields.iter().position(|field| *field == section.name)?, section))).collect()
    }

    /// The wrapper whose slot holds what the parameters in memory lack of those that the rule sees.
    pub(crate) fn keeper(&self, rule: &dyn AnyRule) -> Option<&dyn AnyWrapper> {
        let setting = self.setting(rule);
        self.iter().find(|wrapper| wrapper.keeps_params(setting))
    }

    /// Whether nothing is around the rule.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
            && !self.norms
            && self.on_device.is_empty()
            && self.seed == 0
            && self.min_elements.is_none()
    }

    /// The wrappers that are on, in the order of the registry.
    pub fn iter(&self) -> impl Iterator<Item = &dyn AnyWrapper> {
        self.list.iter().map(|wrapper| &**wrapper)
    }

    /// The wrapper of this type, where it is on.
    pub fn get<W: Any>(&self) -> Option<&W> {
        self.iter().find_map(|wrapper| (wrapper as &dyn Any).downcast_ref())
    }

    /// What a wrapper needs to know of its place around a rule.
    pub fn setting(&self, rule: &dyn AnyRule) -> Setting {
        let coded =
            !self.formats.is_f32() && rule.slots().iter().any(|slot| self.storage_of(rule, slot) != Storage::F32);
        Setting { batches: self.batches(), looks_ahead: rule.needs_look_ahead(), narrow: self.narrow, coded }
    }

    /// The wrappers whose hooks run in a step of this rule.
    pub fn around(&self, rule: &dyn AnyRule) -> impl Iterator<Item = &dyn AnyWrapper> {
        let setting = self.setting(rule);
        self.iter().filter(move |wrapper| wrapper.takes_part(setting))
    }

    /// The slots that the wrappers add to those of a rule, in the order of the registry. They lie behind the rule's in
    /// every block, but for those that lie [beside](crate::wrapper::Wrapper::SLOT_BESIDE) the state.
    pub fn slots(&self, rule: &dyn AnyRule) -> Vec<Slot> {
        let setting = self.setting(rule);
        self.iter().filter_map(|wrapper| wrapper.slot(setting)).collect()
    }

    /// The place of a slot among all that wrappers may have, which is its wrapper's place in the registry.
    pub fn place_of_slot(&self, rule: &dyn AnyRule, slot: &str) -> Option<usize> {
        let setting = self.setting(rule);
        let has = |wrapper: &&dyn AnyWrapper| wrapper.slot(setting).is_some_and(|found| found.name == slot);
        Some(place(self.iter().find(has)?.name()))
    }

    /// The names of the wrappers' numbers that stand in a record, in order: those that the host computes.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = &'static str> {
        self.iter().flat_map(|wrapper| recorded(wrapper).iter().copied())
    }

    /// The numbers of a tensor's step, or of a move outside a step, in the order of [`recorded`](Self::recorded).
    pub(crate) fn numbers(&self, moment: Moment) -> Vec<f64> {
        self.iter().flat_map(|wrapper| wrapper.numbers(moment).into_iter().take(recorded(wrapper).len())).collect()
    }

    /// The numbers of each wrapper, in order: those of a record, and those that the device decides.
    pub(crate) fn with_decided<F: Real>(
        &self,
        recorded_numbers: &[f64],
        decided: impl Fn(Decided) -> F,
    ) -> Vec<Vec<F>> {
        let mut rest = recorded_numbers.iter();
        let of = |wrapper: &dyn AnyWrapper| {
            let own = rest.by_ref().take(recorded(wrapper).len()).map(|&number| F::of(number)).collect::<Vec<_>>();
            own.into_iter().chain(wrapper.decided().iter().map(|&number| decided(number))).collect()
        };
        self.iter().map(of).collect()
    }

    /// Sets an option of this name, which a caller's kernel writes, in the wrapper that has it.
    pub(crate) fn set_option(&mut self, name: &str, number: f64) -> bool {
        let option = self.list.iter_mut().find_map(|wrapper| wrapper.option(name));
        option.map(|option| *option = number).is_some()
    }

    /// Returns the option of this name that a caller's kernel may write.
    pub(crate) fn option(&self, name: &str) -> Option<f64> {
        self.clone().list.iter_mut().find_map(|wrapper| wrapper.option(name)).copied()
    }

    /// Micro-batches of a step, at least 1.
    pub fn batches(&self) -> u64 {
        self.get().map_or(1, |&Accumulate(batches)| batches)
    }

    /// Whether a step may be skipped.
    pub fn skips(&self) -> bool {
        self.iter().any(|wrapper| wrapper.skips())
    }

    /// Whether norms of the gradients are measured before each update.
    pub fn measures(&self) -> bool {
        self.norms || self.iter().any(|wrapper| wrapper.measures().grads)
    }

    /// Whether norms of the parameters are measured with them.
    pub fn measures_params(&self) -> bool {
        self.iter().any(|wrapper| wrapper.measures().params)
    }

    /// The clip.
    pub fn clip(&self) -> Option<Clip> {
        self.get().copied()
    }

    /// The loss scale's options.
    pub fn loss_scale(&self) -> Option<&LossScale> {
        self.get()
    }

    /// The running mean's options.
    pub fn ema(&self) -> Option<&Ema> {
        self.get()
    }

    /// Whether the device decides what the update does.
    pub fn is_controlled(&self) -> bool {
        self.measures() || !self.on_device.is_empty()
    }

    /// Whether any wrapper counts elements before the update lands.
    pub fn counts(&self) -> bool {
        self.iter().any(|wrapper| wrapper.counts())
    }

    /// Bytes per element that step `t` of a tensor moves beside the rule's. `first` says whether it is the tensor's
    /// first step.
    pub fn bytes_per_element(&self, t: u64, first: bool) -> u64 {
        self.iter().map(|wrapper| wrapper.bytes_per_element(t, first)).sum()
    }

    /// Refuses options outside their bounds.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    pub fn check(&self) -> Result<()> {
        self.iter().try_for_each(|wrapper| wrapper.check())
    }
}
