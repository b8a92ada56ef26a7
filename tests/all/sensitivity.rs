//! Tests the tests: each shader is broken on purpose, and parity must notice.
//!
//! For every rule: two hyper-parameters swapped, a statement dropped, the last element skipped, in the composed text of
//! each walk. A break must show in at least one of the rule's cases. One in twelve breaks is tried, and all in
//! `cargo xtask test --thorough`.

use std::sync::Arc;

use crate::common::twin::{Parity, bound, tensors};
use crate::common::{default_of, gpu, say, say_share, share};
use serde_json::Value;
use wgpu_optim::backend::{Access, Common, Formats, Kernel, Step};
use wgpu_optim::rule::{
    AnyRule, Carried, Field, Fields, Move, Names, Numbers, Pass, Renewal, RuleEntry, Slot, Stopping, WeightDecay,
};
use wgpu_optim::rules::ALL;
use wgpu_optim::shader::{Values, Walk, compose};
use wgpu_optim::wrappers::{self, Moving};
use wgpu_optim::{
    Accumulate, AdaptiveClip, Arena, Clip, Config, DType, Ema, Error, Gpu, Group, Lookahead, LossScale, ParamRounding,
    Result, SkipNonfinite, TensorSpec, Together, Tuning, Wrappers, encode_together,
};

type Edit = Arc<dyn Fn(String) -> String + Send + Sync>;

/// One in so many breaks is tried.
const SHARE: usize = 12;

/// A rule whose shaders are edited after they are composed.
struct Broken {
    rule: Box<dyn AnyRule>,
    edit: Edit,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rule.fmt(f)
    }
}

macro_rules! kernel {
    ($real:ty) => {
        impl Kernel<$real> for Broken {
            fn step(&self, step: Step<'_, $real>) {
                self.rule.step(step);
            }
            fn step_model(&self, steps: Vec<(usize, Step<'_, $real>)>, model: &mut [$real]) {
                self.rule.step_model(steps, model);
            }
            fn moved(&self, to: Move, hyper: &[f64], params: &mut [$real], state: &[Vec<$real>]) {
                self.rule.moved(to, hyper, params, state);
            }
        }
    };
}
kernel!(f32);
kernel!(f64);

impl Fields for Broken {
    fn field_names(&self) -> &'static [&'static str] {
        self.rule.field_names()
    }
    fn field(&mut self, name: &str) -> Option<&mut dyn Field> {
        self.rule.field(name)
    }
}

impl AnyRule for Broken {
    fn name(&self) -> &'static str {
        self.rule.name()
    }
    fn shader(&self) -> &'static str {
        self.rule.shader()
    }
    fn takes_signs(&self) -> bool {
        self.rule.takes_signs()
    }
    fn elementwise(&self) -> bool {
        self.rule.elementwise()
    }
    fn rests(&self) -> bool {
        self.rule.rests()
    }
    fn is_maskable(&self) -> bool {
        self.rule.is_maskable()
    }
    fn names(&self) -> Names {
        self.rule.names()
    }
    fn check(&self) -> Result<()> {
        self.rule.check()
    }
    fn lr(&self) -> f64 {
        self.rule.lr()
    }
    fn options(&self) -> &'static [&'static str] {
        self.rule.options()
    }
    fn model_fields(&self) -> &'static [&'static str] {
        self.rule.model_fields()
    }
    fn option(&mut self, name: &str) -> Option<&mut f64> {
        self.rule.option(name)
    }
    fn weight_decay(&self) -> WeightDecay {
        self.rule.weight_decay()
    }
    fn constants(&self) -> Vec<(&'static str, f64)> {
        self.rule.constants()
    }
    fn slots(&self) -> Vec<Slot> {
        self.rule.slots()
    }
    fn passes(&self) -> Vec<Pass> {
        self.rule.passes()
    }
    fn for_matrices(&self) -> Option<Box<dyn AnyRule>> {
        let rule = self.rule.for_matrices()?;
        Some(Box::new(Self { rule, edit: self.edit.clone() }))
    }
    fn for_pointwise(&self) -> Option<Box<dyn AnyRule>> {
        let rule = self.rule.for_pointwise()?;
        Some(Box::new(Self { rule, edit: self.edit.clone() }))
    }
    fn moves(&self) -> &'static [Move] {
        self.rule.moves()
    }
    fn line_search(&self) -> Option<Stopping> {
        self.rule.line_search()
    }
    fn hyper(&self, t: u64, carried: &mut Carried, numbers: &mut Vec<f64>) {
        self.rule.hyper(t, carried, numbers);
    }
    fn renewal(&self, hyper: &[f64]) -> Option<Renewal> {
        self.rule.renewal(hyper)
    }
    fn carried(&self, t: u64) -> Carried {
        self.rule.carried(t)
    }
    fn revise(&self, text: String) -> String {
        (self.edit)(text)
    }
    fn boxed(&self) -> Box<dyn AnyRule> {
        Box::new(Self { rule: self.rule.clone(), edit: self.edit.clone() })
    }
}

/// What parity says of a configuration whose shaders are edited.
#[derive(PartialEq)]
enum Verdict {
    Equal,
    Differs,
    NotAShader,
}

fn judge(gpu: &Gpu, config: &Config) -> Verdict {
    if config.rule().line_search().is_some() {
        return match crate::line_search::agrees(gpu, config) {
            Ok(true) => Verdict::Equal,
            Err(Error::Wgpu(_)) => Verdict::NotAShader,
            _ => Verdict::Differs,
        };
    }
    let mut tensors = tensors(&[5, 1026, 9001]);
    let shapes: [&[usize]; 4] = [&[5, 3, 2], &[3, 2100], &[2, 34, 270], &[700, 17]];
    tensors.extend(shapes.iter().enumerate().map(|(i, &shape)| TensorSpec::f32(format!("m{i}"), shape)));
    let mut twin = Parity::new(gpu, config, &tensors, 5).midway(6);
    // Whether the text is a shader shows when its pipelines are made.
    if let Err(Error::Wgpu(_)) = twin.optimizer.warm_up(&twin.params, &twin.grads) {
        return Verdict::NotAShader;
    }
    let differs = |twin: &mut Parity| {
        if twin.optimizer.has_eval() && twin.evaluate().ulps > bound(gpu) {
            return true;
        }
        if config.rule().history().is_some() {
            // A pair without curvature, then no gradient at all, then a tensor that takes no part.
            twin.step();
            let doubled = twin.history.last().expect("one step was").iter().map(|grad| grad.iter().map(|g| 2.0 * g));
            let doubled = doubled.map(Iterator::collect).collect();
            let mut worst = twin.step_with(doubled, &[]);
            worst.join(twin.step_changed(&[], |_, grad| grad.fill(0.0)));
            twin.optimizer.freeze("t0").expect("a known tensor");
            twin.reference.freeze("t0").expect("a known tensor");
            worst.join(twin.step());
            if worst.ulps > bound(gpu) {
                return true;
            }
        }
        let misses = config.rule().sums_over_model() && twin.step_without(&["t0"]).ulps > bound(gpu);
        misses || (0..2).any(|_| twin.step().ulps > bound(gpu))
    };
    // A first step is like no other.
    if differs(&mut twin) || differs(&mut Parity::new(gpu, config, &tensors, 6)) {
        return Verdict::Differs;
    }
    Verdict::Equal
}

/// The same of what is wrapped around a rule: with bad gradients, missing ones, and swaps with the mean.
fn judge_around(gpu: &Gpu, config: &Config) -> Verdict {
    let mut list = tensors(&[5, 1026, 9001]);
    if config.wrappers().get::<ParamRounding>().is_some() {
        list.iter_mut().for_each(|tensor| tensor.dtype = DType::Bf16);
    }
    let differs = |mut twin: Parity| {
        (0..8).any(|i| {
            // A look-ahead must know of it.
            let misses = (i == 1 || i == 5) && !config.rule().needs_look_ahead();
            let absent: &[&str] = if misses { &["t1"] } else { &[] };
            let bad = [(2, 0), (3, 1), (6, 2)].into_iter().find(|bad| bad.0 == i);
            let worst = twin.step_changed(absent, |tensor, values| {
                if bad.is_some_and(|(_, culprit)| culprit == tensor) && config.wrappers().skips() {
                    *values.last_mut().expect("no tensor is empty") = [f32::NAN, f32::INFINITY, f32::MAX][tensor];
                }
                if i == 4 {
                    values.iter_mut().for_each(|value| *value *= 1e-3);
                }
                if i == 7 && tensor < 2 {
                    // Above 2^32 also where the loss scale is 16.
                    *values.last_mut().expect("no tensor is empty") = 1e12;
                }
            });
            worst.ulps > bound(gpu) || !twin.agrees()
        }) || (config.wrappers().ema().is_some() && twin.swap().ulps > bound(gpu))
    };
    let twin = |seed| {
        let mut twin = Parity::new(gpu, config, &list, seed);
        if matches!(config.wrappers().clip(), Some(Clip::Adaptive(_))) {
            twin.values[1][[0]] = 1e15;
            let values: Vec<f32> = twin.values[1].iter().copied().collect();
            twin.params.write("t1", &values).expect("as many values as elements");
        }
        // NaN is in no norm of parameters; numbers behind an end would be.
        for tensor in list.iter().filter(|tensor| tensor.dtype == DType::F32) {
            let slice = twin.params.slice(&tensor.name).expect("a known tensor");
            let padding = vec![1e3f32; (slice.size as usize / 4).next_multiple_of(4) - slice.size as usize / 4];
            gpu.queue().write_buffer(slice.buffer, slice.offset + slice.size, bytemuck::cast_slice(&padding));
        }
        twin
    };
    let mut first = twin(7);
    if let Err(Error::Wgpu(_)) = first.optimizer.warm_up(&first.params, &first.grads) {
        return Verdict::NotAShader;
    }
    if differs(first) || differs(twin(8).midway(6)) {
        return Verdict::Differs;
    }
    Verdict::Equal
}

/// Whether an optimizer goes on although one that it steps with has a bad gradient.
fn ignores_others(gpu: &Gpu, config: &Config) -> bool {
    let list = tensors(&[5]);
    let [mut one, mut other] = [9, 10].map(|seed| Parity::new(gpu, config, &list, seed));
    other.grads.write("t0", &[f32::NAN; 5]).expect("five values");
    let before = one.params.read_blocking("t0").expect("a readback");
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    one.grads.write("t0", &[1.0; 5]).expect("five values");
    let steps = &mut [&mut one, &mut other]
        .map(|Parity { optimizer, params, grads, .. }| Together::new(optimizer, &*params, &*grads));
    if encode_together(&mut encoder, steps).is_err() {
        return true;
    }
    gpu.queue().submit([encoder.finish()]);
    one.optimizer.settle_blocking().expect("steps in order");
    let reports = one.optimizer.reports().expect("steps in order");
    let knows = reports.iter().all(|report| report.norm.is_some_and(f64::is_nan));
    !knows || one.params.read_blocking("t0").expect("a readback") != before
}

/// Whether an encoder that runs behind a later one does anything, or is told to have done.
fn ignores_order(gpu: &Gpu, config: &Config) -> bool {
    let new = || {
        let mut twin = Parity::new(gpu, config, &tensors(&[5]), 11);
        twin.step();
        twin
    };
    let (mut twin, mut in_order) = (new(), new());
    let [first, second] = [(); 2].map(|()| {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        twin.optimizer.encode(&mut encoder, &twin.params, &twin.grads).expect("a step");
        encoder.finish()
    });
    gpu.queue().submit([second, first]);
    in_order.optimizer.step(&in_order.params, &in_order.grads).expect("a step");
    let [found, expected] = [&twin, &in_order].map(|twin| twin.params.read_blocking("t0").expect("a readback"));
    let Ok(reports) = twin.optimizer.settle_blocking().and_then(|()| twin.optimizer.reports()) else { return true };
    let applied: Vec<_> = reports.iter().map(|report| report.applied).collect();
    applied != [true, false, true] || found != expected
}

/// Whether a skipped step out of place leaves the outputs without parameters.
fn ignores_outputs(gpu: &Gpu, config: &Config) -> bool {
    let list = tensors(&[9001]);
    let mut twin = Parity::new(gpu, config, &list, 12);
    let outs = Arena::new(gpu, &list).expect("room for a tensor");
    twin.grads.write("t0", &[f32::NAN; 9001]).expect("as many values as elements");
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    if twin.optimizer.encode_into(&mut encoder, &twin.params, &twin.grads, &outs).is_err() {
        return true;
    }
    gpu.queue().submit([encoder.finish()]);
    let [found, expected] = [&outs, &twin.params].map(|arena| arena.read_blocking("t0").expect("a readback"));
    found != expected
}

/// Configurations that together use all that is wrapped around a rule; the rules are one that looks ahead and the
/// first.
fn wrapped(edit: &Edit) -> Vec<Config> {
    let broken = |rule| Config::from(Box::new(Broken { rule, edit: edit.clone() }) as Box<dyn AnyRule>);
    let cases = ALL.iter().flat_map(|row| (row.cases)()).map(|(_, rule)| rule);
    let looks = cases.into_iter().find(|rule| rule.needs_look_ahead()).expect("a rule that looks ahead");
    let first = || broken((ALL[0].default)());
    let scale = LossScale { init: 4.0, growth: 2.0, backoff: 0.25, interval: 2 };
    let (mean, mean_of_0) = (Ema { decay: 0.75, debias: false }, Ema { decay: 0.75, debias: true });
    let lookahead = Lookahead { k: 2, alpha: 0.3 };
    let mut configs = vec![
        first().wrap(scale).wrap(Clip::Value(0.5)).wrap(mean).wrap(lookahead),
        first().wrap(SkipNonfinite(true)).wrap(Clip::GlobalNorm(1.0)).wrap(mean_of_0),
        first().wrap(scale).wrap(Accumulate(2)).wrap(mean),
        broken(looks.clone()).wrap(SkipNonfinite(true)).maximize(true),
        broken(looks).wrap(SkipNonfinite(true)).wrap(ParamRounding::Master).wrap(mean),
        first().wrap(SkipNonfinite(true)).wrap(Clip::Adaptive(AdaptiveClip { clip: 1e-4, eps: 1e-3 })),
        first().wrap(Clip::Sign(5.0)).norms(true),
        first().wrap(Clip::TensorNorm(1.0)).on_device(["lr", "clip"]),
        first().wrap(Accumulate(2)).wrap(SkipNonfinite(true)).wrap(Clip::GlobalNorm(1.0)),
    ];
    // A wrapper may need state to work on.
    let with_state = ALL.iter().map(|row| (row.default)()).find(|rule| !rule.slots().is_empty()).expect("a state");
    let cases = wrappers::ALL.iter().flat_map(|entry| (entry.cases)());
    configs.extend(cases.map(|(_, wrapper)| broken(with_state.clone()).wrap(wrapper)));
    configs
}

/// Whether a break shows in any of those.
fn shows_around(gpus: &[Gpu], edit: &Edit) -> bool {
    let configs = wrapped(edit);
    configs.iter().any(|config| gpus.iter().any(|gpu| judge_around(gpu, config) == Verdict::Differs))
        || ignores_others(&gpus[0], &configs[0])
        || ignores_order(&gpus[0], &configs[0])
        || ignores_outputs(&gpus[0], &configs[1])
}

/// Whether a break shows in short tensors, of which several share a workgroup.
fn shows_in_short(gpus: &[Gpu], edit: &Edit) -> bool {
    let stores = |pass: &Pass| matches!(pass, Pass::Sums(sums) if sums.stores);
    let rules = ALL.iter().map(|row| (row.default)());
    let rule = rules.into_iter().find(|rule| rule.passes().iter().any(stores)).expect("a rule that stores in sums");
    let config = Config::from(Box::new(Broken { rule, edit: edit.clone() }) as Box<dyn AnyRule>);
    let config = config.wrap(SkipNonfinite(true)).wrap(Clip::GlobalNorm(0.5)).norms(true);
    let differs = |gpu: &Gpu| {
        let mut twin = Parity::new(gpu, &config, &tensors(&[200; 75]), 13);
        if let Err(Error::Wgpu(_)) = twin.optimizer.warm_up(&twin.params, &twin.grads) {
            return false;
        }
        [&["t3"][..], &[]].iter().any(|absent| twin.step_without(absent).ulps > bound(gpu) || !twin.agrees())
    };
    gpus.iter().any(differs)
}

/// The cases of a row, and one in which groups of every decay meet ascent.
fn configs(row: &RuleEntry, edit: &Edit) -> Vec<Config> {
    let broken = |rule| Box::new(Broken { rule, edit: edit.clone() }) as Box<dyn AnyRule>;
    let base = || default_of(row);
    let mut configs: Vec<Config> = (row.cases)().into_iter().map(|(_, rule)| broken(rule).into()).collect();
    for &kind in row.decays {
        let decay = if kind == "none" { "none".into() } else { serde_json::json!({ kind: 0.3 }) };
        let group = Group::new(["t1"]).set("weight_decay", decay).set("maximize", true);
        let has_rates = !base().model_fields().contains(&"lr");
        let group = if has_rates { group.set("lr", 0.5) } else { group };
        configs.push(Config::from(broken(base())).group(group));
    }
    configs.push(Config::from(broken(base())).wrap(Lookahead { k: 2, alpha: 0.3 }));
    if base().history().is_some() {
        let search = [("line_search", Value::from("strong_wolfe")), ("max_iter", 6.into()), ("history_size", 3.into())];
        let fields = search.map(|(field, value)| (field.to_string(), value)).into_iter().collect();
        configs.push(Config::from(broken(base().with(&fields).expect("a rule with a line search"))));
    }
    configs
}

/// Breaks every rule with the edits that `edits` finds in its text, and counts what was noticed.
fn break_all(what: &str, edits: impl Fn(&RuleEntry) -> Vec<(String, Edit)>) {
    let Some(gpu) = gpu(what, ALL.len()) else { return };
    let rounds = bound(&gpu) == 0.0;
    let (mut tried, mut all) = (0, 0);
    // Of rules with sides nothing is compared where roundings differ.
    for (turn, row) in ALL.iter().enumerate().filter(|(_, row)| rounds || (row.default)().sides().is_none()) {
        let mut missed = Vec::new();
        let mut counts = [0, 0];
        let edits = edits(row);
        let is_bare = (row.default)().names().hyper.len() < 2;
        assert!(is_bare || !edits.is_empty(), "{}: nothing to break", row.name);
        all += edits.len();
        let edits = share(edits, SHARE, turn);
        tried += edits.len();
        for (label, edit) in edits {
            let mut shader = false;
            let noticed = configs(row, &edit).iter().any(|config| {
                let verdict = judge(&gpu, config);
                shader |= verdict != Verdict::NotAShader;
                verdict == Verdict::Differs
            });
            match (noticed, shader) {
                (true, _) => counts[0] += 1,
                (false, true) => missed.push(label),
                (false, false) => counts[1] += 1,
            }
        }
        let [noticed, not_shaders] = counts;
        say(&format!("{what} of {}: {noticed} breaks noticed, {not_shaders} do not compile", row.name));
        assert!(missed.is_empty(), "{what} of {}: parity did not notice {missed:#?}", row.name);
    }
    say_share(what, tried, all);
}

fn replacing(from: String, to: String) -> Edit {
    Arc::new(move |text: String| text.replacen(&from, &to, 1))
}

#[test]
fn swapped_hyper_parameters_are_noticed() {
    break_all("swapped hyper-parameters", |row| {
        let names = (row.default)().names().hyper;
        let pairs = (0..names.len()).flat_map(|i| (i + 1..names.len()).map(move |j| (i, j)));
        pairs
            .map(|(i, j)| {
                let word =
                    |i: usize| format!("(clocks[record + {}u]),", <Common<f32> as Numbers<f32>>::NAMES.len() + i);
                let edit: Edit = Arc::new(move |text: String| {
                    text.replace(&word(i), "(FIRST),").replace(&word(j), &word(i)).replace("(FIRST),", &word(j))
                });
                (format!("{} for {}", names[i], names[j]), edit)
            })
            .collect()
    });
}

/// The edits that drop a statement each.
fn drops(piece: &str) -> Vec<(String, Edit)> {
    // A missing barrier is a race, which need not show.
    let words = ["let ", "var ", "const ", "override ", "return", "workgroupBarrier", "storageBarrier", ")"];
    piece
        .lines()
        .zip(piece.lines().skip(1))
        .filter(|(_, line)| {
            line.ends_with(';') && line.starts_with(' ') && !words.iter().any(|word| line.trim().starts_with(word))
        })
        // With the line before it a statement is found again, where a piece says the same thing twice.
        .map(|(before, line)| {
            (line.trim().to_string(), replacing(format!("{before}\n{line}\n"), format!("{before}\n")))
        })
        .collect()
}

#[test]
fn a_dropped_statement_is_noticed() {
    break_all("dropped statements", |row| drops((row.default)().shader()));
}

/// The texts of all cases of a rule.
fn texts_of(row: &RuleEntry) -> Vec<String> {
    let forms = |rule: Box<dyn AnyRule>| rule.forms().chain([rule]);
    let walks = |rule: Box<dyn AnyRule>| {
        let moves = rule.moves().iter().map(|&to| Walk::of_move(Moving::Rule(to)));
        let walks: Vec<_> = Walk::of_step(&*rule, &Wrappers::default()).into_iter().chain(moves).collect();
        let read = Values::apart(Access::Vec4, Formats::default());
        walks.into_iter().map(move |walk| compose(&*rule, &Wrappers::default(), walk.skeleton, read))
    };
    let mut texts: Vec<_> = (row.cases)().into_iter().flat_map(|(_, rule)| forms(rule)).flat_map(walks).collect();
    texts.sort();
    texts.dedup();
    texts
}

/// Drops each statement of these pieces of shaders, and counts what was noticed. What is `around` a rule is looked at
/// first where it may show there.
fn break_skeletons(what: &str, pieces: &[&str], around: bool) {
    let edits: Vec<_> = pieces.iter().flat_map(|piece| drops(piece)).collect();
    let Some(gpu) = gpu(&format!("dropped statements of {what}"), edits.len()) else { return };
    let all = edits.len();
    let edits = share(edits, SHARE, 0);
    say_share(&format!("dropped statements of {what}"), edits.len(), all);
    // Few lanes and many walk differently, and so do small dispatches, which hold a tile of a side's matrices.
    let dispatch_bytes = [gpu.tuning().dispatch_bytes, 1 << 16];
    let gpus = [8, 256].into_iter().zip(dispatch_bytes).map(|(lanes, dispatch_bytes)| {
        let tuning = Tuning { lanes, dispatch_bytes, chunk_blocks: 8, shader_checks: false, ..gpu.tuning() };
        Gpu::with_tuning(gpu.device(), gpu.queue(), tuning).expect("every device has 256 lanes")
    });
    let gpus: Vec<_> = gpus.collect();
    if around {
        assert!(!shows_around(&gpus, &replacing(String::new(), String::new())), "what is not broken differs");
    }
    let texts: Vec<_> = ALL.iter().map(|row| (row, texts_of(row))).collect();
    let is_missed = |(_, edit): &&(String, Edit)| {
        let touched = texts.iter().filter(|(_, texts)| texts.iter().any(|text| edit(text.clone()) != *text));
        let mut configs = touched.flat_map(|(row, _)| configs(row, edit));
        let is_noticed = around && shows_around(&gpus, edit)
            || configs.any(|config| gpus.iter().any(|gpu| judge(gpu, &config) == Verdict::Differs))
            || shows_in_short(&gpus, edit);
        !is_noticed
    };
    let missed: Vec<_> = edits.iter().filter(is_missed).map(|(label, _)| label).collect();
    say(&format!("dropped statements of {what}: {} breaks noticed", edits.len() - missed.len()));
    assert!(missed.is_empty(), "parity did not notice {missed:#?}");
}

#[test]
fn a_dropped_statement_around_rules_is_noticed() {
    let pieces = [
        include_str!("../../shaders/skeletons/common.wgsl"),
        include_str!("../../shaders/skeletons/apply.wgsl"),
        include_str!("../../shaders/skeletons/moves.wgsl"),
        include_str!("../../shaders/skeletons/norms.wgsl"),
        include_str!("../../shaders/skeletons/finish_norms.wgsl"),
        include_str!("../../shaders/skeletons/measured.wgsl"),
        include_str!("../../shaders/skeletons/tree.wgsl"),
        include_str!("../../shaders/skeletons/chunks.wgsl"),
        include_str!("../../shaders/skeletons/partials.wgsl"),
        include_str!("../../shaders/skeletons/decide.wgsl"),
        include_str!("../../shaders/skeletons/accumulate.wgsl"),
        include_str!("../../shaders/skeletons/counts.wgsl"),
        include_str!("../../shaders/skeletons/finish_counts.wgsl"),
        include_str!("../../shaders/wrappers/param_rounding_master.wgsl"),
        include_str!("../../shaders/wrappers/param_rounding_remainder.wgsl"),
    ];
    break_skeletons("what is around rules", &pieces, true);
}

#[test]
fn a_dropped_statement_of_a_wrapper_is_noticed() {
    let pieces: Vec<_> = wrappers::ALL.iter().map(|entry| entry.shader).collect();
    break_skeletons("wrappers", &pieces, true);
}

#[test]
fn a_dropped_statement_of_a_walk_is_noticed() {
    let pieces = [
        include_str!("../../shaders/skeletons/lines.wgsl"),
        include_str!("../../shaders/skeletons/finish_lines.wgsl"),
        include_str!("../../shaders/skeletons/sums.wgsl"),
        include_str!("../../shaders/skeletons/pair.wgsl"),
        include_str!("../../shaders/skeletons/finish.wgsl"),
        include_str!("../../shaders/skeletons/finished.wgsl"),
        include_str!("../../shaders/skeletons/finish_sums.wgsl"),
        include_str!("../../shaders/skeletons/kept_sums.wgsl"),
        include_str!("../../shaders/skeletons/finish_model.wgsl"),
        include_str!("../../shaders/skeletons/spread.wgsl"),
        include_str!("../../shaders/skeletons/product.wgsl"),
        include_str!("../../shaders/skeletons/prepared.wgsl"),
        include_str!("../../shaders/skeletons/inner.wgsl"),
        include_str!("../../shaders/skeletons/finish_inner.wgsl"),
        include_str!("../../shaders/skeletons/recursion.wgsl"),
        include_str!("../../shaders/skeletons/recall.wgsl"),
    ];
    break_skeletons("walks", &pieces, false);
}

#[test]
fn a_dropped_statement_of_a_walk_over_sides_is_noticed() {
    let pieces = [
        include_str!("../../shaders/skeletons/grams.wgsl"),
        include_str!("../../shaders/skeletons/turn.wgsl"),
        include_str!("../../shaders/skeletons/weigh.wgsl"),
        include_str!("../../shaders/skeletons/bases.wgsl"),
        include_str!("../../shaders/glue/sides.wgsl"),
        include_str!("../../shaders/glue/weighed.wgsl"),
    ];
    break_skeletons("walks over sides", &pieces, false);
}

#[test]
fn a_skipped_last_element_is_noticed() {
    break_all("skipped elements", |_| {
        [
            ("the last quad", "(len + 3u) / 4u", "(len + 2u) / 4u"),
            ("the last chunk's end", "        a.y,\n        a.z,", "        a.y - min(a.y, 1u),\n        a.z,"),
            ("the first lane", "first + STRETCH * lane;", "first + STRETCH * max(lane, 1u);"),
        ]
        .map(|(label, from, to)| (label.to_string(), replacing(from.into(), to.into())))
        .to_vec()
    });
}
