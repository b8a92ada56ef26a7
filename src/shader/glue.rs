//! The glue: the part of a shader that declares its bindings and moves numbers between them and the structs of rule and
//! skeleton. Only what depends on slots, formats or access is made here; the rest are the files of `shaders/glue/`.

use std::fmt::Write;

use super::bindings::{Binding, bindings, declares, model_numbers, tensor_numbers};
use super::hooks::{hooks, in_walk};
use super::state::{slot_glue, state_element, state_glue, state_place, wrapper_slots};
use super::values::{Values, dither_params, load_elements, load_four, load_words, page_glue, store_params};
use super::walk::Skeleton;
use crate::rule::{AnyRule, Common, Extent, Numbers};
use crate::words::{self, Chunk, LinesOfMatrix, MatrixTile, ModelSums, SideTile, TensorSums, Tile};
use crate::wrapper::{AnyWrapper, Decided};
use crate::wrappers::Wrappers;

/// Declares the bindings and the functions that move elements through them.
pub(super) fn glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, values: Values) -> String {
    let mut text = String::from("// Glue: bindings, and the way between them and the rule's structs.\n\n");
    let bindings = bindings(rule, wrappers, skeleton, values.pages);
    let element = values.element("param");
    for &binding in &bindings {
        let (name, element) = match binding {
            Binding::Params => ("params".into(), element),
            Binding::Grads => ("grads".into(), values.element("grad")),
            Binding::State => ("states".into(), state_element(&wrappers.layout(rule))),
            Binding::Tables => ("tables".into(), "vec4<u32>"),
            Binding::Scratch => ("scratch".into(), "u32"),
            Binding::Lines => ("lines".into(), "f32"),
            Binding::Control | Binding::Decisions => ("control".into(), "u32"),
            Binding::Work if skeleton == Skeleton::Product => ("work".into(), "vec4<f32>"),
            Binding::Work => ("work".into(), "f32"),
            Binding::Page(page) => (format!("page_{page}"), element),
            Binding::Clocks => ("clocks".into(), "u32"),
        };
        let (group, number) = binding.place();
        let mode = if binding.writable() { "read_write" } else { "read" };
        line(
            &mut text,
            format_args!("@group({group}) @binding({number}) var<storage, {mode}> {name}: array<{element}>;"),
        );
    }
    text.push('\n');
    let pages = bindings.iter().filter(|binding| matches!(binding, Binding::Page(_))).count();
    if pages > 0 {
        text.push_str(&page_glue(pages, element));
    }
    text.push_str(&shared_words(rule, wrappers, skeleton, pages > 0));
    if skeleton.knows_no_rule() {
        text.push_str(&decision_glue(rule, wrappers, skeleton));
    } else {
        text.push_str(&record_glue(rule, wrappers, skeleton));
    }
    let declares = declares(rule, wrappers, skeleton);
    const NONE: &str = "(chunk: Chunk, q: u32) -> vec4<f32> {\n    return vec4<f32>();\n}\n\n";
    match skeleton {
        Skeleton::Lines => {
            text.push_str(&load_four("param", values));
            text.push_str(&load_four("grad", values));
        }
        Skeleton::Sums | Skeleton::Spread | Skeleton::Counts | Skeleton::Apply | Skeleton::Moves => {
            text.push_str(&load_elements("param", values));
            text.push_str(&store_params(values));
            let draws = |wrapper: &&dyn AnyWrapper| wrapper.shader().contains("dithered(");
            if in_walk(rule, wrappers, skeleton).iter().any(draws) {
                text.push_str(&dither_params(values));
            }
            text.push_str(&state_glue(rule, wrappers, skeleton));
            match declares.grads {
                true => text.push_str(&load_elements("grad", values)),
                false => text.push_str(&format!("fn load_grad{NONE}")),
            }
        }
        Skeleton::Weigh => text.push_str(&state_glue(rule, wrappers, skeleton)),
        Skeleton::Inner | Skeleton::Recall => {
            text.push_str(&load_elements("param", values));
            text.push_str(&load_elements("grad", values));
            text.push_str(&state_place(rule, wrappers));
            let layout = wrappers.layout(rule);
            for slot in rule.slots().iter().filter(|slot| slot.extent.of_element() > 0) {
                text.push_str(&slot_glue(&layout, slot.name, matches!(slot.extent, Extent::History(_))));
            }
            text.push_str(&wrapper_slots(rule, wrappers, skeleton));
        }
        Skeleton::Norms | Skeleton::Accumulate => {
            match declares.params {
                true => text.push_str(&load_elements("param", values)),
                false => text.push_str(&format!("fn load_param{NONE}")),
            }
            text.push_str(&load_words("grad", values));
            text.push_str(if skeleton == Skeleton::Accumulate { store_params(values) } else { String::new() }.as_str());
        }
        Skeleton::FinishLines
        | Skeleton::Finish
        | Skeleton::FinishSums
        | Skeleton::FinishModel
        | Skeleton::Product
        | Skeleton::Grams
        | Skeleton::Turn
        | Skeleton::Bases
        | Skeleton::FinishInner
        | Skeleton::Recursion
        | Skeleton::FinishCounts
        | Skeleton::FinishNorms
        | Skeleton::Decide => {}
    }
    let of_lines = matches!(skeleton, Skeleton::Lines | Skeleton::FinishLines);
    let over_work = matches!(skeleton, Skeleton::Product | Skeleton::Grams | Skeleton::Turn | Skeleton::Bases);
    let has_work = bindings.contains(&Binding::Work) && !over_work;
    let has_product = has_work && rule.sides().is_none();
    let with_lines = of_lines || rule.has_lines() && has_product || bindings.contains(&Binding::Lines);
    if with_lines || has_product {
        piece(&mut text, include_str!("../../shaders/glue/divide.wgsl"));
    }
    match skeleton {
        Skeleton::Lines if has_product => piece(&mut text, include_str!("../../shaders/glue/product_of_tile.wgsl")),
        Skeleton::Lines => piece(&mut text, include_str!("../../shaders/glue/no_product.wgsl")),
        Skeleton::FinishLines => {}
        _ if has_product => piece(&mut text, include_str!("../../shaders/glue/product.wgsl")),
        Skeleton::Weigh => piece(&mut text, include_str!("../../shaders/glue/weighed.wgsl")),
        _ if has_work => piece(&mut text, include_str!("../../shaders/glue/sides.wgsl")),
        Skeleton::Spread => piece(&mut text, include_str!("../../shaders/glue/no_spread.wgsl")),
        _ => {}
    }
    if has_work && rule.sides().is_some() {
        piece(&mut text, include_str!("../../shaders/glue/turned.wgsl"));
    }
    if with_lines {
        piece(
            &mut text,
            match has_product {
                true => include_str!("../../shaders/glue/lines_in_work.wgsl"),
                false => include_str!("../../shaders/glue/lines.wgsl"),
            },
        );
        piece(
            &mut text,
            match of_lines {
                true => include_str!("../../shaders/glue/shares.wgsl"),
                false => include_str!("../../shaders/glue/seen.wgsl"),
            },
        );
    }
    if !of_lines && !skeleton.knows_no_rule() && !over_work && skeleton != Skeleton::Weigh {
        text.push_str(&tensor_glue(rule, wrappers, skeleton, bindings.contains(&Binding::Scratch)));
    }
    text
}

/// The constants and structs of the words that this walk shares with the host: only those that it names. Rows are
/// `whole` where values lie in any of several pages.
fn shared_words(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, whole: bool) -> String {
    use Skeleton::{
        Accumulate, Apply, Bases, Counts, Decide, Finish, FinishCounts, FinishInner, FinishLines, FinishModel,
        FinishNorms, FinishSums, Grams, Inner, Lines, Moves, Norms, Product, Recall, Recursion, Spread, Sums, Turn,
        Weigh,
    };
    let entry = match skeleton {
        Sums | Spread | Weigh | Inner | Recall | Counts | Apply | Moves | Norms | Accumulate => {
            words::entry::<Chunk>(whole)
        }
        Grams | Turn | Bases => words::entry::<SideTile>(whole),
        Product => words::entry::<MatrixTile>(whole),
        Finish | FinishSums | FinishInner | FinishCounts | FinishNorms => words::entry::<TensorSums>(whole),
        FinishModel | Recursion => words::entry::<ModelSums>(whole),
        Lines => words::entry::<Tile>(whole),
        FinishLines => words::entry::<LinesOfMatrix>(whole),
        Decide => String::new(),
    };
    let has_sums = match skeleton {
        Sums | Finish | FinishSums | FinishModel | Counts | FinishCounts => true,
        Spread => tensor_numbers(rule, wrappers) > 0,
        Apply => rule.history().is_none() && tensor_numbers(rule, wrappers) > 0,
        _ => false,
    };
    let of_history = matches!(skeleton, Inner | FinishInner | Recursion);
    let measures = matches!(skeleton, Norms | FinishNorms | Decide);
    let mut text = words::marks();
    for (declared, constants) in [
        (true, words::constants("DISPATCH", words::dispatch::WORDS, words::dispatch::LEN)),
        (entry.contains("clocks[row"), words::rows(whole)),
        (wrappers.is_controlled() || measures, words::constants("CONTROL", words::control::WORDS, words::control::LEN)),
        (wrappers.is_controlled() || measures, words::constants("TENSOR", words::tensor::WORDS, words::tensor::LEN)),
        (measures, words::constants("STEP", words::step::WORDS, words::step::LEN)),
        (measures, words::constants("MEASURED", words::measured::WORDS, words::measured::LEN)),
        (skeleton == Decide, words::constants("NORMS", words::norms::WORDS, words::norms::LEN)),
        (skeleton == Decide, words::constants("CLASS", words::class::WORDS, words::class::LEN)),
        (skeleton == Decide, words::constants("STATE", words::state::WORDS, words::state::LEN)),
        (skeleton == Decide, words::stages()),
        (skeleton == Bases, words::parts()),
        (has_sums, words::constants("SUM", words::sum::WORDS, words::sum::LEN)),
        (of_history, words::constants("INNER", words::inner::WORDS, words::inner::LEN)),
        (skeleton != Decide, entry),
    ] {
        text.push_str(if declared { &constants } else { "" });
    }
    text
}

/// Adds the functions that find a tensor's record and read its numbers.
fn record_glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> String {
    let mut text = String::new();
    let is_controlled = wrappers.is_controlled();
    let source = if is_controlled { "control" } else { "clocks" };
    if is_controlled {
        piece(&mut text, include_str!("../../shaders/glue/of_tensor.wgsl"));
        piece(&mut text, include_str!("../../shaders/glue/decided_record.wgsl"));
    } else {
        piece(&mut text, include_str!("../../shaders/glue/record.wgsl"));
    }
    let of_record = |i: usize| format!("        bitcast<f32>({source}[record + {i}u]),\n");
    let common = <Common<f32> as Numbers<f32>>::NAMES.len();
    let fields: String = (0..common).map(of_record).collect();
    text.push_str(&format!("fn load_common(record: u32) -> Common {{\n    return Common(\n{fields}    );\n}}\n\n"));
    let before = common + wrappers.recorded().count();
    let fields: String = (before..before + rule.names().hyper.len()).map(of_record).collect();
    text.push_str(&format!("fn load_hyper(record: u32) -> Hyper {{\n    return Hyper(\n{fields}    );\n}}\n\n"));
    let decided = |number| {
        let word = match (is_controlled, number) {
            (false, _) => return "1.0".into(),
            (true, Decided::Unscale) => "CONTROL_UNSCALE",
            (true, Decided::Coarse) => "of_tensor(tensor) + TENSOR_COARSE",
            (true, Decided::Fine) => "of_tensor(tensor) + TENSOR_FINE",
        };
        format!("bitcast<f32>(control[{word}])")
    };
    text + &hooks(rule, wrappers, skeleton, source, decided)
}

/// Adds the functions that read the step's words and `control`, in walks that know no rule.
fn decision_glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> String {
    let mut text = String::new();
    let mut add = |wanted: bool, file: &str| {
        if wanted {
            piece(&mut text, file);
        }
    };
    let decides = skeleton != Skeleton::Accumulate;
    add(!decides, include_str!("../../shaders/glue/batches.wgsl"));
    add(decides, include_str!("../../shaders/glue/step.wgsl"));
    add(wrappers.is_controlled(), include_str!("../../shaders/glue/unscale.wgsl"));
    add(!wrappers.is_controlled(), include_str!("../../shaders/glue/no_unscale.wgsl"));
    add(
        matches!(skeleton, Skeleton::Norms | Skeleton::FinishNorms),
        include_str!("../../shaders/glue/norm_partials.wgsl"),
    );
    add(decides, include_str!("../../shaders/glue/of_tensor.wgsl"));
    add(decides, include_str!("../../shaders/glue/control.wgsl"));
    text + &hooks(rule, wrappers, skeleton, "control", |_| String::new())
}

/// Adds a text of `shaders/glue/`, and an empty line.
fn piece(text: &mut String, piece: &str) {
    text.push_str(piece);
    text.push('\n');
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}

fn tensor_glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, bound: bool) -> String {
    let names = rule.names().tensor;
    let (model, count) = (model_numbers(rule), tensor_numbers(rule, wrappers));
    let own = count - usize::from(wrappers.counts());
    // The words of the model come first, then those of each tensor.
    let of_tensor = |i: usize| {
        if model == 0 {
            format!("TENSOR_NUMBERS * tensor + {i}u")
        } else {
            format!("{model}u + TENSOR_NUMBERS * tensor + {i}u")
        }
    };
    let number = |i: usize| if model == 0 { of_tensor(i) } else { format!("{i}u") };
    let mut text = String::from("fn load_tensor(tensor: u32) -> Tensor {\n");
    if bound && own > 0 {
        let number = |i| format!("        bitcast<f32>(scratch[{}]),\n", number(i));
        let numbers: String = (0..names.len()).map(number).collect();
        line(&mut text, format_args!("    return Tensor(\n{numbers}    );"));
    } else {
        line(&mut text, format_args!("    return Tensor({});", vec!["0.0"; names.len().max(1)].join(", ")));
    }
    text.push_str("}\n\nfn load_factor(tensor: u32) -> f32 {\n");
    match bound && wrappers.counts() {
        true => line(&mut text, format_args!("    return bitcast<f32>(scratch[{}]);", of_tensor(own))),
        false => line(&mut text, format_args!("    return 1.0;")),
    }
    text.push_str("}\n");
    if !bound {
        return text;
    }
    if wrappers.counts() {
        text.push_str("\nfn store_factor(tensor: u32, factor: f32) {\n");
        line(&mut text, format_args!("    scratch[{}] = bitcast<u32>(factor);", of_tensor(own)));
        text.push_str("}\n");
    }
    text.push_str("\nfn store_tensor(tensor: u32, k: Tensor) {\n");
    for (i, name) in names.iter().enumerate().filter(|_| own > 0) {
        line(&mut text, format_args!("    scratch[{}] = bitcast<u32>(k.{name});", number(i)));
    }
    text.push_str("}\n\n");
    let keeps_sums = match skeleton {
        Skeleton::Sums => rule.sums_over_model(),
        Skeleton::FinishSums | Skeleton::FinishModel | Skeleton::Inner | Skeleton::FinishInner => true,
        _ => skeleton == Skeleton::Recursion,
    };
    if keeps_sums {
        line(&mut text, format_args!("// Where the sums of a tensor stand.\nfn sums_of(tensor: u32) -> u32 {{"));
        line(&mut text, format_args!("    return {};\n}}\n", of_tensor(0)));
    }
    match skeleton {
        Skeleton::Recall | Skeleton::Recursion => {
            line(&mut text, format_args!("const MEMORY: u32 = {}u; // words before the history's\n", names.len()));
            text.push_str(include_str!("../../shaders/glue/history.wgsl"));
        }
        _ => {}
    }
    match skeleton {
        Skeleton::Inner | Skeleton::FinishInner | Skeleton::Recursion => {
            piece(&mut text, include_str!("../../shaders/glue/rows.wgsl"));
            text + include_str!("../../shaders/glue/row_of.wgsl")
        }
        Skeleton::Recall => text,
        Skeleton::Apply if rule.history().is_some() => text,
        _ => text + include_str!("../../shaders/glue/sum_partials.wgsl"),
    }
}
