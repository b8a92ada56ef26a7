//! What an optimizer signs: [`Rule`], the typed contract, and [`AnyRule`], the same as an object.

use std::any::{Any, TypeId};
use std::fmt::{Debug, Display, Formatter};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result, at_least_zero, refuse};
use crate::lines::Lines;
use crate::parts::{self, Combine, Real};
use crate::wrapper::{AnyWrapper, WrapperKernel};

/// What pulls parameters towards 0. JSON: `"none"` or an object of one field, `{"l2": 0.01}`.
///
/// `d` is the number, `lr` the scheduled learning rate, `u` what the rule subtracts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WeightDecay {
    /// No decay.
    #[default]
    None,
    /// `g <- g + d*p` before the rule sees `g` (the classic penalty; PyTorch's `weight_decay` of all but AdamW).
    L2(f64),
    /// `p <- p - (lr*d*p + u)` (Loshchilov and Hutter 2019, Algorithm 2).
    Decoupled(f64),
    /// As decoupled with `d*lr/lr_initial` for `lr*d`: the configured learning rate drops out, its schedule stays.
    Independent(f64),
    /// As decoupled, where `sign(u) == sign(p)` (arXiv 2510.12402).
    Cautious(f64),
    /// NovoGrad's: `d*p` joins the normalised gradient in the moment (Ginsburg et al. 2019, Algorithm 1).
    InsideMoment(f64),
    /// `d*p` joins what the rule scales as a whole: LAMB's and LARS's trust ratio, schedule-free's two sequences.
    Inside(f64),
    /// Adan's: `p <- (p - u)/(1 + lr*d)` (Xie et al. 2022, Algorithm 1).
    Proximal(f64),
}

impl WeightDecay {
    /// The kinds that most rules take.
    pub const GENERAL: &[&str] = &["none", "l2", "decoupled", "independent", "cautious"];

    /// The name in JSON.
    pub fn kind(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L2(_) => "l2",
            Self::Decoupled(_) => "decoupled",
            Self::Independent(_) => "independent",
            Self::Cautious(_) => "cautious",
            Self::InsideMoment(_) => "inside_moment",
            Self::Inside(_) => "inside",
            Self::Proximal(_) => "proximal",
        }
    }

    /// The number `d`, 0 for none.
    pub fn amount(mut self) -> f64 {
        self.amount_mut().map_or(0.0, |amount| *amount)
    }

    /// The number `d`, to be set; none has none.
    pub fn amount_mut(&mut self) -> Option<&mut f64> {
        match self {
            Self::None => None,
            Self::L2(d)
            | Self::Decoupled(d)
            | Self::Independent(d)
            | Self::Cautious(d)
            | Self::InsideMoment(d)
            | Self::Inside(d)
            | Self::Proximal(d) => Some(d),
        }
    }
}

impl Display for WeightDecay {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            _ => write!(f, "{{\"{}\": {}}}", self.kind(), self.amount()),
        }
    }
}

/// A struct of numbers that a shader knows by the same field names in the same order.
pub trait Numbers<F>: Copy {
    /// The fields' names.
    const NAMES: &'static [&'static str];
    /// From as many numbers as there are names.
    fn read(values: &[F]) -> Self;
    /// Into as many numbers as there are names.
    fn write(&self, values: &mut [F]);
}

impl<F> Numbers<F> for () {
    const NAMES: &'static [&'static str] = &[];
    fn read(_: &[F]) {}
    fn write(&self, _: &mut [F]) {}
}

/// Declares a struct of numbers, generic over f32 and f64, and its [`Numbers`](crate::rule::Numbers).
#[macro_export]
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name<F> { $($(#[$field_doc])* pub $field: F),+ }

        impl<F: $crate::parts::Real> $crate::rule::Numbers<F> for $name<F> {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];
            fn read(values: &[F]) -> Self {
                let [$($field),+] = values.try_into().expect("as many numbers as names");
                Self { $($field),+ }
            }
            fn write(&self, values: &mut [F]) {
                values.copy_from_slice(&[$(self.$field),+]);
            }
        }
    };
}

/// The methods of [`Rule`](crate::rule::Rule) that hand out options: the numeric ones, `lr` among them; behind the semicolon the decay and
/// perhaps some `Option<f64>`, which may be none.
#[macro_export]
macro_rules! options {
    ($($field:ident),+; weight_decay $(, $optional:ident)*) => {
        const OPTIONS: &'static [&'static str] =
            &[$(stringify!($field)),+, "weight_decay" $(, stringify!($optional))*];

        fn lr(&self) -> f64 {
            self.lr
        }
        fn weight_decay(&self) -> $crate::rule::WeightDecay {
            self.weight_decay
        }
        fn option(&mut self, name: &str) -> Option<&mut f64> {
            match name {
                $(stringify!($field) => Some(&mut self.$field),)+
                "weight_decay" => self.weight_decay.amount_mut(),
                $(stringify!($optional) => self.$optional.as_mut(),)*
                _ => None,
            }
        }
    };
}
pub use crate::{numbers, options};

/// What one number of a state slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// One number per element: a field of the rule's `State`.
    Element,
    /// One number per tensor: a field of the rule's `Tensor`.
    Tensor,
    /// One number per row of a tensor of [matrices](Rule::for_matrices): a field of the rule's `State`, in which an
    /// element finds what [`finish_row`](Rule::finish_row) made of it.
    Row,
    /// One number per column of a matrix: a field of the rule's `State`, the same for all elements of the column.
    Column,
}

impl Extent {
    /// Whether it is of rows or columns.
    pub fn is_line(self) -> bool {
        matches!(self, Self::Row | Self::Column)
    }

    /// The shape of a slot of a tensor of this shape.
    pub fn shape(self, tensor: &[usize]) -> Vec<usize> {
        let mut shape = tensor.to_vec();
        match (self, &mut shape[..]) {
            (Self::Tensor, _) => return vec![],
            (Self::Row, [.., columns]) => *columns = 1,
            (Self::Column, [.., rows, _]) => *rows = 1,
            _ => {}
        }
        shape
    }
}

/// The value of a slot before a tensor's first step. There is no other first-step flag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// This number.
    Value(f64),
    /// The parameter, as the first step finds it. Until then the slot reads as 0.
    Param,
}

/// One piece of state that lives from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The field's name in `State` or `Tensor`.
    pub name: &'static str,
    /// Per element, tensor, row or column.
    pub extent: Extent,
    /// The value before the first step.
    pub start: Start,
    /// Whether it is never negative, as a mean of squares.
    pub nonnegative: bool,
}

impl Slot {
    /// A number per element that starts at 0.
    pub const fn element(name: &'static str) -> Self {
        Self { name, extent: Extent::Element, start: Start::Value(0.0), nonnegative: false }
    }

    /// A number per tensor that starts at 0.
    pub const fn tensor(name: &'static str) -> Self {
        Self { extent: Extent::Tensor, ..Self::element(name) }
    }

    /// A number per row that starts at 0.
    pub const fn row(name: &'static str) -> Self {
        Self { extent: Extent::Row, ..Self::element(name) }
    }

    /// A number per column that starts at 0.
    pub const fn column(name: &'static str) -> Self {
        Self { extent: Extent::Column, ..Self::element(name) }
    }

    /// The same, never negative.
    pub const fn nonnegative(self) -> Self {
        Self { nonnegative: true, ..self }
    }

    /// The same with another start.
    pub const fn starting_at(self, start: f64) -> Self {
        Self { start: Start::Value(start), ..self }
    }

    /// The same, starting as the parameter.
    pub const fn starting_as_param(self) -> Self {
        Self { start: Start::Param, ..self }
    }
}

/// One walk over the tensors. A step runs a rule's passes in order; each is one dispatch a window,
/// `Finish` one dispatch in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// `measure_line` of every element, added up over its row and over its column. Of a rule [for
    /// matrices](Rule::for_matrices) with a slot of rows and one of columns.
    Lines,
    /// `finish_line`, once per row and column, then `finish_row`.
    FinishLines,
    /// `measure` of every element, combined over the tensor.
    Sums(Sums),
    /// `finish`, once per tensor.
    Finish,
    /// `direction` and `land` of every element.
    Apply,
}

/// What `measure` is given in a pass of sums, and how its numbers are combined. What it is not given is 0 and not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sums {
    /// How the numbers of two elements become one.
    pub combine: Combine,
    /// Whether its second number counts. Else that is 0, and its sum costs nothing.
    pub pair: bool,
    /// Whether it sees the parameter. With L2 decay it does anyway.
    pub param: bool,
    /// Whether it sees the gradient.
    pub grad: bool,
    /// Whether it sees the state.
    pub state: bool,
    /// Whether the state that it leaves is stored. The update then finds it done: it stores none, and its gradient is
    /// 0 and not read.
    pub stores: bool,
}

impl Sums {
    /// Sums over the gradient alone.
    pub const GRADS: Self =
        Self { combine: Combine::Add, pair: false, param: false, grad: true, state: false, stores: false };
}

/// Values that a rule carries from step to step beside `t`, in f64: one set a clock, 0 before the first step.
pub type Carried = [f64; 2];

/// A move of the parameters outside a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// To where the gradient is to be computed, before each step.
    LookAhead,
    /// To where the model is to be evaluated.
    Evaluation,
    /// Back from there.
    Training,
}

/// A configuration that must be refused, as an entry of the registry's tests.
#[cfg(feature = "proof")]
#[derive(Clone, Copy, Debug)]
pub struct Reject {
    /// The rule's fields in JSON.
    pub json: &'static str,
    /// The whole text of the error.
    pub error: &'static str,
}

/// An optimizer: its options, and its mathematics written once for f32 and f64.
///
/// The same functions exist in `shaders/rules/<name>.wgsl` under the same names; the two files are twins.
/// CONTRIBUTING.md walks through adding one.
pub trait Rule:
    Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + Sized + 'static
{
    /// The name in JSON, in labels and in tables.
    const NAME: &'static str;
    /// The formula in one line and its source, for the README's table.
    const SUMMARY: &'static str;
    /// The twin's text.
    const SHADER: &'static str;
    /// The decays it takes.
    const DECAYS: &'static [&'static str] = WeightDecay::GENERAL;
    /// Whether a rounding can turn the sign of a whole update.
    const TAKES_SIGNS: bool = false;
    /// Whether an element's update depends on that element alone.
    const ELEMENTWISE: bool = true;
    /// Whether parameters without decay stay where they are while all gradients are 0.
    const RESTS: bool = true;
    /// Whether an element's update may be dropped: not where an average of the parameters goes with it.
    const MASKABLE: bool = true;

    /// Numbers of a group at one `t`.
    type Hyper<F: Real>: Numbers<F>;
    /// Numbers of an element: all slots that there can be. Those that are off stay 0.
    type State<F: Real>: Numbers<F>;
    /// Numbers of a tensor, kept or derived; `()` for none.
    type Tensor<F: Real>: Numbers<F>;

    /// Refuses options outside their bounds and combinations that mean nothing.
    ///
    /// # Errors
    /// [`Error::Field`], naming field, value and bound.
    fn check(&self) -> Result<()>;

    /// The options that may be set between steps or follow a schedule.
    const OPTIONS: &'static [&'static str];
    /// The learning rate.
    fn lr(&self) -> f64;
    /// The decay.
    fn weight_decay(&self) -> WeightDecay;
    /// One of [`OPTIONS`](Self::OPTIONS), to be set. What is none, a decay or another option, has no number.
    fn option(&mut self, name: &str) -> Option<&mut f64>;

    /// The shader's `override` constants. What differs here is another pipeline.
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
    /// The slots that are on, in the order of the fields of `State` and `Tensor`. Where they differ,
    /// [`constants`](Self::constants) must.
    fn slots(&self) -> Vec<Slot>;
    /// The passes of a step.
    fn passes(&self) -> Vec<Pass> {
        vec![Pass::Apply]
    }
    /// The rule for tensors of rank 2 and more that have elements, where it is another: the same options, `hyper` and
    /// `Tensor`, but other slots, passes or constants.
    fn for_matrices(&self) -> Option<Box<dyn AnyRule>> {
        None
    }
    /// The moves that it makes outside a step. With [`Move::LookAhead`] each step needs one before its gradients are
    /// computed.
    fn moves(&self) -> &'static [Move] {
        &[]
    }

    /// The numbers of step `t`, counted from 1, in f64; each is rounded to f32 once. Takes the carried values from
    /// those after step `t-1` to those after step `t`.
    fn hyper(&self, t: u64, carried: &mut Carried) -> Self::Hyper<f64>;
    /// The carried values after `t` steps with these options.
    fn carried(&self, _t: u64) -> Carried {
        Carried::default()
    }

    /// What a pass over lines adds up over each row and column. `g` is the prepared gradient.
    fn measure_line<F: Real>(&self, _h: &Self::Hyper<F>, _g: F) -> F {
        F::zero()
    }
    /// The new number of a row or column, from the sum over its `len` elements and its old number.
    fn finish_line<F: Real>(&self, _h: &Self::Hyper<F>, _sum: F, _len: F, old: F) -> F {
        old
    }
    /// What the elements of a row see of its number, given the mean of the numbers of its matrix's rows.
    fn finish_row<F: Real>(&self, _h: &Self::Hyper<F>, row: F, _mean: F) -> F {
        row
    }
    /// What a sums pass combines over the tensor: two numbers an element. Changes to `s` last where the pass
    /// [stores](Sums::stores) them.
    fn measure<F: Real>(
        &self,
        _h: &Self::Hyper<F>,
        _k: &Self::Tensor<F>,
        _p: F,
        _g: F,
        _s: &mut Self::State<F>,
    ) -> [F; 2] {
        [F::zero(); 2]
    }
    /// From the combined numbers to the tensor's own.
    fn finish<F: Real>(&self, _h: &Self::Hyper<F>, _sums: [F; 2], _len: F, _k: &mut Self::Tensor<F>) {}
    /// What the tensor's numbers multiply its learning rate by. Every decay but L2 follows the rate, so the skeleton
    /// multiplies it by this.
    fn decay_rate<F: Real>(&self, _h: &Self::Hyper<F>, _k: &Self::Tensor<F>) -> F {
        F::one()
    }
    /// What is subtracted from `p`, the learning rate included. `g` is the prepared gradient.
    fn direction<F: Real>(&self, h: &Self::Hyper<F>, k: &Self::Tensor<F>, p: F, g: F, s: &mut Self::State<F>) -> F;
    /// The new parameter; `u` is what is subtracted, the decay included.
    fn land<F: Real>(&self, _h: &Self::Hyper<F>, _k: &Self::Tensor<F>, p: F, u: F, _s: &mut Self::State<F>) -> F {
        p - u
    }
    /// The parameter where a [`Move`] outside a step takes it. A look-ahead has the numbers of the step to come;
    /// evaluation and training may use those that depend neither on `t` nor on what is carried.
    fn moved<F: Real>(_to: Move, _h: &Self::Hyper<F>, p: F, _s: &Self::State<F>) -> F {
        p
    }

    /// Named sets of options: another library's numbers, or a paper's.
    fn presets() -> Vec<(&'static str, Self)> {
        Vec::new()
    }
    /// Options that parity, properties and expansion run, each with a name. Every option is on in one of them, and
    /// one has every term loud: defaults hide terms.
    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)>;
    /// Options that must be refused.
    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject>;
}

numbers! {
    /// Numbers of a group and clock that the skeleton uses round any rule.
    Common {
        /// -1 to ascend, else 1.
        direction,
        /// `d` of the L2 penalty.
        l2,
        /// What is multiplied by `p` and subtracted with the update.
        decay,
        /// The same, where update and parameter have one sign.
        cautious,
        /// 1 in the step in which slots that start as the parameter take it, a tensor's first; else 0.
        first,
    }
}

impl Common<f64> {
    /// The numbers of a group whose scheduled rate is `lr` and whose configured one is `lr_initial`.
    pub fn new(maximize: bool, decay: WeightDecay, lr: f64, lr_initial: f64) -> Self {
        let mut common =
            Self { direction: if maximize { -1.0 } else { 1.0 }, l2: 0.0, decay: 0.0, cautious: 0.0, first: 0.0 };
        match decay {
            WeightDecay::L2(d) => common.l2 = d,
            WeightDecay::Decoupled(d) => common.decay = lr * d,
            WeightDecay::Independent(d) => common.decay = d * lr / lr_initial,
            WeightDecay::Cautious(d) => common.cautious = lr * d,
            // The rule's own business.
            WeightDecay::None | WeightDecay::InsideMoment(_) | WeightDecay::Inside(_) | WeightDecay::Proximal(_) => {}
        }
        common
    }

    /// The numbers in the order of their names.
    pub fn values(&self) -> Vec<f64> {
        let mut values = vec![0.0; <Self as Numbers<f64>>::NAMES.len()];
        self.write(&mut values);
        values
    }

    /// Each number rounded once.
    pub fn round<F: Real>(&self) -> Common<F> {
        Common::read(&self.values().into_iter().map(F::of).collect::<Vec<_>>())
    }
}

/// One tensor's step on the CPU.
pub struct Step<'a, F> {
    /// Numbers of the skeleton.
    pub common: Common<F>,
    /// Numbers of the rule, in f64.
    pub hyper: &'a [f64],
    /// The tensor's own numbers.
    pub tensor: &'a mut [F],
    /// Parameters, updated in place.
    pub params: &'a mut [F],
    /// Gradients.
    pub grads: &'a [F],
    /// The tensor as matrices, where it has them.
    pub lines: Option<Lines>,
    /// Slots of elements, rows and columns, in the order of the rule's `State`; those that are off are empty.
    pub state: &'a mut [Vec<F>],
    /// The wrappers whose hooks run, in the order of the registry.
    pub wrappers: Vec<Around<'a, F>>,
}

/// A wrapper around a tensor's step.
pub struct Around<'a, F> {
    /// The wrapper.
    pub wrapper: &'a dyn WrapperKernel<F>,
    /// Its numbers.
    pub numbers: Vec<F>,
    /// Whether it counts elements before the update lands.
    pub counts: bool,
    /// Its slot; empty where it has none.
    pub slot: &'a mut [F],
}

/// A rule's mathematics over whole tensors: the CPU reference of one precision.
pub trait Kernel<F> {
    /// All passes of one step.
    fn step(&self, step: Step<'_, F>);
    /// A move outside a step.
    fn moved(&self, to: Move, hyper: &[f64], params: &mut [F], state: &[Vec<F>]);
}

/// What the rule calls `g`: the gradient behind the wrappers' hooks, after maximize and L2 decay.
fn prepare<F: Real>(common: &Common<F>, p: F, g: F) -> F {
    let g = common.direction * g;
    if common.l2 == F::zero() { g } else { g + common.l2 * p }
}

/// The gradients behind the wrappers' hooks.
fn behind<F: Real>(wrappers: &[Around<'_, F>], raw: &[F]) -> Vec<F> {
    let mut g = raw.to_vec();
    wrappers.iter().for_each(|around| around.wrapper.gradients(&around.numbers, &mut g));
    g
}

/// What a field of a rule's `State` is.
#[derive(Clone, Copy, PartialEq)]
enum Field {
    Element,
    StartsAsParam,
    Row,
    Column,
}

/// The way between the slots of a tensor and the state of an element.
struct Loader<F> {
    fields: Vec<Field>,
    first: bool,
    lines: Option<Lines>,
    /// What elements see of their rows.
    rows: Vec<F>,
    buffer: Vec<F>,
}

impl<F: Real> Loader<F> {
    fn new<R: Rule>(rule: &R, first: bool, lines: Option<Lines>) -> Self {
        let slots = Rule::slots(rule);
        let field = |name: &&str| match slots.iter().find(|slot| slot.name == *name) {
            Some(Slot { extent: Extent::Row, .. }) => Field::Row,
            Some(Slot { extent: Extent::Column, .. }) => Field::Column,
            Some(Slot { start: Start::Param, .. }) => Field::StartsAsParam,
            _ => Field::Element,
        };
        let fields: Vec<_> = <R::State<F> as Numbers<F>>::NAMES.iter().map(field).collect();
        let buffer = vec![F::zero(); fields.len()];
        Self { fields, first, lines, rows: vec![], buffer }
    }

    fn load<S: Numbers<F>>(&mut self, state: &[Vec<F>], i: usize, p: F) -> S {
        for ((number, slot), field) in self.buffer.iter_mut().zip(state).zip(&self.fields) {
            *number = match (field, self.lines) {
                (Field::Row, Some(lines)) => self.rows[lines.row_of(i)],
                (Field::Column, Some(lines)) => slot[lines.column_of(i)],
                (Field::StartsAsParam, _) if self.first && i < slot.len() => p,
                _ => slot.get(i).copied().unwrap_or(F::zero()),
            };
        }
        S::read(&self.buffer)
    }

    fn store<S: Numbers<F>>(&mut self, values: &S, state: &mut [Vec<F>], i: usize) {
        values.write(&mut self.buffer);
        for ((number, slot), field) in self.buffer.iter().zip(state).zip(&self.fields) {
            if let (Some(place), Field::Element | Field::StartsAsParam) = (slot.get_mut(i), field) {
                *place = *number;
            }
        }
    }

    /// From the sums over rows and columns to their numbers.
    fn finish_lines<R: Rule>(&mut self, rule: &R, h: &R::Hyper<F>, sums: &[Vec<F>; 2], state: &mut [Vec<F>]) {
        let lines = self.lines.expect("a rule with rows and columns is for tensors that have them");
        for (field, slot) in self.fields.iter().zip(state) {
            let (sums, len) = match field {
                Field::Row => (&sums[0], lines.columns),
                Field::Column => (&sums[1], lines.rows),
                Field::Element | Field::StartsAsParam => continue,
            };
            for (number, &sum) in slot.iter_mut().zip(sums) {
                *number = rule.finish_line(h, sum, F::of(len as f64), *number);
            }
            if *field == Field::Row {
                let of_matrix = |rows: &[F]| {
                    let mean = lines.mean(rows);
                    rows.iter().map(|&row| rule.finish_row(h, row, mean)).collect::<Vec<_>>()
                };
                self.rows = slot.chunks(lines.rows as usize).flat_map(of_matrix).collect();
            }
        }
    }
}

fn hyper_of<R: Rule, F: Real>(hyper: &[f64]) -> R::Hyper<F> {
    R::Hyper::<F>::read(&hyper.iter().map(|&number| F::of(number)).collect::<Vec<_>>())
}

impl<R: Rule, F: Real> Kernel<F> for R {
    fn step(&self, step: Step<'_, F>) {
        let Step { common: c, hyper, tensor, params, grads, lines, state, mut wrappers } = step;
        let h = hyper_of::<R, F>(hyper);
        let mut raw = grads.to_vec();
        let mut wrapped = behind(&wrappers, &raw);
        let mut k = R::Tensor::<F>::read(tensor);
        let mut loader = Loader::new(self, c.first != F::zero(), lines);
        let mut sums = [F::zero(); 2];
        let mut line_sums = [vec![], vec![]];
        let mut stored = false;
        for pass in self.passes() {
            match pass {
                Pass::Lines => {
                    let lines = lines.expect("a rule with rows and columns is for tensors that have them");
                    line_sums = lines.sums(|i| self.measure_line(&h, prepare(&c, params[i], wrapped[i])));
                }
                Pass::FinishLines => loader.finish_lines(self, &h, &line_sums, state),
                Pass::Sums(given) => {
                    sums = parts::tree(
                        [F::zero(); 2],
                        |a, b| given.combine.of(a, b),
                        params.len(),
                        |i| {
                            let p = params[i];
                            let mut s = loader.load::<R::State<F>>(state, i, p);
                            let g = if given.grad { prepare(&c, p, wrapped[i]) } else { F::zero() };
                            let numbers = self.measure(&h, &k, p, g, &mut s);
                            if given.stores {
                                loader.store(&s, state, i);
                            }
                            if given.pair { numbers } else { [numbers[0], F::zero()] }
                        },
                    );
                    stored |= given.stores;
                }
                Pass::Finish if params.is_empty() => {}
                Pass::Finish => self.finish(&h, sums, F::of(params.len() as f64), &mut k),
                Pass::Apply => {
                    // A rule that has stored its state in a pass of sums reads no gradient here, unless a wrapper does.
                    if stored && !wrappers.iter().any(|around| around.counts) {
                        raw = vec![F::zero(); grads.len()];
                        wrapped = behind(&wrappers, &raw);
                    }
                    let prepared: Vec<F> = params.iter().zip(&wrapped).map(|(&p, &g)| prepare(&c, p, g)).collect();
                    let mut states = Vec::with_capacity(params.len());
                    let mut updates = Vec::with_capacity(params.len());
                    for (i, &p) in params.iter().enumerate() {
                        let mut s = loader.load::<R::State<F>>(state, i, p);
                        updates.push(self.direction(&h, &k, p, prepared[i], &mut s));
                        states.push(s);
                    }
                    for Around { wrapper, numbers, counts, .. } in &wrappers {
                        let factor = if *counts { wrapper.factor(numbers, &prepared, &updates) } else { F::one() };
                        wrapper.updates(numbers, factor, &prepared, &mut updates);
                    }
                    let mut lost: Vec<bool> = raw.iter().map(|raw| raw.is_nan()).collect();
                    wrappers.iter().for_each(|around| around.wrapper.lose(&around.numbers, &raw, &mut lost));
                    let before = params.to_vec();
                    let rate = self.decay_rate(&h, &k);
                    for (i, p) in params.iter_mut().enumerate() {
                        let (u, s) = (updates[i], &mut states[i]);
                        let agree = parts::sign(u) == parts::sign(*p);
                        let decay = c.decay + if agree { c.cautious } else { F::zero() };
                        let u = if decay == F::zero() { u } else { decay * rate * *p + u };
                        let landed = self.land(&h, &k, *p, u, s);
                        *p = if lost[i] { F::nan() } else { landed };
                        if !stored {
                            loader.store(s, state, i);
                        }
                    }
                    let first = c.first != F::zero();
                    for Around { wrapper, numbers, slot, .. } in &mut wrappers {
                        wrapper.land(numbers, first, &before, params, slot);
                    }
                }
            }
        }
        k.write(tensor);
    }

    fn moved(&self, to: Move, hyper: &[f64], params: &mut [F], state: &[Vec<F>]) {
        let h = hyper_of::<R, F>(hyper);
        let mut loader = Loader::new(self, false, None);
        for (i, p) in params.iter_mut().enumerate() {
            *p = R::moved(to, &h, *p, &loader.load::<R::State<F>>(state, i, *p));
        }
    }
}

/// A rule as an object: what the registry, the config, the reference and the engine know of it.
pub trait AnyRule: Any + Kernel<f32> + Kernel<f64> + Debug + Send + Sync {
    /// [`Rule::NAME`].
    fn name(&self) -> &'static str;
    /// [`Rule::SHADER`].
    fn shader(&self) -> &'static str;
    /// [`Rule::TAKES_SIGNS`].
    fn takes_signs(&self) -> bool;
    /// [`Rule::ELEMENTWISE`], and no number of the tensor goes into it.
    fn elementwise(&self) -> bool;
    /// [`Rule::RESTS`].
    fn rests(&self) -> bool;
    /// [`Rule::MASKABLE`].
    fn is_maskable(&self) -> bool;
    /// Names of `Hyper`, `State` and `Tensor`.
    fn names(&self) -> Names;
    /// [`Rule::check`], and the decay's own bounds.
    ///
    /// # Errors
    /// [`Error::Field`], naming field, value and bound.
    fn check(&self) -> Result<()>;
    /// [`Rule::OPTIONS`].
    fn options(&self) -> &'static [&'static str];
    /// [`Rule::lr`].
    fn lr(&self) -> f64;
    /// [`Rule::weight_decay`].
    fn weight_decay(&self) -> WeightDecay;
    /// [`Rule::option`].
    fn option(&mut self, name: &str) -> Option<&mut f64>;
    /// [`Rule::constants`].
    fn constants(&self) -> Vec<(&'static str, f64)>;
    /// [`Rule::slots`].
    fn slots(&self) -> Vec<Slot>;
    /// [`Rule::passes`].
    fn passes(&self) -> Vec<Pass>;
    /// [`Rule::for_matrices`].
    fn for_matrices(&self) -> Option<Box<dyn AnyRule>>;
    /// [`Rule::moves`].
    fn moves(&self) -> &'static [Move];
    /// [`Rule::hyper`] appended to `numbers`.
    fn hyper(&self, t: u64, carried: &mut Carried, numbers: &mut Vec<f64>);
    /// [`Rule::carried`].
    fn carried(&self, t: u64) -> Carried;
    /// The options in JSON, all of them.
    fn to_json(&self) -> serde_json::Map<String, serde_json::Value>;
    /// The same rule with these fields in place of its own.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown field or a wrong type, [`Error::Field`] for a bad value.
    fn with(&self, fields: &serde_json::Map<String, serde_json::Value>) -> Result<Box<dyn AnyRule>>;
    /// The last word on a composed shader. For a harness that breaks shaders on purpose.
    #[cfg(feature = "proof")]
    #[doc(hidden)]
    fn revise(&self, text: String) -> String {
        text
    }
    /// A copy.
    fn boxed(&self) -> Box<dyn AnyRule>;
}

/// The field names of a rule's structs of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of `Hyper`.
    pub hyper: &'static [&'static str],
    /// Of `State`.
    pub state: &'static [&'static str],
    /// Of `Tensor`; empty for none.
    pub tensor: &'static [&'static str],
}

impl<R: Rule> AnyRule for R {
    fn name(&self) -> &'static str {
        R::NAME
    }
    fn shader(&self) -> &'static str {
        R::SHADER
    }
    fn takes_signs(&self) -> bool {
        R::TAKES_SIGNS
    }
    fn elementwise(&self) -> bool {
        R::ELEMENTWISE && !Rule::passes(self).contains(&Pass::Finish)
    }
    fn rests(&self) -> bool {
        R::RESTS
    }
    fn is_maskable(&self) -> bool {
        R::MASKABLE
    }
    fn names(&self) -> Names {
        Names {
            hyper: <R::Hyper<f64> as Numbers<f64>>::NAMES,
            state: <R::State<f64> as Numbers<f64>>::NAMES,
            tensor: <R::Tensor<f64> as Numbers<f64>>::NAMES,
        }
    }
    fn check(&self) -> Result<()> {
        let decay = Rule::weight_decay(self);
        if !R::DECAYS.contains(&decay.kind()) {
            let bound = format!("one of {} for {}", R::DECAYS.join(", "), R::NAME);
            return refuse("weight_decay", decay, bound);
        }
        at_least_zero(&format!("weight_decay.{}", decay.kind()), decay.amount())?;
        at_least_zero("lr", Rule::lr(self))?;
        Rule::check(self)
    }
    fn options(&self) -> &'static [&'static str] {
        R::OPTIONS
    }
    fn lr(&self) -> f64 {
        Rule::lr(self)
    }
    fn weight_decay(&self) -> WeightDecay {
        Rule::weight_decay(self)
    }
    fn option(&mut self, name: &str) -> Option<&mut f64> {
        Rule::option(self, name)
    }
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Rule::constants(self)
    }
    fn slots(&self) -> Vec<Slot> {
        Rule::slots(self)
    }
    fn passes(&self) -> Vec<Pass> {
        Rule::passes(self)
    }
    fn for_matrices(&self) -> Option<Box<dyn AnyRule>> {
        Rule::for_matrices(self)
    }
    fn moves(&self) -> &'static [Move] {
        Rule::moves(self)
    }
    fn hyper(&self, t: u64, carried: &mut Carried, numbers: &mut Vec<f64>) {
        let start = numbers.len();
        numbers.resize(start + <R::Hyper<f64> as Numbers<f64>>::NAMES.len(), 0.0);
        Rule::hyper(self, t, carried).write(&mut numbers[start..]);
    }
    fn carried(&self, t: u64) -> Carried {
        Rule::carried(self, t)
    }
    fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(fields)) => fields,
            other => unreachable!("a rule's options are an object: {other:?}"),
        }
    }
    fn with(&self, fields: &serde_json::Map<String, serde_json::Value>) -> Result<Box<dyn AnyRule>> {
        if let Some(decay) = fields.get("weight_decay") {
            // serde's text would be "expected string or map".
            if decay != "none" && decay.as_object().is_none_or(|kinds| kinds.len() != 1) {
                return refuse("weight_decay", decay, r#""none" or an object of one field, as {"l2": 0.01}"#);
            }
        }
        let mut all = AnyRule::to_json(self);
        all.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        let rule: R = serde_path_to_error::deserialize(serde_json::Value::Object(all))
            .map_err(|error| Error::Config { path: error.path().to_string(), message: error.inner().to_string() })?;
        AnyRule::check(&rule)?;
        Ok(Box::new(rule))
    }
    fn boxed(&self) -> Box<dyn AnyRule> {
        Box::new(self.clone())
    }
}

/// The arithmetic of a reference: f32, as on the GPU, or f64.
pub trait Precision: Real {
    /// The rule's mathematics in it.
    fn kernel(rule: &dyn AnyRule) -> &dyn Kernel<Self>;
    /// The wrapper's.
    fn hooks(wrapper: &dyn AnyWrapper) -> &dyn WrapperKernel<Self>;
}

impl Precision for f32 {
    fn kernel(rule: &dyn AnyRule) -> &dyn Kernel<Self> {
        rule
    }
    fn hooks(wrapper: &dyn AnyWrapper) -> &dyn WrapperKernel<Self> {
        wrapper
    }
}

impl Precision for f64 {
    fn kernel(rule: &dyn AnyRule) -> &dyn Kernel<Self> {
        rule
    }
    fn hooks(wrapper: &dyn AnyWrapper) -> &dyn WrapperKernel<Self> {
        wrapper
    }
}

impl dyn AnyRule {
    /// Whether each step needs a look-ahead before its gradients are computed.
    pub fn needs_look_ahead(&self) -> bool {
        self.moves().contains(&Move::LookAhead)
    }

    /// One of its options. A decay of kind none has no number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.boxed().option(name).copied()
    }

    /// Whether this is one of its [`options`](AnyRule::options); else the text that says so.
    pub(crate) fn check_option(&self, name: &str) -> std::result::Result<(), String> {
        let (options, rule) = (self.options(), self.name());
        let known = || format!("is not an option that may change; those of {rule} are {}", options.join(", "));
        if options.contains(&name) { Ok(()) } else { Err(known()) }
    }

    /// The same rule with other numbers for some of its [`options`](AnyRule::options); `weight_decay` keeps its kind.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is no such option, [`Error::Field`] for a value outside its bound or one that
    /// would need another pipeline or other state.
    pub fn with_options(&self, options: &[(&str, f64)]) -> Result<Box<dyn AnyRule>> {
        let mut rule = self.boxed();
        for &(name, value) in options {
            if !value.is_finite() {
                return refuse(name, value, "finite");
            }
            self.check_option(name).map_err(|message| Error::Config { path: name.into(), message })?;
            match rule.option(name) {
                Some(option) => *option = value,
                None => return refuse(name, value, "left alone where it is none"),
            }
        }
        rule.check()?;
        if rule.constants() != self.constants() || rule.slots() != self.slots() {
            let (names, values): (Vec<_>, Vec<_>) =
                options.iter().map(|(name, value)| (*name, value.to_string())).unzip();
            let bound = "a value that needs no other pipeline or state than at creation";
            return refuse(names.join(", "), values.join(", "), bound);
        }
        Ok(rule)
    }

    /// Whether it has numbers of rows and columns.
    pub fn has_lines(&self) -> bool {
        self.slots().iter().any(|slot| slot.extent.is_line())
    }

    /// The passes of sums.
    pub fn sums(&self) -> impl Iterator<Item = Sums> {
        self.passes().into_iter().filter_map(|pass| match pass {
            Pass::Sums(sums) => Some(sums),
            _ => None,
        })
    }

    /// Whether a pass of sums stores the state.
    pub fn stores_early(&self) -> bool {
        self.sums().any(|sums| sums.stores)
    }

    /// How often a step reads each gradient; `counts` says whether a wrapper counts elements before the update lands.
    pub fn grad_reads(&self, counts: bool) -> u64 {
        let reads = |pass: &Pass| match pass {
            Pass::Sums(sums) => sums.grad,
            Pass::Lines => true,
            Pass::Finish | Pass::FinishLines => false,
            Pass::Apply => counts || !self.stores_early(),
        };
        self.passes().iter().filter(|pass| reads(pass)).count() as u64 + u64::from(counts)
    }

    /// Bytes that a step reads and writes of each element in f32; numbers of rows and columns are beside them. `counts`
    /// says whether a wrapper counts elements before the update lands, from all that the update reads.
    pub fn bytes_per_element(&self, counts: bool) -> u64 {
        let slots = self.slots().iter().filter(|slot| slot.extent == Extent::Element).count() as u64;
        let l2 = matches!(self.weight_decay(), WeightDecay::L2(_));
        let numbers = |pass| match pass {
            Pass::Sums(Sums { param, grad, state, stores, .. }) => {
                u64::from(param || (l2 && grad)) + u64::from(grad) + slots * (u64::from(state) + u64::from(stores))
            }
            Pass::Lines => 1 + u64::from(l2),
            Pass::Finish | Pass::FinishLines => 0,
            Pass::Apply if self.stores_early() => 2 + u64::from(counts) + slots,
            Pass::Apply => 3 + 2 * slots,
        };
        let counted = if counts { 2 + slots } else { 0 };
        4 * (self.passes().into_iter().map(numbers).sum::<u64>() + counted)
    }
}

impl Clone for Box<dyn AnyRule> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// Rules with a name each.
pub type Named = Vec<(&'static str, Box<dyn AnyRule>)>;

/// An entry of the registry: what is known of a rule without options.
#[derive(Clone, Copy)]
pub struct RuleEntry {
    /// [`Rule::NAME`].
    pub name: &'static str,
    /// [`Rule::SUMMARY`].
    pub summary: &'static str,
    /// The rule's type, and that of its form for matrices: shaders of these types alone run without wgpu's checks.
    pub types: fn() -> Vec<TypeId>,
    /// [`Rule::DECAYS`].
    pub decays: &'static [&'static str],
    /// The rule with its default options.
    pub default: fn() -> Box<dyn AnyRule>,
    /// [`Rule::presets`].
    pub presets: fn() -> Named,
    /// [`Rule::cases`].
    #[cfg(feature = "proof")]
    pub cases: fn() -> Named,
    /// [`Rule::rejects`].
    #[cfg(feature = "proof")]
    pub rejects: fn() -> Vec<Reject>,
}

impl RuleEntry {
    /// The entry of a rule.
    pub const fn of<R: Rule>() -> Self {
        fn boxed<R: Rule>(named: Vec<(&'static str, R)>) -> Named {
            named.into_iter().map(|(name, rule)| (name, Box::new(rule) as Box<dyn AnyRule>)).collect()
        }
        Self {
            name: R::NAME,
            summary: R::SUMMARY,
            types: || {
                let matrices = Rule::for_matrices(&R::default()).map(|rule| (&*rule as &dyn Any).type_id());
                matrices.into_iter().chain([TypeId::of::<R>()]).collect()
            },
            decays: R::DECAYS,
            default: || Box::new(R::default()),
            presets: || boxed(R::presets()),
            #[cfg(feature = "proof")]
            cases: || boxed(R::cases()),
            #[cfg(feature = "proof")]
            rejects: R::rejects,
        }
    }
}

impl Debug for RuleEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleEntry").field("name", &self.name).finish_non_exhaustive()
    }
}
