//! What untrusted bytes go through. Each function returns an error, or does with the bytes what a program would do with
//! them; none panics, and none takes more memory than the length of the bytes allows. `tests/all/hostile.rs` calls the
//! same functions with bytes that it spoils one by one.

use ndarray::ArrayD;
use serde_json::{Value, json};
use wgpu_optim::{Checkpoint, Config, Reference, TensorSpec};

use super::recording::Recording;

type Result = std::result::Result<(), String>;

/// The tensors of every training here.
pub fn tensors() -> [TensorSpec; 3] {
    [TensorSpec::f32("w", [3, 5]), TensorSpec::f32("b.1", [2]), TensorSpec::f32("none", [0])]
}

/// A few steps, moves and settings.
fn train(reference: &mut Reference<f32>) -> Result {
    let filled = |tensor: &TensorSpec| ArrayD::from_elem(tensor.shape.clone(), 0.5f32);
    let mut params = tensors().each_ref().map(filled);
    let grads = tensors().each_ref().map(|tensor| Some(filled(tensor)));
    let mut error = Ok(());
    let mut note = |result: std::result::Result<(), wgpu_optim::Error>| {
        if let Err(found) = result {
            error = Err(found.to_string());
        }
    };
    for _ in 0..2 {
        if reference.needs_look_ahead() {
            note(reference.look_ahead(&mut params));
        }
        note(reference.step(&mut params, &grads));
        // Without a plateau, a metric is refused.
        drop(reference.feed(0.5));
        if reference.has_eval() {
            note(reference.eval(&mut params));
            note(reference.train(&mut params));
        }
    }
    error
}

/// Bytes of a checkpoint's file.
pub fn checkpoint(bytes: &[u8]) -> Result {
    let text = |error: wgpu_optim::Error| error.to_string();
    let checkpoint = Checkpoint::from_bytes(bytes).map_err(text)?;
    let mut reference = Reference::<f32>::load(&tensors(), &checkpoint).map_err(text)?;
    let saved = reference.save().and_then(|saved| saved.to_bytes()).map_err(text)?;
    train(&mut reference)?;
    Checkpoint::from_bytes(&saved).map(drop).map_err(text)
}

/// The text of a checkpoint's metadata, in a file that is sound but for it.
pub fn training(bytes: &[u8]) -> Result {
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    // Whatever is said of them, the values are those of Adam.
    let mut values = Vec::new();
    for tensor in tensors() {
        for slot in ["m", "v"] {
            values.push((format!("state.{}.{slot}", tensor.name), tensor.shape.clone()));
        }
    }
    checkpoint(&file(text, &values))
}

/// A checkpoint's file with sound checksums: this training, and values that are all 0.5.
pub fn file(training: &str, values: &[(String, Vec<usize>)]) -> Vec<u8> {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let (mut header, mut sums) = (serde_json::Map::new(), serde_json::Map::new());
    let mut data: Vec<u8> = Vec::new();
    for (name, shape) in values {
        let bytes = 0.5f32.to_le_bytes().repeat(shape.iter().product());
        sums.insert(name.clone(), format!("{:08x}", crc.checksum(&bytes)).into());
        let range = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": range}));
        data.extend(bytes);
    }
    let sums = Value::from(sums).to_string();
    let sum = format!("{:08x}", crc.checksum(format!("{training}{sums}").as_bytes()));
    let format = "wgpu-optim.checkpoint/2";
    let metadata = json!({"format": format, "training": training, "crc32c": sums, "crc32c_of_metadata": sum});
    header.insert("__metadata__".into(), metadata);
    let header = Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Bytes of a replay's recording.
pub fn recording(bytes: &[u8]) -> Result {
    let recording = Recording::parse(bytes).map_err(|error| error.to_string())?;
    let spec = |tensor: &super::recording::Recorded| TensorSpec::f32(&tensor.name, tensor.shape.as_slice());
    let specs: Vec<_> = recording.tensors.iter().map(spec).collect();
    let config = Config::from_value(json!({"optimizer": "adam"})).expect("a sound configuration");
    let text = |error: wgpu_optim::Error| error.to_string();
    let mut reference = Reference::<f32>::new(&config, &specs).map_err(text)?;
    let array = |tensor: &super::recording::Recorded, values: &[f32]| {
        ArrayD::from_shape_vec(tensor.shape.as_slice(), values.to_vec()).map_err(|error| error.to_string())
    };
    let params = recording.tensors.iter().map(|tensor| array(tensor, &tensor.param));
    let mut params = params.collect::<std::result::Result<Vec<_>, _>>()?;
    for step in 0..recording.steps {
        let grads = recording.tensors.iter().map(|tensor| array(tensor, tensor.grad(step)).map(Some));
        let grads = grads.collect::<std::result::Result<Vec<_>, _>>()?;
        reference.step(&mut params, &grads).map_err(text)?;
    }
    Ok(())
}

/// The text of a configuration.
pub fn config(bytes: &[u8]) -> Result {
    let text = |error: wgpu_optim::Error| error.to_string();
    let config = Config::from_json(str::from_utf8(bytes).map_err(|error| error.to_string())?).map_err(text)?;
    let again = serde_json::to_value(&config).map_err(|error| error.to_string())?;
    Config::from_value(again).map_err(text)?;
    let mut reference = Reference::<f32>::new(&config, &tensors()).map_err(text)?;
    train(&mut reference)
}
