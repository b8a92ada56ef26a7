//! Checks the device's limits against what an optimizer needs of them.

use super::variants::Variant;
use crate::error::{Error, Result, refuse};
use crate::groups::Groups;
use crate::lines::Lines;
use crate::plan::{Bounds, Framed, Place, Sided, pack};
use crate::product::Frame;
use crate::rule::AnyRule;
use crate::shader::{self, LANES_MANY, Pages, Skeleton, Walk, model_numbers, tensor_numbers};
use crate::sides::Parts;
use crate::storage::{GROUP_LANES, LANES_MOST};
use crate::tensor::{ALIGNMENT, TensorSpec};
use crate::words::{NORM_WORDS, SUM_WORDS};
use crate::wrappers::Wrappers;

/// The walks that an optimizer of this rule may make.
fn skeletons(rule: &dyn AnyRule, wrappers: &Wrappers) -> Vec<Skeleton> {
    let walks = Walk::of_step(rule, wrappers)
        .into_iter()
        .map(|walk| walk.skeleton)
        .chain(rule.moves().iter().map(|_| Skeleton::Moves));
    let decides: &[_] =
        if wrappers.is_controlled() { &[Skeleton::Norms, Skeleton::FinishNorms, Skeleton::Decide] } else { &[] };
    let accumulates = (wrappers.batches() > 1).then_some(Skeleton::Accumulate);
    walks.chain(decides.iter().copied()).chain(accumulates).collect()
}

/// Buffers of parameters and gradients that a dispatch of this rule binds at most: a power of two.
pub(super) fn pages(limits: &wgpu::Limits, rule: &dyn AnyRule, wrappers: &Wrappers) -> usize {
    let others = |skeleton: Skeleton| {
        let bindings = shader::bindings(rule, wrappers, skeleton, Pages::Many(0));
        bindings.len()
    };
    let most = skeletons(rule, wrappers).into_iter().map(others).max().unwrap_or(0);
    let pairs = (limits.max_storage_buffers_per_shader_stage as usize).saturating_sub(most) / 2;
    2 << pairs.clamp(1, PAIRS_MOST).ilog2()
}

/// Pairs of buffers that a dispatch binds at most, whatever the device offers.
const PAIRS_MOST: usize = 32;

/// Refuses a device that cannot bind what the shaders declare.
pub(super) fn check_limits(limits: &wgpu::Limits, variants: &[Variant]) -> Result<()> {
    let all = || {
        let of = |Variant { rule, wrappers, .. }: &Variant| {
            skeletons(&**rule, wrappers)
                .into_iter()
                .map(|skeleton| shader::bindings(&**rule, wrappers, skeleton, Pages::Apart))
                .collect::<Vec<_>>()
        };
        variants.iter().flat_map(of)
    };
    let most = all().map(|bindings| bindings.len()).max().unwrap_or(0);
    let dynamic = all().map(|bindings| bindings.iter().filter(|binding| binding.dynamic()).count()).max().unwrap_or(0);
    let of_variant = |variant: &Variant| skeletons(&*variant.rule, &variant.wrappers);
    let is_long = variants.iter().flat_map(of_variant).any(Skeleton::has_long_loops);
    let lanes = if is_long { LANES_MANY as usize } else { 0 };
    for (limit, found, needed) in [
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, most),
        (
            "max_dynamic_storage_buffers_per_pipeline_layout",
            limits.max_dynamic_storage_buffers_per_pipeline_layout,
            dynamic,
        ),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, lanes),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x, lanes),
    ] {
        if u64::from(found) < needed as u64 {
            return Err(Error::Limit { limit, found: found.into(), needed: needed as u64 });
        }
    }
    Ok(())
}

/// Refuses lanes that do not hold whole groups of a format of the state.
pub(super) fn check_lanes(lanes: u32, variants: &[Variant]) -> Result<()> {
    let is_grouped = variants.iter().any(|variant| variant.layout.is_grouped());
    match is_grouped && !(lanes.is_multiple_of(GROUP_LANES) && lanes <= LANES_MOST) {
        true => {
            let bound = format!("a multiple of {GROUP_LANES} up to {LANES_MOST} where state_format is by groups");
            refuse("lanes", lanes, bound)
        }
        false => Ok(()),
    }
}

/// The words of scratch: the numbers of the model and of all tensors, then all partial results.
pub(super) fn scratch_words(tensors: &[TensorSpec], groups: &Groups, lines: &[Option<Lines>], bounds: Bounds) -> u64 {
    let of_model = model_numbers(groups.rule(0)) as u64;
    let numbers = |i: usize| tensor_numbers(groups.rule_of(i), groups.wrappers());
    let numbers = (0..tensors.len()).map(numbers).max().unwrap_or(0);
    let words = |(i, tensor): (usize, &TensorSpec)| {
        let rule = groups.rule_of(i);
        let partials = partial_words(rule, groups.wrappers()) * bounds.partials(tensor.len_elements());
        let of_matrix = |lines: Lines| lines.shares().iter().sum::<u64>().saturating_mul(lines.matrices);
        (numbers as u64 + partials).saturating_add(lines[i].map_or(0, of_matrix))
    };
    // Walks over lines, and those that measure gradients, bind scratch even where none of them leaves anything there.
    let least = u64::from(lines.iter().any(Option::is_some) || groups.wrappers().measures());
    tensors.iter().enumerate().map(words).fold(of_model, u64::saturating_add).max(least)
}

/// Whether chunks leave partial results of a rule's sums, or of a wrapper's counts.
pub(super) fn sums(rule: &dyn AnyRule, wrappers: &Wrappers) -> bool {
    rule.sum_words() > 0 || wrappers.counts()
}

/// Words of a partial result of any walk of a step.
pub(super) fn partial_words(rule: &dyn AnyRule, wrappers: &Wrappers) -> u64 {
    let measured = if wrappers.measures() { NORM_WORDS } else { 0 };
    let counted = if wrappers.counts() { SUM_WORDS } else { 0 };
    rule.sum_words().max(measured).max(counted)
}

/// What the tensors have in the pages of work.
pub(super) struct WorkPages {
    /// The matrices of which rules take products.
    pub frames: Vec<Option<Framed>>,
    /// The tensors that rules turn.
    pub sides: Vec<Option<Sided>>,
    /// The pages' sizes.
    pub sizes: Vec<u64>,
}

/// Packs the matrices of the tensors whose rule takes products into pages, with the numbers of its rows behind each
/// where it has any, and the parts of the tensors that rules turn.
///
/// # Errors
/// [`Error::TooLarge`] for a tensor whose parts no page holds.
pub(super) fn work_pages(tensors: &[TensorSpec], groups: &Groups, page_bytes: u64) -> Result<WorkPages> {
    let matrix = |i: usize| groups.lines_of(i).filter(|_| groups.rule_of(i).has_products());
    let words = |i: usize| matrix(i).map_or(0, |lines| Frame::of(&lines).words());
    let of_lines = |i: usize| matrix(i).filter(|_| groups.rule_of(i).has_lines()).map_or(0, |lines| lines.words());
    let sided = |i: usize| {
        let sides = groups.rule_of(i).sides()?.of(&tensors[i].shape);
        let parts = Parts::of(tensors[i].len_elements(), &sides);
        Some(Sided { place: Place { buffer: 0, offset: 0 }, sides, parts })
    };
    let sides: Vec<_> = (0..tensors.len()).map(sided).collect();
    let of_sides = |i: usize| sides[i].as_ref().map_or(0, |sided| sided.parts.words());
    let words = |i: usize| words(i).saturating_add(of_lines(i)).saturating_add(of_sides(i)).saturating_mul(4);
    let (places, sizes) = pack(tensors, "matrices", words, ALIGNMENT, page_bytes)?;
    let frame = |(i, place): (usize, Place)| {
        let is_second = groups.rule_of(i).products().count() / 3 % 2 == 1;
        matrix(i).map(|lines| Framed { place, lines, is_second })
    };
    let frames = places.iter().copied().enumerate().map(frame).collect();
    let at = |(sided, &place): (Option<Sided>, &Place)| sided.map(|sided| Sided { place, ..sided });
    let sides = sides.into_iter().zip(&places).map(at).collect();
    Ok(WorkPages { frames, sides, sizes })
}
