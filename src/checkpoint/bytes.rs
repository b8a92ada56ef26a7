//! A checkpoint as bytes: safetensors, whose metadata hold what is not values of tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;

use crc::{CRC_32_ISCSI, Crc, Digest, Table};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::values::{Entry, Number, PART_BYTES};
use super::{Checkpoint, Head, VERSION, Values, wrong};
use crate::error::Result;
use crate::groups::Given;
use crate::read;

/// What the form of the bytes is called, before its version.
const FORMAT: &str = "wgpu-optim.checkpoint/";

/// The longest header that is read, in bytes: that of safetensors.
const HEADER_MAX: u64 = 100_000_000;

/// A table for many bytes at once is as many times larger, which pages would have to load.
type Bytes = Table<{ if cfg!(target_arch = "wasm32") { 1 } else { 16 } }>;

/// CRC-32C (Castagnoli et al. 1993).
pub(super) static CRC32C: Crc<u32, Bytes> = Crc::<u32, Bytes>::new(&CRC_32_ISCSI);

/// A checksum that is not finished.
pub(super) type Sum = Digest<'static, u32, Bytes>;

impl Checkpoint {
    /// The bytes of a file of it, for callers without files, as in a browser.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error) for a number that JSON does not hold, or for a file that has changed since
    /// it was loaded.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let io = |error: io::Error| wrong("metadata", error);
        let mut writer = Writer::new(Cursor::new(Vec::new()), &self.head, self.lines()).map_err(io)?;
        for entry in self.values.values() {
            let mut reader = entry.values.reader();
            while reader.rest() > 0 {
                writer.write(&reader.take(PART_BYTES)?).map_err(io)?;
            }
        }
        writer.finish().map(|out| std::mem::take(out).into_inner()).map_err(io)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made, or what a file holds, every byte checked.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error), naming what is wrong: the bytes are cut short, are of another or a later
    /// form, or hold a tensor whose checksum is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let keep = |number, start: u64, size: u64, _| {
            let start = start as usize;
            Values::parse(number, &bytes[start..start + size as usize])
        };
        read(&mut Cursor::new(bytes), bytes.len() as u64, keep, &mut |_, _| ())
    }

    /// What is in a file of it, in order.
    pub(super) fn lines(&self) -> Vec<Line> {
        let line = |(name, Entry { shape, values }): (&String, &Entry)| Line {
            name: name.clone(),
            shape: shape.clone(),
            number: values.number(),
            size_bytes: values.size_bytes(),
        };
        self.values.iter().map(line).collect()
    }
}

/// What a file says of a parameter or a slot, before its values are there.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) number: Number,
    pub(crate) size_bytes: u64,
}

#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
impl Line {
    /// Of values in f32.
    pub(crate) fn of_f32(name: String, shape: Vec<usize>) -> Self {
        let size_bytes = 4 * shape.iter().map(|&dim| dim as u64).product::<u64>();
        Self { name, shape, number: Number::F32, size_bytes }
    }
}

/// Writes a file whose values come in parts. Their checksums stand before them, so their place is left free until the
/// end.
pub(super) struct Writer<W> {
    out: W,
    version: u32,
    head: String,
    lines: Vec<Line>,
    sums: Vec<u32>,
    sum: Sum,
    /// Bytes of the line that is being written.
    in_line: u64,
    written: u64,
}

impl<W: Write + Seek> Writer<W> {
    pub(super) fn new(out: W, head: &Head, lines: Vec<Line>) -> io::Result<Self> {
        let (version, head) = (head.version, serde_json::to_value(head)?.to_string());
        let sum = CRC32C.digest();
        let mut writer = Self { out, version, head, lines, sums: vec![], sum, in_line: 0, written: 0 };
        writer.write_header()?;
        writer.end_lines();
        Ok(writer)
    }

    /// Writes the next values. They may end a parameter or slot, and not go beyond it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.sum.update(bytes);
        self.in_line += bytes.len() as u64;
        self.written += bytes.len() as u64;
        self.end_lines();
        Ok(())
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The bytes that all values have.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn expected(&self) -> u64 {
        self.lines.iter().map(|line| line.size_bytes).sum()
    }

    /// Writes the checksums to their place.
    pub(super) fn finish(&mut self) -> io::Result<&mut W> {
        if self.sums.len() != self.lines.len() {
            return Err(io::Error::other("values are missing"));
        }
        self.out.seek(SeekFrom::Start(0))?;
        self.write_header()?;
        self.out.flush()?;
        Ok(&mut self.out)
    }

    /// Ends the lines whose values are all there.
    fn end_lines(&mut self) {
        while self.lines.get(self.sums.len()).is_some_and(|line| line.size_bytes == self.in_line) {
            self.sums.push(std::mem::replace(&mut self.sum, CRC32C.digest()).finalize());
            self.in_line = 0;
        }
    }

    /// Writes the header, in which checksums that are not known yet are 0. All headers of a file are of one length.
    fn write_header(&mut self) -> io::Result<()> {
        let mut header = serde_json::Map::new();
        let mut sums = serde_json::Map::new();
        let mut end = 0;
        for (i, Line { name, shape, number, size_bytes }) in self.lines.iter().enumerate() {
            sums.insert(name.clone(), format!("{:08x}", self.sums.get(i).unwrap_or(&0)).into());
            let start = end;
            end += size_bytes;
            header.insert(name.clone(), json!({"dtype": number.name(), "shape": shape, "data_offsets": [start, end]}));
        }
        let (head, sums) = (&self.head, Value::from(sums).to_string());
        let of_head = of_metadata(head, &sums);
        let format = format!("{FORMAT}{}", self.version);
        let metadata = json!({"format": format, "training": head, "crc32c": sums, "crc32c_of_metadata": of_head});
        header.shift_insert(0, "__metadata__".into(), metadata);
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        self.out.write_all(&(header.len() as u64).to_le_bytes())?;
        self.out.write_all(&header)
    }
}

/// The checksum of the texts of the metadata, as they hold it.
fn of_metadata(head: &str, sums: &str) -> String {
    let mut sum = CRC32C.digest();
    sum.update(head.as_bytes());
    sum.update(sums.as_bytes());
    format!("{:08x}", sum.finalize())
}

/// The checkpoint that these bytes are, all of them checked. `keep` takes the values: what numbers they are, their
/// first byte, their bytes, and their checksum. Memory holds no more than the header and a part of the values, whatever
/// the header says.
pub(super) fn read(
    bytes: &mut impl Read,
    len: u64,
    mut keep: impl FnMut(Number, u64, u64, u32) -> Values,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Checkpoint> {
    let io = |error: io::Error| wrong("file", error);
    let short = |needed: u64| Err(wrong("file", format!("is cut short: {len} bytes of {needed}")));
    if len < 8 {
        return short(8);
    }
    let mut header_len = [0; 8];
    bytes.read_exact(&mut header_len).map_err(io)?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > HEADER_MAX {
        return Err(wrong("header", format!("is {header_len} bytes long, must be at most {HEADER_MAX}")));
    }
    if len - 8 < header_len {
        return short(header_len + 8);
    }
    let mut header = vec![0; header_len as usize];
    bytes.read_exact(&mut header).map_err(io)?;
    let header = String::from_utf8(header).map_err(|error| wrong("header", error))?;
    let Header { metadata, mut places } = serde_json::from_str(&header).map_err(|error| wrong("header", error))?;
    let Some(Fields(metadata)) = metadata else { return Err(wrong("__metadata__", "is missing")) };
    let text = |name: &str| match metadata.get(name) {
        Some(text) => Ok(&text[..]),
        None => Err(wrong(name, "is missing from __metadata__")),
    };
    let format = text("format")?;
    let version = format.strip_prefix(FORMAT).and_then(|version| version.parse().ok());
    let Some(version) = version.filter(|version| (1..=VERSION).contains(version)) else {
        return Err(wrong("format", format!("is {format}, must be {FORMAT}{VERSION} or an earlier version")));
    };
    let (head, sums) = (text("training")?, text("crc32c")?);
    if text("crc32c_of_metadata")? != of_metadata(head, sums) {
        return Err(wrong("metadata", "have another checksum"));
    }
    // By way of a value, as options are read, so that a small build holds one reader of each.
    let head = read::parse(head).map_err(|error| wrong("training", error))?;
    let head: Head = read::read(&head).map_err(|error| wrong("training", error))?;
    if head.version != version {
        return Err(wrong("version", format!("is {}, expected {version}, that of the format", head.version)));
    }
    let Fields(sums): Fields<String> = serde_json::from_str(sums).map_err(|error| wrong("crc32c", error))?;
    places.sort_by_key(|(_, place)| place.data_offsets);
    // All of the header is checked before values are read.
    let (first, mut end) = (8 + header_len, 0);
    let len = len - first;
    let mut checked = Vec::new();
    for (name, Place { dtype, shape, data_offsets: [start, to] }) in places {
        if start != end || to < start {
            return Err(wrong(name, format!("lies at bytes {start} to {to}, expected from {end} on")));
        }
        if to > len {
            return Err(wrong(name, format!("is cut short: ends at byte {to} of {len}")));
        }
        end = to;
        let size = to - start;
        let Some(number) = Number::named(&dtype).filter(|number| size.is_multiple_of(number.bytes() as u64)) else {
            return Err(wrong(name, format!("is {size} bytes of {dtype}")));
        };
        let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64));
        if elements != Some(size / number.bytes() as u64) {
            return Err(wrong(name, format!("has shape {shape:?} and {} values", size / number.bytes() as u64)));
        }
        checked.push((name, shape, number, start, size));
    }
    if end != len {
        return Err(wrong("file", format!("has {len} bytes of values, expected {end}")));
    }
    let mut values = BTreeMap::new();
    let mut part = vec![0; PART_BYTES.min(len as usize)];
    for (name, shape, number, start, size) in checked {
        let (mut sum, mut done) = (CRC32C.digest(), 0);
        while done < size {
            let part = &mut part[..(size - done).min(PART_BYTES as u64) as usize];
            bytes.read_exact(part).map_err(io)?;
            sum.update(part);
            done += part.len() as u64;
            progress(start + done, len);
        }
        let sum = sum.finalize();
        if sums.get(&name) != Some(&format!("{sum:08x}")) {
            return Err(wrong(name, "has another checksum"));
        }
        values.insert(name, Entry { shape, values: keep(number, first + start, size, sum) });
    }
    Ok(Checkpoint { head, values, given: Given::default() })
}

/// Where values lie.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// The header of a file, each name once.
struct Header {
    metadata: Option<Fields<String>>,
    places: Vec<(String, Place)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let (mut metadata, mut places) = (None, BTreeMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    let is_new = match &name[..] {
                        "__metadata__" => metadata.replace(map.next_value()?).is_none(),
                        _ => places.insert(name.clone(), map.next_value()?).is_none(),
                    };
                    if !is_new {
                        return Err(de::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Header { metadata, places: places.into_iter().collect() })
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// A JSON object, each field once.
struct Fields<T>(BTreeMap<String, T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Once<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Once<T> {
            type Value = Fields<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields<T>, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if fields.insert(name.clone(), value).is_some() {
                        return Err(de::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Once(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(super::CRC32C.checksum(b"123456789"), 0xe306_9283);
    }
}
