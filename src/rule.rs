//! What an optimizer signs: the trait [`Rule`], and what it names: slots, passes, sums, moves, and the macros that
//! declare numbers and options. What follows from the contract is in `src/rule/`: a rule as an object, the CPU
//! executor, and an entry of the registry.

use std::any::{Any, TypeId};
use std::fmt::Debug;

pub use crate::decay::WeightDecay;
use crate::error::Result;
pub use crate::error::{above_zero, at_least_zero, below_one, refuse};
pub use crate::fields::{Field, Fields};
pub use crate::line_search::Stopping;
use crate::parts::{Combine, Real};
pub use crate::product::Product;
pub use crate::sides::{Renewal, Sides, Turning};

mod entry;
pub(crate) mod kernel;
mod object;
pub(crate) mod step;

pub use entry::{Named, RuleEntry};
pub(crate) use kernel::Kernels;
#[cfg(feature = "reference")]
pub(crate) use kernel::Precision;
pub use object::{AnyRule, Names};
pub(crate) use step::{Coded, Common, Step, WrapperStep};

/// A struct of numbers that a shader knows by the same field names in the same order.
pub trait Numbers<F>: Copy {
    /// The fields' names.
    const NAMES: &'static [&'static str];
    /// Makes the struct from as many numbers as there are names.
    fn read(values: &[F]) -> Self;
    /// Returns the struct's numbers, as many as there are names.
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
        #[allow(missing_docs, reason = "a number that needs no more words than its name")]
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

/// The methods of [`Rule`](crate::rule::Rule) that hand out options: the numeric ones, `lr` among them; behind the
/// semicolon the decay, and perhaps some `Option<f64>`, which may be none.
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

/// Names the fields of a struct of options in the order of JSON, and implements [`Fields`](crate::rule::Fields) and
/// serde's traits for it: a field that JSON leaves out has its default, and one that is unknown is refused.
#[macro_export]
macro_rules! fields {
    ($name:ident $(<$(const $flag:ident: bool),+>)?: $($field:ident),+) => {
        const _: () = {
            use std::result::Result;

            use $crate::rule::serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
            use $crate::rule::{Field, Fields};

            impl $(<$(const $flag: bool),+>)? Fields for $name $(<$($flag),+>)? {
                fn field_names(&self) -> &'static [&'static str] {
                    &[$(stringify!($field)),+]
                }
                fn field(&mut self, name: &str) -> Option<&mut dyn Field> {
                    let Self { $($field),+ } = self;
                    match name {
                        $(stringify!($field) => Some($field),)+
                        _ => None,
                    }
                }
            }

            impl $(<$(const $flag: bool),+>)? Serialize for $name $(<$($flag),+>)? {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    let fields: &mut dyn Fields = &mut Clone::clone(self);
                    fields.values().serialize(serializer)
                }
            }

            impl<'de $($(, const $flag: bool)+)?> Deserialize<'de> for $name $(<$($flag),+>)? {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let mut options = Self::default();
                    let fields: &mut dyn Fields = &mut options;
                    fields.set(&Deserialize::deserialize(deserializer)?).map_err(D::Error::custom)?;
                    Ok(options)
                }
            }
        };
    };
}
#[doc(hidden)] // for `fields!`
pub use serde;
pub use {fields, numbers, options};

/// What one number of a state slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// One number per element: a field of the rule's `State`.
    Element,
    /// One number per tensor: a field of the rule's `Tensor`.
    Tensor,
    /// One number for all tensors together: a field of the `Tensor` of a rule that [sums over the
    /// model](Pass::FinishModel). Asked of any tensor, it is the same number.
    Model,
    /// What the last [product](Pass::Product), or the way [back](Turning::Back) from the bases, has at the element's
    /// place: a field of the rule's `State`, and no state.
    Product,
    /// The gradient in the bases, at the element's place: a field of the `State` of a rule with [sides](Sides), and no
    /// state.
    Turned,
    /// One number per row of a tensor of [matrices](Rule::for_matrices): a field of the rule's `State`, in which an
    /// element finds what [`finish_row`](Rule::finish_row) made of it.
    Row,
    /// One number per column of a matrix: a field of the rule's `State`, the same for all elements of the column.
    Column,
    /// One number per index of the first dimension of a tensor of rank 2 and more, as of a row: the tensor is one
    /// matrix then. A rule that has such a slot has none per row or column.
    Leading,
    /// So many numbers an element, of a rule with a [history](Pass::Inner): one of each pair that is kept.
    History(usize),
    /// The inner products of a history of so many pairs, for all tensors together: of each movement with each change of
    /// the gradient, then of the changes with each other.
    Products(usize),
    /// A square matrix for each [side](Sides) of a tensor, one behind the other. A rule that has such a slot has two:
    /// the Gram matrices `gram`, then the bases `basis`.
    Sides(Sides),
}

impl Extent {
    /// Numbers of each element that the slot has in a block of state.
    pub fn of_element(self) -> usize {
        match self {
            Self::Element => 1,
            Self::History(pairs) => pairs,
            _ => 0,
        }
    }

    /// Whether the numbers live from step to step.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Product | Self::Turned)
    }

    /// Whether the slot has numbers of rows or of columns of a matrix.
    pub fn is_line(self) -> bool {
        matches!(self, Self::Row | Self::Column | Self::Leading)
    }

    /// The shape that the slot has for a tensor of this shape.
    pub fn shape(self, tensor: &[usize]) -> Vec<usize> {
        let mut shape = tensor.to_vec();
        match (self, &mut shape[..]) {
            (Self::Tensor | Self::Model, _) => return vec![],
            (Self::Products(pairs), _) => return vec![2, pairs, pairs],
            (Self::History(pairs), _) => return [&[pairs], tensor].concat(),
            (Self::Sides(sides), _) => return vec![sides.numbers(tensor)],
            (Self::Row, [.., columns]) => *columns = 1,
            (Self::Column, [.., rows, _]) => *rows = 1,
            (Self::Leading, [_, others @ ..]) => others.iter_mut().for_each(|dim| *dim = (*dim).min(1)),
            _ => {}
        }
        shape
    }
}

/// The value that a slot has before a tensor's first step. A rule has no other way to know its first step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// This number.
    Value(f64),
    /// The parameter, as the first step finds it. Until then the slot reads as 0.
    Param,
}

/// One kind of state that lives from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The field's name in `State` or `Tensor`.
    pub name: &'static str,
    /// What has a number: each element, tensor, row, column or index of the first dimension, or the model.
    pub extent: Extent,
    /// The value before the first step.
    pub start: Start,
    /// Whether the number is never negative, as a mean of squares is.
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

    /// A number of the whole model that starts at 0.
    pub const fn model(name: &'static str) -> Self {
        Self { extent: Extent::Model, ..Self::element(name) }
    }

    /// What the last product has at an element's place.
    pub const fn product(name: &'static str) -> Self {
        Self { extent: Extent::Product, ..Self::element(name) }
    }

    /// The gradient in the bases, at an element's place.
    pub const fn turned(name: &'static str) -> Self {
        Self { extent: Extent::Turned, ..Self::element(name) }
    }

    /// A number per row that starts at 0.
    pub const fn row(name: &'static str) -> Self {
        Self { extent: Extent::Row, ..Self::element(name) }
    }

    /// A number per column that starts at 0.
    pub const fn column(name: &'static str) -> Self {
        Self { extent: Extent::Column, ..Self::element(name) }
    }

    /// A number per index of the first dimension that starts at 0.
    pub const fn leading(name: &'static str) -> Self {
        Self { extent: Extent::Leading, ..Self::element(name) }
    }

    /// So many numbers an element that start at 0: one of each pair of a history.
    pub const fn history(name: &'static str, pairs: usize) -> Self {
        Self { extent: Extent::History(pairs), ..Self::element(name) }
    }

    /// The inner products of a history of so many pairs, which start at 0.
    pub const fn products(name: &'static str, pairs: usize) -> Self {
        Self { extent: Extent::Products(pairs), ..Self::element(name) }
    }

    /// A matrix for each side of a tensor, whose elements start at 0.
    pub const fn sides(name: &'static str, sides: Sides) -> Self {
        Self { extent: Extent::Sides(sides), ..Self::element(name) }
    }

    /// The same slot, whose numbers are never negative.
    pub const fn nonnegative(self) -> Self {
        Self { nonnegative: true, ..self }
    }

    /// The same slot, which starts at another number.
    pub const fn starting_at(self, start: f64) -> Self {
        Self { start: Start::Value(start), ..self }
    }

    /// The same slot, which starts as the parameter.
    pub const fn starting_as_param(self) -> Self {
        Self { start: Start::Param, ..self }
    }
}

/// One pass over the tensors. A step runs a rule's passes in order. Each takes one dispatch a window, but `Finish` one
/// dispatch in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// `measure_line` of every element, added up over its row and, where a slot has numbers of columns, over its
    /// column. Of a rule [for matrices](Rule::for_matrices) with a slot of lines.
    Lines,
    /// `finish_line`, once per row and column, then `finish_row`.
    FinishLines,
    /// `measure` of every element, combined over the tensor.
    Sums(Sums),
    /// `finish`, once per tensor.
    Finish,
    /// The sums of each tensor, of a rule that goes on with [`FinishModel`](Self::FinishModel).
    FinishSums,
    /// The sums of all tensors that take part, and `finish`, once with them. The rule's `Tensor` is one for the whole
    /// model then, and its [constants](Rule::constants) are the same in all groups.
    FinishModel,
    /// `spread` of every element, into the matrix that products start from. Of a rule with a [slot](Slot::product) for
    /// the element of the last product, whose tensors have rank 2 and more: each is one matrix, a row for each index of
    /// the first dimension. In a rule with [sides](Slot::sides) it goes into what turns start from, beside the
    /// gradient, and tensors have any rank.
    Spread,
    /// One product of the matrices of all tensors.
    Product(Product),
    /// `gram` of each element of the Gram matrices of all [sides](Slot::sides).
    Grams,
    /// A turn along each side, one side behind the other. It takes a dispatch for each side of the tensor that has
    /// most. The one of the power iteration is left to steps that take one.
    Turn(Turning),
    /// `weigh` of every element, in the bases.
    Weigh,
    /// New bases of all sides, where `renewal` asks for them: in rounds of dispatches, as many as the largest side asks
    /// for, which other steps do without.
    Bases,
    /// The inner products of the gradient, of the last step's movement and of the change of the gradient with each
    /// other and with the pairs of a [history](Slot::history), over the elements of each tensor.
    Inner,
    /// Those of all chunks of a tensor added up, a tensor at a time.
    FinishInner,
    /// Those of all tensors added up, and the recursion over the pairs, which ends with `finish`, once.
    Recursion,
    /// The direction of each element from the pairs, and the new pair.
    Recall,
    /// `direction` and `land` of every element.
    Apply,
}

impl Pass {
    /// Whether it goes over the [sides](Slot::sides) of tensors, so that a tensor without sides takes none of it.
    pub fn is_over_sides(self) -> bool {
        matches!(self, Self::Grams | Self::Turn(_) | Self::Bases)
    }
}

/// What `measure` is given in a pass of sums, and how the GPU combines its numbers. What `measure` is not given is 0,
/// and the walk does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sums {
    /// How the numbers of two elements become one.
    pub combine: Combine,
    /// Whether the second number of `measure` counts. If not, it counts as 0, and its sum costs nothing.
    pub pair: bool,
    /// Whether `measure` sees the parameter. With L2 decay the walk reads the parameter in any case.
    pub param: bool,
    /// Whether `measure` sees the gradient.
    pub grad: bool,
    /// Whether `measure` sees the state.
    pub state: bool,
    /// Whether the walk comes behind products: it calls `measure_product`, and the finish behind it `finish_product`.
    pub product: bool,
    /// Whether the walk stores the state that `measure` leaves. The update then stores no state and reads no gradient:
    /// it gets a gradient of 0.
    pub stores: bool,
}

impl Sums {
    /// Sums over the gradient alone.
    pub const GRADS: Self = Self {
        combine: Combine::Add,
        pair: false,
        param: false,
        grad: true,
        state: false,
        product: false,
        stores: false,
    };
}

/// Values that a rule carries from step to step beside `t`, in f64: one set a clock, 0 before the first step.
pub type Carried = [f64; 2];

/// A move of the parameters outside a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// To where the caller is to compute the gradient, before each step.
    LookAhead,
    /// To where the caller is to evaluate the model.
    Evaluation,
    /// Back from evaluation.
    Training,
    /// Along the direction, as far as the learning rate of the move says: a trial of a line search.
    Trial,
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
pub trait Rule: Clone + Debug + Default + PartialEq + Fields + Send + Sync + Sized + 'static {
    /// The name in JSON, in labels and in tables.
    const NAME: &'static str;
    /// The formula in one line and its source, for the README's table.
    const SUMMARY: &'static str;
    /// The twin's text.
    const SHADER: &'static str;
    /// The kinds of weight decay that the rule takes.
    const DECAYS: &'static [&'static str] = WeightDecay::GENERAL;
    /// Whether a rounding can turn the sign of a whole update.
    const TAKES_SIGNS: bool = false;
    /// Whether an element's update depends on that element alone.
    const ELEMENTWISE: bool = true;
    /// Whether parameters without decay stay where they are while all gradients are 0.
    const RESTS: bool = true;
    /// Whether a wrapper may drop an element's update. It may not where an average of the parameters goes with the
    /// update.
    const MASKABLE: bool = true;

    /// Numbers of a group at one `t`.
    type Hyper<F: Real>: Numbers<F>;
    /// Numbers of an element: all slots that there can be. Those that are off stay 0.
    type State<F: Real>: Numbers<F>;
    /// Numbers of a tensor, kept or derived; `()` for none.
    type Tensor<F: Real>: Numbers<F>;

    /// Refuses options outside their bounds, and combinations of options that have no meaning.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    fn check(&self) -> Result<()>;

    /// The options that may be set between steps or follow a schedule.
    const OPTIONS: &'static [&'static str];
    /// The learning rate.
    fn lr(&self) -> f64;
    /// The decay.
    fn weight_decay(&self) -> WeightDecay;
    /// The fields that groups may not set, since they belong to the whole model.
    const MODEL_FIELDS: &'static [&'static str] = &[];
    /// One of [`OPTIONS`](Self::OPTIONS), to be set. An option whose value is none has no number to set: a weight decay
    /// of kind none, or an `Option` that is `None`.
    fn option(&mut self, name: &str) -> Option<&mut f64>;

    /// The values of the shader's `override` constants. Options that differ here need a pipeline each.
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
    /// The rule in place of [`for_matrices`](Self::for_matrices) where each matrix is a single element, as in
    /// convolutions with kernels of 1x1: the numbers of rows and columns are slots of elements then, of the same names.
    fn for_pointwise(&self) -> Option<Box<dyn AnyRule>> {
        None
    }
    /// The rule's type, and those of its forms for matrices.
    fn types() -> Vec<TypeId> {
        let rule = Self::default();
        let forms = [rule.for_matrices(), rule.for_pointwise()].into_iter().flatten();
        forms.map(|form| (&*form as &dyn Any).type_id()).chain([TypeId::of::<Self>()]).collect()
    }
    /// The moves that the rule makes outside a step. With [`Move::LookAhead`] each step needs one before its gradients
    /// are computed.
    fn moves(&self) -> &'static [Move] {
        &[]
    }

    /// When to stop, of a rule whose steps look for their length. It has a [history](Pass::Inner) and makes
    /// [`Move::Trial`].
    fn line_search(&self) -> Option<Stopping> {
        None
    }

    /// The numbers of step `t`, counted from 1, in f64; the host rounds each to f32 once. The function also advances
    /// the carried values from those after step `t-1` to those after step `t`.
    fn hyper(&self, t: u64, carried: &mut Carried) -> Self::Hyper<f64>;
    /// The carried values after `t` steps with these options.
    fn carried(&self, _t: u64) -> Carried {
        Carried::default()
    }

    /// The element of the matrix that [products](Pass::Product) start from. `g` is the prepared gradient.
    fn spread<F: Real>(&self, _h: &Self::Hyper<F>, _k: &Self::Tensor<F>, g: F, _s: &Self::State<F>) -> F {
        g
    }
    /// The new element of a Gram matrix, from the product of two slices of the gradient and its old number.
    fn gram<F: Real>(&self, _h: &Self::Hyper<F>, _sum: F, old: F) -> F {
        old
    }
    /// What goes back from the bases, of an element of what was spread, `x`, and of the gradient, `g`, there.
    fn weigh<F: Real>(&self, _h: &Self::Hyper<F>, x: F, _g: F, _s: &Self::State<F>) -> F {
        x
    }
    /// What becomes of the bases: 0 where they stay, 1 where they become the eigenvectors of the Gram matrices, 2 where
    /// they take a step of the power iteration.
    fn renewal<F: Real>(&self, _h: &Self::Hyper<F>) -> F {
        F::zero()
    }
    /// What a pass over lines adds up over each row and column. `g` is the prepared gradient; behind products it is
    /// what the last one has.
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
    /// Makes the tensor's own numbers from the combined ones. With [`Pass::FinishModel`] these are combined over the
    /// model, and `len` is 1.
    fn finish<F: Real>(&self, _h: &Self::Hyper<F>, _sums: [F; 2], _len: F, _k: &mut Self::Tensor<F>) {}
    /// As [`measure`](Self::measure), but of what the last product has.
    fn measure_product<F: Real>(&self, _h: &Self::Hyper<F>, _k: &Self::Tensor<F>, _s: &Self::State<F>) -> [F; 2] {
        [F::zero(); 2]
    }
    /// As [`finish`](Self::finish), of what `measure_product` measured.
    fn finish_product<F: Real>(&self, _h: &Self::Hyper<F>, _sums: [F; 2], _len: F, _k: &mut Self::Tensor<F>) {}
    /// Sets the tensor's numbers that follow from its rows and columns, in a rule with products. It is called before
    /// `finish`.
    fn of_shape<F: Real>(&self, _h: &Self::Hyper<F>, _rows: F, _columns: F, _k: &mut Self::Tensor<F>) {}
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
    /// one has every term loud: defaults hide terms. Without cases of its own a rule still compiles where another crate
    /// asks for the feature `proof`.
    #[cfg(feature = "proof")]
    fn cases() -> Vec<(&'static str, Self)> {
        vec![("default", Self::default())]
    }
    /// Options that must be refused.
    #[cfg(feature = "proof")]
    fn rejects() -> Vec<Reject> {
        Vec::new()
    }
}
