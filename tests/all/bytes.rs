//! What a step moves and how often it walks: the plan beside the shaders' texts, and what wrappers add.

use std::collections::{BTreeMap, HashMap};

use crate::common::twin::fitting;
use crate::common::{dispatches_of, gpu, say, say_share, share};
use crate::languages::parse;
use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{Block, Expression, Function, Handle, Literal, LocalVariable, Module, ShaderStage, Statement};
use serde_json::{Value, json};
use wgpu_optim::backend::{Access, Formats};
use wgpu_optim::rule::AnyRule;
use wgpu_optim::rules::ALL;
use wgpu_optim::shader::{Switches, Values, Walk, compose};
use wgpu_optim::{Arena, Config, DType, Gpu, Optimizer, StepPlan, TensorSpec, WeightDecay, Wrappers};

/// Buffers of which each element has a number, as the texts call them.
const PER_ELEMENT: [&str; 3] = ["params", "grads", "states"];

/// What a walk loads and stores of each element, counted in its text as naga has it once the host's constants are set.
struct Traffic<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    bytes: u64,
}

/// Truth values that the host's constants decide, in the variables by which naga writes `&&` and `||`.
type Known = HashMap<Handle<LocalVariable>, bool>;

fn truth(module: &Module, function: &Function, known: &Known, condition: Handle<Expression>) -> Option<bool> {
    match function.expressions[condition] {
        Expression::Literal(Literal::Bool(value)) => Some(value),
        Expression::Constant(constant) => match module.global_expressions[module.constants[constant].init] {
            Expression::Literal(Literal::Bool(value)) => Some(value),
            _ => None,
        },
        Expression::Load { pointer } => match function.expressions[pointer] {
            Expression::LocalVariable(variable) => known.get(&variable).copied(),
            _ => None,
        },
        _ => None,
    }
}

impl Traffic<'_> {
    /// Bytes of each element that a step of this rule reads and writes, by its walks' texts.
    fn of_step(what: &str, rule: &dyn AnyRule, formats: Formats) -> u64 {
        let wrappers = Wrappers::default();
        let switches =
            Switches { l2: matches!(rule.weight_decay(), WeightDecay::L2(_)), lanes: 256, ..Switches::default() };
        let walk = |walk: Walk| {
            // Walks that finish sums take one tensor or line at a time, whose numbers are beside those of elements.
            if walk.skeleton.name().starts_with("finish") {
                return 0;
            }
            let (module, info) =
                parse(what, &compose(rule, &wrappers, walk.skeleton, Values::apart(Access::Vec4, formats)));
            let constants = switches.constants(rule, &wrappers, walk).into_iter();
            let constants: PipelineConstants = constants.map(|(name, value)| (name.to_string(), value)).collect();
            let entry = Some((ShaderStage::Compute, walk.skeleton.entry()));
            let (module, info) = process_overrides(&module, &info, entry, &constants).expect(what);
            let mut traffic = Traffic { module: &module, info: &info, bytes: 0 };
            traffic.function(&module.entry_points[0].function, info.get_entry_point(0));
            // The others take four elements at a time, and each four once.
            traffic.bytes / 4
        };
        Walk::of_step(rule, &wrappers).into_iter().map(walk).sum()
    }

    /// Adds what a function moves, each statement once.
    fn function(&mut self, function: &Function, info: &FunctionInfo) {
        self.block(function, info, &function.body, &mut Known::new());
    }

    /// Adds what a block moves, and tells whether the block returns on every path. Of a path that returns early and what
    /// comes behind it, the one that moves more counts.
    fn block(&mut self, function: &Function, info: &FunctionInfo, block: &Block, known: &mut Known) -> bool {
        let mut early = self.bytes;
        let returns = self.statements(function, info, block, known, &mut early);
        self.bytes = self.bytes.max(early);
        returns
    }

    fn statements(
        &mut self,
        function: &Function,
        info: &FunctionInfo,
        block: &Block,
        known: &mut Known,
        early: &mut u64,
    ) -> bool {
        for statement in block {
            let returns = match statement {
                Statement::Emit(range) => {
                    for expression in range.clone() {
                        if let Expression::Load { pointer } = function.expressions[expression] {
                            self.moved(function, info, pointer, expression);
                        }
                    }
                    false
                }
                Statement::Store { pointer, value } => {
                    self.moved(function, info, *pointer, *value);
                    if let Expression::LocalVariable(variable) = function.expressions[*pointer] {
                        match truth(self.module, function, known, *value) {
                            Some(value) => known.insert(variable, value),
                            None => known.remove(&variable),
                        };
                    }
                    false
                }
                Statement::Block(inner) => self.block(function, info, inner, known),
                Statement::If { condition, accept, reject } => match truth(self.module, function, known, *condition) {
                    Some(true) => self.block(function, info, accept, known),
                    Some(false) => self.block(function, info, reject, known),
                    None => {
                        let before = self.bytes;
                        let accepts = self.block(function, info, accept, &mut known.clone());
                        if accepts {
                            *early = self.bytes.max(*early);
                            self.bytes = before;
                        }
                        let rejects = self.block(function, info, reject, &mut known.clone());
                        known.clear();
                        accepts && rejects
                    }
                },
                Statement::Switch { cases, .. } => {
                    known.clear();
                    for case in cases {
                        self.block(function, info, &case.body, &mut Known::new());
                    }
                    false
                }
                Statement::Loop { body, continuing, .. } => {
                    known.clear();
                    self.block(function, info, body, &mut Known::new());
                    self.block(function, info, continuing, &mut Known::new());
                    false
                }
                Statement::Call { function: called, .. } => {
                    self.function(&self.module.functions[*called], &self.info[*called]);
                    false
                }
                Statement::Return { .. } => true,
                _ => false,
            };
            if returns {
                return true;
            }
        }
        false
    }

    /// Adds the bytes of a value that is loaded from or stored to a buffer with a number for each element.
    fn moved(
        &mut self,
        function: &Function,
        info: &FunctionInfo,
        pointer: Handle<Expression>,
        value: Handle<Expression>,
    ) {
        let mut root = pointer;
        let global = loop {
            match function.expressions[root] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => root = base,
                Expression::GlobalVariable(global) => break global,
                _ => return,
            }
        };
        let name = self.module.global_variables[global].name.as_deref().unwrap_or_default();
        if PER_ELEMENT.contains(&name) {
            self.bytes += u64::from(info[value].ty.inner_with(&self.module.types).size(self.module.to_ctx()));
        }
    }
}

/// Each rule with its default options, and with those of each case.
fn rules() -> Vec<(String, Box<dyn AnyRule>)> {
    let all = ALL.iter().flat_map(|row| {
        let default = ("default options", (row.default)());
        [default].into_iter().chain((row.cases)()).map(|(case, rule)| (format!("{}, {case}", row.name), rule))
    });
    all.collect()
}

fn plan(gpu: &Gpu, config: Config, tensors: &[TensorSpec]) -> wgpu_optim::Result<StepPlan> {
    let tensors = &fitting(&config, tensors)[..];
    let grads: Vec<_> = tensors.iter().map(TensorSpec::grad_spec).collect();
    let (params, grads) = (Arena::new(gpu, tensors)?, Arena::new(gpu, &grads)?);
    Optimizer::new(gpu, tensors, config)?.plan(&params, &grads)
}

/// Matrices, single elements as matrices, and a tensor below rank 2: a rule may have a form for each. All have a tensor of several chunks,
/// since one of a single chunk needs no walk that finishes its sums.
fn shapes() -> [Vec<TensorSpec>; 3] {
    [
        vec![TensorSpec::f32("w", [250, 70]), TensorSpec::f32("k", [8, 5, 3, 3])],
        vec![TensorSpec::f32("k", [300, 100, 1, 1])],
        vec![TensorSpec::f32("b", [30_000])],
    ]
}

/// A walk takes a dispatch, but for those over sides.
fn passes_and_dispatches(rule: &dyn AnyRule, walks: &[Walk], tensors: &[TensorSpec]) -> [usize; 2] {
    let Some(sides) = rule.sides() else { return [walks.len(); 2] };
    let has_sides = tensors.iter().any(|tensor| !sides.of(&tensor.shape).is_empty());
    let passes = rule.passes().into_iter().filter(|pass| has_sides || !pass.is_over_sides()).count();
    [passes, dispatches_of(rule, tensors, 1)]
}

#[test]
fn the_plan_has_the_bytes_of_the_texts_and_their_walks() {
    let rules = rules();
    let Some(gpu) = gpu("bytes and passes", rules.len()) else { return };
    let mut counted = BTreeMap::new();
    let tried = share(rules.iter().collect(), 3, 0);
    say_share("bytes and passes", tried.len(), rules.len());
    for (what, rule) in tried {
        for tensors in shapes() {
            for (param, grad) in [(DType::F32, DType::F32), (DType::F32, DType::F16), (DType::Bf16, DType::Bf16)] {
                let what = format!("{what}, {:?}, parameters in {param}, gradients in {grad}", tensors[0].shape);
                let store = |tensor: &TensorSpec| tensor.clone().with_dtype(param).with_grad_dtype(grad);
                let tensors: Vec<_> = tensors.iter().map(store).collect();
                let elements: u64 = tensors.iter().map(TensorSpec::len_elements).sum();
                let config = Config::from(rule.clone());
                let groups = config.groups(&fitting(&config, &tensors)).unwrap();
                let form = groups.rule_of(0);
                // Two walks go over a history, a loop over the pairs each; the text counts for one pair.
                let of_pairs = form.history().map_or(0, |pairs| 2 * 2 * 4 * (pairs as u64 - 1));
                let bytes = Traffic::of_step(&what, form, Formats { param, grad }) + of_pairs;
                let walks = Walk::of_step(form, &Wrappers::default());
                let [passes, dispatches] = passes_and_dispatches(form, &walks, &tensors);
                let plan = plan(&gpu, config, &tensors).unwrap();
                let found = (plan.bytes, plan.passes, plan.windows, plan.dispatches);
                let expected = (bytes * elements, passes, 1, dispatches);
                assert_eq!(found, expected, "{what}: bytes, passes, windows, dispatches");
                *counted.entry(bytes).or_insert(0) += 1;
            }
        }
    }
    let counted: Vec<_> = counted.iter().map(|(bytes, cases)| format!("{cases} of {bytes} B")).collect();
    say(&format!("bytes a parameter, by texts: {}", counted.join(", ")));
    assert!(counted.len() > 5, "rules differ in what they move");
}

#[test]
fn gradients_in_f16_beside_those_in_f32_are_counted_each() {
    let Some(gpu) = gpu("bytes of two formats", ALL.len()) else { return };
    for row in ALL {
        let plan = |tensors: &[TensorSpec]| plan(&gpu, Config::from((row.default)()), tensors).unwrap();
        let [half, whole] =
            [TensorSpec::f32("w", [250, 70]).with_grad_dtype(DType::F16), TensorSpec::f32("k", [8, 5, 3, 3])];
        let both = plan(&[half.clone(), whole.clone()]);
        assert_eq!((both.bytes, both.windows), (plan(&[half]).bytes + plan(&[whole]).bytes, 2), "{}", row.name);
    }
}

/// What a wrapper adds, whatever the rule: bytes of a parameter in the first step, and passes.
#[test]
fn what_is_around_a_rule_moves_what_it_must() {
    let table: [(Value, u64, usize); 13] = [
        (json!({"clip": {"value": 1}}), 0, 0),
        // One read of the gradients; what is unscaled and checked is what is measured.
        (json!({"clip": {"global_norm": 1}, "loss_scale": {}, "skip_nonfinite": true}), 4, 1),
        (json!({"clip": {"global_norm": 1}}), 4, 1),
        (json!({"clip": {"tensor_norm": 1}}), 4, 1),
        (json!({"clip": {"sign": 1}}), 4, 1),
        (json!({"loss_scale": {}}), 4, 1),
        (json!({"norms": true}), 4, 1),
        // The parameters, too.
        (json!({"clip": {"adaptive": {}}}), 8, 1),
        // In the first step the mean is not read; with debias it is.
        (json!({"ema": {}}), 4, 0),
        (json!({"ema": {"debias": true}}), 8, 0),
        // A gradient and a sum read, a sum written; the step reads the sum.
        (json!({"accumulate": 2}), 12, 1),
        (json!({"accumulate": 2, "clip": {"global_norm": 1}}), 16, 2),
        (json!({"ema": {}, "lookahead": {}}), 8, 0),
    ];
    let Some(gpu) = gpu("bytes around rules", table.len() * ALL.len()) else { return };
    let tensors = [TensorSpec::f32("w", [250, 70]), TensorSpec::f32("b", [1001])];
    let elements: u64 = tensors.iter().map(TensorSpec::len_elements).sum();
    let (mut wrapped, mut tried) = (0, 0);
    for (turn, row) in ALL.iter().enumerate() {
        let alone = plan(&gpu, Config::from((row.default)()), &tensors).unwrap();
        for (fields, bytes, passes) in share(table.iter().collect(), 3, turn) {
            tried += 1;
            let mut value = json!({"optimizer": row.name});
            value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            // A rule may refuse a wrapper: tests/all/rejects.rs holds how.
            let Ok(config) = Config::from_value(value) else { continue };
            let found = plan(&gpu, config, &tensors).unwrap();
            let expected = (alone.bytes + bytes * elements, alone.passes + passes);
            assert_eq!((found.bytes, found.passes), expected, "{}, {fields}", row.name);
            wrapped += 1;
        }
        // From the second step on the mean is read and written.
        let Ok(config) = Config::from_value(json!({"optimizer": row.name, "ema": {}})) else { continue };
        let tensors = fitting(&config, &tensors);
        let [params, grads] = [Arena::new(&gpu, &tensors), Arena::new(&gpu, &tensors)].map(Result::unwrap);
        let mut optimizer = Optimizer::new(&gpu, &tensors, config).unwrap();
        optimizer.step(&params, &grads).unwrap();
        assert_eq!(optimizer.plan(&params, &grads).unwrap().bytes, alone.bytes + 8 * elements, "{}", row.name);
    }
    say(&format!("bytes around rules: {wrapped} of {tried} pairs"));
    say_share("bytes around rules", tried, table.len() * ALL.len());
    assert!(wrapped * 10 > tried * 9, "wrappers go around most rules");
}
