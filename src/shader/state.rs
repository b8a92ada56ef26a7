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
    let of_codes =
        |codes: Codes, unpacked: String| format!("decode_codes({unpacked}, {}u, {}_step)", codes.most(), section.name);
    match (section.storage, section.codes()) {
        (Storage::Bf16 | Storage::I16, _) => format!("decode_{}(halves_of({}))", section.storage, joined(2)),
        (Storage::Q8, Some(codes)) => of_codes(codes, format!("unpack_q8({})", words[0])),
        (Storage::Q4, Some(codes)) => of_codes(codes, format!("unpack_q4({} >> (16u * (inside % 2u)))", words[0])),
        _ => format!("decode_f32({})", joined(4)),
    }
}

/// The place of the steps of a slot's group: an expression of their word.
fn step_word(layout: &Layout, slot: usize) -> Option<(String, bool)> {
    let steps = layout.steps(slot)?;
    Some((format!("states[{} + inside / {GROUP_LANES}u]", first_of(steps.before, 1)), steps.is_upper))
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
    let values = LANES.map(|s| format!("{s}: State")).join(", ");
    let place = state_place(rule, wrappers);
    let layout = wrappers.layout(rule);
    let mut load = format!("fn load_state(chunk: Chunk, c: Common, q: u32, p: vec4<f32>, {pointers}) {{\n");
    let own: Vec<Slot> = rule.slots().into_iter().filter(|slot| slot.extent == Extent::Element).collect();
    if !own.is_empty() {
        load.push_str(AT);
        load.push_str(if layout.is_coded() { INSIDE } else { "" });
    }
    for Slot { name, start, .. } in &own {
        let slot = layout.find(name).expect("a slot of elements is in the blocks");
        if let Some((word, is_upper)) = step_word(&layout, slot) {
            let part = if is_upper { format!("{word} >> 16u") } else { format!("{word} & 0xffffu") };
            line(&mut load, format_args!("    let {name}_step = {part};"));
        }
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
    let (shared, store) = match (stores, layout.is_grouped()) {
        (true, _) if !names.is_empty() => (shares(&layout), store_state(&layout, &names)),
        _ => (String::new(), String::new()),
    };
    let head = match skeleton {
        Skeleton::Apply | Skeleton::Sums => format!(
            "// Stores four elements' state. All lanes come here together, those behind the chunk's end too.
fn store_state(chunk: Chunk, w: Wrapped, lane: u32, q: u32, {values}) {{\n{store}}}\n\n"
        ),
        _ => String::new(),
    };
    format!("{place}{load}}}\n\n{shared}{head}{}", wrapper_slots(rule, wrappers, skeleton))
}

/// What lanes share of the groups that they store: the steps that each of them needs, by turns in one of two places,
/// and codes of 4 bits, of which two lanes have a word.
fn shares(layout: &Layout) -> String {
    let (pairs, lanes) = (layout.grouped().count().div_ceil(2), LANES_MOST);
    if pairs == 0 {
        return String::new();
    }
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

/// The body of `store_state` for these slots.
fn store_state(layout: &Layout, names: &[&str]) -> String {
    let slots = || names.iter().filter_map(|name| Some((*name, layout.find(name)?)));
    let four = |name: &str| format!("vec4<f32>({})", LANES.map(|s| format!("{s}.{name}")).join(", "));
    let grouped: Vec<usize> = layout.grouped().collect();
    let coded: Vec<usize> =
        slots().map(|(_, slot)| slot).filter(|&slot| layout.sections[slot].storage != Storage::F32).collect();
    let codes_of = |slot: usize| layout.sections[slot].codes().expect("a slot that is stored by groups");
    let mut text = String::new();
    const RETURN: &str = "    if (q >= quads(chunk.len)) {\n        return;\n    }\n";
    if grouped.is_empty() {
        text.push_str(RETURN);
    } else {
        text.push_str("    turn = 1u - turn;\n");
        for &slot in &grouped {
            let (name, most) = (layout.sections[slot].name, codes_of(slot).most());
            let inverse = 1.0 / (most * most) as f32;
            line(&mut text, format_args!("    let {name} = inside_of(chunk, q, {});", four(name)));
            line(&mut text, format_args!("    let {name}_step = step_of(largest_of({name}), {most}u, {inverse:?}f);"));
        }
        for (n, pair) in grouped.chunks(2).enumerate() {
            let step = |slot: usize| format!("{}_step", layout.sections[slot].name);
            let upper = pair.get(1).map_or(String::new(), |&slot| format!(" | ({} << 16u)", step(slot)));
            line(&mut text, format_args!("    share_steps({n}u, lane, {}{upper});", step(pair[0])));
        }
        text.push_str("    workgroupBarrier();\n");
        for n in 0..grouped.len().div_ceil(2) {
            line(&mut text, format_args!("    let steps_{n} = steps_of_group({n}u, lane);"));
        }
    }
    for pair in 0..coded.len().div_ceil(2) {
        line(&mut text, format_args!("    let chance_{pair} = wrapped_chance(chunk, w, q, {pair}u);"));
    }
    let chance = |slot: usize| {
        let n = coded.iter().position(|&other| other == slot).unwrap_or(0);
        if n % 2 == 0 { format!("chance_{}", n / 2) } else { format!("chance_{} >> vec4<u32>(16u)", n / 2) }
    };
    let mut halves = 0;
    for (place, &slot) in grouped.iter().enumerate() {
        let (name, codes) = (layout.sections[slot].name, codes_of(slot));
        let (most, sign, n) = (codes.most() as f32, codes.sign(), place / 2);
        let step = if place % 2 == 0 { format!("steps_{n} & 0xffffu") } else { format!("steps_{n} >> 16u") };
        let random = chance(slot);
        line(
            &mut text,
            format_args!("    let {name}_codes = encode_codes({name}, {most:?}f, {sign}u, {step}, {random});"),
        );
        if layout.sections[slot].storage == Storage::Q4 {
            let first = halves * LANES_MOST;
            line(&mut text, format_args!("    shared_halves[{first}u + lane] = pack_q4({name}_codes);"));
            halves += 1;
        }
    }
    if halves > 0 {
        text.push_str("    workgroupBarrier();\n");
    }
    if !grouped.is_empty() {
        text.push_str(RETURN);
    }
    text.push_str(AT);
    text.push_str(if layout.is_coded() { INSIDE } else { "" });
    halves = 0;
    for (name, slot) in slots() {
        match layout.sections[slot].storage {
            storage @ (Storage::F32 | Storage::I16) => {
                line(&mut text, format_args!("    let {name}_words = {};", encoded(storage, &four(name))));
                text.push_str(&stored(storage, &words_of(layout, slot), &format!("{name}_words")));
            }
            storage @ Storage::Bf16 => {
                let (numbers, random) = (four(name), chance(slot));
                line(
                    &mut text,
                    format_args!(
                        "    let {name}_words = words_of_halves(dither_bf16(bitcast<vec4<u32>>({numbers}), {random}));"
                    ),
                );
                text.push_str(&stored(storage, &words_of(layout, slot), &format!("{name}_words")));
            }
            Storage::Q8 => line(&mut text, format_args!("    {} = pack_q8({name}_codes);", words_of(layout, slot)[0])),
            Storage::Q4 => {
                let (first, word) = (halves * LANES_MOST, &words_of(layout, slot)[0]);
                let [low, high] = [first, first + 1].map(|at| format!("shared_halves[{at}u + lane]"));
                line(&mut text, format_args!("    if (lane % 2u == 0u) {{"));
                line(&mut text, format_args!("        {word} = {low} | ({high} << 16u);\n    }}"));
                halves += 1;
            }
        }
    }
    if !grouped.is_empty() {
        line(&mut text, format_args!("    if (lane % GROUP_LANES == 0u) {{"));
        for (n, pair) in grouped.chunks(2).enumerate() {
            let (word, _) = step_word(layout, pair[0]).expect("a slot that is stored by groups");
            line(&mut text, format_args!("        {word} = steps_{n};"));
        }
        text.push_str("    }\n");
    }
    text
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
