//! How a shader reads and writes the values of parameters and gradients, wherever they lie.

use std::fmt::Write;

use crate::codecs::DType;
use crate::tensor::{Access, Formats, Pages};

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
    /// Their formats. Those of what a walk does not bind make no difference.
    pub formats: Formats,
    /// The buffers that hold them.
    pub pages: Pages,
}

impl Values {
    /// Parameters in one buffer, gradients in another.
    pub fn apart(access: Access, formats: Formats) -> Self {
        Self { access, formats, pages: Pages::Apart }
    }

    fn format(self, what: &str) -> DType {
        if what == "grad" { self.formats.grad } else { self.formats.param }
    }

    /// Words of an element of the bound array that holds `param` or `grad`. A page holds both; it has those of
    /// parameters, so that one store writes four of these and touches nothing else.
    fn words(self, what: &str) -> u64 {
        match (self.access, self.pages) {
            (Access::Scalar, _) => 1,
            (Access::Vec4, Pages::Apart) => self.format(what).quad_bytes() / 4,
            (Access::Vec4, _) => self.formats.param.quad_bytes() / 4,
        }
    }

    /// The type of these elements.
    pub(super) fn element(self, what: &str) -> &'static str {
        match self.words(what) {
            1 => "u32",
            2 => "vec2<u32>",
            _ => "vec4<u32>",
        }
    }

    /// Whether four elements of `grad` are half an element of the array that holds them.
    pub(super) fn are_half(self) -> bool {
        4 * self.words("grad") > self.formats.grad.quad_bytes()
    }

    /// An expression of the element `i` of the bound array that holds `param` or `grad` of an entry.
    fn read(self, what: &str, entry: &str, i: &str) -> String {
        match self.pages {
            Pages::Apart => format!("{what}s[{i}]"),
            Pages::Shared => format!("params[{i}]"),
            Pages::Many(_) => format!("load_page({entry}.{what}_page, {i})"),
        }
    }

    /// The same of the array that the new parameters of a chunk go to.
    fn read_new(self, i: &str) -> String {
        match self.pages {
            Pages::Apart | Pages::Shared => format!("params[{i}]"),
            Pages::Many(_) => format!("load_page(chunk.out_page, {i})"),
        }
    }

    /// A statement that stores words as element `i` of that array.
    fn write(self, i: &str, words: &str) -> String {
        match self.pages {
            Pages::Apart | Pages::Shared => format!("params[{i}] = {words};"),
            Pages::Many(_) => format!("store_page(chunk.out_page, {i}, {words});"),
        }
    }

    /// In the vec4 form, an expression of the bits of the elements `4 * i` and so on.
    fn four(self, what: &str, entry: &str, i: &str) -> String {
        let format = self.format(what);
        let words = match (self.words(what), format.quad_bytes() / 4) {
            (4, 2) => format!("pair_of({}, {i})", self.read(what, entry, &format!("({i}) / 2u"))),
            (2, 4) => {
                let [first, second] = [0, 1].map(|n| self.read(what, entry, &format!("2u * ({i}) + {n}u")));
                format!("vec4<u32>({first}, {second})")
            }
            _ => self.read(what, entry, i),
        };
        if format.is_narrow() { format!("halves_of({words})") } else { words }
    }

    /// An expression of the bits of the elements at the four places of `i`.
    fn picked(self, what: &str, entry: &str) -> String {
        let (format, count) = (self.format(what), self.words(what));
        let words = ["x", "y", "z", "w"].map(|field| {
            let word = if format.is_narrow() { format!("i.{field} / 2u") } else { format!("i.{field}") };
            match count {
                1 => self.read(what, entry, &word),
                _ => format!("{}[{word} % {count}u]", self.read(what, entry, &format!("{word} / {count}u"))),
            }
        });
        let words = format!("vec4<u32>({})", words.join(", "));
        if format.is_narrow() { format!("pick_halves({words}, i)") } else { words }
    }
}

/// `load_param` or `load_grad`: loads four elements of a chunk.
pub(super) fn load_elements(what: &str, values: Values) -> String {
    load_quad(&format!("load_{what}"), what, values, &format!("decode_{}", values.format(what)), "vec4<f32>")
}

/// `load_grad_words`: loads four elements of a chunk as words of f32, before any arithmetic has touched them.
pub(super) fn load_words(what: &str, values: Values) -> String {
    let format = values.format(what);
    let widen = if format.is_narrow() { format!("widen_{format}") } else { String::new() };
    load_quad(&format!("load_{what}_words"), what, values, &widen, "vec4<u32>")
}

fn load_quad(name: &str, what: &str, values: Values, decode: &str, four: &str) -> String {
    match values.access {
        Access::Vec4 => {
            let bits = values.four(what, "chunk", &format!("chunk.{what} / 4u + q"));
            format!("fn {name}(chunk: Chunk, q: u32) -> {four} {{\n    return {decode}({bits});\n}}\n\n")
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
            let bits = values.four(what, "tile", &format!("(tile.{what} + at) / 4u"));
            format!("    if (!CROSSINGS) {{\n        return decode_{format}({bits});\n    }}\n")
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

/// `store_param`: stores four new parameters of a chunk. What lies behind the chunk's end keeps its bits.
pub(super) fn store_params(values: Values) -> String {
    let format = values.formats.param;
    let head = "fn store_param(chunk: Chunk, q: u32, old: vec4<f32>, p: vec4<f32>) {\n";
    let body = match (values.access, format.is_narrow()) {
        (Access::Vec4, false) => format!(
            "    var stored = p;
    if (TAILS) {{
        stored = select(old, p, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q));
    }}
    {}
",
            values.write("chunk.out / 4u + q", &format!("encode_{format}(stored)"))
        ),
        (Access::Vec4, true) => format!(
            "    let i = chunk.out / 4u + q;
    var halves = encode_{format}(p);
    if (TAILS && chunk.len - 4u * q < 4u) {{
        let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len - 4u * q);
        halves = select(halves_of({}), halves, inside);
    }}
    {}
",
            values.read_new("i"),
            values.write("i", "words_of_halves(halves)")
        ),
        (Access::Scalar, false) => {
            let mut text = format!(
                "    let words = encode_{format}(p);\n    let i = chunk.out + 4u * q;\n    {}\n",
                values.write("i", "words.x")
            );
            for (n, field) in [(1, 'y'), (2, 'z'), (3, 'w')] {
                let store = values.write(&format!("i + {n}u"), &format!("words.{field}"));
                line(&mut text, format_args!("    if (4u * q + {n}u < chunk.len) {{\n        {store}\n    }}"));
            }
            text
        }
        (Access::Scalar, true) => {
            let mut text = format!("    let halves = encode_{format}(p);\n    let i = chunk.out / 2u + 2u * q;\n");
            // A word that ends behind the chunk keeps its upper half.
            for (n, [low, high]) in [(0, ['x', 'y']), (1, ['z', 'w'])] {
                let (first, at) = (2 * n, if n == 0 { "i".into() } else { format!("i + {n}u") });
                let whole = values.write(&at, &format!("halves.{low} | (halves.{high} << 16u)"));
                let part = values.write(&at, &format!("halves.{low} | ({} & 0xffff0000u)", values.read_new(&at)));
                line(&mut text, format_args!("    if (4u * q + {}u < chunk.len) {{\n        {whole}", first + 1));
                match n {
                    0 => line(&mut text, format_args!("    }} else {{\n        {part}\n    }}")),
                    _ => line(
                        &mut text,
                        format_args!("    }} else if (4u * q + {first}u < chunk.len) {{\n        {part}\n    }}"),
                    ),
                }
            }
            text
        }
    };
    format!("{head}{body}}}\n\n")
}

/// `dithered`: four parameters rounded by chance to numbers of their format.
pub(super) fn dither_params(values: Values) -> String {
    let format = values.formats.param;
    let rounded = match format.is_narrow() {
        true => format!("decode_{format}(dither_{format}(bitcast<vec4<u32>>(p), random))"),
        false => "p".into(),
    };
    format!("fn dithered(p: vec4<f32>, random: vec4<u32>) -> vec4<f32> {{\n    return {rounded};\n}}\n\n")
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}
