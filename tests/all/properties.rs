//! Every rule and case has these properties, whatever its formula.

use crate::common::twin::{Parity, all_tensors, bound, fitting, noise, tensors};
use crate::common::{dispatches_of, gpu, say, say_share, share};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use wgpu_optim::rule::{AnyRule, Carried};
use wgpu_optim::rules::ALL;
use wgpu_optim::wgpu;
use wgpu_optim::{Arena, Config, Gpu, Optimizer, TensorSpec};

/// Every case of every row, with its name.
fn cases() -> Vec<(String, Box<dyn AnyRule>)> {
    let of = |row: &wgpu_optim::rule::RuleEntry| {
        let name = row.name;
        (row.cases)().into_iter().map(move |(case, rule)| (format!("{name}/{case}"), rule))
    };
    ALL.iter().flat_map(of).collect()
}

/// Makes the same rule without decay.
fn without_decay(rule: &dyn AnyRule) -> Config {
    let none = serde_json::Map::from_iter([("weight_decay".to_string(), json!("none"))]);
    rule.with(&none).expect("every rule takes none").into()
}

/// An optimizer with its arenas.
struct Run {
    optimizer: Optimizer,
    params: Arena,
    grads: Arena,
}

impl Run {
    fn new(gpu: &Gpu, config: &Config, tensors: &[TensorSpec]) -> Self {
        let tensors = &fitting(config, tensors)[..];
        Self {
            optimizer: Optimizer::new(gpu, tensors, config.clone()).unwrap(),
            params: Arena::new(gpu, tensors).unwrap(),
            grads: Arena::new(gpu, tensors).unwrap(),
        }
    }

    fn step(&mut self) {
        if self.optimizer.needs_look_ahead() {
            self.optimizer.look_ahead(&self.params).unwrap();
        }
        self.optimizer.step(&self.params, &self.grads).unwrap();
    }

    /// Steps of one tensor with these values: the parameters after them, as bits.
    fn of(gpu: &Gpu, config: &Config, params: &[f32], grads: &[Vec<f32>]) -> Vec<u32> {
        let mut run = Self::new(gpu, config, &[TensorSpec::f32("w", [params.len()])]);
        run.params.write("w", params).unwrap();
        for grad in grads {
            run.grads.write("w", grad).unwrap();
            run.step();
        }
        run.bits("w")
    }

    fn bits(&self, tensor: &str) -> Vec<u32> {
        self.params.read_blocking(tensor).unwrap().into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn a_zero_gradient_moves_nothing() {
    let Some(gpu) = gpu("zero gradients", cases().len()) else { return };
    for (name, rule) in cases() {
        let params = noise(&mut StdRng::seed_from_u64(1), 1030);
        let bits: Vec<u32> = params.iter().map(|p| p.to_bits()).collect();
        let grads = vec![vec![0.0; 1030]; 3];
        let after = Run::of(&gpu, &without_decay(&*rule), &params, &grads);
        assert_eq!(after == bits, rule.rests(), "{name}");
    }
}

#[test]
fn elementwise_rules_see_neither_order_nor_company() {
    let Some(gpu) = gpu("permutation and halves", cases().len()) else { return };
    let mut others = 0;
    for (name, rule) in cases() {
        if !rule.elementwise() {
            others += 1;
            continue;
        }
        let config = Config::from(rule);
        let mut rng = StdRng::seed_from_u64(2);
        let params = noise(&mut rng, 5002);
        let grads: Vec<_> = (0..3).map(|_| noise(&mut rng, 5002)).collect();
        let whole = Run::of(&gpu, &config, &params, &grads);
        let reversed = |values: &[f32]| values.iter().rev().copied().collect::<Vec<_>>();
        let mut back =
            Run::of(&gpu, &config, &reversed(&params), &grads.iter().map(|g| reversed(g)).collect::<Vec<_>>());
        back.reverse();
        assert_eq!(back, whole, "{name} reversed");
        let part = |range: std::ops::Range<usize>| {
            let grads: Vec<_> = grads.iter().map(|grad| grad[range.clone()].to_vec()).collect();
            Run::of(&gpu, &config, &params[range], &grads)
        };
        assert_eq!([part(0..2501), part(2501..5002)].concat(), whole, "{name} in halves");
    }
    say(&format!("skipped: {others} cases of permutation and halves: their rules are not elementwise"));
}

/// Where each matrix is a single element, a rule may have another form with the same numbers, which are in f32 whatever
/// the format of the state.
#[test]
fn a_form_for_single_elements_gives_the_bits_of_the_form_for_matrices() {
    let Some(gpu) = gpu("forms for single elements", ALL.len()) else { return };
    let tensors = [&[1, 1][..], &[5, 1, 1], &[2100, 4, 1, 1]];
    let tensors: Vec<_> =
        tensors.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("m{i}"), shape)).collect();
    let all = cases().into_iter().filter(|(_, rule)| rule.for_pointwise().is_some());
    let mut found = 0;
    for (name, rule) in all {
        let for_matrices = rule.for_matrices().expect("what has one form has the other");
        assert!(for_matrices.for_pointwise().is_none(), "{name}: the form for matrices goes its own way");
        let run = |config: Config| {
            let mut twin = Parity::new(&gpu, &config, &tensors, 4).midway(9);
            twin.run(&name, 2);
            twin.words()
        };
        let expected = run(for_matrices.clone().into());
        // The form for matrices is what earlier versions took and saved.
        let mut twin = Parity::new(&gpu, &for_matrices.into(), &tensors, 4).midway(9);
        twin.run(&name, 1);
        let saved = twin.optimizer.save_blocking().unwrap();
        twin.optimizer = Optimizer::load(&gpu, &tensors, &saved).unwrap();
        twin.run(&name, 1);
        assert_eq!(twin.words(), expected, "{name} from a checkpoint");
        assert_eq!(run(rule.clone().into()), expected, "{name}");
        let mut coded = rule.to_json();
        coded.extend([("optimizer".into(), json!(rule.name())), ("state_format".into(), json!("q4"))]);
        coded.insert("min_elements".into(), json!(0));
        assert_eq!(run(Config::from_value(coded.into()).unwrap()), expected, "{name} with state in q4");
        found += 1;
    }
    assert!(found > 0, "no rule has a form for single elements");
}

#[test]
fn one_dispatch_gives_the_bits_of_many_and_two_runs_give_the_same() {
    let Some(gpu) = gpu("many tensors at once", cases().len()) else { return };
    let tensors = all_tensors();
    let tried = share(cases(), 3, 0);
    say_share("many tensors at once", tried.len(), cases().len());
    for (name, rule) in tried {
        // Two steps behind the ninth comes the twelfth.
        let dispatches = dispatches_of(&*rule, &tensors, 12);
        let dispatches = dispatches + rule.forms().map(|rule| rule.passes().len()).sum::<usize>();
        let (of_model, config) = (rule.sums_over_model(), Config::from(rule));
        let run = || {
            let mut twin = Parity::new(&gpu, &config, &tensors, 4).midway(9);
            twin.step();
            twin.step();
            twin
        };
        let (mut together, again) = (run(), run());
        let report = together.optimizer.plan(&together.params, &together.grads).unwrap();
        assert_eq!((report.windows, report.dispatches), (report.variants, dispatches), "{name}: {report:?}");
        if of_model {
            assert_eq!(together.words(), again.words(), "{name} in two runs");
            continue; // what a tensor does depends on all others
        }
        let twin = Parity::new(&gpu, &config, &tensors, 4).midway(9);
        let starts: Vec<_> = twin.values.iter().map(|values| values.iter().copied().collect::<Vec<_>>()).collect();
        for (place, (tensor, start)) in tensors.iter().zip(&starts).enumerate() {
            let read = |run: &Parity| {
                let values = run.params.read_blocking(&tensor.name).unwrap();
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(read(&together), read(&again), "{name}: {} in two runs", tensor.name);
            let mut alone = Run::new(&gpu, &config, std::slice::from_ref(tensor));
            alone.params.write(&tensor.name, start).unwrap();
            for slot in twin.optimizer.slots(&tensor.name).unwrap() {
                let values = twin.optimizer.state_blocking(&tensor.name, slot).unwrap();
                alone.optimizer.set_state(&tensor.name, slot, &values).unwrap();
            }
            alone.optimizer.set_t(&tensor.name, 9).unwrap();
            for grads in &together.history {
                alone.grads.write(&tensor.name, &grads[place]).unwrap();
                alone.step();
            }
            assert_eq!(alone.bits(&tensor.name), read(&together), "{name}: {} alone", tensor.name);
        }
    }
}

#[test]
fn nothing_is_made_after_the_first_step() {
    let Some(gpu) = gpu("second steps", cases().len()) else { return };
    for (name, rule) in cases() {
        let mut twin = Parity::new(&gpu, &Config::from(rule), &tensors(&[5, 3000]), 5);
        twin.optimizer.warm_up(&twin.params, &twin.grads).unwrap();
        let (ours, hal) = (gpu.counts(), hal_counts(&gpu));
        for _ in 0..3 {
            if twin.optimizer.needs_look_ahead() {
                twin.optimizer.look_ahead(&twin.params).unwrap();
            }
            twin.optimizer.step(&twin.params, &twin.grads).unwrap();
            // More steps in flight than before would need more room.
            gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        }
        assert_eq!(gpu.counts(), ours, "{name}");
        // Objects of the case before may be freed in the meantime.
        let now = hal_counts(&gpu);
        assert!(now[0] <= hal[0] && now[1] <= hal[1], "{name}: wgpu counts {now:?} after {hal:?}");
    }
}

#[test]
fn what_is_carried_after_t_steps_is_what_they_leave() {
    for (name, rule) in cases() {
        let numbers = |t, carried: &mut Carried| {
            let mut numbers = Vec::new();
            rule.hyper(t, carried, &mut numbers);
            numbers
        };
        assert_eq!(numbers(1, &mut [7.0; 2]), numbers(1, &mut Carried::default()), "{name}: its first step");
        assert_eq!(rule.carried(0), Carried::default(), "{name}");
        let mut stepped = Carried::default();
        for t in 1..=3000 {
            numbers(t, &mut stepped);
            let jumped = rule.carried(t);
            // Measured: at most 6.3e-14 of the value.
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-13 * b + f64::MIN_POSITIVE;
            assert!(stepped.iter().zip(&jumped).all(close), "{name}, step {t}: {stepped:?}, carried {jumped:?}");
        }
    }
}

/// Live compute pipelines and bind groups, as wgpu counts them.
fn hal_counts(gpu: &Gpu) -> [isize; 2] {
    let counters = gpu.device().get_internal_counters().hal;
    [counters.compute_pipelines.read(), counters.bind_groups.read()]
}

#[test]
fn a_nan_gradient_makes_its_parameter_nan_and_no_other_elementwise() {
    let Some(gpu) = gpu("NaN gradients", cases().len()) else { return };
    for (name, rule) in cases() {
        let elementwise = rule.elementwise();
        let params = noise(&mut StdRng::seed_from_u64(6), 1030);
        let mut grad = vec![0.5; 1030];
        grad[1029] = f32::NAN;
        let after = Run::of(&gpu, &Config::from(rule), &params, &[grad]);
        let is_nan = |i: usize| f32::from_bits(after[i]).is_nan();
        assert!(is_nan(1029), "{name}");
        assert!(!elementwise || !(0..1029).any(is_nan), "{name}");
    }
}

/// WGSL leaves it to the device which operand `max` and `min` return where one is NaN.
#[test]
fn a_nan_gradient_leaves_the_state_of_the_reference() {
    let Some(gpu) = gpu("states after NaN gradients", cases().len()) else { return };
    let (with_sides, others): (Vec<_>, Vec<_>) = cases().into_iter().partition(|(_, rule)| rule.sides().is_some());
    say(&format!("skipped: {} cases of bases with NaN, which hang on every comparison", with_sides.len()));
    for (name, rule) in others {
        let config = Config::from(rule);
        let mut list = tensors(&[5, 1030]);
        list.push(TensorSpec::f32("m0", [6, 7]));
        let mut twin = Parity::new(&gpu, &config, &fitting(&config, &list), 43).midway(6);
        let lost = twin.step_changed(&[], |i, grad| {
            if i > 0 {
                grad[4] = f32::NAN;
            }
        });
        let after = twin.step();
        for worst in [lost, after] {
            assert!(worst.ulps <= bound(&gpu), "{name}: {}", worst.text);
        }
    }
}
