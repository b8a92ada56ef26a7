//! Schedules: a factor on a number of the configuration, by the count of applied steps or by a metric.

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::error::{Result, above_zero, at_least_zero, below_one, refuse};

mod plateau;
mod scheduler;

pub use plateau::{Mode, Plateau, PlateauState, ThresholdMode};
pub use scheduler::Scheduler;

/// A factor on a learning rate, or on another number, at applied step `t`, counted from 1.
///
/// Below, `i = t-1` and `q = min(i, total)/total`; the last value holds after `total` steps. Counts are at least 1, and
/// numbers at least 0 and finite, unless a bound is stated. In JSON a schedule is an object of one field, as
/// `{"cosine": {"total": 50}}`; a field without a stated default is required there.
///
/// ```
/// use wgpu_optim::{Schedule, Scheduler};
///
/// let schedule: Schedule = serde_json::from_str(
///     r#"{"warmup": {"steps": 10, "then": {"cosine": {"total": 90, "end": 0.1}}}}"#,
/// )?;
/// let scheduler = Scheduler::new(schedule, "schedule")?;
/// assert_eq!(scheduler.factor(6)?, 0.5);
/// assert_eq!(scheduler.factor(11)?, 1.0);
/// assert_eq!(scheduler.factor(1000)?, 0.1);
///
/// let wrong = Scheduler::new(Schedule::Cosine { total: 0, end: 0.0 }, "schedule").unwrap_err();
/// assert_eq!(wrong.to_string(), "schedule.cosine.total is 0, must be at least 1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// `1`.
    Constant {},
    /// `gamma^floor(i/every)`. PyTorch's `StepLR`.
    Step {
        /// Steps between two changes.
        every: u64,
        /// At most 1.
        gamma: f64,
    },
    /// `gamma^(number of at <= i)`. PyTorch's `MultiStepLR`.
    MultiStep {
        /// Where the factor changes, in steps done: at least one, ascending.
        at: Vec<u64>,
        /// May exceed 1 as long as the last power is finite.
        gamma: f64,
    },
    /// `gamma^i`. PyTorch's `ExponentialLR`.
    Exponential {
        /// At most 1.
        gamma: f64,
    },
    /// `1 + (end-1)*q`. PyTorch's `LinearLR` from 1.
    Linear {
        /// Steps until the end.
        total: u64,
        /// The last factor. Default 0.
        #[serde(default)]
        end: f64,
    },
    /// [`Linear`](Self::Linear) with `end = floor`.
    LinearFloor {
        /// Steps until the floor.
        total: u64,
        /// The last factor.
        floor: f64,
    },
    /// `end + (1-end)*(1-q)^power`. PyTorch's `PolynomialLR`.
    Polynomial {
        /// Steps until the end.
        total: u64,
        /// Above 0. Default 1.
        #[serde(default = "one")]
        power: f64,
        /// The last factor. Default 0.
        #[serde(default)]
        end: f64,
    },
    /// `end + (1-end)*(1+cos(pi*q))/2` (Loshchilov and Hutter 2017, equation 5, one cycle).
    Cosine {
        /// Steps until the end.
        total: u64,
        /// The last factor. Default 0.
        #[serde(default)]
        end: f64,
    },
    /// [`Cosine`](Self::Cosine) again and again: `q = j/T`, `j` steps into cycle `n`, which has `T = first*mult^n`
    /// (Loshchilov and Hutter 2017, SGDR).
    CosineRestarts {
        /// Steps of the first cycle.
        first: u64,
        /// How many times as long as the cycle before it a cycle is. Default 1.
        #[serde(default = "one")]
        mult: u64,
        /// The factor that each cycle goes down to. Default 0.
        #[serde(default)]
        end: f64,
    },
    /// `1/(1+decay*i)` (Robbins and Monro 1951; Bottou 2012).
    InverseTime {
        /// How fast the factor goes down: the larger, the faster.
        decay: f64,
    },
    /// `min(t/warmup, sqrt(warmup/t))`: 1 at `t = warmup` (Vaswani et al. 2017, section 5.3, without its scale).
    InverseSqrt {
        /// Steps of the ascent.
        warmup: u64,
    },
    /// `start + (1-start)*i/steps` while `i < steps`, then another schedule, counted from its own step 1 (Goyal et al.
    /// 2017, section 2.2).
    Warmup {
        /// Steps of the ascent.
        steps: u64,
        /// The first factor. Default 0.
        #[serde(default)]
        start: f64,
        /// What follows.
        then: Box<Schedule>,
    },
    /// One schedule after another, at least one, each counted from its own step 1. The last one goes on whatever its
    /// number of steps. PyTorch's `SequentialLR`.
    Sequence(Vec<Stage>),
    /// One cosine up and one down, with `up = warmup_fraction*total - 1` and `last = total - 1`: from `start` to 1 over
    /// `i` in `0..up`, then to `end` over `up..last` (Smith and Topin 2017; in PyTorch's form).
    OneCycle {
        /// Steps of the whole, at least 2.
        total: u64,
        /// The share of the ascent, above `1/total` and below 1. Default 0.3.
        #[serde(default = "one_cycle_fraction")]
        warmup_fraction: f64,
        /// The first factor. Default 0.04.
        #[serde(default = "one_cycle_start")]
        start: f64,
        /// The last factor. Default 4e-6.
        #[serde(default = "one_cycle_end")]
        end: f64,
    },
    /// Straight from `low` to 1 in `up` steps and back in `down`, again and again (Smith 2017, `triangular`).
    Cyclic {
        /// The first factor.
        low: f64,
        /// Steps of the ascent.
        up: u64,
        /// Steps of the descent.
        down: u64,
    },
    /// `t/warmup` for `warmup` steps, then 1, then down to `end` over the last `decay` of `total` steps (Hu et al.
    /// 2024, `MiniCPM`, section 4.2).
    WarmupStableDecay {
        /// Steps of the ascent; may be 0.
        warmup: u64,
        /// Steps of the whole, at least `warmup + decay`.
        total: u64,
        /// Steps of the descent; may be 0.
        decay: u64,
        /// How it goes down. Default linear.
        #[serde(default)]
        shape: DecayShape,
        /// The last factor. Default 0.
        #[serde(default)]
        end: f64,
    },
    /// Down when a metric no longer gets better: see [`Plateau`].
    Plateau(Plateau),
    /// A function of `t`: see [`custom`](Self::custom). Without a name it has no JSON, and to write it out is an error;
    /// one with a [name](Self::named) is written by it.
    Custom(Closure),
}

/// A part of [`Schedule::Sequence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps before the next part, at least 1. The last part goes on.
    pub steps: u64,
    /// Counted from its own step 1.
    pub schedule: Schedule,
}

/// How [`Schedule::WarmupStableDecay`] goes down, with `q` from 0 to 1 over the descent. JSON: `"linear"`, `"cosine"`,
/// `"sqrt"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// `1 - q`.
    #[default]
    Linear,
    /// `(1+cos(pi*q))/2`.
    Cosine,
    /// `1 - sqrt(q)` (Hägele et al. 2024).
    Sqrt,
}

/// A function of `t` in a [`Schedule::Custom`]. A closure equals only its clones.
#[derive(Clone)]
pub struct Closure {
    name: Option<Arc<str>>,
    function: Arc<dyn Fn(u64) -> f64 + Send + Sync>,
    /// Whether the function is only a name's place, as where JSON was read.
    is_missing: bool,
}

impl fmt::Debug for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Closure({:p})", Arc::as_ptr(&self.function).cast::<()>())
    }
}

impl PartialEq for Closure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function)
    }
}

impl Serialize for Closure {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        const MESSAGE: &str = "a schedule's closure cannot be written out; set it again where the rest is read";
        match &self.name {
            Some(name) => serializer.serialize_str(name),
            None => Err(ser::Error::custom(MESSAGE)),
        }
    }
}

impl<'de> Deserialize<'de> for Closure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self { name: Some(name.into()), function: Arc::new(|_| f64::NAN), is_missing: true })
    }
}

fn one<T: From<u8>>() -> T {
    T::from(1)
}

fn one_cycle_fraction() -> f64 {
    0.3
}

fn one_cycle_start() -> f64 {
    0.04
}

fn one_cycle_end() -> f64 {
    4e-6
}

impl Schedule {
    /// A schedule that is a function of `t`, counted from 1. The scheduler checks the function's result at each call.
    pub fn custom(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        Self::Custom(Closure { name: None, function: Arc::new(factor), is_missing: false })
    }

    /// [`custom`](Self::custom) with a name, by which a [`Checkpoint`](crate::Checkpoint) knows it. When you load the
    /// checkpoint, hand the function over again under this name.
    pub fn named(name: &str, factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        Self::Custom(Closure { name: Some(name.into()), function: Arc::new(factor), is_missing: false })
    }

    /// The closures at any depth.
    fn closures_mut(&mut self) -> Vec<&mut Closure> {
        match self {
            Self::Custom(closure) => vec![closure],
            Self::Warmup { then, .. } => then.closures_mut(),
            Self::Sequence(stages) => stages.iter_mut().flat_map(|stage| stage.schedule.closures_mut()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the schedule holds a closure without a name.
    pub(crate) fn has_unnamed(&self) -> bool {
        self.clone().closures_mut().iter().any(|closure| closure.name.is_none())
    }

    /// Puts the functions of these schedules in place of those that are missing. Returns the name of one that is still
    /// missing.
    pub(crate) fn take_closures(&mut self, given: &[(String, Schedule)]) -> Option<String> {
        for closure in self.closures_mut() {
            let name = closure.name.as_deref().unwrap_or_default();
            match given.iter().find(|(known, _)| known == name) {
                Some((_, Self::Custom(known))) => *closure = known.clone(),
                _ => return Some(name.into()),
            }
        }
        None
    }

    /// Refuses a schedule that could give a factor that is negative, infinite or NaN. `field` is the schedule's own
    /// name in the configuration; the error's path starts with it.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error), as `schedule.warmup.then.step.every is 0, must be at least 1`.
    pub fn check(&self, field: &str) -> Result<()> {
        let at = |path: &str| format!("{field}.{path}");
        let count = |path: &str, value: u64| match value {
            0 => refuse(at(path), value, "at least 1"),
            _ => Ok(()),
        };
        let number = |path: &str, value: f64| at_least_zero(&at(path), value);
        let up_to_one = |path: &str, value: f64| at_most_one(&at(path), value);
        match self {
            Self::Custom(Closure { name: Some(name), is_missing: true, .. }) => {
                refuse(at("custom"), name, "set by Config::schedule: JSON holds no function")
            }
            Self::Constant {} | Self::Custom(_) => Ok(()),
            Self::Step { every, gamma } => {
                count("step.every", *every)?;
                up_to_one("step.gamma", *gamma)
            }
            Self::MultiStep { at: steps, gamma } => {
                number("multi_step.gamma", *gamma)?;
                if !(gamma.powf(steps.len() as f64) as f32).is_finite() {
                    let bound = format!("small enough for its power {} to be finite", steps.len());
                    return refuse(at("multi_step.gamma"), gamma, bound);
                }
                if steps.is_empty() {
                    return refuse(at("multi_step.at"), "empty", "at least one step");
                }
                match steps.windows(2).position(|pair| pair[0] >= pair[1]) {
                    Some(n) => {
                        let path = at(&format!("multi_step.at[{}]", n + 1));
                        refuse(path, steps[n + 1], format!("above the {} before it", steps[n]))
                    }
                    None => Ok(()),
                }
            }
            Self::Exponential { gamma } => up_to_one("exponential.gamma", *gamma),
            Self::Linear { total, end } => {
                count("linear.total", *total)?;
                number("linear.end", *end)
            }
            Self::LinearFloor { total, floor } => {
                count("linear_floor.total", *total)?;
                number("linear_floor.floor", *floor)
            }
            Self::Polynomial { total, power, end } => {
                count("polynomial.total", *total)?;
                above_zero(&at("polynomial.power"), *power)?;
                number("polynomial.end", *end)
            }
            Self::Cosine { total, end } => {
                count("cosine.total", *total)?;
                number("cosine.end", *end)
            }
            Self::CosineRestarts { first, mult, end } => {
                count("cosine_restarts.first", *first)?;
                count("cosine_restarts.mult", *mult)?;
                number("cosine_restarts.end", *end)
            }
            Self::InverseTime { decay } => number("inverse_time.decay", *decay),
            Self::InverseSqrt { warmup } => count("inverse_sqrt.warmup", *warmup),
            Self::Warmup { steps, start, then } => {
                count("warmup.steps", *steps)?;
                number("warmup.start", *start)?;
                then.check(&at("warmup.then"))
            }
            Self::Sequence(stages) => {
                for (n, Stage { steps, schedule }) in stages.iter().enumerate() {
                    count(&format!("sequence[{n}].steps"), *steps)?;
                    schedule.check(&at(&format!("sequence[{n}].schedule")))?;
                }
                if stages.is_empty() { refuse(at("sequence"), "empty", "at least one part") } else { Ok(()) }
            }
            Self::OneCycle { total, warmup_fraction, start, end } => {
                if *total < 2 {
                    return refuse(at("one_cycle.total"), total, "at least 2");
                }
                let (up, last) = one_cycle_turns(*total, *warmup_fraction);
                if !(up > 0.0 && up < last) {
                    let bound = format!("above 1/{total} and below 1");
                    return refuse(at("one_cycle.warmup_fraction"), warmup_fraction, bound);
                }
                number("one_cycle.start", *start)?;
                number("one_cycle.end", *end)
            }
            Self::Cyclic { low, up, down } => {
                number("cyclic.low", *low)?;
                count("cyclic.up", *up)?;
                count("cyclic.down", *down)
            }
            Self::WarmupStableDecay { warmup, total, decay, shape: _, end } => {
                count("warmup_stable_decay.total", *total)?;
                let needed = u128::from(*warmup) + u128::from(*decay);
                if u128::from(*total) < needed {
                    let bound = format!("at least warmup + decay, which is {needed}");
                    return refuse(at("warmup_stable_decay.total"), total, bound);
                }
                number("warmup_stable_decay.end", *end)
            }
            Self::Plateau(Plateau { factor, patience: _, threshold, threshold_mode, cooldown: _, min, mode }) => {
                below_one(&at("plateau.factor"), *factor)?;
                match (mode, threshold_mode) {
                    // With 1, no metric of at least 0 could be better than another.
                    (Mode::Min, ThresholdMode::Rel) => below_one(&at("plateau.threshold"), *threshold)?,
                    _ => number("plateau.threshold", *threshold)?,
                }
                up_to_one("plateau.min", *min)
            }
        }
    }

    /// The plateaus at any depth, in the order of their [states](Scheduler::state).
    fn plateaus(&self) -> Vec<&Plateau> {
        match self {
            Self::Plateau(plateau) => vec![plateau],
            Self::Warmup { then, .. } => then.plateaus(),
            Self::Sequence(stages) => stages.iter().flat_map(|stage| stage.schedule.plateaus()).collect(),
            _ => Vec::new(),
        }
    }

    /// The factor at `t` of a schedule that was checked; the states are those of its plateaus.
    fn factor(&self, t: u64, states: &[PlateauState]) -> f64 {
        let i = t - 1;
        let q = |total: u64| ratio(i.min(total), total);
        match self {
            Self::Constant {} => 1.0,
            Self::Step { every, gamma } => gamma.powf((i / every) as f64),
            Self::MultiStep { at, gamma } => gamma.powf(at.partition_point(|&at| at <= i) as f64),
            Self::Exponential { gamma } => gamma.powf(i as f64),
            Self::Linear { total, end } | Self::LinearFloor { total, floor: end } => to_one(*end, 1.0 - q(*total)),
            Self::Polynomial { total, power, end } => to_one(*end, (1.0 - q(*total)).powf(*power)),
            Self::Cosine { total, end } => to_one(*end, half_cosine(q(*total))),
            Self::CosineRestarts { first, mult, end } => {
                // In 128 bits the length of a cycle that is over, times `mult`, never overflows.
                let (mut j, mut cycle) = (u128::from(i), u128::from(*first));
                if *mult == 1 {
                    j %= cycle;
                }
                while j >= cycle {
                    j -= cycle;
                    cycle *= u128::from(*mult);
                }
                to_one(*end, half_cosine(j as f64 / cycle as f64))
            }
            Self::InverseTime { decay } => 1.0 / (1.0 + decay * i as f64),
            Self::InverseSqrt { warmup } => ratio(t, *warmup).min(ratio(*warmup, t).sqrt()),
            Self::Warmup { steps, start, .. } if i < *steps => to_one(*start, ratio(i, *steps)),
            Self::Warmup { steps, then, .. } => then.factor(t - steps, states),
            Self::Sequence(stages) => {
                let (last, before) = stages.split_last().expect("an empty sequence is refused");
                let (mut t, mut states) = (t, states);
                for Stage { steps, schedule } in before {
                    if t <= *steps {
                        return schedule.factor(t, states);
                    }
                    t -= steps;
                    states = &states[schedule.plateaus().len()..];
                }
                last.schedule.factor(t, states)
            }
            Self::OneCycle { total, warmup_fraction, start, end } => {
                let (up, last) = one_cycle_turns(*total, *warmup_fraction);
                match i as f64 {
                    i if i <= up => to_one(*start, 1.0 - half_cosine(i / up)),
                    i => to_one(*end, half_cosine((i.min(last) - up) / (last - up))),
                }
            }
            Self::Cyclic { low, up, down } => {
                let [i, up, down] = [i, *up, *down].map(u128::from);
                let j = i % (up + down);
                let down_share = j.saturating_sub(up) as f64 / down as f64;
                to_one(*low, if j < up { j as f64 / up as f64 } else { 1.0 - down_share })
            }
            Self::WarmupStableDecay { warmup, .. } if t <= *warmup => ratio(t, *warmup),
            Self::WarmupStableDecay { total, decay, shape, end, .. } => {
                match i.saturating_sub(total - decay).min(*decay) {
                    0 => 1.0,
                    j => to_one(*end, shape.down(ratio(j, *decay))),
                }
            }
            Self::Plateau(_) => states[0].factor,
            Self::Custom(closure) => (closure.function)(t),
        }
    }
}

impl DecayShape {
    /// The share of the descent that is left at `q`. It goes from 1 to 0 as `q` goes from 0 to 1.
    fn down(self, q: f64) -> f64 {
        match self {
            Self::Linear => 1.0 - q,
            Self::Cosine => half_cosine(q),
            Self::Sqrt => 1.0 - q.sqrt(),
        }
    }
}

/// Goes from `end`, where `share` is 0, to 1, where `share` is 1. Both ends are exact, whatever `end` is.
fn to_one(end: f64, share: f64) -> f64 {
    share + (1.0 - share) * end
}

/// Half a period of a cosine, which goes from 1 to 0 as `q` goes from 0 to 1.
fn half_cosine(q: f64) -> f64 {
    (1.0 + (PI * q).cos()) / 2.0
}

fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

/// Where one cycle turns down and where it ends, in steps done.
fn one_cycle_turns(total: u64, warmup_fraction: f64) -> (f64, f64) {
    (warmup_fraction * total as f64 - 1.0, (total - 1) as f64)
}

fn at_most_one(field: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { refuse(field, value, "at least 0 and at most 1") }
}
