//! Pictures: drawn as SVG and painted to PNG, with letters that come along: they look the same on every machine.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use resvg::{tiny_skia, usvg};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::{error::Error, fs, path::PathBuf, process::ExitCode};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Okabe and Ito's colours, told apart by colour-blind readers, with grey in place of yellow, which is weak on white,
/// and wine of Tol's.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(0, 0, 0),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
    RGBColor(136, 34, 85),
];

/// What a program ends with: an error is told in words.
pub fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The stroke of curve `i`: a colour, and a thinner pen once the colours start again.
pub fn pen(i: usize) -> ShapeStyle {
    COLOURS[i % COLOURS.len()].stroke_width(if i < COLOURS.len() { 4 } else { 2 })
}

/// Text of a size in units of the page, which is shown at half its size.
pub fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_text_style(&(1, 1))
}

/// Text whose anchor is halfway up, at its left end, its middle or its right end.
pub fn anchored(size: u32, h: HPos) -> TextStyle<'static> {
    text(size).pos(Pos::new(h, VPos::Center))
}

/// A page as SVG; it is transparent where nothing is drawn.
pub fn svg(size: (u32, u32), draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&page)?;
        page.present()?;
    }
    Ok(svg)
}

/// The options that say where pictures go.
#[derive(clap::Args)]
pub struct Out {
    /// The folder that the pictures are written to
    #[arg(long, value_name = "DIR", default_value = "target/pictures")]
    out: PathBuf,
    /// Write them as SVG, too
    #[arg(long)]
    svg: bool,
}

impl Out {
    /// Writes a white page as `NAME.png`, at three quarters of its size.
    pub fn save(&self, name: &str, size: (u32, u32), draw: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
        let svg = svg(size, |page| {
            page.fill(&WHITE)?;
            draw(page)
        })?;
        let (width, height) = (size.0 * 3 / 4, size.1 * 3 / 4);
        let mut pixels = tiny_skia::Pixmap::new(width, height).ok_or("a page without pixels")?;
        paint(&svg, &mut pixels)?;
        let palette = Palette::of([&pixels]);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette.colours.as_flattened());
        encoder.set_compression(png::Compression::High);
        encoder.write_header()?.write_image_data(&palette.indices(&pixels))?;
        if self.svg {
            self.write(&format!("{name}.svg"), svg.as_bytes())?;
        }
        self.write(&format!("{name}.png"), &bytes)
    }

    /// Writes a file, and prints its path. Makes the folder where it is missing.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.out.join(name);
        fs::create_dir_all(&self.out)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        println!("wrote {} ({} kB)", path.display(), bytes.len().div_ceil(1000));
        Ok(())
    }
}

/// Paints an SVG over what is there, stretched to its size.
pub fn paint(svg: &str, pixels: &mut tiny_skia::Pixmap) -> Result<()> {
    static OPTIONS: LazyLock<usvg::Options> = LazyLock::new(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.load_font_data(dejavu::sans::bold().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() }
    });
    let tree = usvg::Tree::from_str(svg, &OPTIONS)?;
    let [x, y] = [pixels.width() as f32 / tree.size().width(), pixels.height() as f32 / tree.size().height()];
    resvg::render(&tree, tiny_skia::Transform::from_scale(x, y), &mut pixels.as_mut());
    Ok(())
}

/// The most frequent colours of some opaque pictures; the rest are shades between them at the edges of strokes.
pub struct Palette {
    pub colours: Vec<[u8; 3]>,
    nearest: HashMap<[u8; 3], u8>,
}

impl Palette {
    pub fn of<'a>(pictures: impl IntoIterator<Item = &'a tiny_skia::Pixmap>) -> Palette {
        let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
        for colour in pictures.into_iter().flat_map(colours) {
            *counts.entry(colour).or_default() += 1;
        }
        let mut colours: Vec<_> = counts.keys().copied().collect();
        colours.sort_by_key(|colour| (std::cmp::Reverse(counts[colour]), *colour));
        colours.truncate(255); // an animation needs one index for what is transparent
        let distance = |a: [u8; 3], b: [u8; 3]| (0..3).map(|i| u32::from(a[i].abs_diff(b[i])).pow(2)).sum::<u32>();
        let nearest = |colour: [u8; 3]| (0..colours.len()).min_by_key(|&i| distance(colours[i], colour)).unwrap_or(0);
        let nearest = counts.keys().map(|&colour| (colour, nearest(colour) as u8)).collect();
        Palette { colours, nearest }
    }

    /// The palette's number for each pixel of one of the pictures that the palette was made of.
    pub fn indices(&self, picture: &tiny_skia::Pixmap) -> Vec<u8> {
        colours(picture).map(|colour| self.nearest[&colour]).collect()
    }
}

fn colours(picture: &tiny_skia::Pixmap) -> impl Iterator<Item = [u8; 3]> {
    picture.pixels().iter().map(|pixel| [pixel.red(), pixel.green(), pixel.blue()])
}

/// Strokes and names of curves, in columns over the width of an area, 44 units a row.
pub fn legend(area: &Area, entries: &[(String, ShapeStyle)], columns: usize) -> Result<()> {
    let width = area.dim_in_pixel().0 as usize / columns;
    for (i, (name, pen)) in entries.iter().enumerate() {
        let (x, y) = ((i % columns * width) as i32, (22 + i / columns * 44) as i32);
        area.draw(&PathElement::new([(x, y), (x + 48, y)], pen.stroke_width(2 * pen.stroke_width)))?;
        area.draw(&Text::new(name.clone(), (x + 62, y), anchored(26, HPos::Left)))?;
    }
    Ok(())
}
