//! The CPU executor: it runs a rule's passes over whole tensors, as the walks do on the GPU, in f32 or f64.

use super::{AnyRule, Common, Extent, Move, Numbers, Pass, Rule, Slot, Start, Step, WrapperStep};
use crate::history::{self, Factors, Inner};
use crate::lines::Lines;
use crate::parts::{self, Combine, Real};
use crate::product::Iteration;
use crate::sides::{self, Side, Turning};
use crate::wrapper::{AnyWrapper, WrapperKernel};

/// A rule's mathematics over whole tensors: the CPU reference of one precision.
pub trait Kernel<F> {
    /// Runs all passes of one step.
    fn step(&self, step: Step<'_, F>);
    /// Runs all passes of one step of a rule that [sums over the model](Pass::FinishModel), for the tensors that take
    /// part, each with its place in the list. `model` has the numbers of the model.
    fn step_model(&self, steps: Vec<(usize, Step<'_, F>)>, model: &mut [F]);
    /// Makes a move outside a step.
    fn moved(&self, to: Move, hyper: &[f64], params: &mut [F], state: &[Vec<F>]);
}

/// What the rule calls `g`: the gradient that the wrappers' hooks left, after maximize and L2 decay.
fn prepare<F: Real>(common: &Common<F>, p: F, g: F) -> F {
    let g = common.sign * g;
    if common.l2 == F::zero() { g } else { g + common.l2 * p }
}

/// The gradients that the wrappers' hooks make of the raw ones.
fn behind<F: Real>(wrappers: &[WrapperStep<'_, F>], raw: &[F]) -> Vec<F> {
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
    Product,
    Turned,
}

/// Loads the state of an element from the slots of its tensor, and stores it there.
struct Loader<F> {
    fields: Vec<Field>,
    first: bool,
    lines: Option<Lines>,
    /// What the elements of each row see of its number.
    rows: Vec<F>,
    /// What the last product has.
    product: Vec<F>,
    /// The gradient in the bases.
    turned: Vec<F>,
    buffer: Vec<F>,
}

impl<F: Real> Loader<F> {
    fn new<R: Rule>(rule: &R, first: bool, lines: Option<Lines>) -> Self {
        let slots = Rule::slots(rule);
        let field = |name: &&str| match slots.iter().find(|slot| slot.name == *name) {
            Some(Slot { extent: Extent::Row | Extent::Leading, .. }) => Field::Row,
            Some(Slot { extent: Extent::Column, .. }) => Field::Column,
            Some(Slot { extent: Extent::Product, .. }) => Field::Product,
            Some(Slot { extent: Extent::Turned, .. }) => Field::Turned,
            Some(Slot { start: Start::Param, .. }) => Field::StartsAsParam,
            _ => Field::Element,
        };
        let fields: Vec<_> = <R::State<F> as Numbers<F>>::NAMES.iter().map(field).collect();
        let buffer = vec![F::zero(); fields.len()];
        Self { fields, first, lines, rows: vec![], product: vec![], turned: vec![], buffer }
    }

    fn load<S: Numbers<F>>(&mut self, state: &[Vec<F>], i: usize, p: F) -> S {
        for ((number, slot), field) in self.buffer.iter_mut().zip(state).zip(&self.fields) {
            *number = match (field, self.lines) {
                // Before the lines are finished, there is nothing yet that elements could see of their rows.
                (Field::Row, Some(lines)) => self.rows.get(lines.row_of(i)).copied().unwrap_or(F::zero()),
                (Field::Column, Some(lines)) => slot[lines.column_of(i)],
                (Field::Product, _) => self.product.get(i).copied().unwrap_or(F::zero()),
                (Field::Turned, _) => self.turned.get(i).copied().unwrap_or(F::zero()),
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

    /// Makes the new numbers of rows and columns from the sums over them.
    fn finish_lines<R: Rule>(&mut self, rule: &R, h: &R::Hyper<F>, sums: &[Vec<F>; 2], state: &mut [Vec<F>]) {
        let lines = self.lines.expect("a rule with rows and columns is for tensors that have them");
        for (field, slot) in self.fields.iter().zip(state) {
            let (sums, len) = match field {
                Field::Row => (&sums[0], lines.columns),
                Field::Column => (&sums[1], lines.rows),
                Field::Element | Field::StartsAsParam | Field::Product | Field::Turned => continue,
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

/// A tensor's step between two of its passes.
struct Running<'a, R: Rule, F: Real> {
    rule: &'a R,
    step: Step<'a, F>,
    h: R::Hyper<F>,
    k: R::Tensor<F>,
    /// Gradients as they lie in memory, and as the wrappers' hooks leave them.
    raw: Vec<F>,
    wrapped: Vec<F>,
    loader: Loader<F>,
    sums: [F; 2],
    line_sums: [Vec<F>; 2],
    /// Whether a pass of sums has stored the state.
    stored: bool,
    iteration: Iteration<F>,
    /// What was spread and the gradient, on their way into the bases; then what was weighed, on its way back.
    turning: Vec<Vec<F>>,
    /// Whether the last sums are of the product.
    of_product: bool,
    /// The inner products of the rows of a history.
    inner: Vec<Inner<F>>,
    /// What the direction is made of.
    factors: Factors<F>,
}

impl<'a, R: Rule, F: Real> Running<'a, R, F> {
    fn new(rule: &'a R, step: Step<'a, F>) -> Self {
        let raw = step.grads.to_vec();
        Self {
            h: hyper_of::<R, F>(step.hyper),
            k: R::Tensor::<F>::read(step.tensor),
            wrapped: behind(&step.wrappers, &raw),
            raw,
            loader: Loader::new(rule, step.common.first != F::zero(), step.lines),
            sums: [F::zero(); 2],
            line_sums: [vec![], vec![]],
            stored: false,
            iteration: Iteration::default(),
            turning: vec![],
            of_product: false,
            inner: vec![],
            factors: Factors::default(),
            rule,
            step,
        }
    }

    fn pass(&mut self, pass: Pass) {
        let Self {
            rule,
            step,
            h,
            k,
            raw,
            wrapped,
            loader,
            sums,
            line_sums,
            stored,
            iteration,
            of_product,
            turning,
            ..
        } = self;
        let Step { common: c, params, grads, stored: format, lines, sides, state, wrappers, .. } = step;
        match pass {
            Pass::Lines | Pass::FinishLines | Pass::Spread | Pass::Product(_) if params.is_empty() => {}
            Pass::Grams | Pass::Turn(_) | Pass::Weigh | Pass::Bases if params.is_empty() => {}
            Pass::Lines => {
                let lines = lines.expect("a rule with rows and columns is for tensors that have them");
                let seen = |i: usize| match loader.product.get(i) {
                    Some(&product) => product,
                    None => prepare(c, params[i], wrapped[i]),
                };
                *line_sums = lines.sums(|i| rule.measure_line(h, seen(i)));
            }
            Pass::FinishLines => loader.finish_lines(*rule, h, line_sums, state),
            Pass::Sums(given) => {
                *sums = parts::tree(
                    [F::zero(); 2],
                    |a, b| given.combine.of(a, b),
                    params.len(),
                    |i| {
                        let p = params[i];
                        let mut s = loader.load::<R::State<F>>(state, i, p);
                        let g = if given.grad { prepare(c, p, wrapped[i]) } else { F::zero() };
                        let numbers = match given.product {
                            true => rule.measure_product(h, k, &s),
                            false => rule.measure(h, k, p, g, &mut s),
                        };
                        if given.stores {
                            loader.store(&s, state, i);
                        }
                        if given.pair { numbers } else { [numbers[0], F::zero()] }
                    },
                );
                *stored |= given.stores;
                *of_product = given.product;
                if given.stores {
                    self.step.round_state();
                }
            }
            Pass::Finish if params.is_empty() => {}
            Pass::Finish => {
                let len = F::of(params.len() as f64);
                if *of_product {
                    return rule.finish_product(h, *sums, len, k);
                }
                if let Some(Lines { rows, columns, .. }) = lines {
                    rule.of_shape(h, F::of(*rows as f64), F::of(*columns as f64), k);
                }
                rule.finish(h, *sums, len, k);
            }
            Pass::Spread if (*rule as &dyn AnyRule).sides().is_some() => {
                let grads: Vec<F> = params.iter().zip(&*wrapped).map(|(&p, &g)| prepare(c, p, g)).collect();
                let spread = |(i, &g)| rule.spread(h, k, g, &loader.load::<R::State<F>>(state, i, params[i]));
                *turning = vec![grads.iter().enumerate().map(spread).collect(), grads];
            }
            Pass::Grams => {
                for_matrices(sides, &mut state[field::<R>("gram")], |side, gram| {
                    let sums = sides::gram(side, &turning[1]);
                    gram.iter_mut().zip(sums).for_each(|(number, sum)| *number = rule.gram(h, sum, *number));
                });
            }
            Pass::Turn(Turning::Power) => {}
            Pass::Turn(to) => {
                for_matrices(sides, &mut state[field::<R>("basis")], |side, basis| {
                    for elements in turning.iter_mut() {
                        *elements = sides::turn(side, elements, basis, to == Turning::Into);
                    }
                });
                if to == Turning::Back {
                    loader.product = turning.remove(0);
                }
            }
            Pass::Weigh => {
                loader.turned = turning.remove(1);
                for (i, x) in turning[0].iter_mut().enumerate() {
                    let s = loader.load::<R::State<F>>(state, i, params[i]);
                    *x = rule.weigh(h, *x, loader.turned[i], &s);
                }
            }
            Pass::Bases => {
                let renewal = rule.renewal(h);
                let grams = state[field::<R>("gram")].clone();
                let mut first = 0;
                for_matrices(sides, &mut state[field::<R>("basis")], |side, basis| {
                    let (size, gram) = (side.size as usize, &grams[first..first + basis.len()]);
                    first += basis.len();
                    if renewal == F::one() {
                        basis.copy_from_slice(&sides::eigenvectors(gram, size));
                    } else if renewal != F::zero() {
                        let draft = sides::turn(Side::of_matrix(side.size), basis, gram, true);
                        basis.copy_from_slice(&sides::orthogonal(draft, basis, size));
                    }
                });
            }
            Pass::Spread => {
                let lines = lines.expect("a rule with products is for tensors that are matrices");
                let spread = |i: usize| {
                    let s = loader.load::<R::State<F>>(state, i, params[i]);
                    rule.spread(h, k, prepare(c, params[i], wrapped[i]), &s)
                };
                *iteration = Iteration::start(&lines, (0..params.len()).map(spread).collect());
            }
            Pass::Product(product) => {
                let lines = lines.expect("a rule with products is for tensors that are matrices");
                iteration.take(&lines, product);
                loader.product = iteration.elements(&lines);
            }
            // On the CPU the pass of sums has combined a tensor's sums already, and `step_model` combines the model's.
            Pass::FinishSums | Pass::FinishModel | Pass::FinishInner | Pass::Recursion => {}
            Pass::Inner => self.take_inner(),
            Pass::Recall => self.recall(),
            Pass::Apply => {
                // A rule that has stored its state in a pass of sums reads no gradient here, unless a wrapper does.
                if *stored && !wrappers.iter().any(|around| around.counts) {
                    *raw = vec![F::zero(); grads.len()];
                    *wrapped = behind(wrappers, raw);
                }
                let prepared: Vec<F> = params.iter().zip(&*wrapped).map(|(&p, &g)| prepare(c, p, g)).collect();
                let mut states = Vec::with_capacity(params.len());
                let mut updates = Vec::with_capacity(params.len());
                for (i, &p) in params.iter().enumerate() {
                    let mut s = loader.load::<R::State<F>>(state, i, p);
                    updates.push(rule.direction(h, k, p, prepared[i], &mut s));
                    states.push(s);
                }
                for WrapperStep { wrapper, numbers, counts, .. } in &*wrappers {
                    let factor = if *counts { wrapper.factor(numbers, &prepared, &updates) } else { F::one() };
                    wrapper.updates(numbers, factor, &prepared, &mut updates);
                }
                let mut lost: Vec<bool> = raw.iter().map(|raw| raw.is_nan()).collect();
                wrappers.iter().for_each(|around| around.wrapper.lose(&around.numbers, raw, &mut lost));
                let before = params.to_vec();
                let rate = rule.decay_rate(h, k);
                for (i, p) in params.iter_mut().enumerate() {
                    let (u, s) = (updates[i], &mut states[i]);
                    let agree = parts::sign(u) == parts::sign(*p);
                    let decay = c.decay + if agree { c.cautious } else { F::zero() };
                    let u = if decay == F::zero() { u } else { decay * rate * *p + u };
                    let landed = rule.land(h, k, *p, u, s);
                    *p = if lost[i] { F::nan() } else { landed };
                    if !*stored {
                        loader.store(s, state, i);
                    }
                }
                let first = c.first != F::zero();
                for WrapperStep { wrapper, numbers, slot, .. } in &mut *wrappers {
                    wrapper.land(numbers, first, &before, params, slot);
                }
                for WrapperStep { wrapper, numbers, .. } in wrappers {
                    wrapper.store(numbers, *format, params);
                }
                if !*stored {
                    self.step.round_state();
                }
            }
        }
    }

    /// The numbers of the rule's history, and the pairs that it has at most.
    fn history(&self) -> (history::Numbers<F>, usize) {
        let most = (self.rule as &dyn AnyRule).history().expect("a pass of a rule with a history");
        (history_of::<R, F>(&self.k), most)
    }

    /// What the walks over a history see of an element: its gradient, the change of the gradient, the last movement.
    fn newest(&self, i: usize, step: F) -> [F; 3] {
        let Step { common, params, state, .. } = &self.step;
        let grad = prepare(common, params[i], self.wrapped[i]);
        [grad, grad - state[field::<R>("g_prev")][i], step * state[field::<R>("d")][i]]
    }

    /// An element's pair.
    fn pair(&self, place: usize, i: usize) -> [F; 2] {
        let len = self.step.params.len();
        ["s", "y"].map(|slot| self.step.state[field::<R>(slot)][place * len + i])
    }

    fn take_inner(&mut self) {
        let (numbers, most) = self.history();
        let len = self.step.params.len();
        let sum = |value: &dyn Fn(usize) -> Inner<F>| parts::tree([F::zero(); 5], history::combine, len, value);
        let newest = |i: usize| self.newest(i, numbers.step);
        let mut rows = vec![sum(&|i| history::of_grad(newest(i)[0]))];
        rows.push(sum(&|i| {
            let [grad, change, moved] = newest(i);
            history::inner([grad, change, moved], [moved, change])
        }));
        rows.resize(history::rows(most) as usize, [F::zero(); 5]);
        for place in numbers.places(most) {
            rows[2 + place] = sum(&|i| history::inner(newest(i), self.pair(place, i)));
        }
        self.inner = rows;
    }

    fn recall(&mut self) {
        let (numbers, most) = self.history();
        self.stored = true;
        if numbers.updates == F::zero() {
            return;
        }
        let len = self.step.params.len();
        for i in 0..len {
            let [grad, change, moved] = self.newest(i, numbers.last);
            if let Some(place) = numbers.newest(most) {
                self.step.state[field::<R>("s")][place * len + i] = moved;
                self.step.state[field::<R>("y")][place * len + i] = change;
            }
            let d = history::recall(&numbers, &self.factors, grad, |place| self.pair(place, i));
            self.step.state[field::<R>("d")][i] = d;
            self.step.state[field::<R>("g_prev")][i] = grad;
        }
    }
}

/// Where a field of a rule's `State` stands among the fields.
fn field<R: Rule>(name: &str) -> usize {
    let names = <R::State<f32> as Numbers<f32>>::NAMES;
    names.iter().position(|field| *field == name).expect("a rule with a history or with sides has this field")
}

/// Hands the matrix of each side to `take`, in order.
fn for_matrices<F>(sides: &[Side], matrices: &mut [F], mut take: impl FnMut(Side, &mut [F])) {
    let mut rest = matrices;
    for &side in sides {
        let (matrix, behind) = rest.split_at_mut((side.size * side.size) as usize);
        take(side, matrix);
        rest = behind;
    }
}

/// The numbers of a history, which are those of the model.
fn history_of<R: Rule, F: Real>(k: &R::Tensor<F>) -> history::Numbers<F> {
    let mut numbers = [F::zero(); history::NAMES.len()];
    k.write(&mut numbers);
    history::Numbers::read(numbers)
}

impl<R: Rule, F: Real> Kernel<F> for R {
    fn step(&self, step: Step<'_, F>) {
        let mut running = Running::new(self, step);
        self.passes().into_iter().for_each(|pass| running.pass(pass));
        running.k.write(running.step.tensor);
    }

    fn step_model(&self, steps: Vec<(usize, Step<'_, F>)>, model: &mut [F]) {
        let (model, products) = model.split_at_mut(<R::Tensor<F> as Numbers<F>>::NAMES.len());
        let mut k = R::Tensor::<F>::read(model);
        let mut all: Vec<_> = steps.into_iter().map(|(i, step)| (i, Running::new(self, step))).collect();
        let Some(&(last, _)) = all.last() else { return };
        let mut combine = Combine::Add;
        for pass in self.passes() {
            if let Pass::Sums(sums) = pass {
                combine = sums.combine;
            }
            if pass == Pass::FinishModel {
                let mut sums = vec![[F::zero(); 2]; last + 1];
                all.iter().for_each(|(i, running)| sums[*i] = running.sums);
                let sums = parts::list([F::zero(); 2], |a, b| combine.of(a, b), &sums);
                self.finish(&all[0].1.h, sums, F::one(), &mut k);
            }
            if pass == Pass::Recursion {
                let mut numbers = history_of::<R, F>(&k);
                let most = (self as &dyn AnyRule).history().expect("a rule with a recursion has a history");
                let mut rows = vec![vec![[F::zero(); 5]; history::rows(most) as usize]; last + 1];
                all.iter_mut().for_each(|(i, running)| rows[*i] = std::mem::take(&mut running.inner));
                let rows = history::add_up(rows, history::combine);
                let (factors, along) = history::recursion(&mut numbers, products, &rows, most);
                let length = history::length(&mut numbers, &rows);
                k = R::Tensor::<F>::read(&numbers.write());
                if numbers.updates != F::zero() {
                    self.finish(&all[0].1.h, [length, along], F::one(), &mut k);
                }
                all.iter_mut().for_each(|(_, running)| running.factors = factors.clone());
            }
            for (_, running) in &mut all {
                running.k = k;
                running.pass(pass);
            }
        }
        k.write(model);
    }

    fn moved(&self, to: Move, hyper: &[f64], params: &mut [F], state: &[Vec<F>]) {
        let h = hyper_of::<R, F>(hyper);
        let mut loader = Loader::new(self, false, None);
        for (i, p) in params.iter_mut().enumerate() {
            *p = R::moved(to, &h, *p, &loader.load::<R::State<F>>(state, i, *p));
        }
    }
}

/// What an object of a rule holds of the CPU reference: all of it, or nothing in a build without it.
#[cfg(feature = "reference")]
pub trait Kernels: Kernel<f32> + Kernel<f64> {}
#[cfg(feature = "reference")]
impl<T: Kernel<f32> + Kernel<f64>> Kernels for T {}
/// What an object of a rule holds of the CPU reference: all of it, or nothing in a build without it.
#[cfg(not(feature = "reference"))]
pub trait Kernels {}
#[cfg(not(feature = "reference"))]
impl<T> Kernels for T {}

/// The arithmetic of a reference: f32, as on the GPU, or f64.
#[cfg(feature = "reference")]
pub trait Precision: Real {
    /// The rule's mathematics in this arithmetic.
    fn kernel(rule: &dyn AnyRule) -> &dyn Kernel<Self>;
    /// The wrapper's hooks in this arithmetic.
    fn hooks(wrapper: &dyn AnyWrapper) -> &dyn WrapperKernel<Self>;
}

#[cfg(feature = "reference")]
impl Precision for f32 {
    fn kernel(rule: &dyn AnyRule) -> &dyn Kernel<Self> {
        rule
    }
    fn hooks(wrapper: &dyn AnyWrapper) -> &dyn WrapperKernel<Self> {
        wrapper
    }
}

#[cfg(feature = "reference")]
impl Precision for f64 {
    fn kernel(rule: &dyn AnyRule) -> &dyn Kernel<Self> {
        rule
    }
    fn hooks(wrapper: &dyn AnyWrapper) -> &dyn WrapperKernel<Self> {
        wrapper
    }
}
