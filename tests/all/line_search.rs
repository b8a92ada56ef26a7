//! L-BFGS with a line search: as few evaluations as PyTorch's, the same bits on both devices, and what is refused.

use ndarray::{ArrayD, IxDyn};
use wgpu_optim::{
    Arena, Clip, Config, Ema, Error, Gpu, Group, Lbfgs, LineSearch, Minimum, Optimizer, Reference, Result, Schedule,
    Slice, Stop, TensorSpec, wgpu,
};

use crate::common::{create, gpu, say};

/// Returns the loss and writes its gradient.
type Function = Box<dyn Fn(&[f64], &mut [f64]) -> f64>;

/// `scale*h.x^2/2` with `h` from `1/condition` to 1, geometrically apart.
fn quadratic(condition: f64, scale: f64) -> Function {
    Box::new(move |x, grad| {
        let h = |i: usize| scale * condition.powf(i as f64 / (x.len() - 1) as f64 - 1.0);
        (0..x.len()).for_each(|i| grad[i] = h(i) * x[i]);
        (0..x.len()).map(|i| 0.5 * h(i) * x[i] * x[i]).sum()
    })
}

/// Rosenbrock's valley in any number of dimensions, times `scale`.
fn rosenbrock(scale: f64) -> Function {
    Box::new(move |x, grad| {
        grad.fill(0.0);
        let mut loss = 0.0;
        for i in 0..x.len() - 1 {
            let (bend, rest) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
            loss += scale * (100.0 * bend * bend + rest * rest);
            grad[i] -= scale * (400.0 * bend * x[i] + 2.0 * rest);
            grad[i + 1] += scale * 200.0 * bend;
        }
        loss
    })
}

/// Beale's function of two dimensions.
fn beale() -> Function {
    Box::new(|x, grad| {
        grad.fill(0.0);
        let mut loss = 0.0;
        for (power, target) in [(1, 1.5), (2, 2.25), (3, 2.625)] {
            let rest = target - x[0] + x[0] * x[1].powi(power);
            loss += rest * rest;
            grad[0] += 2.0 * rest * (x[1].powi(power) - 1.0);
            grad[1] += 2.0 * rest * x[0] * f64::from(power) * x[1].powi(power - 1);
        }
        loss
    })
}

fn waves(n: usize) -> Vec<f64> {
    (0..n).map(|i| (1.0 + 2.0 * i as f64).sin()).collect()
}

/// A search that stops by the gradient alone.
fn to_rest(tolerance_grad: f64) -> Lbfgs {
    Lbfgs {
        line_search: LineSearch::StrongWolfe,
        max_iter: 1000,
        max_eval: Some(10_000),
        tolerance_grad,
        tolerance_change: 0.0,
        ..Lbfgs::default()
    }
}

/// The parameters as two tensors, which are one vector.
fn tensors(n: usize) -> [TensorSpec; 2] {
    [TensorSpec::f32("a", [n / 3]), TensorSpec::f32("b", [n - n / 3])]
}

fn arrays<F: Copy>(tensors: &[TensorSpec], values: &[F]) -> Vec<ArrayD<F>> {
    let (a, b) = values.split_at(tensors[0].shape[0]);
    [a, b].map(|values| ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).unwrap()).into()
}

/// Minimises on the CPU in f64.
fn on_cpu(lbfgs: &mut Reference<f64>, params: &mut [ArrayD<f64>], function: &Function) -> Minimum {
    let tensors = lbfgs.tensors().to_vec();
    let evaluate = |params: &[ArrayD<f64>]| {
        let x: Vec<f64> = params.iter().flatten().copied().collect();
        let mut grad = vec![0.0; x.len()];
        let loss = function(&x, &mut grad);
        (loss, arrays(&tensors, &grad))
    };
    lbfgs.minimize(params, evaluate).unwrap()
}

/// The same in f32, as a function of f32 that both devices can be given.
fn rounded(function: &Function, x: &[f32]) -> (f32, Vec<f32>) {
    let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    let mut grad = vec![0.0; x.len()];
    let loss = function(&x, &mut grad) as f32;
    (loss, grad.into_iter().map(|g| g as f32).collect())
}

/// An optimizer on the GPU, whose function is computed on the CPU where the caller would encode it.
struct OnGpu {
    gpu: Gpu,
    lbfgs: Optimizer,
    params: Arena,
    grads: Arena,
    loss: wgpu::Buffer,
    /// The parameters and the loss of each evaluation.
    trace: Vec<(Vec<f32>, f32)>,
}

impl OnGpu {
    fn new(gpu: &Gpu, config: impl Into<Config>, start: &[f32]) -> Self {
        let tensors = tensors(start.len());
        let [params, grads] = [(); 2].map(|()| Arena::new(gpu, &tensors).unwrap());
        let lbfgs = Optimizer::new(gpu, &tensors, config).unwrap();
        let loss = create(gpu, 8, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST);
        let made = Self { gpu: gpu.clone(), lbfgs, params, grads, loss, trace: vec![] };
        made.write(start);
        made
    }

    fn write(&self, values: &[f32]) {
        let (a, b) = values.split_at(self.params.tensors()[0].shape[0]);
        self.params.write("a", a).unwrap();
        self.params.write("b", b).unwrap();
    }

    fn read(&self) -> Vec<f32> {
        ["a", "b"].map(|name| self.params.read_blocking(name).unwrap()).concat()
    }

    fn state(&self) -> Vec<Vec<f32>> {
        let slots = ["g_prev", "d", "s", "y", "scale", "step", "pairs", "next", "started", "products"];
        let of = |slot| ["a", "b"].map(|tensor| self.lbfgs.state_blocking(tensor, slot).unwrap()).concat();
        slots.map(of).into()
    }

    /// Minimises what the function gives for the parameters, of this evaluation counted from 0.
    fn minimize(&mut self, function: impl Fn(usize, &[f32]) -> (f32, Vec<f32>)) -> Result<Minimum> {
        let Self { gpu, lbfgs, params, grads, loss, trace } = self;
        let mut evaluation = 0;
        lbfgs.minimize_blocking(&*params, &*grads, Slice::new(loss, 4, 4), |encoder| {
            let x = ["a", "b"].map(|name| params.read_blocking(name).unwrap()).concat();
            let (value, grad) = function(evaluation, &x);
            evaluation += 1;
            let (a, b) = grad.split_at(params.tensors()[0].shape[0]);
            grads.write("a", a).unwrap();
            grads.write("b", b).unwrap();
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let given = create(gpu, 4, usage);
            gpu.queue().write_buffer(&given, 0, &value.to_le_bytes());
            encoder.copy_buffer_to_buffer(&given, 0, loss, 4, 4);
            trace.push((x, value));
        })
    }
}

/// A problem, and how many evaluations `torch.optim.LBFGS` takes to solve it, in f64 and in f32.
struct Problem {
    name: String,
    function: Function,
    start: Vec<f64>,
    tolerance_grad: f64,
    torch: [usize; 2],
}

/// PyTorch 2.15.0 on the CPU, one thread: `line_search_fn="strong_wolfe", max_iter=1000, max_eval=10000,
/// tolerance_change=0` and the given `tolerance_grad`, one call of `step`; the calls of its closure are counted.
fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    let mut add = |name: &str, function, start: Vec<f64>, tolerance_grad, torch| {
        all.push(Problem { name: name.into(), function, start, tolerance_grad, torch });
    };
    for (n, condition, evaluations) in [
        (5, 10.0, 14),
        (5, 100.0, 16),
        (5, 1000.0, 22),
        (10, 10.0, 19),
        (10, 100.0, 24),
        (10, 1000.0, 32),
        (20, 10.0, 25),
        (20, 100.0, 45),
        (20, 1000.0, 61),
    ] {
        let name = format!("quadratic of {n}, condition {condition}");
        add(&name, quadratic(condition, 1.0), waves(n), 1e-7, [evaluations; 2]);
    }
    let valley = [-1.2, 1.0];
    add("Rosenbrock", rosenbrock(1.0), valley.into(), 1e-7, [46, 45]);
    add("Rosenbrock from 0", rosenbrock(1.0), vec![0.0; 2], 1e-7, [27, 27]);
    add("Rosenbrock of 10", rosenbrock(1.0), valley.repeat(5), 1e-7, [91, 87]);
    add("Beale", beale(), vec![1.0; 2], 1e-7, [17, 17]);
    // Pairs of so flat functions are dropped in the end.
    add("flat quadratic", quadratic(10.0, 1e-4), waves(5), 1e-8, [16, 14]);
    add("flat Rosenbrock", rosenbrock(1e-6), valley.into(), 1e-9, [75, 49]);
    all
}

#[test]
fn evaluations_are_as_few_as_pytorchs() {
    let Some(gpu) = gpu("line searches", 15) else { return };
    for Problem { name, function, start, tolerance_grad, torch } in problems() {
        let tensors = tensors(start.len());
        let mut lbfgs = Reference::<f64>::new(&to_rest(tolerance_grad).into(), &tensors).unwrap();
        let mut params = arrays(&tensors, &start);
        let found = on_cpu(&mut lbfgs, &mut params, &function);
        assert_eq!(found.stop, Stop::GradientSmall, "{name}");
        let start: Vec<f32> = start.iter().map(|&x| x as f32).collect();
        let mut gpu = OnGpu::new(&gpu, to_rest(tolerance_grad), &start);
        let on_gpu = gpu.minimize(|_, x| rounded(&function, x)).unwrap();
        let evaluations = [found.evaluations, on_gpu.evaluations];
        say(&format!("{name}: {evaluations:?} evaluations in f64 and on the GPU, PyTorch {torch:?}"));
        for (found, torch) in evaluations.into_iter().zip(torch) {
            assert!(found as f64 <= 1.1 * torch as f64, "{name}: {found} evaluations, PyTorch {torch}");
        }
    }
}

#[test]
fn with_pytorchs_defaults_successive_calls_stop_where_pytorch_does() {
    let tensors = tensors(2);
    let rule = Lbfgs { line_search: LineSearch::StrongWolfe, ..Lbfgs::default() };
    let mut lbfgs = Reference::<f64>::new(&rule.into(), &tensors).unwrap();
    let mut params = arrays(&tensors, &[-1.2, 1.0]);
    let mut told = vec![];
    for _ in 0..3 {
        let found = on_cpu(&mut lbfgs, &mut params, &rosenbrock(1.0));
        told.push((found.stop, found.evaluations, found.iterations));
    }
    // PyTorch 2.15.0 in f64: 25, 44 and 45 calls of the closure in all, 19, 35 and 36 directions.
    let expected = [(Stop::MaxEvaluations, 25, 19), (Stop::ChangeSmall, 19, 16), (Stop::ChangeSmall, 1, 1)];
    assert_eq!(told, expected);
}

/// A curved function of many parameters.
fn bowl() -> Function {
    Box::new(|x, grad| {
        let h = |i: usize| 1.0 + (i % 7) as f64;
        (0..x.len()).for_each(|i| grad[i] = h(i) * (x[i] - 0.5).sinh());
        (0..x.len()).map(|i| h(i) * ((x[i] - 0.5).cosh() - 1.0)).sum()
    })
}

/// What minimisations came to, and the parameters and the loss of each of their evaluations.
type Trace = (Vec<Minimum>, Vec<(Vec<f32>, f32)>);

/// The traces on the GPU and on the CPU, in f32, of two minimisations: a tensor takes no part in the second one. Behind
/// all evaluations stand the parameters, and the state of a tensor.
fn traces(gpu: &Gpu, config: &Config, function: &Function, start: &[f32]) -> Result<[Trace; 2]> {
    let mut on_gpu = OnGpu::new(gpu, config.clone(), start);
    let tensors = tensors(start.len());
    let mut reference = Reference::<f32>::new(config, &tensors)?;
    let mut params = arrays(&tensors, start);
    let (mut told, mut found, mut trace) = (vec![], vec![], vec![]);
    for _ in 0..2 {
        told.push(on_gpu.minimize(|_, x| rounded(function, x))?);
        found.push(reference.minimize(&mut params, |params| {
            let x: Vec<f32> = params.iter().flatten().copied().collect();
            let (loss, grad) = rounded(function, &x);
            trace.push((x, loss));
            (loss, arrays(&tensors, &grad))
        })?);
        on_gpu.lbfgs.freeze("a")?;
        reference.freeze("a")?;
    }
    trace.push((params.iter().flatten().copied().collect(), 0.0));
    on_gpu.trace.push((on_gpu.read(), 0.0));
    for slot in ["g_prev", "d", "s", "y", "step", "pairs"] {
        trace.push((reference.state("b", slot)?.iter().copied().collect(), 0.0));
        on_gpu.trace.push((on_gpu.lbfgs.state_blocking("b", slot)?, 0.0));
    }
    Ok([(told, on_gpu.trace), (found, trace)])
}

/// Several chunks, and one that ends within a vector.
fn big() -> Vec<f32> {
    (0..3 * 8200 + 1).map(|i| 3.0 * (i as f32).sin()).collect()
}

/// Whether both devices minimise alike with these numbers of a search and this history.
pub fn agrees(gpu: &Gpu, config: &Config) -> Result<bool> {
    let [on_gpu, on_cpu] = traces(gpu, config, &bowl(), &big())?;
    Ok(on_gpu == on_cpu)
}

#[test]
fn both_devices_try_the_same_points_to_the_bit() {
    let Some(gpu) = gpu("trials", 2) else { return };
    for (function, start) in [(rosenbrock(1.0), [-1.2f32, 1.0].repeat(2)), (bowl(), big())] {
        let rule = Lbfgs { history_size: 4, max_iter: 30, max_eval: Some(100), ..to_rest(1e-6) };
        let [(told, on_gpu), (found, on_cpu)] = traces(&gpu, &rule.into(), &function, &start).unwrap();
        assert!(found[0].evaluations > found[0].iterations + 1, "some search takes more than one trial");
        assert_eq!(told, found);
        assert_eq!(on_gpu.len(), found[0].evaluations + found[1].evaluations + 7);
        let differs = on_gpu.iter().zip(&on_cpu).position(|(gpu, cpu)| gpu != cpu);
        assert_eq!(differs, None, "the first evaluation that differs, or parameters and state behind all");
    }
}

#[test]
fn a_frozen_tensor_takes_no_part() {
    let Some(gpu) = gpu("frozen tensors", 1) else { return };
    let start = [-1.2f32, 1.0, 0.3, -0.7, 0.1, 2.0];
    let mut on_gpu = OnGpu::new(&gpu, to_rest(1e-2), &start);
    on_gpu.lbfgs.freeze("a").unwrap();
    let found = on_gpu.minimize(|_, x| rounded(&bowl(), x)).unwrap();
    let end = on_gpu.read();
    assert_eq!((found.stop, &end[..2]), (Stop::GradientSmall, &start[..2]));
    assert!(end[2..].iter().all(|x| (x - 0.5).abs() < 1e-2), "{end:?}");
}

#[test]
fn two_searches_go_on_as_one_and_a_checkpoint_lies_between() {
    let Some(gpu) = gpu("searches that go on", 1) else { return };
    let start = [-1.2f32, 1.0, 0.3, -0.7];
    let rule = |max_iter| Lbfgs { max_iter, history_size: 3, ..to_rest(0.0) };
    let function = rosenbrock(1.0);
    let mut whole = OnGpu::new(&gpu, rule(10), &start);
    let found = whole.minimize(|_, x| rounded(&function, x)).unwrap();
    assert_eq!((found.stop, found.iterations), (Stop::MaxIterations, 10));
    let mut parts = OnGpu::new(&gpu, rule(5), &start);
    let first = parts.minimize(|_, x| rounded(&function, x)).unwrap();
    let saved = parts.lbfgs.save_blocking().unwrap();
    parts.lbfgs = Optimizer::load(&gpu, &tensors(4), &saved).unwrap();
    let second = parts.minimize(|_, x| rounded(&function, x)).unwrap();
    assert_eq!(first.evaluations + second.evaluations, found.evaluations + 1);
    assert_eq!((second.loss, parts.read(), parts.state()), (found.loss, whole.read(), whole.state()));
    assert_eq!(parts.lbfgs.t("a").unwrap(), 10);
}

#[test]
fn a_flat_function_drops_pairs() {
    let tensors = tensors(5);
    let rule = to_rest(1e-8);
    let mut lbfgs = Reference::<f64>::new(&rule.into(), &tensors).unwrap();
    let mut params = arrays(&tensors, &waves(5));
    let found = on_cpu(&mut lbfgs, &mut params, &quadratic(10.0, 1e-4));
    let pairs = lbfgs.state("a", "pairs").unwrap().sum();
    assert!(pairs > 0.0 && (pairs as usize) < found.iterations - 1, "{pairs} pairs of {found:?}");
    assert_eq!(found.stop, Stop::GradientSmall);
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_parameters_where_they_were() {
    let Some(gpu) = gpu("losses that are not finite", 1) else { return };
    let start = [-1.2f32, 1.0, 0.3, -0.7];
    let function = rosenbrock(1.0);
    let rule = Lbfgs { max_iter: 3, ..to_rest(1e-6) };
    let mut on_gpu = OnGpu::new(&gpu, rule, &start);
    let fresh = on_gpu.state();
    for bad in [f32::NAN, f32::INFINITY] {
        let found = on_gpu.minimize(|_, _| (bad, vec![1.0; 4])).unwrap();
        assert_eq!((found.stop, found.evaluations, found.iterations), (Stop::NotFinite, 1, 0));
        let found = on_gpu.minimize(|_, _| (1.0, vec![1.0, bad, 1.0, 1.0])).unwrap();
        assert_eq!((found.stop, found.evaluations, found.iterations), (Stop::NotFinite, 1, 0));
        assert_eq!((on_gpu.read(), on_gpu.state()), (start.into(), fresh.clone()));
    }
    // A search in the course of which nothing is finite any more ends where it started.
    on_gpu.minimize(|_, x| rounded(&function, x)).unwrap();
    let (before, pairs) = (on_gpu.read(), on_gpu.lbfgs.state_blocking("a", "pairs").unwrap());
    let lost = |i: usize, x: &[f32]| {
        let (loss, grad) = rounded(&function, x);
        (if i == 0 { loss } else { f32::NAN }, grad)
    };
    let found = on_gpu.minimize(lost).unwrap();
    assert_eq!((found.stop, found.iterations), (Stop::NotFinite, 1));
    assert_eq!(on_gpu.read(), before);
    assert_eq!(found.loss, f64::from(rounded(&function, &before).0));
    assert_eq!(on_gpu.lbfgs.state_blocking("a", "pairs").unwrap()[0], pairs[0] + 1.0, "the last pair of before");
    // The next search goes on from there, and takes no pair for a step that was none.
    let found = on_gpu.minimize(|_, x| rounded(&function, x)).unwrap();
    assert_eq!(found.stop, Stop::MaxIterations);
    assert_eq!(on_gpu.lbfgs.state_blocking("a", "pairs").unwrap()[0], pairs[0] + 3.0);
    assert!(found.loss < f64::from(rounded(&function, &before).0));
}

#[test]
fn gradients_that_the_caller_adds_to_are_cleared_before_each_evaluation() {
    let Some(gpu) = gpu("gradients that are cleared", 1) else { return };
    let mut on_gpu = OnGpu::new(&gpu, to_rest(1e-5), &[3.0, 2.0, 1.0]);
    on_gpu.lbfgs.clear_grads(true);
    let OnGpu { lbfgs, params, grads, loss, .. } = &mut on_gpu;
    grads.write("b", &[7.0, 7.0]).unwrap();
    // Nobody writes a gradient, so that what lies there counts.
    let found = lbfgs.minimize_blocking(&*params, &*grads, Slice::new(loss, 0, 4), |_| {}).unwrap();
    assert_eq!((found.stop, found.evaluations), (Stop::GradientSmall, 1));
    assert_eq!(grads.read_blocking("b").unwrap(), [0.0; 2]);
}

#[test]
fn what_does_not_go_with_a_line_search_is_refused_by_name() {
    let tensors = tensors(4);
    let config = || Config::from(to_rest(1e-5));
    let text = |config: Config| config.groups(&tensors).unwrap_err().to_string();
    assert_eq!(text(config().wrap(Clip::GlobalNorm(1.0))), "clip is set, must be left out with a line search");
    assert_eq!(text(config().wrap(Ema::default())), "ema is set, must be left out with a line search");
    assert_eq!(text(config().norms(true)), "norms is set, must be left out with a line search");
    assert_eq!(text(config().maximize(true)), "maximize is true, must be left out with a line search");
    let group = config().group(Group::new(["a"]).set("maximize", true));
    assert_eq!(text(group), "maximize is true, must be left out with a line search");
    let schedule = || Schedule::custom(|_| 0.5);
    assert_eq!(text(config().schedule("lr", schedule())), "schedules is set, must be left out with a line search");
    let group = config().group(Group::new(["a"]).schedule("lr", schedule()));
    assert_eq!(text(group), "schedules is set, must be left out with a line search");
}

#[test]
fn steps_and_minimisations_that_do_not_fit_the_rule_are_refused() {
    let step = "line_search is strong_wolfe, must be none in a step of its own; minimize takes them";
    let search = "line_search is none, must be strong_wolfe of lbfgs to minimize";
    let tensors = tensors(4);
    let zeros = arrays(&tensors, &[0.0; 4]);
    let grads: Vec<_> = zeros.iter().cloned().map(Some).collect();
    let mut searches = Reference::<f64>::new(&to_rest(1e-5).into(), &tensors).unwrap();
    assert_eq!(searches.step(&mut zeros.clone(), &grads).unwrap_err().to_string(), step);
    let mut steps = Reference::<f64>::new(&Lbfgs::default().into(), &tensors).unwrap();
    let refused = steps.minimize(&mut zeros.clone(), |params| (0.0, params.to_vec())).unwrap_err();
    assert_eq!(refused.to_string(), search);
    let short = searches.minimize(&mut zeros.clone(), |params| (0.0, params[..1].to_vec())).unwrap_err();
    assert_eq!(short, Error::Count { what: "gradients", found: 1, expected: 2 });

    let Some(gpu) = gpu("refusals of searches", 1) else { return };
    let mut on_gpu = OnGpu::new(&gpu, to_rest(1e-5), &[1.0; 4]);
    let (before, state) = (on_gpu.read(), on_gpu.state());
    let OnGpu { lbfgs, params, grads, loss, .. } = &mut on_gpu;
    assert_eq!(lbfgs.step(&*params, &*grads).unwrap_err().to_string(), step);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let refused = lbfgs.encode_into(&mut encoder, &*params, &*grads, &*params).unwrap_err();
    assert_eq!(refused.to_string(), step);
    let mut refused = |loss: Slice| lbfgs.minimize_blocking(&*params, &*grads, loss, |_| panic!("not evaluated"));
    let size = refused(Slice::all(loss)).unwrap_err().to_string();
    assert!(size.contains("loss") && size.contains("8 bytes") && size.contains("4 bytes"), "{size}");
    let usage = refused(Slice::all(&create(&gpu, 4, wgpu::BufferUsages::STORAGE))).unwrap_err().to_string();
    assert!(usage.contains("loss") && usage.contains("COPY_SRC"), "{usage}");
    let (loss, size) = (Slice::new(loss, 0, 4), 4 * params.tensors()[0].shape[0] as u64);
    let fixed = create(&gpu, 16, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    let slices = [Slice::new(&fixed, 0, size), Slice::new(&fixed, size, 16 - size)];
    let usage = lbfgs.minimize_blocking(&slices, &*grads, loss, |_| panic!("not evaluated")).unwrap_err().to_string();
    assert!(usage.contains("parameter") && usage.contains("COPY_DST"), "{usage}");
    assert_eq!((on_gpu.read(), on_gpu.state()), (before, state));
    let mut steps = OnGpu::new(&gpu, Lbfgs::default(), &[1.0; 4]);
    assert_eq!(steps.minimize(|_, x| rounded(&bowl(), x)).unwrap_err().to_string(), search);
}
