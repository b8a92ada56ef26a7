//! Composes shader text from the pieces. Knows no wgpu.
//!
//! WGSL's module scope has no order, so composing is concatenation: shared parts, a codec, one rule, defaults for the
//! functions that it leaves out, one skeleton, and glue that declares the bindings and moves elements. Skeletons never
//! name a binding. Numbers and choices are `override` constants, set when the pipeline is made.

use std::fmt::Write;

use crate::format::Access;
use crate::rule::{AnyRule, Common, Extent};

/// Which walk over the tensors a shader makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skeleton {
    /// `measure`, combined: one workgroup a row.
    Sums,
    /// `finish`: one workgroup a tensor.
    Finish,
    /// The update: one workgroup a row.
    Apply,
    /// The look-ahead: one workgroup a row. Binds no gradients.
    LookAhead,
}

impl Skeleton {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sums, Self::Finish, Self::Apply, Self::LookAhead];

    /// The file's stem, used in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Finish => "finish",
            Self::Apply => "apply",
            Self::LookAhead => "look_ahead",
        }
    }

    /// The entry point's name.
    pub fn entry(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Finish => "finish_tensor",
            Self::Apply => "apply",
            Self::LookAhead => "look_ahead_all",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Sums => include_str!("../shaders/skeletons/sums.wgsl"),
            Self::Finish => include_str!("../shaders/skeletons/finish.wgsl"),
            Self::Apply => include_str!("../shaders/skeletons/apply.wgsl"),
            Self::LookAhead => include_str!("../shaders/skeletons/look_ahead.wgsl"),
        }
    }
}

/// A storage buffer of a composed shader, in the order of the binding numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// Group 0, binding 0, `read_write`: a window of a parameter buffer.
    Params,
    /// Group 0, binding 1, `read`: a window of a gradient buffer.
    Grads,
    /// Group 0, binding 2, `read_write`: a window of a state page.
    State,
    /// Group 0, binding 3, `read`, dynamic offset: rows of the chunk table.
    Tables,
    /// Group 0, binding 4, `read_write`: numbers of the tensors, then partial results.
    Scratch,
    /// Group 1, binding 0, `read`, dynamic offset: the step's clock map and records.
    Clocks,
}

impl Binding {
    /// Group and binding number.
    pub fn place(self) -> (u32, u32) {
        match self {
            Self::Params => (0, 0),
            Self::Grads => (0, 1),
            Self::State => (0, 2),
            Self::Tables => (0, 3),
            Self::Scratch => (0, 4),
            Self::Clocks => (1, 0),
        }
    }

    /// Whether the shader writes it.
    pub fn writable(self) -> bool {
        matches!(self, Self::Params | Self::State | Self::Scratch)
    }

    /// Whether its offset travels with the dispatch.
    pub fn dynamic(self) -> bool {
        matches!(self, Self::Tables | Self::Clocks)
    }
}

/// The bindings that a rule's shader of this skeleton declares.
pub fn bindings(rule: &dyn AnyRule, skeleton: Skeleton) -> Vec<Binding> {
    let elements = skeleton != Skeleton::Finish;
    let state = rule.slots().iter().any(|slot| slot.extent == Extent::Element);
    let scratch = match skeleton {
        Skeleton::Sums | Skeleton::Finish => true,
        Skeleton::Apply => !rule.names().tensor.is_empty(),
        Skeleton::LookAhead => false,
    };
    [
        (Binding::Params, elements),
        (Binding::Grads, elements && skeleton != Skeleton::LookAhead),
        (Binding::State, elements && state),
        (Binding::Tables, true),
        (Binding::Scratch, scratch),
        (Binding::Clocks, true),
    ]
    .into_iter()
    .filter_map(|(binding, declared)| declared.then_some(binding))
    .collect()
}

/// The whole text of one shader.
pub fn compose(rule: &dyn AnyRule, skeleton: Skeleton, access: Access) -> String {
    let mut text = format!(
        "// {} / {} / f32, {}. Composed by wgpu-optim {}.\n\n",
        rule.name(),
        skeleton.name(),
        access.name(),
        env!("CARGO_PKG_VERSION")
    );
    let mut piece = |piece: &str| {
        text.push_str(piece);
        text.push('\n');
    };
    piece(include_str!("../shaders/parts.wgsl"));
    piece(include_str!("../shaders/codecs/f32.wgsl"));
    piece(rule.shader());
    for (item, default) in [
        ("struct Tensor ", include_str!("../shaders/defaults/Tensor.wgsl")),
        ("fn measure(", include_str!("../shaders/defaults/measure.wgsl")),
        ("fn finish(", include_str!("../shaders/defaults/finish.wgsl")),
        ("fn land(", include_str!("../shaders/defaults/land.wgsl")),
        ("fn look_ahead(", include_str!("../shaders/defaults/look_ahead.wgsl")),
    ] {
        if !rule.shader().lines().any(|line| line.starts_with(item)) {
            piece(default);
        }
    }
    piece(include_str!("../shaders/skeletons/common.wgsl"));
    piece(&glue(rule, skeleton, access));
    piece(skeleton.text());
    text
}

/// Declares the bindings and the functions that move elements through them.
fn glue(rule: &dyn AnyRule, skeleton: Skeleton, access: Access) -> String {
    let mut text = String::from("// Glue: bindings, and the way between them and the rule's structs.\n\n");
    let bindings = bindings(rule, skeleton);
    for &binding in &bindings {
        let (name, element) = match (binding, access) {
            (Binding::Params, Access::Vec4) => ("params", "vec4<u32>"),
            (Binding::Params, Access::Scalar) => ("params", "u32"),
            (Binding::Grads, Access::Vec4) => ("grads", "vec4<u32>"),
            (Binding::Grads, Access::Scalar) => ("grads", "u32"),
            (Binding::State, _) => ("states", "vec4<u32>"),
            (Binding::Tables, _) => ("tables", "vec4<u32>"),
            (Binding::Scratch, _) => ("scratch", "u32"),
            (Binding::Clocks, _) => ("clocks", "u32"),
        };
        let (group, number) = binding.place();
        let mode = if binding.writable() { "read_write" } else { "read" };
        line(
            &mut text,
            format_args!("@group({group}) @binding({number}) var<storage, {mode}> {name}: array<{element}>;"),
        );
    }
    text.push_str(
        "
fn load_row(i: u32) -> Row {
    let a = tables[2u * i];
    let b = tables[2u * i + 1u];
    return Row(a.x, a.y, a.z, a.w, b.x, b.y);
}

// Where the tensor's numbers stand in this step, or ABSENT.
fn load_record(tensor: u32) -> u32 {
    return clocks[tensor];
}

",
    );
    let record = |struct_name: &str, first: usize, count: usize| {
        let fields: Vec<String> =
            (first..first + count).map(|i| format!("        bitcast<f32>(clocks[record + {i}u]),\n")).collect();
        let name = struct_name.to_lowercase();
        format!(
            "fn load_{name}(record: u32) -> {struct_name} {{\n    return {struct_name}(\n{}    );\n}}\n\n",
            fields.concat()
        )
    };
    let common = Common::<f32>::NAMES.len();
    text.push_str(&record("Common", 0, common));
    text.push_str(&record("Hyper", common, rule.names().hyper.len()));
    if bindings.contains(&Binding::Params) {
        text.push_str(&load_elements("param", access));
        text.push_str(&store_params(access));
        text.push_str(&state_glue(rule));
    }
    if bindings.contains(&Binding::Grads) {
        text.push_str(&load_elements("grad", access));
    }
    text.push_str(&tensor_glue(rule, bindings.contains(&Binding::Scratch)));
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}

fn load_elements(what: &str, access: Access) -> String {
    match access {
        Access::Vec4 => format!(
            "fn load_{what}(row: Row, q: u32) -> vec4<f32> {{
    return decode_f32({what}s[row.{what} / 4u + q]);
}}

"
        ),
        Access::Scalar => format!(
            "fn load_{what}(row: Row, q: u32) -> vec4<f32> {{
    let i = row.{what} + vec4<u32>(4u * q) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(row.len - 1u - 4u * q));
    return decode_f32(vec4<u32>({what}s[i.x], {what}s[i.y], {what}s[i.z], {what}s[i.w]));
}}

"
        ),
    }
}

fn store_params(access: Access) -> String {
    match access {
        Access::Vec4 => "fn store_param(row: Row, q: u32, old: vec4<f32>, p: vec4<f32>) {
    var stored = p;
    if (TAILS) {
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(row.len - 4u * q));
    }
    params[row.param / 4u + q] = encode_f32(stored);
}

"
        .into(),
        Access::Scalar => {
            let mut text = String::from(
                "fn store_param(row: Row, q: u32, old: vec4<f32>, p: vec4<f32>) {
    let words = encode_f32(p);
    let i = row.param + 4u * q;
    params[i] = words.x;
",
            );
            for (n, field) in [(1, 'y'), (2, 'z'), (3, 'w')] {
                line(
                    &mut text,
                    format_args!(
                        "    if (4u * q + {n}u < row.len) {{
        params[i + {n}u] = words.{field};
    }}"
                    ),
                );
            }
            text + "}\n\n"
        }
    }
}

/// State is stored block by block, all slots of a block side by side.
fn state_glue(rule: &dyn AnyRule) -> String {
    let slots: Vec<_> = rule.slots().into_iter().filter(|slot| slot.extent == Extent::Element).collect();
    let lanes = ["s0", "s1", "s2", "s3"];
    let pointers = lanes.map(|s| format!("{s}: ptr<function, State>")).join(", ");
    let values = lanes.map(|s| format!("{s}: State")).join(", ");
    let mut load = format!("fn load_state(row: Row, q: u32, {pointers}) {{\n");
    let mut store = format!("fn store_state(row: Row, q: u32, {values}) {{\n");
    if !slots.is_empty() {
        let place = format!(
            "    let first = q / BLOCK_QUADS * BLOCK_QUADS;
    let span = min(BLOCK_QUADS, quads(row) - first);
    let at = row.state + first * {}u + (q - first);
",
            slots.len()
        );
        load.push_str(&place);
        store.push_str(&place);
    }
    for (i, slot) in slots.iter().enumerate() {
        let name = slot.name;
        line(&mut load, format_args!("    let {name} = decode_f32(states[at + {i}u * span]);"));
        let fields = ["x", "y", "z", "w"];
        for (s, field) in lanes.iter().zip(fields) {
            line(&mut load, format_args!("    (*{s}).{name} = {name}.{field};"));
        }
        let four = lanes.map(|s| format!("{s}.{name}")).join(", ");
        line(&mut store, format_args!("    states[at + {i}u * span] = encode_f32(vec4<f32>({four}));"));
    }
    format!("{load}}}\n\n{store}}}\n\n")
}

fn tensor_glue(rule: &dyn AnyRule, bound: bool) -> String {
    let names = rule.names().tensor;
    let count = names.len();
    let mut text = String::from("fn load_tensor(tensor: u32) -> Tensor {\n");
    if bound && count > 0 {
        let number = |i| format!("        bitcast<f32>(scratch[{count}u * tensor + {i}u]),\n");
        let numbers: String = (0..count).map(number).collect();
        line(&mut text, format_args!("    return Tensor(\n{numbers}    );"));
    } else {
        line(&mut text, format_args!("    return Tensor({});", vec!["0.0"; count.max(1)].join(", ")));
    }
    text.push_str("}\n");
    if !bound {
        return text;
    }
    text.push_str("\nfn store_tensor(tensor: u32, k: Tensor) {\n");
    for (i, name) in names.iter().enumerate() {
        line(&mut text, format_args!("    scratch[{count}u * tensor + {i}u] = bitcast<u32>(k.{name});"));
    }
    text + "}

fn load_partial(at: u32) -> vec2<u32> {
    return vec2<u32>(scratch[at], scratch[at + 1u]);
}

fn store_partial(at: u32, numbers: vec2<u32>) {
    scratch[at] = numbers.x;
    scratch[at + 1u] = numbers.y;
}
"
}
