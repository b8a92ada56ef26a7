//! The glue of the state: where a chunk finds the numbers of its elements, and the way between them and the structs.

use std::fmt::Write;

use super::hooks::in_walk;
use super::walk::Skeleton;
use crate::rule::{AnyRule, Extent, Slot, Start};
use crate::storage::{Codes, GROUP_LANES, LANES_MOST, Layout, Room, Storage};
use crate::tensor::BLOCK;
use crate::wrappers::Wrappers;

/// The type of the elements of the array that holds the state.
pub(super) fn state_element(layout: &Layout) -> &'static str {
    match layout.width() {
        4 => "vec4<u32>",
        2 => "vec2<u32>",
        _ => "u32",
    }
}

/// The function that finds the numbers of an element in the bound state, which lies block by block: all slots of a
/// block stand one behind the other.
pub(super) fn state_place(rule: &dyn AnyRule, wrappers: &Wrappers) -> String {
    let layout = wrappers.layout(rule);
    let room = layout.room();
    let body = match (layout.is_coded(), room.of_quad / 4) {
        (true, _) => {
            let width = layout.width();
            let block = room.words(BLOCK as u64) / width;
            let scale = 4 / width;
            format!(
                "    let inside = q % BLOCK_QUADS;
    let block = q / BLOCK_QUADS * {block}u;
    return Place({scale}u * chunk.state + block, min(BLOCK_QUADS, quads(chunk.len) - (q - inside)));
"
            )
        }
        (false, 0) => "    return Place(0u, 0u);\n".into(),
        (false, 1) => "    return Place(chunk.state + q, 0u);\n".into(),
        (false, count) => {
            let others = count - 1;
            format!(
                "    let inside = q % BLOCK_QUADS;
    return Place(chunk.state + {count}u * q - {others}u * inside, min(BLOCK_QUADS, quads(chunk.len) - (q - inside)));
"
            )
        }
    };
    format!("fn state_place(chunk: Chunk, q: u32) -> Place {{\n{body}}}\n\n")
}

/// An expression of the first element of a part of a block, behind what stands before it.
fn first_of(before: Room, width: u64) -> String {
    let mut text = "at.first".to_string();
    if before.of_quad > 0 {
        text += &format!(" + {}u * at.span", before.of_quad / width);
    }
    if before.of_group > 0 {
        text += &format!(" + {}u * ((at.span + {}u) / {GROUP_LANES}u)", before.of_group / width, GROUP_LANES - 1);
    }
    text
}

/// Expressions of the words of four numbers of a slot.
fn words_of(layout: &Layout, slot: usize) -> Vec<String> {
    let width = layout.width();
    if !layout.is_coded() {
        return vec![format!("states[at.first + {}u * at.span]", layout.before(slot).of_quad / 4)];
    }
    let first = first_of(layout.before(slot), width);
    let word = |count: u64, n: u64| {
        let inside = if count == 1 { "inside".into() } else { format!("{count}u * inside") };
        format!("states[{first} + {inside}{}]", if n == 0 { String::new() } else { format!(" + {n}u") })
    };
    let count = match layout.sections[slot].storage {
        Storage::F32 => 4 / width,
        Storage::Bf16 | Storage::I16 => 2 / width,
        Storage::Q8 => 1,
        Storage::Q4 => return vec![format!("states[{first} + inside / 2u]")],
    };
    (0..count).map(|n| word(count, n)).collect()
}

/// Expressions of the words of four numbers of a history, one for each element, of one pair.
fn words_of_pair(layout: &Layout, slot: usize) -> Vec<String> {
    let (before, width) = (layout.before(slot), layout.width());
    if !layout.is_coded() {
        return vec![format!("states[at.first + ({}u + pair) * at.span]", before.of_quad / 4)];
    }
    let (first, count) = (first_of(before, width), 4 / width);
    let behind = |n: u64| if n == 0 { String::new() } else { format!(" + {n}u") };
    (0..count).map(|n| format!("states[{first} + {count}u * (pair * at.span + inside){}]", behind(n))).collect()
}

/// One expression of words that lie in several.
fn joined(words: &[String], len: usize) -> String {
    match words {
        [word] => word.clone(),
        _ => format!("vec{len}<u32>({})", words.join(", ")),
    }
}

/// An expression of four numbers of a slot.
fn loaded(layout: &Layout, slot: usize) -> String {
    let words = words_of(layout, slot);
    let joined = |len: usize| joined(&words, len);
    let section = &layout.sections[slot];
    let of_codes = |codes: Codes, unpacked: String| {
        let step = loaded_step(layout, slot).expect("a slot that is stored by groups");
        format!("decode_codes({unpacked}, {}u, {step})", codes.most())
    };
    match (section.storage, section.codes()) {
        (Storage::Bf16 | Storage::I16, _) => format!("decode_{}(halves_of({}))", section.storage, joined(2)),
        (Storage::Q8, Some(codes)) => of_codes(codes, format!("unpack_q8({})", words[0])),
        (Storage::Q4, Some(codes)) => of_codes(codes, format!("unpack_q4({} >> (16u * (inside % 2u)))", words[0])),
        _ => format!("decode_f32({})", joined(4)),
    }
}

/// The word of the steps of a slot's group.
fn step_word(layout: &Layout, slot: usize) -> Option<String> {
    let steps = layout.steps(slot)?;
    Some(format!("states[{} + inside / {GROUP_LANES}u]", first_of(steps.before, 1)))
}

/// An expression of the step of a slot's group, which `load_steps` has loaded.
fn loaded_step(layout: &Layout, slot: usize) -> Option<String> {
    let place = layout.grouped().position(|grouped| grouped == slot)?;
    let half = if layout.steps(slot)?.is_upper { ">> 16u" } else { "& 0xffffu" };
    Some(format!("loaded_steps_{} {half}", place / 2))
}

/// Statements that store four numbers, whose words have this name, in these places of a slot that is not stored by
/// groups.
fn stored(storage: Storage, places: &[String], words: &str) -> String {
    let parts: &[&str] = match (storage, places.len()) {
        (_, 1) => &[""],
        (Storage::Bf16 | Storage::I16, _) => &[".x", ".y"],
        (_, 2) => &[".xy", ".zw"],
        _ => &[".x", ".y", ".z", ".w"],
    };
    places.iter().zip(parts).map(|(place, part)| format!("    {place} = {words}{part};\n")).collect()
}

/// An expression of the words of four numbers that need no rounding.
fn encoded(storage: Storage, numbers: &str) -> String {
    match storage {
        Storage::I16 => format!("words_of_halves(encode_i16({numbers}))"),
        _ => format!("encode_f32({numbers})"),
    }
}

const AT: &str = "    let at = state_place(chunk, q);\n";
const INSIDE: &str = "    let inside = q % BLOCK_QUADS;\n";
const LANES: [&str; 4] = ["s0", "s1", "s2", "s3"];

/// Adds the functions that load and store the state.
pub(super) fn state_glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> String {
    let pointers = LANES.map(|s| format!("{s}: ptr<function, State>")).join(", ");
    let place = state_place(rule, wrappers);
    let layout = wrappers.layout(rule);
    let mut load = format!("fn load_state(chunk: Chunk, c: Common, q: u32, p: vec4<f32>, {pointers}) {{\n");
    let own: Vec<Slot> = rule.slots().into_iter().filter(|slot| slot.extent == Extent::Element).collect();
    if !own.is_empty() {
        load.push_str(AT);
        load.push_str(if layout.is_coded() { INSIDE } else { "" });
    }
    if layout.is_grouped() {
        load.push_str("    if (STRETCH == 1u) {\n        load_steps(chunk, q);\n    }\n");
    }
    for Slot { name, start, .. } in &own {
        let slot = layout.find(name).expect("a slot of elements is in the blocks");
        let loaded = loaded(&layout, slot);
        match start {
            Start::Value(_) => line(&mut load, format_args!("    let {name} = {loaded};")),
            Start::Param => line(&mut load, format_args!("    let {name} = select({loaded}, p, c.first != 0.0);")),
        }
        for (s, field) in LANES.iter().zip(["x", "y", "z", "w"]) {
            line(&mut load, format_args!("    (*{s}).{name} = {name}.{field};"));
        }
    }
    if rule.has_lines() && skeleton != Skeleton::Moves {
        load.push_str(
            "    var rows: vec4<f32>;\n    var columns: vec4<f32>;\n    load_lines(chunk, q, &rows, &columns);\n",
        );
        for Slot { name, extent, .. } in rule.slots().into_iter().filter(|slot| slot.extent.is_line()) {
            let numbers = if extent == Extent::Column { "columns" } else { "rows" };
            for (s, field) in LANES.iter().zip(["x", "y", "z", "w"]) {
                line(&mut load, format_args!("    (*{s}).{name} = {numbers}.{field};"));
            }
        }
    }
    let of_work = |slot: &Slot| match slot.extent {
        Extent::Product => Some((slot.name, "load_product(chunk, q)")),
        Extent::Turned => Some((slot.name, "load_turned(chunk, q, chunk.turned)")),
        _ => None,
    };
    let of_work: Vec<_> = rule.slots().iter().filter_map(of_work).collect();
    if !of_work.is_empty() && !matches!(skeleton, Skeleton::Moves | Skeleton::Weigh) {
        load.push_str("    if (PRODUCT) {\n");
        for (name, loaded) in of_work {
            line(&mut load, format_args!("        let {name} = {loaded};"));
            for (s, field) in LANES.iter().zip(["x", "y", "z", "w"]) {
                line(&mut load, format_args!("        (*{s}).{name} = {name}.{field};"));
            }
        }
        load.push_str("    }\n");
    }
    let stores = match skeleton {
        Skeleton::Apply => !rule.stores_early(),
        Skeleton::Sums => rule.stores_early(),
        _ => false,
    };
    let names: Vec<&str> = own.iter().map(|slot| slot.name).collect();
    let store = match skeleton {
        Skeleton::Apply | Skeleton::Sums => Stored::new(&layout, if stores { &names } else { &[] }).glue(),
        _ => String::new(),
    };
    let holds = matches!(skeleton, Skeleton::Apply | Skeleton::Sums);
    let steps = if holds || layout.is_grouped() { load_steps(&layout) } else { String::new() };
    format!("{place}{steps}{load}}}\n\n{store}{}", wrapper_slots(rule, wrappers, skeleton))
}

/// The slots that are stored by groups, in pairs that have their steps in a word.
fn pairs(layout: &Layout) -> Vec<Vec<usize>> {
    let grouped: Vec<usize> = layout.grouped().collect();
    grouped.chunks(2).map(<[usize]>::to_vec).collect()
}

/// The function that loads the steps of the group that a vector of four is in.
fn load_steps(layout: &Layout) -> String {
    let words: Vec<String> = pairs(layout).iter().filter_map(|pair| step_word(layout, pair[0])).collect();
    let declared: String = (0..words.len()).map(|n| format!("var<private> loaded_steps_{n}: u32;\n")).collect();
    let lines: String = words.iter().enumerate().map(|(n, word)| format!("    loaded_steps_{n} = {word};\n")).collect();
    let body = if words.is_empty() { String::new() } else { format!("{AT}{INSIDE}{lines}") };
    format!("{declared}\nfn load_steps(chunk: Chunk, q: u32) {{\n{body}}}\n\n")
}

/// What lanes share of the groups that they store: the steps that each of them needs, by turns in one of two places,
/// and codes of 4 bits, of which two lanes have a word.
fn shares(layout: &Layout) -> String {
    let (pairs, lanes) = (layout.grouped().count().div_ceil(2), LANES_MOST);
    let four = |from: u32| {
        let words: String = (from..from + 4).map(|n| format!("        shared_steps[first + {n}u],\n")).collect();
        format!("vec4<u32>(\n{words}    )")
    };
    let (lower, upper) = (four(0), four(GROUP_LANES / 2));
    let mut text = format!(
        "var<workgroup> shared_steps: array<u32, {}>;
var<private> turn: u32;

fn share_steps(pair: u32, lane: u32, steps: u32) {{
    shared_steps[({pairs}u * turn + pair) * {lanes}u + lane] = steps;
}}

// The steps of a group, of two slots: the largest that any of its lanes needs.
fn steps_of_group(pair: u32, lane: u32) -> u32 {{
    let first = ({pairs}u * turn + pair) * {lanes}u + lane / GROUP_LANES * GROUP_LANES;
    let a = {lower};
    let b = {upper};
    let first_slot = max(a & vec4<u32>(0xffffu), b & vec4<u32>(0xffffu));
    let second_slot = max(a, b);
    let halves = max(vec4<u32>(first_slot.xy, second_slot.xy), vec4<u32>(first_slot.zw, second_slot.zw));
    return max(halves.x, halves.y) | (max(halves.z, halves.w) & 0xffff0000u);
}}

",
        2 * pairs as u32 * lanes,
    );
    let halves = layout.sections.iter().filter(|section| section.storage == Storage::Q4).count() as u32;
    if halves > 0 {
        text += &format!("var<workgroup> shared_halves: array<u32, {}>;\n\n", halves * lanes);
    }
    text
}

/// The slots that a walk stores: those by groups, the others, and all whose numbers are rounded by chance.
struct Stored<'a> {
    layout: &'a Layout,
    grouped: Vec<usize>,
    single: Vec<usize>,
    coded: Vec<usize>,
}

impl<'a> Stored<'a> {
    fn new(layout: &'a Layout, names: &[&str]) -> Self {
        let slots: Vec<usize> = names.iter().filter_map(|name| layout.find(name)).collect();
        let coded = slots.iter().copied().filter(|&slot| layout.sections[slot].storage != Storage::F32).collect();
        let (grouped, single) = slots.into_iter().partition(|&slot| layout.sections[slot].codes().is_some());
        Self { layout, grouped, single, coded }
    }

    fn name(&self, slot: usize) -> &'static str {
        self.layout.sections[slot].name
    }

    fn codes(&self, slot: usize) -> Codes {
        self.layout.sections[slot].codes().expect("a slot that is stored by groups")
    }

    /// A text for each slot by groups, by its name.
    fn listed(&self, text: impl Fn(&str) -> String) -> Vec<String> {
        self.grouped.iter().map(|&slot| text(self.name(slot))).collect()
    }

    /// The slots that have codes of 4 bits.
    fn halves(&self) -> impl Iterator<Item = (u32, &'static str)> {
        let has_half = |slot: &&usize| self.layout.sections[**slot].storage == Storage::Q4;
        (0..).zip(self.grouped.iter().filter(has_half).map(|&slot| self.name(slot)))
    }

    /// An expression of four numbers of a slot.
    fn four(&self, slot: usize) -> String {
        format!("vec4<f32>({})", LANES.map(|s| format!("{s}.{}", self.name(slot))).join(", "))
    }

    /// The pairs of slots for which these slots draw chance: a word of it an element serves two slots.
    fn drawn(&self, slots: &[usize]) -> Vec<usize> {
        let is_drawn = |pair: &usize| self.coded.iter().skip(2 * pair).take(2).any(|slot| slots.contains(slot));
        (0..self.coded.len().div_ceil(2)).filter(is_drawn).collect()
    }

    /// Statements that draw what rounds these slots.
    fn chances(&self, slots: &[usize]) -> String {
        let draw = |pair| format!("    let chance_{pair} = wrapped_chance(chunk, w, q, {pair}u);\n");
        self.drawn(slots).into_iter().map(draw).collect()
    }

    /// An expression of what rounds a slot.
    fn chance(&self, slot: usize) -> String {
        let place = self.coded.iter().position(|&coded| coded == slot).unwrap_or(0);
        format!("chance_{}{}", place / 2, if place % 2 == 0 { "" } else { " >> vec4<u32>(16u)" })
    }

    /// Names of the words of steps, each with a text behind it.
    fn steps(&self, text: &str) -> String {
        (0..pairs(self.layout).len()).map(|n| format!("steps_{n}{text}")).collect::<Vec<_>>().join(", ")
    }

    /// Expressions of the words of steps that numbers need, by an expression of the largest magnitude of a slot.
    fn needed(&self, largest: impl Fn(&str) -> String) -> Vec<String> {
        let step = |slot: usize| {
            let (largest, most) = (largest(self.name(slot)), self.codes(slot).most());
            format!("step_of({largest}, {most}u, {:?}f)", 1.0 / (most * most) as f32)
        };
        let word = |pair: &Vec<usize>| match pair[..] {
            [lower, upper] => format!("{} | ({} << 16u)", step(lower), step(upper)),
            _ => step(pair[0]),
        };
        pairs(self.layout).iter().map(word).collect()
    }

    /// Statements that store the slots that are not stored by groups.
    fn store_single(&self) -> String {
        if self.single.is_empty() {
            return String::new();
        }
        let mut text = String::from("    if (q >= quads(chunk.len)) {\n        return;\n    }\n");
        text += &self.chances(&self.single);
        text += AT;
        text += if self.layout.is_coded() { INSIDE } else { "" };
        for &slot in &self.single {
            let (name, four, storage) = (self.name(slot), self.four(slot), self.layout.sections[slot].storage);
            let words = match storage {
                Storage::Bf16 => {
                    format!("words_of_halves(dither_bf16(bitcast<vec4<u32>>({four}), {}))", self.chance(slot))
                }
                _ => encoded(storage, &four),
            };
            line(&mut text, format_args!("    let {name}_words = {words};"));
            text += &stored(storage, &words_of(self.layout, slot), &format!("{name}_words"));
        }
        text
    }

    /// The functions that make the codes of a group of its numbers and steps, and store both.
    fn store_codes(&self) -> String {
        let mut text = format!("// The codes of four elements.\nstruct Codes {{ {} }}\n\n", {
            self.listed(|name| format!("{name}: u32")).join(", ")
        });
        let steps = self.steps(": u32");
        let scales = self.listed(|name| format!("{name}: Scale")).join(", ");
        text += &format!("struct Scales {{ {scales} }}\n\nfn scales_of({steps}) -> Scales {{\n    return Scales(\n");
        for (place, &slot) in self.grouped.iter().enumerate() {
            let most = self.codes(slot).most() as f32;
            line(&mut text, format_args!("        scale_of({}, {most:?}f),", step_of_slot(place)));
        }
        text += "    );\n}\n\n";
        let numbers = self.listed(|name| format!("{name}: vec4<f32>")).join(", ");
        let chances: String =
            self.drawn(&self.grouped).iter().map(|pair| format!("chance_{pair}: vec4<u32>, ")).collect();
        line(&mut text, format_args!("fn codes_of({steps}, scales: Scales, {chances}{numbers}) -> Codes {{"));
        text += "    return Codes(\n";
        for (place, &slot) in self.grouped.iter().enumerate() {
            let (name, chance, storage) = (self.name(slot), self.chance(slot), self.layout.sections[slot].storage);
            let (sign, step) = (self.codes(slot).sign(), step_of_slot(place));
            let packed = format!("pack_{storage}(encode_codes({name}, scales.{name}, {sign}u, {chance}))");
            line(&mut text, format_args!("        select({packed}, 0u, ({step}) == LOST),"));
        }
        text += "    );\n}\n\n// Codes of 4 bits are those of two vectors of four in the second one.\n";
        text += &format!("fn store_codes(chunk: Chunk, q: u32, codes: Codes) {{\n{AT}{INSIDE}");
        for &slot in &self.grouped {
            let (name, word) = (self.name(slot), &words_of(self.layout, slot)[0]);
            match self.layout.sections[slot].storage {
                Storage::Q4 => text += &format!("    if (q % 2u == 1u) {{\n        {word} = codes.{name};\n    }}\n"),
                _ => line(&mut text, format_args!("    {word} = codes.{name};")),
            }
        }
        text += &format!("}}\n\nfn store_steps(chunk: Chunk, q: u32, {steps}) {{\n{AT}{INSIDE}");
        for (n, pair) in pairs(self.layout).iter().enumerate() {
            let word = step_word(self.layout, pair[0]).expect("a slot that is stored by groups");
            line(&mut text, format_args!("    {word} = steps_{n};"));
        }
        text + "}\n\n"
    }

    /// Statements that keep four elements of the groups of a lane, or share what eight lanes have of theirs and store
    /// them.
    fn store_shared(&self) -> String {
        let mut text = String::new();
        for &slot in &self.grouped {
            line(&mut text, format_args!("    let {} = inside_of(chunk, q, {});", self.name(slot), self.four(slot)));
        }
        text += "    if (STRETCH > 1u) {\n";
        for name in self.listed(str::to_string) {
            line(&mut text, format_args!("        largest_{name} = max(largest_{name}, largest_of({name}));"));
        }
        text += "        if (is_second) {\n";
        for name in self.listed(str::to_string) {
            let kept = format!("with_two(kept_{name}, q % GROUP_LANES - 1u, first_{name}, {name})");
            line(&mut text, format_args!("            kept_{name} = {kept};"));
        }
        text += "        } else {\n";
        for name in self.listed(str::to_string) {
            line(&mut text, format_args!("            first_{name} = {name};"));
        }
        text += "        }\n        return;\n    }\n    turn = 1u - turn;\n";
        let needed = self.needed(|name| format!("largest_of({name})"));
        for (n, steps) in needed.iter().enumerate() {
            line(&mut text, format_args!("    share_steps({n}u, lane, {steps});"));
        }
        text += "    workgroupBarrier();\n";
        for n in 0..needed.len() {
            line(&mut text, format_args!("    let steps_{n} = steps_of_group({n}u, lane);"));
        }
        text += &self.chances(&self.grouped);
        let chances: String = self.drawn(&self.grouped).iter().map(|pair| format!("chance_{pair}, ")).collect();
        let (steps, numbers) = (self.steps(""), self.listed(str::to_string).join(", "));
        line(&mut text, format_args!("    var codes = codes_of({steps}, scales_of({steps}), {chances}{numbers});"));
        let place = |n: u32| format!("{}u + lane", n * LANES_MOST);
        for (n, name) in self.halves() {
            line(&mut text, format_args!("    shared_halves[{}] = codes.{name};", place(n)));
        }
        if self.halves().next().is_some() {
            text += "    workgroupBarrier();\n";
        }
        for (n, name) in self.halves() {
            let first = format!("shared_halves[{} / 2u * 2u]", place(n));
            line(&mut text, format_args!("    codes.{name} = {first} | (codes.{name} << 16u);"));
        }
        text + &format!(
            "    if (q / GROUP_LANES * GROUP_LANES < quads(chunk.len)) {{
        store_codes(chunk, q, codes);
        if (lane % GROUP_LANES == 0u) {{
            store_steps(chunk, q, {steps});
        }}
    }}\n"
        )
    }

    /// Statements that store a group of which a lane has kept the numbers, two vectors of four at a time.
    fn store_kept(&self) -> String {
        let mut text = String::new();
        for (n, steps) in self.needed(|name| format!("largest_{name}")).iter().enumerate() {
            line(&mut text, format_args!("    let steps_{n} = {steps};"));
        }
        let steps = self.steps("");
        line(&mut text, format_args!("    let scales = scales_of({steps});"));
        text += "    for (var n = 0u; n < GROUP_LANES; n += 2u) {\n";
        for pair in self.drawn(&self.grouped) {
            line(&mut text, format_args!("        let chances_{pair} = wrapped_chances(chunk, w, q + n, {pair}u);"));
        }
        for name in self.listed(str::to_string) {
            line(&mut text, format_args!("        let two_{name} = two_of(kept_{name}, n);"));
        }
        for (i, which) in ["let first", "var second"].iter().enumerate() {
            let chances: String =
                self.drawn(&self.grouped).iter().map(|pair| format!("chances_{pair}[{i}], ")).collect();
            let numbers = self.listed(|name| format!("two_{name}[{i}]")).join(", ");
            line(&mut text, format_args!("        {which} = codes_of({steps}, scales, {chances}{numbers});"));
        }
        for (_, name) in self.halves() {
            line(&mut text, format_args!("        second.{name} = first.{name} | (second.{name} << 16u);"));
        }
        text += "        store_codes(chunk, q + n, first);\n        store_codes(chunk, q + n + 1u, second);\n    }\n";
        line(&mut text, format_args!("    store_steps(chunk, q, {steps});"));
        for name in self.listed(str::to_string) {
            line(&mut text, format_args!("    largest_{name} = 0u;"));
        }
        text
    }

    /// All functions that store the state in a walk.
    fn glue(&self) -> String {
        let values = LANES.map(|s| format!("{s}: State")).join(", ");
        let head = format!(
            "// Stores four elements' state. All lanes come here together, those behind the chunk's end too.
fn store_state(chunk: Chunk, w: Wrapped, lane: u32, q: u32, is_second: bool, {values}) {{\n"
        );
        const HEAD_OF_GROUP: &str = "fn store_group(chunk: Chunk, w: Wrapped, q: u32) {\n";
        let single = self.store_single();
        if self.grouped.is_empty() {
            return format!("{head}{single}}}\n\n{HEAD_OF_GROUP}}}\n\n");
        }
        let kept = self.listed(|name| {
            format!(
                "var<private> kept_{name}: array<vec4<f32>, GROUP_LANES>;
var<private> first_{name}: vec4<f32>;
var<private> largest_{name}: u32;
"
            )
        });
        let mut text = format!("{}{}\n{}", shares(self.layout), kept.concat(), self.store_codes());
        let mut call = String::new();
        if !single.is_empty() {
            text += &format!("fn store_single(chunk: Chunk, w: Wrapped, q: u32, {values}) {{\n{single}}}\n\n");
            call = format!("    store_single(chunk, w, q, {});\n", LANES.join(", "));
        }
        text += &format!("{head}{call}{}}}\n\n", self.store_shared());
        text + &format!("// Stores the group that the lane has kept.\n{HEAD_OF_GROUP}{}}}\n\n", self.store_kept())
    }
}

/// An expression of the step of a slot by groups, from the words of steps.
fn step_of_slot(place: usize) -> String {
    format!("steps_{} {}", place / 2, if place.is_multiple_of(2) { "& 0xffffu" } else { ">> 16u" })
}

/// Adds the functions that load and store the slots of the wrappers in a walk.
pub(super) fn wrapper_slots(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> String {
    let layout = wrappers.layout(rule);
    let mut text = String::new();
    for wrapper in in_walk(rule, wrappers, skeleton) {
        let slot = wrapper.slot(wrappers.setting(rule)).map(|slot| slot.name);
        if let Some(name) = slot.filter(|name| layout.find(name).is_some()) {
            text.push_str(&slot_glue(&layout, name, false));
        }
    }
    text
}

/// Adds the functions that load and store a slot whose numbers are not rounded. A history has one number for each pair.
pub(super) fn slot_glue(layout: &Layout, name: &str, of_pairs: bool) -> String {
    let slot = layout.find(name).expect("a slot in the blocks");
    let storage = layout.sections[slot].storage;
    let (load, places, pair) = match of_pairs {
        true => {
            let words = words_of_pair(layout, slot);
            (format!("decode_f32({})", joined(&words, 4)), words, ", pair: u32")
        }
        false => (loaded(layout, slot), words_of(layout, slot), ""),
    };
    let store = stored(storage, &places, "words");
    let inside = if layout.is_coded() { INSIDE } else { "" };
    let words = encoded(storage, "numbers");
    format!(
        "fn load_{name}(chunk: Chunk, q: u32{pair}) -> vec4<f32> {{\n{AT}{inside}    return {load};\n}}

fn store_{name}(chunk: Chunk, q: u32{pair}, numbers: vec4<f32>) {{\n{AT}{inside}    let words = {words};
{store}}}

"
    )
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}
