//! L-BFGS's recursion over a history of pairs, from inner products alone, on the CPU in the order of the GPU. A pair is
//! a movement `s` of the parameters and the change `y` of the gradient that came of it.
//!
//! The direction that the two loops of Nocedal and Wright (Numerical Optimization, 2nd edition, Algorithm 7.4) end at
//! is a sum of the gradient and all pairs, and each coefficient of it follows from inner products. So one walk takes
//! the products with the newest vectors, loops over numbers make the coefficients, and another walk adds up. A step
//! goes over the history twice, where the two loops as they are written go over it four times, and the number of
//! dispatches does not depend on the number of pairs.
//!
//! Twins: `shaders/skeletons/inner.wgsl`, `shaders/skeletons/recursion.wgsl`, `shaders/skeletons/recall.wgsl`.

use crate::parts::{Combine, Real, smaller};

/// The curvature `y.s` that a pair must exceed to be kept; PyTorch's bound.
const CURVATURE_MIN: f64 = 1e-10;

/// The inner products of one row, in the order of `words::inner`.
pub type Inner<F> = [F; 5];

/// Rows of inner products of a history of so many pairs: the gradient's, the newest pair's, and those of the pairs that
/// are kept.
pub const fn rows(pairs: usize) -> u64 {
    pairs as u64 + 2
}

/// Words on the device behind the rule's numbers of the model: the products of all pairs, then the coefficients and
/// what they are made of.
pub const fn words(pairs: usize) -> usize {
    2 * pairs * pairs + 6 * pairs + 1
}

/// The numbers of a history: the fields of the `Tensor` of a rule that has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers<F> {
    /// What the inverse of the Hessian is before the first pair: `y.s / y.y` of the newest pair, at first 1.
    pub scale: F,
    /// What the direction is multiplied by. The rule's `finish` sets it.
    pub step: F,
    /// The same of the step before this one.
    pub last: F,
    /// Pairs that are kept.
    pub pairs: F,
    /// The place that the next pair takes.
    pub next: F,
    /// 1 behind the first step, else 0.
    pub started: F,
    /// 1 where this step's pair is kept, else 0.
    pub kept: F,
    /// 0 where all gradients are 0, and nothing changes; else 1.
    pub updates: F,
    /// 0 where the parameters stay, else 1. The rule's `finish` sets it.
    pub moves: F,
    /// The product of gradient and direction. The rule's `finish` sets it.
    pub slope: F,
    /// The product of a trial's gradient and the direction.
    pub along: F,
    /// The size of the largest element of a trial's gradient.
    pub grad_max: F,
    /// The size of the largest element of the direction.
    pub direction_max: F,
}

/// The fields' names.
pub const NAMES: [&str; 13] = [
    "scale",
    "step",
    "last",
    "pairs",
    "next",
    "started",
    "kept",
    "updates",
    "moves",
    "slope",
    "along",
    "grad_max",
    "direction_max",
];

impl<F: Real> Numbers<F> {
    /// From numbers in the order of the names.
    pub fn read(numbers: [F; NAMES.len()]) -> Self {
        let [scale, step, last, pairs, next, started, kept, updates, moves, slope, along, grad_max, direction_max] =
            numbers;
        Self { scale, step, last, pairs, next, started, kept, updates, moves, slope, along, grad_max, direction_max }
    }

    /// Into numbers in the order of the names.
    pub fn write(&self) -> [F; NAMES.len()] {
        let Self {
            scale,
            step,
            last,
            pairs,
            next,
            started,
            kept,
            updates,
            moves,
            slope,
            along,
            grad_max,
            direction_max,
        } = *self;
        [scale, step, last, pairs, next, started, kept, updates, moves, slope, along, grad_max, direction_max]
    }

    /// The places of the pairs, oldest first, in a history of at most `most`.
    pub fn places(&self, most: usize) -> impl DoubleEndedIterator<Item = usize> + Clone + use<F> {
        let [pairs, next] = [self.pairs, self.next].map(|number| number.to_usize().unwrap_or(0).min(most));
        (0..pairs).map(move |age| (next + most - pairs + age) % most)
    }

    /// The place of this step's pair, where it is kept.
    pub fn newest(&self, most: usize) -> Option<usize> {
        self.places(most).next_back().filter(|_| self.kept != F::zero())
    }
}

/// An element's products in the row of a pair, given its gradient, the change of the gradient and the last movement.
pub fn inner<F: Real>([grad, change, moved]: [F; 3], [s, y]: [F; 2]) -> Inner<F> {
    [s * grad, s * change, y * grad, y * change, y * moved]
}

/// An element's products in the first row.
pub fn of_grad<F: Real>(grad: F) -> Inner<F> {
    [grad * grad, grad.abs(), F::zero(), F::zero(), F::zero()]
}

/// Makes one row of two.
pub fn combine<F: Real>(a: Inner<F>, b: Inner<F>) -> Inner<F> {
    std::array::from_fn(|i| a[i] + b[i])
}

/// An element of what a trial shows: a product, and two sizes.
pub fn of_trial<F: Real>(grad: F, d: F) -> Inner<F> {
    [d * grad, grad.abs(), d.abs(), F::zero(), F::zero()]
}

/// Makes one row of what two parts of a trial show.
pub fn combine_trial<F: Real>(a: Inner<F>, b: Inner<F>) -> Inner<F> {
    let [grad, d] = Combine::BitMax.of([a[1], a[2]], [b[1], b[2]]);
    [a[0] + b[0], grad, d, F::zero(), F::zero()]
}

/// Combines the rows of all tensors, in a binary tree over the tensors.
pub fn add_up<F: Real>(
    mut tensors: Vec<Vec<Inner<F>>>,
    combine: impl Fn(Inner<F>, Inner<F>) -> Inner<F>,
) -> Vec<Inner<F>> {
    let both = |a: &[Inner<F>], b: &[Inner<F>]| a.iter().zip(b).map(|(&a, &b)| combine(a, b)).collect();
    while tensors.len() > 1 {
        let join = |pair: &[Vec<Inner<F>>]| if let [a, b] = pair { both(a, b) } else { pair[0].clone() };
        tensors = tensors.chunks(2).map(join).collect();
    }
    tensors.pop().unwrap_or_default()
}

/// What the direction is made of: each pair's change is subtracted this often from the negative gradient, and each
/// pair's movement added, by the pair's place.
#[derive(Clone, Debug)]
pub struct Factors<F> {
    changes: Vec<F>,
    moved: Vec<F>,
}

impl<F> Default for Factors<F> {
    fn default() -> Self {
        Self { changes: vec![], moved: vec![] }
    }
}

/// Decides whether the newest pair is kept, and makes the coefficients of the direction. `products` are those of each
/// movement with each change, then those of the changes with each other, by places; `rows` are those of this step.
/// Returns the coefficients, and the direction's product with the gradient.
pub fn recursion<F: Real>(k: &mut Numbers<F>, products: &mut [F], rows: &[Inner<F>], most: usize) -> (Factors<F>, F) {
    let (moved_change, changes) = products.split_at_mut(most * most);
    let [grads, size, ..] = rows[0];
    let newest = rows[1];
    k.last = k.step;
    k.kept = F::zero();
    k.updates = if size == F::zero() { F::zero() } else { F::one() };
    k.moves = k.updates;
    if k.updates != F::zero() && k.started != F::zero() && newest[1] > F::of(CURVATURE_MIN) {
        k.kept = F::one();
        k.scale = newest[1] / newest[3];
        let place = k.next.to_usize().unwrap_or(0);
        k.next = F::of(((place + 1) % most) as f64);
        k.pairs = smaller(k.pairs + F::one(), F::of(most as f64));
    }
    let places: Vec<usize> = k.places(most).collect();
    let added = k.newest(most);
    let row = |place: usize| if Some(place) == added { newest } else { rows[2 + place] };
    if let Some(added) = added {
        for &place in &places {
            let [_, with_change, _, of_changes, with_moved] = row(place);
            (changes[place * most + added], changes[added * most + place]) = (of_changes, of_changes);
            moved_change[added * most + place] = with_moved;
            moved_change[place * most + added] = with_change;
        }
    }
    let mut factors = Factors { changes: vec![F::zero(); most], moved: vec![F::zero(); most] };
    let [mut along_moved, mut along_change] = [(); 2].map(|()| vec![F::zero(); most]);
    for &place in &places {
        along_moved[place] = -row(place)[0];
        along_change[place] = -row(place)[2];
    }
    let mut along_grad = -grads;
    for (age, &pair) in places.iter().enumerate().rev() {
        let factor = along_moved[pair] / moved_change[pair * most + pair];
        for (i, &other) in places.iter().enumerate() {
            if i < age {
                along_moved[other] -= factor * moved_change[other * most + pair];
            }
            along_change[other] -= factor * changes[other * most + pair];
        }
        along_grad -= factor * row(pair)[2];
        factors.changes[pair] = factor;
    }
    along_change.iter_mut().for_each(|along| *along = k.scale * *along);
    along_grad = k.scale * along_grad;
    for (age, &pair) in places.iter().enumerate() {
        let factor = factors.changes[pair] - along_change[pair] / moved_change[pair * most + pair];
        for &other in &places[age + 1..] {
            along_change[other] += factor * moved_change[pair * most + other];
        }
        along_grad += factor * row(pair)[0];
        factors.moved[pair] = factor;
    }
    (factors, along_grad)
}

/// What the rule multiplies its rate by: in a first step at most one over the sum of the gradient's sizes, else 1.
/// A step that updates ends the start.
pub fn length<F: Real>(k: &mut Numbers<F>, rows: &[Inner<F>]) -> F {
    // In PyTorch, too, a size that is NaN leaves a length of 1.
    let inverse = F::one() / rows[0][1];
    let length = if k.started == F::zero() && inverse < F::one() { inverse } else { F::one() };
    k.started = if k.updates == F::zero() { k.started } else { F::one() };
    length
}

/// An element's direction, given its gradient, and its pairs by their places.
pub fn recall<F: Real>(k: &Numbers<F>, factors: &Factors<F>, grad: F, pair: impl Fn(usize) -> [F; 2]) -> F {
    let places = k.places(factors.changes.len());
    let mut d = -grad;
    for place in places.clone().rev() {
        d -= factors.changes[place] * pair(place)[1];
    }
    d = k.scale * d;
    for place in places {
        d += factors.moved[place] * pair(place)[0];
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The direction of the two loops as they are written, over whole vectors.
    fn two_loops(grad: &[f64], pairs: &[[Vec<f64>; 2]]) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut d: Vec<f64> = grad.iter().map(|g| -g).collect();
        let mut factors = Vec::new();
        for [s, y] in pairs.iter().rev() {
            let factor = dot(s, &d) / dot(s, y);
            d.iter_mut().zip(y).for_each(|(d, y)| *d -= factor * y);
            factors.push(factor);
        }
        if let Some([s, y]) = pairs.last() {
            let scale = dot(s, y) / dot(y, y);
            d.iter_mut().for_each(|d| *d *= scale);
        }
        for ([s, y], factor) in pairs.iter().zip(factors.into_iter().rev()) {
            let factor = factor - dot(y, &d) / dot(s, y);
            d.iter_mut().zip(s).for_each(|(d, s)| *d += factor * s);
        }
        d
    }

    #[test]
    fn inner_products_lead_to_the_direction_of_the_two_loops() {
        let (len, most) = (7, 3);
        let vector = |seed: usize| (0..len).map(|i| ((seed * 31 + i * 17) as f64).sin()).collect::<Vec<_>>();
        let mut k = Numbers::read([1.0, 0.5, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let mut products = vec![0.0; 2 * most * most];
        let mut ring = vec![[vec![0.0; len], vec![0.0; len]]; most];
        let mut pairs: Vec<[Vec<f64>; 2]> = Vec::new();
        for step in 0..8 {
            let (grad, s) = (vector(2 * step), vector(2 * step + 1));
            // Every third pair has no curvature.
            let y: Vec<f64> =
                s.iter().map(|s| if step % 3 == 2 { -s } else { 2.0 * s + 0.1 * (7.0 * s).cos() }).collect();
            let sum = |row: &dyn Fn(usize) -> Inner<f64>| (0..len).map(row).fold([0.0; 5], combine);
            let mut rows = vec![sum(&|i| of_grad(grad[i])), sum(&|i| inner([grad[i], y[i], s[i]], [s[i], y[i]]))];
            let of_pair = |pair: &[Vec<f64>; 2]| sum(&|i| inner([grad[i], y[i], s[i]], [pair[0][i], pair[1][i]]));
            rows.extend(ring.iter().map(of_pair));
            let (factors, along) = recursion(&mut k, &mut products, &rows, most);
            assert_eq!(k.kept != 0.0, step % 3 != 2);
            if let Some(place) = k.newest(most) {
                ring[place] = [s.clone(), y.clone()];
                pairs.push([s, y]);
            }
            let expected = two_loops(&grad, &pairs[pairs.len().saturating_sub(most)..]);
            for (i, expected) in expected.iter().enumerate() {
                let found = recall(&k, &factors, grad[i], |place| [ring[place][0][i], ring[place][1][i]]);
                assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{step}: {found} {expected}");
            }
            let product: f64 = grad.iter().zip(&expected).map(|(g, d)| g * d).sum();
            assert!((along - product).abs() < 1e-9 * (1.0 + product.abs()), "{step}: {along} {product}");
        }
        assert_eq!((k.pairs, pairs.len()), (3.0, 6));
    }
}
