//! The pictures of docs/pictures, those that crates/pictures draws and the drawings of the documents: each is shown
//! somewhere, whole and small.

use std::fs;
use std::path::Path;

const PICTURES: [&str; 18] = [
    "burn_digits.svg",
    "burn_lora.svg",
    "burn_text.svg",
    "clipping.png",
    "convergence.png",
    "decay.png",
    "fewer_bits.png",
    "fit.png",
    "floors.svg",
    "hooks.svg",
    "idea.svg",
    "landscapes.gif",
    "landscapes.png",
    "learning_rates.png",
    "memory.png",
    "schedules.png",
    "step.svg",
    "steps.png",
];

/// The most bytes of a picture.
const PNG_LIMIT: usize = 200_000;
const SVG_LIMIT: usize = 20_000;
const GIF_LIMIT: usize = 1_000_000;

#[test]
fn the_pictures_are_there_and_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<String> = fs::read_dir(root.join("docs/pictures"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, PICTURES, "docs/pictures; `cargo xtask pictures` draws them");

    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "docs/pictures.md",
        "docs/steps-to-loss.md",
        "crates/wgpu-optim-burn/README.md",
    ];
    let documents = documents.map(|name| fs::read_to_string(root.join(name)).unwrap());
    for name in PICTURES {
        let bytes = fs::read(root.join("docs/pictures").join(name)).unwrap();
        let (start, end, limit) = match Path::new(name).extension().and_then(|end| end.to_str()) {
            Some("gif") => (&b"GIF89a"[..], &b";"[..], GIF_LIMIT),
            Some("svg") => (&b"<svg "[..], &b"</svg>\n"[..], SVG_LIMIT),
            _ => (&b"\x89PNG\r\n\x1a\n"[..], &b"IEND\xaeB`\x82"[..], PNG_LIMIT),
        };
        assert!(bytes.starts_with(start) && bytes.ends_with(end), "{name} is no picture, or cut short");
        assert!(bytes.len() <= limit, "{name} has {} bytes, more than {limit}", bytes.len());
        let shown = |text: &String| text.contains(&format!("pictures/{name})"));
        assert!(documents.iter().any(shown), "no document shows {name}");
    }
}
