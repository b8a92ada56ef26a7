//! Finds which tensors share their pipelines.

use std::collections::HashMap;

use super::limits::pages;
use crate::groups::Groups;
use crate::rule::{AnyRule, WeightDecay};
use crate::shader::{Switches, tensor_numbers};
use crate::storage::Layout;
use crate::wrappers::Wrappers;

/// Groups whose pipelines are the same.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) rule: Box<dyn AnyRule>,
    pub(super) wrappers: Wrappers,
    /// How its blocks of state hold the slots.
    pub(super) layout: Layout,
    /// The most buffers of parameters and gradients that a dispatch binds.
    pub(super) pages: usize,
    pub(super) switches: Switches,
}

/// All variants, and which of them each tensor belongs to.
pub(super) fn variants(groups: &Groups, lanes: u32, limits: &wgpu::Limits) -> (Vec<Variant>, Vec<usize>) {
    let mut variants: Vec<Variant> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut places = HashMap::new();
    let mut variant_of = Vec::with_capacity(groups.of().len());
    for (i, &group) in groups.of().iter().enumerate() {
        let (rule, wrappers) = (groups.rule_of(i), groups.wrappers_of(i));
        let form = groups.lines_of(i).map(|lines| lines.is_pointwise());
        variant_of.push(*places.entry((group, form, groups.formats_of(i))).or_insert_with(|| {
            let names = |rule: &dyn AnyRule| rule.slots().iter().map(|slot| slot.name).collect::<Vec<_>>();
            let layout = wrappers.layout(rule);
            let same = |variant: &Variant| {
                variant.rule.name() == rule.name()
                    && variant.rule.constants() == rule.constants()
                    && variant.rule.passes() == rule.passes()
                    && names(&*variant.rule) == names(rule)
                    && variant.layout == layout
                    && variant.wrappers.rounding() == wrappers.rounding()
            };
            let place = variants.iter().position(same).unwrap_or_else(|| {
                let pages = pages(limits, rule, wrappers);
                let wrappers = wrappers.clone();
                variants.push(Variant {
                    rule: rule.boxed(),
                    wrappers,
                    layout: layout.clone(),
                    pages,
                    switches: Switches::default(),
                });
                members.push(Vec::new());
                variants.len() - 1
            });
            members[place].push(group);
            place
        }));
    }
    if variants.is_empty() {
        // An optimizer without tensors has a variant, too, since the device may decide on its steps.
        let switches = Switches { lanes, ..Switches::default() };
        let wrappers = groups.wrappers().clone();
        variants.push(Variant {
            rule: groups.rule(0).boxed(),
            wrappers,
            layout: Layout::default(),
            pages: 2,
            switches,
        });
        return (variants, variant_of);
    }
    let numbers = |variant: &Variant| tensor_numbers(&*variant.rule, groups.wrappers()) as u32;
    let numbers = variants.iter().map(numbers).max().unwrap_or(0);
    for (variant, members) in variants.iter_mut().zip(members) {
        let decays =
            |wanted: fn(WeightDecay) -> bool| members.iter().any(|&group| wanted(groups.rule(group).weight_decay()));
        variant.switches = Switches {
            maximize: members.iter().any(|&group| groups.maximizes(group)),
            l2: decays(|decay| matches!(decay, WeightDecay::L2(_))),
            decay: decays(|decay| matches!(decay, WeightDecay::Decoupled(_) | WeightDecay::Independent(_))),
            cautious: decays(|decay| matches!(decay, WeightDecay::Cautious(_))),
            tails: true,
            crossings: true,
            copies: false,
            lanes,
            numbers,
        };
    }
    (variants, variant_of)
}
