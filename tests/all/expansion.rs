//! Every composed shader, without a GPU: it is valid, it can be written in every language that wgpu writes, and its
//! structs have the fields of their Rust twins. Some texts are kept in `tests/expansion/` so that a change shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{say_share, share};
use crate::languages::{parse, write_all};
use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage, StorageAccess, TypeInner};
use wgpu_optim::backend::{Access, Common, Formats};
use wgpu_optim::rule::{AnyRule, Move, Numbers};
use wgpu_optim::rules::{self, ALL};
use wgpu_optim::shader::{self, Pages, Skeleton, Switches, Values, Walk, compose};
use wgpu_optim::wrapper::{AnyWrapper, WrapperEntry};
use wgpu_optim::wrappers::{self, Moving};
use wgpu_optim::{DType, StateFormat, Storage, Wrappers};

const ACCESSES: [Access; 2] = [Access::Vec4, Access::Scalar];

/// Formats of parameters and gradients: each format in each place, and both of 16 bits.
const FORMATS: [Formats; 4] = [
    Formats { param: DType::F32, grad: DType::F32 },
    Formats { param: DType::F32, grad: DType::F16 },
    Formats { param: DType::F16, grad: DType::Bf16 },
    Formats { param: DType::Bf16, grad: DType::F32 },
];

/// What is wrapped around every rule, and what it is called: nothing, the first case of every wrapper, and the same
/// without micro-batches, since gradients are divided by the loss scale elsewhere with them.
fn wraps() -> [(&'static str, Wrappers); 3] {
    let first = |all: Wrappers, entry: &WrapperEntry| all.with((entry.cases)().swap_remove(0).1);
    let all = wrappers::ALL.iter().fold(Wrappers::default(), first);
    let at_once = all.clone().without("accumulate");
    [("", Wrappers::default()), (", with all", all.completed()), (", at once", at_once.completed())]
}

/// Makes every case of every wrapper, each without other wrappers.
fn alone() -> Vec<(String, Wrappers)> {
    let cases = wrappers::ALL.iter().flat_map(|entry| (entry.cases)().into_iter().map(|case| (entry.name, case)));
    let wrap =
        |(name, (case, wrapper))| (format!(", with {name} {case}"), Wrappers::default().with(wrapper).completed());
    cases.map(wrap).collect()
}

/// One text, and all the cases that it is composed for.
struct Shader {
    walk: String,
    skeleton: Skeleton,
    around: Wrappers,
    cases: Vec<(String, Box<dyn AnyRule>)>,
    text: String,
    module: Module,
    info: ModuleInfo,
}

/// Every text that any case of any rule is composed to, parsed and validated, once for all tests.
fn shaders() -> &'static [Shader] {
    static ALL: OnceLock<Vec<Shader>> = OnceLock::new();
    ALL.get_or_init(composed)
}

fn composed() -> Vec<Shader> {
    let mut shaders: Vec<Shader> = Vec::new();
    let mut places = HashMap::new();
    let reads = ACCESSES.iter().flat_map(|&access| FORMATS.map(|formats| (access, formats)));
    let walks: Vec<_> =
        Skeleton::ALL.iter().flat_map(|&skeleton| reads.clone().map(move |read| (skeleton, read))).collect();
    for row in ALL {
        let forms = |(case, rule): (&'static str, Box<dyn AnyRule>)| {
            let for_matrices = rule.for_matrices().map(|rule| (format!("{}/{case}, matrices", row.name), rule));
            let for_pointwise = rule.for_pointwise().map(|rule| (format!("{}/{case}, pointwise", row.name), rule));
            [(format!("{}/{case}", row.name), rule)].into_iter().chain(for_matrices).chain(for_pointwise)
        };
        for (n, (case, rule)) in (row.cases)().into_iter().flat_map(forms).enumerate() {
            let alone = if row.name == ALL[0].name { alone() } else { vec![] };
            let every = wraps().map(|(name, wrappers)| (name.to_string(), wrappers));
            let wraps =
                every.into_iter().chain(alone).flat_map(|wrap| walks.iter().map(move |walk| (wrap.clone(), walk)));
            for ((wrapped, around), &(skeleton, (access, formats))) in wraps {
                let around = around.of_format(formats.param);
                let is_decided = skeleton.knows_no_rule() && skeleton != Skeleton::Accumulate;
                let counts = matches!(skeleton, Skeleton::Counts | Skeleton::FinishCounts);
                // How parameters are stored is the same for all rules: the first is taken in everything, others alone.
                let is_first = row.name == ALL[0].name || n == 0 && wrapped.is_empty();
                if formats.param != DType::F32 && !is_first {
                    continue;
                }
                let of_history = matches!(
                    skeleton,
                    Skeleton::Inner | Skeleton::FinishInner | Skeleton::Recursion | Skeleton::Recall
                );
                let of_sides = matches!(skeleton, Skeleton::Grams | Skeleton::Turn | Skeleton::Weigh | Skeleton::Bases);
                if is_decided && !around.is_controlled()
                    || counts && !around.counts()
                    || of_history && rule.history().is_none()
                    || of_sides && rule.sides().is_none()
                {
                    continue;
                }
                let text = compose(&*rule, &around, skeleton, Values::apart(access, formats));
                let Formats { param, grad } = formats;
                let walk = format!("{}, {}, {param} and {grad}{wrapped}", skeleton.name(), access.name());
                let place = *places.entry(text).or_insert_with_key(|text| {
                    let (module, info) = parse(&format!("{case}, {walk}"), text);
                    shaders.push(Shader { walk, skeleton, around, cases: vec![], text: text.clone(), module, info });
                    shaders.len() - 1
                });
                if !skeleton.knows_no_rule() || shaders[place].cases.is_empty() {
                    shaders[place].cases.push((case.clone(), rule.clone()));
                }
            }
        }
    }
    shaders
}

/// Every set of constants that a case's pipelines of this skeleton may get: no switch on, each alone, and all.
fn constants(rule: &dyn AnyRule, skeleton: Skeleton, around: &Wrappers) -> Vec<Vec<(&'static str, f64)>> {
    let walks: Vec<Walk> = match skeleton {
        Skeleton::Moves => {
            let of_rules = [Move::LookAhead, Move::Evaluation, Move::Training].map(Moving::Rule);
            let of_wrapper = |wrapper: &dyn AnyWrapper| {
                let name = wrapper.name();
                (0..wrapper.moves().len()).map(move |to| Moving::Wrapper(name, to))
            };
            of_rules.into_iter().chain(around.iter().flat_map(of_wrapper)).map(Walk::of_move).collect()
        }
        _ => Walk::of_step(rule, around).into_iter().filter(|walk| walk.skeleton == skeleton).collect(),
    };
    let off = Switches { lanes: 8, ..Switches::default() };
    let switches = [
        off,
        Switches { maximize: true, ..off },
        Switches { l2: true, ..off },
        Switches { decay: true, ..off },
        Switches { cautious: true, ..off },
        Switches { tails: true, ..off },
        Switches { crossings: true, ..off },
        Switches {
            maximize: true,
            l2: true,
            decay: true,
            cautious: true,
            tails: true,
            crossings: true,
            copies: true,
            lanes: 256,
            numbers: 9,
        },
    ];
    let sets = walks.iter().flat_map(|&walk| switches.iter().map(move |switches| (walk, switches)));
    sets.map(|(walk, switches)| switches.constants(rule, around, walk)).collect()
}

#[test]
fn every_shader_is_written_in_every_language() {
    let [mut written, mut tried, mut all] = [0; 3];
    let shaders = shaders();
    for (place, Shader { walk, skeleton, around, cases, module, info, .. }) in shaders.iter().enumerate() {
        let mut seen = HashSet::new();
        for (case, rule) in cases {
            if !seen.insert(format!("{:?}", rule.constants())) {
                continue;
            }
            let sets = constants(&**rule, *skeleton, around);
            all += sets.len();
            let sets = share(sets, 6, place);
            tried += sets.len();
            for constants in sets {
                let constants = constants.into_iter().map(|(name, value)| (name.to_string(), value));
                let constants: PipelineConstants = constants.collect();
                let entry = Some((ShaderStage::Compute, skeleton.entry()));
                let (module, info) = process_overrides(module, info, entry, &constants)
                    .unwrap_or_else(|error| panic!("{case}, {walk}, {constants:?}: {error}"));
                for (language, result) in write_all(&module, &info, skeleton.entry()) {
                    result.unwrap_or_else(|error| panic!("{case}, {walk}, {constants:?}, in {language}: {error}"));
                    written += 1;
                }
            }
        }
    }
    println!("{} texts, {written} translations", shaders.len());
    say_share("texts with their constants in every language", tried, all);
}

/// Every constant is an override of its text, and every override that has no value of its own gets one.
///
/// Where `SHADERS` in the environment names a file, every text goes there with its sets of constants, one JSON object a
/// line, so that another compiler can check them, too: `crates/wgpu-optim-web/tests/shaders.mjs`.
#[test]
fn constants_are_the_overrides_of_their_text() {
    let mut lines = String::new();
    for Shader { walk, skeleton, around, cases, text, module, .. } in shaders() {
        let mut sets = Vec::new();
        for (case, rule) in cases {
            for constants in constants(&**rule, *skeleton, around) {
                let named = |name: &str| module.overrides.iter().any(|(_, found)| found.name.as_deref() == Some(name));
                let unknown = constants.iter().find(|(name, _)| !named(name));
                assert_eq!(unknown, None, "{case}, {walk}: is no override");
                for (_, found) in module.overrides.iter().filter(|(_, found)| found.init.is_none()) {
                    let given = constants.iter().any(|(name, _)| found.name.as_deref() == Some(name));
                    assert!(given, "{case}, {walk}: {:?} has no value", found.name);
                }
                let set: serde_json::Value = constants.into_iter().collect();
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
        }
        let name = format!("{}, {walk}", cases[0].0);
        let line = serde_json::json!({ "name": name, "entry": skeleton.entry(), "text": text, "constants": sets });
        lines.push_str(&format!("{line}\n"));
    }
    if let Some(file) = std::env::var_os("SHADERS") {
        std::fs::write(&file, lines).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

#[test]
fn structs_have_the_fields_of_their_rust_twins() {
    for Shader { walk, skeleton, cases, module, .. } in shaders() {
        let (case, rule) = &cases[0];
        let names = rule.names();
        let of_rule = !skeleton.knows_no_rule();
        let common = <Common<f32> as Numbers<f32>>::NAMES;
        let structs = [("Common", common), ("Hyper", names.hyper), ("State", names.state)];
        let structs = structs.into_iter().take(if of_rule { 3 } else { 1 });
        // A rule that has no numbers of a tensor gets a struct with a field that nobody reads.
        let tensor = (of_rule && !names.tensor.is_empty()).then_some(("Tensor", names.tensor));
        for (name, expected) in structs.chain(tensor) {
            assert_eq!(
                fields(module, name),
                expected,
                "{case}, {walk}: the fields of struct {name} in WGSL (left) are not those in Rust (right)"
            );
        }
    }
}

/// A struct's fields, all of which must be f32.
fn fields<'a>(module: &'a Module, name: &str) -> Vec<&'a str> {
    let (_, found) = module.types.iter().find(|(_, found)| found.name.as_deref() == Some(name)).expect("declared");
    let TypeInner::Struct { members, .. } = &found.inner else { panic!("{name} is not a struct") };
    let each = members.iter().map(|member| {
        assert_eq!(module.types[member.ty].inner, TypeInner::Scalar(naga::Scalar::F32), "{name}");
        member.name.as_deref().expect("WGSL's fields have names")
    });
    each.collect()
}

#[test]
fn override_constants_are_those_that_the_host_sets() {
    for Shader { walk, skeleton, around, cases, module, .. } in shaders() {
        for (case, rule) in cases {
            let Some(set) = constants(&**rule, *skeleton, around).pop() else { continue };
            let mut set: Vec<_> = set.into_iter().map(|(name, _)| name).collect();
            let mut declared: Vec<_> = module.overrides.iter().filter_map(|(_, found)| found.name.as_deref()).collect();
            set.sort_unstable();
            declared.sort_unstable();
            assert_eq!(declared, set, "{case}, {walk}: overrides in WGSL (left) are not those that Rust sets (right)");
        }
    }
}

#[test]
fn only_the_glue_declares_bindings() {
    for Shader { walk, skeleton, around, cases, module, .. } in shaders() {
        let declared: BTreeMap<_, _> = module
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let naga::AddressSpace::Storage { access } = variable.space else { return None };
                let place = variable.binding?;
                Some(((place.group, place.binding), access.contains(StorageAccess::STORE)))
            })
            .collect();
        let (case, rule) = &cases[0];
        let bound = shader::bindings(&**rule, around, *skeleton, Pages::Apart);
        let bound: BTreeMap<_, _> = bound.iter().map(|binding| (binding.place(), binding.writable())).collect();
        assert_eq!(declared, bound, "{case}, {walk}: (group, binding): writable, in WGSL (left) and in Rust (right)");
    }
}

/// `<rule>.<skeleton>.<access>.wgsl` is the text for the rule's default options, within all wrappers where the walk is
/// theirs alone; behind the access, `.f16` is for gradients in that format, `.bf16-f16` for parameters in the first and
/// gradients in the second, and a third is that of the state. To keep another text, add an empty file of its name.
#[test]
fn texts_are_those_in_the_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expansion");
    let update = std::env::var_os("UPDATE").is_some();
    let mut kept = HashSet::new();
    let mut wrong = Vec::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the folder is there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name of letters");
        let (rule, skeleton, access, formats, state) = composed_for(name, &wraps()[1].1);
        kept.extend([skeleton.name(), access.name(), formats.param.name(), formats.grad.name()]);
        let [(_, plain), (_, all), _] = wraps();
        let wraps_alone = matches!(skeleton, Skeleton::Counts | Skeleton::FinishCounts);
        let plain = plain.with(StateFormat::All(state)).of_format(formats.param).completed();
        let around = if skeleton.knows_no_rule() || wraps_alone { &all } else { &plain };
        let text = compose(&*rule, around, skeleton, Values::apart(access, formats));
        if update {
            std::fs::write(&file, text).expect("writable");
        } else if std::fs::read_to_string(&file).expect("readable") != text {
            wrong.push(name.to_string());
        }
    }
    assert!(
        wrong.is_empty(),
        "composed texts changed: {}. If that is what you meant, run `UPDATE=1 cargo xtask test expansion::`, \
         read the difference with `git diff tests/expansion`, and commit it.",
        wrong.join(", ")
    );
    let all = Skeleton::ALL
        .map(Skeleton::name)
        .into_iter()
        .chain(ACCESSES.map(Access::name))
        .chain(DType::ALL.map(DType::name));
    let missing: Vec<_> = all.filter(|name| !kept.contains(name)).collect();
    assert!(missing.is_empty(), "tests/expansion/ keeps no text of {}", missing.join(", "));
}

fn composed_for(file: &str, around: &Wrappers) -> (Box<dyn AnyRule>, Skeleton, Access, Formats, Storage) {
    let parts: Vec<_> = file.split('.').collect();
    let (rule, skeleton, access, formats) = match parts[..] {
        [rule, skeleton, access, "wgsl"] => (rule, skeleton, access, "f32"),
        [rule, skeleton, access, formats, "wgsl"] => (rule, skeleton, access, formats),
        _ => panic!("{file} is not RULE.SKELETON.ACCESS.wgsl or RULE.SKELETON.ACCESS.FORMATS.wgsl"),
    };
    let (param, grad, state) = match formats.split('-').collect::<Vec<_>>()[..] {
        [param, grad, state] => (param, grad, state),
        [param, grad] => (param, grad, "f32"),
        _ => ("f32", formats, "f32"),
    };
    let row = rules::find(rule).unwrap_or_else(|| panic!("{file}: there is no rule {rule}"));
    let skeleton = Skeleton::ALL.into_iter().find(|known| known.name() == skeleton);
    let access = ACCESSES.into_iter().find(|known| known.name() == access);
    let (skeleton, access) = skeleton.zip(access).unwrap_or_else(|| panic!("{file}: no such skeleton or access"));
    let [param, grad] =
        [param, grad].map(|name| DType::find(name).unwrap_or_else(|| panic!("{file}: no format {name}")));
    let rule = (row.default)();
    let walks = |rule: &dyn AnyRule| Walk::of_step(rule, around).into_iter().any(|walk| walk.skeleton == skeleton);
    let for_matrices = rule.for_matrices().filter(|for_matrices| walks(&**for_matrices) && !walks(&*rule));
    let state = Storage::find(state).unwrap_or_else(|| panic!("{file}: no format of state {state}"));
    (for_matrices.unwrap_or(rule), skeleton, access, Formats { param, grad }, state)
}
