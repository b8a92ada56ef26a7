//! A checkpoint as a file: safetensors, whose metadata hold what is not values of tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc, Table};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::{Checkpoint, Entry, Head, Values, wrong};
use crate::error::{Error, Result};
use crate::groups::Given;

/// The format of the file. A change that older readers cannot read takes another number.
const FORMAT: &str = "wgpu-optim.checkpoint/1";

/// The longest header that is read, in bytes: that of safetensors.
const HEADER_MAX: u64 = 100_000_000;

impl Checkpoint {
    /// Writes a file that holds either all of it or what was there before: under another name in the same folder,
    /// synced, then renamed. What was there before stays beside it, as [`previous`](Self::previous) names it.
    ///
    /// # Errors
    /// [`Error::File`], naming the path. The file is as it was then.
    pub fn save_to(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // This may overwrite what a process that was killed left here.
        let temporary = path.with_file_name(format!(".{name}.tmp"));
        let written = self.write(&temporary).and_then(|()| {
            let previous = Self::previous(path);
            if path.exists() {
                // A hard link keeps the old file in its place until the new one takes it.
                if previous.exists() {
                    fs::remove_file(&previous)?;
                }
                fs::hard_link(path, &previous).or_else(|_| fs::rename(path, &previous))?;
            }
            fs::rename(&temporary, path)?;
            sync_folder(path)
        });
        written.map_err(|error| {
            fs::remove_file(&temporary).ok();
            in_file(path, error)
        })
    }

    /// Reads what [`save_to`](Self::save_to) wrote, every byte checked.
    ///
    /// # Errors
    /// [`Error::File`], naming the path and what is wrong with it: it cannot be read, is cut short, is of another or a
    /// later form, or holds a tensor whose checksum is wrong.
    pub fn load_from(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| in_file(path, error))?;
        parse(&bytes).map_err(|error| in_file(path, error))
    }

    /// Where [`save_to`](Self::save_to) keeps the file that was there before: `a.previous.safetensors` beside
    /// `a.safetensors`.
    pub fn previous(path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match path.extension() {
            Some(extension) => path.with_extension(format!("previous.{}", extension.to_string_lossy())),
            None => path.with_extension("previous"),
        }
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        let mut sums = BTreeMap::new();
        for (name, Entry { shape, values }) in &self.values {
            let bytes = values.bytes();
            sums.insert(name, format!("{:08x}", crc32c(bytes)));
            let (start, dtype) = (end, values.dtype().to_uppercase());
            end += bytes.len();
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
        }
        let (head, sums) = (serde_json::to_string(&self.head)?, serde_json::to_string(&sums)?);
        let of_head = format!("{:08x}", crc32c(format!("{head}{sums}").as_bytes()));
        let metadata = json!({"format": FORMAT, "training": head, "crc32c": sums, "crc32c_of_metadata": of_head});
        header.shift_insert(0, "__metadata__".into(), metadata);
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for Entry { values, .. } in self.values.values() {
            file.write_all(values.bytes())?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Reads a checkpoint from these bytes. It takes no more memory than they do, apart from what the header needs.
fn parse(bytes: &[u8]) -> Result<Checkpoint> {
    let short = |found: usize, needed: u64| wrong("file", format!("is cut short: {found} bytes of {needed}"));
    let Some((len, rest)) = bytes.split_first_chunk() else { return Err(short(bytes.len(), 8)) };
    let len = u64::from_le_bytes(*len);
    if len > HEADER_MAX {
        return Err(wrong("header", format!("is {len} bytes long, must be at most {HEADER_MAX}")));
    }
    let Some((header, data)) = rest.split_at_checked(len as usize) else {
        return Err(short(bytes.len(), len.saturating_add(8)));
    };
    let Fields(mut fields) = serde_json::from_slice(header).map_err(|error| wrong("header", error))?;
    let Some(metadata) = fields.remove("__metadata__") else { return Err(wrong("__metadata__", "is missing")) };
    let text = |name: &str| match metadata.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => Err(wrong(name, "is missing from __metadata__")),
    };
    if text("format")? != FORMAT {
        return Err(wrong("format", format!("is {}, must be {FORMAT}", text("format")?)));
    }
    let (head, sums) = (text("training")?, text("crc32c")?);
    if text("crc32c_of_metadata")? != format!("{:08x}", crc32c(format!("{head}{sums}").as_bytes())) {
        return Err(wrong("metadata", "have another checksum"));
    }
    let head: Head = serde_json::from_str(head).map_err(|error| wrong("training", error))?;
    let Fields(sums) = serde_json::from_str(sums).map_err(|error| wrong("crc32c", error))?;
    let mut places = Vec::new();
    for (name, value) in fields {
        let place: Place = serde_json::from_value(value).map_err(|error| wrong(&name, error))?;
        places.push((place.data_offsets, name, place));
    }
    places.sort_by_key(|(offsets, ..)| *offsets);
    let mut end = 0;
    let mut values = BTreeMap::new();
    for ([start, to], name, place) in places {
        if start != end || to < start {
            return Err(wrong(name, format!("lies at bytes {start} to {to}, expected from {end} on")));
        }
        end = to;
        let range = usize::try_from(start).ok().zip(usize::try_from(to).ok());
        let Some(bytes) = range.and_then(|(start, to)| data.get(start..to)) else {
            return Err(wrong(name, format!("is cut short: ends at byte {to} of {}", data.len())));
        };
        let Some(of) = Values::parse(&place.dtype, bytes) else {
            return Err(wrong(name, format!("is {} bytes of {}", bytes.len(), place.dtype)));
        };
        let elements = place.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if elements != Some(of.len()) {
            return Err(wrong(name, format!("has shape {:?} and {} values", place.shape, of.len())));
        }
        if sums.get(&name).and_then(Value::as_str) != Some(&format!("{:08x}", crc32c(bytes))) {
            return Err(wrong(name, "has another checksum"));
        }
        values.insert(name, Entry { shape: place.shape, values: of });
    }
    if end != data.len() as u64 {
        return Err(wrong("file", format!("has {} bytes of values, expected {end}", data.len())));
    }
    Ok(Checkpoint { head, values, given: Given::default() })
}

/// Where the values of a tensor lie in the file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// A JSON object that is refused where a field stands twice.
struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.insert(name.clone(), value).is_some() {
                        return Err(de::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// Syncs a folder, so that a rename in it lasts, on systems where folders can be synced.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn in_file(path: &Path, error: impl fmt::Display) -> Error {
    Error::File { path: path.display().to_string(), message: error.to_string() }
}

/// The CRC-32C of these bytes (Castagnoli et al. 1993).
fn crc32c(bytes: &[u8]) -> u32 {
    static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
    CRC.checksum(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
