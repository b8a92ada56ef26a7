//! Frames to an animated GIF.

use resvg::tiny_skia::Pixmap;
use wgpu_optim_pictures::draw::{Palette, Result};

/// Frames of one size, each shown so many hundredths of a second and the last one for three seconds, again and again.
/// After the first frame, each holds only what differs from the one before.
pub fn gif(frames: &[Pixmap], hundredths: u16) -> Result<Vec<u8>> {
    let (first, last) = frames.first().zip(frames.last()).ok_or("no frames")?;
    let [width, height] = [first.width(), first.height()].map(u16::try_from).map(|side| side.unwrap_or(u16::MAX));
    let palette = Palette::of(frames);
    let transparent = palette.colours.len() as u8;
    let colours = [palette.colours.as_flattened(), &[0; 3]].concat();
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &colours)?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    let mut before: Option<Vec<u8>> = None;
    for frame in frames {
        let now = palette.indices(frame);
        let changed = match &before {
            Some(before) => {
                now.iter().zip(before).map(|(&now, &then)| if now == then { transparent } else { now }).collect()
            }
            None => now.clone(),
        };
        encoder.write_frame(&gif::Frame {
            delay: if std::ptr::eq(frame, last) { 300 } else { hundredths },
            dispose: gif::DisposalMethod::Keep,
            transparent: Some(transparent),
            width,
            height,
            buffer: changed.into(),
            ..gif::Frame::default()
        })?;
        before = Some(now);
    }
    drop(encoder);
    Ok(bytes)
}
