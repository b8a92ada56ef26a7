//! What JavaScript hands in: tensors, options, buffers. Each mistake is named by its place.

use js_sys::{Array, JSON, Object, Reflect};
use wasm_bindgen::prelude::*;
use wgpu_optim::wgpu::{Buffer, GPUBuffer};
use wgpu_optim::{DType, Error, Slice, TensorSpec};

use crate::{Result, thrown};

/// A value as JSON. `name` stands for it in errors.
pub(crate) fn json(name: &str, value: &JsValue) -> Result<String> {
    let text = JSON::stringify(value).ok().and_then(|text| text.as_string());
    text.ok_or_else(|| thrown(format!("{name} is no value that JSON can hold")))
}

fn get(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

/// Refuses fields of an object that are none of these.
fn check_fields(what: &str, object: &Object, known: &[&str]) -> Result<()> {
    for name in Object::keys(object).iter().filter_map(|name| name.as_string()) {
        if !known.contains(&&name[..]) {
            return Err(thrown(format!("{what}: unknown field {name}, expected one of {}", known.join(", "))));
        }
    }
    Ok(())
}

/// A whole number of JavaScript.
fn whole(what: &str, value: &JsValue) -> Result<u64> {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(&number) => Ok(number as u64),
        _ => Err(thrown(format!("{what} is {}, must be a whole number of at least 0", text(value)))),
    }
}

/// A value as people write it.
pub(crate) fn text(value: &JsValue) -> String {
    let text = JSON::stringify(value).ok().and_then(|text| text.as_string());
    text.unwrap_or_else(|| format!("{value:?}"))
}

/// The tensors of a list of `{name, shape, gradDType}`.
pub(crate) fn tensors(list: &Array) -> Result<Vec<TensorSpec>> {
    let tensor = |(i, value): (usize, JsValue)| {
        let what = format!("tensors[{i}]");
        let Some(object) = value.dyn_ref::<Object>() else {
            return Err(thrown(format!("{what} is {}, must be {{name, shape}}", text(&value))));
        };
        check_fields(&what, object, &["name", "shape", "gradDType"])?;
        let Some(name) = get(object, "name").as_string() else {
            return Err(thrown(format!("{what}.name is {}, must be a string", text(&get(object, "name")))));
        };
        let shape = get(object, "shape");
        if !Array::is_array(&shape) {
            return Err(thrown(format!("{what}.shape is {}, must be a list of whole numbers", text(&shape))));
        }
        let dim = |dim: JsValue| {
            let number = whole(&format!("{what}.shape"), &dim)?;
            usize::try_from(number).map_err(|_| thrown(format!("{what}.shape has {number}, must be below 2^32")))
        };
        let shape = Array::from(&shape).iter().map(dim).collect::<Result<Vec<_>>>()?;
        let spec = TensorSpec::f32(name, shape);
        match get(object, "gradDType") {
            format if format.is_undefined() || format == "f32" => Ok(spec),
            format if format == "f16" => Ok(spec.with_grad_dtype(DType::F16)),
            format => Err(thrown(format!("{what}.gradDType is {}, must be \"f32\" or \"f16\"", text(&format)))),
        }
    };
    list.iter().enumerate().map(tensor).collect()
}

/// What a list of buffers holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Param,
    Grad,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Param => "parameter",
            Self::Grad => "gradient",
        }
    }
}

/// A list of buffers, one a tensor; none where there is no value for it.
pub(crate) struct Given {
    kind: Kind,
    places: Vec<Option<(Buffer, u64, u64)>>,
}

impl Given {
    pub(crate) fn new(list: &Array, kind: Kind, tensors: &[TensorSpec]) -> Result<Self> {
        if list.length() as usize != tensors.len() {
            let what = if kind == Kind::Param { "parameters" } else { "gradients" };
            return Err(thrown(Error::Count { what, found: list.length() as usize, expected: tensors.len() }));
        }
        let places =
            list.iter().zip(tensors).map(|(value, tensor)| place(&value, kind, tensor)).collect::<Result<_>>()?;
        Ok(Self { kind, places })
    }

    pub(crate) fn slices(&self) -> Vec<Option<Slice<'_>>> {
        let places = self.places.iter().map(Option::as_ref);
        places.map(|place| place.map(|(buffer, offset, size)| Slice::new(buffer, *offset, *size))).collect()
    }

    /// What each buffer holds, and of the tensor in which place.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, usize, &Buffer)> {
        let buffers = self.places.iter().enumerate().filter_map(|(i, place)| Some((i, &place.as_ref()?.0)));
        buffers.map(|(i, buffer)| (self.kind.name(), i, buffer))
    }
}

/// A `GPUBuffer`, which is a tensor's values from end to end, or a part of one.
fn place(value: &JsValue, kind: Kind, tensor: &TensorSpec) -> Result<Option<(Buffer, u64, u64)>> {
    if value.is_null() || value.is_undefined() {
        return Ok(None);
    }
    if let Some(buffer) = value.dyn_ref::<GPUBuffer>() {
        let buffer = Buffer::of(buffer.clone());
        let size = buffer.size();
        return Ok(Some((buffer, 0, size)));
    }
    let what = format!("{} of tensor {}", kind.name(), tensor.name);
    let part = value.dyn_ref::<Object>().map(|object| (object, get(object, "buffer")));
    let Some((object, buffer)) = part.filter(|(_, buffer)| buffer.has_type::<GPUBuffer>()) else {
        return Err(thrown(format!("{what} is {}, must be a GPUBuffer or {{buffer, offset, size}}", text(value))));
    };
    check_fields(&what, object, &["buffer", "offset", "size"])?;
    let number = |name: &str, default: u64| match get(object, name) {
        value if value.is_undefined() => Ok(default),
        value => whole(&format!("{what}: {name}"), &value),
    };
    let bytes = if kind == Kind::Param { tensor.size_bytes() } else { tensor.grad_size_bytes() };
    Ok(Some((Buffer::of(buffer.unchecked_into()), number("offset", 0)?, number("size", bytes)?)))
}
