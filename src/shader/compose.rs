//! A shader's whole text, composed from its pieces.
//!
//! WGSL's module scope has no order, so the pieces stand one behind the other: shared functions, codecs, one rule,
//! defaults for the functions that the rule leaves out, the wrappers that have hooks in the walk, the glue, and one
//! skeleton. Numbers and choices are `override` constants, which the host sets when it makes a pipeline.

use std::collections::BTreeSet;

use super::bindings::{Binding, bindings, declares};
use super::glue::glue;
use super::hooks::in_walk;
use super::values::Values;
use super::walk::Skeleton;
use crate::codecs::DType;
use crate::rule::AnyRule;
use crate::tensor::{Formats, Pages};
use crate::wrappers::Wrappers;

/// The whole text of one shader, for parameters and gradients that lie in memory as `values` says.
pub fn compose(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, values: Values) -> String {
    let Values { access, formats: Formats { param, grad }, pages } = values;
    let declares = declares(rule, wrappers, skeleton);
    let of_rule = if skeleton.knows_no_rule() { String::new() } else { format!("{} / ", rule.name()) };
    let mut text = format!(
        "// {of_rule}{} / param {param}, {}{}{}. Composed by wgpu-optim {}.\n\n",
        skeleton.name(),
        if declares.grads { format!("grad {grad}, ") } else { String::new() },
        access.name(),
        match pages {
            Pages::Apart => String::new(),
            Pages::Shared => ", both in one buffer".into(),
            Pages::Many(count) => format!(", in {count} buffers"),
        },
        env!("CARGO_PKG_VERSION")
    );
    let mut piece = |piece: &str| {
        text.push_str(piece);
        text.push('\n');
    };
    piece(include_str!("../../shaders/parts.wgsl"));
    if !matches!(skeleton, Skeleton::FinishNorms | Skeleton::Decide) {
        piece(DType::F32.shader());
    }
    let bound = [(declares.params, param), (declares.grads, grad)];
    let narrow: BTreeSet<_> = bound.into_iter().filter_map(|(is_bound, format)| is_bound.then_some(format)).collect();
    let narrow: Vec<_> = narrow.into_iter().filter(|format| format.is_narrow()).collect();
    const HALVES: &str = include_str!("../../shaders/codecs/halves.wgsl");
    if !narrow.is_empty() {
        piece(HALVES);
    }
    narrow.iter().for_each(|format| piece(format.shader()));
    let mut of_state: Vec<&str> = Vec::new();
    if bindings(rule, wrappers, skeleton, pages).contains(&Binding::State) {
        for text in wrappers.layout(rule).sections.iter().flat_map(|section| section.storage.shaders()) {
            let is_there =
                narrow.iter().any(|format| format.shader() == *text) || *text == HALVES && !narrow.is_empty();
            if !of_state.contains(text) && !is_there {
                of_state.push(text);
            }
        }
    }
    of_state.into_iter().for_each(&mut piece);
    if declares.grads && values.are_half() {
        piece(include_str!("../../shaders/glue/pair_of.wgsl"));
    }
    if !skeleton.knows_no_rule() {
        piece(rule.shader());
        for default in defaults(rule, skeleton) {
            piece(default);
        }
    }
    let around = in_walk(rule, wrappers, skeleton);
    if around.iter().any(|wrapper| wrapper.shader().contains("philox(")) {
        piece(include_str!("../../shaders/init/philox.wgsl"));
    }
    for wrapper in around {
        piece(wrapper.shader());
    }
    piece(include_str!("../../shaders/skeletons/common.wgsl"));
    piece(&glue(rule, wrappers, skeleton, values));
    skeleton.texts(rule).for_each(&mut piece);
    text
}

/// What stands in for the items that a rule leaves out.
fn defaults(rule: &dyn AnyRule, skeleton: Skeleton) -> Vec<&'static str> {
    let of_lines = [
        ("fn measure_line(", include_str!("../../shaders/defaults/measure_line.wgsl")),
        ("fn finish_line(", include_str!("../../shaders/defaults/finish_line.wgsl")),
        ("fn finish_row(", include_str!("../../shaders/defaults/finish_row.wgsl")),
    ];
    let of_lines = of_lines.into_iter().filter(|_| matches!(skeleton, Skeleton::Lines | Skeleton::FinishLines));
    let of_all = [
        ("struct Tensor ", include_str!("../../shaders/defaults/Tensor.wgsl")),
        ("fn measure(", include_str!("../../shaders/defaults/measure.wgsl")),
        ("fn finish(", include_str!("../../shaders/defaults/finish.wgsl")),
        ("fn spread(", include_str!("../../shaders/defaults/spread.wgsl")),
        ("fn measure_product(", include_str!("../../shaders/defaults/measure_product.wgsl")),
        ("fn finish_product(", include_str!("../../shaders/defaults/finish_product.wgsl")),
        ("fn of_shape(", include_str!("../../shaders/defaults/of_shape.wgsl")),
        ("fn decay_rate(", include_str!("../../shaders/defaults/decay_rate.wgsl")),
        ("fn land(", include_str!("../../shaders/defaults/land.wgsl")),
        ("fn moved(", include_str!("../../shaders/defaults/moved.wgsl")),
    ];
    let mut all = Vec::new();
    for (item, default) in of_all.into_iter().chain(of_lines) {
        if !rule.shader().lines().any(|line| line.starts_with(item)) {
            all.push(default);
        }
    }
    all
}
