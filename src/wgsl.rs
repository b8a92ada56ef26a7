//! Composes shader text from the pieces. Knows no wgpu.
//!
//! WGSL's module scope has no order, so composing is concatenation: shared parts, a codec, one rule, defaults for the
//! functions that it leaves out, one skeleton, and glue that declares the bindings and moves elements. Skeletons never
//! name a binding. Numbers and choices are `override` constants, set when the pipeline is made.

use std::fmt::Write;

use crate::control::{CONTROL, WORDS};
use crate::parts::Combine;
use crate::rule::{AnyRule, Common, Extent, Move, Numbers, Pass, Slot, Start, Sums};
use crate::tensor::{Access, DType};
use crate::wrappers::{Clip, Wrappers};

/// Which walk over the tensors a shader makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skeleton {
    /// `measure_line`, added up over rows and columns: one workgroup a tile.
    Lines,
    /// `finish_line` and `finish_row`: one workgroup for all rows of a matrix, one for some of its columns. Small
    /// matrices are finished in the walk before.
    FinishLines,
    /// `measure`, combined: one workgroup a row.
    Sums,
    /// `finish`: one workgroup a tensor.
    Finish,
    /// The update: one workgroup a row.
    Apply,
    /// A move outside a step: one workgroup a row. Binds no gradients.
    Moves,
    /// Gradients measured: one workgroup a row. Knows no rule, as all that follow.
    Norms,
    /// The end of it: one workgroup a tensor.
    FinishNorms,
    /// What is decided before a step: one workgroup.
    Prologue,
    /// A micro-batch added to the sum of those before it: one workgroup a row. The sums are bound as parameters.
    Gather,
}

impl Skeleton {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Lines,
        Self::FinishLines,
        Self::Sums,
        Self::Finish,
        Self::Apply,
        Self::Moves,
        Self::Norms,
        Self::FinishNorms,
        Self::Prologue,
        Self::Gather,
    ];

    /// The file's stem, used in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::FinishLines => "finish_lines",
            Self::Sums => "sums",
            Self::Finish => "finish",
            Self::Apply => "apply",
            Self::Moves => "moves",
            Self::Norms => "norms",
            Self::FinishNorms => "finish_norms",
            Self::Prologue => "prologue",
            Self::Gather => "gather",
        }
    }

    /// The entry point's name.
    pub fn entry(self) -> &'static str {
        match self {
            Self::Lines => "lines_of_tile",
            Self::FinishLines => "finish_lines",
            Self::Sums => "sums",
            Self::Finish => "finish_tensor",
            Self::Apply => "apply",
            Self::Moves => "move_all",
            Self::Norms => "norms",
            Self::FinishNorms => "finish_norms",
            Self::Prologue => "prologue",
            Self::Gather => "gather",
        }
    }

    /// Whether it is the same for all rules.
    pub fn knows_no_rule(self) -> bool {
        matches!(self, Self::Norms | Self::FinishNorms | Self::Prologue | Self::Gather)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Lines => include_str!("../shaders/skeletons/lines.wgsl"),
            Self::FinishLines => include_str!("../shaders/skeletons/finish_lines.wgsl"),
            Self::Sums => include_str!("../shaders/skeletons/sums.wgsl"),
            Self::Finish => include_str!("../shaders/skeletons/finish.wgsl"),
            Self::Apply => include_str!("../shaders/skeletons/apply.wgsl"),
            Self::Moves => include_str!("../shaders/skeletons/moves.wgsl"),
            Self::Norms => include_str!("../shaders/skeletons/norms.wgsl"),
            Self::FinishNorms => include_str!("../shaders/skeletons/finish_norms.wgsl"),
            Self::Prologue => include_str!("../shaders/skeletons/prologue.wgsl"),
            Self::Gather => include_str!("../shaders/skeletons/gather.wgsl"),
        }
    }

    /// What it is built upon.
    fn base(self) -> &'static [&'static str] {
        const PAIR: &str = include_str!("../shaders/skeletons/pair.wgsl");
        const MEASURED: &str = include_str!("../shaders/skeletons/measured.wgsl");
        const TREE: &str = include_str!("../shaders/skeletons/tree.wgsl");
        const PARTIALS: &str = include_str!("../shaders/skeletons/partials.wgsl");
        match self {
            Self::Sums => &[PAIR, TREE],
            Self::Finish => &[PAIR, PARTIALS],
            Self::Norms => &[MEASURED, TREE],
            Self::FinishNorms => &[MEASURED, PARTIALS],
            Self::Prologue => &[MEASURED],
            Self::Lines | Self::FinishLines | Self::Apply | Self::Moves | Self::Gather => &[],
        }
    }
}

/// One walk of a step or a move: a skeleton, and what of it a pipeline's constants must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Walk {
    /// A pass over rows and columns.
    Lines,
    /// The end of it.
    FinishLines,
    /// A pass of sums.
    Sums(Sums),
    /// `finish` of what the pass before has summed.
    Finish(Sums),
    /// The update.
    Apply,
    /// A move outside a step.
    Move(Move),
    /// Gradients measured.
    Norms,
    /// The end of it.
    FinishNorms,
    /// What is decided before a step.
    Prologue,
    /// A micro-batch.
    Gather,
}

impl Walk {
    /// The walks of a step, in order.
    pub fn of_step(rule: &dyn AnyRule) -> Vec<Self> {
        let mut last = Sums::GRADS;
        let walk = |pass| match pass {
            Pass::Lines => Self::Lines,
            Pass::FinishLines => Self::FinishLines,
            Pass::Sums(sums) => {
                last = sums;
                Self::Sums(sums)
            }
            Pass::Finish => Self::Finish(last),
            Pass::Apply => Self::Apply,
        };
        rule.passes().into_iter().map(walk).collect()
    }

    /// The skeleton that makes it.
    pub fn skeleton(self) -> Skeleton {
        match self {
            Self::Lines => Skeleton::Lines,
            Self::FinishLines => Skeleton::FinishLines,
            Self::Sums(_) => Skeleton::Sums,
            Self::Finish(_) => Skeleton::Finish,
            Self::Apply => Skeleton::Apply,
            Self::Move(_) => Skeleton::Moves,
            Self::Norms => Skeleton::Norms,
            Self::FinishNorms => Skeleton::FinishNorms,
            Self::Prologue => Skeleton::Prologue,
            Self::Gather => Skeleton::Gather,
        }
    }
}

/// The switches of `shaders/skeletons/common.wgsl` that the groups and tensors of a dispatch set. Each is on where any
/// group needs it; one that does not has the number that changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Switches {
    /// Some group ascends.
    pub maximize: bool,
    /// Some group has an L2 penalty.
    pub l2: bool,
    /// Some group decays, decoupled or independent.
    pub decay: bool,
    /// Some group decays cautiously.
    pub cautious: bool,
    /// A row ends within a vector of four.
    pub tails: bool,
    /// Four elements may lie in several rows of a matrix.
    pub crossings: bool,
    /// Lanes of a workgroup.
    pub lanes: u32,
}

impl Switches {
    /// All `override` constants of a rule's walk, with their values.
    pub fn constants(&self, rule: &dyn AnyRule, wrappers: &Wrappers, walk: Walk) -> Vec<(&'static str, f64)> {
        let sums = match walk {
            Walk::Sums(sums) | Walk::Finish(sums) => sums,
            _ => Sums::GRADS,
        };
        let is_batch = walk == Walk::Gather;
        let scales = wrappers.loss_scale.is_some() && is_batch == (wrappers.accumulate > 1);
        let with_params = matches!(wrappers.clip, Some(Clip::Adaptive(_)));
        let to = match walk {
            Walk::Move(to) => to,
            _ => Move::LookAhead,
        };
        let mut constants = if walk.skeleton().knows_no_rule() { vec![] } else { rule.constants() };
        constants.extend(
            [
                ("MAXIMIZE", self.maximize),
                ("L2", self.l2),
                ("DECAY", self.decay),
                ("CAUTIOUS", self.cautious),
                ("LOOKAHEAD", wrappers.lookahead.is_some()),
                ("UNSCALE", scales),
                ("MEAN", wrappers.accumulate > 1),
                ("RESTORES", wrappers.skips() && rule.needs_look_ahead()),
                ("SKIPS", wrappers.skips()),
                ("NORM_PARAM", with_params),
                ("TAILS", self.tails),
                ("CROSSINGS", self.crossings),
                ("BIT_MAX", sums.combine == Combine::BitMax),
                ("SUM_PAIR", sums.pair),
                ("SUM_PARAM", sums.param),
                ("SUM_GRAD", sums.grad),
                ("SUM_STATE", sums.state),
                ("SUM_STORES", sums.stores),
            ]
            .map(|(name, on)| (name, f64::from(on))),
        );
        let ema = wrappers.ema.map_or(0, |ema| 1 + u8::from(ema.debias));
        constants.extend([
            ("CLIP", f64::from(Clip::clipping(wrappers.clip) as u8)),
            ("EMA", ema.into()),
            ("MOVE", f64::from(to as u8)),
            ("LANES", self.lanes.into()),
        ]);
        constants
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
    /// Group 0, binding 5, `read_write`: a window of numbers of rows and columns.
    Lines,
    /// Group 0, binding 6, `read`: what was decided for the step, and its records.
    Control,
    /// The same, `read_write`.
    Decisions,
    /// Group 1, binding 0, `read`, dynamic offset: the step's words.
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
            Self::Lines => (0, 5),
            Self::Control | Self::Decisions => (0, 6),
            Self::Clocks => (1, 0),
        }
    }

    /// Whether the shader writes it.
    pub fn writable(self) -> bool {
        matches!(self, Self::Params | Self::State | Self::Scratch | Self::Lines | Self::Decisions)
    }

    /// Whether its offset travels with the dispatch.
    pub fn dynamic(self) -> bool {
        matches!(self, Self::Tables | Self::Clocks)
    }
}

/// The bindings that a rule's shader of this skeleton declares.
pub fn bindings(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> Vec<Binding> {
    use Skeleton::{Apply, Finish, FinishLines, FinishNorms, Gather, Lines, Moves, Norms, Prologue, Sums};
    let grads = match skeleton {
        Lines | Sums | Norms | Gather => true,
        Apply => !rule.stores_early(),
        FinishLines | Finish | Moves | FinishNorms | Prologue => false,
    };
    let params = match skeleton {
        Lines | Sums | Apply | Moves | Gather => true,
        Norms => matches!(wrappers.clip, Some(Clip::Adaptive(_))),
        FinishLines | Finish | FinishNorms | Prologue => false,
    };
    let scratch = match skeleton {
        Lines | FinishLines | Sums | Finish | Norms | FinishNorms => true,
        Apply => !rule.names().tensor.is_empty(),
        Moves | Prologue | Gather => false,
    };
    let lines = match skeleton {
        Lines | FinishLines => true,
        Sums | Apply => rule.has_lines(),
        Finish | Moves | Norms | FinishNorms | Prologue | Gather => false,
    };
    let state = matches!(skeleton, Sums | Apply | Moves) && !element_slots(rule, wrappers).is_empty();
    let decides = matches!(skeleton, FinishNorms | Prologue);
    // Once it is decided which records a step has, they come from there.
    let reads_control = wrappers.is_controlled() && !decides;
    [
        (Binding::Params, params),
        (Binding::Grads, grads),
        (Binding::State, state),
        (Binding::Tables, skeleton != Prologue),
        (Binding::Scratch, scratch),
        (Binding::Lines, lines),
        (Binding::Control, reads_control),
        (Binding::Decisions, decides),
        (Binding::Clocks, !reads_control || matches!(skeleton, Norms | Gather)),
    ]
    .into_iter()
    .filter_map(|(binding, declared)| declared.then_some(binding))
    .collect()
}

/// The slots of an element in the order in which a block holds them: the rule's, then those around it.
pub fn element_slots(rule: &dyn AnyRule, wrappers: &Wrappers) -> Vec<Slot> {
    let all = rule.slots().into_iter().chain(wrappers.slots(rule.needs_look_ahead()));
    all.filter(|slot| slot.extent == Extent::Element && *slot != Wrappers::ACCUMULATED).collect()
}

/// The whole text of one shader. `grad` is the format of gradients; it makes no difference where none are bound.
pub fn compose(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, access: Access, grad: DType) -> String {
    let binds_grads = bindings(rule, wrappers, skeleton).contains(&Binding::Grads);
    let of_rule = if skeleton.knows_no_rule() { String::new() } else { format!("{} / ", rule.name()) };
    let mut text = format!(
        "// {of_rule}{} / param f32, {}{}. Composed by wgpu-optim {}.\n\n",
        skeleton.name(),
        if binds_grads { format!("grad {grad}, ") } else { String::new() },
        access.name(),
        env!("CARGO_PKG_VERSION")
    );
    let mut piece = |piece: &str| {
        text.push_str(piece);
        text.push('\n');
    };
    piece(include_str!("../shaders/parts.wgsl"));
    if !matches!(skeleton, Skeleton::FinishNorms | Skeleton::Prologue) {
        piece(include_str!("../shaders/codecs/f32.wgsl"));
    }
    if binds_grads && grad == DType::F16 {
        piece(include_str!("../shaders/codecs/f16.wgsl"));
    }
    if !skeleton.knows_no_rule() {
        piece(rule.shader());
        for default in defaults(rule, skeleton) {
            piece(default);
        }
    }
    piece(include_str!("../shaders/skeletons/common.wgsl"));
    piece(&glue(rule, wrappers, skeleton, access, grad));
    for base in skeleton.base() {
        piece(base);
    }
    piece(skeleton.text());
    text
}

/// What stands in for the items that a rule leaves out.
fn defaults(rule: &dyn AnyRule, skeleton: Skeleton) -> Vec<&'static str> {
    let of_lines = [
        ("fn measure_line(", include_str!("../shaders/defaults/measure_line.wgsl")),
        ("fn finish_line(", include_str!("../shaders/defaults/finish_line.wgsl")),
        ("fn finish_row(", include_str!("../shaders/defaults/finish_row.wgsl")),
    ];
    let of_lines = of_lines.into_iter().filter(|_| matches!(skeleton, Skeleton::Lines | Skeleton::FinishLines));
    let of_all = [
        ("struct Tensor ", include_str!("../shaders/defaults/Tensor.wgsl")),
        ("fn measure(", include_str!("../shaders/defaults/measure.wgsl")),
        ("fn finish(", include_str!("../shaders/defaults/finish.wgsl")),
        ("fn land(", include_str!("../shaders/defaults/land.wgsl")),
        ("fn moved(", include_str!("../shaders/defaults/moved.wgsl")),
    ];
    let mut all = Vec::new();
    for (item, default) in of_all.into_iter().chain(of_lines) {
        if !rule.shader().lines().any(|line| line.starts_with(item)) {
            all.push(default);
        }
    }
    all
}

/// Declares the bindings and the functions that move elements through them.
fn glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton, access: Access, grad: DType) -> String {
    let mut text = String::from("// Glue: bindings, and the way between them and the rule's structs.\n\n");
    let bindings = bindings(rule, wrappers, skeleton);
    for &binding in &bindings {
        let (name, element) = match (binding, access) {
            (Binding::Params, Access::Vec4) => ("params", "vec4<u32>"),
            (Binding::Params, Access::Scalar) => ("params", "u32"),
            (Binding::Grads, Access::Vec4) if grad == DType::F16 => ("grads", "vec2<u32>"),
            (Binding::Grads, Access::Vec4) => ("grads", "vec4<u32>"),
            (Binding::Grads, Access::Scalar) => ("grads", "u32"),
            (Binding::State, _) => ("states", "vec4<u32>"),
            (Binding::Tables, _) => ("tables", "vec4<u32>"),
            (Binding::Scratch, _) => ("scratch", "u32"),
            (Binding::Lines, _) => ("lines", "f32"),
            (Binding::Control | Binding::Decisions, _) => ("control", "u32"),
            (Binding::Clocks, _) => ("clocks", "u32"),
        };
        let (group, number) = binding.place();
        let mode = if binding.writable() { "read_write" } else { "read" };
        line(
            &mut text,
            format_args!("@group({group}) @binding({number}) var<storage, {mode}> {name}: array<{element}>;"),
        );
    }
    text.push('\n');
    if bindings.contains(&Binding::Tables) {
        text.push_str(ROWS);
    }
    if skeleton.knows_no_rule() {
        text.push_str(&decision_glue(wrappers, skeleton));
    } else {
        text.push_str(&record_glue(rule, wrappers.is_controlled()));
    }
    match skeleton {
        Skeleton::Lines => {
            text.push_str(&load_four("param", access, DType::F32));
            text.push_str(&load_four("grad", access, grad));
        }
        Skeleton::Sums | Skeleton::Apply | Skeleton::Moves => {
            text.push_str(&load_elements("param", access, DType::F32));
            text.push_str(&store_params(access));
            text.push_str(&state_glue(rule, wrappers, skeleton));
            match bindings.contains(&Binding::Grads) {
                true => text.push_str(&load_elements("grad", access, grad)),
                false => text.push_str("fn load_grad(row: Row, q: u32) -> vec4<f32> {\n    return vec4<f32>();\n}\n\n"),
            }
        }
        Skeleton::Norms | Skeleton::Gather => {
            match bindings.contains(&Binding::Params) {
                true => text.push_str(&load_elements("param", access, DType::F32)),
                false => {
                    text.push_str("fn load_param(row: Row, q: u32) -> vec4<f32> {\n    return vec4<f32>();\n}\n\n")
                }
            }
            text.push_str(&load_words("grad", access, grad));
            text.push_str(if skeleton == Skeleton::Gather { store_params(access) } else { String::new() }.as_str());
        }
        Skeleton::FinishLines | Skeleton::Finish | Skeleton::FinishNorms | Skeleton::Prologue => {}
    }
    let of_lines = matches!(skeleton, Skeleton::Lines | Skeleton::FinishLines);
    if bindings.contains(&Binding::Lines) {
        text.push_str(LINES);
        text.push_str(if of_lines { SHARES } else { SEEN });
    }
    if !of_lines && !skeleton.knows_no_rule() {
        text.push_str(&tensor_glue(rule, bindings.contains(&Binding::Scratch)));
    }
    text
}

const ROWS: &str = "fn load_row(i: u32) -> Row {
    let a = tables[3u * i];
    let b = tables[3u * i + 1u];
    let c = tables[3u * i + 2u];
    return Row(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w);
}

";

/// Where a tensor's numbers stand, and how they are read.
fn record_glue(rule: &dyn AnyRule, is_controlled: bool) -> String {
    let mut text = String::from("// Where the tensor's numbers stand in this step, or why it has none.\n");
    let source = if is_controlled { "control" } else { "clocks" };
    let (first, stride) = (CONTROL.len(), MEASURED_WORDS);
    let record = match is_controlled {
        true => format!("control[{first}u + {stride}u * tensor]"),
        false => "clocks[tensor]".into(),
    };
    text.push_str(&format!("fn load_record(tensor: u32) -> u32 {{\n    return {record};\n}}\n\n"));
    let common = <Common<f32> as Numbers<f32>>::NAMES;
    let of_record = |i: usize| format!("        bitcast<f32>({source}[record + {i}u]),\n");
    let of_common = |(i, name): (usize, &&str)| match (is_controlled, *name) {
        (true, "unscale") => "        bitcast<f32>(control[1u]),\n".into(),
        (true, "coarse") => format!("        bitcast<f32>(control[{}u + {stride}u * tensor]),\n", first + 1),
        (true, "fine") => format!("        bitcast<f32>(control[{}u + {stride}u * tensor]),\n", first + 2),
        _ => of_record(i),
    };
    let fields: String = common.iter().enumerate().map(of_common).collect();
    text.push_str(&format!(
        "fn load_common(tensor: u32, record: u32) -> Common {{\n    return Common(\n{fields}    );\n}}\n\n"
    ));
    let fields: String = (common.len()..common.len() + rule.names().hyper.len()).map(of_record).collect();
    text + &format!("fn load_hyper(record: u32) -> Hyper {{\n    return Hyper(\n{fields}    );\n}}\n\n")
}

/// The way to the step's words and to control.
fn decision_glue(wrappers: &Wrappers, skeleton: Skeleton) -> String {
    let mut text = String::new();
    let mut names = |prefix: &str, names: &[&str]| {
        for (i, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            line(&mut text, format_args!("const {prefix}_{name}: u32 = {i}u;"));
        }
    };
    names("WORD", &WORDS);
    names("CONTROL", &CONTROL);
    for (i, name) in STAGES.iter().enumerate() {
        line(&mut text, format_args!("const STAGE_{name}: u32 = {}u;", 1 << i));
    }
    text.push_str(&format!("const FIRST_TENSOR: u32 = {}u;\n", CONTROL.len()));
    text.push_str(&format!("const TENSOR_WORDS: u32 = {MEASURED_WORDS}u;\n\n"));
    let first = WORDS.len();
    text.push_str(&match skeleton {
        Skeleton::Gather => "// 0 for a tensor's first micro-batch, 1 for others, ABSENT for none.
fn load_batch(tensor: u32) -> u32 {
    return clocks[tensor];
}

"
        .into(),
        _ => format!(
            "fn load_word(at: u32) -> u32 {{
    return clocks[at];
}}

fn load_number(at: u32) -> f32 {{
    return bitcast<f32>(clocks[at]);
}}

// Whether it has a gradient in this step.
fn is_present(tensor: u32) -> bool {{
    return clocks[{first}u + tensor] != ABSENT;
}}

fn load_batches() -> f32 {{
    return load_number(WORD_BATCHES);
}}

"
        ),
    });
    text.push_str(
        "// One over a power of two, exactly.
fn inverse(scale: u32) -> u32 {
    return 0x7f000000u - scale;
}

fn load_unscale() -> f32 {
",
    );
    text.push_str(match wrappers.is_controlled() {
        true => "    return bitcast<f32>(inverse(control[CONTROL_SCALE]));\n}\n\n",
        false => "    return 1.0;\n}\n\n",
    });
    if matches!(skeleton, Skeleton::Norms | Skeleton::FinishNorms) {
        text.push_str(PARTIALS);
    }
    if matches!(skeleton, Skeleton::FinishNorms | Skeleton::Prologue) {
        text.push_str(DECISIONS);
    }
    text
}

/// Words of a tensor in control: its record, `coarse`, `fine`, four sums of squares, the kind.
pub const MEASURED_WORDS: usize = 8;

/// Words of a partial result of norms.
pub const NORM_WORDS: u64 = 5;

/// What the prologue does, a bit each.
pub const STAGES: [&str; 4] = ["MEASURE", "DECIDE", "SELECT", "ADVANCE"];

/// Partial results of norms.
const PARTIALS: &str = "fn load_partial(at: u32) -> Node {
    let squares = vec4<u32>(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), scratch[at + 4u]);
}

fn store_partial(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    scratch[at] = squares.x;
    scratch[at + 1u] = squares.y;
    scratch[at + 2u] = squares.z;
    scratch[at + 3u] = squares.w;
    scratch[at + 4u] = node.kind;
}

";

/// What stays on the device from dispatch to dispatch.
const DECISIONS: &str = "fn load_control(at: u32) -> u32 {
    return control[at];
}

fn store_control(at: u32, word: u32) {
    control[at] = word;
}

fn load_node(at: u32) -> Node {
    let squares = vec4<u32>(control[at], control[at + 1u], control[at + 2u], control[at + 3u]);
    return Node(bitcast<vec4<f32>>(squares), control[at + 4u]);
}

fn store_node(at: u32, node: Node) {
    let squares = bitcast<vec4<u32>>(node.squares);
    control[at] = squares.x;
    control[at + 1u] = squares.y;
    control[at + 2u] = squares.z;
    control[at + 3u] = squares.w;
    control[at + 4u] = node.kind;
}

fn load_all() -> Node {
    return load_node(CONTROL_ALL);
}

fn store_all(node: Node) {
    store_node(CONTROL_ALL, node);
}

fn load_option(i: u32) -> f32 {
    return bitcast<f32>(control[clocks[WORD_OPTIONS] + i]);
}

fn load_other(i: u32) -> Node {
    return load_node(CONTROL_OTHERS + 5u * i);
}

fn load_measured(tensor: u32) -> Node {
    return load_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u);
}

fn store_measured(tensor: u32, node: Node) {
    store_node(FIRST_TENSOR + TENSOR_WORDS * tensor + 3u, node);
}

fn store_record(tensor: u32, record: u32) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor] = record;
}

fn store_factors(tensor: u32, factors: vec2<u32>) {
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 1u] = factors.x;
    control[FIRST_TENSOR + TENSOR_WORDS * tensor + 2u] = factors.y;
}

";

/// Numbers of rows and columns.
const LINES: &str = "// x / by where the quotient is small: processors divide floats side by side, integers one by one.
fn divide(x: u32, by: u32) -> u32 {
    var quotient = u32(i32(f32(i32(x)) / f32(i32(by))));
    quotient -= select(0u, 1u, quotient * by > x);
    quotient += select(0u, 1u, x - quotient * by >= by);
    return quotient;
}

fn load_line(at: u32) -> f32 {
    return lines[at];
}

fn store_line(at: u32, number: f32) {
    lines[at] = number;
}

";

/// What tiles have of the sum over a line.
const SHARES: &str = "fn load_share(at: u32) -> f32 {
    return bitcast<f32>(scratch[at]);
}

fn store_share(at: u32, sum: f32) {
    scratch[at] = bitcast<u32>(sum);
}
";

/// What elements see of their rows and columns.
const SEEN: &str =
    "fn load_lines(row: Row, q: u32, rows: ptr<function, vec4<f32>>, columns: ptr<function, vec4<f32>>) {
    let across = row.left + 4u * q;
    let down = divide(across, row.columns);
    let matrix = divide(row.top + down, row.rows);
    let column = across - down * row.columns;
    var at = vec4<u32>(row.seen + down, row.lines + matrix * row.columns, column, row.top + down - matrix * row.rows);
    if (CROSSINGS) {
        let a = load_crossing(at);
        at = next_crossing(row, at, 4u * q + 1u);
        let b = load_crossing(at);
        at = next_crossing(row, at, 4u * q + 2u);
        let d = load_crossing(at);
        at = next_crossing(row, at, 4u * q + 3u);
        let e = load_crossing(at);
        *rows = vec4<f32>(a.x, b.x, d.x, e.x);
        *columns = vec4<f32>(a.y, b.y, d.y, e.y);
    } else {
        let first = at.y + column;
        *rows = vec4<f32>(load_line(at.x));
        *columns = vec4<f32>(load_line(first), load_line(first + 1u), load_line(first + 2u), load_line(first + 3u));
    }
}

// Where an element's row and its matrix's columns are, and the element's column and row in the matrix.
fn load_crossing(at: vec4<u32>) -> vec2<f32> {
    return vec2<f32>(load_line(at.x), load_line(at.y + at.z));
}

// The same of the next element, `i`; behind the end the last stays.
fn next_crossing(row: Row, at: vec4<u32>, i: u32) -> vec4<u32> {
    let next = at + vec4<u32>(0u, 0u, 1u, 0u);
    let below = vec4<u32>(at.x + 1u, at.y, 0u, at.w + 1u);
    let behind = vec4<u32>(at.x + 1u, at.y + row.columns, 0u, 0u);
    let moved_down = select(below, behind, at.w + 1u == row.rows);
    return select(at, select(next, moved_down, next.z == row.columns), i < row.len);
}

";

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}

/// The two words or four that hold the elements at the four places of `i`.
fn picked(what: &str, access: Access, format: DType) -> String {
    let words = ["x", "y", "z", "w"].map(|field| match (format, access) {
        (DType::F32, Access::Vec4) => format!("{what}s[i.{field} / 4u][i.{field} % 4u]"),
        (DType::F32, Access::Scalar) => format!("{what}s[i.{field}]"),
        (DType::F16, Access::Vec4) => format!("{what}s[i.{field} / 4u][i.{field} / 2u % 2u]"),
        (DType::F16, Access::Scalar) => format!("{what}s[i.{field} / 2u]"),
    });
    let words = format!("vec4<u32>({})", words.join(", "));
    match format {
        DType::F32 => words,
        DType::F16 => format!("pick_f16({words}, i)"),
    }
}

/// `load_param`, `load_grad`: four elements.
fn load_elements(what: &str, access: Access, format: DType) -> String {
    load_quad(&format!("load_{what}"), what, access, format, &format!("decode_{format}"), "vec4<f32>")
}

/// `load_grad_words`: four elements as words of f32, whose bits no conversion has touched.
fn load_words(what: &str, access: Access, format: DType) -> String {
    let widen = match format {
        DType::F32 => "",
        DType::F16 => "widen_f16",
    };
    load_quad(&format!("load_{what}_words"), what, access, format, widen, "vec4<u32>")
}

fn load_quad(name: &str, what: &str, access: Access, format: DType, decode: &str, four: &str) -> String {
    match access {
        Access::Vec4 => format!(
            "fn {name}(row: Row, q: u32) -> {four} {{
    return {decode}({what}s[row.{what} / 4u + q]);
}}

"
        ),
        Access::Scalar => format!(
            "fn {name}(row: Row, q: u32) -> {four} {{
    let i = row.{what} + vec4<u32>(4u * q) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(row.len - 1u - 4u * q));
    return {decode}({});
}}

",
            picked(what, access, format)
        ),
    }
}

/// `count` elements of a row of a matrix, from its element `at`; behind the last it is repeated.
fn load_four(what: &str, access: Access, format: DType) -> String {
    let whole = match access {
        Access::Vec4 => {
            format!(
                "    if (!CROSSINGS) {{\n        return decode_{format}({what}s[(row.{what} + at) / 4u]);\n    }}\n"
            )
        }
        Access::Scalar => String::new(),
    };
    let picked = picked(what, access, format);
    format!(
        "fn load_{what}_four(row: Row, at: u32, count: u32) -> vec4<f32> {{
{whole}    let i = row.{what} + vec4<u32>(at) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return decode_{format}({picked});
}}

"
    )
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
fn state_glue(rule: &dyn AnyRule, wrappers: &Wrappers, skeleton: Skeleton) -> String {
    let slots = element_slots(rule, wrappers);
    let lanes = ["s0", "s1", "s2", "s3"];
    let pointers = lanes.map(|s| format!("{s}: ptr<function, State>")).join(", ");
    let values = lanes.map(|s| format!("{s}: State")).join(", ");
    let mut place = String::from("fn state_place(row: Row, q: u32) -> Place {\n");
    match slots.len() {
        0 => place.push_str("    return Place(0u, 0u);\n}\n\n"),
        1 => place.push_str("    return Place(row.state + q, 0u);\n}\n\n"),
        count => {
            let others = count - 1;
            place.push_str(&format!(
                "    let inside = q % BLOCK_QUADS;
    return Place(row.state + {count}u * q - {others}u * inside, min(BLOCK_QUADS, quads(row) - (q - inside)));
}}

"
            ));
        }
    }
    let mut load = format!("fn load_state(row: Row, c: Common, q: u32, p: vec4<f32>, {pointers}) {{\n");
    let mut store = format!("fn store_state(row: Row, q: u32, {values}) {{\n");
    let stores = !(skeleton == Skeleton::Apply && rule.stores_early());
    let own = rule.slots().into_iter().filter(|slot| slot.extent == Extent::Element);
    for (i, Slot { name, start, .. }) in own.enumerate() {
        if i == 0 {
            load.push_str("    let at = state_place(row, q);\n");
            store.push_str(if stores { "    let at = state_place(row, q);\n" } else { "" });
        }
        let loaded = format!("decode_f32(states[at.first + {i}u * at.span])");
        match start {
            Start::Value(_) => line(&mut load, format_args!("    let {name} = {loaded};")),
            Start::Param => line(&mut load, format_args!("    let {name} = select({loaded}, p, c.first != 0.0);")),
        }
        for (s, field) in lanes.iter().zip(["x", "y", "z", "w"]) {
            line(&mut load, format_args!("    (*{s}).{name} = {name}.{field};"));
        }
        if stores {
            let four = lanes.map(|s| format!("{s}.{name}")).join(", ");
            let to = format!("states[at.first + {i}u * at.span]");
            line(&mut store, format_args!("    {to} = encode_f32(vec4<f32>({four}));"));
        }
    }
    if rule.has_lines() && skeleton != Skeleton::Moves {
        load.push_str(
            "    var rows: vec4<f32>;\n    var columns: vec4<f32>;\n    load_lines(row, q, &rows, &columns);\n",
        );
        for Slot { name, extent, .. } in rule.slots().into_iter().filter(|slot| slot.extent.is_line()) {
            let numbers = if extent == Extent::Row { "rows" } else { "columns" };
            for (s, field) in lanes.iter().zip(["x", "y", "z", "w"]) {
                line(&mut load, format_args!("    (*{s}).{name} = {numbers}.{field};"));
            }
        }
    }
    let mut text = format!("{place}{load}}}\n\n{store}}}\n\n");
    if matches!(skeleton, Skeleton::Apply | Skeleton::Moves) {
        for (name, wanted) in [("slow", Wrappers::SLOW), ("mean", Wrappers::EMA), ("before", Wrappers::BEFORE)] {
            text.push_str(&slot_glue(name, slots.iter().position(|slot| slot.name == wanted.name)));
        }
    }
    text
}

/// The way to a slot round the rule; where there is none, it is 0 and stays so.
fn slot_glue(name: &str, slot: Option<usize>) -> String {
    let (load, store) = match slot {
        None => ("    return vec4<f32>();".into(), String::new()),
        Some(i) => {
            let word = format!("states[at.first + {i}u * at.span]");
            let place = "    let at = state_place(row, q);\n";
            (format!("{place}    return decode_f32({word});"), format!("{place}    {word} = encode_f32(numbers);\n"))
        }
    };
    format!(
        "fn load_{name}(row: Row, q: u32) -> vec4<f32> {{\n{load}\n}}

fn store_{name}(row: Row, q: u32, numbers: vec4<f32>) {{\n{store}}}

"
    )
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
