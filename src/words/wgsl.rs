//! The constants, structs and functions that WGSL has of the words, made from their descriptions.

use std::fmt::Write;

use super::{ABSENT, ENTRY_WORDS, Entry, OUT_OF_TURN, UNDONE, Word, part, row, stage};
use crate::tensor::BLOCK;

/// WGSL: the constants of a table, each with the prefix before its name, and the table's length.
pub fn constants<'a>(prefix: &str, words: impl IntoIterator<Item = &'a Word>, len: usize) -> String {
    let mut text = String::new();
    for Word { name, at, doc } in words {
        line(&mut text, format_args!("const {prefix}_{name}: u32 = {at}u; //{doc}"));
    }
    line(&mut text, format_args!("const {prefix}_WORDS: u32 = {len}u;\n"));
    text
}

/// WGSL: the bits of [`stage`].
pub fn stages() -> String {
    let stages = [
        ("MEASURE", stage::MEASURE),
        ("DECIDE", stage::DECIDE),
        ("SELECT", stage::SELECT),
        ("ADVANCE", stage::ADVANCE),
    ];
    numbers("STAGE", &stages)
}

/// WGSL: the numbers of [`part`].
pub fn parts() -> String {
    let parts = [
        ("COPY", part::COPY),
        ("PAIRS", part::PAIRS),
        ("BLOCKS", part::BLOCKS),
        ("VECTORS", part::VECTORS),
        ("SCALE", part::SCALE),
        ("REFLECTIONS", part::REFLECTIONS),
    ];
    numbers("PART", &parts)
}

/// WGSL: constants of these names and numbers.
fn numbers<N: std::fmt::Display>(prefix: &str, all: &[(&str, N)]) -> String {
    let mut text = String::new();
    for (name, number) in all {
        line(&mut text, format_args!("const {prefix}_{name}: u32 = {number}u;"));
    }
    text + "\n"
}

/// WGSL: the constants that every walk knows.
pub fn marks() -> String {
    let mut text = String::new();
    line(&mut text, format_args!("const BLOCK_QUADS: u32 = {}u; // vectors of four in a block", BLOCK / 4));
    line(&mut text, format_args!("const ABSENT: u32 = {ABSENT:#x}u; // for a record: the tensor is not in this step"));
    line(
        &mut text,
        format_args!("const UNDONE: u32 = {UNDONE:#x}u; // the step is skipped, and its look-ahead undone"),
    );
    line(&mut text, format_args!("const OUT_OF_TURN: u32 = {OUT_OF_TURN}u; // for a step that is skipped\n"));
    text
}

/// WGSL: the words of a row, whole or up to `OUT`.
pub fn rows(are_whole: bool) -> String {
    let len = if are_whole { row::LEN } else { row::OUT };
    constants("ROW", row::WORDS.iter().filter(|word| word.at < len), len)
}

/// WGSL: the struct of an entry of the chunk table, and `load_entry`. An entry of a piece also has where the piece's
/// values lie in this step: the fields of [`row`], from whole rows or from short ones.
pub fn entry<E: Entry>(rows_are_whole: bool) -> String {
    let of_row: &[Word] = if E::FIELDS.iter().any(|(field, _)| *field == "piece") { row::WORDS } else { &[] };
    let mut text = String::new();
    line(&mut text, format_args!("//{}", E::DOC));
    line(&mut text, format_args!("struct {} {{", E::NAME));
    for (field, doc) in E::FIELDS {
        line(&mut text, format_args!("    {field}: u32, //{doc}"));
    }
    for Word { name, doc, .. } in of_row {
        line(&mut text, format_args!("    {}: u32, //{doc}", name.to_ascii_lowercase()));
    }
    let vectors = ENTRY_WORDS / 4;
    line(
        &mut text,
        format_args!("}}\n\n// Entry `i` of the table. Behind the last one of the dispatch are empty ones."),
    );
    line(&mut text, format_args!("fn load_entry(i: u32) -> {} {{", E::NAME));
    line(&mut text, format_args!("    if (i >= clocks[DISPATCH_END]) {{\n        return {}();\n    }}", E::NAME));
    let names = ["a", "b", "c", "d"];
    for (v, name) in names.iter().enumerate().take(E::FIELDS.len().div_ceil(4)) {
        line(&mut text, format_args!("    let {name} = tables[{vectors}u * i + {v}u];"));
    }
    let word = |i: usize| format!("{}.{}", names[i / 4], ["x", "y", "z", "w"][i % 4]);
    let place = |name: &str| E::FIELDS.iter().position(|(field, _)| *field == name);
    if let (false, Some(piece)) = (of_row.is_empty(), place("piece")) {
        line(&mut text, format_args!("    let row = clocks[DISPATCH_ROWS] + ROW_WORDS * {};", word(piece)));
    }
    let first = place("first").map_or(String::new(), |first| format!(" + {}", word(first)));
    let of_row = of_row.iter().map(|Word { name, at, .. }| match (name.ends_with("PAGE"), rows_are_whole) {
        (true, false) => "0u".into(),
        (true, true) => format!("clocks[row + ROW_{name}]"),
        (false, false) if *at == row::OUT => format!("clocks[row + ROW_PARAM]{first}"),
        (false, _) => format!("clocks[row + ROW_{name}]{first}"),
    });
    let words: Vec<_> = (0..E::FIELDS.len()).map(word).chain(of_row).collect();
    line(&mut text, format_args!("    return {}(\n        {},\n    );\n}}\n", E::NAME, words.join(",\n        ")));
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}
