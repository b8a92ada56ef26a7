//! Models as lists of tensors, the ways to store them, and what a training with AdamW takes then.

use serde_json::json;
use wgpu_optim::backend::traffic::step_bytes;
use wgpu_optim::{Config, DType, Memory, ParamRounding, Result, TensorSpec, Tuning, wgpu};

/// A model: its name, and its tensors in f32.
pub struct Model {
    pub name: &'static str,
    pub tensors: Vec<TensorSpec>,
}

impl Model {
    /// Tensors given by name and shape, those of a layer repeated so many times.
    fn new(name: &'static str, once: &[(&str, &[usize])], layers: usize, of_layer: &[(&str, &[usize])]) -> Self {
        let once = once.iter().map(|(name, shape)| TensorSpec::f32(*name, *shape));
        let layers = (0..layers).flat_map(|layer| {
            of_layer.iter().map(move |(name, shape)| TensorSpec::f32(format!("{layer}.{name}"), *shape))
        });
        Self { name, tensors: once.chain(layers).collect() }
    }

    /// How many parameters it has.
    pub fn len(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::len_elements).sum()
    }
}

/// The models.
pub fn models() -> [Model; 3] {
    const SPLATS: usize = 3_000_000;
    [
        Model::new(
            "GPT-2 124M",
            &[("wte", &[50_257, 768]), ("wpe", &[1024, 768]), ("ln_f.weight", &[768]), ("ln_f.bias", &[768])],
            12,
            &[
                ("ln_1.weight", &[768]),
                ("ln_1.bias", &[768]),
                ("attn.c_attn.weight", &[768, 2304]),
                ("attn.c_attn.bias", &[2304]),
                ("attn.c_proj.weight", &[768, 768]),
                ("attn.c_proj.bias", &[768]),
                ("ln_2.weight", &[768]),
                ("ln_2.bias", &[768]),
                ("mlp.c_fc.weight", &[768, 3072]),
                ("mlp.c_fc.bias", &[3072]),
                ("mlp.c_proj.weight", &[3072, 768]),
                ("mlp.c_proj.bias", &[768]),
            ],
        ),
        Model::new(
            "Llama 7B",
            &[("embed_tokens", &[32_000, 4096]), ("norm", &[4096]), ("lm_head", &[32_000, 4096])],
            32,
            &[
                ("q_proj", &[4096, 4096]),
                ("k_proj", &[4096, 4096]),
                ("v_proj", &[4096, 4096]),
                ("o_proj", &[4096, 4096]),
                ("gate_proj", &[11_008, 4096]),
                ("up_proj", &[11_008, 4096]),
                ("down_proj", &[4096, 11_008]),
                ("input_layernorm", &[4096]),
                ("post_attention_layernorm", &[4096]),
            ],
        ),
        Model::new(
            "3 M splats",
            &[
                ("means", &[SPLATS, 3]),
                ("scales", &[SPLATS, 3]),
                ("quats", &[SPLATS, 4]),
                ("opacities", &[SPLATS]),
                ("sh0", &[SPLATS, 1, 3]),
                ("sh_n", &[SPLATS, 15, 3]),
            ],
            0,
            &[],
        ),
    ]
}

/// A way to store what a training has.
pub struct Storing {
    pub name: &'static str,
    /// The format of parameters and gradients.
    pub format: DType,
    pub config: Config,
}

/// The ways to store, the one that takes most first.
pub fn ways() -> Vec<Storing> {
    let way = |name, format, options: serde_json::Value| {
        let mut all = json!({"optimizer": "adamw"});
        all.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        Storing { name, format, config: Config::from_value(all).expect("good options") }
    };
    vec![
        way("f32, gradients clipped", DType::F32, json!({"clip": {"global_norm": 1}})),
        way("f32", DType::F32, json!({})),
        way("bf16, f32 master", DType::Bf16, json!({"param_rounding": "master"})),
        way("bf16 and remainder", DType::Bf16, json!({"param_rounding": "remainder"})),
        way("bf16, stochastic", DType::Bf16, json!({"param_rounding": "stochastic"})),
        way("bf16 and remainder, q8", DType::Bf16, json!({"param_rounding": "remainder", "state_format": "q8"})),
        way("bf16, stochastic, q8", DType::Bf16, json!({"param_rounding": "stochastic", "state_format": "q8"})),
        way("bf16, stochastic, q4", DType::Bf16, json!({"param_rounding": "stochastic", "state_format": "q4"})),
    ]
}

/// What a training takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Takes {
    pub params: u64,
    pub grads: u64,
    /// The slots of the rule.
    pub state: u64,
    /// The master, or the remainder.
    pub kept: u64,
    /// Partial results of sums, and what the device decides.
    pub scratch: u64,
    /// What a step reads and writes of elements.
    pub moved: u64,
}

impl Takes {
    /// What there is in memory.
    pub fn stored(&self) -> u64 {
        self.params + self.grads + self.state + self.kept + self.scratch
    }
}

/// The tensors as they are stored.
pub fn stored(tensors: &[TensorSpec], format: DType) -> Vec<TensorSpec> {
    tensors.iter().map(|tensor| tensor.clone().with_dtype(format).with_grad_dtype(format)).collect()
}

/// What the training of a model takes on a large GPU.
pub fn takes(tensors: &[TensorSpec], way: &Storing) -> Result<Takes> {
    let limits = wgpu::Limits {
        max_buffer_size: 16 << 30,
        max_storage_buffer_binding_size: (1 << 31) - 256,
        ..wgpu::Limits::default()
    };
    let tuning = Tuning { lanes: 256, chunk_blocks: 4, shader_checks: false, dispatch_bytes: 16 << 30, placements: 2 };
    takes_on(&limits, tuning, tensors, way)
}

/// The same on a device with these limits.
pub fn takes_on(limits: &wgpu::Limits, tuning: Tuning, tensors: &[TensorSpec], way: &Storing) -> Result<Takes> {
    let tensors = stored(tensors, way.format);
    let memory = Memory::of(&way.config, &tensors, limits, tuning)?;
    let bare = way.config.clone().wrap(ParamRounding::Nearest);
    let state = Memory::of(&bare, &tensors, limits, tuning)?.state;
    let groups = way.config.groups(&tensors)?;
    let moved = |(i, tensor): (usize, &TensorSpec)| {
        // Of a tensor's first step a little less is read.
        step_bytes(groups.rule_of(i), groups.wrappers_of(i), tensor.formats(), tensor.len_elements(), 2, false)
    };
    Ok(Takes {
        params: tensors.iter().map(TensorSpec::size_bytes).sum(),
        grads: tensors.iter().map(TensorSpec::grad_size_bytes).sum(),
        state,
        kept: memory.state - state,
        scratch: memory.scratch + memory.accumulated,
        moved: tensors.iter().enumerate().map(moved).sum(),
    })
}
