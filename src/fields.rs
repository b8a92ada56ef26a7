//! Structs of options whose fields are known by their names, so that one reader and one writer of JSON serve them all.

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Serialize;
use serde_json::{Map, Value};

use crate::read::{Misread, read};

/// What a field holds.
pub trait Field {
    /// Takes the value from JSON.
    ///
    /// # Errors
    /// [`Misread`] for a wrong type. The field keeps its value then.
    fn set(&mut self, value: &Value) -> Result<(), Misread>;
    /// The value in JSON.
    fn value(&self) -> Value;
}

impl<T: Serialize + DeserializeOwned> Field for T {
    fn set(&mut self, value: &Value) -> Result<(), Misread> {
        *self = read(value)?;
        Ok(())
    }
    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// A struct of options. [`fields!`](crate::rule::fields) implements it.
pub trait Fields {
    /// The names of all fields, in the order of JSON.
    fn field_names(&self) -> &'static [&'static str];
    /// The field of that name.
    fn field(&mut self, name: &str) -> Option<&mut dyn Field>;
}

impl dyn Fields + '_ {
    /// All fields in JSON.
    pub fn values(&mut self) -> Map<String, Value> {
        let names = self.field_names().iter();
        names.filter_map(|&name| self.field(name).map(|field| (name.to_owned(), field.value()))).collect()
    }

    /// Takes these fields from JSON; the others keep their values.
    ///
    /// # Errors
    /// [`Misread`] for a field that is unknown or of a wrong type.
    pub fn set(&mut self, values: &Map<String, Value>) -> Result<(), Misread> {
        let names = self.field_names();
        for &name in names {
            if let (Some(field), Some(value)) = (self.field(name), values.get(name)) {
                field.set(value).map_err(|error| error.inside(name.into()))?;
            }
        }
        match values.keys().find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(Misread::unknown_field(name, names).inside(name.clone())),
            None => Ok(()),
        }
    }
}
