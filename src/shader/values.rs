//! How a shader reads and writes the values of parameters and gradients, wherever they lie.

use std::fmt::Write;

use crate::tensor::{Access, DType, Pages};

/// Adds the functions that reach the pages in which parameters and gradients lie.
pub(super) fn page_glue(pages: usize, element: &str) -> String {
    let cases = |case: &dyn Fn(usize) -> String| {
        let label = |page: usize| if page + 1 == pages { "default".into() } else { format!("case {page}u") };
        let lines =
            (0..pages).map(|page| format!("        {}: {{\n            {}\n        }}\n", label(page), case(page)));
        lines.collect::<String>()
    };
    let loads = cases(&|page| format!("return page_{page}[i];"));
    let stores = cases(&|page| format!("page_{page}[i] = words;"));
    format!(
        "fn load_page(page: u32, i: u32) -> {element} {{
    switch page {{
{loads}    }}
}}

fn store_page(page: u32, i: u32, words: {element}) {{
    switch page {{
{stores}    }}
}}

"
    )
}

/// How the values of parameters and gradients lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Values {
    /// How they are read and written.
    pub access: Access,
    /// The format of gradients. It makes no difference where none are bound.
    pub grad: DType,
    /// The buffers that hold them.
    pub pages: Pages,
}

impl Values {
    /// Parameters in one buffer, gradients in another.
    pub fn apart(access: Access, grad: DType) -> Self {
        Self { access, grad, pages: Pages::Apart }
    }

    fn format(self, what: &str) -> DType {
        if what == "grad" { self.grad } else { DType::F32 }
    }

    /// An expression of the element `i` of the bound array that holds `param` or `grad` of an entry.
    fn read(self, what: &str, entry: &str, i: &str) -> String {
        match self.pages {
            Pages::Apart => format!("{what}s[{i}]"),
            Pages::Shared => format!("params[{i}]"),
            Pages::Many(_) => format!("load_page({entry}.{what}_page, {i})"),
        }
    }

    /// A statement that stores words as element `i` of the array that the new parameters go to.
    fn write(self, i: &str, words: &str) -> String {
        match self.pages {
            Pages::Apart | Pages::Shared => format!("params[{i}] = {words};"),
            Pages::Many(_) => format!("store_page(chunk.out_page, {i}, {words});"),
        }
    }

    /// An expression of the two words that hold the four halves `4 * i` and so on of `grad`.
    fn read_halves(self, entry: &str, i: &str) -> String {
        match self.pages {
            Pages::Apart => self.read("grad", entry, i),
            _ => format!("pair_of({}, {i})", self.read("grad", entry, &format!("({i}) / 2u"))),
        }
    }

    /// An expression of the words that hold the elements at the four places of `i`: four of f32, two of f16.
    fn picked(self, what: &str, entry: &str) -> String {
        let format = self.format(what);
        let words = ["x", "y", "z", "w"].map(|field| match (format, self.access) {
            (DType::F32, Access::Vec4) => {
                format!("{}[i.{field} % 4u]", self.read(what, entry, &format!("i.{field} / 4u")))
            }
            (DType::F32, Access::Scalar) => self.read(what, entry, &format!("i.{field}")),
            (DType::F16, Access::Vec4) => {
                format!("{}[i.{field} / 2u % 2u]", self.read_halves(entry, &format!("i.{field} / 4u")))
            }
            (DType::F16, Access::Scalar) => self.read(what, entry, &format!("i.{field} / 2u")),
        });
        let words = format!("vec4<u32>({})", words.join(", "));
        match format {
            DType::F32 => words,
            DType::F16 => format!("pick_f16({words}, i)"),
        }
    }
}

/// `load_param` or `load_grad`: loads four elements of a chunk.
pub(super) fn load_elements(what: &str, values: Values) -> String {
    load_quad(&format!("load_{what}"), what, values, &format!("decode_{}", values.format(what)), "vec4<f32>")
}

/// `load_grad_words`: loads four elements of a chunk as words of f32, before any arithmetic has touched them.
pub(super) fn load_words(what: &str, values: Values) -> String {
    let widen = match values.format(what) {
        DType::F32 => "",
        DType::F16 => "widen_f16",
    };
    load_quad(&format!("load_{what}_words"), what, values, widen, "vec4<u32>")
}

fn load_quad(name: &str, what: &str, values: Values, decode: &str, four: &str) -> String {
    match values.access {
        Access::Vec4 => {
            let i = format!("chunk.{what} / 4u + q");
            let words = match values.format(what) {
                DType::F32 => values.read(what, "chunk", &i),
                DType::F16 => values.read_halves("chunk", &i),
            };
            format!("fn {name}(chunk: Chunk, q: u32) -> {four} {{\n    return {decode}({words});\n}}\n\n")
        }
        Access::Scalar => format!(
            "fn {name}(chunk: Chunk, q: u32) -> {four} {{
    let i = chunk.{what} + vec4<u32>(4u * q) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(chunk.len - 1u - 4u * q));
    return {decode}({});
}}

",
            values.picked(what, "chunk")
        ),
    }
}

/// `load_param_four` or `load_grad_four`: loads `count` elements of a row of a matrix, from the tile's element `at`,
/// and repeats the last one behind them.
pub(super) fn load_four(what: &str, values: Values) -> String {
    let format = values.format(what);
    let whole = match values.access {
        Access::Vec4 => {
            let i = format!("(tile.{what} + at) / 4u");
            let words = match format {
                DType::F32 => values.read(what, "tile", &i),
                DType::F16 => values.read_halves("tile", &i),
            };
            format!("    if (!CROSSINGS) {{\n        return decode_{format}({words});\n    }}\n")
        }
        Access::Scalar => String::new(),
    };
    let picked = values.picked(what, "tile");
    format!(
        "fn load_{what}_four(tile: Tile, at: u32, count: u32) -> vec4<f32> {{
{whole}    let i = tile.{what} + vec4<u32>(at) + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return decode_{format}({picked});
}}

"
    )
}

pub(super) fn store_params(values: Values) -> String {
    match values.access {
        Access::Vec4 => format!(
            "fn store_param(chunk: Chunk, q: u32, old: vec4<f32>, p: vec4<f32>) {{
    var stored = p;
    if (TAILS) {{
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }}
    {}
}}

",
            values.write("chunk.out / 4u + q", "encode_f32(stored)")
        ),
        Access::Scalar => {
            let mut text = format!(
                "fn store_param(chunk: Chunk, q: u32, old: vec4<f32>, p: vec4<f32>) {{
    let words = encode_f32(p);
    let i = chunk.out + 4u * q;
    {}
",
                values.write("i", "words.x")
            );
            for (n, field) in [(1, 'y'), (2, 'z'), (3, 'w')] {
                let store = values.write(&format!("i + {n}u"), &format!("words.{field}"));
                line(&mut text, format_args!("    if (4u * q + {n}u < chunk.len) {{\n        {store}\n    }}"));
            }
            text + "}\n\n"
        }
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}
