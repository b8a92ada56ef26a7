//! Minimising along directions: a line search that ends where Wolfe's conditions hold, and when to stop. It knows
//! neither tensors nor devices: a [`Ground`] stands for the function.
//!
//! Along a direction the loss must fall by a share of what the slope promises, and the slope must become flat (the
//! strong Wolfe conditions). A first loop goes on until an interval holds such a point, a second one shrinks the
//! interval; both take the minimum of the cubic through losses and slopes at two points (Nocedal and Wright, Numerical
//! Optimization, 2nd edition, Algorithms 3.5 and 3.6, equation 3.59). The constants are those of PyTorch's `LBFGS`.

use serde::{Deserialize, Serialize};

use crate::error::{Result, at_least_zero, refuse};

/// The loss must fall by this share of the first slope times the length.
const FALL: f64 = 1e-4;
/// The slope must become at most this share of the first one.
const FLAT: f64 = 0.9;
/// Trials along a direction behind the first.
const TRIALS: usize = 25;
/// An interval over which no parameter moves as far as this is not shrunk.
const INTERVAL: f64 = 1e-9;

/// Whether a step looks for its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineSearch {
    /// Every step has the length `lr`.
    #[default]
    None,
    /// [`minimize`](crate::Reference::minimize) looks for a length at which the strong Wolfe conditions hold.
    StrongWolfe,
}

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    /// Directions at most.
    pub max_iter: usize,
    /// Evaluations behind which no further direction is taken.
    pub max_eval: usize,
    /// The largest element of a gradient that counts as none.
    pub tolerance_grad: f64,
    /// The change of the loss, of all parameters, and the slope that count as none.
    pub tolerance_change: f64,
}

impl Stopping {
    /// Refuses numbers outside their bounds.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field), naming field, value and bound.
    pub fn check(&self) -> Result<()> {
        for (field, value) in [("max_iter", self.max_iter), ("max_eval", self.max_eval)] {
            if value == 0 {
                return refuse(field, value, "at least 1");
            }
        }
        at_least_zero("tolerance_grad", self.tolerance_grad)?;
        at_least_zero("tolerance_change", self.tolerance_change)
    }
}

/// Why a minimisation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No element of the gradient exceeds `tolerance_grad`.
    GradientSmall,
    /// No parameter moved further than `tolerance_change`, the loss changed by less, or the slope along the new
    /// direction promises no more.
    ChangeSmall,
    /// `max_iter` directions were taken.
    MaxIterations,
    /// `max_eval` evaluations were made, or a few more, since a search is not cut off.
    MaxEvaluations,
    /// The first loss or its gradient is not finite, or every loss along a direction that was low enough is not.
    NotFinite,
}

/// What a minimisation came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minimum {
    /// Why it stopped.
    pub stop: Stop,
    /// The loss where the parameters stand.
    pub loss: f64,
    /// Evaluations of the loss and its gradient, the first one included.
    pub evaluations: usize,
    /// Directions that were taken.
    pub iterations: usize,
}

/// What an evaluation shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) loss: f64,
    /// The product of the gradient with the direction.
    pub(crate) slope: f64,
    /// The size of the largest element of the gradient.
    pub(crate) grad_max: f64,
    /// The same of the direction.
    pub(crate) direction_max: f64,
}

impl Seen {
    fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.slope.is_finite() && self.grad_max.is_finite()
    }
}

/// A function with parameters somewhere on it, and a rule that makes directions.
pub(crate) trait Ground {
    /// Evaluates the function and its gradient where the parameters stand.
    async fn evaluate(&mut self) -> Result<Seen>;

    /// Makes a direction from the last gradient and moves the parameters by a first length. Returns the slope before
    /// the move, and the length.
    async fn turn(&mut self) -> Result<[f64; 2]>;

    /// Moves the parameters to this length along the direction, and returns the length as it was rounded.
    fn go(&mut self, length: f64) -> Result<f64>;

    /// Tells the rule which length was taken, where the parameters stand now.
    fn settle(&mut self, length: f64) -> Result<()>;
}

/// A point on a line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    length: f64,
    seen: Seen,
}

impl Point {
    /// What is not finite counts as too far.
    fn new(length: f64, seen: Seen) -> Self {
        let loss = if seen.is_finite() { seen.loss } else { f64::INFINITY };
        Self { length, seen: Seen { loss, ..seen } }
    }

    /// Whether the loss has not fallen enough since the start of the line.
    fn is_high(&self, start: &Self) -> bool {
        let fallen = start.seen.loss + FALL * self.length * start.seen.slope;
        self.seen.loss > fallen
    }

    /// Whether the slope is flat enough.
    fn is_flat(&self, start: &Self) -> bool {
        self.seen.slope.abs() <= -FLAT * start.seen.slope
    }
}

/// Where the cubic through the losses and slopes at two points is least within these bounds; their middle where it has
/// no minimum.
fn least(a: &Point, b: &Point, [low, high]: [f64; 2]) -> f64 {
    let (a, b) = if a.length <= b.length { (a, b) } else { (b, a) };
    let width = b.length - a.length;
    let mean = a.seen.slope + b.seen.slope - 3.0 * (b.seen.loss - a.seen.loss) / width;
    let square = mean * mean - a.seen.slope * b.seen.slope;
    // Of numbers that are not finite nothing is at least 0.
    if square >= 0.0 {
        let root = square.sqrt();
        let share = (b.seen.slope + root - mean) / (b.seen.slope - a.seen.slope + 2.0 * root);
        let at = b.length - width * share;
        if at.is_finite() {
            return at.clamp(low, high);
        }
    }
    (low + high) / 2.0
}

/// A search along one line.
struct Search<'a, G> {
    ground: &'a mut G,
    start: Point,
    /// Evaluations so far.
    trials: usize,
    /// Where the parameters stand.
    here: f64,
    /// Whether something was not finite.
    is_lost: bool,
}

impl<G: Ground> Search<'_, G> {
    async fn evaluate(&mut self) -> Result<Point> {
        let seen = self.ground.evaluate().await?;
        self.trials += 1;
        self.is_lost |= !seen.is_finite();
        Ok(Point::new(self.here, seen))
    }

    async fn try_at(&mut self, length: f64) -> Result<Point> {
        self.here = self.ground.go(length)?;
        self.evaluate().await
    }

    /// Whether no further trial is allowed.
    fn is_over(&self) -> bool {
        self.trials > TRIALS
    }

    /// Goes on until an interval holds what is looked for, and returns a point in it; at first the parameters are moved
    /// already.
    async fn run(&mut self) -> Result<Point> {
        let start = self.start;
        let (mut before, mut new) = (start, self.evaluate().await?);
        while !self.is_over() {
            if new.is_high(&start) || self.trials > 2 && new.seen.loss >= before.seen.loss {
                return self.shrink(before, new).await;
            }
            if new.is_flat(&start) {
                return Ok(new);
            }
            if new.seen.slope >= 0.0 {
                return self.shrink(before, new).await;
            }
            let bounds = [new.length + 0.01 * (new.length - before.length), 10.0 * new.length];
            let further = least(&before, &new, bounds);
            before = new;
            new = self.try_at(further).await?;
        }
        self.shrink(start, new).await
    }

    /// Shrinks an interval, and returns the lowest point.
    async fn shrink(&mut self, a: Point, b: Point) -> Result<Point> {
        let start = self.start;
        let (mut low, mut high) = if a.seen.loss <= b.seen.loss { (a, b) } else { (b, a) };
        let reach = a.seen.direction_max.max(b.seen.direction_max);
        let mut crept = false;
        while !self.is_over() && (high.length - low.length).abs() * reach >= INTERVAL {
            let bounds = [low.length.min(high.length), low.length.max(high.length)];
            let mut length = least(&low, &high, bounds);
            // A second trial near an end, or one at the end, goes to a tenth of the interval from there.
            let (left, right) = (length - bounds[0], bounds[1] - length);
            let margin = 0.1 * (bounds[1] - bounds[0]);
            let is_near = left.min(right) < margin;
            if is_near && (crept || left <= 0.0 || right <= 0.0) {
                length = if right < left { bounds[1] - margin } else { bounds[0] + margin };
                crept = false;
            } else {
                crept = is_near;
            }
            let new = self.try_at(length).await?;
            if new.is_high(&start) || new.seen.loss >= low.seen.loss {
                high = new;
                if high.seen.loss < low.seen.loss {
                    (low, high) = (high, low);
                }
                continue;
            }
            if new.is_flat(&start) {
                return Ok(new);
            }
            if new.seen.slope * (high.length - low.length) >= 0.0 {
                high = low;
            }
            low = new;
        }
        Ok(low)
    }
}

/// Takes directions until there is a reason to stop.
pub(crate) async fn descend<G: Ground>(ground: &mut G, stopping: &Stopping) -> Result<Minimum> {
    let mut now = ground.evaluate().await?;
    let mut found = Minimum { stop: Stop::NotFinite, loss: now.loss, evaluations: 1, iterations: 0 };
    if !now.is_finite() {
        return Ok(found);
    }
    if now.grad_max <= stopping.tolerance_grad {
        return Ok(Minimum { stop: Stop::GradientSmall, ..found });
    }
    loop {
        found.iterations += 1;
        let [slope, first] = ground.turn().await?;
        // Written so that a slope that is not a number stops, too.
        let falls = slope <= -stopping.tolerance_change && slope < 0.0;
        if !falls {
            ground.go(0.0)?;
            ground.settle(0.0)?;
            return Ok(Minimum { stop: Stop::ChangeSmall, ..found });
        }
        let start = Point { length: 0.0, seen: Seen { slope, direction_max: 0.0, ..now } };
        let mut search = Search { ground, start, trials: 0, here: first, is_lost: false };
        let taken = search.run().await?;
        let Search { trials, here, is_lost, .. } = search;
        found.evaluations += trials;
        if taken.length != here {
            ground.go(taken.length)?;
        }
        ground.settle(taken.length)?;
        let change = (taken.seen.loss - now.loss).abs();
        let moved = taken.length * taken.seen.direction_max;
        found.loss = taken.seen.loss;
        let stop = if taken.length == 0.0 && is_lost {
            Some(Stop::NotFinite)
        } else if taken.seen.grad_max <= stopping.tolerance_grad {
            Some(Stop::GradientSmall)
        } else if taken.length == 0.0 || moved <= stopping.tolerance_change || change < stopping.tolerance_change {
            Some(Stop::ChangeSmall)
        } else if found.iterations >= stopping.max_iter {
            Some(Stop::MaxIterations)
        } else if found.evaluations >= stopping.max_eval {
            Some(Stop::MaxEvaluations)
        } else {
            None
        };
        if let Some(stop) = stop {
            return Ok(Minimum { stop, ..found });
        }
        now = taken.seen;
        if taken.length != here {
            // The gradient is that of the last trial.
            now = ground.evaluate().await?;
            found.evaluations += 1;
        }
    }
}

/// The result of a future that never waits.
#[cfg(any(feature = "reference", test))]
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => unreachable!("nothing in it waits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function of one parameter, whose direction is down the slope.
    struct Curve<F> {
        value_and_slope: F,
        x: f64,
        origin: f64,
        direction: f64,
        first: f64,
        lengths: Vec<f64>,
        /// Evaluations, and where the last one was.
        evaluated: usize,
        seen: f64,
        settled: Vec<f64>,
    }

    impl<F: Fn(f64) -> [f64; 2]> Curve<F> {
        fn new(x: f64, first: f64, value_and_slope: F) -> Self {
            Self {
                value_and_slope,
                x,
                origin: x,
                direction: 0.0,
                first,
                lengths: vec![],
                evaluated: 0,
                seen: f64::NAN,
                settled: vec![],
            }
        }
    }

    impl<F: Fn(f64) -> [f64; 2]> Ground for Curve<F> {
        async fn evaluate(&mut self) -> Result<Seen> {
            let [loss, grad] = (self.value_and_slope)(self.x);
            let direction_max = self.direction.abs();
            (self.evaluated, self.seen) = (self.evaluated + 1, self.x);
            Ok(Seen { loss, slope: grad * self.direction, grad_max: grad.abs(), direction_max })
        }

        async fn turn(&mut self) -> Result<[f64; 2]> {
            assert_eq!(self.seen, self.x, "the last gradient is of here");
            let [_, grad] = (self.value_and_slope)(self.x);
            (self.origin, self.direction) = (self.x, -grad);
            self.x = self.origin + self.first * self.direction;
            self.lengths.push(self.first);
            Ok([-grad * grad, self.first])
        }

        fn go(&mut self, length: f64) -> Result<f64> {
            self.x = self.origin + length * self.direction;
            self.lengths.push(length);
            Ok(length)
        }

        fn settle(&mut self, length: f64) -> Result<()> {
            self.settled.push(length);
            assert_eq!(self.x, self.origin + length * self.direction, "the parameters stand there");
            Ok(())
        }
    }

    const ONCE: Stopping = Stopping { max_iter: 1, max_eval: 100, tolerance_grad: 0.0, tolerance_change: 0.0 };

    fn run<F: Fn(f64) -> [f64; 2]>(mut curve: Curve<F>, stopping: &Stopping) -> (Minimum, Curve<F>) {
        let found = at_once(descend(&mut curve, stopping)).unwrap();
        (found, curve)
    }

    #[test]
    fn the_least_of_a_cubic_is_found() {
        // x^3 - 3x has its minimum at 1, a parabola likewise, and a line has none.
        let at = |x: f64, [loss, slope]: [f64; 2]| Point {
            length: x,
            seen: Seen { loss, slope, grad_max: 0.0, direction_max: 1.0 },
        };
        let cubic = |x: f64| at(x, [x.powi(3) - 3.0 * x, 3.0 * x * x - 3.0]);
        let parabola = |x: f64| at(x, [(x - 1.0).powi(2), 2.0 * (x - 1.0)]);
        for [a, b] in [[0.0, 3.0], [3.0, 0.0], [0.5, 0.75]] {
            assert!((least(&cubic(a), &cubic(b), [0.0, 3.0]) - 1.0).abs() < 1e-12, "{a} {b}");
            assert!((least(&parabola(a), &parabola(b), [0.0, 3.0]) - 1.0).abs() < 1e-12, "{a} {b}");
        }
        assert_eq!(least(&cubic(0.0), &cubic(3.0), [1.5, 3.0]), 1.5, "it stays within the bounds");
        let far = Point::new(2.0, Seen { loss: f64::NAN, slope: 0.0, grad_max: 0.0, direction_max: 1.0 });
        assert_eq!(least(&cubic(0.0), &far, [0.0, 2.0]), 1.0, "the middle, where there is no cubic");
    }

    #[test]
    fn what_is_taken_meets_both_conditions() {
        type Function = fn(f64) -> [f64; 2];
        let functions: [(&str, Function, f64); 4] = [
            ("parabola", |x| [0.5 * x * x, x], 3.0),
            ("steep", |x| [x.powi(4), 4.0 * x.powi(3)], 2.0),
            ("log", |x| [(1.0 + x * x).ln(), 2.0 * x / (1.0 + x * x)], 4.0),
            ("wavy", |x| [x * x + (3.0 * x).sin(), 2.0 * x + 3.0 * (3.0 * x).cos()], 2.5),
        ];
        for (name, function, x) in functions {
            for first in [1e-3, 0.1, 1.0, 5.0, 100.0] {
                let (found, curve) = run(Curve::new(x, first, function), &ONCE);
                let ([before, grad], [after, end]) = (function(x), function(curve.x));
                let length = curve.settled[0];
                assert!(length > 0.0 && after <= before - FALL * length * grad * grad, "{name} {first}: {after}");
                assert!(end.abs() <= FLAT * grad.abs(), "{name} {first}: slope {end} of {grad}");
                assert_eq!(found.loss, after, "{name} {first}");
                assert_eq!(found.evaluations, 1 + curve.lengths.len(), "{name} {first}");
            }
        }
    }

    #[test]
    fn trials_are_those_of_pytorch() {
        type Function = fn(f64) -> [f64; 2];
        let parabola: Function = |x| [0.5 * x * x, x];
        let steep: Function = |x| [x.powi(4), 4.0 * x.powi(3)];
        let log: Function = |x| [(1.0 + x * x).ln(), 2.0 * x / (1.0 + x * x)];
        let wavy: Function = |x| [x * x + (3.0 * x).sin(), 2.0 * x + 3.0 * (3.0 * x).cos()];
        let ripples: Function = |x| [x * x + (20.0 * x).sin(), 2.0 * x + 20.0 * (20.0 * x).cos()];
        let kink: Function = |x| [(x - 0.3).abs(), (x - 0.3).signum()];
        let well: Function = |x| [-x / (x * x + 2.0), (x * x - 2.0) / (x * x + 2.0).powi(2)];
        let tilted: Function = |x| [x.exp() - 3.0 * x, x.exp() - 3.0];
        // `torch.optim.lbfgs._strong_wolfe` of PyTorch 2.15.0 in f64: start, first length, evaluations, length taken.
        let recorded = [
            (parabola, 3.0, 0.001, 4, 0.9999999999998036),
            (parabola, 3.0, 5.0, 2, 1.0),
            (steep, 2.0, 0.001, 2, 0.005505),
            (steep, 2.0, 1.0, 4, 0.07901350900391241),
            (log, 4.0, 0.1, 6, 8.929971297449685),
            (log, 4.0, 100.0, 5, 8.444089142604986),
            (wavy, 2.5, 1.0, 2, 0.42801911646383817),
            (wavy, 4.0, 0.1, 1, 0.1),
            (wavy, 4.0, 5.0, 2, 0.4568123559272603),
            (ripples, 2.5, 0.01, 2, 0.00258035419425234),
            (ripples, 2.5, 1.0, 3, 0.12558456233379847),
            (ripples, 1.0, 0.1, 3, 0.10555773686354598),
            (ripples, 1.0, 1.0, 6, 0.16718616264042685),
            (kink, 3.0, 1.0, 22, 2.7000000001129085),
            (kink, 3.0, 4.0, 21, 2.700000000183119),
            (well, 0.0, 0.1, 2, 1.0),
            (well, 0.0, 500.0, 2, 166.680000362667),
            (well, -3.0, 0.1, 3, 10.0),
            (tilted, 0.0, 3.0, 3, 0.6477827306681336),
            (tilted, 5.0, 3.0, 3, 0.31958282376887026),
        ];
        let check = |what: &dyn std::fmt::Debug, told: Minimum, settled: f64, evaluations: usize, length: f64| {
            assert_eq!(told.evaluations, 1 + evaluations, "{what:?}");
            assert!((settled / length - 1.0).abs() < 1e-9, "{what:?}: {settled}, PyTorch {length}");
        };
        for (i, (function, x, first, evaluations, length)) in recorded.into_iter().enumerate() {
            let (found, curve) = run(Curve::new(x, first, function), &ONCE);
            check(&i, found, curve.settled[0], evaluations, length);
        }
        // The same of x^2 + a*sin(w*x), where trials come near the ends of an interval: a and w stand first.
        for (a, w, x, first, evaluations, length) in [
            (28.7, 1.1, 1.7, 10.0, 5, 0.3980734973953194),
            (16.5, 4.4, -2.5, 10.0, 10, 0.7618126374600986),
            (15.6, 8.9, 2.3, 10.0, 4, 0.14983190710339256),
            (3.0, 15.8, 0.9, 0.001, 6, 0.08987127659958923),
            (25.7, 17.7, -2.7, 1.0, 7, 0.0062703294914215855f64),
        ] {
            let function = move |x: f64| [x * x + a * (w * x).sin(), 2.0 * x + a * w * (w * x).cos()];
            let (found, curve) = run(Curve::new(x, first, function), &ONCE);
            check(&[a, w], found, curve.settled[0], evaluations, length);
        }
    }

    #[test]
    fn a_direction_has_the_gradient_of_where_the_parameters_stand() {
        // No slope is flat at a kink, so the search ends behind the best point.
        let kink = |x: f64| [(x - 0.3).abs() + 1e-3 * x, (x - 0.3).signum() + 1e-3];
        let (found, curve) = run(Curve::new(3.0, 1.0, kink), &Stopping { max_iter: 2, ..ONCE });
        assert_eq!(found.iterations, 2);
        assert_eq!(found.evaluations, curve.evaluated);
        assert_ne!(curve.lengths[curve.lengths.len() - 2], curve.lengths[curve.lengths.len() - 1]);
    }

    #[test]
    fn a_trial_that_is_not_finite_is_too_far() {
        // A barrier: the loss is there for x < 2 alone.
        let barrier = |x: f64| if x < 2.0 { [-(2.0 - x).ln() - 2.0 * x, 1.0 / (2.0 - x) - 2.0] } else { [f64::NAN; 2] };
        let stopping = Stopping { max_iter: 30, tolerance_grad: 1e-9, ..ONCE };
        let (found, curve) = run(Curve::new(0.0, 4.0, barrier), &stopping);
        assert_eq!(found.stop, Stop::GradientSmall);
        assert!((curve.x - 1.5).abs() < 1e-8, "{}", curve.x);
    }

    #[test]
    fn every_reason_to_stop_is_told() {
        let parabola = |x: f64| [0.5 * x * x, x];
        let stop = |x: f64, first: f64, stopping: Stopping| run(Curve::new(x, first, parabola), &stopping);
        let (found, curve) = stop(0.5, 1.0, Stopping { tolerance_grad: 0.5, ..ONCE });
        assert_eq!((found.stop, found.evaluations, found.iterations), (Stop::GradientSmall, 1, 0));
        assert!(curve.lengths.is_empty());
        assert_eq!(stop(3.0, 1.0, ONCE).0.stop, Stop::GradientSmall);
        let (found, _) = stop(3.0, 0.25, Stopping { max_iter: 2, ..ONCE });
        assert_eq!((found.stop, found.evaluations, found.iterations), (Stop::MaxIterations, 3, 2));
        let (found, _) = stop(3.0, 0.25, Stopping { max_iter: 9, max_eval: 2, ..ONCE });
        assert_eq!((found.stop, found.evaluations, found.iterations), (Stop::MaxEvaluations, 2, 1));
        // The slope along the direction is -9.
        let (found, curve) = stop(3.0, 1.0, Stopping { tolerance_change: 10.0, ..ONCE });
        assert_eq!((found.stop, curve.x, &curve.settled[..]), (Stop::ChangeSmall, 3.0, &[0.0][..]));
        // No parameter moves by more than 1e-3, and the loss falls by far more than that.
        let steep = |x: f64| [5e5 * x * x, 1e6 * x];
        let (found, _) = run(Curve::new(1e-3, 1e-6, steep), &Stopping { max_iter: 9, tolerance_change: 2e-3, ..ONCE });
        assert_eq!((found.stop, found.iterations), (Stop::GradientSmall, 1));
        let (found, _) = run(Curve::new(1e-3, 5e-7, steep), &Stopping { max_iter: 9, tolerance_change: 2e-3, ..ONCE });
        assert_eq!((found.stop, found.iterations), (Stop::ChangeSmall, 1));
        // The loss falls by less than 2.
        let (found, _) = stop(3.0, 0.25, Stopping { max_iter: 9, tolerance_change: 2.0, ..ONCE });
        assert_eq!((found.stop, found.iterations), (Stop::ChangeSmall, 1));
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_where_the_last_one_was() {
        let (found, curve) = run(Curve::new(1.0, 1.0, |_| [f64::NAN, 1.0]), &ONCE);
        assert_eq!((found.stop, found.iterations, curve.x), (Stop::NotFinite, 0, 1.0));
        let only = |x: f64| if x == 1.0 { [1.0, 1.0] } else { [f64::NAN, 1.0] };
        let (found, curve) = run(Curve::new(1.0, 1.0, only), &ONCE);
        assert_eq!((found.stop, found.loss, curve.x, &curve.settled[..]), (Stop::NotFinite, 1.0, 1.0, &[0.0][..]));
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let text = |stopping: Stopping| stopping.check().unwrap_err().to_string();
        assert_eq!(text(Stopping { max_iter: 0, ..ONCE }), "max_iter is 0, must be at least 1");
        assert_eq!(text(Stopping { max_eval: 0, ..ONCE }), "max_eval is 0, must be at least 1");
        assert!(text(Stopping { tolerance_grad: -1.0, ..ONCE }).starts_with("tolerance_grad is -1, must be"));
        assert!(text(Stopping { tolerance_change: -1.0, ..ONCE }).starts_with("tolerance_change is -1, must be"));
    }
}
