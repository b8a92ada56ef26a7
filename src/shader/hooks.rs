//! The generated part of a shader that calls the wrappers' hooks, in the order of the registry.

use std::fmt::Write;

use super::walk::Skeleton;
use crate::rule::{AnyRule, Common, Numbers};
use crate::wrapper::{AnyWrapper, Decided};
use crate::wrappers::{Moving, Wrappers, recorded};

/// A kind of hook: what walks call, and how each wrapper that defines it is called.
struct Hook {
    /// The function's name behind that of its wrapper.
    name: &'static str,
    /// The walks that call it.
    skeletons: &'static [Skeleton],
    /// The start of the function that calls it for every wrapper.
    head: &'static str,
    /// The line of that function for one wrapper. `NAME` stands for the wrapper, whose numbers are left out where it
    /// has none, and `MOVE_0` for the number of its first move.
    call: &'static str,
    /// The end of that function.
    tail: &'static str,
}

/// The hooks in the order in which a step meets them.
const HOOKS: [Hook; 17] = {
    use Skeleton::{Apply, Counts, Decide, FinishCounts, Inner, Lines, Moves, Recall, Spread, Sums};
    [
        Hook {
            name: "takes_all",
            skeletons: &[Decide],
            head: "fn wrapped_takes_all() -> bool {\n    var all = false;",
            call: "    all |= NAME_takes_all();",
            tail: "    return all;\n}",
        },
        Hook {
            name: "factors",
            skeletons: &[Decide],
            head: "fn wrapped_factors(\n    root: vec2<f32>, of_params: vec2<f32>, worst: u32, limit: f32, eps: f32,\n\
                   ) -> vec2<u32> {\n    var factors = vec2<u32>(bitcast<u32>(1.0));",
            call: "    factors = NAME_factors(root, of_params, worst, limit, eps);",
            tail: "    return factors;\n}",
        },
        Hook {
            name: "after",
            skeletons: &[Decide],
            head: "fn wrapped_after(\n    scale: f32, good: u32, is_skipped: bool, growth: f32, backoff: f32, \
                   interval: u32,\n) -> vec2<u32> {\n    var next = vec2<u32>(bitcast<u32>(scale), good);",
            call: "    next = NAME_after(scale, good, is_skipped, growth, backoff, interval);",
            tail: "    return next;\n}",
        },
        Hook {
            name: "gradient",
            skeletons: &[Lines, Sums, Spread, Inner, Recall, Counts, Apply],
            head: "fn wrapped_gradient(w: Wrapped, raw: f32) -> f32 {\n    var g = raw;",
            call: "    g = NAME_gradient(w.NAME, g);",
            tail: "    return g;\n}",
        },
        Hook {
            name: "is_counted",
            skeletons: &[Counts],
            head: "fn wrapped_is_counted(w: Wrapped, g: f32, u: f32) -> bool {\n    var counts = false;",
            call: "    counts |= NAME_is_counted(w.NAME, g, u);",
            tail: "    return counts;\n}",
        },
        Hook {
            name: "factor",
            skeletons: &[Counts, FinishCounts],
            head: "fn wrapped_factor(w: Wrapped, count: f32, len: f32) -> f32 {\n    var factor = 1.0;",
            call: "    factor = NAME_factor(w.NAME, count, len);",
            tail: "    return factor;\n}",
        },
        Hook {
            name: "update",
            skeletons: &[Apply],
            head: "fn wrapped_update(w: Wrapped, k: f32, g: f32, of_rule: f32) -> f32 {\n    var u = of_rule;",
            call: "    u = NAME_update(w.NAME, k, g, u);",
            tail: "    return u;\n}",
        },
        Hook {
            name: "is_lost",
            skeletons: &[Apply],
            head: "fn wrapped_is_lost(w: Wrapped, raw: u32) -> bool {\n    \
                   var is_lost = (raw & 0x7fffffffu) > 0x7f800000u;",
            call: "    is_lost |= NAME_is_lost(w.NAME, raw);",
            tail: "    return is_lost;\n}",
        },
        Hook {
            name: "landed",
            skeletons: &[Apply],
            head: "fn wrapped_landed(\n    chunk: Chunk, w: Wrapped, first: bool, q: u32, before: vec4<f32>, \
                   after: vec4<f32>,\n) -> vec4<f32> {\n    var landed = after;",
            call: "    landed = NAME_landed(chunk, w.NAME, first, q, before, landed);",
            tail: "    return landed;\n}",
        },
        Hook {
            name: "whole",
            skeletons: &[Sums, Spread, Inner, Recall, Counts, Apply, Moves],
            head: "// The parameters as the rule sees them.\n\
                   fn load_whole(chunk: Chunk, first: bool, q: u32) -> vec4<f32> {",
            call: "    if (!first) {\n        return NAME_whole(chunk, q);\n    }",
            tail: "    return load_param(chunk, q);\n}",
        },
        Hook {
            name: "kept",
            skeletons: &[Apply, Moves],
            head: "// Keeps the parameters as the rule sees them, and returns what is to stand in memory.\n\
                   fn wrapped_kept(chunk: Chunk, q: u32, p: vec4<f32>) -> vec4<f32> {\n    var copy = p;",
            call: "    copy = NAME_kept(chunk, q, copy);",
            tail: "    return copy;\n}",
        },
        Hook {
            name: "stored",
            skeletons: &[Apply],
            head: "fn wrapped_stored(chunk: Chunk, w: Wrapped, q: u32, landed: vec4<f32>) -> vec4<f32> {\n    \
                   var stored = landed;",
            call: "    stored = NAME_stored(chunk, w.NAME, q, stored);",
            tail: "    return stored;\n}",
        },
        Hook {
            name: "chance",
            skeletons: &[Sums, Apply],
            head: "fn wrapped_chance(chunk: Chunk, w: Wrapped, q: u32, pair: u32) -> vec4<u32> {\n    \
                   var random: vec4<u32>;",
            call: "    random = NAME_chance(w.NAME, chunk, q, pair);",
            tail: "    return random;\n}",
        },
        Hook {
            name: "chances",
            skeletons: &[Sums, Apply],
            head: "fn wrapped_chances(chunk: Chunk, w: Wrapped, q: u32, pair: u32) -> array<vec4<u32>, 2> {\n    \
                   var random: array<vec4<u32>, 2>;",
            call: "    random = NAME_chances(w.NAME, chunk, q, pair);",
            tail: "    return random;\n}",
        },
        Hook {
            name: "skipped",
            skeletons: &[Apply],
            head: "fn wrapped_skipped(chunk: Chunk, q: u32, stands: vec4<f32>) -> vec4<f32> {\n    var p = stands;",
            call: "    p = NAME_skipped(chunk, q);",
            tail: "    return p;\n}",
        },
        Hook {
            name: "looked_ahead",
            skeletons: &[Moves],
            head: "fn wrapped_looked_ahead(chunk: Chunk, q: u32, before: vec4<f32>) {",
            call: "    NAME_looked_ahead(chunk, q, before);",
            tail: "}",
        },
        Hook {
            name: "moved",
            skeletons: &[Moves],
            head: "fn wrapped_moved(chunk: Chunk, w: Wrapped, q: u32, stands: vec4<f32>) -> vec4<f32> {\n    \
                   var p = stands;",
            call: "    p = NAME_moved(chunk, w.NAME, MOVE - MOVE_0u, q, p);",
            tail: "    return p;\n}",
        },
    ]
};

impl Hook {
    /// Whether a wrapper's text defines the hook.
    fn is_of(&self, wrapper: &dyn AnyWrapper) -> bool {
        let start = format!("fn {}_{}(", wrapper.name(), self.name);
        wrapper.shader().lines().any(|line| line.starts_with(&start))
    }

    /// The function that calls the hook of every wrapper.
    fn text(&self, wrappers: &[&dyn AnyWrapper]) -> String {
        let mut text = format!("{}\n", self.head);
        for wrapper in wrappers.iter().filter(|wrapper| self.is_of(**wrapper)) {
            let first_move = Moving::first_of(wrapper.name()).to_string();
            let numbers = if wrapper.fields().is_empty() { "" } else { "w.NAME, " };
            let call =
                self.call.replace("w.NAME, ", numbers).replace("NAME", wrapper.name()).replace("MOVE_0", &first_move);
            writeln!(text, "{call}").expect("a string takes any text");
        }
        format!("{text}{}\n\n", self.tail)
    }
}

fn hooks_of(skeleton: Skeleton) -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().filter(move |hook| hook.skeletons.contains(&skeleton))
}

/// The wrappers around a rule that have hooks in a walk.
pub(super) fn in_walk<'a>(rule: &dyn AnyRule, wrappers: &'a Wrappers, skeleton: Skeleton) -> Vec<&'a dyn AnyWrapper> {
    let setting = wrappers.setting(rule);
    let has_hook = |wrapper: &&dyn AnyWrapper| hooks_of(skeleton).any(|hook| hook.is_of(*wrapper));
    // A walk that decides calls the hooks of all wrappers, whatever the rule.
    let takes_part = |wrapper: &&dyn AnyWrapper| skeleton == Skeleton::Decide || wrapper.takes_part(setting);
    wrappers.iter().filter(takes_part).filter(has_hook).collect()
}

/// The struct of a wrapper's numbers: `LossScaleNumbers` of `loss_scale`; none where it has no numbers.
fn numbers_of(wrapper: &dyn AnyWrapper) -> Option<String> {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    let name = wrapper.name().split('_').map(capital).collect::<String>();
    (!wrapper.fields().is_empty()).then(|| name + "Numbers")
}

/// The numbers of the wrappers in a walk, where they are read, and the functions that call their hooks. `decided` gives
/// the expression of a number that the device decides.
pub(super) fn hooks(
    rule: &dyn AnyRule,
    wrappers: &Wrappers,
    skeleton: Skeleton,
    source: &str,
    decided: impl Fn(Decided) -> String,
) -> String {
    if hooks_of(skeleton).next().is_none() {
        return String::new();
    }
    let here = in_walk(rule, wrappers, skeleton);
    let mut text = String::from("// Hooks of wrappers, in the order in which they run.\n\n");
    if skeleton != Skeleton::Decide {
        let mut fields = String::new();
        let mut values = String::new();
        let mut place = <Common<f32> as Numbers<f32>>::NAMES.len();
        for wrapper in wrappers.iter() {
            let recorded = recorded(wrapper).len();
            if let (Some(numbers), true) =
                (numbers_of(wrapper), here.iter().any(|other| other.name() == wrapper.name()))
            {
                let of_record = (place..place + recorded).map(|i| format!("bitcast<f32>({source}[record + {i}u])"));
                let of_device = wrapper.decided().iter().map(|&number| decided(number));
                let all: Vec<_> = of_record.chain(of_device).collect();
                writeln!(fields, "    {}: {numbers},", wrapper.name()).expect("a string takes any text");
                writeln!(values, "        {numbers}({}),", all.join(", ")).expect("a string takes any text");
            }
            place += recorded;
        }
        if fields.is_empty() {
            (fields, values) = ("    unused: f32,\n".into(), "        0.0,\n".into());
        }
        text.push_str(&format!(
            "struct Wrapped {{\n{fields}}}\n\nfn load_wrapped(tensor: u32, record: u32) -> Wrapped {{\n    \
             return Wrapped(\n{values}    );\n}}\n\n"
        ));
    }
    for hook in hooks_of(skeleton) {
        text.push_str(&hook.text(&here));
    }
    if skeleton == Skeleton::Apply {
        let restores = here.iter().any(|wrapper| wrapper.shader().contains("_skipped("));
        text.push_str(&format!("// Whether a skipped step moves parameters.\nconst RESTORES: bool = {restores};\n\n"));
    }
    text
}
