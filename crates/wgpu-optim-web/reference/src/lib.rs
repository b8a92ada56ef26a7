//! The CPU reference of wgpu-optim, for tests that compare a browser's GPU with it bit by bit.

use js_sys::{Array, Float32Array, Object, Reflect};
use ndarray::ArrayD;
use wasm_bindgen::prelude::*;
use wgpu_optim::{Config, Init, TensorSpec, rules};

/// The names of all optimizers.
#[wasm_bindgen]
pub fn rules() -> Vec<String> {
    rules::ALL.iter().map(|entry| entry.name.to_string()).collect()
}

/// The initial values of a tensor of rank 1.
#[wasm_bindgen]
pub fn fill(init: &str, tensor: &str, len: usize, seed: u32) -> Result<Vec<f32>, JsError> {
    let init = Init::from_json(init).map_err(thrown)?;
    init.fill(&TensorSpec::f32(tensor, [len]), seed.into()).map_err(thrown)
}

/// An optimizer on the CPU, with its parameters.
#[wasm_bindgen]
pub struct Reference {
    tensors: Vec<TensorSpec>,
    inner: wgpu_optim::Reference<f32>,
    params: Vec<ArrayD<f32>>,
}

fn thrown(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

fn values(tensor: &TensorSpec, values: &JsValue) -> Result<ArrayD<f32>, JsError> {
    let values = values.unchecked_ref::<Float32Array>().to_vec();
    ArrayD::from_shape_vec(&tensor.shape[..], values).map_err(thrown)
}

#[wasm_bindgen]
impl Reference {
    /// An optimizer of this configuration, as JSON, for tensors of these names and shapes with these values.
    #[wasm_bindgen(constructor)]
    pub fn new(config: &str, tensors: Array, params: Array) -> Result<Self, JsError> {
        let spec = |tensor: JsValue| {
            let get = |name: &str| Reflect::get(tensor.unchecked_ref::<Object>(), &name.into()).unwrap_or_default();
            let shape: Vec<usize> = get("shape")
                .unchecked_into::<Array>()
                .iter()
                .filter_map(|dim| dim.as_f64())
                .map(|dim| dim as usize)
                .collect();
            TensorSpec::f32(get("name").as_string().unwrap_or_default(), shape)
        };
        let tensors: Vec<TensorSpec> = tensors.iter().map(spec).collect();
        let config = Config::from_json(config).map_err(thrown)?;
        let inner = wgpu_optim::Reference::new(&config, &tensors).map_err(thrown)?;
        let params = tensors
            .iter()
            .zip(params.iter())
            .map(|(tensor, param)| values(tensor, &param))
            .collect::<Result<_, _>>()?;
        Ok(Self { tensors, inner, params })
    }

    /// Steps by these gradients, after a look-ahead where the rule needs one.
    pub fn step(&mut self, grads: Array) -> Result<(), JsError> {
        let grads: Vec<_> = self
            .tensors
            .iter()
            .zip(grads.iter())
            .map(|(tensor, grad)| values(tensor, &grad).map(Some))
            .collect::<Result<_, _>>()?;
        if self.inner.needs_look_ahead() {
            self.inner.look_ahead(&mut self.params).map_err(thrown)?;
        }
        self.inner.step(&mut self.params, &grads).map_err(thrown)
    }

    /// The values of a parameter, by its place.
    pub fn param(&self, place: usize) -> Vec<f32> {
        self.params[place].iter().copied().collect()
    }

    /// The state slots of a tensor.
    pub fn slots(&self, tensor: &str) -> Result<Vec<String>, JsError> {
        Ok(self.inner.slots(tensor).map_err(thrown)?.into_iter().map(String::from).collect())
    }

    /// The values of a state slot.
    pub fn state(&self, tensor: &str, slot: &str) -> Result<Vec<f32>, JsError> {
        Ok(self.inner.state(tensor, slot).map_err(thrown)?.iter().copied().collect())
    }
}
