//! Buffers: those of JavaScript, and those that are made here.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::ops::{Deref, RangeFull};
use std::rc::Rc;

use js_sys::{ArrayBuffer, Promise, Uint8Array, WeakMap};
use wasm_bindgen::prelude::*;

use crate::js::GPUBuffer;
use crate::{BindingResource, BufferBinding, BufferUsages, Error, MapMode, wait};

/// A buffer. Clones are the same buffer; it is known by JavaScript's object.
#[derive(Clone, Debug)]
pub struct Buffer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    js: GPUBuffer,
    id: u32,
    size: u64,
    usage: BufferUsages,
    /// Whether it goes with the last clone.
    is_owned: bool,
    /// What is mapped: JavaScript gives it out once.
    mapped: RefCell<Option<ArrayBuffer>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_owned {
            self.js.destroy();
        }
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Buffer {}

impl Hash for Buffer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

/// The number of a JavaScript object, the same for as long as the object is there.
fn number_of(object: &JsValue) -> u32 {
    thread_local! {
        static NUMBERS: WeakMap = WeakMap::new();
        static NEXT: Cell<u32> = const { Cell::new(0) };
    }
    NUMBERS.with(|numbers| {
        let object = object.unchecked_ref();
        if let Some(number) = numbers.get(object).as_f64() {
            return number as u32;
        }
        let number = NEXT.replace(NEXT.get().wrapping_add(1));
        numbers.set(object, &number.into());
        number
    })
}

impl Buffer {
    /// A buffer that JavaScript owns, which nothing here destroys.
    pub fn of(js: GPUBuffer) -> Self {
        Self::build(js, false)
    }

    pub(crate) fn owned(js: GPUBuffer) -> Self {
        Self::build(js, true)
    }

    fn build(js: GPUBuffer, is_owned: bool) -> Self {
        let (size, usage) = (js.size() as u64, BufferUsages::from_bits_retain(js.usage()));
        Self(Rc::new(Inner { id: number_of(&js), js, size, usage, is_owned, mapped: RefCell::default() }))
    }

    /// JavaScript's object.
    pub fn js(&self) -> &GPUBuffer {
        &self.0.js
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// What it may be used for.
    pub fn usage(&self) -> BufferUsages {
        self.0.usage
    }

    /// All of it, to be bound.
    pub fn as_entire_buffer_binding(&self) -> BufferBinding<'_> {
        BufferBinding { buffer: self, offset: 0, size: None }
    }

    /// All of it, to be bound.
    pub fn as_entire_binding(&self) -> BindingResource<'_> {
        BindingResource::Buffer(self.as_entire_buffer_binding())
    }

    /// All of it, to be mapped.
    pub fn slice(&self, _: RangeFull) -> BufferSlice<'_> {
        BufferSlice(self)
    }

    /// Gives it back to the device.
    pub fn unmap(&self) {
        *self.0.mapped.borrow_mut() = None;
        self.0.js.unmap();
    }

    /// Destroys it now, whoever holds it.
    pub fn destroy(&self) {
        self.0.js.destroy();
    }

    /// The promise of its mapping.
    pub(crate) fn map_promise(&self) -> Promise {
        self.0.js.map_async(MAP_READ)
    }
}

/// `GPUMapMode.READ`.
const MAP_READ: u32 = 1;

/// A buffer to be mapped.
#[derive(Clone, Copy, Debug)]
pub struct BufferSlice<'a>(&'a Buffer);

impl BufferSlice<'_> {
    /// Maps it once the work on it is done.
    pub fn map_async(&self, _: MapMode, tell: impl FnOnce(Result<(), Error>) + 'static) {
        let (buffer, promise) = (self.0.clone(), self.0.map_promise());
        wasm_bindgen_futures::spawn_local(async move {
            let mapped = wait(promise).await.map(|_| ());
            drop(buffer);
            tell(mapped);
        });
    }

    /// The bytes of a mapped buffer.
    pub fn get_mapped_range(&self) -> Result<BufferView, Error> {
        let Inner { js, mapped, .. } = &*self.0.0;
        let mut mapped = mapped.borrow_mut();
        let range = match &*mapped {
            Some(range) => range,
            None => mapped.insert(js.get_mapped_range().map_err(|error| Error::of(&error))?),
        };
        Ok(BufferView(Uint8Array::new(range).to_vec()))
    }
}

/// Bytes of a mapped buffer.
#[derive(Debug)]
pub struct BufferView(Vec<u8>);

impl Deref for BufferView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
