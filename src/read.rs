//! Options read from JSON values, with the place of what is wrong.
//!
//! Every option of every rule goes through here, so that a build for a browser holds one reader of each.

use std::fmt::{Display, Formatter};

use serde::de::value::StrDeserializer;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::Value;

use crate::error::Error;

/// What is wrong with a value, and where in it. One word, since each of many results may hold one.
#[derive(Debug)]
pub struct Misread(Box<Place>);

#[derive(Debug)]
struct Place {
    /// The fields and places that lead there, as `groups[1].lr`; empty for the value itself.
    path: String,
    /// What is wrong.
    message: String,
}

impl Misread {
    /// The same from one level above: of a field, or of a place in a list as `[1]`.
    pub fn inside(mut self, step: String) -> Self {
        let path = &mut self.0.path;
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = step + dot + path;
        self
    }

    /// The same as an error of a configuration, where `.` is the path of the whole.
    pub fn into_error(self) -> Error {
        let Place { path, message } = *self.0;
        let path = if path.is_empty() { ".".into() } else { path };
        Error::Config { path, message }
    }
}

impl Display for Misread {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match &self.0.path[..] {
            "" => f.write_str(&self.0.message),
            path => write!(f, "{path}: {}", self.0.message),
        }
    }
}

impl std::error::Error for Misread {}

impl serde::de::Error for Misread {
    fn custom<T: Display>(message: T) -> Self {
        Self(Box::new(Place { path: String::new(), message: message.to_string() }))
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unit => Self::custom(format_args!("invalid type: null, expected {expected}")),
            found => Self::custom(format_args!("invalid type: {found}, expected {expected}")),
        }
    }
}

/// Parses a JSON text. Of a field that stands in an object twice one would go unread, so it is an error.
///
/// # Errors
/// serde_json's, with line and column.
pub fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).map(|Parsed(value)| value)
}

struct Parsed(Value);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Parser).map(Self)
    }
}

struct Parser;

impl<'de> Visitor<'de> for Parser {
    type Value = Value;

    fn expecting(&self, f: &mut Formatter) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Parsed(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = serde_json::Map::new();
        while let Some((name, Parsed(value))) = object.next_entry::<String, _>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            fields.insert(name, value);
        }
        Ok(fields.into())
    }
}

/// Reads a value.
///
/// # Errors
/// [`Misread`] for a field that is missing, unknown, or of a wrong type.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Misread> {
    T::deserialize(Json(value))
}

/// A value to be read.
#[derive(Clone, Copy)]
pub struct Json<'a>(pub &'a Value);

impl Json<'_> {
    fn kind(&self) -> Unexpected<'_> {
        match self.0 {
            Value::Null => Unexpected::Unit,
            &Value::Bool(is) => Unexpected::Bool(is),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(whole), ..) => Unexpected::Unsigned(whole),
                (_, Some(whole), _) => Unexpected::Signed(whole),
                (.., number) => Unexpected::Float(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for Json<'_> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            Value::String(text) => visitor.visit_str(text),
            &Value::Bool(is) => visitor.visit_bool(is),
            Value::Null => visitor.visit_unit(),
            Value::Number(_) => match self.kind() {
                Unexpected::Unsigned(whole) => visitor.visit_u64(whole),
                Unexpected::Signed(whole) => visitor.visit_i64(whole),
                Unexpected::Float(number) => visitor.visit_f64(number),
                other => Err(Misread::invalid_type(other, &visitor)),
            },
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        let Value::Array(list) = self.0 else { return Err(Misread::invalid_type(self.kind(), &visitor)) };
        let mut items = Items(list.iter(), 0);
        let read = visitor.visit_seq(&mut items)?;
        match items.0.len() {
            0 => Ok(read),
            _ => Err(Misread::invalid_length(list.len(), &"fewer elements in array")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Object(fields) => visitor.visit_map(Fields(fields.iter(), None)),
            _ => Err(Misread::invalid_type(self.kind(), &visitor)),
        }
    }

    /// Fields have names: a list is no struct, and no code is made that reads it as one.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.deserialize_map(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misread> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Variant(name, None)),
            Value::Object(fields) => match fields.iter().next() {
                Some((name, content)) if fields.len() == 1 => visitor.visit_enum(Variant(name, Some(Json(content)))),
                _ => Err(Misread::invalid_value(Unexpected::Map, &"map with a single key")),
            },
            _ => Err(Misread::invalid_type(self.kind(), &"string or map")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple_struct identifier
    }
}

/// The elements of a list, and how many have been taken.
struct Items<'a>(std::slice::Iter<'a, Value>, usize);

impl<'de> SeqAccess<'de> for &mut Items<'_> {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misread> {
        let Some(value) = self.0.next() else { return Ok(None) };
        self.1 += 1;
        let place = self.1 - 1;
        seed.deserialize(Json(value)).map(Some).map_err(|error| error.inside(format!("[{place}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The fields of an object, and the one whose name was taken.
struct Fields<'a>(serde_json::map::Iter<'a>, Option<(&'a String, &'a Value)>);

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Misread;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misread> {
        self.1 = self.0.next();
        let Some((name, _)) = self.1 else { return Ok(None) };
        seed.deserialize(named(name)).map(Some).map_err(|error| error.inside(name.clone()))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misread> {
        match self.1.take() {
            Some((name, value)) => seed.deserialize(Json(value)).map_err(|error| error.inside(name.clone())),
            None => Err(Misread::custom("a value was asked for before its name")),
        }
    }
}

fn named(name: &str) -> StrDeserializer<'_, Misread> {
    name.into_deserializer()
}

/// A variant of an enum by its name, and what it holds.
struct Variant<'a>(&'a str, Option<Json<'a>>);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Misread;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Misread> {
        Ok((seed.deserialize(named(self.0))?, self))
    }
}

impl<'a> Variant<'a> {
    /// What it holds, which has to be of a kind.
    fn content(&self, is: fn(&Value) -> bool, kind: &'static str) -> Result<Json<'a>, Misread> {
        let found = match &self.1 {
            Some(content) if is(content.0) => return Ok(*content),
            Some(content) => content.kind(),
            None => Unexpected::UnitVariant,
        };
        Err(Misread::invalid_type(found, &kind))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Misread;

    fn unit_variant(self) -> Result<(), Misread> {
        let Some(content) = self.1 else { return Ok(()) };
        serde::Deserialize::deserialize(content).map_err(|error: Misread| error.inside(self.0.into()))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misread> {
        let content = self.content(|_| true, "newtype variant");
        content.and_then(|content| seed.deserialize(content)).map_err(|error| error.inside(self.0.into()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misread> {
        let content = self.content(Value::is_array, "tuple variant");
        content.and_then(|content| content.deserialize_seq(visitor)).map_err(|error| error.inside(self.0.into()))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Misread> {
        let content = self.content(Value::is_object, "struct variant");
        content.and_then(|content| content.deserialize_map(visitor)).map_err(|error| error.inside(self.0.into()))
    }
}
