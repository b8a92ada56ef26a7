//! A checkpoint as bytes: safetensors, whose metadata hold what is not values of tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use crc::{CRC_32_ISCSI, Crc};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::{Checkpoint, Entry, Head, Values, wrong};
use crate::error::Result;
use crate::groups::Given;
use crate::read::read;

/// The form of the bytes. A change that older readers cannot read makes another number.
const FORMAT: &str = "wgpu-optim.checkpoint/1";

/// The longest header that is read, in bytes: that of safetensors.
const HEADER_MAX: u64 = 100_000_000;

impl Checkpoint {
    /// The bytes of a file of it, for callers without files, as in a browser.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error) for a number that JSON does not hold.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).map_err(|error| wrong("metadata", error))?;
        Ok(bytes)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made, or what a file holds, every byte checked.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error), naming what is wrong: the bytes are cut short, are of another or a later
    /// form, or hold a tensor whose checksum is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        parse(bytes)
    }

    pub(super) fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
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
        let (head, sums) = (serde_json::to_value(&self.head)?.to_string(), serde_json::to_value(&sums)?.to_string());
        let of_head = format!("{:08x}", crc32c(format!("{head}{sums}").as_bytes()));
        let metadata = json!({"format": FORMAT, "training": head, "crc32c": sums, "crc32c_of_metadata": of_head});
        header.shift_insert(0, "__metadata__".into(), metadata);
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        self.values.values().try_for_each(|Entry { values, .. }| out.write_all(values.bytes()))
    }
}

/// The checkpoint that these bytes are. No more memory is taken than they are long, but for the header's.
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
    // By way of a value, as options are read, so that a small build holds one reader of each.
    let head: Value = serde_json::from_str(head).map_err(|error| wrong("training", error))?;
    let head: Head = read(&head).map_err(|error| wrong("training", error))?;
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

/// Where values lie.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// A JSON object, each field once.
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

/// The CRC-32C of these bytes (Castagnoli et al. 1993).
fn crc32c(bytes: &[u8]) -> u32 {
    static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC.checksum(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
