//! Labelled images: the handwritten digits that come with the examples, or the IDX files of MNIST.

use super::Result;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use std::{fs, path::Path};

/// Images and their labels, the training images first.
pub struct Data {
    /// The images, one after the other, of `inputs` bytes each; 0 is paper.
    pub pixels: Vec<u8>,
    /// A label for each image, below 10.
    pub labels: Vec<u8>,
    /// How many pixels an image has.
    pub inputs: usize,
    /// The value of a pixel that is all ink.
    pub ink: u8,
    /// How many images train; the others test.
    pub train: usize,
}

/// The 1797 digits of `examples/data/digits.csv`, a fifth of them for testing.
pub fn digits() -> Result<Data> {
    let mut rows = include_str!("../data/digits.csv")
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(str::parse).collect())
        .collect::<std::result::Result<Vec<Vec<u8>>, _>>()?;
    // The file is ordered by writer, so the images are permuted, and always in the same way: every run is tested on the
    // same ones.
    rows.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(0));
    Ok(Data {
        pixels: rows.iter().flat_map(|row| row[..64].to_vec()).collect(),
        labels: rows.iter().map(|row| row[64]).collect(),
        inputs: 64,
        ink: 16,
        train: rows.len() - rows.len() / 5,
    })
}

/// The four files of MNIST, or of a set in its format, unpacked in the folder `dir`.
pub fn mnist(dir: &Path) -> Result<Data> {
    let (shape, mut pixels, mut labels) = labelled_images(dir, "train")?;
    let (test_shape, test_pixels, test_labels) = labelled_images(dir, "t10k")?;
    if shape != test_shape {
        let ([a, b], [c, d]) = (shape, test_shape);
        return Err(format!("the training images have {a} x {b} pixels, the test images {c} x {d}").into());
    }
    let train = labels.len();
    pixels.extend(test_pixels);
    labels.extend(test_labels);
    Ok(Data { pixels, labels, inputs: shape[0] * shape[1], ink: 255, train })
}

/// Rows and columns of an image, all pixels, all labels.
fn labelled_images(dir: &Path, part: &str) -> Result<([usize; 2], Vec<u8>, Vec<u8>)> {
    let images_path = dir.join(format!("{part}-images-idx3-ubyte"));
    let labels_path = dir.join(format!("{part}-labels-idx1-ubyte"));
    let ([len, rows, columns], pixels) = idx(&images_path)?;
    let ([len_labels], labels) = idx(&labels_path)?;
    let (images_path, labels_path) = (images_path.display(), labels_path.display());
    if len != len_labels {
        return Err(format!("{images_path} holds {len} images, {labels_path} {len_labels} labels").into());
    }
    if pixels.is_empty() {
        return Err(
            format!("{images_path} holds {len} images of {rows} x {columns} pixels: nothing to learn from").into()
        );
    }
    if let Some(i) = labels.iter().position(|&label| label > 9) {
        return Err(format!("{labels_path}: label {i} is {}, must be at most 9", labels[i]).into());
    }
    Ok(([rows, columns], pixels, labels))
}

/// Reads an IDX file of bytes: a magic number that holds the number of dimensions, the dimensions, the bytes
/// (all numbers big-endian 32-bit).
fn idx<const DIMENSIONS: usize>(path: &Path) -> Result<([usize; DIMENSIONS], Vec<u8>)> {
    let name = path.display();
    let mut bytes = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(format!("{name} is compressed: unpack it with gunzip").into());
    }
    let header = 4 + 4 * DIMENSIONS;
    if bytes.len() < header {
        return Err(format!("{name} is cut short: {} bytes, its header alone takes {header}", bytes.len()).into());
    }
    let number = |i: usize| u32::from_be_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]);
    let (magic, want) = (number(0), 0x0800 + DIMENSIONS as u32);
    if magic != want {
        return Err(format!("{name} starts with 0x{magic:08x}, must start with 0x{want:08x}").into());
    }
    let shape: [usize; DIMENSIONS] = std::array::from_fn(|i| number(i + 1) as usize);
    let body = bytes.split_off(header);
    let size_bytes = shape.iter().try_fold(1usize, |size, &dimension| size.checked_mul(dimension));
    if size_bytes != Some(body.len()) {
        let short = if size_bytes.is_none_or(|size| size > body.len()) { "is cut short" } else { "is too long" };
        return Err(format!("{name} {short}: its header announces {shape:?} bytes, it holds {}", body.len()).into());
    }
    Ok((shape, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx_bytes(dimensions: &[u32], body: &[u8]) -> Vec<u8> {
        let magic = 0x0800 + dimensions.len() as u32;
        let header = std::iter::once(&magic).chain(dimensions);
        header.flat_map(|number| number.to_be_bytes()).chain(body.iter().copied()).collect()
    }

    /// Writes three training images and one test image of 2 x 3 pixels, where `(file, bytes)` replaces a file.
    fn read(replace: Option<(&str, Vec<u8>)>) -> Result<Data> {
        let dir = tempfile::tempdir()?;
        let body: Vec<u8> = (0..18).collect();
        fs::write(dir.path().join("train-images-idx3-ubyte"), idx_bytes(&[3, 2, 3], &body))?;
        fs::write(dir.path().join("train-labels-idx1-ubyte"), idx_bytes(&[3], &[7, 0, 9]))?;
        fs::write(dir.path().join("t10k-images-idx3-ubyte"), idx_bytes(&[1, 2, 3], &[255; 6]))?;
        fs::write(dir.path().join("t10k-labels-idx1-ubyte"), idx_bytes(&[1], &[4]))?;
        if let Some((file, bytes)) = replace {
            fs::write(dir.path().join(file), bytes)?;
        }
        mnist(dir.path())
    }

    #[test]
    fn reads_idx_files() {
        let data = read(None).unwrap();
        assert_eq!((data.inputs, data.train, data.ink), (6, 3, 255));
        assert_eq!(data.labels, [7, 0, 9, 4]);
        assert_eq!(data.pixels[..18], (0..18).collect::<Vec<u8>>());
        assert_eq!(data.pixels[18..], [255; 6]);
    }

    #[test]
    fn says_what_is_wrong_with_an_idx_file() {
        let images = "train-images-idx3-ubyte";
        let labels = "t10k-labels-idx1-ubyte";
        let good = idx_bytes(&[3, 2, 3], &[0; 18]);
        for (file, bytes, want) in [
            (images, idx_bytes(&[3], &[1, 2, 3]), "is cut short: 11 bytes, its header alone takes 16"),
            (images, idx_bytes(&[18], &[0; 18]), "starts with 0x00000801, must start with 0x00000803"),
            (images, good[..33].to_vec(), "is cut short: its header announces [3, 2, 3] bytes, it holds 17"),
            (images, [good, vec![0]].concat(), "is too long: its header announces [3, 2, 3] bytes, it holds 19"),
            (images, idx_bytes(&[u32::MAX; 3], &[]), "is cut short"),
            (images, idx_bytes(&[2, 2, 3], &[0; 12]), "holds 2 images"),
            (images, idx_bytes(&[3, 2, 2], &[0; 12]), "have 2 x 2 pixels, the test images 2 x 3"),
            (images, vec![0x1f, 0x8b, 8, 0], "is compressed"),
            (labels, idx_bytes(&[1], &[10]), "label 0 is 10, must be at most 9"),
            (labels, vec![], "is cut short: 0 bytes"),
        ] {
            let error = read(Some((file, bytes))).err().expect(want).to_string();
            assert!(error.contains(want), "{error:?} does not say {want:?}");
        }
    }

    #[test]
    fn names_a_missing_file() {
        let error = mnist(Path::new("no/such/folder")).err().unwrap().to_string();
        assert!(error.contains("train-images-idx3-ubyte"), "{error}");
    }

    #[test]
    fn holds_out_a_fifth_of_the_digits() {
        let data = digits().unwrap();
        assert_eq!((data.labels.len(), data.train, data.pixels.len()), (1797, 1438, 1797 * 64));
        assert!(data.pixels.iter().all(|&pixel| pixel <= data.ink) && data.labels.iter().all(|&label| label < 10));
    }
}
